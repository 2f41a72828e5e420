"""The best of a column, and the rows that may be as good."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.provenance import change_provenance
from tests.unit.publish.reading import (
    DISCREPANCIES,
    PEERS,
    lines_of,
    markdown_row,
    markdown_tables,
    pick,
    table_titled,
)

from cliptrase.plan import Plan
from cliptrase.publish.tables.cells import Line, to_frame
from cliptrase.publish.tables.layout import sheet_of
from cliptrase.publish.tables.render import to_csv, to_latex, to_markdown
from cliptrase.runs import bootstrap, metrics


def test_numbers_under_different_rules_have_no_best(paper: Plan, discrepancies: list[Line]) -> None:
    (panel,) = sheet_of(paper, paper.tables[DISCREPANCIES], to_frame(discrepancies)).panels
    best = panel.cells.groupby("section")["best"].any()
    assert not best["D-26: which classes mIoU averages"]
    assert best["from the text to the released code"]


def drawn(results: Path, run: str) -> np.ndarray:
    """mIoU of every resample, computed one by one."""
    with np.load(results / "runs" / run / "per_image.npz") as file:
        counts = [file[key].astype(np.int64) for key in ("tp", "gt", "pred")]
    weights = bootstrap.weights(len(counts[0]))
    picks = [np.repeat(np.arange(len(row)), row) for row in weights]
    sums = ([count[pick].sum(0) for count in counts] for pick in picks)
    return np.array([float(metrics.scores("cliptrase", *one)["mIoU"]) for one in sums])


def test_a_cell_is_marked_where_its_difference_to_the_best_holds_zero(
    paper: Plan, whole_paper: Path, peers: list[Line]
) -> None:
    marked = set()
    resamples: dict[str, dict[str, np.ndarray]] = {}
    columns = ("voc20", "ade150", "pc459")
    for column in columns:
        own = {line.row: line for line in peers if line.column == column and line.run}
        resamples[column] = {row: drawn(whole_paper, line.run) for row, line in own.items()}
        best = max(own, key=lambda row: own[row].value)
        for row, line in own.items():
            gaps = resamples[column][best] - resamples[column][row]
            low, middle, high = np.quantile(gaps, [0.025, 0.5, 0.975])
            gap = own[best].value - line.value
            alike = gap + low - middle <= 0 <= gap + high - middle and row != best
            assert line.near_best == alike, (row, column)
            marked.add(alike)
        assert not own[best].near_best
    assert marked == {True, False}


def test_an_average_is_compared_as_an_average(
    paper: Plan, whole_paper: Path, peers: list[Line]
) -> None:
    own = {line.row: line for line in peers if line.column == "avg" and line.value is not None}
    best = max(own, key=lambda row: own[row].value)
    means = {
        row: np.mean(
            [drawn(whole_paper, one.run) for one in peers if one.row == row and one.run], 0
        )
        for row in (best, "GEM", "CLIP")
    }
    for row in ("GEM", "CLIP"):
        low, middle, high = np.quantile(means[best] - means[row], [0.025, 0.5, 0.975])
        gap = own[best].value - own[row].value
        assert own[row].near_best == (gap + low - middle <= 0 <= gap + high - middle)


def test_rows_and_cells_carry_the_mark_and_a_line_explains_it(
    paper: Plan, peers: list[Line]
) -> None:
    alike = [replace(line, near_best=line.row in ("GEM", "SCLIP")) for line in peers]
    alike = [replace(x, near_best=x.near_best and (x.row, x.column) != ("GEM", "avg"))
             for x in alike]  # fmt: skip
    sheet = sheet_of(paper, paper.tables[PEERS], to_frame(alike))
    text, latex = to_markdown(sheet), to_latex(sheet)
    assert "| SCLIP<sup>≈</sup> |" in text and "| GEM |" in text
    assert markdown_row(text, "GEM")[0].count("<sup>≈</sup>") == 1
    assert markdown_row(text, "NACLIP")[0].count("≈") == 0
    assert "≈ at a value: its difference to the best of the column is not significant" in text
    assert r"SCLIP\textsuperscript{$\approx$} &" in latex and "≈" not in latex
    assert "≈" not in to_csv(to_frame(alike))
    lines = [replace(line, near_best=False) for line in peers]
    text = to_markdown(sheet_of(paper, paper.tables[PEERS], to_frame(lines)))
    assert "≈" not in text.split("**Differences")[0] and "≈ at a value" not in text


def test_a_difference_carries_the_mark_where_its_interval_holds_zero(
    paper: Plan, peers: list[Line]
) -> None:
    ends = {
        "SCLIP": (-1.0, 2.0),
        "GEM": (0.0, 3.0),
        "NACLIP": (0.001, 3.0),
        "CLIP Surgery": (-3, -1),
    }
    lines = [
        replace(line, near_best=False, diff=1.0, diff_low=low, diff_high=high)
        for line in peers
        if line.kind != "absent" and (line.row == "CLIP" or line.row in ends)
        for low, high in [ends.get(line.row, (None, None))]
    ]
    lines = [replace(line, diff=None) if line.row == "CLIP" else line for line in lines]
    sheet = sheet_of(paper, paper.tables[PEERS], to_frame(lines))
    head, _, *rows = table_titled(to_markdown(sheet), "Differences to CLIP")
    assert [row[0] for row in rows] == ["CLIP Surgery", "GEM", "SCLIP", "NACLIP"]
    for row, *cells in rows:
        assert {"<sup>≈</sup>" in cell for cell in cells} == {row in ("SCLIP", "GEM")}
    assert to_latex(sheet).count(r"$\approx$") == 2 * (len(head) - 1) + 1
    assert "≈ The interval holds 0: the difference is not significant." in to_markdown(sheet)


def test_a_table_without_differences_has_no_second_table(paper: Plan, peers: list[Line]) -> None:
    lines = [replace(line, near_best=False, diff=None) for line in peers]
    sheet = sheet_of(paper, paper.tables[PEERS], to_frame(lines))
    assert len(markdown_tables(to_markdown(sheet))) == 1
    for text in (to_markdown(sheet), to_latex(sheet)):
        assert "ifference" not in text and "≈" not in text and "approx" not in text


def test_all_are_compared_with_clip_and_a_printed_table_marks_nothing(
    paper: Plan, whole_paper: Path, peers: list[Line]
) -> None:
    assert {line.versus for line in peers if line.row == "CLIP"} == {""}
    others = [line for line in peers if line.row != "CLIP" and line.kind != "absent"]
    assert {line.versus for line in others} == {"CLIP"} and all(x.diff is not None for x in others)
    clip = pick(peers, "CLIP", "pc59")
    line = pick(peers, "NACLIP", "pc59")
    assert line.diff == pytest.approx(line.value - clip.value)
    assert not any(line.near_best for line in lines_of(paper, whole_paper, "table1_main"))


def test_a_run_of_other_code_is_neither_best_nor_near_it(
    paper: Plan, whole_paper: Path, tmp_path: Path, peers: list[Line]
) -> None:
    own = [line for line in peers if line.column == "pc59" and line.run]
    for line in own:
        shutil.copytree(whole_paper / "runs" / line.run, tmp_path / "runs" / line.run)
        if line.row == "CLIPtrase":
            change_provenance(tmp_path / "runs" / line.run, code="f" * 64)
    lines = lines_of(paper, tmp_path, PEERS)
    assert not any(line.near_best for line in lines if line.column == "pc59")
