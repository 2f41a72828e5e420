"""The image tower against open_clip's own forward, and every attention against plain loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from cliptrase.errors import UserError
from cliptrase.model import vision


@pytest.mark.parametrize(
    "kind",
    [
        {"patch": 16},
        {"patch": 32},
        {"patch": 16, "quick_gelu": False},
        {"patch": 8, "layers": 3, "ls_init_value": 0.5},
    ],
    ids=lambda kind: "-".join(f"{key}={value}" for key, value in kind.items()),
)
def test_blocks_run_one_by_one_are_open_clips_own_forward(tiny, pixels, kind):
    clip = tiny(**kind)
    tokens = vision.embed_tokens(clip, pixels)
    for index in range(clip.depth):
        tokens = vision.block(clip, index, tokens)
    ours = vision.project(clip, tokens)[:, 0]
    expected = clip.model.encode_image(pixels)
    assert torch.allclose(ours, expected, atol=1e-5)
    assert expected.abs().max() > 0.1  # not a comparison of zeros


def test_tokens_entering_a_block_are_open_clips_intermediates(clip, pixels):
    theirs = clip.visual.forward_intermediates(pixels, indices=[4], output_fmt="NLC")
    tokens = vision.embed_tokens(clip, pixels)
    for index in range(5):
        tokens = vision.block(clip, index, tokens)
    assert torch.allclose(tokens[:, 1:], theirs["image_intermediates"][0], atol=1e-5)


def oracle_attention(parts, kind, terms, row_sum="none", heads="mean", softmax=False):
    """The attention of `kind` and `terms` by loops over heads and terms, in float64."""
    q, k, v = (part.double().numpy() for part in parts)
    named = {"q": q, "k": k, "v": v}
    batch, count, length, width = q.shape
    weights = np.zeros((batch, count, length, length))
    for image, term in itertools.product(range(batch), terms):
        pairs = [
            (named[term[0]][image, head], named[term[1]][image, head]) for head in range(count)
        ]
        if kind == "softmax":
            for head, (a, b) in enumerate(pairs):
                scores = np.exp(a @ b.T / math.sqrt(width))
                weights[image, head] += scores / scores.sum(axis=1, keepdims=True)
        elif heads == "concatenated":
            a, b = (np.concatenate(each, axis=1) for each in zip(*pairs, strict=True))
            weights[image] += alike(a, b, kind) / len(terms)  # shared by all heads
        else:
            for a, b in pairs:
                weights[image] += alike(a, b, kind) / (len(terms) * count)
    if softmax:
        weights = np.exp(weights / math.sqrt(width))
        weights /= weights.sum(axis=-1, keepdims=True)
    if row_sum != "none":
        weights *= row_sum / np.abs(weights).sum(axis=-1, keepdims=True)
    mixed = np.einsum("bhij,bhjd->bihd", weights, v)
    return mixed.reshape(batch, length, count * width)


def alike(a, b, kind):
    """a_i·b_j, or cos(a_i, b_j)."""
    products = np.einsum("id,jd->ij", a, b)
    if kind == "cosine":
        products /= np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    return products


SHARED = [
    (kind, heads) for kind in ("cosine", "inner_product") for heads in ("mean", "concatenated")
]


@pytest.mark.parametrize(("kind", "heads"), [("softmax", "mean"), *SHARED])
@pytest.mark.parametrize("row_sum", ["none", 1, 3])
@pytest.mark.parametrize(
    "terms", [["qk"], ["qq"], ["kk"], ["vv"], ["qq", "kk"], ["qq", "kk", "vv"], ["vv", "qk"]]
)
def test_attention(clip, pixels, kind, heads, row_sum, terms):
    parts = vision.qkv(clip, 3, vision.embed_tokens(clip, pixels))
    ours = vision.attend(parts, kind, terms, row_sum=row_sum, heads=heads)
    expected = oracle_attention(parts, kind, terms, row_sum, heads)
    error = np.abs(ours.numpy() - expected).max()
    assert error < 1e-5 * max(1, np.abs(expected).max())


@pytest.mark.parametrize(("kind", "heads"), SHARED)
@pytest.mark.parametrize("row_sum", ["none", 1, 3])
def test_one_softmax_for_all_heads(clip, pixels, kind, heads, row_sum):
    parts, terms = vision.qkv(clip, 3, vision.embed_tokens(clip, pixels)), ["qq", "kk", "vv"]
    ours = vision.attend(parts, kind, terms, row_sum=row_sum, heads=heads, softmax=True)
    expected = oracle_attention(parts, kind, terms, row_sum, heads, softmax=True)
    assert np.abs(ours.numpy() - expected).max() < 1e-5 * max(1, np.abs(expected).max())


def test_the_order_of_terms_changes_nothing(clip, pixels):
    parts = vision.qkv(clip, 3, vision.embed_tokens(clip, pixels))
    one, other = (
        vision.attend(parts, "softmax", terms) for terms in (["vv", "qq", "kk"], ["qq", "kk", "vv"])
    )
    assert torch.equal(one, other)


def test_output_projection_is_added_once_and_parts_can_be_left_out(tiny, pixels):
    clip = tiny(ls_init_value=0.7)
    block = clip.blocks[2]
    tokens = vision.embed_tokens(clip, pixels)
    mixed = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(5))
    out = (mixed @ block.attn.out_proj.weight.T + block.attn.out_proj.bias) * block.ls_1.gamma

    def ffn(x):
        return block.mlp(block.ln_2(x)) * block.ls_2.gamma

    for residual, has_ffn in itertools.product([True, False], [True, False]):
        expected = out + tokens if residual else out
        expected = expected + ffn(expected) if has_ffn else expected
        ours = vision.finish(clip, 2, tokens, mixed, residual=residual, ffn=has_ffn)
        assert torch.allclose(ours, expected, atol=1e-5), (residual, has_ffn)


def bicubic_1d(old: int, new: int) -> np.ndarray:
    """(new, old) weights of Keys' kernel (a = −0.75), sampled at (new + 0.1) / old."""
    scale = old / (new + 0.1)
    matrix = np.zeros((new, old))
    for row in range(new):
        centre = (row + 0.5) * scale - 0.5
        for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
            x, a = abs(centre - tap), -0.75
            if x <= 1:
                weight = (a + 2) * x**3 - (a + 3) * x**2 + 1
            else:
                weight = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
            matrix[row, min(max(tap, 0), old - 1)] += weight
    return matrix


