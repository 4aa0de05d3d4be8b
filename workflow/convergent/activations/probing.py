"""Probes of layers' outputs: one image in each row, units along a known axis, repeatable.

A net is run on a few images before it is recorded. Outputs of any other form would be recorded
without an error, and every number computed from them would be wrong.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from convergent import ConvergentError

if TYPE_CHECKING:
    from torch import nn

# Number of images that are run, and of those on which the axis of units is followed.
IMAGES, FOLLOWED = 16, 3
# Largest difference of an output, as a share of its unit's largest value: that of rounding in a
# deep net of float32, and a number of units in the last place for coarser types.
DIFFERENCE = 2e-4
ULPS = 16
# Lower bound of a unit's largest value, as a share of the median unit's: where large terms cancel,
# their rounding errors remain.
LEAST = 0.01

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


class Output(NamedTuple):
    """Form of a layer's output.

    Attributes
    ----------
    axis : int
        Axis of the units, at least 1.
    calls : int
        Number of times that the module runs for a batch; the last output counts.
    """

    axis: int
    calls: int


def probe(
    net: nn.Module,
    modules: Mapping[str, nn.Module],
    batch: torch.Tensor,
    stated: Mapping[str, int] | None = None,
) -> dict[str, Output]:
    """Find the form of layers' outputs by running a few images in two batches.

    Parameters
    ----------
    net : nn.Module
        Net on the device of `batch`.
    modules : mapping of layer to nn.Module
        Parts of the net whose outputs are wanted.
    batch : torch.Tensor of shape (image, ...)
        Input of the net; only the first few images are used.
    stated : mapping of layer to int, optional
        Unit axes, where they cannot be inferred from the net.

    Returns
    -------
    dict of layer to Output
        Form of each output, in the order of `modules`.

    Raises
    ------
    ProbingError
        If the first axis of an output does not count images, the axis of its units cannot be
        inferred, it is never computed, it depends on random numbers, or it differs for an image
        in another batch; or if the net takes no integers.
    """
    batch = batch[:IMAGES]
    # The second batch has each image among others, in another order; it has two images at least.
    if len(batch) == 1:
        batch = torch.cat([batch, batch.flip(-1)])
    order = [1, 0, 1] if len(batch) == 2 else list(range(len(batch) - 1, 0, -1))
    try:
        with _UnitAxes() as axes:
            few = _run(net, modules, batch[:FOLLOWED], axes)
        first, second = _run(net, modules, batch), _run(net, modules, batch[order])
    except RuntimeError as error:
        if batch.is_floating_point():
            raise
        raise ProbingError(
            f"the net cannot take images of {batch.dtype} as they are ({error}); convert them, "
            "such as by .float()"
        ) from error
    outputs = {}
    for layer in modules:
        if layer not in first:
            raise ProbingError(f"layer {layer}: never runs when the net is given images")
        output, other = first[layer].output, second[layer].output
        _check_rows(layer, output, other, len(batch), len(order))
        if first[layer].random or second[layer].random:
            raise _changing(layer, "random numbers are drawn on the way to it")
        axis = _axis(layer, output.shape, few[layer].axis, (stated or {}).get(layer))
        _check_same(layer, output[order].movedim(axis, -1), other.movedim(axis, -1))
        outputs[layer] = Output(axis, first[layer].calls)
    return outputs


class _Call(NamedTuple):
    """Last output of a module, with the axis of its units and the number of calls so far."""

    output: Any
    axis: int | None
    calls: int
    random: bool  # whether random numbers were drawn before it


def _run(
    net: nn.Module,
    modules: Mapping[str, nn.Module],
    batch: torch.Tensor,
    axes: _UnitAxes | None = None,
) -> dict[str, _Call]:
    """Run a batch and return the last call of each layer."""
    from convergent.nets.models import run_once

    last: dict[str, _Call] = {}
    before = _random_states(batch)

    def remember(layer: str):
        def hook(module, args, output) -> None:
            calls = last[layer].calls + 1 if layer in last else 1
            axis = None
            if isinstance(output, torch.Tensor):
                axis = axes.axis(output) if axes else None
                output = output.clone()  # as what follows may work in place
            last[layer] = _Call(output, axis, calls, _random_states(batch) != before)

        return hook

    run_once(net, batch, [m.register_forward_hook(remember(layer)) for layer, m in modules.items()])
    return last


def _random_states(batch: torch.Tensor) -> tuple:
    """Read the states of the generators that a net may draw from."""
    numpys = np.random.get_state(legacy=False)["state"]  # noqa: NPY002 (nets may draw from it)
    states: tuple = (torch.get_rng_state().numpy().tobytes(), random.getstate())
    states += (numpys["key"].tobytes(), numpys["pos"])
    if batch.is_cuda:
        states += (torch.cuda.get_rng_state(batch.device).numpy().tobytes(),)
    return states


def _check_rows(layer: str, output: Any, other: Any, images: int, others: int) -> None:
    """Raise an error unless the first axis, and no other, counts images."""
    if not isinstance(output, torch.Tensor) or not 2 <= output.ndim <= 5:
        what = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise ProbingError(
            f"layer {layer}: its output must be a tensor of shape (image, unit), with up to three "
            f"axes of positions between, got {what}"
        )
    a, b = tuple(output.shape), tuple(other.shape)
    if a == (images, *a[1:]) and b == (others, *a[1:]):
        return
    message = f"layer {layer}: the first axis does not count images: {images} images give {a}"
    where = [k for k, (i, j) in enumerate(zip(a, b, strict=False)) if (i, j) == (images, others)]
    if len(a) == len(b) and where:
        message += (
            f", with images along axis {where[0]}; give the net batches first (batch_first=True)"
        )
    elif a[0] * others == b[0] * images:
        message += (
            f", {a[0] / images:g} rows for each image, as when view(-1, units) turns positions "
            "into rows; record a module whose output is (image, position, unit)"
        )
    else:
        message += f", and {others} give {b}"
    raise ProbingError(message)


def _check_same(layer: str, output: torch.Tensor, other: torch.Tensor) -> None:
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
            layer,
            f"unit {int(worst.argmax())} changes by {worst.max():.2g} of its largest value when "
            "the same images run in another batch",
        )


def _changing(layer: str, how: str) -> ProbingError:
    return ProbingError(
        f"layer {layer}: the output does not depend on the image alone: {how}. Turn off dropout, "
        "sampling and statistics of the batch (such as F.dropout(training=True), or normalisation "
        "without running statistics)"
    )


def _axis(layer: str, shape: tuple[int, ...], known: int | None, stated: int | None) -> int:
    """Return the axis of a layer's units, counted from the front."""
    if stated is not None:
        if not -len(shape) < stated < len(shape) or stated == 0:
            raise ProbingError(
                f"layer {layer}: axis {stated} cannot hold the units of an output of shape "
                f"{tuple(shape)}, whose axis 0 counts images"
            )
        return stated % len(shape)
    if len(shape) == 2:
        return 1
    if known is None or known == 0:
        raise ProbingError(
            f"layer {layer}: the axis of units in its output {tuple(shape)} cannot be inferred "
            f"from the net; pass it as unit_axis={{{layer!r}: axis}}"
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

    def numbers(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value in before:
            shape, axis = before[value]
            row = torch.arange(1, shape[axis] + 1, device=value.device)
            return row.view([-1 if k == axis else 1 for k in range(len(shape))]).expand(shape)
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return torch.zeros(value.shape, dtype=torch.int64, device=value.device)
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
    return found
