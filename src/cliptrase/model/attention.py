"""Attention replaced in place: the blocks run one after the other, each with another attention."""

from torch import Tensor

from cliptrase.config.schema import Attention
from cliptrase.model import vision


def in_place(original: vision.Original, blocks: range, attention: Attention) -> Tensor:
    """Tokens (B, L, D) after `blocks`, which attend as `vision.attend` says of the kind."""
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
