"""What recording only some positions per image does to correlations and matching.

Draws 1, 2, 4, ... random positions of every image from two stores that hold all of them, as
`activations.positions` would keep them, and compares with all.

    uv run python benchmarks/positions.py results/digits/activations/net{1,2}.zarr
"""

import argparse
from functools import reduce

import numpy as np
import zarr

from convergent.activations.moments import Moments
from convergent.activations.samples import Places
from convergent.measures.matching import semi_matching
from convergent.running.stores import open_store


def correlation(x: zarr.Array, y: zarr.Array, index: np.ndarray, positions: int | None, seed: int):
    places = Places.random(x.shape, index, positions, seed)
    parts = []
    step = max(1, 32 * 10**6 * x.shape[0] // x.nbytes)
    for start in range(0, x.shape[0], step):
        blocks = (z[start : min(start + step, z.shape[0])] for z in (x, y))
        flat = (places.select(block, start).reshape(-1, block.shape[-1]) for block in blocks)
        parts.append(Moments.of(*flat))
    return reduce(Moments.merge, parts).correlation()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stores", nargs=2)
    parser.add_argument("--layers", nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    a, b = map(open_store, options.stores)
    index = a["image_index"][...]
    layers = options.layers or [name for name, array in a.arrays() if array.ndim == 4]
    print("layer, positions of all, rms error, largest error, best partners that stay,")
    print("change of the mean best correlation; means over draws")
    for layer in sorted(layers):
        x, y = a[layer], b[layer]
        whole = correlation(x, y, index, None, 0)
        best = semi_matching(whole)
        total = x.shape[1] * x.shape[2]
        for number in [n for n in (1, 2, 4, 8, 16, 32, 64, 128) if n < total]:
            rows = []
            for seed in range(options.seeds):
                part = correlation(x, y, index, number, seed)
                error = np.abs(part - whole)
                rows.append(
                    [
                        np.sqrt(np.square(error).mean()),
                        error.max(),
                        (semi_matching(part) == best).mean(),
                        part.max(axis=1).mean() - whole.max(axis=1).mean(),
                    ]
                )
            rms, largest, same, change = np.mean(rows, axis=0)
            print(
                f"{layer} {number:4d} of {total}: {rms:.4f} {largest:.3f} {same:.3f} {change:+.4f}"
            )


if __name__ == "__main__":
    main()
