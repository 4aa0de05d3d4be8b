"""One net in which two nets have their shared units once, and their other units side by side.

The paper asks for nets that are concatenated and rid of their overlap (section 6.5; ZipIt, Stoica
et al. 2024). A shared unit has the mean of its parents' incoming weights, and the next layers of
both nets read from it. If no unit is shared, the net is the mean of both nets' logits; if all are,
it is the net halfway between them.

The zipped net is run as its two parents side by side, function by function. Behind each map, a
shared unit gets the mean of both nets' sums. Parameters of single units, such as those of batch
normalisation, are averaged beforehand. What follows then sees one value of a shared unit, as in a
net that has it once, and nothing has to be built for each architecture.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from convergent import ConvergentError
from convergent.consequences.following import TRANSPOSED, tensors_in
from convergent.consequences.merging import (
    MAPS,
    Affine,
    Unit,
    affine_to,
    inside_modules,
    interpolate,
)
from convergent.consequences.permutation import Group, State
from convergent.nets.evaluation import logits
from convergent.nets.modules import LocalResponseNorm
from convergent.nets.places import tapping

# Normalisations over several units, which each net computes over its own: behind them, too, a
# shared unit gets the mean. With the axis of units.
NORMS: dict[Callable, int] = {
    functional.layer_norm: -1,
    functional.rms_norm: -1,
    functional.group_norm: 1,
}
ORDERED = (LocalResponseNorm, nn.LocalResponseNorm)
READING = ("item", "tolist", "numpy", "bool", "float", "int", "index")
# Largest difference, as a share of the largest value, that rounding explains.
ROUNDING = 1e-3


class ZipError(ConvergentError, ValueError):
    """Nets that cannot be zipped; the message names the operation."""


class Output(NamedTuple):
    """Output of a map in one of the nets.

    Attributes
    ----------
    number : int
        Of the map, in the order in which maps run.
    side : int
        0 in the first net, 1 in the second.
    tensor : torch.Tensor
    axis : int
        Axis of the units.
    shared : torch.Tensor of shape (entry,), int64
        Entries of this axis that belong to shared units.
    """

    number: int
    side: int
    tensor: torch.Tensor
    axis: int
    shared: torch.Tensor


class Zipped:
    """Two nets of one graph, run as one net in which some units are shared.

    Parameters
    ----------
    net : nn.Module
        The first net, in evaluation mode. It stays as it is.
    other : mapping of str to torch.Tensor
        State dict of the second, with its units in the order of the first's, on the same device.
    groups : sequence of Group
        Of both nets.
    shared : mapping of str to ndarray of shape (unit,), bool
        Group to which of its units are shared.
    example : torch.Tensor of shape (image, ...)
        Input of the nets.

    Attributes
    ----------
    parameters : int
        A weight between two shared units, or between one and the input or the output, is there
        once; any other twice.
    units : int
        Units of all groups, shared ones once.
    """

    def __init__(
        self,
        net: nn.Module,
        other: State,
        groups: Sequence[Group],
        shared: Mapping[str, NDArray[np.bool_]],
        example: torch.Tensor,
    ):
        self.net = net
        state = net.state_dict(keep_vars=True)
        of_maps = _OfMaps()
        with torch.inference_mode(), of_maps:
            net(example[:1])
        once = _once(state, groups, shared)
        placed = {axis.tensor for group in groups for axis in group.axes}
        for name, tensor in state.items():
            if name not in placed and id(tensor) not in of_maps.seen:
                once[name].zero_()  # of no unit, and so each net's own
        self.values = dict[int, tuple[torch.Tensor, ...]]()
        for name, tensor in state.items():
            values: tuple[torch.Tensor, ...] = tensor.detach(), other[name].detach()
            if id(tensor) not in of_maps.weights and tensor.is_floating_point():
                mean = torch.lerp(*values, 0.5)
                values = tuple(torch.where(once[name], mean, value) for value in values)
            self.values.setdefault(id(tensor), values)
        self.parameters = sum(
            2 * tensor.numel() - int(once[name].sum()) for name, tensor in net.named_parameters()
        )
        self.units = sum(2 * group.size - int(shared[group.name].sum()) for group in groups)
        # Entries of shared units along the axis of inputs or outputs of each weight.
        self.entries = dict[tuple[int, int], torch.Tensor]()
        for group in groups:
            for axis in group.axes:
                if axis.axis is not None and axis.rows is None:
                    key = id(state[axis.tensor]), axis.axis
                    _add(self.entries, key, axis.block[shared[group.name]], example.device)
        modules = dict(net.named_modules())
        self.ordered = dict[str, torch.Tensor]()
        for group in groups:
            for place, block in group.places.items():
                if isinstance(modules.get(place), ORDERED):
                    _add(self.ordered, place, block[shared[group.name]], example.device)

    def run(
        self,
        images: torch.Tensor,
        change: Callable[[Output], torch.Tensor] | None = None,
        *,
        check: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run both nets, and return the logits of each; the zipped net's are their mean.

        Parameters
        ----------
        images : torch.Tensor of shape (image, channel, y, x)
        change : callable, optional
            Function of an :class:`Output` whose result takes its place.
        check : bool
            Whether to check that all maps read one value of a shared unit.

        Raises
        ------
        ZipError
            If an operation computes several maps at once, reads values, or if the check fails.
        """
        mode = _SideBySide(self, change, check)
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with (
                torch.inference_mode(),
                inside_modules(self.net) as mode.inside,
                tapping(self.net, self.ordered, mode.join_ordered, replacing=True) as run,
                mode,
            ):
                first = logits(run(images))
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
        return first, mode.other[first]

    def logits(
        self, images: torch.Tensor, affines: Sequence[Sequence[Affine]] = ()
    ) -> torch.Tensor:
        """Return the logits of the zipped net, perhaps with what :meth:`repair` has found."""

        def change(output: Output) -> torch.Tensor:
            if output.number >= len(affines):
                return output.tensor
            return affines[output.number][output.side].of(output.tensor, output.axis)

        first, last = self.run(images, change if affines else None)
        return torch.lerp(first, last, 0.5)

    def units_of_maps(self, images: torch.Tensor, number: int) -> tuple[list[Unit], list[Unit]]:
        """Measure the units of each net at the outputs of the first `number` maps."""
        found: tuple[list[Unit], list[Unit]] = ([], [])

        def measure(output: Output) -> torch.Tensor:
            if output.number < number:
                found[output.side].append(Unit.of(output.tensor, output.axis))
            return output.tensor

        self.run(images, measure)
        return found

    def repair(
        self, images: torch.Tensor, goals: tuple[Sequence[Unit], Sequence[Unit]]
    ) -> list[list[Affine]]:
        """Find what gives units the mean and deviation of their parent, or halfway between both.

        Each map is measured with all before it repaired, as in
        :func:`convergent.consequences.merging.repair`.

        Parameters
        ----------
        images : torch.Tensor of shape (image, channel, y, x)
        goals : (sequence of Unit, sequence of Unit)
            Units at the outputs of the maps of each net; other maps are left as they are.
        """
        found: list[list[Affine]] = [[] for _ in goals[0]]

        def change(output: Output) -> torch.Tensor:
            if output.number >= len(found):
                return output.tensor
            both = [goals[side][output.number] for side in (0, 1)]
            between, index = both[0].between(both[1], 0.5), output.shared
            goal = Unit(
                *(
                    own.index_copy(0, index, middle[index])
                    for own, middle in zip(both[output.side], between, strict=True)
                )
            )
            found[output.number].append(affine_to(output.tensor, output.axis, goal))
            return found[output.number][-1].of(output.tensor, output.axis)

        self.run(images, change)
        return found


