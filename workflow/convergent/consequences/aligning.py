"""Permutations that bring the units of one net to those of another.

By activations, the layers of a group share one permutation: the matching of the sum of their
similarities, which no other group changes. By weights, the best permutation of a group depends on
those of its neighbours, so groups are matched in turn until none changes: the weight matching of
Git Re-Basin (Ainsworth, Hayase and Srinivasa 2023). Its first round, which compares weights with
neighbours in any order, is a poor start in nets of narrow or depthwise layers; here it goes from
the input on, and compares only weights all of whose other units are matched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from convergent.consequences.permutation import (
    Axis,
    Group,
    PermutationError,
    State,
    permuted,
)
from convergent.measures.matching import complete, matching

# Least gain of an exchange by weights, as a share of the size of what is summed: that of rounding.
GAIN = 1e-6

Permutations = dict[str, NDArray[np.intp]]


def align(
    groups: Sequence[Group],
    similarities: Mapping[str, ArrayLike],
    states: tuple[State, State] | None = None,
    seed: int = 0,
) -> Permutations:
    """Match the units of two nets by similarities of their activations.

    Parameters
    ----------
    groups : sequence of Group
        Of both nets, which have the same graph.
    similarities : mapping of str to array of shape (unit_a, unit_b)
        Place to the values of a measure of units there; more is more alike. Places that no group
        has are ignored.
    states : tuple of two mappings, optional
        State dicts of a and b, by which groups without any of the places are matched, given the
        others (:func:`align_weights`). Without them such groups keep their order.
    seed : int
        Of the order in which these are matched.

    Returns
    -------
    dict of str to ndarray of shape (unit,), intp
        Group to permutation p: unit p[i] of b is the partner of unit i of a. Units without a
        partner, such as dead ones, are paired in order. Groups that are held keep their order.

    Raises
    ------
    PermutationError
        If a matrix has another size than its place has units.
    """
    found, left = dict[str, NDArray[np.intp]](), list[str]()
    for group in groups:
        at = [place for place in group.places if place in similarities]
        if group.held or not at:
            found[group.name] = np.arange(group.size)
            left += [] if group.held else [group.name]
            continue
        total = sum(_of_units(group, place, similarities[place]) for place in at)
        found[group.name] = complete(matching(np.asarray(total)), group.size)
    if left and states is not None:
        found = align_weights(*states, groups, seed, start=found, among=left)
    return found


def align_weights(
    state_a: State,
    state_b: State,
    groups: Sequence[Group],
    seed: int = 0,
    *,
    start: Mapping[str, ArrayLike] | None = None,
    among: Collection[str] | None = None,
) -> Permutations:
    """Match the units of two nets by their weights, without any image.

    A first round goes through the groups in the order of the net, and compares the parameters
    whose other units are matched. Then groups are visited in a random order. Each is given the
    permutation with the largest sum of products of a's and b's parameters, all other groups held,
    if that is more than before; this goes on until nothing changes. The end may be a local optimum
    and depend on the seed.

    Parameters
    ----------
    state_a, state_b : mapping of str to torch.Tensor
        State dicts of two nets of the same graph.
    groups : sequence of Group
    seed : int
        Of the order in which groups are visited.
    start : mapping of str to array of int, optional
        Permutations that are known; the given order by default.
    among : collection of str, optional
        Names of groups that are matched; all by default.

    Returns
    -------
    dict of str to ndarray of shape (unit,), intp
        As of :func:`align`.

    Raises
    ------
    PermutationError
        If members of a group disagree in size.
    """
    found = {group.name: np.arange(group.size) for group in groups}
    found |= {name: np.asarray(order, np.intp) for name, order in (start or {}).items()}
    moved = permuted(state_b, groups, found)
    permuted(state_a, groups, {group.name: np.arange(group.size) for group in groups})
    free = [group for group in groups if not group.held]
    choice = [group for group in free if among is None or group.name in among]
    unmatched = {group.name for group in choice}
    for group in choice:
        matched = _among_matched(groups, group, unmatched)
        order = complete(matching(_similarity(state_a, moved, group, matched)), group.size)
        moved = permuted(moved, [group], {group.name: order})
        found[group.name] = found[group.name][order]
        unmatched.remove(group.name)
    random, changed = np.random.default_rng(seed), True
    while changed:
        changed = False
        for index in random.permutation(len(choice)):
            group = choice[index]
            similarity = _similarity(state_a, moved, group, _tensors(group))
            # Where units stand now, unit i of b is the partner of unit i of a.
            order = complete(matching(similarity), group.size)
            trial = permuted(moved, [group], {group.name: order})
            before, after = (_agreement(state_a, each, group) for each in (moved, trial))
            if after - before > GAIN * _size(state_a, moved, group):
                moved, changed = trial, True
                found[group.name] = found[group.name][order]
    return found


def likeness(
    groups: Sequence[Group],
    similarities: Mapping[str, ArrayLike],
    permutations: Mapping[str, ArrayLike],
    states: tuple[State, State],
) -> dict[str, NDArray[np.float64]]:
    """Measure how alike the two units of each pair of partners are.

    Parameters
    ----------
    groups, similarities
        As of :func:`align`.
    permutations : mapping of str to array of int
        Partners, such as those of :func:`align`.
    states : tuple of two mappings
        State dicts of a and b, each in its own order.

    Returns
    -------
    dict of str to ndarray of shape (unit,), float64
        Mean similarity over the places of a group; where it has none of them, the cosine of the
        units' parameters. The order is that of the units of a.
    """
    moved, found = permuted(states[1], groups, permutations), dict[str, NDArray[np.float64]]()
    for group in groups:
        order = np.asarray(permutations[group.name])
        at = [place for place in group.places if place in similarities]
        values = [
            _of_units(group, place, similarities[place])[np.arange(group.size), order]
            for place in at
        ]
        found[group.name] = np.mean(values, axis=0) if at else _cosines(states[0], moved, group)
    return found


def _cosines(state_a: State, state_b: State, group: Group) -> NDArray[np.float64]:
    """Compare the parameters of units at the same number in two nets."""
    one, other = (
        torch.cat([_by_unit(state[axis.tensor], axis) for axis in _counted(group)], 1).double()
        for state in (state_a, state_b)
    )
    return torch.cosine_similarity(one, other).cpu().numpy()


def _of_units(group: Group, place: str, matrix: ArrayLike) -> NDArray:
    """Sum the similarities of units over the values that each has at a place."""
    matrix, block = np.asarray(matrix), group.places[place]
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or block.max() >= len(matrix):
        raise PermutationError(
            f"group {group.name}: the similarities at {place} have the shape {matrix.shape}, and "
            f"both nets have at least {block.max() + 1} units there; nets whose layers differ in "
            "size cannot be permuted into each other"
        )
    entries = (matrix[np.ix_(entry, entry)].astype(np.float64) for entry in block.T)
    return np.sum(list(entries), axis=0)


def _counted(group: Group) -> list[Axis]:
    """List a group's axes of parameters, each tensor of tied weights once."""
    return [axis for axis in group.axes if axis.counts]


