"""Statistics of sparse maps and of clusters, to be compared with chance as those of units are.

They take a fit or a clustering for each draw of a null, so they are computed by name only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.linalg import lstsq

from convergent.activations.moments import Moments
from convergent.alignment.cluster_tables import Options, cluster_units
from convergent.alignment.clustering import cluster_similarity
from convergent.alignment.graphs import combined_graph
from convergent.alignment.lasso import lasso_path, loss
from convergent.alignment.sparse_maps import nearest_decay
from convergent.inference.significance import significance_tables
from convergent.inference.similarity import Stores, similarity_table
from convergent.measures.registry import Measure, Undefined
from convergent.measures.spectra import Gradient


def map_loss(decays: Sequence[float], penalty: float, *, threads: int = 1) -> Measure:
    """Make the statistic of the sparse maps: their loss at the decay that figures show.

    Parameters
    ----------
    decays : sequence of float
        Decays that are fitted, of which the one nearest to the penalty is taken
        (:func:`convergent.alignment.sparse_maps.nearest_decay`).
    penalty : float
        Penalty alpha = decay * (number of target units).
    threads : int
        Targets to solve at once.

    Returns
    -------
    Measure
        The mean over target units of the loss of ``mapping.csv``: half of the variance that is not
        explained, 0.5 for a dead unit. Direction ab predicts the second net from the first. Lower
        is more alike.
    """

    def fit(between: Moments, within_a: Moments, within_b: Moments) -> NDArray[np.float64]:
        alpha = _alpha(decays, penalty, between)
        return lasso_path(within_a.correlation(), between.correlation(), [alpha], threads=threads)[
            0
        ]

    def score(
        between: Moments, within_a: Moments, within_b: Moments, weights: NDArray[np.float64]
    ) -> float:
        return float(loss(weights, within_a.correlation(), between.correlation()).mean())

    def gradient(between: Moments, within_a: Moments, within_b: Moments) -> Gradient:
        weights = fit(between, within_a, within_b)
        value = score(between, within_a, within_b, weights)
        [w], alpha = weights, _alpha(decays, penalty, between)
        v = _shrinkage(w, within_a.correlation(), alpha)
        by_cross = -(w + v).T / len(w)
        by_gram = w.T @ (w / 2 + v) / len(w)
        moments = between, within_a, within_b
        return _by_covariances(value, by_cross, (by_gram + by_gram.T) / 2, moments)

    return Measure(
        name="map_loss",
        label="loss of the sparse maps",
        unit="",
        needs="moments",
        gives="layers",
        range=(0, np.inf),
        invariances=frozenset({"permutation", "scaling", "isotropic_scaling", "shift", "sign"}),
        symmetric=False,
        higher_is_more_alike=False,
        source="Li et al. 2016, section 4",
        choose=fit,
        score=score,
        gradient=gradient,
    )


def cluster_between(options: Options, seed: int = 0) -> Measure:
    """Make the statistic of the spectral clusters: the similarity between nets in their leaves.

    Parameters
    ----------
    options : Options
        Number of clusters, tau and alpha of section S.3.
    seed : int
        Seed of k-means.

    Returns
    -------
    Measure
        The mean of the column `between` of ``cluster_similarity.csv`` over the leaves that have
        live units of both nets; 0 if there are none.
    """

    def cluster(between: Moments, within_a: Moments, within_b: Moments) -> NDArray[np.intp]:
        three = (within_a.correlation(), between.correlation(), within_b.correlation())
        if not any(map(np.any, three)):
            raise Undefined("no unit of the layers varies")
        if not combined_graph(*three, options.threshold).any():
            # No two units are alike, as may be by chance: each is a leaf.
            return np.arange(len(within_a.var_x) + len(within_b.var_x))
        return cluster_units(*three, options, [seed]).by_seed[0].leaf

    def score(
        between: Moments, within_a: Moments, within_b: Moments, leaves: NDArray[np.intp]
    ) -> float:
        found = cluster_similarity(
            leaves, within_a.correlation(), between.correlation(), within_b.correlation()
        )
        # Leaves of dead units have no similarity within a net.
        both = (found["units_a"] > 0) & (found["units_b"] > 0) & (found["within"] > 0)
        return float(found["between"][both].mean()) if both.any() else 0.0

    return Measure(
        name="cluster_between",
        label="similarity between nets in clusters",
        unit="",
        needs="moments",
        gives="layers",
        range=(-1, 1),
        invariances=frozenset({"permutation", "scaling", "isotropic_scaling", "shift"}),
        symmetric=True,
        higher_is_more_alike=True,
        source="Li et al. 2016, section S.3.5",
        choose=cluster,
        score=score,
    )


def significance_of_maps(
    clusters: Mapping[str, int | str],
    stores: Stores,
    *,
    decays: Sequence[float],
    penalty: float,
    threshold: float,
    alpha: float,
    cluster_seed: int = 0,
    nulls: Mapping[str, Any] | None = None,
    threads: int = 1,
) -> pd.DataFrame:
    """Compare the sparse maps and the clusters of each layer of a pair of nets with chance.

    Parameters
    ----------
    clusters : mapping of layer to int or "auto"
        Layers, each with its number of first-level clusters.
    stores : Stores
    decays, penalty
        See :func:`map_loss`.
    threshold, alpha : float
        tau and alpha of section S.3.
    cluster_seed : int
        Seed of k-means.
    nulls : mapping, optional
        Number of draws `maps` of each null, their `seed`, and the `level` of its upper end.
    threads : int
        Targets of a map to fit at once.

    Returns
    -------
    DataFrame
        Rows of ``significance_maps.csv``, with the columns of ``significance.csv``
        (:func:`convergent.inference.significance.significance_tables`). Values are
        those of ``mapping.csv`` and ``cluster_similarity.csv`` (see :func:`map_loss` and
        :func:`cluster_between`); `held_out` is scored on the half of the images on which maps were
        not fitted, or clusters not found. Every draw is fitted and clustered anew. Intervals follow
        the fit to first order, and hold the clusters fixed.

    Raises
    ------
    StoreError
        If the stores are of different images.
    """
    asked = dict(nulls or {})
    draws = asked.pop("maps", 0)
    asked |= {"rotation": draws, "images": draws, "information": 0}
    losses = map_loss(decays, penalty, threads=threads)
    rows, drawn = [], []
    for layer, k in clusters.items():
        options = Options(None if isinstance(k, str) else k, threshold, alpha)
        statistics = [losses, cluster_between(options, cluster_seed)]
        found = similarity_table((), [layer], stores, statistics=statistics, nulls=asked)
        # Both are of correlations.
        rows += [row | {"parameter": "correlation"} for row in found.statistics]
        drawn += [draw | {"parameter": "correlation"} for draw in found.draws]
    level = asked.get("level", 0.95)
    return significance_tables(rows, drawn, level, of=statistics)[0]


def _alpha(decays: Sequence[float], penalty: float, between: Moments) -> float:
    """Return the penalty at the decay that figures show, for the target units of these moments."""
    targets = len(between.var_y)
    return float(decays[nearest_decay(decays, targets, penalty)] * targets)


def _shrinkage(w: NDArray, gram: NDArray, alpha: float) -> NDArray[np.float64]:
    """Compute how much larger the weights on each support would be without their penalty.

    On the support S of a target, with the signs s, the weights are C_SS^-1 (r_S - alpha s), and
    this is alpha C_SS^-1 s: by as much they move towards the correlations when those change.
    """
    found = np.zeros_like(w)
    for row, weights in zip(found, w, strict=True):
        support = np.flatnonzero(weights)
        if len(support):
            within = gram[np.ix_(support, support)]
            row[support] = lstsq(within, alpha * np.sign(weights[support]), check_finite=False)[0]
    return found


def _by_covariances(
    value: float, by_cross: NDArray, by_gram: NDArray, moments: tuple[Moments, Moments, Moments]
) -> Gradient:
    """Turn derivatives by correlations into derivatives by covariances.

    Parameters
    ----------
    value : float
    by_cross, by_gram : ndarray of shape (source, target), (source, source)
        Derivatives by the correlations of sources with targets, and by those of the sources, which
        are symmetric.
    moments : (Moments, Moments, Moments)
        Between the layers, within the sources and within the targets.
    """
    between, within_a, _ = moments
    a, b = (_inverse(within.var_x) for within in moments[1:])
    # A correlation falls as the variance of either unit grows.
    cross = by_cross * between.correlation()
    gram = by_gram * within_a.correlation()
    by_a = by_gram * np.sqrt(np.outer(a, a))
    by_a[np.diag_indices(len(a))] -= (cross.sum(axis=1) / 2 + gram.sum(axis=1)) * a
    by_b = np.diag(-cross.sum(axis=0) / 2 * b)
    return Gradient(value, by_cross * np.sqrt(np.outer(a, b)), by_a, by_b)


def _inverse(variances: NDArray) -> NDArray[np.float64]:
    return np.divide(1, variances, out=np.zeros_like(variances), where=variances > 0)
