"""Whole passes against the confusion matrices of the released code, pixel for pixel.

On real photographs with real masks, with a model whose weights mean nothing; both may be absent.
"""

import csv
from pathlib import Path

import numpy as np
import pytest

from cliptrase import config
from cliptrase.config.metric_names import METRICS
from cliptrase.data.read.images import read_image, read_label
from cliptrase.data.read.samples import Sample, Samples
from cliptrase.evaluate import passes
from cliptrase.runs import store

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared"
GOLDEN, SAMPLES = SHARED / "golden", SHARED / "samples"
VOC = SAMPLES / "voc2012" / "VOCdevkit" / "VOC2012"
COCO = SAMPLES / "coco_stuff" / "coco"
ADE = SAMPLES / "ade150" / "ADEChallengeData2016"
FOLDERS = {
    "voc2012": (VOC / "JPEGImages", VOC / "SegmentationClassAug"),
    "coco": (COCO / "val2017", COCO / "stuffthingmaps" / "val2017"),
    "ade2016": (ADE / "images" / "validation", ADE / "annotations" / "validation"),
}
PASSES = [
    (("voc20", "voc21"), 224),
    (("coco_stuff", "coco_object"), 224),
]
TIES = 1e-5  # of the pixels may differ on another processor: two logits equal to the last bit

pytestmark = pytest.mark.skipif(
    not (GOLDEN.is_dir() and SAMPLES.is_dir()), reason="the golden data is not here"
)


class Photographs(Samples):
    """The photographs of an archive's own folders, with raw labels."""

    def __init__(self, dataset):
        self.images, self.labels = FOLDERS[dataset]
        self.ids = sorted(path.stem for path in self.labels.glob("*.png"))

    def load(self, index):
        name = self.ids[index]
        label = read_label(self.labels / f"{name}.png")
        return Sample(name, read_image(self.images / f"{name}.jpg"), label)


@pytest.mark.parametrize(("benchmarks", "size"), PASSES)
def test_a_pass_counts_what_the_released_code_counts(
    benchmarks, size, parity_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        passes, "open_dataset", lambda run, data, any_code: Photographs(run.benchmark.dataset)
    )
    shared = [
        "method=cliptrase",
        "model=local",
        f"model.path={parity_folder}",
        f"image_size={size}",
    ]
    resolved = {name: config.resolve([f"benchmark={name}", *shared]) for name in benchmarks}
    runs = {run.name: run for run in resolved.values()}
    passes.run_pass(
        runs, partial=tmp_path / "partial.npz", out=tmp_path, data=tmp_path, device="cpu"
    )
    golden = np.load(GOLDEN / "confusions.npz")
    with open(GOLDEN / "metrics.csv", encoding="utf-8") as file:
        printed = {(line["benchmark"], line["image_size"]): line for line in csv.DictReader(file)}
    for name, run in resolved.items():
        folder = tmp_path / run.name
        ours = np.load(folder / "confusion.npz")["confusion"]
        theirs = golden[f"{name}_{size}"]
        assert ours.sum() == theirs.sum()
        assert np.array_equal(ours.sum(axis=1), theirs.sum(axis=1))
        assert np.abs(ours - theirs).sum() / 2 <= TIES * theirs.sum()
        metrics = store.read_metrics(folder)
        for metric in METRICS:
            assert round(metrics[metric], 2) == float(printed[name, str(size)][metric])