@pytest.mark.parametrize("grid", [(6, 6), (4, 7), (9, 5), (2, 2), (3, 11)])
def test_position_embedding_on_other_grids(clip, grid):
    ours = vision.position_embedding(clip, *grid)
    trained = clip.visual.positional_embedding.double().numpy()
    rows, columns = (bicubic_1d(4, side) for side in grid)
    patches = np.einsum("ri,cj,ijd->rcd", rows, columns, trained[1:].reshape(4, 4, -1))
    expected = np.concatenate([trained[:1], patches.reshape(grid[0] * grid[1], -1)])
    assert np.allclose(ours.numpy(), expected, atol=1e-5)


def test_position_embedding_of_the_trained_grid_is_untouched(clip):
    assert vision.position_embedding(clip, 4, 4) is clip.visual.positional_embedding


def test_pixels_that_do_not_divide_into_patches_are_refused(clip):
    with pytest.raises(UserError, match="70 × 64 pixels do not divide into patches of 16"):
        vision.embed_tokens(clip, torch.zeros(1, 3, 64, 70))


def test_blocks_are_counted_from_the_end(tiny, clip):
    assert [clip.block_index(block) for block in (1, 11, 12)] == [0, 10, 11]
    shallow = tiny(layers=3)
    assert [shallow.block_index(block) for block in (10, 12)] == [0, 2]
    with pytest.raises(UserError, match=r"block 9 does not exist in a model of 3 blocks.*10 … 12"):
        shallow.block_index(9)
    with pytest.raises(UserError, match="block 13 does not exist"):
        clip.block_index(13)


def test_normalise(clip):
    picture = np.random.default_rng(0).integers(0, 256, (2, 16, 32, 3), dtype=np.uint8)
    picture.flags.writeable = False
    expected = (picture / 255 - np.array(clip.mean)) / np.array(clip.std)
    ours = clip.normalise(picture)
    assert ours.dtype == torch.float32 and ours.is_contiguous()
    assert np.allclose(ours.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-6)
