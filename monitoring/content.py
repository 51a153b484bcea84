"""Compare what images show: a model's features of the window's images with those of the baseline's.

The test counts nearest neighbours (Schilling 1986, "Multivariate two-sample tests based on nearest neighbors"). If both
samples have the same distribution, the images most similar to an image are in the window as often as any other image
is. If a part of the window shows something new, the images of that part find each other. High fractions count more
here than in Schilling's sum, so that a part of a fifth is enough.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse

from common.progress import progress
from serving.model import Model as Network
from serving.preprocess import preprocess

#: Most images of a baseline or window that are compared.
MOST_IMAGES = 1000
#: Nearest neighbours of each image.
NEIGHBOURS = 20

_DIMENSIONS = 32
_PERMUTATIONS = 20_000
# After so many permutations that are at least as extreme, more of them would not change the result much.
_ENOUGH = 20
_BATCH = 1000
# With fewer different images in either sample, nothing is compared.
_LEAST_IMAGES = 30

Rows = npt.NDArray[np.float16]
Fractions = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Content:
    """The result of a comparison.

    Attributes
    ----------
    statistic : float
        Mean fourth power of ``window``.
    p_value : float
        Fraction of random divisions into two samples that have at least this statistic.
    baseline, window : numpy.ndarray
        For each compared image of either sample, the fraction of its `NEIGHBOURS` most similar images that are in the
        window.
    compared : numpy.ndarray
        For each value of ``window``, the image's row.
    """

    statistic: float
    p_value: float
    baseline: Fractions
    window: Fractions
    compared: npt.NDArray[np.int64]

    @property
    def expected(self) -> float:
        """The fraction of an image's neighbours that would be in the window by chance."""
        return len(self.window) / (len(self.window) + len(self.baseline))

    def most_unusual(self) -> npt.NDArray[np.int64]:
        """Return the rows of the window's images, first those with the most similar images in the window."""
        return self.compared[np.argsort(-self.window, kind="stable")]


def describe(images: Iterable[bytes], network: Network) -> Rows:
    """Return the network's features of images as the endpoint gets them.

    Returns
    -------
    numpy.ndarray
        Shape (images, features).
    """
    images = list(images)
    rows = []
    with progress("compare content", len(images), "images") as advance:
        for image in images:
            # Rounded as in the baseline's file, so that an image that is in both samples is recognised.
            rows.append(network.features(preprocess(image, network.input_size)).astype(np.float16))
            advance(1)
    return np.array(rows, np.float16)


def compare_content(baseline: Rows, window: Rows) -> Content | None:
    """Test whether both samples have the same distribution.

    Every step treats both samples alike, and the p-value comes from dividing all images at random, so the false alarm
    rate is exact for images that are drawn independently, whatever their features are. An image that occurs more
    than once counts once: a request that is repeated is not drift.

    Parameters
    ----------
    baseline, window : numpy.ndarray
        Shapes (images, features).

    Returns
    -------
    Content or None
        None if there are too few different images to compare.
    """
    pooled = np.concatenate([baseline, window])
    first = np.sort(np.unique(pooled, axis=0, return_index=True)[1])
    old = int((first < len(baseline)).sum())
    if min(old, len(first) - old) < _LEAST_IMAGES:
        return None
    near = _neighbours(pooled[first].astype(np.float32))
    in_window = (np.arange(len(first)) >= old).astype(np.float32)[:, None]
    found = _in_window(near, in_window)[:, 0].astype(float) / NEIGHBOURS
    p_value = _p_value(near, in_window)
    return Content(float((found[old:] ** 4).mean()), p_value, found[:old], found[old:], first[old:] - len(baseline))


def _neighbours(rows: npt.NDArray[np.float32]) -> sparse.csr_array:
    """Return a matrix that has 1 in each image's row for its most similar images, of shape (images, images)."""
    # The features' scales differ by orders of magnitude, and most of them move together: equal scales, and the leading
    # principal components. Both come from all images, never from one sample: a sample fits its own components better.
    rows = (rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-6)
    count = len(rows)
    values, vectors = linalg.eigh(rows @ rows.T, subset_by_index=(max(0, count - _DIMENSIONS), count - 1))
    rows = vectors * np.sqrt(np.maximum(values, 0))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True) + 1e-6
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -np.inf)
    nearest = np.argpartition(-similarity, NEIGHBOURS, axis=1)[:, :NEIGHBOURS].ravel()
    ones = np.ones(len(nearest), np.float32)
    return sparse.csr_array((ones, (np.repeat(np.arange(count), NEIGHBOURS), nearest)), (count, count))


def _in_window(near: sparse.csr_array, in_window: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Count each image's neighbours in the window; each column of ``in_window`` is one choice of a window."""
    counts: npt.NDArray[np.float32] = near @ in_window
    return counts


def _statistic(near: sparse.csr_array, in_window: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Sum the fourth power of the counts over the images of each window; the sums are exact integers."""
    squares = np.square(_in_window(near, in_window) * in_window)
    total: npt.NDArray[np.float64] = np.einsum("ij,ij->j", squares, squares, dtype=np.float64)
    return total


def _p_value(near: sparse.csr_array, in_window: npt.NDArray[np.float32]) -> float:
    """Compare with random windows of the same size, until enough of them are at least as extreme."""
    # Besag and Clifford 1991, "Sequential Monte Carlo p-values": stopping like this keeps the p-value exact.
    statistic = _statistic(near, in_window)
    extreme = 0
    for done in range(0, _PERMUTATIONS, _BATCH):
        hits = np.flatnonzero(_statistic(near, _draw(len(in_window), int(in_window.sum()), done)) >= statistic)
        if extreme + len(hits) >= _ENOUGH:
            return _ENOUGH / (done + int(hits[_ENOUGH - extreme - 1]) + 1)
        extreme += len(hits)
    return (extreme + 1) / (_PERMUTATIONS + 1)


@lru_cache(maxsize=_PERMUTATIONS // _BATCH)
def _draw(images: int, window: int, seed: int) -> npt.NDArray[np.float32]:
    """Return random windows, one a column; checks of equal sizes share them."""
    ordered = np.broadcast_to(np.arange(images) < window, (_BATCH, images))
    return np.random.default_rng(seed).permuted(ordered, axis=1).T.astype(np.float32)
