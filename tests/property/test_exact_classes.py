"""Class maps are what resizing every map and taking the first of the largest gives, pixel by pixel.

Whatever is left out on the way (names that cannot win, in all of a picture or in a part of it), and
however many pictures are in a batch. Logits that tie are what an optimisation gets wrong, so that
most cases here are full of ties.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from slow_stages import classified, plain, upsampled

from cliptrase.segment.argmax import _update, first_argmax
from cliptrase.segment.logits import classify, patch_logits

Shape = tuple[int, ...]
Maker = Callable[[np.random.Generator, Shape], np.ndarray]
GRIDS = [(1, 1), (1, 7), (7, 1), (2, 2), (3, 3), (3, 8), (5, 4), (7, 7), (14, 14)]
BATCHES = [1, 1, 2, 3, 5, 8]


def smooth(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """As in pictures: classes differ more than patches, so that most cannot win."""
    return rng.normal(size=(*shape[:2], 1, 1)) + 0.1 * rng.normal(size=shape)


def blocks(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Each class is large in a rectangle of patches of its own: contenders differ by place."""
    out = rng.normal(size=shape)
    for image in out:
        for one in image:
            top, left = (int(rng.integers(side)) for side in one.shape)
            one[top : top + 3, left : left + 3] += 6
    return out


def few_maps(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Several classes have the very same map."""
    kinds = rng.normal(size=(shape[0], min(3, shape[1]), *shape[2:]))
    return kinds[:, rng.integers(kinds.shape[1], size=shape[1])]


def neighbours(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """One map for all classes, but for a patch here and there by the last bit of a float32."""
    one = np.broadcast_to(rng.normal(size=(shape[0], 1, *shape[2:])), shape).astype(np.float32)
    up = np.nextafter(one, np.float32(np.inf), dtype=np.float32)
    return np.where(rng.random(shape) < 0.1, up, one)


def powers(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    return rng.choice([-1, 1], shape) * 2.0 ** rng.integers(-4, 5, shape)


def two_scales(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Images of a batch that are large and tiny: what bounds one must not bound another."""
    return rng.normal(size=shape) * 10.0 ** rng.choice([-6, 0, 4], (shape[0], 1, 1, 1))


KINDS: dict[str, Maker] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "smooth": smooth,
    "blocks": blocks,
    "0, 1, 2": lambda rng, shape: rng.integers(0, 3, shape),
    "0, 1": lambda rng, shape: rng.integers(0, 2, shape),
    "powers of two": powers,
    "equal maps": few_maps,
    "the last bit": neighbours,
    "constant maps": lambda rng, shape: np.zeros(shape) + rng.integers(3, size=(*shape[:2], 1, 1)),
    "all equal": lambda rng, shape: np.full(shape, rng.normal()),
    "zeros of both signs": lambda rng, shape: np.where(rng.random(shape) < 0.5, 0.0, -0.0),
    "negative": lambda rng, shape: -3 - rng.exponential(5, shape),
    "huge": lambda rng, shape: 1e4 * rng.normal(size=shape),
    "huge, close": lambda rng, shape: 1e4 + rng.integers(0, 3, shape) / 512,
    "tiny": lambda rng, shape: 1e-6 * rng.integers(-2, 3, shape),
    "two scales": two_scales,
}  # fmt: skip


def drawn(kind: str, rng: np.random.Generator, shape: Shape) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(KINDS[kind](rng, shape), dtype=np.float32))


def out_size(rng: np.random.Generator, grid: tuple[int, int]) -> tuple[int, int]:
    """16 or 8 pixels a patch, or sides that are no multiple, now and then fewer than patches."""
    how = int(rng.integers(4))
    if how < 2:
        return grid[0] * (16, 8)[how], grid[1] * (16, 8)[how]
    return int(rng.integers(1, 140)), int(rng.integers(1, 140))


