"""Whatever a method may choose names a function that is there, and what it returns is checked."""

from __future__ import annotations

import pytest
import torch

from cliptrase import config
from cliptrase.config import kinds
from cliptrase.errors import UserError
from cliptrase.evaluate.graph import Graph
from cliptrase.model import attention
from cliptrase.model.load import load_clip

REFERENCES = [
    *(kind.function for kind in kinds.ATTENTION.values()),
    *(kind.rows for kind in kinds.DENOISE.values()),
    *(kind.kept for kind in kinds.DENOISE.values() if kind.kept),
    *(kind.function for kind in kinds.VOTE.values() if kind.function),
    *kinds.CLUSTERING.values(),
    *(kind.function for kind in kinds.PROPAGATE.values()),
    *(kind.joined for kind in kinds.PROPAGATE.values() if kind.joined),
]


@pytest.mark.parametrize("reference", sorted(set(REFERENCES)))
def test_every_choice_is_computed_by_a_function_that_is_there(reference):
    assert kinds.function(reference).__doc__


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        (lambda original, blocks, attention: original.entering(0)[:, 1:], r"\(1, 4, 192\) values"),
        (lambda original, blocks, attention: original.entering(0) / 0 * 0, "NaN or infinity"),
    ],
)
def test_a_function_that_returns_no_tokens_is_named(monkeypatch, broken, fault):
    monkeypatch.setattr(attention, "gem", broken)
    run = config.resolve(["benchmark=shapes", "method=gem"])
    graph = Graph(load_clip(run.model), torch.randn(1, 3, 32, 32))
    message = rf"kind=gem: .*attention:gem returned .*{fault}.*\(1, 5, "
    with torch.inference_mode(), pytest.raises(UserError, match=message):
        graph.patches(run.method)
