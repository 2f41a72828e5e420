"""PAMR (Araslanov and Roth, CVPR 2020), as NACLIP and ResCLIP end with it: logits of pixels become
averages over neighbours of like colour, several times.

A step is L(x) ← Σ_δ w_δ(x) · L(x + δ) over the 8 neighbours δ of each dilation; the weights are
those of all names, are positive and add up to 1. Beyond an edge its pixels are repeated.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from cliptrase.config.method import Pamr
from cliptrase.segment.argmax import first_argmax
from cliptrase.segment.tiles import bilinear
from cliptrase.segment.vote import region_means, vote_by_means

AT_ONCE = 32  # names refined at once: bounds memory, changes no result


class Shift(NamedTuple):
    """δ in pixels: down and to the right."""

    y: int
    x: int


@dataclass(frozen=True, eq=False)
class Refinement:
    """The weights (8·D, H, W) of one picture for D dilations, and where the neighbours lie."""

    weights: Tensor
    shifts: tuple[Shift, ...]
    steps: int

    @classmethod
    def of(cls, picture: Tensor, options: Pamr) -> Self:
        """Of a picture (3, H, W) as CLIP reads it: w = softmax over δ of the mean over channels of
        −|I(x) − I(x + δ)| / (1e-8 + 0.1·σ), where σ is the standard deviation (n − 1) of the 9
        pixels of each dilation, that is, with x itself once for each."""
        square = list(product((-1, 0, 1), repeat=2))
        shifts = [Shift(y * d, x * d) for d in options.dilations for y, x in square]
        pixels = list(_shifted(picture, shifts))
        mean = sum(pixels, torch.zeros_like(picture)) / len(pixels)
        squares = sum(((each - mean) ** 2 for each in pixels), torch.zeros_like(picture))
        scale = 1e-8 + 0.1 * (squares / (len(pixels) - 1)).sqrt()
        around = [(s, each) for s, each in zip(shifts, pixels, strict=True) if s != Shift(0, 0)]
        scores = [-((picture - each).abs() / scale).mean(dim=0) for _, each in around]
        weights = torch.stack(scores).softmax(dim=0)
        return cls(weights, tuple(shift for shift, _ in around), options.steps)

    def __call__(self, maps: Tensor) -> Tensor:
        """Maps (K, H, W) after all steps, each as it would be alone."""
        return torch.cat([self._refined(some) for some in maps.split(AT_ONCE)])

    def upsampled(self, logits: Tensor) -> Iterator[Tensor]:
        """Logits (1, k, H, W) of a few names after the others, of those (K, h, w) of patches."""
        height, width = self.weights.shape[1:]
        for some in logits.split(AT_ONCE):
            yield self._refined(bilinear(some[None], (height, width))[0])[None]

    def _refined(self, maps: Tensor) -> Tensor:
        for _ in range(self.steps):
            total = torch.zeros_like(maps)
            neighbours = _shifted(maps, self.shifts)
            for weight, neighbour in zip(self.weights, neighbours, strict=True):
                total.addcmul_(neighbour, weight)
            maps = total
        return maps


def classify(logits: Tensor, owner: Tensor, refine: Sequence[Refinement]) -> Tensor:
    """Class (B, H, W) int64 of the largest logit of (B, K, h, w), upsampled and refined.

    Every name counts: one that is the largest nowhere before may be so after. owner: as
    `logits.classify` takes it.
    """
    images = zip(logits, refine, strict=True)
    return owner[torch.cat([first_argmax(each.upsampled(maps)) for maps, each in images])]


def soft_vote(
    logits: Tensor, owner: Tensor, classes: Tensor, regions: Tensor, refine: Sequence[Refinement]
) -> Tensor:
    """`vote.soft_vote` by the means of logits that are upsampled and refined."""
    voted = []
    for maps, each, *of_image in zip(
        logits, refine, classes.split(1), regions.split(1), strict=True
    ):
        means = [region_means(some, of_image[1]) for some in each.upsampled(maps)]
        voted.append(vote_by_means(torch.cat(means, dim=2), owner, *of_image))
    return torch.cat(voted)


def _shifted(maps: Tensor, shifts: Sequence[Shift]) -> Iterator[Tensor]:
    """Views (…, H, W) of `maps`: each pixel's neighbour at each shift."""
    height, width = maps.shape[-2:]
    # further than the opposite edge lies what is there
    down = min(max(abs(shift.y) for shift in shifts), height - 1)
    right = min(max(abs(shift.x) for shift in shifts), width - 1)
    wide = F.pad(maps[None], (right, right, down, down), mode="replicate")[0]
    for y, x in shifts:
        top, left = max(0, down + min(y, down)), max(0, right + min(x, right))
        yield wide[..., top : top + height, left : left + width]
