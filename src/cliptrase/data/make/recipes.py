"""How each dataset is made: its archives, its records in order, and the code that makes them."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cliptrase.data.fetch.sources import Archive, DatasetSource, read_sources
from cliptrase.data.make.expected import known_ids
from cliptrase.data.make.records import Record, png
from cliptrase.errors import UserError, nearest
from cliptrase.files import sha256_file

HERE = Path(__file__).parent
SHAPES = HERE.parents[1] / "shapes"
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


class UnknownDataset(UserError):
    """No dataset that this version can make."""


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
    ids: Callable[[], list[str] | None] = lambda: None  # as the sources say
    subsets: Callable[[list[str], Archive], dict[str, list[str]]] = lambda ids, archive: {}

    def digest(self) -> str:
        """sha256 of the code: a dataset made by other code is made again."""
        content = [f"{path.name} {sha256_file(path)}" for path in self.code]
        return hashlib.sha256("\n".join(content).encode()).hexdigest()

    def stated(self, used: Collection[str] = ()) -> dict[str, Any]:
        """What the sources say that the dataset is, as JSON has it: count, figures, archives.

        used: the optional archives that count, by name. Raises UserError for a list of ids that is
        not there.
        """
        figures, ids = dict(self.expected), self.ids()
        if ids is not None:
            figures["ids"] = hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()
        counted = [*self.archives, *(one for one in self.optional if one.name in used)]
        archives = {one.name: {"bytes": one.bytes, "checksum": one.checksum} for one in counted}
        said = {"count": self.count, "expected": figures, "archives": archives}
        return dict(json.loads(json.dumps(said, default=str)))

    def outdated(self, check: dict[str, Any]) -> str | None:
        """Why a dataset of this self-check is to be made again, None where it is of this code and
        of what the sources say now. Whether its files are whole is another question."""
        if check.get("recipe_sha256") != self.digest():
            return "made by another version of the code that makes it"
        now = self.stated(check.get("archives") or {})
        if not self.archives or check.get("stated") == now:
            return None
        return f"its sources say something else now: {_difference(check.get('stated'), now)}"


def recipe(dataset: str, data: Path | str = "data") -> Recipe:
    """The recipe of a dataset, whose archives are those that the data folder's sources name.

    Raises UnknownDataset, or UserError for sources that cannot be read. Loads no numpy for a
    dataset that comes from archives.
    """
    if dataset in ARCHIVED:
        return _from_archives(read_sources(data).dataset(dataset), Path(data))
    from cliptrase.shapes.scenes import EVALUATION, TEST_SEEDS

    if dataset in EVALUATION:
        code = (HERE / "recipes.py", HERE / "records.py", *sorted(SHAPES.glob("*.py")))
        return Recipe(len(TEST_SEEDS), lambda: _scenes(dataset, len(TEST_SEEDS)), code)
    raise UnknownDataset(
        f"unknown dataset {dataset!r}; {nearest(dataset, [*EVALUATION, *ARCHIVED])}"
    )


def _from_archives(source: DatasetSource, data: Path) -> Recipe:
    archives = HERE / "archives"
    code = [archives / "common.py", archives / f"{source.name}.py"]
    code += [HERE / name for name in ("containers.py", "records.py")]
    code += [HERE.parent / "read" / name for name in ("images.py", "opencv.py")]

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
        lambda: known_ids(source, data),
        subsets,
    )


def _difference(before: Any, now: Any, where: str = "") -> str:
    """The first thing in which two values of JSON differ, for people."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*now, *before]:
            if before.get(key) != now.get(key):
                return _difference(before.get(key), now.get(key), f"{where}{key}: ")
    texts = [value if isinstance(value, str) else json.dumps(value) for value in (now, before)]
    new, old = (text if len(text) < 100 else f"{text[:100]}…" for text in texts)
    return f"{where}{new} instead of {old}"


def _module(source: DatasetSource) -> Any:
    return importlib.import_module(f"cliptrase.data.make.archives.{source.name}")


def _scenes(dataset: str, count: int) -> Iterator[Record]:
    """The embedded benchmark: the same ids with and without clutter, so that runs pair up."""
    from cliptrase.shapes.scenes import evaluation_scene

    for index in range(count):
        scene = evaluation_scene(dataset, index)
        yield Record(f"scene_{index:03d}", png(scene.image), png(scene.label))
