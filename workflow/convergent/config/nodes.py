"""The nets of a run: what each of them is, by the keys of the run and its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter, ValidationError

from convergent.config.sections import Data, Model, Net, Place, Source, Training
from convergent.nets.architectures import ARCHITECTURES
from convergent.nets.sources import SourceError, digest_of_file, source_files
from convergent.running.files import digest
from convergent.running.sections import Section

if TYPE_CHECKING:
    from convergent.config.run import Config

# Keys of `data` that may differ between nets, which are compared on the same images.
OWN_DATA = ("size", "mean", "std", "train_transform", "validation_transform", "subset")
# Keys of nets with weights only, and of trained or untrained nets only.
ONLY_BROUGHT = ("state", "prefix")
ONLY_TRAINED = ("seed", "epochs", "training")

Kind = Literal["trained", "untrained", "snapshot", "brought"]
Role = Literal["subject", "control", "snapshot"]


@dataclass(frozen=True)
class Node:
    """A net of a run.

    Attributes
    ----------
    name : str
    kind : {"trained", "untrained", "snapshot", "brought"}
    role : {"subject", "control", "snapshot"}
    group : str or None
    seed : int or None
    model : Section
        Section ``model`` of this net.
    data : Data
    training : Training
    of : Node or None
        The net of whose training a snapshot is kept.
    epoch : float or None
        Epoch of the snapshot.
    own : Net
        The net's own keys.
    places : dict of str to dict
        Place and layout of each layer.
    """

    name: str
    kind: Kind
    role: Role
    group: str | None
    seed: int | None
    model: Section
    data: Data
    training: Training
    of: Node | None
    epoch: float | None
    own: Net
    places: dict[str, dict[str, Any]]

    @property
    def net(self) -> dict[str, Any]:
        """What determines the shapes of the net, for :func:`convergent.nets.models.load`."""
        return _net(self.model, self.data)

    @property
    def start(self) -> dict[str, Any] | None:
        """What determines the weights with which the net's training here began.

        None for nets that are not trained here, or not yet: a snapshot at epoch 0.
        """
        if self.kind == "trained" or (self.kind == "snapshot" and self.epoch):
            return {"seed": self.seed, **self.net}
        return None

    @property
    def source(self) -> str | None:
        """Name of the function that builds the net, if this library does not."""
        return self.model.name if isinstance(self.model, Source) else None

    @property
    def layers(self) -> list[str]:
        """Layers of the net, in order."""
        return list(self.places)

    @property
    def description(self) -> Any:
        """What determines the net's activations, beside the run's own sections.

        These are the net's own keys; of a net that has only a seed, the seed itself.
        """
        own = self.own.model_dump(
            mode="json",
            exclude_none=True,
            exclude_defaults=True,
            exclude={"group", "role", "weights"},
        )
        if training := own.pop("training", None):
            # Neither workers nor what is kept on the way affect the weights.
            kept = {k: v for k, v in training.items() if k not in ("workers", "snapshots")}
            own |= {"training": kept} if kept else {}
        if self.of is not None:
            own |= {"of": self.of.description, "epoch": self.epoch}
        return self.seed if list(own) == ["seed"] else own

    @property
    def code(self) -> str | None:
        """File of the function that builds the net, if it is the user's own."""
        path = (self.source or "").rpartition(":")[0]
        return path if path.endswith(".py") else None

    def contents(self) -> dict[str, str]:
        """Hash the contents of the net's own files: its weights, and its code with local imports.

        Raises
        ------
        SourceError
            If a file is missing or cannot be read.
        """
        found = {}
        with _about(f"nets.{self.name}.model"):
            if self.source and self.code:
                files = source_files(self.source)
                found["code"] = digest(*(digest_of_file(file) for file in files))
        with _about(f"nets.{self.name}.weights"):
            if self.own.weights is not None:
                found["weights"] = digest_of_file(self.own.weights)
        return found

    def form(self) -> dict[str, Any]:
        """Return what determines how the net is built: `net`, and a hash of the user's own code."""
        contents = self.contents() if self.code else {}
        return self.net | {key: contents[key] for key in ("code",) if key in contents}


