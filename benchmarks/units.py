"""Strongest images of every unit, beside reading the store alone and a Dask reduction.

A store as one layer of a net fills it, half of the values zero; fc6 has the paper's 50,000 images.
Runs are interleaved, figures are medians.

    uv run python benchmarks/units.py [--images 512] [--repeats 5]
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.pop("OPENBLAS_CORETYPE", None)

import dask
import dask.array as da
import numpy as np
import zarr

from convergent.stores import create, new_store, open_store, read
from convergent.units import LEAF_BYTES, top_images

THREADS = len(os.sched_getaffinity(0))
LAYERS = {"conv1": (55, 55, 96), "conv2": (27, 27, 256), "conv5": (13, 13, 256), "fc6": (4096,)}


def fill(path: Path, shape: tuple[int, ...], images: int) -> zarr.Array:
    rng = np.random.default_rng(0)
    with new_store(path) as group:
        names = ("image", "y", "x", "unit") if len(shape) == 3 else ("image", "unit")
        array = create(group, "layer", (images, *shape), np.float16, names, max(1, images // 64))
        for start in range(0, images, array.shards[0]):
            rows = min(array.shards[0], images - start)
            values = rng.standard_normal((rows, *shape), dtype=np.float32)
            array[start : start + rows] = np.maximum(values, 0).astype(np.float16)
    return open_store(path)["layer"]


def reading(array: zarr.Array) -> None:
    """Every chunk decoded once, in the pieces and by the threads that the top nine have."""
    images = array.shape[0]
    step = max(1, LEAF_BYTES * images // (array.nbytes * array.chunks[0])) * array.chunks[0]
    starts = range(0, images, step)
    tasks = [dask.delayed(lambda i: read(array, i, min(i + step, images)).shape)(i) for i in starts]
    dask.compute(*tasks, scheduler="threads", num_workers=THREADS)


def by_dask(array: zarr.Array) -> None:
    """Maximum and place of each image and unit by `dask.array`, sorted at the end."""
    blocks = da.from_zarr(array, chunks=(array.chunks[0], *array.shape[1:]))
    flat = blocks.reshape(len(blocks), -1, array.shape[-1])
    peaks, places = dask.compute(
        flat.max(axis=1), flat.argmax(axis=1), scheduler="threads", num_workers=THREADS
    )
    order = np.argsort(-peaks, axis=0, kind="stable")[:9]
    np.take_along_axis(places, order, axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{THREADS} threads, {arguments.images} images")
    print(f"{'layer':>6} {'MB':>6} {'read s':>7} {'top nine/read':>14} {'dask/top nine':>14}")
    for layer, shape in LAYERS.items():
        images = arguments.images if len(shape) == 3 else 50_000
        with tempfile.TemporaryDirectory() as folder:
            array = fill(Path(folder) / "a.zarr", shape, images)
            ways = (reading, lambda a: top_images(a, threads=THREADS), by_dask)
            times: list[list[float]] = [[] for _ in ways]
            for _ in range(arguments.repeats):
                for way, seconds in zip(ways, times, strict=True):
                    clock = time.perf_counter()
                    way(array)
                    seconds.append(time.perf_counter() - clock)
            alone, ours, other = map(statistics.median, times)
            print(
                f"{layer:>6} {array.nbytes / 1e6:6.0f} {alone:7.2f} {ours / alone:14.2f} "
                f"{other / ours:14.2f}"
            )


if __name__ == "__main__":
    main()
