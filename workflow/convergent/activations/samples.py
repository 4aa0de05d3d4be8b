"""Samples of activations: which images and positions are kept and drawn."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


class Places(NamedTuple):
    """Where the recorded positions of a layer lie.

    Attributes
    ----------
    width : int
        Of the map, or the number of tokens; 1 in fully connected layers.
    drawn : ndarray of shape (image, position), or None where all positions are recorded
        Flat places in (y, x).
    """

    width: int
    drawn: NDArray[np.integer] | None = None

    @classmethod
    def of(cls, store: zarr.Group, layer: str) -> Places:
        """Read the places of a layer of an activation store."""
        array = store[layer]
        if "map" in array.attrs:
            return cls(array.attrs["map"][-1], store[f"positions/{layer}"][...])
        return cls(array.shape[-2] if array.ndim > 2 else 1)

    @classmethod
    def drawn_for(
        cls,
        shape: tuple[int, ...],
        image_index: NDArray[np.integer],
        positions: int | None,
        seed: int,
    ) -> Places:
        """Draw the places of activations of this shape, (image, y, x, unit) or (image, unit).

        Places of :func:`random_positions` where `positions` asks for fewer than there are.
        """
        total, width = math.prod(shape[1:-1]), shape[-2] if len(shape) > 2 else 1
        if positions is None or positions >= total:
            return cls(width)
        return cls(width, random_positions(seed, image_index, total, positions))

    def kept(self, block: NDArray | torch.Tensor, start: int) -> NDArray | torch.Tensor:
        """What is recorded of a block (image, y, x, unit) of all positions.

        Parameters
        ----------
        block : ndarray or torch.Tensor
        start : int
            Row of the block's first image.

        Returns
        -------
        ndarray or torch.Tensor of shape (image, position, unit)
            Or the block itself, where all positions are recorded.
        """
        if self.drawn is None:
            return block
        drawn = self.drawn[start : start + len(block)]
        return block.reshape(len(block), -1, block.shape[-1])[np.arange(len(block))[:, None], drawn]

    def flat(self, image: NDArray[np.integer], position: NDArray[np.integer]) -> NDArray[np.int64]:
        """Flat places in (y, x) of the recorded positions of images."""
        return np.asarray(
            position if self.drawn is None else self.drawn[image, position], dtype=np.int64
        )


def taken(
    block: NDArray, start: int, image: NDArray[np.integer], position: NDArray[np.integer]
) -> NDArray:
    """Activations (sample, unit) of those samples that fall into a block of images.

    Parameters
    ----------
    block : ndarray of shape (image, ..., unit)
    start : int
        Row of its first image.
    image, position : ndarray of shape (sample,)
        As :func:`random_samples` gives them.
    """
    first, last = np.searchsorted(image, [start, start + len(block)])
    flat = block.reshape(len(block), -1, block.shape[-1])
    return flat[image[first:last] - start, position[first:last]]


def samples(array: zarr.Array, start: int, stop: int) -> NDArray:
    """Activations of images `start` to `stop` as (sample, unit).

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
    """Draw `n` of `total` positions for each image, without replacement.

    The draw depends on the seed and the image alone, so that nets share it and any chunking
    gives the same.

    Returns
    -------
    ndarray of shape (image, n), int64, ascending in each row
    """
    draws = [np.random.default_rng([seed, i]).choice(total, n, replace=False) for i in image_index]
    return np.sort(np.asarray(draws, dtype=np.int64).reshape(len(image_index), n), axis=1)


def random_samples(
    seed: int, images: int, positions: int, n: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw `n` pairs of an image and a recorded position without replacement.

    All there are if fewer. The draw depends on the arguments alone, so that nets share it.

    Returns
    -------
    image, position : ndarray of shape (sample,), int64
        In ascending order; a position counts through (y, x).
    """
    total = images * positions
    rng = np.random.default_rng([seed, images, positions])
    flat = np.sort(rng.choice(total, n, replace=False)) if n < total else np.arange(total)
    return flat // positions, flat % positions
