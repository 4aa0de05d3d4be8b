"""What a layer's output is: an image a row, units along a known axis, the same at every run.

A net is run on a few images before it is recorded. Outputs that are not of this form would be
recorded as if they were, and every number after them would be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from convergent import ConvergentError

if TYPE_CHECKING:
    from torch import nn

# Images that are run.
IMAGES = 4
# Most that an output may differ, as a share of the layer's largest: what rounding does in a deep
# net of float32, and as many units in the last place of coarser types.
DIFFERENCE = 1e-3
ULPS = 32

# Functions whose output has its units along the axis after the images, or along the last.
SECOND = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
          "batch_norm", "instance_norm", "group_norm", "prelu")  # fmt: skip
LAST = ("linear", "layer_norm", "rms_norm", "embedding", "multi_head_attention_forward",
        "native_multi_head_attention", "transformer_encoder_layer_fwd", "lstm", "gru", "rnn_tanh",
        "rnn_relu")  # fmt: skip
# Functions that move values about and compute none.
MOVING = (
    "view", "reshape", "flatten", "unflatten", "permute", "transpose", "swapaxes", "swapdims",
    "movedim", "moveaxis", "squeeze", "unsqueeze", "contiguous", "clone", "expand", "getitem",
    "chunk", "split", "unbind", "cat", "concat", "stack", "roll", "index_select", "narrow",
    "select", "repeat", "tile", "t", "flip", "detach", "get",
)  # fmt: skip
# Functions that change the size of maps and keep their axes.
RESIZING = ("pool", "interpolate", "upsample", "pad")


class ProbingError(ConvergentError, ValueError):
    """A layer whose output cannot be recorded; the message names it."""


def unit_axes(
    net: nn.Module,
    modules: Mapping[str, nn.Module],
    batch: torch.Tensor,
    stated: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Find the axis of each layer's units, by running a few images in two batches.

    Parameters
    ----------
    net : nn.Module
        In evaluation mode, on the device of `batch`.
    modules : mapping of layer to nn.Module
        Parts of the net whose outputs are wanted; of one that runs more than once the last counts.
    batch : torch.Tensor of shape (image, ...)
        What the net takes; of many images the first few are used.
    stated : mapping of layer to int, optional
        Unit axes where the net cannot tell.

    Returns
    -------
    dict of layer to int
        In order of `modules`, from 1 up.

    Raises
    ------
    ProbingError
        If the first axis of an output does not count images, its units cannot be told, it is not
        computed, or not the same for an image in another batch; or the net takes no integers.
    """
    batch = batch[:IMAGES]
    # Other company for every image, in another order and another number.
    if len(batch) == 1:
        first, second, same = torch.cat([batch, batch.flip(-1)]), batch, [0]
    else:
        first, second = batch, batch[1:].flip(0)
        same = list(range(1, len(batch)))[::-1]
    axes: dict[str, int | None] = {}
    outputs, others = {}, {}
    try:
        with _UnitAxes() as known:
            _run(net, modules, first, outputs, lambda layer, o: axes.update({layer: known.axis(o)}))
    except RuntimeError as error:
        if batch.is_floating_point():
            raise
        raise ProbingError(
            f"the net cannot take images of {batch.dtype} as they are ({error}); convert them, "
            "such as by .float()"
        ) from error
    _run(net, modules, second, others)
    found = {}
    for layer in modules:
        if layer not in outputs:
            raise ProbingError(f"layer {layer}: never runs when the net is given images")
        _check_rows(layer, outputs[layer], others[layer], len(first), len(second))
        _check_same(layer, outputs[layer][same], others[layer])
        found[layer] = _axis(layer, outputs[layer].shape, axes[layer], (stated or {}).get(layer))
    return found


def _run(net, modules, batch, outputs: dict, seen=lambda layer, output: None) -> None:
    """Run a batch and keep the outputs of modules by layer."""
    from convergent.models import run_once

    def keep(layer: str):
        def hook(module, args, output) -> None:
            if not isinstance(output, torch.Tensor) or output.ndim < 2:
                what = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output)
                raise ProbingError(
                    f"layer {layer}: its output is no tensor of (image, ..., unit), got {what}"
                )
            seen(layer, output)
            # A copy, as what follows may work in place.
            outputs[layer] = output.clone()

        return hook

    run_once(net, batch, [m.register_forward_hook(keep(layer)) for layer, m in modules.items()])