def owners(rng: np.random.Generator, names: int) -> torch.Tensor:
    """Every name a class, all from somewhere on the background, or synonyms in any order."""
    own = np.arange(names)
    how = int(rng.integers(3))
    if how == 1:
        own = own.clip(max=int(rng.integers(names)))
    if how == 2:
        own = rng.integers(int(rng.integers(1, names + 1)), size=names)
    return torch.from_numpy(own.astype(np.int64))


def check(logits: torch.Tensor, size: tuple[int, int], owner: torch.Tensor) -> int:
    """Compares every image of a batch; how many pixels tie."""
    ours = classify(logits, size, owner)
    assert ours.shape == (len(logits), *size) and ours.dtype == torch.int64
    ties = 0
    for image, own in enumerate(logits):
        slow = classified(own, size, owner)
        different = int((ours[image].numpy() != slow).sum())
        assert different == 0, f"{different} of {slow.size} pixels: {tuple(logits.shape)}, {size}"
        fine = upsampled(own, size)
        ties += int(((fine == fine.max(axis=0)).sum(axis=0) > 1).sum())
    return ties


@pytest.mark.parametrize("kind", KINDS)
def test_class_maps_of_random_batches(kind):
    rng = np.random.default_rng([1, *kind.encode()])
    images, ties = 0, 0
    for case in range(48):
        grid = GRIDS[case % len(GRIDS)]
        names = int(rng.choice([1, 2, 3, 4, 7, 8, 9, 11, 16, 19, 27]))
        batch = BATCHES[case % len(BATCHES)]
        logits = drawn(kind, rng, (batch, names, *grid))
        ties += check(logits, out_size(rng, grid), owners(rng, names))
        images += batch
    assert images == 160
    if kind in ("0, 1, 2", "equal maps", "the last bit", "all equal", "tiny", "constant maps"):
        assert ties > 10_000


@pytest.mark.parametrize("names", range(1, 41))
def test_equal_maps_are_the_first_name_s_however_many_there_are(names):
    """A map must not be rounded by how many others are resized with it."""
    for grid, size in (((6, 6), (96, 96)), ((7, 5), (40, 44)), ((1, 1), (16, 16))):
        one = torch.randn(2, 1, *grid, generator=torch.Generator().manual_seed(names))
        logits = one.expand(-1, names, -1, -1).contiguous()
        assert not classify(logits, size, torch.arange(names)).any()
        largest = torch.cat([logits - 9, logits, logits - 9], dim=1)
        assert (classify(largest, size, torch.arange(3 * names)) == names).all()


MANY = [  # patches, images, pixels
    ((14, 14), 1, (224, 224)),
    ((7, 10), 2, (112, 160)),
    ((11, 16), 1, (154, 224)),  # 14 pixels a patch
    ((5, 9), 3, (40, 72)),
    ((13, 4), 1, (52, 16)),
    ((1, 17), 2, (32, 544)),
    ((6, 7), 1, (6, 7)),
    ((14, 14), 1, (147, 128)),
    ((3, 5), 5, (37, 65)),
]


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        (20, ["normal", "smooth", "blocks", "0, 1, 2", "the last bit"]),
        (171, ["normal", "smooth", "blocks", "0, 1, 2", "the last bit"]),
        (847, ["smooth", "0, 1, 2", "the last bit"]),
    ],
)
def test_class_maps_of_many_names(names, kinds):
    """What parts of a picture are computed alone is another matter with many names."""
    rng = np.random.default_rng([2, names])
    for kind, (grid, batch, size) in itertools.product(kinds, MANY):
        check(drawn(kind, rng, (batch, names, *grid)), size, owners(rng, names))


