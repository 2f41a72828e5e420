"""A pass on a GPU says how many pixels of its first images a CPU predicts otherwise."""

from __future__ import annotations

import json
import logging

import pytest
import torch

from cliptrase.evaluate import agreement, protocols

SIZE = 112
CLIPTRASE = ["benchmark=shapes_bg", "method=cliptrase"]
CELLS = [[*CLIPTRASE, f"method.regions.min_samples={least}"] for least in range(2, 7)]


@pytest.fixture
def gpu(monkeypatch):
    """The CPU in the place of a GPU: gpu(pixels) lets it miss so many in the first image of every
    batch of more than one."""
    monkeypatch.setattr(agreement, "needed", lambda device: True)

    def missing(pixels: int) -> None:
        class Rounding(protocols.Graph):
            def prediction(self, *args, **kwargs):
                classes = super().prediction(*args, **kwargs).clone()
                if len(classes) > 1:
                    classes[0].view(-1)[:pixels] += 1 - 2 * (classes[0].view(-1)[:pixels] > 0).int()
                return classes

        monkeypatch.setattr(protocols, "Graph", Rounding)

    return missing


def told(folder):
    return json.loads((folder / "provenance.json").read_text()).get("unlike_cpu")


def messages(caplog, level):
    return [one.message for one in caplog.records if one.levelno == level]


def test_it_is_counted_logged_and_written(gpu, runs_of, make, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    gpu(3)
    (folder,) = make(runs_of(CLIPTRASE), tmp_path, batched=True, batch_size=4).values()
    pixels = 2 * SIZE * SIZE
    assert told(folder) == {"pixels": pixels, "differing": 3, "images": 2, "runs": 1}
    expected = f"3 of {pixels} pixels differ from the CPU (images: 2, runs: 1)"
    assert expected in messages(caplog, logging.WARNING)


def test_of_many_runs_one_image_is_enough(gpu, runs_of, make, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    gpu(0)
    folders = make(runs_of(*CELLS), tmp_path, batched=True, batch_size=4)
    pixels = len(CELLS) * SIZE * SIZE
    expected = {"pixels": pixels, "differing": 0, "images": 1, "runs": len(CELLS)}
    assert [told(folder) for folder in folders.values()] == [expected] * len(CELLS)
    said = f"0 of {pixels} pixels differ from the CPU (images: 1, runs: {len(CELLS)})"
    assert said in messages(caplog, logging.INFO)
    assert not messages(caplog, logging.WARNING)


def test_a_picture_in_windows(gpu, runs_of, make, tmp_path, monkeypatch):
    monkeypatch.setattr(protocols, "places", lambda *_: [(0, 0)])
    slide = ["benchmark=shapes", "method=sclip", "protocol=slide", "protocol.short_side=112"]
    (folder,) = make(runs_of(slide), tmp_path, batched=True, batch_size=4).values()
    found = told(folder)
    assert found["differing"] == 0 and found["images"] == found["runs"] == 1


@pytest.mark.parametrize(("differing", "enough"), [(0, True), (1, True), (2, False)])
def test_one_pixel_in_100000_is_enough(differing, enough):
    assert agreement.enough(differing, 100_352) == enough


def test_a_batch_that_does_not_fit_is_halved_before_it_is_compared(
    gpu, runs_of, make, tmp_path, monkeypatch
):
    sizes = []

    class Small(protocols.Graph):
        def __init__(self, clip, pixels, *more, **beside):
            sizes.append(len(pixels))
            if len(pixels) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            super().__init__(clip, pixels, *more, **beside)

    monkeypatch.setattr(protocols, "Graph", Small)
    (folder,) = make(runs_of(CLIPTRASE), tmp_path, batched=True, batch_size=5).values()
    assert sizes == [1, 5, 2, 1, 1, 2, 2, 2]  # operations; tried, and on the CPU; the six images
    assert told(folder)["images"] == 2


@pytest.mark.parametrize("batched", [False, True])
def test_on_a_cpu_nothing_is_compared(batched, runs_of, make, tmp_path, monkeypatch):
    monkeypatch.setattr(agreement, "with_cpu", lambda *args: 1 / 0)
    assert not agreement.needed(torch.device("cpu")) and agreement.needed(torch.device("cuda", 1))
    (folder,) = make(runs_of(["method=clip"]), tmp_path, batched=batched).values()
    assert told(folder) is None
