"""A CLIP in memory: open_clip builds it, this file refuses what cannot be segmented with."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from cliptrase.errors import UserError, nearest

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
CURE = (
    "choose another model with model= (`cliptrase segment`: --model): model=shapes_clip ships with "
    "the project, model=local model.path=DIR reads an open_clip folder"
)


@dataclass(frozen=True, eq=False)
class Clip:
    """A loaded CLIP: open_clip's module in evaluation mode, fp32, without gradients."""

    model: nn.Module
    tokenizer: Any
    device: torch.device
    label: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    positions: dict[tuple[int, int], Tensor] = field(default_factory=dict, repr=False)

    @property
    def visual(self) -> Any:
        return self.model.visual

    @property
    def text(self) -> Any:
        """The text tower: the model itself, or its `text` where open_clip keeps one."""
        return getattr(self.model, "text", self.model)

    @property
    def blocks(self) -> Any:
        """The vision tower's residual attention blocks, first to last."""
        return self.visual.transformer.resblocks

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return self.visual.patch_size[0]

    @property
    def depth(self) -> int:
        return len(self.blocks)

    @property
    def heads(self) -> int:
        return self.blocks[0].attn.num_heads

    @property
    def width(self) -> int:
        return self.visual.positional_embedding.shape[1]

    @property
    def embed_dim(self) -> int:
        """Width of the joint image-text space."""
        return self.visual.proj.shape[1]

    def block_index(self, block: int) -> int:
        """0-based index of `block`, counted as in a 12-block model, from the end.

        Raises UserError where this model has no such block.
        """
        index = self.depth - 13 + block
        if not 0 <= index < self.depth:
            raise UserError(
                f"block {block} does not exist in a model of {self.depth} blocks: blocks are counted "
                f"as in a 12-block model from the end, here {13 - self.depth} … 12; change "
                "method.attention.first_block, last_block or method.regions.correlation.block"
            )
        return index


def load_clip(model: dict[str, Any], device: str | torch.device = "cpu") -> Clip:
    """The CLIP that a resolved run's `model` names, on `device`.

    `kind: local` reads the open_clip folder `path` and never asks a hub; `kind: open_clip` takes
    `name` and `pretrained` as open_clip does and may download. Raises UserError for a folder that is
    not one, unreadable weights, an architecture without patch tokens, no network.
    """
    if model["kind"] == "local":
        name, pretrained = f"local-dir:{_checked_folder(Path(model['path']))}", None
        where = str(model["path"])
    else:
        name, pretrained = model["name"], model["pretrained"]
        where = f"open_clip model {name!r} with weights {pretrained!r}"
        _check_known(name, pretrained)
    try:
        with _quiet():
            clip = open_clip.create_model(
                name, pretrained=pretrained, device=torch.device(device), require_pretrained=True
            )
            tokenizer = open_clip.get_tokenizer(name)
    except torch.OutOfMemoryError:
        raise UserError(f"{where}: does not fit on {device}; use device=cpu") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        if model["kind"] == "local":
            raise UserError(
                f"{Path(model['path']) / WEIGHTS}: cannot be loaded ({reason}); write the folder again"
            ) from error
        raise UserError(f"cannot load {where} ({reason}); without network, {CURE}") from error
    _check_towers(clip, where)
    if pretrained == "openai" and not isinstance(
        clip.visual.transformer.resblocks[0].mlp.gelu, QuickGELU
    ):
        raise UserError(
            f"{where}: OpenAI's weights need QuickGELU; take model.name={name}-quickgelu"
        )
    preprocess = open_clip.get_model_preprocess_cfg(clip)
    return Clip(
        model=clip.eval().requires_grad_(False),
        tokenizer=tokenizer,
        device=torch.device(device),
        label=str(model.get("label") or name),
        mean=_triple(preprocess["mean"]),
        std=_triple(preprocess["std"]),
    )


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _checked_folder(folder: Path) -> Path:
    """`folder`, if open_clip can read a model from it without asking anyone."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; model.path names an open_clip folder")
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: no such file; model.path names an open_clip folder")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["model_cfg"]
        vision, text = config["vision_cfg"], config["text_cfg"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{folder / CONFIG}: not a configuration that open_clip wrote") from None
    if "timm_model_name" in vision or "hf_model_name" in text or "hf_tokenizer_name" in text:
        raise UserError(
            f"{folder / CONFIG}: only open_clip's own towers and tokenizer are read from a folder, "
            "not timm's or transformers'"
        )
    return folder


def _check_known(name: str, pretrained: str | None) -> None:
    """Refuse, before anything is fetched, what open_clip would refuse or only warn about."""
    if name.startswith(("hf-hub:", "local-dir:")):
        return
    config = open_clip.get_model_config(name)
    if config is None:
        hint = nearest(name, open_clip.list_models()).partition("There is:")[0]
        raise UserError(f"unknown model.name {name!r}; {hint or 'see open_clip.list_models()'}")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained in tags:
        wanted = bool(open_clip.get_pretrained_cfg(name, pretrained).get("quick_gelu"))
        if wanted != bool(config.get("quick_gelu")):
            right = f"{name}-quickgelu" if wanted else name.removesuffix("-quickgelu")
            raise UserError(
                f"weights {pretrained!r} were trained {'with' if wanted else 'without'} QuickGELU; "
                f"take model.name={right}"
            )
    elif not pretrained or not Path(pretrained).is_file():
        raise UserError(
            f"model.pretrained={pretrained} is neither a file nor weights of {name}; "
            f"{nearest(str(pretrained), tags)}"
        )


def _check_towers(clip: nn.Module, where: str) -> None:
    """The methods read plain pre-norm ViT blocks, a [CLS] token, a causal text tower."""
    visual = clip.visual
    plain = (
        isinstance(visual, VisionTransformer)
        and all(type(block) is ResidualAttentionBlock for block in visual.transformer.resblocks)
        and visual.attn_pool is None
        and visual.pool_type == "tok"
        and visual.proj is not None
        and len(set(visual.patch_size)) == 1
    )
    if not plain:
        raise UserError(f"{where}: its image tower is not a plain ViT with a [CLS] token; {CURE}")
    text = getattr(clip, "text", clip)
    pool = getattr(text, "text_pool_type", getattr(text, "pool_type", None))
    causal = getattr(text, "attn_mask", None) is not None
    if pool != "argmax" or not causal or getattr(text, "cls_emb", None) is not None:
        raise UserError(f"{where}: its text tower is not CLIP's causal transformer; {CURE}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep open_clip's root-logger lines off the terminal: what matters is in the one message."""
    root, handler = logging.getLogger(), logging.NullHandler()

    def drop(record: logging.LogRecord) -> bool:
        return False

    root.addHandler(handler)  # without a handler logging.error() would install one for good
    root.addFilter(drop)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeFilter(drop)
        root.removeHandler(handler)
