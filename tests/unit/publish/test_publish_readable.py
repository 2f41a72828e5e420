"""Figures that can be read whatever stands in them: few and many rows, long names, nothing run."""

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from cliptrase.publish.figures.attention import Look, attention_figure
from cliptrase.publish.figures.charts import bars, heat_map, row_bars
from cliptrase.publish.figures.label_maps import BACKGROUND, OTHER, PALETTE, Picture, label_maps
from cliptrase.publish.figures.style import PNG_DPI, SETTINGS, row_colour
from cliptrase.publish.tables.cells import Line, to_frame

README = 900  # pixels that a figure is wide in README
LONG = "softmaxes of each head, summed, and everything else that a row may set ($x_1$, $y$) "
COLUMNS = ("voc20", "pc59", "coco_stuff", "ade150", "avg")
TITLE = "Table 1. Training-free open-vocabulary segmentation, mIoU"
Named = Callable[[int], str]


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def row(index: int) -> str:
    return f"row {index}"


def frame_of(names: list[str], runs: Callable[[int], bool] = lambda _: True, **more: Any) -> Any:
    rng, lines = np.random.default_rng(len(names)), []
    for index, name in enumerate(names):
        for column in COLUMNS:
            kind = "avg" if column == "avg" else "run"
            line = Line("t", name, column, "mIoU", 336, kind=kind, column=column, model="vit_b16",
                        protocol="crop", code="c c", **more)  # fmt: skip
            value = float(rng.uniform(1, 70))
            number: Any = {"value": value, "ci_low": value - 1, "ci_high": value + 1}
            lines.append(Line(**vars(line) | (number if runs(index) else {"reason": "not run"})))
    return to_frame(lines)


def grid_of(eps: int, samples: int, runs: bool = True) -> pd.DataFrame:
    rng, lines = np.random.default_rng(eps), []
    for n, e in itertools.product(range(2, 2 + samples), range(eps)):
        line = Line("t", f"eps={e} min_samples={n}", "voc20", "mIoU", 224, column="voc20",
                    value=float(rng.uniform(10, 40)) if runs else None,
                    eps=0.4 + 0.05 * e, min_samples=n, versus="eps=0 min_samples=2")  # fmt: skip
        lines.append(line)
    return to_frame(lines)


def texts_of(figure: Figure) -> list[Text]:
    """What is written in the figure, once it is laid out."""
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    hidden = {text for ax in figure.axes if not ax.get_visible() for text in ax.findobj(Text)}
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        low, high = sorted(axis.get_view_interval())
        beyond = [tick for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]
        hidden |= {tick.label1 for tick in beyond}
    texts = figure.findobj(lambda each: isinstance(each, Text) and each.get_text() != "")
    return [text for text in texts if text.get_visible() and text not in hidden]


def assert_readable(figure: Figure, smallest: float = 8.0) -> None:
    """All text is inside the figure, none stands on another, all is large enough in README."""
    texts, whole = texts_of(figure), figure.bbox
    boxes = []
    for text in texts:
        box = text.get_window_extent()
        inside = box.x0 > -1 and box.y0 > -1 and box.x1 < whole.x1 + 1 and box.y1 < whole.y1 + 1
        assert inside, text.get_text()
        shown = min(README / figure.get_figwidth(), PNG_DPI)
        assert text.get_fontsize() / 72 * shown > smallest, text.get_text()
        boxes.append((text.get_text(), box.shrunk(0.9, 0.6)))
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        assert not a.overlaps(b), (one, other)


def colours_of(figure: Figure) -> dict[str, str]:
    """Row → its colour, by the legend, else by the bars beside the names."""
    legend = figure.axes[0].get_legend()
    if legend is not None:
        patches = zip(legend.get_texts(), legend.get_patches(), strict=False)
        return {text.get_text(): to_hex(patch.get_facecolor()) for text, patch in patches}
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    middles = {round(bar.get_y() + bar.get_height() / 2): bar for bar in axes.patches}
    return {name: to_hex(middles[place].get_facecolor()) for place, name in enumerate(names)}


@pytest.mark.parametrize("draw", [bars, row_bars])
@pytest.mark.parametrize("count", [1, 2, 5, 12, 20])
def test_bars_are_readable_with_few_and_many_rows(draw: Any, count: int) -> None:
    assert_readable(draw(TITLE, frame_of([row(index) for index in range(count)])))


@pytest.mark.parametrize("draw", [bars, row_bars])
def test_long_names_are_read_from_both_ends(draw: Any) -> None:
    figure = draw(TITLE * 3, frame_of([LONG * 2 + row(index) for index in range(5)]))
    assert_readable(figure)
    names = {" ".join(text.get_text().split()) for text in texts_of(figure)}
    for index in range(5):
        assert any(name.startswith("softmaxes") and name.endswith(row(index)) for name in names)


@pytest.mark.parametrize("draw", [bars, row_bars])
def test_a_row_keeps_its_colour_when_others_are_added(draw: Any) -> None:
    few = ["CLIP", "SCLIP", "mine", "CLIPtrase"]
    before = colours_of(draw("T", frame_of(few)))
    assert (before["CLIP"], before["CLIPtrase"]) == ("#a9b4c0", "#e8743b")
    for names in (["new", *few], [*few, "new", "newer"], [*few, *map(row, range(12))]):
        after = colours_of(draw("T", frame_of(names)))
        assert list(after) == names and {name: after[name] for name in few} == before


