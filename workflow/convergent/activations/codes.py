"""Codes of activations: the numbers of the bins that they fall into (section 3.2, footnote 8).

Mutual information is counted from codes. Each bin holds 5% of a unit's samples; one more bin holds
the values around zero. Units with negative values have bins on both sides of it.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from convergent.paper import BINS

# Footnote 8: one bin for all values up to this; the other 20 hold 5% of the mass each.
ZERO = 1e-6
# Left end of a zero bin between two sides, which holds -1e-6 itself.
BELOW = np.nextafter(-ZERO, -np.inf)
SHARES = BINS - 1
# Units that are sorted together.
BLOCK = 32
BINNINGS = ("paper", "reference")


def discretize(x: NDArray, binning: str = "paper") -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Turn activations into the numbers of their bins.

    Parameters
    ----------
    x : ndarray of shape (sample, unit)
        Activations.
    binning : {"paper", "reference"}
        ``paper`` cuts at the 5%, 10%, ... percentiles of all of a unit's samples that lie above
        the zero bin, so a unit that is active 28% of the time has 6 or 7 bins. ``reference``,
        as in the authors' code, cuts the samples above the zero bin into 20 equal shares.

    Returns
    -------
    codes : ndarray of shape (sample, unit), uint8
        Number of the unit's edges that lie below the activation, at most 20. Of units without
        negative values, 0 is the zero bin.
    edges : ndarray of shape (unit, 20), float64
        Right ends of the bins, ascending, padded with infinity; the first is 1e-6 in units
        without negative values.

    Notes
    -----
    The zero bin of a unit with values below -1e-6 is [-1e-6, 1e-6], between bins of both signs.
    ``paper`` cuts at the percentiles of all samples outside it, and has it only if one of them
    lies in it; otherwise at most 5% of the samples do, and share a bin with their neighbours.
    Codes are then those of the ranks: any increasing map of the values leaves them as they are.
    ``reference`` divides the 20 shares between the signs by their numbers of samples, with at
    least one for each.

    Raises
    ------
    ValueError
        If `x` is not (sample, unit), has fewer samples than bins, or `binning` is unknown.
    FloatingPointError
        If an activation is NaN or infinite; names the unit.
    """
    x = np.asarray(x)
    if x.ndim != 2:
        raise ValueError(f"x must be (sample, unit), got shape {x.shape}")
    if len(x) < BINS:
        raise ValueError(f"{len(x)} samples are too few for {BINS} bins")
    if binning not in BINNINGS:
        raise ValueError(f"binning must be {' or '.join(BINNINGS)}, got {binning!r}")
    codes = np.empty(x.shape, np.uint8)
    edges = np.full((x.shape[1], BINS - 1), np.inf)
    for start in range(0, x.shape[1], BLOCK):
        # One sort serves all percentiles.
        columns = np.ascontiguousarray(x[:, start : start + BLOCK].T)
        columns = columns.astype(np.result_type(x.dtype, np.float32), copy=False)
        ordered = np.sort(columns, axis=1)
        for i, row in enumerate(ordered):
            unit = start + i
            if not (np.isfinite(row[0]) and np.isfinite(row[-1])):
                raise FloatingPointError(f"unit {unit}: activations contain NaN or infinity")
            cuts = _cuts(row, binning)
            edges[unit, : len(cuts)] = cuts
        _encode(columns, edges[start : start + BLOCK], codes[:, start : start + BLOCK])
    return codes, edges


def _cuts(ordered: NDArray, binning: str) -> NDArray[np.float64]:
    """Choose the edges between the bins of a unit's sorted values; see :func:`discretize`."""
    signed = ordered[0] < -ZERO
    zero = True
    if binning == "paper":
        cuts = _quantiles(ordered, SHARES)
        sides = [cuts[cuts < -ZERO], cuts[cuts > ZERO]]
        zero = not signed or sum(map(len, sides)) < len(cuts)
    else:
        negative = ordered[: np.searchsorted(ordered, -ZERO)]
        positive = ordered[np.searchsorted(ordered, ZERO, side="right") :]
        below = 0
        if signed:
            share = len(negative) / (len(negative) + len(positive))
            below = min(max(1, round(share * SHARES)), SHARES - (len(positive) > 0))
        sides = [_quantiles(negative, below), _quantiles(positive, SHARES - below)]
    ends = []
    if zero and signed:
        ends.append(BELOW)
    if zero and (not signed or ordered[-1] > ZERO):
        ends.append(ZERO)
    return np.unique(np.concatenate([sides[0], ends, sides[1]]))


def _quantiles(ordered: NDArray, shares: int) -> NDArray[np.float64]:
    """Compute the cuts between equal shares of sorted values, by linear interpolation."""
    if len(ordered) == 0:
        return np.empty(0)
    place = np.arange(1, shares) / shares * (len(ordered) - 1)
    below = place.astype(np.intp)
    low, high = (ordered[i].astype(np.float64) for i in (below, below + (place > below)))
    return low + (high - low) * (place - below)


@numba.njit(nogil=True, cache=True)
def _encode(columns, edges, codes):
    units, samples = columns.shape
    for unit in range(units):
        for sample in range(samples):
            low, high = 0, edges.shape[1]
            while low < high:
                middle = (low + high) // 2
                if edges[unit, middle] < columns[unit, sample]:
                    low = middle + 1
                else:
                    high = middle
            codes[sample, unit] = low
