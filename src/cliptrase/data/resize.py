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

    Pixels are where their centres are; outside the outermost centres their values go on. In whole
    numbers, so exact. (OpenCV takes weights of 11 bits: it may differ by one grey level.)
    """
    down = _between(pixels, height, axis=0)
    across = _between(down, width, axis=1)
    parts = 4 * height * width
    return ((across + parts // 2) // parts).astype(np.uint8)


def _between(values: np.ndarray, new_length: int, axis: int) -> np.ndarray:
    """Values between the two nearest along an axis, times 2 · new_length.

    A new pixel's centre is at (i + ½) · length / new_length − ½ old pixels.
    """
    last, parts = values.shape[axis] - 1, 2 * new_length
    place = (2 * np.arange(new_length) + 1) * (last + 1) - new_length  # in parts of a pixel
    before, share = np.divmod(np.maximum(place, 0), parts)
    first = values.take(before, axis).astype(np.int64)
    step = values.take(np.minimum(before + 1, last), axis) - first
    return first * parts + step * share.reshape(-1, *[1] * (values.ndim - axis - 1))
