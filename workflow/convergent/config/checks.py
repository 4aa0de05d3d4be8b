"""Checks of a configuration: between keys, on the disk, and against the shapes of the nets."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from convergent import ConvergentError
from convergent.config.nodes import declared_layers
from convergent.config.sweeps import in_words_of_sweep
from convergent.nets.folders import compared_folder, validation_folder
from convergent.paper import BINS

if TYPE_CHECKING:
    from convergent.config.run import Config
    from convergent.config.sections import Data
    from convergent.nets.shapes import Layer


class ConfigError(ConvergentError, ValueError):
    """Faults of a configuration, with a line for each key."""


def check_keys(config: Config) -> None:
    """Check that the keys of a configuration agree.

    Raises
    ------
    ValueError
        If keys disagree; the message names the first.
    """
    _check_nets(config)
    _check_layers(config)
    if config.dynamics.nets:
        config.followed()
    pair = config.figures.pair
    every = [f"{a}-{b}" for a, b in itertools.combinations(config.nodes, 2)]
    if pair is not None and pair not in every:
        raise ValueError(f"figures.pair: {pair!r} is none of {', '.join(every[:20])}")
    if config.layer_pairs != "same" and not config.activations.store:
        raise ValueError(
            "layer_pairs: other pairs than those of the same name are compared from activation "
            "stores; set activations.store: true, or layer_pairs: same"
        )
    blocks, images = config.statistics.blocks, config.activations.images
    if (images or blocks) < blocks:
        raise ValueError(
            f"statistics.blocks: {blocks} blocks need at least as many images, "
            f"but activations.images is {images}"
        )


def _check_nets(config: Config) -> None:
    if len(config.nodes) < 2:
        raise ValueError(f"nets: at least two are needed to compare, got {len(config.nodes)}")
    owners: dict[str, str] = {}
    for name, node in config.nodes.items():
        own = (node.seed, node.own.weights, node.model, node.data, node.epoch, node.own.classes)
        trained = node.training if node.kind in ("trained", "snapshot") else node.kind
        identity = repr((*own, trained, node.own.state, node.own.prefix, node.places))
        other = owners.setdefault(identity, name)
        if other == name:
            continue
        if node.kind in ("trained", "untrained"):
            raise ValueError(
                f"nets.{name}.seed: {node.seed} is already the seed of {other}; give each net its "
                "own, or another recipe"
            )
        raise ValueError(f"nets.{name}: the same net as {other}; leave one of them out")


def _check_layers(config: Config) -> None:
    """Check all keys that name layers."""
    names = config.layer_names
    given = config.layers if isinstance(config.layers, list) else []
    if len(set(given)) < len(given):
        raise ValueError("layers: name each layer once")
    for pair, (a, b) in config.compared.items():
        if not config.layers_of(a, b):
            raise ValueError(
                f"layers: {pair} have no layer in common ({a} has {_few(config.layers_of(a))}; {b} "
                f"{_few(config.layers_of(b))}); give what is compared one name in both, such as "
                f"nets.{b}.layers: {{{config.layers_of(a)[-1]}: {config.layers_of(b)[-1]}}}"
            )
    figures = config.figures
    asked = {
        "figures.layer": [figures.layer] if figures.layer else [],
        "figures.second_layer": [figures.second_layer] if figures.second_layer else [],
        "mapping.sgd.layers": config.mapping.sgd.layers,
    }
    # These may also name layers of the architecture that this run does not compare. (The default of
    # clustering.k holds the paper's numbers even for nets of other architectures.)
    known = declared_layers(config.model)
    for key, chosen, default in (
        ("units.pictures", config.units.pictures, None),
        ("clustering.k", config.clustering.k, type(config.clustering)().k),
    ):
        if isinstance(chosen, dict) and chosen != default:
            asked[key] = [layer for layer in chosen if layer not in known]
    if isinstance(config.layer_pairs, list):
        asked["layer_pairs"] = [layer for pair in config.layer_pairs for layer in pair]
    for key, layers in asked.items():
        for layer in layers:
            if layer not in names:
                raise ValueError(f"{key}: {layer!r} is not among layers ({_few(names)})")


def _few(names: list[str]) -> str:
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")


def check_shapes(config: Config, net: str, shapes: Mapping[str, Mapping[str, Layer]]) -> None:
    """Check the keys that depend on the shapes of a net's layers.

    Parameters
    ----------
    config : Config
    net : str
        Name of the net.
    shapes : mapping of net to mapping of str to Layer
        Layers from :func:`convergent.nets.shapes.read_shapes` of this net, and of the others as far
        as they are known.

    Raises
    ------
    ConfigError
        If a key does not fit; the message names it and the layer, and says what would be right.
    """
    layers = shapes[net]
    most, count = config.activations.images, count_validation(config)
    recorded = min(most or count, count)
    for name in config.layers_of(net):
        layer = layers[name]
        last = max(config.pictures.get(name) or [0])
        if last >= layer.units and all(name in own for own in shapes.values()):
            raise ConfigError(
                f"units.pictures.{name}: there is no unit {last}; the {layer.units} units of {net} "
                "count from 0"
            )
        samples = recorded * config.recorded_positions(layer)
        if samples < BINS:
            raise ConfigError(
                f"{'activations.images' if most else 'data'}: {recorded} validation images give "
                f"{samples} samples of {name}, fewer than the {BINS} bins of mutual information"
            )
    for a, b in config.compared.values():
        if net in (a, b) and a in shapes and b in shapes:
            for name in config.layers_of(a, b):
                _check_maps(name, {a: shapes[a][name], b: shapes[b][name]})
                _check_units(config, name, shapes[a][name].units + shapes[b][name].units)


def _check_maps(name: str, layers: Mapping[str, Layer]) -> None:
    """Check that positions of two nets' layers can be aligned."""
    (a, first), (b, second) = layers.items()
    if (first.positions, first.height) == (second.positions, second.height):
        return
    forms = [f"{each.axes} ({each.positions} positions)" for each in (first, second)]
    sizes = [(each.height, each.width) for each in (first, second)]
    remedy = "grid: mean, the mean over positions, for both"
    if all(height is not None for height, _ in sizes):
        smaller = [min(side) for side in zip(*sizes, strict=True)]
        remedy = f"grid: {smaller} for both (average pooling to the smaller map), or grid: mean"
    elif "token" in first.axes + second.axes:
        remedy += ", or skip_tokens and map for the tokens"
    raise ConfigError(
        f"layers.{name}: positions of {a} and {b} do not correspond: {forms[0]} and {forms[1]}"
        f"{'' if None in sizes[0] + sizes[1] else f', maps of {sizes[0]} and {sizes[1]}'}; "
        f"write the layer as {{place: ..., grid: ...}}, with {remedy}"
    )


