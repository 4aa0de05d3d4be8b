"""Permutations of a net's units that leave its function as it is, for any net.

Which axes of which parameters and buffers move together is worked out from what the net computes
(:mod:`convergent.consequences.following`), not by hand for each architecture. Units that can change
places are a group: those of a layer, or of all layers that a residual sum ties together.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn
from torch.overrides import TorchFunctionMode

from convergent import ConvergentError
from convergent.consequences.following import CONSTANT, Following, Labels, Record, tensors_in
from convergent.nets.models import evaluating
from convergent.nets.modules import LocalResponseNorm
from convergent.nets.places import places, running_on, tapping

# Rounding errors of two orders of a sum, in units of those of the net in single precision.
MARGIN = 16
# Largest change by the order of channels, as a share of the deviation of the net's outputs.
ORDER = 0.01

State = MutableMapping[str, torch.Tensor]


class PermutationError(ConvergentError, ValueError):
    """A permutation that does not fit a net, or that changes its function."""


class Axis(NamedTuple):
    """An axis of a parameter or buffer along which a group's units lie.

    Attributes
    ----------
    tensor : str
        Name in the state dict.
    axis : int or None
        None if entries of a unit lie along several axes; entries of the flattened tensor are meant.
    block : ndarray of shape (unit, entry), intp
        Entries of each unit, which move to those of another in order: one in most tensors, one for
        each position where a map was flattened.
    rows : tuple of two int or None
        First and last but one entry of axis 0 that are meant, in a convolution in groups.
    length : int
        Number of entries of the axis.
    counts : bool
        Whether it counts when weights are compared: not in buffers, and once in tied weights.
    """

    tensor: str
    axis: int | None
    block: NDArray[np.intp]
    rows: tuple[int, int] | None
    length: int
    counts: bool


class Group(NamedTuple):
    """Units that can change places with each other, wherever they lie.

    Attributes
    ----------
    name : str
        Module that has the first weights of the units.
    size : int
    axes : tuple of Axis
    places : dict of str to ndarray of shape (unit, entry), intp
        Names of places whose outputs have the units, each with the indices along its axis of units
        (one for each unit, unless units have several values there, as the heads of attention do).
    held : str
        Why the units must keep their order; empty if they need not.
    order : tuple of str
        Modules that see the order of the units a little: local response normalisations.
    """

    name: str
    size: int
    axes: tuple[Axis, ...]
    places: dict[str, NDArray[np.intp]]
    held: str = ""
    order: tuple[str, ...] = ()


class Sameness(NamedTuple):
    """How far the outputs of a permuted net are from those of the net.

    Attributes
    ----------
    difference, tolerance : float
        Largest difference of outputs in double precision, and what is allowed.
    order : float
        Largest change by local response normalisations that see the order of channels, as a share
        of the deviation of the outputs over images.
    """

    difference: float
    tolerance: float
    order: float


def groups(net: nn.Module, example: torch.Tensor) -> list[Group]:
    """Find which entries of a net's parameters and buffers can be permuted together.

    Parameters
    ----------
    net : nn.Module
        Any net, also on torch's meta device. Its mode is kept.
    example : torch.Tensor of shape (image, ...)
        Input of the net; one image is used.

    Returns
    -------
    list of Group
        In the order in which the net uses them. Units of the input and the output are in none;
        those that must keep their order for another reason are in groups that are `held`.

    Raises
    ------
    RunError
        If the net cannot run on the example.
    FollowingError
        If units cannot be followed; the message names the operation and its place.
    """
    example = example[:1]
    follow = Following(net)
    with evaluating(net), running_on(example):
        follow.run(net, example.clone())
    seen = _at_places(follow, net, example)
    units = _members(follow)
    group_of, rank_of = (np.full(len(follow.root), -1) for _ in range(2))
    for number, members in enumerate(units):
        group_of[members], rank_of[members] = number, np.arange(len(members))

    def blocks(labels: NDArray) -> Iterator[tuple[int, NDArray[np.intp]]]:
        """Find the entries of each unit, group by group."""
        entries = follow.root[labels]
        at = np.flatnonzero(group_of[entries] >= 0)
        at = at[np.lexsort((rank_of[entries[at]], group_of[entries[at]]))]
        numbers, starts = np.unique(group_of[entries[at]], return_index=True)
        ends = np.append(starts, len(at))[1:]
        for number, start, end in zip(numbers, starts, ends, strict=True):
            yield int(number), at[start:end].reshape(len(units[number]), -1)

    state = net.state_dict()
    counted = {name for name, _ in net.named_parameters()}
    axes: list[list[Axis]] = [[] for _ in units]
    for record in _of_tensors(follow):
        shape = state[record.tensors[0]].shape
        length = shape.numel() if record.axis is None else shape[record.axis]
        for number, block in blocks(record.labels):
            axes[number] += [
                Axis(name, record.axis, block, record.rows, length, name in counted)
                for name in record.tensors
            ]
    at: list[dict[str, NDArray[np.intp]]] = [{} for _ in units]
    for name, labels in seen.items():
        for number, block in blocks(labels):
            at[number][name] = block
    held: dict[int, str] = {}
    for labels, reason in follow.held:
        for number in np.unique(group_of[follow.root[labels]]):
            held.setdefault(int(number), reason)
    order: dict[int, dict[str, None]] = {}
    for labels, place in follow.ordered:
        for number in np.unique(group_of[follow.root[labels]]):
            order.setdefault(int(number), {})[place] = None
    found = list[Group]()
    taken: Counter[str] = Counter()
    for number, members in enumerate(units):
        first = axes[number][0].tensor
        base = first.rpartition(".")[0] or first
        taken[base] += 1
        name = base if taken[base] == 1 else f"{base}#{taken[base]}"
        rest = held.get(number, ""), tuple(order.get(number, ()))
        found.append(Group(name, len(members), tuple(axes[number]), at[number], *rest))
    return found


def permuted(
    net: nn.Module | State, groups: Sequence[Group], permutations: Mapping[str, ArrayLike]
) -> State:
    """Put a net's units in another order.

    Parameters
    ----------
    net : nn.Module or mapping of str to torch.Tensor
        Net, or its state dict.
    groups : sequence of Group
        Of this net, or of another of the same graph.
    permutations : mapping of str to array of int
        Group to permutation p: new unit i is old unit p[i]. Other groups stay as they are.

    Returns
    -------
    mapping of str to torch.Tensor
        State dict; tensors that do not change are those of the net.

    Raises
    ------
    PermutationError
        If a group is unknown or must keep its order, what is given is no permutation of its units,
        or a tensor of the net has another size than the group.
    """
    # A copy keeps the versions of modules that a state dict holds.
    state = copy.copy(net.state_dict() if isinstance(net, nn.Module) else net)
    orders: dict[tuple, tuple[Axis, NDArray[np.intp]]] = {}
    for group, order in _checked(groups, permutations):
        for axis in group.axes:
            _check_size(state, group, axis)
            key = axis.tensor, axis.axis, axis.rows
            _, entries = orders.setdefault(key, (axis, np.arange(axis.length)))
            entries[axis.block] = axis.block[order]
    for axis, entries in orders.values():
        state[axis.tensor] = _selected(state[axis.tensor], axis, entries)
    return state


def inverse(permutation: ArrayLike) -> NDArray[np.intp]:
    """Return the permutation that undoes one."""
    return np.argsort(np.asarray(permutation))


def keeping_order(found: Sequence[Group]) -> list[Group]:
    """Hold the groups whose order local response normalisations see."""
    reason = "local response normalisation at {} sees the order of channels"
    return [
        group._replace(held=group.held or reason.format(", ".join(group.order)))
        if group.order
        else group
        for group in found
    ]


def check_same_function(
    net: nn.Module, state: State, images: torch.Tensor, order: float = ORDER
) -> Sameness:
    """Check that a permuted net gives the same outputs.

    Both nets run in double precision, in which the order of a sum changes next to nothing. What is
    allowed is what single precision changes in the outputs of the net itself, times a margin.
    Local response normalisation, which sees the order of channels, is left out of both nets for
    this; how far it changes outputs is then measured, and must be little.

    Parameters
    ----------
    net : nn.Module
        The net as it was.
    state : mapping of str to torch.Tensor
        Its state dict, permuted.
    images : torch.Tensor of shape (image, ...)
    order : float
        Largest change by the order of channels, as a share of the outputs' deviation over images.

    Raises
    ------
    PermutationError
        If outputs differ by more than rounding, or by more than `order`.
    """
    single, double, other = (copy.deepcopy(net) for _ in range(3))
    other.load_state_dict(state)
    single, double, other = single.float(), double.double(), other.double()
    expected, got = (_outputs(each, images.double(), True) for each in (double, other))
    rounded = _outputs(single, images.float(), True).double()
    size = float(expected.abs().max())
    epsilon = torch.finfo(torch.float32).eps
    tolerance = MARGIN * max(float((rounded - expected).abs().max()), epsilon * size)
    difference = float((got - expected).abs().max())
    if not difference <= tolerance:
        raise PermutationError(
            f"the permuted net is another function: outputs differ by up to {difference:.2g} of "
            f"{size:.2g}, and rounding explains {tolerance:.2g}; one of its operations depends on "
            "the order of units in a way that was not followed"
        )
    change = 0.0
    if _sees_order(net, images):
        expected, got = (_outputs(each, images.double(), False) for each in (double, other))
        deviation = float(expected.std(0).mean()) if len(images) > 1 else float(expected.std())
        change = float((got - expected).abs().max()) / max(deviation, epsilon * size)
        if not change <= order:
            raise PermutationError(
                "local response normalisation sees the order of channels: outputs change by up to "
                f"{change:.2g} of their deviation, and {order:g} is allowed; permute the groups of "
                "`keeping_order`, or allow more"
            )
    return Sameness(difference, tolerance, change)


def _at_places(
    follow: Following, net: nn.Module, example: torch.Tensor
) -> dict[str, NDArray[np.int64]]:
    """Run a net again and return the labels along the axis of units of its places."""
    names = [place.name for place in places(net, example)]
    seen: dict[str, Labels] = {}

    def see(name: str, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.is_floating_point():
            seen[name] = follow.labels(output)

    # The graph that runs may hold constants that the net does not; they join nothing.
    kept = follow.root.copy(), list(follow.held)
    follow.again = True
    with tapping(net, names, see) as run, running_on(example):
        follow.run(run, example.clone())
    follow.root, follow.held = kept
    found = {}
    for name, labels in seen.items():
        long = [axis for axis, size in enumerate(labels.pattern.shape) if size > 1]
        if len(long) == 1:
            found[name] = labels.pattern.ravel()
    return found


def _members(follow: Following) -> list[NDArray[np.int64]]:
    """List the units of each group, in the order in which weights have them.

    Units can change places if they have equally many entries in every record.
    """
    colours = np.zeros(len(follow.root), np.int64)
    known = set[bytes]()
    colour = 0
    held = [labels for labels, _ in follow.held]
    for labels in (*(record.labels for record in follow.records), *held):
        entries = np.sort(follow.root[labels], axis=None)
        if entries.tobytes() in known:
            continue
        known.add(entries.tobytes())
        units, counts = np.unique(entries, return_counts=True)
        kinds, kind = np.unique(colours[units] * (counts.max() + 1) + counts, return_inverse=True)
        colours[units] = colour + 1 + kind
        colour += len(kinds)
    entries = np.concatenate([follow.root[r.labels].ravel() for r in follow.records if r.tensors])
    units, first = np.unique(entries, return_index=True)
    units = units[np.argsort(first)]
    units = units[units > CONSTANT]
    kinds, starts, kind = np.unique(colours[units], return_index=True, return_inverse=True)
    return [units[kind == k] for k in np.argsort(starts) if (kind == k).sum() > 1]


def _of_tensors(follow: Following) -> Iterator[Record]:
    """Pass on records of tensors; one whose entries have labels of their own gets its axis."""
    for record in follow.records:
        if not record.tensors:
            continue
        if record.axis is not None:
            yield record
            continue
        units = follow.root[record.labels]
        for axis in range(units.ndim):
            lines = np.moveaxis(units, axis, 0).reshape(units.shape[axis], -1)
            if (lines == lines[:, :1]).all():
                yield record._replace(labels=lines[:, 0], axis=axis)
                break
        else:
            yield record._replace(labels=record.labels.ravel())


def _checked(groups: Sequence[Group], permutations: Mapping[str, ArrayLike]):
    """Yield each group that is permuted with its permutation."""
    known = {group.name: group for group in groups}
    for name, given in permutations.items():
        if name not in known:
            raise PermutationError(f"no group {name!r}; there are {', '.join(known) or 'none'}")
        group, order = known[name], np.asarray(given)
        if order.shape != (group.size,) or not np.array_equal(
            np.sort(order), np.arange(group.size)
        ):
            raise PermutationError(
                f"group {name} has {group.size} units, and what is given for it is no permutation "
                f"of 0 to {group.size - 1}"
            )
        if np.array_equal(order, np.arange(group.size)):
            order = np.arange(group.size)
        elif group.held:
            raise PermutationError(f"the units of group {name} must keep their order: {group.held}")
        yield group, order


def _check_size(state: State, group: Group, axis: Axis) -> None:
    tensor = state.get(axis.tensor)
    if tensor is None:
        raise PermutationError(f"group {group.name} has the tensor {axis.tensor}, the net has not")
    if axis.axis is not None and axis.axis >= tensor.ndim:
        size = 0
    else:
        size = tensor.numel() if axis.axis is None else tensor.shape[axis.axis]
    if size != axis.length or (axis.rows and axis.rows[1] > len(tensor)):
        raise PermutationError(
            f"members of group {group.name} disagree in size: {axis.tensor} has {size} entries "
            f"along axis {axis.axis}, and {axis.length} belong to its {group.size} units"
        )


def _selected(tensor: torch.Tensor, axis: Axis, entries: NDArray[np.intp]) -> torch.Tensor:
    """Select entries of an axis, in some rows or in all."""
    index = torch.from_numpy(entries).to(tensor.device)
    if axis.axis is None:
        return tensor.reshape(-1).index_select(0, index).reshape(tensor.shape)
    if axis.rows is None:
        return tensor.index_select(axis.axis, index)
    rows = slice(*axis.rows)
    changed = tensor.clone()
    changed[rows] = tensor[rows].index_select(axis.axis, index)
    return changed


class _WithoutOrder(TorchFunctionMode):
    """Mode that leaves local response normalisation out, as a function, and counts it."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") == "local_response_norm":
            self.calls += 1
            return args[0].clone()
        return func(*args, **(kwargs or {}))


def _outputs(net: nn.Module, images: torch.Tensor, without_order: bool) -> torch.Tensor:
    """Run a net and return its outputs of shape (image, output)."""
    hooks = []
    if without_order:
        hooks = [
            module.register_forward_hook(lambda module, args, output: args[0])
            for module in net.modules()
            if isinstance(module, LocalResponseNorm)
        ]
    mode = _WithoutOrder() if without_order else nullcontext()
    try:
        with evaluating(net), torch.no_grad(), running_on(images), mode:
            outputs = [each for each in tensors_in(net(images)) if each.is_floating_point()]
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat([each.reshape(len(images), -1) for each in outputs], 1)


def _sees_order(net: nn.Module, images: torch.Tensor) -> bool:
    if any(isinstance(module, LocalResponseNorm) for module in net.modules()):
        return True
    with _WithoutOrder() as mode, evaluating(net), torch.no_grad(), running_on(images):
        net(images[:1])
    return mode.calls > 0
