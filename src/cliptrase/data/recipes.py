"""How each dataset is made: its records in order, and the code that makes them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cliptrase.errors import UserError, nearest
from cliptrase.files import sha256_file

SHAPES = Path(__file__).parent / "shapes"
LATER = ("coco", "voc2012", "pcontext", "ade2016", "ade2021", "cityscapes")


@dataclass(frozen=True)
class Record:
    """A row as it is stored: an image file's bytes, and a PNG (8 or 16 bit) of raw labels."""

    id: str
    image: bytes
    label: bytes


@dataclass(frozen=True)
class Recipe:
    """How a dataset is made: its records, sorted by id, and the code that makes them."""

    count: int
    records: Callable[[], Iterator[Record]]
    code: tuple[Path, ...]

    def digest(self) -> str:
        """sha256 of the code: a dataset made by other code is made again."""
        content = [f"{path.name} {sha256_file(path)}" for path in self.code]
        return hashlib.sha256("\n".join(content).encode()).hexdigest()


def recipe(dataset: str) -> Recipe:
    """The recipe of a dataset. Raises UserError for one that this version cannot prepare."""
    from cliptrase.data.shapes.scenes import EVALUATION, TEST_SEEDS

    if dataset in EVALUATION:
        code = (Path(__file__), *sorted(SHAPES.glob("*.py")))
        return Recipe(len(TEST_SEEDS), lambda: _scenes(dataset, len(TEST_SEEDS)), code)
    if dataset in LATER:
        raise UserError(
            f"{dataset}: its preparation is not part of this version; with the images and masks in "
            "two folders, use benchmark=folder benchmark.images=… benchmark.labels=… "
            "benchmark.classes=…"
        )
    raise UserError(f"unknown dataset {dataset!r}; {nearest(dataset, EVALUATION)}")


def png(pixels: np.ndarray) -> bytes:
    """(H, W, 3) or (H, W) uint8, or (H, W) uint16, as the bytes of a lossless PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=3)
    return file.getvalue()


def _scenes(dataset: str, count: int) -> Iterator[Record]:
    """The embedded benchmark: the same ids with and without clutter, so that runs pair up."""
    from cliptrase.data.shapes.scenes import evaluation_scene

    for index in range(count):
        scene = evaluation_scene(dataset, index)
        yield Record(f"scene_{index:03d}", png(scene.image), png(scene.label))
