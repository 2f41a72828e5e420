"""`cliptrase repeat RUN`: a run made again from its folder alone, and compared byte by byte."""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cliptrase.cli.completion import add_run
from cliptrase.cli.show import RUN
from cliptrase.errors import UserError, printable
from cliptrase.files import user_path

if TYPE_CHECKING:
    from cliptrase.config import Run
    from cliptrase.publish.run_folders import Folder

HELP = "make a run again from its folder alone, and say whether the bytes are the same"
LISTS = {  # override → the list of words that it names
    "vocabulary": "classes",
    "benchmark.classes": "classes",
    "benchmark.background": "background",
    "benchmark.templates": "templates",
}
ELSEWHERE = ("out", "data", "device", "workers", "batch_size", "save_maps")  # no part of a number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_run(parser, "run_word", "RUN", RUN)
    add("--results", type=user_path, default=Path("results"), help="the results folder (results)")
    add("--data", type=user_path, help="the data folder (the one that the run had)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    add("--json", action="store_true", help="the outcome as JSON")


def run(args: argparse.Namespace) -> None:
    """Make it in a temporary folder and compare. Raises UserError where the bytes differ, and for a
    run that cannot be made again: one of a version that did not write down how, or of a
    configuration, words or data that are no longer there."""
    from cliptrase.config.settings import check_device
    from cliptrase.evaluate.console import log_to_stderr
    from cliptrase.publish.run_folders import find_run  # NumPy: not for --help
    from cliptrase.runs import finished, store

    check_device(args.device)
    folder = find_run(args.results, args.run_word)
    if folder.made.get("overrides") is None:
        raise UserError(
            f"{folder.path}: made by a version that did not write down its command; config.yaml "
            "there says what to write, and the next run of it can be repeated"
        )
    data = args.data or Path(folder.made["data_folder"])
    with tempfile.TemporaryDirectory() as place:
        again = _resolved(folder, Path(place))
        if finished.LEDGER in folder.made["files"]:  # it may have got one later
            again = again.model_copy(update={"ledger": True})
        digest = finished.data_digest(again, data)
        if digest not in (None, folder.made.get("data")):
            raise UserError(f"{data}: holds other data than the run was made from; give --data")
        log_to_stderr()
        import cliptrase.model.lean  # noqa: F401
        from cliptrase.evaluate.passes import run_pass  # torch: after what fails quickly

        (remade,) = run_pass(
            {again.name: again},
            partial=Path(place, "partial.npz"),
            out=Path(place, "runs"),
            data=data,
            device=args.device,
        ).values()
        digests = finished.file_digests(remade)
        other = sorted(name for name in digests if digests[name] != folder.made["files"].get(name))
        then, now = folder.metrics["mIoU"], store.read_metrics(remade)["mIoU"]
        changes = list(_changes(folder.made, finished.read_provenance(remade)))
    if args.json:
        outcome = {"run": folder.path.name, "same": not other, "other": other, "mIoU": [then, now]}
        print(json.dumps(outcome | {"changes": changes}, indent=1))
    elif not other:
        print(printable(f"{folder.path.name}: the same bytes: {', '.join(sorted(digests))}"))
    if other:
        because = "".join(f"; {change}" for change in changes)
        raise UserError(
            f"{folder.path.name}: made again, {' and '.join(other)} have other bytes; mIoU was "
            f"{then}, is {now}{because}"
        )


def _resolved(folder: "Folder", place: Path) -> "Run":
    """The run of a folder, from the overrides and the words that the folder holds. Raises UserError
    where they no longer make the configuration that the folder holds."""
    from cliptrase import config

    for own in set(folder.made["conf_folders"]) - {str(own) for own in config.files.folders()}:
        config.files.add_folder(own)
    written = yaml.safe_load((folder.path / "config.yaml").read_text(encoding="utf-8"))
    before, here = folder.made["working_folder"], os.getcwd()
    if Path(before).is_dir():
        os.chdir(before)  # paths in overrides are relative to it
    try:
        run = config.resolve(_overrides(folder.made, written["vocabulary"], place))
    except UserError as error:
        raise UserError(f"{folder.path}: cannot be made again: {error}") from error
    finally:
        os.chdir(here)
    if run.identity != written:
        key, then, now = _first_other(written, run.identity)
        raise UserError(
            f"{folder.path}: its command makes another configuration today: {key} was {then!r}, is "
            f"{now!r}"
        )
    return run


def _overrides(made: Mapping[str, Any], lists: Mapping[str, Any], place: Path) -> Iterator[str]:
    """The overrides of a run, less those that change no number; the files of words that they name
    are written anew, from the words that were kept. lists: of the vocabulary, as config.yaml has
    them."""
    from cliptrase.config.compose import parse_value
    from cliptrase.config.written import text_of
    from cliptrase.data.read.vocabularies import TEMPLATES, VOCABULARIES, shipped

    def written(path: Path, kind: str) -> Path:
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{word}\n" for word in made["words"][kind]), encoding="utf-8")
        return path

    for override in made["overrides"]:
        key, _, value = override.partition("=")
        if key in ELSEWHERE:
            continue
        kind, name = LISTS.get(key, ""), text_of(parse_value(value))
        ours = shipped(TEMPLATES if kind == "templates" else VOCABULARIES)
        if made["words"].get(kind) is None or name in (*ours, "null"):
            yield override
            continue
        file = written(place / key / Path(name).name, kind)
        beside = file.with_name(f"{file.stem}_background.txt")
        if key == "vocabulary" and (lists["background"] or {}).get("name") == beside.stem:
            written(beside, "background")
        yield f"{key}='{file}'"


def _first_other(then: Any, now: Any, key: str = "") -> tuple[str, Any, Any]:
    """The first key whose value differs, and both values."""
    if isinstance(then, dict) and isinstance(now, dict):
        for name in [*then, *now]:
            if then.get(name) != now.get(name):
                return _first_other(then.get(name), now.get(name), f"{key}.{name}".lstrip("."))
    return key, then, now


def _changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What else is not as it was when the run was made. Both: what provenance.json says."""
    from cliptrase.runs.provenance import COMPUTING

    for package in COMPUTING:
        versions = [(made.get("versions") or {}).get(package) for made in (then, now)]
        if versions[0] != versions[1]:
            yield f"{package} was {versions[0]}, is {versions[1]}"
    devices = [(made.get("host") or {}).get("device") for made in (then, now)]
    if devices[0] != devices[1]:
        yield f"the device was {devices[0]}, is {devices[1]}"
    for key, code in (("code", "prediction code"), ("scoring", "scoring code")):
        if then.get(key) != now.get(key):
            yield f"the {code} is another"
    if then.get("labels") != now.get("labels"):
        yield "the table of labels is another"
