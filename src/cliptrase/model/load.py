"""A CLIP in memory: open_clip builds it, this file refuses what cannot be segmented with."""

import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.model import build_model_from_openai_state_dict, set_model_preprocess_cfg
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from cliptrase.config import openai_file
from cliptrase.config.schema import Model
from cliptrase.config.weights import CURE, WEIGHTS, architecture, open_clip_folder
from cliptrase.errors import UserError
from cliptrase.model.fetch import fetch_weights, quiet
from cliptrase.model.precision import lower

DTYPES = {  # of OpenAI's archives
    "HalfStorage": torch.float16,
    "FloatStorage": torch.float32,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
}
NO_WEIGHTS = "not weights that PyTorch wrote, or cut off"


@dataclass(frozen=True, eq=False)
class Clip:
    """A loaded CLIP: open_clip's module in evaluation mode, without gradients.

    fp32, but for the linear layers of the image tower where `precision` says otherwise.
    """

    model: Any  # open_clip's CLIP or CustomTextCLIP
    tokenizer: Any  # list of strings → (P, context length) int64
    device: torch.device
    label: str
    mean: tuple[float, ...]  # of red, green, blue
    std: tuple[float, ...]
    positions: dict[tuple[int, int], Tensor] = field(default_factory=dict, repr=False)
    precision: str = "fp32"  # fp32 | bf16 | fp16

    @property
    def visual(self) -> Any:
        return self.model.visual

    @property
    def text(self) -> Any:
        """The text tower: the model itself, or its `text` where open_clip keeps one."""
        return getattr(self.model, "text", self.model)

    @property
    def blocks(self) -> Any:
        """The image tower's residual attention blocks, first to last."""
        return self.visual.transformer.resblocks

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return self.visual.patch_size[0]

    @property
    def depth(self) -> int:
        return len(self.blocks)

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
                f"block {block} does not exist in a model of {self.depth} blocks: they are counted "
                f"as in a 12-block model from the end, here {13 - self.depth} … 12; change "
                "method.attention.first_block, last_block or method.regions.correlation.block"
            )
        return index

    def inner_index(self, block: int) -> int:
        """0-based index of a `block` of which a method reads the tokens or the attention.

        Counted as in a 12-block model: up to 10 in proportion to the depth, ⌊block·depth/12⌋, at
        least the first; 11 and 12 from the end. Raises UserError where the model has no block 11.
        """
        if block > 10:
            return self.block_index(block)
        return max(block * self.depth // 12, 1) - 1

    def normalise(self, pixels: np.ndarray) -> Tensor:
        """What the image tower reads, (B, 3, H, W) float32 on the device, of `pixels` (B, H, W, 3)
        uint8 RGB."""
        return normalised(pixels, self.mean, self.std, self.device)

    def denormalise(self, pixels: Tensor) -> np.ndarray:
        """The (B, H, W, 3) uint8 that `normalise` made `pixels` (B, 3, H, W) of, exactly."""
        mean, std = (uploaded(each, self.device).view(3, 1, 1) for each in (self.mean, self.std))
        values = ((pixels * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
        return values.permute(0, 2, 3, 1).cpu().numpy()


def load_clip(model: Model, device: str | torch.device = "cpu") -> Clip:
    """The CLIP that a resolved run's `model` names, on `device`.

    `kind: local` reads the open_clip folder `path` and never asks a hub; `kind: openai_file` reads
    a file of OpenAI's; `kind: open_clip` takes `name` and `pretrained` as open_clip does and may
    download. `precision` is that of the image tower's linear layers. Raises UserError for a folder
    that is not one, unreadable weights, an architecture without patch tokens, no network.
    """
    preprocess: dict[str, Any] = {}
    folder = Path(str(model.path))
    if model.kind == "local":
        open_clip_folder(folder)
    architecture(model)
    if model.kind == "local":
        name, pretrained, weights = f"local-dir:{folder}", None, folder / WEIGHTS
        cure = "write the folder again, or take another one with model.path="
    elif model.kind == "openai_file":
        weights = Path(str(model.path))
        cure = "get it again"
    else:
        name = str(model.name)
        weights, preprocess = fetch_weights(name, model.path or model.pretrained)
        pretrained = str(weights)
        # without a preprocess, the file is the user's own, not one in the hub's cache
        own = f"give weights of a {name} with model.pretrained=, or their model with model.name="
        cure = "delete the file and run again" if preprocess else own
    try:
        with quiet():
            if model.kind == "openai_file":
                module = _openai_model(weights, torch.device(device))
                tokenizer = open_clip.SimpleTokenizer(context_length=module.context_length)
            else:
                module = open_clip.create_model(
                    name,
                    pretrained=pretrained,
                    device=torch.device(device),
                    force_preprocess_cfg=preprocess,
                    require_pretrained=True,
                )
                tokenizer = open_clip.get_tokenizer(name)
    except torch.OutOfMemoryError:
        raise UserError(f"{weights}: does not fit on {device}; take device=cpu") from None
    except UserError:
        raise
    except Exception as error:
        reason = _reason(error)
        raise UserError(f"{weights}: cannot be loaded ({reason}); {cure}") from error
    _check_towers(module, str(weights))
    if model.pretrained == "openai":
        gelu = module.visual.transformer.resblocks[0].mlp.gelu
        assert isinstance(gelu, QuickGELU), "OpenAI's weights without QuickGELU"
    module.eval().requires_grad_(False)
    lower(module.visual, model.precision)
    shown = open_clip.get_model_preprocess_cfg(module)
    return Clip(
        model=module,
        tokenizer=tokenizer,
        device=torch.device(device),
        label=model.label,
        mean=tuple(map(float, shown["mean"])),
        std=tuple(map(float, shown["std"])),
        precision=model.precision,
    )


def normalised(
    pixels: np.ndarray, mean: Sequence[float], std: Sequence[float], device: torch.device
) -> Tensor:
    """`pixels` (B, H, W, 3) uint8 RGB as (B, 3, H, W) float32 on `device`, from 0 … 1 less `mean`
    over `std`, those of red, green, blue."""
    mean_of, std_of = (uploaded(each, device).view(3, 1, 1) for each in (mean, std))
    channels = uploaded(pixels, device).permute(0, 3, 1, 2).contiguous()
    return (channels.float() / 255 - mean_of) / std_of


def uploaded(values: Any, device: torch.device) -> Tensor:
    """A copy on `device` of an array or of numbers, without waiting for what a GPU is doing."""
    if device.type != "cuda":
        return torch.tensor(values, device=device)
    return torch.tensor(values, pin_memory=True).to(device, non_blocking=True)


def _openai_model(file: Path, device: torch.device) -> Any:
    """The model of OpenAI's file `file`. Raises UserError for a damaged one."""
    stored = {}
    for name, one, content in openai_file.entries(file):
        numbers = torch.frombuffer(bytearray(content), dtype=DTYPES[one.storage])
        stored[name] = numbers.as_strided(one.size, one.stride, one.offset)
    module = build_model_from_openai_state_dict(stored, cast_dtype=torch.float32).float()
    set_model_preprocess_cfg(
        module, {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    )
    return module.to(device)


def _reason(error: Exception) -> str:
    """Why a file of weights cannot be loaded, in a line."""
    text = " ".join(re.sub(r"\x1b\[[\d;]*m", "", str(error)).split())
    if "TorchScript" in text:
        return "a TorchScript archive; OpenAI's own: model=openai_file model.path=FILE"
    if isinstance(error, pickle.UnpicklingError):
        found = re.search(r"(?:GLOBAL|[Cc]lass) (\w+(?:\.\w+)+)", text)
        return (
            f"beside tensors it holds Python objects ({found[1]}), which are not loaded, as they "
            "could run code; save its state_dict alone"
            if found
            else NO_WEIGHTS
        )
    if isinstance(error, EOFError | IndexError) or text.isdigit() or "magic number" in text:
        return NO_WEIGHTS
    if isinstance(error, AttributeError):
        return "not a state_dict, which holds tensors by their names"
    return text[:200]


def _check_towers(module: nn.Module, where: str) -> None:
    """The methods read plain pre-norm ViT blocks, a [CLS] token, a causal text tower."""
    visual: Any = module.visual
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
    text: Any = getattr(module, "text", module)
    pool = getattr(text, "text_pool_type", getattr(text, "pool_type", None))
    causal = getattr(text, "attn_mask", None) is not None
    if pool != "argmax" or not causal or getattr(text, "cls_emb", None) is not None:
        raise UserError(f"{where}: its text tower is not CLIP's causal transformer; {CURE}")