def _check_rows(
    layer: str, output: torch.Tensor, other: torch.Tensor, images: int, fewer: int
) -> None:
    """Raise an error unless the first axis, and no other, counts images."""
    a, b = tuple(output.shape), tuple(other.shape)
    if a == (images, *a[1:]) and b == (fewer, *a[1:]):
        return
    message = f"layer {layer}: its first axis does not count images: {images} of them give {a}"
    where = [k for k, (i, j) in enumerate(zip(a, b, strict=False)) if (i, j) == (images, fewer)]
    if len(a) == len(b) and where:
        message += (
            f", with images along axis {where[0]}; give the net batches first (batch_first=True)"
        )
    elif a[0] * fewer == b[0] * images:
        message += (
            f", {a[0] / images:g} rows an image, as where positions are made rows by view(-1, "
            "units); record a place where each image has one row, (image, position, unit)"
        )
    else:
        message += f", and {fewer} give {b}"
    raise ProbingError(message)


def _check_same(layer: str, output: torch.Tensor, other: torch.Tensor) -> None:
    """Raise an error if the same images gave other values in another batch."""
    if not output.is_floating_point():
        return
    largest = output.abs().amax().item()
    worst = (output - other).abs().amax().item()
    allowed = max(DIFFERENCE, ULPS * torch.finfo(output.dtype).eps)
    # What is not finite is told when it is recorded.
    if worst > allowed * largest:
        raise ProbingError(
            f"layer {layer}: the same images give values that differ by {worst / largest:.1%} of "
            "the largest when they run again among others: the net is no function of an image. "
            "Dropout, sampling or statistics of the batch are left on (such as "
            "F.dropout(training=True), or normalisation without running statistics); turn them off"
        )


def _axis(layer: str, shape: tuple[int, ...], known: int | None, stated: int | None) -> int:
    """The axis of a layer's units, counted from the front."""
    if stated is not None:
        if not -len(shape) < stated < len(shape) or stated == 0:
            raise ProbingError(
                f"layer {layer}: axis {stated} cannot hold the units of an output of shape "
                f"{tuple(shape)}, whose axis 0 are images"
            )
        return stated % len(shape)
    if len(shape) == 2:
        return 1
    if known is None or known == 0:
        raise ProbingError(
            f"layer {layer}: which axis of its output {tuple(shape)} are units cannot be told from "
            f"the net; say so by unit_axis={{{layer!r}: -1}} if it is the last"
        )
    return known


class _UnitAxes(TorchFunctionMode):
    """Follows the axis of units through every function that a net calls."""

    def __init__(self):
        super().__init__()
        self.axes = WeakTensorKeyDictionary()

    def axis(self, tensor: torch.Tensor) -> int | None:
        """Axis of the units of a tensor, if it is known."""
        return self.axes.get(tensor)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        tensors = _tensors(args)
        known = [t for t in tensors if t in self.axes]
        before = {t: (tuple(t.shape), self.axes[t]) for t in known} if known else {}
        result = func(*args, **kwargs)
        for index, output in enumerate(_tensors([result])):
            axis = None
            if name in SECOND:
                axis = 1
            elif name in LAST:
                axis = output.ndim - 1
            elif name in MOVING and tensors and len(known) == len(tensors):
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
    """Axis along which units lie after a function that only moves values.

    The function is given the units' own numbers instead of activations.
    """

    def numbers(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value in before:
            shape, axis = before[value]
            row = torch.arange(1, shape[axis] + 1, device=value.device)
            return row.view([-1 if k == axis else 1 for k in range(len(shape))]).expand(shape)
        if isinstance(value, list | tuple):
            return type(value)(map(numbers, value)) if type(value) in (list, tuple) else value
        return value

    try:
        moved = _tensors([func(*numbers(args), **kwargs)])[index]
    except RuntimeError:
        return None  # works in place, or on floats alone
    varying = [k for k in range(moved.ndim) if (moved != moved.narrow(k, 0, 1)).any()]
    return varying[0] if len(varying) == 1 else None


def _tensors(values: Any) -> list[torch.Tensor]:
    """Tensors among arguments, and in lists of them."""
    found = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found
