"""Share of common nearest images in two layers (Huh et al. 2024), from the means of units."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from convergent.measures.registry import Measure, Undefined

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Nearest images, as in the paper.
K = 10
# Similarities are compared in steps of this size, well above what rounding changes in float64.
STEP = 1e-12
# Bytes of the similarities of one block of images with all.
BYTES = 64 * 2**20


class Neighbours(NamedTuple):
    """Nearest images of each image in one layer.

    Attributes
    ----------
    images : ndarray of shape (image, K), intp, or None
        None for a layer in which all units are dead.
    """

    images: NDArray[np.intp] | None

    def turned(self, offset: int) -> Neighbours:
        """Turn the images: image i is what was image i + offset."""
        if self.images is None:
            return self
        return Neighbours((np.roll(self.images, -offset, axis=0) - offset) % len(self.images))


def prepare(x: NDArray) -> Neighbours:
    """Find the nearest images of each image in one layer, for :func:`compute`."""
    if len(x) <= K:
        raise Undefined(f"there are fewer than {K + 1} images")
    return Neighbours(nearest(x, K) if _varies(x) else None)


def compute(x: NDArray | Neighbours, y: NDArray | Neighbours) -> float:
    """Average over images the share of their 10 nearest images that both layers have in common.

    The nearest images are those of largest inner product, after each image's means of units are
    divided by their norm; as in the paper, they are not centred first. Of equally near images the
    first in order count, and an image whose means are all 0 is at right angles to any other. The
    expectation for unrelated layers is 10 / (images - 1). A layer whose units are all dead has
    similarity 0 with any other.

    Parameters
    ----------
    x : ndarray of shape (image, unit_a), or Neighbours
    y : ndarray of shape (image, unit_b), or Neighbours

    Raises
    ------
    Undefined
        If there are fewer than 11 images.
    """
    a, b = (z if isinstance(z, Neighbours) else prepare(z) for z in (x, y))
    if a.images is None or b.images is None:
        return 0.0
    rows = len(a.images) * np.arange(len(a.images))[:, None]
    return _common((rows + a.images).ravel(), (rows + b.images).ravel())


def without_blocks(x: NDArray, y: NDArray, edges: NDArray[np.integer]) -> NDArray[np.float64]:
    """Compute the measure without each block of images.

    Similarities are computed once: the nearest images without a block are found among the
    nearest of all.

    Parameters
    ----------
    x : ndarray of shape (image, unit_a)
    y : ndarray of shape (image, unit_b)
    edges : ndarray of shape (block + 1,)
        First row of each block, and the number of images.

    Returns
    -------
    ndarray of shape (block,), float64

    Raises
    ------
    Undefined
        If fewer than 11 images are left.
    """
    blocks = [slice(i, j) for i, j in itertools.pairwise(edges)]
    if len(x) - max(block.stop - block.start for block in blocks) <= K:
        raise Undefined(f"there are fewer than {K + 1} images")
    if not (_varies(x) and _varies(y)):
        return np.zeros(len(blocks))
    found = [_neighbours_without(z, blocks) for z in (x, y)]
    return np.array([_common(a, b) for a, b in zip(*found, strict=True)])


def _varies(x: NDArray) -> bool:
    """Tell whether a unit of a layer varies."""
    return bool((x.min(axis=0) < x.max(axis=0)).any())


def nearest(x: NDArray, number: int) -> NDArray[np.intp]:
    """List the nearest other images of each image, the nearest first.

    Parameters
    ----------
    x : ndarray of shape (image, unit)
    number : int
        Length of the lists.

    Returns
    -------
    ndarray of shape (image, number), intp
    """
    images = len(x)
    x = np.asarray(x, np.float64)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    x = np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)
    result = np.empty((images, number), np.intp)
    height = max(1, BYTES // (8 * images))
    for start in range(0, images, height):
        rows = np.arange(start, min(start + height, images))
        steps = np.rint(x[rows] @ x.T / STEP).astype(np.int64)
        # Distinct keys: by similarity, and of equal ones by the order of the images.
        keys = np.arange(images) - steps * images
        keys[rows - start, rows] = np.iinfo(np.int64).max
        few = np.argpartition(keys, number - 1, axis=1)[:, :number]
        order = np.argsort(np.take_along_axis(keys, few, axis=1), axis=1)
        result[rows] = np.take_along_axis(few, order, axis=1)
    return result


def _neighbours_without(x: NDArray, blocks: Sequence[slice]) -> list[NDArray[np.int64]]:
    """List pairs of an image and one of its `K` nearest, without the images of each block.

    A pair is the number of an entry in a square matrix of all images.
    """
    images = len(x)
    number = min(4 * K, images - 1)
    while True:
        lists = nearest(x, number)
        result = []
        for block in blocks:
            stay = (lists < block.start) | (lists >= block.stop)
            stay &= stay.cumsum(axis=1) <= K
            stay[block] = False
            rows, places = np.nonzero(stay)
            result.append(rows * images + lists[rows, places])
        left = [(images - (block.stop - block.start)) * K for block in blocks]
        if list(map(len, result)) == left:
            return result
        # Most of the nearest images of some image are in one block.
        number = min(2 * number, images - 1)


def _common(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """Return the share of pairs that two equally long lists have in common."""
    return len(np.intersect1d(a, b, assume_unique=True)) / len(a)


MEASURE = Measure(
    name="mutual_knn",
    label="mutual k-NN",
    unit="",
    needs="image_means",
    gives="layers",
    range=(0, 1),
    invariances=frozenset({"permutation", "isotropic_scaling", "sign", "rotation"}),
    symmetric=True,
    higher_is_more_alike=True,
    source="Huh et al. 2024",
    compute=compute,
    prepare=prepare,
    without=without_blocks,
)
