"""Optimal transport between the units of two layers, solved exactly.

Each unit of a layer of p units holds 1/p of the mass, and so do the q units of the other layer.
Masses are counted in whole parts, so that no rounding decides which units are full.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from math import lcm
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from convergent.measures.choices import Choice
from convergent.measures.selection import kth_largest

# Columns of a row that are sorted first.
HEAD = 64
# Columns that are sorted by insertion.
FEW = 16


class Flow(NamedTuple):
    """Transport of largest total value, with the prices that prove it.

    No transport of as much mass has a larger total: `price` + `row_prices` + `column_prices` is at
    least the value of every entry and equals that of every entry that carries mass; prices of rows
    and columns are not negative, and 0 where a row keeps mass or a column could hold more. Where
    less mass may be transported than could be, `price` is not negative, and 0 if less was.

    Attributes
    ----------
    rows, columns : ndarray of shape (entry,), intp
    mass : ndarray of shape (entry,), int64
    row_prices : ndarray of shape (unit_a,), float64
    column_prices : ndarray of shape (unit_b,), float64
    price : float
        Value of one part of mass more.
    """

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    mass: NDArray[np.int64]
    row_prices: NDArray[np.float64]
    column_prices: NDArray[np.float64]
    price: float


def transport(similarity: NDArray) -> Choice:
    """Transport all mass between units so that the mean similarity is largest.

    With equally many units on both sides this is the matching of largest total: no transport is
    better than the best permutation (Birkhoff).

    Parameters
    ----------
    similarity : ndarray of shape (unit_a, unit_b)

    Returns
    -------
    Choice
        Weights add up to 1, those of a row to 1/unit_a and those of a column to 1/unit_b.
    """
    return transports(similarity, [])[0]


def partial_transport(similarity: NDArray, share: float) -> Choice:
    """Transport at most a share of the mass; see :func:`transports`."""
    return transports(similarity, [share], whole=False)[0]


def transports(similarity: NDArray, shares: Sequence[float], *, whole: bool = True) -> list[Choice]:
    """Transport at most each share of the mass so that the sum of similarities is largest.

    Parameters
    ----------
    similarity : ndarray of shape (unit_a, unit_b)
    shares : sequence of float
        Ascending, in (0, 1]; fractions of a denominator of at most 1,000.
    whole : bool
        Transport all mass, too (:func:`transport`): the last choice.

    Returns
    -------
    list of Choice
        Weights are masses divided by the share. They add up to 1, or to less if the best
        similarities that are left are negative; those of a row to at most 1/(share unit_a).

    Raises
    ------
    ValueError
        If a share is no such number.

    Notes
    -----
    The transport of a larger share begins with that of a smaller one, so that all of them cost as
    much as the largest. Where all mass is a matching, it starts from the prices of the largest
    share: prices of columns do not change which matching is best, and with these most rows get
    their column at once. That saves up to a third of it.
    """
    similarity = np.asarray(similarity, np.float64)
    exact = [_fraction(share) for share in shares]
    p, q = similarity.shape
    square = whole and p == q
    if whole and not square:
        exact.append(Fraction(1))
    # Parts of which each row, each column and each share get a whole number.
    parts = lcm(p, q) * lcm(*(share.denominator for share in exact))
    masses = [int(parts * share) for share in exact]
    supply, demand = np.full(p, parts // p), np.full(q, parts // q)
    flows = best_flows(similarity, supply, demand, masses, at_most=len(shares)) if masses else []
    choices = [
        Choice(flow.rows, flow.columns, flow.mass / mass)
        for flow, mass in zip(flows, masses, strict=True)
    ]
    if square:
        choices.append(_matching(similarity, flows[-1] if flows else None))
    return choices


def _matching(similarity: NDArray[np.float64], begun: Flow | None) -> Choice:
    """Transport all mass of a square matrix, sooner with a flow of some of it."""
    weights = np.full(len(similarity), 1 / len(similarity))
    if begun is None:
        rows, columns = linear_sum_assignment(-similarity)
        return Choice(rows, columns, weights)
    # The rows that have columns come first.
    waits = np.ones(len(similarity), bool)
    waits[begun.rows] = False
    order = np.argsort(waits, kind="stable")
    _, columns = linear_sum_assignment(begun.column_prices - similarity[order])
    return Choice(order, columns, weights)


@cache
def _fraction(share: float) -> Fraction:
    found = Fraction(share).limit_denominator(1000)
    if not 0 < found <= 1 or abs(found - Fraction(share)) > 1e-9:
        raise ValueError(
            f"share must be a fraction in (0, 1] with a denominator of at most 1000, got {share}"
        )
    return found


def best_flows(
    values: NDArray[np.float64],
    supply: NDArray[np.int64],
    demand: NDArray[np.int64],
    masses: Sequence[int],
    *,
    at_most: int = 0,
) -> list[Flow]:
    """Find the flows of several masses of largest total value, by successive shortest paths.

    Every path is the best one from any row that is not empty to any column that is not full, so
    that the flow is the best of its mass at every step. A path is found as the Hungarian method
    finds it, by Dijkstra's algorithm on the differences of prices and values, which are never
    negative (Ahuja, Magnanti and Orlin 1993, section 9.7).

    Parameters
    ----------
    values : ndarray of shape (unit_a, unit_b)
        Value of one part of mass of each entry.
    supply, demand : ndarray of shape (unit_a,), (unit_b,)
        Parts of mass of each row and of each column.
    masses : sequence of int
        Parts to transport, ascending.
    at_most : int
        How many of the masses, the first, leave out what has negative value.

    Returns
    -------
    list of Flow

    Raises
    ------
    ValueError
        If the rows or the columns cannot hold the mass, or a value is NaN or infinite.
    """
    if not np.isfinite(values).all():
        raise ValueError("values contain NaN or infinity; dead units must be left out")
    if masses[-1] > min(supply.sum(), demand.sum()):
        raise ValueError(
            f"{masses[-1]} parts of mass cannot leave rows of {supply.sum()} for columns of "
            f"{demand.sum()}"
        )
    found = _best_flows(
        np.ascontiguousarray(values, np.float64),
        np.ascontiguousarray(values.T, np.float64),
        values.max(),
        np.array(supply, np.int64),
        np.array(demand, np.int64),
        np.array(masses, np.int64),
        at_most,
    )
    return [Flow(*entries, *prices) for entries, *prices in found]


@numba.njit(nogil=True, cache=True)
def _best_flows(values, turned, price, supply, demand, masses, at_most):
    """Return rows, columns and masses of each flow, prices of rows and columns, and of mass.

    The largest value is the first price of mass.
    """
    p, q = values.shape
    # Rows from which each column gets mass, and how much.
    count = np.zeros(q, np.int64)
    givers, given = np.empty((q, p), np.int32), np.empty((q, p), np.int64)
    # Columns by descending value, of rows from which paths went on, as far as these are sorted.
    order, ordered = np.empty((p, q), np.int32), np.zeros(p, np.int64)
    # Prices of rows together with that of mass: only those that a path has met change.
    rows, columns = np.zeros(p), np.zeros(q)
    # The best of the rows that are not empty, for each column, and its value.
    best, most = np.empty(q, np.int64), np.empty(q)
    for j in range(q):
        best[j] = _best_row(turned[j], supply, j % p, np.inf)
        most[j] = turned[j, best[j]]
    distance, row_distance = np.empty(q), np.empty(p)
    from_row, from_column = np.empty(q, np.int64), np.empty(p, np.int64)
    visited, reached = np.zeros(q, np.bool_), np.zeros(p, np.bool_)
    tree = np.empty(q, np.int64)
    heap = [(0.0, 0)]
    found = [_flow(count, givers, given, supply, rows, columns, price) for _ in range(0)]
    sent = 0
    while len(found) < len(masses):
        heap.clear()
        shortest, last = np.inf, -1
        for j in range(q):
            from_row[j] = best[j]
            distance[j] = max(0.0, price + columns[j] - most[j])
            if demand[j] > 0 and distance[j] < shortest:
                shortest, last = distance[j], j
        for j in range(q):
            if distance[j] < shortest:
                heap.append((distance[j], j))
        heapq.heapify(heap)
        size = 0
        while heap:
            near, column = heapq.heappop(heap)
            if near >= shortest:
                break
            if visited[column]:
                continue
            visited[column] = True
            tree[size] = column
            size += 1
            for k in range(count[column]):
                i = givers[column, k]
                if supply[i] > 0 or reached[i]:
                    continue
                reached[i] = True
                row_distance[i], from_column[i] = near, column
                start = near + rows[i]
                for place in range(q):
                    if place == ordered[i]:
                        ordered[i] = _sort_on(values[i], order[i], place)
                    j = np.int64(order[i, place])
                    if start - values[i, j] >= shortest:
                        break
                    far = max(near, start + columns[j] - values[i, j])
                    if far < min(distance[j], shortest) and not visited[j]:
                        distance[j], from_row[j] = far, i
                        if demand[j] > 0:
                            shortest, last = far, j
                        else:
                            heapq.heappush(heap, (far, j))
        worthless = len(found) < at_most and shortest > price
        step = price if worthless else shortest
        for place in range(size):
            column = tree[place]
            visited[column] = False
            columns[column] += max(0.0, step - distance[column])
            for k in range(count[column]):
                i = givers[column, k]
                if reached[i]:
                    reached[i] = False
                    rows[i] -= max(0.0, step - row_distance[i])
        price -= step
        if worthless:
            while len(found) < at_most:
                found.append(_flow(count, givers, given, supply, rows, columns, price))
            continue
        amount, j = min(masses[len(found)] - sent, demand[last]), last
        while supply[from_row[j]] == 0:
            i = from_row[j]
            j = from_column[i]
            amount = min(amount, given[j, _find(givers[j], i)])
        source = from_row[j]
        amount = min(amount, supply[source])
        demand[last] -= amount
        supply[source] -= amount
        sent += amount
        j = last
        while True:
            i = from_row[j]
            k = _find(givers[j, : count[j]], i)
            if k == count[j]:
                givers[j, k], given[j, k] = i, 0
                count[j] += 1
            given[j, k] += amount
            if i == source:
                break
            j = from_column[i]
            k = _find(givers[j, : count[j]], i)
            given[j, k] -= amount
            if given[j, k] == 0:
                count[j] -= 1
                givers[j, k], given[j, k] = givers[j, count[j]], given[j, count[j]]
        if supply[source] == 0:
            rows[source] = price
            for j in range(q):
                if best[j] == source and sent < masses[-1]:
                    best[j] = _best_row(turned[j], supply, source, turned[j, source])
                    most[j] = turned[j, best[j]]
        while len(found) < len(masses) and sent == masses[len(found)]:
            found.append(_flow(count, givers, given, supply, rows, columns, price))
    return found


@numba.njit(nogil=True, cache=True)
def _sort_on(values, order, known):
    """Sort the columns of a row by descending value, the best first or then all; count them.

    Most paths see but a few of a long row.
    """
    least, number = -np.inf, 0
    if not known and len(values) >= 4 * HEAD:
        least = kth_largest(values, HEAD)
    for j in range(len(values)):
        if values[j] >= least:
            order[number] = j
            number += 1
    _sort(values, order, number)
    return number


@numba.njit(nogil=True, cache=True)
def _sort(values, order, number):
    """Sort the first columns of `order` by descending value in place, by Hoare's quicksort.

    Numba needs longer to compile ``np.argsort`` and its assignment than everything else here.
    """
    waiting, ends = np.empty((64, 2), np.int64), 1
    waiting[0, 0], waiting[0, 1] = 0, number - 1
    while ends:
        ends -= 1
        first, last = waiting[ends, 0], waiting[ends, 1]
        while last - first >= FEW:
            pivot = values[order[(first + last) // 2]]
            low, high = first, last
            while low <= high:
                while values[order[low]] > pivot:
                    low += 1
                while values[order[high]] < pivot:
                    high -= 1
                if low <= high:
                    order[low], order[high] = order[high], order[low]
                    low += 1
                    high -= 1
            # The longer part waits, so that no more than log2(number) do.
            if high - first > last - low:
                waiting[ends, 0], waiting[ends, 1] = first, high
                first = low
            else:
                waiting[ends, 0], waiting[ends, 1] = low, last
                last = high
            ends += 1
    # No column is further from its place than a short part is long.
    for k in range(1, number):
        column, place = order[k], k
        while place and values[order[place - 1]] < values[column]:
            order[place] = order[place - 1]
            place -= 1
        order[place] = column


@numba.njit(nogil=True, cache=True)
def _flow(count, givers, given, supply, rows, columns, price):
    """Copy the entries that carry mass, and the prices."""
    size = 0
    for j in range(len(count)):
        size += count[j]
    entries, k = np.empty((3, size), np.int64), 0
    for j in range(len(count)):
        for e in range(count[j]):
            entries[0, k], entries[1, k], entries[2, k] = givers[j, e], j, given[j, e]
            k += 1
    # Rows that have supply left have no price.
    prices = np.zeros(len(supply))
    for i in range(len(supply)):
        if supply[i] == 0:
            prices[i] = rows[i] - price
    return entries, prices, columns.copy(), price


@numba.njit(nogil=True, cache=True)
def _best_row(values, supply, first, bound):
    """Return the row of largest value that is not empty, the next from `first` of equal ones.

    No value of such a row is larger than `bound`, so that the search ends where one equals it.
    """
    found, most = -1, -np.inf
    for start, stop in ((first, len(values)), (0, first)):
        for i in range(start, stop):
            if supply[i] > 0 and values[i] > most:
                found, most = i, values[i]
                if most >= bound:
                    return found
    return found


@numba.njit(nogil=True, cache=True)
def _find(rows, row):
    """Return the place of a row among some, or their number."""
    for k in range(len(rows)):
        if rows[k] == row:
            return k
    return len(rows)