class _OfMaps(TorchFunctionMode):
    """Collect the weights and biases of the maps that a net computes, by their identities."""

    def __init__(self) -> None:
        super().__init__()
        self.weights, self.seen = set[int](), set[int]()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in MAPS:
            self.weights.add(id(_weight(args, kwargs, 1)))
            self.seen |= {id(each) for each in (*args[1:], *kwargs.values())}
        return func(*args, **kwargs)


class _SideBySide(TorchFunctionMode):
    """Compute each function for the other net as well, and give shared units their means."""

    def __init__(self, zipped: Zipped, change: Callable[[Output], torch.Tensor] | None, check):
        super().__init__()
        self.zipped, self.change, self.check = zipped, change, check
        self.other = WeakTensorKeyDictionary()
        self.inside: list[str] = []
        self.count, self.asleep = 0, False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self.asleep or not any(map(self.differs, tensors_in([args, kwargs]))):
            return func(*args, **kwargs)
        name = getattr(func, "__name__", str(func)).strip("_")
        if func is functional.multi_head_attention_forward:
            raise self.error(f"{name} computes several maps in one operation")
        if name in READING:
            raise self.error(f"{name} makes what runs depend on values")
        if name == "setitem" and not self.differs(args[0]):
            self.other[args[0]] = args[0].clone()
        found = [func(*self.of(side, args), **self.of(side, kwargs)) for side in (0, 1)]
        if func in MAPS:
            found = self.join_map(func, args, kwargs, found)
        elif func in NORMS:
            weight = _weight(args, kwargs, 2)
            if weight is not None:
                index = self.zipped.entries.get((id(weight), 0))
                axis = NORMS[func] % found[0].ndim
                found = list(_joined(found[0], found[1], index, axis))
        for one, other in zip(*map(tensors_in, found), strict=True):
            self.other[one] = other
        return found[0]

    def differs(self, tensor: torch.Tensor) -> bool:
        """Tell whether the other net has another tensor in place of one."""
        return tensor in self.other or id(tensor) in self.zipped.values

    def of(self, side: int, value: Any) -> Any:
        """Return arguments as one of the nets has them."""
        if isinstance(value, torch.Tensor):
            if id(value) in self.zipped.values:
                return self.zipped.values[id(value)][side]
            return self.other.get(value, value) if side else value
        if type(value) in (list, tuple):
            return type(value)(self.of(side, each) for each in value)
        if type(value) is dict:
            return {key: self.of(side, each) for key, each in value.items()}
        return value

    def join_map(self, func, args, kwargs, found: list[torch.Tensor]) -> list[torch.Tensor]:
        """Average shared units at the output of a map, and replace it by what is made of it."""
        weight, name = _weight(args, kwargs, 1), func.__name__
        turned = name in TRANSPOSED
        axis = found[0].ndim - 1 - MAPS[func]
        entries = self.zipped.entries
        if self.check:
            one, other = (self.of(side, args[0] if args else kwargs["input"]) for side in (0, 1))
            index = entries.get((id(weight), 1 - turned))
            if index is not None and not self.same(one, other, index, axis):
                raise self.error(
                    f"the inputs of {name} that both nets share differ, so that an operation "
                    "before it sees units that are not shared"
                )
        index = entries.get((id(weight), int(turned)))
        found = list(_joined(found[0], found[1], index, axis))
        if self.change is not None:
            index = torch.empty(0, dtype=torch.int64) if index is None else index
            index = index.to(found[0].device)
            found = [
                self.change(Output(self.count, side, each, axis, index))
                for side, each in enumerate(found)
            ]
        self.count += 1
        return found

    def join_ordered(self, name: str, output: torch.Tensor) -> torch.Tensor:
        """Average shared units behind local response normalisation."""
        self.asleep = True
        one, other = _joined(output, self.other[output], self.zipped.ordered[name], 1)
        self.other[one] = other
        self.asleep = False
        return one

    def same(self, one: torch.Tensor, other: torch.Tensor, index: torch.Tensor, axis: int) -> bool:
        """Compare entries of both nets."""
        one, other = (each.index_select(axis, index) for each in (one, other))
        return not len(index) or close(one, other)

    def error(self, what: str) -> ZipError:
        """Make the error for the function that is running."""
        place = self.inside[-1] or type(self.zipped.net).__name__
        return ZipError(f"nets of this graph cannot be zipped: {place}: {what}")


