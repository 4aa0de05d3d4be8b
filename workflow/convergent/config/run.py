"""The configuration of a run, and values derived from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from convergent.config.checks import ConfigError, check_keys
from convergent.config.nodes import Node, declared_layers, nodes
from convergent.config.pairs import select_pairs
from convergent.config.sections import (
    LAYER_FORMS,
    SOURCE,
    Activations,
    Clustering,
    Dask,
    Data,
    Dynamics,
    Ensembles,
    Figures,
    Layers,
    Merging,
    Model,
    Net,
    NetName,
    Nulls,
    Pictures,
    Place,
    Pruning,
    Release,
    RunName,
    Source,
    SparseMapping,
    Statistics,
    Subset,
    Training,
    Verify,
)
from convergent.config.sweeps import Sweep, expand, in_words_of_sweep
from convergent.nets.architectures import ARCHITECTURES, DEFAULT
from convergent.nets.shapes import Layer
from convergent.paper import PAPER_DECAYS
from convergent.running.sections import Section


def _check_layer_pairs(value: Any) -> Any:
    listed = isinstance(value, list | tuple) and all(
        isinstance(pair, list | tuple) and len(pair) == 2 for pair in value
    )
    if value in ("same", "all") or (listed and value):
        return value
    raise ValueError(f"should be same, all, or pairs such as [[conv3, conv4]], got {value!r}")


class Config(Section):
    """Configuration of a run."""

    run: RunName
    """Name of the run; its results go to the folder `<results>/<run>`."""
    nets: dict[NetName, Net] = {}
    """The nets by name, in order; every two of them make a pair. In an overlay, null leaves a
    net of config.yaml out. Two or more nets of an overlay stand in place of config.yaml's if all
    have other names than those, or all have weights; so does a `sweep`. A single new net joins
    them, and so do new nets beside the name of any that config.yaml has, such as
    {net1: {}, mine: {seed: 5}}."""
    # A dump has its nets written out, so that it can be read again.
    sweep: Annotated[Sweep | None, Field(exclude=True)] = None
    """Groups of nets that differ in some keys, beside `nets`; in an overlay, in place of those of
    config.yaml that the overlay does not name."""
    layers: Layers = []
    """Layers to compare, by their places in the nets; or names of layers, each with its place,
    where nets have other names for what is compared (a net's own `layers` say where its places
    differ).
    If empty, all that the architecture declares, or the ends of the net's stages or blocks."""
    layer_pairs: Annotated[
        Literal["same", "all"] | list[tuple[str, str]], BeforeValidator(_check_layer_pairs)
    ] = "same"
    """Pairs of layers whose similarity is tabulated: layers of the same name, all of the first net
    with all of the second, or a list of pairs, such as [[conv3, conv4]]."""
    unequal_maps: Literal["pool", "mean"] = "pool"
    """How layers of different sizes are compared for `layer_pairs`: maps pooled to the smaller size
    (adaptive average pooling), or the mean of each map. Layers of the same name need equal maps;
    see `grid` of a place."""
    pairs: str | list[str] = "all"
    """Pairs of nets to compare: all (every two subjects), within or between (every two subjects of
    the same group, or of different groups), names such as net1-net2, patterns such as net*-wide, or
    a list of these. Any other pair can be asked for by its files."""
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
    nulls: Nulls = Nulls()
    """Similarity by chance."""
    dask: Dask = Dask()
    """The reductions' tasks."""
    mapping: SparseMapping = SparseMapping()
    """The mapping layers."""
    clustering: Clustering = Clustering()
    """The spectral clusters."""
    merging: Merging = Merging()
    """The nets between nets."""
    pruning: Pruning = Pruning()
    """The removal of units."""
    ensembles: Ensembles = Ensembles()
    """Ensembles of nets."""
    dynamics: Dynamics = Dynamics()
    """Nets along their training."""
    units: Pictures = Pictures()
    """The pictures of units."""
    figures: Figures = Figures()
    """The figures."""
    release: Release = Release()
    """The run as others get it."""
    verify: Verify = Verify()
    """Comparison with a published run."""

    _nodes: dict[str, Node] = PrivateAttr()

    @property
    def nodes(self) -> dict[str, Node]:
        """What each net is."""
        return self._nodes

    @property
    def trains(self) -> bool:
        """Whether any net is trained."""
        return any(node.kind == "trained" for node in self._nodes.values())

    @property
    def compared(self) -> dict[str, tuple[str, str]]:
        """The two nets of each pair that the run compares, in config order."""
        return select_pairs(self._nodes, self.pairs)

    @property
    def controlled(self) -> dict[str, tuple[str, str]]:
        """The two nets of each pair that is compared with its untrained nets, too.

        Both nets are trained here, and from different weights.
        """
        if not self.nulls.untrained:
            return {}
        starts = {
            pair: [self._nodes[net].start for net in of] for pair, of in self.compared.items()
        }
        return {
            pair: of
            for pair, of in self.compared.items()
            if None not in starts[pair] and starts[pair][0] != starts[pair][1]
        }

    @property
    def pair(self) -> str:
        """Pair shown by a figure that is requested by its bare name."""
        return self.figures.pair or next(iter(self.compared))

    @property
    def subjects(self) -> list[str]:
        """Nets that averages over nets refer to."""
        return [name for name, node in self._nodes.items() if node.role == "subject"]

    @property
    def pairs_of_subjects(self) -> list[str]:
        """Pairs that averages over pairs mean: those of two subjects, or all if there are none."""
        subjects, pairs = {*self.subjects}, self.compared
        return [pair for pair, of in pairs.items() if subjects.issuperset(of)] or list(pairs)

    @property
    def nets_compared(self) -> list[str]:
        """Subjects, and the nets of all pairs that are compared or shown."""
        shown = {*self.subjects, *self.pair.split("-")}.union(*self.compared.values())
        return [name for name in self._nodes if name in shown]

    @property
    def groups(self) -> dict[str, str]:
        """Groups of the nets that have one."""
        return {name: node.group for name, node in self._nodes.items() if node.group}

    @property
    def bounded(self) -> bool:
        """Whether the similarity of the subjects has ceilings; two nets bound nothing."""
        return self.activations.store and len(self.subjects) > 2 and not self.groups

    @property
    def merges(self) -> bool:
        """Whether the whole run merges the pair of the figures."""
        a, b = (self._nodes[name] for name in self.pair.split("-"))
        seen = [(node.data.views, node.data.mean, node.data.std) for node in (a, b)]
        same = a.model == b.model and seen[0] == seen[1]
        # Nets of others, and untrained ones, may have other outputs than there are classes.
        trained = all(node.kind in ("trained", "snapshot") for node in (a, b))
        return self.merging.automatic and same and trained

    def followed(self) -> tuple[list[str], list[float]]:
        """List the nets that are followed along their training, and the epochs, up to the last.

        Raises
        ------
        ValueError
            If they are not trained alike here, or no moment of their training is kept; the message
            begins with the path of the key.
        """
        names = self.dynamics.nets or self.pair.split("-")
        key = "dynamics.nets" if self.dynamics.nets else "dynamics"
        unknown = [name for name in names if name not in self._nodes]
        if unknown or len(set(names)) < max(2, len(names)):
            what = f"{unknown[0]!r} is none of the nets" if unknown else f"got {', '.join(names)}"
            raise ValueError(f"{key}: {what}; name two or more of {', '.join(self._nodes)}")
        found = [self._nodes[name] for name in names]
        for node in found:
            if node.kind != "trained":
                raise ValueError(
                    f"{key}: {node.name} is {node.kind}; only nets that are trained here can be "
                    "followed: name some under dynamics.nets"
                )
        lengths = {node.training.epochs for node in found}
        if len(lengths) > 1:
            told = ", ".join(f"{node.name} for {node.training.epochs}" for node in found)
            raise ValueError(f"{key}: nets are trained for equally many epochs, not {told}")
        (last,) = lengths
        kept = set.intersection(*({*node.training.kept} for node in found)) - {last}
        if not kept:
            raise ValueError(
                f"{key}: training.snapshots keeps no moment before the end of the training of "
                f"{' and '.join(names)}; name some, such as [0, 0.1, 0.3, 1, 3]"
            )
        return names, [*sorted(kept), last]

    @property
    def probes(self) -> dict[str, dict[str, Any]]:
        """The probes by name, one for each strength, for :func:`convergent.nets.probes.probed`."""
        found: dict[str, dict[str, Any]] = {}
        for name, probe in self.data.probes.items():
            common = {"classes": probe.classes, "seed": probe.seed}
            for change, strengths in probe.changes.items():
                for strength in strengths:
                    told = name if len(strengths) == 1 else f"{name}_{strength:g}"
                    found[told] = {"change": change, "strength": strength, **common}
            if not probe.changes:
                found[name] = common
        return found

    @property
    def layer_names(self) -> list[str]:
        """Layers of all nets, in order."""
        return list(dict.fromkeys(layer for node in self._nodes.values() for layer in node.places))

    def layers_of(self, *nets: str) -> list[str]:
        """List the layers that all of these nets have, in the order of the first."""
        first, *others = (self._nodes[net].places for net in nets)
        return [layer for layer in first if all(layer in places for places in others)]

    def layers_of_pair(self, pair: str) -> list[str]:
        """List the layers that both nets of a pair have."""
        return self.layers_of(*pair.split("-"))

    def layer_of(self, *nets: str) -> str:
        """Return the layer that figures of one layer show for these nets."""
        layers = self.layers_of(*nets)
        return self.figures.layer if self.figures.layer in layers else layers[0]

    def second_layer_of(self, *nets: str) -> str:
        """Return the layer of figS7, figS8 and figS12 for these nets."""
        layers = self.layers_of(*nets)
        after = layers[layers.index(self.layer_of(*nets)) + 1 :]
        second = self.figures.second_layer
        return second if second in layers else [*after, layers[0]][0]

    @property
    def sgd_layers(self) -> list[str]:
        """Layers whose maps SGD fits too; none without a store."""
        asked = self.mapping.sgd.layers if self.activations.store else []
        return [layer for layer in self.layers_of_pair(self.pair) if layer in asked]

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
            "nets": {name: node.description for name, node in self._nodes.items()},
            "layers": self.model_dump(mode="json")["layers"] or self.layer_names,
            "data": self.data.model_dump(mode="json"),
            "model": self.model.model_dump(mode="json"),
            # Neither workers nor what is kept on the way affect the weights.
            "training": self.training.model_dump(mode="json", exclude={"workers", "snapshots"}),
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
        names = self.layer_names
        return {layer: k.get(layer, "auto") if isinstance(k, dict) else k for layer in names}

    @property
    def pictures(self) -> dict[str, list[int] | None]:
        """Units of each layer that get pictures; None if all do."""
        chosen = self.units.pictures
        if not isinstance(chosen, dict):
            return dict.fromkeys(self.layer_names if chosen == "all" else [])
        named = {layer: chosen[layer] for layer in self.layer_names if layer in chosen}
        return {layer: None if units == "all" else units for layer, units in named.items()}

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
    def _check(self, info: ValidationInfo) -> Config:
        """Work out what each net is, and check keys against one another.

        Layers of the architecture are brought into its order. An empty list stays empty, since
        nets of other architectures have other layers.
        """
        known = declared_layers(self.model)
        # Sections are frozen.
        if known and isinstance(self.layers, list) and set(self.layers) <= set(known):
            object.__setattr__(self, "layers", sorted(self.layers, key=known.index))
        object.__setattr__(self, "nets", {**self.nets, **expand(self)})
        default_layers = (info.context or {}).get("default_layers")
        try:
            self._nodes = nodes(self, default_layers or _no_layers)
            if not self.layers and all(node.layers == known for node in self._nodes.values()):
                object.__setattr__(self, "layers", known)
            check_keys(self)
        except ValueError as error:
            raise ValueError(in_words_of_sweep(self, str(error))) from None
        return self


