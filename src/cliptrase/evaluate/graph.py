"""What a pass computes of a batch of images: pure functions, each result kept by what asked for it.

A run is a path through this graph. Runs that share a sub-configuration share its result; nothing is
computed that no run asks for.
"""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cliptrase.config.kinds import ATTENTION, CLUSTERING, PROPAGATE, function, vote_of
from cliptrase.config.method import Backbone, Method
from cliptrase.config.method_attention import Attention
from cliptrase.config.method_regions import Regions
from cliptrase.errors import UserError
from cliptrase.evaluate import keys
from cliptrase.evaluate.encoded import Encoded, Propagation, Text, voted, winning
from cliptrase.model import vision
from cliptrase.model.backbones import Key, Network
from cliptrase.model.dino import Tokens, check_denoise, features, tokens
from cliptrase.model.load import Clip
from cliptrase.model.sam import embed, frame, frame_view
from cliptrase.segment import pamr
from cliptrase.segment.clustering import Points, without
from cliptrase.segment.correlation import correlation
from cliptrase.segment.descriptors import Described, described
from cliptrase.segment.grid_masks import grid_masks, uncovered
from cliptrase.segment.logits import patch_logits
from cliptrase.segment.regions import prototypes, region_maps, smooth_maps
from cliptrase.segment.sam_regions import sam_regions
from cliptrase.segment.spectral_cuts import spectral_cuts
from cliptrase.segment.tiles import bilinear, nearest

MAPS = 16  # of each image that are smoothed at once: bounds memory, changes no result
UNCHANGED = Attention(
    kind="softmax", terms=("qk",), first_block=12, last_block=12, residual=True, ffn=True
)
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Original:
    """A picture before it was resized for CLIP, and the part of it that CLIP sees."""

    image: Image.Image
    box: tuple[float, float, float, float]  # left, top, right, bottom


