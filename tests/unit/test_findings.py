"""The table of the paper's findings: which difference it takes, and what it says of it."""

import csv

import pytest
from benchmarks import findings

from cliptrase import plan
from cliptrase.errors import UserError

COLUMNS = ("row", "benchmark", "metric", "versus", "diff", "diff_low", "diff_high")


def write(folder, name, lines):
    with open(folder / f"{name}.csv", "w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *lines])


def written(folder, differences):
    """The tables of a suite in which every finding has a difference of (2, 1, 3) but those given;
    with lines around them that must not be taken."""
    tables: dict[str, list[tuple[object, ...]]] = {}
    for finding in findings.FINDINGS:
        for before, after in finding.pairs:
            values = differences.get((finding.table, after), (2, 1, 3))
            tables.setdefault(finding.table, []).extend(
                [
                    (after, "shapes", "mIoU", before, 9, 9, 9),
                    (after, "avg", "pAcc", before, 8, 8, 8),
                    (after, "avg", "mIoU", "another row", 7, 7, 7),
                    (after, "avg", "mIoU", before, *values),
                    (after, "avg", "mIoU", "", "", "", ""),
                ]
            )
    for name, lines in tables.items():
        write(folder, name, lines)


def test_what_holds_what_does_not_and_what_the_paper_prints(tmp_path):
    written(
        tmp_path,
        {
            ("table2_ablation", "336"): (-2.93, -4.57, -1.55),
            ("table2_ablation", "+PC"): (0.12, -0.64, 0.86),
            ("table4_scr", "cosine"): (-3.31, -4.03, -2.73),
        },
    )
    lines = findings.table(tmp_path).splitlines()[2:]
    assert len(lines) == 11
    # Table 1 of the paper: SCLIP 31.50, CLIPtrase 33.53; Table 2: 38.50 at 224, 39.31 at 336
    assert lines[1] == "| CLIPtrase over SCLIP | +2.0 | +2.0 [+1.0, +3.0] | holds |"
    assert lines[3].endswith("| +1.1 | +0.1 [−0.6, +0.9] | not significant |")
    assert lines[8] == "| 336 px over 224 px | +0.8 | −2.9 [−4.6, −1.6] | reversed |"
    assert lines[10].endswith("| holds, holds, reversed, holds |")
    assert "| +7.2, +7.2, +0.8, +0.7 |" in lines[10]
    # the row that is another reading has no number of its own in the paper: 38.50 − 17.11
    assert lines[7].endswith("| +21.4 | +2.0 [+1.0, +3.0], +2.0 [+1.0, +3.0] | holds |")


def test_the_rows_are_those_of_the_tables():
    """Each pair stands in one group of its table, where the second is compared with the first."""
    tables = plan.load("shapes").tables
    for finding in findings.FINDINGS:
        rows = tables[finding.table].rows
        for before, after in finding.pairs:
            compared = {cell.versus for row in rows if row.name == after for cell in row.cells} - {
                ""
            }
            assert before.removesuffix(" (as published)") in compared, (
                finding.table,
                before,
                after,
            )


def test_a_table_that_is_missing_or_lacks_a_row_is_named(tmp_path):
    with pytest.raises(UserError, match=r"table1_main\.csv does not exist"):
        findings.table(tmp_path)
    written(tmp_path, {})
    write(tmp_path, "table3_sam", [("SCR+D+SAM", "avg", "mIoU", "CLIP", 1, 1, 1)])
    with pytest.raises(UserError, match=r"table3_sam\.csv has no average .*SCR\+D\+SAM"):
        findings.table(tmp_path)
