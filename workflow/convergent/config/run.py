"""The configuration of a run, and values derived from it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import StringConstraints, ValidationError, field_validator, model_validator

from convergent.config.checks import ConfigError, check_keys
from convergent.config.sections import (
    Activations,
    Clustering,
    Dask,
    Data,
    Figures,
    Model,
    Net,
    NetName,
    Pictures,
    RunName,
    SparseMapping,
    Statistics,
    Training,
)
from convergent.nets.architectures import ARCHITECTURES, DEFAULT
from convergent.nets.shapes import Layer
from convergent.paper import PAPER_DECAYS
from convergent.running.sections import Section


class Config(Section):
    """Configuration of a run."""

    run: RunName
    """Name of the run; its results go to the folder `<results>/<run>`."""
    nets: dict[NetName, Net]
    """The nets by name, in order; every two of them make a pair. In an overlay, null leaves a
    net of config.yaml out."""
    layers: list[str] = []
    """Layers to compare; all if empty. Results are in the order of the net, regardless of the order
    here."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to train and record on; auto uses a GPU if there is one."""
    results: Annotated[str, StringConstraints(min_length=1)] = "results"
    """Folder for results of all runs, on any file system; relative to where Snakemake runs."""
    accept_changes: bool = False
    """Permission for a run to go on with other package versions, another kind of device or other
    images than it began with; its provenance.jsonl records the change. Set it once, on the command
    line."""
    data: Data
    """The images."""
    model: Model = ARCHITECTURES[DEFAULT].options()
    """The architecture."""
    training: Training = Training()
    """The recipe."""
    activations: Activations = Activations()
    """The activations."""
    statistics: Statistics = Statistics()
    """The reductions."""
    dask: Dask = Dask()
    """The reductions' tasks."""
    mapping: SparseMapping = SparseMapping()
    """The mapping layers."""
    clustering: Clustering = Clustering()
    """The spectral clusters."""
    units: Pictures = Pictures()
    """The pictures of units."""
    figures: Figures = Figures()
    """The figures."""

    @property
    def pairs(self) -> list[str]:
        """Names of all pairs of nets, in config order."""
        return [f"{a}-{b}" for a, b in itertools.combinations(self.nets, 2)]

    @property
    def pair(self) -> str:
        """Pair shown by a figure that is requested by its bare name."""
        return self.figures.pair or self.pairs[0]

    @property
    def known_layers(self) -> list[str] | None:
        """Layers of the nets, in order; None if the architecture does not declare them."""
        declared = ARCHITECTURES[self.model.name].layers
        return list(declared(self.model)) if declared else None

    @property
    def sgd_layers(self) -> list[str]:
        """Layers whose maps SGD fits too; none without a store."""
        asked = self.mapping.sgd.layers if self.activations.store else []
        return [layer for layer in self.layers if layer in asked]

    @property
    def folder(self) -> str:
        """Folder of the results."""
        return str(Path(self.results).expanduser() / self.run)

    @property
    def origin(self) -> dict[str, Any]:
        """All settings that determine the contents of the run's stores.

        The origin of a single store is a part of it: the seeds of the store's nets and the keys
        that its rule names.
        """
        sgd = self.mapping.sgd.model_dump(mode="json") | {"decays": self.sgd_decays}
        return {
            "nets": {name: net.seed for name, net in self.nets.items()},
            "layers": self.layers,
            "data": self.data.model_dump(mode="json"),
            "model": self.model.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json", exclude={"workers"}),
            "activations": self.activations.model_dump(
                mode="json", include={"dtype", "images", "positions"}
            ),
            "statistics": self.statistics.model_dump(mode="json"),
            "mapping": {
                "decays": self.mapping.decays,
                "penalty": self.mapping.penalty,
                "sgd": sgd,
            },
            "units": {"pictures": self.pictures},
        }

    @property
    def sgd_decays(self) -> list[float]:
        """Decays at which SGD fits maps: the paper's, as far as the run has them."""
        return [decay for decay in self.mapping.decays if decay in PAPER_DECAYS]

    @property
    def clusters(self) -> dict[str, int | Literal["auto"]]:
        """Number of spectral clusters of each layer, or auto."""
        k = self.clustering.k
        return {layer: k.get(layer, "auto") if isinstance(k, dict) else k for layer in self.layers}

    @property
    def pictures(self) -> dict[str, list[int] | None]:
        """Units of each layer that get pictures; None if all do."""
        chosen = self.units.pictures
        if not isinstance(chosen, dict):
            return dict.fromkeys(self.layers if chosen == "all" else [])
        named = {layer: chosen[layer] for layer in self.layers if layer in chosen}
        return {layer: None if units == "all" else units for layer, units in named.items()}

    @property
    def second_layer(self) -> str:
        """Layer of figS7, figS8 and figS12."""
        after = self.layers[self.layers.index(self.figures.layer) + 1 :]
        return self.figures.second_layer or [*after, self.figures.layer][0]

    @property
    def net_options(self) -> dict[str, Any]:
        """Options that decide the shapes of the nets' layers."""
        inputs = {"size": self.data.size, "inputs": len(self.data.mean)}
        return self.model.model_dump(mode="json") | inputs

    def recorded_positions(self, layer: Layer) -> int:
        """Count the positions of a layer that are recorded for each image."""
        return min(layer.positions, self.activations.positions or layer.positions)

    @field_validator("nets", mode="before")
    @classmethod
    def _drop_null(cls, nets: Any) -> Any:
        """Leave out the nets that an overlay sets to null."""
        if not isinstance(nets, Mapping):
            return nets
        return {name: net for name, net in nets.items() if net not in (None, "null")}

    @model_validator(mode="after")
    def _check(self) -> Config:
        """Bring layers into the order of the net, and check keys against one another."""
        known = self.known_layers
        if known is not None:
            order = {layer: number for number, layer in enumerate(known)}
            layers = sorted(self.layers, key=lambda layer: order.get(layer, len(order)))
            # Sections are frozen.
            object.__setattr__(self, "layers", layers or known)
        check_keys(self)
        return self


