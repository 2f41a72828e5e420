"""PAMR, slowly: a pixel and a neighbour at a time, in float64, from the formula. Shares no line
with the package."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def refined(
    maps: np.ndarray, picture: np.ndarray, steps: int, dilations: Sequence[int]
) -> np.ndarray:
    """Maps (K, H, W) after some steps, by a picture (3, H, W)."""
    height, width = picture.shape[1:]

    def places(y: int, x: int) -> list[tuple[int, int]]:
        """The 3 × 3 places of each dilation around a pixel; those beyond an edge lie on it."""
        return [
            (min(max(y + dy * d, 0), height - 1), min(max(x + dx * d, 0), width - 1))
            for d in dilations
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
        ]

    picture = picture.astype(float)
    centres = {4 + 9 * number for number in range(len(dilations))}
    neighbours, weights = {}, {}
    for y, x in np.ndindex(height, width):
        nine = places(y, x)
        around = [place for number, place in enumerate(nine) if number not in centres]
        scores = [0.0] * len(around)
        for channel in picture:
            values = [float(channel[place]) for place in nine]
            mean = math.fsum(values) / len(values)
            squares = math.fsum((value - mean) ** 2 for value in values)
            sigma = math.sqrt(squares / (len(values) - 1))
            for number, there in enumerate(around):
                unlike = abs(float(channel[y, x]) - float(channel[there]))
                scores[number] -= unlike / (1e-8 + 0.1 * sigma) / len(picture)
        powers = [math.exp(score - max(scores)) for score in scores]
        neighbours[y, x] = around
        weights[y, x] = [power / sum(powers) for power in powers]
    maps = maps.astype(float)
    for _ in range(steps):
        after = np.zeros_like(maps)
        for (y, x), around in neighbours.items():
            for weight, (v, u) in zip(weights[y, x], around, strict=True):
                after[:, y, x] += weight * maps[:, v, u]
        maps = after
    return maps
