"""`cliptrase list`: what there is, a line each."""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cliptrase import config
from cliptrase.errors import is_read, printable
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
    add("--results", type=user_path, default=Path("results"), help="results")
    add("--json", action="store_true", help="as a JSON list")


def run(args: argparse.Namespace) -> None:
    """Print the list."""
    found = list(_runs(args.results) if args.what == "runs" else _files(GROUPS[args.what]))
    if args.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return
    wide = max((len(each["name"]) for each in found), default=0)
    for each in found:
        if not is_read():
            return
        print(printable(f"{each['name']:<{wide}}  {_told(each)}".rstrip()))


def _files(group: str) -> Iterator[Mapping[str, Any]]:
    """The files of a folder of conf/: their title, or the first line that says what they are."""
    for name in config.names(group):
        tree = config.load(group, name)
        path = config.files.find(group, name)
        about = f"in {tree.get('file')}" if path is None else _first_comment(path)
        yield {"name": name, "about": tree.get("title") or about}


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
    from cliptrase.publish.run_report import Folder, run_folders  # NumPy: not for --help

    for folder in run_folders(results):
        run = Folder(folder)
        metrics = run.metrics
        scores = {key: metrics[key] for key in ("mIoU", "ci", "rule", "images")}
        yield {
            "name": folder.name,
            "mIoU": scores["mIoU"],
            "interval": scores["ci"]["mIoU"],
            "rule": scores["rule"],
            "images": scores["images"],
            "made": run.made.get("finished"),
        }


def _told(each: Mapping[str, Any]) -> str:
    if "about" in each:
        return str(each["about"])
    value = "   –" if each["mIoU"] is None else f"{each['mIoU']:5.2f}"
    low, high = each["interval"]
    span = "" if low is None else f" [{low:.2f}, {high:.2f}]"
    day = (each["made"] or "")[:10]
    return f"mIoU {value}{span}, {each['images']} images, rule {each['rule']}, {day}"
