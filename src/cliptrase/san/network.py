"""SAN's side network: a small ViT beside CLIP that proposes masks and biases CLIP's attention.

Shapes: B pictures, Q queries, h × w patches of the side network, C its width. Layers as in SAN
(arXiv 2302.12242; its released code was read, none of it is used).
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliptrase.san.queries import STD
from cliptrase.san.settings import San

EPS = 1e-6  # of all layer norms of the side network
MLP = 4  # times the width: the hidden layer of a block


class Proposal(NamedTuple):
    """masks (B, Q, h, w): logits. bias (B, heads, Q, h, w): what is added to attention in CLIP."""

    masks: Tensor
    bias: Tensor


class Block(nn.Module):
    """A pre-norm transformer block, as of ViT."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=EPS) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, MLP * width), nn.GELU(), nn.Linear(MLP * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, L, C)."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # plain products: the backward pass of torch's fused attention is slow on a CPU
        weights = (q * q.shape[3] ** -0.5 @ k.transpose(2, 3)).softmax(dim=3)
        x = x + self.out((weights.to(v.dtype) @ v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class Fusion(nn.Module):
    """A block of CLIP's, added to the patches: LayerNorm, a linear layer, resized to their grid."""

    def __init__(self, clip_width: int, width: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(clip_width, eps=EPS), nn.Linear(clip_width, width)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, tokens: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """(B, h·w, C) for patches of `size` (h, w), of CLIP's patches (B, N, D) on their `grid`."""
        maps = self.linear(self.norm(tokens)).transpose(1, 2).unflatten(2, grid)
        if grid != size:
            maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
        return maps.flatten(2).transpose(1, 2)


def mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    """Three linear layers over the last axis; over a map that is SAN's 1 × 1 convolutions."""
    layers = nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
    return nn.Sequential(*layers, nn.Linear(hidden, out))


class Heads(nn.Module):
    """Masks and biases of queries and patches; one map set of biases for all blocks of CLIP."""

    def __init__(self, width: int, hidden: int, clip_heads: int) -> None:
        super().__init__()
        self.clip_heads = clip_heads
        self.query, self.pixel = mlp(width, hidden, hidden), mlp(width, hidden, hidden)
        self.bias = mlp(width, hidden, hidden * clip_heads)
        self.scale = nn.Linear(1, 1)

    def forward(self, queries: Tensor, patches: Tensor, size: tuple[int, int]) -> Proposal:
        """Of queries (B, Q, C) and patches (B, h·w, C)."""
        asked = self.query(queries)
        masks = asked @ self.pixel(patches).transpose(1, 2)
        maps = self.bias(patches).unflatten(2, (self.clip_heads, -1))
        bias = torch.einsum("bqc,bnkc->bkqn", asked, maps)
        bias = self.scale(bias.unsqueeze(-1)).squeeze(-1)
        return Proposal(masks.unflatten(2, size), bias.unflatten(3, size))


class SideNetwork(nn.Module):
    """Queries and patches through the side ViT; CLIP's blocks are added to the patches on the way.

    The positions are added before the first block and again after every block but the last, after
    what is fused there.
    """

    def __init__(self, san: San, clip_width: int, clip_heads: int) -> None:
        super().__init__()
        side, grid = san.side, san.image_size // san.side.patch
        self.fused, self.supervised = dict(san.fusion), san.supervised
        self.grid = grid, grid
        self.patch = nn.Conv2d(3, side.width, side.patch, stride=side.patch)
        self.position = nn.Parameter(torch.empty(1, grid * grid, side.width))
        self.query = nn.Parameter(torch.empty(1, san.queries, side.width))
        self.query_position = nn.Parameter(torch.empty(1, san.queries, side.width))
        self.blocks = nn.ModuleList(Block(side.width, side.heads) for _ in range(side.blocks))
        self.fusion = nn.ModuleList(Fusion(clip_width, side.width) for _ in san.fusion)
        self.heads = Heads(side.width, san.head_width, clip_heads)
        for block in self.blocks:
            for layer in block.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.trunc_normal_(layer.weight, std=STD)
                    nn.init.zeros_(layer.bias)
        nn.init.trunc_normal_(self.position, std=STD)
        for queries in (self.query, self.query_position):
            nn.init.normal_(queries, std=STD)

    def positions(self, size: tuple[int, int]) -> Tensor:
        """Of queries and patches (1, Q + h·w, C)."""
        position: Tensor = self.position
        if size != self.grid:
            square = position.transpose(1, 2).unflatten(2, self.grid)
            square = F.interpolate(square, size=size, mode="bicubic", align_corners=False)
            position = square.flatten(2).transpose(1, 2)
        return torch.cat([self.query_position, position], dim=1)

    def forward(
        self, pixels: Tensor, clip: Mapping[int, Tensor], grid: tuple[int, int]
    ) -> list[Proposal]:
        """Proposals after each supervised block, of normalised `pixels` (B, 3, H, W) and CLIP's
        patches (B, N, D) after the blocks that are fused, on CLIP's `grid`."""
        maps = self.patch(pixels)
        size = (maps.shape[2], maps.shape[3])
        queries = self.query.expand(len(pixels), -1, -1)
        positions, count = self.positions(size), queries.shape[1]
        x = torch.cat([queries, maps.flatten(2).transpose(1, 2)], dim=1) + positions
        fused = {
            after: layer(clip[block], grid, size)
            for (block, after), layer in zip(self.fused.items(), self.fusion, strict=True)
        }
        proposals = []
        for after in range(len(self.blocks) + 1):
            if after:
                x = self.blocks[after - 1](x)
            if after in fused:
                x = torch.cat([x[:, :count], x[:, count:] + fused[after]], dim=1)
            if after in self.supervised:
                proposals.append(self.heads(x[:, :count], x[:, count:], size))
            if 0 < after < len(self.blocks):
                x = x + positions
        return proposals
