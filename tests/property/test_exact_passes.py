"""A pass makes the same bytes for every batch size, number of threads and way of batching.

And its matrix is the one that the slow path's maps add up to, scene by scene.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from slow_stages import segmented
from tests.few_scenes import write_scenes

from cliptrase import config
from cliptrase.config import Run
from cliptrase.data.read import labels as label_tables
from cliptrase.data.read.crop import crop_image, crop_label
from cliptrase.evaluate import passes
from cliptrase.evaluate.graph import Graph
from cliptrase.evaluate.textcache import text_of
from cliptrase.model.load import load_clip
from cliptrase.runs import finished
from cliptrase.shapes.scenes import evaluation_scene

SCENES, SIZE = 12, 112
RUNS = {
    "hard": ["benchmark=shapes_bg", "method=cliptrase"],
    "soft": ["benchmark=shapes_bg", "method=cliptrase", "method.regions.vote=soft"],
    "noise": ["benchmark=shapes_bg", "method=cliptrase", "method.regions.eps=0.15"],
    "clip": ["benchmark=shapes", "method=clip"],
    "paper": ["benchmark=shapes", "method=cliptrase_paper"],
}
BATCHES, WORKERS = (1, 5, 16), (1, 2, 3)  # of 12 scenes, of which 10 are decoded ahead
WAYS = [(size, True) for size in BATCHES] + [(1, False), (16, False)]  # one by one has no batches


def resolved(name: str) -> Run:
    return config.resolve(["model=shapes_clip", f"image_size={SIZE}", *RUNS[name]])


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A data folder whose `shapes` has twelve scenes."""
    return write_scenes(tmp_path_factory.mktemp("exact"), range(SCENES))


@pytest.fixture(scope="module")
def made(data, tmp_path_factory):
    """made(batch_size, workers, batched): the bytes of every file of every run."""

    @cache
    def make(batch_size: int, workers: int, batched: bool) -> dict[str, dict[str, bytes]]:
        out = tmp_path_factory.mktemp("runs")
        names = {resolved(name).name: name for name in RUNS}
        folders = passes.run_pass(
            {run: resolved(name) for run, name in names.items()},
            partial=out / ".partial.npz",
            out=out,
            data=data,
            device="cpu",
            batch_size=batch_size,
            workers=workers,
            batched=batched,
        )
        return {names[run]: contents(folder) for run, folder in folders.items()}

    return make


def contents(folder: Path) -> dict[str, bytes]:
    return {
        name: (folder / name).read_bytes() for name in finished.FILES if name != "provenance.json"
    }


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize(("batch_size", "batched"), WAYS)
def test_no_byte_depends_on_how_a_pass_is_made(made, batch_size, workers, batched):
    expected, found = made(1, 1, False), made(batch_size, workers, batched)
    assert found.keys() == set(RUNS)
    for run, files in found.items():
        assert {"confusion.npz", "metrics.json", "per_image.npz"} <= set(files)
        for name, content in files.items():
            assert content == expected[run][name], f"{name} of {run}"
    assert len({files["confusion.npz"] for files in found.values()}) == len(RUNS)


@pytest.fixture(scope="module")
def slow(data):
    """slow(run): confusion matrix of the slow path's maps, and how many clusters scenes have."""

    def count(name: str) -> tuple[np.ndarray, set[int]]:
        run = resolved(name)
        clip = load_clip(run.model)
        key, text = text_of(run, clip, data)
        table = label_tables.read_table(run.benchmark.labels.map)
        classes = run.vocabulary.classes.count
        matrix, numbers = np.zeros((classes + 1, classes + 1), np.int64), set()
        for index in range(SCENES):
            scene = evaluation_scene("shapes", index)
            raw = crop_label(scene.label, SIZE)
            truth = np.vectorize(lambda value: table.get(value, classes))(raw)
            pixels = clip.normalise(crop_image(Image.fromarray(scene.image), SIZE)[None])
            with torch.inference_mode():
                found = segmented(Graph(clip, pixels), 0, run.method, text, key)
            np.add.at(matrix, (truth, found["prediction"]), 1)
            numbers.add(int(found["clusters"].max()) + 1)
        return matrix, numbers

    return count


@pytest.mark.parametrize("name", ["hard", "noise"])
def test_the_matrix_is_that_of_the_slow_path(made, slow, name, tmp_path):
    matrix, numbers = slow(name)
    file = tmp_path / "confusion.npz"
    file.write_bytes(made(16, 2, True)[name][file.name])
    np.testing.assert_array_equal(np.load(file)["confusion"], matrix)
    assert len(numbers) > 2
    assert name != "noise" or 0 in numbers
