"""The kinds that checks.py allows and the functions that compute them are the same."""

from __future__ import annotations

import pytest
import torch

from cliptrase import config
from cliptrase.config.checks import KINDS, MATRICES
from cliptrase.errors import UserError
from cliptrase.evaluate.graph import Graph
from cliptrase.model import own, vision
from cliptrase.model.load import load_clip


def test_every_kind_that_may_be_asked_for_is_computed():
    assert set(KINDS) == {"softmax", "identity", *MATRICES, *own.OWN}


def test_a_kind_without_a_function_is_refused_by_name():
    parts = vision.QKV(*(torch.randn(1, 2, 5, 4) for _ in range(3)))
    with pytest.raises(UserError, match=r"kind=box: nothing computes it.*own\.py"):
        vision.attend(parts, "box", ["qq"])


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda original, blocks, attention: original.entering(0)[:, 1:], r"\(1, 4, 192\) values"),
        (lambda original, blocks, attention: original.entering(0) / 0 * 0, "NaN or infinity"),
    ],
)
def test_a_function_that_returns_no_tokens_is_named(monkeypatch, broken, said):
    monkeypatch.setitem(own.OWN, "gem", broken)
    run = config.resolve(["benchmark=shapes", "method=gem"])
    graph = Graph(load_clip(run["model"]), torch.randn(1, 3, 32, 32))
    with torch.inference_mode(), pytest.raises(UserError, match=rf"kind=gem: .*{said}.*\(1, 5, "):
        graph.patches(run["method"])
