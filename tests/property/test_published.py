"""published/published.csv: what the paper prints, and that tables name their rows as it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from cliptrase import plan as planning
from cliptrase.publish.tables.printed import Key, Printed, read_published
from cliptrase.resources import resource

METRICS = ("pAcc", "mAcc", "fwIoU", "mIoU")
READINGS = (
    "as the text writes it",
    "other readings",
)  # groups of rows that nobody printed


@pytest.fixture(scope="module")
def printed() -> dict[Key, Printed]:
    return read_published()


@pytest.fixture(scope="module")
def paper() -> planning.Plan:
    return planning.load("paper")


def test_every_number_is_a_per_cent_or_a_factor(printed: dict[Key, Printed]) -> None:
    for (_, _, benchmark, metric), number in printed.items():
        if metric == "flops":
            assert benchmark == "" and 1 <= number.value <= 2
        else:
            assert metric in METRICS and 0 < number.value < 100 and benchmark


UNPRINTED = (
    "table_discrepancies",
    "table_errors",
    "table_peers",
    "table_vocabularies",
    "table8_without",
)


def test_rows_of_the_plan_are_named_as_the_paper_prints_them(
    printed: dict[Key, Printed], paper: planning.Plan
) -> None:
    rows = {(table, row) for table, row, _, _ in printed}
    for table in paper.tables.values():
        if table.name.startswith(UNPRINTED):
            assert table.name not in {name for name, _ in rows}  # nobody printed it
            continue
        own = {row.name for row in table.rows}
        ours = {name for name in own if name.endswith(", direct") or name.startswith("eps=")}
        ours |= {row.name for row in table.rows if row.group in READINGS}
        assert {(table.name, name) for name in own - ours} <= rows
        assert {name for where, name in rows if where == table.name} <= own


def test_every_printed_cell_of_a_planned_table_is_planned(
    printed: dict[Key, Printed], paper: planning.Plan
) -> None:
    cells = {
        (cell.table, cell.row, cell.benchmark, cell.metric)
        for table in paper.tables.values()
        for row in table.rows
        for cell in row.cells
    }
    assert {key for key in printed if key[0] in paper.tables} <= cells


def test_printed_averages_are_those_of_their_rows_or_carry_a_note(
    printed: dict[Key, Printed],
) -> None:
    wrong = set()
    for (table, row, benchmark, metric), number in printed.items():
        if benchmark == "avg":
            values = [
                other.value
                for (t, r, b, m), other in printed.items()
                if (t, r, m) == (table, row, metric) and b not in ("avg", "")
            ]
            if abs(sum(values) / len(values) - number.value) > 0.005 + 1e-9:
                wrong.add((table, row, metric))
                assert number.note, (table, row, metric)
    assert ("table3_sam", "CLIP", "mIoU") in wrong  # printed 10.02, its row averages 11.04


def test_the_same_number_printed_twice_is_the_same_or_carries_a_note(
    printed: dict[Key, Printed],
) -> None:
    """Table 1 repeats table 7's mIoU, table 2's last rows of each group table 6's."""
    for (table, row, benchmark, metric), number in printed.items():
        if table == "table1_main" and ("table7_metrics_336", row, benchmark, metric) in printed:
            other = printed["table7_metrics_336", row, benchmark, metric]
            assert number.value == other.value or (
                number.note and (other.note or benchmark == "avg")
            )
        twin = printed.get(("table6_metrics_224", "CLIPtrase", benchmark, metric))
        if table == "table2_ablation" and row in ("+D", "cosine", "224") and twin:
            assert number.value == twin.value or benchmark == "avg"


def test_the_file_is_the_table_as_it_was_transcribed() -> None:
    shared = Path(__file__).resolve().parents[2] / ".." / "shared" / "published" / "published.csv"
    if not shared.is_file():
        pytest.skip("the table as it was transcribed from the paper is not here")
    assert resource("published", "published.csv").read_bytes() == shared.read_bytes()
