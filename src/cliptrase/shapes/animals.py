"""The eight animals, drawn as drawings.py says."""

import numpy as np

from cliptrase.shapes.place import BLACK, CREAM, WHITE, Place
from cliptrase.shapes.textures import cells, dots, ellipse, mix, triangle, union


def _legs(p: Place, top: float, bottom: float, half: float, *at: float) -> np.ndarray:
    half_length = (bottom - top) / 2
    return union(*(p.box(x, top + half_length, half, half_length) for x in at))


def zebra(p: Place) -> np.ndarray:
    """Upright stripes of the colour on white."""
    neck = p.capsule((0.42, 0.0), (0.66, -0.55), 0.2, 0.16)
    shape = union(
        p.ellipse(-0.08, 0.05, 0.72, 0.38),
        neck,
        p.ellipse(0.76, -0.55, 0.23, 0.17),
        _legs(p, 0.2, 0.95, 0.085, -0.6, -0.34, 0.22, 0.46),
        p.capsule((-0.74, -0.05), (-0.94, 0.4), 0.05),
    )
    p.fill(WHITE)
    bent = p.u + 0.22 * p.v + 0.16 * p.noise(2.5)
    p.lay((triangle(bent * 3.1) - 0.47) * 0.16, p.colour)
    p.lay(p.ellipse(0.95, -0.5, 0.12, 0.12), p.colour)
    return shape


def tiger(p: Place) -> np.ndarray:
    """Seen from the front: a face with ears, black bars from the sides, a pale muzzle."""
    side = np.abs(p.u)
    shape = union(
        p.ellipse(0.0, 0.08, 0.92, 0.84),
        ellipse(side, p.v, 0.66, -0.66, 0.28, 0.28),
    )
    p.lay(ellipse(side, p.v, 0.66, -0.66, 0.14, 0.14), p.dark(0.6))
    bars = triangle((p.v + 0.35 * side + 0.1 * p.noise(3.0)) * 3.2)
    p.lay((bars - 1.28 + 0.8 * np.minimum(side, 0.8)) * 0.15, BLACK)
    brow = np.minimum((triangle(p.u * 4.2) - 0.5) * 0.12, -0.32 - p.v)
    p.lay(np.minimum(brow, 0.4 - side), BLACK)
    p.lay(p.ellipse(0.0, 0.5, 0.42, 0.3), WHITE)
    p.lay(p.ellipse(0.0, 0.36, 0.15, 0.1), (220.0, 110.0, 120.0))
    p.lay(p.box(0.0, 0.55, 0.03, 0.12), BLACK)
    p.lay(ellipse(side, p.v, 0.33, -0.06, 0.15, 0.13), (238.0, 226.0, 120.0))
    p.lay(ellipse(side, p.v, 0.33, -0.06, 0.07, 0.1), BLACK)
    return shape


def cow(p: Place) -> np.ndarray:
    """White with large patches of the colour."""
    shape = union(
        p.box(-0.14, 0.0, 0.66, 0.36),
        p.ellipse(-0.14, 0.1, 0.74, 0.36),
        p.ellipse(0.68, -0.28, 0.28, 0.25),
        _legs(p, 0.2, 0.92, 0.11, -0.66, -0.36, 0.14, 0.4),
        p.capsule((0.56, -0.48), (0.46, -0.7), 0.06, 0.03),
        p.capsule((0.82, -0.48), (0.92, -0.7), 0.06, 0.03),
        p.capsule((-0.8, -0.3), (-0.94, 0.3), 0.045),
    )
    p.fill(WHITE)
    p.lay((p.noise(2.6) - 0.5) * 0.5, p.colour)
    p.lay(p.ellipse(0.76, -0.18, 0.2, 0.14), (240.0, 176.0, 176.0))
    p.lay(p.ellipse(0.66, -0.37, 0.05, 0.05), BLACK)
    p.lay(p.ellipse(0.12, 0.42, 0.16, 0.12), (240.0, 176.0, 176.0))
    return shape


def giraffe(p: Place) -> np.ndarray:
    """A pale net over the colour; a long neck."""
    shape = union(
        p.ellipse(-0.24, 0.14, 0.52, 0.3),
        p.capsule((0.1, 0.08), (0.48, -0.76), 0.2, 0.13),
        p.capsule((0.46, -0.8), (0.8, -0.7), 0.15, 0.1),
        _legs(p, 0.2, 0.98, 0.085, -0.62, -0.4, -0.06, 0.16),
        p.capsule((0.42, -0.86), (0.38, -0.98), 0.04),
    )
    p.fill(CREAM)
    p.lay(cells(p.stream, p.u, p.v, 0.36) - 0.085, p.colour)
    p.lay(p.ellipse(0.55, -0.83, 0.045, 0.045), BLACK)
    return shape


