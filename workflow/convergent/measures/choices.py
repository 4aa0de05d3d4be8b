"""Choices of entries of a matrix of units: partners, matchings, transports.

Whatever is chosen on some images can be scored on others, which takes selection out of the value.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Choice(NamedTuple):
    """Entries of a matrix of units, and the share of each in a mean.

    Attributes
    ----------
    rows, columns : ndarray of shape (entry,), intp
    weights : ndarray of shape (entry,), float64
        They need not add up to 1: a unit without a partner counts 0.
    """

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    weights: NDArray[np.float64]

    def score(self, matrix: NDArray) -> float:
        """Add up the chosen entries of a matrix (unit_a, unit_b) by their weights."""
        return float(self.weights @ matrix[self.rows, self.columns])
