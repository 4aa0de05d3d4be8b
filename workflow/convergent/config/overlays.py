"""Overlays: configurations that replace keys of ``config.yaml``."""

from __future__ import annotations

import copy
import os
from collections.abc import Collection, Mapping, MutableMapping
from pathlib import Path
from typing import Any


def settle(
    merged: Mapping[str, Any], base: Mapping[str, Any], overlay: Mapping[str, Any]
) -> dict[str, Any]:
    """Complete the merge of an overlay into ``config.yaml``, which is done key by key.

    Nets, and so pairs, keep the order of ``config.yaml``. Its nets are left out if the overlay has
    several nets, all of them new; a single new net joins them, and so do those of an overlay that
    names some of ``config.yaml``'s. If the overlay has a sweep, the nets of ``config.yaml`` that it
    does not name are left out. If it has another architecture or other layers, or all of its nets
    do, so are the keys of ``config.yaml`` that belong to its own architecture and layers.

    Parameters
    ----------
    merged : mapping
        The overlay merged into ``config.yaml``, as Snakemake does it.
    base : mapping
        The contents of ``config.yaml``.
    overlay : mapping
        The contents of all overlays and of ``--config``, merged.

    Returns
    -------
    dict
        The configuration to check and to use.
    """
    settled = dict(merged)
    ours, theirs = (_mapping(values.get("nets")) for values in (base, overlay))
    old, new = (_name(values.get("model")) for values in (base, overlay))
    own_model = new not in (None, old)
    new_nets = stands_alone(base, overlay)
    own_nets = new_nets and (own_model or all(_is_other(net, old) for net in _left(theirs)))
    if new_nets:
        settled["nets"] = dict(theirs)
    elif overlay.get("sweep") not in (None, "null"):
        settled["nets"] = {name: merged["nets"][name] for name in theirs}
    elif isinstance(merged.get("nets"), Mapping):
        # Nets with weights and snapshots take no seed from config.yaml.
        brought_nets = {
            name: net for name, net in theirs.items() if {"weights", "of"} & set(_mapping(net))
        }
        settled["nets"] = {**ours, **merged["nets"], **brought_nets}
    if own_model:
        model = overlay["model"]
        settled["model"] = dict(model) if isinstance(model, Mapping) else model
    layers = overlay.get("layers")
    own_layers = layers is not None and not set(layers) <= set(base.get("layers", ()))
    mapping = merged.get("mapping")
    if layers is not None and isinstance(mapping, Mapping):
        # Of the layers that SGD fits in config.yaml, those that the overlay compares.
        sgd = _mapping(mapping.get("sgd"))
        asked = _mapping(_mapping(overlay.get("mapping")).get("sgd")).get("layers")
        kept = [layer for layer in sgd.get("layers", ()) if layer in layers]
        settled["mapping"] = {**mapping, "sgd": {**sgd, "layers": kept if asked is None else asked}}
    figures = merged.get("figures")
    if layers is not None and isinstance(figures, Mapping):
        # The layer that config.yaml's figures show, if the overlay compares it.
        asked = _mapping(overlay.get("figures")).get("layer")
        shown = figures.get("layer") if figures.get("layer") in layers else None
        settled["figures"] = {**figures, "layer": shown if asked is None else asked}
    if not (own_model or own_layers or own_nets):
        return settled
    settled["layers"] = [] if layers is None else layers
    # These name layers of config.yaml's architecture.
    clustering, mapping = merged.get("clustering"), merged.get("mapping")
    if isinstance(clustering, Mapping):
        k = _mapping(overlay.get("clustering")).get("k", "auto")
        settled["clustering"] = {**clustering, "k": k}
    if isinstance(mapping, Mapping) and isinstance(mapping.get("sgd"), Mapping):
        fitted = _mapping(_mapping(overlay.get("mapping")).get("sgd")).get("layers", [])
        settled["mapping"] = {**mapping, "sgd": {**mapping["sgd"], "layers": fitted}}
    if isinstance(merged.get("figures"), Mapping):
        layer = _mapping(overlay.get("figures")).get("layer")
        settled["figures"] = {**merged["figures"], "layer": layer}
    return settled


