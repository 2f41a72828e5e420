"""What figures show of a picture: attention, correlation, clusters, and global patches."""

import itertools

import numpy as np
import pytest
import torch
from random_clips import pictures, random_clip, words
from slow_reference import COLUMNS, ROWS
from tests import objects

from cliptrase import config
from cliptrase.errors import UserError
from cliptrase.evaluate.graph import Graph
from cliptrase.model import vision
from cliptrase.model.load import load_clip
from cliptrase.publish.figures.quantities import (
    Words,
    looks_of,
    moved,
    noisy_clusters,
    quantities,
    usual_patch,
)

CLUSTERED = objects.method("cliptrase", {"regions.eps": 0.3, "regions.min_samples": 2})
SIZE = 1 + ROWS * COLUMNS  # tokens


@pytest.fixture(scope="module")
def clip():
    return random_clip(3)


@pytest.fixture(scope="module")
def pixels():
    return pictures(np.random.default_rng(5), 1)


def made(clip, pixels, method=CLUSTERED, **options):
    shown = np.zeros((*pixels.shape[2:], 3), np.uint8)
    return quantities(Graph(clip, pixels), method, "a", shown, **options)


@torch.inference_mode()
def text_of(clip, pixels, count):
    """Classes that set patches of the picture apart."""
    patches = Graph(clip, pixels).patches(CLUSTERED)[0]
    return objects.listed_text(words(np.random.default_rng(2), patches, count), count)


def entering(clip, pixels):
    """The tokens that enter each block, by open_clip's own blocks."""
    tokens = vision.embed_tokens(clip, pixels)
    for block in clip.blocks:
        yield block, tokens
        tokens = block(tokens)


@torch.inference_mode()
@pytest.mark.parametrize("embedded", [False, True])
def test_attention_of_every_block_is_that_of_open_clips_own_module(embedded, clip, pixels):
    """Blocks are counted from the end: those of a 6-block model are 7 to 12."""
    if embedded:
        clip = load_clip(config.resolve(["benchmark=shapes"]).model)
        pixels = torch.randn(1, 3, 224, 304, generator=torch.Generator().manual_seed(0))
    seen = made(clip, pixels)
    assert list(seen.attention) == list(range(13 - len(clip.blocks), 13))
    for (block, tokens), attention in zip(
        entering(clip, pixels), seen.attention.values(), strict=True
    ):
        normed = block.ln_1(tokens)
        _, expected = block.attn(
            normed, normed, normed, need_weights=True, average_attn_weights=True
        )
        assert np.allclose(attention, expected[0], atol=1e-6)
        assert attention.sum(axis=1) == pytest.approx(1, abs=1e-5)


@torch.inference_mode()
def test_the_released_attention_is_the_mean_over_heads_and_terms_of_a_softmax_each(clip, pixels):
    *_, (block, tokens) = entering(clip, pixels)
    weight, bias = block.attn.in_proj_weight.double(), block.attn.in_proj_bias.double()
    parts = (block.ln_1(tokens)[0].double() @ weight.T + bias).numpy()
    width, heads = clip.visual.transformer.width, block.attn.num_heads
    head_width = width // heads
    expected = np.zeros((SIZE, SIZE))
    for part, head in itertools.product(range(3), range(heads)):
        start = part * width + head * head_width
        x = parts[:, start : start + head_width]
        weights = np.exp(x @ x.T / head_width**0.5)
        expected += weights / weights.sum(axis=1, keepdims=True) / (3 * heads)
    released = made(clip, pixels).released
    assert np.allclose(released, expected, atol=1e-6)
    assert released.sum(axis=1) == pytest.approx(1, abs=1e-5)


@torch.inference_mode()
def test_correlation_clusters_and_label_maps_are_those_of_a_run(clip, pixels):
    """The denoising drops what [CLS] is like; with the denoising off nothing is dropped."""
    text = text_of(clip, pixels, 4)
    seen = made(clip, pixels, words=Words(text, ("a", "b", "c", "d")))
    graph = Graph(clip, pixels)
    plain = objects.method(
        "cliptrase",
        {"regions.eps": 0.3, "regions.min_samples": 2, "regions.denoise": "none"},
    )
    assert np.array_equal(seen.correlation, graph.correlation(11, "cosine")[0])
    assert np.array_equal(seen.clusters.before, graph.clusters(plain)[0])
    assert np.array_equal(seen.clusters.after, graph.clusters(CLUSTERED)[0])
    assert np.array_equal(seen.clusters.regions, graph.regions(CLUSTERED)[0])
    assert not np.array_equal(seen.clusters.before, seen.clusters.after)
    maps = {
        "plain": objects.method("clip"),
        "scr": objects.method("cliptrase", {"regions": None}),
        "final": CLUSTERED,
    }
    for name, method in maps.items():
        expected = Graph(clip, pixels).prediction(method, text, "text", 100.0)[0]
        assert np.array_equal(getattr(seen.predictions, name), expected), name
    assert not np.array_equal(seen.predictions.scr, seen.predictions.final)


def test_without_words_or_clusters_there_is_the_rest(clip, pixels):
    seen = made(clip, pixels, objects.method("clip"))
    assert seen.predictions is None and seen.clusters is None and seen.correlated == "block 11"
    changes = {"regions.correlation.block": 12, "regions.eps": 0.3, "regions.min_samples": 2}
    assert made(clip, pixels, objects.method("cliptrase", changes)).correlated == "block 12"
    with torch.inference_mode():
        assert np.array_equal(seen.correlation, Graph(clip, pixels).correlation(11, "cosine")[0])


