"""Mutual information of all pairs of units, beside the loops one would write.

60,000 samples of units that are active 28% of the time, discretised as in the paper. The loops
are timed on a part of the pairs and scaled; runs are interleaved, figures are medians. The bound
is what bare increments at random places of a histogram would take on as many cores.

    uv run python benchmarks/mutual_information.py [--units 96 256 384] [--wide 4096]
"""

import argparse
import os
import statistics
import time

os.environ.pop("OPENBLAS_CORETYPE", None)

import numba
import numpy as np
from sklearn.metrics import mutual_info_score

from convergent.activations.codes import discretize
from convergent.measures.histograms import mutual_information
from convergent.running.devices import cores, peak_memory

SAMPLES, ACTIVE = 60_000, 0.28
THREADS = cores()


def activations(units: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = np.empty((SAMPLES, units), np.float16)
    sources = rng.normal(size=(SAMPLES, 30)).astype(np.float32)
    for start in range(0, units, 256):
        width = min(256, units - start)
        part = sources @ rng.normal(scale=0.2, size=(30, width)).astype(np.float32)
        part += rng.standard_normal(size=part.shape, dtype=np.float32)
        part -= np.quantile(part[:5000], 1 - ACTIVE, axis=0)
        x[:, start : start + width] = np.maximum(part, 0)
    return x


def seconds(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def scikit_learn(a: np.ndarray, b: np.ndarray) -> float:
    return mutual_info_score(a, b)


def histogram2d(a: np.ndarray, b: np.ndarray) -> float:
    return information(np.histogram2d(a, b, bins=[np.arange(22), np.arange(22)])[0])


def bincount(a: np.ndarray, b: np.ndarray) -> float:
    # Codes made wide once per pair, as it must be for one of the two.
    return information(np.bincount(a.astype(np.int64) * 32 + b, minlength=1024).reshape(32, 32))


def information(counts: np.ndarray) -> float:
    p = counts / counts.sum()
    outer = np.outer(p.sum(1), p.sum(0))
    some = p > 0
    return float((p[some] * np.log(p[some] / outer[some])).sum())


@numba.njit
def increments(cells, histogram):
    for i in range(np.uint64(cells.size)):
        histogram[cells[i]] += 1


LOOPS = {
    "scikit-learn": (scikit_learn, 30),
    "histogram2d": (histogram2d, 10),
    "bincount": (bincount, 60),
}


def compare(units: int, runs: int) -> None:
    codes = discretize(activations(units))[0]
    columns, other = np.ascontiguousarray(codes.T), codes.copy()
    active = (codes > 0).mean()
    cells = np.random.default_rng(0).integers(0, 1024, 10_000_000).astype(np.uint16)
    histogram = np.zeros(1024, np.uint16)
    increments(cells, histogram)
    result = mutual_information(codes, other, threads=THREADS)
    times: dict[str, list[float]] = {name: [] for name in ("ours", "bound", *LOOPS)}
    for _ in range(runs):
        times["ours"].append(seconds(lambda: mutual_information(codes, other, threads=THREADS)))
        per_increment = seconds(increments, cells, histogram) / len(cells)
        times["bound"].append(per_increment * units**2 * active * SAMPLES / THREADS)
        for name, (loop, part) in LOOPS.items():
            pairs = [(columns[0], columns[j % units]) for j in range(part)]
            taken = seconds(lambda loop=loop, pairs=pairs: [loop(*pair) for pair in pairs])
            times[name].append(taken / part * units**2)
    assert abs(result[0, 1] - mutual_info_score(columns[0], columns[1])) < 1e-10
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{units} x {units} units, {active:.0%} active: {medians['ours']:.2f} s", end="")
    print(f", {medians['bound'] / medians['ours']:.2f} of the bound of bare increments", end="")
    for name in LOOPS:
        ratio = statistics.median(a / b for a, b in zip(times[name], times["ours"], strict=True))
        print(f", {ratio:.0f} x {name}", end="")
    print()


def wide(units: int) -> None:
    x = activations(units)
    start = time.perf_counter()
    codes = discretize(x)[0]
    del x
    discretised = time.perf_counter()
    mutual_information(codes, codes.copy(), threads=THREADS)
    end = time.perf_counter()
    peak = peak_memory() / 2**30
    print(
        f"{units} x {units} units, {(codes > 0).mean():.0%} active: discretised in "
        f"{discretised - start:.0f} s, all pairs in {end - discretised:.0f} s, peak {peak:.1f} GB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, nargs="*", default=[96, 256, 384])
    parser.add_argument("--wide", type=int, default=4096)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    print(f"{SAMPLES} samples, {THREADS} threads, numba {numba.__version__}")
    if options.wide:
        wide(options.wide)
    for units in options.units:
        compare(units, options.runs)


if __name__ == "__main__":
    main()
