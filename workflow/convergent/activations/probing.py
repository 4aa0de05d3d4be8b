"""Probes of layers' outputs: one image in each row, units along a known axis, repeatable.

A net is run on a few images before it is recorded. Outputs of any other form would be recorded
without an error, and every number computed from them would be wrong.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from convergent import ConvergentError
from convergent.activations.layouts import Layout
from convergent.nets.models import evaluating
from convergent.nets.places import Tapped, running_on, tapping

if TYPE_CHECKING:
    from torch import nn

# Layer to the name of its place, or to a layout or its keys; or the names of places alone.
Places = Mapping[str, str | Mapping[str, Any] | Layout] | Sequence[str]
# Number of images that are run, and of those on which the axis of units is followed.
IMAGES, FOLLOWED = 16, 3
# Largest difference of an output, as a share of its unit's largest value: that of rounding in a
# deep net of float32, and a number of units in the last place for coarser types.
DIFFERENCE = 2e-4
ULPS = 16
# Lower bound of a unit's largest value, as a share of the median unit's: where large terms cancel,
# their rounding errors remain, such as those of the 25,088 inputs of VGG-11's first fully
# connected layer.
LEAST = 0.1

# Functions that make units, along the axis after the images or along the last.
SECOND = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
LAST = ("linear", "embedding", "multi_head_attention_forward", "native_multi_head_attention",
        "transformer_encoder_layer_fwd", "lstm", "gru", "rnn_tanh", "rnn_relu")  # fmt: skip
# Functions that normalise: units stay where they are; if that is unknown, they are second.
NORMALISING = ("batch_norm", "instance_norm", "group_norm")
# Functions that only move values.
MOVING = (
    "view", "reshape", "flatten", "unflatten", "permute", "transpose", "swapaxes", "swapdims",
    "movedim", "moveaxis", "squeeze", "unsqueeze", "contiguous", "clone", "expand", "getitem",
    "chunk", "split", "unbind", "cat", "concat", "stack", "roll", "index_select", "narrow",
    "select", "repeat", "tile", "t", "flip", "detach", "get",
)  # fmt: skip
JOINING = ("cat", "concat", "stack")
# Functions that change the size of maps and keep their axes.
RESIZING = ("pool", "interpolate", "upsample", "pad")


class ProbingError(ConvergentError, ValueError):
    """A layer whose output cannot be recorded; the message names it."""


def probe(
    net: nn.Module,
    places: Mapping[str, str],
    batch: torch.Tensor,
    stated: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Find the unit axes of layers' outputs, and check these, by running a few images twice.

    Parameters
    ----------
    net : nn.Module
        Net on the device of `batch`.
    places : mapping of layer to str
        Name of the place of each layer.
    batch : torch.Tensor of shape (image, ...)
        Input of the net; only the first few images are used.
    stated : mapping of layer to int, optional
        Unit axes, where they cannot be inferred from the net.

    Returns
    -------
    dict of layer to int
        Axis of the units in each output, at least 1, in the order of `places`.

    Raises
    ------
    PlaceError
        If the net lacks a place.
    RunError
        If the net cannot run on the images.
    ProbingError
        If the first axis of an output does not count images, the axis of its units cannot be
        inferred, it is never computed, it depends on random numbers, or it differs for an image
        in another batch; or if the graph traced of the net does not give what the net gives.
    """
    batch = batch[:IMAGES]
    # The second batch has each image among others, in another order; it has two images at least.
    if len(batch) == 1:
        batch = torch.cat([batch, batch.flip(-1)])
    order = [1, 0, 1] if len(batch) == 2 else list(range(len(batch) - 1, 0, -1))
    watch = _Watch()
    with tapping(net, places.values(), watch.see) as run:
        few = watch.run(run, batch[:FOLLOWED], _UnitAxes())
        first, second = watch.run(run, batch), watch.run(run, batch[order])
    found = {}
    for layer, name in places.items():
        where = described(layer, name)
        if name not in first.seen:
            raise ProbingError(f"{where}: never runs when the net is given images")
        one, two = first.seen[name], second.seen[name]
        _check_rows(where, one.output, two.output, len(batch), len(order))
        if one.random or two.random:
            raise _changing(where, "random numbers are drawn on the way to it")
        found[layer] = axis = unit_axis(
            layer, name, one.output.shape, few.seen[name].axis, (stated or {}).get(layer)
        )
        _check_same(where, one.output[order].movedim(axis, -1), two.output.movedim(axis, -1))
    if run.traced:
        _check_graph(net, batch[:FOLLOWED], few.answer)
    return found


