"""Attention kinds: in place, or on a new path beside CLIP's own that adds up changed attention.

A new path starts from the tokens entering the first changed block and adds what each block's
changed attention makes of the original path's q, k and v, without FFN; the original path runs as in
CLIP. Shapes as in vision.py.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cliptrase.config.schema import Attention
from cliptrase.model import vision
from cliptrase.model.load import Clip


def in_place(original: vision.Original, blocks: range, attention: Attention) -> Tensor:
    """Tokens (B, L, D) after `blocks`, each with the attention of the kind (`vision.attend`)."""
    clip, tokens = original.clip, original.entering(blocks.start)
    bias = None
    if attention.omega is not None:
        bias = vision.neighbourhood(*original.grid, attention.omega, tokens.device)
    for index in blocks:
        first = index == blocks.start
        parts = original.qkv(index) if first else vision.qkv(clip, index, tokens)
        mixed = vision.attend(
            parts, attention.kind, attention.terms, bias, attention.row_sum, attention.heads
        )
        tokens = vision.finish(clip, index, tokens, mixed, attention.residual, attention.ffn)
    return tokens


def clip_surgery(original: vision.Original, blocks: range, attention: Attention) -> Tensor:
    """Tokens (B, L, D): patches of the new path, [CLS] of the original one (CLIP Surgery).

    The new path attends by softmax(s·v·vᵀ), or by the sum of other terms.
    """
    path = original.entering(blocks.start)
    for index in blocks:
        mixed = vision.attend(original.qkv(index), "softmax", attention.terms)
        path = vision.finish(original.clip, index, path, mixed, residual=True, ffn=False)
    return torch.cat([original.entering(blocks.stop)[:, :1], path[:, 1:]], dim=1)


def gem(original: vision.Original, blocks: range, attention: Attention) -> Tensor:
    """Tokens (B, L, D) of the new path, [CLS] too; its terms are of qq, kk, vv (GEM)."""
    path = original.entering(blocks.start)
    for index in blocks:
        tau = temperature(original.clip, index, original.entering(index))
        mixed = self_self(original.qkv(index), tau, attention.terms)
        path = vision.finish(original.clip, index, path, mixed, residual=True, ffn=False)
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
