"""What a protocol scores of images and label maps: the paper's centre crop, or the whole picture.

The crop has the sizes and offsets of torchvision's Resize and CenterCrop, whose rounding is in the
paper's numbers.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from cliptrase.data.read.opencv import linear
from cliptrase.errors import UserError

# A strip longer than this many crops would only make an enormous resized picture.
MAX_ASPECT = 100
MAX_WHOLE = 10  # times the short side: beyond this a picture is not segmented whole
LONGEST = 2048  # pixels that the long side has at most under sliding windows


def crop_image(image: Image.Image, size: int) -> np.ndarray:
    """(size, size, 3) uint8 of an RGB picture: short side to `size`, bicubic, centre crop.

    PIL's bicubic filter is widened when it shrinks (antialiasing). Raises UserError for a picture
    more than 100 times as long as wide.
    """
    (width, height), (left, top) = _centred(image.size, size)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized)[top : top + size, left : left + size].copy()


def crop_box(sides: Sequence[int], size: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom, in pixels of a picture of `sides` (width, height), of what
    `crop_image` shows of it."""
    resized, starts = _centred(sides, size)
    near = [start * old / new for start, old, new in zip(starts, sides, resized, strict=True)]
    far = [
        min((start + size) * old / new, old)
        for start, old, new in zip(starts, sides, resized, strict=True)
    ]
    return near[0], near[1], far[0], far[1]


def crop_label(label: np.ndarray, size: int) -> np.ndarray:
    """(size, size) of a label map (H, W) of any integer type: as `crop_image`, nearest pixel.

    By PIL's rule, the pixel under the centre of the new one; PIL itself lacks some 16-bit modes.
    """
    sides = label.shape[::-1]
    columns, rows = (
        nearest_indices(old, new)[start : start + size]
        for old, new, start in zip(sides, *_centred(sides, size), strict=True)
    )
    return label[rows[:, None], columns]


def fit_image(image: Image.Image, short_side: int, patch: int) -> np.ndarray:
    """(h, w, 3) uint8 of a whole RGB picture: short side `short_side`, aspect nearly kept.

    Both sides are rounded to the nearest multiple of `patch`, bicubic with antialiasing.
    Raises UserError for a picture more than 100 times as long as wide.
    """
    scale = short_side / min(image.size)
    check_aspect(image.size)
    width, height = (max(1, round(side * scale / patch)) * patch for side in image.size)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)).copy()


def whole_image(image: Image.Image, short_side: int) -> np.ndarray:
    """(h, w, 3) uint8 of a whole RGB picture, as sliding windows see it: bilinear, not antialiased.

    Short side `short_side`, long side at most LONGEST, by OpenCV's INTER_LINEAR as the authors of
    that protocol. Raises UserError for a picture more than 100 times as long as wide.
    """
    width, height = whole_size(image.width, image.height, short_side)
    return linear(np.asarray(image), height, width)


def whole_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height after the resize: one factor for both, each rounded half up."""
    check_aspect((width, height))
    factor = min(LONGEST / max(width, height), short_side / min(width, height))
    return int(width * factor + 0.5), int(height * factor + 0.5)


def check_aspect(size: Sequence[int], name: str = "", *, whole: bool = False) -> None:
    """Raise UserError, with `name` if there is one, for a picture of `size` (width, height) that is
    too long to be resized, or with `whole` to be segmented whole."""
    width, height = size
    if max(size) > (MAX_WHOLE if whole else MAX_ASPECT) * min(size):
        cure = "cut it up, or take its centre with crop (--crop)" if whole else "cut it up"
        what = f"a picture of {width} × {height} pixels is too long for the model; {cure}"
        raise UserError(f"{name}: {what}" if name else what)


def nearest_indices(length: int, new_length: int) -> np.ndarray:
    """(new_length,) int64: for each new pixel, the old pixel that PIL's NEAREST takes.

    PIL adds the scale up step by step in double precision, and truncates: a product instead of the
    sum would differ where a centre falls on the border of two pixels.
    """
    scale = length / new_length
    steps = np.full(new_length, scale)
    steps[0] = scale * 0.5
    return np.minimum(np.add.accumulate(steps).astype(np.int64), length - 1)


def _centred(sides: Sequence[int], size: int) -> tuple[list[int], list[int]]:
    """The two sides once the short one is `size`, and where the crop in the middle begins."""
    check_aspect(sides)
    resized = [int(size * side / min(sides)) for side in sides]
    return resized, [round((side - size) / 2.0) for side in resized]  # half to even
