"""Figure 1a: the radar and the bars of CLIP and CLIPtrase."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.container import BarContainer
from tests.unit.publish.conftest import load_plan
from tests.unit.publish.reading import frame_of, lines_of, pick

from cliptrase.plan import Plan
from cliptrase.plan.tables import published
from cliptrase.publish import OVERVIEW, chart_names
from cliptrase.publish.figures.command import draw_charts
from cliptrase.publish.figures.overview import overview, overview_numbers
from cliptrase.publish.figures.style import SETTINGS
from cliptrase.publish.results import Shelf
from cliptrase.publish.tables.cells import Line, to_frame

NINE = ["coco_object", "voc21", "pc60", "coco_stuff", "voc20", "pc59", "pc459", "ade150", "ade847"]
ROWS = ["CLIP", "CLIPtrase"]


def line(row: str, column: str, value: float | None, image_size: int = 336) -> Line:
    """A line of a run whose interval is the value ± 1."""
    low, high = (None, None) if value is None else (value - 1, value + 1)
    numbers = {"value": value, "ci_low": low, "ci_high": high}
    return Line("t", row, column, "mIoU", image_size, **numbers, column=column, model="m")


FOUR = [
    *(line("CLIP", name, value) for name, value in zip("abcd", [10, 30, None, None], strict=True)),
    line("other", "a", 90),
    *(
        line("CLIPtrase", name, value)
        for name, value in zip("abcd", [40, 20, 5, None], strict=True)
    ),
    replace(line("CLIPtrase", "avg", 50), kind="avg"),
]


def vertices(radar: Axes) -> list[np.ndarray]:
    """The distances from the centre of each polygon's corners, the first once more at the end."""
    return [np.asarray(each.get_ydata(), float) for each in radar.lines]


def test_corners_are_shares_of_the_larger_printed_number(paper: Plan, whole_paper: Path) -> None:
    lines = lines_of(paper, whole_paper, "table1_main")
    printed = {
        (each["row"], each["benchmark"]): float(each["value"])
        for each in published()
        if (each["table"], each["metric"]) == ("table1_main", "mIoU")
    }
    radar = overview(to_frame(lines)).axes[0]
    ring = [max(printed[row, name] for row in ROWS) for name in NINE]
    expected = []
    for row in ROWS:
        ours = [pick(lines, row, name).value for name in NINE]
        for numbers in (ours, [printed[row, name] for name in NINE]):
            shares = [number / limit for number, limit in zip(numbers, ring, strict=True)]
            expected.append([*shares, shares[0]])
    assert np.allclose(vertices(radar), expected)
    for polygon in radar.lines:
        assert np.allclose(polygon.get_xdata()[:-1], 2 * np.pi * np.arange(9) / 9)
    names = [text.get_text().split("\n") for text in radar.get_xticklabels()]
    assert names == [[name, f"{limit:.1f}"] for name, limit in zip(NINE, ring, strict=True)]


def test_without_printed_numbers_the_larger_of_ours_is_the_ring_and_a_gap_is_named() -> None:
    radar = overview(to_frame(FOUR)).axes[0]
    clip, _, ours, _ = vertices(radar)
    nan = float("nan")
    assert np.allclose(clip, [0.25, 1, nan, nan, 0.25], equal_nan=True)
    assert np.allclose(ours, [1, 2 / 3, 1, nan, 1], equal_nan=True)
    assert not radar.patches  # a polygon with a gap has no inside
    names = [text.get_text() for text in radar.get_xticklabels()]
    assert names == ["a\n40.0", "b\n30.0", "c\n5.0\nno CLIP", "d\nno finished run"]


def test_a_benchmark_of_two_zeros_has_both_in_the_centre() -> None:
    zeros = [line(row, name, 0.0 if name == "a" else 8.0) for row in ROWS for name in "abc"]
    radar = overview(to_frame(zeros)).axes[0]
    assert [corners[0] for corners in vertices(radar)[::2]] == [0, 0]
    assert len(radar.patches) == 2


def test_bars_are_the_values_with_their_intervals(paper: Plan, whole_paper: Path) -> None:
    lines = lines_of(paper, whole_paper, "table1_main")
    bars = overview(to_frame(lines)).axes[1]
    groups = [each for each in bars.containers if isinstance(each, BarContainer)]
    whiskers = [each for each in bars.collections if isinstance(each, LineCollection)]
    assert [tick.get_text() for tick in bars.get_xticklabels()] == NINE
    for row, group, whisker in zip(ROWS, groups, whiskers, strict=True):
        own = [pick(lines, row, name) for name in NINE]
        assert [bar.get_height() for bar in group] == pytest.approx([each.value for each in own])
        ends = [[y for _, y in segment] for segment in whisker.get_segments()]
        assert np.allclose(ends, [[each.ci_low, each.ci_high] for each in own])
        centres = [bar.get_x() + bar.get_width() / 2 for bar in group]
        assert [round(centre) for centre in centres] == list(range(9))


@pytest.mark.parametrize("names", ["a", "ab"])
def test_one_or_two_benchmarks_have_bars_alone(names: Sequence[str]) -> None:
    figure = overview(to_frame([each for each in FOUR if each.column in names]))
    (bars,) = figure.axes
    assert bars.name == "rectilinear" and len(bars.patches) == 2 * len(names)


def test_the_two_rows_are_of_one_protocol() -> None:
    """A second CLIP, of another group or protocol, takes the place of no missing run."""
    second = [replace(each, group="g", protocol="slide") for each in FOUR if each.row == "CLIP"]
    again = [replace(each, group="g", value=1.0) for each in FOUR if each.row == "CLIP"]
    numbers = overview_numbers(to_frame(FOUR))
    for more in (second, again):
        assert np.array_equal(
            overview_numbers(to_frame([*FOUR, *more]))["values"], numbers["values"], equal_nan=True
        )


def test_the_numbers_are_those_of_the_frame(paper: Plan, whole_paper: Path, tmp_path: Path) -> None:
    part = replace(paper, tables={"table1_main": paper.tables["table1_main"]})
    with matplotlib.rc_context(SETTINGS):
        paths = draw_charts(part, Shelf(part, whole_paper, tmp_path), tmp_path)
    assert [path.name for path in paths][-3:] == [
        f"{OVERVIEW}.{kind}" for kind in ("svg", "png", "npz")
    ]
    frame = frame_of(paper, whole_paper, "table1_main").set_index(["row", "column"])
    with np.load(paths[-1]) as numbers:
        assert numbers["benchmarks"].tolist() == NINE and numbers["rows"].tolist() == ROWS
        for name, key in {"values": "value", "low": "ci_low", "high": "ci_high"}.items():
            expected = [[frame.loc[(row, column), key] for column in NINE] for row in ROWS]
            assert np.array_equal(numbers[name], expected)
        assert numbers["scale"][[0, -1]].tolist() == [44.84, 5.89]
        assert numbers["published"][:, 4].tolist() == [41.06, 81.20]


@pytest.mark.parametrize(
    ("suite", "there"),
    [("shapes", 1), ("paper", 1), ("miniature", 1), ("smoke", 1), ("precision", 0)],
)
def test_suites_whose_main_table_has_both_rows_have_the_figure(suite: str, there: int) -> None:
    assert chart_names(load_plan(suite)).count(OVERVIEW) == there
