"""Methods whose patches change one another's logits, written out patch by patch in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.objects import method
from tests.parity.test_peers import (
    PATCH,
    array,
    clip_block,
    cliper_layers,
    norm,
    pixels,
    random_clip,
    softmax,
    unit_rows,
)

from cliptrase.config.method import Method
from cliptrase.evaluate.graph import Graph, Text
from cliptrase.model import vision
from cliptrase.model.fused import contrasted
from cliptrase.model.load import Clip

CLIPER = method("cliper")
METHODS = (CLIPER,)
OWNER = torch.tensor([0, 1, 1, 2, 3, 3])  # three classes, and words for the background


def words(graph: Graph, background: int | None) -> Text:
    """Names that are each like some patch of the first picture, so that they compete."""
    patches = graph.patches(method("clip"))[0]
    some = patches[torch.linspace(0, len(patches) - 1, len(OWNER)).long()]
    return Text(F.normalize(some - 0.9 * patches.mean(dim=0), dim=-1), OWNER, background)


def logits(graph: Graph, chosen: Method, text: Text, scale: float = 100.0) -> torch.Tensor:
    return graph.logits(chosen, text, f"words {text.background}", scale)


# ---------------------------------------------------------------- CLIPer


def slow_layers(clip: Clip, first: torch.Tensor) -> tuple[list[np.ndarray], np.ndarray]:
    """Unit features (N, E) of every layer and the last attention (N, N) between patches, of one
    picture; `first` (L, D) are the tokens entering block 1."""
    blocks, entering = list(clip.blocks), [array(first)]
    for block in blocks:
        entering.append(clip_block(block, entering[-1]))
    layers, attention = cliper_layers(blocks, entering)
    visual, features = clip.visual, []
    for tokens in layers:
        joint = np.stack([norm(token, visual.ln_post) @ array(visual.proj) for token in tokens])
        features.append(unit_rows(joint)[1:])
    return features, attention[1:, 1:]


def slow_cliper(layers: list[np.ndarray], attention: np.ndarray, text: Text) -> np.ndarray:
    """Scores (M, N) of one picture."""
    names, owners = array(text.features), text.owner.tolist()
    mean = sum(n for n, owner in zip(names, owners, strict=True) if owner != text.background)
    asked = [*names, mean / math.sqrt(mean @ mean)]
    maps = []
    for features in layers:
        rows = [softmax([100 * float(name @ patch) for name in asked]) for patch in features]
        maps.append(np.array(rows).T[:-1])
    for row in maps[-1]:
        row[row < 0.1 * max(row)] = 0
    scores = np.zeros_like(maps[-1])
    for (name, j), _ in np.ndenumerate(scores):
        spread = sum(maps[-1][name, i] * attention[i, j] for i in range(len(attention)))
        scores[name, j] = spread + sum(each[name, j] for each in maps) / len(maps)
    return scores


@pytest.mark.parametrize(("depth", "grid"), [(12, (4, 4)), (6, (5, 7))])
@torch.inference_mode()
def test_cliper(depth, grid):
    clip = random_clip(depth)
    graph = Graph(clip, pixels(grid))
    slow = [slow_layers(clip, tokens) for tokens in vision.embed_tokens(clip, pixels(grid))]
    scores = []
    for background in (None, 3):
        text = words(graph, background)
        scores.append(logits(graph, CLIPER, text))
        expected = np.stack([slow_cliper(*each, text) for each in slow])
        np.testing.assert_allclose(scores[-1].flatten(2), expected, atol=1e-5, rtol=0)
        assert torch.equal(logits(graph, CLIPER, text, 1.0), scores[-1])  # it has its own scale
    assert (scores[0] - scores[1]).abs().max() > 1e-3  # background words are not in the mean


def test_a_token_above_no_mean_attends_to_itself():
    even = torch.full((1, 1, 4, 4), 0.25)
    assert torch.equal(contrasted(even)[0, 0], torch.eye(4))
    even[0, 0, 0, 0] = 0.5
    rows = contrasted(even)[0, 0]
    assert torch.equal(rows[0], torch.eye(4)[0]) and torch.equal(rows.sum(dim=1), torch.ones(4))


# ---------------------------------------------------------------- whatever the method


@pytest.mark.parametrize("chosen", METHODS, ids=lambda each: each.name)
@torch.inference_mode()
def test_logits_of_a_picture_are_the_same_in_a_batch_and_whenever_words_are_known(chosen):
    clip, images = random_clip(6), torch.cat([pixels((5, 7)), pixels((5, 7)).flip(2)])
    graph = Graph(clip, images)
    text = words(graph, 3)
    together = logits(graph, chosen, text)
    for index, image in enumerate(images):
        alone = Graph(clip, image[None])
        encoded = alone.encode(chosen)
        assert torch.equal(logits(alone, chosen, text)[0], together[index])
        expected = alone.prediction(chosen, text, "words 3")
        assert torch.equal(encoded.classify(text), expected)
        assert (encoded.classify(words(graph, None)) != expected).any()


@pytest.mark.parametrize("chosen", METHODS, ids=lambda each: each.name)
@torch.inference_mode()
def test_a_picture_of_one_patch_and_one_of_equal_patches(chosen):
    clip, grey = random_clip(6), torch.full((1, 3, 5 * PATCH, 7 * PATCH), 0.3)
    clip.visual.positional_embedding[1:] = clip.visual.positional_embedding[1].clone()
    for images in (pixels((1, 1)), grey):
        graph = Graph(clip, images)
        made = logits(graph, chosen, words(graph, None))
        assert made.isfinite().all() and made.shape[2:] == graph.grid
