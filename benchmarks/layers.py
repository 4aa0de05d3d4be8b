"""The matrix of layers of two nets, beside one NumPy product of all their layers side by side.

6 and 18 layers of 32 units on maps of 16x16, ReLU activations of 500 images in float16, as a run
stores them. NumPy reads the stores, puts the layers of each net side by side in float32 and
multiplies once; the library reads them for the moments of all pairs of layers in every block of
images, or for the whole table of all measures and their intervals. Then both without reading, in
processor time of one thread each: from float16 in memory, and from float32, where NumPy is given
the layers side by side and has nothing to do but the product. Runs are interleaved, ratios are
medians. `--memory` instead prints the peak memory for 1x, 2x and 4x the images.

    uv run python benchmarks/layers.py [--images 500]
    uv run python benchmarks/layers.py --memory
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import threadpoolctl
from common import THREADS, header, interleaved, median_ratio, peak_of

from convergent.activations.layer_pairs import layer_pairs
from convergent.activations.moments import moments_of_layers
from convergent.activations.statistics import write_statistics
from convergent.inference.similarity import layer_table
from convergent.measures.registry import measures
from convergent.running.stores import create, new_store, open_store, save

LAYERS, MAP, UNITS = (6, 18), (16, 16), 32


def make_stores(folder: Path, images: int) -> list[Path]:
    """Two activation stores whose layers share 20 sources, and the statistics of each."""
    rng = np.random.default_rng(0)
    sources = rng.normal(size=(images, *MAP, 20)).astype(np.float32)
    paths = []
    for net, layers in zip("ab", LAYERS, strict=True):
        paths.append(folder / f"{net}.zarr")
        with new_store(paths[-1]) as group:
            for number in range(layers):
                x = sources @ rng.normal(size=(20, UNITS)).astype(np.float32)
                x += rng.normal(scale=4, size=x.shape).astype(np.float32)
                names = ("image", "y", "x", "unit")
                array = create(group, f"layer{number}", x.shape, "float16", names)
                array[...] = np.maximum(x, 0).astype(np.float16)
            save(group, "image_index", np.arange(images), ("image",))
        write_statistics(
            paths[-1], folder / f"statistics_{net}.zarr", names_of(layers), samples=1000
        )
    return [*paths, *(folder / f"statistics_{net}.zarr" for net in "ab")]


def names_of(layers: int) -> list[str]:
    return [f"layer{number}" for number in range(layers)]


def all_pairs(paths: list[Path]) -> None:
    a, b, *kept = ({k: g for k, g in open_store(p).members() if "layer" in k} for p in paths)
    list(layer_pairs(a, b, [(x, y) for x in a for y in b], kept=kept, workers=THREADS))


def whole_table(paths: list[Path]) -> None:
    a, b, *statistics = paths
    layer_table(
        measures(gives="layers"), a, b, *map(names_of, LAYERS),
        statistics=statistics, workers=THREADS,
    )  # fmt: skip


def read(path: Path) -> list[np.ndarray]:
    store = open_store(path)
    return [store[k][...].reshape(-1, UNITS) for k in store if k.startswith("layer")]


def product(a: list[np.ndarray], b: list[np.ndarray]) -> np.ndarray:
    x, y = (np.concatenate(side, axis=1).astype(np.float32, copy=False) for side in (a, b))
    return x.T @ y


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    header()
    with tempfile.TemporaryDirectory() as folder:
        if options.memory:
            for images in (options.images, 2 * options.images, 4 * options.images):
                paths = [str(p) for p in make_stores(Path(folder, str(images)), images)]
                peak = peak_of(f"from layers import *; all_pairs({paths!r})")
                print(f"{images} images: peak {peak} MB")
            return
        paths = make_stores(Path(folder), options.images)
        times = interleaved(
            {
                "NumPy": lambda: product(*map(read, paths[:2])),
                "moments": lambda: all_pairs(paths),
                "table": lambda: whole_table(paths),
            },
            options.runs,
        )
        halves = [read(path) for path in paths[:2]]
    for name in ("moments", "table"):
        print(f"from stores, {name} / NumPy: {median_ratio(times[name], times['NumPy']):.2f}")
    strips = [(slice(0, LAYERS[0]), slice(0, LAYERS[1]))]
    singles = [[x.astype(np.float32) for x in side] for side in halves]
    joined = [np.concatenate(side, axis=1) for side in singles]
    # One thread each: the leaves of a pass share the cores between them.
    with threadpoolctl.threadpool_limits(1, "blas"):
        times = interleaved(
            {
                "NumPy16": lambda: product(*halves),
                "ours16": lambda: moments_of_layers(*halves, strips, []),
                "NumPy32": lambda: joined[0].T @ joined[1],
                "ours32": lambda: moments_of_layers(*singles, strips, []),
            },
            options.runs,
            time.process_time,
        )
    for name, what in (("16", "float16"), ("32", "float32, side by side already for NumPy")):
        ratio = median_ratio(times[f"ours{name}"], times[f"NumPy{name}"])
        print(f"from memory in {what}: moments / NumPy: {ratio:.2f}")


if __name__ == "__main__":
    main()
