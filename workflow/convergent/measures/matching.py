"""One-to-one alignment of the units of two nets (section 3 of the paper)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def semi_matching(similarity: NDArray) -> NDArray[np.intp]:
    """Find the best partner of every unit, where partners may be shared (section 3.1).

    Dead units, whose similarities are all 0, are partners only if all units are dead. The partner
    of a dead unit means nothing.

    Parameters
    ----------
    similarity : ndarray of shape (unit_a, unit_b)
        Values of a measure of units.

    Returns
    -------
    ndarray of shape (unit_a,), intp
        Column of each row's maximum over live columns; the first of equal ones.

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


# Sweeps that look for the prices of columns. They need not be those of an optimum.
SWEEPS = 10


def matching(similarity: NDArray, prices: NDArray | None = None) -> NDArray[np.intp]:
    """Find partners, none of them shared, with the largest sum of similarities (section 3.1).

    A maximum weight matching in the complete bipartite graph, solved exactly by
    `scipy.optimize.linear_sum_assignment` (the modified Jonker-Volgenant algorithm of Crouse
    2016). Dead units, whose similarities are all 0, take part in it, so that a live unit is
    assigned a dead one rather than one whose similarity is negative; but no pair with a dead unit
    is a match.

    Parameters
    ----------
    similarity : ndarray of shape (unit_a, unit_b)
        Square or rectangular.
    prices : ndarray of shape (unit_b,), optional
        Prices of the columns of a square matrix that is nearly this one (:func:`column_prices`).
        The matching is the same with any prices. Those of a matrix with a twentieth of the images
        more save two thirds of the time.

    Returns
    -------
    ndarray of shape (unit_a,), intp
        Partner of each row; -1 for dead rows, for those that were assigned a dead column, and for
        those left over when there are fewer columns. :func:`complete` assigns these too.

    Raises
    ------
    ValueError
        If `similarity` is not a finite matrix with columns.
    """
    from scipy.optimize import linear_sum_assignment

    similarity = _finite(similarity).astype(np.float64)
    costs = -similarity if prices is None else prices - similarity
    rows, columns = linear_sum_assignment(costs)
    live = np.any(similarity, axis=1)[rows] & np.any(similarity, axis=0)[columns]
    partner = np.full(len(similarity), -1)
    partner[rows[live]] = columns[live]
    return partner


def column_prices(similarity: NDArray, partner: NDArray[np.integer]) -> NDArray[np.float64]:
    """Approach prices at which every row's best column, its value less its price, is its own.

    Parameters
    ----------
    similarity : ndarray of shape (unit, unit)
    partner : ndarray of shape (unit,)
        Column of each row in a matching of the largest sum.

    Returns
    -------
    ndarray of shape (unit,)
    """
    prices = np.zeros(len(partner))
    lacking = similarity - np.take_along_axis(similarity, partner[:, None], axis=1)
    for _ in range(SWEEPS):
        raised = np.maximum(prices, (lacking + prices[partner][:, None]).max(axis=0))
        if (raised == prices).all():
            break
        prices = raised
    return prices


def complete(partner: NDArray[np.integer], columns: int) -> NDArray[np.intp]:
    """Assign the columns that are left over to the rows without a partner, both in order.

    Parameters
    ----------
    partner : ndarray of shape (unit_a,)
        Result of :func:`matching`.
    columns : int
        Number of units of the other net.

    Returns
    -------
    ndarray of shape (unit_a,), intp
        A permutation if both nets have equally many units. If there are fewer columns, the last
        rows have -1.
    """
    completed = np.array(partner, np.intp)
    rows = np.flatnonzero(completed < 0)
    rest = np.setdiff1d(np.arange(columns), completed)[: len(rows)]
    completed[rows[: len(rest)]] = rest
    return completed


