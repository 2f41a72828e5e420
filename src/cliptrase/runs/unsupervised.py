"""From the regions of a whole benchmark to classes that no word decided: k-means of what regions
look like, then the matching of clusters with classes that hits most pixels (Hungarian, as STEGO's).

No image, no model, no torch. scikit-learn and SciPy are imported by what needs them.
"""

import warnings

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from cliptrase.errors import UserError, counted
from cliptrase.runs.counts import ImageCounts, RegionCounts

STARTS, SEED = 10, 0  # of k-means


def clustered(regions: RegionCounts, clusters: int) -> NDArray[np.int64]:
    """Cluster (R,) of each region: k-means of the descriptors, weighted by pixels, then the centre
    with the largest cosine, the first on ties.

    Raises UserError for fewer regions than clusters.
    """
    count = len(regions.n)
    if count < clusters:
        scored = int((~regions.skipped).sum())
        raise UserError(
            f"method.unsupervised.clusters: {counted(scored, 'image')} with "
            f"{counted(count, 'region')} cannot make {counted(clusters, 'cluster')}; "
            "take more images, or fewer clusters with method.unsupervised.clusters="
        )
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    points = regions.d.astype(np.float64)
    means = KMeans(clusters, n_init=STARTS, random_state=SEED)
    # one thread: with more, sums have no fixed order. Equal descriptors may make fewer clusters.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        centres = means.fit(points, sample_weight=regions.n).cluster_centers_
        lengths = np.linalg.norm(centres, axis=1, keepdims=True)
        return (points @ (centres / lengths).T).argmax(axis=1)


def shared_pixels(clusters: NDArray[np.int64], g: NDArray[np.int32], count: int) -> NDArray:
    """S (count, K) int64: scored pixels of each cluster by class, of the regions' `clusters` (R,)
    and their pixels by class `g` (R, K)."""
    shared = np.zeros((count, g.shape[1]), np.int64)
    np.add.at(shared, clusters, g)
    return shared


def matched(shared: NDArray[np.int64]) -> NDArray[np.int64]:
    """Class of each cluster, of S (clusters, K) with at least as many clusters as classes: the
    matching with most pixels in all. K, which is no class, for a cluster that gets none."""
    from scipy.optimize import linear_sum_assignment

    classes = np.full(len(shared), shared.shape[1], np.int64)
    rows, columns = linear_sum_assignment(shared, maximize=True)
    classes[rows] = columns
    return classes


def by_class(
    regions: RegionCounts, classes: NDArray[np.int64], *, surplus: bool
) -> tuple[NDArray[np.int64], ImageCounts]:
    """The confusion matrix and the counts by image, of regions whose pixels all have the predicted
    class `classes` (R,) in 0..K, where K is none: its pixels are misses.

    The matrix is (K, K), rows = ground truth; with `surplus` clusters it has one column more, of
    the pixels that get no class.
    """
    images, k = len(regions.ids), regions.g.shape[1]
    matrix = np.zeros((k + 1, k), np.int64)  # predicted × true
    np.add.at(matrix, classes, regions.g)
    tp, gt, pred = np.zeros((3, images, k + 1), np.int32)
    own = regions.g[np.arange(len(classes)), np.minimum(classes, k - 1)]
    np.add.at(tp, (regions.image, classes), own)
    np.add.at(pred, (regions.image, classes), regions.g.sum(axis=1))
    np.add.at(gt[:, :k], regions.image, regions.g)
    counts = ImageCounts(regions.ids, regions.skipped, tp[:, :k], gt[:, :k], pred[:, :k])
    return matrix[: k + surplus].T.copy(), counts
