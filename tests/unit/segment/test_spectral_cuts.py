"""Masks that are cut out of the graph of patches, against SciPy and a cut by loops."""

from contextlib import suppress

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from slow_cuts import NotUnique, cut_slowly, second_vector
from slow_stages import upsampled
from tests.objects import listed_text

from cliptrase.config import resolve
from cliptrase.config.method_regions import CutOptions
from cliptrase.evaluate.graph import Graph
from cliptrase.model.backbones import load_networks
from cliptrase.model.dino import tokens
from cliptrase.model.load import load_clip
from cliptrase.segment.spectral_cuts import second_eigenvector, spectral_cuts
from cliptrase.segment.tiles import nearest

LAVG = ["benchmark=shapes", "method=lavg"]
USUAL = CutOptions()


def planted(labels, within=0.9, between=0.1):
    """Correlations (1, N, N) of patches with these labels."""
    labels = torch.as_tensor(labels).flatten()
    return torch.where(labels[:, None] == labels, within, between)[None]


def blobs(seed, grid, count, noise):
    """Correlations (1, N, N) of noisy features in `count` groups of neighbouring patches."""
    rng = np.random.default_rng(seed)
    places = np.stack(np.divmod(np.arange(grid[0] * grid[1]), grid[1]), axis=1)
    centres = places[rng.permutation(len(places))[:count]]
    nearest_centre = ((places[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    features = rng.normal(size=(count, 12))[nearest_centre]
    features += noise * rng.normal(size=features.shape)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return torch.from_numpy((features @ features.T).astype(np.float32))[None]


@pytest.mark.parametrize("first", [1, 2, 3, 4])
def test_the_eigenvector_of_two_planted_blocks_is_scipys(first):
    """Blocks of `first` and 6 − first patches: a sign each."""
    weights = np.full((6, 6), 1e-5)
    weights[:first, :first] = weights[first:, first:] = 1
    y = second_eigenvector(weights)
    expected = second_vector(weights)
    smaller = slice(0, first) if first <= 3 else slice(first, 6)
    assert (y[smaller] > 0).all() and (y > 0).sum() == min(first, 6 - first)
    np.testing.assert_allclose(y, expected, rtol=1e-7)
    degrees = weights.sum(axis=1)
    assert y @ (degrees * y) == pytest.approx(1) and abs(degrees @ y) < 1e-9


def test_the_eigenvector_of_any_weights_is_scipys():
    rng = np.random.default_rng(0)
    for size in (2, 6, 35):
        weights = rng.uniform(0.1, 1, (size, size))
        weights += weights.T
        np.testing.assert_allclose(second_eigenvector(weights), second_vector(weights), atol=1e-9)


@pytest.mark.parametrize("grid", [(6, 6), (5, 7), (1, 12), (9, 2)])
@pytest.mark.parametrize("noise", [0.0, 0.5, 2.0])
def test_cuts_are_those_of_loops(grid, noise):
    """But where any mix of two eigenvectors is one: which is taken is up to LAPACK."""
    masks = []
    for seed in range(8):
        w = blobs(seed, grid, 2 + seed % 4, noise)
        for options in (USUAL, CutOptions(threshold=0.0, most=2), CutOptions(most=1)):
            with suppress(NotUnique):
                expected = cut_slowly(w[0].numpy(), grid, options.threshold, options.most)
                assert spectral_cuts(w, grid, options)[0].tolist() == expected
                masks.append(max(expected))
    assert len(masks) > 12 and len({*masks}) > 1


def test_an_object_is_cut_out_and_the_ground_around_it_is_not():
    """Whatever the sign of the eigenvector: three corners or more are the ground."""
    picture = np.zeros((5, 7), dtype=int)
    picture[1:3, 2:5] = 1
    assert (
        spectral_cuts(planted(picture), (5, 7), USUAL)[0].tolist() == (1 - picture).ravel().tolist()
    )
    picture[:3, :] = 1  # the larger part, with two corners
    labels = spectral_cuts(planted(picture), (5, 7), USUAL)[0].unflatten(0, (5, 7))
    assert (
        len(labels[:3].unique()) == len(labels[3:].unique()) == 1 and labels[0, 0] != labels[4, 0]
    )


def test_parts_that_do_not_touch_are_masks_of_their_own_unless_only_corners_touch():
    picture = np.zeros((6, 6), dtype=int)
    picture[1:3, 1:3] = picture[3:5, 3:5] = 1  # they touch at a corner
    labels = spectral_cuts(planted(picture), (6, 6), USUAL)[0].unflatten(0, (6, 6))
    assert (labels[1:3, 1:3] == 0).all() and (labels[3:5, 3:5] == 1).all()
    assert (labels[picture == 0] == 2).all()


def test_equal_patches_and_few_patches_are_one_region():
    ones = torch.ones(1, 36, 36)
    assert not spectral_cuts(ones, (6, 6), USUAL).any()
    assert not spectral_cuts(torch.ones(1, 1, 1), (1, 1), USUAL).any()
    five, six = torch.arange(5), torch.arange(6)  # each like itself alone
    assert not spectral_cuts(planted(five), (1, 5), USUAL).any()
    assert spectral_cuts(planted(six), (1, 6), USUAL).any()


def test_at_most_so_many_masks_are_cut_out():
    stripes = torch.arange(12).repeat_interleave(torch.arange(7, 19))
    for most in (1, 3, 8):
        labels = spectral_cuts(planted(stripes), (1, 150), CutOptions(most=most))[0]
        assert labels.unique().tolist() == list(range(most + 1))


def test_a_picture_in_a_batch_is_cut_as_alone():
    some = torch.cat([blobs(seed, (5, 7), 3, 0.5) for seed in range(4)])
    together = spectral_cuts(some, (5, 7), USUAL)
    alone = [spectral_cuts(one[None], (5, 7), USUAL)[0] for one in some]
    assert torch.equal(together, torch.stack(alone))


@pytest.mark.parametrize("size", [(1, 1), (6, 8), (7, 5), (224, 336)])
def test_nearest_is_the_value_under_the_middle_of_a_pixel(size):
    maps = torch.arange(2 * 6 * 8).view(2, 6, 8)
    for y, x in {(0, 0), (size[0] // 2, size[1] // 3), (size[0] - 1, size[1] - 1)}:
        row, column = int((y + 0.5) * 6 / size[0]), int((x + 0.5) * 8 / size[1])
        assert torch.equal(nearest(maps, size)[:, y, x], maps[:, row, column])


@pytest.mark.parametrize("sides", [(96, 96), (80, 112)], ids=str)
def test_lavg_is_the_soft_vote_of_sclips_logits_over_masks_of_dinos_grid(sides):
    """On two pictures, by loops from DINO's last block on. Each alone is as in the batch."""
    lavg, sclip = (resolve(["benchmark=shapes", f"method={m}"]).method for m in ("lavg", "sclip"))
    clip = load_clip(resolve(LAVG).model)
    networks = load_networks(lavg.networks, torch.device("cpu"))
    (dino,) = networks.values()
    generator = torch.Generator().manual_seed(1)
    colours = torch.randint(0, 256, (2, 3, 4, 4), generator=generator).float()
    pixels = F.interpolate(colours, sides).permute(0, 2, 3, 1).byte().numpy()
    with torch.inference_mode():
        shown = clip.normalise(pixels)
        graph = Graph(clip, shown, networks=networks)
        text = listed_text(graph.patches(sclip)[0, [0, 7, 20, -1]], 3)
        classes = graph.prediction(lavg, text, "words")
        logits = graph.logits(sclip, text, "words", 100.0)
        seen, block = tokens(dino, dino.normalise(pixels)), dino.model.blocks[-1]
        keys = block.attn.qkv(block.norm1(seen.last)).chunk(3, dim=2)[1][:, 1:].double().numpy()
        for image in range(2):
            alone = Graph(clip, shown[image : image + 1], networks=networks)
            assert torch.equal(alone.prediction(lavg, text, "words")[0], classes[image])
            unit = [key / np.linalg.norm(key) for key in keys[image]]
            cosines = np.array([[a @ b for b in unit] for a in unit])
            masks = np.array(cut_slowly(cosines, seen.grid)).reshape(seen.grid)
            rows, columns = (
                [int((place + 0.5) * patches / pixels) for place in range(pixels)]
                for patches, pixels in zip(seen.grid, sides, strict=True)
            )
            regions = masks[np.ix_(rows, columns)]
            assert regions.max() > 1 and (graph.regions(lavg)[image].numpy() == regions).all()
            fine = upsampled(logits[image], sides)
            for region in np.unique(regions):
                winner = text.owner[fine[:, regions == region].mean(axis=1).argmax()]
                assert (classes[image].numpy()[regions == region] == int(winner)).all()
    assert (classes != graph.prediction(sclip, text, "words")).any()
