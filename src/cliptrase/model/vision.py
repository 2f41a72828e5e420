"""The image tower, block by block: tokens, their queries, keys, values, and changed attention.

Shapes: B images, h × w patches, L = 1 + h·w tokens ([CLS] first), D width, H heads, d = D / H.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cliptrase.config.kinds import TERMS
from cliptrase.errors import UserError
from cliptrase.model.load import Clip
from cliptrase.model.precision import linear

if TYPE_CHECKING:
    from cliptrase.config.method import Backbone
    from cliptrase.model.backbones import Network
    from cliptrase.model.dino import Tokens

T = TypeVar("T")


class QKV(NamedTuple):
    """Queries, keys, values of one block, each (B, H, L, d)."""

    q: Tensor
    k: Tensor
    v: Tensor


class Mixed(NamedTuple):
    """Tokens (B, 1 + h'·w', D), [CLS] first, whose patches lie on a grid of their own."""

    tokens: Tensor
    grid: tuple[int, int]  # h', w'
    normed: bool = False  # whether they are after LN_post


class Windows(NamedTuple):
    """One picture that is seen in windows of equal size, each of which is an image of a batch."""

    corners: Sequence[tuple[int, int]]  # top, left of each, in patches
    grid: tuple[int, int]  # of the picture, in patches
    pixels: NDArray[np.uint8]  # (H, W, 3), the picture


class Original(Protocol):
    """The unmodified model on a batch of images; every block is computed when first asked for."""

    @property
    def clip(self) -> Clip: ...

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""

    @property
    def windows(self) -> Windows | None:
        """How the images are windows of one picture, whose tokens a kind of `whole` pictures then
        returns as one image; None where each is a picture."""

    def entering(self, index: int) -> Tensor:
        """Tokens (B, L, D) entering block `index` (0-based); the last one's output at the depth."""

    def qkv(self, index: int) -> QKV:
        """Queries, keys, values of block `index`."""

    def attention(self, index: int) -> Tensor:
        """What each token attends to in block `index`, mean over heads: (B, L, L), rows sum to
        1."""

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """`make()`, computed once for all that ask for the same `key`."""

    def seen(self) -> NDArray[np.uint8]:
        """The pixels (B, height, width, 3) that CLIP gets, before they are normalised."""

    def network(self, backbone: "Backbone") -> "Network":
        """The loaded network that a method names beside CLIP."""

    def sam_masks(self, backbone: "Backbone") -> Tensor:
        """The masks (B, height, width) int64 that a SAM makes of the pixels that CLIP gets, 0 where
        there is none."""

    def dino(self, backbone: "Backbone") -> "Tokens":
        """What that network, of kind timm, makes of the pixels that CLIP gets."""

    def truth(self, target: str) -> Tensor:
        """Class of every pixel (B, H, W) in the ground truth of a target, −1 where it is ignored:
        what an oracle sees."""


def grid(clip: Clip, pixels: Tensor) -> tuple[int, int]:
    """Rows and columns of patches of `pixels` (B, 3, height, width)."""
    height, width = pixels.shape[-2:]
    if height % clip.patch or width % clip.patch:
        raise UserError(f"{width} × {height} pixels do not divide into patches of {clip.patch}")
    return height // clip.patch, width // clip.patch


def embed_tokens(clip: Clip, pixels: Tensor) -> Tensor:
    """Tokens (B, L, D) entering the first block, of normalised `pixels` (B, 3, height, width)."""
    visual = clip.visual
    rows, columns = grid(clip, pixels)
    patches = visual.conv1(pixels).flatten(2).transpose(1, 2)
    cls = visual.class_embedding.expand(len(pixels), 1, -1)
    tokens = torch.cat([cls, patches], dim=1) + position_embedding(clip, rows, columns)
    return visual.ln_pre(tokens)


def position_embedding(clip: Clip, rows: int, columns: int) -> Tensor:
    """Position embedding (L, D) of a grid, resized where it is not the one trained on."""
    if (rows, columns) not in clip.positions:
        trained = clip.visual.positional_embedding
        rows0, columns0 = clip.visual.grid_size
        clip.positions[rows0, columns0] = trained
        if (rows, columns) != (rows0, columns0):
            patches = resized(trained[1:], (rows0, columns0), (rows, columns))
            clip.positions[rows, columns] = torch.cat([trained[:1], patches])
    return clip.positions[rows, columns]


