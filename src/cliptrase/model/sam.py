"""SAM in memory: a picture is embedded once, and prompted with points as often as one likes.

The frame of a SAM is a square of `side` pixels: the picture, resized so that its long side fills
the frame, lies at its top left.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cliptrase.config.backbones import CONFIG, WEIGHTS
from cliptrase.errors import UserError, counted

CURE = "give another folder with method.sam=local-dir:DIR"
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of red, green, blue in 0 … 255

Size = tuple[int, int]  # (height, width)
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True, eq=False)
class Sam:
    """A loaded SAM: transformers' SamModel in evaluation mode, fp32, without gradients."""

    model: Any
    device: torch.device
    label: str
    side: int  # T, of its frame in pixels


def load_sam(folder: Path, label: str, device: str | torch.device = "cpu") -> Sam:
    """The SAM in `folder`, which has transformers' layout, on `device`; no hub is asked.

    label: what messages call it. Raises UserError for a configuration that makes no SAM, weights
    that are damaged or of another model, and where transformers is not installed.
    """
    weights, reading = folder / WEIGHTS, folder / CONFIG
    try:
        from transformers import SamConfig, SamModel  # takes seconds
    except ImportError as error:
        raise UserError(
            f"method.sam: {label} needs transformers, which cannot be imported ({error}); "
            "pip install transformers"
        ) from error
    try:
        config, reading = SamConfig.from_json_file(reading), weights
        with _quiet():
            loaded: Any = SamModel.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # they are listed, and refused below
                output_loading_info=True,
            )
        model, keys = loaded
        _check_keys(weights, keys)
        sides = {
            model.config.vision_config.image_size,
            model.config.prompt_encoder_config.image_size,
        }
        if len(sides) > 1:
            raise UserError(
                f"{folder / CONFIG}: its encoders have frames of {max(sides)} and {min(sides)} "
                f"pixels (image_size); {CURE}"
            )
        model = model.eval().requires_grad_(False).to(device)
    except torch.OutOfMemoryError:
        raise UserError(f"{weights}: does not fit on {device}; take device=cpu") from None
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{reading}: cannot be loaded ({reason}); {CURE}") from error
    for name, values in model.state_dict().items():
        if not values.isfinite().all():
            raise UserError(f"{weights}: NaN or infinity in {name}; get the file again, or {CURE}")
    return Sam(model, torch.device(device), label, model.config.vision_config.image_size)


def framed_size(seen: Size, side: int) -> Size:
    """(T_h, T_w) that a picture of `seen` = (h, w) pixels has in a frame of `side` pixels."""
    height, width = (int(pixels * (side / max(seen)) + 0.5) for pixels in seen)
    return height, width


def frame(picture: NDArray[np.uint8], side: int) -> tuple[Tensor, Size]:
    """What SAM reads of an RGB picture (h, w, 3), (1, 3, side, side) float32, and the picture's
    size in it.

    PIL's bilinear resize, as the released SAM's: it antialiases where it shrinks.
    """
    height, width = picture.shape[:2]
    whole = (0.0, 0.0, float(width), float(height))
    return frame_view(Image.fromarray(picture), whole, (height, width), side)


def frame_view(image: Image.Image, box: Box, seen: Size, side: int) -> tuple[Tensor, Size]:
    """The same of the part `box` of an RGB picture, which another network sees as `seen` = (h, w)
    pixels: it is resized once, from the picture's own pixels."""
    height, width = framed_size(seen, side)
    resized = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
    pixels = torch.tensor(np.asarray(resized)).permute(2, 0, 1).float()
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD))
    framed = F.pad((pixels - mean) / std, (0, side - width, 0, side - height))
    return framed[None], (height, width)


def embed(sam: Sam, framed: Tensor) -> Tensor:
    """Embeddings (B, C, g, g) of framed pictures (B, 3, side, side), g a side in SAM's patches.

    One after the other: a picture's bits do not depend on its company, and the attention maps of
    more would need a gigabyte each.
    """
    each = framed.to(sam.device).split(1)
    return torch.cat([sam.model.get_image_embeddings(picture) for picture in each])


