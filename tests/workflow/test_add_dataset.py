"""docs/add_dataset.md is executed: its files are written where it says, its commands are run."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tests.workflow.pages import ROWS, leave_three_peers

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "add_dataset.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"`([\w/]+\.(?:yaml|py|csv|txt))`:\n\n```\w+\n(.*?)```", PAGE, re.DOTALL))

pytestmark = pytest.mark.slow


def run(words: list[str], tree: Path, programs: Path) -> str:
    """A command in the tree, by this Python, `programs` first on PATH; its output."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree / "src"),
        "PATH": f"{programs}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        words, cwd=tree, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_examples_are_as_short_as_they_say():
    assert sorted(FILES) == [
        "conf/benchmark/farm.yaml",
        "conf/benchmark/mine.yaml",
        "conf/suite/mine.yaml",
        "src/cliptrase/data/labels/farm_to_3.csv",
        "src/cliptrase/data/make/archives/farm.py",
        "src/cliptrase/data/vocabularies/farm.txt",
        "words.txt",
    ]
    for name in ("farm", "mine"):
        assert len(FILES[f"conf/benchmark/{name}.yaml"].splitlines()) <= 12
    assert len(FILES["src/cliptrase/data/make/archives/farm.py"].splitlines()) <= 8
    assert "src/cliptrase/data/make/recipes.py" not in PAGE, "no list in Python names a dataset"


def test_the_examples_are_columns(tmp_path, copy_of_the_tree):
    tree, programs = copy_of_the_tree(tmp_path / "tree"), tmp_path / "bin"
    leave_three_peers(tree)
    programs.mkdir()
    for name, module in (
        ("python", ""),
        ("snakemake", "snakemake"),
        ("cliptrase", "cliptrase.cli"),
    ):
        script = programs / name  # those of the page are those that run this
        start = f'exec "{sys.executable}"' + f" -m {module}" * bool(module)
        script.write_text(f'#!/bin/sh\n{start} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
    for path, content in FILES.items():
        (tree / path).write_text(content, encoding="utf-8")
    printed = ""
    for commands in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL):
        printed += run(["bash", "-euo", "pipefail", "-c", commands], tree, programs)

    assert "results/runs/mine.cliptrase.shapes_clip" in printed
    assert "farm: complete, 6 samples" in printed
    for dataset in ("folder-mine", "farm", "shapes"):
        assert re.search(rf"runs from 4 images of {dataset}$", printed, re.MULTILINE), printed
    for table in ("table1_main", "table_peers"):
        path = tree / f"results/mine/tables/{table}.csv"
        with open(path, encoding="utf-8", newline="") as file:
            cells = [cell for cell in csv.DictReader(file) if cell["row"] in ROWS]
        assert {cell["benchmark"] for cell in cells} >= {"mine", "farm", "shapes", "avg"}
        assert all(cell["value"] and cell["ci_low"] for cell in cells), table
    assert (tree / "results/mine/figures/label_maps.svg").is_file()

    mask = Image.open(tree / "masks" / "day_0.png")
    mask.putpixel((0, 0), 255)
    mask.save(tree / "masks" / "day_0.png")
    words = ["snakemake", "--cores", "8", "all", "--config", "suite=mine", "--dry-run"]
    again = run([*words, "--quiet", "rules"], tree, programs)
    assert re.search(r"^evaluate_pass +1$", again, re.MULTILINE), "a mask changed: " + again
    assert not re.search(r"^prepare_dataset +\d", again, re.MULTILINE)
