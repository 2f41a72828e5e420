"""Every intermediate, map and matrix that the released code computed on the parity model."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from cliptrase import config
from cliptrase.data.crop import crop_image, crop_label
from cliptrase.data.images import read_label
from cliptrase.data.labels import apply, background_from_ignored, lookup, skipped
from cliptrase.data.vocabularies import read_names, read_templates
from cliptrase.evaluate.graph import Graph, Text
from cliptrase.evaluate.metrics import confusion
from cliptrase.model.load import load_clip
from cliptrase.model.text import text_features

TOLERANCE = 1e-4
TIES = 10  # pixels whose two best classes tie within float rounding; 0 where this was written
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
        self.clip = load_clip({"kind": "local", "path": str(folder)})
        self.run = cache(self._run)
        self.text = cache(self._text)
        self.graph = cache(self._graph)

    def _run(self, benchmark: str, size: int) -> dict[str, Any]:
        model = ["model=local", f"model.path={self.folder}"]
        return config.resolve(
            [f"benchmark={benchmark}", "method=cliptrase", f"image_size={size}", *model]
        )

    def _text(self, benchmark: str) -> Text:
        vocabulary = self.run(benchmark, 224)["vocabulary"]
        classes = read_names(Path(vocabulary["classes"]["path"]))
        background = vocabulary["background"]
        words = [] if background is None else read_names(Path(background["path"]))
        templates = read_templates(Path(vocabulary["templates"]["path"]))
        features = text_features(self.clip, classes + words, templates)
        return Text.listed(features, len(classes))

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
        scale = run["protocol"]["logit_scale"]
        return graph.prediction(run["method"], self.text(benchmark), benchmark, scale)[0].numpy()

    def truth(self, benchmark: str, size: int, image: str) -> np.ndarray | None:
        path = self.samples / FOLDERS[benchmark[:3]][1] / f"{image}.png"
        labels = self.run(benchmark, size)["benchmark"]["labels"]
        table = lookup(labels, self.run(benchmark, size)["vocabulary"]["classes"]["count"])
        classes = apply(table, crop_label(read_label(path), size))
        if skipped(table, classes):
            return None
        if labels["background"] == "ignored":
            classes = background_from_ignored(table, classes)
        return classes


@pytest.fixture(scope="module")
def golden(shared, parity_folder) -> Golden:
    return Golden(shared, parity_folder)


def close(ours: torch.Tensor, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours.numpy(), theirs, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_every_intermediate(golden, case):
    benchmark, size, _ = CASES[case]
    theirs = np.load(golden.golden / f"{case}.npz")
    run, graph, text = (
        golden.run(benchmark, size),
        golden.graph(*CASES[case]),
        golden.text(benchmark),
    )
    method = run["method"]
    assert method["regions"]["eps"] == theirs["eps"]
    assert method["regions"]["min_samples"] == theirs["min_samples"]
    assert method["cls_logits"] == (benchmark == "voc20")
    close(text.features, theirs["text_features"])
    close(graph.patches(method)[0], theirs["patch_features"])
    close(graph.cls(method), theirs["cls_feature"])
    w = graph.correlation(11, "cosine")[0]
    close(w[1:, 1:], theirs["correlation_block11"])
    close(w[:1, 1:], theirs["cls_correlation_block11"])
    close(graph.correlation(12, "cosine")[0, 1:, 1:], theirs["correlation_block12"])
    logits = 100 * graph.patches(method)[0] @ text.features.T
    np.testing.assert_allclose(  # a hundred times the cosine: a hundred times the tolerance
        logits.T.reshape(theirs["patch_logits"].shape),
        theirs["patch_logits"],
        atol=100 * TOLERANCE,
        rtol=0,
    )
    np.testing.assert_array_equal(graph.clusters(method)[0], theirs["cluster_labels"])
    assert theirs["cluster_labels"].max() > 0  # more than one cluster to get wrong
    regions = graph.regions(method)[0].numpy()
    np.testing.assert_array_equal(regions, theirs["regions"])
    before = graph.prediction({**method, "regions": None}, text, benchmark, 100.0)[0].numpy()
    ties = before != theirs["prediction_before_vote"]
    assert ties.sum() <= TIES, f"{ties.sum()} pixels differ before the vote"
    if ties.any():
        if method["cls_logits"]:
            logits = logits * (100 * graph.cls(method)[0] @ text.features.T)
        big = F.interpolate(
            logits.T.reshape(1, *theirs["patch_logits"].shape), size=(size, size), mode="bilinear"
        )[0].numpy()
        classes = int(text.owner.max()) if "21" in benchmark or "object" in benchmark else len(big)
        folded = np.concatenate([big[:classes], big[classes:].max(0, keepdims=True)])
        ours, other = before[ties], theirs["prediction_before_vote"][ties]
        margin = folded[ours, *ties.nonzero()] - folded[other, *ties.nonzero()]
        assert (margin < 100 * TOLERANCE).all()
    after = graph.prediction(method, text, benchmark, 100.0)[0].numpy()
    np.testing.assert_array_equal(after, theirs["prediction"])


@pytest.mark.parametrize("size", [224, 336])
@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_map_and_the_confusion_matrix(golden, benchmark, size):
    maps = np.load(golden.golden / "predictions" / f"{benchmark}_{size}.npz")
    matrices = np.load(golden.golden / "confusions.npz")
    expected = matrices[f"{benchmark}_{size}"]
    assert len(maps.files) == 8
    total = np.zeros_like(expected)
    different = 0
    for image in maps.files:
        ours = golden.predict(benchmark, size, image)
        different += int((ours != maps[image]).sum())
        truth = golden.truth(benchmark, size, image)
        if truth is not None:
            total += confusion(truth, ours, len(expected))
    assert different <= TIES, f"{different} of {8 * size * size} pixels differ"
    assert np.abs(total - expected).sum() <= 2 * different