def follow(
    net: nn.Module, names: Iterable[str], batch: torch.Tensor
) -> dict[str, tuple[Any, int | None]]:
    """Run a net and follow the axis of units through every function that it calls.

    Parameters
    ----------
    net : nn.Module
        Net on the device of `batch`, perhaps the meta device.
    names : iterable of str
        Names of places.
    batch : torch.Tensor of shape (image, ...)

    Returns
    -------
    dict of str to tuple
        Output at each place that ran, and the axis of its units, None if that cannot be inferred.
    """
    watch = _Watch()
    with tapping(net, names, watch.see) as run:
        seen = watch.run(run, batch, _UnitAxes()).seen
    return {name: (each.output, each.axis) for name, each in seen.items()}


def layouts(net: nn.Module, places: Places, example: torch.Tensor) -> dict[str, Layout]:
    """Make the layout of each layer, with the axis of its units.

    Parameters
    ----------
    net : nn.Module
        The net. It runs in evaluation mode; its own mode is restored.
    places : mapping of layer to place or layout, or sequence of places
        See :meth:`convergent.activations.layouts.Layout.of`.
    example : torch.Tensor of shape (image, channel, y, x)
        An input that the net accepts; it runs only if an axis is not stated.

    Raises
    ------
    PlaceError, ProbingError
        If the net has no such place, or the axis of its units cannot be inferred.
    """
    made = named(places)
    if all(layout.unit_axis is not None for layout in made.values()):
        return made
    names = list(dict.fromkeys(layout.place for layout in made.values()))
    seen = follow(net, names, example)
    for layer, layout in made.items():
        output, axis = seen.get(layout.place, (None, None))
        if not isinstance(output, torch.Tensor):
            raise ProbingError(f"{described(layer, layout.place)}: its output is never a tensor")
        axis = unit_axis(layer, layout.place, output.shape, axis, layout.unit_axis)
        made[layer] = replace(layout, unit_axis=axis)
    return made


def named(places: Places) -> dict[str, Layout]:
    """Make the layout of each layer; the axis of units is None where it is not stated."""
    given = places if isinstance(places, Mapping) else {name: name for name in places}
    return {layer: Layout.of(value, layer) for layer, value in given.items()}


def described(layer: str, place: str) -> str:
    """Name a layer, and its place if that has another name, for errors."""
    return f"layer {layer}" if layer == place else f"layer {layer} (place {place})"


class _Seen(NamedTuple):
    """Output at a place, with the axis of its units."""

    output: Any
    axis: int | None
    random: bool  # whether random numbers were drawn before it


class _Run(NamedTuple):
    """What a run of a net showed: outputs at places, and the net's own."""

    seen: dict[str, _Seen]
    answer: Any


class _Watch:
    """Watch of runs of a net at its places."""

    def run(self, run: Tapped, batch: torch.Tensor, axes: _UnitAxes | None = None) -> _Run:
        """Run a batch, in which the mode `axes` follows units."""
        self.seen: dict[str, _Seen] = {}
        self.axes, self.batch, self.before = axes, batch, _random_states(batch)
        with running_on(batch), torch.no_grad(), axes or nullcontext():
            return _Run(self.seen, run(batch))

    def see(self, name: str, output: Any) -> None:
        axis = None
        if isinstance(output, torch.Tensor):
            axis = self.axes.axis(output) if self.axes else None
            output = output.clone()  # as what follows may work in place
        self.seen[name] = _Seen(output, axis, _random_states(self.batch) != self.before)


