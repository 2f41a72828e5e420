"""The whole picture as sliding windows see it: resized bilinearly, without antialiasing.

As OpenCV's INTER_LINEAR does, which the authors of that protocol use.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from cliptrase.data.read.crop import check_aspect
from cliptrase.data.read.opencv import linear

LONGEST = 2048  # pixels that the long side has at most


def whole_image(image: Image.Image, short_side: int) -> np.ndarray:
    """(h, w, 3) uint8 of a whole RGB picture: short side `short_side`, long side at most LONGEST.

    Raises UserError for a picture more than 100 times as long as wide.
    """
    width, height = whole_size(image.width, image.height, short_side)
    return linear(np.asarray(image), height, width)


def whole_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height after the resize: one factor for both, each rounded half up."""
    check_aspect(width, height)
    factor = min(LONGEST / max(width, height), short_side / min(width, height))
    return int(width * factor + 0.5), int(height * factor + 0.5)
