"""benchmarks/environments.py: the same integers in each environment, and what it says if not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from benchmarks import environments
from benchmarks.environments import Environment
from benchmarks.pixels import differing, label_maps, margins, predictor_of
from PIL import Image
from tests.few_scenes import write_scenes

from cliptrase.evaluate import __main__ as command
from cliptrase.evaluate.graph import Graph

METHODS, IMAGES = ("clip", "cliptrase"), 2


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("data"), range(IMAGES))


@pytest.fixture(scope="module")
def runs():
    return environments.sweep_runs(METHODS, IMAGES)


@pytest.fixture(scope="module")
def made(data, tmp_path_factory):
    """The run folders of a sweep in this process, and in another environment."""
    some = [Environment("as it is"), environments.together()]
    words = environments.sweep_words(METHODS, IMAGES)
    folder = tmp_path_factory.mktemp("made")
    here = folder / "here" / "runs"
    command.main(["-m", *words, f"data={data}", f"out={here}", "device=cpu", "workers=1"])
    return some, [here, environments.sweep(some[1], words, data, folder)]


@pytest.mark.slow
def test_locale_path_umask_hash_seed_and_threads_move_no_pixel(made, runs, data):
    (compared,) = environments.compare(*made, runs, data)
    assert (compared.matrices, compared.pixels, compared.listed) == (0, 0, [])


def test_each_pixel_that_differs_is_listed_with_the_margin_of_its_logits(runs, data):
    name, run = next((name, run) for name, run in runs.items() if run.method.name == "clip")
    predictor = predictor_of({name: run}, data, torch.device("cpu"))
    position, job = 1, predictor.jobs[name]
    (before,) = label_maps(predictor, [position])[name]
    pixels = predictor.clip.normalise(predictor.load(position).shown.pixels[None])
    with torch.inference_mode():
        logits = Graph(predictor.clip, pixels).logits(job.method, job.text, "", job.logit_scale)
        size = before.shape
        maps = F.interpolate(logits, size, mode="bilinear", align_corners=False)[0].numpy()
    assert len(np.unique(job.text.owner)) == len(maps), "a name a class"
    assert np.array_equal(maps.argmax(axis=0), before)
    won = np.sort(maps, axis=0)
    expected = won[-1] - won[-2]
    np.testing.assert_allclose(margins(predictor, job, position), expected, atol=1e-4)
    after, places = before.copy(), [(0, 3), (100, 7)]
    for place in places:
        after[place] += 1
    listed = list(differing(predictor, name, position, "one", (before, after)))
    assert [(pixel.y, pixel.x) for pixel in listed] == places
    assert [pixel.classes[1] - pixel.classes[0] for pixel in listed] == [1, 1]
    for pixel, place in zip(listed, places, strict=True):
        assert pixel.margin == pytest.approx(expected[place], abs=1e-4) and pixel.run == name
    assert not list(differing(predictor, name, position, "one", (before, before)))


@pytest.mark.slow
def test_what_differs_is_counted_and_said(made, runs, data, tmp_path):
    """One pixel of one run is another."""
    some, (first, _) = made
    copy = Path(shutil.copytree(first, tmp_path / "edited"))
    run = next(name for name, run in runs.items() if run.method.name == "clip")
    file = sorted((copy / run / "maps").iterdir())[1]
    with Image.open(file) as image:
        image.load()
    image.putpixel((7, 100), (image.getpixel((7, 100)) + 1) % 20)
    image.save(file)
    with np.load(copy / run / "confusion.npz") as counts:
        np.savez(copy / run / "confusion.npz", confusion=counts["confusion"] + 1)
    (other,) = environments.compare(some, [first, copy], runs, data)
    assert (other.matrices, other.pixels) == (1, 1)
    (pixel,) = other.listed
    assert (pixel.run, pixel.y, pixel.x) == (run, 100, 7) and pixel.margin > 0
    table = environments.markdown([other], len(runs), 1000)
    assert f"| all at once | 1 | 1 | {pixel.margin:.1e} to {pixel.margin:.1e} |" in table
