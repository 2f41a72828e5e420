"""What a drawing is given: its own coordinates, its colour, shapes in them, a canvas."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cliptrase.shapes.stream import Stream
from cliptrase.shapes.textures import Colour, ellipse, fill, mix, noise, paint, soft, union

Point = tuple[float, float]
BLACK: Colour = (26.0, 25.0, 28.0)
WHITE: Colour = (244.0, 243.0, 238.0)
CREAM: Colour = (246.0, 228.0, 186.0)
STEM: Colour = (96.0, 66.0, 36.0)
GREEN: Colour = (52.0, 132.0, 46.0)


@dataclass
class Place:
    """Where and in what colour to draw: object coordinates (H, W), pixels per unit, chance.

    `rgb`: the colours (3, H, W) in 0..255 as painted so far, at first the object's all over.
    """

    u: np.ndarray
    v: np.ndarray
    pixels: float
    colour: Colour
    stream: Stream
    rgb: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.fill(self.colour)

    def dark(self, share: float = 0.45) -> Colour:
        """The colour, darker."""
        return mix(self.colour, (12.0, 10.0, 14.0), share)

    def light(self, share: float = 0.5) -> Colour:
        """The colour, paler."""
        return mix(self.colour, (255.0, 252.0, 244.0), share)

    def fill(self, colour: Colour) -> None:
        """Begin with one colour all over."""
        self.rgb = fill(self.u, colour)

    def lay(self, distance: np.ndarray, colour: Colour) -> None:
        """Paint a shape over the colours."""
        paint(self.rgb, soft(distance, self.pixels), colour)

    def ellipse(self, cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
        """Distance to an ellipse."""
        return ellipse(self.u, self.v, cx, cy, rx, ry)

    def box(self, cx: float, cy: float, hx: float, hy: float) -> np.ndarray:
        """Distance to a box of half sides hx, hy."""
        return np.minimum(hx - np.abs(self.u - cx), hy - np.abs(self.v - cy))

    def capsule(
        self, start: Point, end: Point, radius: float, end_radius: float | None = None
    ) -> np.ndarray:
        """Distance to a thick line from start to end, tapering to end_radius."""
        dx, dy = end[0] - start[0], end[1] - start[1]
        x, y = self.u - start[0], self.v - start[1]
        along = np.clip((x * dx + y * dy) / (dx * dx + dy * dy), 0.0, 1.0)
        x, y = x - along * dx, y - along * dy
        taper = (radius if end_radius is None else end_radius) - radius
        return radius + along * taper - np.sqrt(x * x + y * y)

    def rays(
        self, start: Point, ends: Sequence[Point], radius: float, end_radius: float
    ) -> np.ndarray:
        """Distance to the thick lines from one point to some others."""
        return union(*(self.capsule(start, end, radius, end_radius) for end in ends))

    def noise(self, frequency: float) -> np.ndarray:
        """Value noise in [0, 1] that goes along with the object."""
        return noise(self.stream, self.u, self.v, frequency)
