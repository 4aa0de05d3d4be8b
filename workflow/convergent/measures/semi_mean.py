"""Mean value of the units of a layer and their semi-matches (figure 4 of the paper)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from convergent.measures.choices import Choice
from convergent.measures.registry import Measure

if TYPE_CHECKING:
    from numpy.typing import NDArray


def choose(matrix: NDArray) -> Choice:
    """Choose the largest value of each live unit of the first layer."""
    units = len(matrix)
    return Choice(np.arange(units), matrix.argmax(axis=1), np.full(units, 1 / units))


MEASURE = Measure(
    name="semi_mean",
    label="mean over semi-matched units",
    unit="",
    needs="matrix",
    gives="layers",
    range=(-1, float("inf")),
    invariances=frozenset({"permutation", "scaling", "isotropic_scaling", "shift"}),
    symmetric=False,
    higher_is_more_alike=True,
    source="Li et al. 2016",
    choose=choose,
    rechosen=True,
    rank=110,
)
