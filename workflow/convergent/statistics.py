"""Statistics of units within a net and between two nets, streamed from activation stores.

Section 2 of the paper: mean, standard deviation, within-net and between-net correlation.
A layer's images are cut into blocks whose moments are kept beside their sum, so that split
halves, intervals and held-out scores later need no second pass over the activations.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import dask
import numpy as np
import zarr
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from convergent.activations import random_positions, samples
from convergent.moments import Moments
from convergent.stores import StoreError, new_store, open_store, save

# Bytes of activations that one leaf of the reduction reads from each store.
LEAF_BYTES = 24 * 2**20
# Most bytes that the blocks of a layer take, as float32.
BLOCKS_BYTES = 256 * 10**6


def block_moments(
    x: zarr.Array,
    y: zarr.Array | None = None,
    *,
    blocks: int = 20,
    positions: int | None = None,
    seed: int = 0,
    image_index: NDArray[np.integer] | None = None,
    threads: int = 1,
) -> list[Moments]:
    """Moments of a layer for each block of images, in one pass over the stores.

    A tree of Dask tasks: each leaf reads a run of images and reduces it on one BLAS thread,
    the leaves of a block are merged pairwise. Memory does not grow with the images, and the
    result does not depend on `threads`.

    Parameters
    ----------
    x, y : zarr.Array of shape (image, y, x, unit) or (image, unit)
        The same layer of two nets, or of one net for moments within it.
    blocks : int
        Number of blocks of consecutive images; wide layers get fewer, so that their blocks
        stay under 256 MB, but at least two.
    positions : int, optional
        Random positions per image to use in convolutional layers; all if left out.
    seed : int
        Of the draw of positions.
    image_index : ndarray of shape (image,), optional
        Identity of each image, for the draw; counts from 0 if left out.
    threads : int
        Leaves reduced at once.

    Raises
    ------
    StoreError
        If the stores differ in their images or positions, or there are fewer images than
        blocks, or an activation is NaN or infinite.
    """
    if y is not None and x.shape[:-1] != y.shape[:-1]:
        raise StoreError(
            f"{x.store_path} is {x.shape} and {y.store_path} {y.shape}: all but units must agree"
        )
    images, units = x.shape[0], (x.shape[-1], (x if y is None else y).shape[-1])
    blocks = min(blocks, max(2, BLOCKS_BYTES // (4 * units[0] * units[1])))
    if images < blocks:
        raise StoreError(f"{x.store_path}: {images} images cannot make {blocks} blocks")
    total = int(np.prod(x.shape[1:-1]))
    if positions is not None and positions < total:
        index = np.arange(images) if image_index is None else image_index
        draw = lambda start, stop: random_positions(seed, index[start:stop], total, positions)  # noqa: E731
    else:
        draw = lambda start, stop: None  # noqa: E731

    def leaf(cuts: list[int]) -> list[Moments]:
        start, stop = cuts[0], cuts[-1]
        drawn = draw(start, stop)
        a = samples(x, start, stop, drawn)
        b = a if y is None else samples(y, start, stop, drawn)
        rows = (np.asarray(cuts) - start) * (len(a) // (stop - start))
        try:
            return [
                Moments.of(a[i:j], None if y is None else b[i:j])
                for i, j in itertools.pairwise(rows)
            ]
        except FloatingPointError as error:
            stores = x.store_path if y is None else f"{x.store_path} or {y.store_path}"
            raise StoreError(f"{stores}: images {start} to {stop}: {error}") from error

    # Leaves end where chunks end, so that no chunk is decoded twice; blocks need not.
    step = max(1, LEAF_BYTES * images // (x.nbytes * x.chunks[0])) * x.chunks[0]
    edges = np.linspace(0, images, blocks + 1).astype(int)
    parts: list[list] = [[] for _ in range(blocks)]
    for start in range(0, images, step):
        stop = min(start + step, images)
        cuts = [start, *edges[(edges > start) & (edges < stop)].tolist(), stop]
        first = np.searchsorted(edges, start, side="right") - 1
        for block, part in enumerate(dask.delayed(leaf, nout=len(cuts) - 1)(cuts), first):
            parts[block].append(part)
    with threadpool_limits(1, user_api="blas"):
        return list(dask.compute(*map(_tree, parts), scheduler="threads", num_workers=threads))


def write_statistics(
    activations: str | Path, store: str | Path, layers: Sequence[str], **options
) -> None:
    """Statistics of one net: ``statistics/<net>.zarr`` from ``activations/<net>.zarr``.

    Per layer a group with `mean`, `std` (float64), `dead` (bool), `correlation` (float32,
    unit by unit) and, under ``blocks``, the moments of each block. `options` are those of
    :func:`block_moments`.
    """
    source = open_store(activations)
    index = source["image_index"][...]
    with new_store(store) as target:
        for layer in layers:
            blocks = block_moments(source[layer], image_index=index, **options)
            total = reduce(Moments.merge, blocks)
            group = target.create_group(layer)
            save(group, "mean", total.mean_x, ("unit",))
            save(group, "std", np.sqrt(total.var_x), ("unit",))
            save(group, "dead", total.var_x == 0, ("unit",))
            save(group, "correlation", _float32(total.correlation()), ("unit", "unit_b"))
            save_blocks(group, blocks)


def write_correlation(
    activations_a: str | Path,
    activations_b: str | Path,
    store: str | Path,
    layers: Sequence[str],
    **options,
) -> None:
    """Between-net correlations of a pair: ``pairs/<a>-<b>/correlation.zarr``.

    Per layer a group with `correlation` (float32; unit_a, unit_b) and, under ``blocks``, the
    moments of each block. `options` are those of :func:`block_moments`.

    Raises
    ------
    StoreError
        If the two nets were recorded on different images.
    """
    a, b = open_store(activations_a), open_store(activations_b)
    index = a["image_index"][...]
    if not np.array_equal(index, b["image_index"][...]):
        raise StoreError(f"{activations_a} and {activations_b} were recorded on different images")
    with new_store(store) as target:
        for layer in layers:
            blocks = block_moments(a[layer], b[layer], image_index=index, **options)
            group = target.create_group(layer)
            correlation = reduce(Moments.merge, blocks).correlation()
            save(group, "correlation", _float32(correlation), ("unit_a", "unit_b"))
            save_blocks(group, blocks)


def save_blocks(group: zarr.Group, blocks: Sequence[Moments]) -> None:
    """Write the moments of blocks under ``blocks``, one array per field, block axis first.

    Co-moments are float32 (they are centred, so nothing cancels later), the rest float64.
    """
    target = group.create_group("blocks")
    axes = {"count": (), "mean_x": ("unit_a",), "mean_y": ("unit_b",)}
    axes |= {"var_x": ("unit_a",), "var_y": ("unit_b",), "comoment": ("unit_a", "unit_b")}
    for field, names in axes.items():
        values = [getattr(block, field) for block in blocks]
        data = np.stack([_float32(v) for v in values] if field == "comoment" else values)
        save(target, field, data, ("block", *names))


def load_blocks(group: zarr.Group) -> list[Moments]:
    """Read back what :func:`save_blocks` wrote, in float64."""
    fields = [group[f"blocks/{field}"][...] for field in Moments._fields]
    counts, *rest = fields
    return [
        Moments(int(count), *(np.asarray(values[i], np.float64) for values in rest))
        for i, count in enumerate(counts)
    ]


def _tree(parts: list):
    while len(parts) > 1:
        pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
        parts = [dask.delayed(Moments.merge)(*p) if len(p) == 2 else p[0] for p in pairs]
    return parts[0]


def _float32(x: NDArray) -> NDArray[np.float32]:
    return x.astype(np.float32)
