"""Cityscapes val, fine masks: labelIds 0..33, the first seven of them no part of the scene."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cliptrase.data.fetch.sources import DatasetSource
from cliptrase.data.make.archives import common
from cliptrase.data.make.records import Record


def records(source: DatasetSource, data: Path) -> Iterator[Record]:
    """Every image of the validation cities, named frankfurt_000000_000294 and so on."""
    image = (
        r"(?:[^/]+/)?leftImg8bit/val/[^/]+/([^/]+)_leftImg8bit\.png",
        "photographs leftImg8bit/val/*/*_leftImg8bit.png",
    )
    label = (
        r"(?:[^/]+/)?gtFine/val/[^/]+/([^/]+)_gtFine_labelIds\.png",
        "masks gtFine/val/*/*_gtFine_labelIds.png",
    )
    return common.as_shipped(common.pairs(source, data, image, label))
