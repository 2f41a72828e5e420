"""What runs of a pass share: sub-configurations of methods as keys, and rows kept by their key."""

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cliptrase.config.kinds import ATTENTION, DENOISE, PROPAGATE, DenoiseKind
from cliptrase.config.method import Backbone, Method
from cliptrase.config.method_regions import Regions
from cliptrase.evaluate.encoded import Text


class Clustering(NamedTuple):
    """What decides the clusters: what is clustered and how, and which patches take part."""

    rows: Hashable  # what is clustered
    algorithm: Hashable
    eps: float | None
    min_samples: int | None
    dropped_by: Hashable  # what decides which patches are dropped, None where none is
    passes: int  # 1 where none is dropped: a second pass changes nothing


def features_key(method: Method) -> Hashable:
    """What features depend on: the attention, and the networks that it reads."""
    return method.attention, _network_keys(method, ATTENTION[method.attention.kind].networks)


def logits_key(method: Method, text: Text, text_key: str, logit_scale: float) -> Hashable:
    """What logits on the patch grid depend on: of the text the features, and where they are
    propagated also which classes own them."""
    words = text.features_digest if method.propagate is None else text_key
    return images_key(method), words, logit_scale


def images_key(method: Method) -> Hashable:
    """What logits depend on of a method, whatever the words."""
    propagation: Hashable = None
    if method.propagate is not None:
        networks = _network_keys(method, PROPAGATE[method.propagate].networks)
        propagation = method.propagate, method.solver, networks
    return features_key(method), method.cls_logits, propagation


def _network_keys(method: Method, roles: tuple[str, ...]) -> Hashable:
    return tuple(getattr(method, role).key for role in roles)


def names_key(method: Method, text: Text, text_key: str, logit_scale: float) -> Hashable:
    """What the names that win pixels depend on, where no region votes."""
    return logits_key(method, text, text_key, logit_scale), method.pamr


def clustering_key(method: Method, regions: Regions) -> Clustering:
    """What the clusters depend on."""
    if regions.kind == "panoptic_cut":
        cut = correlation_key(regions, method.dino), regions.cut
        return Clustering(*cut, None, None, None, 1)
    rows: Hashable = (rows_key(regions, method.dino), regions.l2_rows)
    if regions.cluster == "features":
        rows = ("features", features_key(method))
    how = (rows, regions.algorithm, regions.eps, regions.min_samples)
    if not denoising(regions).kept:
        return Clustering(*how, None, 1)
    dropped_by = (correlation_key(regions, method.dino), regions.denoise)
    return Clustering(*how, dropped_by, regions.passes)


def correlation_key(regions: Regions, dino: Backbone | None) -> Hashable:
    """What a correlation depends on; `dino`: the network that it may be of."""
    of_dino = dino is not None and regions.source == "dino"
    return regions.correlation, dino.key if of_dino and dino else None


def rows_key(regions: Regions, dino: Backbone | None = None) -> Hashable:
    """What correlation rows depend on; kinds that only drop patches change none of them."""
    return correlation_key(regions, dino), denoising(regions).rows


def denoising(regions: Regions) -> DenoiseKind:
    """How regions are denoised: not at all where their kind has no such key."""
    return DENOISE[regions.denoise or "none"]


def smoothing_key(method: Method, regions: Regions) -> Hashable:
    """What the region map of some clusters depends on."""
    if regions.kind == "sam":
        assert method.sam is not None
        return method.sam.key, regions.sam
    if regions.kind == "sam_grid":
        assert method.sam is not None
        return regions.kind, method.sam.key
    if regions.kind == "panoptic_cut":
        return regions.kind
    return rows_key(regions, method.dino), regions.upsample, regions.median


class Memo:
    """Rows of one tensor by key: computes and appends those that are missing."""

    def __init__(self) -> None:
        self._places: dict[bytes, int] = {}
        self._rows: Tensor | None = None  # with room for more

    def __call__(
        self, keys: Sequence[bytes], make: Callable[[Sequence[int]], Tensor]
    ) -> tuple[Tensor, NDArray[np.int64]]:
        """All rows, and the place of each key among them. `make` computes the rows of the keys at
        some positions."""
        places = self._places
        missing: dict[bytes, int] = {}
        for position, key in enumerate(keys):
            if key not in places:
                missing.setdefault(key, position)
        if missing:
            used = len(places)
            self._append(make(list(missing.values())), used)
            places.update((key, used + row) for row, key in enumerate(missing))
        assert self._rows is not None, "no keys"
        return self._rows, np.array([places[key] for key in keys])

    def _append(self, rows: Tensor, used: int) -> None:
        """Room doubles where it is too small, so that a row is moved once on average."""
        if self._rows is None:
            self._rows = rows
            return
        needed = used + len(rows)
        if needed > len(self._rows):
            room = self._rows.new_empty((max(needed, 2 * used), *rows.shape[1:]))
            room[:used] = self._rows[:used]
            self._rows = room
        self._rows[used:needed] = rows


def set_keys(images: NDArray[np.integer], sets: NDArray[np.bool_]) -> list[bytes]:
    """A key of each set of patches (S, N) of an image (S,): equal for equal sets alone."""
    which = images.astype("<u4").view(np.uint8).reshape(-1, 4)
    both = np.concatenate([which, np.packbits(sets, axis=1)], axis=1)
    return both.view(f"V{both.shape[1]}").reshape(-1).tolist()