def _among_matched(groups: Sequence[Group], group: Group, unmatched: Collection[str]) -> set[str]:
    """Name the tensors of a group that have no other units without a match; all if none is so."""
    own = Counter(axis.tensor for axis in _counted(group))
    others = {
        axis.tensor
        for other in groups
        if other.name in unmatched and other is not group
        for axis in other.axes
    }
    return {name for name, axes in own.items() if axes == 1 and name not in others} or set(own)


def _similarity(
    state_a: State, state_b: State, group: Group, tensors: Collection[str]
) -> NDArray[np.float64]:
    """Sum the products of the parameters of each unit of a with those of each unit of b."""
    total = np.zeros((group.size, group.size))
    for axis in _counted(group):
        if axis.tensor not in tensors:
            continue
        one, other = (_by_unit(state[axis.tensor], axis) for state in (state_a, state_b))
        total += (one @ other.T).double().cpu().numpy()
    return total


def _by_unit(tensor: torch.Tensor, axis: Axis) -> torch.Tensor:
    """Lay out a parameter as (unit, value)."""
    along = axis.axis or 0
    values = tensor.detach().reshape(-1) if axis.axis is None else tensor.detach()
    rows = values if axis.rows is None else values[slice(*axis.rows)]
    index = torch.from_numpy(axis.block.ravel()).to(tensor.device)
    units = rows.index_select(along, index).movedim(along, 0)
    return units.reshape(len(axis.block), -1).float()


def _tensors(group: Group) -> set[str]:
    return {axis.tensor for axis in _counted(group)}


def _agreement(state_a: State, state_b: State, group: Group) -> float:
    """Sum the products of a's and b's parameters, over the tensors that have the group's units."""
    pairs = ((state_a[name], state_b[name]) for name in _tensors(group))
    return sum(float((a.double() * b.double().to(a.device)).sum()) for a, b in pairs)


def _size(state_a: State, state_b: State, group: Group) -> float:
    pairs = ((state_a[name], state_b[name]) for name in _tensors(group))
    return sum(float(a.double().norm() * b.double().norm()) for a, b in pairs)
