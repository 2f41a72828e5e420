"""The paper's figures of pictures: overlays, colours, boxes, and text that has room."""

import itertools
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg

from cliptrase.publish import PAPER_FIGURES
from cliptrase.publish.figures import paper_figures
from cliptrase.publish.figures.between_patches import most_looked_at
from cliptrase.publish.figures.cluster_figures import _corners, _matched
from cliptrase.publish.figures.paper_figures import FIGURES, draw, numbers_of, shown_blocks
from cliptrase.publish.figures.parts import OVERLAY, Wanted, overlay
from cliptrase.publish.figures.quantities import Clusters, Predictions, Quantities, usual_patch
from cliptrase.publish.figures.style import SETTINGS

NAMES = ("sky", "a wall of bricks", "grass")


def picture(grid=(6, 6), classes=NAMES, name="scene", seed=0):
    """Of random numbers; two clusters before the denoising, of which one is noise and goes."""
    rng = np.random.default_rng(seed)
    rows, columns = grid
    tokens, size = 1 + rows * columns, (16 * rows, 16 * columns)

    def attention():
        values = rng.random((tokens, tokens)).astype(np.float32)
        values[:, 1 + (seed + 5) % (tokens - 1)] += 5
        return values / values.sum(axis=1, keepdims=True)

    before = np.full(grid, -1)
    before[: rows // 2, : columns // 2], before[rows // 2 :, columns // 2 :] = 0, 1
    after = np.where(before == 1, 0, -1)
    noisy = (0,) if (before == 0).any() else ()
    maps = [rng.integers(0, len(classes), size) for _ in range(3)]
    return Quantities(
        name=name,
        pixels=rng.integers(0, 256, (*size, 3), dtype=np.uint8),
        grid=grid,
        patch=usual_patch(grid),
        attention={block: attention() for block in range(7, 13)},
        correlation=rng.uniform(-1, 1, (tokens, tokens)).astype(np.float32),
        correlated="block 11",
        correlated_grid=grid,
        released=attention(),
        clusters=Clusters(before.ravel(), after.ravel(), np.zeros(size, np.int64), noisy),
        predictions=Predictions(classes, None, *maps),
    )


# --- What is drawn -------------------------------------------------------------------------


def test_an_overlay_is_the_bilinear_map_from_its_smallest_to_its_largest_value():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (80, 112, 3), dtype=np.uint8)
    values = rng.random(35).astype(np.float32)
    values[9] = 50.0  # its own cell, which would hide all the others
    shown = values.copy()
    shown[9] = np.sort(values)[-2]
    map_ = torch.from_numpy(shown.reshape(1, 1, 5, 7))
    smooth = F.interpolate(map_, (80, 112), mode="bilinear", align_corners=False)[0, 0].numpy()
    level = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    grey = (pixels @ [0.299, 0.587, 0.114])[..., None] / 255
    magma = matplotlib.colormaps["magma"]
    expected = (1 - OVERLAY) * grey + OVERLAY * magma(level)[..., :3]
    drawn = overlay(pixels, values, 9, (5, 7))
    assert np.abs(drawn - expected).max() < 0.01  # the map has 256 colours, the grey 256 levels
    assert values[9] == 50.0
    whole = overlay(pixels, values, None, (5, 7))  # nobody's own: 50 stays
    assert np.abs(whole - expected).max() > 0.3


def test_a_constant_map_is_drawn_at_0():
    """Its own cell aside: what is left is constant too."""
    pixels = np.full((32, 48, 3), 100, np.uint8)
    values = np.full(6, 0.25, np.float32)
    lowest = (1 - OVERLAY) * 100 / 255 + OVERLAY * np.array(matplotlib.colormaps["magma"](0.0)[:3])
    for own in (None, 3):
        values[3] = 0.25 if own is None else 9.0
        assert overlay(pixels, values, own, (2, 3)) == pytest.approx(
            np.broadcast_to(lowest, (32, 48, 3))
        )


