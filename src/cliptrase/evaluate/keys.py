"""Sub-configurations of a method as keys: runs that agree on one share what depends on it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

from cliptrase.model.vision import Attention, sorted_terms


class Clustering(NamedTuple):
    """What decides the clusters: what is clustered, and which patches take part."""

    what: Hashable
    eps: float
    min_samples: int
    dropped_by: Hashable  # the correlation that Eq. 7 looks at, None without it
    passes: int  # without Eq. 7 always 1: a second pass changes nothing


def vote_of(method: dict[str, Any]) -> str:
    """hard | soft | none, none where the method has no regions."""
    return "none" if method["regions"] is None else str(method["regions"]["vote"])


def logits_key(method: dict[str, Any], text_key: str, logit_scale: float) -> Hashable:
    """What logits depend on."""
    return attention_key(method), bool(method["cls_logits"]), text_key, logit_scale


def attention_key(method: dict[str, Any]) -> Attention:
    """What features depend on."""
    a = method["attention"]
    return Attention(
        a["kind"],
        tuple(sorted_terms(a["terms"])),
        a["first_block"],
        a["last_block"],
        a["residual"],
        a["ffn"],
        a["omega"],
        a["row_sum"],
        a["heads"],
    )


def clustering_key(method: dict[str, Any]) -> Clustering:
    """What the clusters depend on."""
    regions = method["regions"]
    if regions["cluster"] == "features":
        what: Hashable = ("features", attention_key(method))
    else:
        what = (rows_key(regions), regions["l2_rows"])
    eps, min_samples = regions["eps"], regions["min_samples"]
    if regions["denoise"] != "eq7":
        return Clustering(what, eps, min_samples, None, 1)
    dropped_by = frozen(regions["correlation"])
    return Clustering(what, eps, min_samples, dropped_by, regions["passes"])


def rows_key(regions: dict[str, Any]) -> Hashable:
    """The sub-configuration that correlation rows depend on; Eq. 7 changes none of them."""
    return frozen(regions["correlation"]), regions["denoise"] == "cls"


def smoothing_key(regions: dict[str, Any]) -> Hashable:
    """The sub-configuration that prototypes' maps depend on."""
    return rows_key(regions), regions["upsample"], regions["median"]


def frozen(config: Any) -> Hashable:
    """A piece of configuration as something to look up by."""
    if isinstance(config, dict):
        return tuple(sorted((key, frozen(value)) for key, value in config.items()))
    return tuple(map(frozen, config)) if isinstance(config, list) else config
