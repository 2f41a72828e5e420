"""The last block's values mixed by how like the patches of a second network are: ProxyCLIP; and
once more by what SAM's patches attend to: Trident.

Shapes as in vision.py; N' = h'·w' patches of the second network.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from cliptrase.config.method import Backbone
from cliptrase.config.method_attention import Attention
from cliptrase.model import vision
from cliptrase.model.affinity import centred_attention, cosines
from cliptrase.model.sam import Sam, frame, last_block

TIMES = 1.2  # the mean similarity: less alike patches are not attended to
MOST = 0.9  # that Trident asks of two patches' values


def proxyclip(
    original: vision.Original, blocks: range, attention: Attention, dino: Backbone
) -> vision.Mixed:
    """Tokens on the grid of the network `dino` (ProxyCLIP, ECCV 2024), [CLS] of the unmodified
    model: `proxied` by the cosines of that network's last patch tokens."""
    patches, grid = _by_dino(original, blocks, dino)
    cls = original.entering(blocks.stop)[:, :1]
    return vision.Mixed(torch.cat([cls, patches], dim=1), grid)


def trident(
    original: vision.Original, blocks: range, attention: Attention, dino: Backbone, sam: Backbone
) -> vision.Mixed:
    """Tokens on the grid of SAM (Trident, ICCV 2025, without its SAM refinement of the label map),
    [CLS] of the unmodified model: patches of `proxyclip`, resized bilinearly to the grid of SAM,
    and there Â·z, Â of `refining`.

    Of a picture in windows z is their mean on CLIP's grid, to which it is resized before, and [CLS]
    is theirs; the mean similarity is of all windows.
    """
    patches, grid = _by_dino(original, blocks, dino)
    cls, pictures = original.entering(blocks.stop)[:, :1], original.seen()
    if original.windows is not None:
        patches = mean_of_windows(vision.regridded(patches, grid, original.grid), original)
        cls, grid = cls.mean(dim=0, keepdim=True), original.windows.grid
        pictures = original.windows.pixels[None]
    network, refined = original.network(sam), []
    for tokens, pixels in zip(patches, pictures, strict=True):
        weights, fine = refining(network, *frame(pixels, network.side))
        refined.append(weights @ vision.regridded(tokens[None], grid, fine)[0])
    return vision.Mixed(torch.cat([cls, torch.stack(refined)], dim=1), fine)


def refining(sam: Sam, framed: Tensor, size: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    """Â (N, N) of a framed picture, rows sum to 1, and the grid of its N patches (`last_block`).

    With a_h what SAM's patches attend to in its last block, u_h their values, Σ_h the cosines of
    u_h: Â is the mean over heads of a_h where Σ_h > θ, else 0, its rows divided by their sums; θ_i
    the smaller of 0.9 and 1.2 times the mean of Σ_h,ij over heads and j. A row of zeros keeps its
    diagonal.
    """
    grid, values, attended = last_block(sam, framed, size)
    unit = F.normalize(values, dim=-1)
    mean = (unit @ unit.mean(dim=1).unsqueeze(2)).mean(dim=0)  # (N, 1)
    least = (TIMES * mean).clamp_max(MOST)
    total = torch.zeros(len(mean), len(mean), device=mean.device)
    for each, attention in zip(unit, attended, strict=True):
        total += attention.masked_fill_(each @ each.T <= least, 0)
    total.diagonal().masked_fill_(total.sum(dim=1) == 0, 1)
    return total / total.sum(dim=1, keepdim=True), grid


def _by_dino(
    original: vision.Original, blocks: range, dino: Backbone
) -> tuple[Tensor, tuple[int, int]]:
    """`proxied` (B, N', D) by the cosines of the last patch tokens of `dino`, and their grid."""
    tokens, prefix = original.dino(dino), original.network(dino).prefix
    similar, together = cosines(tokens.final[:, prefix:]), original.windows is not None
    weights = centred_attention(similar, TIMES, together)
    return proxied(original, blocks.start, weights, tokens.grid), tokens.grid


def proxied(
    original: vision.Original,
    index: int,
    weights: Tensor,
    grid: tuple[int, int],
    tokens: Tensor | None = None,
) -> Tensor:
    """OP(A·v) (B, N', D) in block `index`: A (B, N', N') are the `weights` of all heads, v the
    values of CLIP's patches, resized bilinearly to the `grid` of A. No residual, no FFN.

    tokens: (B, L, D), in the place of those that enter the block.
    """
    clip = original.clip
    parts = original.qkv(index) if tokens is None else vision.qkv(clip, index, tokens)
    values = parts.v[:, :, 1:].transpose(1, 2).flatten(2)
    mixed = weights @ vision.regridded(values, original.grid, grid)
    return vision.finish(original.clip, index, mixed, mixed, residual=False, ffn=False)


def mean_of_windows(patches: Tensor, original: vision.Original) -> Tensor:
    """Patches (1, N, D) of the picture whose windows have `patches` (B, n, D): where windows
    overlap their mean."""
    windows = original.windows
    assert windows is not None
    total = patches.new_zeros(*windows.grid, patches.shape[2] + 1)
    rows, columns = original.grid
    counted = F.pad(patches, (0, 1), value=1).unflatten(1, original.grid)
    for (top, left), each in zip(windows.corners, counted, strict=True):
        total[top : top + rows, left : left + columns] += each
    total = total.flatten(0, 1)
    return (total[:, :-1] / total[:, -1:])[None]
