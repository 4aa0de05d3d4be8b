"""The k-th largest of some values, compiled in a moment."""

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(nogil=True, cache=True)
def kth_largest(values: NDArray[np.float64], k: int) -> float:
    """Return the k-th largest value, by Hoare's selection.

    It takes as long as ``np.partition``, which Numba needs ten seconds to compile.

    Parameters
    ----------
    values : ndarray of shape (value,), float64
        Without NaN. They are copied.
    k : int
        From 1 to the number of values.
    """
    values = values.copy()
    place = values.size - k
    first, last = 0, values.size - 1
    while first < last:
        pivot = values[place]
        low, high = first, last
        while low <= high:
            while values[low] < pivot:
                low += 1
            while values[high] > pivot:
                high -= 1
            if low <= high:
                values[low], values[high] = values[high], values[low]
                low += 1
                high -= 1
        if high < place:
            first = low
        if place < low:
            last = high
    return values[place]
