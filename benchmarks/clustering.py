"""Spectral clusters, beside a decomposition of the whole graph and scikit-learn's k-means.

Correlations of two nets whose units are noisy copies of shared features, at the paper's sizes; runs
are interleaved, figures are medians.

    uv run python benchmarks/clustering.py [--wide 4096] [--repeats 3]
"""

import argparse
import os
import statistics
import time

os.environ.pop("OPENBLAS_CORETYPE", None)

import numpy as np
from scipy.linalg import eigh
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_info, threadpool_limits

from convergent.alignment.clustering import kmeans, spectral_clusters
from convergent.alignment.graphs import combined_graph


def nets(units: int, features: int, noise: float) -> tuple[tuple, np.ndarray]:
    """Correlations within, between and within, and the feature of each unit."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, features, 2 * units)
    values = rng.normal(size=(features, 2000))[group] + noise * rng.normal(size=(2 * units, 2000))
    c = np.corrcoef(values)
    return (c[:units, :units], c[:units, units:], c[units:, units:]), group


def whole_graph(xx, xy, yy, k, threshold):
    """Cluster without components: one decomposition by subset, then k-means."""
    graph = combined_graph(xx, xy, yy, threshold)
    vectors = eigh(np.diag(graph.sum(axis=0)) - graph, subset_by_index=[0, k - 1])[1]
    return KMeans(k, n_init=10, random_state=0).fit_predict(vectors)


def time_kmeans(repeats: int) -> None:
    """Time k-means beside scikit-learn's, whose labels are the same, in processor time."""
    rng = np.random.default_rng(0)
    print(f"{'points':>10} {'k':>13} {'ms':>8} {'its/ours':>10}")
    for number, k in ((20, 4), (48, 10), (128, 20), (256, 40), (1024, 100)):
        points = rng.normal(size=(number, k))
        times: list[tuple[float, float]] = []
        for _ in range(repeats):
            clock = time.process_time()
            kmeans(points, k, 0)
            middle = time.process_time()
            with threadpool_limits(1):
                KMeans(k, n_init=10, random_state=0).fit_predict(points)
            times.append((middle - clock, time.process_time() - middle))
        ours, its = (statistics.median(t) for t in zip(*times, strict=True))
        print(f"{number:>10} {k:>13} {1000 * ours:8.1f} {its / ours:10.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wide", type=int, default=4096, help="units of the widest layer")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    info = [i for i in threadpool_info() if i["user_api"] == "blas"]
    print("BLAS:", ", ".join(f"{i['internal_api']} {i.get('architecture')}" for i in info))
    print(f"{'units':>10} {'graph':>13} {'seconds':>8} {'whole/ours':>10} {'ARI':>6}")
    for units, k in ((96, 40), (256, 100), (384, 100), (arguments.wide, 100)):
        for graph, noise, threshold in (("in components", 1.0, 0.2), ("connected", 1.5, 0.0)):
            matrices, truth = nets(units, k, noise)
            repeats = arguments.repeats if units < 1000 else 1
            times: list[tuple[float, float]] = []
            for _ in range(repeats):
                clock = time.perf_counter()
                labels = spectral_clusters(*matrices, k, threshold, 0)
                middle = time.perf_counter()
                whole_graph(*matrices, k, threshold)
                times.append((middle - clock, time.perf_counter() - middle))
            ours, whole = (statistics.median(t) for t in zip(*times, strict=True))
            index = adjusted_rand_score(truth, labels)
            print(f"{f'2 x {units}':>10} {graph:>13} {ours:8.2f} {whole / ours:10.1f} {index:6.2f}")
    time_kmeans(3 * arguments.repeats)


if __name__ == "__main__":
    main()
