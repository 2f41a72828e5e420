"""Numbers held fixed in a plain clone: the package on the model and picture of golden_case.npz.

The slow oracle computed them (make_golden_case.py). Floats are equal within 1e-4, integer maps
equal: no two values of the case tie within what float32 rounds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from slow_reference import CLASSES
from tests.objects import changed, listed_text
from tests.parity.golden_case import checksum, make_clip, make_pixels
from tests.parity.make_golden_case import METHODS, computed

from cliptrase import config
from cliptrase.evaluate.graph import Graph
from cliptrase.model.load import Clip
from cliptrase.runs.counts import GroundTruth

FILE = Path(__file__).with_name("golden_case.npz")
FLOATS = ["patch_features", "cls_feature", "correlation", "patch_logits", "eps"]


@pytest.fixture(scope="module")
def case() -> dict[str, np.ndarray]:
    with np.load(FILE) as file:
        return dict(file)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return make_clip()


def close(ours: Any, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)


def test_the_model_and_the_picture_are_the_stored_ones_to_the_last_bit(case, clip):
    assert checksum(clip) == case["weights"]
    assert np.array_equal(make_pixels()[0], case["pixels"])
    assert FILE.stat().st_size <= 200_000


@pytest.mark.parametrize("name", METHODS)
def test_the_package_computes_the_stored_numbers(case, clip, name):
    stored = {key.split("/")[1]: case[key] for key in case if key.startswith(f"{name}/")}
    eps = float(stored["eps"])
    regions = [f"method.regions.eps={eps}", "method.regions.min_samples=3"]
    method = config.resolve(["benchmark=voc21", f"method={name}", *regions]).method
    assert method == changed(METHODS[name], {"regions.eps": eps})
    text = listed_text(torch.from_numpy(case["text_features"]), CLASSES)
    graph = Graph(clip, torch.from_numpy(case["pixels"][None]))
    close(graph.patches(method)[0], stored["patch_features"])
    close(graph.cls(method)[0], stored["cls_feature"])
    close(
        graph.correlation(**method.regions.correlation.model_dump(exclude_defaults=True))[0],
        stored["correlation"],
    )
    close(graph.logits(method, text, "case", 100.0)[0], stored["patch_logits"])
    before = graph.prediction(changed(method, {"regions": None}), text, "case", 100.0)[0].numpy()
    after = graph.prediction(method, text, "case", 100.0)[0].numpy()
    for ours, key in (
        (graph.clusters(method)[0], "cluster_labels"),
        (graph.regions(method)[0], "regions"),
        (before, "prediction_before_vote"),
        (after, "prediction"),
        (GroundTruth.of(case["truth"], CLASSES + 1).confusion(after), "confusion"),
    ):
        np.testing.assert_array_equal(ours, stored[key], err_msg=key)


@pytest.mark.parametrize("name", METHODS)
def test_the_case_has_something_to_get_wrong(case, name):
    labels, prediction = case[f"{name}/cluster_labels"], case[f"{name}/prediction"]
    assert labels.max() > 0 and (labels == -1).any()
    assert len(np.unique(prediction)) > 2
    assert (prediction != case[f"{name}/prediction_before_vote"]).any()
    assert (case[f"{name}/confusion"].sum(axis=1) > 0).all()
    assert case[f"{name}/confusion"].sum() == (case["truth"] < CLASSES + 1).sum()


@pytest.mark.parametrize("name", METHODS)
def test_the_oracle_still_computes_the_stored_numbers(case, clip, name):
    for key, value in computed(clip, case["pixels"], case["text_features"], name).items():
        stored = case[f"{name}/{key}"]
        assert value.dtype == stored.dtype
        if key in FLOATS:
            close(value, stored)
        else:
            np.testing.assert_array_equal(value, stored, err_msg=key)
