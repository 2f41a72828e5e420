"""The embedded benchmark: scenes that are drawn instead of taken from an archive."""

from __future__ import annotations

from collections.abc import Iterator

from cliptrase.data.make.records import Record, png
from cliptrase.shapes import scenes


def count() -> int:
    """How many scenes there are."""
    return len(scenes.TEST_SEEDS)


def records(dataset: str) -> Iterator[Record]:
    """The scenes in order. They have the same ids with and without clutter: runs pair up by id."""
    for index in range(count()):
        scene = scenes.evaluation_scene(dataset, index)
        yield Record(f"scene_{index:03d}", png(scene.image), png(scene.label))