def first_shared(
    likeness: Mapping[str, NDArray[np.floating]], share: float
) -> dict[str, NDArray[np.bool_]]:
    """Mark a share of the units of each group: those that are most like their partners."""
    found = {}
    for name, values in likeness.items():
        found[name] = np.zeros(len(values), dtype=bool)
        found[name][np.argsort(-values, kind="stable")[: round(share * len(values))]] = True
    return found


def check_zipped(
    net: nn.Module, other: State, groups: Sequence[Group], example: torch.Tensor
) -> None:
    """Check that two nets are zipped into what they should be.

    With no unit shared, the answers are the mean of both nets'; with all shared, those of the net
    halfway between them; with every second one, all maps read one value of a shared unit.

    Raises
    ------
    ZipError
        If one of these does not hold, or an operation stands in the way.
    """
    middle, second = copy.deepcopy(net), copy.deepcopy(net)
    second.load_state_dict(other)
    interpolate(middle, net.state_dict(), other, 0.5)
    with torch.inference_mode():
        one, two, between = (logits(each(example)) for each in (net, second, middle))
    for step, expected in ((1, between), (2, None), (0, torch.lerp(one, two, 0.5))):
        shared = {
            group.name: np.arange(group.size) % step == 0 if step else np.zeros(group.size, bool)
            for group in groups
        }
        zipped = Zipped(net, other, groups, shared, example)
        zipped.run(example, check=True)
        if expected is not None and not close(expected, zipped.logits(example)):
            what = (
                "halfway between them if all units are shared"
                if step
                else "of their mean if none is"
            )
            raise ZipError(
                f"nets of this graph cannot be zipped: the answers are not those {what}; one of "
                "their operations cannot be run for both nets at once"
            )


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Tell whether values are the same but for rounding."""
    return bool((one - other).abs().max() <= ROUNDING * one.abs().max())


def _weight(args: Sequence, kwargs: Mapping[str, Any], index: int) -> Any:
    return args[index] if len(args) > index else kwargs.get("weight")


def _index(block: NDArray[np.intp], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.unique(block)).to(device)


def _add(
    found: dict[Any, torch.Tensor], key: Any, block: NDArray[np.intp], device: torch.device
) -> None:
    """Add entries, which may be those of several groups."""
    index = _index(block, device)
    found[key] = torch.cat([found.get(key, index[:0]), index]).unique()


def _once(
    state: Mapping[str, torch.Tensor],
    groups: Sequence[Group],
    shared: Mapping[str, NDArray[np.bool_]],
) -> dict[str, torch.Tensor]:
    """Mark the entries of each tensor all of whose units are shared."""
    marks = {
        name: torch.ones(tensor.shape, dtype=torch.bool, device=tensor.device)
        for name, tensor in state.items()
    }
    for group in groups:
        for axis in group.axes:
            mark = marks[axis.tensor]
            index = _index(axis.block[~shared[group.name]], mark.device)
            if axis.axis is None:
                mark.view(-1)[index] = False
            else:
                rows = mark if axis.rows is None else mark[slice(*axis.rows)]
                rows.index_fill_(axis.axis, index, False)
    return marks


def _joined(
    one: torch.Tensor, other: torch.Tensor, index: torch.Tensor | None, axis: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give entries of an axis the means of two tensors."""
    if index is None or not len(index):
        return one, other
    mean = torch.lerp(*(each.index_select(axis, index) for each in (one, other)), 0.5)
    return one.index_copy(axis, index, mean), other.index_copy(axis, index, mean)
