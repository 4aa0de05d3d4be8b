"""Between-net correlations streamed from two stores, beside their bounds and other ways.

At the sizes of AlexNet's convolutional layers, ReLU activations in float16. The bounds are reading
the stores alone, in the same pieces and threads, and multiplying float32 arrays alone; the figure
of merit is (read + product) / all. numpy.corrcoef gets a part of the images, in memory, and is
scaled.
Runs are interleaved, ratios are medians. `--memory` instead prints the peak memory for 1x, 2x and
4x the images of conv2.

    uv run python benchmarks/correlation.py [--layers conv1 conv2]
    uv run python benchmarks/correlation.py --memory
"""

import argparse
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import threadpoolctl
import zarr
from common import THREADS, header, interleaved, median_ratio, peak_of

from convergent.activations.from_stores import leaf_rows
from convergent.activations.moments import TILE
from convergent.activations.moments import correlation as correlate
from convergent.activations.statistics import block_moments
from convergent.running.stores import create, new_store, open_store

SHAPES = {
    "conv1": (55, 55, 96),
    "conv2": (27, 27, 256),
    "conv3": (13, 13, 384),
    "conv5": (13, 13, 256),
}
# Images that numpy.corrcoef gets.
PART = 8


def streamed(x: zarr.Array, y: zarr.Array) -> np.ndarray:
    return block_moments(x, y, workers=THREADS).total().correlation()


def reading(x: zarr.Array, y: zarr.Array) -> None:
    step = leaf_rows(x)

    def both(start: int) -> None:
        for z in (x, y):
            z[start : min(start + step, z.shape[0])]

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(both, range(0, x.shape[0], step)))


def product(x: np.ndarray, y: np.ndarray, rows: int) -> None:
    """As many float32 products of tiles as all `rows` need, each on one BLAS thread."""

    def some(number: int) -> None:
        out = np.empty((x.shape[1], y.shape[1]), np.float32)
        for _ in range(number):
            np.matmul(x.T, y, out=out)

    with threadpoolctl.threadpool_limits(1, "blas"), ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(some, [rows // len(x) // THREADS] * THREADS))


def dask_float64(x: zarr.Array, y: zarr.Array) -> np.ndarray:
    x, y = (da.from_zarr(a).reshape(-1, a.shape[-1]).astype(np.float64) for a in (x, y))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    product = da.tensordot(x, y, axes=(0, 0)) / len(x)
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        product, std_x, std_y = dask.compute(product, x.std(axis=0), y.std(axis=0))
    return product / np.outer(std_x, std_y)


def corrcoef(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    units = x.shape[1]
    return np.corrcoef(x, y, rowvar=False)[:units, units:]


def make_stores(folder: Path, shape: tuple[int, ...], images: int) -> list[Path]:
    """Two stores of ReLU activations that share 40 smooth sources, two thirds of them zero."""
    rng = np.random.default_rng(0)
    side, units = shape[0], shape[-1]
    mix = [rng.normal(size=(40, units)).astype(np.float32) for _ in range(2)]
    paths = [folder / "net1.zarr", folder / "net2.zarr"]
    with new_store(paths[0]) as a, new_store(paths[1]) as b:
        names = ("image", "y", "x", "unit")
        arrays = [create(g, "layer", (images, *shape), "float16", names) for g in (a, b)]
        step = arrays[0].shards[0]
        for start in range(0, images, step):
            n = min(step, images - start)
            sources = rng.normal(size=(n, side, side, 40)).astype(np.float32)
            sources[:, 1:] += sources[:, :-1]
            sources[:, :, 1:] += sources[:, :, :-1]
            for array, m in zip(arrays, mix, strict=True):
                out = sources @ m
                out += rng.normal(scale=6, size=out.shape).astype(np.float32)
                array[start : start + n] = np.maximum(out / 10 - 0.5, 0).astype(np.float16)
    return paths


def errors(x: np.ndarray, y: np.ndarray) -> None:
    """Largest errors of the float32 route beside float64, on ReLU data and at mean/std = 100."""
    far = x.astype(np.float32) + 100 * x.astype(np.float64).std(axis=0).astype(np.float32)
    for name, values in (("ReLU", x), ("mean/std = 100", far)):
        exact = corrcoef(values.astype(float), y.astype(float))
        print(f"largest error, {name}: {np.abs(correlate(values, y) - exact).max():.1e}")


def measure(layer: str, megabytes: int, runs: int) -> None:
    shape = SHAPES[layer]
    size = 2 * int(np.prod(shape))
    images = max(40, megabytes * 10**6 // size)
    with tempfile.TemporaryDirectory() as folder:
        x, y = (open_store(p)["layer"] for p in make_stores(Path(folder), shape, images))
        a, b = (z[:PART].reshape(-1, shape[-1]) for z in (x, y))
        errors(a, b) if layer == "conv2" else None
        tiles = [z[:TILE].astype(np.float32) for z in (a, b)]
        times = interleaved(
            {
                "all": lambda: streamed(x, y),
                "read": lambda: reading(x, y),
                "product": lambda: product(*tiles, images * shape[0] * shape[1]),
                "dask": lambda: dask_float64(x, y),
                "corrcoef": lambda: corrcoef(a, b),
            },
            runs,
        )
        times["corrcoef"] = [t * images / PART for t in times["corrcoef"]]
        bound = [r + p for r, p in zip(times["read"], times["product"], strict=True)]
        ratios = {name: median_ratio(times[name], times["all"]) for name in times}
        print(
            f"{layer}: {images} images, (read + product) / all = "
            f"{median_ratio(bound, times['all']):.2f} (read {ratios['read']:.2f}, product "
            f"{ratios['product']:.2f}); numpy.corrcoef takes {ratios['corrcoef']:.1f} times as "
            f"long, dask.array in float64 {ratios['dask']:.1f} times"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--megabytes", type=int, default=300, help="of activations in each store")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    header()
    if not options.memory:
        for layer in options.layers:
            measure(layer, options.megabytes, options.runs)
        return
    for images in (512, 1024, 2048):
        with tempfile.TemporaryDirectory() as folder:
            paths = make_stores(Path(folder), SHAPES["conv2"], images)
            stores = [f"open_store({str(p)!r})['layer']" for p in paths]
            call = f"from correlation import *; streamed({', '.join(stores)})"
            print(f"{images} images: peak {peak_of(call)} MB")


if __name__ == "__main__":
    main()
