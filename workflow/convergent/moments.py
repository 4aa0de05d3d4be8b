"""Means, variances and co-moments of units, mergeable over blocks of samples.

Section 2 of the paper defines correlations within a net and between two nets over all
images and positions. Here they come from one streaming pass: each block of samples is
summarised by its :class:`Moments`, and moments of disjoint blocks merge exactly
(Chan, Golub and LeVeque 1979), so any chunking and any order give the same result to
rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Rows of one float32 product, whose result is added up in float64: so few that they stay in
# cache, and at least as many as there are units, so that the addition stays cheap beside it.
TILE = 1024
# Rows added up in float32 before their sum goes on in float64 (error near 1e-8).
RUN = 256
# All float16 values as float32: looking them up takes a fifth of the time of NumPy's conversion.
HALF = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
# Samples that decide whether a unit is shifted.
PILOT = 1024


class Moments(NamedTuple):
    """First and second moments of two sets of units over the same samples.

    Immutable; start with :meth:`of`, update with :meth:`merge`, read with
    :meth:`correlation`. Everything is centred, in float64.

    Attributes
    ----------
    count : int
        Number of samples.
    mean_x, mean_y : ndarray of shape (unit_a,), (unit_b,)
        Mean activations.
    var_x, var_y : ndarray of shape (unit_a,), (unit_b,)
        Population variances (divided by `count`).
    comoment : ndarray of shape (unit_a, unit_b)
        Sum over samples of the product of the deviations from the means.
    """

    count: int
    mean_x: NDArray[np.float64]
    mean_y: NDArray[np.float64]
    var_x: NDArray[np.float64]
    var_y: NDArray[np.float64]
    comoment: NDArray[np.float64]

    @classmethod
    @np.errstate(invalid="ignore")  # infinities are refused below, with a message
    def of(cls, x: NDArray, y: NDArray | None = None) -> Moments:
        """Moments of a block of samples.

        Parameters
        ----------
        x : ndarray of shape (sample, unit_a)
            Activations, float16, float32 or float64.
        y : ndarray of shape (sample, unit_b), optional
            Activations of the other net for the same samples. Left out, the moments are
            those of `x` with itself, from a symmetric product at half the cost.

        Raises
        ------
        ValueError
            If an array is not (sample, unit), the block is empty, or the numbers of
            samples differ.
        FloatingPointError
            If an activation is NaN or infinite.

        Notes
        -----
        Products are float32, tile by tile, and added up in float64. A unit whose mean in the
        first samples exceeds three standard deviations is shifted by that mean first, else a
        unit with mean/std = 100 would lose four digits. Units are not shifted without need: on
        ReLU data that would turn exact zeros into one repeated rounded constant.
        """
        x = _samples(x, "x")
        y = x if y is None else _samples(y, "y")
        if len(x) != len(y):
            raise ValueError(f"x and y must share their samples: x has {len(x)}, y has {len(y)}")
        same = y is x
        shift_x = _pilot_shift(x)
        shift_y = shift_x if same else _pilot_shift(y)
        sums_x, sums_y = np.zeros((2, x.shape[1])), np.zeros((2, y.shape[1]))
        comoment = np.zeros((x.shape[1], y.shape[1]))
        rows = min(len(x), max(TILE, *comoment.shape))
        buffer_x = np.empty((rows, x.shape[1]), np.float32)
        buffer_y = buffer_x if same else np.empty((rows, y.shape[1]), np.float32)
        product = np.empty(comoment.shape, np.float32)
        for start in range(0, len(x), rows):
            tile_x = _tile(x[start : start + rows], shift_x, buffer_x)
            sums_x += _sums(tile_x)
            if same:
                tile_y = tile_x
            else:
                tile_y = _tile(y[start : start + rows], shift_y, buffer_y)
                sums_y += _sums(tile_y)
            comoment += np.matmul(tile_x.T, tile_y, out=product)
        if same:
            sums_y = sums_x
        if not (np.isfinite(sums_x).all() and np.isfinite(sums_y).all()):
            raise FloatingPointError("activations contain NaN or infinity")
        count = len(x)
        mean_x, var_x = _mean_var(sums_x, count)
        mean_y, var_y = _mean_var(sums_y, count)
        # Products in this order keep what is symmetric so to the last bit.
        comoment -= np.outer(mean_x, mean_y) * count
        return cls(count, mean_x + shift_x, mean_y + shift_y, var_x, var_y, comoment)

    def merge(self, other: Moments) -> Moments:
        """Moments of the union of two disjoint blocks of samples (Chan et al. 1979)."""
        count = self.count + other.count
        share = other.count / count
        weight = self.count * share
        delta_x, delta_y = other.mean_x - self.mean_x, other.mean_y - self.mean_y
        comoment = np.outer(delta_x, delta_y)
        comoment *= weight
        comoment += self.comoment
        comoment += other.comoment
        return Moments(
            count,
            self.mean_x + share * delta_x,
            self.mean_y + share * delta_y,
            self.var_x + share * (other.var_x - self.var_x + delta_x**2 * (1 - share)),
            self.var_y + share * (other.var_y - self.var_y + delta_y**2 * (1 - share)),
            comoment,
        )

    def correlation(self) -> NDArray[np.float64]:
        """Pearson correlation of every pair of units, shape (unit_a, unit_b).

        Dead units (zero variance) correlate 0 with everything, themselves included.
        """
        scale_x, scale_y = _inverse_std(self.var_x), _inverse_std(self.var_y)
        correlation = np.outer(scale_x, scale_y)
        correlation *= self.comoment
        correlation /= self.count
        return np.clip(correlation, -1, 1, out=correlation)


def correlation(x: NDArray, y: NDArray) -> NDArray[np.float64]:
    """Correlation of every unit of `x` with every unit of `y` (section 2 of the paper).

    Parameters
    ----------
    x, y : ndarray of shape (sample, unit_a), (sample, unit_b)
        Activations of two nets for the same samples.

    Returns
    -------
    ndarray of shape (unit_a, unit_b), float64
        In [-1, 1]; 0 for dead units.
    """
    return Moments.of(x, y).correlation()


def _samples(x: NDArray, name: str) -> NDArray:
    x = np.asarray(x)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"{name} must be (sample, unit) and not empty, got shape {x.shape}")
    return x if x.dtype.kind == "f" else x.astype(np.float64)


def _pilot_shift(x: NDArray) -> NDArray[np.float64]:
    """Mean of each unit whose pilot mean exceeds three pilot standard deviations, else 0."""
    pilot = x[:PILOT].astype(np.float64)
    mean = pilot.mean(axis=0)
    # A value that float32 holds, so that subtracting it from float32 data is exact near it; of
    # a constant unit its own value, so that nothing is left of it.
    shift = np.where(np.ptp(pilot, axis=0) == 0, pilot[0], mean.astype(np.float32))
    return np.where(np.abs(mean) > 3 * pilot.std(axis=0), shift, 0.0)


def _tile(x: NDArray, shift: NDArray[np.float64], buffer: NDArray[np.float32]) -> NDArray:
    """`x` less its shift as float32, in the front of `buffer`."""
    tile = buffer[: len(x)]
    if x.dtype == np.float64:
        np.subtract(x, shift, out=tile, casting="same_kind")
    else:
        if x.dtype == np.float16:
            np.take(HALF, x.view(np.uint16), out=tile, mode="clip")
        else:
            tile[...] = x
        if shift.any():
            tile -= shift.astype(np.float32)
    return tile


def _sums(tile: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sums and sums of squares of the columns, shape (2, unit)."""
    whole = len(tile) // RUN * RUN
    runs = tile[:whole].reshape(-1, RUN, tile.shape[1])
    rest = tile[whole:].astype(np.float64)
    sums = (np.ones(RUN, np.float32) @ runs).sum(axis=0, dtype=np.float64) + rest.sum(axis=0)
    squares = np.einsum("rsu,rsu->ru", runs, runs).sum(axis=0, dtype=np.float64)
    return np.stack([sums, squares + np.square(rest).sum(axis=0)])


def _mean_var(sums: NDArray[np.float64], count: int) -> tuple[NDArray, NDArray]:
    mean = sums[0] / count
    return mean, np.maximum(sums[1] / count - mean**2, 0)


def _inverse_std(var: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(1, np.sqrt(var), out=np.zeros_like(var), where=var > 0)
