"""How each dataset is made, and what it must be by its source.

Imports nothing heavy: planning asks whether a dataset is what its sources say.
"""

import ast
import hashlib
import importlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from cliptrase.data.fetch.sources import (
    Archive,
    DatasetSource,
    raw_path,
    read_sources,
    sources_path,
)
from cliptrase.data.make.records import Record, drawn
from cliptrase.data.read.selfcheck import SelfCheck
from cliptrase.errors import UserError, nearest
from cliptrase.files import sha256_syntax

HERE = Path(__file__).parent
IDS = HERE.parent / "ids"
FOREIGN = "the files are not those of the source"
DRAWN = ("shapes", "shapes_clean")  # the embedded benchmark, which needs no archives
NO_SCENE = (  # of shapes/: of the embedded networks alone
    *("card.py", "card_sam.py", "descent.py", "model.py", "sam.py"),
    *("train.py", "train_dino.py", "train_sam.py", "views.py"),
)


@dataclass(frozen=True)
class Recipe:
    """How a dataset is made: its records, sorted by id, and the code that makes them.

    source: its archives and figures, None for a dataset that is drawn. folders: where the archives
    were extracted to, () if they are read as they were fetched.
    """

    count: int
    records: Callable[[], Iterator[Record]]
    code: tuple[Path, ...]
    source: DatasetSource | None = None
    data: Path = Path("data")
    folders: tuple[Path, ...] = ()

    @property
    def archives(self) -> list[Archive]:
        """The archives that must be in <data>/raw first."""
        return self.source.needed() if self.source else []

    @property
    def optional(self) -> list[Archive]:
        """The archives that it can do without."""
        return list(self.source.optional.values()) if self.source else []

    def subsets(self, ids: list[str], archive: Archive) -> dict[str, list[str]]:
        """name → ids, of those of the dataset, that an optional archive lists."""
        if self.source is None:
            return {}
        lists = getattr(_module(self.source), "subsets", None)
        path = raw_path(archive, self.data)
        places = (path,) if path.is_file() or not self.folders else self.folders
        return lists(self.source, places, ids, archive) if lists else {}

    def digest(self) -> str:
        """sha256 of the code without comments and docstrings: a dataset made by other code is made
        again."""
        trees = [(path.name, ast.parse(path.read_bytes())) for path in self.code]
        content = [f"{name} {sha256_syntax(tree)}" for name, tree in trees]
        return hashlib.sha256("\n".join(content).encode()).hexdigest()

    def stated(self, used: Collection[str] = ()) -> dict[str, object]:
        """What the sources say that the dataset is, as JSON has it: count, figures, archives.

        used: the names of the optional archives that count. Raises UserError for a list of ids that
        is not there.
        """
        if self.source is None:
            return {}
        figures = self.source.expected.model_dump(mode="json", exclude_unset=True)
        ids = known_ids(self.source, self.data)
        if ids is not None:
            figures["ids"] = hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()
        optional = [archive for archive in self.optional if archive.name in used]
        archives = {
            archive.name: archive.model_dump(mode="json", include={"bytes", "checksum"})
            for archive in [*self.archives, *optional]
        }
        return {"count": self.count, "expected": figures, "archives": archives}

    def outdated(self, check: SelfCheck) -> str | None:
        """Why a dataset with this self-check must be made again, None if it need not be.

        It must if the code that makes it or what its sources say has changed. Whether its files are
        whole is another question.
        """
        if check.get("recipe_sha256") != self.digest():
            return "made by another version of the code that makes it"
        if self.source is None:
            return None
        before, now = check.get("stated"), self.stated(check.get("archives", {}))
        if before == now:
            return None
        return f"its sources say something else now: {_difference(before, now)}"


def recipe(
    dataset: str, data: Path | str = "data", folders: Path | str | Iterable[Path | str] = ()
) -> Recipe:
    """The recipe of a dataset, whose archives are those that the data folder's sources name.

    folders: where they were extracted to. Raises UserError: unknown dataset, sources that cannot be
    read, no such folder. Loads no numpy for a dataset that comes from archives.
    """
    code = code_files(dataset, data)
    listed = [folders] if isinstance(folders, (str, Path)) else folders
    places = tuple(Path(folder).expanduser() for folder in listed)
    for place in places:
        if not place.is_dir():
            fault = "is no folder" if place.exists() else "there is no such folder"
            raise UserError(f"--from {place}: {fault}; give one that archives were extracted to")
    if dataset in DRAWN:
        if places:
            raise UserError(f"{dataset} is drawn, not made from archives: leave `--from` out")
        from cliptrase.shapes.scenes import TEST_SEEDS

        return Recipe(len(TEST_SEEDS), lambda: drawn(dataset), code)
    source = read_sources(data).datasets[dataset]
    folder = Path(data)
    return Recipe(
        source.count,
        lambda: _module(source).records(source, folder, places),
        code,
        source,
        folder,
        places,
    )


