"""Read the data of an atlas: what the page shows, as arrays by layer, net and pair."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convergent import ConvergentError
from convergent.figures.atlas.files import read


class AtlasError(ConvergentError, KeyError):
    """Data that an atlas does not have; the message says what it has."""

    def __str__(self) -> str:
        return str(self.args[0])


class Atlas:
    """The data of an atlas; files are read when they are asked for.

    Parameters
    ----------
    folder : path
        Folder of the atlas, such as ``results/digits/atlas``.

    Raises
    ------
    AtlasError
        If there is no atlas in the folder.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not (self.folder / "data/run.json").is_file():
            raise AtlasError(f"{self.folder}: no atlas is here, as there is no data/run.json")

    @cached_property
    def run(self) -> dict[str, Any]:
        """Contents of ``data/run.json``: nets, pairs, layers, findings and layouts of pictures."""
        return json.loads((self.folder / "data/run.json").read_text(encoding="utf-8"))

    @property
    def layers(self) -> list[str]:
        """Layers, in order."""
        return [layer["name"] for layer in self.run["layers"]]

    def units(self, layer: str, net: str) -> dict[str, NDArray]:
        """Read the facts about the units of a net that need no other net, and partners in all."""
        self._check(layer, "nets", net)
        return self.arrays(f"{layer}/{net}")

    def pair(self, layer: str, a: str, b: str) -> dict[str, NDArray]:
        """Read what relates the units of two nets; names with ``/a/`` are of the first of them."""
        name, swapped = self._pair(layer, a, b)
        arrays = self.arrays(f"{layer}/{name}")
        if not swapped:
            return arrays
        other = {"a": "b", "b": "a"}
        return {
            "/".join(other.get(part, part) for part in key.split("/")): array
            for key, array in arrays.items()
        }

    def correlation(self, layer: str, a: str, b: str) -> NDArray[np.float32]:
        """Read the correlations (unit of a, unit of b), which are rounded to two digits."""
        name, swapped = self._pair(layer, a, b)
        stripes = sorted(
            (self.folder / f"data/{layer}").glob(f"{name}-*.js"),
            key=lambda path: int(path.stem.rpartition("-")[2]),
        )
        whole = np.concatenate([read(path)["correlation"] for path in stripes])
        matrix = whole.astype(np.float32) / self.run["steps"]
        return matrix.T if swapped else matrix

    def plane(self, layer: str, a: str, b: str) -> tuple[NDArray, NDArray]:
        """Read the places in the plane of the units of both nets, (unit, 2) each."""
        name, swapped = self._pair(layer, a, b)
        arrays = self.arrays(f"{layer}/plane/{name}")
        return (arrays["b"], arrays["a"]) if swapped else (arrays["a"], arrays["b"])

    def samples(self, layer: str, net: str, unit: int) -> NDArray[np.float32]:
        """Read sampled activations of a unit, to a 255th of its range."""
        self._check(layer, "nets", net)
        number, row = divmod(unit, self.run["units_in_a_file"])
        arrays = self.arrays(f"{layer}/samples/{net}-{number}")
        low, high = arrays["low"][row], arrays["high"][row]
        return low + arrays["sample"][row].astype(np.float32) * ((high - low) / 255)

    def core(self, layer: str) -> dict[str, NDArray]:
        """Read the groups of units that all nets share in a layer."""
        return self.arrays(f"{layer}/shared/core")

    def similarity(self) -> dict[str, NDArray]:
        """Read the similarities of all layers and pairs, one entry for each row."""
        return self.arrays("similarity")

    def arrays(self, name: str) -> dict[str, NDArray]:
        """Read the arrays of ``data/<name>``."""
        path = self.folder / f"data/{name}.js"
        if not path.is_file():
            raise AtlasError(f"{path}: this atlas has no such data")
        return read(path)

    def _pair(self, layer: str, a: str, b: str) -> tuple[str, bool]:
        """Return the name of a pair, and whether the atlas has its nets in the other order."""
        swapped = f"{a}-{b}" not in self.run["pairs"]
        name = f"{b}-{a}" if swapped else f"{a}-{b}"
        self._check(layer, "pairs", name)
        return name, swapped

    def _check(self, layer: str, kind: str, name: str) -> None:
        """Raise an error unless a layer has a net or pair."""
        about = next((each for each in self.run["layers"] if each["name"] == layer), None)
        if about is None:
            raise AtlasError(f"no layer {layer}; this atlas has {', '.join(self.layers)}")
        if name not in about[kind]:
            there = ", ".join(about[kind]) or "none"
            raise AtlasError(f"{layer}: no {kind[:-1]} {name}; this atlas has {there}")
