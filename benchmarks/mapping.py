"""Exact sparse maps of a whole layer, beside scikit-learn's solvers and the paper's SGD.

Twelve penalties, every target certified to a relative duality gap of 1e-6. scikit-learn's stop at
1e-6 of the target's variance, which is never tighter. Loops over targets are timed on a part of
them and scaled; runs are interleaved, figures are medians.

    uv run python benchmarks/mapping.py [--units 384] [--wide 4096] [--pair results/RUN net1-net2]
"""

import argparse
import os
import statistics
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.pop("OPENBLAS_CORETYPE", None)

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from sklearn.linear_model import lasso_path as lasso_path_of_scikit_learn
from sklearn.linear_model._cd_fast import enet_coordinate_descent_gram
from threadpoolctl import threadpool_info, threadpool_limits

from convergent.alignment.lasso import lasso_path, sgd
from convergent.alignment.sparse_maps import _second_moments
from convergent.running.devices import cores, peak_memory
from convergent.running.stores import open_store

THREADS = cores()
TOLERANCE, STEPS, SAMPLES = 1e-6, 12, 20_000
SPECTRA = {"not": 0.0, "weakly": 0.3, "strongly": 1.0, "very strongly": 2.0}


def standardized(x: np.ndarray) -> np.ndarray:
    x = np.maximum(x, 0)
    return ((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32)


def problem(units: int, correlated: float, samples: int = SAMPLES) -> tuple:
    """Correlations after a ReLU, with spectrum i**-correlated; a rotated net is the target."""
    rng = np.random.default_rng(0)
    spectrum = (1.0 + np.arange(units)) ** (-correlated / 2)
    rotation = np.linalg.qr(rng.normal(size=(units, units)))[0]
    x = rng.standard_normal(size=(samples, units), dtype=np.float32)
    x = x @ (spectrum[:, None] * rotation.T).astype(np.float32)
    sparse = (rng.random((units, units)) < 8 / units) * rng.normal(size=(units, units))
    y = x @ sparse.astype(np.float32)
    y += y.std() * rng.standard_normal(size=y.shape, dtype=np.float32) / 2
    x, y = standardized(x), standardized(y)
    return tuple((x.T @ z / samples).astype(np.float64) for z in (x, y))


def by_path(gram, cross, alphas, targets) -> None:
    """scikit-learn's `lasso_path`, with a Cholesky factor as pseudo-data."""
    units = len(gram)
    factor = cholesky(gram + 1e-10 * np.eye(units), lower=True)
    x = np.asfortranarray(factor.T) * units**0.5
    y = solve_triangular(factor, cross[:, targets], lower=True) * units**0.5
    for column in y.T:
        lasso_path_of_scikit_learn(x, column, alphas=alphas, tol=TOLERANCE, max_iter=100_000)


def by_gram(gram, cross, alphas, targets) -> None:
    """scikit-learn's Gram solver, warm starts, targets spread over threads."""

    def solve(target: int) -> None:
        w, q = np.zeros(len(gram)), np.ascontiguousarray(cross[:, target])
        for alpha in alphas:
            w = enet_coordinate_descent_gram(
                w, alpha, 0.0, gram, q, np.ones(1), 100_000, TOLERANCE,
                np.random.RandomState(0), False, False,
            )[0]  # fmt: skip

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(solve, targets))


