"""`cliptrase list`: what there is, a line each."""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cliptrase import config
from cliptrase.cli.output import tell
from cliptrase.data.read.selfcheck import prepared_folder, read_selfcheck
from cliptrase.errors import counted
from cliptrase.files import user_path

HELP = "what there is: methods, benchmarks, models, suites, tables or runs, a line each"
GROUPS = {
    "methods": "method",
    "benchmarks": "benchmark",
    "models": "model",
    "suites": "suite",
    "tables": "table",
}  # what is listed → its folder of conf/


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("what", choices=[*GROUPS, "runs"], metavar="WHAT", help=f"{', '.join(GROUPS)} or runs")
    add("--results", type=user_path, default=Path("results"), help="the results folder (results)")
    add("--data", type=user_path, default=Path("data"), help="the data folder (data)")
    add("--json", action="store_true", help="as a JSON list")


def run(args: argparse.Namespace) -> None:
    """Print the list."""
    if args.what == "runs":
        listed = list(_runs(args.results))
    else:
        listed = list(_files(GROUPS[args.what], args.data))
    wide = max((len(each["name"]) for each in listed), default=0)
    lines = (f"{each['name']:<{wide}}  {_told(each)}".rstrip() for each in listed)
    tell(listed, lines, as_json=args.json)


def _files(group: str, data: Path) -> Iterator[Mapping[str, Any]]:
    """The files of a folder of conf/: their title, or the first sentence of the comment at their
    top; of a benchmark also whether its dataset is prepared in `data`, None for a user's folder."""
    for name in config.names(group):
        tree = config.load(group, name)
        path = config.files.find(group, name)
        about = f"in {tree.get('file')}" if path is None else _first_comment(path)
        entry = {"name": name, "about": tree.get("title") or about}
        if group == "benchmark":
            dataset = str(tree["dataset"])
            check = read_selfcheck(prepared_folder(dataset, data))
            prepared = None if dataset == "folder" else check is not None
            entry |= {"dataset": dataset, "prepared": prepared}
        yield entry


def _first_comment(path: Path) -> str:
    """The first sentence of the comment at the top of a YAML file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    words = []
    for line in lines:
        if not line.startswith("#"):
            break
        words.append(line.lstrip("# "))
    sentence, dot, _ = " ".join(words).partition(". ")
    return sentence + dot.strip()


def _runs(results: Path) -> Iterator[Mapping[str, Any]]:
    """The runs, by name: their mIoU, or what is wrong with their files."""
    from cliptrase.publish.run_folders import Folder, found_folders  # NumPy: not for --help
    from cliptrase.runs.finished import damage_of

    for folder in found_folders(results):
        if reason := damage_of(folder):
            yield {"name": folder.name, "damage": reason}
            continue
        run = Folder(folder)
        yield {
            "name": folder.name,
            "mIoU": run.metrics["mIoU"],
            "interval": run.metrics["ci"]["mIoU"],
            "rule": run.metrics["rule"],
            "images": run.metrics["images"],
            "made": run.made.get("finished"),
        }


def _told(each: Mapping[str, Any]) -> str:
    if "damage" in each:
        return f"damaged: {each['damage']}"
    if "about" in each:
        return str(each["about"]) + " [not prepared]" * (each.get("prepared") is False)
    value = "   –" if each["mIoU"] is None else f"{each['mIoU']:5.2f}"
    low, high = each["interval"]
    span = "" if low is None else f" [{low:.2f}, {high:.2f}]"
    day = (each["made"] or "")[:10]
    images = counted(each["images"], "image")
    return f"mIoU {value}{span}, {images}, rule {each['rule']}, {day}"
