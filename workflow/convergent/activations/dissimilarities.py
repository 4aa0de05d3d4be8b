"""Dissimilarities of images in a layer, from an activation store, for RSA.

The representational dissimilarity of Kriegeskorte et al. (2008) is 1 - Pearson's correlation of
the activations of all units, at all positions, that two images evoke.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from convergent.activations.inner_products import products_of_images, read_vectors

# Images that are compared.
IMAGES = 1000


class Dissimilarities(NamedTuple):
    """Dissimilarities of images in a layer.

    Attributes
    ----------
    matrix : ndarray of shape (image, image), float32
        Symmetric, from 0 to 2, with 0 on the diagonal.
    constant : int
        Number of images whose activations are all equal. No correlation is defined for them, and
        their dissimilarity to any other image is 1.
    """

    matrix: NDArray[np.float32]
    constant: int


def dissimilarities(array: zarr.Array, images: int = IMAGES) -> Dissimilarities:
    """Compute the dissimilarities of the first images of a layer, which are in random order.

    Parameters
    ----------
    array : zarr.Array of shape (image, ..., unit)
        Layer of an activation store.
    images : int
        Number of images, or all if there are fewer.

    Raises
    ------
    StoreError
        If an activation is NaN or infinite.
    """
    images = min(images, array.shape[0])
    constant: dict[int, int] = {}

    def read(start: int, stop: int) -> NDArray[np.float32]:
        vectors = _unit_vectors(read_vectors(array, start, stop))
        constant[start] = int((~vectors.any(axis=1)).sum())
        return vectors

    matrix = products_of_images(array, images, read)
    np.subtract(1, matrix, out=matrix)
    np.fill_diagonal(matrix, 0)
    found = np.clip(matrix, 0, 2, out=matrix).astype(np.float32)
    return Dissimilarities(found, sum(constant.values()))


def _unit_vectors(x: NDArray) -> NDArray[np.float32]:
    """Bring vectors (image, activation) to mean 0 and length 1; to 0 if they are constant."""
    x = x.astype(np.float32, copy=False)
    low, high = x.min(axis=1, keepdims=True), x.max(axis=1, keepdims=True)
    # First from -1 to 1, so that no square leaves float32's range.
    x -= low / 2 + high / 2
    x /= np.where(low < high, high / 2 - low / 2, np.inf)
    x -= x.mean(axis=1, keepdims=True, dtype=np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64))[:, None]
    x /= np.where(lengths > 0, lengths, np.inf)
    return x
