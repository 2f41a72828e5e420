"""Networks beside CLIP in memory, each loaded once."""

from collections.abc import Iterable
from typing import Any

import torch

from cliptrase.config.method import Backbone
from cliptrase.errors import UserError
from cliptrase.model.hub import folder_of

Key = tuple[str | None, ...]  # Backbone.key
Network = Any  # model.sam.Sam | model.dino.Dino


def load_networks(backbones: Iterable[Backbone], device: str | torch.device) -> dict[Key, Network]:
    """Each of these networks once, by its key. Raises UserError as `folder_of` and the loaders."""
    networks: dict[Key, Network] = {}
    for backbone in backbones:
        if backbone.key not in networks:
            networks[backbone.key] = _loaded(backbone, torch.device(device))
    return networks


def _loaded(backbone: Backbone, device: torch.device) -> Network:
    folder = folder_of(backbone)
    if backbone.kind == "sam":
        from cliptrase.model.sam import load_sam  # transformers

        return load_sam(folder, backbone.label, device)
    from cliptrase.model.dino import load_dino  # timm

    dino = load_dino(folder, backbone.name, backbone.label, device)
    if dino.patch != backbone.patch:
        raise UserError(
            f"{folder}: patches of {dino.patch} pixels, but {backbone.label} was said to have "
            f"patches of {backbone.patch}; write patch: {dino.patch} in its file of conf/backbone"
        )
    return dino
