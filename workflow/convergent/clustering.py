"""Clusters of the units of two nets (section 4 and section S.3 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from convergent.stores import new_store, open_store, save


def block_matrix(weights: NDArray) -> NDArray[np.float64]:
    """B = [I, W; W', I] of section 4.

    Parameters
    ----------
    weights : ndarray of shape (unit_a, unit_b)
        A mapping layer; its rows become the first units of B.

    Returns
    -------
    ndarray of shape (unit_a + unit_b, unit_a + unit_b), float64
    """
    weights = np.asarray(weights, np.float64)
    if weights.ndim != 2 or 0 in weights.shape:
        raise ValueError(f"weights must be (unit_a, unit_b), got shape {weights.shape}")
    if not np.isfinite(weights).all():
        raise ValueError("weights contain NaN or infinity")
    first, second = map(np.eye, weights.shape)
    return np.block([[first, weights], [weights.T, second]])


def hac(weights: NDArray) -> NDArray[np.float64]:
    """Hierarchical agglomerative clustering of the units of both nets (section 4).

    The two clusters with the largest average of B = [I, W; W', I] over their pairs of units are
    merged, until one is left: average linkage on distances `offset` - B.

    Parameters
    ----------
    weights : ndarray of shape (unit_a, unit_b)
        A mapping layer. Unit i of its rows is leaf i, unit j of its columns leaf unit_a + j.

    Returns
    -------
    ndarray of shape (unit_a + unit_b - 1, 4), float64
        Linkage in SciPy's form. The third column is :func:`offset` less the average weight, so
        that it is not negative and rises.

    Raises
    ------
    ValueError
        If `weights` is not a finite matrix.
    """
    similarity = block_matrix(weights)  # which checks them
    distance = offset(weights) - similarity
    np.fill_diagonal(distance, 0)
    return linkage(squareform(distance, checks=False), method="average")


def offset(weights: NDArray) -> float:
    """The similarity whose distance is 0 in :func:`hac`: 1, or the largest weight if larger."""
    return max(1.0, float(np.max(weights)))


def leaf_order(tree: NDArray) -> NDArray[np.intp]:
    """Leaves in the order in which the traversal of the tree meets them (figure 7)."""
    return leaves_list(tree).astype(np.intp)


def spans(tree: NDArray) -> NDArray[np.int64]:
    """First and last place in :func:`leaf_order` of each merged cluster, shape (merge, 2)."""
    places = np.empty((2 * len(tree) + 1, 2), np.int64)
    places[leaf_order(tree)] = np.arange(len(tree) + 1)[:, None]
    for merge, (left, right) in enumerate(tree[:, :2].astype(int), len(tree) + 1):
        places[merge] = places[left, 0], places[right, 1]
    return places[len(tree) + 1 :]


def shared_subspaces(
    tree: NDArray, units_a: int, per_net: int = 4, number: int = 2
) -> list[tuple[int, int]]:
    """Clusters of `per_net` units of each net that are joined by the largest average weight.

    The paper's figure 7 shows two. Where there are too few of exactly that size, those whose
    sizes come nearest; clusters do not overlap.

    Parameters
    ----------
    tree : ndarray
        As :func:`hac` gives it.
    units_a : int
        Number of units of the first net.

    Returns
    -------
    list of (int, int)
        First and last place in :func:`leaf_order`.
    """
    first = np.cumsum([0, *(leaf_order(tree) < units_a)])
    found = []
    for (start, stop), height in zip(spans(tree), tree[:, 2], strict=True):
        a = first[stop + 1] - first[start]
        b = stop + 1 - start - a
        if a and b:
            found.append((abs(a - per_net) + abs(b - per_net), height, int(start), int(stop)))
    chosen: list[tuple[int, int]] = []
    for *_, start, stop in sorted(found):
        if len(chosen) < number and all(stop < i or j < start for i, j in chosen):
            chosen.append((start, stop))
    return chosen


def drawn_map(group: zarr.Group, penalty: float) -> tuple[float, NDArray[np.float64], float]:
    """The map that is drawn and clustered: of the decay whose penalty is nearest to one given.

    Parameters
    ----------
    group : zarr.Group
        A layer and direction of ``mapping.zarr``.
    penalty : float
        Wanted alpha = decay * (number of target units); nearest on a logarithmic scale.

    Returns
    -------
    decay : float
    weights : ndarray of shape (target, source)
    loss : float
        Mean over target units.
    """
    decays = group["decay"][...]
    with np.errstate(divide="ignore"):
        alphas = np.log(decays * group["weights"].shape[1])
    step = int(np.abs(alphas - np.log(penalty)).argmin())
    return float(decays[step]), group["weights"][step], float(group["loss"][step].mean())


def write_hac(
    store: str | Path, layers: Sequence[str], mapping: str | Path, penalty: float
) -> None:
    """Hierarchical clusters of both nets' units: ``pairs/<a>-<b>/hac.zarr``.

    Per layer a group with `linkage` and `order` of the map from a to b, in which the units of a
    come first; the map is that of :func:`drawn_map`, its decay the attribute of this name.
    """
    source = open_store(mapping)
    with new_store(store) as target:
        for layer in layers:
            decay, weights, _ = drawn_map(source[f"{layer}/ab"], penalty)
            tree = hac(weights.T)
            group = target.create_group(layer)
            save(group, "linkage", tree, ("merge", "column"))
            save(group, "order", leaf_order(tree), ("leaf",))
            group.attrs["decay"] = decay
