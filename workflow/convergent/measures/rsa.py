"""Representational similarity analysis of two layers (Kriegeskorte et al. 2008)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from convergent.measures.registry import Measure, Undefined

if TYPE_CHECKING:
    from numpy.typing import NDArray

    # From places in a list of values to what takes part in a cosine.
    Vector = Callable[[NDArray], NDArray[np.float64]]


# Dissimilarities are ranked in steps of this size, well above the 1e-7 that float32 resolves.
STEP = 1e-5


class Compared(NamedTuple):
    """What takes part in a cosine, of the images of one layer.

    Attributes
    ----------
    matrix : ndarray of shape (image, image), float64
        Symmetric, with 0 on the diagonal.
    """

    matrix: NDArray[np.float64]

    def turned(self, offset: int) -> Compared:
        """Turn the images: image i is what was image i + offset."""
        return Compared(np.roll(self.matrix, (-offset, -offset), axis=(0, 1)))


def prepare(matrix: NDArray) -> Compared:
    """Rank the dissimilarities of images in one layer, for :func:`compute`."""
    return _prepared(matrix, _ranks)


def prepare_cosine(matrix: NDArray) -> Compared:
    """Do for :func:`compute_cosine` what :func:`prepare` does for :func:`compute`."""
    return _prepared(matrix, _cosines)


def compute(a: NDArray | Compared, b: NDArray | Compared) -> float:
    """Correlate the ranks of the dissimilarities of all pairs of images in two layers (Spearman).

    Dissimilarities that are equal in steps of 1e-5 have the mean of their ranks, as rounding would
    order them at random. A layer in which all pairs of images are equally dissimilar has
    similarity 0 with any other.

    Parameters
    ----------
    a, b : ndarray of shape (image, image), or Compared
        Dissimilarities of the same images, symmetric.

    Raises
    ------
    Undefined
        If there are fewer than 3 images.
    """
    x, y = (z if isinstance(z, Compared) else prepare(z) for z in (a, b))
    return cosine(x.matrix.ravel(), y.matrix.ravel())


def compute_cosine(a: NDArray | Compared, b: NDArray | Compared) -> float:
    """Compute the cosine of the dissimilarities of all pairs of images in two layers.

    A layer in which all images are alike, or none resembles another at all (all dissimilarities
    are exactly 1, as those of images whose activations are constant), has similarity 0 with any.

    Parameters
    ----------
    a, b : ndarray of shape (image, image), or Compared
        Dissimilarities of the same images, symmetric.

    Raises
    ------
    Undefined
        If there are fewer than 3 images.
    """
    x, y = (z if isinstance(z, Compared) else prepare_cosine(z) for z in (a, b))
    return cosine(x.matrix.ravel(), y.matrix.ravel())


def without_blocks(a: NDArray, b: NDArray, edges: NDArray[np.integer]) -> NDArray[np.float64]:
    """Compute :func:`compute` without each block of images; dissimilarities are sorted once.

    Parameters
    ----------
    a, b : ndarray of shape (image, image)
        Dissimilarities of the same images, symmetric.
    edges : ndarray of shape (block + 1,)
        First row of each block, and the number of images.

    Returns
    -------
    ndarray of shape (block,), float64

    Raises
    ------
    Undefined
        If fewer than 3 images are left.
    """
    return _values(a, b, _ranks, [slice(i, j) for i, j in itertools.pairwise(edges)])


def cosine_without_blocks(
    a: NDArray, b: NDArray, edges: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Compute :func:`compute_cosine` without each block, as :func:`without_blocks` does."""
    return _values(a, b, _cosines, [slice(i, j) for i, j in itertools.pairwise(edges)])


def of_pairs(matrix: NDArray) -> NDArray:
    """List the entries of a matrix (image, image) above its diagonal, row by row."""
    return matrix[np.triu(np.ones(matrix.shape, bool), 1)]


def _prepared(matrix: NDArray, vector: Callable[[NDArray], Vector]) -> Compared:
    """Compute the vector of all pairs of images, and lay it out as a matrix."""
    if len(matrix) < 3:
        raise Undefined("there are fewer than 3 images")
    values = vector(of_pairs(matrix))
    above = np.triu(np.ones(matrix.shape, bool), 1)
    found = np.zeros(matrix.shape)
    found[above] = values(np.arange(np.count_nonzero(above)))
    return Compared(found + found.T)


def _values(
    a: NDArray, b: NDArray, vector: Callable[[NDArray], Vector], blocks: Sequence[slice]
) -> NDArray[np.float64]:
    """Compute cosines of vectors without each of the blocks."""
    if len(a) - max(block.stop - block.start for block in blocks) < 3:
        raise Undefined("there are fewer than 3 images")
    x, y = vector(of_pairs(a)), vector(of_pairs(b))
    values = []
    for block in blocks:
        stays = np.ones(len(a), bool)
        stays[block] = False
        kept = np.flatnonzero(of_pairs(stays[:, None] & stays))
        values.append(cosine(x(kept), y(kept)))
    return np.array(values)


def centred_ranks(values: NDArray) -> NDArray[np.float64]:
    """Rank values, with the mean of their ranks for equal ones; the mean of all is 0."""
    return _ranks(values)(np.arange(len(values)))


def _ranks(values: NDArray) -> Vector:
    """Sort values, so that any of them, by their places, can be ranked among each other."""
    _, numbers = np.unique(np.rint(values / STEP), return_inverse=True)

    def ranks(places: NDArray) -> NDArray[np.float64]:
        chosen = numbers[places]
        counts = np.bincount(chosen)
        middle = counts.cumsum() - (counts - 1) / 2
        return (middle - (len(chosen) + 1) / 2)[chosen]

    return ranks


def _cosines(values: NDArray) -> Vector:
    def dissimilarities(places: NDArray) -> NDArray[np.float64]:
        chosen = values[places].astype(np.float64)
        return chosen if (chosen != 1).any() else np.zeros_like(chosen)

    return dissimilarities


def cosine(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Compute the cosine of the angle between two vectors; 0 if one has no length."""
    norms = np.linalg.norm(x) * np.linalg.norm(y)
    return float(x @ y / norms) if norms > 0 else 0.0


MEASURES = (
    Measure(
        name="rsa",
        label="RSA (Spearman)",
        unit="",
        needs="dissimilarities",
        gives="layers",
        range=(-1, 1),
        invariances=frozenset({"permutation", "isotropic_scaling"}),
        symmetric=True,
        higher_is_more_alike=True,
        source="Kriegeskorte et al. 2008",
        compute=compute,
        prepare=prepare,
        without=without_blocks,
    ),
    Measure(
        name="rsa_cosine",
        label="RSA (cosine)",
        unit="",
        needs="dissimilarities",
        gives="layers",
        range=(0, 1),
        invariances=frozenset({"permutation", "isotropic_scaling"}),
        symmetric=True,
        higher_is_more_alike=True,
        source="Kriegeskorte et al. 2008",
        compute=compute_cosine,
        prepare=prepare_cosine,
        without=cosine_without_blocks,
        module="rsa",
    ),
)