def stands_alone(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> bool:
    """Return whether the nets of an overlay stand in place of those of ``config.yaml``."""
    ours, theirs = (_mapping(values.get("nets")) for values in (base, overlay))
    left_out = {name for name, net in theirs.items() if net in (None, "null")}
    nets = _left(theirs)
    if left_out & set(ours) and not left_out >= set(ours):
        # Whoever leaves out some of them means to keep the others.
        return False
    if any(net.get("of") in set(ours) - set(theirs) for net in nets):
        return False
    new = not (set(theirs) - left_out) & set(ours)
    old, model = (_name(values.get("model")) for values in (base, overlay))
    if model not in (None, old) and nets and new:
        return True
    if len(nets) < 2 or not new:
        return len(nets) > 1 and all("weights" in net for net in nets)
    # Untrained nets and snapshots are there to be compared with others.
    subjects = [net for net in nets if "of" not in net and net.get("epochs") != 0]
    return len(subjects) > 1 or all(_is_other(net, old) for net in nets)


def remark_on_nets(
    base: Mapping[str, Any], overlay: Mapping[str, Any], pairs: Collection[str]
) -> str | None:
    """Say which nets of ``config.yaml`` an overlay with new ones left out, or added to.

    Parameters
    ----------
    base, overlay : mapping
        As in :func:`settle`.
    pairs : collection of str
        All pairs that the run compares.

    Returns
    -------
    str or None
        None if the overlay has no new nets or says itself which of the others are left out.
    """
    ours, theirs = (_mapping(values.get("nets")) for values in (base, overlay))
    new = [name for name in theirs if name not in ours]
    others = [name for name in ours if name not in theirs]
    if not new or not others or None in theirs.values() or "null" in theirs.values():
        return None
    if stands_alone(base, overlay):
        named = ", ".join(f"{name}: {{}}" for name in others)
        return (
            f"nets: {' and '.join(new)} are compared in place of {', '.join(others)} of "
            f"config.yaml; to compare those as well, name them: nets: {{{named}, ...}}"
        )
    if overlay.get("sweep") not in (None, "null"):
        return None
    return (
        f"nets: {' and '.join(new)} beside those of config.yaml make {len(pairs)} pairs; leave out "
        f"nets that you do not want with null, as in nets: {{{others[-1]}: null}}"
    )


def anchor(
    values: MutableMapping[str, Any], files: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Make paths of weights and of nets' own code relative to the working directory.

    In a configuration file they are relative to the folder of the file.

    Parameters
    ----------
    values : mapping
        The merged configuration.
    files : mapping of path to mapping
        Contents of each configuration file, in the order in which they are merged.

    Returns
    -------
    dict
        A copy with other paths. Those that stand in no file were given on the command line, where
        they are relative to the working directory already.
    """
    result = copy.deepcopy(dict(values))
    nets = _mapping(result.get("nets"))
    places: list[tuple[MutableMapping, str]] = [(result, "model")]
    for net in nets.values():
        if isinstance(net, MutableMapping):
            places += [(net, "model"), (net, "weights")]
    for section, key in places:
        path = [] if section is result else ["nets", next(n for n in nets if nets[n] is section)]
        given = section.get(key)
        # The last file that gives this value.
        for file, contents in files.items():
            there: Any = contents
            for part in (*path, key):
                there = _mapping(there).get(part)
            if there is not None and _path(key, there) == _path(key, given):
                section[key] = _anchored(key, given, Path(file).parent)
    return result


def _anchored(key: str, value: Any, folder: Path) -> Any:
    """Return a file of weights, or a section `model`, with its path below `folder`."""
    path = _path(key, value)
    if path is None:
        return value
    moved = os.path.normpath(folder / Path(path).expanduser())
    # Short where that is possible, so that a run's folder can be moved.
    below = os.path.relpath(moved)
    moved = moved if below.startswith("..") else below
    if isinstance(value, Mapping):
        return {**value, "name": moved + value["name"][len(path) :]}
    return moved + value[len(path) :]


def _path(key: str, value: Any) -> str | None:
    """Return the path in the key `weights` of a net, or in a section `model`."""
    name = _name(value)
    if name is None or key == "weights":
        return name
    path, _, _ = name.rpartition(":")
    return path if path.endswith(".py") else None


def _left(nets: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """List the nets that are not null."""
    return [_mapping(net) for net in nets.values() if net not in (None, "null")]


def _is_other(net: Mapping[str, Any], name: str | None) -> bool:
    """Return whether a net has weights, is a snapshot, or has another architecture than `name`."""
    return "weights" in net or "of" in net or _name(net.get("model")) not in (None, name)


def _name(model: Any) -> str | None:
    name = model.get("name") if isinstance(model, Mapping) else model
    return name if isinstance(name, str) else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
