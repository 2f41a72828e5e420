"""Outliers, their repair and averages over like patches, against slow loops and by hand."""

import numpy as np
import torch
from slow_patches import (
    averaged_over_like,
    centred_softmax,
    cosine_matrix,
    factor_outliers,
    repaired_patches,
    sink_outliers,
)

from cliptrase.model.affinity import (
    attention_sinks,
    averaged,
    centred_attention,
    cosines,
    local_outliers,
    repaired,
)

GRID = (5, 7)


def patches(count: int, width: int = 6) -> torch.Tensor:
    return torch.randn(2, count, width, generator=torch.Generator().manual_seed(count))


def places(outliers: torch.Tensor) -> list[set[int]]:
    return [set(row.nonzero().flatten().tolist()) for row in outliers]


def test_outliers_are_those_of_each_picture():
    for count in (2, 3, 16, 31, 32, 35, 121):
        some = patches(count)
        some[1] *= 100  # one picture's distances say nothing about the other
        expected = [factor_outliers(picture.double().numpy(), 0.95) for picture in some]
        assert places(local_outliers(some, 0.95)) == expected


def test_a_quantile_at_a_whole_rank_is_that_factor_itself():
    """0.95 · 440 = 418 patches lie below the limit, one at it and 22 above."""
    assert local_outliers(patches(441), 0.95).sum(dim=1).tolist() == [22, 22]
    assert local_outliers(patches(35), 1.0).sum() == 0
    assert local_outliers(patches(35), 0.0).sum(dim=1).tolist() == [34, 34]


def test_equal_patches_and_a_single_one_are_no_outliers():
    of_clip = 40 * patches(1, width=768)[:1]
    assert not local_outliers(of_clip.expand(1, 197, 768), 0.95).any()
    assert not local_outliers(patches(1), 0.95).any()


def test_sinks_draw_more_of_cls_than_of_themselves_at_most_ten_and_the_first_of_equal_ones():
    drawn = torch.rand(2, 36, 36, generator=torch.Generator().manual_seed(5))
    drawn[1].diagonal().mul_(0.5)
    expected = [sink_outliers(picture.double().numpy(), 10) for picture in drawn]
    assert len(expected[1]) == 10
    assert places(attention_sinks(drawn, 10)) == expected
    even = torch.full((1, 36, 36), 1 / 36)
    assert (
        places(attention_sinks(even, 10))
        == [set(range(10))]
        == [sink_outliers(even[0].numpy(), 10)]
    )
    own = torch.eye(3)[None]
    assert not attention_sinks(own, 10).any() and attention_sinks(even[:, :2, :2], 10).all()


def test_repaired_patches_are_the_mean_of_the_neighbours_that_are_no_outliers():
    some = patches(35)
    outliers = torch.zeros(2, 35, dtype=torch.bool)
    outliers[0, [0, 1, 7, 8, 20, 34]] = True  # patch 0 has outliers alone around it
    outliers[1] = True
    mended = repaired(some, outliers, GRID)
    for ours, picture, which in zip(mended, some, places(outliers), strict=True):
        expected = repaired_patches(picture.double().numpy(), which, GRID)
        np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert torch.equal(mended[0, 0], some[0, 0]) and torch.equal(mended[1], some[1])
    torch.testing.assert_close(mended[0, 34], some[0, [26, 27, 33]].mean(dim=0))


def test_averages_and_centred_attention():
    some = patches(35)
    similarity = cosines(some)
    for image, picture in enumerate(some.double().numpy()):
        slow = cosine_matrix(picture)
        np.testing.assert_allclose(similarity[image], slow, atol=1e-6)
        ours = centred_attention(similarity)[image]
        np.testing.assert_allclose(ours, centred_softmax(slow), atol=1e-6)
        ours = averaged(some, similarity, 0.4)[image]
        np.testing.assert_allclose(ours, averaged_over_like(slow, picture, 0.4), atol=1e-5)
        assert ((slow > 0.3) & (slow < 0.4)).any()  # the threshold decides something


def test_patches_that_are_equal_but_for_rounding_attend_to_themselves_at_least():
    below = torch.full((1, 4, 4), 1.0)
    below[0, 0] = 1 - 1e-6
    attention = centred_attention(below)
    assert attention.isfinite().all() and attention[0, 0, 0] == 1
    assert averaged(torch.ones(1, 4, 2), below, 1.0).isfinite().all()
