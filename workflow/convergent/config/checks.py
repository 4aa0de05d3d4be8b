"""Checks of a configuration: between keys, on the disk, and against the shapes of the nets."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from convergent import ConvergentError
from convergent.nets.folders import validation_folder
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
    if config.pair not in config.pairs:
        raise ValueError(
            f"figures.pair: {config.figures.pair!r} is none of {', '.join(config.pairs)}"
        )
    blocks, images = config.statistics.blocks, config.activations.images
    if (images or blocks) < blocks:
        raise ValueError(
            f"statistics.blocks: {blocks} blocks need at least as many images, "
            f"but activations.images is {images}"
        )


def _check_nets(config: Config) -> None:
    if len(config.nets) < 2:
        raise ValueError(f"nets: at least two are needed to compare, got {len(config.nets)}")
    owners: dict[int, str] = {}
    for name, net in config.nets.items():
        if net.seed in owners:
            raise ValueError(
                f"nets.{name}.seed: {net.seed} is already the seed of {owners[net.seed]}; "
                "give each net its own"
            )
        owners[net.seed] = name


def _check_layers(config: Config) -> None:
    """Check all keys that name layers."""
    layers, figures = config.layers, config.figures
    _check_names(config, "layers", layers)
    _check_names(config, "figures.layer", [figures.layer])
    if not layers or len(set(layers)) < len(layers):
        raise ValueError("layers: name at least one layer, and none twice")
    if figures.layer not in layers:
        raise ValueError(f"figures.layer: {figures.layer!r} is not among layers")
    if config.second_layer not in layers:
        raise ValueError(f"figures.second_layer: {config.second_layer!r} is not among layers")
    for layer in config.mapping.sgd.layers:
        if layer not in layers:
            raise ValueError(f"mapping.sgd.layers: {layer!r} is not among layers")
    clustering = config.clustering
    # The default holds the paper's numbers even for nets of other architectures.
    if isinstance(clustering.k, dict) and clustering.k != type(clustering)().k:
        _check_names(config, "clustering.k", clustering.k)
    if isinstance(config.units.pictures, dict):
        _check_names(config, "units.pictures", config.units.pictures)


def _check_names(config: Config, key: str, names: Iterable[str]) -> None:
    """Check names of layers if the architecture declares its layers."""
    known = config.known_layers
    for layer in names:
        if known is not None and layer not in known:
            raise ValueError(
                f"{key}: {config.model.name} has no layer {layer!r}; it has {', '.join(known)}"
            )


def check_shapes(config: Config, layers: dict[str, Layer]) -> None:
    """Check the keys that depend on the shapes of a net's layers.

    Parameters
    ----------
    config : Config
    layers : dict of str to Layer
        Layers from :func:`convergent.nets.shapes.read_shapes`.

    Raises
    ------
    ConfigError
        If a key does not fit; the message names it and the layer, and says what would be right.
    """
    order = [layer for layer in layers if layer in config.layers]
    if order != config.layers:
        missing = [layer for layer in config.layers if layer not in layers]
        raise ConfigError(
            f"layers: {config.model.name} has no layer {missing[0]!r}; it has {', '.join(layers)}"
            if missing
            else f"layers: list them in the order of the net: {', '.join(order)}"
        )
    for layer in config.layers:
        _check_units(config, layer, layers[layer].units)
    most, count = config.activations.images, count_validation(config)
    recorded = min(most or count, count)
    for layer in config.layers:
        samples = recorded * config.recorded_positions(layers[layer])
        if samples < BINS:
            raise ConfigError(
                f"{'activations.images' if most else 'data'}: {recorded} validation images give "
                f"{samples} samples of {layer}, fewer than the {BINS} bins of mutual information"
            )


def _check_units(config: Config, layer: str, units: int) -> None:
    """Check the keys that concern the units of a layer."""
    last = max(config.pictures.get(layer) or [0])
    if last >= units:
        raise ConfigError(
            f"units.pictures.{layer}: there is no unit {last}; the {units} units count from 0"
        )
    k, most = config.clusters[layer], 2 * config.clustering.alpha * units
    if k != "auto" and k > 2 * units:
        raise ConfigError(
            f"clustering.k: {k} clusters requested for {layer}, but both nets together have "
            f"only {2 * units} units"
        )
    if most < 1:
        raise ConfigError(
            f"clustering.alpha: clusters of at most {most:.2g} units of {layer} would be "
            f"empty; use at least {1 / (2 * units):.2g}"
        )


def check_data(config: Config) -> None:
    """Check, without reading images, that the data exist and are enough for the run.

    Raises
    ------
    ConfigError
        If not; the message names the key, what is missing and what would be right.
    """
    data, blocks, images = config.data, config.statistics.blocks, config.activations.images or 0
    if data.is_folder:
        root = Path(data.place)
        if not root.is_dir():
            raise ConfigError(f"data.root: there is no folder {root}")
        for folder in (root / "train", validation_folder(root)):
            if not folder.is_dir():
                raise ConfigError(
                    f"data.root: {folder} is missing; expected class folders under "
                    f"{root}/train and {root}/val (or test)"
                )
    count = count_validation(config)
    if count < blocks:
        raise ConfigError(
            f"statistics.blocks: {blocks} blocks need at least as many validation images, but "
            f"{data.name} has {count}; use fewer blocks"
        )
    if count < images:
        raise ConfigError(f"activations.images: {images} requested, but {data.name} has {count}")


def count_validation(config: Config) -> int:
    """Count validation images; stop in folders when there are enough for the run."""
    data = config.data
    if not data.is_folder:
        return count_images(data)[1]
    folders = os.scandir(validation_folder(Path(data.place)))
    files = (file for entry in folders if entry.is_dir() for file in os.scandir(entry))
    enough = max(config.statistics.blocks, config.activations.images or 0, BINS)
    return sum(1 for _ in itertools.islice(files, enough))


def count_images(data: Data) -> tuple[int, int]:
    """Count training and validation images, without reading any.

    Numbers for folders are estimates: classes times the images of the fullest of the first few, so
    that a million files need not be listed.

    Raises
    ------
    ConfigError
        If the file of arrays cannot be read.
    """
    if data.is_folder:
        root = Path(data.place)
        return _about(root / "train"), _about(validation_folder(root))
    if data.name == "cifar10":
        return 50_000, 10_000
    labels, mask = range(1797), None
    if data.name == "arrays":
        import numpy as np

        if not Path(data.place).is_file():
            raise ConfigError(f"data.root: there is no file {data.place}")
        try:
            with np.load(data.place, allow_pickle=False) as file:
                labels, mask = file["labels"], file.get("validation")
                mask = None if mask is None else mask.astype(bool)
                len(labels)
        # A damaged archive, or an array of another kind, may raise anything.
        except Exception as error:
            raise ConfigError(
                f"data.root: {data.place} is not an .npz file with images and labels ({error})"
            ) from error
    share = math.ceil(len(labels) * data.validation_fraction)
    validation = share if mask is None else int(mask.sum())
    return len(labels) - validation, validation


def _about(folder: Path) -> int:
    classes = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir())
    return len(classes) * max((len(os.listdir(path)) for path in classes[:5]), default=0)


def image_sources(config: Config) -> list[str]:
    """List the files and folders whose change means that images must be listed again."""
    data = config.data
    if data.name == "arrays":
        return [data.place]
    if data.is_folder:
        root = Path(data.place)
        splits = (root / "train", validation_folder(root))
        return sorted(e.path for split in splits for e in os.scandir(split) if e.is_dir())
    return []
