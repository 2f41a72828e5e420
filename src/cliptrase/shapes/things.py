"""The twelve fruits and things, drawn as drawings.py says."""

import numpy as np

from cliptrase.shapes.place import BLACK, CREAM, GREEN, STEM, WHITE, Place
from cliptrase.shapes.textures import dots, ellipse, noise, triangle, union


def strawberry(p: Place) -> np.ndarray:
    """A cone with seeds, leaves on top."""
    side = np.abs(p.u)
    cone = np.minimum(((0.97 - p.v) * 0.66 - side) * 0.83, p.v + 0.22)
    tips = (-0.6, -0.5), (-0.3, -0.3), (0.0, -0.22), (0.3, -0.3), (0.6, -0.5)
    stem = p.capsule((0.0, -0.6), (0.06, -0.94), 0.06)
    leaves = union(p.rays((0.0, -0.62), tips, 0.12, 0.02), stem)
    shape = union(cone, p.ellipse(0.0, -0.22, 0.78, 0.48), leaves)
    seed = 0.052 - dots(p.u, p.v * 0.8, 0.24)
    p.lay(seed + 0.025, p.dark(0.5))
    p.lay(seed, (250.0, 226.0, 120.0))
    p.lay(leaves, GREEN)
    return shape


def apple(p: Place) -> np.ndarray:
    """Round with a dent, fine streaks, a leaf."""
    side = np.abs(p.u)
    body = union(ellipse(side, p.v, 0.34, 0.02, 0.58, 0.62), p.ellipse(0.0, 0.3, 0.6, 0.62))
    leaf = p.ellipse(0.26, -0.76, 0.24, 0.11)
    stem = p.capsule((0.0, -0.4), (0.08, -0.9), 0.06)
    shape = union(body, leaf, stem)
    # Fine streaks from stalk to base, and a bright window reflection.
    p.lay((noise(p.stream, p.u, p.v * 0.22, 7.0) - 0.68) * 0.3, p.light(0.32))
    p.lay(p.ellipse(-0.42, -0.12, 0.16, 0.26), p.light(0.72))
    p.lay(p.ellipse(0.0, -0.44, 0.22, 0.09), p.dark(0.5))
    p.lay(leaf, GREEN)
    p.lay(stem, STEM)
    return shape


def banana(p: Place) -> np.ndarray:
    """A crescent with ridges along it and dark ends."""
    outer = p.ellipse(0.0, -0.42, 1.0, 1.02)
    inner = p.ellipse(0.0, -0.86, 0.98, 0.98)
    shape = np.minimum(outer, -inner)
    p.lay(0.13 - outer, p.dark(0.28))
    p.lay(0.025 - np.abs(outer - 0.14), p.dark(0.6))
    p.lay((0.02 - np.abs(-inner - 0.13)), p.dark(0.4))
    p.lay(0.075 - dots(p.u, p.v, 0.5) - 0.12 * p.noise(4.0), p.dark(0.75))
    p.lay(np.abs(p.u) - 0.86, (50.0, 36.0, 20.0))
    return shape


def watermelon(p: Place) -> np.ndarray:
    """Half a slice: flesh of the colour with black seeds, a striped green rind."""
    x, y = p.u, p.v + 0.5
    radius = np.sqrt(x * x + y * y)
    shape = np.minimum(0.98 - radius, y)
    for cx, cy in (
        (-0.6, 0.16), (-0.3, 0.16), (0.0, 0.16), (0.3, 0.16), (0.6, 0.16),
        (-0.45, 0.4), (-0.15, 0.4), (0.15, 0.4), (0.45, 0.4), (-0.22, 0.62), (0.22, 0.62),
    ):  # fmt: skip
        p.lay(p.ellipse(cx, cy - 0.5, 0.045, 0.075), BLACK)
    p.lay(radius - 0.76, (232.0, 244.0, 200.0))
    p.lay(radius - 0.82, (30.0, 104.0, 44.0))
    p.lay(np.minimum(radius - 0.82, (triangle(x * 3.0) - 0.6) * 0.2), (96.0, 170.0, 72.0))
    return shape


def pineapple(p: Place) -> np.ndarray:
    """Diamonds with a bright middle; a green crown."""
    tips = (-0.5, -0.66), (-0.3, -0.88), (0.0, -0.98), (0.3, -0.88), (0.5, -0.66)
    crown = p.rays((0.0, -0.3), tips, 0.13, 0.02)
    body = p.ellipse(0.0, 0.3, 0.58, 0.68)
    shape = union(body, crown)
    a, b = triangle((p.u + 0.8 * p.v) * 2.6), triangle((p.u - 0.8 * p.v) * 2.6)
    p.lay((0.2 - np.minimum(a, b)) * 0.19, p.dark(0.55))
    p.lay((np.minimum(a, b) - 0.72) * 0.19, p.light(0.6))
    p.lay(np.minimum(crown, -body), (40.0, 112.0, 60.0))
    return shape


