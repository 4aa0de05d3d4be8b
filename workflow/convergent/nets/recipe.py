"""What decides the weights that a training ends with, and so the name of its checkpoint.

Imports nothing that takes time, as Snakemake asks for :data:`RECIPE` whenever it starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# Stands for the code of a training: views and their order, the net and its initial weights, the
# steps. Give it another name when that code comes to end with other weights, and only then:
# every net is then trained anew. (Once a fingerprint of the code stood here, which changed with
# every edit; this is the last, so that what was trained until then is found.)
RECIPE = "e9d4a5f7e614dd9b"
# Keys that `data`, `model` and `training` have gained since, such as "training.snapshots", with the
# value at which a training is what it was without them. At that value they do not count.
# (Not their default, which may change.)
LATER: dict[str, Any] = {}
# Of `data`, what a net sees of an image, and of the list of images, which they are.
VIEWS = ("size", "mean", "std", "train_transform", "validation_transform")
COLUMNS = ("split", "image", "label", "class", "crc32")


def checkpoint_key(
    listing: pd.DataFrame,
    *,
    seed: int,
    data: Mapping[str, Any],
    model: Mapping[str, Any],
    training: Mapping[str, Any],
    device: str,
    threads: int,
) -> str:
    """Hash of all that decides the weights, so that a checkpoint serves one training and no other.

    Values count as Python writes them, with their keys in order.

    Parameters
    ----------
    listing : DataFrame
        As :func:`convergent.nets.datasets.list_folder` gives it.
    seed : int
    data, model, training : mapping
        Parts of the configuration; `training` without ``workers``, which decide nothing.
    device : {"cpu", "cuda"}
    threads : int
        On a CPU they decide how sums are rounded; on a GPU its half precision does.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    from convergent.running.devices import half_precision
    from convergent.running.stores import digest

    views = _without_later({key: data[key] for key in VIEWS}, "data")
    parts = [views, _without_later(model, "model"), _without_later(training, "training")]
    computing = threads if device == "cpu" else half_precision(device)
    return digest(seed, *parts, RECIPE, device, computing, listing[list(COLUMNS)].to_csv())


def _without_later(values: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Values but for those keys of `LATER` that leave a training as it was."""
    return {
        key: _without_later(value, f"{path}.{key}") if isinstance(value, Mapping) else value
        for key, value in values.items()
        if f"{path}.{key}" not in LATER or value != LATER[f"{path}.{key}"]
    }
