"""Pixel classes against the whole tensor upsampled at once, and the vote against loops."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cliptrase.segment.logits import classify, contenders, patch_logits
from cliptrase.segment.vote import hard_vote


def features(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def owners(logits: torch.Tensor, classes: int) -> torch.Tensor:
    return torch.arange(logits.shape[1]).clamp_max(classes)


def whole(logits: torch.Tensor, out_size: tuple[int, int]) -> torch.Tensor:
    big = F.interpolate(logits, size=out_size, mode="bilinear", align_corners=False)
    return torch.from_numpy(big.numpy().argmax(axis=1))


@pytest.mark.parametrize("classes", [1, 2, 20, 150, 847])
@pytest.mark.parametrize("grid", [(14, 14), (3, 8), (1, 5), (1, 1)])
@pytest.mark.parametrize("smooth", [False, True])
def test_streamed_classes_are_the_argmax_of_everything(classes, grid, smooth):
    """`smooth`: neighbouring patches alike, as in pictures, so that most classes drop out."""
    logits = torch.randn(2, classes, *grid, generator=torch.Generator().manual_seed(classes))
    if smooth:
        logits = 0.1 * logits + 3 * torch.randn(
            2, classes, 1, 1, generator=torch.Generator().manual_seed(1)
        )
    assert torch.equal(classify(logits, (45, 61), owners(logits, classes)), whole(logits, (45, 61)))
    if smooth and classes > 100:
        assert len(contenders(logits)) < classes / 2


def test_classes_that_tie_everywhere_stay_and_the_first_wins():
    one = torch.randn(1, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    logits = torch.cat([one - 1, one, one, one - 1e-7], dim=1)
    assert {1, 2} <= set(contenders(logits).tolist())
    assert torch.equal(classify(logits, (24, 24), owners(logits, 4)), whole(logits, (24, 24)))
    assert (classify(logits, (24, 24), owners(logits, 4)) <= 2).all()


def test_a_class_that_wins_one_corner_pixel_stays():
    logits = torch.zeros(1, 30, 5, 5)
    logits[0, 7] = 1
    logits[0, 22, 4, 4] = 1.001
    assert contenders(logits).tolist() == [7, 22]
    assert classify(logits, (80, 80), owners(logits, 30))[0, 79, 79] == 22


def test_background_words_are_folded():
    logits = torch.randn(1, 9, 4, 4, generator=torch.Generator().manual_seed(2))
    plain, folded = (
        classify(logits, (16, 16), owners(logits, 9)),
        classify(logits, (16, 16), owners(logits, 5)),
    )
    assert torch.equal(folded, plain.clamp_max(5)) and (plain > 5).any()


def test_a_class_of_several_names_wins_where_one_of_them_does():
    """The maximum over a class's synonyms, against the maximum taken first."""
    logits = torch.randn(2, 9, 4, 5, generator=torch.Generator().manual_seed(3))
    owner = torch.tensor([2, 0, 1, 1, 3, 0, 2, 2, 3])
    big = F.interpolate(logits, size=(24, 20), mode="bilinear", align_corners=False)
    best = torch.stack([big[:, owner == c].amax(dim=1) for c in range(4)], dim=1)
    assert torch.equal(classify(logits, (24, 20), owner), best.argmax(dim=1))


def test_cls_logits_multiply_negative_factors_too():
    patches, text, cls = features(2, 6, 12), features(5, 12, seed=1), features(2, 12, seed=2)
    ours = patch_logits(patches, text, (2, 3), 100.0, cls)
    expected = np.zeros((2, 5, 2, 3))
    for image in range(2):
        for c in range(5):
            factor = 100 * float(cls[image].double() @ text[c].double())
            for patch in range(6):
                cosine = float(patches[image, patch].double() @ text[c].double())
                expected[image, c, patch // 3, patch % 3] = 100 * cosine * factor
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-4, atol=1e-2)
    assert (cls @ text.T < 0).any()
    plain = patch_logits(patches, text, (2, 3), 40.0)
    np.testing.assert_allclose(
        plain.numpy(), 40 * np.einsum("bne,ke->bkn", patches, text).reshape(2, 5, 2, 3), atol=1e-4
    )


def voted(classes: np.ndarray, regions: np.ndarray) -> np.ndarray:
    out = classes.copy()
    for image in range(len(classes)):
        for region in set(regions[image].flatten()) - {-1}:
            inside = regions[image] == region
            counts = Counter(classes[image][inside].tolist())
            most = max(counts.values())
            out[image][inside] = min(c for c, count in counts.items() if count == most)
    return out


@pytest.mark.parametrize("seed", range(5))
def test_vote(seed):
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 4, (3, 12, 10))
    regions = rng.integers(-1, 9, (3, 12, 10))
    regions[1] = -1  # an image without a cluster
    ours = hard_vote(torch.from_numpy(classes), torch.from_numpy(regions)).numpy()
    np.testing.assert_array_equal(ours, voted(classes, regions))
    np.testing.assert_array_equal(ours[1], classes[1])


def test_a_tied_vote_goes_to_the_smallest_class():
    classes = torch.tensor([[[5, 2, 5, 2], [7, 7, 1, 1]]])
    regions = torch.tensor([[[0, 0, 0, 0], [3, 3, 3, 3]]])
    assert hard_vote(classes, regions).tolist() == [[[2, 2, 2, 2], [1, 1, 1, 1]]]


def test_nobody_votes_without_regions():
    classes = torch.randint(0, 9, (2, 5, 5), generator=torch.Generator().manual_seed(0))
    assert torch.equal(hard_vote(classes, torch.full((2, 5, 5), -1)), classes)
