"""A table whose groups have rows of the same names."""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.unit.publish.reading import lines_of, table_titled

from cliptrase import config
from cliptrase import plan as planning
from cliptrase.plan import Plan
from cliptrase.publish.tables.cells import to_frame
from cliptrase.publish.tables.layout import sheet_of
from cliptrase.publish.tables.render import to_csv, to_markdown


@pytest.fixture
def two_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A suite of one table whose two groups both have rows `base` and `ours`."""
    conf = tmp_path / "conf"
    shutil.copytree(config.files.CONF, conf)
    monkeypatch.setattr(config.files, "CONF", conf)
    sizes = {"small": 224, "large": 336}
    groups = [
        {
            "name": name,
            "rows": [
                {"row": "base", "run": ["method=clip"], "image_size": size},
                {"row": "ours", "run": ["method=cliptrase"], "image_size": size},
            ],
        }
        for name, size in sizes.items()
    ]
    table = yaml.safe_load((conf / "table" / "table1_main.yaml").read_text())
    del table["quoted"]
    (conf / "table" / "two.yaml").write_text(yaml.safe_dump(table | {"groups": groups}))
    suite = yaml.safe_load((conf / "suite" / "smoke.yaml").read_text())
    (conf / "suite" / "two.yaml").write_text(yaml.safe_dump(suite | {"tables": ["two"]}))
    return planning.load("two")


def test_rows_of_one_name_are_compared_within_their_own_group(
    two_groups: Plan, make: Callable[..., list[str]], tmp_path: Path
) -> None:
    make(two_groups, tmp_path)
    table = two_groups.tables["two"]
    lines = lines_of(two_groups, tmp_path, "two")
    found = {(line.group, line.row, line.benchmark): line for line in lines}
    assert len(found) == len(lines) == 2 * 2 * 3
    for (group, row, benchmark), line in found.items():
        if row == "ours":
            base = found[group, "base", benchmark]
            assert line.versus == "base"
            assert line.diff == pytest.approx(line.value - base.value)
    differences = {found[group, "ours", "avg"].diff for group in ("small", "large")}
    assert len(differences) == 2

    rows = list(csv.DictReader(io.StringIO(to_csv(to_frame(lines)))))
    assert len({(row["row"], row["benchmark"]) for row in rows}) == len(rows)
    assert {(row["row"], row["versus"]) for row in rows} == {
        ("base (small)", ""),
        ("ours (small)", "base (small)"),
        ("base (large)", ""),
        ("ours (large)", "base (large)"),
    }
    markdown = to_markdown(sheet_of(two_groups, table, to_frame(lines)))
    assert re.findall(r"(?m)^\| ([^|]+) \| [^-]", markdown) == [
        *("***small***", "base", "ours", "***large***", "base", "ours"),
        *("***small***", "ours", "***large***", "ours"),
    ]
    assert len(table_titled(markdown, "Differences to base")) == 2 + 4