@contextmanager
def _about(key: str) -> Iterator[None]:
    """Say which key an error about a net's own files is about."""
    try:
        yield
    except SourceError as error:
        raise SourceError(f"{key}: {error}") from None


def nodes(config: Config, default_layers: Callable[[dict[str, Any]], list[str]]) -> dict[str, Node]:
    """Work out what each net of a run is.

    Parameters
    ----------
    config : Config
    default_layers : callable
        Function from :attr:`Node.net` to the places of a net for which no layers are named.

    Raises
    ------
    ValueError
        If a net's keys do not fit together; the message begins with the path of the key.
    """
    found: dict[str, Node] = {}
    # Snapshots need the nets that they are of.
    for name in sorted(config.nets, key=lambda name: config.nets[name].of is not None):
        found[name] = _node(config, name, found, default_layers)
    return {name: found[name] for name in config.nets}


def _node(config: Config, name: str, found: Mapping[str, Node], default_layers: Callable) -> Node:
    own, key = config.nets[name], f"nets.{name}"
    kind: Kind = "trained"
    of, epoch, seed = None, None, own.seed
    if own.of is not None:
        kind, of = "snapshot", _original(config, name, found)
        refused = (*ONLY_BROUGHT, *ONLY_TRAINED, "classes", "model", "data", "weights")
        _refuse(key, own, refused, "a snapshot")
        model, data, training, seed = of.model, of.data, of.training, of.seed
        epoch = _kept(key, own.epoch, of)
    else:
        if own.epoch is not None:
            raise ValueError(f"{key}.epoch: only a snapshot has an epoch; name its net under of")
        model = _merged(f"{key}.model", Model, config.model, own.model)
        data = _merged(f"{key}.data", Data, config.data, own.data, OWN_DATA)
        training = _merged(f"{key}.training", Training, config.training, own.training)
        if own.epochs:
            training = training.model_copy(update={"epochs": own.epochs})
        if own.weights is not None:
            kind = "brought"
            _refuse(key, own, ONLY_TRAINED, "a net with weights")
        else:
            _refuse(key, own, ONLY_BROUGHT, "a net without weights")
            kind = "untrained" if own.epochs == 0 else "trained"
            if kind == "untrained":
                _refuse(key, own, ("training",), "an untrained net (epochs: 0)")
                if "subset" in (own.data or {}):
                    raise ValueError(f"{key}.data.subset: an untrained net has no such key")
            if own.epochs and "epochs" in (own.training or {}):
                raise ValueError(f"{key}: epochs and training.epochs say the same; leave one out")
            if kind == "trained":
                _refuse(key, own, ("classes",), "a net that is trained on the run's classes")
            if seed is None:
                raise ValueError(
                    f"{key}.seed: missing; a net needs a seed (to be trained, or left untrained "
                    "with epochs: 0), weights (a file), or of and epoch (a snapshot)"
                )
            if kind == "trained":
                try:
                    data.check_training()
                except ValueError as error:
                    where = f"{key}.data" if own.data else "data"
                    raise ValueError(f"{where}.{error}") from None
    places = _places(config, key, own, model, of)
    if not places:
        places = {layer: {"place": layer} for layer in default_layers(_net(model, data))}
    roles: dict[Kind, Role] = {"untrained": "control", "snapshot": "snapshot"}
    return Node(
        name=name,
        kind=kind,
        role=own.role or roles.get(kind, "subject"),
        group=own.group,
        seed=seed,
        model=model,
        data=data,
        training=training,
        of=of,
        epoch=epoch,
        own=own,
        places=places,
    )


def _refuse(key: str, own: Net, names: tuple[str, ...], what: str) -> None:
    for name in names:
        if getattr(own, name) is not None:
            raise ValueError(f"{key}.{name}: {what} has no such key")


