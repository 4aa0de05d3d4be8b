"""Means, variances and co-moments of units, mergeable over blocks of samples.

Section 2 of the paper defines correlations within a net and between two nets over all
images and positions. Here they come from one streaming pass: each block of samples is
summarised by its :class:`Moments`, and moments of disjoint blocks merge exactly
(Chan, Golub and LeVeque 1979), so any chunking and any order give the same result to
rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

# Rows of one float32 product, whose result is added up in float64: so few that they stay in
# cache, and at least as many as there are units, so that the addition stays cheap beside it.
TILE = 1024
# Rows added up in float32 before their sum goes on in float64.
RUN = 64
# Samples that decide whether a unit is shifted.
PILOT = 1024
# The squares of a unit may add up to MOST, and must be LEAST or more on average: then no float32
# product overflows, as none exceeds the sums of squares, and what products lose below 2**-126,
# the least normal float32, is less than 2**-30 of their sum.
MOST, LEAST = 2.0**100, 2.0**-96
FLOAT32, FLOAT64 = np.finfo(np.float32), np.finfo(np.float64)


class Moments(NamedTuple):
    """First and second moments of two sets of units over the same samples.

    Immutable; start with :meth:`of`, update with :meth:`merge`, read with
    :meth:`correlation`. Everything is centred, in float64. Within a net both sides are the same
    units: their means and variances agree to the last bit, and stay so when merged.

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

    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls
    mean_x: NDArray[np.float64]
    mean_y: NDArray[np.float64]
    var_x: NDArray[np.float64]
    var_y: NDArray[np.float64]
    comoment: NDArray[np.float64]

    @classmethod
    @np.errstate(invalid="ignore", over="ignore")  # infinities are found and dealt with below
    def of(cls, x: NDArray, y: NDArray | None = None, *, device: str = "cpu") -> Moments:
        """Compute the moments of a block of samples.

        Parameters
        ----------
        x : ndarray of shape (sample, unit_a)
            Activations, float16, float32 or float64.
        y : ndarray of shape (sample, unit_b), optional
            Activations of the other net for the same samples. Left out, or `x` itself, the
            moments are those within a net, from a symmetric product at half the cost.
        device : str
            Device of torch, such as ``cuda``; on ``cpu`` NumPy computes the products.

        Raises
        ------
        ValueError
            If an array is not (sample, unit), the block is empty, or the numbers of
            samples differ.
        FloatingPointError
            If an activation is NaN or infinite, or a unit's variance is out of float64's range.

        Notes
        -----
        Products are float32, tile by tile, and added up in float64. A unit whose mean in the
        first samples exceeds three standard deviations is first shifted by that mean; otherwise
        a unit with mean/std = 100 would lose four digits. Units are not shifted without need: on
        ReLU data that would turn exact zeros into one repeated rounded constant. If the squares
        of a unit leave float32's range, as of activations of 1e-30 or 1e30, every unit is
        multiplied by the power of two that brings its largest deviation near 1.
        """
        same = y is None or y is x
        x = _samples(x, "x")
        y = x if same or y is None else _samples(y, "y")
        count = len(x)
        if count != len(y):
            raise ValueError(f"x and y must share their samples: x has {count}, y has {len(y)}")
        shift_x = _pilot_shift(x)
        shift_y = shift_x if same else _pilot_shift(y)
        # NumPy's product is up to four times as fast as torch's on a CPU.
        add_up = _add_up if device == "cpu" else partial(_add_up_on, device)
        sums_x, sums_y, comoment = add_up(x, y, shift_x, shift_y)
        in_range = _in_range(x, shift_x, sums_x) and (same or _in_range(y, shift_y, sums_y))
        if not in_range:
            x, shift_x, exponent_x = _near_one(x)
            y, shift_y, exponent_y = (x, shift_x, exponent_x) if same else _near_one(y)
            sums_x, sums_y, comoment = add_up(x, y, np.zeros(x.shape[1]), np.zeros(y.shape[1]))
        mean_x, var_x = _mean_var(sums_x, count)
        mean_y, var_y = _mean_var(sums_y, count)
        # In this order a symmetric matrix stays symmetric to the last bit.
        comoment -= np.outer(mean_x, mean_y) * count
        if same:
            var_x = var_y = np.maximum(comoment.diagonal() / count, 0)
        if not in_range:
            mean_x, var_x = _scaled_back(mean_x, var_x, exponent_x, count, "x")
            mean_y, var_y = _scaled_back(mean_y, var_y, exponent_y, count, "y")
            comoment = np.ldexp(comoment, np.add.outer(exponent_x, exponent_y))
        return cls(count, mean_x + shift_x, mean_y + shift_y, var_x, var_y, comoment)

    @classmethod
    def of_correlation(
        cls,
        count: int,
        mean_x: NDArray,
        mean_y: NDArray,
        var_x: NDArray,
        var_y: NDArray,
        correlation: NDArray,
    ) -> Moments:
        """Make moments from correlations: the reverse of :meth:`correlation`.

        Stores need it, as float32 holds correlations of units of any scale, but not co-moments.
        """
        comoment = np.outer(np.sqrt(var_x), np.sqrt(var_y))
        comoment *= correlation
        comoment *= count
        return cls(count, mean_x, mean_y, var_x, var_y, comoment)

    @np.errstate(over="ignore", invalid="ignore")
    def merge(self, other: Moments) -> Moments:
        """Merge the moments of two disjoint blocks of samples (Chan et al. 1979).

        Raises
        ------
        FloatingPointError
            If a unit's variance is out of float64's range.
        """
        count = self.count + other.count
        share, rest = other.count / count, self.count / count
        delta_x, delta_y = other.mean_x - self.mean_x, other.mean_y - self.mean_y
        comoment = np.outer(delta_x, delta_y)
        comoment *= self.count * share
        comoment += self.comoment
        comoment += other.comoment
        # Nothing is subtracted, so no digits of the parts' variances are lost.
        var_x = rest * self.var_x + share * other.var_x + share * rest * delta_x**2
        var_y = rest * self.var_y + share * other.var_y + share * rest * delta_y**2
        _check_representable(
            var_x, (self.var_x > 0) | (other.var_x > 0) | (delta_x != 0), count, "x"
        )
        _check_representable(
            var_y, (self.var_y > 0) | (other.var_y > 0) | (delta_y != 0), count, "y"
        )
        mean_x, mean_y = self.mean_x + share * delta_x, self.mean_y + share * delta_y
        return Moments(count, mean_x, mean_y, var_x, var_y, comoment)

    def part(self, rows: slice, columns: slice) -> Moments:
        """Select the moments of some units with some others."""
        return Moments(
            self.count,
            self.mean_x[rows],
            self.mean_y[columns],
            self.var_x[rows],
            self.var_y[columns],
            self.comoment[rows, columns],
        )

    def turned(self) -> Moments:
        """Exchange the two sets of units."""
        return Moments(
            self.count, self.mean_y, self.mean_x, self.var_y, self.var_x, self.comoment.T
        )

    def correlation(self) -> NDArray[np.float64]:
        """Compute the Pearson correlation of every pair of units, shape (unit_a, unit_b).

        Dead units (zero variance) correlate 0 with everything, themselves included. Within a
        net, live units correlate exactly 1 with themselves.

        Notes
        -----
        A unit meets itself on the diagonal if means and variances are equal and the co-moment is
        `count` times the variance, to float32's spacing (1.2e-7). This holds whether the moments
        were merged, pickled, or stored with float32 co-moments. Other values are only clipped.
        """
        scale_x, scale_y = _inverse_std(self.var_x), _inverse_std(self.var_y)
        correlation = np.outer(scale_x, scale_y)
        correlation *= self.comoment
        correlation /= self.count
        np.clip(correlation, -1, 1, out=correlation)
        units = min(correlation.shape)
        square = self.count * self.var_x[:units]
        itself = (self.mean_x[:units] == self.mean_y[:units]) & (square > 0)
        itself &= self.var_x[:units] == self.var_y[:units]
        itself &= np.abs(self.comoment.diagonal() - square) <= FLOAT32.eps * square
        correlation[np.diag_indices(units)] = np.where(itself, 1, correlation.diagonal())
        return correlation