def _check_graph(net: nn.Module, batch: torch.Tensor, answer: Any) -> None:
    """Raise an error unless a net gives what the graph that was traced of it gave."""
    with evaluating(net), torch.no_grad():
        expected = _tensors([net(batch)])
    for one, other in zip(_tensors([answer]), expected, strict=True):
        if not one.is_floating_point():
            continue
        allowed = max(DIFFERENCE, ULPS * torch.finfo(one.dtype).eps) * other.abs().max()
        if one.shape != other.shape or (one - other).abs().max() > allowed:
            raise ProbingError(
                "the graph that torch.fx traced of the net does not compute what the net does, as "
                "its course depends on more than its input; take outputs of modules as places, no "
                "operations"
            )


def _random_states(batch: torch.Tensor) -> tuple:
    """Read the states of the generators that a net may draw from."""
    numpys = np.random.get_state(legacy=False)["state"]  # noqa: NPY002 (nets may draw from it)
    states: tuple = (torch.get_rng_state().numpy().tobytes(), random.getstate())
    states += (numpys["key"].tobytes(), numpys["pos"])
    if batch.is_cuda:
        states += (torch.cuda.get_rng_state(batch.device).numpy().tobytes(),)
    return states


def _check_rows(where: str, output: Any, other: Any, images: int, others: int) -> None:
    """Raise an error unless the first axis, and no other, counts images."""
    if not isinstance(output, torch.Tensor) or not 2 <= output.ndim <= 5:
        what = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise ProbingError(
            f"{where}: its output must be a tensor of shape (image, unit), with up to three "
            f"axes of positions between, got {what}"
        )
    a, b = tuple(output.shape), tuple(other.shape)
    if a == (images, *a[1:]) and b == (others, *a[1:]):
        return
    message = f"{where}: the first axis does not count images: {images} images give {a}"
    along = [k for k, (i, j) in enumerate(zip(a, b, strict=False)) if (i, j) == (images, others)]
    if len(a) == len(b) and along:
        message += (
            f", with images along axis {along[0]}; give the net batches first (batch_first=True)"
        )
    elif a[0] * others == b[0] * images:
        message += (
            f", {a[0] / images:g} rows for each image, as when view(-1, units) turns positions "
            "into rows; record a place whose output is (image, position, unit)"
        )
    else:
        message += f", and {others} give {b}"
    raise ProbingError(message)


def _check_same(where: str, output: torch.Tensor, other: torch.Tensor) -> None:
    """Raise an error if images have other values (image, ..., unit) in another batch."""
    if not output.is_floating_point():
        return
    positions = tuple(range(output.ndim - 1))
    largest = output.abs().amax(dim=positions).float()
    allowed = max(DIFFERENCE, ULPS * torch.finfo(output.dtype).eps)
    scale = torch.maximum(largest, LEAST * largest.median())
    worst = ((output - other).abs().amax(dim=positions).float() / scale).nan_to_num(0)
    # Values that are not finite raise an error when they are recorded.
    if worst.max() > allowed:
        raise _changing(
            where,
            f"unit {int(worst.argmax())} changes by {worst.max():.2g} of its largest value when "
            "the same images run in another batch",
        )


def _changing(where: str, how: str) -> ProbingError:
    return ProbingError(
        f"{where}: the output does not depend on the image alone: {how}. Turn off dropout, "
        "sampling and statistics of the batch (such as F.dropout(training=True), or normalisation "
        "without running statistics)"
    )


