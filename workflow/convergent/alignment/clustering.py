"""Clusters of the units of two nets (section 4 and section S.3 of the paper)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from threadpoolctl import ThreadpoolController

from convergent.alignment.graphs import by_size, combined, combined_graph, embedding, spectrum
from convergent.running.progress import progress
from convergent.running.stores import new_store, open_store, save


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
    return combined(first, weights, second)


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


def spectral_clusters(
    xx: NDArray, xy: NDArray, yy: NDArray, k: int, threshold: float = 0.2, seed: int = 0
) -> NDArray[np.intp]:
    """Clusters of the units of two nets (section S.3.2 of the paper).

    k-means on the k eigenvectors of smallest eigenvalue of the unnormalised Laplacian of
    :func:`combined_graph`; see :func:`embedding` for graphs of more than k components. Dead
    units, which correlate 0 with everything, are a cluster of their own beside the k.

    Parameters
    ----------
    xx, xy, yy : ndarray of shape (unit_a, unit_a), (unit_a, unit_b), (unit_b, unit_b)
        Correlations within the first net, between the two, within the second.
    k : int
        Number of clusters of the live units.
    threshold : float
        tau: similarities at or below it are dropped.
    seed : int
        Of k-means, which starts ten times.

    Returns
    -------
    ndarray of shape (unit_a + unit_b,), intp
        Cluster of each unit, those of the first net first; 0 is the largest cluster, and dead
        units have the last. The same for any number of threads.

    Raises
    ------
    ValueError
        If the matrices do not fit together or are not finite, the threshold is negative or
        drops every edge that there is, or there are fewer than k units.
    """
    graph, live = checked_graph(xx, xy, yy, k, threshold)
    k = min(k, len(live))
    points = embedding(spectrum(graph[np.ix_(live, live)], k), k) if k else np.zeros((0, 0))
    return with_dead(kmeans(points, k, seed), live, len(graph))


def checked_graph(
    xx: NDArray, xy: NDArray, yy: NDArray, k: int, threshold: float
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """:func:`combined_graph` of what :func:`spectral_clusters` takes, and its live units."""
    graph = combined_graph(xx, xy, yy, threshold)
    if not 1 <= k <= len(graph):
        raise ValueError(f"k must be from 1 to the {len(graph)} units of both nets, got {k}")
    a = np.any(xx, axis=1) | np.any(xy, axis=1)
    b = np.any(yy, axis=1) | np.any(xy, axis=0)
    live = np.flatnonzero(np.concatenate([a, b]))
    if len(live) > 1 and not graph.any():
        similarity = combined(xx, xy, yy)
        np.fill_diagonal(similarity, -np.inf)
        # Few live units may have nothing in common at all; then no threshold is at fault.
        if similarity.max() > 0:
            raise ValueError(
                f"threshold {threshold} drops every edge: the largest similarity is "
                f"{similarity.max():.3g}; take a smaller threshold"
            )
    return graph, live


def with_dead(labels: NDArray[np.intp], live: NDArray[np.intp], units: int) -> NDArray[np.intp]:
    """Labels of all units, given those of the live ones: dead units are the last cluster."""
    everyone = np.full(units, labels.max(initial=-1) + 1)
    everyone[live] = labels
    return everyone


def kmeans(points: NDArray, k: int, seed: int) -> NDArray[np.intp]:
    """Labels of `points` (unit, coordinate) by k-means; 0 is the largest cluster.

    Points that coincide stay together; if there are at most k places, each is a cluster.
    """
    from sklearn.cluster import KMeans

    places, labels = np.unique(points, axis=0, return_inverse=True)
    if len(places) > k:
        with _pools().limit(limits=1):  # sums in one order
            labels = KMeans(k, n_init=10, random_state=seed).fit_predict(points)
    return by_size(labels.ravel())


def branch(
    labels: NDArray[np.integer],
    points: NDArray,
    graph: NDArray,
    largest: float,
    seed: int = 0,
) -> list[str]:
    """Split clusters until none has more than `largest` units (section S.3.4).

    A cluster that is too large is split by k-means into as many parts as would do if they were
    equal, and so are its parts. One whose points coincide, such as a connected component that
    is a cluster, is embedded by its own graph first; units without edges in it are set apart
    and cut evenly.

    Parameters
    ----------
    labels : ndarray of shape (unit,)
        First-level clusters.
    points : ndarray of shape (unit, k)
        The embedding in which they were found.
    graph : ndarray of shape (unit, unit)
    largest : float
        The bound, 2 alpha s in the paper; at least 1.
    seed : int
        Of k-means.

    Returns
    -------
    list of str
        Path of each unit in the tree: its cluster, and its part at each split, joined by ``/``.
    """
    if largest < 1:
        raise ValueError(f"leaves of at most {largest:.3g} units could hold none")
    paths = [""] * len(labels)
    waiting = [(str(c), np.flatnonzero(labels == c)) for c in np.unique(labels)]
    while waiting:
        path, units = waiting.pop()
        if len(units) <= largest:
            for unit in units:
                paths[unit] = path
            continue
        parts = _split(points[units], graph, units, -(-len(units) // int(largest)), seed)
        waiting += [(f"{path}/{p}", units[parts == p]) for p in range(parts.max() + 1)]
    return paths


def leaf_numbers(paths: Sequence[str]) -> NDArray[np.intp]:
    """Number of each unit's leaf; leaves count in the order of their paths in the tree."""
    order = sorted(set(paths), key=lambda path: [int(part) for part in path.split("/")])
    number = {path: leaf for leaf, path in enumerate(order)}
    return np.array([number[path] for path in paths], np.intp)


