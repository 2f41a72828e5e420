"""The random model and picture that the method is tested on where no golden data is at hand.

Every number comes from the raw bits of PCG64, which NumPy keeps the same in all versions (what
`normal` makes of them it does not promise, nor does PyTorch of its generator): any versions make
the same model, to the last bit.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.model import CLIP
from slow_reference import (
    COLUMNS,
    EMBED,
    HEADS,
    LAYERS,
    PATCH,
    ROWS,
    TRAINED,
    WIDTH,
    WORDS,
    Reference,
    unit,
)

from cliptrase.config.method import Method
from cliptrase.model.load import Clip

VISION: dict[str, Any] = {
    "image_size": TRAINED * PATCH, "layers": LAYERS, "width": WIDTH,
    "head_width": WIDTH // HEADS, "patch_size": PATCH,
}  # fmt: skip
TEXT = {"width": 16, "heads": 1, "layers": 1}
SEED = 38  # one of a few where no two values of the case tie


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """In [0, 1), float64, its stream named: the upper 53 bits of each raw number."""
    raw = np.random.PCG64([SEED, zlib.crc32(name.encode())]).random_raw(int(np.prod(shape)))
    return (np.asarray(raw) >> np.uint64(11)).reshape(shape) * 2.0**-53


def noise(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Nearly normal, mean 0, variance 1: twelve uniform numbers added up, one after the other."""
    total = np.full(shape, -6.0)
    for part in uniform(name, (12, *shape)):
        total = total + part
    return total


def make_clip() -> Clip:
    """A CLIP of 12 blocks whose image tower is random; the text tower is not used."""
    model = CLIP(EMBED, VISION, TEXT, quick_gelu=True).eval().requires_grad_(False)
    for name, parameter in model.visual.named_parameters():
        values = noise(name, tuple(parameter.shape))
        if parameter.ndim > 1:
            gain = 1.5 if "in_proj" in name else 0.75 if name == "conv1.weight" else 0.5
            values = values * gain * parameter.shape[-1] ** -0.5
        else:
            values = values * 0.1 + (1.0 if name.endswith("weight") else 0.0)
        parameter.copy_(torch.from_numpy(values.astype(np.float32)))
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    return Clip(model, open_clip.SimpleTokenizer(), torch.device("cpu"), "random", mean, std)


def make_pixels() -> np.ndarray:
    """(2, 3, H, W) float32: two pictures of flat shapes with a little noise."""
    height, width = ROWS * PATCH, COLUMNS * PATCH
    out = np.empty((2, 3, height, width))
    for i, image in enumerate(out):
        image[:] = noise(f"ground {i}", (3, 1, 1))
        for shape in range(4):
            top, left = uniform(f"place {i} {shape}", (2,)) * (height - 24, width - 24)
            colour = 1.5 * noise(f"colour {i} {shape}", (3, 1, 1))
            image[:, int(top) : int(top) + 32, int(left) : int(left) + 24] = colour
        image += 0.05 * noise(f"grain {i}", image.shape)
    return out.astype(np.float32)


def make_text(clip: Clip, pixels: np.ndarray, method: Method) -> np.ndarray:
    """(8, E) float32 normalised: what sets eight far patches apart from the average one, and noise.

    `pixels` (3, H, W), `method` without regions.
    """
    features = Reference(clip, pixels, np.eye(WORDS, EMBED), method).features
    apart = features - features.mean(axis=0)
    chosen = [int(np.linalg.norm(apart, axis=1).argmax())]
    while len(chosen) < WORDS:
        nearest = (unit(apart) @ unit(apart[chosen]).T).max(axis=1)
        chosen.append(int(nearest.argmin()))
    return unit(unit(apart[chosen]) + 0.5 / EMBED**0.5 * noise("text", (WORDS, EMBED))).astype(
        np.float32
    )


def checksum(clip: Clip) -> int:
    """CRC-32 of the image tower's weights, by name."""
    crc = 0
    for name, parameter in sorted(clip.visual.named_parameters()):
        crc = zlib.crc32(parameter.numpy().tobytes(), zlib.crc32(name.encode(), crc))
    return crc
