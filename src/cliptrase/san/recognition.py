"""What a mask shows, asked of CLIP itself: copies of [CLS] that look where the mask's bias says.

A copy, [SLS], is put beside CLIP's tokens in its last blocks. It sees itself and the patches, these
with a bias, and neither [CLS] nor another copy; CLIP's own tokens see no copy. SAN adds −100 for
what is not seen, whose weight float32 rounds to nothing (e^−100 ≈ 4·10⁻⁴⁴): here it is left out,
and CLIP's own tokens stay as they are, to the bit.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cliptrase.model import vision
from cliptrase.model.load import Clip


def recognise(
    clip: Clip, entering: Sequence[Tensor], bias: Tensor, grid: tuple[int, int]
) -> Tensor:
    """[SLS] (B, Q, E) in the joint space, normalised.

    entering: CLIP's tokens (B, 1 + N, D) that enter each of its last blocks. bias (B, heads, Q, h,
    w): of any size, brought to CLIP's `grid` by adaptive max pooling.
    """
    if bias.shape[3:] != grid:
        bias = F.adaptive_max_pool2d(bias.flatten(1, 2), grid).unflatten(1, bias.shape[1:3])
    bias = bias.flatten(3)  # (B, heads, Q, N)
    first = clip.depth - len(entering)
    sls = entering[0][:, :1].expand(-1, bias.shape[2], -1)
    for index, tokens in enumerate(entering, start=first):
        of_clip, own = vision.qkv(clip, index, tokens), vision.qkv(clip, index, sls)
        keys, values = of_clip.k[:, :, 1:], of_clip.v[:, :, 1:]
        scaled = own.q * own.q.shape[3] ** -0.5
        itself = (scaled * own.k).sum(dim=3, keepdim=True)
        weights = torch.cat([itself, scaled @ keys.transpose(2, 3) + bias], dim=3).softmax(dim=3)
        mixed = weights[..., :1] * own.v + weights[..., 1:] @ values
        sls = vision.finish(clip, index, sls, mixed.transpose(1, 2).flatten(2))
    return F.normalize(vision.project(clip, sls), dim=-1)
