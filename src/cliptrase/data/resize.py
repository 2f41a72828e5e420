"""The whole picture as sliding windows see it: resized bilinearly, without antialiasing.

As OpenCV's INTER_LINEAR does, which the authors of that protocol use.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from cliptrase.data.crop import check_aspect

LONGEST = 2048  # pixels that the long side has at most


def whole_image(image: Image.Image, short_side: int) -> np.ndarray:
    """(h, w, 3) uint8 of a whole RGB picture: short side `short_side`, long side at most LONGEST.

    Raises UserError for a picture more than 100 times as long as wide.
    """
    width, height = whole_size(image.width, image.height, short_side)
    return resize_linear(np.asarray(image), height, width)


def whole_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height after the resize: one factor for both, each rounded half up."""
    check_aspect(width, height)
    factor = min(LONGEST / max(width, height), short_side / min(width, height))
    return int(width * factor + 0.5), int(height * factor + 0.5)


def resize_linear(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width, C) of uint8 pixels (H, W, C): between the four nearest, rounded half up.

    Pixels are where their centres are; outside the outermost centres their values go on. (OpenCV
    computes with weights of 11 bits: it may differ by one grey level.)
    """
    rows, columns = (
        _neighbours(old, new) for old, new in zip(pixels.shape, (height, width), strict=False)
    )
    down = _between(pixels, rows, axis=0)
    return np.floor(_between(down, columns, axis=1) + 0.5).astype(np.uint8)


def _neighbours(length: int, new_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each new pixel the old ones before and after it, and the weight of the second."""
    place = (np.arange(new_length) + 0.5) * (length / new_length) - 0.5
    place = place.clip(0, length - 1)
    before = place.astype(np.int64)
    return before, np.minimum(before + 1, length - 1), place - before


def _between(
    values: np.ndarray, neighbours: tuple[np.ndarray, np.ndarray, np.ndarray], axis: int
) -> np.ndarray:
    before, after, weight = neighbours
    weight = weight.reshape(-1, *[1] * (values.ndim - axis - 1))
    first = values.take(before, axis).astype(np.float64)
    return first + (values.take(after, axis) - first) * weight
