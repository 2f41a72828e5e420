"""table_errors and the chart of certainty: shares that add up, empty cells with their reasons."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.unit.publish.reading import table_titled

from cliptrase.config.error_names import CATEGORIES, OF_LOGITS
from cliptrase.plan import Plan
from cliptrase.publish.figures.certainty import certainty
from cliptrase.publish.figures.style import save
from cliptrase.publish.ledger import read_ledger, reliability
from cliptrase.publish.results import Shelf
from cliptrase.publish.tables.cells import tidy
from cliptrase.publish.tables.layout import sheet_of
from cliptrase.publish.tables.render import to_markdown
from cliptrase.runs.finished import LEDGER

TABLE = "table_errors"


@pytest.fixture(scope="module")
def part(shapes: Plan) -> Plan:
    """The suite with two benchmarks of one table, one with and one without a background."""
    table = shapes.tables[TABLE]
    rows = tuple(
        replace(
            row, cells=tuple(cell for cell in row.cells if cell.column in ("shapes_bg", "shapes"))
        )
        for row in table.rows
    )
    return replace(shapes, tables={TABLE: replace(table, rows=rows)})


@pytest.fixture(scope="module")
def shelf(part: Plan, make, note_passes, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    results = tmp_path_factory.mktemp("errors")
    cells = (cell for row in part.tables[TABLE].rows for cell in row.cells)
    make(part, results, list(dict.fromkeys(cell.run for cell in cells)))
    note_passes(part, results)
    return Shelf(part, results, results / "no-data")


@pytest.fixture(scope="module")
def frame(part: Plan, shelf: Shelf) -> pd.DataFrame:
    return tidy(part, shelf, part.tables[TABLE])


def test_the_runs_of_its_rows_keep_a_ledger_and_no_others_do(shapes: Plan) -> None:
    asked = {cell.run for row in shapes.tables[TABLE].rows for cell in row.cells}
    assert {name for name, run in shapes.runs.items() if run.ledger} == asked
    assert asked <= {
        cell.run for row in shapes.tables["table6_metrics_224"].rows for cell in row.cells
    } | {name for name in asked if "vote-none" in name}


def test_shares_and_pacc_are_100_and_have_intervals_and_differences(frame: pd.DataFrame) -> None:
    shares = frame[frame["metric"].isin(["pAcc", *CATEGORIES])]
    sums = shares.groupby(["row", "column"])["value"].sum()
    np.testing.assert_allclose(sums, 100)
    resampled = shares[shares["value"].notna()]
    assert (resampled["ci_low"] <= resampled["value"]).all() and resampled["ci_high"].notna().all()
    others = resampled[resampled["row"] != "CLIP"]
    assert (others["versus"] == "CLIP").all() and others["diff_low"].notna().all()
    gaps = others.groupby(["row", "column"])["diff"].sum()
    np.testing.assert_allclose(gaps, 0, atol=1e-5)  # metrics.json has six digits
    of_logits = frame[frame["metric"].isin(OF_LOGITS)]
    assert of_logits["value"].notna().any() and of_logits["ci_low"].isna().all()


def test_what_a_benchmark_has_not_is_empty_for_its_reason(frame: pd.DataFrame) -> None:
    empty = frame[frame["value"].isna()]
    assert set(empty["column"]) == {"shapes"} and set(empty["kind"]) == {"absent"}
    assert set(empty["metric"]) == {"object_to_bg", "bg_to_object", "AUROC"}
    assert set(empty["reason"]) == {"no background is scored"}


def test_a_benchmark_is_a_section_and_a_metric_a_column(part: Plan, frame: pd.DataFrame) -> None:
    table = part.tables[TABLE]
    sheet = sheet_of(part, table, frame)
    (panel,) = sheet.panels
    assert [column.key for column in panel.columns] == list(table.metrics)
    assert list(panel.cells["section"].unique()) == ["shapes_bg", "shapes"]
    best = panel.cells[panel.cells["best"]]
    assert len(best) and not set(best["metric"]) & {*CATEGORIES, "ECE"}
    values = panel.cells[(panel.cells["section"] == "shapes") & (panel.cells["label"] == "SCLIP")]
    text = to_markdown(sheet)
    (row, *_) = [row for row in table_titled(text, "Differences to CLIP") if row[0] == "SCLIP"]
    assert len(row) == 1 + len([m for m in table.metrics if m not in OF_LOGITS])
    assert f"{values['value'].iloc[0]:.2f}" in text
    assert "add up to 100" in text and "know the ground truth" in text


def test_the_chart_draws_the_groups_of_each_run(
    part: Plan, shelf: Shelf, frame: pd.DataFrame, tmp_path: Path
) -> None:
    figure = certainty("T", frame, shelf)
    assert all(file.stat().st_size > 5000 for file in save(figure, tmp_path, "certainty"))
    upper, _, _, lower = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["shapes_bg", "shapes", "", ""]
    runs = frame[(frame["metric"] == "ECE") & (frame["column"] == "shapes_bg")]
    for line, run in zip(upper.lines[1:], runs["run"], strict=True):
        ledger = read_ledger(shelf.results / "runs" / run)
        assert ledger is not None
        groups = reliability(ledger.by_confidence)
        assert len(line.get_ydata()), "no group has so many pixels"
        np.testing.assert_allclose(line.get_ydata(), groups.right[groups.pixels >= 20])
    assert len(lower.lines) == len(runs)
    nothing = certainty("T", frame.assign(value=np.nan), shelf)
    assert not nothing.axes[2].lines


def test_a_run_without_its_ledger_says_so(part: Plan, shelf: Shelf, tmp_path: Path) -> None:
    run = next(cell.run for cell in part.tables[TABLE].rows[1].cells if cell.column == "shapes")
    for folder in (shelf.results / "runs").iterdir():
        there = tmp_path / "runs" / folder.name
        there.mkdir(parents=True)
        for file in folder.iterdir():
            if (folder.name, file.name) != (run, LEDGER):
                (there / file.name).write_bytes(file.read_bytes())
    found = tidy(part, Shelf(part, tmp_path, tmp_path), part.tables[TABLE])
    gone = found[found["reason"].str.endswith("keeps no ledger of its errors")]
    assert set(gone["run"]) == {run} and "pAcc" not in set(gone["metric"])