@pytest.mark.parametrize("seed", range(8))
def test_colours_after_the_denoising_follow_the_largest_overlap(seed):
    """Over all ways to give clusters the colours of those before, each once."""
    rng = np.random.default_rng(seed)
    before = rng.integers(-1, rng.integers(1, 5), 60)
    after = np.where(rng.random(60) < 0.6, before, rng.integers(-1, rng.integers(1, 6), 60))
    names, after = np.unique(after, return_inverse=True)  # numbered without gaps
    after = after - (names[0] == -1)
    each = picture()
    each = replace(each, clusters=Clusters(before, after, each.clusters.regions, ()))
    colours = _matched(each)
    count, old = after.max() + 1, before.max() + 1
    assert len(colours) == len(set(colours)) == count

    def shared(numbers):
        return sum(
            int(((after == new) & (before == number)).sum())
            for new, number in enumerate(numbers)
            if number < old
        )

    places = max(count, old)
    best = max(shared(order[:count]) for order in itertools.permutations(range(places)))
    assert shared(colours) == best
    for new, number in enumerate(colours):
        assert number >= old or ((after == new) & (before == number)).any()


def test_boxes_lie_round_noise_clusters_and_nowhere_else():
    each = picture(grid=(4, 6))
    before = np.full((4, 6), -1)
    before[1:3, 2], before[0, 4:6], before[3, 5] = 0, 1, 1
    made = Clusters(before.ravel(), before.ravel(), each.clusters.regions, (1,))
    each = replace(each, clusters=made)
    assert _corners(each, 1) == (0, 3, 4, 5)
    figure = FIGURES["fig10_denoising"].draw([each], Wanted("a model"))
    (box,) = [patch for axes in figure.axes for patch in axes.patches]
    assert (box.get_x(), box.get_y()) == (4 * 16 - 0.5, -0.5)
    assert (box.get_width(), box.get_height()) == (2 * 16, 4 * 16)
    numbers = numbers_of("fig10_denoising", [each], Wanted("a model"))
    assert numbers["0_boxes"].tolist() == [[0, 3, 4, 5]] and numbers["0_noisy"].tolist() == [1]


def test_figure_2_rings_global_patches_and_tells_their_share():
    each = picture(grid=(14, 14), seed=3)  # patch 8 is looked at most
    assert each.looks[11].is_global.nonzero()[0].tolist() == [8]
    wanted = Wanted("a model", shown_blocks(6))
    figure = FIGURES["fig2_global_patches"].draw([each], wanted)
    rings = [patch for axes in figure.axes for patch in axes.patches if not patch.get_fill()]
    assert [ring.center for ring in rings] == [(8.5 * 16 - 0.5, 7.5)] * len(wanted.blocks)
    title = " ".join(text.get_text() for text in figure.texts)
    for block in wanted.blocks:
        assert f"{100 * each.looks[block].share:.0f}\N{NO-BREAK SPACE}%" in title


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


@pytest.mark.parametrize("name", ["fig4_scr_attention", "fig6_local_global"])
def test_headings_name_what_is_correlated(name):
    """Not every method correlates block 11."""
    figure = FIGURES[name].draw([replace(picture(), correlated="DINO's tokens")], Wanted("a model"))
    parts = [*titles(figure), *(text.get_text() for text in figure.texts)]
    written = " ".join(" ".join(parts).split())
    assert "DINO's tokens" in written
    assert "correlation, block" not in written


def test_figure_2_promises_no_scr_and_no_votes_of_a_method_without_regions():
    wanted = Wanted("a model", (11, 12))
    draw_2 = FIGURES["fig2_global_patches"].draw
    assert titles(draw_2([picture()], wanted))[-4:] == [
        "picture",
        "CLIP",
        "before votes",
        "with votes",
    ]
    plain = draw_2([replace(picture(), clusters=None)], wanted)
    assert titles(plain)[-3:] == ["picture", "CLIP", "the method"]


def test_a_class_has_one_colour_in_all_label_maps_of_figure_10():
    """Classes 0 and 20 would take the same colour, each in a picture of its own."""
    names = tuple(f"class {number}" for number in range(21))
    shown = []
    for label in (0, 20):
        each = picture(classes=names)
        final = np.full(each.pixels.shape[:2], label)
        shown.append(replace(each, predictions=Predictions(names, None, final, final, final)))
    figure = FIGURES["fig10_denoising"].draw(shown, Wanted("a model"))
    first, second = (figure.axes[place].images[0].get_array()[0, 0] for place in (3, 7))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [(12, (3, 6, 9, 11, 12)), (24, (3, 6, 9, 11, 12)), (6, (7, 9, 11, 12)), (3, (11, 12))],
)
def test_figure_2_shows_the_papers_blocks_that_exist(depth, blocks):
    assert shown_blocks(depth) == blocks


