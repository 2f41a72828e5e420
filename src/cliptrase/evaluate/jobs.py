"""What is asked of every image of a pass: a method and words, scored against one ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cliptrase.evaluate.flops import method_key
from cliptrase.evaluate.graph import Graph, Text
from cliptrase.evaluate.targets import has_background, target_key


@dataclass(frozen=True)
class Job:
    """One run, as far as the pixels' classes depend on it."""

    method: dict[str, Any]
    logit_scale: float
    target: str  # target_key of the run
    text_key: str
    text: Text
    threshold: float = 0.0  # a probability: pixels below it are class 0; 0: none is

    @classmethod
    def of(cls, run: dict[str, Any], text_key: str, text: Text) -> Job:
        protocol = run["protocol"]
        threshold = protocol.get("background_threshold", 0.0) if has_background(run) else 0.0
        scale = protocol["logit_scale"]
        return cls(run["method"], scale, target_key(run), text_key, text, threshold)

    @property
    def cost_key(self) -> tuple[str, str]:
        """The same for jobs that cost the same."""
        return method_key(self.method), self.text_key

    def predict(self, graph: Graph) -> Tensor:
        """Classes (B, H, W) int64 in 0..K-1 of whole images, each a single window."""
        return graph.prediction(self.method, self.text, self.text_key, self.logit_scale)
