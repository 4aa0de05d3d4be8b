"""Between-net correlations streamed from two stores, beside two ways one would write them.

At AlexNet's conv2 size: 256 units, maps of 27 x 27, ReLU activations in float16. Runs are
interleaved, ratios are medians. `--memory` instead prints the peak memory of one way alone,
for 1x, 2x and 4x the images.

    uv run python benchmarks/correlation.py
    uv run python benchmarks/correlation.py --memory
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from functools import reduce
from pathlib import Path

os.environ.pop("OPENBLAS_CORETYPE", None)

import dask
import dask.array as da
import numpy as np
import threadpoolctl
import zarr

from convergent.activations import open_store
from convergent.moments import Moments
from convergent.moments import correlation as correlate
from convergent.statistics import block_moments
from convergent.stores import create, new_store, read

UNITS, SIDE = 256, 27
THREADS = len(os.sched_getaffinity(0))


def streamed(x: zarr.Array, y: zarr.Array) -> np.ndarray:
    return reduce(Moments.merge, block_moments(x, y, threads=THREADS)).correlation()


def dask_float64(x: zarr.Array, y: zarr.Array) -> np.ndarray:
    x, y = (da.from_zarr(a).reshape(-1, UNITS).astype(np.float64) for a in (x, y))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    product = da.tensordot(x, y, axes=(0, 0)) / len(x)
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        product, std_x, std_y = dask.compute(product, x.std(axis=0), y.std(axis=0))
    return product / np.outer(std_x, std_y)


def numpy_loop(x: zarr.Array, y: zarr.Array) -> np.ndarray:
    sums = [0.0] * 5
    count = 0
    for start in range(0, x.shape[0], x.chunks[0]):
        stop = start + x.chunks[0]
        a, b = (z[start:stop].reshape(-1, UNITS).astype(np.float64) for z in (x, y))
        parts = (a.sum(0), b.sum(0), (a * a).sum(0), (b * b).sum(0), a.T @ b)
        sums = [s + p for s, p in zip(sums, parts, strict=True)]
        count += len(a)
    mean_x, mean_y, square_x, square_y, product = (s / count for s in sums)
    std_x, std_y = np.sqrt(square_x - mean_x**2), np.sqrt(square_y - mean_y**2)
    return (product - np.outer(mean_x, mean_y)) / np.outer(std_x, std_y)


WAYS = {"streamed": streamed, "dask.array float64": dask_float64, "NumPy loop": numpy_loop}


def make_stores(folder: Path, images: int) -> list[Path]:
    """Two stores of ReLU activations that share 40 smooth sources, two thirds of them zero."""
    rng = np.random.default_rng(0)
    mix = [rng.normal(size=(40, UNITS)).astype(np.float32) for _ in range(2)]
    paths = [folder / "net1.zarr", folder / "net2.zarr"]
    with new_store(paths[0]) as a, new_store(paths[1]) as b:
        shape = (images, SIDE, SIDE, UNITS)
        names = ("image", "y", "x", "unit")
        arrays = [create(g, "conv2", shape, "float16", names) for g in (a, b)]
        step = arrays[0].shards[0]
        for start in range(0, images, step):
            n = min(step, images - start)
            sources = rng.normal(size=(n, SIDE, SIDE, 40)).astype(np.float32)
            sources[:, 1:] += sources[:, :-1]
            sources[:, :, 1:] += sources[:, :, :-1]
            for array, m in zip(arrays, mix, strict=True):
                out = sources @ m
                out += rng.normal(scale=6, size=out.shape).astype(np.float32)
                array[start : start + n] = np.maximum(out / 10 - 0.5, 0).astype(np.float16)
    return paths


def errors(x: zarr.Array, y: zarr.Array) -> None:
    """Largest errors of the float32 route beside float64, on ReLU data and at mean/std = 100."""
    a, b = (read(z, 0, 64).reshape(-1, UNITS) for z in (x, y))
    far = a.astype(np.float32) + 100 * a.astype(np.float64).std(axis=0).astype(np.float32)
    for name, values in (("ReLU", a), ("mean/std = 100", far)):
        exact = np.corrcoef(values.astype(float), b.astype(float), rowvar=False)[:UNITS, UNITS:]
        print(f"largest error, {name}: {np.abs(correlate(values, b) - exact).max():.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        x, y = (open_store(p)["conv2"] for p in options.peak)
        streamed(x, y)
        # Not ru_maxrss, which a child inherits from the process that made the stores.
        status = Path("/proc/self/status").read_text()
        print(int(re.search(r"VmHWM:\s+(\d+)", status)[1]) // 1024)
        return
    for info in threadpoolctl.threadpool_info():
        print(f"{info['internal_api']} {info.get('version')}, {info.get('architecture')},", end=" ")
    print(f"{THREADS} threads")
    with tempfile.TemporaryDirectory() as folder:
        if options.memory:
            for factor in (1, 2, 4):
                paths = make_stores(Path(folder), factor * options.images)
                peak = subprocess.run(
                    [sys.executable, __file__, "--peak", *map(str, paths)],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
                print(f"{factor * options.images} images: peak {peak.strip()} MB")
            return
        x, y = (open_store(p)["conv2"] for p in make_stores(Path(folder), options.images))
        errors(x, y)
        seconds: dict[str, list[float]] = {name: [] for name in WAYS}
        results = {}
        for _ in range(options.runs + 1):
            for name, way in WAYS.items():
                start = time.perf_counter()
                results[name] = way(x, y)
                seconds[name].append(time.perf_counter() - start)
    for name, times in seconds.items():
        ratios = [t / s for t, s in zip(times[1:], seconds["streamed"][1:], strict=True)]
        difference = np.abs(results[name] - results["NumPy loop"]).max()
        print(
            f"{name:20s} {statistics.median(times[1:]):6.2f} s  "
            f"{statistics.median(ratios):5.2f} x streamed  largest difference {difference:.1e}"
        )


if __name__ == "__main__":
    main()
