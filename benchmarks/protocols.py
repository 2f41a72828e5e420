"""The same methods under every protocol, rule and vocabulary: the tables of docs/protocols.md.

`python benchmarks/protocols.py [--limit N]` makes the runs in a temporary folder and prints the
tables as Markdown. Needs the prepared dataset: `cliptrase prepare shapes`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cliptrase import config
from cliptrase.config.metric_names import RULES
from cliptrase.data.read.vocabularies import read_names, vocabulary_path
from cliptrase.evaluate.passes import run_pass

METHODS = ("clip", "sclip", "cliptrase")
SETTINGS = {
    "`crop`, 224": ["protocol=crop", "image_size=224"],
    "`crop`, 336": ["protocol=crop", "image_size=336"],
    "`slide`, 224 of 336": ["protocol=slide", "image_size=224"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, help="scenes of the first and third table (all)")
    limit = parser.parse_args().limit
    few = [] if limit is None else [f"limit={limit}"]
    with tempfile.TemporaryDirectory() as temporary:
        out, words = Path(temporary), Path(temporary) / "synonyms.txt"
        words.write_text("\n".join(synonyms()) + "\n", encoding="utf-8")
        plain = ["benchmark=shapes_bg", *few]
        lists = {"one name": plain, "with synonyms": [*plain, f"vocabulary={words}"]}
        by_list = {name: made(overrides, out) for name, overrides in lists.items()}
        keys = list(by_list["one name"])
        print("mIoU on shapes_bg, by protocol\n")
        show(["method", *SETTINGS], [
            [f"`{method}`", *(number(by_list["one name"][setting, method]) for setting in SETTINGS)]
            for method in METHODS
        ])  # fmt: skip
        print("\nmIoU of the first 20 scenes of shapes_fine, by rule\n")
        rules = made(["benchmark=shapes_fine", "limit=20"], out)
        show(["protocol", "method", *(f"`{rule}`" for rule in RULES)], [
            [key[0], f"`{key[1]}`", *(number(rules[key]["rules"][rule]) for rule in RULES)]
            for key in keys
        ])  # fmt: skip
        print("\nmIoU on shapes_bg, by vocabulary\n")
        show(["protocol", "method", *lists], [
            [setting, f"`{method}`", *(number(by_list[name][setting, method]) for name in lists)]
            for setting, method in keys
        ])  # fmt: skip


def made(overrides: Sequence[str], out: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """metrics.json by setting and method; the methods of a setting are one pass."""
    found = {}
    for setting, own in SETTINGS.items():
        runs = {}
        for method in METHODS:
            run = config.resolve([f"method={method}", *own, *overrides])
            runs[run.name] = run
        folders = run_pass(runs, partial=out / ".partial.npz", out=out)
        for name, folder in folders.items():
            content = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
            found[setting, runs[name]["method"]["name"]] = content
    return found


def synonyms() -> list[str]:
    """The objects of the scenes, each with its coloured names: `apple|red apple|green apple|…`."""
    fine = read_names(vocabulary_path("shapes_fine"))
    return [
        "|".join([name, *(other for other in fine if other.endswith(f" {name}"))])
        for name in read_names(vocabulary_path("shapes_objects"))
    ]


def number(metrics: dict[str, Any]) -> str:
    return f"{metrics['mIoU']:.2f}"


def show(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table, numbers to the right."""
    right = ["---:" if cell[:1].isdigit() else "---" for cell in rows[0]]
    for line in (head, right, *rows):
        print("| " + " | ".join(line) + " |")


if __name__ == "__main__":
    main()
