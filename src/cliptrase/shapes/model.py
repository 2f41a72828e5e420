"""The embedded CLIP: its shape, its two encoders as training needs them, and its checkpoint.

It is open_clip's own CLIP class. Training knows only the few tokens that captions use, sees only
some of the patches and stops text at the longest caption; the checkpoint hides all of that.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save
from torch import Tensor

from cliptrase.config.weights import CONFIG, WEIGHTS
from cliptrase.files import atomic_write, write_text
from cliptrase.shapes import captions

VOCABULARY = 49_408  # rows of open_clip's tokenizer
SIZE, PATCH, WIDTH = 224, 16, 192
GRID = SIZE // PATCH
VISION = {"image_size": SIZE, "layers": 6, "width": WIDTH, "head_width": 64, "patch_size": PATCH}
TEXT = {"context_length": 77, "vocab_size": VOCABULARY, "width": 128, "heads": 2, "layers": 2}
MEAN, STD = OPENAI_DATASET_MEAN, OPENAI_DATASET_STD


def config() -> dict[str, Any]:
    """The open_clip_config.json of the model."""
    shapes = {"embed_dim": 128, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT}
    colours = {"mean": list(MEAN), "std": list(STD)}
    resizing = {"interpolation": "bicubic", "resize_mode": "shortest"}
    return {"model_cfg": shapes, "preprocess_cfg": {**colours, **resizing}}


def to_patches(image: np.ndarray) -> np.ndarray:
    """(224, 224, 3) uint8 -> (196, 768) uint8, in the order of the patch convolution's weight."""
    cut = image.reshape(GRID, PATCH, GRID, PATCH, 3).transpose(0, 2, 4, 1, 3)
    return cut.reshape(GRID * GRID, 3 * PATCH * PATCH)


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


def new_model(tokenizer: CaptionTokenizer, seed: int) -> CLIP:
    """open_clip's CLIP with random weights and only the used rows of its vocabulary."""
    torch.manual_seed(seed)
    text = TEXT | {"vocab_size": len(tokenizer.used)}
    return CLIP(**config()["model_cfg"] | {"text_cfg": text})


def encode_patches(model: CLIP, patches: Tensor, at: Tensor) -> Tensor:
    """[CLS] embeddings (B, 128) from some of the patches: uint8 (B, n, 768) at positions (B, n).

    The patch convolution is a matrix product here. Equal to model.encode_image on all 196.
    """
    visual = model.visual
    mean = torch.tensor(MEAN).mul(255).repeat_interleave(PATCH * PATCH)
    scale = torch.tensor(STD).mul(255).repeat_interleave(PATCH * PATCH).reciprocal()
    tokens = F.linear((patches.float() - mean) * scale, visual.conv1.weight.flatten(1))
    tokens = tokens + visual.positional_embedding[1:][at]
    cls = (visual.class_embedding + visual.positional_embedding[0]).expand(len(at), 1, -1)
    tokens = visual.transformer(visual.ln_pre(torch.cat([cls, tokens], dim=1)))
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
    write_text(folder / CONFIG, json.dumps(config(), indent=2) + "\n")
    with atomic_write(folder / WEIGHTS) as file:
        file.write(save(state))
