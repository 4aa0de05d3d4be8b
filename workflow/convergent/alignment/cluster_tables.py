"""Cluster the units of a pair of nets from their stored correlations, as tables (section S.3)."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from convergent import ConvergentError
from convergent.activations.blocks import check_halves, half_correlations
from convergent.alignment.clustering import (
    add_dead,
    branch,
    checked_graph,
    cluster_similarity,
    kmeans,
    leaf_numbers,
)
from convergent.alignment.graphs import eigengap, embedding, spectrum
from convergent.nets.marks import check_same_images
from convergent.paper import PAPER_LEAVES
from convergent.running.progress import progress
from convergent.running.stores import open_store

# Seeds of k-means whose clusters are compared.
SEEDS = 5
# Columns of the table of stability.
STABILITY = [
    *("pair", "layer", "units", "dead", "isolated", "components", "k", "clusters", "leaves"),
    *("paper_leaves", "of_both", "of_a", "of_b", "seeds", "halves", "leaf_seeds", "leaf_halves"),
]

log = logging.getLogger(__name__)


class ClusteringError(ConvergentError, ValueError):
    """Correlations that cannot be clustered as configured; the message names the layer."""


class Options(NamedTuple):
    """Parameters of section S.3.

    Attributes
    ----------
    k : int or None
        First-level clusters of the live units; None: where the eigenvalues jump, among the
        lowest quarter of them.
    threshold, alpha : float
        tau and alpha of the paper.
    """

    k: int | None
    threshold: float
    alpha: float


class Clusters(NamedTuple):
    """Clusters of the units of one layer of two nets, those of the first net first.

    Attributes
    ----------
    cluster : ndarray of shape (unit,)
        First-level cluster; dead units have the last.
    leaf : ndarray of shape (unit,)
        Number of the leaf, see :func:`convergent.alignment.clustering.leaf_numbers`.
    path : list of str
        Path in the tree, see :func:`convergent.alignment.clustering.branch`.
    """

    cluster: NDArray[np.intp]
    leaf: NDArray[np.intp]
    path: list[str]


class LayerClusters(NamedTuple):
    """Clusters of a layer for several seeds of k-means, and the graph they come from.

    Attributes
    ----------
    by_seed : list of Clusters
        One for each seed.
    eigenvalues : ndarray of shape (number,)
        The smallest of the Laplacian of the live units: twice k, or the lowest quarter.
    counts : dict
        `dead` units, `isolated` ones (no edge) among the live, connected `components` of the
        live, and `k`.
    """

    by_seed: list[Clusters]
    eigenvalues: NDArray[np.float64]
    counts: dict[str, int]


class ClusterTables(NamedTuple):
    """Tables of the clusters of a pair of nets.

    Attributes
    ----------
    clusters : DataFrame
        ``clusters.csv``: layer, net, unit, cluster, leaf, path.
    similarity : DataFrame
        ``cluster_similarity.csv``: layer, leaf, units_a, units_b, between, within.
    eigenvalues : DataFrame
        ``eigenvalues.csv``: layer, number (from 1), eigenvalue.
    stability : DataFrame
        ``cluster_stability.csv``: pair, layer, units, dead, isolated, components, k; clusters (one
        more than k where there are dead units) and leaves, and the paper's leaves; how many
        leaves have live units of both nets (of_both), of the first only (of_a), of the second
        only (of_b); the adjusted Rand index, over live units, of the clusters of two seeds of
        k-means, mean over all pairs of seeds (seeds), and of the clusters of the first and of the
        last half of the images, NaN if a half has none (halves); both for the leaves (leaf_seeds,
        leaf_halves).
    """

    clusters: pd.DataFrame
    similarity: pd.DataFrame
    eigenvalues: pd.DataFrame
    stability: pd.DataFrame


def cluster_units(
    xx: NDArray, xy: NDArray, yy: NDArray, options: Options, seeds: Sequence[int]
) -> LayerClusters:
    """Find the spectral clusters of a layer and their leaves, for each seed of k-means.

    Parameters
    ----------
    xx, xy, yy : ndarray
        Correlations, as :func:`convergent.alignment.clustering.spectral_clusters` takes them; see
        there for errors.
    options : Options
    seeds : sequence of int
        Seeds of k-means.
    """
    graph, live = checked_graph(xx, xy, yy, options.k or 1, options.threshold)
    units, k = len(graph), 0
    counts = {"dead": units - len(live), "isolated": 0, "components": 0, "k": 0}
    points, eigenvalues = np.zeros((units, 1)), np.zeros(0)
    if len(live):
        number = len(live) // 4 + 1 if options.k is None else 2 * options.k
        low = spectrum(graph[np.ix_(live, live)], min(number, len(live)))
        # Where all of these are 0, each component is a cluster: `embedding` needs no vectors.
        k = min(options.k or eigengap(low), len(live))
        counts |= {"isolated": int((~graph[live].any(axis=1)).sum())}
        counts |= {"components": low.components, "k": k}
        points, eigenvalues = np.zeros((units, k)), low.eigenvalues
        points[live] = embedding(low, k)
    by_seed = []
    for seed in seeds:
        labels = add_dead(kmeans(points[live], k, seed), live, units)
        paths = branch(labels, points, graph, options.alpha * units, seed)
        by_seed.append(Clusters(labels, leaf_numbers(paths), paths))
    return LayerClusters(by_seed, eigenvalues, counts)


def measure_stability(
    layer: LayerClusters, halves: Sequence[Clusters], similarity: Mapping[str, NDArray]
) -> dict[str, float]:
    """Count the clusters of a layer and measure how far they depend on seeds and images.

    Parameters
    ----------
    layer : LayerClusters
        Clusters of the layer on all images.
    halves : sequence of Clusters
        Clusters on each half of the images; empty if a half has none.
    similarity : mapping of str to ndarray
        Similarity in the leaves, see :func:`convergent.alignment.clustering.cluster_similarity`.

    Returns
    -------
    dict of str to float
        Columns of :attr:`ClusterTables.stability` from `dead` on, except `paper_leaves`.
    """
    first = layer.by_seed[0]
    has_a, has_b = (
        similarity[name] * (similarity["within"] > 0) > 0 for name in ("units_a", "units_b")
    )
    row: dict[str, float] = dict(layer.counts)
    row |= {"clusters": first.cluster.max() + 1, "leaves": len(has_a)}
    row |= {"of_both": (has_a & has_b).sum()}
    row |= {"of_a": (has_a & ~has_b).sum(), "of_b": (has_b & ~has_a).sum()}
    # Dead units have the last cluster, if there are any.
    live = first.cluster < row["clusters"] - (layer.counts["dead"] > 0)
    row["seeds"] = _agreement([each.cluster[live] for each in layer.by_seed])
    row["halves"] = _agreement([each.cluster[live] for each in halves])
    row["leaf_seeds"] = _agreement([each.leaf[live] for each in layer.by_seed])
    row["leaf_halves"] = _agreement([each.leaf[live] for each in halves])
    return row


def cluster_tables(
    pair: str,
    clusters: Mapping[str, int | str],
    threshold: float,
    alpha: float,
    seed: int,
    statistics_a: str | Path,
    statistics_b: str | Path,
    correlation: str | Path,
) -> ClusterTables:
    """Cluster the units of every layer of a pair of nets.

    Parameters
    ----------
    pair : str
        Names of the nets, joined by a hyphen.
    clusters : mapping of layer to int or "auto"
        Number of first-level clusters.
    threshold, alpha : float
        tau and alpha of section S.3.
    seed : int
        Seed of k-means; the stability over seeds compares :data:`SEEDS` of them, from this one on.
    statistics_a, statistics_b, correlation : path
        Stores of the nets and of the pair.

    Raises
    ------
    ClusteringError
        If a layer's graph has no edge at this threshold.
    """
    paths = (statistics_a, correlation, statistics_b)
    stores = [open_store(path) for path in paths]
    check_same_images(dict(zip(paths, stores, strict=True)), other_views=True)

    def pairs_of_units(layer: str) -> int:
        return stores[1][f"{layer}/correlation"].size

    layers = []
    for layer in progress(clusters, f"{pair}/clusters", "pair", pairs_of_units):
        k = clusters[layer]
        options = Options(None if isinstance(k, str) else k, threshold, alpha)
        groups = [store[layer] for store in stores]
        try:
            layers.append(_layer_tables(pair, layer, groups, options, seed))
        except ValueError as error:
            raise ClusteringError(f"clustering of {layer}, {pair}: {error}") from error
    return ClusterTables(
        *(pd.concat(tables, ignore_index=True) for tables in zip(*layers, strict=True))
    )


def _layer_tables(
    pair: str, layer: str, groups: Sequence[zarr.Group], options: Options, seed: int
) -> ClusterTables:
    """Cluster one layer, given its groups of the first net, of the pair and of the second net."""
    xx, xy, yy = (group["correlation"][...] for group in groups)
    found = cluster_units(xx, xy, yy, options, range(seed, seed + SEEDS))
    first = found.by_seed[0]
    similarity = cluster_similarity(first.leaf, xx, xy, yy)
    units = [len(xx), len(yy)]
    del xx, xy, yy  # before those of the halves
    halves = _cluster_halves(groups, options._replace(k=max(found.counts["k"], 1)), seed)
    row = {"pair": pair, "layer": layer, "units": sum(units)}
    row |= measure_stability(found, halves, similarity) | {"paper_leaves": PAPER_LEAVES.get(layer)}
    return ClusterTables(
        clusters=pd.DataFrame(
            {
                "layer": layer,
                "net": np.repeat(pair.split("-"), units),
                "unit": np.concatenate([*map(np.arange, units)]),
                **first._asdict(),
            }
        ),
        similarity=pd.DataFrame(
            {"layer": layer, "leaf": np.arange(len(similarity["within"])), **similarity}
        ),
        eigenvalues=pd.DataFrame(
            {
                "layer": layer,
                "number": np.arange(1, len(found.eigenvalues) + 1),
                "eigenvalue": found.eigenvalues,
            }
        ),
        stability=pd.DataFrame([row])[STABILITY],
    )


def _cluster_halves(groups: Sequence[zarr.Group], options: Options, seed: int) -> list[Clusters]:
    """Cluster a layer on each half of the images; the list is empty if a half has no edge."""
    check_halves(groups)
    try:
        return [
            cluster_units(xx, xy, yy, options, [seed]).by_seed[0]
            for xx, xy, yy in zip(*map(half_correlations, groups), strict=True)
        ]
    except ValueError as error:
        log.warning("no stability over halves of the images: %s", error)
        return []


def _agreement(labels: Sequence[NDArray]) -> float:
    """Average the adjusted Rand index over all pairs of labellings; NaN if there is no pair."""
    indices = [adjusted_rand_score(*both) for both in itertools.combinations(labels, 2)]
    return np.mean(indices) if indices else np.nan