def resized(table: Tensor, trained: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """A position embedding of patches, of the `trained` grid (N0, D) to another `grid` (N, D).

    Bicubic. The scale given to the resize is (rows + 0.1) / rows0, as in DINO and the released
    code: it, not the rounded size, sets where the embedding is sampled.
    """
    square = F.interpolate(
        table.reshape(1, *trained, -1).permute(0, 3, 1, 2),
        scale_factor=((grid[0] + 0.1) / trained[0], (grid[1] + 0.1) / trained[1]),
        mode="bicubic",
    )
    assert square.shape[-2:] == grid
    return square[0].flatten(1).T


def regridded(patches: Tensor, grid: tuple[int, int], other: tuple[int, int]) -> Tensor:
    """Patches (B, N, D) of a `grid`, resized bilinearly to another one: (B, N', D)."""
    if grid == other:
        return patches
    # each channel by itself: beside others it would round otherwise
    maps = patches.transpose(1, 2).reshape(-1, 1, *grid)
    maps = F.interpolate(maps, size=other, mode="bilinear", align_corners=False)
    return maps.view(len(patches), -1, other[0] * other[1]).transpose(1, 2).contiguous()


def summed(original: Original, first: int, last: int) -> Tensor:
    """Sum of the outputs (B, L, D) of the blocks `first` to `last` (0-based), one after the
    other: a sum over a stack rounds by the batch's size."""

    def make() -> Tensor:
        total = original.entering(first + 1)
        for index in range(first + 1, last + 1):
            total = total + original.entering(index + 1)
        return total

    return original.once(("summed", first, last), make)


def qkv(clip: Clip, index: int, tokens: Tensor) -> QKV:
    """Queries, keys, values of block `index` (0-based) for the `tokens` (B, L, D) entering it."""
    block = clip.blocks[index]
    attn = block.attn
    joint = linear(block.ln_1(tokens), attn.in_proj_weight, attn.in_proj_bias)
    batch, length = tokens.shape[:2]
    q, k, v = joint.view(batch, length, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    return QKV(q, k, v)


def values(clip: Clip, index: int, tokens: Tensor) -> Tensor:
    """Values (B, H, L, d) alone of block `index` for the `tokens` (B, L, D) entering it."""
    block = clip.blocks[index]
    attn, start = block.attn, 2 * tokens.shape[2]
    v = linear(block.ln_1(tokens), attn.in_proj_weight[start:], attn.in_proj_bias[start:])
    return v.unflatten(2, (attn.num_heads, -1)).transpose(1, 2)


def softmax_weights(a: Tensor, b: Tensor) -> Tensor:
    """softmax(a·bᵀ/√d) of each head: (B, H, L, L), rows sum to 1."""
    return torch.softmax(a @ b.transpose(2, 3) * a.shape[3] ** -0.5, dim=3)


def attend(
    parts: QKV,
    kind: str,
    terms: Sequence[str],
    bias: Tensor | None = None,
    row_sum: str | int = "none",
    heads: str = "mean",
    softmax: bool = False,
    within: Tensor | None = None,
) -> Tensor:
    """Values mixed by one attention: (B, L, D), before the output projection.

    softmax: per head, softmax(s·a·bᵀ + bias) of every term ab, summed, not averaged (released
    code); `bias` is (L, L). Its rows sum to the number of terms.
    identity: every token takes its own value (MaskCLIP).
    cosine, inner_product: the mean of the terms' correlations, cos(a_i, b_j) or a_i·b_j unscaled,
    one matrix W that all heads share (Eq. 3, z = W·v): with heads "mean" of every head, and their
    mean; "concatenated": once, of all heads in a row (Eq. 12 to 14). With `softmax`: softmax(s·W).

    row_sum 1 or 3: every row of the attention is scaled so that its magnitudes add up to that;
    "none": as it comes (a choice of its own, for the paper does not say how rows scale).
    within: (B, L, L) bool, the tokens j that token i attends to, None for all. Each softmax is over
    these alone; W without a softmax is 0 elsewhere before its rows are scaled. (Not `identity`, and
    not with a `bias`.) s = d^-½ everywhere.
    """
    chosen = [(getattr(parts, term[0]), getattr(parts, term[1])) for term in sorted_terms(terms)]
    if kind == "softmax":
        mask = bias if within is None else within.unsqueeze(1)
        mixed = F.scaled_dot_product_attention(*chosen[0], parts.v, attn_mask=mask)
        for a, b in chosen[1:]:
            mixed = mixed + F.scaled_dot_product_attention(a, b, parts.v, attn_mask=mask)
        if row_sum != "none":
            mixed = mixed * (float(row_sum) / len(chosen))
    elif kind == "identity":
        mixed = parts.v if row_sum == "none" else parts.v * float(row_sum)
    else:
        over = parts.q.shape[1] if heads == "mean" else 1
        each = [joined(a, kind, heads) @ joined(b, kind, heads).transpose(1, 2) for a, b in chosen]
        weights = torch.stack([term / over for term in each]).mean(dim=0)
        if within is not None:
            weights = weights.masked_fill(~within, -torch.inf if softmax else 0)
        if softmax:
            weights = (weights * parts.q.shape[-1] ** -0.5).softmax(dim=-1)
        if row_sum != "none":
            magnitude = weights.abs().sum(dim=-1, keepdim=True).clamp_min(1e-12)
            weights = weights * (float(row_sum) / magnitude)
        mixed = weights.unsqueeze(1) @ parts.v
    return mixed.transpose(1, 2).flatten(2)


def sorted_terms(terms: Sequence[str]) -> list[str]:
    """The terms in one order, so that the order they were written in changes no sum."""
    return [term for term in TERMS if term in terms]


def neighbourhood(rows: int, columns: int, omega: float, device: torch.device) -> Tensor:
    """exp(−d²/(2·omega²)) of two patches d patches apart, 0 where [CLS] is one of them: (L, L)
    (NACLIP)."""
    near = []
    for side in (rows, columns):
        place = torch.arange(side, device=device, dtype=torch.float32)
        near.append(torch.exp(-((place[:, None] - place) ** 2) / (2 * omega**2)))
    return F.pad(torch.kron(*near), (1, 0, 1, 0))


def joined(part: Tensor, kind: str, heads: str) -> Tensor:
    """`part` (B, H, L, d) as rows (B, L, H·d) of which one matrix product correlates all heads:
    their sum, or with heads "concatenated" that of them in a row."""
    rows = part.transpose(1, 2)
    if heads == "concatenated":
        rows = rows.flatten(2)
    if kind == "cosine":
        rows = F.normalize(rows, dim=-1)
    return rows.flatten(2)


def finish(
    clip: Clip, index: int, tokens: Tensor, mixed: Tensor, residual: bool = True, ffn: bool = True
) -> Tensor:
    """Block `index` after its attention: output projection (its bias once), residual, FFN."""
    block = clip.blocks[index]
    out = block.ls_1(_layer(block.attn.out_proj, mixed))
    if residual:
        out = tokens + out
    if ffn:
        hidden = block.mlp.gelu(_layer(block.mlp.c_fc, block.ln_2(out)))
        out = out + block.ls_2(_layer(block.mlp.c_proj, hidden))
    return out


def _layer(layer: Any, x: Tensor) -> Tensor:
    return linear(x, layer.weight, layer.bias)


def block(clip: Clip, index: int, tokens: Tensor, parts: QKV | None = None) -> Tensor:
    """Block `index` as CLIP runs it; `parts` where its queries, keys, values are already there."""
    parts = qkv(clip, index, tokens) if parts is None else parts
    return finish(clip, index, tokens, attend(parts, "softmax", ["qk"]))


def project(clip: Clip, tokens: Tensor, *, normed: bool = False) -> Tensor:
    """f(x) = LN_post(x)·proj: tokens (B, L, D) in the joint space (B, L, E), not normalised.

    normed: whether they are after LN_post. Raises UserError where they are not finite: fp16's
    largest number is 65504, and weights may be damaged.
    """
    features = (tokens if normed else clip.visual.ln_post(tokens)) @ clip.visual.proj
    if bool(features.isfinite().all()):
        return features
    if clip.precision == "fp16":
        raise UserError(
            f"model.precision=fp16: a number of {clip.label} is beyond 65504, the largest of fp16; "
            "take model.precision=bf16, which goes as far as fp32, or fp32"
        )
    raise UserError(
        f"model {clip.label}: features of an image are not finite; its weights are damaged, "
        "fetch or export them again"
    )