def code_files(dataset: str, data: Path | str = "data") -> tuple[Path, ...]:
    """The files whose code decides what is prepared. Raises UserError as `recipe`; no numpy."""
    if dataset in DRAWN:
        shapes = sorted((HERE.parents[1] / "shapes").glob("*.py"))
        return (HERE / "records.py", *(each for each in shapes if each.name not in NO_SCENE))
    sources = read_sources(data)
    if dataset not in sources.datasets:
        hint = nearest(dataset, [*DRAWN, *sources.datasets])
        raise UserError(f"unknown dataset {dataset!r}; {hint} (see {sources_path(data)})")
    module = HERE / "archives" / f"{dataset}.py"
    if not module.is_file():
        raise UserError(f"{sources_path(data)}: {dataset}: no code prepares it; write {module}")
    shared = ("archives/common.py", "containers.py", "records.py")
    read = (HERE.parent / "read" / name for name in ("images.py", "opencv.py"))
    return (module, *(HERE / name for name in shared), *read)


def known_ids(source: DatasetSource, data: Path) -> list[str] | None:
    """The ids of `expected: ids`, or of the file that it names; None where the source lists none.

    The file lies beside the sources, or ships. Raises UserError for a file that is not there.
    """
    ids = source.expected.ids
    if not isinstance(ids, str):
        return None if ids is None else list(ids)
    beside = sources_path(data).parent / ids
    for path in (beside, IDS / ids):
        if path.is_file():
            return path.read_text(encoding="utf-8").split()
    raise UserError(f"{source.name}: expected: ids: there is no file {beside}")


def check_ids(dataset: str, ids: Iterable[str], listed: Iterable[str] | None) -> None:
    """Compare ids with the list of the source, if there is one.

    Raises UserError naming one that is missing, and one that is too many.
    """
    if listed is None or set(ids) == set(listed):
        return
    present, wanted = set(ids), set(listed)
    faults = ((wanted - present, "missing"), (present - wanted, "not of this dataset"))
    named = [
        f"{and_more(sorted(some))} {'is' if len(some) == 1 else 'are'} {fault}"
        for some, fault in faults
        if some
    ]
    raise UserError(
        f"{dataset}: images by `expected: ids` of its source: {', and '.join(named)}; {FOREIGN}"
    )


def check_figures(source: DatasetSource, check: SelfCheck) -> None:
    """Compare a self-check with the figures of the source.

    Raises UserError naming the dataset, the figure, and both values.
    """
    ids, pixels = source.expected.ids_sha256, check["label_pixels"]
    if ids not in (None, check["ids_sha256"]):
        fault = f"ids_sha256: {check['ids_sha256']} instead of {ids}"
        raise UserError(f"{source.name}: {fault}; {FOREIGN}")
    for labels, low, high in source.expected.shares:
        share = sum(pixels.get(str(raw), 0) for raw in labels) / sum(pixels.values())
        if not low <= share <= high:
            which = ", ".join(map(str, labels))
            fault = f"share of pixels of label {which}: {share:.4f} instead of {low} to {high}"
            raise UserError(f"{source.name}: {fault}; {FOREIGN}")


def and_more(names: list[str], shown: int = 3) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _difference(before: object, now: object, where: str = "") -> str:
    """The first thing in which two values of JSON differ, for people."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in [*now, *before]:
            if before.get(key) != now.get(key):
                return _difference(before.get(key), now.get(key), f"{where}{key}: ")
    texts = [value if isinstance(value, str) else json.dumps(value) for value in (now, before)]
    new, old = (text if len(text) < 100 else f"{text[:100]}…" for text in texts)
    return f"{where}{new} instead of {old}"


def _module(source: DatasetSource) -> ModuleType:
    return importlib.import_module(f"cliptrase.data.make.archives.{source.name}")
