"""Shapes of a net's layers and what the net costs, told by the net itself before it is trained.

Reading them back imports nothing that takes time, as the rules do so to say what jobs need.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from convergent import ConvergentError

if TYPE_CHECKING:
    import torch
    from torch import nn

# Axes of an activation, without that of the images, by the number of its axes.
AXES = {2: ("unit",), 3: ("token", "unit"), 4: ("y", "x", "unit")}


class Layer(NamedTuple):
    """A layer of a net, for one image; a row of ``layers.csv``.

    Attributes
    ----------
    place : str
        Kind of module whose output is analysed.
    axes : str
        Axes of the recorded activation, such as "y x unit"; the unit is the last.
    height, width : int or None
        Size of the map, None in layers without positions.
    positions : int
        Positions in the map; 1 in layers without.
    receptive_field : int or None
        Side in pixels of what a unit sees of the image; None where it cannot be derived.
    """

    layer: str
    place: str
    axes: str
    units: int
    height: int | None
    width: int | None
    positions: int
    receptive_field: int | None


class Costs(NamedTuple):
    """Costs of a net.

    Attributes
    ----------
    multiply_adds : int
        Multiplications with an addition for one image.
    parameters : int
    outputs : int
        Values that come out of convolutions, normalisations and full connections for one image.
    """

    multiply_adds: int
    parameters: int
    outputs: int


class Shapes(NamedTuple):
    """Layers of a net by name, in the order in which they run, and its costs."""

    layers: dict[str, Layer]
    costs: Costs


def layer_shapes(
    build: Callable[[], nn.Module],
    shape: Sequence[int],
    receptive_fields: Callable[
        [nn.Module, Sequence[str], torch.Tensor], Mapping[str, int | None]
    ] = lambda net, layers, example: {},
) -> Shapes:
    """Trace the shapes of all layers of a net.

    The net is built and run on torch's meta device, which computes no values and takes no memory;
    a net that cannot be is run on one empty image on the CPU.

    Parameters
    ----------
    build : callable
        Function that makes the net.
    shape : sequence of int
        Shape (channel, y, x) of an image.
    receptive_fields : callable, optional
        Function of net, names of layers and example that gives sides of receptive fields, such as
        :func:`convergent.units.receptive_fields.sides`.
    """
    import torch

    try:
        with torch.device("meta"):
            return _trace(build(), torch.empty(1, *shape), receptive_fields)
    except ConvergentError:
        raise
    except (NotImplementedError, RuntimeError):
        return _trace(build(), torch.zeros(1, *shape), receptive_fields)


def _trace(net: nn.Module, example: torch.Tensor, receptive_fields: Callable) -> Shapes:
    from torch import nn

    from convergent.nets.models import activation, layers, run_once

    counted = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
    order = layers(net, example)
    names = {activation(net, layer): layer for layer in order}
    outputs: dict[str, torch.Size] = {}
    costs = {"multiply_adds": 0, "outputs": 0}

    def measure(module: nn.Module, _: tuple, output: torch.Tensor) -> None:
        if module in names:
            outputs[names[module]] = output.shape
        if isinstance(module, counted):
            costs["outputs"] += output.numel()
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            times = output.numel() // module.weight.shape[0]
            costs["multiply_adds"] += times * module.weight.numel()

    modules = [module for module in net.modules() if module in names or isinstance(module, counted)]
    run_once(net, example, [module.register_forward_hook(measure) for module in modules])
    fields = receptive_fields(net, order, example)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return Shapes(
        {name: _layer(name, outputs[name], fields.get(name)) for name in order},
        Costs(parameters=parameters, **costs),
    )


def _layer(name: str, shape: Sequence[int], receptive_field: int | None) -> Layer:
    """Describe a layer by the shape of its output, in which maps have the unit before y and x."""
    maps = len(shape) == 4
    units = shape[1] if maps else shape[-1]
    height, width = shape[2:] if maps else (None, None)
    positions = 1
    for length in shape[1:]:
        positions *= length
    return Layer(
        layer=name,
        place="relu",
        axes=" ".join(AXES[len(shape)]),
        units=units,
        height=height,
        width=width,
        positions=positions // units,
        receptive_field=receptive_field,
    )


def write_shapes(path: str | Path, shapes: Shapes, of: Mapping[str, Any]) -> None:
    """Write ``layers.csv`` and, beside it, ``costs.json``.

    Parameters
    ----------
    path : path
        Path of ``layers.csv``.
    shapes : Shapes
    of : mapping
        Options that the net was built with, which ``costs.json`` has too.
    """
    from convergent.running.stores import writing

    with writing(path) as name, open(name, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerows([Layer._fields, *shapes.layers.values()])
    with writing(Path(path).with_name("costs.json")) as name:
        values = {"net": dict(of)} | shapes.costs._asdict()
        Path(name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def read_shapes(path: str | Path, of: Mapping[str, Any] | None = None) -> Shapes | None:
    """Read what :func:`write_shapes` has written.

    Parameters
    ----------
    path : path
        Path of ``layers.csv``.
    of : mapping, optional
        Options that the net must have been built with.

    Returns
    -------
    Shapes or None
        None if there are no such files, or those of another net.
    """
    try:
        values = json.loads(Path(path).with_name("costs.json").read_text(encoding="utf-8"))
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return None
    net = values.pop("net")
    if of is not None and net != of:
        return None
    layers = {row["layer"]: Layer(**{k: _value(k, v) for k, v in row.items()}) for row in rows}
    return Shapes(layers, Costs(**values))


def _value(column: str, text: str) -> Any:
    if column in ("layer", "place", "axes"):
        return text
    return int(text) if text else None
