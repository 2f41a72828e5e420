"""What the paper's figures show of one picture, as arrays, from the graph that passes use.

Blocks are counted as in a 12-block model, from the end. Patch j is token j + 1; token 0 is [CLS].
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cliptrase.config.kinds import vote_of
from cliptrase.config.method import Method
from cliptrase.config.method_regions import Correlation, Regions
from cliptrase.errors import UserError
from cliptrase.evaluate.encoded import Text
from cliptrase.evaluate.graph import UNCHANGED, Graph
from cliptrase.model import vision

STRIKING = 3.0  # standard deviations above the mean: a patch that is looked at so much is global
PAPER_PATCH = 6.5 / 14  # of the height and of the width: the middle of patch 90 of 14 × 14
CLUSTERED, LAST = 11, 12  # the block whose tokens are correlated, and the one whose output is used
NOISY = 0.8  # quantile of [CLS]'s correlations above which the mean of a cluster is noise
USUAL = Correlation(block=CLUSTERED, kind="cosine")

Map = NDArray[np.float32]
Labels = NDArray[np.int64]


class Looks(NamedTuple):
    """How much each patch is looked at in one block.

    by_patches: (N,), mean over the patches that look, of all patches' attention to it.
    is_global: (N,) bool, those beyond the mean by more than STRIKING standard deviations; none may
    be. share: of the attention between patches, what global patches draw, 0..1. of_cls: the share
    of [CLS]'s attention on them.
    """

    by_patches: Map
    is_global: NDArray[np.bool_]
    share: float
    of_cls: float


def looks_of(attention: Map) -> Looks:
    """How much patches are looked at, by an attention (L, L), rows of queries, [CLS] first."""
    by_patches = attention[1:, 1:].astype(np.float64).mean(axis=0)
    is_global = by_patches > by_patches.mean() + STRIKING * by_patches.std()
    share = by_patches[is_global].sum() / by_patches.sum()
    of_cls = attention[0, 1:].astype(np.float64)[is_global].sum()
    return Looks(by_patches.astype(np.float32), is_global, float(share), float(of_cls))


@dataclass(frozen=True)
class Words:
    """What a picture is asked for. names: of the classes; background: which of them that is."""

    text: Text
    names: tuple[str, ...]
    background: int | None = None


@dataclass(frozen=True)
class Clusters:
    """The clusters of a method in one picture; N patches, −1 those of no cluster.

    regions: (H, W), −1 where there is none. noisy: those of `before` that the denoising is about:
    [CLS] is like their patches. denoised: whether the method does so at all.
    """

    before: Labels  # (N,), of the correlation as it is
    after: Labels  # (N,), of the denoised one, which the method goes on with; colours as `before`
    regions: Labels  # (H, W), of `after`
    noisy: tuple[int, ...]
    denoised: bool = True


@dataclass(frozen=True)
class Predictions:
    """Label maps (H, W) of one picture, indices into `names`.

    plain: of CLIP as it is. scr: with the method's attention, no region votes. final: the method's.
    background: which of the names is the background's, if one is. voted: whether regions vote.
    """

    names: tuple[str, ...]
    background: int | None
    plain: Labels
    scr: Labels
    final: Labels
    voted: bool = True


@dataclass(frozen=True)
class Quantities:
    """One picture. L = 1 + h·w tokens of CLIP, M = 1 + h'·w' of the network that is correlated.

    patch: number of the patch that is shown, row by row. attention: by block, mean over heads,
    (L, L). correlation: (M, M), what the method clusters; without one that does, of block 11.
    released: (L, L), of the last block in the released code, rows add up to 1.
    """

    name: str
    pixels: NDArray[np.uint8]  # (H, W, 3), what CLIP sees
    grid: tuple[int, int]  # (h, w)
    patch: int
    attention: dict[int, Map] = field(repr=False)
    correlation: Map
    correlated: str  # of what the correlation is: a block, or the second network's feature
    correlated_grid: tuple[int, int]  # (h', w')
    released: Map
    clusters: Clusters | None  # where the method clusters
    predictions: Predictions | None  # where there are words

    @cached_property
    def looks(self) -> dict[int, Looks]:
        """How much patches are looked at, by block."""
        return {block: looks_of(attention) for block, attention in self.attention.items()}

    @property
    def correlated_patch(self) -> int:
        """The patch of the correlation's grid under the middle of the shown one."""
        return moved(self.patch, self.grid, self.correlated_grid)


