"""Photographs: what is learned of them, and that a SAN learns from a prepared dataset."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tests.few_scenes import write_scenes

from cliptrase.errors import UserError
from cliptrase.san.photographs import Photographs, augmented, recoloured
from cliptrase.san.regions import make_means
from cliptrase.san.settings import Init
from cliptrase.san.store import NO_CLASS
from cliptrase.san.train import Training, begun
from cliptrase.shapes.stream import Stream

from .conftest import small

pytestmark = pytest.mark.usefixtures("one_thread")
AUGMENTED = {
    "dataset": "shapes",
    "pictures": 3,
    "validation": 2,
    "image_size": 64,
    "clip_size": 32,
    "short_sides": (48, 96),
    "train_positions": True,
    "fusion": {0: 0, 3: 2},
    "init": Init(method="cliptrase", images=1),
}


@pytest.fixture(scope="module")
def photographs(tiny):
    return small(tiny, **AUGMENTED)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("prepared"), range(3))


def test_pixels_and_classes_stay_together(photographs):
    """A picture whose colour is its class: also after it was resized, cut, mirrored and padded."""
    classes = np.zeros((60, 100), dtype=np.uint8)
    classes[:, 50:] = 9
    image = Image.fromarray(np.where(classes == 9, 230, 10).astype(np.uint8)).convert("RGB")
    sides = set()
    for seed in range(12):
        pixels, own = augmented(image, classes, photographs, Stream(seed))
        assert pixels.shape == (64, 64, 3) and own.shape == (64, 64)
        padded = own == NO_CLASS
        assert (pixels[padded] == 128).all() and not padded[0, 0]
        sides.add(int((~padded)[:, 0].sum()))
        bright = pixels.mean(axis=2)
        if {0, 9} <= {*own.flat}:
            assert bright[own == 9].mean() > 100 > bright[own == 0].mean()
    assert sides == {48, 64}  # short sides of 48, padded, and of 96, cut


def test_colours_change_one_time_in_two():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    grey = np.full((8, 8, 3), 100, dtype=np.uint8)
    means = [recoloured(grey, Stream(seed)).mean() for seed in range(60)]
    assert 50 * 0.6 < min(means) < 90 and 110 < max(means) < 132 * 1.5
    assert sum(mean == 100 for mean in means) > 5  # neither brightness nor contrast
    changed = recoloured(pixels, Stream(1))
    assert changed.dtype == np.uint8 and changed.shape == pixels.shape


def test_a_san_learns_from_a_prepared_dataset(photographs, prepared, clip, text):
    pictures = Photographs(photographs, prepared)
    batch = pictures.teach([0, 2], 0, 3)
    again = pictures.teach([0, 2], 0, 3)
    assert np.array_equal(batch.pixels, again.pixels) and batch.tokens is None
    assert not np.array_equal(batch.pixels, pictures.teach([0, 2], 0, 4).pixels)
    assert not np.array_equal(batch.pixels, pictures.teach([0, 2], 1, 3).pixels)
    training = Training(
        photographs, pictures, begun(photographs, "plain", 0, clip, text, prepared), 0
    )
    before = training.model.clip_position.detach().clone()
    for step in (0, 1):
        assert np.isfinite(training.step(step))
    assert not training.model.clip_position.equal(before)
    assert clip.visual.positional_embedding.equal(before)  # CLIP's own stay
    true = training.curve.counts[1, 0].sum(dim=1)
    assert true.tolist() == [224 * 224] * 2  # at their own size, two pictures of val


def test_a_picture_of_more_classes_than_queries_is_named(photographs, prepared):
    with pytest.raises(UserError, match=r"queries=1: 000:scene_0 has \d classes"):
        Photographs(small(photographs, queries=1), prepared).teach([0], 0, 0)


def test_regions_are_of_the_dataset(photographs, prepared, clip):
    means = make_means(photographs, clip, prepared)
    assert means.regions.shape == means.shuffled.shape and len(means.regions) > 0
    assert torch.from_numpy(means.regions).isfinite().all()