def pig(p: Place) -> np.ndarray:
    """Round and plain, with folds and a snout."""
    shape = union(
        p.ellipse(-0.12, 0.02, 0.74, 0.54),
        p.ellipse(0.56, -0.06, 0.4, 0.38),
        _legs(p, 0.3, 0.82, 0.13, -0.58, -0.26, 0.14, 0.42),
        p.capsule((0.34, -0.36), (0.3, -0.58), 0.13, 0.04),
        p.capsule((0.7, -0.38), (0.74, -0.58), 0.13, 0.04),
        p.capsule((-0.82, -0.1), (-0.96, -0.26), 0.06),
    )
    # Folds of skin: wide, low-contrast arcs.
    folds = p.u * p.u + 1.6 * p.v * p.v + 0.3 * p.noise(3.0)
    p.lay((triangle(folds * 3.4) - 0.72) * 0.2, p.light(0.3))
    p.lay(p.ellipse(0.72, 0.03, 0.24, 0.2), mix(p.colour, (236.0, 90.0, 130.0), 0.6))
    for x in (0.63, 0.81):
        p.lay(p.ellipse(x, 0.03, 0.06, 0.09), (90.0, 24.0, 44.0))
    for x in (0.42, 0.68):
        p.lay(p.ellipse(x, -0.22, 0.055, 0.055), WHITE if sum(p.colour) < 420 else BLACK)
    return shape


def ladybug(p: Place) -> np.ndarray:
    """A dome of the colour with black dots and a black head."""
    head = p.ellipse(0.0, -0.66, 0.44, 0.3)
    shape = union(
        p.ellipse(0.0, 0.12, 0.86, 0.84),
        head,
        p.capsule((-0.2, -0.86), (-0.36, -0.98), 0.035),
        p.capsule((0.2, -0.86), (0.36, -0.98), 0.035),
    )
    side = np.abs(p.u)
    for x, y, r in ((0.4, -0.2, 0.19), (0.58, 0.24, 0.17), (0.3, 0.44, 0.17), (0.3, 0.12, 0.1)):
        p.lay(ellipse(side, p.v, x, y, r, r), BLACK)
    p.lay(0.05 - side, BLACK)
    p.lay(np.maximum(head, -0.5 - p.v), BLACK)
    p.lay(ellipse(side, p.v, 0.24, -0.68, 0.09, 0.09), WHITE)
    return shape


def fish(p: Place) -> np.ndarray:
    """Scales of the colour and a striped tail."""
    tail = np.minimum((-0.42 - p.u) * 0.9 - np.abs(p.v) + 0.15, p.u + 0.98)
    fin = np.minimum(p.ellipse(0.05, -0.34, 0.36, 0.3), 0.05 - p.v)
    shape = union(p.ellipse(0.18, 0.0, 0.76, 0.46), tail, fin)
    scale = dots(p.u, p.v, 0.22)
    p.lay(scale - 0.095, p.dark(0.5))
    p.lay(0.05 - scale, p.light(0.55))
    striped = np.minimum((triangle(p.v * 5.0) - 0.5) * 0.1, -0.52 - p.u)
    p.lay(-0.52 - p.u, p.colour)
    p.lay(striped, p.dark(0.5))
    p.lay(p.u - 0.6, p.colour)
    p.lay(p.ellipse(0.68, -0.1, 0.11, 0.11), WHITE)
    p.lay(p.ellipse(0.7, -0.1, 0.055, 0.055), BLACK)
    return shape


_STAR = ((0.0, -0.94), (0.9, -0.29), (0.56, 0.77), (-0.56, 0.77), (-0.9, -0.29))


def starfish(p: Place) -> np.ndarray:
    """Five arms with rows of pale dots."""
    shape = p.rays((0.0, 0.0), _STAR, 0.36, 0.08)
    for x, y in _STAR:
        p.lay(p.capsule((0.0, 0.0), (x * 0.86, y * 0.86), 0.1, 0.04), p.dark(0.35))
        for at, r in ((0.22, 0.075), (0.42, 0.065), (0.6, 0.055), (0.76, 0.045)):
            p.lay(p.ellipse(x * at, y * at, r, r), p.light(0.75))
    return shape


ANIMALS = (zebra, tiger, cow, giraffe, pig, ladybug, fish, starfish)
