"""Pictures for the miniatures: the embedded generator's scenes at a photograph's size and shape.

Each dataset has a fixed table from the 73 fine labels of a scene to its own raw values, so that
several classes occur, and a seam of two pixels between things that nobody labelled.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import cliptrase.data
from cliptrase.shapes.concepts import BACKGROUNDS, FINE, OBJECTS
from cliptrase.shapes.scenes import VALIDATION_SEEDS, scene

LABELS = Path(cliptrase.data.__file__).parent / "labels"
# Raw label -> one of the 20 objects or 7 backgrounds.
TO_ALL = [fine.object for fine in FINE] + [len(OBJECTS) + i for i in range(len(BACKGROUNDS))]


@dataclass(frozen=True)
class Picture:
    """image: (H, W, 3) uint8. fine: (H, W) the scene's labels, 0..72. seam: (H, W) bool."""

    image: np.ndarray
    fine: np.ndarray
    seam: np.ndarray

    def labels(self, table: np.ndarray, seam: int | None = None) -> np.ndarray:
        """(H, W) raw values of a dataset: `table` (73,), `seam` where two things meet."""
        raw = table[self.fine]
        return raw if seam is None else np.where(self.seam, table.dtype.type(seam), raw)


def picture(number: int, size: tuple[int, int]) -> Picture:
    """Picture `number` of (width, height) pixels: the middle of a square scene."""
    width, height = size
    made = scene(VALIDATION_SEEDS[number], size=max(size))
    left, top = (max(size) - width) // 2, (max(size) - height) // 2
    window = np.s_[top : top + height, left : left + width]
    fine = made.label[window]
    seam = np.zeros(fine.shape, dtype=bool)
    across, down = fine[:, 1:] != fine[:, :-1], fine[1:] != fine[:-1]
    seam[:, 1:] |= across
    seam[:, :-1] |= across
    seam[1:] |= down
    seam[:-1] |= down
    return Picture(made.image[window], fine, seam)


def jpeg(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint8 as a photograph's file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def png(pixels: np.ndarray, palette: list[int] | None = None) -> bytes:
    """(H, W) uint8 or uint16, or (H, W, 3) uint8; uint8 with a palette, as VOC's masks are."""
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette(palette)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def voc_colormap() -> list[int]:
    """The 256 colours of VOC's masks: bit j of a value's three colours is one of its bits."""
    colours = []
    for value in range(256):
        for channel in range(3):
            bits = [(value >> (3 * place + channel) & 1) << (7 - place) for place in range(3)]
            colours.append(sum(bits))
    return colours


def _known(name: str) -> list[int]:
    """The raw values that a shipped lookup table knows, in the order of their classes."""
    with open(LABELS / f"{name}.csv", encoding="utf-8", newline="") as file:
        pairs = [(int(line["class"]), int(line["raw"])) for line in csv.DictReader(file)]
    return [raw for _, raw in sorted(pairs)]


def voc_table() -> np.ndarray:
    """The 20 objects are VOC's 20 classes, every background is 0."""
    return np.array([each + 1 if each < len(OBJECTS) else 0 for each in TO_ALL], np.uint8)


def coco_table() -> np.ndarray:
    """Things for objects (a leaf is a branch, a chessboard a banner), stuff for backgrounds."""
    things = (23, 16, 20, 24, 19, 15, 8, 37, 54, 52, 51, 33, 63, 43, 27, 93, 5, 36, 91, 12)
    stuff = (156, 123, 170, 177, 153, 180, 158)
    assert (len(things), len(stuff)) == (len(OBJECTS), len(BACKGROUNDS))
    raws = (*things, *stuff)
    return np.array([raws[each] for each in TO_ALL], np.uint8)


def pcontext_table() -> np.ndarray:
    """The 59 classes first, then values that only the 459 classes know, 256 (class 255) too."""
    raws = [*_known("pcontext_to_59")[::-1], 256, 459, 1, 100, 5, 300, 200]
    return np.array([raws[raw % len(raws)] for raw in range(len(TO_ALL))], np.uint16)


def ade2016_table() -> np.ndarray:
    """Every other of the 150 classes."""
    return np.array([1 + 2 * raw for raw in range(len(TO_ALL))], np.uint8)


def ade2021_table() -> np.ndarray:
    """73 of the 847 classes, 255 among them; every twelfth value belongs to no class."""
    known = _known("ade2021_to_847")
    strange = sorted(set(range(1, 3000)) - set(known))
    raws = [strange[7 * raw] if raw % 12 == 11 else known[11 * raw] for raw in range(len(TO_ALL))]
    raws[TO_ALL[0] + 3] = known[255]
    return np.array(raws, np.uint16)


def cityscapes_table() -> np.ndarray:
    """labelIds 7..33, one for each object and background."""
    return np.array([7 + each for each in TO_ALL], np.uint8)
