"""What only a GPU can show of a pass; `make gpu` runs these. Everything else of it is tested on CPU
tensors."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from cliptrase.evaluate.counting import Counted, labels_of
from cliptrase.evaluate.device import computing_on
from cliptrase.runs.counts import GroundTruth

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here"),
]
RUNS = [["method=clip"], ["method=cliptrase"], ["benchmark=shapes_bg", "method=cliptrase"]]


@pytest.fixture(scope="module")
def on_cpu(runs_of, make, tmp_path_factory):
    return make(runs_of(*RUNS), tmp_path_factory.mktemp("cpu"))


def confusion(folder):
    with np.load(folder / "confusion.npz") as file:
        return file["confusion"]


def moved(folders, others):
    """The pixels that are of another class, at least, and all pixels."""
    pairs = [(confusion(folders[name]), confusion(others[name])) for name in folders]
    return sum(int(abs(a - b).sum()) // 2 for a, b in pairs), sum(int(a.sum()) for a, _ in pairs)


def test_a_pass_gives_the_cpu_s_matrices_and_says_what_differs(runs_of, make, on_cpu, tmp_path):
    folders = make(runs_of(*RUNS), tmp_path, device="cuda", batch_size=4)
    differing, pixels = moved(folders, on_cpu)
    assert pixels > 0 and differing <= max(1, 1e-5 * pixels)
    for folder in folders.values():
        made = json.loads((folder / "provenance.json").read_text())
        assert made["unlike_cpu"]["differing"] <= 1 and made["host"]["device"].startswith("cuda")


@pytest.mark.parametrize("batch_size", [1, 6])
def test_the_batch_size_moves_hardly_a_pixel(batch_size, runs_of, make, on_cpu, tmp_path):
    folders = make(runs_of(*RUNS), tmp_path, device="cuda", batch_size=batch_size)
    differing, pixels = moved(folders, on_cpu)
    assert differing <= max(1, 1e-5 * pixels)


def test_products_are_in_full_fp32():
    """TF32 keeps 10 bits of a factor, and would be wrong by about 1e-3."""
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(512, 512, generator=generator) for _ in range(2))
    exact = one.double() @ other.double()
    with computing_on("cuda") as device:
        product = (one.to(device) @ other.to(device)).cpu().double()
    assert float((product - exact).abs().max() / exact.abs().max()) < 1e-5


def test_pixels_are_counted_on_the_device_as_numpy_counts_them():
    rng = np.random.default_rng(0)
    classes, shape = 7, (2, 40, 30)
    truth, predicted = rng.integers(-1, classes, shape), rng.integers(0, classes, shape)
    truths = [GroundTruth.of(each, classes) for each in truth]
    with computing_on("cuda") as device:
        labels = np.stack([labels_of(each, shape[1:]) for each in truths])
        on_device = (torch.from_numpy(each).to(device) for each in (labels, predicted))
        results = Counted.of(*on_device, classes).results()
    for each, classes_of, result in zip(truth, predicted, results, strict=True):
        matrix = np.zeros((classes, classes), np.int64)
        np.add.at(matrix, (each[each >= 0], classes_of[each >= 0]), 1)
        ours = np.zeros(classes * classes, np.int64)
        ours[result.cells] = result.pixels
        assert np.array_equal(ours.reshape(matrix.shape), matrix)