def unit_axis(
    layer: str, place: str, shape: tuple[int, ...], known: int | None, stated: int | None
) -> int:
    """Decide on the axis of a layer's units, counted from the front.

    Parameters
    ----------
    layer, place : str
        Names for errors.
    shape : tuple of int
        Shape of the output, whose axis 0 counts images.
    known : int or None
        Axis that was followed through the net.
    stated : int or None
        Axis that the user gives, which has precedence; negative to count from the last.

    Raises
    ------
    ProbingError
        If the stated axis cannot hold units, or neither is known.
    """
    where = described(layer, place)
    if stated is not None:
        if not -len(shape) < stated < len(shape) or stated == 0:
            raise ProbingError(
                f"{where}: axis {stated} cannot hold the units of an output of shape "
                f"{tuple(shape)}, whose axis 0 counts images"
            )
        return stated % len(shape)
    if len(shape) == 2:
        return 1
    if known is None or known == 0:
        raise ProbingError(
            f"{where}: the axis of units in its output {tuple(shape)} cannot be inferred from the "
            f"net; state it in the configuration, such as nets.<net>.layers.{layer}: "
            f"{{place: {place}, unit_axis: -1}}, or pass unit_axis={{{layer!r}: -1}}"
        )
    return known


class _UnitAxes(TorchFunctionMode):
    """Mode that follows the axis of units through every function that a net calls."""

    def __init__(self):
        super().__init__()
        self.axes = WeakTensorKeyDictionary()

    def axis(self, tensor: torch.Tensor) -> int | None:
        """Return the axis of the units of a tensor, if it is known."""
        return self.axes.get(tensor)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        tensors = [t for t in _tensors(args) if t.is_floating_point()]
        known = [t for t in tensors if t in self.axes]
        before = {t: (tuple(t.shape), self.axes[t]) for t in known} if known else {}
        result = func(*args, **kwargs)
        for index, output in enumerate(_tensors([result])):
            axis = None
            if name in SECOND:
                axis = 1
            elif name in LAST:
                axis = output.ndim - 1
            elif name in NORMALISING and not known:
                axis = 1
            elif name in ("layer_norm", "rms_norm") and not known:
                # If several axes are normalised, any of them may hold the units.
                normalised = kwargs.get("normalized_shape") or args[1]
                axis = output.ndim - 1 if len(normalised) == 1 else None
            elif name in MOVING and known and (len(known) == len(tensors) or name in JOINING):
                axis = _moved(func, args, kwargs, before, index)
            else:
                resizes = any(word in name for word in RESIZING)
                for shape, a in before.values():
                    same = output.ndim == len(shape) and output.shape[a] == shape[a]
                    if output.shape == shape or (resizes and same):
                        axis = a
                        break
            if axis is not None:
                self.axes[output] = axis
            elif output in self.axes:
                del self.axes[output]
        return result


def _moved(func, args, kwargs, before, index: int) -> int | None:
    """Find the axis of units after a function that only moves values.

    The function is called with the numbers of units in place of activations.
    """

    def place(device: torch.device) -> torch.device | str:
        return "cpu" if device.type == "meta" else device  # where there are no values to compare

    def units(shape: tuple[int, ...], axis: int, device: torch.device) -> torch.Tensor:
        row = torch.arange(1, shape[axis] + 1, device=place(device))
        return row.view([-1 if k == axis else 1 for k in range(len(shape))]).expand(shape)

    def numbers(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value in before:
            shape, axis = before[value]
            return units(shape, axis, value.device)
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            # What is joined, such as a class token, has its units along the same axis.
            (shape, along), *_ = before.values()
            if value.ndim == len(shape) and value.shape[along] == shape[along]:
                return units(value.shape, along, value.device)
            return torch.zeros(value.shape, dtype=torch.int64, device=place(value.device))
        if isinstance(value, list | tuple):
            return type(value)(map(numbers, value)) if type(value) in (list, tuple) else value
        return value

    try:
        moved = _tensors([func(*numbers(args), **kwargs)])[index]
    except RuntimeError:
        return None  # works in place, or only on floats
    varying = [k for k in range(moved.ndim) if (moved != moved.narrow(k, 0, 1)).any()]
    return varying[0] if len(varying) == 1 else None


def _tensors(values: Any) -> list[torch.Tensor]:
    """List the tensors among arguments, and in lists of them."""
    found = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
        elif isinstance(value, Mapping):
            found += _tensors(value.values())
    return found
