"""The package on generated pictures and the parity model, against what the slow oracle stored.

And, where the golden data is beside the repository, the slow oracle against the released code: so
the released code's numbers stand behind generated.npz.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from slow_reference import Reference, vote
from tests.objects import listed_text, local_model
from tests.parity import generated
from tests.parity.generated import CASES, FILE, WORDS
from tests.parity.test_golden import CASES as GOLDEN
from tests.parity.test_golden import FOLDERS

from cliptrase import config
from cliptrase.data.read.crop import crop_image
from cliptrase.evaluate.graph import Graph
from cliptrase.model.load import Clip, load_clip

SLOW = [CASES[1], CASES[-1]]  # that the oracle computes again: one of each size


@pytest.fixture(scope="module")
def clip(parity_folder) -> Clip:
    return load_clip(local_model(parity_folder))


def stored(case: tuple[str, int, int]) -> dict[str, np.ndarray]:
    prefix = " ".join(map(str, case)) + "/"
    with np.load(FILE) as file:
        return {key.removeprefix(prefix): file[key] for key in file.files if key.startswith(prefix)}


@pytest.mark.parametrize("case", CASES)
def test_the_package_computes_the_stored_labels(clip, case):
    benchmark, size, index = case
    asked = [f"benchmark={benchmark}", "method=cliptrase", f"image_size={size}", "model=vit_b16"]
    method = config.resolve(asked).method
    assert method == generated.method_of(benchmark, size)
    features, classes = torch.from_numpy(generated.text_features(benchmark)), WORDS[benchmark][1]
    text, theirs = listed_text(features, classes), stored(case)
    plain = method.model_copy(update={"regions": None})
    with torch.inference_mode():
        graph = Graph(clip, torch.from_numpy(generated.picture(index, size)[None]))
        regions = graph.regions(method)[0].numpy()
        before = graph.prediction(plain, text, "case", 100.0)[0].numpy()
        after = graph.prediction(method, text, "case", 100.0)[0].numpy()
        np.testing.assert_array_equal(graph.clusters(method)[0], theirs["cluster_labels"])
    for name, ours in (
        ("regions", regions),
        ("prediction_before_vote", before),
        ("prediction", after),
    ):
        bits = np.unpackbits(theirs[f"clear/{name}"], count=size * size)
        clear = bits.reshape(size, size).astype(bool)
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(ours[clear], theirs[name][clear], err_msg=name)


def test_the_cases_have_something_to_get_wrong():
    several = 0
    for theirs in map(stored, CASES):
        assert theirs["cluster_labels"].max() > 1 and (theirs["cluster_labels"] == -1).any()
        assert len(np.unique(theirs["prediction_before_vote"])) > 1
        assert (theirs["prediction"] != theirs["prediction_before_vote"]).any()
        several += len(np.unique(theirs["prediction"])) > 1
    assert several > len(CASES) / 2


@pytest.mark.parametrize("case", SLOW)
def test_the_oracle_still_computes_the_stored_labels(clip, case):
    for key, value in generated.computed(clip, *case).items():
        np.testing.assert_array_equal(value, stored(case)[key], err_msg=key)


@pytest.mark.parametrize("case", GOLDEN)
def test_the_oracle_computes_what_the_released_code_did(shared, clip, case):
    benchmark, size, image = GOLDEN[case]
    theirs = np.load(shared / "golden" / f"{case}.npz")
    path = shared / "samples" / FOLDERS[benchmark[:3]][0] / f"{image}.jpg"
    pixels = clip.normalise(crop_image(Image.open(path).convert("RGB"), size)[None])[0].numpy()
    method, classes = generated.method_of(benchmark, size), WORDS[benchmark][1]
    slow = Reference(clip, pixels, theirs["text_features"], method, classes=classes)
    close = {"atol": 1e-4, "rtol": 0}
    np.testing.assert_allclose(slow.features[1:], theirs["patch_features"], **close)
    np.testing.assert_allclose(slow.features[:1], theirs["cls_feature"], **close)
    np.testing.assert_allclose(slow.w[1:, 1:], theirs["correlation_block11"], **close)
    np.testing.assert_array_equal(slow.labels, theirs["cluster_labels"])
    regions = np.stack(slow.maps).argmax(axis=0)
    for ours, name in (
        (regions, "regions"),
        (slow.before, "prediction_before_vote"),
        (vote(slow.before, regions), "prediction"),
    ):
        assert (ours != theirs[name]).sum() <= 2, name  # pixels where two values tie
