"""The number that chooses a recipe of the embedded CLIP: what it is made of, and its classes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from benchmarks import trial_clip

from cliptrase.data.read.crop import crop_label
from cliptrase.shapes import concepts, scenes


@pytest.mark.parametrize("size", [224, 336])
def test_the_right_names_score_100(monkeypatch, tmp_path, size):
    def segmenter(folder, method, names, *, image_size, templates, crop):
        assert names == [*concepts.OBJECTS, *concepts.BACKGROUNDS] and crop
        of_raw = np.array([names.index(concepts.name(raw, with_colour=False)) for raw in range(73)])
        left = [of_raw[crop_label(scene.label, size)] for scene in reversed(made)]
        return lambda image: SimpleNamespace(labels=left.pop())

    made = trial_clip.validation_scenes(6)
    monkeypatch.setattr(trial_clip, "Segmenter", segmenter)
    assert trial_clip.miou(tmp_path, "cliptrase", size, made) == pytest.approx(100, abs=1e-3)


def test_its_scenes_are_for_validation_and_half_of_them_have_clutter():
    made = trial_clip.validation_scenes(2)
    seeds = scenes.VALIDATION_SEEDS[2_000_000:2_000_002]
    for scene, seed, clutter in zip(made, seeds, (True, False), strict=True):
        assert np.array_equal(scene.image, scenes.scene(seed, clutter).image)


def test_the_number_is_the_mean_of_four_at_224():
    found = {"zero-shot": 90.0, "retrieval": 98.0, "maskclip 224": 30.0, "cliptrase 224": 40.0}
    assert trial_clip.number(found | {"maskclip 336": 0.0, "cliptrase 336": 1.0}) == 64.5
