"""The last block's values mixed by how like the patches of a second network are: ProxyCLIP.

Shapes as in vision.py; N' = h'·w' patches of the second network.
"""

import torch
from torch import Tensor

from cliptrase.config.method import Attention, Backbone
from cliptrase.model import vision
from cliptrase.model.affinity import centred_attention, cosines

TIMES = 1.2  # the mean similarity: less alike patches are not attended to


def proxyclip(
    original: vision.Original, blocks: range, attention: Attention, dino: Backbone
) -> vision.Mixed:
    """Tokens on the grid of the network `dino` (ProxyCLIP, ECCV 2024), [CLS] of the unmodified
    model: `proxied` by the cosines of that network's last patch tokens."""
    grid = original.dino(dino).grid
    prefix = original.network(dino).prefix
    weights = centred_attention(cosines(original.dino(dino).final[:, prefix:]), TIMES)
    patches = proxied(original, blocks.start, weights, grid)
    cls = original.entering(blocks.stop)[:, :1]
    return vision.Mixed(torch.cat([cls, patches], dim=1), grid)


def proxied(
    original: vision.Original, index: int, weights: Tensor, grid: tuple[int, int]
) -> Tensor:
    """OP(A·v) (B, N', D) in block `index`: A (B, N', N') are the `weights` of all heads, v CLIP's
    values of patches, resized bilinearly to the `grid` of A. No residual, no FFN."""
    values = original.qkv(index).v[:, :, 1:].transpose(1, 2).flatten(2)
    mixed = weights @ vision.regridded(values, original.grid, grid)
    return vision.finish(original.clip, index, mixed, mixed, residual=False, ffn=False)