def eggplant(p: Place) -> np.ndarray:
    """A smooth drop with long highlights; a green cap."""
    cap = union(
        p.ellipse(0.0, -0.62, 0.36, 0.18),
        p.capsule((-0.1, -0.6), (-0.3, -0.32), 0.1, 0.03),
        p.capsule((0.1, -0.6), (0.3, -0.32), 0.1, 0.03),
        p.capsule((0.0, -0.6), (0.0, -0.3), 0.1, 0.03),
        p.capsule((0.0, -0.7), (0.12, -0.96), 0.08),
    )
    shape = union(
        p.ellipse(0.0, 0.34, 0.6, 0.62), p.capsule((0.0, 0.1), (0.0, -0.5), 0.48, 0.28), cap
    )
    p.lay(p.capsule((-0.2, -0.3), (-0.34, 0.42), 0.06, 0.1), p.light(0.62))
    p.lay(p.capsule((0.3, -0.1), (0.44, 0.4), 0.03, 0.06), p.light(0.35))
    p.lay(cap, GREEN)
    return shape


def mushroom(p: Place) -> np.ndarray:
    """A cap of the colour with white dots on a pale stem."""
    cap = np.minimum(p.ellipse(0.0, 0.1, 0.96, 1.0), 0.12 - p.v)
    stem = p.capsule((0.0, 0.1), (0.0, 0.7), 0.24, 0.28)
    shape = union(cap, stem)
    p.fill(CREAM)
    p.lay(np.minimum((triangle(p.u * 7.0) - 0.65) * 0.07, p.v - 0.12), (206.0, 184.0, 148.0))
    p.lay(0.12 - p.v, p.colour)
    for x, y, r in (
        (-0.05, -0.56, 0.17), (-0.52, -0.3, 0.15), (0.46, -0.36, 0.17), (0.02, -0.14, 0.14),
        (0.76, -0.04, 0.1), (-0.76, 0.0, 0.08), (-0.32, -0.02, 0.08), (0.4, 0.0, 0.09),
    ):  # fmt: skip
        p.lay(p.ellipse(x, y, r, r), WHITE)
    return shape


def leaf(p: Place) -> np.ndarray:
    """A pointed lens with side veins towards the tip."""
    lens = np.minimum(p.ellipse(-0.42, -0.06, 0.98, 0.98), p.ellipse(0.42, -0.06, 0.98, 0.98))
    stalk = p.capsule((0.0, 0.7), (0.06, 0.98), 0.045)
    side = np.abs(p.u)
    # Side veins point towards the tip.
    p.lay((triangle((p.v + 0.8 * side) * 3.4) - 0.74) * 0.13, p.light(0.6))
    p.lay(p.noise(9.0) * 0.1 - 0.075, p.dark(0.3))
    p.lay(0.04 - side, p.light(0.7))
    return union(lens, stalk)


def bus(p: Place) -> np.ndarray:
    """A box with a row of windows, a white stripe and wheels."""
    wheels = union(p.ellipse(-0.54, 0.48, 0.22, 0.22), p.ellipse(0.54, 0.48, 0.22, 0.22))
    shape = union(p.box(0.0, -0.06, 0.96, 0.54), wheels)
    for x in (-0.74, -0.37, 0.0, 0.37, 0.74):
        p.lay(p.box(x, -0.26, 0.145, 0.18), (56.0, 74.0, 96.0))
        p.lay(p.box(x - 0.05, -0.3, 0.05, 0.12), (176.0, 212.0, 232.0))
    p.lay(p.box(0.0, 0.1, 0.96, 0.05), WHITE)
    p.lay(p.box(0.9, 0.28, 0.06, 0.07), (255.0, 240.0, 160.0))
    p.lay(wheels, BLACK)
    hubs = union(p.ellipse(-0.54, 0.48, 0.1, 0.1), p.ellipse(0.54, 0.48, 0.1, 0.1))
    p.lay(hubs, (180.0, 180.0, 186.0))
    return shape


def basketball(p: Place) -> np.ndarray:
    """A ball with pimples and black seams."""
    shape = p.ellipse(0.0, 0.0, 0.95, 0.95)
    p.lay(0.03 - dots(p.u, p.v, 0.13), p.dark(0.3))
    seams = np.minimum(np.abs(p.u), np.abs(p.v))
    for x in (-1.12, 1.12):
        seams = np.minimum(seams, np.abs(p.ellipse(x, 0.0, 0.72, 0.72)))
    p.lay(0.05 - seams, BLACK)
    return shape


def chessboard(p: Place) -> np.ndarray:
    """Squares of the colour and cream in a frame."""
    shape = p.box(0.0, 0.0, 0.92, 0.92)
    # Product of two square waves, one pixel soft at the edges.
    wave = (triangle(p.u / 0.54) - 0.5) * (triangle(p.v / 0.54) - 0.5)
    p.lay(wave * 0.6, (240.0, 222.0, 184.0))
    p.lay(0.11 - shape, p.dark(0.35))
    return shape


def target(p: Place) -> np.ndarray:
    """Rings of the colour and white."""
    shape = p.ellipse(0.0, 0.0, 0.95, 0.95)
    radius = 0.95 - shape
    p.lay((0.5 - triangle(radius / 0.38 + 0.5)) * 0.19, WHITE)
    return shape


FRUITS = (strawberry, apple, banana, watermelon, pineapple, eggplant, mushroom, leaf)
THINGS = (*FRUITS, bus, basketball, chessboard, target)
