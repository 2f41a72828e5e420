"""Rows as bars."""

from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from cliptrase.publish.figures.charts import bars, row_bars
from cliptrase.publish.tables.cells import Line, to_frame


def test_rows_of_one_name_in_two_groups_are_two_bars(peers: list[Line]) -> None:
    own = [line for line in peers if line.kind in ("run", "avg")]
    two = [replace(line, group=group) for group in "ab" for line in own]
    few = to_frame([line for line in two if line.row in ("CLIP", "GEM")])
    names = [text.get_text() for text in bars("T", few).axes[0].get_legend().get_texts()]
    assert names == ["CLIP (a)", "GEM (a)", "CLIP (b)", "GEM (b)"]
    names = [text.get_text() for text in bars("T", to_frame(two)).axes[0].get_yticklabels()]
    assert "CLIP (a)" in names and "CLIP (b)" in names and len(names) == 38


def test_rows_of_bars_stand_at_their_values(peers: list[Line], discrepancies: list[Line]) -> None:
    axes = [ax for ax in row_bars("T", to_frame(peers)).axes if ax.get_visible()]
    assert [ax.get_title() for ax in axes][-1] == "avg" and len(axes) == 10
    for ax in axes:
        own = {x.row: x for x in peers if x.column == ax.get_title() and x.value is not None}
        widths = sorted(bar.get_width() for bar in ax.patches)
        assert widths == pytest.approx(sorted(line.value for line in own.values()))
        shown = sorted(text.get_text() for text in ax.texts)
        wanted = (f"{x.value:.1f}" + " ≈" * x.near_best for x in own.values())
        assert shown == sorted(wanted)
    names = [text.get_text() for text in axes[0].get_yticklabels()]
    assert len(names) == 19 and names[0] == "CLIP"
    steps = row_bars("T", to_frame(discrepancies)).axes
    assert len([bar for ax in steps for bar in ax.patches]) == 97


def ends_of(axes: Axes) -> list[tuple[tuple[float, float], ...]]:
    """Both ends of every whisker, as points."""
    found = [line for line in axes.collections if isinstance(line, LineCollection)]
    return [tuple(map(tuple, part)) for one in found for part in one.get_segments()]


@pytest.mark.parametrize(
    ("low", "high", "ends"),
    [(0.0, 5.0, (0.0, 5.0)), (0.0, 2.0, (0.0, 2.0)), (None, None, (2.0, 2.0))],
)
def test_a_whisker_may_start_at_zero_and_is_not_drawn_where_there_is_none(
    low: float | None, high: float | None, ends: tuple[float, float]
) -> None:
    line = Line("t", "r", "voc20", "mIoU", 224, value=2.0, ci_low=low, ci_high=high, column="voc20")
    (across,) = ends_of(row_bars("T", to_frame([line])).axes[0])
    assert tuple(x for x, _ in across) == pytest.approx(ends)
    (upright,) = ends_of(bars("T", to_frame([line])).axes[0])
    assert tuple(y for _, y in upright) == pytest.approx(ends)


def test_a_number_of_zero_is_drawn_with_its_whisker() -> None:
    line = Line("t", "r", "voc20", "mIoU", 224, value=0.0, ci_low=0.0, ci_high=0.0, column="voc20")
    axes = row_bars("T", to_frame([line])).axes[0]
    assert [text.get_text() for text in axes.texts] == ["0.0"]
    assert axes.get_xlim() == (0, 1)
