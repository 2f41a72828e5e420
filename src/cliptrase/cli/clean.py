"""`cliptrase clean`: what no suite needs, listed, and with --yes removed."""

import argparse
import fnmatch
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cliptrase.errors import UserError, counted, printable
from cliptrase.files import discard, user_path

HELP = "list the runs and pass files that no suite needs; --yes removes them"

EPILOG = """\
A run is needed if a suite of conf/suite has it in a table. Runs that you made by hand belong to
no suite: --keep 'shapes.*' keeps those whose names fit the pattern. Datasets and archives stay.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, EPILOG
    add = parser.add_argument
    add("--results", type=user_path, default=Path("results"), help="results")
    add("--keep", action="append", default=[], metavar="PATTERN", help="names of runs to keep")
    add("--yes", action="store_true", help="remove what is listed")
    add("--json", action="store_true", help="the list as JSON")


def run(args: argparse.Namespace) -> None:
    """List what is not needed; remove it where that was asked for."""
    if not args.results.is_dir():
        raise UserError(f"--results {args.results}: no such folder")
    unneeded = list(_unneeded(args.results, args.keep))
    if args.yes:
        for each in unneeded:
            path = Path(each["path"])
            discard(path) if path.is_dir() else path.unlink(missing_ok=True)
    if args.json:
        print(json.dumps(unneeded, indent=1, ensure_ascii=False))
        return
    for each in unneeded:
        print(printable(f"{each['bytes'] / 1e6:9.2f} MB  {each['path']}  ({each['reason']})"))
    total = sum(each["bytes"] for each in unneeded) / 1e6
    what = counted(len(unneeded), "path")
    if not unneeded:
        print("nothing to remove: every run belongs to a suite")
    elif args.yes:
        print(f"removed {what}, {total:.1f} MB")
    else:
        print(f"{what}, {total:.1f} MB; `cliptrase clean --yes` removes them")


def _unneeded(results: Path, keep: list[str]) -> Iterator[dict[str, Any]]:
    """The folders of runs that no suite has, and the pass files of passes that no suite has."""
    from cliptrase import plan  # pydantic and all of conf/: not for --help
    from cliptrase.publish.run_report import run_folders

    plans = [plan.load(suite) for suite in plan.suites()]
    runs = {name for each in plans for name in each.runs}
    passes = {(each.suite, name) for each in plans for name in each.passes}
    for folder in run_folders(results):
        kept = any(fnmatch.fnmatchcase(folder.name, pattern) for pattern in keep)
        if folder.name not in runs and not kept:
            yield _entry(folder, "a run of no suite")
    for file in sorted((results / "passes").glob("*/*.json")):
        if (file.parent.name, file.stem) not in passes:
            yield _entry(file, "of a pass that no suite has")


def _entry(path: Path, reason: str) -> dict[str, Any]:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    size = sum(file.stat().st_size for file in files)
    return {"path": str(path), "bytes": size, "reason": reason}
