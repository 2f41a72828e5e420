"""What methods that propagate logits between patches keep of images until the words are known."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from cliptrase.config.method import Method
from cliptrase.evaluate.graph import Graph, Text
from cliptrase.model import vision
from cliptrase.model.fused import fused
from cliptrase.segment.layers import fused_probabilities


@dataclass(frozen=True, eq=False)
class Layers:
    """CLIPer: normalised patch features (B, N, E) of every layer, and the attention (B, N, N) by
    which probabilities are spread. cls (B, E): where the method multiplies by [CLS] logits."""

    features: list[Tensor]
    attention: Tensor
    cls: Tensor | None
    grid: tuple[int, int]

    def logits(self, text: Text, logit_scale: float) -> Tensor:
        """Scores (B, M, h, w); they have a scale of their own, whatever `logit_scale` is."""
        of_classes = text.owner != (-1 if text.background is None else text.background)
        return fused_probabilities(
            self.features, self.attention, text.features, of_classes, self.grid, self.cls
        )


def cliper(graph: Graph, method: Method) -> Layers:
    """`propagate: cliper`, of the attention of that kind."""
    made, clip = fused(graph), graph.clip
    earlier = [
        F.normalize(vision.project(clip, tokens), dim=-1)[:, 1:] for tokens in made.layers[:-1]
    ]
    cls = graph.cls(method) if method.cls_logits else None
    features = [*earlier, graph.patches(method)]
    return Layers(features, made.attention[:, 1:, 1:], cls, graph.grid)