def _check_units(config: Config, layer: str, units: int) -> None:
    """Check the keys that concern the units of a layer of both nets."""
    k, most = config.clusters[layer], config.clustering.alpha * units
    if k != "auto" and k > units:
        raise ConfigError(
            f"clustering.k: {k} clusters requested for {layer}, but both nets together have "
            f"only {units} units"
        )
    if most < 1:
        raise ConfigError(
            f"clustering.alpha: clusters of at most {most:.2g} units of {layer} would be "
            f"empty; use at least {1 / units:.2g}"
        )


def check_data(config: Config, trains: bool = True) -> None:
    """Check, without reading images, that the data exist and are enough for the run.

    Parameters
    ----------
    config : Config
    trains : bool
        True if the run trains nets.

    Raises
    ------
    ConfigError
        If not; the message names the key, what is missing and what would be right.
    """
    data, blocks, images = config.data, config.statistics.blocks, config.activations.images or 0
    if trains and not data.labels:
        raise ConfigError("data.labels: nets cannot be trained on images without labels")
    if data.is_folder:
        root = Path(data.place)
        if not root.is_dir():
            raise ConfigError(f"data.root: there is no folder {root}")
        for folder in _splits(data, trains):
            if not folder.is_dir():
                raise ConfigError(
                    f"data.root: {folder} is missing; expected class folders under "
                    f"{f'{root}/train and ' if trains else ''}{root}/val (or test)"
                    f"{'' if trains else ', or images without classes and data.labels: false'}"
                )
    count = count_validation(config)
    if count < blocks:
        raise ConfigError(
            f"statistics.blocks: {blocks} blocks need at least as many validation images, but "
            f"{data.name} has {count}; use fewer blocks"
        )
    if count < images:
        raise ConfigError(f"activations.images: {images} requested, but {data.name} has {count}")
    _check_classes(config)


def _check_classes(config: Config) -> None:
    """Check the keys of the nets that name classes of the images."""
    asked = {
        name: node.data.subset.classes
        for name, node in config.nodes.items()
        if node.kind == "trained" and node.data.subset and node.data.subset.classes
    }
    own = {name: node.own.classes for name, node in config.nodes.items() if node.own.classes}
    names = _class_names(config.data) if asked or own else []
    labels = [str(label) for label in range(len(names))]
    for name, chosen in asked.items():
        # As in training: by their names, or else by their labels.
        given = [str(value) for value in chosen]
        if names and not set(given) <= set(names) and not set(given) <= set(labels):
            key = "data.subset"
            if "subset" in (config.nets[name].data or {}):
                key = in_words_of_sweep(config, f"nets.{name}.{key}")
            wrong = next(value for value in given if value not in names)
            raise ConfigError(
                f"{key}.classes: no class {wrong!r}; the classes are {_few(names)} (or "
                f"labels from 0 to {len(names) - 1})"
            )
    for name, mapped in own.items():
        if names and max(mapped) >= len(names):
            raise ConfigError(
                f"nets.{name}.classes: {max(mapped)} is no label of the images; labels are 0 to "
                f"{len(names) - 1}, and -1 means none"
            )


