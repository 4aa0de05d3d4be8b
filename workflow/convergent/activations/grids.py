"""Grids of positions, and how maps of different sizes are brought to a common one."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from convergent.activations.moments import widen

Unequal = Literal["pool", "mean"]


class Grid(NamedTuple):
    """Positions of a layer.

    Attributes
    ----------
    shape : tuple of int
        Number of positions along each axis; empty if there is one sample an image.
    chosen_from : tuple of int, or None
        Map from which random positions were recorded; None if all positions were. Two layers have
        the same random positions if their maps are equal, and else unrelated ones.
    """

    shape: tuple[int, ...]
    chosen_from: tuple[int, ...] | None = None

    @classmethod
    def of(cls, array: zarr.Array) -> Grid:
        """Read the grid of a layer of an activation store."""
        chosen = array.attrs.get("map")
        return cls(tuple(array.shape[1:-1]), tuple(chosen) if chosen else None)

    def common(self, other: Grid, unequal: Unequal = "pool") -> Grid:
        """Return the grid on which two layers are compared.

        It is their own if they have the same. Otherwise ``pool`` takes the smaller length of each
        axis, and ``mean`` the mean over all positions. The mean is always taken if the grids have
        different numbers of axes, like those of a convolutional and a fully connected layer, or if
        random positions of different maps were recorded.
        """
        if self == other:
            return self
        whole = self.chosen_from is None and other.chosen_from is None
        if unequal == "pool" and whole and len(self.shape) == len(other.shape):
            return Grid(tuple(map(min, self.shape, other.shape)))
        return Grid(())

    def arrange(self, x: NDArray) -> NDArray:
        """Arrange activations on this grid, by adaptive average pooling where theirs is another.

        Parameters
        ----------
        x : ndarray of shape (image, ..., unit)
            Activations on a grid that is at least as long along each axis, or on any grid if this
            one is empty.

        Returns
        -------
        ndarray of shape (sample, unit)
            `x` itself, reshaped, if it is on this grid; else float32.
        """
        images, *there, units = x.shape
        if tuple(there) != self.shape:
            x = widen(x) if x.dtype == np.float16 else x.astype(np.float32, copy=False)
            # The mean over all positions is that of one axis, pooled to length 1.
            lengths = list(there) if self.shape else [math.prod(there)]
            for axis, length in enumerate(self.shape or (1,)):
                x = x.reshape(images * math.prod(lengths[:axis]), lengths[axis], -1)
                x = pooling(lengths[axis], length) @ x
                lengths[axis] = length
        return x.reshape(-1, units)


def pooling(length: int, pooled: int) -> NDArray[np.float32]:
    """Make the matrix (pooled, length) of adaptive average pooling along one axis.

    Cell i is the mean of the places from floor(i length / pooled) up to, but without,
    ceil((i + 1) length / pooled), as in PyTorch; neighbouring cells overlap by one place where
    `pooled` does not divide `length`.
    """
    weights = np.zeros((pooled, length), np.float32)
    for cell in range(pooled):
        start, stop = cell * length // pooled, -(-(cell + 1) * length // pooled)
        weights[cell, start:stop] = 1 / (stop - start)
    return weights
