"""Mean value of the units of two layers that are matched one to one (paper, figure 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from convergent.measures.choices import Choice
from convergent.measures.registry import Measure

if TYPE_CHECKING:
    from numpy.typing import NDArray


def choose(
    matrix: NDArray,
    live_a: NDArray[np.bool],
    live_b: NDArray[np.bool],
    *,
    near: NDArray | None = None,
) -> Choice:
    """Match the units of two layers (:func:`convergent.measures.matching.matching`).

    The mean is over as many pairs as there can be: the live units of the layer that has fewer. A
    unit without a partner counts 0, as one whose best partner is a dead unit, and one that varies
    in all images but not in these.
    """
    from convergent.measures.matching import matching

    partner = matching(matrix, near)
    rows = np.flatnonzero(partner >= 0)
    pairs = min(live_a.sum(), live_b.sum())
    return Choice(rows, partner[rows], np.full(len(rows), 1 / pairs))


def near(
    chosen: Choice, matrix: NDArray, live_a: NDArray[np.bool], live_b: NDArray[np.bool]
) -> NDArray | None:
    """Compute the prices of columns, with which nearly the same matrix is matched sooner."""
    from convergent.measures.matching import column_prices, complete

    if len(live_a) != len(live_b):
        return None
    partner = np.full(len(matrix), -1)
    partner[chosen.rows] = chosen.columns
    return column_prices(matrix, complete(partner, len(live_b)))


MEASURE = Measure(
    name="matching_mean",
    label="mean over matched units",
    unit="",
    needs="matrix",
    gives="layers",
    range=(-1, float("inf")),
    invariances=frozenset({"permutation", "scaling", "isotropic_scaling", "shift"}),
    symmetric=True,
    higher_is_more_alike=True,
    source="Li et al. 2016",
    choose=choose,
    equals="soft_matching",
    rechosen=True,
    near=near,
    with_dead=True,
    rank=120,
)
