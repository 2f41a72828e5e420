"""Median and regions against SciPy and plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import median_filter as scipy_median

from cliptrase.segment import ways
from cliptrase.segment.argmax import _update, first_argmax
from cliptrase.segment.median import median_filter
from cliptrase.segment.regions import prototype, prototypes, region_maps, smooth_maps
from cliptrase.segment.tiles import bilinear as upsampled


def random_maps(*shape: int, seed: int = 0, ties: bool = False) -> torch.Tensor:
    maps = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return (maps * 2).round() if ties else maps


@pytest.mark.parametrize("window", [1, 3, 5, 7, 9, 11, 13])
@pytest.mark.parametrize("shape", [(3, 56, 56), (1, 84, 84), (2, 5, 9), (1, 3, 40), (2, 1, 1)])
@pytest.mark.parametrize("ties", [False, True])
def test_median_is_scipys(window, shape, ties):
    maps = random_maps(*shape, ties=ties)
    expected = [scipy_median(one, size=window, mode="reflect") for one in maps.numpy()]
    np.testing.assert_array_equal(median_filter(maps, window).numpy(), np.stack(expected))


@pytest.mark.parametrize("window", [3, 7, 9])
def test_median_of_tensors_is_that_of_arrays(window):
    """The way of a GPU, taken on the CPU: the same selection on tensors."""
    maps = random_maps(4, 20, 28)
    expected = median_filter(maps, window)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ways, "one_by_one", lambda device: False)
        assert torch.equal(median_filter(maps, window), expected)


def test_median_leaves_its_input_and_is_not_a_view():
    maps = random_maps(2, 10, 10)
    kept = maps.clone()
    out = median_filter(maps, 7)
    out.zero_()
    assert torch.equal(maps, kept)


def test_prototype_is_the_mean_of_the_members():
    rows = random_maps(9, 9)
    members = torch.zeros(9, dtype=torch.bool)
    members[[1, 4, 8]] = True
    expected = (rows[1].double() + rows[4] + rows[8]) / 3
    assert torch.allclose(prototype(rows, members), expected.float(), atol=1e-6)


def bilinear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """align_corners=False by the definition: pixel centres, clamped at the border."""
    for axis, new in enumerate(size):
        old = image.shape[axis]
        place = np.maximum((np.arange(new) + 0.5) * old / new - 0.5, 0)
        low = np.minimum(place.astype(int), old - 1)
        high = np.minimum(low + 1, old - 1)
        weight = (place - low)[:, None]
        image = np.moveaxis(image, axis, 0)
        image = (1 - weight) * image[low] + weight * image[high]
        image = np.moveaxis(image, 0, axis)
    return image


@pytest.mark.parametrize(("upsample", "median"), [(4, 7), (1, 3), (2, 1), (3, 5)])
@pytest.mark.parametrize(
    ("grid", "out_size"), [((14, 14), (224, 224)), ((6, 9), (100, 130)), ((1, 3), (20, 50))]
)
def test_regions_by_their_definition(upsample, median, grid, out_size):
    means = random_maps(5, grid[0] * grid[1], seed=grid[0])
    maps = smooth_maps(means, grid, upsample, median)
    ours = region_maps(upsampled(maps[None], out_size)[0], np.arange(5)[None])[0].numpy()
    expected = []
    for one in means.double().numpy():
        one = bilinear(one.reshape(grid), (grid[0] * upsample, grid[1] * upsample))
        one = scipy_median(one, size=median, mode="reflect")
        expected.append(bilinear(one, out_size))
    top = np.sort(np.stack(expected), axis=0)
    tied = top[-1] - top[-2] < 1e-5
    different = ours != np.argmax(expected, axis=0)
    assert not (different & ~tied).any()
    assert tied.mean() < 0.01 and len(np.unique(ours)) > 1


def test_a_map_does_not_depend_on_the_maps_beside_it():
    means = random_maps(7, 14 * 14)
    together = smooth_maps(means, (14, 14), 4, 7)
    for one, own in zip(means, together, strict=True):
        assert torch.equal(smooth_maps(one[None], (14, 14), 4, 7)[0], own)


def test_the_lowest_cluster_wins_ties():
    one = random_maps(28, 28)
    maps = upsampled(torch.stack([one - 5, one, one.clone(), one - 1])[None], (112, 112))[0]
    assert (region_maps(maps, np.arange(4)[None]) == 1).all()


@pytest.fixture(params=[True, False], ids=["a CPU's way", "a GPU's way"])
def either_way(request, monkeypatch):
    monkeypatch.setattr(ways, "one_by_one", lambda device: request.param)


def test_images_with_different_numbers_of_clusters(either_way):
    """As each by itself, whatever is put where an image has no more clusters."""
    maps = random_maps(20, 6, 8, ties=True)
    own = [[4], list(range(19)), [], [7, 3, 7, 12], [0, 1]]
    places = np.full((5, 19), -1)
    for row, one in zip(places, own, strict=True):
        row[: len(one)] = one
    together = region_maps(maps, places)
    for one, found in zip(own, together, strict=True):
        if not one:
            assert (found == -1).all()
            continue
        np.testing.assert_array_equal(found.numpy(), maps[one].numpy().argmax(axis=0))


def test_prototypes_of_some_clusters_of_some_images(either_way):
    rows = random_maps(3, 9, 9)
    labels = torch.from_numpy(np.random.default_rng(1).integers(-1, 4, (3, 9)))
    images, clusters = [2, 0, 2], [1, 2, 0]
    found = prototypes(rows, labels, images, clusters)
    assert found.dtype == torch.float32
    for image, cluster, one in zip(images, clusters, found, strict=True):
        expected = prototype(rows[image].double(), labels[image] == cluster)
        torch.testing.assert_close(one.double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_first_argmax_is_argmax(ties, batch):
    maps = random_maps(batch, 23, 9, 11, ties=ties)
    expected = torch.from_numpy(maps.numpy().argmax(axis=1))
    assert torch.equal(first_argmax(maps.split(4, dim=1)), expected)
    assert torch.equal(first_argmax([maps[:, :1]]), torch.zeros(batch, 9, 11, dtype=torch.int64))
    best, winner = torch.full((batch, 9, 11), -torch.inf), torch.zeros(batch, 9, 11).long()
    for start in range(0, 23, 4):  # the path of a GPU, run on the CPU
        _update(best, winner, maps[:, start : start + 4], start)
    assert torch.equal(winner, expected) and torch.equal(best, maps.amax(dim=1))
    with pytest.raises(ValueError, match="no maps"):
        first_argmax([])


def test_interpolation_used_is_the_definition():
    """torch's bilinear resize against the loops above, so that both mean the same grid."""
    maps = random_maps(1, 1, 7, 5)
    ours = F.interpolate(maps, size=(30, 31), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(
        ours[0, 0].numpy(), bilinear(maps[0, 0].double().numpy(), (30, 31)), atol=1e-5
    )
