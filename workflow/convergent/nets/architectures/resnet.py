"""Residual nets for small images (He et al. 2016, section 4.2)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt

from convergent.nets.architectures import Architecture
from convergent.running.sections import Section

if TYPE_CHECKING:
    from torch import nn


def _check_widths(channels: Any) -> Any:
    widths = list(channels) if isinstance(channels, list | tuple) else []
    if all(isinstance(width, int) for width in widths) and widths != sorted(widths):
        raise ValueError(
            f"shortcuts add channels and take none away, so none may be less: {widths}"
        )
    return channels


class ResNet(Section):
    """ResNet-20, -32, -44, -56, ...: three stages of residual blocks."""

    name: Literal["resnet"] = "resnet"
    """ResNet for small images: a 3x3 convolution, stages of blocks of two, global average pooling
    and one full connection."""
    blocks: PositiveInt = 3
    """Blocks of each stage: n of them make a ResNet-(6n + 2), such as 3 for ResNet-20."""
    channels: Annotated[
        list[PositiveInt], Field(min_length=3, max_length=3), BeforeValidator(_check_widths)
    ] = [16, 32, 64]
    """Units of the three stages, none less than the one before."""


def resnet(
    *,
    size: int = 32,
    inputs: int = 3,
    classes: int = 10,
    blocks: int = 3,
    channels: Sequence[int] = (16, 32, 64),
) -> nn.Sequential:
    """Build a residual net with shortcuts without weights (option A) and He's initial weights.

    Parameters
    ----------
    size : int
        Side of the square input, in pixels; any, as the maps are averaged in the end.
    inputs : int
        Channels of the input: 1 for grey, 3 for colour.
    classes : int
        Units of the last layer.
    blocks : int
        Blocks of each stage.
    channels : sequence of 3 int
        Units of the stages, each of which but the first halves the maps.

    Returns
    -------
    nn.Sequential
        Children ``conv1``, ``bn1``, ``relu1``, ``layer1`` to ``layer3``, whose children are blocks
        by number, ``pool``, ``flatten`` and ``linear``. Names of weights are those of the net as
        https://github.com/akamaster/pytorch_resnet_cifar10 has published it.
    """
    from torch import nn

    from convergent.nets.modules import ResidualBlock

    width = channels[0]
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(inputs, width, 3, padding=1, bias=False),
        bn1=nn.BatchNorm2d(width),
        relu1=nn.ReLU(),
    )
    for stage, units in enumerate(channels, 1):
        halving = 1 if stage == 1 else 2
        parts[f"layer{stage}"] = nn.Sequential(
            ResidualBlock(width, units, halving),
            *(ResidualBlock(units, units) for _ in range(blocks - 1)),
        )
        width = units
    parts["pool"] = nn.AdaptiveAvgPool2d(1)
    parts["flatten"] = nn.Flatten()
    parts["linear"] = nn.Linear(width, classes)
    net = nn.Sequential(parts)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    nn.init.zeros_(net.linear.bias)
    return net


def _layers(options: ResNet) -> list[str]:
    """Name the first ReLU and the last one of each block, which has the block's name."""
    stages = range(1, len(options.channels) + 1)
    return ["relu1", *(f"layer{stage}.{n}" for stage in stages for n in range(options.blocks))]


ARCHITECTURE = Architecture("resnet", ResNet, resnet, _layers)
