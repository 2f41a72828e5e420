"""PASCAL VOC 2012 val: palette masks whose indices are 0 background, 1..20 classes, 255 void."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cliptrase.data.fetch.sources import DatasetSource
from cliptrase.data.make.archives import common
from cliptrase.data.make.records import Record

ROOT = r"(?:[^/]+/)?VOCdevkit/VOC2012"


def records(source: DatasetSource, data: Path) -> Iterator[Record]:
    """The images of ImageSets/Segmentation/val.txt."""
    image = (rf"{ROOT}/JPEGImages/([^/]+)\.jpg", "photographs VOCdevkit/VOC2012/JPEGImages/*.jpg")
    label = (rf"{ROOT}/SegmentationClass/([^/]+)\.png", "masks SegmentationClass/*.png")
    listing = rf"{ROOT}/ImageSets/Segmentation/val\.txt"
    return common.as_shipped(common.pairs(source, data, image, label, listing))