def _original(config: Config, name: str, found: Mapping[str, Node]) -> Node:
    """Return the net of whose training a net is a snapshot."""
    key, of = f"nets.{name}.of", config.nets[name].of
    trained = [other for other, node in found.items() if node.kind == "trained"]
    if of not in trained:
        what = "is not trained here" if of in config.nets else "is none of the nets"
        raise ValueError(f"{key}: {of!r} {what}; those trained here are {', '.join(trained)}")
    return found[of]


def _kept(key: str, epoch: float | None, of: Node) -> float:
    """Return the epoch of a snapshot; it must be one that training keeps."""
    kept = of.training.kept
    if epoch is None or epoch not in kept:
        fault = "missing" if epoch is None else f"{epoch:g} is not kept"
        raise ValueError(
            f"{key}.epoch: {fault}; the epochs of {of.name} that training.snapshots keeps are "
            f"{', '.join(f'{each:g}' for each in kept) or 'none'} (it is trained for "
            f"{of.training.epochs})"
        )
    return epoch


def _net(model: Section, data: Data) -> dict[str, Any]:
    return {
        "model": model.model_dump(mode="json"),
        "size": data.size,
        "inputs": len(data.mean),
    }


def _merged(
    key: str, section: Any, run: Section, own: Any, allowed: tuple[str, ...] | None = None
) -> Any:
    """Merge a net's own keys of a section into those of the run, and check them."""
    from convergent.config.run import explain

    if own is None:
        return run
    if isinstance(own, str):
        own = {"name": own}
    for name in own:
        if allowed is not None and name not in allowed:
            raise ValueError(
                f"{key}.{name}: not a key of a single net, as all nets are compared on the same "
                f"images; a net may have {', '.join(allowed)}"
            )
    general = run.model_dump()
    # Another architecture takes nothing of the run's.
    values = own if own.get("name", general.get("name")) != general.get("name") else general | own
    try:
        return TypeAdapter(section).validate_python(values)
    except ValidationError as error:
        path = key.split(".")
        lines = [explain({**fault, "loc": (*path, *fault["loc"])}) for fault in error.errors()]
        raise ValueError("\n  ".join(lines)) from None


def _places(
    config: Config, key: str, own: Net, model: Any, of: Node | None
) -> dict[str, dict[str, Any]]:
    """Put together the layers of the run and those of a net; empty if neither names any."""
    general, special = config.layers, own.layers
    if special is None and of is not None:
        return of.places
    # A list names layers of the run's own architecture; the names of a mapping are common to all.
    if special and not isinstance(general, Mapping):
        general = {}
    named = {**_as_mapping(general), **_as_mapping(special or {})}
    if named and set(named.values()) == {None}:
        raise ValueError(f"{key}.layers: all layers are null; leave one to compare")
    declared = declared_layers(model)
    found = {}
    for layer, place in named.items():
        if place is None:
            continue
        options = {"place": place}
        if isinstance(place, Place):
            options = place.model_dump(mode="json", exclude_defaults=True)
        if declared and options["place"] == layer and layer not in declared and "." not in layer:
            origin = f"{key}.layers" if layer in (special or {}) else "layers"
            raise ValueError(
                f"{origin}: {model.name} has no layer {layer!r}; it has {', '.join(declared)}"
            )
        found[layer] = options
    if declared and all(options["place"] in declared for options in found.values()):
        order = {layer: number for number, layer in enumerate(declared)}
        found = dict(sorted(found.items(), key=lambda item: order[item[1]["place"]]))
    return found or {layer: {"place": layer} for layer in declared}


def _as_mapping(layers: Any) -> dict[str, Any]:
    return dict(layers) if isinstance(layers, Mapping) else {layer: layer for layer in layers}


def declared_layers(model: Any) -> list[str]:
    """Return the layers that an architecture of this library declares."""
    architecture = ARCHITECTURES.get(model.name)
    return list(architecture.layers(model)) if architecture and architecture.layers else []
