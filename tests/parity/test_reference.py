"""Every variant of the method against a slow reference.

The model is random, the picture has a few flat shapes, so that clusters form: golden_case.py.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from slow_reference import (
    CLASSES,
    WIDTH,
    Reference,
    gap,
    soft_vote,
    unit,
    vote,
)
from tests.objects import changed, listed_text, method
from tests.parity.golden_case import make_clip, make_pixels, make_text

from cliptrase.evaluate.graph import Graph
from cliptrase.model.load import Clip

VARIANTS: dict[str, dict[str, Any]] = {
    "cliptrase": {},
    "cls logits": {"cls_logits": True},
    "clip": {"attention.terms": ["qk"], "regions": None},
    "sclip": {"attention.terms": ["qq", "kk"], "regions": None},
    "+SCR": {"regions.vote": "none"},
    "+PC": {"regions.denoise": "none"},
    "inner product": {"regions.correlation.kind": "inner_product"},
    "features": {"regions.cluster": "features"},
    "block 12": {"regions.correlation.block": 12},
    "layer 9": {"attention.first_block": 9},
    "layer 9, direct": {"attention.first_block": 9, "attention.last_block": 9},
    "layer 11, direct, qk": {
        "attention.terms": ["qk"], "attention.first_block": 11, "attention.last_block": 11,
    },
    "cosine attention": {"attention.kind": "cosine", "cls_logits": True, "attention.row_sum": 1},
    "cosine attention as it comes": {"attention.kind": "cosine"},
    "cosine attention, rows of 3": {"attention.kind": "cosine", "attention.row_sum": 3},
    "cosine attention, terms qk": {
        "attention.kind": "cosine", "attention.row_sum": 1, "attention.terms": ["qk", "vv"],
    },
    "cosine attention, heads in a row": {
        "attention.kind": "cosine", "attention.row_sum": 1, "attention.heads": "concatenated",
    },
    "inner product attention": {
        "attention.kind": "inner_product", "attention.first_block": 11, "attention.row_sum": 1,
    },
    "softmax attention, rows of 1": {"attention.row_sum": 1},
    "correlation of heads in a row": {"regions.correlation.heads": "concatenated"},
    "rows of length 1": {"regions.l2_rows": True},
    "Eq. 7": {
        "regions.denoise": "eq7", "regions.correlation.kind": "inner_product",
        "regions.correlation.block": 12,
    },
    "Eq. 7, two passes": {
        "regions.denoise": "eq7", "regions.correlation.kind": "inner_product",
        "regions.correlation.block": 12, "regions.passes": 2,
    },
    "soft vote": {"regions.vote": "soft"},
    "soft vote, cls logits": {
        "regions.vote": "soft", "cls_logits": True, "regions.cluster": "features",
    },
    "the paper's text": {
        "attention.kind": "cosine", "attention.row_sum": 1, "regions.correlation.block": 12,
        "regions.l2_rows": True, "regions.denoise": "eq7", "regions.passes": 2,
        "regions.upsample": 1, "regions.median": 1,
    },
    "no residual": {"attention.residual": False},
    "no FFN": {"attention.ffn": False, "attention.residual": False, "attention.first_block": 10},
    "other filter": {"regions.upsample": 3, "regions.median": 5, "regions.min_samples": 5},
}  # fmt: skip


@pytest.fixture(scope="module")
def clip() -> Clip:
    return make_clip()


@pytest.fixture(scope="module")
def shifted(clip) -> Clip:
    """What all tokens share makes some inner products larger than a token's with itself (Eq. 7)."""
    other = copy.deepcopy(clip)
    other.visual.transformer.resblocks[11].attn.in_proj_bias[: 2 * WIDTH].mul_(150)
    return other


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return make_pixels()


@pytest.fixture(scope="module")
def text(clip, pixels) -> np.ndarray:
    return make_text(clip, pixels[0], method(changes={"regions": None}))


# ---------------------------------------------------------------- the comparison


def equal_but_for_ties(ours: torch.Tensor, scores: np.ndarray, folded: int | None = None) -> None:
    """`ours` is the argmax of `scores` wherever the two best are more than 1e-4 apart."""
    best = np.sort(scores, axis=0)
    clear = np.ones(ours.shape, bool) if len(scores) == 1 else best[-1] - best[-2] > 1e-4
    expected = scores.argmax(axis=0)
    expected = expected if folded is None else np.minimum(expected, folded)
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(ours.numpy()[clear], expected[clear])


@pytest.mark.parametrize("name", VARIANTS)
def test_variant(clip, shifted, pixels, text, name):
    chosen = method(changes=VARIANTS[name])
    clip = shifted if name.startswith("Eq. 7") else clip
    reference = Reference(clip, pixels[0], text, chosen, fit_eps=True)
    if reference.votes:
        chosen = changed(chosen, {"regions.eps": reference.eps})
    graph = Graph(clip, torch.from_numpy(pixels[:1]))
    words = listed_text(torch.from_numpy(text), CLASSES)
    ours = graph.prediction(chosen, words, "words", 100.0)[0]
    close = {"atol": 1e-4, "rtol": 0}
    np.testing.assert_allclose(graph.patches(chosen)[0], reference.features[1:], **close)
    np.testing.assert_allclose(graph.cls(chosen)[0], reference.features[0], **close)
    plain = graph.prediction(changed(chosen, {"regions": None}), words, "words", 100.0)[0]
    equal_but_for_ties(plain, reference.logits, CLASSES)
    assert len(np.unique(plain)) > 1
    if not reference.votes:
        assert torch.equal(ours, plain)
        return
    correlation = chosen.regions.correlation.model_dump(exclude_defaults=True)
    np.testing.assert_allclose(
        graph.correlation(**correlation)[0], reference.w, atol=1e-4, rtol=2e-6
    )
    np.testing.assert_array_equal(graph.clusters(chosen)[0], reference.labels)
    assert reference.labels.max() > 0 and (reference.labels == -1).any()
    regions = graph.regions(chosen)[0]
    equal_but_for_ties(regions, np.stack(reference.maps))
    if chosen.regions.vote == "soft":
        expected = soft_vote(plain.numpy(), reference.logits, regions.numpy())
    else:
        expected = vote(plain.numpy(), regions.numpy())
    np.testing.assert_array_equal(ours, expected)
    if name == "Eq. 7":
        assert reference.dropped > 0
    assert (ours != plain).any()


def test_the_variants_are_different_methods(clip, shifted, pixels, text):
    """So that a key that is ignored cannot pass for one that works."""
    words = listed_text(torch.from_numpy(text), CLASSES)
    seen: dict[bytes, list[str]] = {}
    for name, changes in VARIANTS.items():
        chosen = method(changes=changes)
        model = shifted if name.startswith("Eq. 7") else clip
        graph = Graph(model, torch.from_numpy(pixels))
        if chosen.regions is not None:
            m = graph.patch_rows(chosen.regions)[0].numpy()
            rows = graph.patches(chosen)[0].numpy() if name == "features" else m
            rows = unit(rows) if chosen.regions.l2_rows else rows
            chosen = changed(chosen, {"regions.eps": gap(rows)})
        results = [graph.patches(chosen), graph.prediction(chosen, words, "words", 100.0)]
        if Reference.votes_in(chosen):
            results.append(graph.regions(chosen))
        seen.setdefault(b"".join(result.numpy().tobytes() for result in results), []).append(name)
    assert [names for names in seen.values() if len(names) > 1] == []
