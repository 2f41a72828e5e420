"""table_vocabularies: the mean, the worst and the range of its rows, and what is lost."""

from __future__ import annotations

import numpy as np
import pytest
from tests.unit.publish.reading import frame_of, lines_in

from cliptrase.publish.tables.layout import sheet_of
from cliptrase.runs import bootstrap, scoring

ROWS = 6


@pytest.fixture(scope="module")
def frame(paper, whole_paper):
    return frame_of(paper, whole_paper, "table_vocabularies")


@pytest.fixture(scope="module")
def lines(frame):
    return lines_in(frame)


def test_summaries_are_those_of_the_rows_above_with_the_interval_of_their_resamples(
    lines, whole_paper
):
    seen = 0
    for line in (line for line in lines if line.row in ("mean", "worst", "range")):
        above = [
            each
            for each in lines
            if (each.group, each.column, each.metric) == (line.group, line.column, "mIoU")
            and each.kind == "run"
        ]
        values = [each.value for each in above]
        summaries = {
            "mean": sum(values) / len(values),
            "worst": min(values),
            "range": max(values) - min(values),
        }
        assert line.value == pytest.approx(summaries[line.row], abs=1e-9)
        assert len(values) == ROWS - (line.column == "coco_object")  # whose released list is plain
        counts = [scoring.read_counts(whole_paper / "runs" / each.run) for each in above]
        drawn = [
            bootstrap.resampled(each.rule, run.tp, run.gt, run.pred)["mIoU"]
            for each, run in zip(above, counts, strict=True)
        ]
        of = {
            "mean": np.mean,
            "worst": np.min,
            "range": lambda a, axis: np.max(a, axis) - np.min(a, axis),
        }
        ends = bootstrap.interval(line.value, of[line.row](np.array(drawn), 0))
        assert (line.ci_low, line.ci_high) == pytest.approx(ends, abs=1e-9)
        seen += 1
    assert seen == 3 * 7 * 3  # methods, benchmarks, summaries


def test_what_is_lost_is_what_no_class_was_predicted_for(lines, whole_paper):
    lost = [line for line in lines if line.metric == "lost"]
    assert {line.row for line in lost} == {"50 distractors", "200 distractors"}
    assert len(lost) == 2 * 7 * 3
    for line in lost:
        matrix = np.load(whole_paper / "runs" / line.run / "confusion.npz")["confusion"]
        assert line.value == pytest.approx(100 * matrix[:, -1].sum() / matrix.sum(), abs=1e-6)
        assert line.ci_low <= line.value <= line.ci_high and not line.versus


def test_every_list_is_compared_with_the_released_one(lines):
    for line in lines:
        if line.kind == "run" and line.metric == "mIoU":
            assert line.versus == ("released list" if line.row != "released list" else "")
            assert (line.diff is None) == (line.row == "released list")


def test_no_summary_and_nothing_lost_is_the_best_of_its_column(paper, frame):
    (panel,) = sheet_of(paper, paper.tables["table_vocabularies"], frame).panels
    best = panel.cells[panel.cells["best"]]
    assert set(best["kind"]) == {"run"} and set(best["metric"]) == {"mIoU"}
    assert len(best) >= 3 * 7
