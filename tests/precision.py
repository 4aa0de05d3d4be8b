"""How far float32 products may move a correlation, whatever kernel makes them."""

import numpy as np

from convergent.activations.moments import TILE

# No more than a tile's samples are added up in float32. Each addition rounds by at most u = 2**-24
# of the sum so far, with a deviation of u / sqrt(3); where that sum grows evenly, n additions
# together have one of u sqrt(n) / 3 of the sum of sizes. Six such deviations are never seen (Higham
# and Mary 2019 have the theorem). A kernel that adds up in several lanes does better.
PRODUCT = 2 * np.sqrt(TILE) * 2.0**-24


def rounding(*arrays):
    """Largest error of the correlations of these arrays of shape (sample, unit).

    Two ways to make them may differ by twice as much. A co-moment is a sum of products less the
    product of two means, whose sums over 64 samples err a quarter as much: 1.5 x PRODUCT of the
    root mean squares. So are both variances, of which the roots are taken: 3 x PRODUCT in all. A
    mean square is (1 + mean**2 / var) variances, and means of more than about three deviations
    are subtracted first.
    """
    arrays = [x.astype(np.float64) for x in arrays]
    return max(rounding_of(x.mean(axis=0), x.var(axis=0)) for x in arrays)


def rounding_of(mean, var):
    """As :func:`rounding`, from the means and variances of units."""
    live = var > 0
    return 3 * PRODUCT * (1 + min(9, (mean[live] ** 2 / var[live]).max(initial=0)))
