"""DBSCAN of a batch on any device, with the labels scikit-learn gives, point for point."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliptrase.config.method_regions import Regions
from cliptrase.model.affinity import squared_distances
from cliptrase.segment import ways


@dataclass(frozen=True, eq=False)
class Points:
    """What is clustered: `rows` (B, N, C), N points of each image. All clusterings of a grid take
    the same `Points`, so that their distances are computed once."""

    rows: Tensor

    @cached_property
    def squared(self) -> Tensor:
        """Squared Euclidean distances (B, N, N) float64."""
        return squared_distances(self.rows)


def neighbours(squared: Tensor, eps: float) -> Tensor:
    """Who is within `eps` (inclusive) of whom: (B, N, N) bool; every point is its own neighbour.

    scikit-learn squares eps in the precision of its input, float32.
    """
    radius = np.float32(eps)
    near = squared <= float(radius * radius)
    near.diagonal(dim1=1, dim2=2).fill_(True)
    return near


def dbscan(near: Tensor, min_samples: int, kept: Tensor | None = None) -> Tensor:
    """DBSCAN labels (B, N) int64 from neighbours (B, N, N); −1 is noise.

    A core point has at least `min_samples` neighbours, itself included. Clusters are numbered by
    the index of their first core point; a border point goes to the first cluster that reaches it.
    `kept` (B, N) bool: the points that take part; the others are −1 and nobody's neighbours.
    """
    if kept is not None:
        near = near & kept.unsqueeze(1) & kept.unsqueeze(2)
    core = near.sum(dim=-1) >= min_samples
    if ways.one_by_one(near.device):
        some = zip(near.numpy(), core.numpy(), strict=True)
        return torch.from_numpy(np.stack([_grown(*image) for image in some]))
    size = near.shape[-1]
    linked = near & core.unsqueeze(1)
    index = torch.arange(size, device=near.device, dtype=torch.int32)
    # Every point takes the smallest core index in reach, until nothing changes; a core point also
    # takes what its current choice has taken, so that long chains close in few rounds.
    first, before = torch.where(linked, index, size).amin(dim=-1), None
    while before is None or not torch.equal(first, before):
        before = first
        choices = torch.cat([before, torch.full_like(before[:, :1], size)], dim=1)
        jumped = choices.gather(1, before.long())
        first = torch.where(linked, jumped.unsqueeze(1), size).amin(dim=-1)
    is_first = core & (first == index)
    number = torch.cat([is_first.cumsum(dim=1) - 1, torch.full_like(first[:, :1], -1)], dim=1)
    return number.gather(1, first.long())


def _grown(near: NDArray[np.bool_], core: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Labels (N,) of one image from its neighbours (N, N) and core points (N,): each cluster grows
    from its first core point, through core points, until nothing new is near."""
    labels = np.full(len(near), -1)
    for first in np.flatnonzero(core):
        if labels[first] >= 0:
            continue
        front, cluster = np.array([first]), labels.max() + 1
        labels[first] = cluster
        while len(front):
            reached = near[front].any(axis=0) & (labels < 0)
            labels[reached] = cluster
            front = np.flatnonzero(reached & core)
    return labels


def dbscan_clusters(points: Points, regions: Regions, kept: Tensor | None = None) -> Tensor:
    """Clusters (B, N) int64 of `points` by the eps and min_samples of `regions`, as `dbscan`."""
    assert regions.eps is not None and regions.min_samples is not None
    near = neighbours(points.squared, regions.eps)
    return dbscan(near, regions.min_samples, kept)


def without(labels: Tensor, kept: Tensor) -> Tensor:
    """Labels (B, N) with −1 for the points that are not `kept` (B, N) bool; clusters that lose all
    their points are gone, the others numbered without gaps, in their order."""
    size = labels.shape[1]
    left = torch.where(kept & (labels >= 0), labels, size)
    alive = labels.new_zeros((len(labels), size + 1)).scatter_(1, left, 1)
    number = alive.cumsum(dim=1) - 1
    number[:, size] = -1
    return number.gather(1, left)
