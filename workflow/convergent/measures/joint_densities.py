"""Joint distributions of well and badly matched units (figure S1 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from convergent.activations.samples import samples
from convergent.running.stores import new_store, open_store, save

if TYPE_CHECKING:
    import pandas as pd

# Images whose activations are counted, with all recorded positions, as in the paper.
IMAGES = 5000
BINS = 100


def shown_pairs(matches: pd.DataFrame, layers: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Choose a well and a badly matched pair of units of each layer.

    They are the best pair of the matching by correlation, and the worst of those whose correlation
    exceeds 0.1, as there is little to see below that.

    Parameters
    ----------
    matches : DataFrame
        Rows of ``matching.csv``.

    Returns
    -------
    dict of layer to DataFrame
        Two of the rows, the best first; layers whose units are all dead are left out.
    """
    matched = matches.query("measure == 'correlation' and method == 'matching'")
    pairs = {}
    for layer in layers:
        rows = matched[matched["layer"] == layer]
        rows = rows.sort_values("value", ascending=False, kind="stable")
        visible = rows[rows["value"] > 0.1]
        if len(rows):
            pairs[layer] = (visible if len(visible) > 1 else rows).iloc[[0, -1]]
    return pairs


def stored_values(
    store: str | Path, units: Mapping[str, NDArray[np.integer]]
) -> dict[str, NDArray[np.float32]]:
    """Read the activations (sample, unit) of a few units of each layer on the first images."""
    source, values = open_store(store), {}
    for layer, columns in units.items():
        array = source[layer]
        images = min(IMAGES, array.shape[0])
        starts = range(0, images, array.chunks[0])
        blocks = [samples(array, i, min(i + array.chunks[0], images))[:, columns] for i in starts]
        values[layer] = np.concatenate(blocks).astype(np.float32)
    return values


def joint_density(
    x: NDArray[np.float32], y: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray, NDArray]:
    """Count the joint histogram of the activations of two units.

    It reaches from 0, or the smallest value if that is negative, to the largest of each unit.

    Returns
    -------
    counts, edges_x, edges_y
    """
    limits = [[min(0.0, float(v.min())), max(float(v.max()), 1e-6)] for v in (x, y)]
    return np.histogram2d(x, y, bins=BINS, range=limits)


def write_joint_densities(
    store: str | Path,
    pairs: Mapping[str, pd.DataFrame],
    values_a: Mapping[str, NDArray],
    values_b: Mapping[str, NDArray],
    information: str | Path,
) -> None:
    """Write the joint distributions of the pairs of :func:`shown_pairs`.

    Per layer a group ``high`` and ``low`` with `counts`, `edges_x`, `edges_y` and the attributes
    units, correlation and mutual_information.

    Parameters
    ----------
    values_a, values_b : mapping of layer to ndarray of shape (sample, 2)
        Activations of the units of each pair.
    information : path
        Mutual information between the nets.
    """
    nats = open_store(information)
    with new_store(store) as target:
        for layer, rows in pairs.items():
            matrix = nats[f"{layer}/mutual_information"][...]
            for i, rank in enumerate(("high", "low")):
                row = rows.iloc[i]
                units = int(row["unit"]), int(row["partner"])
                group = target.create_group(f"{layer}/{rank}")
                group.attrs["units"] = list(units)
                group.attrs["correlation"] = float(row["value"])
                group.attrs["mutual_information"] = float(matrix[units])
                density = joint_density(values_a[layer][:, i], values_b[layer][:, i])
                for name, data in zip(("counts", "edges_x", "edges_y"), density, strict=True):
                    save(group, name, data, ("x", "y") if name == "counts" else ("edge",))
        target.attrs["layers"] = list(pairs)


def load_joint_densities(store: str | Path) -> list[tuple]:
    """Read back what :func:`write_joint_densities` wrote.

    Returns
    -------
    list of (layer, rank, units, correlation, mutual_information, (counts, edges_x, edges_y))
    """
    source = open_store(store)
    return [
        (
            layer,
            rank,
            *(group.attrs[k] for k in ("units", "correlation", "mutual_information")),
            tuple(group[name][...] for name in ("counts", "edges_x", "edges_y")),
        )
        for layer in source.attrs["layers"]
        for rank in ("high", "low")
        for group in [source[f"{layer}/{rank}"]]
    ]
