"""The last block on patches purified of outliers and averaged over like ones: SC-CLIP and SFP.

Shapes as in vision.py. X_l is the output of block l, P_l its patches, of which [CLS] is no part.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cliptrase.config.method_attention import Attention
from cliptrase.model import vision
from cliptrase.model.affinity import (
    attention_sinks,
    averaged,
    centred_attention,
    cosines,
    local_outliers,
    repaired,
    thresholded,
)


def sc_clip(original: vision.Original, blocks: range, attention: Attention) -> Tensor:
    """Tokens (B, L, D) of SC-CLIP (Self-Calibrated CLIP, 2025): a₁ + a₂ of `_purified`.

    Outliers are patches of P_11 with a large local outlier factor (`local_outliers`), and both
    paths attend by ½[C + softmax(s·k·kᵀ)], C of S9 as it is.
    """
    before = original.entering(blocks.start)[:, 1:]
    outliers = local_outliers(before, attention.outlier_quantile)
    similar = cosines(_repaired_inner(original, 9, outliers))
    return _purified(original, blocks, attention, outliers, similar, ("kk",), ("kk",))


def sfp(original: vision.Original, blocks: range, attention: Attention) -> Tensor:
    """Tokens (B, L, D) of SFP (Feature Purification Matters, ICCV 2025): a₁ + a₂ of `_purified`.

    Outliers are patches that draw CLIP's own attention in block 11, its mean over heads
    (`attention_sinks`). a₁ attends by ⅓[C + softmax(s·k·kᵀ) + softmax(s·q·qᵀ)], a₂ by C alone, C
    of S9 with its entries below 0.4 (`similarity_threshold`) set to 0.
    """
    attended = original.attention(original.clip.inner_index(11))
    outliers = attention_sinks(attended, attention.most_outliers)
    similar = cosines(_repaired_inner(original, 9, outliers))
    similar = thresholded(similar, attention.similarity_threshold)
    return _purified(original, blocks, attention, outliers, similar, ("qq", "kk"), ())


def _repaired_inner(original: vision.Original, block: int, outliers: Tensor) -> Tensor:
    return repaired(_output(original, block)[:, 1:], outliers, original.grid)


def _output(original: vision.Original, block: int) -> Tensor:
    """X (B, L, D) of a `block`, counted as in a 12-block model."""
    return original.entering(original.clip.inner_index(block) + 1)


def _purified(
    original: vision.Original,
    blocks: range,
    attention: Attention,
    outliers: Tensor,
    similar: Tensor,
    terms: Sequence[str],
    terms_of_sum: Sequence[str],
) -> Tensor:
    """Patches a₁ + a₂, and [CLS] of the unmodified model: tokens (B, L, D).

    a₁ = agg(S4, att(agg(S9, fix(P_11))) + 0.3·CLS of X_11)
    a₂ = agg(S4, att(patches of R) + 0.3·CLS of R), R = X_4 + … + X_10

    fix mends the `outliers` (B, N) (`repaired`), agg averages over like patches (`averaged`), S4 is
    the cosine of P_4, S9 (B, N, N) is `similar`, that of fix(P_9). att(T) is the output projection
    of the mean of C·v and softmax(s·a·bᵀ)·v for each term ab, C = `centred_attention` of S9, and
    q, k, v those of T in the last block: `terms` in a₁, `terms_of_sum` in a₂. 0.4 and 0.3 are
    `similarity_threshold` and `cls_share`.
    """
    clip, last, threshold = original.clip, blocks.start, attention.similarity_threshold
    before = original.entering(last)
    near = original.once("cosines of block 4", lambda: cosines(_output(original, 4)[:, 1:]))
    centred = centred_attention(similar).unsqueeze(1)

    def attended(parts: vision.QKV, terms: Sequence[str]) -> Tensor:
        mixed = (centred @ parts.v).transpose(1, 2).flatten(2)
        if terms:
            mixed = mixed + vision.attend(parts, "softmax", terms)
        mixed = mixed / (1 + len(terms))
        return vision.finish(clip, last, before, mixed, residual=False, ffn=False)

    def path(parts: vision.QKV, terms: Sequence[str], cls: Tensor) -> Tensor:
        out = attended(parts, terms) + attention.cls_share * cls
        return averaged(out, near, threshold)

    mended = averaged(repaired(before[:, 1:], outliers, original.grid), similar, threshold)
    total = vision.summed(original, clip.inner_index(4), clip.inner_index(10))
    of_total = original.once("q, k, v of the sum", lambda: vision.qkv(clip, last, total[:, 1:]))
    patches = path(vision.qkv(clip, last, mended), terms, before[:, :1])
    patches = patches + path(of_total, terms_of_sum, total[:, :1])
    return torch.cat([original.entering(blocks.stop)[:, :1], patches], dim=1)