def correlation(x: NDArray, y: NDArray) -> NDArray[np.float64]:
    """Correlate every unit of `x` with every unit of `y` (section 2 of the paper).

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


@np.errstate(invalid="ignore", over="ignore")  # as in Moments.of
def moments_of_layers(
    x: Sequence[NDArray],
    y: Sequence[NDArray],
    strips: Sequence[tuple[slice, slice]],
    inner: Sequence[int],
) -> list[Moments]:
    """Compute moments between several layers of two nets, and within them, in one go.

    Every activation is converted once, and the layers of a net stand side by side, so that a strip
    of pairs of layers is one product.

    Parameters
    ----------
    x, y : sequence of ndarray of shape (sample, unit)
        Layers of the first and of the second net, all for the same samples.
    strips : sequence of (slice, slice)
        Layers of `x` and of `y` whose pairs are wanted.
    inner : sequence of int
        Layers within which moments are wanted, counted through `x` and then `y`.

    Returns
    -------
    list of Moments
        Those between all units of the layers of each strip, then those within each layer of
        `inner`.

    Raises
    ------
    ValueError, FloatingPointError
        As :meth:`Moments.of`.
    """
    sides = [[_samples(each, name) for each in side] for side, name in ((x, "x"), (y, "y"))]
    layers = [*sides[0], *sides[1]]
    count = len(layers[0])
    if any(len(layer) != count for layer in layers):
        raise ValueError(f"layers must share their samples, got {[len(z) for z in layers]}")
    ends = [np.cumsum([0, *(z.shape[1] for z in side)]).tolist() for side in sides]
    # Places of each layer's units, and of each strip's, among those that stand side by side.
    places = [(side, slice(*at)) for side in (0, 1) for at in itertools.pairwise(ends[side])]
    blocks = [
        tuple(slice(end[at.start], end[at.stop]) for end, at in zip(ends, strip, strict=True))
        for strip in strips
    ]
    shifts = [_pilot_shift(layer) for layer in layers]
    sums, between, within = _add_up_layers(layers, shifts, places, blocks, inner)
    parts = [sums[side][:, part] for side, part in places]
    if not all(map(_in_range, layers, shifts, parts)):
        joined = [np.concatenate(side, axis=1) for side in sides]
        found = [Moments.of(joined[0][:, r], joined[1][:, c]) for r, c in blocks]
        return [*found, *(Moments.of(layers[number]) for number in inner)]
    found = []
    stats = [_mean_var(total, count) for total in sums]
    shift_x, shift_y = np.concatenate(shifts[: len(x)]), np.concatenate(shifts[len(x) :])
    for (rows, columns), comoment in zip(blocks, between, strict=True):
        (mean_x, var_x), (mean_y, var_y) = stats
        mean_x, mean_y = mean_x[rows], mean_y[columns]
        comoment -= np.outer(mean_x, mean_y) * count
        means = mean_x + shift_x[rows], mean_y + shift_y[columns]
        found.append(Moments(count, *means, var_x[rows], var_y[columns], comoment))
    for number, comoment in zip(inner, within, strict=True):
        side, part = places[number]
        mean = stats[side][0][part]
        comoment -= np.outer(mean, mean) * count
        mean, var = mean + shifts[number], np.maximum(comoment.diagonal() / count, 0)
        found.append(Moments(count, mean, mean, var, var, comoment))
    return found


def _add_up_layers(
    layers: Sequence[NDArray],
    shifts: Sequence[NDArray[np.float64]],
    places: Sequence[tuple[int, slice]],
    blocks: Sequence[tuple[slice, ...]],
    inner: Sequence[int],
) -> tuple[list[NDArray], list[NDArray], list[NDArray]]:
    """Add up sums of both sides as :func:`_add_up`, products of blocks, and those within layers."""
    widths = [max(part.stop for side, part in places if side == which) for which in (0, 1)]
    count = len(layers[0])
    rows = min(count, max(TILE, *widths))
    buffers = [np.empty((rows, width), np.float32) for width in widths]
    sums = [np.zeros((2, width)) for width in widths]
    between = [np.zeros((r.stop - r.start, c.stop - c.start)) for r, c in blocks]
    within = [np.zeros((layers[number].shape[1],) * 2) for number in inner]
    for start in range(0, count, rows):
        tiles = [buffer[: count - start] for buffer in buffers]
        for layer, shift, (side, part) in zip(layers, shifts, places, strict=True):
            piece, target = layer[start : start + rows], tiles[side][:, part]
            # Only float16 is converted more quickly to a place of its own than to its columns.
            _tile(widen(piece) if piece.dtype == np.float16 else piece, shift, target)
        for tile, total in zip(tiles, sums, strict=True):
            _add_sums(tile, total)
        for (r, c), comoment in zip(blocks, between, strict=True):
            comoment += tiles[0][:, r].T @ tiles[1][:, c]
        for number, comoment in zip(inner, within, strict=True):
            side, part = places[number]
            comoment += tiles[side][:, part].T @ tiles[side][:, part]
    return sums, between, within


def _samples(x: NDArray, name: str) -> NDArray:
    x = np.asarray(x)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"{name} must be (sample, unit) and not empty, got shape {x.shape}")
    if x.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold real numbers, got {x.dtype}")
    native = x.dtype.kind == "f" and x.itemsize <= 8
    # In the byte order of this machine, the only one that compiled loops can read.
    return x.astype(x.dtype.newbyteorder("=") if native else np.float64, copy=False)


def widen(x: NDArray) -> NDArray[np.float32]:
    """Convert float16 values to float32, at many times the speed of NumPy's conversion."""
    result = np.empty(x.shape, np.float32)
    _widen(np.ascontiguousarray(x).view(np.uint16).reshape(-1), result.reshape(-1))
    return result