@pytest.mark.parametrize(
    ("grid", "row", "column"),
    [((14, 14), 6, 6), ((21, 21), 9, 9), ((16, 16), 7, 7), ((5, 7), 2, 3), ((1, 2), 0, 0)],
)
def test_the_usual_patch_is_number_90_of_14_by_14(grid, row, column):
    assert usual_patch(grid) == row * grid[1] + column
    assert usual_patch((14, 14)) == 90


@pytest.mark.parametrize(
    ("patch", "grid", "other", "there"),
    [
        (90, (14, 14), (14, 14), 90),
        (90, (14, 14), (16, 16), 7 * 16 + 7),  # the middle is at 6.5 / 14 = 7.43 / 16
        (0, (2, 3), (4, 9), 1 * 9 + 1),
        (5, (2, 3), (4, 9), 3 * 9 + 7),
        (195, (14, 14), (5, 7), 34),
        (34, (5, 7), (14, 14), 12 * 14 + 13),
        (7, (1, 11), (1, 22), 15),  # on the edge of two: the further one
    ],
)
def test_a_patch_of_another_grid_holds_the_middle(patch, grid, other, there):
    assert moved(patch, grid, other) == there


def test_the_patch_is_shown_where_the_second_grid_has_it(clip, pixels):
    seen = made(clip, pixels)
    assert seen.patch == seen.correlated_patch == usual_patch((ROWS, COLUMNS))
    assert made(clip, pixels, patch=13).patch == 13


def planted(columns, mass=0.5, tokens=1 + 20 * 20):
    """Attention whose queries all give `mass` in all to some patches, and the rest to all alike."""
    attention = np.full((tokens, tokens), (1 - mass) / tokens)
    attention[:, [1 + column for column in columns]] += mass / len(columns)
    return attention.astype(np.float32)


def test_global_patches_are_columns_and_patch_j_is_token_j_plus_1():
    looks = looks_of(planted([7, 300]))
    assert np.flatnonzero(looks.is_global).tolist() == [7, 300]
    drawn, rest = 0.5 + 2 * 0.5 / 401, 398 * 0.5 / 401  # of the attention between patches
    assert looks.share == pytest.approx(drawn / (drawn + rest), rel=1e-5)
    assert looks.of_cls == pytest.approx(drawn, rel=1e-5)
    assert looks.by_patches[7] == pytest.approx(0.25 + 0.5 / 401, rel=1e-5)


def test_of_cls_is_the_row_of_cls_alone():
    attention = planted([7, 300])
    attention[0] = 0
    attention[0, [0, 8]] = 0.75, 0.25  # itself, and patch 7
    looks = looks_of(attention)
    assert looks.of_cls == pytest.approx(0.25)
    assert looks.share == pytest.approx(looks_of(planted([7, 300])).share)


def test_a_patch_that_looks_at_one_alone_makes_no_other_global_nor_does_what_all_give_cls():
    """Rows look, columns are looked at; the column of [CLS] is no patch's."""
    attention = planted([300])
    attention[8] = 0
    attention[8, 5] = 1  # patch 7 looks at patch 4 alone: 1 / 400 of what could look there
    attention[:, 0] = 5
    assert np.flatnonzero(looks_of(attention).is_global).tolist() == [300]


def test_none_is_a_valid_number_of_global_patches():
    looks = looks_of(np.full((197, 197), 1 / 197, np.float32))
    assert not looks.is_global.any() and looks.share == looks.of_cls == 0
    looks = looks_of(planted(range(0, 400, 2)))  # half of them: nobody stands out
    assert not looks.is_global.any()


def test_noise_clusters_are_those_that_cls_is_like():
    """10 patches whose 80 % quantile is 0.82 by interpolation; −1 is no cluster."""
    of_cls = [0.9, 0.8, 0.9, 0.1, 0.2, 0.1, 0.5, 0.6, 0.1, 0.8]
    weights = np.zeros((11, 11), np.float32)
    weights[0, 1:], weights[1:, 0] = of_cls, of_cls[::-1]
    weights[0, 0] = 1
    clusters = np.array([0, 0, 0, 1, 1, 1, 2, 2, -1, 2])
    assert noisy_clusters(weights, clusters) == (0,)  # mean 0.867; the limit is 0.82
    clusters = np.array([-1, 0, 1, 0, 0, 0, 0, 0, 0, 2])
    assert noisy_clusters(weights, clusters) == (1,)  # 0.8 alone is below the limit
    assert noisy_clusters(weights, np.full(10, -1)) == ()


def test_where_nothing_is_denoised_nothing_is_called_noise(clip, pixels):
    assert made(clip, pixels).clusters.noisy
    changes = {"regions.eps": 0.3, "regions.min_samples": 2, "regions.denoise": "none"}
    assert made(clip, pixels, objects.method("cliptrase", changes)).clusters.noisy == ()


def test_a_picture_of_one_patch_is_refused():
    clip = random_clip(3)
    pixels = torch.zeros(1, 3, 8, 8)
    with pytest.raises(UserError, match=r"^a picture of one patch has no patches to compare"):
        made(clip, pixels)
