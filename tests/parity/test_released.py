"""What the released code computed, shipped with the repository (README.md says what and from what).

The photographs are not here, so the image tower is not tested here; everything after it is, on the
released code's own features and correlations, and the text tower is, on the parity model.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from cliptrase import config
from cliptrase.config.method import Method
from cliptrase.config.metric_names import METRICS
from cliptrase.evaluate.encoded import Text
from cliptrase.evaluate.graph import Graph
from cliptrase.evaluate.textcache import text_of
from cliptrase.model.load import Clip, load_clip
from cliptrase.runs.metrics import class_counts, scores

RELEASED = Path(__file__).with_name("released")
CASES = {
    "000000000139_coco_stuff_224": ("coco_stuff", 224),
    "2007_000346_voc20_224": ("voc20", 224),
    "2007_000661_voc21_336": ("voc21", 336),
    "ADE_val_00000001_ade150_336": ("ade150", 336),
}
TIES = 2  # pixels of a map that may differ: two values there are equal within 1e-4


class Recorded(Graph):
    """A graph whose features and correlations are those that the released code computed."""

    def __init__(self, clip: Clip, stored: dict[str, np.ndarray], size: int) -> None:
        super().__init__(clip, torch.zeros(1, 3, size, size))
        self.stored = {key: torch.from_numpy(value) for key, value in stored.items()}

    def patches(self, method: Method) -> torch.Tensor:
        return self.stored["patch_features"][None]

    def cls(self, method: Method) -> torch.Tensor:
        return self.stored["cls_feature"]

    def correlation(self, block: int, kind: str, heads: str = "mean") -> torch.Tensor:
        assert (block, kind, heads) == (11, "cosine", "mean")
        patches = len(self.stored["patch_features"])
        w = torch.ones(1 + patches, 1 + patches)
        upper = tuple(torch.triu_indices(patches, patches) + 1)
        w[upper] = self.stored["correlation_block11_upper"]
        w[upper[::-1]] = self.stored["correlation_block11_upper"]
        w[0, 1:] = w[1:, 0] = self.stored["cls_correlation_block11"][0]
        return w[None]


@pytest.fixture(scope="module")
def clip(parity_folder) -> Clip:
    return load_clip(run("voc20", 224, parity_folder).model)


def run(benchmark: str, size: int, folder: Path) -> config.Run:
    model = ["model=local", f"model.path={folder}"]
    return config.resolve(
        [f"benchmark={benchmark}", "method=cliptrase", f"image_size={size}", *model]
    )


def stored(case: str) -> dict[str, np.ndarray]:
    with np.load(RELEASED / "stages.npz") as file:
        return {key.split("/")[1]: file[key] for key in file.files if key.startswith(f"{case}/")}


@pytest.mark.parametrize("case", CASES)
def test_the_text_tower_and_everything_after_the_image_tower(clip, parity_folder, tmp_path, case):
    asked, theirs = run(*CASES[case], parity_folder), stored(case)
    method = asked.method
    assert method.regions.eps == theirs["eps"]
    assert method.regions.min_samples == theirs["min_samples"]
    _, text = text_of(asked, clip, tmp_path)
    assert text.features.shape == theirs["text_features"].shape
    np.testing.assert_allclose(text.features, theirs["text_features"], atol=1e-4, rtol=0)
    text = Text(torch.from_numpy(theirs["text_features"]), text.owner)
    graph = Recorded(clip, theirs, CASES[case][1])
    plain = method.model_copy(update={"regions": None})
    np.testing.assert_array_equal(graph.clusters(method)[0], theirs["cluster_labels"])
    assert theirs["cluster_labels"].max() > 0  # more than one cluster to get wrong
    for name, ours in (
        ("regions", graph.regions(method)),
        ("prediction_before_vote", graph.prediction(plain, text, case, 100.0)),
        ("prediction", graph.prediction(method, text, case, 100.0)),
    ):
        different = int((ours[0].numpy() != theirs[name]).sum())
        assert different <= TIES, f"{name}: {different} pixels differ"
    assert (theirs["prediction"] != theirs["prediction_before_vote"]).any()


def test_the_metrics_of_the_released_matrices():
    with open(RELEASED / "metrics.csv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    matrices = np.load(RELEASED / "confusions.npz")
    assert {f"{line['benchmark']}_{line['image_size']}" for line in lines} == set(matrices.files)
    assert len(lines) == 10
    for line in lines:
        matrix = matrices[f"{line['benchmark']}_{line['image_size']}"]
        ours = scores("cliptrase", *class_counts(matrix))
        for metric in METRICS:
            assert round(float(ours[metric]), 2) == float(line[metric]), (line, metric)


def test_what_is_shipped_is_what_the_released_code_computed(shared, parity_folder, tmp_path):
    golden = shared / "golden"
    for name in ("confusions.npz", "metrics.csv"):
        assert (RELEASED / name).read_bytes() == (golden / name).read_bytes()
    for case in CASES:
        theirs, ours = np.load(golden / f"{case}.npz"), stored(case)
        upper = np.triu_indices(len(theirs["patch_features"]))
        theirs = dict(theirs)
        theirs["correlation_block11_upper"] = theirs["correlation_block11"][upper]
        assert np.array_equal(theirs["correlation_block11"], theirs["correlation_block11"].T)
        for key, value in ours.items():
            assert np.array_equal(value, theirs[key]), (case, key)
