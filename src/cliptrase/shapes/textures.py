"""Shapes and textures as arithmetic on coordinates: what every drawing is made of.

Pixels are made with + - * /, sqrt, floor and comparisons only. IEEE 754 rounds these exactly, so
scenes are equal bit for bit everywhere; sin, cos and exp differ between builds of NumPy.
Distances are positive inside, in the coordinates' unit, float32.
"""

from functools import reduce

import numpy as np

from cliptrase.shapes.stream import Stream

Colour = tuple[float, float, float]


def soft(distance: np.ndarray, pixels: float) -> np.ndarray:
    """Coverage in [0, 1] of a shape whose edge is one pixel soft; `pixels` per unit of distance."""
    return np.clip(distance * pixels + 0.5, 0.0, 1.0)


def fill(like: np.ndarray, colour: Colour) -> np.ndarray:
    """A plane of one colour: (3, H, W) float32 for `like` of (H, W)."""
    return np.full((3, *like.shape), np.reshape(colour, (3, 1, 1)), dtype=np.float32)


def paint(rgb: np.ndarray, coverage: np.ndarray, colour: Colour) -> None:
    """Lay a colour over rgb (3, H, W), in place, as far as coverage (H, W) in [0, 1] says."""
    for channel, value in enumerate(colour):
        rgb[channel] += coverage * (value - rgb[channel])


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The colour `share` of the way from a to b."""
    red, green, blue = (x + share * (y - x) for x, y in zip(a, b, strict=True))
    return red, green, blue


def ellipse(u: np.ndarray, v: np.ndarray, cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    """Distance to an ellipse's edge (exact for circles only)."""
    x, y = (u - cx) / rx, (v - cy) / ry
    return (1.0 - np.sqrt(x * x + y * y)) * min(rx, ry)


def union(*distances: np.ndarray) -> np.ndarray:
    """Distance to the union of shapes."""
    return reduce(np.maximum, distances)


def triangle(x: np.ndarray) -> np.ndarray:
    """The triangle wave of period 1: 0 at integers, 1 half-way."""
    return 1.0 - np.abs((x - np.floor(x)) * 2.0 - 1.0)


def dots(u: np.ndarray, v: np.ndarray, pitch: float) -> np.ndarray:
    """Distance from the nearest point of a staggered grid of this pitch, in coordinates' units."""
    row = np.floor(v / pitch)
    shift = (row - 2.0 * np.floor(row * 0.5)) * 0.5
    x = u / pitch + shift
    x = x - np.floor(x) - 0.5
    y = v / pitch - row - 0.5
    return np.sqrt(x * x + y * y) * pitch


def smooth(x: np.ndarray) -> np.ndarray:
    """Smoothstep of x in [0, 1]."""
    return x * x * (3.0 - 2.0 * x)


def noise(stream: Stream, u: np.ndarray, v: np.ndarray, frequency: float) -> np.ndarray:
    """Value noise in [0, 1] at any coordinates (H, W); `frequency` lattice points per unit."""
    lattice = stream.uniforms(256)
    x, y = u * frequency + 8.0, v * frequency + 8.0
    left, top = np.floor(x), np.floor(y)
    x, y = smooth(x - left), smooth(y - top)
    corner = (top.astype(np.int32) & 15) * 16
    right = (left.astype(np.int32) + 1) & 15
    left = left.astype(np.int32) & 15
    below = (corner + 16) & 255
    a, b = lattice[corner + left], lattice[corner + right]
    c, d = lattice[below + left], lattice[below + right]
    a += x * (b - a)
    c += x * (d - c)
    return a + y * (c - a)


def ground_noise(stream: Stream, size: int, cell_x: float, cell_y: float) -> np.ndarray:
    """Value noise in [0, 1] over a whole (size, size) scene, with cells of so many pixels."""
    at = np.arange(size, dtype=np.float32)
    x, y = at / cell_x, at / cell_y
    left, top = np.floor(x), np.floor(y)
    x, y = smooth(x - left), smooth(y - top)[:, None]
    left, top = left.astype(np.int32), top.astype(np.int32)
    lattice = stream.uniforms(int(top[-1]) + 2, int(left[-1]) + 2)
    rows = np.ascontiguousarray(lattice[top] + y * (lattice[top + 1] - lattice[top]))
    a = rows[:, left]
    return a + x * (rows[:, left + 1] - a)


def cells(stream: Stream, u: np.ndarray, v: np.ndarray, pitch: float) -> np.ndarray:
    """How much nearer the nearest of scattered points is than the second nearest: 0 on the net."""
    first = np.full(u.shape, 9.0, dtype=np.float32)
    second = first
    count = int(2.0 / pitch)
    for row in range(count):
        for column in range(count):
            cx = -1.0 + pitch * (column + 0.5 + 0.25 * (row % 2) + stream.uniform(-0.28, 0.28))
            cy = -1.0 + pitch * (row + 0.5 + stream.uniform(-0.28, 0.28))
            x, y = u - cx, v - cy
            distance = x * x + y * y
            second = np.minimum(second, np.maximum(first, distance))
            first = np.minimum(first, distance)
    return np.sqrt(second) - np.sqrt(first)
