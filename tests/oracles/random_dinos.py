"""Small random ViTs of timm as DINO is one, of any patch and picture."""

import timm
import torch

from cliptrase.config.method import Backbone
from cliptrase.model.dino import Dino

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def random_dino(patch: int, size: tuple[int, int], seed: int = 0) -> Dino:
    """Every parameter random; its table of positions is of pictures of `size`, so that timm's own
    forward is its. Smooth patches are like their neighbours."""
    model = timm.create_model(
        "vit_base_patch16_224", num_classes=0, patch_size=patch, img_size=size, embed_dim=32,
        depth=2, num_heads=2,
    ).eval().requires_grad_(False)  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = parameter.shape[-1] ** -0.5 if noise.ndim > 1 else 0.3
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.copy_(centre + scale * noise)
    return Dino(model, torch.device("cpu"), "random", MEAN, STD)


def named(role: str, name: str, patch: int | None = None) -> Backbone:
    """A network as a method names it, known by its name alone."""
    return Backbone(
        label=name, kind="sam" if role == "sam" else "timm", name=name, weights_sha256=None,
        config_sha256=None, path=None, repo=name, patch=patch,
    )  # fmt: skip
