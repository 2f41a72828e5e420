"""The golden numbers, whatever batch their picture is in, and at whatever place in it.

The stored integers of golden_case.npz are equal at every batch size, with no exception; the maps of
the released code, where they are beside the repository, are equal but for pixels that tie, as they
are for a picture alone.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from slow_reference import CLASSES
from slow_stages import segmented
from tests.objects import changed, listed_text
from tests.parity.golden_case import make_clip, make_pixels
from tests.parity.make_golden_case import METHODS
from tests.parity.test_golden import CASES, FOLDERS, Golden, Ties, differing
from tests.parity.test_golden_case import FILE

from cliptrase import config
from cliptrase.config.method import Method
from cliptrase.data.read.crop import crop_image
from cliptrase.evaluate.encoded import Text
from cliptrase.evaluate.graph import Graph

BATCHES = (1, 2, 4, 8)


def company(pixels: torch.Tensor, others: torch.Tensor, size: int, place: int) -> torch.Tensor:
    """A batch (size, 3, H, W) with one picture (3, H, W) at `place` among turned and mirrored other
    ones (n, 3, H, W), and among uniform ones, which cluster otherwise."""
    batch = []
    for index in range(size):
        other = others[index % len(others)].roll(13 * index, dims=2)
        batch.append(other.flip(1 + index % 2) if index % 3 else torch.full_like(other, index / 4))
    batch[place] = pixels
    return torch.stack(batch)


@pytest.mark.parametrize("size", BATCHES)
@pytest.mark.parametrize("name", METHODS)
def test_the_stored_integers_at_every_place_of_a_batch(name, size):
    with np.load(FILE) as file:
        case = dict(file)
    regions = [f"method.regions.eps={float(case[f'{name}/eps'])}", "method.regions.min_samples=3"]
    method = config.resolve(["benchmark=voc21", f"method={name}", *regions]).method
    text = listed_text(torch.from_numpy(case["text_features"]), CLASSES)
    clip, (own, other) = make_clip(), torch.from_numpy(make_pixels())
    numbers = set()
    for place in {0, size // 2, size - 1}:
        graph = Graph(clip, company(own, torch.stack([own, other]), size, place))
        plain = changed(method, {"regions": None})
        for key, found in (
            ("cluster_labels", graph.clusters(method)),
            ("regions", graph.regions(method)),
            ("prediction_before_vote", graph.prediction(plain, text, "case", 100.0)),
            ("prediction", graph.prediction(method, text, "case", 100.0)),
        ):
            np.testing.assert_array_equal(found[place], case[f"{name}/{key}"], err_msg=key)
        for image in range(size):
            slow = segmented(graph, image, method, text, "case")
            for key, found in (
                ("clusters", graph.clusters(method)),
                ("regions", graph.regions(method)),
                ("prediction", graph.prediction(method, text, "case", 100.0)),
            ):
                np.testing.assert_array_equal(found[image], slow[key], err_msg=key)
            numbers.add(int(slow["clusters"].max()) + 1)
    assert size < 4 or len(numbers) > 2


@pytest.fixture(scope="module")
def golden(shared, parity_folder) -> Golden:
    return Golden(shared, parity_folder)


@pytest.mark.parametrize("case", CASES)
def test_the_released_maps_in_a_small_and_a_large_batch(golden, case, record_property):
    benchmark, size, image = CASES[case]
    stored = np.load(golden.golden / f"{case}.npz")
    method, text = golden.run(benchmark, size).method, golden.text(benchmark)
    alone = golden.graph(benchmark, size, image)
    ties, single = Ties(alone, method, text), integers(alone, method, text, 0)
    picture = Image.open(golden.samples / FOLDERS[benchmark[:3]][0] / f"{image}.jpg")
    (pixels,) = golden.clip.normalise(crop_image(picture.convert("RGB"), size)[None])
    for batch in (2, 8):
        place = batch // 3
        graph = Graph(golden.clip, company(pixels, pixels[None], batch, place))
        found = integers(graph, method, text, place)
        np.testing.assert_array_equal(found["clusters"], stored["cluster_labels"])
        for name, may_be in (
            ("regions", ties.may_be_region),
            ("prediction_before_vote", ties.may_be_class),
            ("prediction", ties.may_be_voted),
        ):
            count = differing(found[name], stored[name], may_be)
            other = differing(found[name], single[name], may_be)
            record_property(f"{name} of {batch}", f"{count}, {other} to the picture alone")
            assert count <= 2 and other <= 2


def integers(graph: Graph, method: Method, text: Text, image: int) -> dict[str, np.ndarray]:
    plain = changed(method, {"regions": None})
    found = {
        "clusters": graph.clusters(method),
        "regions": graph.regions(method),
        "prediction_before_vote": graph.prediction(plain, text, "golden", 100.0),
        "prediction": graph.prediction(method, text, "golden", 100.0),
    }
    return {name: value[image].numpy() for name, value in found.items()}
