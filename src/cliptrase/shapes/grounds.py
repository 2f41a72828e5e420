"""The seven backgrounds, each a texture over the whole scene: (3, size, size) float32 in 0..255."""

import numpy as np

from cliptrase.shapes.stream import Stream
from cliptrase.shapes.textures import Colour, fill, ground_noise, mix, paint, triangle


def _axes(size: int) -> tuple[np.ndarray, np.ndarray]:
    at = np.arange(size, dtype=np.float32)
    return at[None, :], at[:, None]


def _blend(low: Colour, high: Colour, share: np.ndarray) -> np.ndarray:
    rgb = fill(share, low)
    paint(rgb, share, high)
    return rgb


def sky(stream: Stream, size: int) -> np.ndarray:
    """Blue, paler towards the horizon, with clouds."""
    _, y = _axes(size)
    rgb = _blend((88, 152, 228), (176, 212, 246), np.broadcast_to(y / size, (size, size)))
    clouds = ground_noise(stream, size, 58, 34) + 0.45 * ground_noise(stream, size, 21, 14)
    cover = stream.uniform(0.62, 0.85)
    paint(rgb, np.clip((clouds - cover) * 2.6, 0.0, 0.92), (250, 251, 254))
    return rgb


def grass(stream: Stream, size: int) -> np.ndarray:
    """Upright blades of green."""
    blades = ground_noise(stream, size, 2.6, 11) * 0.7 + ground_noise(stream, size, 1.7, 6) * 0.3
    rgb = _blend((38, 92, 24), (132, 192, 62), blades)
    paint(rgb, ground_noise(stream, size, 60, 60) * 0.35, (96, 140, 40))
    return rgb


def brick(stream: Stream, size: int) -> np.ndarray:
    """A running bond of red bricks in pale mortar."""
    x, y = _axes(size)
    height, width = stream.uniform(15, 20), stream.uniform(34, 44)
    row = np.floor(y / height)
    shift = (row - 2.0 * np.floor(row * 0.5)) * 0.5
    along = x / width + shift + stream.uniform()
    column = np.floor(along)
    tint = stream.uniforms(256)[((row * 37 + column * 11).astype(np.int32)) & 255]
    rgb = _blend((142, 58, 44), (190, 96, 68), tint)
    rgb *= 0.9 + 0.2 * ground_noise(stream, size, 2.5, 2.5)
    gap = np.minimum((along - column) * width, (y / height - row) * height)
    paint(rgb, np.clip(3.0 - gap, 0.0, 1.0), (202, 192, 176))
    return rgb


def water(stream: Stream, size: int) -> np.ndarray:
    """Deep teal with lying ripples and glints."""
    _, y = _axes(size)
    bend = ground_noise(stream, size, 40, 16)
    waves = triangle(y / stream.uniform(13, 17) + 1.9 * bend)
    rgb = _blend((10, 72, 112), (42, 140, 168), waves)
    glints = ground_noise(stream, size, 12, 3.2)
    paint(rgb, np.clip((glints * waves - 0.52) * 5.0, 0.0, 0.9), (206, 240, 244))
    return rgb


def sand(stream: Stream, size: int) -> np.ndarray:
    """Tan grains with slanted wind ripples."""
    x, y = _axes(size)
    bend = ground_noise(stream, size, 48, 48)
    ripples = triangle((x * 0.45 + y) / stream.uniform(20, 27) + 1.4 * bend)
    rgb = _blend((198, 164, 110), (232, 206, 154), ripples)
    rgb *= 0.86 + 0.26 * ground_noise(stream, size, 1.6, 1.6)
    return rgb


def wood(stream: Stream, size: int) -> np.ndarray:
    """Brown planks with grain along them."""
    _, y = _axes(size)
    height = stream.uniform(30, 42)
    plank = np.floor(y / height)
    tint = stream.uniforms(64)[plank.astype(np.int32) & 63]
    grain = triangle(y / 7.5 + 2.6 * ground_noise(stream, size, 70, 13) + tint * 5.0)
    rgb = _blend((104, 62, 30), (172, 114, 62), grain * 0.75 + tint * 0.25)
    rgb *= 0.88 + 0.2 * ground_noise(stream, size, 16, 2.2)
    gap = (y / height - plank) * height
    paint(rgb, np.broadcast_to(np.clip(2.6 - gap, 0.0, 0.9), (size, size)), (48, 28, 14))
    return rgb


def snow(stream: Stream, size: int) -> np.ndarray:
    """White drifts with blue shadows and sparkle."""
    drifts = ground_noise(stream, size, 66, 30) * 0.7 + ground_noise(stream, size, 18, 10) * 0.3
    rgb = _blend((176, 192, 222), (248, 250, 253), np.clip(drifts * 1.5 - 0.1, 0.0, 1.0))
    sparkle = ground_noise(stream, size, 1.4, 1.4)
    paint(rgb, np.clip((sparkle - 0.72) * 4.0, 0.0, 0.8), (255, 255, 255))
    paint(rgb, np.clip((0.22 - sparkle) * 2.5, 0.0, 0.4), mix((176, 192, 222), (0, 0, 0), 0.15))
    return rgb


GROUNDS = {ground.__name__: ground for ground in (sky, grass, brick, water, sand, wood, snow)}
