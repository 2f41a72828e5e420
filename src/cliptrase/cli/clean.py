"""`cliptrase clean`: what no suite needs, listed, and with --yes removed."""

import argparse
import fnmatch
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cliptrase.cli.output import tell
from cliptrase.errors import UserError, counted
from cliptrase.files import discard, user_path

HELP = "list the runs, pass files and sweep tables that no suite needs; --yes removes them"

EPILOG = """\
A run is needed if a suite of conf/suite has it in a table. Runs that you made by hand belong to
no suite: --keep 'shapes.*' keeps those whose names fit the pattern. Datasets and archives stay, and
so does what is no file of a run, lies behind a link, or stands outside the results folder.
"""


@dataclass(frozen=True)
class Unneeded:
    """A file or folder that no suite needs, and why."""

    path: str
    bytes: int
    reason: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, EPILOG
    add = parser.add_argument
    add("--results", type=user_path, default=Path("results"), help="the results folder (results)")
    add("--keep", action="append", default=[], metavar="PATTERN", help="names of runs to keep")
    add("--yes", action="store_true", help="remove what is listed")
    add("--json", action="store_true", help="the list as JSON")


def run(args: argparse.Namespace) -> None:
    """List what is not needed; remove it where that was asked for. Raises UserError for no such
    folder, a suite that cannot be planned, and what cannot be removed."""
    if not args.results.is_dir():
        raise UserError(f"--results {args.results}: no such folder")
    unneeded = list(_unneeded(args.results, args.keep))
    for each in unneeded if args.yes else ():
        discard(Path(each.path))
    left = [each.path for each in unneeded if args.yes and Path(each.path).exists()]
    lines = _lines(unneeded, args.yes, len(left))
    tell([asdict(each) for each in unneeded], lines, as_json=args.json)
    if left:
        raise UserError(f"{counted(len(left), 'path')} could not be removed: {', '.join(left)}")


def _lines(unneeded: Sequence[Unneeded], removed: bool, left: int) -> Iterator[str]:
    for each in unneeded:
        yield f"{each.bytes / 1e6:9.2f} MB  {each.path}  ({each.reason})"
    total = sum(each.bytes for each in unneeded) / 1e6
    if not unneeded:
        yield "nothing to remove"
    elif removed:
        yield f"removed {counted(len(unneeded) - left, 'path')}"
    else:
        paths = counted(len(unneeded), "path")
        yield f"{paths}, {total:.1f} MB; with --yes the same command removes them"


def _unneeded(results: Path, keep: list[str]) -> Iterator[Unneeded]:
    """The folders of runs that no suite has, the pass files of passes that no suite has, and the
    tables of sweeps none of whose runs stays."""
    from cliptrase import plan  # pydantic and all of conf/: not for --help
    from cliptrase.publish.run_folders import run_folders

    plans = [plan.load(suite) for suite in plan.suites()]
    runs = {name for each in plans for name in each.runs}
    passes = {(each.suite, name) for each in plans for name in each.passes}
    stay = set()
    for folder in run_folders(results):
        kept = any(fnmatch.fnmatchcase(folder.name, pattern) for pattern in keep)
        if folder.name in runs or kept or not _is_run(folder, results):
            stay.add(folder.name)
        else:
            yield _entry(folder, "a run of no suite")
    for file in sorted((results / "passes").glob("*/*.json")):
        if (file.parent.name, file.stem) not in passes and _lies_in(file, results):
            yield _entry(file, "of a pass that no suite has")
    for file in sorted((results / "sweeps").glob("*.json")):
        swept = _swept(file)
        if swept and stay.isdisjoint(swept) and _lies_in(file, results):
            for each in (file, file.with_suffix(".csv")):
                if each.is_file() and _lies_in(each, results):
                    yield _entry(each, "a sweep whose runs go or are gone")


def _is_run(folder: Path, results: Path) -> bool:
    """Whether it holds the files of a run and nothing else."""
    from cliptrase.runs import finished

    files = {*finished.FILES, *finished.SOME, finished.MAPS, *finished.LEGEND}
    names = {each.name for each in folder.iterdir() if each.name[0] != "."}
    return names <= files and _lies_in(folder, results)


def _lies_in(path: Path, results: Path) -> bool:
    """Whether it lies in the results folder, not behind a link in it."""
    inside = path.relative_to(results)
    return path.resolve() == results.resolve() / inside


def _swept(file: Path) -> list[str]:
    """The runs of a sweep's table; none where it is something else."""
    try:
        return [line["run"] for line in json.loads(file.read_text("utf-8")) if "run" in line]
    except (OSError, ValueError, TypeError):
        return []


def _entry(path: Path, reason: str) -> Unneeded:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    size = sum(file.lstat().st_size for file in files)
    return Unneeded(str(path), size, reason)
