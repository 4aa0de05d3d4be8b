"""VGG-11 for small images (Simonyan and Zisserman 2015, configuration A)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveInt

from convergent import ConvergentError
from convergent.nets.architectures import Architecture
from convergent.running.sections import Section

if TYPE_CHECKING:
    from torch import nn

# Convolutions that are followed by a pooling, which halves the maps.
POOLED = (1, 2, 4, 6, 8)


class InputError(ConvergentError, ValueError):
    """An input that is too small for the net."""


class VGG11(Section):
    """VGG-11: eight convolutions, and full connections."""

    name: Literal["vgg11"] = "vgg11"
    """VGG-11: eight 3x3 convolutions, global average pooling and full connections."""
    channels: Annotated[list[PositiveInt], Field(min_length=8, max_length=8)] = [
        64, 128, 256, 256, 512, 512, 512, 512,
    ]  # fmt: skip
    """Units of conv1 to conv8."""
    batch_norm: bool = True
    """Batch normalisation after each convolution."""
    fully_connected: list[PositiveInt] = []
    """Units of the layers fc9, fc10, ... before the last, such as [512, 512]; none if empty."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Probability of dropout in fc9, fc10, ... while training."""


def vgg11(
    *,
    size: int = 32,
    inputs: int = 3,
    classes: int = 10,
    channels: Sequence[int] = (64, 128, 256, 256, 512, 512, 512, 512),
    batch_norm: bool = True,
    fully_connected: Sequence[int] = (),
    dropout: float = 0.5,
) -> nn.Sequential:
    """Build VGG-11 in its form for small images, with He's initial weights.

    Parameters
    ----------
    size : int
        Side of the square input, in pixels; at least 32, as five poolings halve it.
    inputs : int
        Channels of the input: 1 for grey, 3 for colour.
    classes : int
        Units of the last layer.
    channels : sequence of 8 int
        Units of conv1 to conv8.
    batch_norm : bool
        Batch normalisation after each convolution.
    fully_connected : sequence of int
        Units of fc9, fc10, ...
    dropout : float
        Probability of dropout in fc9, fc10, ...

    Returns
    -------
    nn.Sequential
        Child ``conv1`` is a convolution, its normalisation and its ReLU.

    Raises
    ------
    InputError
        If the input is too small.
    """
    from torch import nn

    from convergent.nets.modules import with_relu

    if size < 2 ** len(POOLED):
        raise InputError(f"data.size: {size} pixels are too few for vgg11, which needs 32")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    width = inputs
    for number, units in enumerate(channels, 1):
        parts: dict[str, nn.Module] = {"conv": nn.Conv2d(width, units, 3, padding=1)}
        if batch_norm:
            parts["norm"] = nn.BatchNorm2d(units)
        layers[f"conv{number}"] = with_relu(**parts)
        if number in POOLED:
            layers[f"pool{number}"] = nn.MaxPool2d(2)
        width = units
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    for number, units in enumerate(fully_connected, len(channels) + 1):
        layers[f"fc{number}"] = with_relu(linear=nn.Linear(width, units))
        layers[f"drop{number}"] = nn.Dropout(dropout)
        width = units
    layers["classes"] = nn.Linear(width, classes)
    net = nn.Sequential(layers)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return net


def _layers(options: VGG11) -> list[str]:
    convolutions = len(options.channels)
    full = range(convolutions + 1, convolutions + 1 + len(options.fully_connected))
    return [
        *(f"conv{number}" for number in range(1, convolutions + 1)),
        *(f"fc{number}" for number in full),
    ]


ARCHITECTURE = Architecture("vgg11", VGG11, vgg11, _layers)
