"""docs/add_table.md is executed: its files are written where it says, its commands are run."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "add_table.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.slow


def files_of_the_page() -> dict[str, str]:
    """`path`: followed by a yaml block → path and content."""
    return dict(re.findall(r"`(conf/[\w/]+\.yaml)`:\n\n```yaml\n(.*?)```", PAGE, re.DOTALL))


def commands_of_the_page() -> list[list[str]]:
    (block,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    return [line.split() for line in block.splitlines()]


def run(words: list[str], tree: Path) -> str:
    """A line of the page, by this Python whatever PATH says."""
    program = [sys.executable] if words[0] == "python" else [sys.executable, "-m", words[0]]
    environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
    done = subprocess.run(
        program + words[1:], cwd=tree, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_makes_its_table(tmp_path, copy_of_the_tree):
    tree = copy_of_the_tree(tmp_path / "tree")
    files = files_of_the_page()
    assert sorted(files) == ["conf/suite/terms.yaml", "conf/table/table_terms.yaml"]
    for path, content in files.items():
        (tree / path).write_text(content, encoding="utf-8")

    plan, made = commands_of_the_page()
    planned = run(plan, tree).splitlines()
    assert len(planned) == 1 + 2 * 3
    run(made, tree)

    with open(tree / "results/terms/tables/table_terms.csv", encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    assert {(cell["row"], cell["versus"]) for cell in cells} == {
        ("qq", ""),
        ("qq + kk", "qq"),
        ("qq + kk + vv", "qq + kk"),
    }
    assert {cell["benchmark"] for cell in cells} == {"shapes", "shapes_bg", "avg"}
    assert all(cell["value"] and cell["ci_low"] for cell in cells)
    for ending in ("md", "tex"):
        assert (tree / f"results/terms/tables/table_terms.{ending}").is_file()
