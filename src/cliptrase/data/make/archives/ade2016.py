"""ADE20K of the 2016 challenge, validation: 0 other, 1..150 classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cliptrase.data.fetch.sources import DatasetSource
from cliptrase.data.make.archives import common
from cliptrase.data.make.records import Record


def records(source: DatasetSource, data: Path) -> Iterator[Record]:
    """Every image of the validation part."""
    image = (r"(?:[^/]+/)?images/validation/([^/]+)\.jpg", "photographs images/validation/*.jpg")
    label = (
        r"(?:[^/]+/)?annotations/validation/([^/]+)\.png",
        "masks annotations/validation/*.png",
    )
    return common.as_shipped(common.pairs(source, data, image, label))
