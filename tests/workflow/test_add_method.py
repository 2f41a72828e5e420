"""docs/add_method.md is executed: its files are written where it says, its commands are run."""

from __future__ import annotations

import ast
import csv
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from tests.workflow.pages import leave_three_peers, printed_by

from cliptrase import config, plan

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "add_method.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"`([\w/]+\.(?:yaml|py))`:\n\n```\w+\n(.*?)```", PAGE, re.DOTALL))

pytestmark = pytest.mark.slow


def test_the_example_is_as_short_as_it_says():
    assert sorted(FILES) == [
        "conf/method/box.yaml",
        "conf/method/keyvalue.yaml",
        "mine/conf/method/half_early.yaml",
        "mine/half.py",
        "src/cliptrase/model/box.py",
        "tests/parity/test_box.py",
    ]
    functions = ast.parse(FILES["src/cliptrase/model/box.py"]).body
    lengths = [f.end_lineno - f.lineno + 1 for f in functions if isinstance(f, ast.FunctionDef)]
    assert sum(lengths) <= 40
    for name in ("box", "keyvalue"):
        assert len(FILES[f"conf/method/{name}.yaml"].splitlines()) <= 12


def test_the_rows_that_were_there_are_compared_as_before(tmp_path, monkeypatch):
    """Above all CLIPtrase with SCLIP in Table 1."""

    def versus():
        tables = plan.load("shapes").tables.values()
        return {(t.name, row.name): row.versus for t in tables for row in t.rows}

    before = versus()
    shutil.copytree(config.files.CONF, tmp_path / "conf")
    monkeypatch.setattr(config.files, "CONF", tmp_path / "conf")
    for name in ("keyvalue", "box"):  # the kind of box is not here
        text = FILES["conf/method/keyvalue.yaml"].replace("keyvalue", name)
        (tmp_path / f"conf/method/{name}.yaml").write_text(text, encoding="utf-8")
    (command,) = re.findall(r"^sed .* conf/table/.*$", PAGE, re.MULTILINE)
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    after = versus()
    assert {place: after[place] for place in before} == before
    assert len(after) == len(before) + 10 and after["table1_main", "Key-value"] == "CLIPtrase"


def test_the_example_gives_every_table_its_rows(tmp_path, copy_of_the_tree):
    tree, tables = copy_of_the_tree(tmp_path / "tree"), ["table1_main", "table_peers"]
    tables += ["table6_metrics_224", "table7_metrics_336"]
    leave_three_peers(tree)
    suite = tree / "conf" / "suite" / "smoke.yaml"
    part = yaml.safe_load(suite.read_text(encoding="utf-8")) | {"tables": tables, "pictures": None}
    suite.write_text(yaml.safe_dump(part), encoding="utf-8")
    for path, content in FILES.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(content, encoding="utf-8")
    printed = printed_by(PAGE, tree, tmp_path / "bin")

    assert "1 passed" in printed
    runs = {path.name.split(".")[1] for path in (tree / "results/runs").iterdir()}
    assert {"half", "half_early"} <= runs and "Half, from the last block but one on." in printed
    assert re.search(r"\tkeyvalue\t", printed) and re.search(r"\tbox\t", printed)
    for table in tables:
        path = tree / f"results/smoke/tables/{table}.csv"
        with open(path, encoding="utf-8", newline="") as file:
            cells = [cell for cell in csv.DictReader(file) if cell["row"] in ("Key-value", "Box")]
        assert {cell["row"] for cell in cells} == {"Key-value", "Box"}
        assert all(cell["value"] and cell["ci_low"] and cell["diff"] for cell in cells), table
