"""Inner products of images in a layer, from an activation store.

An image is one vector: the activations of all units at all positions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import zarr
from numpy.typing import NDArray

from convergent.activations.moments import widen
from convergent.running.stores import StoreError

# Images that are compared.
IMAGES = 2000
# Bytes of the float32 activations of a block of images; three are held at once.
BLOCK_BYTES = 64 * 2**20
# Activations of each image that are multiplied in float32, before their sum goes on in float64.
TILE = 4096


def inner_products(array: zarr.Array, images: int = IMAGES) -> NDArray[np.float32]:
    """Compute the inner products of the first images of a layer, which are in random order.

    The activations of the first image are subtracted from those of every image, and all are divided
    by one number, so that float32 holds the products. Unbiased CKA changes with neither.

    Parameters
    ----------
    array : zarr.Array of shape (image, ..., unit)
        Layer of an activation store.
    images : int
        Number of images, or all if there are fewer.

    Returns
    -------
    ndarray of shape (image, image), float32
        Symmetric; all 0 if the images are equal.

    Raises
    ------
    StoreError
        If an activation is NaN or infinite.
    """
    images = min(images, array.shape[0])
    origin = read_vectors(array, 0, 1)
    size = np.abs(read_vectors(array, 0, min(images, _height(array))) - origin).max()
    scale = size or size.dtype.type(1)

    def near_one(start: int, stop: int) -> NDArray[np.float32]:
        return ((read_vectors(array, start, stop) - origin) / scale).astype(np.float32, copy=False)

    return products_of_images(array, images, near_one).astype(np.float32)


def products_of_images(
    array: zarr.Array, images: int, read: Callable[[int, int], NDArray[np.float32]]
) -> NDArray[np.float64]:
    """Multiply the vectors of all pairs of images.

    Parameters
    ----------
    array : zarr.Array of shape (image, ..., unit)
        Layer of an activation store, whose size decides how many images are held at once.
    images : int
    read : callable
        Function of the rows of the first image and of the one after the last to their vectors,
        shape (image, activation).

    Returns
    -------
    ndarray of shape (image, image), float64

    Notes
    -----
    Blocks of images are read in turn, and compared with each block after them: memory grows
    neither with the images nor with the activations of the layer.
    """
    height = _height(array)
    matrix = np.empty((images, images))
    for start in range(0, images, height):
        stop = min(start + height, images)
        first = read(start, stop)
        matrix[start:stop, start:stop] = _multiplied(first, first)
        for other in range(stop, images, height):
            end = min(other + height, images)
            block = _multiplied(first, read(other, end))
            matrix[start:stop, other:end] = block
            matrix[other:end, start:stop] = block.T
    return matrix


def read_vectors(array: zarr.Array, start: int, stop: int) -> NDArray:
    """Read images as vectors (image, activation), float32 or float64.

    Raises
    ------
    StoreError
        If an activation is NaN or infinite.
    """
    x = array[start:stop].reshape(stop - start, -1)
    x = widen(x) if x.dtype == np.float16 else x
    if not (np.isfinite(x.min()) and np.isfinite(x.max())):
        raise StoreError(
            f"{array.store_path}: images {start} to {stop}: activations contain NaN or infinity"
        )
    return x


def _height(array: zarr.Array) -> int:
    """Count the images of a block."""
    return max(1, BLOCK_BYTES * array.shape[0] // (4 * array.size))


def _multiplied(x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float64]:
    """Multiply two sets of vectors, each product of few activations in float32."""
    result = np.zeros((len(x), len(y)))
    for start in range(0, x.shape[1], TILE):
        tile = slice(start, start + TILE)
        result += x[:, tile] @ y[:, tile].T
    return result