def test_bars_of_one_colour_are_told_apart_by_a_hatch() -> None:
    one, *others = [f"r{index}" for index in range(99)]
    other = next(name for name in others if row_colour(name) == row_colour(one))
    legend = bars("T", frame_of([one, other])).axes[0].get_legend()
    assert [patch.get_hatch() for patch in legend.get_patches()] == ["", "////"]


def test_panels_have_the_same_axes() -> None:
    panels = row_bars("T", frame_of([row(0), row(1)])).axes
    assert len({ax.get_xlim() for ax in panels}) == 1 == len({ax.get_ylim() for ax in panels})
    lines = bars("T", frame_of([row(index) for index in range(5)])).axes
    assert len(lines) == 2 and len({ax.get_ylim() for ax in lines}) == 1


def written(figure: Figure) -> list[str]:
    return [text.get_text() for text in texts_of(figure)]


@pytest.mark.parametrize("draw", [bars, row_bars])
def test_where_nothing_was_run_a_word_says_so(draw: Any) -> None:
    figure = draw(TITLE, frame_of([row(0), row(1)], runs=lambda _: False))
    assert_readable(figure)
    assert "no finished run" in written(figure)
    some = draw(TITLE, frame_of([row(0), row(1)], runs=lambda index: index == 0))
    assert_readable(some)
    said = written(some)
    assert "no finished run" not in said and said.count("–") == len(COLUMNS)
    assert any(text.endswith("– no number") for text in said)
    assert "–" not in written(draw(TITLE, frame_of([row(0), row(1)])))


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 8), (1, 12), (12, 1), (20, 20)])
def test_a_heat_map_is_readable_and_says_eps_as_it_is(size: tuple[int, int]) -> None:
    figure = heat_map("Figure 7. Sensitivity to eps and min_samples, mIoU", grid_of(*size))
    assert_readable(figure)
    ticks = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert ticks == [f"{0.4 + 0.05 * index:g}" for index in range(size[0])]
    (frame,) = [patch for patch in figure.axes[0].patches if not patch.get_hatch()]
    assert frame.get_linewidth() >= 3 and frame.get_zorder() > 2.5  # above the white lines


def test_a_heat_map_of_nothing_says_so() -> None:
    figure = heat_map("Figure 7", grid_of(8, 8, runs=False))
    assert "no finished run" in written(figure) and len(figure.axes) == 1
    assert "no finished run" not in written(heat_map("Figure 7", grid_of(8, 8)))


def picture_of(rows: int, classes: int, named: Named = row) -> Picture:
    rng = np.random.default_rng(rows)
    truth = np.kron(rng.integers(0, classes, (4, 4)), np.ones((6, 6), int))
    maps = {named(index): rng.permuted(truth, axis=1) for index in range(rows)}
    return Picture(np.zeros((24, 24, 3), np.uint8), truth, maps)


@pytest.mark.parametrize(("rows", "classes"), [(1, 2), (2, 847), (5, 21), (20, 847)])
def test_label_maps_are_readable(rows: int, classes: int) -> None:
    names = [f"class {index}, in words ($x$)" for index in range(classes)]
    figure = label_maps([picture_of(rows, classes)] * 2, names, classes - 1, "The first images")
    assert_readable(figure)
    heads = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert heads[: rows + 2] == ["image", "ground truth", *map(row, range(rows))]


def test_label_maps_take_long_names() -> None:
    names = [LONG * 2 + str(index) for index in range(30)]
    picture = picture_of(3, 30, lambda index: LONG * 2 + str(index))
    assert_readable(label_maps([picture] * 2, names, None, "The first images of " + LONG * 3))


def test_a_class_has_a_colour_of_its_own_that_no_added_row_changes() -> None:
    names = [f"class {index}" for index in range(847)]

    def colours(classes: list[int], *maps: list[int]) -> dict[str, str]:
        rows = {row(index): np.array([each]) for index, each in enumerate(maps)}
        picture = Picture(np.zeros((1, len(classes), 3), np.uint8), np.array([classes]), rows)
        (legend,) = label_maps([picture], names, None, "T").legends
        texts = [text.get_text() for text in legend.get_texts()]
        faces = [to_hex(patch.get_facecolor()) for patch in legend.get_patches()]
        assert len(set(faces)) == len(faces)
        return dict(zip(texts, faces, strict=True))

    truth = [3, 23, 43, 846] * 6  # three of them would like the same colour
    few = colours(truth, truth)
    assert few.keys() == {"class 3", "class 23", "class 43", "class 846"}
    assert few["class 3"] == PALETTE[3]
    more = colours(truth, truth, list(range(100, 124)))
    assert {name: more[name] for name in few} == few and more["other classes"] == OTHER
    assert len(more) == len(PALETTE) + 1 and BACKGROUND not in more.values()


def test_the_attention_says_why_it_is_empty_and_wraps_its_title() -> None:
    rng = np.random.default_rng(0)
    truth = np.kron([[0, 1], [0, 1]], np.ones((32, 32), int))
    patches = np.array([[0, 0, 1, 1]] * 4).ravel()
    weights = rng.random((16, 16))
    one = Look(np.zeros((64, 64, 3), np.uint8), truth, patches, weights, weights)
    figure = attention_figure([one] * 3, 3, "vit_b16(precision=bf16) · " + LONG * 3)
    assert_readable(figure)
    none = Look(one.pixels, truth, np.full(16, -1), weights, weights)
    assert "no class fills enough patches" in written(attention_figure([none], 3, "T"))
