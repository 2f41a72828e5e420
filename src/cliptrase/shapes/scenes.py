"""Scenes: one to five objects over a background, with the label of every pixel, from a seed.

Clutter is part of the benchmark: small discs and specks of random colours, which no caption names,
lie over a scene, and their pixels keep the label of what they cover. A scene without clutter is the
same scene, with the same things at the same places, without the discs.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cliptrase.shapes import concepts
from cliptrase.shapes.captions import Content
from cliptrase.shapes.drawings import DRAWINGS, TURN
from cliptrase.shapes.grounds import GROUNDS
from cliptrase.shapes.place import Place
from cliptrase.shapes.stream import Stream
from cliptrase.shapes.textures import ellipse, paint, soft

SIZE = 224
# An object that is visible on less than this share of the scene is not part of its caption.
VISIBLE = 0.01
# One to five objects.
COUNTS = (0.16, 0.2, 0.26, 0.22, 0.16)

# The ranges are disjoint: training takes the first, tuning the second, scores come from the third.
# It starts at the first multiple of 1,000 at which 200 scenes show every fine class.
TRAIN_SEEDS = range(0, 100_000_000)
VALIDATION_SEEDS = range(100_000_000, 200_000_000)
TEST_SEEDS = range(200_001_000, 200_001_200)

# The two evaluation sets are the same 200 scenes with and without clutter.
EVALUATION = {"shapes": True, "shapes_clean": False}

_LAYOUT, _GROUND, _CLUTTER = 0, 1, 2


class Thing(NamedTuple):
    """One object's place in the layout: its raw label; x, y and radius in pixels."""

    raw: int
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene(Content):
    """image: (H, W, 3) uint8 RGB. label: (H, W) uint8 raw labels, none unlabelled. things: what was
    laid out, back to front, also what is hardly visible."""

    image: np.ndarray
    label: np.ndarray
    things: tuple[Thing, ...]


def scene(seed: int, clutter: bool = True, *, size: int = SIZE, count: int | None = None) -> Scene:
    """The scene of this seed, (size, size); with exactly `count` objects where that is given."""
    layout = Stream(seed, _LAYOUT)
    background = layout.integer(len(concepts.BACKGROUNDS))
    rgb = GROUNDS[concepts.BACKGROUNDS[background]](Stream(seed, _GROUND), size)
    label = np.full((size, size), concepts.background_id(background), dtype=np.uint8)

    drawn = layout.pick(COUNTS) + 1  # also with `count`, which changes nothing else
    things = _arrange(layout, drawn if count is None else count, size)
    for index, thing in enumerate(things):
        _draw(rgb, label, thing, Stream(seed, 16 + index))
    rgb *= _light(layout, size)
    if clutter:
        _strew(rgb, Stream(seed, _CLUTTER))

    area = np.bincount(label.ravel(), minlength=256)
    seen = tuple(thing.raw for thing in things if area[thing.raw] >= VISIBLE * size * size)
    pixels = np.clip(rgb + 0.5, 0.0, 255.0).astype(np.uint8)
    image = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    return Scene(seen, concepts.background_id(background), image, label, tuple(things))


def evaluation_scene(dataset: str, index: int) -> Scene:
    """Scene `index` (0..199) of an evaluation set named in EVALUATION."""
    return scene(TEST_SEEDS[index], EVALUATION[dataset])


def _arrange(layout: Stream, count: int, size: int) -> list[Thing]:
    """Different objects, back to front; of five random places each takes the one farthest off."""
    unit = size / SIZE
    low, high = {1: (44, 86), 2: (36, 72), 3: (32, 62)}.get(count, (28, 54))
    things: list[Thing] = []
    for kind in layout.sample(len(concepts.OBJECTS), count):
        colours = concepts.ATTRIBUTES[concepts.OBJECTS[kind]]
        raw = concepts.fine_id(kind, layout.pick(concepts.FREQUENCIES[len(colours)]))
        radius = layout.uniform(low, high) * unit
        margin = 0.55 * radius
        best, best_gap = (0.0, 0.0), -1e9
        for _ in range(5):
            x, y = (layout.uniform(margin, size - margin) for _ in range(2))
            gap = min((_gap(x, y, t) - radius for t in things), default=0.0)
            if gap > best_gap:
                best, best_gap = (x, y), gap
        things.append(Thing(raw, *best, radius))
    return things