def load(values: Mapping[str, Any]) -> Config:
    """Read and check a configuration.

    Raises
    ------
    ConfigError
        If there are faults; the message has a line for each, with its key and what would be right.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines = [_explain(fault) for fault in error.errors()]
        raise ConfigError("the configuration is not valid:\n  " + "\n  ".join(lines)) from None


def _explain(fault: Mapping[str, Any]) -> str:
    """Describe a fault that Pydantic found in one line."""
    path = list(fault["loc"])
    options: Any = Model
    if path[:1] == ["model"] and len(path) > 1:
        # Where there are several architectures, Pydantic says whose keys it has read.
        name = path.pop(1) if len(ARCHITECTURES) > 1 else next(iter(ARCHITECTURES))
        options = ARCHITECTURES[name].options
    place = ".".join(map(str, path))
    if fault["type"] == "union_tag_invalid":
        return (
            f"{place}.name: should be {' or '.join(ARCHITECTURES)}, got {fault['input']['name']!r}"
        )
    if fault["type"] == "extra_forbidden":
        section: Any = Config
        for part in path[:-1]:
            section = Net if section is dict else section.model_fields[part].annotation
            section = {"nets": dict, "model": options}.get(part, section)
        return f"{place}: no such key; the keys here are {', '.join(section.model_fields)}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        # A check of a whole section says first which key it is about.
        separator = "." if message.split()[0].endswith(":") else ": "
        return f"{place}{separator}{message}" if place else message
    if path[-1:] == ["[key]"]:
        return f"{place.removesuffix('.[key]')}: not a valid name; {message}"
    got = "" if fault["type"] == "missing" else f", got {fault['input']!r}"
    return f"{place}: {message}{got}"