def last_block(sam: Sam, framed: Tensor, size: Size) -> tuple[Size, Tensor, Iterator[Tensor]]:
    """How the patches of one picture attend in SAM's last encoder block, of the framed picture
    (1, 3, side, side) and its `size` (T_h, T_w) in the frame: the grid (h, w) of the N whole
    patches that lie in it, at least one; their values (H, N, d); and head by head, so that one
    exists at a time, their softmax attention (N, N), whose rows lack what the padding draws.

    Raises UserError where that block attends in windows.
    """
    encoder = sam.model.vision_encoder
    block, attn = encoder.layers[-1], encoder.layers[-1].attn
    if block.window_size > 0:
        raise UserError(
            f"method.sam: the last encoder block of {sam.label} attends in windows, and not over "
            f"the whole picture; {CURE}"
        )
    tokens = encoder.patch_embed(framed.to(sam.device))
    if encoder.pos_embed is not None:
        tokens = tokens + encoder.pos_embed
    for layer in encoder.layers[:-1]:
        tokens = layer(tokens)
    tokens = block.layer_norm1(tokens)
    _, rows, columns, _ = tokens.shape
    patch = encoder.config.patch_size
    grid = max(1, size[0] // patch), max(1, size[1] // patch)
    inside = torch.zeros(rows, columns, dtype=torch.bool, device=sam.device)
    inside[: grid[0], : grid[1]] = True
    kept = inside.flatten().nonzero()[:, 0]
    joint = attn.qkv(tokens).view(rows * columns, 3, attn.num_attention_heads, -1)
    queries, keys, values = joint.permute(1, 2, 0, 3)

    def attended() -> Iterator[Tensor]:
        frame = rows, columns
        for query, key in zip(queries, keys, strict=True):
            weights = (query * attn.scale) @ key.T
            if attn.use_rel_pos:
                bias = attn.get_decomposed_rel_pos(
                    query[None], attn.rel_pos_h, attn.rel_pos_w, frame, frame
                )
                weights = weights + bias.reshape_as(weights)
            yield weights.softmax(dim=1)[kept][:, kept]

    return grid, values[:, kept], attended()


def patch_centres(grid: Size, framed: Size) -> NDArray[np.float32]:
    """Points (N, 2), x before y, of the centres of grid = (h, w) patches over a framed picture of
    (T_h, T_w) pixels.

    As SAM counts them, half a pixel before the centre: its prompt encoder adds the half.
    """
    down, across = (
        ((2 * np.arange(patches) + 1) * pixels - patches) / (2 * patches)
        for patches, pixels in zip(grid, framed, strict=True)
    )
    x, y = np.meshgrid(across, down)
    return np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)


def decode(
    sam: Sam, embedding: Tensor, points: Tensor, labels: Tensor, *, multimask: bool = False
) -> tuple[Tensor, Tensor]:
    """Mask logits (K, l, l) over SAM's frame, and predicted IoUs (K,), of K prompts at once.

    embedding: (1, C, g, g) of one picture. points: (m, 2), which all prompts share, or (K, m, 2).
    labels: (K, m)
    int64, 1 for a point on the object and 0 beside it. (Prompts padded to a common length would
    have other masks.) multimask: of SAM's three masks for an ambiguous prompt the one with the
    largest predicted IoU, the first on ties, and not its single mask. Raises UserError for masks
    that are not finite.
    """
    decoded = sam.model(
        image_embeddings=embedding,
        input_points=points.expand(1, len(labels), -1, -1),
        input_labels=labels[None],
        multimask_output=multimask,
    )
    masks, ious = decoded.pred_masks[0], decoded.iou_scores[0]
    if not (masks.isfinite().all() and ious.isfinite().all()):
        raise UserError(f"method.sam: {sam.label} makes masks of NaN or infinity; {CURE}")
    best = ious.argmax(dim=1)
    each = torch.arange(len(labels), device=best.device)
    return masks[each, best], ious[each, best]


def _check_keys(weights: Path, keys: Mapping[str, Collection[str | tuple[object, ...]]]) -> None:
    """Raise UserError where the file's tensors are not those of the model of config.json."""
    for what, fault in (
        ("missing_keys", "missing"),
        ("unexpected_keys", "unknown"),
        ("mismatched_keys", "of another shape"),
    ):
        if some := keys[what]:
            (first, *_) = sorted(key if isinstance(key, str) else str(key[0]) for key in some)
            raise UserError(
                f"{weights}: not the weights of {CONFIG} beside it: "
                f"{counted(len(some), 'tensor')} {fault}, as {first}; {CURE}"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' progress bars and reports off the terminal: errors say what matters."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
