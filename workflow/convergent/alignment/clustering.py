"""Cluster the units of two nets (section 4 and section S.3 of the paper)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from threadpoolctl import ThreadpoolController

from convergent.alignment.graphs import (
    combined,
    combined_graph,
    embedding,
    number_by_size,
    spectrum,
)
from convergent.alignment.sparse_maps import map_at_penalty
from convergent.running.progress import progress
from convergent.running.stores import new_store, open_store, save


def block_matrix(weights: NDArray) -> NDArray[np.float64]:
    """Build B = [I, W; W', I] of section 4.

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
    """Cluster the units of both nets by hierarchical agglomeration (section 4).

    At each step the two clusters are merged whose average of B = [I, W; W', I] over their pairs of
    units is largest, until one is left. This is average linkage on the distances `offset` - B.

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
    """Return the similarity whose distance is 0 in :func:`hac`: the largest weight, at least 1."""
    return max(1.0, float(np.max(weights)))


def leaf_order(tree: NDArray) -> NDArray[np.intp]:
    """Order the leaves as the traversal of the tree meets them (figure 7)."""
    return leaves_list(tree).astype(np.intp)


def spans(tree: NDArray) -> NDArray[np.int64]:
    """Find the first and last place in :func:`leaf_order` of each merge, shape (merge, 2)."""
    places = np.empty((2 * len(tree) + 1, 2), np.int64)
    places[leaf_order(tree)] = np.arange(len(tree) + 1)[:, None]
    for merge, (left, right) in enumerate(tree[:, :2].astype(int), len(tree) + 1):
        places[merge] = places[left, 0], places[right, 1]
    return places[len(tree) + 1 :]


def shared_subspaces(
    tree: NDArray, units_a: int, per_net: int = 4, number: int = 2
) -> list[tuple[int, int]]:
    """Find clusters of `per_net` units of each net that the largest average weight joins.

    The paper's figure 7 shows two. If there are too few clusters of exactly that size, those
    follow whose sizes are nearest. The clusters do not overlap.

    Parameters
    ----------
    tree : ndarray
        Linkage, as :func:`hac` returns it.
    units_a : int
        Number of units of the first net.
    per_net : int
        Units of each net in a cluster.
    number : int
        Clusters to return, at most.

    Returns
    -------
    list of (int, int)
        First and last place in :func:`leaf_order`.
    """
    of_a_before = np.cumsum([0, *(leaf_order(tree) < units_a)])
    candidates = []
    for (start, stop), height in zip(spans(tree), tree[:, 2], strict=True):
        a = of_a_before[stop + 1] - of_a_before[start]
        b = stop + 1 - start - a
        if a and b:
            candidates.append((abs(a - per_net) + abs(b - per_net), height, int(start), int(stop)))
    chosen: list[tuple[int, int]] = []
    for *_, start, stop in sorted(candidates):
        if len(chosen) < number and all(stop < i or j < start for i, j in chosen):
            chosen.append((start, stop))
    return chosen


def spectral_clusters(
    xx: NDArray, xy: NDArray, yy: NDArray, k: int, threshold: float = 0.2, seed: int = 0
) -> NDArray[np.intp]:
    """Find spectral clusters of the units of two nets (section S.3.2 of the paper).

    k-means runs on the k eigenvectors of smallest eigenvalue of the unnormalised Laplacian of
    :func:`combined_graph`; see :func:`embedding` for graphs of more than k components. Dead
    units, which correlate 0 with everything, are one more cluster.

    Parameters
    ----------
    xx, xy, yy : ndarray of shape (unit_a, unit_a), (unit_a, unit_b), (unit_b, unit_b)
        Correlations within the first net, between the two, within the second.
    k : int
        Number of clusters of the live units.
    threshold : float
        tau: similarities at or below it are dropped.
    seed : int
        Seed of k-means, which starts ten times.

    Returns
    -------
    ndarray of shape (unit_a + unit_b,), intp
        Cluster of each unit, those of the first net first; 0 is the largest cluster, and dead
        units have the last. The result is the same for any number of threads.

    Raises
    ------
    ValueError
        If the matrices do not fit together or are not finite, the threshold is negative or
        drops every edge that there is, or there are fewer than k units.
    """
    graph, live = checked_graph(xx, xy, yy, k, threshold)
    k = min(k, len(live))
    points = embedding(spectrum(graph[np.ix_(live, live)], k), k) if k else np.zeros((0, 0))
    return add_dead(kmeans(points, k, seed), live, len(graph))


def checked_graph(
    xx: NDArray, xy: NDArray, yy: NDArray, k: int, threshold: float
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Check what :func:`spectral_clusters` takes; return the graph and its live units."""
    graph = combined_graph(xx, xy, yy, threshold)
    if not 1 <= k <= len(graph):
        raise ValueError(f"k must be from 1 to the {len(graph)} units of both nets, got {k}")
    a = np.any(xx, axis=1) | np.any(xy, axis=1)
    b = np.any(yy, axis=1) | np.any(xy, axis=0)
    live = np.flatnonzero(np.concatenate([a, b]))
    if len(live) > 1 and not graph.any():
        similarity = combined(xx, xy, yy)
        np.fill_diagonal(similarity, -np.inf)
        # If no two live units have anything in common, the threshold is not at fault.
        if similarity.max() > 0:
            raise ValueError(
                f"threshold {threshold} drops every edge: the largest similarity is "
                f"{similarity.max():.3g}; take a smaller threshold"
            )
    return graph, live


def add_dead(labels: NDArray[np.intp], live: NDArray[np.intp], units: int) -> NDArray[np.intp]:
    """Extend the labels of the live units to all: dead units are the last cluster."""
    extended = np.full(units, labels.max(initial=-1) + 1)
    extended[live] = labels
    return extended


def kmeans(points: NDArray, k: int, seed: int) -> NDArray[np.intp]:
    """Label `points` (unit, coordinate) by k-means; 0 is the largest cluster.

    Points that coincide get one label; if there are at most k different points, each is a cluster.
    """
    from sklearn.cluster import KMeans

    places, labels = np.unique(points, axis=0, return_inverse=True)
    if len(places) > k:
        with _thread_pools().limit(limits=1):  # sums in one order
            labels = KMeans(k, init=kmeans_seeds, n_init=10, random_state=seed).fit_predict(points)
    return number_by_size(labels.ravel())


def kmeans_seeds(points: NDArray, k: int, random_state: np.random.RandomState) -> NDArray:
    """Choose the first centers of k-means by greedy k-means++ (Arthur and Vassilvitskii 2007).

    The points are those that :func:`sklearn.cluster.kmeans_plusplus` chooses, by the same sums in
    the same order, as rounding decides between two that are equally good. That function checks its
    matrices for each of them, which takes most of the time where there are few points.

    Parameters
    ----------
    points : ndarray of shape (point, coordinate)
    k : int
    random_state : RandomState

    Returns
    -------
    ndarray of shape (k, coordinate)
    """
    squares, each = np.einsum("ij,ij->i", points, points), np.ones((len(points), 1))

    def apart(chosen: NDArray[np.intp]) -> NDArray:
        distances = -2 * (points[chosen] @ points.T)
        distances += squares[chosen, None]
        distances += squares
        return np.maximum(distances, 0, out=distances)

    chosen = [random_state.choice(len(points), p=np.full(len(points), 1 / len(points)))]
    nearest = apart(np.array(chosen))
    total = nearest @ each
    for _ in range(k - 1):
        drawn = random_state.uniform(size=2 + int(np.log(k))) * total[0]
        # By rounding, the last sum may be less than what was drawn.
        candidates = np.minimum(np.searchsorted(np.cumsum(nearest), drawn), len(points) - 1)
        nearer = np.minimum(nearest, apart(candidates))
        totals = nearer @ each
        best = totals.argmin()
        chosen.append(candidates[best])
        nearest, total = nearer[best], totals[best]
    return points[chosen]


def branch(
    labels: NDArray[np.integer],
    points: NDArray,
    graph: NDArray,
    largest: float,
    seed: int = 0,
) -> list[str]:
    """Split clusters until none has more than `largest` units (section S.3.4).

    A cluster that is too large is split by k-means into as many parts as would suffice if they
    were equal, and so are its parts. If all its points coincide, as in a connected component that
    is one cluster, it is embedded by its own graph first; its units without edges become a part
    of their own, which is cut evenly.

    Parameters
    ----------
    labels : ndarray of shape (unit,)
        First-level clusters.
    points : ndarray of shape (unit, k)
        The embedding in which they were found.
    graph : ndarray of shape (unit, unit)
        Weights of the edges.
    largest : float
        Units that a leaf may have: 2 alpha s in the paper; at least 1.
    seed : int
        Seed of k-means.

    Returns
    -------
    list of str
        Path of each unit in the tree: its cluster, and its part at each split, joined by ``/``.
    """
    if largest < 1:
        raise ValueError(f"leaves of at most {largest:.3g} units hold none; take a larger alpha")
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
    """Give each unit the number of its leaf; leaves are in the order of their paths in the tree."""
    order = sorted(set(paths), key=lambda path: [int(part) for part in path.split("/")])
    number = {path: leaf for leaf, path in enumerate(order)}
    return np.array([number[path] for path in paths], np.intp)


def cluster_similarity(
    labels: NDArray[np.integer], xx: NDArray, xy: NDArray, yy: NDArray
) -> dict[str, NDArray]:
    """Average the similarity in each cluster, between nets and within them (section S.3.5).

    Parameters
    ----------
    labels : ndarray of shape (unit_a + unit_b,)
        Clusters, numbered from 0.
    xx, xy, yy : ndarray
        Correlations, as :func:`spectral_clusters` takes them.

    Returns
    -------
    dict of str to ndarray of shape (cluster,)
        `units_a` and `units_b` count the units of each net; `between` is the mean of xy over the
        cluster's units of both nets, 0 if all are of one net; `within` is the mean of xx over its
        units of the first net and that of yy over those of the second, averaged over the nets
        that it has units of.
    """
    a = len(xx)
    rows: dict[str, list] = {"units_a": [], "units_b": [], "between": [], "within": []}
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
def _thread_pools() -> ThreadpoolController:
    """Find the thread pools of the process, once: the search takes longer than a small fit."""
    return ThreadpoolController()


def _split(
    points: NDArray, graph: NDArray, units: NDArray[np.intp], parts: int, seed: int
) -> NDArray[np.intp]:
    """Split a cluster that is too large; return the part of each unit, of at least two parts."""
    labels = kmeans(points, parts, seed)
    if labels.any():
        return labels
    own = graph[np.ix_(units, units)]
    isolated = np.logical_not(own.any(axis=0))
    if isolated.all():
        return np.arange(len(units)) * parts // len(units)
    if isolated.any():
        return isolated.astype(np.intp)
    return kmeans(embedding(spectrum(own, parts), parts), parts, seed)


def write_hac(
    store: str | Path, layers: Sequence[str], mapping: str | Path, penalty: float
) -> None:
    """Write the hierarchical clusters of both nets' units: ``pairs/<a>-<b>/hac.zarr``.

    Per layer a group with `linkage` and `order` of the map from a to b, in which the units of a
    come first. The map is that of :func:`convergent.alignment.sparse_maps.map_at_penalty`, and the
    attribute `decay` is its decay.
    """
    source = open_store(mapping)

    def weights_of(layer: str) -> int:
        return math.prod(source[f"{layer}/ab/weights"].shape[1:])

    with new_store(store) as target:
        for layer in progress(layers, Path(store), "weight", weights_of):
            sparse_map = map_at_penalty(source[f"{layer}/ab"], penalty)
            tree = hac(sparse_map.weights.T)
            group = target.create_group(layer)
            save(group, "linkage", tree, ("merge", "column"))
            save(group, "order", leaf_order(tree), ("leaf",))
            group.attrs["decay"] = sparse_map.decay
