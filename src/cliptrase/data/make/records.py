"""The rows of a prepared dataset, and those of the embedded benchmark, which needs no archive."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Record:
    """A row as it is stored: an image file's bytes, and a PNG (8 or 16 bit) of raw labels."""

    id: str
    image: bytes
    label: bytes


def png(pixels: np.ndarray) -> bytes:
    """(H, W, 3) or (H, W) uint8, or (H, W) uint16, as the bytes of a lossless PNG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=3)
    return file.getvalue()


def drawn(dataset: str) -> Iterator[Record]:
    """The embedded scenes, of the same ids with and without clutter, so that runs pair up."""
    from cliptrase.shapes import scenes

    for index in range(len(scenes.TEST_SEEDS)):
        scene = scenes.evaluation_scene(dataset, index)
        yield Record(f"scene_{index:03d}", png(scene.image), png(scene.label))
