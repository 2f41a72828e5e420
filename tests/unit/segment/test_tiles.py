"""Upsampling tile by tile and choosing cell by cell: the bits, and so the ties, of the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cliptrase.segment import cells
from cliptrase.segment import tiles as module
from cliptrase.segment.logits import classify
from cliptrase.segment.tiles import bilinear, tiles


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slowly(logits: torch.Tensor, out_size: tuple[int, int]) -> np.ndarray:
    big = F.interpolate(logits, size=out_size, mode="bilinear", align_corners=False)
    return big.numpy().argmax(axis=1)


CASES = "5 5 16, 6 17 16, 14 14 16, 21 21 16, 14 14 8, 9 30 8, 3 4 32, 2 3 64, 33 40 2, 65 70 1"


@pytest.mark.parametrize("case", CASES.split(", "))
def test_tiles_have_the_bits_of_the_whole_and_cover_it_once(case):
    *grid, factor = map(int, case.split())
    out_size = (grid[0] * factor, grid[1] * factor)
    assert len(tiles((grid[0], grid[1]), out_size)) > (grid[0] > 5)
    maps = drawn(2, 3, *grid, seed=factor)
    whole, seen = bilinear(maps, out_size), torch.zeros(out_size)
    for y, x in tiles((grid[0], grid[1]), out_size):
        alone = bilinear(maps[..., y.patches, x.patches], (y.size, x.size))
        assert torch.equal(alone[..., y.inner, x.inner], whole[..., y.pixels, x.pixels])
        seen[y.pixels, x.pixels] += 1
    assert (seen == 1).all()


SHAPES = "1 14 14 224 224, 8 14 14 224 224, 3 21 21 336 336, 8 56 56 224 224, 2 14 21 300 450"


@pytest.mark.parametrize("shape", SHAPES.split(", "))
def test_upsampling_by_products_is_torch_s_to_the_last_bit(shape):
    """Where it may be taken; and everywhere as near to it as rounding allows."""
    count, *sides = map(int, shape.split())
    maps, size = 7 * drawn(1, count, *sides[:2], seed=count), (sides[2], sides[3])
    expected = F.interpolate(maps.swapaxes(0, 1), size=size, mode="bilinear", align_corners=False)
    assert torch.equal(bilinear(maps, size).swapaxes(0, 1), expected)
    weights = [module._weights(few, many) for few, many in zip(sides[:2], size, strict=True)]
    products = module._products(maps.swapaxes(0, 1), *weights)
    torch.testing.assert_close(products, expected, rtol=0, atol=4e-7 * float(maps.abs().max()))


def test_products_are_taken_only_where_trials_have_the_bits_of_torch(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    decide = module._products_are_exact.__wrapped__
    exact = module._products

    def last_bit(maps, rows, columns):
        made = exact(maps, rows, columns)
        made[0, 0, -1, -1] *= 1 + 2**-20
        return made

    monkeypatch.setattr(module, "_products", last_bit)
    assert not decide((2, 14, 14), (224, 224), 1)
    monkeypatch.setattr(module, "_products", lambda maps, *_: module._by_torch(maps, (224, 224)))
    assert decide((2, 14, 14), (224, 224), 1)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not decide((2, 14, 14), (224, 224), 1)


def test_maps_of_the_size_that_is_asked_for_stay_as_they_are():
    maps = drawn(1, 2, 80, 90)
    same = F.interpolate(maps, size=(80, 90), mode="bilinear", align_corners=False)
    assert torch.equal(bilinear(maps, (80, 90)), maps) and torch.equal(same, maps)


@pytest.mark.parametrize("out_size", [(112, 112), (112, 128), (129, 128), (3, 3), (64, 64)])
def test_no_tiles_where_weights_are_not_exact_or_the_whole_is_small(out_size):
    assert tiles((8, 8), out_size) == [] != tiles((8, 8), (128, 128))


@pytest.mark.parametrize("size", [(15, 20), (96, 96), (83, 91)])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8, 9, 11, 16, 19])
def test_equal_maps_are_equal_after_upsampling_however_many_they_are(count, size):
    """As channels of one tensor they are not."""
    for seed in range(3):
        maps = bilinear(drawn(1, 1, 6, 5, seed=seed).expand(2, count, 6, 5), size)
        assert (maps == maps[:1, :1]).all()


@pytest.mark.parametrize("out_size", [(96, 96), (84, 84)])  # with tiles, and without
def test_classes_a_rounding_apart_are_told_apart_as_in_the_whole(out_size):
    """Pairs of maps that differ by what rounding does: which is larger depends on the order of
    the sums in upsampling."""
    grid = (6, 6)
    for seed in range(8):
        some = 3 * drawn(1, 150, *grid, seed=seed)
        almost = some * (1 + 1.2e-7 * drawn(1, 150, *grid, seed=seed + 50).round())
        logits = torch.stack([some, almost], dim=2).flatten(1, 2)
        ours = classify(logits, out_size, torch.arange(300)).numpy()
        np.testing.assert_array_equal(ours, slowly(logits, out_size))


def test_the_faster_upsampling_alone_would_tell_some_of_them_otherwise(monkeypatch):
    """So the test above can fail, and the second look is needed."""
    some = 3 * drawn(1, 150, 6, 6)
    almost = some * (1 + 1.2e-7 * drawn(1, 150, 6, 6, seed=50).round())
    logits = torch.stack([some, almost], dim=2).flatten(1, 2)
    monkeypatch.setattr(cells, "_look_again", lambda *_: None)
    ours = classify(logits, (96, 96), torch.arange(300)).numpy()
    assert (ours != slowly(logits, (96, 96))).any()