def _gap(x: float, y: float, thing: Thing) -> float:
    """How far (x, y) is from a thing's circle."""
    dx, dy = x - thing.x, y - thing.y
    return math.sqrt(dx * dx + dy * dy) - thing.radius


def _draw(rgb: np.ndarray, label: np.ndarray, thing: Thing, stream: Stream) -> None:
    """Draw one object over rgb (3, H, W) and label (H, W), in place, inside its bounding box."""
    fine = concepts.FINE[thing.raw]
    name = concepts.OBJECTS[fine.object]
    turn = stream.uniform(-TURN[name], TURN[name])
    cosine, sine = (1 - turn * turn) / (1 + turn * turn), 2 * turn / (1 + turn * turn)
    mirror = -1.0 if stream.chance(0.5) else 1.0
    stretch = stream.uniform(0.9, 1.12)
    size = label.shape[0]
    reach = thing.radius * (cosine + abs(sine)) * max(1.0, stretch) + 1
    x0, x1 = max(0, int(thing.x - reach)), min(size, int(thing.x + reach) + 2)
    y0, y1 = max(0, int(thing.y - reach)), min(size, int(thing.y + reach) + 2)
    x = (np.arange(x0, x1, dtype=np.float32) - thing.x)[None, :] / thing.radius
    y = (np.arange(y0, y1, dtype=np.float32) - thing.y)[:, None] / thing.radius
    u = (x * cosine + y * sine) * (mirror / stretch)
    v = y * cosine - x * sine

    word = concepts.COLOURS[fine.colour]
    red, green, blue = (channel + stream.uniform(-12, 12) for channel in word)
    place = Place(u, v, thing.radius, (red, green, blue), stream)
    distance = DRAWINGS[name](place)
    # Rounded by light: darker towards the edge, brighter at the upper left.
    bright = stream.uniform(0.92, 1.1)
    shade = 0.66 + 0.34 * np.clip(distance * 4.5, 0.0, 1.0) - 0.06 * (x + y)
    cover = soft(distance, thing.radius)
    patch = rgb[:, y0:y1, x0:x1]
    patch += cover * (place.rgb * (shade * bright) - patch)
    label[y0:y1, x0:x1][cover > 0.5] = thing.raw


def _light(layout: Stream, size: int) -> np.ndarray:
    """Brightness and its gradient over the scene: (size, size) factors."""
    level = layout.uniform(0.82, 1.1)
    at = np.arange(size, dtype=np.float32) / size - 0.5
    across, down = layout.uniform(-0.3, 0.3), layout.uniform(-0.3, 0.3)
    return level + across * at[None, :] + down * at[:, None]


def _strew(rgb: np.ndarray, stream: Stream) -> None:
    """Lay 30 to 69 unnamed discs (radius 2 to 7 pixels) and specks over rgb (3, H, W), in place."""
    size = rgb.shape[1]
    unit = size / SIZE
    for values in stream.uniforms(30 + stream.integer(40), 7).tolist():
        x, y = values[0] * size, values[1] * size
        radius = (2.0 + 5.0 * values[2] * values[2]) * unit
        red, green, blue = (20 + 225 * value for value in values[3:6])
        x0, x1 = max(0, int(x - radius - 1)), min(size, int(x + radius) + 3)
        y0, y1 = max(0, int(y - radius - 1)), min(size, int(y + radius) + 3)
        at_x = np.arange(x0, x1, dtype=np.float32)[None, :]
        at_y = np.arange(y0, y1, dtype=np.float32)[:, None]
        distance = ellipse(at_x, at_y, x, y, radius, radius)
        patch = rgb[:, y0:y1, x0:x1]
        paint(patch, soft(distance, 1.0), (red, green, blue))
        if values[6] < 0.3:  # some are rings: the middle is darker
            paint(patch, soft(distance - 0.5 * radius, 1.0), (30.0, 30.0, 30.0))
