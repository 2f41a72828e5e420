"""A second ViT that regions may be made of: DINO's family, from a folder in timm's layout.

Shapes: B images, h' × w' patches of a grid of its own, N' = h'·w', L' = prefix + N' tokens: [CLS]
where the network has one, then its registers, then the patches; D width, H heads, d = D / H.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from cliptrase.config.backbones import CONFIG, WEIGHTS
from cliptrase.errors import UserError, nearest
from cliptrase.model.fetch import quiet
from cliptrase.model.load import normalised
from cliptrase.model.vision import resized

CURE = (
    "take another network with method.dino=, or a folder of timm's with method.dino=local-dir:DIR"
)


@dataclass(frozen=True, eq=False)
class Dino:
    """A loaded network: timm's module in evaluation mode, fp32, without gradients."""

    model: Any  # timm's VisionTransformer or Eva
    device: torch.device
    label: str
    mean: tuple[float, ...]  # of red, green, blue
    std: tuple[float, ...]
    positions: dict[tuple[int, int], tuple[Tensor | None, Tensor | None]] = field(
        default_factory=dict, repr=False
    )  # by grid: the table of positions, the rotation (RoPE) of queries and keys

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return self.model.patch_embed.patch_size[0]

    @property
    def prefix(self) -> int:
        """How many tokens come before the patches."""
        return self.model.num_prefix_tokens

    @property
    def has_cls(self) -> bool:
        """Whether the first token is a [CLS] token."""
        return self.model.cls_token is not None

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches of a picture: its sides over the patch, to the nearest whole
        number (halves up), at least 1."""
        rows, columns = (max(1, (side + self.patch // 2) // self.patch) for side in (height, width))
        return rows, columns

    def normalise(self, pixels: np.ndarray) -> Tensor:
        """What the network reads, (B, 3, H, W) float32 on the device, of `pixels` (B, H, W, 3)
        uint8 RGB."""
        return normalised(pixels, self.mean, self.std, self.device)


class Tokens(NamedTuple):
    """The tokens of B images, each (B, L', D)."""

    grid: tuple[int, int]  # h', w'
    second_last: Tensor  # that enter the second-to-last block
    last: Tensor  # that enter the last block
    final: Tensor  # after the final norm, as timm's `forward_features` gives them


def load_dino(
    folder: Path, architecture: str, label: str, device: str | torch.device = "cpu"
) -> Dino:
    """The network in `folder`, on `device`; no hub is asked.

    The folder is as timm writes it to a hub: `config.json` says the `model_args` of the
    architecture, and the mean and standard deviation of its pixels (ImageNet's where it does not
    say), `model.safetensors` has all its weights and none besides. Raises UserError for an unknown
    architecture or one that is not a plain ViT, and for weights that are damaged, another network's
    or not finite.
    """
    file, cure = folder / CONFIG, f"write {folder} again, or {CURE}"
    try:
        model = _built(file, architecture, json.loads(file.read_text(encoding="utf-8")))
        file = folder / WEIGHTS
        stored = load_file(file)
        stored.pop("mask_token", None)  # only pre-training reads it
        model.load_state_dict(stored)
        model.eval().requires_grad_(False).to(device)
    except torch.OutOfMemoryError:
        raise UserError(f"{file}: does not fit on {device}; take device=cpu") from None
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{file}: cannot be loaded ({_line(error)}); {cure}") from error
    for name, weight in stored.items():
        if not bool(weight.isfinite().all()):
            raise UserError(f"{file}: {name} is not finite, the weights are damaged; {cure}")
    shown = model.pretrained_cfg
    return Dino(model, torch.device(device), label, tuple(shown["mean"]), tuple(shown["std"]))


def _built(file: Path, name: str, config: dict[str, Any]) -> Any:
    """timm's network `name` as `config`, the content of `file`, says; its weights are random.

    Raises UserError for an unknown name, and for what is not a plain ViT.
    """
    import timm
    from timm.layers.attention import Attention
    from timm.layers.patch_embed import PatchEmbed
    from timm.models.eva import Eva, EvaAttention, EvaBlock
    from timm.models.vision_transformer import Block, VisionTransformer

    architecture = name.partition(".")[0]  # its tag says which weights
    if not timm.is_model(architecture):
        near = nearest(architecture, timm.list_models()).partition("There is:")[0]  # of hundreds
        hint = near.strip() or "see timm.list_models('vit_*')"
        raise UserError(f"{file}: timm knows no architecture {architecture!r}; {hint}; {CURE}")
    try:
        shown = {**config.get("pretrained_cfg", {}), "num_classes": config.get("num_classes", 0)}
        with quiet():
            model: Any = timm.create_model(
                architecture, pretrained_cfg=shown, **config.get("model_args", {})
            )
    except Exception as error:
        message = f"{file}: no {architecture} can be built of it ({_line(error)}); {CURE}"
        raise UserError(message) from error
    plain = (
        type(model) in (VisionTransformer, Eva)
        and type(model.patch_embed) is PatchEmbed
        and len(set(model.patch_embed.patch_size)) == 1
        and model.patch_embed.proj.in_channels == 3
        and not getattr(model, "rope_mixed", False)
        and len(model.blocks) > 1
        and all(type(block) in (Block, EvaBlock) for block in model.blocks)
        and all(type(block.attn) in (Attention, EvaAttention) for block in model.blocks)
        and all(block.attn.qkv is not None for block in model.blocks)
    )
    if not plain:
        raise UserError(
            f"{file}: {architecture} is not a plain ViT (colour pictures, square patches, two "
            f"blocks or more, queries, keys and values of one layer); {CURE}"
        )
    return model


def _line(error: Exception) -> str:
    """The text of an error in a line, its beginning where it is long."""
    return " ".join(str(error).split())[:200]


def check_denoise(dino: Dino, denoise: str) -> None:
    """Raise UserError where `method.regions.denoise` asks for a [CLS] token that there is not."""
    if denoise == "cls" and not dino.has_cls:
        raise UserError(
            f"method.regions.denoise=cls: denoise: cls needs a [CLS] token, and {dino.label} has "
            "none; set method.regions.denoise=none, or take another network with method.dino="
        )


def tokens(dino: Dino, pixels: Tensor) -> Tokens:
    """Tokens of normalised `pixels` (B, 3, height, width), by the blocks of timm.

    Sides that the patch does not divide are resized bilinearly to the nearest multiples of it.
    """
    model = dino.model
    rows, columns = dino.grid(*pixels.shape[-2:])
    size = (rows * dino.patch, columns * dino.patch)
    if pixels.shape[-2:] != size:
        pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    table, rope = _positions(dino, rows, columns)
    patches = model.patch_embed.proj(pixels).flatten(2).transpose(1, 2)
    patches = model.patch_embed.norm(patches)
    first = [
        token.expand(len(pixels), -1, -1)
        for token in (model.cls_token, model.reg_token)
        if token is not None
    ]
    if table is None:
        x = torch.cat([*first, patches], dim=1)
    elif model.no_embed_class:  # the table has rows for patches alone
        x = torch.cat([*first, patches + table], dim=1)
    else:
        x = torch.cat([*first, patches], dim=1) + table
    entering = [model.norm_pre(x)]
    for block in model.blocks:
        entering.append(block(entering[-1]) if rope is None else block(entering[-1], rope=rope))
        del entering[:-3]
    second_last, last, out = entering
    return Tokens((rows, columns), second_last, last, model.norm(out))


def _positions(dino: Dino, rows: int, columns: int) -> tuple[Tensor | None, Tensor | None]:
    """The table of positions of a grid and the rotation of its queries and keys, where there are.

    The table is resized bicubically as each network's authors do: DINO and DINOv2 without registers
    by a scale, as CLIPtrase's own (`vision.resized`); with registers to the size, antialiased.
    """
    if (rows, columns) not in dino.positions:
        model = dino.model
        table, rope = model.pos_embed, getattr(model, "rope", None)
        trained = model.patch_embed.grid_size
        if table is not None and (rows, columns) != trained:
            start = 0 if model.no_embed_class else dino.prefix
            if model.reg_token is None:
                patches = resized(table[0, start:], trained, (rows, columns))
            else:
                square = table[0, start:].T.reshape(1, -1, *trained)
                square = F.interpolate(square, (rows, columns), mode="bicubic", antialias=True)
                patches = square[0].flatten(1).T
            table = torch.cat([table[0, :start], patches])[None]
        if rope is not None:
            rope = rope.get_embed(shape=[rows, columns])
        dino.positions[rows, columns] = table, rope
    return dino.positions[rows, columns]


def features(dino: Dino, seen: Tokens, feature: str) -> tuple[Tensor, ...]:
    """What `segment.correlation.correlation` makes W_D (B, 1 + N', 1 + N') of, by
    `method.regions.correlation.feature` (`value` is LPOSS's): each (B, heads, 1 + N', d), registers
    left out.

    tokens: those after the final norm, as one head. key, value: of the last block, heads in a row,
    as one head; "query + key": as these, of the sum. qkv: queries, keys and values of the
    second-to-last block. A network without [CLS] has zeros in its place. Queries and keys are those
    before any rotation (RoPE).
    """
    if feature == "tokens":
        parts: tuple[Tensor, ...] = (seen.final[:, None],)
    elif feature in ("key", "value", "query + key"):
        q, k, v = _qkv(dino.model.blocks[-1], seen.last)
        chosen = q + k if feature == "query + key" else k if feature == "key" else v
        parts = (chosen.transpose(1, 2).flatten(2)[:, None],)
    else:
        parts = tuple(_qkv(dino.model.blocks[-2], seen.second_last))
    return tuple(_less_registers(dino, part) for part in parts)


def _qkv(block: Any, entering: Tensor) -> Tensor:
    """Queries, keys and values (3, B, H, L', d) of a block for the tokens entering it."""
    attn = block.attn
    bias = attn.qkv.bias
    if getattr(attn, "q_bias", None) is not None:  # Eva keeps them apart
        bias = torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])
    joint = F.linear(block.norm1(entering), attn.qkv.weight, bias)
    batch, length = entering.shape[:2]
    return joint.view(batch, length, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)


def _less_registers(dino: Dino, part: Tensor) -> Tensor:
    """`part` (B, H, L', d) of [CLS] and patches: (B, H, 1 + N', d)."""
    cls = part[:, :, :1] if dino.has_cls else torch.zeros_like(part[:, :, :1])
    return torch.cat([cls, part[:, :, dino.prefix :]], dim=2)