def seconds(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def compare(name: str, gram, cross, alphas, runs: int) -> None:
    units = cross.shape[1]
    part = np.random.default_rng(1).permutation(units)
    times = {"ours": [], "path": [], "gram": []}
    for _ in range(runs):
        times["ours"].append(seconds(lambda: lasso_path(gram, cross, alphas, TOLERANCE)))
        with threadpool_limits(1, user_api="blas"):
            for way, solve, most in (("path", by_path, 24), ("gram", by_gram, 96)):
                chosen = part[: min(units, most)]
                taken = seconds(solve, gram, cross, alphas, chosen)
                times[way].append(taken * units / len(chosen))
    weights, gaps = lasso_path(gram, cross, alphas, TOLERANCE)
    used = np.count_nonzero(weights, axis=2).mean(axis=1)
    ratio = {k: statistics.median(np.divide(times[k], times["ours"])) for k in ("path", "gram")}
    print(
        f"{name}: {len(gram)} x {units} units, {used[0]:.0f} to {used[-1]:.0f} weights each, gap "
        f"{gaps.max():.1e}: {statistics.median(times['ours']):.2f} s, {ratio['path']:.1f} x "
        f"lasso_path, {ratio['gram']:.1f} x enet_coordinate_descent_gram in {THREADS} threads",
        flush=True,
    )


def wide(units: int) -> None:
    """fc6's size, six decays, from a spectrum like that of a real layer; and least squares."""
    gram, cross = problem(units, 0.8, samples=2 * units)
    alphas = np.array([0.4, 0.2, 0.1, 0.05, 0.025, 0.0])
    start = time.perf_counter()
    weights, gaps = lasso_path(gram, cross, alphas)
    taken = time.perf_counter() - start
    used = np.count_nonzero(weights, axis=2).mean(axis=1)
    peak = peak_memory() / 2**30
    print(
        f"{units} units, six decays, {used[0]:.1f} to {used[-2]:.0f} weights per unit and least "
        f"squares, gap {gaps.max():.1e}: {taken:.0f} s, peak {peak:.1f} GB",
        flush=True,
    )


def steps_of_sgd(units: int, positions: int, steps: int = 20) -> None:
    """Time the paper's 4,500 steps of 32 images at AlexNet's conv sizes, six decays at once."""
    rng = np.random.default_rng(0)
    x, y = (
        np.maximum(rng.standard_normal(size=(32 * positions, units), dtype=np.float32), 0).astype(
            np.float16
        )
        for _ in range(2)
    )
    scale = np.full(units, 0.4), np.full(units, 0.6)
    taken = seconds(
        lambda: sgd((_second_moments(x, y, scale, scale) for _ in range(steps)), range(6))
    )
    print(
        f"SGD, {units} units at {positions} positions, decoded batches: 4,500 steps take "
        f"{taken / steps * 4500 / 60:.0f} minutes",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=384)
    parser.add_argument("--wide", type=int, default=4096)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--pair", nargs=2, metavar=("RESULTS", "PAIR"), help="a pair of a real run")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    libraries = {
        f"{i['internal_api']} {i['version']} {i.get('architecture')}" for i in threadpool_info()
    }
    print(f"{THREADS} threads, {', '.join(sorted(libraries))}")
    if options.wide:
        wide(options.wide)
    lasso_path(np.eye(3), np.eye(3) / 2, [0.1])
    if options.units:
        for name, correlated in SPECTRA.items():
            gram, cross = problem(options.units, correlated)
            for top in (0.4, 0.04):
                alphas = np.geomspace(top, top / 100, STEPS)
                compare(f"{name} correlated, from alpha {top:g}", gram, cross, alphas, options.runs)
        for units, positions in ((96, 55 * 55), (256, 27 * 27), (384, 13 * 13)):
            steps_of_sgd(units, positions)
    if options.pair:
        folder, pair = Path(options.pair[0]), options.pair[1]
        source = open_store(folder / f"statistics/{pair.split('-')[0]}.zarr")
        between = open_store(folder / f"pairs/{pair}/correlation.zarr")
        for layer, group in sorted(between.groups()):
            gram = np.float64(source[f"{layer}/correlation"][...])
            cross = np.float64(group["correlation"][...])
            alphas = cross.shape[1] * np.geomspace(1e-2, 1e-5, STEPS)
            compare(f"{pair}, {layer}", gram, cross, alphas, options.runs)


if __name__ == "__main__":
    main()
