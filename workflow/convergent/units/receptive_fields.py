"""Receptive fields: the pixels that a unit sees, derived from the net itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from convergent import ConvergentError
from convergent.nets import models
from convergent.nets.models import activation, run_once
from convergent.nets.modules import LocalResponseNorm
from convergent.nets.shapes import Shapes, layer_shapes

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


class FieldError(ConvergentError, ValueError):
    """A net whose receptive fields cannot be derived; the message names the module."""


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


def receptive_fields(
    net: nn.Module, layers: Sequence[str], example: torch.Tensor
) -> dict[str, ReceptiveField]:
    """Derive the receptive field of each layer from the modules that run before it.

    Parameters
    ----------
    net : nn.Module
        A chain of modules, each of which takes the output of the one before. Its mode stays.
    layers : sequence of str
        Names as :func:`convergent.nets.models.layers` returns them.
    example : torch.Tensor of shape (1, channel, side, side)
        An input that the net accepts.

    Raises
    ------
    FieldError
        If a layer has a branch or an operation before it whose geometry is unknown, or one that
        is not square.
    """
    names = {activation(net, layer): layer for layer in layers}
    paths = {module: path for path, module in net.named_modules()}
    side = example.shape[-1]
    fields: dict[str, ReceptiveField] = {}
    state = {"field": ReceptiveField(1, 1, 0), "output": example}

    def step(module: nn.Module, args: tuple, output: torch.Tensor) -> None:
        if len(fields) == len(names):
            return
        field = state["field"]
        if field.stride and args[0] is not state["output"] and not isinstance(module, GLOBAL):
            raise FieldError(
                f"{paths[module]}: its input is not the output of the module before it, so "
                "receptive fields cannot be derived"
            )
        if field.stride and isinstance(module, GLOBAL):
            field = ReceptiveField(side, 0, 0)
        elif field.stride and isinstance(module, SPATIAL):
            field = _wider(field, module, paths[module])
        elif field.stride and not isinstance(module, POINTWISE):
            raise FieldError(f"{paths[module]}: the reach of {type(module).__name__} is not known")
        state.update(field=field, output=output)
        if module in names:
            fields[names[module]] = field

    leaves = [module for module in net.modules() if not any(module.children())]
    run_once(net, example, [module.register_forward_hook(step) for module in leaves])
    return fields


def sides(net: nn.Module, layers: Sequence[str], example: torch.Tensor) -> dict[str, int | None]:
    """Give the side in pixels of each layer's receptive field; None where it cannot be derived."""
    found: dict[str, int | None] = {}
    for layer in layers:
        try:
            found[layer] = receptive_fields(net, [layer], example)[layer].size
        except FieldError:
            found[layer] = None
    return found


def net_shapes(options: Mapping[str, Any]) -> Shapes:
    """Measure the shapes and costs of the net that :func:`convergent.nets.models.build` makes.

    Parameters
    ----------
    options : mapping
        Arguments of ``build``, among them `size` and `inputs`.
    """
    view = (options["inputs"], options["size"], options["size"])
    return layer_shapes(lambda: models.build(**options), view, sides)


def _wider(field: ReceptiveField, module: nn.Module, path: str) -> ReceptiveField:
    """Widen a field by one more convolution or pooling."""
    geometry = {}
    for name in ("kernel_size", "stride", "padding", "dilation"):
        value = getattr(module, name, 1)
        values = {value} if isinstance(value, int) else set(value)
        if len(values) > 1 or not isinstance(next(iter(values)), int):
            raise FieldError(f"{path}: {name} {value} is not the same number in both directions")
        geometry[name] = values.pop()
    reach = geometry["dilation"] * (geometry["kernel_size"] - 1)
    return ReceptiveField(
        field.size + reach * field.stride,
        field.stride * geometry["stride"],
        field.offset - geometry["padding"] * field.stride,
    )
