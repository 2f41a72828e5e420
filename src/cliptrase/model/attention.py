"""Attention kinds: in place, or on a new path beside CLIP's own that adds up changed attention.

A new path starts from the tokens entering the first changed block and adds what each block's
changed attention makes of the original path's q, k and v, without FFN; the original path runs as in
CLIP. Shapes as in vision.py.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cliptrase.config.method_attention import Attention
from cliptrase.model import vision
from cliptrase.model.load import Clip


def in_place(original: vision.Original, blocks: range, attention: Attention) -> Tensor:
    """Tokens (B, L, D) after `blocks`, each with the attention of the kind (`vision.attend`)."""
    clip, tokens = original.clip, original.entering(blocks.start)
    bias = None
    if attention.omega is not None:
        bias = vision.neighbourhood(*original.grid, attention.omega, tokens.device)
    within = None
    if attention.within is not None:
        truth = original.truth(attention.within)
        within = same_region(truth, clip.patch, attention.within_mixed, attention.within_cls)
    scaling = attention.row_sum, attention.heads, attention.softmax
    for index in blocks:
        first = index == blocks.start
        parts = original.qkv(index) if first else vision.qkv(clip, index, tokens)
        mixed = vision.attend(parts, attention.kind, attention.terms, bias, *scaling, within)
        tokens = vision.finish(clip, index, tokens, mixed, attention.residual, attention.ffn)
    return tokens


def resclip(original: vision.Original, blocks: range, attention: Attention) -> Tensor:
    """Tokens (B, L, D) of the last block, whose attention is half that of earlier ones: RCS of
    ResCLIP (CVPR 2025), without its second part, which depends on the words.

    Per head, A = 2·[(1 − λ)·softmax(s·k·kᵀ + ω) + λ·R], R the mean of CLIP's own attention,
    softmax(s·q·kᵀ), in blocks 6 to 9, of the same head; λ is `early_share`, ω that of NACLIP. Of
    several terms the first softmax is the sum. No residual, no FFN.
    """
    clip, last, share = original.clip, blocks.start, attention.early_share
    tokens, parts = original.entering(last), original.qkv(last)

    def early() -> Tensor:
        total, each = torch.zeros_like(tokens), range(clip.inner_index(6), clip.inner_index(9) + 1)
        for index in each:  # one after the other: a sum over a stack rounds by the batch's size
            of_block = original.qkv(index)._replace(v=parts.v)
            total = total + vision.attend(of_block, "softmax", ["qk"])
        return total / len(each)

    bias = None
    if attention.omega is not None:
        bias = vision.neighbourhood(*original.grid, attention.omega, parts.v.device)
    late = vision.attend(parts, "softmax", attention.terms, bias)
    mixed = 2 * ((1 - share) * late + share * original.once("attention of blocks 6 to 9", early))
    return vision.finish(clip, last, tokens, mixed, residual=False, ffn=False)


def same_region(truth: Tensor, patch: int, mixed: str, cls: str) -> Tensor:
    """(B, L, L) bool: whether token i attends to token j, within regions of the ground truth.

    `truth` (B, H, W) whole numbers, −1 where a pixel is ignored; `patch` in pixels. The label of a
    patch is its most frequent value, the ignored one like any other: of equally frequent ones the
    smallest, the ignored one last. mixed "majority": patches of the same label are a region.
    "any": patches attend to one another where they have a value in common that is not ignored; a
    patch of ignored pixels alone goes by the labels. cls "apart": no patch attends to [CLS], which
    attends to all tokens. "kept": it belongs to every region.
    """
    last = torch.iinfo(truth.dtype).max
    values, places = truth.masked_fill(truth < 0, last).unique(return_inverse=True)
    tiles = places.unflatten(2, (-1, patch)).unflatten(1, (-1, patch)).transpose(2, 3)
    tiles = tiles.flatten(3).flatten(1, 2)  # (B, N, patch²)
    counts = torch.zeros(*tiles.shape[:2], len(values), dtype=torch.int32, device=truth.device)
    counts.scatter_add_(2, tiles, torch.ones_like(tiles, dtype=torch.int32))
    labels = counts.argmax(dim=2)  # the first of the most frequent ones
    region = labels.unsqueeze(2) == labels.unsqueeze(1)
    if mixed == "any":
        seen = (counts[:, :, values != last] > 0).float()
        labelled = seen.any(dim=2)
        both = labelled.unsqueeze(2) & labelled.unsqueeze(1)
        region = torch.where(both, seen @ seen.transpose(1, 2) > 0, region)
    region = F.pad(region, (1, 0, 1, 0), value=True)
    if cls == "apart":
        region[:, 1:, 0] = False
    return region


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
