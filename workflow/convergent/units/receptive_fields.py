"""Receptive fields: the pixels that a unit sees, derived from a net's modules or measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd.graph import Node
from torch.nn import functional

from convergent.activations.layouts import Layout
from convergent.activations.probing import Places, layouts, named
from convergent.activations.shapes import layer_shapes
from convergent.nets import models
from convergent.nets.models import evaluating, run_once
from convergent.nets.modules import LocalResponseNorm
from convergent.nets.shapes import Shapes
from convergent.units.operations import kind, operations

# Modules whose kernel size, stride, padding (and dilation) say which pixels reach an output.
SPATIAL = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
# Modules whose outputs see the whole image; there are no positions after them.
GLOBAL = (nn.Flatten, nn.Linear, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
# Modules that leave every value at its position.
POINTWISE = (
    nn.ReLU,
    nn.BatchNorm2d,
    nn.Dropout,
    nn.Dropout2d,
    nn.Identity,
    nn.LocalResponseNorm,
    LocalResponseNorm,
)
# A signal below this share of the largest counts as none: a mask of -100 in a softmax lets e^-100
# through.
FAINT = 1e-30
# Neighbouring positions that are measured if fields differ: two windows of attention of usual size.
RUN = 16


class ReceptiveField(NamedTuple):
    """Square of pixels that the unit at (y, x) of a map sees, some perhaps outside the image.

    Attributes
    ----------
    size : int
        Side in pixels.
    stride : int
        Pixels from the field of one position to the next; 0 in fully connected layers, which
        see the whole image.
    offset : int
        First row and column of the field of position (0, 0), negative where there is padding.
    """

    size: int
    stride: int
    offset: int

    def start(self, position: int) -> int:
        """Return the first row (or column) of the field of a row (or column) of the map."""
        return self.offset + position * self.stride

    def window(self, position: int, side: int) -> tuple[int, int]:
        """Return the rows (or columns) of an image to show: the field, or all if it is larger."""
        if self.size >= side:
            return 0, side
        return self.start(position), self.start(position) + self.size

    def inside(self, position: int, side: int) -> tuple[int, int]:
        """Return the rows (or columns) of the field that lie in the image."""
        start = self.start(position)
        return max(0, start), min(side, start + self.size)


class Window(NamedTuple):
    """Rows, or columns, of the image that a row or column of a map depends on."""

    position: int
    start: int
    stop: int


class Measured(NamedTuple):
    """What gradients say of a layer's receptive field.

    Attributes
    ----------
    windows : tuple of two lists of Window
        Along rows and along columns; empty in layers without positions.
    cells : tuple of int
        Height and width of the layer's map.
    side : int
        Side of the image.
    """

    windows: tuple[list[Window], list[Window]]
    cells: tuple[int, int]
    side: int

    def field(self) -> ReceptiveField:
        """Fit the smallest field that holds all windows; the whole image where there are none."""
        lines = [
            _line(windows, cells, self.side)
            for windows, cells in zip(self.windows, self.cells, strict=True)
        ]
        (stride, low, high), (other, first, last) = lines
        low, high = min(low, first), max(high, last)
        if stride != other or (low + stride * (max(self.cells) - 1) <= 0 and high >= self.side):
            return ReceptiveField(self.side, 0, 0)
        return ReceptiveField(high - low, stride, low)

    def within(self, field: ReceptiveField, *, exactly: bool = False) -> bool:
        """Say whether a field holds all windows and, where asked, nothing else of the image."""
        for window in (*self.windows[0], *self.windows[1]):
            start, stop = field.inside(window.position, self.side)
            if exactly and (start, stop) != window[1:]:
                return False
            if start > window.start or stop < window.stop:
                return False
        return True


def receptive_fields(
    net: nn.Module, places: Places, example: torch.Tensor
) -> dict[str, ReceptiveField]:
    """Find the receptive field of each layer of any net.

    It is measured (:func:`measured_fields`), and replaced by the derived one
    (:func:`derived_fields`) where there is one that holds all pixels that were found to matter.

    Parameters
    ----------
    net : nn.Module
        Its mode, weights and device stay.
    places : mapping of layer to place or layout, or sequence of places
        See :meth:`convergent.activations.layouts.Layout.of`.
    example : torch.Tensor of shape (1, channel, side, side)
        An input that the net accepts.

    Returns
    -------
    dict of layer to ReceptiveField
        The whole image in layers without positions, such as tokens.
    """
    measured, derived = _measured(net, places, example), derived_fields(net, places, example)
    return {
        layer: derived[layer] if layer in derived and each.within(derived[layer]) else each.field()
        for layer, each in measured.items()
    }


def derived_fields(
    net: nn.Module, places: Places, example: torch.Tensor
) -> dict[str, ReceptiveField]:
    """Derive the receptive field of each layer from the modules that run before it.

    This is possible where they are a chain of square convolutions and poolings and of modules
    that leave values where they are, each of which takes the unchanged output of the one before.
    Other layers are left out, and so are layers with a layout of their own.

    Parameters are those of :func:`receptive_fields`; the net may be on torch's meta device.
    """
    modules = {path: module for path, module in net.named_modules() if path}
    names: dict[nn.Module, list[str]] = {}
    for layer, layout in named(places).items():
        if layout == Layout(layout.place, layout.unit_axis) and layout.place in modules:
            names.setdefault(modules[layout.place], []).append(layer)
    side = example.shape[-1]
    found: dict[str, ReceptiveField] = {}
    field: ReceptiveField | None = ReceptiveField(1, 1, 0)
    last, version = example, example._version

    def step(module: nn.Module, args: tuple) -> None:
        nonlocal field
        if field is None or field.stride == 0:
            return
        if isinstance(module, GLOBAL):
            field = ReceptiveField(side, 0, 0)
        elif not args or args[0] is not last or last._version != version:
            field = None
        elif isinstance(module, SPATIAL):
            field = _wider(field, module)
        elif not isinstance(module, POINTWISE):
            field = None

    def keep(module: nn.Module, args: tuple, output: Any) -> None:
        nonlocal last, version
        if isinstance(output, torch.Tensor):
            last, version = output, output._version

    def reached(module: nn.Module, args: tuple, output: Any) -> None:
        for layer in names.pop(module, ()):  # its first use
            unchanged = output is last and last._version == version
            if field is not None and (field.stride == 0 or unchanged):
                found[layer] = field

    leaves = [module for module in net.modules() if not any(module.children())]
    hooks = [module.register_forward_pre_hook(step) for module in leaves]
    hooks += [module.register_forward_hook(keep) for module in leaves]
    hooks += [module.register_forward_hook(reached) for module in names]
    run_once(net, example, hooks)
    return found


def measured_fields(
    net: nn.Module, places: Places, example: torch.Tensor
) -> dict[str, ReceptiveField]:
    """Measure the receptive field of each layer: the pixels that gradients of its units reach.

    A gradient of all units of a position is passed back through the net, and only whether it is
    zero counts: after each operation it is replaced by positive random numbers wherever it is
    not, so that it neither vanishes nor cancels. Activation functions and products pass it on
    unchanged, and max pooling sends it to everything that it compares, as these values count in
    some other image. Weights are random, because trained ones may be 0.

    Positions at both ends of the map and in its middle are measured. A field that one border of
    the image cuts off is known from positions near the other, if it is less than twice as wide as
    the image; of others, only the part within the image is known. If fields of these positions
    do not have the same size, as with windows of attention, more positions are measured, and the
    field is the smallest that holds what each of them sees.

    Parameters and returned values are those of :func:`receptive_fields`. The net runs on the CPU.
    """
    return {layer: each.field() for layer, each in _measured(net, places, example).items()}


def sides(
    net: nn.Module,
    places: Places,
    example: torch.Tensor,
    build: Callable[[], nn.Module] | None = None,
) -> dict[str, int | None]:
    """Give the side in pixels of each layer's receptive field.

    It is derived where this is possible, which takes no time, and elsewhere measured at a few
    positions.

    Parameters
    ----------
    net, places, example
        See :func:`receptive_fields`; the net may be on torch's meta device.
    build : callable, optional
        Function that makes the net on the CPU, to measure fields of a net on the meta device.
        Without it they are None.
    """
    derived = derived_fields(net, places, example)
    made = named(places)
    unknown = {layer: layout for layer, layout in made.items() if layer not in derived}
    found = {layer: None if layer in unknown else derived[layer].size for layer in made}
    if unknown and example.is_meta and build is not None:
        with torch.device("cpu"):
            net, example = build(), torch.zeros(example.shape)
    if unknown and not example.is_meta:
        measured = _measured(net, unknown, example, [_few])
        found |= {layer: each.field().size for layer, each in measured.items()}
    return found


def net_shapes(net: Mapping[str, Any], places: Mapping[str, Any] | None = None) -> Shapes:
    """Measure the shapes and costs of a net of the run.

    Parameters
    ----------
    net : mapping
        ``model``, ``size`` and ``inputs``, as :func:`convergent.nets.models.options` takes them.
    places : mapping of layer to str or mapping, optional
        Places and layouts of the layers; all ReLUs by default.
    """
    view = (net["inputs"], net["size"], net["size"])
    build = partial(models.build, **models.options(net))
    return layer_shapes(build, view, places=places, receptive_fields=partial(sides, build=build))


def _wider(field: ReceptiveField, module: nn.Module) -> ReceptiveField | None:
    """Widen a field by one more convolution or pooling; None if that is not square."""
    geometry = {}
    for name in ("kernel_size", "stride", "padding", "dilation"):
        value = getattr(module, name, 1)
        values = {value} if isinstance(value, int) else set(value)
        if len(values) > 1 or not isinstance(next(iter(values)), int):
            return None
        geometry[name] = values.pop()
    reach = geometry["dilation"] * (geometry["kernel_size"] - 1)
    return ReceptiveField(
        field.size + reach * field.stride,
        field.stride * geometry["stride"],
        field.offset - geometry["padding"] * field.stride,
    )


def _measured(
    net: nn.Module, places: Places, example: torch.Tensor, ways: Sequence[Callable] | None = None
) -> dict[str, Measured]:
    """Measure windows of each layer at some positions, and at more if their sizes differ.

    See :func:`measured_fields`.
    """
    side = example.shape[-1]
    made = layouts(net, places, example[:1])
    found: dict[str, Measured] = {}
    with torch.random.fork_rng(devices=[]), evaluating(net, "cpu"):
        torch.manual_seed(0)
        _redraw(net)
        recorded = operations(net, made, torch.rand(1, *example.shape[1:]))
        for node in recorded.nodes:
            node.register_prehook(_mark)
            rule = RULES.get(kind(node))
            if rule is not None:
                node.register_hook(partial(rule, node))
        for layer, output in recorded.outputs.items():
            found[layer] = Measured(([], []), (1, 1), side)
            if output.ndim != 4 or not recorded.nodes:
                continue
            cells = (output.shape[1], output.shape[2])
            for choose in ways or (_few, _many):
                rows, columns = (list(choose(n)) for n in cells)
                windows = _windows(recorded.images, output, rows, columns)
                found[layer] = Measured(windows, cells, side)
                if found[layer].within(found[layer].field(), exactly=True):
                    break
    return found


def _windows(
    images: torch.Tensor, output: torch.Tensor, rows: Sequence[int], columns: Sequence[int]
) -> tuple[list[Window], list[Window]]:
    """Find the rows and columns of the image that gradients reach from some rows and columns."""
    found: tuple[list[Window], list[Window]] = ([], [])
    for n in range(max(len(rows), len(columns))):
        place = rows[min(n, len(rows) - 1)], columns[min(n, len(columns) - 1)]
        start = torch.zeros_like(output)
        start[0, place[0], place[1]] = 1
        (signal,) = torch.autograd.grad(output, images, start, retain_graph=True, allow_unused=True)
        if signal is None:
            continue
        reached = (signal[0] != 0).any(dim=0)
        for axis, windows in enumerate(found):
            hit = reached.any(dim=1 - axis).nonzero()
            # A field may lie in the padding.
            if len(hit):
                windows.append(Window(place[axis], int(hit[0]), int(hit[-1]) + 1))
    return found


def _line(windows: Sequence[Window], cells: int, side: int) -> tuple[int, int, int]:
    """Fit stride, first start and first stop to windows along one axis, so that all are inside."""
    if not windows:
        return 0, 0, side
    # Windows that a border cuts off do not tell how far one position is from the next.
    starts = [(w.position, w.start) for w in windows if w.start > 0]
    stops = [(w.position, w.stop) for w in windows if w.stop < side]
    steps = {
        Fraction(b - a, q - p)
        for ends in (starts, stops)
        for (p, a), (q, b) in pairwise(ends)
        if q > p
    }
    stride = round(steps.pop() if len(steps) == 1 else Fraction(side, cells)) if cells > 1 else 0
    low = min(w.start - w.position * stride for w in windows)
    return stride, low, max(w.stop - w.position * stride for w in windows)


def _few(cells: int) -> list[int]:
    """Choose positions at both ends of an axis and in its middle."""
    middle = cells // 2
    return sorted({0, 1, middle, middle + 1, cells - 2, cells - 1} & set(range(cells)))


def _many(cells: int) -> list[int]:
    """Choose :data:`RUN` positions in the middle of an axis and two at both ends."""
    first = max(0, (cells - RUN) // 2)
    chosen = {0, 1, cells - 2, cells - 1, *range(first, first + RUN)}
    return sorted(chosen & set(range(cells)))


def _redraw(net: nn.Module) -> None:
    """Draw new weights, and reset normalisations; :func:`evaluating` restores the net later."""
    for parameter in net.parameters():
        if parameter.ndim > 1:
            values = torch.randn(parameter.shape) * parameter[0].numel() ** -0.5
        else:
            values = torch.rand(parameter.shape) + 0.5
        parameter.data = values.to(parameter.dtype)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.reset_running_stats()


def _mark(signals: tuple[torch.Tensor | None, ...]) -> tuple[torch.Tensor | None, ...]:
    """Replace signals by positive random numbers where they are not zero."""
    marked = []
    for signal in signals:
        if signal is not None:
            size = signal.abs()
            signal = torch.where(size > FAINT * size.max(), 0.5 + torch.rand_like(signal), 0)
        marked.append(signal)
    return tuple(marked)


def _unchanged(node: Node, given: tuple, signals: tuple) -> tuple:
    """Pass a signal on as it is to every input of the output's shape, which may be complex."""
    (signal,) = signals
    return tuple(g if g is None or g.shape != signal.shape else signal.to(g.dtype) for g in given)


