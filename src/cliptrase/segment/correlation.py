"""How alike patches are: correlation of one block's queries, keys, values, and its denoising."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cliptrase.model.vision import joined

ROUNDING = 1e-6  # of float32, relative: what Eq. 7 may miss by


def correlation(parts: Sequence[Tensor], kind: str, heads: str = "mean") -> Tensor:
    """W (B, L, L): the mean correlation of `parts`, each (B, H, L, d): q, k and v, [CLS] included.

    kind "cosine": cos(q_i, q_j) and so on (Eq. 3, as released); "inner_product": q_i·q_j unscaled.
    heads "mean": of every head, averaged; "concatenated": of all heads in a row (Eq. 12 to 14).
    One matrix product of everything concatenated: the released code's broadcast costs far more.
    """
    wide = torch.cat([joined(part, kind, heads) for part in parts], dim=-1)
    over = parts[0].shape[1] if heads == "mean" else 1
    return wide @ wide.transpose(1, 2) / (len(parts) * over)


def patch_part(w: Tensor) -> Tensor:
    """M (B, N, N): the patch-patch part of W (B, 1 + N, 1 + N), as it is."""
    return w[:, 1:, 1:].contiguous()


def less_cls(w: Tensor) -> Tensor:
    """M (B, N, N) of W (B, 1 + N, 1 + N): column j loses cos(CLS, j) and is clamped at 0 (released
    code)."""
    return (w[:, 1:, 1:] - w[:, :1, 1:]).clamp_min(0)


def eq7_kept(rows: Tensor) -> Tensor:
    """Patches (B, N) bool that Eq. 7 keeps, of W's patch-patch part (B, N, N): those with
    mean_j(w_ij) − w_ii ≤ 0.

    A cosine's diagonal is the maximum of its row, so that with kind "cosine" every patch is kept,
    equal patches too: float32 rounding is no reason to drop one.
    """
    exact = rows.double()
    own = exact.diagonal(dim1=1, dim2=2)
    return exact.mean(dim=2) - own <= ROUNDING * own.abs()
