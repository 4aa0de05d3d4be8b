"""The settings that determine trained weights, and the key of their checkpoint.

Importing this module is fast, because Snakemake reads :data:`RECIPE` whenever it starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# Name of the present training code: views and their order, the net and its initial weights, the
# steps. Change it if the code comes to produce other weights, and only then: every net is then
# trained anew. (It used to be a fingerprint of the code, which changed with every edit; this is
# the last one, so that nets trained with it are still found.)
RECIPE = "e9d4a5f7e614dd9b"
# Keys that `data`, `model` and `training` have gained since, such as "training.snapshots", each
# with the value that leaves training as it was before. A key with that value does not enter the
# hash. (The value need not be the key's default, which may change.)
LATER: dict[str, Any] = {"data.subset": None}
# Keys that decide no weights.
WITHOUT_EFFECT = ("training.workers", "training.snapshots")
# Keys of `data` that determine training images and views, and columns of the list that identify
# the images.
VIEWS = ("size", "mean", "std", "train_transform", "validation_transform", "subset")
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
    code: str | None = None,
) -> str:
    """Hash all settings that determine weights, so that a checkpoint serves only one training.

    Settings enter by their `repr`, so that the order of their keys matters.

    Parameters
    ----------
    listing : DataFrame
        Table from :func:`convergent.nets.datasets.list_folder`.
    seed : int
    data, model, training : mapping
        Sections of the configuration. Keys of `WITHOUT_EFFECT` do not count.
    device : {"cpu", "cuda"}
    threads : int
        Number of threads, which determines how a CPU rounds sums. On a GPU its type of half
        precision enters instead.
    code : str, optional
        Hash of the user's own code that builds the net.

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
    own = [code] if code else []
    return digest(seed, *parts, RECIPE, device, computing, listing[list(COLUMNS)].to_csv(), *own)


def snapshot_file(epoch: float) -> str:
    """Name the file of the weights after an epoch, such as ``0.1.pt`` or ``5.pt``."""
    return f"{int(epoch) if epoch == int(epoch) else epoch}.pt"


def _without_later(values: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Remove keys without effect, and those of `LATER` whose values leave training as it was."""
    return {
        key: _without_later(value, f"{path}.{key}") if isinstance(value, Mapping) else value
        for key, value in values.items()
        if f"{path}.{key}" not in WITHOUT_EFFECT
        and (f"{path}.{key}" not in LATER or value != LATER[f"{path}.{key}"])
    }
