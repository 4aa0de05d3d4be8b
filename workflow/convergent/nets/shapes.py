"""Shapes of a net's layers and costs of the net, traced before it is trained.

Reading them back is fast, because the rules do so to request resources for jobs.
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

# Axes of an activation without the image axis, by the number of all its axes.
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
        Size of the map; None in layers without positions.
    positions : int
        Number of positions in the map; 1 in layers without positions.
    receptive_field : int or None
        Side in pixels of the image patch that a unit sees; None if it cannot be derived.
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
        Number of values that convolutions, normalisations and full connections put out for one
        image.
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

    The net is built and run on torch's meta device, which computes no values and takes no memory.
    A net that does not support this is run on one blank image on the CPU.

    Parameters
    ----------
    build : callable
        Function that makes the net.
    shape : sequence of int
        Shape (channel, y, x) of an image.
    receptive_fields : callable, optional
        Function of net, names of layers and example that returns sides of receptive fields, such as
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


def write_shapes(path: str | Path, shapes: Shapes, options: Mapping[str, Any]) -> None:
    """Write ``layers.csv`` and, beside it, ``costs.json``.

    Parameters
    ----------
    path : path
        Path of ``layers.csv``.
    shapes : Shapes
    options : mapping
        Options that the net was built with; ``costs.json`` records them.
    """
    from convergent.running.stores import writing

    with writing(path) as name, open(name, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerows([Layer._fields, *shapes.layers.values()])
    with writing(Path(path).with_name("costs.json")) as name:
        values = {"net": dict(options)} | shapes.costs._asdict()
        Path(name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def read_shapes(path: str | Path, options: Mapping[str, Any] | None = None) -> Shapes | None:
    """Read the files that :func:`write_shapes` writes.

    Parameters
    ----------
    path : path
        Path of ``layers.csv``.
    options : mapping, optional
        Options that the net must have been built with.

    Returns
    -------
    Shapes or None
        None if the files are missing or belong to another net.
    """
    try:
        values = json.loads(Path(path).with_name("costs.json").read_text(encoding="utf-8"))
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return None
    net = values.pop("net")
    if options is not None and net != options:
        return None
    layers = {row["layer"]: Layer(**{k: _value(k, v) for k, v in row.items()}) for row in rows}
    return Shapes(layers, Costs(**values))


def _value(column: str, text: str) -> Any:
    if column in ("layer", "place", "axes"):
        return text
    return int(text) if text else None