def cluster_similarity(
    labels: NDArray[np.integer], xx: NDArray, xy: NDArray, yy: NDArray
) -> dict[str, NDArray]:
    """How alike the units of each cluster are, between nets and within them (section S.3.5).

    Parameters
    ----------
    labels : ndarray of shape (unit_a + unit_b,)
        Clusters, numbered from 0.
    xx, xy, yy : ndarray
        Correlations, as :func:`spectral_clusters` takes them.

    Returns
    -------
    dict of str to ndarray of shape (cluster,)
        `units_a` and `units_b`; `between`, the mean of xy over the cluster's units of both
        nets, 0 where it has units of one net only; `within`, the mean of xx over its units of
        the first net and that of yy over those of the second, averaged over the nets that it
        has.
    """
    a = len(xx)
    rows = {"units_a": [], "units_b": [], "between": [], "within": []}
    for cluster in range(labels.max() + 1):
        units = np.flatnonzero(labels == cluster)
        first, second = units[units < a], units[units >= a] - a
        both = len(first) and len(second)
        within = [m[np.ix_(u, u)].mean() for m, u in ((xx, first), (yy, second)) if len(u)]
        rows["units_a"].append(len(first))
        rows["units_b"].append(len(second))
        rows["between"].append(xy[np.ix_(first, second)].mean() if both else 0.0)
        rows["within"].append(np.mean(within))
    return {name: np.array(values) for name, values in rows.items()}


@cache
def _pools() -> ThreadpoolController:
    """The thread pools of the process, looked for once: that takes longer than a small fit."""
    return ThreadpoolController()


def _split(
    points: NDArray, graph: NDArray, units: NDArray[np.intp], parts: int, seed: int
) -> NDArray[np.intp]:
    """Part of each unit of a cluster that is too large; there are at least two parts."""
    labels = kmeans(points, parts, seed)
    if labels.any():
        return labels
    own = graph[np.ix_(units, units)]
    alone = ~own.any(axis=0)
    if alone.all():
        return np.arange(len(units)) * parts // len(units)
    if alone.any():
        return alone.astype(np.intp)
    return kmeans(embedding(spectrum(own, parts), parts), parts, seed)


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

    def weights_of(layer: str) -> int:
        return math.prod(source[f"{layer}/ab/weights"].shape[1:])

    with new_store(store) as target:
        for layer in progress(layers, Path(store), "weight", weights_of):
            decay, weights, _ = drawn_map(source[f"{layer}/ab"], penalty)
            tree = hac(weights.T)
            group = target.create_group(layer)
            save(group, "linkage", tree, ("merge", "column"))
            save(group, "order", leaf_order(tree), ("leaf",))
            group.attrs["decay"] = decay
