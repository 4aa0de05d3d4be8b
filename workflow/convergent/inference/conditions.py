"""Similarity within and between groups of nets, and whether the groups make a difference."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convergent.inference.jackknife import Interval, jackknife
from convergent.inference.over_nets import LEAST, over_nets

# Name of the row over all groups, which no group can have.
ALL = "all groups"
# Ways to group the nets that are all tried; of more, as many are drawn.
MOST = 10_000

Values = Mapping[tuple[str, str], float]


class Difference(NamedTuple):
    """Similarity within groups minus that between them.

    Attributes
    ----------
    value : float
        Mean over the groups of the mean similarity within each, minus the mean over every two
        groups of the mean similarity between them. NaN if a group has no pair.
    interval : Interval or None
        Over nets; None if there is none.
    p : float
        Share of the groupings that set the groups at least as far apart, in the direction in which
        nets of a group are more alike; NaN if there is none.
    least_p : float
        Smallest p that these nets can give.
    groupings : int
        Number of groupings that were tried, the actual one among them.
    note : str
        Reasons why there is no value, interval or p.
    """

    value: float
    interval: Interval | None
    p: float
    least_p: float
    groupings: int
    note: str


def compare_groups(
    values: Values,
    groups: Mapping[str, str],
    higher: bool = True,
    level: float = 0.95,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Tabulate the similarity of one layer, by one measure, within and between groups of nets.

    Parameters
    ----------
    values : mapping of (str, str) to float
        Similarity of each pair of nets. Pairs that are not there, or NaN, do not count.
    groups : mapping of str to str
        Group of each net, in the order of nets and groups.
    higher : bool
        True if higher values are more alike.
    level : float
        Level of the intervals.
    seed : int
        Seed of the groupings, where they are too many to try all.

    Returns
    -------
    list of dict
        A row for each group, every two groups, and, if there are more than two groups that have a
        pair of their own, all of these. Keys: group_a and group_b (the same within a group, both
        :data:`ALL` in the last row); value, standard_error_nets, low_nets, high_nets, n_nets and
        n_pairs of the pairs within the group, or between the two (in the last row the mean over
        groups of those within); difference, and its standard_error_, low_ and high_difference, p,
        least_p, n_groupings; note.
    """
    names = list(dict.fromkeys(groups.values()))
    members = {name: [net for net in groups if groups[net] == name] for name in names}
    known = {frozenset(pair): v for pair, v in values.items() if not np.isnan(v)}
    rows = []
    for a, b in itertools.combinations_with_replacement(names, 2):
        cell = {
            (x, y): known[frozenset((x, y))]
            for x, y in _pairs(members[a], members[b])
            if frozenset((x, y)) in known
        }
        found = over_nets(cell, level)
        row: dict[str, Any] = {"group_a": a, "group_b": b, "value": found.mean}
        row |= _columns(found.interval, "nets")
        # Nets that have no pair are counted among neither.
        row |= {"n_nets": found.n_nets, "n_pairs": found.n_pairs}
        notes = [found.note]
        if a == b and len(members[a]) < 2:
            notes = [f"{a} has one net, and so no pair within it; two are needed"]
        if a != b:
            between = difference(known, [members[a], members[b]], [a, b], higher, level, seed)
            row |= _difference_columns(between)
            notes.append(between.note)
        rows.append(row | {"note": "; ".join(filter(None, notes))})
    several = [name for name in names if len(members[name]) > 1]
    if len(several) > 2:
        found_all = difference(
            known, [members[name] for name in several], several, higher, level, seed
        )
        within = [row for row in rows if row["group_a"] == row["group_b"] and row["n_pairs"]]
        every: dict[str, Any] = {"group_a": ALL, "group_b": ALL}
        every["value"] = np.mean([row["value"] for row in within]) if within else np.nan
        every |= _columns(None, "nets") | _difference_columns(found_all)
        every["n_nets"] = sum(len(members[name]) for name in several)
        every["n_pairs"] = sum(row["n_pairs"] for row in within)
        rows.append(every | {"note": found_all.note})
    return rows


