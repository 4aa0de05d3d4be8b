"""Spectral clusters of a pair of nets, from stored correlations, as tables (section S.3)."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
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
    branch,
    checked_graph,
    cluster_similarity,
    kmeans,
    leaf_numbers,
    with_dead,
)
from convergent.alignment.graphs import eigengap, embedding, spectrum
from convergent.nets.marks import check_same_images
from convergent.paper import PAPER_LEAVES
from convergent.running.progress import progress
from convergent.running.stores import open_store

# Seeds of k-means whose clusters are compared.
SEEDS = 5

log = logging.getLogger(__name__)


class ClusteringError(ConvergentError, ValueError):
    """Correlations that cannot be clustered as configured; the message names the layer."""


class Clusters(NamedTuple):
    """Clusters of the units of one layer of two nets, those of the first net first.

    Attributes
    ----------
    cluster : ndarray of shape (unit,)
        First-level cluster; dead units have the last.
    path : list of str
        As :func:`convergent.alignment.clustering.branch` gives it.
    leaf : ndarray of shape (unit,)
    """

    cluster: NDArray[np.intp]
    path: list[str]
    leaf: NDArray[np.intp]


def cluster_units(
    matrices: Sequence[NDArray], k: int | None, threshold: float, alpha: float, seeds: Sequence[int]
) -> tuple[list[Clusters], NDArray[np.float64], dict[str, int]]:
    """Spectral clusters of a layer and their leaves, for each seed of k-means.

    Parameters
    ----------
    matrices : (xx, xy, yy)
        As :func:`convergent.alignment.clustering.spectral_clusters` takes them; see there for
        errors.
    k : int or None
        None: where the eigenvalues jump, among the lowest quarter of them.
    threshold, alpha : float
        tau and alpha of section S.3.
    seeds : sequence of int

    Returns
    -------
    clusters : list of Clusters
        One for each seed.
    eigenvalues : ndarray of shape (number,)
        The smallest of the Laplacian of the live units: twice k, or the lowest quarter.
    counts : dict
        `dead` units, `isolated` ones (no edge) among the live, connected `components` of the live,
        and `k`.
    """
    graph, live = checked_graph(*matrices, k or 1, threshold)
    units = len(graph)
    counts = {"dead": units - len(live), "isolated": 0, "components": 0, "k": 0}
    points, eigenvalues = np.zeros((units, 1)), np.zeros(0)
    if len(live):
        number = len(live) // 4 + 1 if k is None else 2 * k
        low = spectrum(graph[np.ix_(live, live)], min(number, len(live)))
        # Where all of these are 0, each component is a cluster: `embedding` needs no vectors.
        k = min(k or eigengap(low), len(live))
        counts |= {"isolated": int((~graph[live].any(axis=1)).sum())}
        counts |= {"components": low.components, "k": k}
        points, eigenvalues = np.zeros((units, k)), low.eigenvalues
        points[live] = embedding(low, k)
    found = []
    for seed in seeds:
        labels = with_dead(kmeans(points[live], counts["k"], seed), live, units)
        paths = branch(labels, points, graph, alpha * units, seed)
        found.append(Clusters(labels, paths, leaf_numbers(paths)))
    return found, eigenvalues, counts


def cluster_tables(
    pair: str,
    clusters: dict[str, int | str],
    threshold: float,
    alpha: float,
    seed: int,
    statistics_a: str | Path,
    statistics_b: str | Path,
    correlation: str | Path,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Spectral clusters of every layer of a pair of nets.

    Parameters
    ----------
    pair : str
        Names of the nets, joined by a hyphen.
    clusters : mapping of layer to int or "auto"
        First-level clusters.
    threshold, alpha : float
        tau and alpha of section S.3.
    seed : int
        Of k-means; the stability over seeds takes the :data:`SEEDS` that follow from it.
    statistics_a, statistics_b, correlation : path
        Stores of the nets and of the pair.

    Returns
    -------
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
        k-means, mean over all pairs of seeds, and of the clusters found on the first and
        on the last half of the images, NaN if there are none (seeds, halves); both for the
        leaves (leaf_seeds, leaf_halves).

    Raises
    ------
    ClusteringError
        If a layer's graph has no edge at this threshold.
    """
    paths = (statistics_a, correlation, statistics_b)
    stores = [open_store(path) for path in paths]
    check_same_images(dict(zip(paths, stores, strict=True)), other_views=True)
    nets = pair.split("-")
    tables: tuple[list, ...] = ([], [], [], [])

    def pairs(layer: str) -> int:
        return stores[1][f"{layer}/correlation"].size

    for layer in progress(clusters, f"{pair}/clusters", "pair", pairs):
        k = clusters[layer]
        groups = [store[layer] for store in stores]
        options = (None if k == "auto" else k, threshold, alpha)
        try:
            matrices = [group["correlation"][...] for group in groups]
            seeds = range(seed, seed + SEEDS)
            found, eigenvalues, counts = cluster_units(matrices, *options, seeds)
            similarity = cluster_similarity(found[0].leaf, *matrices)
            units = [len(matrices[0]), len(matrices[2])]
            del matrices  # before those of the halves
            options = (max(counts["k"], 1), threshold, alpha)
            halves = _halves(groups, options, seed)
        except ValueError as error:
            raise ClusteringError(f"clustering of {layer}, {pair}: {error}") from error
        of_unit = {"net": np.repeat(nets, units), "unit": np.concatenate([*map(np.arange, units)])}
        tables[0].append(pd.DataFrame({"layer": layer, **of_unit, **found[0]._asdict()}))
        number = np.arange(len(similarity["between"]))
        tables[1].append(pd.DataFrame({"layer": layer, "leaf": number, **similarity}))
        number = np.arange(1, len(eigenvalues) + 1)
        tables[2].append(
            pd.DataFrame({"layer": layer, "number": number, "eigenvalue": eigenvalues})
        )
        first, second = (similarity[f"units_{n}"] * (similarity["within"] > 0) > 0 for n in "ab")
        row = {"pair": pair, "layer": layer, "units": sum(units)} | counts
        row |= {"clusters": found[0].cluster.max() + 1, "leaves": len(first)}
        row |= {"paper_leaves": PAPER_LEAVES.get(layer)}
        row |= {"of_both": (first & second).sum()}
        row |= {"of_a": (first & ~second).sum(), "of_b": (second & ~first).sum()}
        live = found[0].cluster < found[0].cluster.max() + (counts["dead"] == 0)
        for prefix, field in (("", "cluster"), ("leaf_", "leaf")):
            for name, several in (("seeds", found), ("halves", halves)):
                pairs = itertools.combinations([getattr(c, field)[live] for c in several], 2)
                indices = [adjusted_rand_score(*both) for both in pairs]
                row[f"{prefix}{name}"] = np.mean(indices) if indices else np.nan
        tables[3].append(pd.DataFrame([row]))
    clusters, similarity, eigenvalues, stability = (
        pd.concat(frames, ignore_index=True) for frames in tables
    )
    clusters = clusters[["layer", "net", "unit", "cluster", "leaf", "path"]]
    return clusters, similarity, eigenvalues, stability


def _halves(groups: Sequence[zarr.Group], options: tuple, seed: int) -> list[Clusters]:
    """Cluster a layer on the first and on the last half of the images; none without edges."""
    check_halves(groups)
    try:
        return [
            cluster_units(half, *options, [seed])[0][0]
            for half in zip(*map(half_correlations, groups), strict=True)
        ]
    except ValueError as error:
        log.warning("no stability over halves of the images: %s", error)
        return []
