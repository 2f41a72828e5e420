"""What a pass computes of a batch of images: pure functions, each result kept by what asked for it.

A run is a path through this graph. Runs that share a sub-configuration share its result; nothing is
computed that no run asks for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cliptrase.model import two_paths, vision
from cliptrase.model.load import Clip
from cliptrase.segment.clustering import dbscan, neighbours, squared_distances
from cliptrase.segment.correlation import correlation, patch_rows
from cliptrase.segment.logits import classify, patch_logits
from cliptrase.segment.regions import prototype, region_map, smooth_maps
from cliptrase.segment.vote import hard_vote

T = TypeVar("T")


class Attention(NamedTuple):
    """The attention's sub-configuration as a key, terms in one order."""

    kind: str
    terms: tuple[str, ...]
    first: int
    last: int
    residual: bool
    ffn: bool
    omega: float | None


@dataclass(frozen=True, eq=False)
class Text:
    """Text features (K, E), normalised: `classes` of them classes, the rest background words."""

    features: Tensor
    classes: int
    background: bool


@dataclass(frozen=True, eq=False)
class Encoded:
    """What a method leaves of images once text is all that is missing."""

    patches: Tensor  # (B, N, E), normalised
    cls: Tensor | None  # (B, E), normalised; where the method multiplies by [CLS] logits
    regions: Tensor | None  # (B, H, W) int64, −1 where there is no cluster; where the method votes
    grid: tuple[int, int]
    out_size: tuple[int, int]

    def classify(self, text: Text, logit_scale: float = 100.0) -> Tensor:
        """Classes (B, H, W) int64 in 0 … C, C = background."""
        winners = _classify(self.patches, self.cls, text, logit_scale, self.grid, self.out_size)
        return winners if self.regions is None else hard_vote(winners, self.regions)


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
        self._maps: dict[Hashable, Tensor] = {}
        self._inner = 0.0

    def prediction(
        self, method: dict[str, Any], text: Text, text_key: str, logit_scale: float = 100.0
    ) -> Tensor:
        """Classes (B, H, W) int64 in 0 … C (C = background) of one run."""
        winners_key = (_attention(method), bool(method["cls_logits"]), text_key, logit_scale)
        winners = self._once(
            "classify",
            winners_key,
            lambda: _classify(
                self.patches(method),
                self.cls(method) if method["cls_logits"] else None,
                text,
                logit_scale,
                self.grid,
                self.out_size,
            ),
        )
        if not _votes(method):
            return winners
        key = (winners_key, self._region_key(method))
        return self._once("vote", key, lambda: hard_vote(winners, self.regions(method)))

    def encode(self, method: dict[str, Any]) -> Encoded:
        """Everything of `method` that needs no text."""
        return Encoded(
            patches=self.patches(method),
            cls=self.cls(method) if method["cls_logits"] else None,
            regions=self.regions(method) if _votes(method) else None,
            grid=self.grid,
            out_size=self.out_size,
        )

    def patches(self, method: dict[str, Any]) -> Tensor:
        """Patch features (B, N, E), normalised."""
        return self._features(method)[:, 1:]

    def cls(self, method: dict[str, Any]) -> Tensor:
        """[CLS] features (B, E), normalised, from the same changed blocks as the patches."""
        return self._features(method)[:, 0]

    def correlation(self, block: int, kind: str) -> Tensor:
        """W (B, L, L) of `block` (as in a 12-block model) of the unmodified model."""
        index = self.clip.block_index(block)
        return self._once("correlation", (index, kind), lambda: correlation(self._qkv(index), kind))

    def patch_rows(self, regions: dict[str, Any]) -> Tensor:
        """M (B, N, N), the correlation rows that prototypes are made of."""
        w = self.correlation(**regions["correlation"])
        denoise = regions["denoise"]
        key = (_frozen(regions["correlation"]), denoise)
        return self._once("correlation", ("rows", key), lambda: patch_rows(w, denoise))

    def clusters(self, method: dict[str, Any]) -> Tensor:
        """Cluster of every patch (B, N) int64, −1 noise."""
        what, eps, min_samples = self._cluster_key(method)

        def distances() -> Tensor:
            regions = method["regions"]
            features = regions["cluster"] == "features"
            return squared_distances(self.patches(method) if features else self.patch_rows(regions))

        def near() -> Tensor:
            return neighbours(self._once("cluster", ("distances", what), distances), eps)

        def labels() -> Tensor:
            return dbscan(self._once("cluster", ("near", what, eps), near), min_samples)

        return self._once("cluster", ("labels", what, eps, min_samples), labels)

    def _cluster_key(self, method: dict[str, Any]) -> tuple[Hashable, float, int]:
        """What is clustered, eps and min_samples."""
        regions = method["regions"]
        if regions["cluster"] == "features":
            what: Hashable = ("features", _attention(method))
        else:
            what = (_frozen(regions["correlation"]), regions["denoise"])
        return what, regions["eps"], regions["min_samples"]

    def regions(self, method: dict[str, Any]) -> Tensor:
        """Region (cluster) of every pixel (B, H, W) int64, −1 in images without a cluster."""

        def make() -> Tensor:
            labels, rows = self.clusters(method).cpu(), self.patch_rows(method["regions"])
            sets = [[own == cluster for cluster in range(int(own.max()) + 1)] for own in labels]
            maps = self._smooth_maps(sets, rows, method["regions"])
            out = torch.full((len(rows), *self.out_size), -1, device=rows.device)
            for image, own in enumerate(maps):
                if own:
                    out[image] = region_map(own, self.out_size)
            return out

        return self._once("regions", self._region_key(method), make)

    def _region_key(self, method: dict[str, Any]) -> Hashable:
        """What the region map depends on: cells of a grid that cluster alike share it."""
        key = ("content", self._cluster_key(method))
        labels = self.clusters(method)
        content = self._once("cluster", key, lambda: labels.cpu().numpy().tobytes())
        return _smoothing(method["regions"]), content

    def _smooth_maps(
        self, sets: list[list[Tensor]], rows: Tensor, regions: dict[str, Any]
    ) -> list[list[Tensor]]:
        """Smooth prototype maps (h', w') of the sets of patches of each image; a set has one map,
        whichever clustering it comes from."""
        source = ("map", _smoothing(regions))
        wanted = [
            [(source, image, members.numpy().tobytes()) for members in own]
            for image, own in enumerate(sets)
        ]
        missing = {
            key: prototype(rows[key[1]], members.to(rows.device))
            for keys, own in zip(wanted, sets, strict=True)
            for key, members in zip(keys, own, strict=True)
            if key not in self._maps
        }
        if missing:
            # one by one on a CPU, so that a map cannot depend on the others' company
            size = 1 if rows.device.type == "cpu" else len(missing)
            parts = torch.stack(list(missing.values())).split(size)
            shape = (self.grid, regions["upsample"], regions["median"])
            made = [one for part in parts for one in smooth_maps(part, *shape)]
            self._maps.update(zip(missing, made, strict=True))
        return [[self._maps[key] for key in keys] for keys in wanted]

    def _features(self, method: dict[str, Any]) -> Tensor:
        """Features (B, L, E) of all tokens, normalised."""
        attention = _attention(method)

        def make() -> Tensor:
            return F.normalize(vision.project(self.clip, self._changed(attention)), dim=-1)

        return self._once("encode", ("features", attention), make)

    def _changed(self, a: Attention) -> Tensor:
        """Tokens (B, L, D) after block `last`, attention changed from block `first` on."""
        start, stop = self.clip.block_index(a.first), self.clip.block_index(a.last)
        if a == Attention("softmax", ("qk",), a.first, a.last, True, True, None):
            return self._tokens(stop + 1)  # what CLIP computes anyway
        if a.kind in ("clip_surgery", "gem"):
            steps = [
                two_paths.Step(index, self._tokens(index), self._qkv(index))
                for index in range(start, stop + 1)
            ]
            if a.kind == "gem":
                return two_paths.gem(self.clip, steps, a.terms)
            return two_paths.clip_surgery(self.clip, steps, self._tokens(stop + 1), a.terms)
        tokens = self._tokens(start)
        bias = None
        if a.omega is not None:
            bias = vision.neighbourhood(*self.grid, a.omega, self._pixels.device)
        for index in range(start, stop + 1):
            parts = self._qkv(start) if index == start else vision.qkv(self.clip, index, tokens)
            mixed = vision.attend(parts, a.kind, a.terms, bias)
            tokens = vision.finish(self.clip, index, tokens, mixed, a.residual, a.ffn)
        return tokens

    def _tokens(self, index: int) -> Tensor:
        """Tokens (B, L, D) of the unmodified model entering block `index`; at depth, its output."""

        def make() -> Tensor:
            if index == 0:
                return vision.embed_tokens(self.clip, self._pixels)
            before = index - 1
            return vision.block(self.clip, before, self._tokens(before), self._qkv(before))

        return self._once("encode", ("tokens", index), make)

    def _qkv(self, index: int) -> vision.QKV:
        return self._once(
            "encode", ("qkv", index), lambda: vision.qkv(self.clip, index, self._tokens(index))
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


def _classify(
    patches: Tensor,
    cls: Tensor | None,
    text: Text,
    scale: float,
    grid: tuple[int, int],
    out_size: tuple[int, int],
) -> Tensor:
    return classify(patch_logits(patches, text.features, grid, scale, cls), out_size, text.classes)


def _votes(method: dict[str, Any]) -> bool:
    return method["regions"] is not None and method["regions"]["vote"] != "none"


def _attention(method: dict[str, Any]) -> Attention:
    a = method["attention"]
    return Attention(
        a["kind"],
        tuple(vision.sorted_terms(a["terms"])),
        a["first_block"],
        a["last_block"],
        a["residual"],
        a["ffn"],
        a.get("omega"),
    )


def _smoothing(regions: dict[str, Any]) -> Hashable:
    """The sub-configuration that prototypes' maps depend on."""
    correlation, denoise = _frozen(regions["correlation"]), regions["denoise"]
    return correlation, denoise, regions["upsample"], regions["median"]


def _frozen(config: Any) -> Hashable:
    if isinstance(config, dict):
        return tuple(sorted((key, _frozen(value)) for key, value in config.items()))
    return tuple(map(_frozen, config)) if isinstance(config, list) else config
