"""What a method leaves of images until the words are known, and label maps once they are."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from cliptrase.config.kinds import VOTE, function
from cliptrase.segment import pamr
from cliptrase.segment.logits import classify, patch_logits


@dataclass(frozen=True, eq=False)
class Text:
    """Text features (M, E), normalised, and the class (M,) int64 that each name belongs to.

    A class may own several names (synonyms, background words): it wins where one of them does.
    background: which class is the background, where words stand for one.
    """

    features: Tensor
    owner: Tensor
    background: int | None = None

    @cached_property
    def classes(self) -> int:
        """How many classes names belong to."""
        return int(self.owner.max()) + 1

    @cached_property
    def features_digest(self) -> str:
        """The same for texts of the same features, whichever classes own them."""
        return hashlib.sha256(self.features.cpu().numpy().tobytes()).hexdigest()

    @cached_property
    def is_listed(self) -> bool:
        """Whether each name is a class of its own, in the order of the classes."""
        return self.owner.tolist() == [*range(len(self.owner))]

    def classes_of(self, names: Tensor) -> Tensor:
        """The class int64 that owns each of `names`, of any shape."""
        # torch's indexing takes five times as long on a CPU
        return self.owner.index_select(0, names.flatten()).view_as(names)

    @cached_property
    def objects(self) -> Tensor:
        """The places of the names that do not stand for the background."""
        names = torch.arange(len(self.owner), device=self.owner.device)
        return names if self.background is None else names[self.owner != self.background]


class Propagation(Protocol):
    """What is kept of B images until the words are known."""

    def logits(self, text: Text, logit_scale: float) -> Tensor:
        """Logits (B, M, h, w) of every name, on a grid of patches."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """What a method leaves of images once text is all that is missing."""

    patches: Tensor  # (B, N, E), normalised
    cls: Tensor | None  # (B, E), normalised; where the method multiplies by [CLS] logits
    regions: Tensor | None  # (B, H, W) int64, −1 where there is no cluster; where the method votes
    vote: str  # hard | soft | none
    grid: tuple[int, int]
    out_size: tuple[int, int]
    propagation: Propagation | None = None  # where the method propagates logits
    refine: list[pamr.Refinement] | None = None  # of each image; where the method has PAMR

    def classify(self, text: Text, logit_scale: float = 100.0) -> Tensor:
        """Classes (B, H, W) int64, as `text` numbers them."""
        if self.propagation is None:
            logits = patch_logits(self.patches, text.features, self.grid, logit_scale, self.cls)
        else:
            logits = self.propagation.logits(text, logit_scale)
        winners = text.classes_of(winning(logits, self.out_size, self.refine))
        return voted(self.vote, winners, logits, text, self.regions, self.refine)


def winning(
    logits: Tensor, out_size: tuple[int, int], refine: list[pamr.Refinement] | None
) -> Tensor:
    """The name (B, H, W) int64 that wins each pixel without a vote, by logits (B, M, h, w)."""
    names = torch.arange(logits.shape[1], device=logits.device)
    if refine is None:
        return classify(logits, out_size, names)
    return pamr.classify(logits, names, refine)


def voted(
    vote: str,
    winners: Tensor,
    logits: Tensor,
    text: Text,
    regions: Tensor | None,
    refine: list[pamr.Refinement] | None = None,
) -> Tensor:
    """`winners` (B, H, W) after the vote of the regions, where there is one."""
    if vote == "none" or regions is None:
        return winners
    if refine is not None and VOTE[vote].averages:
        return pamr.soft_vote(logits, text.owner, winners, regions, refine)
    return function(VOTE[vote].function)(winners, regions, logits, text)