@pytest.mark.parametrize(
    ("grid", "factor"), [((40, 36), 2), ((20, 18), 4), ((9, 12), 8), ((5, 6), 16), ((2, 3), 64)]
)
def test_names_that_rounding_could_confuse(grid, factor):
    """A few units of the last place apart at patches, whatever a patch has of pixels."""
    rng, size = np.random.default_rng(factor), (grid[0] * factor, grid[1] * factor)
    ties = 0
    for names in (5, 6, 20, 150):
        for apart in (1, 3, 20):
            one = rng.normal(size=(1, 1, *grid))
            units = rng.integers(-apart, apart + 1, (1, names, *grid)) * np.abs(one).max() / 2**24
            logits = torch.from_numpy((one + units).astype(np.float32))
            ties += check(logits, size, torch.arange(names))
    assert ties > 1000


def test_numbers_below_the_smallest_normal_one():
    """There rounding moves a number by more than its share of the largest."""
    for seed in range(20):
        numbers = torch.randint(-8, 9, (1, 20, 6, 6), generator=torch.Generator().manual_seed(seed))
        check(numbers.float() * 2.0**-149, (96, 96), torch.arange(20))


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_no_numbers_are_as_the_whole_has_them(wrong):
    logits = torch.randn(1, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    logits[0, 2, 1, 1] = wrong
    whole = first_argmax([upsampled_at_once(logits, (96, 96))])
    assert torch.equal(classify(logits, (96, 96), torch.arange(6)), whole)


def upsampled_at_once(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


@pytest.mark.parametrize(("side", "size"), [(14, 224), (21, 336)])
def test_class_maps_of_features_at_real_sizes(side, size):
    """As the pipeline lays them out: (B, N, K) seen as (B, K, h, w), names beside each other."""
    generator = torch.Generator().manual_seed(side)
    for names in (11, 59, 150, 300):
        anchor = torch.randn(2, 1, 32, generator=generator)
        patches = F.normalize(anchor + torch.randn(2, side**2, 32, generator=generator), dim=-1)
        text = F.normalize(torch.randn(names, 32, generator=generator), dim=-1)
        logits = patch_logits(patches, text, (side, side), 100.0)
        assert not logits.is_contiguous()
        check(logits, (size, size), torch.arange(names))
        cls = F.normalize(torch.randn(2, 32, generator=generator), dim=-1)
        check(
            patch_logits(patches, text, (side, side), 100.0, cls), (size, size), torch.arange(names)
        )


def test_the_slow_path_is_one_call_for_all_maps():
    """Where torch resizes all maps alike: larger than 128 pixels in both sides, and not three."""
    for names in (1, 2, 4, 5, 8, 11, 13, 37):
        for grid in GRIDS[1:]:
            maps = torch.randn(names, *grid, generator=torch.Generator().manual_seed(names))
            assert np.array_equal(upsampled(maps, (70, 61)), plain(maps, (70, 61)))


# ---------------------------------------------------------------- the running maximum


@pytest.mark.parametrize("path", ["cpu", "gpu"])
def test_first_argmax_of_any_chunks(path):
    """Cut anywhere, by both paths; many ties, one map, one chunk."""
    rng, ties = np.random.default_rng(3), 0
    for case in range(400):
        batch, names = int(rng.integers(1, 5)), int(rng.integers(1, 30))
        shape = (batch, names, int(rng.integers(1, 12)), int(rng.integers(1, 12)))
        kind = list(KINDS)[case % len(KINDS)]
        maps = drawn(kind, rng, shape)
        expected = maps.numpy().argmax(axis=1)
        ties += int(((maps == maps.amax(dim=1, keepdim=True)).sum(dim=1) > 1).sum())
        cuts = np.diff(np.unique([0, *rng.integers(names, size=4), names])).tolist()
        chunks = maps.split(cuts, dim=1)
        if path == "cpu":
            found = first_argmax(chunk for chunk in chunks)
        else:  # what a GPU does, run here
            best = torch.full((batch, *shape[2:]), -torch.inf)
            found, start = torch.zeros((batch, *shape[2:]), dtype=torch.int64), 0
            for chunk in chunks:
                _update(best, found, chunk, start)
                start += chunk.shape[1]
        assert np.array_equal(found.numpy(), expected), kind
    assert ties > 10_000
