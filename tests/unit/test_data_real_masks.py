"""Real photographs and masks in their archives' encodings, against source tables and golden data.

Skipped where the folder of samples is not there.
"""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from tests.objects import rules

from cliptrase.config.schema import Folder
from cliptrase.data.read import labels
from cliptrase.data.read.crop import crop_label
from cliptrase.data.read.folder import folder_digest
from cliptrase.data.read.folder_samples import FolderSamples
from cliptrase.data.read.images import read_image, read_label
from cliptrase.data.read.vocabularies import read_names, vocabulary_path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT / ".." / "shared"
pytestmark = pytest.mark.skipif(
    not (SHARED / "samples").is_dir(), reason="the sample photographs are not here"
)
VOC = SHARED / "samples/voc2012/VOCdevkit/VOC2012"
COCO = SHARED / "samples/coco_stuff/coco"
ADE = SHARED / "samples/ade150/ADEChallengeData2016"
FOLDERS = {
    "voc": (VOC / "JPEGImages", VOC / "SegmentationClassAug"),
    "coco": (COCO / "val2017", COCO / "stuffthingmaps/val2017"),
    "ade": (ADE / "images/validation", ADE / "annotations/validation"),
}
SOURCES = [
    ("voc", "voc_to_20", "voc_to_20"),
    ("coco", "coco_to_171", "coco_stuffthingmaps_to_171"),
    ("ade", "ade2016_to_150", "ade150_to_150"),
]


@pytest.mark.parametrize(("folder", "table", "source"), SOURCES)
def test_conversions_equal_the_source_mapping(folder: str, table: str, source: str) -> None:
    mapping = json.loads((SHARED / f"datasets/mappings/{source}.json").read_text())
    lookup = labels.lookup(rules(map=table), int(table.split("_")[-1]))
    masks = sorted(FOLDERS[folder][1].glob("*.png"))
    assert masks
    for mask in masks:
        stored = np.array(Image.open(mask))  # the indices of a palette
        want = [mapping["map"].get(str(raw), 255) for raw in stored.ravel().tolist()]
        assert labels.apply(lookup, read_label(mask)).ravel().tolist() == want


def test_every_table_equals_its_source() -> None:
    for name, source in (
        ("voc_to_20", "voc_to_20"),
        ("coco_to_171", "coco_stuffthingmaps_to_171"),
        ("pcontext_to_59", "pc459_to_59"),
        ("ade2016_to_150", "ade150_to_150"),
        ("ade2021_to_847", "ade_full_to_847"),
        ("coco_to_27", "coco182_to_27"),
        ("cityscapes_to_27", "cityscapes_to_27"),
        ("cityscapes_to_19", "cityscapes_to_19"),
    ):
        mapping = json.loads((SHARED / f"datasets/mappings/{source}.json").read_text())["map"]
        assert labels.read_table(name) == {int(raw): target for raw, target in mapping.items()}
    names = json.loads((SHARED / "datasets/mappings/pc459_raw_to_459.json").read_text())["names"]
    vocabulary = read_names(vocabulary_path("pc459"))
    assert {
        int(raw): vocabulary[labels.read_table("pcontext_to_459")[int(raw)]] for raw in names
    } == {int(raw): name for raw, name in names.items()}


@pytest.mark.parametrize("size", [224, 336])
@pytest.mark.parametrize(
    ("benchmark", "folder"),
    [
        ("voc20", "voc"),
        ("voc21", "voc"),
        ("coco_stuff", "coco"),
        ("coco_object", "coco"),
        ("ade150", "ade"),
    ],
)
def test_scored_pixels_equal_those_of_the_released_code(
    benchmark: str, folder: str, size: int
) -> None:
    """The rows of the golden confusion matrices: reading, crop, lookup, background, skip test."""
    golden = np.load(SHARED / "golden/confusions.npz")[f"{benchmark}_{size}"].sum(axis=1)
    config = yaml.safe_load((ROOT / f"conf/benchmark/{benchmark}.yaml").read_text())
    classes = len(read_names(vocabulary_path(config["classes"])))
    lookup = labels.lookup(rules(**config["labels"]), classes)
    counted = np.zeros(len(golden), dtype=np.int64)
    images, masks = map(str, FOLDERS[folder])
    digest = folder_digest(images, masks, None, None)
    files = Folder(images_path=images, labels_path=masks, digest=digest)
    for sample in FolderSamples(files):
        target = labels.apply(lookup, crop_label(sample.label, size))
        if labels.skipped(lookup, target):
            continue
        if config["labels"]["background"] == "ignored":
            target = labels.background_from_ignored(lookup, target)
        counted += np.bincount(target.ravel(), minlength=70000)[: len(golden)]
    assert counted.tolist() == golden.tolist()


def test_photographs_have_the_sizes_that_the_manifest_states() -> None:
    with open(SHARED / "samples/MANIFEST.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["file"].endswith(".jpg")]
    assert rows
    for row in rows:
        image = read_image(SHARED / "samples" / row["file"])
        stated = row["pil_info"].split()[0].split("x")
        assert image.mode == "RGB" and list(image.size) == [int(side) for side in stated]