def _pilot_shift(x: NDArray) -> NDArray[np.float64]:
    """Return the mean of each unit whose pilot mean exceeds three standard deviations, else 0."""
    pilot = x[:PILOT]
    pilot = (widen(pilot) if x.dtype == np.float16 else pilot).astype(np.float64)
    mean = pilot.mean(axis=0)
    # A float32 number, so that subtracting it from float32 data near it is exact. The shift of a
    # constant unit is its own value, so that zeros remain.
    rounded = mean if x.dtype == np.float64 else mean.astype(np.float32)
    shift = np.where(np.ptp(pilot, axis=0) == 0, pilot[0], rounded)
    return np.where(np.abs(mean) > 3 * pilot.std(axis=0), shift, 0.0)


def _add_up(
    x: NDArray, y: NDArray, shift_x: NDArray[np.float64], shift_y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Add up the shifted x and y and their squares, shape (2, unit) each, and their products."""
    comoment = np.zeros((x.shape[1], y.shape[1]))
    product = np.empty(comoment.shape, np.float32)
    rows = min(len(x), max(TILE, *comoment.shape))
    sides = [(x, shift_x)] if y is x else [(x, shift_x), (y, shift_y)]
    buffers = [np.empty((rows, z.shape[1]), np.float32) for z, _ in sides]
    sums = [np.zeros((2, z.shape[1])) for z, _ in sides]
    for start in range(0, len(x), rows):
        tiles = [
            _tile(z[start : start + rows], shift, buffer)
            for (z, shift), buffer in zip(sides, buffers, strict=True)
        ]
        for tile, total in zip(tiles, sums, strict=True):
            _add_sums(tile, total)
        comoment += np.matmul(tiles[0].T, tiles[-1], out=product)
    return sums[0], sums[-1], comoment


def _add_up_on(
    device: str,
    x: NDArray,
    y: NDArray,
    shift_x: NDArray[np.float64],
    shift_y: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Compute the sums of :func:`_add_up` with torch on `device`."""
    import torch

    sides = [(x, shift_x)] if y is x else [(x, shift_x), (y, shift_y)]
    columns = []
    for z, shift in sides:
        column = torch.from_numpy(np.ascontiguousarray(z)).to(device)
        if column.dtype != torch.float64:
            column = column.float()
        shift = torch.from_numpy(shift).to(device, column.dtype)
        columns.append((column - shift if shift.any() else column).float())
    sums = [torch.zeros(2, c.shape[1], dtype=torch.float64, device=device) for c in columns]
    comoment = torch.zeros(x.shape[1], y.shape[1], dtype=torch.float64, device=device)
    # In float32 a product of this many rows loses no more than a tile does on the CPU.
    rows = max(TILE, *comoment.shape)
    for tiles in zip(*(c.split(rows) for c in columns), strict=True):
        comoment += tiles[0].T @ tiles[-1]
        for total, tile in zip(sums, tiles, strict=True):
            wide = tile.double()
            total += torch.stack([wide.sum(0), wide.square().sum(0)])
    return sums[0].cpu().numpy(), sums[-1].cpu().numpy(), comoment.cpu().numpy()


def _tile(x: NDArray, shift: NDArray[np.float64], buffer: NDArray[np.float32]) -> NDArray:
    """Write `x` less its shift as float32 into the front of `buffer`."""
    tile = buffer[: len(x)]
    if x.dtype == np.float64:
        np.subtract(x, shift, out=tile, casting="same_kind")
    else:
        if x.dtype == np.float16:
            _widen(np.ascontiguousarray(x).view(np.uint16).reshape(-1), tile.reshape(-1))
        else:
            tile[...] = x
        if shift.any():
            tile -= shift.astype(np.float32)
    return tile


@numba.njit(nogil=True, cache=True)
def _widen(bits, values):
    """Convert the bits of float16 to float32; NumPy's conversion takes forty times as long."""
    for i in range(bits.size):
        half = np.uint32(bits[i])
        # Exponent and mantissa move to their places in float32, the bias by multiplication.
        magnitude = np.uint32((half & np.uint32(0x7FFF)) << np.uint32(13))
        value = magnitude.view(np.float32) * np.float32(2.0**112)
        if magnitude >= np.uint32(0x1F << 23):  # infinity or NaN
            value = np.uint32(magnitude | np.uint32(0xFF << 23)).view(np.float32)
        values[i] = -value if half & np.uint32(0x8000) else value


@numba.njit(nogil=True, cache=True)
def _all_equal(x, units, values):
    """Tell whether every one of these columns is constant at its value."""
    for start in range(0, x.shape[0], RUN):
        differs = False
        for i in range(start, min(start + RUN, x.shape[0])):
            for j in range(units.size):
                differs |= x[i, units[j]] != values[j]
        if differs:
            return False
    return True


@numba.njit(nogil=True, cache=True)
def _add_sums(tile, total):
    """Add sums and sums of squares of the columns of a tile to `total` (2, unit)."""
    units = tile.shape[1]
    sums, squares = np.empty(units, np.float32), np.empty(units, np.float32)
    for start in range(0, tile.shape[0], RUN):
        sums[:] = 0
        squares[:] = 0
        for i in range(start, min(start + RUN, tile.shape[0])):
            for j in range(units):
                sums[j] += tile[i, j]
                squares[j] += tile[i, j] * tile[i, j]
        for j in range(units):
            total[0, j] += sums[j]
            total[1, j] += squares[j]


def _in_range(x: NDArray, shift: NDArray[np.float64], sums: NDArray[np.float64]) -> bool:
    """Tell whether shifted `x` is finite and float32 held the squares of all varying units."""
    if not np.isfinite(sums).all():
        return False
    if x.dtype == np.float16:  # its values are never that large, nor that close to each other
        return True
    if (sums[1] > MOST).any():
        return False
    small = np.flatnonzero(sums[1] < LEAST * len(x))
    # These are nearly always dead units, for which not all samples are read again. float32 loses
    # no value, only its square, so a unit that varies shows in the sum or in the pilot.
    checked = x if x.dtype == np.float64 else x[:PILOT]
    return not sums[0, small].any() and _all_equal(checked, small, shift[small])


def _near_one(x: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.intc]]:
    """Scale the deviations of units from shifts; return them, the shifts and the exponents of 2."""
    if not np.isfinite(x).all():
        raise FloatingPointError("activations contain NaN or infinity")
    size = np.frexp(np.abs(x).max(axis=0))[1]
    x = np.ldexp(x.astype(np.float64), -size)
    shift = _pilot_shift(x)
    x -= shift
    spread = np.frexp(np.abs(x).max(axis=0))[1]
    return np.ldexp(x, -spread).astype(np.float32), np.ldexp(shift, size), size + spread


def _scaled_back(
    mean: NDArray[np.float64], var: NDArray[np.float64], exponent: NDArray, count: int, side: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Multiply mean and variance by the power of two that :func:`_near_one` divided by."""
    scaled = np.ldexp(var, 2 * exponent)
    _check_representable(scaled, var > 0, count, side)
    return np.ldexp(mean, exponent), scaled


def _check_representable(
    var: NDArray[np.float64], varies: NDArray[np.bool], count: int, side: str
) -> None:
    """Raise an error unless float64 holds the variances of units that vary, with all digits."""
    lost = varies & ~((var >= FLOAT64.tiny) & (count * var <= FLOAT64.max))
    if lost.any():
        unit = int(lost.argmax())
        size = "small" if var[unit] < 1 else "large"
        raise FloatingPointError(
            f"the variance of unit {unit} of {side} is too {size} for float64; multiply the "
            "activations by a constant: no correlation changes"
        )


def _mean_var(sums: NDArray[np.float64], count: int) -> tuple[NDArray, NDArray]:
    mean = sums[0] / count
    return mean, np.maximum(sums[1] / count - mean**2, 0)


def _inverse_std(var: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(1, np.sqrt(var), out=np.zeros_like(var), where=var > 0)