def _class_names(data: Data) -> list[str]:
    """Return the names of the classes by label, as far as they are known without the images."""
    if not data.labels or data.name == "cifar10":
        return []
    if data.is_packaged:
        return [str(digit) for digit in range(10)]
    if data.is_folder:
        root = Path(data.place)
        folder = root / "train" if (root / "train").is_dir() else validation_folder(root)
        return sorted(e.name for e in os.scandir(folder) if e.is_dir() and e.name[0] != ".")
    import numpy as np

    with np.load(data.place, allow_pickle=False) as file:
        return [str(label) for label in np.unique(file["labels"])]


def count_validation(config: Config) -> int:
    """Count validation images; stop in folders when there are enough for the run."""
    data = config.data
    if not data.is_folder:
        return count_images(data)[1]
    (*_, folder) = _splits(data, trains=False)
    folders = [entry for entry in os.scandir(folder) if entry.is_dir()] if data.labels else [folder]
    files = (file for entry in folders for file in os.scandir(entry))
    enough = max(config.statistics.blocks, config.activations.images or 0, BINS)
    return sum(1 for _ in itertools.islice(files, enough))


def count_images(data: Data, trains: bool = True) -> tuple[int, int]:
    """Count training and validation images, without reading any.

    Numbers for folders are estimates: classes times the images of the fullest of the first few, so
    that a million files need not be listed.

    Parameters
    ----------
    data : Data
    trains : bool
        True if nets are trained. Otherwise there are no training images.

    Raises
    ------
    ConfigError
        If the file of arrays cannot be read.
    """
    trains = trains and data.labels
    if data.is_folder:
        counts = [_about(folder, data.labels) for folder in _splits(data, trains)]
        return (counts[0] if trains else 0), counts[-1]
    if data.name == "cifar10":
        return 50_000 * trains, 10_000
    total, mask = {"digits": 1797, "mnist": 5000}.get(data.name, 0), None
    if data.name == "arrays":
        import numpy as np

        if not Path(data.place).is_file():
            raise ConfigError(f"data.root: there is no file {data.place}")
        try:
            with np.load(data.place, allow_pickle=False) as file:
                total = len(file["labels"]) if data.labels else _length(data.place, "images")
                mask = file.get("validation")
                mask = None if mask is None else mask.astype(bool)
        # A damaged archive, or an array of another kind, may raise anything.
        except Exception as error:
            raise ConfigError(
                f"data.root: {data.place} is not an .npz file with images and labels ({error}); if "
                "the images have no labels, set data.labels: false"
                if data.labels
                else f"data.root: {data.place} is not an .npz file with images ({error})"
            ) from error
    validation = total
    if mask is not None:
        validation = int(mask.sum())
    elif data.labels:
        validation = math.ceil(total * data.validation_fraction)
    return (total - validation if trains else 0), validation


def _splits(data: Data, trains: bool) -> list[Path]:
    """Return the folders of training images, if nets are trained, and of validation images."""
    root = Path(data.place)
    compared = validation_folder(root) if data.labels else compared_folder(root)
    return [root / "train", compared] if trains and data.labels else [compared]


def _length(path: str, name: str) -> int:
    """Return the length of an array in an .npz file, without reading the array."""
    from zipfile import ZipFile

    from numpy.lib import format as npy

    with ZipFile(path) as file, file.open(f"{name}.npy") as array:
        version = npy.read_magic(array)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        return read(array)[0][0]


def _about(folder: Path, labels: bool) -> int:
    if not labels:
        return len(os.listdir(folder))
    classes = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir())
    return len(classes) * max((len(os.listdir(path)) for path in classes[:5]), default=0)


def image_sources(config: Config, trains: bool = True) -> list[str]:
    """List the files and folders whose change means that images must be listed again.

    Parameters
    ----------
    config : Config
    trains : bool
        True if the run trains nets.
    """
    data = config.data
    if data.name == "arrays":
        return [data.place]
    if data.is_folder:
        splits = _splits(data, trains)
        if not data.labels:
            return [str(split) for split in splits]
        return sorted(e.path for split in splits for e in os.scandir(split) if e.is_dir())
    return []
