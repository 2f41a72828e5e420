"""How alike patches are: correlation of one block's queries, keys, values, and its denoising."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cliptrase.model.vision import QKV


def correlation(parts: QKV, kind: str) -> Tensor:
    """W (B, L, L): mean over heads of a third of the correlations of q, k and v, [CLS] included.

    kind "cosine": cos(q_i, q_j) and so on (Eq. 3, as released); "inner_product": q_i·q_j unscaled.
    One matrix product of everything concatenated: the released code's broadcast costs far more.
    """
    if kind == "cosine":
        parts = QKV(*(F.normalize(part, dim=-1) for part in parts))
    wide = torch.cat([part.transpose(1, 2).flatten(2) for part in parts], dim=-1)
    return wide @ wide.transpose(1, 2) / (3 * parts.q.shape[1])


def patch_rows(w: Tensor, denoise: str) -> Tensor:
    """M (B, N, N): the patch-patch part of W (B, 1 + N, 1 + N).

    denoise "cls": column j loses cos(CLS, j) and is clamped at 0 (released code); "none": as it is.
    """
    if denoise == "cls":
        return (w[:, 1:, 1:] - w[:, :1, 1:]).clamp_min(0)
    return w[:, 1:, 1:].contiguous()
