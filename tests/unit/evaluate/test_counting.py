"""Counts of a batch made at once are those of its images one after the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cliptrase.evaluate import predict
from cliptrase.evaluate.counting import Counted, labels_of
from cliptrase.evaluate.tally import ImageResult, Tally
from cliptrase.evaluate.truth import Loader
from cliptrase.runs.counts import GroundTruth
from cliptrase.segment import ways

SIZE = (12, 17)


def truths_of(rng: np.random.Generator, batch: int, k: int) -> list[GroundTruth | None]:
    """With images that are skipped, and pixels that are not scored: none, some or all."""
    found: list[GroundTruth | None] = []
    for _ in range(batch):
        lowest = int(rng.choice([0, -1, -k]))
        labels = rng.integers(lowest, max(k + min(lowest, 0), lowest + 1), SIZE)
        found.append(None if rng.random() < 0.2 else GroundTruth.of(labels, k))
    return found


@pytest.mark.parametrize("k", [1, 2, 21, 171])
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_a_batch_is_counted_as_its_images(batch, k):
    rng = np.random.default_rng(1000 * batch + k)
    for _ in range(10):
        truths = truths_of(rng, batch, k)
        surplus = int(rng.integers(2))  # a class after those that are scored
        classes = rng.integers(0, k + surplus, (batch, *SIZE))
        labels = torch.from_numpy(np.stack([labels_of(truth, SIZE) for truth in truths]))
        found = Counted.of(labels, torch.from_numpy(classes), k, surplus).results()
        tallies = Tally(batch, k, surplus), Tally(batch, k, surplus)
        for position, (truth, one, own) in enumerate(zip(truths, classes, found, strict=True)):
            if truth is None:
                assert len(own.cells) == len(own.pixels) == len(own.entries) == 0
                continue
            expected = ImageResult.of(truth, one, surplus)
            for name in ("cells", "pixels", "entries"):
                ours, theirs = getattr(own, name), getattr(expected, name)
                assert ours.dtype == theirs.dtype
                np.testing.assert_array_equal(ours, theirs)
            for tally, result in zip(tallies, (own, expected), strict=True):
                for skipped in range(len(tally.ends), position):
                    tally.add(skipped, None)
                tally.add(position, result)
        assert np.array_equal(tallies[0].confusion, tallies[1].confusion)


@pytest.mark.parametrize("wrong", [-1, 5, 30])
def test_a_prediction_that_is_no_class(wrong):
    labels = torch.tensor([[0, 1, -1, 4], [2, 2, 2, 2]], dtype=torch.int16)
    classes = torch.tensor([[[0, 0], [wrong, 4]], [[1, 2], [3, 4]]])
    assert len(Counted.of(labels, classes, 5).results()) == 2  # where nothing is scored
    classes[1, 0, 0] = wrong
    with pytest.raises(ValueError, match=r"a prediction is outside 0\.\.4"):
        Counted.of(labels, classes, 5).results()


class Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def test_the_number_of_operations_does_not_grow_with_the_batch():
    def operations(batch: int) -> list[str]:
        labels = torch.zeros((batch, 6), dtype=torch.int16)
        with Operations() as counted:
            Counted.of(labels, torch.ones((batch, 2, 3), dtype=torch.int64), 3)
        return counted.found

    assert operations(2) == operations(16)


def test_from_pixels_to_counts_a_batch_takes_as_many_operations_as_an_image(
    runs_of, make, tmp_path, monkeypatch
):
    """The way of a GPU, for all runs of a pass; each batch is one image, several times."""
    monkeypatch.setattr(ways, "one_by_one", lambda device: False)
    load, count, batches = Loader.__call__, predict.Predictor._counted, []

    def counting(self, batch):
        with Operations() as counted:
            part = count(self, batch)
        batches.append((len(batch), counted.found))
        return part

    monkeypatch.setattr(Loader, "__call__", lambda self, at: replace(load(self, 1), position=at))
    monkeypatch.setattr(predict.Predictor, "_counted", counting)
    runs = runs_of(
        ["benchmark=shapes_bg", "method=clip"],
        ["benchmark=shapes_bg", "method=cliptrase"],
        ["benchmark=shapes", "method=cliptrase", "method.regions.vote=soft"],
    )
    for size in (4, 1, 6):  # the first batch of all makes what is kept for the others
        make(runs, tmp_path / str(size), batched=True, batch_size=size)
    assert [size for size, _ in batches] == [4, 2, 1, 1, 1, 1, 1, 1, 6]
    assert all(found == batches[-1][1] for _, found in batches[1:])
    assert len(batches[-1][1]) > 500


@pytest.mark.parametrize("batched", [False, True])
def test_runs_that_predict_alike_are_counted_once(batched, runs_of, make, tmp_path, monkeypatch):
    """Another rule reads the same counts; another vocabulary is another ground truth."""
    counted: list[int] = []
    owner = predict.Counted if batched else ImageResult
    original = owner.of

    def noted(*args, **kwargs):
        counted.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, "of", noted)
    shared = ["benchmark=shapes_bg", "method=cliptrase"]
    runs = runs_of(
        shared,
        [*shared, "protocol.rule=mmseg"],
        ["benchmark=shapes_bg", "method=clip"],
        ["benchmark=shapes", "method=cliptrase"],
    )
    folders = make(runs, tmp_path, batched=batched, batch_size=6)
    assert len(folders) == 4
    assert sum(counted) == (3 if batched else 3 * 6)