def _no_layers(net: Mapping[str, Any]) -> list[str]:
    raise ValueError(f"layers: missing; name the places of {net['model']['name']} to compare")


def load(
    values: Mapping[str, Any], default_layers: Callable[[dict[str, Any]], list[str]] | None = None
) -> Config:
    """Read and check a configuration.

    Parameters
    ----------
    values : mapping
    default_layers : callable, optional
        Function from :attr:`convergent.config.nodes.Node.net` to the places of a net for which no
        layers are named.

    Raises
    ------
    ConfigError
        If there are faults; the message has a line for each, with its key and what would be right.
    """
    try:
        return Config.model_validate(values, context={"default_layers": default_layers})
    except ValidationError as error:
        lines = [explain(fault) for fault in error.errors()]
        raise ConfigError("the configuration is not valid:\n  " + "\n  ".join(lines)) from None


def explain(fault: Mapping[str, Any]) -> str:
    """Describe a fault that Pydantic found, in one line that begins with the path of the key."""
    path = [part for part in fault["loc"] if part not in LAYER_FORMS]
    options: Any = Model
    if "model" in path[:-1]:
        # Pydantic says after "model" whose keys it has read.
        tag = path.pop(path.index("model") + 1)
        options = Source if tag == SOURCE else ARCHITECTURES[tag].options
    place = ".".join(map(str, path))
    if fault["type"] == "union_tag_invalid":
        return (
            f"{place}.name: should be {', '.join(ARCHITECTURES)}, path.py:function, "
            f"torchvision:name or timm:name, got {fault['input']['name']!r}"
        )
    if fault["type"] == "extra_forbidden":
        section: Any = Config
        sections = {"model": options, "data": Data, "training": Training, "layers": Place}
        sections |= {"subset": Subset, "sweep": Sweep}
        inner = path[:-1]
        for groups in (["nets"], ["sweep", "groups"]):
            if inner[: len(groups)] == groups:
                section, inner = Net, inner[len(groups) + 1 :]
        for part in inner:
            fields = section.model_fields
            section = sections.get(part) or (fields[part].annotation if part in fields else section)
        return f"{place}: no such key; the keys here are {', '.join(section.model_fields)}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        # A check of a whole section says first which key it is about.
        separator = "." if message.split()[0].endswith(":") else ": "
        return f"{place}{separator}{message}" if place else message
    if path[-1:] == ["[key]"]:
        return f"{place.removesuffix('.[key]')}: not a valid name; {message}"
    if fault["type"] in ("dict_type", "model_type", "model_attributes_type"):
        message = (
            "should be keys with values, such as {seed: 1}"
            if not path[2:]
            else ("should be keys with values")
        )
    got = "" if fault["type"] == "missing" else f", got {fault['input']!r}"
    return f"{place}: {message}{got}"
