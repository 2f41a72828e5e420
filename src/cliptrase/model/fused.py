"""The last block on the output of every block, by the attention of all of them: CLIPer.

Shapes as in vision.py.
"""

from typing import NamedTuple

from torch import Tensor

from cliptrase.config.method_attention import Attention
from cliptrase.model import vision


class Fused(NamedTuple):
    """layers: of every block the tokens (B, L, D) that the last block's attention makes of it.
    attention: (B, L, L), that of the last of them, mean over heads, rows sum to 1."""

    layers: list[Tensor]
    attention: Tensor


def cliper(original: vision.Original, blocks: range, attention: Attention) -> Tensor:
    """Tokens (B, L, D) of the last layer of `fused`: CLIPer's features without earlier layers."""
    return fused(original).layers[-1]


def fused(original: vision.Original) -> Fused:
    """Early-layer fusion of CLIPer (ICCV 2025, section 3.2; its code where that says more).

    Per head, A = Σ softmax(s·q·kᵀ) of CLIP's own blocks 1 to 11. For each block in turn A is
    divided by its column sums, then by its row sums, on top of the rounds before, and B is
    `contrasted(A)`. A layer is the output projection of B·v, v the last block's values of LN1 of
    the tokens entering that block (its own LN1); for the last block, of the tokens as they enter.
    No residual, no FFN.
    """
    return original.once("fused attention", lambda: _fused(original))


def _fused(original: vision.Original) -> Fused:
    clip, last = original.clip, original.clip.block_index(12)
    each = range(clip.inner_index(1), clip.inner_index(11) + 1)
    total = _attention(original, each[0])
    for index in each[1:]:  # in turn: a sum over a stack rounds by the batch's size
        total += _attention(original, index)
    layers = []
    for index in range(clip.depth):
        tokens = original.entering(index)
        if index < last:
            tokens = clip.blocks[index].ln_1(tokens)
            values = vision.values(clip, last, tokens)
        else:
            values = original.qkv(last).v
        total /= total.sum(dim=2, keepdim=True)
        total /= total.sum(dim=3, keepdim=True)
        weights = contrasted(total)
        mixed = (weights @ values).transpose(1, 2).flatten(2)
        layers.append(vision.finish(clip, last, tokens, mixed, residual=False, ffn=False))
    return Fused(layers, weights.mean(dim=1))


def _attention(original: vision.Original, index: int) -> Tensor:
    q, k, _ = original.qkv(index)
    return vision.softmax_weights(q, k)


def contrasted(attention: Tensor) -> Tensor:
    """B (B, H, L, L), rows sum to 1: (A + Aᵀ)/2 less the means of its columns, entries below 0
    set to 0, rows divided by their sums. A token above no mean attends to itself."""
    above = attention + attention.transpose(2, 3)  # twice that: the rows are scaled anyway
    above -= above.mean(dim=2, keepdim=True)
    above.clamp_min_(0)
    sums = above.sum(dim=3, keepdim=True)
    empty = (sums == 0).to(above.dtype)
    above.diagonal(dim1=2, dim2=3).add_(empty.squeeze(3))
    return above.div_(sums + empty)
