"""Sub-configurations of a method as keys: runs that agree on one share what depends on it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from cliptrase.config.kinds import DENOISE
from cliptrase.config.schema import Method, Regions


class Clustering(NamedTuple):
    """What decides the clusters: what is clustered and how, and which patches take part."""

    rows: Hashable  # what is clustered
    algorithm: str
    eps: float
    min_samples: int
    dropped_by: Hashable  # what decides which patches are dropped, None where none is
    passes: int  # 1 where none is dropped: a second pass changes nothing


def logits_key(method: Method, text_key: str, logit_scale: float) -> Hashable:
    """What logits depend on."""
    return method.attention, method.cls_logits, text_key, logit_scale


def clustering_key(method: Method, regions: Regions) -> Clustering:
    """What the clusters depend on."""
    rows: Hashable = (rows_key(regions), regions.l2_rows)
    if regions.cluster == "features":
        rows = ("features", method.attention)
    how = (rows, regions.algorithm, regions.eps, regions.min_samples)
    if not DENOISE[regions.denoise].kept:
        return Clustering(*how, None, 1)
    return Clustering(*how, (regions.correlation, regions.denoise), regions.passes)


def rows_key(regions: Regions) -> Hashable:
    """What correlation rows depend on; kinds that only drop patches change none of them."""
    return regions.correlation, DENOISE[regions.denoise].rows


def smoothing_key(regions: Regions) -> Hashable:
    """What prototypes' maps depend on."""
    return rows_key(regions), regions.upsample, regions.median
