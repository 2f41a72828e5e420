"""Every intermediate, map and matrix that the released code computed on the parity model.

Floats are equal within 1e-4, logits (100 × cosine) too. Integer maps are equal but for pixels that
tie: where theirs and ours are the largest values within 1e-4 of each other, or where such pixels
decide a region's vote. Every pixel that differs is checked for that, and no more than `TIES` may;
matrices are equal once those pixels are taken as theirs. What differs is reported
(`--junit-xml`): nothing with PyTorch's kernels for AVX-512 or for no vectors at all, with those for
AVX2 one pixel before the vote, none after it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tests.objects import changed, listed_text, local_model

from cliptrase import config
from cliptrase.config import Run
from cliptrase.config.method import Method
from cliptrase.data.read.crop import crop_image, crop_label
from cliptrase.data.read.images import read_label
from cliptrase.data.read.labels import apply, background_from_ignored, lookup, skipped
from cliptrase.data.read.vocabularies import read_names, read_templates
from cliptrase.evaluate.encoded import Text
from cliptrase.evaluate.graph import Graph
from cliptrase.model.load import load_clip
from cliptrase.model.text import text_features
from cliptrase.runs.counts import GroundTruth
from cliptrase.segment.regions import prototype, smooth_maps

TOLERANCE = 1e-4
TIES = 10  # pixels that may differ in a map, or in a benchmark's eight, each of them a tie
CASES = {
    "000000000139_coco_stuff_224": ("coco_stuff", 224, "000000000139"),
    "2007_000346_voc20_224": ("voc20", 224, "2007_000346"),
    "2007_000661_voc21_336": ("voc21", 336, "2007_000661"),
    "ADE_val_00000001_ade150_336": ("ade150", 336, "ADE_val_00000001"),
}
BENCHMARKS = ["voc20", "voc21", "coco_stuff", "coco_object", "ade150"]
FOLDERS = {
    "voc": (
        "voc2012/VOCdevkit/VOC2012/JPEGImages",
        "voc2012/VOCdevkit/VOC2012/SegmentationClassAug",
    ),
    "coc": ("coco_stuff/coco/val2017", "coco_stuff/coco/stuffthingmaps/val2017"),
    "ade": (
        "ade150/ADEChallengeData2016/images/validation",
        "ade150/ADEChallengeData2016/annotations/validation",
    ),
}


class Golden:
    """The parity model, its text features and a graph per photograph and size, made once."""

    def __init__(self, shared: Path, folder: Path):
        self.folder, self.golden, self.samples = folder, shared / "golden", shared / "samples"
        self.clip = load_clip(local_model(folder))
        self.run = cache(self._run)
        self.text = cache(self._text)
        self.graph = cache(self._graph)

    def _run(self, benchmark: str, size: int) -> Run:
        model = ["model=local", f"model.path={self.folder}"]
        return config.resolve(
            [f"benchmark={benchmark}", "method=cliptrase", f"image_size={size}", *model]
        )

    def _text(self, benchmark: str) -> Text:
        vocabulary = self.run(benchmark, 224).vocabulary
        classes = read_names(Path(vocabulary.classes.path))
        background = vocabulary.background
        words = [] if background is None else read_names(Path(background.path))
        templates = read_templates(Path(vocabulary.templates.path))
        features = text_features(self.clip, classes + words, templates)
        return listed_text(features, len(classes))

    def _graph(self, benchmark: str, size: int, image: str) -> Graph:
        if benchmark in ("voc21", "coco_object"):  # the same photographs, the same crops
            return self.graph(
                {"voc21": "voc20", "coco_object": "coco_stuff"}[benchmark], size, image
            )
        path = self.samples / FOLDERS[benchmark[:3]][0] / f"{image}.jpg"
        crop = crop_image(Image.open(path).convert("RGB"), size)
        return Graph(self.clip, self.clip.normalise(crop[None]))

    def predict(self, benchmark: str, size: int, image: str) -> np.ndarray:
        graph, run = self.graph(benchmark, size, image), self.run(benchmark, size)
        scale = run.protocol.logit_scale
        return graph.prediction(run.method, self.text(benchmark), benchmark, scale)[0].numpy()

    def truth(self, benchmark: str, size: int, image: str) -> np.ndarray | None:
        path = self.samples / FOLDERS[benchmark[:3]][1] / f"{image}.png"
        labels = self.run(benchmark, size).benchmark.labels
        table = lookup(labels, self.run(benchmark, size).vocabulary.classes.count)
        classes = apply(table, crop_label(read_label(path), size))
        if skipped(table, classes):
            return None
        if labels.background == "ignored":
            classes = background_from_ignored(table, classes)
        return classes


@pytest.fixture(scope="module")
def golden(shared, parity_folder) -> Golden:
    return Golden(shared, parity_folder)


def close(ours: torch.Tensor, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours.numpy(), theirs, atol=TOLERANCE, rtol=0)


class Ties:
    """What each pixel of one image may be by values within `TOLERANCE` of the largest."""

    def __init__(self, graph: Graph, method: Method, text: Text):
        logits = upsampled(graph.logits(method, text, "ties", 100.0)[0], graph.out_size)
        owner = text.owner.numpy()
        classes = np.stack([logits[owner == c].max(axis=0) for c in range(owner.max() + 1)])
        self.classes = classes >= classes.max(axis=0) - TOLERANCE
        self.regions = np.ones((0, *graph.out_size), bool)
        clusters, rows = graph.clusters(method)[0], graph.patch_rows(method.regions)[0]
        members = [clusters == cluster for cluster in range(int(clusters.max()) + 1)]
        if not members:
            return
        r = method.regions
        prototypes = torch.stack([prototype(rows, own) for own in members])
        maps = upsampled(smooth_maps(prototypes, graph.grid, r.upsample, r.median), graph.out_size)
        self.regions = maps >= maps.max(axis=0) - TOLERANCE

    def may_be_class(self, theirs: np.ndarray) -> np.ndarray:
        return np.take_along_axis(self.classes, theirs[None].astype(np.int64), axis=0)[0]

    def may_be_region(self, theirs: np.ndarray) -> np.ndarray:
        return np.take_along_axis(self.regions, theirs[None].astype(np.int64), axis=0)[0]

    def may_be_voted(self, theirs: np.ndarray) -> np.ndarray:
        """Where a region that the pixel may be of can vote for `theirs`: with every tie its way it
        has as many pixels as any other class has without ties."""
        one_class, one_region = self.classes.sum(axis=0) == 1, self.regions.sum(axis=0) == 1
        out = np.zeros(theirs.shape, bool)
        for region in self.regions:
            most = self.classes[:, region].sum(axis=1)
            least = self.classes[:, region & one_region & one_class].sum(axis=1)
            out |= region & (most >= least.max())[theirs]
        return out


def upsampled(maps: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0].numpy()


def differing(ours: np.ndarray, theirs: np.ndarray, may_be: Any) -> int:
    """How many pixels differ; fails where one does not tie, or where they are many."""
    different = ours != theirs
    if not different.any():
        return 0
    count, wrong = int(different.sum()), int((different & ~may_be(theirs)).sum())
    assert wrong == 0, f"{wrong} of {count} differing pixels do not tie"
    assert count <= TIES, f"{count} pixels differ, though every one ties"
    return count


@pytest.mark.parametrize("case", CASES)
def test_every_intermediate(golden, case, record_property):
    benchmark, size, _ = CASES[case]
    theirs = np.load(golden.golden / f"{case}.npz")
    run, graph, text = (
        golden.run(benchmark, size),
        golden.graph(*CASES[case]),
        golden.text(benchmark),
    )
    method = run.method
    assert method.regions.eps == theirs["eps"]
    assert method.regions.min_samples == theirs["min_samples"]
    assert method.cls_logits == (benchmark == "voc20")
    close(text.features, theirs["text_features"])
    close(graph.patches(method)[0], theirs["patch_features"])
    close(graph.cls(method), theirs["cls_feature"])
    w = graph.correlation(11, "cosine")[0]
    close(w[1:, 1:], theirs["correlation_block11"])
    close(w[:1, 1:], theirs["cls_correlation_block11"])
    close(graph.correlation(12, "cosine")[0, 1:, 1:], theirs["correlation_block12"])
    logits = 100 * graph.patches(method)[0] @ text.features.T
    close(logits.T.reshape(theirs["patch_logits"].shape), theirs["patch_logits"])
    np.testing.assert_array_equal(graph.clusters(method)[0], theirs["cluster_labels"])
    assert theirs["cluster_labels"].max() > 0  # more than one cluster to get wrong
    ties = Ties(graph, method, text)
    regions = graph.regions(method)[0].numpy()
    before = graph.prediction(changed(method, {"regions": None}), text, benchmark, 100.0)[0].numpy()
    after = graph.prediction(method, text, benchmark, 100.0)[0].numpy()
    for name, ours, may_be in (
        ("regions", regions, ties.may_be_region),
        ("prediction_before_vote", before, ties.may_be_class),
        ("prediction", after, ties.may_be_voted),
    ):
        record_property(name, differing(ours, theirs[name], may_be))


@pytest.mark.parametrize("case", CASES)
def test_a_pixel_that_does_not_tie_is_not_accepted(golden, case):
    """What accepts differences: of one region's number, one pixel's class, one region's vote."""
    benchmark, size, _ = CASES[case]
    run, text = golden.run(benchmark, size), golden.text(benchmark)
    theirs = np.load(golden.golden / f"{case}.npz")
    ties = Ties(golden.graph(*CASES[case]), run.method, text)
    for name, may_be in (
        ("regions", ties.may_be_region),
        ("prediction_before_vote", ties.may_be_class),
        ("prediction", ties.may_be_voted),
    ):
        right = theirs[name].astype(np.int64)
        assert may_be(right).all()
        for wrong in ((right + 1) % (right.max() + 1), (right + 2) % (right.max() + 1)):
            assert may_be(wrong).mean() < 1e-3
        wrong = right.copy()
        wrong[50, 60] = (right[50, 60] + 1) % (right.max() + 1)
        with pytest.raises(AssertionError, match="1 of 1 differing pixels"):
            differing(right, wrong, may_be)


@pytest.mark.parametrize("size", [224, 336])
@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_map_and_the_confusion_matrix(golden, benchmark, size, record_property):
    maps = np.load(golden.golden / "predictions" / f"{benchmark}_{size}.npz")
    matrices = np.load(golden.golden / "confusions.npz")
    expected = matrices[f"{benchmark}_{size}"]
    assert len(maps.files) == 8
    run, text = golden.run(benchmark, size), golden.text(benchmark)
    total = np.zeros_like(expected)
    different = 0
    for image in maps.files:
        ours = golden.predict(benchmark, size, image)
        if (ours != maps[image]).any():
            ties = Ties(golden.graph(benchmark, size, image), run.method, text)
            different += differing(ours, maps[image], ties.may_be_voted)
            ours = maps[image]  # every pixel that differs is a tie
        truth = golden.truth(benchmark, size, image)
        if truth is not None:
            total += GroundTruth.of(truth, len(expected)).confusion(ours)
    record_property("pixels that differ", different)
    assert different <= TIES, f"{different} of {8 * size * size} pixels differ"
    np.testing.assert_array_equal(total, expected)
