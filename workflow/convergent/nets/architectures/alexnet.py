"""The paper's net: CaffeNet without groups (section 2), in any width and input size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from convergent import ConvergentError
from convergent.nets.architectures import Architecture
from convergent.running.sections import Section

if TYPE_CHECKING:
    from torch import nn

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")


class InputError(ConvergentError, ValueError):
    """An input that is too small for the net."""


class AlexNet(Section):
    """The paper's net: five convolutions and three full connections, no groups."""

    name: Literal["alexnet"] = "alexnet"
    """The paper's net: five convolutions and three full connections, no groups."""
    channels: Annotated[list[PositiveInt], Field(min_length=5, max_length=5)] = [
        96, 256, 384, 384, 256,
    ]  # fmt: skip
    """Units of conv1 to conv5."""
    fully_connected: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)] = [4096, 4096]
    """Units of fc6 and fc7."""
    kernel: PositiveInt = 11
    """Side of conv1's filters, in pixels."""
    stride: PositiveInt = 4
    """Stride of conv1, in pixels."""
    padding: NonNegativeInt = 0
    """Padding of conv1, in pixels."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Probability of dropout in fc6 and fc7 while training."""
    init: Literal["caffenet", "kaiming"] = "caffenet"
    """Initial weights: caffenet for the paper's schedule, kaiming for short ones."""


def alexnet(
    *,
    size: int = 227,
    inputs: int = 3,
    classes: int = 1000,
    channels: Sequence[int] = (96, 256, 384, 384, 256),
    fully_connected: Sequence[int] = (4096, 4096),
    kernel: int = 11,
    stride: int = 4,
    padding: int = 0,
    dropout: float = 0.5,
    init: str = "caffenet",
) -> nn.Sequential:
    """Build the paper's net: CaffeNet without groups.

    3x3/2 max pooling follows conv1, conv2 and conv5, local response normalisation follows the
    first two poolings, and dropout follows fc6 and fc7. For a 227 pixel input the maps of conv1
    to conv5 are 55, 27, 13, 13 and 13 wide.

    Parameters
    ----------
    size : int
        Side of the square input, in pixels.
    inputs : int
        Channels of the input: 1 for grey, 3 for colour.
    classes : int
        Units of fc8.
    channels : sequence of 5 int
        Units of conv1 to conv5.
    fully_connected : sequence of 2 int
        Units of fc6 and fc7.
    kernel, stride, padding : int
        Geometry of conv1. conv2 is 5x5 with padding 2, conv3 to conv5 3x3 with padding 1.
    dropout : float
        Probability of dropout in fc6 and fc7.
    init : {"caffenet", "kaiming"}
        Gaussians and biases as in CaffeNet's definition, or He's for small nets trained
        without its long schedule.

    Returns
    -------
    nn.Sequential
        One child per layer of the paper; child ``conv1`` is the convolution and its ReLU, so
        its output is the activation that the paper analyses.

    Raises
    ------
    InputError
        If a map shrinks to nothing.
    ValueError
        If `init` is unknown.
    """
    from torch import nn

    from convergent.nets.modules import LocalResponseNorm, with_relu

    layers: OrderedDict[str, nn.Module] = OrderedDict()
    width, side = inputs, _last_side(size, kernel, stride, padding)
    geometry = [(kernel, stride, padding), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1)]
    for number, (units, shape) in enumerate(zip(channels, geometry, strict=True), 1):
        layers[f"conv{number}"] = with_relu(conv=nn.Conv2d(width, units, *shape))
        width = units
        if number in (1, 2, 5):
            layers[f"pool{number}"] = nn.MaxPool2d(3, 2)
        if number in (1, 2):
            layers[f"norm{number}"] = LocalResponseNorm()
    layers["flatten"] = nn.Flatten()
    width *= side * side
    for number, units in enumerate(fully_connected, 6):
        layers[f"fc{number}"] = with_relu(linear=nn.Linear(width, units))
        layers[f"drop{number}"] = nn.Dropout(dropout)
        width = units
    layers["fc8"] = nn.Linear(width, classes)
    net = nn.Sequential(layers)
    _initialize(net, init)
    return net


ARCHITECTURE = Architecture("alexnet", AlexNet, alexnet, lambda options: LAYERS)


def _last_side(size: int, kernel: int, stride: int, padding: int) -> int:
    """Compute the side of the map that fc6 sees."""
    side = size
    geometry = [(kernel, stride, padding), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1)]
    for number, (k, s, p) in enumerate(geometry, 1):
        side = (side + 2 * p - k) // s + 1
        pooled = number in (1, 2, 5)
        if side < (3 if pooled else 1):
            raise InputError(
                f"data.size: {size} pixels shrink to {max(side, 0)} at conv{number}; take a larger "
                "view, or a smaller model.kernel or model.stride"
            )
        side = (side - 3) // 2 + 1 if pooled else side
    return side


def _initialize(net: nn.Module, init: str) -> None:
    """Draw initial weights as Caffe's bvlc_reference_caffenet does, or He's.

    Caffe's have a standard deviation of 0.01 (fc6, fc7 0.005), and a bias of 1 in some layers.
    """
    from torch import nn

    if init not in ("caffenet", "kaiming"):
        raise ValueError(f"init {init!r} is none of caffenet, kaiming")
    for path, module in net.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        layer = path.split(".")[0]
        if init == "kaiming":
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
        else:
            nn.init.normal_(module.weight, std=0.005 if layer in ("fc6", "fc7") else 0.01)
            ones = layer in ("conv2", "conv4", "conv5", "fc6", "fc7")
            nn.init.constant_(module.bias, float(ones))
