"""What a pass computes of a batch of images: pure functions, each result kept by what asked for it.

A run is a path through this graph. Runs that share a sub-configuration share its result; nothing is
computed that no run asks for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cliptrase.errors import UserError
from cliptrase.evaluate.encoded import Encoded as Encoded
from cliptrase.evaluate.encoded import Text as Text
from cliptrase.evaluate.encoded import voted
from cliptrase.evaluate.keys import (
    attention_key,
    clustering_key,
    logits_key,
    rows_key,
    smoothing_key,
    vote_of,
)
from cliptrase.evaluate.memo import Memo, keys_of
from cliptrase.model import vision
from cliptrase.model.load import Clip
from cliptrase.model.own import OWN
from cliptrase.segment import ways
from cliptrase.segment.clustering import dbscan, neighbours, squared_distances, without
from cliptrase.segment.correlation import correlation, eq7_kept, patch_rows
from cliptrase.segment.logits import classify, patch_logits
from cliptrase.segment.regions import prototypes, region_maps, smooth_maps

MAPS = 16  # of each image that a GPU smooths at once: bounds memory, changes no result
T = TypeVar("T")


class Graph:
    """One batch of images through everything that runs ask of it."""

    def __init__(self, clip: Clip, pixels: Tensor, out_size: tuple[int, int] | None = None) -> None:
        """`pixels` (B, 3, height, width) float32, normalised, sides multiples of the patch; label
        maps come out at `out_size` (H, W), the pixels' own size where it is None."""
        self.clip = clip
        self.grid = vision.grid(clip, pixels)
        height, width = pixels.shape[-2:]
        self.out_size = (height, width) if out_size is None else out_size
        self.seconds: dict[str, float] = {}  # by stage, without the stages it called
        self._pixels = pixels
        self._kept: dict[Hashable, Any] = {}
        self._maps: dict[Hashable, Memo] = {}
        self._inner = 0.0

    def prediction(
        self, method: dict[str, Any], text: Text, text_key: str, logit_scale: float = 100.0
    ) -> Tensor:
        """Classes (B, H, W) int64 of one run, as `text` numbers them."""
        logits = self.logits(method, text, text_key, logit_scale)
        key = logits_key(method, text_key, logit_scale)
        winners = self._once("classify", key, lambda: classify(logits, self.out_size, text.owner))
        vote = vote_of(method)
        if vote == "none":
            return winners
        return self._once(
            "vote",
            (vote, key, self._region_key(method)),
            lambda: voted(vote, winners, logits, text, self.regions(method)),
        )

    def logits(
        self, method: dict[str, Any], text: Text, text_key: str, logit_scale: float
    ) -> Tensor:
        """Logits (B, M, h, w) of every name on the patch grid."""

        def make() -> Tensor:
            cls = self.cls(method) if method["cls_logits"] else None
            return patch_logits(self.patches(method), text.features, self.grid, logit_scale, cls)

        return self._once("classify", ("logits", logits_key(method, text_key, logit_scale)), make)

    def encode(self, method: dict[str, Any]) -> Encoded:
        """Everything of `method` that needs no text."""
        return Encoded(
            patches=self.patches(method),
            cls=self.cls(method) if method["cls_logits"] else None,
            regions=self.regions(method) if vote_of(method) != "none" else None,
            vote=vote_of(method),
            grid=self.grid,
            out_size=self.out_size,
        )

    def patches(self, method: dict[str, Any]) -> Tensor:
        """Patch features (B, N, E), normalised."""
        return self._features(method)[:, 1:]

    def cls(self, method: dict[str, Any]) -> Tensor:
        """[CLS] features (B, E), normalised, from the same changed blocks as the patches."""
        return self._features(method)[:, 0]

    def tokens(self, block: int) -> Tensor:
        """Tokens (B, L, D) leaving `block` (as in a 12-block model) of the unmodified model."""
        return self.entering(self.clip.block_index(block) + 1)

    def correlation(self, block: int, kind: str, heads: str = "mean") -> Tensor:
        """W (B, L, L) of `block` (as in a 12-block model) of the unmodified model."""
        index = self.clip.block_index(block)
        return self._once(
            "correlation",
            (index, kind, heads),
            lambda: correlation(self.qkv(index), kind, heads),
        )

    def patch_rows(self, regions: dict[str, Any]) -> Tensor:
        """M (B, N, N), the correlation rows that prototypes are made of."""
        w = self.correlation(**regions["correlation"])
        denoise = regions["denoise"]
        return self._once(
            "correlation", ("rows", rows_key(regions)), lambda: patch_rows(w, denoise)
        )

    def clusters(self, method: dict[str, Any]) -> Tensor:
        """Cluster of every patch (B, N) int64, −1 noise or dropped by Eq. 7.

        One pass: what Eq. 7 drops leaves its cluster. Two: what it keeps is clustered again, and
        all else as before. That the second pass also leaves out the noise of the first changes no
        label, since noise is no neighbour of a core point: it is not computed.
        """
        regions = method["regions"]
        key = clustering_key(method)

        def distances() -> Tensor:
            if regions["cluster"] == "features":
                return squared_distances(self.patches(method))
            rows = self.patch_rows(regions)
            return squared_distances(F.normalize(rows, dim=-1) if regions["l2_rows"] else rows)

        def near() -> Tensor:
            return neighbours(self._once("cluster", ("distances", key.what), distances), key.eps)

        def labels() -> Tensor:
            close = self._once("cluster", ("near", key.what, key.eps), near)
            if not key.dropped_by:
                return dbscan(close, key.min_samples)
            kept = eq7_kept(self.patch_rows(regions))
            if key.passes == 1:
                return without(dbscan(close, key.min_samples), kept)
            return dbscan(close, key.min_samples, kept)

        return self._once("cluster", ("labels", key), labels)

    def regions(self, method: dict[str, Any]) -> Tensor:
        """Region (cluster) of every pixel (B, H, W) int64, −1 in images without a cluster."""

        def make() -> Tensor:
            labels = self._labels(method)
            numbers = labels.max(axis=1) + 1  # of clusters, by image
            if not numbers.any():
                size = (len(labels), *self.out_size)
                return torch.full(size, -1, device=self._pixels.device)
            maps, places = self._smooth_maps(method, labels, numbers)
            table = np.full((len(labels), numbers.max()), -1)
            table[np.arange(numbers.max()) < numbers[:, None]] = places
            return region_maps(maps, table, self.out_size)

        return self._once("regions", self._region_key(method), make)

    def _region_key(self, method: dict[str, Any]) -> Hashable:
        """What the region map depends on: cells of a grid that cluster alike share it."""
        return smoothing_key(method["regions"]), self._labels(method).tobytes()

    def _labels(self, method: dict[str, Any]) -> NDArray[np.int64]:
        """`clusters` (B, N) in the memory of the CPU."""
        key = ("copy", clustering_key(method))
        clusters = self.clusters(method)
        return self._once("cluster", key, lambda: clusters.cpu().numpy())

    def _smooth_maps(
        self, method: dict[str, Any], labels: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> tuple[Tensor, NDArray[np.int64]]:
        """Smooth prototype maps (…, h', w'), and which of them the clusters have, `numbers` of each
        image. A set of patches has one map, whichever clustering it comes from."""
        regions = method["regions"]
        images = np.repeat(np.arange(len(labels)), numbers)
        clusters = np.arange(len(images)) - np.repeat(numbers.cumsum() - numbers, numbers)

        def make(some: Sequence[int]) -> Tensor:
            rows, at = self.patch_rows(regions), list(some)
            of = prototypes(rows, self.clusters(method), images[at].tolist(), clusters[at].tolist())
            # one by one on a CPU, so that a map cannot depend on the others' company
            size = 1 if ways.one_by_one(rows.device) else MAPS * len(rows)
            shape = (self.grid, regions["upsample"], regions["median"])
            return torch.cat([smooth_maps(part, *shape) for part in of.split(size)])

        keys = keys_of(images, labels[images] == clusters[:, None])
        return self._maps.setdefault(smoothing_key(regions), Memo())(keys, make)

    def _features(self, method: dict[str, Any]) -> Tensor:
        """Features (B, L, E) of all tokens, normalised."""
        attention = attention_key(method)

        def make() -> Tensor:
            return F.normalize(vision.project(self.clip, self._changed(attention)), dim=-1)

        return self._once("encode", ("features", attention), make)

    def _changed(self, a: vision.Attention) -> Tensor:
        """Tokens (B, L, D) after block `last`, attention changed from block `first` on."""
        start, stop = self.clip.block_index(a.first), self.clip.block_index(a.last)
        if a == a._replace(
            kind="softmax", terms=("qk",), residual=True, ffn=True, omega=None, row_sum="none"
        ):
            return self.entering(stop + 1)  # what CLIP computes anyway
        if a.kind in OWN:
            return self._checked(a.kind, OWN[a.kind](self, range(start, stop + 1), a))
        tokens = self.entering(start)
        bias = None
        if a.omega is not None:
            bias = vision.neighbourhood(*self.grid, a.omega, self._pixels.device)
        for index in range(start, stop + 1):
            parts = self.qkv(start) if index == start else vision.qkv(self.clip, index, tokens)
            mixed = vision.attend(parts, a.kind, a.terms, bias, a.row_sum, a.heads)
            tokens = vision.finish(self.clip, index, tokens, mixed, a.residual, a.ffn)
        return tokens

    def _checked(self, kind: str, tokens: Tensor) -> Tensor:
        """What a function of model/own.py returned. Raises UserError where it is no tokens."""
        wanted = self.entering(0).shape
        # in fp16 it may be the numbers that are too large, which `project` says
        finite = self.clip.precision == "fp16" or bool(tokens.isfinite().all())
        if tokens.shape != wanted or not finite:
            what = f"{tuple(tokens.shape)} values" if tokens.shape != wanted else "NaN or infinity"
            raise UserError(
                f"method.attention.kind={kind}: its function in src/cliptrase/model returned "
                f"{what}; it must be tokens {tuple(wanted)}, [CLS] first, all finite"
            )
        return tokens

    def entering(self, index: int) -> Tensor:
        """Tokens (B, L, D) of the unmodified model entering block `index`; at depth, its output."""

        def make() -> Tensor:
            if index == 0:
                return vision.embed_tokens(self.clip, self._pixels)
            before = index - 1
            return vision.block(self.clip, before, self.entering(before), self.qkv(before))

        return self._once("encode", ("tokens", index), make)

    def qkv(self, index: int) -> vision.QKV:
        """Queries, keys and values of block `index` (0-based) of the unmodified model."""
        return self._once(
            "encode", ("qkv", index), lambda: vision.qkv(self.clip, index, self.entering(index))
        )

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
