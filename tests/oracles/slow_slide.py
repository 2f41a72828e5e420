"""Sliding windows, slowly: NumPy in float64, a pixel at a time where it can be. Shares no line with
the package. Who calls this brings the encoder, a function from one window to its logits, and the
resize of the picture, which is OpenCV's to the bit and tested as such.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

# (3, h, w) normalised → logits (M, h, w) of every name at every pixel
Encoder = Callable[[np.ndarray], np.ndarray]


def resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W, C) → (height, width, C): the four pixels around each new pixel's centre."""
    out = np.zeros((height, width, pixels.shape[2]))
    last_y, last_x = pixels.shape[0] - 1, pixels.shape[1] - 1
    for row in range(height):
        y = min(max((row + 0.5) * pixels.shape[0] / height - 0.5, 0), last_y)
        above, below = math.floor(y), min(math.floor(y) + 1, last_y)
        for column in range(width):
            x = min(max((column + 0.5) * pixels.shape[1] / width - 0.5, 0), last_x)
            left, right = math.floor(x), min(math.floor(x) + 1, last_x)
            upper = pixels[above, left] * (1 - x + left) + pixels[above, right] * (x - left)
            lower = pixels[below, left] * (1 - x + left) + pixels[below, right] * (x - left)
            out[row, column] = upper * (1 - y + above) + lower * (y - above)
    return out


def upsampled(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """(M, h, w) → (M, height, width)."""
    return np.moveaxis(resized(np.moveaxis(maps, 0, 2), height, width), 2, 0)


def window_spans(length: int, window: int, stride: int) -> list[tuple[int, int]]:
    """(start, end) of every window along one side, as the protocol says it."""
    spans = []
    for i in range(max(length - window + stride - 1, 0) // stride + 1):
        end = min(i * stride + window, length)
        spans.append((max(end - window, 0), end))
    return spans


def averaged(
    picture: np.ndarray,
    encode: Encoder,
    *,
    window: int,
    short_side: int,
    stride: int,
    patch: int,
    mean: Sequence[float],
    std: Sequence[float],
    resize: Callable[[np.ndarray, int, int], np.ndarray],
    longest: int = 2048,
    refine: Callable[[np.ndarray, np.ndarray], np.ndarray] = lambda maps, pixels: maps,
) -> np.ndarray:
    """Logits (M, H, W) of a picture (H, W, 3) uint8 at its own size. refine: what changes the
    averages (M, h, w), given the picture that the windows lie on, before they are resized."""
    original = picture.shape[:2]
    factor = min(longest / max(original), short_side / min(original))
    height, width = (int(side * factor + 0.5) for side in original)
    grey = resize(picture, height, width).astype(float)
    assert np.abs(grey - resized(picture.astype(float), height, width)).max() < 1  # grey levels
    pixels = np.moveaxis((grey / 255 - np.array(mean)) / np.array(std), 2, 0)
    sums, counts = None, np.zeros((height, width))
    for top, bottom in window_spans(height, window, stride):
        for left, right in window_spans(width, window, stride):
            part = pixels[:, top:bottom, left:right]
            own = part.shape[1:]
            whole = [math.ceil(side / patch) * patch for side in own]
            with_rim = np.zeros((3, *whole))
            with_rim[:, : own[0], : own[1]] = part
            logits = encode(with_rim)[:, : own[0], : own[1]]
            if sums is None:
                sums = np.zeros((len(logits), height, width))
            sums[:, top:bottom, left:right] += logits
            counts[top:bottom, left:right] += 1
    assert sums is not None and counts.min() >= 1
    return upsampled(refine(sums / counts, pixels), *original)


def probabilities(logits: np.ndarray, owner: Sequence[int], scale: float) -> np.ndarray:
    """(K, H, W): softmax over all names, of each class the largest of its names."""
    powers = np.exp(scale * (logits - logits.max(axis=0)))
    names = powers / powers.sum(axis=0)
    owners = np.array(owner)
    return np.stack([names[owners == k].max(axis=0) for k in range(owners.max() + 1)])


def classified(classes: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Class map (H, W) of probabilities (K, H, W), and the pixels that rounding could decide."""
    winner, ordered = classes.argmax(axis=0), np.sort(classes, axis=0)
    close = ordered[-1] - ordered[-2] < 2e-4
    sure = ordered[-1]
    winner[sure < threshold] = 0
    return winner, close | (abs(sure - threshold) < 1e-4)
