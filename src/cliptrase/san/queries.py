"""What the queries begin as: random numbers, or the regions that CLIPtrase finds."""

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from cliptrase.errors import UserError, counted

STD = 0.02  # of every beginning, so that none wins or loses by its scale

Queries = NDArray[np.float32]  # (Q, width)


def from_means(means: NDArray[np.float32], queries: int, width: int, seed: int) -> Queries:
    """Queries (Q, width) of region means (R, D): as many centres of KMeans as queries, the heaviest
    first, on their principal components.

    Means are L2-normalised first. Centres are centred and turned onto their own components, the
    largest first, each signed so that its largest entry is positive: where width ≥ Q − 1 that keeps
    their distances. What is missing to the width is 0. One factor gives all entries the standard
    deviation of random queries. Raises UserError for fewer regions than queries.
    """
    if len(means) < queries:
        raise UserError(
            f"init.images: their {counted(len(means), 'region')} make no {queries} queries; take "
            "more pictures"
        )
    unit = means / np.linalg.norm(means, axis=1, keepdims=True).clip(1e-12)
    with threadpool_limits(1):  # with more, sums have no fixed order
        found = KMeans(queries, n_init=4, random_state=seed).fit(unit.astype(np.float64))
        weight = np.bincount(found.labels_, minlength=queries)
        centres = found.cluster_centers_[np.argsort(-weight, kind="stable")]
        left, sizes, axes = np.linalg.svd(centres - centres.mean(axis=0), full_matrices=False)
    largest = np.abs(axes).argmax(axis=1)
    sign = np.sign(axes[np.arange(len(axes)), largest])
    turned = (left * sizes * sign)[:, :width]
    padded = np.pad(turned, ((0, 0), (0, width - turned.shape[1])))
    return (padded * (STD / padded.std())).astype(np.float32)
