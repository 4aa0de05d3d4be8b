"""Shapes of a net's layers and costs of the net, as they are kept in files.

Reading them is fast, because the rules do so to request resources for jobs.
:func:`convergent.activations.shapes.layer_shapes` measures them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Layer(NamedTuple):
    """A layer of a net, for one image; a row of ``layers.csv``.

    Attributes
    ----------
    place : str
        Name of the place of the net whose output is analysed.
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
        Multiplications with an addition for one image, in convolutions and matrix products.
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
    from convergent.running.files import writing

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
