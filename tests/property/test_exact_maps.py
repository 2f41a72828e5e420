"""The whole path, for every batch size, equal to the slow path in every integer.

Two slow paths. One takes the encoder's numbers of an image in its batch and does everything after
them slowly: every cluster, region, class and pixel is equal, no exception. The other does all of it
in float64, image by image; there, and between an image in a batch and the same image alone (a
product of another shape is rounded otherwise), a pixel may differ where two values are equal within
float32's rounding. Every pixel that differs is checked for that, counted, and there are few.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from random_clips import pictures, random_clip, words
from slow_reference import CLASSES, WORDS, Reference, vote
from slow_stages import segmented, upsampled
from tests.objects import changed, listed_text, method

from cliptrase.evaluate.graph import Graph
from cliptrase.model.affinity import squared_distances

BATCHES = (1, 3, 16)
EVERYTHING = max(BATCHES)
ROUNDING = 1e-6  # relative: values that are closer tie
KEY = "words"

METHODS: dict[str, dict[str, Any]] = {
    "cliptrase": {},
    "cls logits": {"cls_logits": True},
    "features": {"regions.cluster": "features"},
    "no denoising, rows of length 1": {"regions.denoise": "none", "regions.l2_rows": True},
    "no vote": {"regions": None},
    "the paper's text": {
        "attention.kind": "cosine", "attention.row_sum": 1, "regions.correlation.block": 12,
        "regions.l2_rows": True, "regions.denoise": "eq7", "regions.passes": 2,
        "regions.upsample": 1, "regions.median": 1,
    },
    "Eq. 7, inner products": {
        "regions.denoise": "eq7", "regions.correlation.kind": "inner_product",
        "regions.correlation.block": 12,
    },
    "other filter": {"regions.upsample": 3, "regions.median": 5, "regions.min_samples": 5},
}  # fmt: skip


class Case:
    """Pictures, words and a method, its eps between two distances, of a random model."""

    def __init__(self, seed: int, name: str = "cliptrase", share: float = 0.4) -> None:
        rng = np.random.default_rng([12, seed])
        self.clip, self.pixels = random_clip(seed), pictures(rng, EVERYTHING)
        self.method = method("cliptrase", METHODS[name])
        graph = Graph(self.clip, self.pixels)
        features = graph.patches(self.method).flatten(0, 1)
        self.text = listed_text(words(rng, features, WORDS), CLASSES)
        if self.votes:
            self.set_eps(self.between(graph, share))

    def set_eps(self, eps: float) -> None:
        self.method = changed(self.method, {"regions.eps": eps})

    @property
    def votes(self) -> bool:
        return self.method.regions is not None

    def between(self, graph: Graph, share: float) -> float:
        """An eps in the widest gap of distances about where `share` of all pairs are within it."""
        r = self.method.regions
        rows = graph.patches(self.method) if r.cluster == "features" else graph.patch_rows(r)
        rows = torch.nn.functional.normalize(rows, dim=-1) if r.l2_rows else rows
        upper = np.triu_indices(rows.shape[1], 1)
        ordered = squared_distances(rows).sqrt()[:, upper[0], upper[1]].flatten().sort().values
        first = int(share * len(ordered))
        few = ordered[first : first + 200]
        widest = int(few.diff().argmax())
        return float(few[widest] + few[widest + 1]) / 2

    def graph(self, first: int, count: int) -> Graph:
        """Of `count` pictures from `first` on, the last ones followed by the first ones."""
        return Graph(self.clip, self.pixels[(first + torch.arange(count)) % EVERYTHING])

    def everything(self, graph: Graph) -> dict[str, np.ndarray]:
        """The package's integers of all images of a graph."""
        plain = changed(self.method, {"regions": None})
        found = {
            "classes": graph.prediction(plain, self.text, KEY),
            "prediction": graph.prediction(self.method, self.text, KEY),
        }
        if self.votes:
            found |= {
                "clusters": graph.clusters(self.method),
                "regions": graph.regions(self.method),
            }
        return {key: value.numpy() for key, value in found.items()}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("seed", range(3))
def test_every_integer_of_every_image_for_every_batch_size(seed, name):
    """Batches begin at different pictures, so that what is beside a picture differs too."""
    case, counts, images = Case(seed, name, (0.2, 0.4, 0.5)[seed]), Counter[int](), 0
    for first, size in enumerate(BATCHES):
        graph = case.graph(first, size)
        ours = case.everything(graph)
        for image in range(size):
            slow = segmented(graph, image, case.method, case.text, KEY)
            assert slow.keys() == ours.keys()
            for key, expected in slow.items():
                np.testing.assert_array_equal(ours[key][image], expected, err_msg=key)
            counts[int(slow["clusters"].max()) + 1 if case.votes else -1] += 1
            images += 1
    assert images == sum(BATCHES)
    assert not case.votes or len(counts) >= 3, counts


