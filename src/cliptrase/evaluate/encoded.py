"""Words, and what a method leaves of images once words are all that is missing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cliptrase.config.kinds import VOTE, function
from cliptrase.segment.logits import classify, patch_logits


@dataclass(frozen=True, eq=False)
class Text:
    """Text features (M, E), normalised, and the class (M,) int64 that each name belongs to.

    A class may own several names (synonyms, background words): it wins where one of them does.
    """

    features: Tensor
    owner: Tensor

    @cached_property
    def classes(self) -> int:
        """How many classes names belong to."""
        return int(self.owner.max()) + 1

    @classmethod
    def listed(cls, features: Tensor, classes: int) -> Text:
        """Each of the first `classes` names is a class, all others together are one more."""
        owner = torch.arange(len(features), device=features.device)
        return cls(features, owner.clamp_max(classes))


@dataclass(frozen=True, eq=False)
class Encoded:
    """What a method leaves of images once text is all that is missing."""

    patches: Tensor  # (B, N, E), normalised
    cls: Tensor | None  # (B, E), normalised; where the method multiplies by [CLS] logits
    regions: Tensor | None  # (B, H, W) int64, −1 where there is no cluster; where the method votes
    vote: str  # hard | soft | none
    grid: tuple[int, int]
    out_size: tuple[int, int]

    def classify(self, text: Text, logit_scale: float = 100.0) -> Tensor:
        """Classes (B, H, W) int64, as `text` numbers them."""
        logits = patch_logits(self.patches, text.features, self.grid, logit_scale, self.cls)
        winners = classify(logits, self.out_size, text.owner)
        return voted(self.vote, winners, logits, text, self.regions)


def voted(vote: str, winners: Tensor, logits: Tensor, text: Text, regions: Tensor | None) -> Tensor:
    """`winners` (B, H, W) after the vote of the regions, where there is one."""
    if vote == "none" or regions is None:
        return winners
    return function(VOTE[vote].function)(winners, regions, logits, text)
