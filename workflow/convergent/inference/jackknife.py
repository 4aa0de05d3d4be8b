"""Intervals by the jackknife that deletes one block of images at a time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit


class Interval(NamedTuple):
    """Uncertainty of an estimate.

    Attributes
    ----------
    standard_error : float
    low, high : float
        Ends of the confidence interval. They are not clipped to the range of the measure: an
        interval that leaves the range shows that the approximation fails.
    """

    standard_error: float
    low: float
    high: float


def jackknife(value: float, without: ArrayLike, sizes: ArrayLike, level: float = 0.95) -> Interval:
    """Compute the interval of an estimate from its values without each block of images.

    Parameters
    ----------
    value : float
        Estimate from all images.
    without : array_like of shape (block,)
        Estimates from all images but those of one block.
    sizes : array_like of shape (block,)
        Number of images of each block.
    level : float
        Confidence level.

    Returns
    -------
    Interval
        Around `value`, by Student's t with one degree of freedom less than there are blocks.

    Raises
    ------
    ValueError
        If there are fewer than two blocks, or not as many sizes as blocks.

    Notes
    -----
    The variance for blocks of unequal size is that of Busing, Meijer and van der Leeden (1999);
    with equal blocks it is (g - 1) / g times the sum of squared deviations of `without`.
    """
    without, sizes = np.asarray(without, np.float64), np.asarray(sizes, np.float64)
    blocks = len(without)
    if blocks < 2 or sizes.shape != without.shape:
        raise ValueError(
            f"a jackknife needs at least 2 blocks and the size of each, got {blocks} values and "
            f"{len(sizes)} sizes"
        )
    ratio = sizes.sum() / sizes
    pseudo = ratio * value - (ratio - 1) * without
    center = (pseudo / ratio).sum()
    error = float(np.sqrt(((pseudo - center) ** 2 / (ratio - 1)).mean()))
    reach = float(stdtrit(blocks - 1, 0.5 + level / 2)) * error
    return Interval(error, value - reach, value + reach)
