"""Prepare a dataset: `python -m cliptrase.data.prepare DATASET [--data data]`.

Made in a folder of its own beside its place and renamed when it is whole and checked: killed at any
moment, what stands there is a whole dataset or none, and the next run starts afresh.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from cliptrase.data import prepared, recipes
from cliptrase.data.recipes import Recipe
from cliptrase.errors import UserError, exit_on_user_error
from cliptrase.files import atomic_write, naming_the_path


def prepare(dataset: str, data: Path | str = "data", *, force: bool = False) -> Path:
    """Make a dataset below the data folder, unless it is there, whole and of this code.

    Returns its folder. Raises UserError: unknown dataset, full disk, folder that cannot be written.
    """
    chosen = recipes.recipe(dataset)
    target = prepared.prepared_folder(dataset, data)
    with naming_the_path(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target.parent / f".{dataset}.lock"):
            if not force and _is_current(target, chosen):
                return target
            for left_over in target.parent.glob(f".{dataset}.[0-9]*"):
                shutil.rmtree(left_over)
            making = target.parent / f".{dataset}.{os.getpid()}"
            try:
                _make(making, dataset, chosen)
                _replace(making, target)
            finally:
                shutil.rmtree(making, ignore_errors=True)
    return target


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="cliptrase prepare", description="Prepare a dataset: data/prepared/DATASET."
    )
    parser.add_argument("dataset", metavar="DATASET", help="shapes or shapes_clean")
    parser.add_argument("--data", type=Path, default=Path("data"), help="data folder (data)")
    parser.add_argument("--force", action="store_true", help="make it again where it exists")
    options = parser.parse_args(arguments)
    folder = prepare(options.dataset, options.data, force=options.force)
    check = prepared.read_selfcheck(folder) or {}
    sys.stdout.write(f"{folder}: {check.get('count')} samples\n")


def _make(folder: Path, dataset: str, chosen: Recipe) -> None:
    folder.mkdir()
    arrow = folder / prepared.ARROW
    progress = tqdm(
        chosen.records(), desc=dataset, total=chosen.count, unit=" images", disable=None
    )
    prepared.write_arrow(arrow, progress)
    with open(arrow, "rb") as file:
        os.fsync(file.fileno())
    check = prepared.self_check(prepared.PreparedSamples(folder))
    if check["count"] != chosen.count:
        raise UserError(f"{dataset}: {check['count']} samples instead of {chosen.count}")
    check |= {
        "dataset": dataset,
        "recipe_sha256": chosen.digest(),
        "arrow_bytes": arrow.stat().st_size,
    }
    with atomic_write(folder / prepared.SELFCHECK, "w") as text:
        json.dump(check, text, indent=1, sort_keys=True)
        text.write("\n")


def _is_current(target: Path, chosen: Recipe) -> bool:
    check = prepared.read_selfcheck(target)
    if check is None or check.get("recipe_sha256") != chosen.digest():
        return False
    arrow = target / prepared.ARROW
    return arrow.is_file() and arrow.stat().st_size == check.get("arrow_bytes")


def _replace(made: Path, target: Path) -> None:
    """Put a whole folder in the place of another, or of none."""
    if target.exists():
        old = made.with_name(f"{made.name}.old")
        os.replace(target, old)
        os.replace(made, target)
        shutil.rmtree(old)
    else:
        os.replace(made, target)


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold a lock that dies with the process: two preparations of one dataset take turns."""
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    main()