def _everywhere(node: Node, given: tuple, signals: tuple) -> tuple:
    """Send a signal to all values."""
    return tuple(None if g is None else torch.ones_like(g) for g in given)


def _compared(node: Any, given: tuple, signals: tuple) -> tuple:
    """Send a signal to all values that a max pooling compares."""
    shape, signal = given[0].shape, signals[0]
    kernel, dilation, padding = node._saved_kernel_size, node._saved_dilation, node._saved_padding
    stride = node._saved_stride or kernel
    # Of the padded input, and beyond it if the last windows are not full.
    reach = [
        (n - 1) * s + d * (k - 1) + 1
        for n, s, d, k in zip(signal.shape[-2:], stride, dilation, kernel, strict=True)
    ]
    windows = signal.reshape(-1, 1, signal[0, 0].numel()).expand(-1, kernel[0] * kernel[1], -1)
    page = functional.fold(windows, reach, kernel, dilation=dilation, stride=stride)
    (top, left), (height, width) = padding, shape[-2:]
    page = functional.pad(page, (0, width, 0, height))
    return (page[..., top : top + height, left : left + width].reshape(shape),)


# How operations pass a signal on, if not by their gradient; by autograd's names.
RULES: dict[str, Callable[[Node, tuple, tuple], tuple]] = {
    **dict.fromkeys(
        ("Relu", "Threshold", "Hardtanh", "Clamp", "ClampMin", "ClampMax", "LeakyRelu", "Elu",
         "Celu", "Gelu", "Silu", "Mish", "Softplus", "Sigmoid", "Tanh", "Hardswish",
         "Hardsigmoid", "Hardshrink", "Softshrink", "LogSigmoid", "PreluKernel", "RreluWithNoise",
         "Abs", "Pow", "Mul", "Div"),
        _unchanged,
    ),
    "MaxPool2DWithIndices": _compared,
    **dict.fromkeys(("AdaptiveMaxPool2D", "Amax", "Max", "Amin", "Min", "Topk"), _everywhere),
}  # fmt: skip
