"""One-to-one alignment of the units of two nets (section 3 of the paper)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment


def semi_matching(similarity: NDArray) -> NDArray[np.intp]:
    """Best partner of every unit, where partners may be shared (section 3.1).

    Dead units, whose similarities are all 0, are nobody's partner while there are others.

    Parameters
    ----------
    similarity : ndarray of shape (unit_a, unit_b)
        Correlations or mutual information.

    Returns
    -------
    ndarray of shape (unit_a,), intp
        The column of each row's maximum over live columns, the first of equals.

    Raises
    ------
    ValueError
        If `similarity` is not a finite matrix with columns.
    """
    similarity = _finite(similarity)
    dead = ~similarity.any(axis=0)
    if not dead.all():
        similarity = np.where(dead, -np.inf, similarity)
    return similarity.argmax(axis=1)


def matching(similarity: NDArray) -> NDArray[np.intp]:
    """Partners such that none is shared and the sum of similarities is largest (section 3.1).

    A maximum weight matching in the complete bipartite graph, solved exactly by
    `scipy.optimize.linear_sum_assignment` (the modified Jonker-Volgenant algorithm of Crouse
    2016). Dead units, whose similarities are all 0, match last: with each other as far as they
    go, so that none takes the partner of a unit that has one.

    Parameters
    ----------
    similarity : ndarray of shape (unit_a, unit_b)
        Square or rectangular.

    Returns
    -------
    ndarray of shape (unit_a,), intp
        Partner of each row; -1 for the rows left over when there are fewer columns.

    Raises
    ------
    ValueError
        If `similarity` is not a finite matrix with columns.
    """
    similarity = _finite(similarity).astype(np.float64)
    dead_rows, dead_columns = ~similarity.any(axis=1), ~similarity.any(axis=0)
    if dead_rows.any() or dead_columns.any():
        # More than any reassignment of live pairs could gain.
        penalty = 2 * np.abs(similarity).max() * min(similarity.shape) + 1
        similarity[dead_rows[:, None] != dead_columns] -= penalty
    rows, columns = linear_sum_assignment(similarity, maximize=True)
    partner = np.full(len(similarity), -1)
    partner[rows] = columns
    return partner


def match_table(similarity: NDArray, layer: str, measure: str) -> pd.DataFrame:
    """Both assignments of one layer as tidy rows.

    Parameters
    ----------
    similarity : ndarray of shape (unit_a, unit_b)
    layer, measure : str
        For the columns of these names.

    Returns
    -------
    DataFrame
        Columns layer, measure, method (semi, matching), direction (ab: partners in b of the
        units of a; ba the reverse), unit, partner, value. The matching is one and the same
        both ways and stands as ab. Units left over in a rectangular matching have no row.
    """
    assignments = [
        ("semi", "ab", similarity, semi_matching(similarity)),
        ("semi", "ba", similarity.T, semi_matching(similarity.T)),
        ("matching", "ab", similarity, matching(similarity)),
    ]
    frames: Iterable[pd.DataFrame] = (
        pd.DataFrame(
            {
                "layer": layer,
                "measure": measure,
                "method": method,
                "direction": direction,
                "unit": np.flatnonzero(partner >= 0),
                "partner": partner[partner >= 0],
                "value": matrix[partner >= 0, partner[partner >= 0]],
            }
        )
        for method, direction, matrix, partner in assignments
    )
    return pd.concat(frames, ignore_index=True)


def ranking(table: pd.DataFrame, layer: str, measure: str = "correlation") -> pd.DataFrame:
    """Units of net a from best to worst semi-matched, with partner and value (figures 2, S2, S4).

    Parameters
    ----------
    table : DataFrame
        As ``matching.csv`` has it.
    measure : {"correlation", "mutual_information"}

    Returns
    -------
    DataFrame
        Columns unit, partner, value; the first of equals is the lower unit.
    """
    rows = table.query(
        "layer == @layer and measure == @measure and method == 'semi' and direction == 'ab'"
    )
    rows = rows.sort_values("value", ascending=False, kind="stable", ignore_index=True)
    return rows[["unit", "partner", "value"]]


def partners(table: pd.DataFrame, layer: str, units: int) -> NDArray[np.intp]:
    """The matching by correlation of a layer, read back from the rows of ``matching.csv``.

    Returns
    -------
    ndarray of shape (units,), intp
        Partner of each unit of net a, -1 where it has none.
    """
    rows = table.query("layer == @layer and measure == 'correlation' and method == 'matching'")
    partner = np.full(units, -1)
    partner[rows["unit"]] = rows["partner"]
    return partner


def _finite(similarity: NDArray) -> NDArray:
    similarity = np.asarray(similarity)
    if similarity.ndim != 2 or similarity.shape[1] == 0:
        raise ValueError(f"similarity must be (unit_a, unit_b), got shape {similarity.shape}")
    if not np.isfinite(similarity).all():
        raise ValueError("similarity contains NaN or infinity; dead units must have 0")
    return similarity
