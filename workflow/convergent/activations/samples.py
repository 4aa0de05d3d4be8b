"""Positions at which activations are recorded, and the samples chosen from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import zarr
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

# Either kind of array.
Block = TypeVar("Block", bound="NDArray | torch.Tensor")


class Places(NamedTuple):
    """Recorded positions of a layer, as places in its map.

    Attributes
    ----------
    width : int
        Width of the map; 1 in layers of tokens, whose y is then the number of the token, and in
        layers without positions. The y of volumes counts through (z, y).
    positions : ndarray of shape (image, position), or None where all are recorded
        Flat places in (y, x).
    """

    width: int
    positions: NDArray[np.integer] | None = None

    @classmethod
    def of(cls, store: zarr.Group, layer: str) -> Places:
        """Read the places of a layer of an activation store."""
        array = store[layer]
        if "map" in array.attrs:
            return cls(_width(array.attrs["map"]), store[f"positions/{layer}"][...])
        return cls(_width(array.shape[1:-1]))

    @classmethod
    def random(
        cls,
        shape: tuple[int, ...],
        image_index: NDArray[np.integer],
        positions: int | None,
        seed: int,
    ) -> Places:
        """Choose places in activations of shape (image, ..., unit).

        :func:`random_positions` chooses them; all are taken if there are at most `positions`.
        """
        total, width = math.prod(shape[1:-1]), _width(shape[1:-1])
        if positions is None or positions >= total:
            return cls(width)
        return cls(width, random_positions(seed, image_index, total, positions))

    def select(self, block: Block, start: int) -> Block:
        """Select the recorded positions of a block of images (image, y, x, unit).

        Parameters
        ----------
        block : ndarray or torch.Tensor
            Activations at all positions.
        start : int
            Row of the block's first image.

        Returns
        -------
        ndarray or torch.Tensor of shape (image, position, unit)
            The block itself, if all positions are recorded.
        """
        if self.positions is None:
            return block
        images, positions = len(block), self.positions[start : start + len(block)]
        return block.reshape(images, -1, block.shape[-1])[np.arange(images)[:, None], positions]

    def flat(self, image: NDArray[np.integer], position: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the flat places in (y, x) of recorded positions of images."""
        return np.asarray(
            position if self.positions is None else self.positions[image, position], dtype=np.int64
        )


class Samples(NamedTuple):
    """Samples of a layer, each a recorded position of an image, in ascending order.

    Attributes
    ----------
    image : ndarray of shape (sample,), int64
        Row of the image.
    position : ndarray of shape (sample,), int64
        Number of the recorded position, counted through (y, x).
    """

    image: NDArray[np.int64]
    position: NDArray[np.int64]

    @classmethod
    def random(cls, seed: int, images: int, positions: int, number: int) -> Samples:
        """Choose samples without replacement, or all if there are at most `number`.

        The choice depends on the arguments only, so that it is the same for all nets.
        """
        total = images * positions
        rng = np.random.default_rng([seed, images, positions])
        flat = (
            np.sort(rng.choice(total, number, replace=False))
            if number < total
            else np.arange(total)
        )
        return cls(flat // positions, flat % positions)

    def values(self, block: NDArray, start: int) -> NDArray:
        """Select the activations (sample, unit) of the samples within a block of images.

        Parameters
        ----------
        block : ndarray of shape (image, ..., unit)
        start : int
            Row of its first image.
        """
        first, last = np.searchsorted(self.image, [start, start + len(block)])
        flat = block.reshape(len(block), -1, block.shape[-1])
        return flat[self.image[first:last] - start, self.position[first:last]]


def _width(sides: Sequence[int]) -> int:
    """Return the width of a map of these sides; tokens stand below each other."""
    return sides[-1] if len(sides) > 1 else 1


def sample_rows(statistics: zarr.Group, layer: str) -> NDArray[np.int64]:
    """Find the rows of the images of a layer's samples, which are named by their place in the data.

    Parameters
    ----------
    statistics : zarr.Group
        Store of the statistics of a net.
    layer : str

    Returns
    -------
    ndarray of shape (sample,), int64, ascending
    """
    index = statistics["image_index"][...]
    order = np.argsort(index)
    images = statistics[layer]["sample_image"][...]
    return order[np.searchsorted(index, images, sorter=order)]


def samples(array: zarr.Array, start: int, stop: int) -> NDArray:
    """Read the activations of images `start` to `stop` as (sample, unit).

    A sample is an (image, position) pair in a convolutional layer, an image in a fully
    connected one (section 2 of the paper, footnote 5).

    Parameters
    ----------
    array : zarr.Array of shape (image, y, x, unit), (image, position, unit) or (image, unit)
        A layer of an activation store.
    start, stop : int
        Range of images.
    """
    block = array[start:stop]
    return block.reshape(-1, block.shape[-1])


def random_positions(
    seed: int, image_index: NDArray[np.integer], total: int, n: int
) -> NDArray[np.int64]:
    """Choose `n` of `total` positions for each image, without replacement.

    The choice depends on the seed and the image only, so that it is the same for all nets, however
    the images are chunked.

    Returns
    -------
    ndarray of shape (image, n), int64, ascending in each row
    """
    rows = [np.random.default_rng([seed, i]).choice(total, n, replace=False) for i in image_index]
    return np.sort(np.asarray(rows, dtype=np.int64).reshape(len(image_index), n), axis=1)
