"""What a pass does on every image: a method and words, scored against one ground truth; and what
that costs, in floating-point operations as torch counts them: of matrix products, convolutions and
attention, not of elementwise work, sorting or resizing."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cliptrase.config import Run
from cliptrase.config.kinds import has_background, vote_of
from cliptrase.config.method import Method
from cliptrase.evaluate.certainty import Certainty, at_places
from cliptrase.evaluate.encoded import Text
from cliptrase.evaluate.graph import Graph
from cliptrase.evaluate.targets import surplus_of, target_key
from cliptrase.model.backbones import Key, Network

UNCOUNTED = {"eps", "min_samples"}  # decide labels, not the shape of any product


@dataclass(frozen=True)
class Job:
    """One run, as far as the pixels' classes depend on it."""

    method: Method  # `attention.within` holds the target whose ground truth it sees
    logit_scale: float
    target: str  # target_key of the run
    text_key: str
    text: Text
    threshold: float = 0.0  # a probability: pixels below it are class 0; 0: none is
    networks: Mapping[Key, Network] = field(default_factory=dict)  # beside CLIP
    surplus: int = 0  # classes after those that are scored: 1 where its words have distractors
    ledger: bool = False  # whether its errors are kept by category

    @classmethod
    def of(
        cls, run: Run, text_key: str, text: Text, networks: Mapping[Key, Network] | None = None
    ) -> Self:
        scale, target = run.protocol.logit_scale, target_key(run)
        method = run.method
        threshold = getattr(run.protocol, "background_threshold", 0.0)
        if not has_background(run) or method.propagate is not None:  # whose logits are no cosines
            threshold = 0.0
        if method.attention.within is not None:  # so that the graph keeps its features by target
            attention = method.attention.model_copy(update={"within": target})
            method = method.model_copy(update={"attention": attention})
        words, beside = (text_key, text, threshold), networks or {}
        return cls(method, scale, target, *words, beside, surplus_of(run), run.ledger)

    @property
    def cost_key(self) -> Hashable:
        """The same for jobs that cost the same: the cells of a grid over eps and min_samples, and
        vocabularies of equally many names, where nothing that is counted depends on them."""
        vote = vote_of(self.method)
        clusters_count = self.method.sam is not None or vote not in ("none", "hard")
        method = self.method.model_dump(exclude={} if clusters_count else {"regions": UNCOUNTED})
        beside = [each and each.key for each in (self.method.sam, self.method.dino)]
        words_count = self.method.propagate is not None or vote not in ("none", "hard", "soft")
        return repr((method, beside)), self.text_key if words_count else len(self.text.features)

    @property
    def count_key(self) -> tuple[str, int, bool]:
        """The same for jobs that count a label map alike."""
        return self.target, self.surplus, self.ledger

    def predict(self, graph: Graph) -> Tensor:
        """Classes (B, H, W) int64 in 0..K+surplus-1 of whole images, each a single window; of an
        unsupervised method the number of each pixel's region, whose class is decided at the end."""
        if self.method.unsupervised is not None:
            return graph.described(self.method).regions
        return graph.prediction(self.method, self.text, self.text_key, self.logit_scale)

    def certainty(self, graph: Graph, classes: Tensor) -> Certainty | None:
        """How sure it is of the `classes` (B, H, W) of whole images; None where regions decide, or
        logits that are refined pixel by pixel."""
        method = self.method
        if vote_of(method) != "none" or method.pamr is not None:
            return None
        logits = graph.logits(method, self.text, self.text_key, self.logit_scale)
        return Certainty.of(at_places(logits, graph.out_size), classes, self.text)

    def describe(self, graph: Graph) -> list[Tensor] | None:
        """Descriptors (R, E) of the regions of each image, where the method is unsupervised."""
        if self.method.unsupervised is None:
            return None
        return graph.described(self.method).descriptors


def operations(compute: Callable[[], object]) -> int:
    """Floating-point operations of `compute()`; a multiplication and an addition are two.

    Attention runs as plain products: the counter does not know the CPU's fused kernel.
    """
    with (
        torch.inference_mode(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        compute()
    return int(counter.get_total_flops())
