"""How each dataset is made: its archives, its records in order, and the code that makes them."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cliptrase.data.records import Record, png
from cliptrase.data.sources import Archive, DatasetSource, read_sources
from cliptrase.errors import UserError, nearest
from cliptrase.files import sha256_file

HERE = Path(__file__).parent
SHAPES = HERE / "shapes"
# Raw values that a mask can hold at all; `expected: label_values` of the sources may say less.
LABEL_VALUES: dict[str, tuple[tuple[int, int], ...]] = {
    "coco": ((0, 181), (255, 255)),
    "voc2012": ((0, 20), (255, 255)),
    "pcontext": ((0, 459),),
    "ade2016": ((0, 150),),
    "ade2021": ((0, 25 * 256 + 255),),  # (R // 10) * 256 + G
    "cityscapes": ((0, 33),),
}
ARCHIVED = tuple(LABEL_VALUES)


@dataclass(frozen=True)
class Recipe:
    """How a dataset is made: its records, sorted by id, and the code that makes them.

    archives: what must be in <data>/raw first; optional: what it can do without. expected: the
    figures that the prepared dataset is held against, `label_values` always among them where it
    comes from archives. subsets(ids, archive): name → ids, of those of the dataset, that an
    optional archive lists.
    """

    count: int
    records: Callable[[], Iterator[Record]]
    code: tuple[Path, ...]
    archives: tuple[Archive, ...] = ()
    optional: tuple[Archive, ...] = ()
    expected: dict[str, Any] = field(default_factory=dict)
    subsets: Callable[[list[str], Archive], dict[str, list[str]]] = lambda ids, archive: {}

    def digest(self) -> str:
        """sha256 of the code: a dataset made by other code is made again."""
        content = [f"{path.name} {sha256_file(path)}" for path in self.code]
        return hashlib.sha256("\n".join(content).encode()).hexdigest()

    def stated(self) -> str:
        """sha256 of what the sources say that the dataset is: count, figures, archives."""
        archives = [(one.name, one.bytes, one.checksum) for one in self.archives]
        content = json.dumps([self.count, self.expected, archives], sort_keys=True, default=str)
        return hashlib.sha256(content.encode()).hexdigest()


def recipe(dataset: str, data: Path | str = "data") -> Recipe:
    """The recipe of a dataset, whose archives are those that the data folder's sources name.

    Raises UserError for an unknown dataset, or sources that cannot be read. Loads no numpy for a
    dataset that comes from archives.
    """
    if dataset in ARCHIVED:
        return _from_archives(read_sources(data).dataset(dataset), Path(data))
    from cliptrase.data.shapes.scenes import EVALUATION, TEST_SEEDS

    if dataset in EVALUATION:
        code = (HERE / "recipes.py", HERE / "records.py", *sorted(SHAPES.glob("*.py")))
        return Recipe(len(TEST_SEEDS), lambda: _scenes(dataset, len(TEST_SEEDS)), code)
    raise UserError(f"unknown dataset {dataset!r}; {nearest(dataset, [*EVALUATION, *ARCHIVED])}")


def _from_archives(source: DatasetSource, data: Path) -> Recipe:
    archives = HERE / "archives"
    code = [archives / "common.py", archives / f"{source.name}.py"]
    code += [HERE / name for name in ("containers.py", "images.py", "opencv.py", "records.py")]

    def subsets(ids: list[str], archive: Archive) -> dict[str, list[str]]:
        made = getattr(_module(source), "subsets", None)
        return made(source, data, ids, archive) if made else {}

    return Recipe(
        source.count,
        lambda: _module(source).records(source, data),
        tuple(code),
        tuple(source.needed()),
        tuple(source.optional.values()),
        {"label_values": LABEL_VALUES[source.name]} | source.expected,
        subsets,
    )


def _module(source: DatasetSource) -> Any:
    return importlib.import_module(f"cliptrase.data.archives.{source.name}")


def _scenes(dataset: str, count: int) -> Iterator[Record]:
    """The embedded benchmark: the same ids with and without clutter, so that runs pair up."""
    from cliptrase.data.shapes.scenes import evaluation_scene

    for index in range(count):
        scene = evaluation_scene(dataset, index)
        yield Record(f"scene_{index:03d}", png(scene.image), png(scene.label))
