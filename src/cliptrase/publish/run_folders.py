"""The folders of finished runs: found by a word, and read. Loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptrase.errors import UserError, nearest
from cliptrase.runs import finished, scoring, store
from cliptrase.runs.counts import ImageCounts

RUN_NAME = f"[!.]*.{store.NAME_END}/"  # the pattern of a run's folder
DIGITS = 10  # of its identity, at the end of a run's name
Facts = dict[str, Any]  # plain values, as JSON has them


@dataclass(frozen=True, eq=False)
class Folder:
    """The folder of a finished run. Raises UserError, when it is read, for a damaged one."""

    path: Path

    @cached_property
    def metrics(self) -> Facts:
        """metrics.json."""
        return store.read_metrics(self.path)

    @cached_property
    def made(self) -> Mapping[str, Any]:
        """provenance.json."""
        return finished.read_provenance(self.path)

    @cached_property
    def counts(self) -> ImageCounts:
        """Pixels by image and class."""
        return scoring.read_counts(self.path)

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """(K, K), rows = ground truth; one column more for pixels of no class."""
        with np.load(self.path / "confusion.npz", allow_pickle=False) as file:
            return file["confusion"]

    @property
    def names(self) -> list[str]:
        """The names of the scored classes."""
        return [each["name"] for each in self.metrics["iou"]]


def run_folders(results: Path) -> list[Path]:
    """The folders of runs, by name, damaged ones too."""
    return sorted((results / "runs").glob(RUN_NAME))


def found_folders(results: Path) -> list[Path]:
    """The same, and those that `out=` wrote into the folder itself."""
    return sorted([*run_folders(results), *results.glob(RUN_NAME)], key=lambda each: each.name)


def find_run(results: Path, word: str) -> Folder:
    """The run that a word means: a folder, a name (with or without the digits at its end), or the
    only name that has the word in it, of a results folder or of one that `out=` named.

    Raises UserError for none, several, and one whose files are not those that were written.
    """
    folder = Path(word)
    if not any((folder / name).is_file() for name in finished.FILES):
        if not word.strip("./"):
            raise UserError(f"run {word!r}: this folder holds no run; give the folder of one")
        folders = {path.name: path for path in found_folders(results)}
        names = list(folders)
        whole = [name for name in names if word in (name, name[: -1 - DIGITS])]
        holding = whole or [name for name in names if word in name]
        if not holding:
            near = nearest(word, names).partition("There is:")[0]  # of hundreds
            hint = near + "`cliptrase list runs` shows all" if names else "there is none"
            raise UserError(f"run {word!r}: no such run in {results / 'runs'}; {hint}")
        if len(holding) > 1:
            some = ", ".join(holding[:5]) + ", …" * (len(holding) > 5)
            raise UserError(f"run {word!r}: {len(holding)} runs have it in their names: {some}")
        folder = folders[holding[0]]
    if reason := finished.damage_of(folder):
        raise UserError(f"{folder}: {reason}; delete it and make the run again")
    return Folder(folder.resolve())
