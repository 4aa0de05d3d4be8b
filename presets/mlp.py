"""A net of one's own for presets/mlp.yaml: full connections with batch normalisation."""

from collections import OrderedDict

from torch import nn


def mlp(pixels: int = 256, hidden: int = 10, units: int = 128, classes: int = 10) -> nn.Sequential:
    """Build a multilayer perceptron, with batch normalisation before each ReLU.

    Parameters
    ----------
    pixels : int
        Values of an image.
    hidden : int
        Hidden layers ``fc1``, ``fc2``, ...
    units : int
        Units of each hidden layer.
    classes : int
        Units of the last layer, ``last``.
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    width = pixels
    for number in range(1, hidden + 1):
        parts[f"fc{number}"] = nn.Sequential(
            OrderedDict(linear=nn.Linear(width, units), norm=nn.BatchNorm1d(units), relu=nn.ReLU())
        )
        width = units
    parts["last"] = nn.Linear(width, classes)
    return nn.Sequential(parts)