def test_batches_have_images_with_nothing_one_cluster_and_many():
    """What the cases above are worth."""
    for seed in range(3):
        case = Case(seed)
        labels = case.graph(0, 16).clusters(case.method)
        numbers = {int(own.max()) + 1 for own in labels}
        assert {0, 1} < numbers and max(numbers) >= 4, numbers


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_batches_of_noise_alone_and_of_one_cluster_alone(share):
    case = Case(7)
    everybody = 1e6 if share else 1e-9
    case.set_eps(everybody)
    for size in BATCHES:
        graph = case.graph(3, size)
        ours = case.everything(graph)
        assert (ours["clusters"] == int(share) - 1).all()
        for image in range(size):
            slow = segmented(graph, image, case.method, case.text, KEY)
            for key, expected in slow.items():
                np.testing.assert_array_equal(ours[key][image], expected, err_msg=key)
            if share:
                assert len(np.unique(ours["prediction"][image])) == 1
            else:
                np.testing.assert_array_equal(ours["prediction"][image], slow["classes"])


# ---------------------------------------------------------------- where rounding may differ


def tied(maps: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(H, W) whether the values of classes `one` and `other` are equal but for rounding."""
    a, b = (np.take_along_axis(maps, own[None], axis=0)[0] for own in (one, other))
    return np.abs(a - b) <= ROUNDING * np.abs(maps).max()


def by_class(fine: np.ndarray, owner: np.ndarray) -> np.ndarray:
    return np.stack([fine[owner == c].max(axis=0) for c in range(owner.max() + 1)])


@pytest.mark.parametrize("seed", range(3))
def test_an_image_in_a_batch_is_that_image_alone(seed, record_property):
    """Clusters equal, and every class and region but for ties; a vote follows its own pixels."""
    case, different, seen = Case(seed), Counter[str](), 0
    alone = [case.everything(case.graph(image, 1)) for image in range(EVERYTHING)]
    for first, size in enumerate(BATCHES):
        graph = case.graph(first, size)
        ours = case.everything(graph)
        logits = graph.logits(case.method, case.text, KEY, 100.0)
        for image in range(size):
            single = {key: value[0] for key, value in alone[(first + image) % EVERYTHING].items()}
            found = {key: value[image] for key, value in ours.items()}
            np.testing.assert_array_equal(found["clusters"], single["clusters"])
            fine = by_class(upsampled(logits[image], graph.out_size), case.text.owner.numpy())
            moved = found["classes"] != single["classes"]
            assert (~moved | tied(fine, found["classes"], single["classes"])).all()
            moved_regions = found["regions"] != single["regions"]
            different.update(classes=int(moved.sum()), regions=int(moved_regions.sum()))
            different["prediction"] += int((found["prediction"] != single["prediction"]).sum())
            seen += moved.size
    for key, count in different.items():
        record_property(key, f"{count} of {seen}")
    assert max(different.values()) <= 1e-5 * seen, different


@pytest.mark.parametrize("name", ["cliptrase", "cls logits", "the paper's text", "other filter"])
@pytest.mark.parametrize("seed", range(3))
def test_the_slow_reference_in_float64_has_the_same_maps(seed, name, record_property):
    """16 pictures a case, in one batch: clusters equal, classes and regions but for ties."""
    case, different, seen = Case(seed, name), Counter[str](), 0
    graph = case.graph(0, EVERYTHING)
    ours = case.everything(graph)
    for image in range(EVERYTHING):
        slow = Reference(
            case.clip, case.pixels[image].numpy(), case.text.features.numpy(), case.method
        )
        found = {key: value[image] for key, value in ours.items()}
        fine = by_class(slow.logits, case.text.owner.numpy())
        np.testing.assert_array_equal(found["clusters"], slow.labels)
        expected = fine.argmax(axis=0)
        moved = found["classes"] != expected
        assert (~moved | tied(fine, found["classes"], expected)).all()
        different["classes"] += int(moved.sum())
        if slow.maps:
            maps = np.stack(slow.maps)
            moved = found["regions"] != maps.argmax(axis=0)
            assert (~moved | tied(maps, found["regions"], maps.argmax(axis=0))).all()
            different["regions"] += int(moved.sum())
            after = vote(found["classes"], found["regions"])
        else:
            assert (found["regions"] == -1).all()
            after = found["classes"]
        np.testing.assert_array_equal(found["prediction"], after)
        seen += moved.size
    for key, count in different.items():
        record_property(key, f"{count} of {seen}")
    assert max(different.values()) <= 5e-5 * seen, different
