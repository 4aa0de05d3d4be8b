"""A whole run: its sections and what follows from them."""

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
    """A whole run."""

    run: RunName
    """Name of the run; its results go to `results`/<run>/."""
    nets: dict[NetName, Net]
    """The nets by name, in order; every two of them make a pair. In an overlay, null leaves a
    net of config.yaml out."""
    layers: list[str] = []
    """Layers to compare, all if empty. Results have them in the net's order, however they are
    listed."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to train and record on; auto takes a GPU where there is one."""
    results: Annotated[str, StringConstraints(min_length=1)] = "results"
    """Folder of all runs' results, on any file system; relative to where Snakemake runs."""
    accept_changes: bool = False
    """Whether a run may go on with other package versions, another kind of device or other images
    than it began with; its provenance.jsonl then says so. Give it once, on the command line."""
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
        """The pair that bare figure names draw."""
        return self.figures.pair or self.pairs[0]

    @property
    def known_layers(self) -> list[str] | None:
        """Layers that the nets have, in order; None where the architecture declares none."""
        declared = ARCHITECTURES[self.model.name].layers
        return list(declared(self.model)) if declared else None

    @property
    def sgd_layers(self) -> list[str]:
        """Layers whose maps are fitted by SGD too: none without a store."""
        asked = self.mapping.sgd.layers if self.activations.store else []
        return [layer for layer in self.layers if layer in asked]

    @property
    def folder(self) -> str:
        """Where the results go."""
        return str(Path(self.results).expanduser() / self.run)

    @property
    def origin(self) -> dict[str, Any]:
        """All settings that decide what any store of the run holds.

        The origin of a store is a part of it: the seeds of its nets and the keys that its rule
        names.
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
        """Decays that maps are fitted at by SGD: the paper's, of those asked for."""
        return [decay for decay in self.mapping.decays if decay in PAPER_DECAYS]

    @property
    def clusters(self) -> dict[str, int | str]:
        """Number of spectral clusters of each layer, or auto."""
        k = self.clustering.k
        return {layer: k.get(layer, "auto") if isinstance(k, dict) else k for layer in self.layers}

    @property
    def pictures(self) -> dict[str, list[int] | None]:
        """Units of each layer that get pictures, None where all do."""
        chosen = self.units.pictures
        if not isinstance(chosen, dict):
            chosen = dict.fromkeys(self.layers if chosen == "all" else [], "all")
        return {
            layer: None if chosen[layer] == "all" else chosen[layer]
            for layer in self.layers
            if layer in chosen
        }

    @property
    def second_layer(self) -> str:
        """The layer that figS7 and figS8 show."""
        after = self.layers[self.layers.index(self.figures.layer) + 1 :]
        return self.figures.second_layer or [*after, self.figures.layer][0]

    @property
    def net_options(self) -> dict[str, Any]:
        """Options that decide the shapes of the nets' layers."""
        inputs = {"size": self.data.size, "inputs": len(self.data.mean)}
        return self.model.model_dump(mode="json") | inputs

    def recorded_positions(self, layer: Layer) -> int:
        """Number of positions of a layer that are recorded of each image."""
        return min(layer.positions, self.activations.positions or layer.positions)

    @field_validator("nets", mode="before")
    @classmethod
    def _drops_null(cls, nets: Any) -> Any:
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
            # Sections are frozen for others.
            object.__setattr__(self, "layers", layers or known)
        check_keys(self)
        return self


def load(values: Mapping[str, Any]) -> Config:
    """Read and check a configuration.

    Raises
    ------
    ConfigError
        One line per fault, each with the path of its key and what would be right.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines = [_explain(fault) for fault in error.errors()]
        raise ConfigError("the configuration is not valid:\n  " + "\n  ".join(lines)) from None


def _explain(fault: Mapping[str, Any]) -> str:
    """Put one of Pydantic's faults into one line."""
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
        return f"{place}: no such key; there are {', '.join(section.model_fields)}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        # A check of a whole section says first which key it is about.
        separator = "." if message.split()[0].endswith(":") else ": "
        return f"{place}{separator}{message}" if place else message
    if path[-1:] == ["[key]"]:
        return f"{place.removesuffix('.[key]')}: not a name; {message}"
    got = "" if fault["type"] == "missing" else f", got {fault['input']!r}"
    return f"{place}: {message}{got}"