def difference(
    known: Mapping[frozenset[str], float],
    members: Sequence[Sequence[str]],
    names: Sequence[str],
    higher: bool = True,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Compare the similarity within groups of nets with that between them.

    Parameters
    ----------
    known : mapping of frozenset of str to float
        Similarity of pairs of nets that have a value.
    members : sequence of sequence of str
        Nets of each group.
    names : sequence of str
        Names of the groups, for notes.
    higher, level, seed
        As in :func:`compare_groups`.

    Notes
    -----
    The interval leaves out one net, with all its pairs, at a time, as
    :func:`convergent.inference.over_nets.over_nets` does for one mean (Arvesen 1969); between two
    groups each needs three nets. What a net adds to the similarity of all its pairs cancels in the
    difference, and what is left belongs to pairs, which are counted more than once: the interval is
    too wide rather than too narrow. A group of two nets has no pair without one of them. Over more
    than two groups, whole groups are then left out one at a time; the difference is the mean over
    every two groups of theirs, and the interval is one over groups.

    p is that of a permutation test over nets, not pairs: if groups make no difference, any other
    grouping of the nets into groups of these sizes is as likely. Groups of one size may change
    their names, so that two groups of two have 3 groupings and no p below 1/3. Nets that start from
    the same weights can not change places, and are for the caller to leave out.
    """
    small = [name for name, nets in zip(names, members, strict=True) if len(nets) < 2]
    value = _statistic(known, members)
    if small:
        note = f"no difference: {', '.join(small)} has one net, and so no pair within it"
        return Difference(np.nan, None, np.nan, np.nan, 0, note)
    if np.isnan(value):
        note = "no difference: a group has no pair of nets with a value, or two groups have none"
        return Difference(np.nan, None, np.nan, np.nan, 0, note)
    notes = []
    few = [name for name, nets in zip(names, members, strict=True) if len(nets) < LEAST]
    each = [
        [[m for m in nets if m != net] for nets in members] for net in itertools.chain(*members)
    ]
    if few and len(members) > 2:
        each = [[[*nets] for nets in members if nets is not left] for left in members]
        notes.append(
            f"the interval leaves out one group at a time, since {', '.join(few)} have fewer than "
            f"{LEAST} nets"
        )
    without = [_statistic(known, kept) for kept in each]
    interval = None
    if few and len(members) == 2:
        notes.append(
            f"no interval of the difference: {' and '.join(few)} need {LEAST} nets, so that a pair "
            "is left without any of them"
        )
    elif np.isnan(without).any():
        notes.append("no interval of the difference: without some net a mean has no pair")
    else:
        interval = jackknife(value, without, np.ones(len(without)), level)
    nets = [*itertools.chain(*members)]
    pairs = [known.get(frozenset(pair), np.nan) for pair in itertools.combinations(nets, 2)]
    if np.isnan(pairs).any():
        notes.append("no p: not every two of the nets have a value")
        return Difference(value, interval, np.nan, np.nan, 0, "; ".join(notes))
    weights, drawn = _weights(tuple(map(len, members)), seed)
    found = weights @ np.array(pairs) * (1 if higher else -1)
    # The first grouping is the actual one; equal up to rounding counts as equal.
    reach = found >= found[0] - 1e-12 * np.abs(pairs).max()
    count = len(weights)
    if drawn:
        notes.append(f"p: {count} of {_count(tuple(map(len, members)))} groupings, drawn at random")
    return Difference(value, interval, float(reach.mean()), 1 / count, count, "; ".join(notes))


def _statistic(known: Mapping[frozenset[str], float], members: Sequence[Sequence[str]]) -> float:
    """Subtract the mean over every two groups from that within groups; NaN if one has no pair."""
    within: list[float] = []
    between: list[float] = []
    for g, h in itertools.combinations_with_replacement(range(len(members)), 2):
        pairs = [frozenset(pair) for pair in _pairs(members[g], members[h])]
        cell = [known[pair] for pair in pairs if pair in known]
        (within if g == h else between).append(float(np.mean(cell)) if cell else np.nan)
    return float(np.mean(within) - np.mean(between))


def _pairs(a: Sequence[str], b: Sequence[str]) -> Iterator[tuple[str, str]]:
    return itertools.combinations(a, 2) if a is b else itertools.product(a, b)


def _count(sizes: tuple[int, ...]) -> int:
    """Count the ways to group nets, where groups of one size are not told apart."""
    ways = math.factorial(sum(sizes))
    for size in sizes:
        ways //= math.factorial(size)
    for size in set(sizes):
        ways //= math.factorial(sizes.count(size))
    return ways


@lru_cache(maxsize=256)
def _weights(sizes: tuple[int, ...], seed: int) -> tuple[NDArray[np.float64], bool]:
    """Return the weights of all pairs of nets in the difference, for each grouping.

    Parameters
    ----------
    sizes : tuple of int
        Numbers of nets of the groups; nets are in the order of the groups.

    Returns
    -------
    weights : ndarray of shape (grouping, pair)
        The first is the actual grouping.
    drawn : bool
        True if the groupings are too many to try all.
    """
    actual = np.repeat(np.arange(len(sizes)), sizes)
    drawn = _count(sizes) > MOST
    if drawn:
        rng = np.random.default_rng(seed)
        labels = np.stack([actual, *(rng.permutation(actual) for _ in range(MOST - 1))])
    else:
        others = _groupings(sizes)
        labels = np.array([actual, *(each for each in others if each != tuple(actual))])
    first, second = np.triu_indices(sum(sizes), 1)
    a, b = labels[:, first], labels[:, second]
    of = np.array(sizes)
    within = 2 / (len(sizes) * of * (of - 1))
    cells = len(sizes) * (len(sizes) - 1) / 2
    return np.where(a == b, within[a], -1 / (cells * of[a] * of[b])), drawn


def _groupings(sizes: tuple[int, ...], labels: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """Yield each way to label nets by groups, where groups of one size are not told apart."""
    if len(labels) == sum(sizes):
        yield labels
        return
    begun = set()
    for group, size in enumerate(sizes):
        used = labels.count(group)
        # Of groups of one size without a net, the first gets the next net.
        if used < size and (used or size not in begun):
            if not used:
                begun.add(size)
            yield from _groupings(sizes, (*labels, group))


def _columns(interval: Interval | None, of: str) -> dict[str, float]:
    names = [f"standard_error_{of}", f"low_{of}", f"high_{of}"]
    return dict(zip(names, interval or [np.nan] * 3, strict=True))


def _difference_columns(found: Difference) -> dict[str, Any]:
    row: dict[str, Any] = {"difference": found.value, **_columns(found.interval, "difference")}
    return row | {"p": found.p, "least_p": found.least_p, "n_groupings": found.groupings}