class Graph:
    """One batch of images through everything that runs ask of it."""

    def __init__(
        self,
        clip: Clip,
        pixels: Tensor,
        out_size: tuple[int, int] | None = None,
        truths: Mapping[str, Tensor] | None = None,
        *,
        networks: Mapping[Key, Network] | None = None,
        originals: Sequence[Original] = (),
        windows: vision.Windows | None = None,
    ) -> None:
        """`pixels` (B, 3, height, width) float32, normalised, sides multiples of the patch; label
        maps come out at `out_size` (H, W), the pixels' own size where it is None. truths: for runs
        that see it, ground truth (B, height, width) by target, −1 where it is ignored. networks:
        those beside CLIP that methods name. originals: of each image, where a method asks for them.
        windows: how the images lie in one picture, for methods that then see it whole.
        """
        self.clip = clip
        self.windows = windows
        self.grid = vision.grid(clip, pixels)
        height, width = pixels.shape[-2:]
        self.out_size = (height, width) if out_size is None else out_size
        self.seconds: dict[str, float] = {}  # by stage, without the stages it called
        self._size = height, width
        self._pixels = pixels
        self._networks = networks or {}
        self._originals = originals
        self._truths = truths or {}
        self._kept: dict[Hashable, Any] = {}
        self._maps: dict[Hashable, keys.Memo] = {}
        self._inner = 0.0

    def prediction(
        self, method: Method, text: Text, text_key: str, logit_scale: float = 100.0
    ) -> Tensor:
        """Classes (B, H, W) int64 of one run, as `text` numbers them."""
        logits = self.logits(method, text, text_key, logit_scale)
        key = keys.names_key(method, text, text_key, logit_scale)
        refine = self._refinements(method)
        names = self._once("classify", key, partial(winning, logits, self.out_size, refine))
        winners = names
        if not text.is_listed:
            winners = self._once("classify", (key, text_key), partial(text.classes_of, names))
        vote = vote_of(method)
        if vote == "none":
            return winners
        regions = self.regions(method)
        voters = vote, key, text_key, self._region_key(method)
        make = partial(voted, vote, winners, logits, text, regions, refine)
        return self._once("vote", voters, make)

    def logits(self, method: Method, text: Text, text_key: str, logit_scale: float) -> Tensor:
        """Logits (B, M, h, w) of every name on the patch grid, propagated where the method does."""

        def make() -> Tensor:
            if method.propagate is not None:
                return self.propagation(method).logits(text, logit_scale)
            cls = self.cls(method) if method.cls_logits else None
            patches, grid = self.patches(method), self.feature_grid(method)
            return patch_logits(patches, text.features, grid, logit_scale, cls)

        key = "logits", keys.logits_key(method, text, text_key, logit_scale)
        return self._once("classify", key, make)

    def encode(self, method: Method) -> Encoded:
        """Everything of `method` that needs no text."""
        return Encoded(
            patches=self.patches(method),
            cls=self.cls(method) if method.cls_logits else None,
            regions=self.regions(method) if vote_of(method) != "none" else None,
            vote=vote_of(method),
            grid=self.feature_grid(method),
            out_size=self.out_size,
            propagation=None if method.propagate is None else self.propagation(method),
            refine=self._refinements(method),
        )

    def propagation(self, method: Method) -> Propagation:
        """What `method.propagate` keeps of the images until the words are known."""
        assert method.propagate is not None
        make = partial(function(PROPAGATE[method.propagate].function), self, method)
        return self._once("encode", ("propagation", keys.images_key(method)), make)

    def patches(self, method: Method) -> Tensor:
        """Patch features (B, N, E), normalised, on `feature_grid`."""
        return self._features(method).tokens[:, 1:]

    def feature_grid(self, method: Method) -> tuple[int, int]:
        """(h, w): how the patches lie that have features."""
        return self._features(method).grid

    def cls(self, method: Method) -> Tensor:
        """[CLS] features (B, E), normalised, from the same changed blocks as the patches; of the
        unmodified model where the features have a grid of their own."""
        return self._features(method).tokens[:, 0]

    def correlation(self, block: int, kind: str, heads: str = "mean") -> Tensor:
        """W (B, L, L) of `block` (as in a 12-block model) of the unmodified model."""
        index = self.clip.block_index(block)
        key = index, kind, heads
        return self._once("correlation", key, lambda: correlation(self.qkv(index), kind, heads))

    def dino_correlation(self, network: Backbone, feature: str) -> Tensor:
        """W (B, 1 + N', 1 + N') of a `feature` of the second network, [CLS] first."""
        dino = self.network(network)

        def make() -> Tensor:
            return correlation(features(dino, self.dino(network), feature), "cosine", "mean")

        return self._once("correlation", (network.key, feature), make)

    def dino_features(self, network: Backbone, feature: str) -> tuple[Tensor, tuple[int, int]]:
        """A `feature` (B, N', D) of the second network's patches, heads in a row, and its grid."""
        seen = self.dino(network)
        (part,) = features(self.network(network), seen, feature)
        return part[:, 0, 1:], seen.grid

    def region_grid(self, method: Method) -> tuple[int, int]:
        """(h, w): how the patches that are clustered lie."""
        if method.dino is not None and _regions_of(method).source == "dino":
            return self.dino(method.dino).grid
        return self.grid

    def patch_rows(self, regions: Regions, dino: Backbone | None = None) -> Tensor:
        """M (B, N, N), the correlation rows that prototypes are made of. dino: the network whose
        correlation it is where the source is that."""
        of = regions.correlation
        assert of is not None

        def make() -> Tensor:
            rows = function(keys.denoising(regions).rows)
            if of.source == "dino":
                assert dino is not None
                check_denoise(self.network(dino), regions.denoise or "none")
                return rows(self.dino_correlation(dino, of.feature))
            assert of.block is not None
            return rows(self.correlation(of.block, of.kind, of.heads))

        return self._once("correlation", ("rows", keys.rows_key(regions, dino)), make)

    def clusters(self, method: Method) -> Tensor:
        """Cluster of every patch (B, N) int64, −1 noise or dropped by the denoising (Eq. 7).

        Of kind panoptic_cut: the masks and, last, the rest.

        One pass: what is dropped leaves its cluster. Two: what is kept is clustered again, and
        all else as before. That the second pass also leaves out the noise of the first changes no
        label, since noise is no neighbour of a core point: it is not computed.
        """
        regions = _regions_of(method)
        key, cluster = keys.clustering_key(method, regions), function(CLUSTERING[regions.algorithm])

        def clustered() -> Points:
            if regions.cluster == "features":
                return Points(self._clustered_patches(method))
            rows = self.patch_rows(regions, method.dino)
            return Points(F.normalize(rows, dim=-1) if regions.l2_rows else rows)

        def labels() -> Tensor:
            if regions.cut is not None:
                grid = self.region_grid(method)
                return spectral_cuts(self.patch_rows(regions, method.dino), grid, regions.cut)
            points = self._once("cluster", ("points", key.rows), clustered)
            if not key.dropped_by:
                return cluster(points, regions)
            kept = function(keys.denoising(regions).kept)(self.patch_rows(regions, method.dino))
            if key.passes == 1:
                return without(cluster(points, regions), kept)
            return cluster(points, regions, kept)

        return self._once("cluster", ("labels", key), labels)

    def regions(self, method: Method) -> Tensor:
        """Region (cluster) of every pixel (B, H, W) int64; −1 in images without a cluster, and
        where no mask of SAM's lies."""

        def make() -> Tensor:
            kind = _regions_of(method).kind
            if kind == "sam_grid":
                assert method.sam is not None
                return uncovered(nearest(self.sam_masks(method.sam), self.out_size))
            labels = self._labels(method)
            numbers = labels.max(axis=1) + 1  # of clusters, by image
            if not numbers.any():
                size = (len(labels), *self.out_size)
                return torch.full(size, -1, device=self._pixels.device)
            if kind == "sam":
                return self._sam_regions(method, labels)
            if kind == "panoptic_cut":
                patches = self.clusters(method).unflatten(1, self.region_grid(method))
                return nearest(patches, self.out_size)
            maps, places = self._cluster_maps(method, labels, numbers)
            table = np.full((len(labels), numbers.max()), -1)
            table[np.arange(numbers.max()) < numbers[:, None]] = places
            return region_maps(maps, table)

        return self._once("regions", self._region_key(method), make)

    def described(self, method: Method) -> Described:
        """The regions of `method`, those of an image without a cluster too, and their
        descriptors, the mean features of their patches."""

        def make() -> Described:
            numbers = self._labels(method).max(axis=1) + 1
            patches, clusters = self._clustered_patches(method), self.clusters(method)
            grid = self.feature_grid(method)
            return described(patches, grid, clusters, numbers, self.regions(method))

        key = "described", keys.features_key(method), self._region_key(method)
        return self._once("regions", key, make)

    def _clustered_patches(self, method: Method) -> Tensor:
        """Features (B, N, E) of the patches that are clustered. Raises UserError where the
        features have another grid."""
        grids = self.feature_grid(method), self.region_grid(method)
        if grids[0] != grids[1]:
            (rows, columns), (others, across) = grids
            raise UserError(
                f"method={method.name}: its features lie on {rows} × {columns} patches, and the "
                f"correlation that is clustered on {others} × {across}; take "
                "method.regions.cluster=rows, and no method.unsupervised"
            )
        return self.patches(method)

    def _region_key(self, method: Method) -> Hashable:
        """What the region map depends on: cells of a grid that cluster alike share it."""
        key = keys.smoothing_key(method, _regions_of(method))
        if _regions_of(method).correlation is None:  # nothing is clustered
            return key
        return key, self.region_grid(method), self._labels(method).tobytes()

    def _labels(self, method: Method) -> NDArray[np.int64]:
        """`clusters` (B, N) in the memory of the CPU."""
        key = ("copy", keys.clustering_key(method, _regions_of(method)))
        clusters = self.clusters(method)
        return self._once("cluster", key, lambda: clusters.cpu().numpy())

    def _cluster_maps(
        self, method: Method, labels: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> tuple[Tensor, NDArray[np.int64]]:
        """Smooth prototype maps (…, H, W), and which of them the clusters have, `numbers` of each
        image. A set of patches has one map, whichever clustering it comes from."""
        regions = _regions_of(method)
        images = np.repeat(np.arange(len(labels)), numbers)
        clusters = np.arange(len(images)) - np.repeat(numbers.cumsum() - numbers, numbers)

        def make(some: Sequence[int]) -> Tensor:
            rows, at = self.patch_rows(regions, method.dino), list(some)
            of = prototypes(rows, self.clusters(method), images[at].tolist(), clusters[at].tolist())
            assert regions.upsample is not None and regions.median is not None
            shape = (self.region_grid(method), regions.upsample, regions.median)
            parts = of.split(MAPS * len(rows))
            smooth = torch.cat([smooth_maps(part, *shape) for part in parts])
            return bilinear(smooth[None], self.out_size)[0]

        sets = keys.set_keys(images, labels[images] == clusters[:, None])
        return self._maps.setdefault(keys.smoothing_key(method, regions), keys.Memo())(sets, make)

    def _sam_regions(self, method: Method, labels: NDArray[np.int64]) -> Tensor:
        """The masks that SAM makes of each image's clusters (B, N), as regions (B, H, W)."""
        options = _regions_of(method).sam
        assert method.sam is not None and options is not None
        sam, grid = self.network(method.sam), self.region_grid(method)
        embeddings = self._sam_embeddings(method.sam, options.sees)
        maps = [
            sam_regions(sam, embedding, each, grid, self._size, self.out_size, options)
            for embedding, each in zip(embeddings, labels, strict=True)
        ]
        return torch.stack(maps)

    def sam_masks(self, backbone: Backbone) -> Tensor:
        """Masks (B, height, width) int64 of a SAM, 1 or more, and 0 for no mask, of every pixel
        that CLIP gets (`segment.grid_masks`)."""
        sam = self.network(backbone)

        def make() -> Tensor:
            embeddings = self._sam_embeddings(backbone, "network")
            return torch.stack([grid_masks(sam, each, self._size) for each in embeddings])

        return self._once("sam", ("masks", backbone.key), make)

    def _sam_embeddings(self, network: Backbone, sees: str) -> Sequence[Tensor]:
        """SAM's embedding (1, C, g, g) of each image."""
        sam = self.network(network)

        def make() -> Sequence[Tensor]:
            framed = (
                [frame_view(each.image, each.box, self._size, sam.side) for each in self._originals]
                if sees == "original"
                else [frame(each, sam.side) for each in self.seen()]
            )
            return [embed(sam, picture) for picture, _ in framed]

        return self._once("sam", (network.key, sees), make)

    def network(self, backbone: Backbone) -> Network:
        """A loaded network beside CLIP."""
        return self._networks[backbone.key]

    def dino(self, backbone: Backbone) -> Tokens:
        """What the second network sees of the images."""
        dino = self.network(backbone)
        return self._once("dino", backbone.key, lambda: tokens(dino, dino.normalise(self.seen())))

    def seen(self) -> NDArray[np.uint8]:
        """The pixels (B, height, width, 3) that CLIP gets, before they are normalised."""
        return self._once("encode", "seen", lambda: self.clip.denormalise(self._pixels))

    def _refinements(self, method: Method) -> list[pamr.Refinement] | None:
        """PAMR's weights for each image, where the method has it."""
        options = method.pamr
        if options is None:
            return None

        def make() -> list[pamr.Refinement]:
            pictures = bilinear(self._pixels, self.out_size)
            return [pamr.Refinement.of(picture, options) for picture in pictures]

        return self._once("classify", options, make)

    def _features(self, method: Method) -> vision.Mixed:
        """Features (B, L, E) of all tokens, normalised, and the grid of the patches."""

        def make() -> vision.Mixed:
            changed = self._changed(method)
            features = vision.project(self.clip, changed.tokens, normed=changed.normed)
            return changed._replace(tokens=F.normalize(features, dim=-1))

        return self._once("encode", ("features", keys.features_key(method)), make)

    def _changed(self, method: Method) -> vision.Mixed:
        """Tokens (B, L, D) after the last block that changes, with the attention of its kind.

        Raises UserError where the function of the kind returns no tokens.
        """
        attention = method.attention
        first = self.clip.block_index(attention.first_block)
        stop = self.clip.block_index(attention.last_block) + 1
        blocks = {"first_block": attention.first_block, "last_block": attention.last_block}
        if attention == UNCHANGED.model_copy(update=blocks):
            return vision.Mixed(self.entering(stop), self.grid)  # what CLIP computes anyway
        kind = ATTENTION[attention.kind]
        networks = [getattr(method, role) for role in kind.networks]
        returned = function(kind.function)(self, range(first, stop), attention, *networks)
        if not isinstance(returned, vision.Mixed):
            returned = vision.Mixed(returned, self.grid)
        tokens, grid, _ = returned
        batch, _, width = self.entering(0).shape
        wanted = batch if self.windows is None else 1, 1 + grid[0] * grid[1], width
        # in fp16 numbers may be too large, which `project` says
        finite = self.clip.precision == "fp16" or bool(tokens.isfinite().all())
        if tokens.shape != wanted or not finite:
            what = f"{tuple(tokens.shape)} values" if tokens.shape != wanted else "NaN or infinity"
            raise UserError(
                f"method.attention.kind={attention.kind}: {kind.function} returned {what}; it must "
                f"return tokens {wanted}, [CLS] first, all finite"
            )
        return returned

    def entering(self, index: int) -> Tensor:
        """Tokens (B, L, D) of the unmodified model entering block `index`; at depth, its output."""

        def make() -> Tensor:
            if index == 0:
                return vision.embed_tokens(self.clip, self._pixels)
            before = index - 1
            return vision.block(self.clip, before, self.entering(before), self.qkv(before))

        return self._once("encode", ("tokens", index), make)

    def attention(self, index: int) -> Tensor:
        """What each token of the unmodified model attends to in block `index` (0-based): softmax of
        each head, mean over heads, (B, L, L), rows sum to 1."""

        def make() -> Tensor:
            q, k, _ = self.qkv(index)
            return vision.softmax_weights(q, k).mean(dim=1)

        return self._once("encode", ("attention", index), make)

    def qkv(self, index: int) -> vision.QKV:
        """Queries, keys and values of block `index` (0-based) of the unmodified model."""
        return self._once(
            "encode", ("qkv", index), lambda: vision.qkv(self.clip, index, self.entering(index))
        )

    def truth(self, target: str) -> Tensor:
        """The ground truth (B, height, width) of a target, −1 where it is ignored."""
        return self._truths[target]

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """`make()`, computed once for all methods that ask for the same `key`."""
        return self._once("encode", ("shared", key), make)

    def _once(self, stage: str, key: Hashable, make: Callable[[], T]) -> T:
        """`make()`, kept under (stage, key); its time, less what it called, counts for `stage`."""
        full = (stage, key)
        if full not in self._kept:
            start, outer, self._inner = time.perf_counter(), self._inner, 0.0
            self._kept[full] = make()
            spent = time.perf_counter() - start
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent - self._inner
            self._inner = outer + spent
        return self._kept[full]


def _regions_of(method: Method) -> Regions:
    assert method.regions is not None, f"{method.name} has no regions"
    return method.regions