def diagonal_order(
    partner: NDArray[np.integer], columns: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Order the rows and columns of a matrix so that partners lie on its diagonal.

    The matching is completed by :func:`complete`. If one net has more units than the other, those
    of its units that are still left over come last.

    Parameters
    ----------
    partner : ndarray of shape (unit_a,)
        Result of :func:`matching`.
    columns : int
        Number of units of the other net.

    Returns
    -------
    rows : ndarray of shape (unit_a,), intp
    columns : ndarray of shape (unit_b,), intp
        The first min(unit_a, unit_b) rows and columns are partners.
    """
    completed = complete(partner, columns)
    # A stable sort keeps rows that have a partner in ascending order.
    rows = np.argsort(completed < 0, kind="stable")
    paired = completed[completed >= 0]
    return rows, np.concatenate([paired, np.setdiff1d(np.arange(columns), paired)])


def match_table(similarity: NDArray, layer: str, measure: str) -> pd.DataFrame:
    """List both assignments of one layer as tidy rows.

    Parameters
    ----------
    similarity : ndarray of shape (unit_a, unit_b)
    layer, measure : str
        Values of the columns of these names.

    Returns
    -------
    DataFrame
        Columns layer, measure, method (semi, matching), direction (ab: partners in b of the
        units of a; ba the reverse), unit, partner, value. The matching is the same in both
        directions and listed as ab. Units without a partner have no row: dead units, whose
        similarities are all 0, never have one; live ones may have no partner in the matching.
    """
    assignments = [
        ("semi", "ab", similarity, _of_live(similarity)),
        ("semi", "ba", similarity.T, _of_live(similarity.T)),
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


def mean_values(table: pd.DataFrame) -> pd.DataFrame:
    """Average the similarity of matched units (figure 4).

    Parameters
    ----------
    table : DataFrame
        Rows of ``matching.csv``.

    Returns
    -------
    DataFrame
        Indexed by layer and measure. `semi`, the mean over the live units of net a; `matching`,
        the sum over the matched pairs, divided by the largest possible number of pairs: the live
        units of the net that has fewer. Live units without a partner thus count as 0.
    """

    def of(method: str, direction: str):
        rows = table[(table["method"] == method) & (table["direction"] == direction)]
        return rows.groupby(["layer", "measure"], sort=False)["value"]

    semi = of("semi", "ab")
    pairs = np.minimum(semi.size(), of("semi", "ba").size())
    # Where no pair is matched there are no rows to add up.
    matched = of("matching", "ab").sum().reindex(pairs.index, fill_value=0)
    return pd.DataFrame({"semi": semi.mean(), "matching": matched / pairs})


def ranking(table: pd.DataFrame, layer: str, measure: str = "correlation") -> pd.DataFrame:
    """Rank live units of net a from best to worst semi-matched (figures 2, S2, S4).

    Parameters
    ----------
    table : DataFrame
        Rows of ``matching.csv``.
    measure : str
        Name of the measure.

    Returns
    -------
    DataFrame
        Columns unit, partner, value; of units with equal values the lower comes first.
    """
    rows = table.query(
        "layer == @layer and measure == @measure and method == 'semi' and direction == 'ab'"
    )
    rows = rows.sort_values("value", ascending=False, kind="stable", ignore_index=True)
    return rows[["unit", "partner", "value"]]


def partners(table: pd.DataFrame, layer: str, units: int) -> NDArray[np.intp]:
    """Read the matching by correlation of a layer back from the rows of ``matching.csv``.

    Returns
    -------
    ndarray of shape (units,), intp
        Partner of each unit of net a, -1 where it has none.
    """
    rows = table.query("layer == @layer and measure == 'correlation' and method == 'matching'")
    partner = np.full(units, -1)
    partner[rows["unit"]] = rows["partner"]
    return partner


def _of_live(similarity: NDArray) -> NDArray[np.intp]:
    """Semi-match live rows; give dead rows -1."""
    return np.where(similarity.any(axis=1), semi_matching(similarity), -1)


def _finite(similarity: NDArray) -> NDArray:
    similarity = np.asarray(similarity)
    if similarity.ndim != 2 or similarity.shape[1] == 0:
        raise ValueError(f"similarity must be (unit_a, unit_b), got shape {similarity.shape}")
    if not np.isfinite(similarity).all():
        raise ValueError("similarity contains NaN or infinity; dead units must have 0")
    return similarity
