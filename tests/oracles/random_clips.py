"""Small random CLIPs of the shape that slow_reference.py knows; pictures that cluster unalike."""

from __future__ import annotations

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from slow_reference import COLUMNS, EMBED, HEADS, LAYERS, PATCH, ROWS, TRAINED, WIDTH
from torch import Tensor

from cliptrase.model.load import Clip

VISION = {
    "image_size": TRAINED * PATCH, "layers": LAYERS, "width": WIDTH,
    "head_width": WIDTH // HEADS, "patch_size": PATCH,
}  # fmt: skip
PICTURES = ("shapes", "noise", "flat", "halves", "shapes", "speckled")


def random_clip(seed: int) -> Clip:
    """Strong queries and weak mixing, so that patches differ."""
    generator = torch.Generator().manual_seed(seed)
    model = CLIP(EMBED, VISION, {"width": 16, "heads": 1, "layers": 1}, quick_gelu=True)
    model.eval().requires_grad_(False)
    for name, parameter in model.visual.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            gain = 1.5 if "in_proj" in name else 0.75 if name == "conv1.weight" else 0.5
            values = values * gain * parameter.shape[-1] ** -0.5
        else:
            values = values * 0.1 + (1.0 if name.endswith("weight") else 0.0)
        parameter.copy_(values)
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    return Clip(model, open_clip.SimpleTokenizer(), torch.device("cpu"), "random", mean, std)


def pictures(rng: np.random.Generator, count: int) -> Tensor:
    """(count, 3, H, W) float32, in turn: shapes on a ground, noise, one colour, two halves."""
    height, width = ROWS * PATCH, COLUMNS * PATCH
    out = np.empty((count, 3, height, width))
    for index, image in enumerate(out):
        kind = PICTURES[index % len(PICTURES)]
        image[:] = rng.normal(size=(3, 1, 1))
        if kind == "shapes":
            for _ in range(int(rng.integers(2, 7))):
                top, left = rng.integers(height - 16), rng.integers(width - 16)
                image[:, top : top + 32, left : left + 24] = 1.5 * rng.normal(size=(3, 1, 1))
        elif kind == "halves":
            image[:, :, int(rng.integers(20, width - 20)) :] = rng.normal(size=(3, 1, 1))
        grain = {"noise": 2.0, "speckled": 0.4, "flat": 0.0}.get(kind, 0.05)
        image += grain * rng.normal(size=image.shape)
    return torch.from_numpy(out.astype(np.float32))


def words(rng: np.random.Generator, features: Tensor, names: int) -> Tensor:
    """(names, E) normalised: what sets some patches (N, E) apart from the others, and noise."""
    some = features[torch.from_numpy(rng.permutation(len(features))[:names])]
    apart = F.normalize(some - features.mean(dim=0), dim=-1)
    noise = torch.from_numpy(rng.normal(size=apart.shape).astype(np.float32))
    return F.normalize(apart + 0.1 * noise, dim=-1)
