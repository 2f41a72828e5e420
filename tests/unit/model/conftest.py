"""Small random CLIPs of open_clip's own classes, one for each way that a ViT can differ."""

from __future__ import annotations

import open_clip
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

from cliptrase.model.load import Clip


def tiny_clip(
    layers: int = 12,
    patch: int = 16,
    size: int = 64,
    quick_gelu: bool = True,
    ls_init_value: float | None = None,
    seed: int = 0,
) -> Clip:
    """A CLIP whose every parameter is random: a bias or scale left out would show."""
    vision = CLIPVisionCfg(
        layers=layers, width=48, head_width=16, patch_size=patch, image_size=size,
        ls_init_value=ls_init_value,
    )  # fmt: skip
    text = CLIPTextCfg(width=32, heads=2, layers=3)
    generator = torch.Generator().manual_seed(seed)
    model = CLIP(24, vision, text, quick_gelu=quick_gelu).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = parameter.shape[-1] ** -0.5 if "weight" in name and noise.ndim > 1 else 0.3
        centre = 1.0 if ".ln" in name and name.endswith("weight") else 0.0
        parameter.copy_(centre + scale * noise)
    return Clip(
        model=model,
        tokenizer=open_clip.SimpleTokenizer(),
        device=torch.device("cpu"),
        label="tiny",
        mean=(0.5, 0.4, 0.3),
        std=(0.25, 0.3, 0.2),
    )


@pytest.fixture(scope="session")
def tiny():
    return tiny_clip


@pytest.fixture(scope="session")
def clip() -> Clip:
    return tiny_clip()


@pytest.fixture(scope="session")
def pixels() -> torch.Tensor:
    """(2, 3, 64, 64)."""
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
