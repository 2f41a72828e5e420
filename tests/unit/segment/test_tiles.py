"""Upsampling tile by tile and choosing cell by cell: the bits, and so the ties, of the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cliptrase.evaluate.jobs import operations
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


def by_torch(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(1, K, h, w), each alone."""
    alone = F.interpolate(maps.swapaxes(0, 1), size=size, mode="bilinear", align_corners=False)
    return alone.swapaxes(0, 1)


@pytest.fixture
def products(monkeypatch) -> list[torch.Size]:
    """Takes products wherever they are possible, whatever the machine; the shapes that were."""
    taken: list[torch.Size] = []
    computed = module._products

    def noted(maps, *weights):
        taken.append(maps.shape)
        return computed(maps, *weights)

    def weights(shape, size, threads):
        return tuple(module._weights(*side) for side in zip(shape[1:], size, strict=True))

    monkeypatch.setattr(module, "_products", noted)
    monkeypatch.setattr(module, "_exact_weights", weights)
    return taken


@pytest.mark.parametrize("shape", SHAPES.split(", "))
def test_products_upsample_as_torch_but_for_rounding(shape, products):
    count, height, width, *size = map(int, shape.split())
    for maps in (
        7 * drawn(1, count, height, width, seed=count),
        drawn(1, height * width, count).transpose(1, 2).unflatten(2, (height, width)),  # as logits
    ):
        most = 4e-7 * float(maps.abs().max())
        ours = bilinear(maps, (size[0], size[1]))
        torch.testing.assert_close(ours, by_torch(maps, (size[0], size[1])), rtol=0, atol=most)
    assert len(products) == 2
    assert operations(lambda: bilinear(maps, (size[0], size[1]))) == 0


def test_upsampling_of_any_shape_is_torch_s_to_the_last_bit():
    """On this machine, whether it takes products or not."""
    rng = np.random.default_rng(0)
    for seed in range(60):
        height, width = rng.integers(1, 80, 2).tolist()
        size = int(rng.integers(height, 400)), int(rng.integers(width, 400))
        count, scale = int(rng.integers(1, 17)), float(10 ** rng.uniform(-3, 3))
        maps = scale * drawn(1, count, height, width, seed=seed)
        if seed % 2:
            rows = scale * drawn(1, height * width, count, seed=seed)
            maps = rows.transpose(1, 2).unflatten(2, (height, width))
        assert torch.equal(bilinear(maps, size), by_torch(maps, size)), (maps.shape, size)


@pytest.mark.parametrize(
    ("maps", "size"),
    [
        (drawn(1, 2, 14, 14).double(), (224, 224)),
        (drawn(1, 2, 14, 14).bfloat16(), (224, 224)),
        (drawn(1, 2, 65, 14), (520, 112)),
        (drawn(1, 2, 1, 14), (200, 200)),
        (drawn(1, 2, 40, 40), (39, 200)),
        (drawn(1, 2, 14, 14), (64, 64)),  # torch has another kernel
        *((drawn(1, 2, 14, 14).index_fill(3, torch.tensor(3), odd), (224, 224)) for odd in
          (torch.inf, -torch.inf, torch.nan)),
    ],
)  # fmt: skip
def test_all_else_is_upsampled_by_torch(maps, size, products):
    assert torch.equal(bilinear(maps, size).nan_to_num(7), by_torch(maps, size).nan_to_num(7))
    assert not products


def test_products_are_taken_only_where_trials_have_the_values_of_torch(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    decide, exact = module._exact_weights.__wrapped__, module._products

    def last_bit(maps, rows, columns):
        made = exact(maps, rows, columns)
        made[0, -1, -1] *= 1 + 2**-20
        return made

    monkeypatch.setattr(module, "_products", last_bit)
    assert decide(*module.EDGES, 1) is None
    monkeypatch.setattr(
        module, "_products", lambda maps, *_: module._by_torch(maps[:, None], (224, 224))[:, 0]
    )
    rows, columns = decide(*module.EDGES, 1)
    assert rows.shape == columns.shape == (224, 15)
    monkeypatch.setattr(module, "_exact_weights", lambda *_: None)
    assert decide((2, 14, 14), (224, 224), 1) is None, "not where that shape differs"
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert decide(*module.EDGES, 1) is None


def test_maps_of_the_size_that_is_asked_for_stay_as_they_are():
    maps = drawn(1, 2, 80, 90)
    assert bilinear(maps, (80, 90)) is maps
    assert torch.equal(by_torch(maps, (80, 90)), maps)


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
