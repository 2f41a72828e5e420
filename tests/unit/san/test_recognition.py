"""[SLS] tokens: what they see in CLIP's last blocks, and that CLIP's own tokens do not see them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cliptrase.evaluate.graph import Graph
from cliptrase.model import vision
from cliptrase.san.recognition import recognise
from cliptrase.san.store import blocks_after, scene_of

DEEP = 2  # blocks that recognise


@pytest.fixture(scope="module")
def graph(clip, tiny):
    pixels = clip.normalise(scene_of(tiny, 0).image[None, :96, :64])
    with torch.inference_mode():
        return Graph(clip, pixels)


@pytest.fixture(scope="module")
def entering(graph, clip):
    with torch.inference_mode():
        return [graph.entering(clip.depth - DEEP + block) for block in range(DEEP)]


def slow(clip, tokens, bias):
    """All tokens in one sequence, [SLS] first, attention by an explicit mask, head by head; what
    [SLS] and CLIP's own tokens are after the last block."""
    count, length = bias.shape[1], tokens.shape[1]
    x = torch.cat([tokens[:, :1].expand(-1, count, -1), tokens], dim=1)[0]
    for index in range(clip.depth - DEEP, clip.depth):
        block = clip.blocks[index]
        mixed = []
        q, k, v = vision.qkv(clip, index, x[None])
        for head in range(len(bias)):
            mask = torch.zeros(count + length, count + length)
            mask[:, :count] = -100  # nobody sees [SLS] …
            for query in range(count):
                mask[query, query] = 0  # … but it itself,
                mask[query, count] = -100  # which does not see [CLS]
                mask[query, count + 1 :] = bias[head, query].flatten()
            scores = q[0, head] @ k[0, head].T / q.shape[3] ** 0.5 + mask
            mixed.append(scores.softmax(dim=1) @ v[0, head])
        x = x + block.attn.out_proj(torch.cat(mixed, dim=1))
        x = x + block.mlp(block.ln_2(x))
    return x[:count], x[count:]


@torch.inference_mode()
def test_attention_is_that_of_a_loop_with_explicit_masks(clip, graph, entering):
    stream = torch.Generator().manual_seed(0)
    bias = 3 * torch.randn(1, clip.blocks[0].attn.num_heads, 5, *graph.grid, generator=stream)
    seen = recognise(clip, entering, bias, graph.grid)
    sls, own = slow(clip, entering[0], bias[0])
    wanted = F.normalize(vision.project(clip, sls[None]), dim=-1)
    torch.testing.assert_close(seen, wanted, rtol=0, atol=2e-6)
    after = graph.entering(clip.depth)[0]
    torch.testing.assert_close(own, after, rtol=0, atol=1e-6 * float(after.abs().max()))


@torch.inference_mode()
def test_clips_own_tokens_are_clips_to_the_bit(clip, graph, entering):
    taken = tuple(range(clip.depth + 1))
    blocks = list(blocks_after(clip, graph.entering(0), taken))
    bias = torch.zeros(1, clip.blocks[0].attn.num_heads, 3, *graph.grid)
    recognise(clip, blocks[-1 - DEEP : -1], bias, graph.grid)
    assert all(mine.equal(graph.entering(index)) for index, mine in enumerate(blocks))


@torch.inference_mode()
def test_without_a_bias_all_copies_stay_equal(clip, graph, entering):
    seen = recognise(clip, entering, torch.zeros(1, 3, 4, *graph.grid), graph.grid)
    assert all(each.equal(seen[0, 0]) for each in seen[0])


@torch.inference_mode()
def test_a_bias_that_leaves_one_patch_shows_that_patch_alone(clip, graph, entering):
    bias = torch.full((1, 3, 1, *graph.grid), -1e4)
    bias[..., 2, 1] = 0
    seen = recognise(clip, entering, bias, graph.grid)
    patch = 1 + 2 * graph.grid[1] + 1
    alone = [each[:, [0, patch]] for each in entering]
    wanted = recognise(clip, alone, torch.zeros(1, 3, 1, 1, 1), (1, 1))
    torch.testing.assert_close(seen, wanted, rtol=0, atol=1e-6)


@torch.inference_mode()
def test_a_finer_bias_is_max_pooled(clip, graph, entering):
    rows, columns = graph.grid
    bias = torch.full((1, 3, 1, 2 * rows, 2 * columns), -1e4)
    bias[..., 5, 2] = 0  # one of the four cells of patch (2, 1)
    coarse = torch.full((1, 3, 1, rows, columns), -1e4)
    coarse[..., 2, 1] = 0
    fine, wanted = (recognise(clip, entering, each, graph.grid) for each in (bias, coarse))
    assert fine.equal(wanted)
