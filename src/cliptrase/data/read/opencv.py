"""OpenCV's resize of 8-bit pictures and of label maps, to the last bit, without OpenCV.

What INTER_LINEAR and INTER_NEAREST of cv2.resize give (4.8.1 and 5.0.0 were compared): bilinear
between pixel centres with weights of 11 bits and no antialiasing; nearest at floor(i · scale).
"""

import numpy as np

_ONE = 2048  # a weight of 1


def linear(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width, C) or (height, width) of uint8 pixels (H, W, C) or (H, W)."""
    rows = _weights(pixels.shape[0], height)
    columns = _weights(pixels.shape[1], width)
    flat = pixels.reshape(*pixels.shape[:2], -1)
    parts = []
    for row, down in rows:
        strip = flat[row]
        across = sum(strip[:, column].astype(np.int32) * w[:, None] for column, w in columns)
        parts.append((down[:, None, None] * (across >> 4)) >> 16)
    made = ((parts[0] + parts[1] + 2) >> 2).astype(np.uint8)
    return made.reshape(height, width, *pixels.shape[2:])


def nearest(label: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width) of a label map: row i is the old one floor(i · scale), columns alike.

    The scale is a double, as in OpenCV: a place that is a whole number may come out just below it.
    """
    rows, columns = (
        np.minimum(np.floor(np.arange(new) * (1.0 / (new / old))).astype(np.int64), old - 1)
        for old, new in zip(label.shape, (height, width), strict=True)
    )
    return label[rows[:, None], columns]


def _weights(old: int, new: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each new pixel the two old ones around its centre, (new,), and their weights, (new,)."""
    place = ((np.arange(new) + 0.5) * (1.0 / (new / old)) - 0.5).astype(np.float32)
    before = np.floor(place)
    share = place - before  # float32, as in OpenCV
    weights = (np.rint(part * np.float32(_ONE)).astype(np.int32) for part in (1 - share, share))
    pixels = (np.clip(before.astype(np.int64) + step, 0, old - 1) for step in (0, 1))
    return list(zip(pixels, weights, strict=True))
