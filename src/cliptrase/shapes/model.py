"""The embedded CLIP: its shape, its two encoders as training needs them, and its checkpoint.

It is open_clip's own CLIP class. Training knows only the few tokens that captions use, sees only
some of the patches and stops text at the longest caption; the checkpoint hides all of that.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file, save
from torch import Tensor

from cliptrase.config.weights import CONFIG, WEIGHTS
from cliptrase.files import atomic_write, write_text
from cliptrase.shapes import captions

VOCABULARY = 49_408  # rows of open_clip's tokenizer
SIZE, PATCH = 224, 16
GRID = SIZE // PATCH
TEXT = {"context_length": 77, "vocab_size": VOCABULARY, "width": 128, "heads": 2, "layers": 2}
MEAN, STD = OPENAI_DATASET_MEAN, OPENAI_DATASET_STD


@dataclass(frozen=True)
class Tower:
    """The image tower: its blocks, their width, and the width of a head."""

    layers: int = 6
    width: int = 192
    head_width: int = 64


def config(tower: Tower) -> dict[str, Any]:
    """The open_clip_config.json of the model."""
    vision = asdict(tower) | {"image_size": SIZE, "patch_size": PATCH}
    shapes = {"embed_dim": 128, "quick_gelu": True, "vision_cfg": vision, "text_cfg": TEXT}
    colours = {"mean": list(MEAN), "std": list(STD)}
    resizing = {"interpolation": "bicubic", "resize_mode": "shortest"}
    return {"model_cfg": shapes, "preprocess_cfg": {**colours, **resizing}}


def to_patches(image: np.ndarray) -> np.ndarray:
    """(16·g, 16·g, 3) uint8 -> (g·g, 768), in the order of the patch convolution's weight."""
    grid = len(image) // PATCH
    cut = image.reshape(grid, PATCH, grid, PATCH, 3).transpose(0, 2, 4, 1, 3)
    return cut.reshape(grid * grid, 3 * PATCH * PATCH)


def from_patches(patches: np.ndarray) -> np.ndarray:
    """(196, 768) -> (224, 224, 3): what `to_patches` undoes."""
    tiles = patches.reshape(GRID, GRID, 3, PATCH, PATCH).transpose(0, 3, 1, 4, 2)
    return tiles.reshape(SIZE, SIZE, 3)


class CaptionTokenizer:
    """The tokenizer over the few tokens that captions can have: ids there <-> rows here."""

    def __init__(self) -> None:
        self._tokenizer = SimpleTokenizer()
        self.used = torch.unique(self._tokenizer(captions.every_text()))  # sorted: EOT stays last

    def __call__(self, texts: list[str]) -> Tensor:
        """Rows (B, longest text) of the compact vocabulary; ValueError for an unforeseen token."""
        ids = self._tokenizer(texts)
        ids = ids[:, : int(ids.argmax(dim=1).max()) + 1].contiguous()
        rows = torch.searchsorted(self.used, ids).clamp_max(len(self.used) - 1)
        if not torch.equal(self.used[rows], ids):
            raise ValueError("a text has a token that captions.every_text() does not list")
        return rows


def new_model(tokenizer: CaptionTokenizer, seed: int, tower: Tower) -> CLIP:
    """open_clip's CLIP with random weights and only the used rows of its vocabulary."""
    torch.manual_seed(seed)
    text = TEXT | {"vocab_size": len(tokenizer.used)}
    return CLIP(**config(tower)["model_cfg"] | {"text_cfg": text})


def tower_of(model: CLIP) -> Tower:
    """The shape of a model's image tower."""
    blocks, width = model.visual.transformer.resblocks, len(model.visual.class_embedding)
    return Tower(len(blocks), width, width // blocks[0].attn.num_heads)


def positions(model: CLIP, grid: int) -> Tensor:
    """Position embeddings (g·g, D) of patches, resized where the grid is not the model's own, as
    `cliptrase.model.vision.resized` does, with gradients."""
    own = model.visual.positional_embedding[1:]
    if grid == GRID:
        return own
    table = own.view(1, GRID, GRID, -1).permute(0, 3, 1, 2)
    larger = F.interpolate(table, scale_factor=(grid + 0.1) / GRID, mode="bicubic")
    return larger[0].flatten(1).T


def encode_patches(
    model: CLIP,
    patches: Tensor,
    at: Tensor,
    *,
    grid: int = GRID,
    waits: Tensor | None = None,
) -> Tensor:
    """[CLS] embeddings (B, 128) from some of the patches: uint8 (B, n, 768) at positions (B, n).

    The patch convolution is a matrix product here. Equal to model.encode_image on all 196.
    waits (B,): how many blocks leave [CLS] as it is before it begins to read; None: none.
    """
    visual = model.visual
    mean = torch.tensor(MEAN).mul(255).repeat_interleave(PATCH * PATCH)
    scale = torch.tensor(STD).mul(255).repeat_interleave(PATCH * PATCH).reciprocal()
    tokens = F.linear((patches.float() - mean) * scale, visual.conv1.weight.flatten(1))
    tokens = tokens + positions(model, grid)[at]
    cls = (visual.class_embedding + visual.positional_embedding[0]).expand(len(at), 1, -1)
    tokens = visual.ln_pre(torch.cat([cls, tokens], dim=1))
    if waits is None:
        tokens = visual.transformer(tokens)
    else:
        for index, block in enumerate(visual.transformer.resblocks):
            after = block(tokens)
            reads = (waits <= index)[:, None, None]
            cls = torch.where(reads, after[:, :1], tokens[:, :1])
            tokens = torch.cat([cls, after[:, 1:]], dim=1)
    return visual.ln_post(tokens[:, 0]) @ visual.proj


def encode_rows(model: CLIP, rows: Tensor) -> Tensor:
    """Text embeddings (B, 128) of rows (B, n). The causal mask makes shorter contexts exact."""
    length = rows.shape[1]
    tokens = model.token_embedding(rows) + model.positional_embedding[:length]
    tokens = model.transformer(tokens, attn_mask=model.attn_mask[:length, :length])
    last = tokens[torch.arange(len(rows)), rows.argmax(dim=1)]
    return model.ln_final(last) @ model.text_projection


def export(model: CLIP, tokenizer: CaptionTokenizer, folder: Path) -> None:
    """Write open_clip's `local-dir:` layout: fp16, rows of no caption zero, all 49,408 there."""
    state = {key: value.detach().half().contiguous() for key, value in model.state_dict().items()}
    rows = torch.zeros(VOCABULARY, state["token_embedding.weight"].shape[1], dtype=torch.float16)
    rows[tokenizer.used] = state["token_embedding.weight"]
    state["token_embedding.weight"] = rows
    state.pop("attn_mask", None)
    write_text(folder / CONFIG, json.dumps(config(tower_of(model)), indent=2) + "\n")
    with atomic_write(folder / WEIGHTS) as file:
        file.write(save(state))


def imported(model: CLIP, tokenizer: CaptionTokenizer, folder: Path) -> None:
    """Give a model of the same shape the weights that `export` wrote, as fp16 has them."""
    state = load_file(folder / WEIGHTS)
    state["token_embedding.weight"] = state["token_embedding.weight"][tokenizer.used]
    model.load_state_dict(state)
