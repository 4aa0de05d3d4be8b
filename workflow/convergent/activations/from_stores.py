"""The engine that runs reductions over activation stores, as a tree of Dask tasks."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import dask
import numpy as np
import zarr

from convergent.activations.reductions import Reduction
from convergent.running.scheduling import compute, task
from convergent.running.stores import StoreError

# Bytes of activations that one leaf of the tree reads from each store.
LEAF_BYTES = 24 * 2**20


def reduce_stores(
    arrays: Sequence[zarr.Array],
    reductions: Sequence[Reduction],
    *,
    rows: int | None = None,
    **options,
) -> list[list]:
    """Run reductions over a layer of stores, in one pass.

    Each leaf of the tree reads a run of images and reduces it on one BLAS thread; parts are
    merged pairwise. Memory grows with the images only if parts do, and results depend neither on
    the scheduler nor on its workers.

    Parameters
    ----------
    arrays : sequence of zarr.Array of shape (image, ..., unit)
        The layer of each net.
    reductions : sequence of Reduction
    rows : int, optional
        Images that one leaf reads; by default :func:`leaf_rows` of the first array.
    **options
        `scheduler`, `workers` and `step` for :func:`convergent.running.scheduling.compute`.

    Returns
    -------
    list of list
        Parts of each reduction: one for each block, or a single one.

    Raises
    ------
    StoreError
        If an activation is NaN or infinite; names the stores and the images.
    """
    # Workers save nothing, so they are not sent the functions that save.
    leaf = _leaf(arrays, [replace(reduction, save={}) for reduction in reductions])
    parts: dict[tuple[int, int], list] = defaultdict(list)
    images, step = arrays[0].shape[0], rows or leaf_rows(arrays[0])
    for start in range(0, images, step):
        stop = min(start + step, images)
        keys = []
        for number, reduction in enumerate(reductions):
            first, cuts = reduction.across(start, stop)
            keys += [(number, block) for block in range(first, first + len(cuts) - 1)]
        for key, part in zip(keys, task(leaf, nout=len(keys))(start, stop), strict=True):
            parts[key].append(part)
    trees = [_tree(reductions[number].merge, each) for (number, _), each in parts.items()]
    results: list[list] = [[] for _ in reductions]
    for (number, _), result in zip(parts, compute(trees, **options), strict=True):
        results[number].append(result)
    return results


def leaf_rows(array: zarr.Array) -> int:
    """Count the images that one leaf reads: whole chunks, so that none is decoded twice."""
    rows = array.chunks[0]
    return max(1, LEAF_BYTES * array.shape[0] // (array.nbytes * rows)) * rows


def _leaf(
    arrays: Sequence[zarr.Array], reductions: Sequence[Reduction]
) -> Callable[[int, int], list]:
    """Make the function that reads images from row `start` to `stop` and reduces them.

    It returns the parts of each reduction in turn.
    """

    def leaf(start: int, stop: int) -> list[Any]:
        data = [array[start:stop] for array in arrays]
        parts: list[dict[int, Any]] = [{} for _ in reductions]
        try:
            for reduction, each in zip(reductions, parts, strict=True):
                first, cuts = reduction.across(start, stop)
                for block, (i, j) in enumerate(itertools.pairwise(cuts), first):
                    reduction.add(each, block, i, [v[i - start : j - start] for v in data])
        except FloatingPointError as error:
            infinite = [not np.isfinite(values).all() for values in data]
            named = list(itertools.compress(arrays, infinite)) or arrays
            stores = " or ".join(str(array.store_path) for array in named)
            raise StoreError(f"{stores}: images {start} to {stop}: {error}") from error
        return [part for each in parts for part in each.values()]

    return leaf


def _tree(merge: Callable[[Any, Any], Any], parts: list) -> Any:
    """Merge neighbours, and their results again, until one is left."""
    while len(parts) > 1:
        pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
        parts = [dask.delayed(merge)(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return parts[0]