def test_the_most_looked_at_patch_is_no_neighbour_of_the_shown_one():
    each = replace(picture((14, 14)), patch=6)  # patch 5 is looked at most, and is beside patch 6
    looked_at = each.looks[11].by_patches
    assert looked_at.argmax() == 5
    far = [p for p in range(196) if abs(p // 14) > 1 or abs(p % 14 - 6) > 1]
    assert most_looked_at(each) == max(far, key=lambda patch: looked_at[patch])
    small = picture(grid=(2, 3))  # all are neighbours
    assert most_looked_at(replace(small, patch=4)) == 5
    assert most_looked_at(replace(small, patch=5)) != 5


# --- Whatever is asked of it ---------------------------------------------------------------


def texts(figure):
    """What is written in a figure, and where: (text, box in pixels)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    for axes in figure.axes:
        shown = [*axes._axis_map.values()] if axes.get_visible() else []
        labels = [axis.label for axis in shown] + [axes.title] * axes.get_visible()
        for text in labels:
            if text.get_text():
                yield text.get_text(), text.get_window_extent(renderer)
    for legend in figure.legends:
        for text in legend.get_texts():
            yield text.get_text(), text.get_window_extent(renderer)
    for text in figure.texts:
        yield text.get_text(), text.get_window_extent(renderer)


LONG = tuple(f"{number}: a name that nobody reads to its end, however long" for number in range(23))
MANY = tuple(f"class number {number}" for number in range(847))
CASES = {
    "one": [picture()],
    "three": [picture(seed=seed, name=f"scene {seed}") for seed in range(3)],
    "two classes": [picture(classes=NAMES[:2])],
    "847 classes": [picture(classes=MANY)],
    "long names": [picture(classes=LONG, name="a picture with a name " * 9)] * 2,
    "portrait, landscape and 5:1": [picture((10, 6)), picture((6, 10)), picture((2, 10))],
    "5:1": [picture((2, 10))],
    "1:5": [picture((10, 2))],
    "two patches": [picture((1, 2)), picture((2, 1))],
}


def without_clusters(each):
    patches, none = each.clusters.before.size, np.full(each.pixels.shape[:2], -1)
    nothing = np.full(patches, -1)
    return replace(each, clusters=Clusters(nothing, nothing, none, ()))


CASES["no cluster"] = [without_clusters(picture())]
CASES["no words"] = [replace(picture(), predictions=None)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", [*FIGURES][1:])  # the first is as the third
def test_no_text_is_cut_off_or_lies_over_another(name, case, tmp_path, monkeypatch):
    """The words of what is first written of a figure; and it is no tower."""
    figures = []
    monkeypatch.setattr(paper_figures, "save", lambda figure, *_: figures.append(figure) or [])
    wanted = Wanted("an embedded model of a long name · cliptrase_dinov2 · 336 px", (7, 9, 11, 12))
    with matplotlib.rc_context(SETTINGS):
        draw([name], CASES[case], wanted, tmp_path)
        written = list(texts(figures[0]))
    width, height = figures[0].get_size_inches() * figures[0].dpi
    assert len(written) > 3
    for text, box in written:
        assert box.x0 >= 0 and box.x1 <= width, text
        assert box.y0 >= 0 and box.y1 <= height, text
    for (one, here), (other, there) in itertools.combinations(written, 2):
        across = min(here.x1, there.x1) - max(here.x0, there.x0)
        down = min(here.y1, there.y1) - max(here.y0, there.y0)
        assert across <= 1 or down <= 1, f"{one!r} lies over {other!r}"
    assert width < 1100 and height < 2.5 * width


@pytest.mark.parametrize("name", [name for name, each in FIGURES.items() if not each.of_each])
def test_six_pictures_are_no_tower(name):
    six = [picture(seed=seed) for seed in range(6)]
    width, height = FIGURES[name].draw(six, Wanted("a model")).get_size_inches()
    assert height < 2.5 * width


def test_a_command_knows_the_figures_before_they_can_be_drawn():
    assert tuple(FIGURES) == PAPER_FIGURES
