"""A model's shape, read from its JSON, and operations of its parts; torch is not loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cliptrase.config.weights import config_file

OWN_TERMS = {"gem": 2}  # attentions of one term, where a kind is a function of its own


@dataclass(frozen=True)
class Shape:
    """Of the image tower and of the text tower."""

    patch: int
    depth: int
    width: int
    embed: int
    text_depth: int
    text_width: int

    @classmethod
    def of(cls, model: Any) -> Shape:
        """Of a resolved `model`, from the JSON beside its weights or in open_clip."""
        content = json.loads(config_file(model).read_text(encoding="utf-8"))
        content = content.get("model_cfg", content)
        vision, text = content["vision_cfg"], content["text_cfg"]
        return cls(
            patch=int(vision["patch_size"]),
            depth=int(vision.get("layers", 12)),
            width=int(vision.get("width", 768)),
            embed=int(content["embed_dim"]),
            text_depth=int(text.get("layers", 12)),
            text_width=int(text.get("width", 512)),
        )

    def patches(self, size: int) -> int:
        """Of a square image."""
        return (size // self.patch) ** 2

    def parameters(self) -> int:
        """Roughly: the blocks of both towers and the words of CLIP's tokenizer."""
        vision, text = self.depth * self.width**2, self.text_depth * self.text_width**2
        return 12 * (vision + text) + 49408 * self.text_width

    def index(self, block: int) -> int:
        """0-based, of a block that is counted as in a 12-block model, from the end."""
        return self.depth - 13 + block


def block_operations(width: int, tokens: int) -> float:
    """Of one transformer block; a multiplication and an addition are two."""
    return 24.0 * tokens * width**2 + 4.0 * tokens**2 * width


@dataclass(frozen=True)
class Parts:
    """Parts of one block on one image of N patches, in blocks: by their operations."""

    shape: Shape
    patches: int

    @property
    def block(self) -> float:
        """Operations of one block."""
        return block_operations(self.shape.width, self.tokens)

    @property
    def tokens(self) -> int:
        return self.patches + 1

    @property
    def embedding(self) -> float:
        """Patches to tokens."""
        return 6.0 * self.patches * self.shape.patch**2 * self.shape.width / self.block

    @property
    def projection(self) -> float:
        """Tokens to the joint space."""
        return 2.0 * self.tokens * self.shape.width * self.shape.embed / self.block

    @property
    def qkv(self) -> float:
        return 6.0 * self.tokens * self.shape.width**2 / self.block

    def names(self, count: int) -> float:
        """Logits of this many names."""
        return 2.0 * self.patches * self.shape.embed * count / self.block

    def correlation(self) -> float:
        """Of queries, keys and values, in one product."""
        return 6.0 * self.tokens**2 * self.shape.width / self.block

    def distances(self) -> float:
        """Of rows of the correlation: in float64, at half the speed."""
        return 4.0 * self.patches**3 / self.block

    def changed(self, attention: dict[str, Any]) -> float:
        """One block after its queries, keys and values, with another attention."""
        tokens, width = self.tokens, self.shape.width
        terms, kind = max(1, len(attention["terms"])), attention["kind"]
        each = 4.0 * tokens**2 * width * OWN_TERMS.get(kind, 1)
        mixed = 0.0 if kind == "identity" else each * terms
        if kind in ("cosine", "inner_product"):  # one matrix for all heads
            mixed = 2.0 * tokens**2 * width * (terms + 1)
        out = 2.0 * tokens * width**2
        ffn = 16.0 * tokens * width**2 if attention["ffn"] else 0.0
        return (mixed + out + ffn) / self.block
