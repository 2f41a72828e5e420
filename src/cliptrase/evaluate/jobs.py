"""What is asked of every image of a pass: a method and words, scored against one ground truth."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cliptrase.config import Run
from cliptrase.config.schema import Method, Slide
from cliptrase.evaluate.flops import method_key
from cliptrase.evaluate.graph import Graph, Text
from cliptrase.evaluate.targets import target_key


@dataclass(frozen=True)
class Job:
    """One run, as far as the pixels' classes depend on it."""

    method: Method
    logit_scale: float
    target: str  # target_key of the run
    text_key: str
    text: Text
    threshold: float = 0.0  # a probability: pixels below it are class 0; 0: none is

    @classmethod
    def of(cls, run: Run, text_key: str, text: Text) -> Job:
        protocol, threshold = run.protocol, 0.0
        if run.has_background and isinstance(protocol, Slide):
            threshold = protocol.background_threshold
        scale, target = protocol.logit_scale, target_key(run)
        return cls(run.method, scale, target, text_key, text, threshold)

    @property
    def cost_key(self) -> tuple[str, str]:
        """The same for jobs that cost the same."""
        return method_key(self.method), self.text_key

    def predict(self, graph: Graph) -> Tensor:
        """Classes (B, H, W) int64 in 0..K-1 of whole images, each a single window."""
        return graph.prediction(self.method, self.text, self.text_key, self.logit_scale)