def usual_patch(grid: tuple[int, int]) -> int:
    """The patch of a grid where the paper's figures have theirs: number 90 of 14 × 14."""
    rows, columns = grid
    return int(PAPER_PATCH * rows) * columns + int(PAPER_PATCH * columns)


def moved(patch: int, grid: tuple[int, int], other: tuple[int, int]) -> int:
    """The patch of another grid over the same picture that holds the middle of `patch`."""
    row, column = divmod(patch, grid[1])
    down, across = (
        (2 * place + 1) * new // (2 * old)
        for place, old, new in zip((row, column), grid, other, strict=True)
    )
    return down * other[1] + across


@torch.inference_mode()
def quantities(
    graph: Graph,
    method: Method,
    name: str,
    pixels: NDArray[np.uint8],
    *,
    words: Words | None = None,
    logit_scale: float = 100.0,
    patch: int | None = None,
) -> Quantities:
    """Of the only picture of `graph`, whose pixels (H, W, 3) are given, as `method` sees it.

    words: without them no label map is made.
    patch: the shown one, the paper's by default. Raises UserError for a picture of a single patch.
    """
    shown = usual_patch(graph.grid) if patch is None else patch
    blocks = range(13 - graph.clip.depth, 13)
    regions, correlated = method.regions, graph.grid
    compared = None if regions is None else regions.correlation
    if compared is not None and compared.source == "dino":
        assert method.dino is not None
        weights = graph.dino_correlation(method.dino, compared.feature)
        correlated = graph.region_grid(method)
        source = f"DINO's {compared.feature}"
    else:
        of = compared or USUAL
        assert of.block is not None
        weights = graph.correlation(of.block, of.kind, of.heads)
        source = f"block {of.block}"
    if (1, 1) in (graph.grid, correlated):
        raise UserError("a picture of one patch has no patches to compare; enlarge it")
    made = None
    if regions is not None and compared is not None:
        made = _clusters(graph, method, regions, _array(weights))
    predictions = None
    if words is not None:
        predictions = _predictions(graph, method, words, logit_scale)
    return Quantities(
        name=name,
        pixels=pixels,
        grid=graph.grid,
        patch=shown,
        attention={b: _array(graph.attention(graph.clip.block_index(b))) for b in blocks},
        correlation=_array(weights),
        correlated=source,
        correlated_grid=correlated,
        released=_array(_released(graph)),
        clusters=made,
        predictions=predictions,
    )


def _released(graph: Graph) -> torch.Tensor:
    """The released attention of the last block, mean over heads and its three terms: (B, L, L)."""
    parts = graph.qkv(graph.clip.depth - 1)
    each = [vision.softmax_weights(part, part) for part in parts]
    return torch.stack(each).mean(dim=(0, 2))


def _clusters(graph: Graph, method: Method, regions: Regions, weights: Map) -> Clusters:
    denoised = regions.denoise not in (None, "none")
    plain = regions.model_copy(update={"denoise": "none"})
    before = graph.clusters(method.model_copy(update={"regions": plain}))[0].cpu().numpy()
    after = graph.clusters(method)[0].cpu().numpy()
    return Clusters(
        before=before,
        after=after,
        regions=graph.regions(method)[0].cpu().numpy().astype(np.int64),
        noisy=noisy_clusters(weights, before) if denoised else (),
        denoised=denoised,
    )


def noisy_clusters(weights: Map, clusters: Labels) -> tuple[int, ...]:
    """The clusters (N,) that [CLS] is like: the mean of its correlation with their patches, in
    `weights` (1 + N, 1 + N), is beyond the NOISY quantile of all patches."""
    of_cls = weights[0, 1:].astype(np.float64)
    limit = np.quantile(of_cls, NOISY)
    numbers = range(int(clusters.max()) + 1)
    return tuple(each for each in numbers if of_cls[clusters == each].mean() > limit)


def _predictions(graph: Graph, method: Method, words: Words, logit_scale: float) -> Predictions:
    last = UNCHANGED.model_copy(update={"first_block": LAST, "last_block": LAST})
    plain = {
        "attention": last,
        "regions": None,
        "cls_logits": False,
        "propagate": None,
        "pamr": None,
    }
    voteless = {"regions": None}
    maps = [
        graph.prediction(method.model_copy(update=update), words.text, "words", logit_scale)
        for update in (plain, voteless, {})
    ]
    of_clip, scr, final = (each[0].cpu().numpy() for each in maps)
    voted = vote_of(method) != "none"
    return Predictions(words.names, words.background, of_clip, scr, final, voted)


def _array(tensor: torch.Tensor) -> Map:
    return tensor[0].float().cpu().numpy()
