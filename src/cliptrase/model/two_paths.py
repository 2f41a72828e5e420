"""Methods of two paths: a new one beside CLIP's own, fed by the original path's q, k and v.

The new path starts from the tokens entering the first changed block and adds what each block's
changed attention makes, without FFN; the original path runs as in CLIP. Shapes as in vision.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cliptrase.model import vision
from cliptrase.model.load import Clip


class Step(NamedTuple):
    """One block of the original path."""

    block: int  # 0-based index
    tokens: Tensor  # (B, L, D) entering it
    parts: vision.QKV  # of them


def clip_surgery(clip: Clip, steps: Sequence[Step], out: Tensor, terms: Sequence[str]) -> Tensor:
    """Tokens (B, L, D): patches of the new path, [CLS] of `out`, the original path's last output.

    The new path attends by softmax(s·v·vᵀ), or by the sum of other `terms` (CLIP Surgery).
    """
    path = steps[0].tokens
    for index, _, parts in steps:
        mixed = vision.attend(parts, "softmax", terms)
        path = vision.finish(clip, index, path, mixed, residual=True, ffn=False)
    return torch.cat([out[:, :1], path[:, 1:]], dim=1)


def gem(clip: Clip, steps: Sequence[Step], terms: Sequence[str]) -> Tensor:
    """Tokens (B, L, D) of the new path, [CLS] too; `terms` of qq, kk, vv (GEM)."""
    path = steps[0].tokens
    for index, tokens, parts in steps:
        mixed = self_self(parts, temperature(clip, index, tokens), terms)
        path = vision.finish(clip, index, path, mixed, residual=True, ffn=False)
    return path


def temperature(clip: Clip, index: int, tokens: Tensor) -> Tensor:
    """τ (B,) of block `index`: d^-½ times the mean norm of all its normalised input tokens."""
    width = tokens.shape[-1] / clip.blocks[index].attn.num_heads
    return clip.blocks[index].ln_1(tokens).norm(dim=-1).mean(dim=-1) * width**-0.5


def self_self(parts: vision.QKV, tau: Tensor, terms: Sequence[str]) -> Tensor:
    """Values mixed by the mean of self-self attentions: (B, L, D), before the output projection.

    Each p of q, k, v: p̂ ← p/‖p‖, once p̂ ← softmax(τ·p̂·p̂ᵀ)·p̂ normalised, then softmax(τ·p̂·p̂ᵀ).
    """
    tau = tau.view(-1, 1, 1, 1)
    mixed = torch.zeros_like(parts.v)
    for term in vision.sorted_terms(terms):
        p = F.normalize(getattr(parts, term[0]), dim=-1)
        p = F.normalize(F.scaled_dot_product_attention(tau * p, p, p, scale=1.0), dim=-1)
        mixed = mixed + F.scaled_dot_product_attention(tau * p, p, parts.v, scale=1.0)
    return (mixed / len(terms)).transpose(1, 2).flatten(2)
