"""The correlation by its definition, head by head."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from cliptrase.model.vision import QKV
from cliptrase.segment.correlation import correlation, less_cls, patch_part


@pytest.mark.parametrize("kind", ["cosine", "inner_product"])
def test_mean_over_heads_of_a_third_of_q_k_and_v(kind):
    parts = torch.randn(3, 2, 4, 7, 5, generator=torch.Generator().manual_seed(0))
    expected = np.zeros((2, 7, 7))
    for part, image, head, i, j in itertools.product(*map(range, (3, 2, 4, 7, 7))):
        a, b = parts[part, image, head, [i, j]].double()
        product = float(a @ b)
        if kind == "cosine":
            product /= float(a.norm() * b.norm())
        expected[image, i, j] += product / (3 * 4)
    ours = correlation(QKV(*parts), kind)
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-5)
    if kind == "cosine":
        np.testing.assert_allclose(np.diagonal(ours.numpy(), axis1=1, axis2=2), 1, atol=1e-5)


def test_denoising_takes_the_cls_row_off_every_row():
    w = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(1))
    m = less_cls(w)
    for image, i, j in itertools.product(range(2), range(5), range(5)):
        expected = max(float(w[image, i + 1, j + 1] - w[image, 0, j + 1]), 0)
        assert m[image, i, j].item() == pytest.approx(expected, abs=1e-7)
    assert (m == 0).any() and (m > 0).any()
    assert torch.equal(patch_part(w), w[:, 1:, 1:])
