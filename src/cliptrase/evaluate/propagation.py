"""What methods that propagate logits between patches keep of images until the words are known."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from cliptrase.config.method import Method
from cliptrase.evaluate.encoded import Text
from cliptrase.evaluate.graph import Graph
from cliptrase.model import vision
from cliptrase.model.fused import fused
from cliptrase.segment.diffusion import affinity, diffused
from cliptrase.segment.layers import fused_probabilities
from cliptrase.segment.logits import patch_logits
from cliptrase.segment.tiles import Size


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


@dataclass(frozen=True, eq=False)
class Nodes:
    """LPOSS: the patches of B images on the grid (h', w') of DINO, which are nodes of G graphs: an
    image each, or the windows of a picture in one.

    patches: CLIP's features (B, N, E), normalised. cls (B, E): where the method multiplies by [CLS]
    logits. values: of DINO's last block (G, n, D), normalised, G·n = B·N. places: (G, n, 2) of
    patch centres, in the pixels that DINO sees.
    """

    patches: Tensor
    cls: Tensor | None
    grid: tuple[int, int]
    values: Tensor
    places: Tensor
    solver: str

    @cached_property
    def graphs(self) -> list[Tensor]:
        """The affinity (n, n) of each graph."""
        return [affinity(*each) for each in zip(self.values, self.places, strict=True)]

    def logits(self, text: Text, logit_scale: float) -> Tensor:
        """Logits (B, M, h', w'), diffused over the graphs."""
        seeds = patch_logits(self.patches, text.features, self.grid, logit_scale, self.cls)
        rows = seeds.flatten(2).transpose(1, 2)  # (B, N, M)
        columns = rows.reshape(len(self.values), -1, rows.shape[2])
        each = zip(self.graphs, columns, strict=True)
        made = torch.stack([diffused(graph, column, self.solver) for graph, column in each])
        return made.to(seeds.dtype).view(rows.shape).transpose(1, 2).unflatten(2, self.grid)


def lposs(graph: Graph, method: Method) -> Nodes:
    """`propagate: lposs`: each image is a graph."""
    assert method.dino is not None
    values, grid = graph.dino_features(method.dino, "value")
    patches = graph.patches(method)
    if grid != (feature_grid := graph.feature_grid(method)):
        patches = F.normalize(vision.regridded(patches, feature_grid, grid), dim=-1)
    side = method.dino.patch
    assert side is not None  # of the kind timm
    rows, columns = (side * (torch.arange(count, device=values.device) + 0.5) for count in grid)
    places = torch.cartesian_prod(rows, columns).expand(len(values), -1, -1)
    cls = graph.cls(method) if method.cls_logits else None
    return Nodes(patches, cls, grid, F.normalize(values, dim=-1), places, method.solver)


def joined(batches: Sequence[Nodes], corners: Sequence[Size], size: Size) -> Nodes:
    """The windows of a picture, some in each batch, as one graph. `corners`: (top, left) of all of
    them, and their `size`, in pixels of the picture; DINO may see them a little larger."""
    first = batches[0]
    side = 2 * first.places[0, 0]  # of a patch: the first centre lies half of one from the corner
    seen = side * torch.tensor(first.grid, device=side.device)
    starts = torch.tensor(corners, device=side.device) * (seen / torch.tensor(size).to(side))
    places = torch.cat([each.places for each in batches]) + starts[:, None]
    each_cls = [each.cls for each in batches if each.cls is not None]
    return replace(
        first,
        patches=torch.cat([each.patches for each in batches]),
        cls=torch.cat(each_cls) if each_cls else None,
        values=torch.cat([each.values for each in batches]).flatten(0, 1)[None],
        places=places.flatten(0, 1)[None],
    )
