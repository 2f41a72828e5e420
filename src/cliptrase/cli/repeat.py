"""`cliptrase repeat RUN`: a run made again from its folder alone, and compared byte by byte."""

import argparse
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cliptrase.cli.show import RUN
from cliptrase.errors import UserError, printable
from cliptrase.files import user_path

if TYPE_CHECKING:
    from cliptrase.config import Run
    from cliptrase.publish.run_report import Folder

HELP = "make a run again from its folder alone, and say whether the bytes are the same"
LISTS = {  # override → the list of words that it names
    "vocabulary": "classes",
    "benchmark.classes": "classes",
    "benchmark.background": "background",
}
ELSEWHERE = ("out", "data", "device", "workers", "batch_size", "save_maps")  # no part of a number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run_word", metavar="RUN", help=RUN)
    add("--results", type=user_path, default=Path("results"), help="results")
    add("--data", type=user_path, help="the data folder (default: the one that the run had)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--json", action="store_true", help="the outcome as JSON")


def run(args: argparse.Namespace) -> None:
    """Make it in a temporary folder and compare. Raises UserError where the bytes differ, and for a
    run that cannot be made again: one of a version that did not write down how, or of a
    configuration, words or data that are no longer there."""
    from cliptrase.evaluate.console import log_to_stderr
    from cliptrase.publish.run_report import find_run  # NumPy: not for --help
    from cliptrase.runs import finished

    folder = find_run(args.results, args.run_word)
    if folder.made.get("overrides") is None:
        raise UserError(f"{folder.path}: made by a version that did not write down its command")
    data = args.data or Path(folder.made["data_folder"])
    with tempfile.TemporaryDirectory() as made_in:
        again = _resolved(folder, Path(made_in))
        digest = finished.data_digest(again, data)
        if digest not in (None, folder.made.get("data")):
            raise UserError(f"{data}: holds other data than the run was made from; give --data")
        log_to_stderr()
        import cliptrase.model.lean  # noqa: F401
        from cliptrase.evaluate.passes import run_pass  # torch: after what fails quickly

        out = Path(made_in, "runs")
        (made,) = run_pass(
            {again.name: again},
            partial=Path(made_in, "partial.npz"),
            out=out,
            data=data,
            device=args.device,
        ).values()
        written = folder.made["files"]
        digests = finished.file_digests(made)
        other = sorted(name for name in digests if digests[name] != written.get(name))
        values = [each["mIoU"] for each in (folder.metrics, _metrics(made))]
    outcome = {"run": folder.path.name, "same": not other, "other": other, "mIoU": values}
    if args.json:
        print(json.dumps(outcome, indent=1))
    if not other:
        if not args.json:
            names = ", ".join(sorted(digests))
            print(printable(f"{folder.path.name}: the same bytes: {names}"))
        return
    raise UserError(
        f"{folder.path.name}: made again, {', '.join(other)} have other bytes; mIoU {values[0]} "
        f"then, {values[1]} now{_changed(folder.made)}"
    )


def _metrics(folder: Path) -> Mapping[str, Any]:
    from cliptrase.runs.store import read_metrics

    return read_metrics(folder)


def _resolved(folder: "Folder", place: Path) -> "Run":
    """The run of a folder, from the overrides and the words that the folder holds. Raises UserError
    where they no longer make the configuration that the folder holds."""
    from cliptrase import config

    for own in set(folder.made["conf_folders"]) - {str(own) for own in config.files.folders()}:
        config.files.add_folder(own)
    before = folder.made["working_folder"]
    here = os.getcwd()
    if Path(before).is_dir():
        os.chdir(before)  # paths in overrides are relative to it
    try:
        run = config.resolve(_overrides(folder.made, place))
    finally:
        os.chdir(here)
    written = yaml.safe_load((folder.path / "config.yaml").read_text(encoding="utf-8"))
    if run.identity != written:
        key, then, now = _first_other(written, run.identity)
        raise UserError(
            f"{folder.path}: its command makes another configuration today: {key} was {then!r}, is "
            f"{now!r}"
        )
    return run


def _overrides(made: Mapping[str, Any], place: Path) -> list[str]:
    """The overrides of a run, lists of words of the user's replaced by those that were kept."""
    overrides = []
    for override in made["overrides"]:
        key, _, value = override.partition("=")
        kept = made["words"].get(LISTS.get(key, ""))
        if key in ELSEWHERE:
            continue
        name = Path(value.strip("'\""))
        if kept is not None and name.suffix:
            file = place / name.name
            file.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
            override = f"{key}='{file}'"
        overrides.append(override)
    return overrides


def _first_other(then: Any, now: Any, key: str = "") -> tuple[str, Any, Any]:
    """The first key whose value differs, and both values."""
    if isinstance(then, dict) and isinstance(now, dict):
        for name in [*then, *now]:
            if then.get(name) != now.get(name):
                return _first_other(then.get(name), now.get(name), f"{key}.{name}".lstrip("."))
    return key, then, now


def _changed(made: Mapping[str, Any]) -> str:
    """What is not as it was when the run was made."""
    from cliptrase.runs import code
    from cliptrase.runs.provenance import COMPUTING, versions

    then: Mapping[str, Any] = made.get("versions") or {}
    changed: Sequence[str] = [
        f"{package} was {then.get(package)}, is {versions()[package]}"
        for package in COMPUTING
        if then.get(package) != versions()[package]
    ]
    if made.get("code") != code.prediction_digest():
        changed = [*changed, "the prediction code is another"]
    return f"; {'; '.join(changed)}" if changed else ""
