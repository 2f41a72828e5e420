"""PASCAL VOC 2012 val: palette masks whose indices are 0 background, 1..20 classes, 255 void."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cliptrase.data.archives import common
from cliptrase.data.records import Record
from cliptrase.data.sources import DatasetSource

ROOT = r"(?:[^/]+/)?VOCdevkit/VOC2012"


def records(source: DatasetSource, data: Path) -> Iterator[Record]:
    """The images of ImageSets/Segmentation/val.txt."""
    image = (rf"{ROOT}/JPEGImages/([^/]+)\.jpg", "photographs VOCdevkit/VOC2012/JPEGImages/*.jpg")
    label = (rf"{ROOT}/SegmentationClass/([^/]+)\.png", "masks SegmentationClass/*.png")
    listing = rf"{ROOT}/ImageSets/Segmentation/val\.txt"
    return common.as_shipped(common.pairs(source, data, image, label, listing))
