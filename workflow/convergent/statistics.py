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
from typing import TYPE_CHECKING

import dask
import numpy as np
import zarr
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from convergent.activations import gather, random_positions, random_samples, samples
from convergent.moments import Moments
from convergent.mutual_information import correction, discretize, mutual_information
from convergent.stores import StoreError, new_store, open_store, save

if TYPE_CHECKING:
    import pandas as pd

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
    activations: str | Path,
    store: str | Path,
    layers: Sequence[str],
    *,
    samples: int = 60_000,
    binning: str = "paper",
    **options,
) -> None:
    """Statistics of one net: ``statistics/<net>.zarr`` from ``activations/<net>.zarr``.

    Per layer a group with `mean`, `std` (float64), `dead` (bool), `correlation` (float32,
    unit by unit), under ``blocks`` the moments of each block, and for mutual information
    `codes` (sample, unit) and `edges` of that many `samples`, whose images and positions are
    `sample_image` and `sample_position`. `binning` is for
    :func:`convergent.mutual_information.discretize`, `options` for :func:`block_moments`.

    Raises
    ------
    StoreError
        If activations are not finite or too few; names the store and layer.
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
            array = source[layer]
            image, position = random_samples(
                options.get("seed", 0), len(index), int(np.prod(array.shape[1:-1])), samples
            )
            values = gather(array, image, position, threads=options.get("threads", 1))
            try:
                codes, edges = discretize(values, binning)
            except (FloatingPointError, ValueError) as error:
                raise StoreError(f"{array.store_path}: {error}") from error
            save(group, "codes", codes, ("sample", "unit"))
            save(group, "edges", edges, ("unit", "edge"))
            save(group, "sample_image", index[image], ("sample",))
            save(group, "sample_position", position, ("sample",))


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


def write_mutual_information(
    store: str | Path,
    layers: Sequence[str],
    statistics_a: str | Path,
    statistics_b: str | Path | None = None,
    **options,
) -> None:
    """Mutual information between two nets, or within one.

    Per layer a group with `mutual_information` and `corrected` for its bias (float32, nats;
    unit_a, unit_b); within a net the diagonal holds the units' entropies. `options` are those
    of :func:`convergent.mutual_information.mutual_information`.

    Raises
    ------
    StoreError
        If the two nets were not sampled at the same images and positions.
    """
    a = open_store(statistics_a)
    b = None if statistics_b is None else open_store(statistics_b)
    with new_store(store) as target:
        for layer in layers:
            codes = [g[f"{layer}/codes"][...] for g in (a, b) if g is not None]
            for name in ("sample_image", "sample_position"):
                sampled = [g[f"{layer}/{name}"][...] for g in (a, b) if g is not None]
                if not np.array_equal(sampled[0], sampled[-1]):
                    raise StoreError(f"{statistics_a} and {statistics_b}: {layer}/{name} differ")
            group = target.create_group(layer)
            raw = mutual_information(*codes, **options)
            names = ("unit_a", "unit_b")
            save(group, "mutual_information", _float32(raw), names)
            save(group, "corrected", _float32(raw - correction(*codes)), names)


def joint_densities(
    x: zarr.Array, y: zarr.Array, pairs: NDArray[np.integer], *, images: int = 5000, bins: int = 100
) -> list[tuple[NDArray[np.int64], NDArray, NDArray]]:
    """Joint histograms of the activations of a few pairs of units (figure S1).

    Parameters
    ----------
    x, y : zarr.Array
        The same layer of two nets.
    pairs : ndarray of shape (pair, 2)
        A unit of x and a unit of y each.
    images : int
        At most so many, the first ones, with all positions.
    bins : int
        Along each axis, from 0 to the largest activation.

    Returns
    -------
    list of (counts, edges_x, edges_y), one for each pair
    """
    columns: list[NDArray] = []
    step = x.chunks[0]
    for start in range(0, min(images, x.shape[0]), step):
        stop = min(start + step, images, x.shape[0])
        a, b = samples(x, start, stop)[:, pairs[:, 0]], samples(y, start, stop)[:, pairs[:, 1]]
        columns.append(np.stack([a, b]).astype(np.float32))
    values = np.concatenate(columns, axis=1)
    result = []
    for a, b in zip(values[0].T, values[1].T, strict=True):
        limits = [[0, max(float(v.max()), 1e-6)] for v in (a, b)]
        result.append(np.histogram2d(a, b, bins=bins, range=limits))
    return result


def write_joint_densities(
    store: str | Path,
    layers: Sequence[str],
    activations_a: str | Path,
    activations_b: str | Path,
    matches: pd.DataFrame,
    information: str | Path,
) -> None:
    """Joint distributions of a well and a badly matched pair of units of each layer (figure S1).

    The pairs are the best of the matching by correlation, and the worst of those that correlate
    more than 0.1: below that there is little to be seen. Per layer a group ``high`` and ``low``
    with `counts`, `edges_x`, `edges_y` and the attributes units, correlation and
    mutual_information.
    """
    a, b, nats = open_store(activations_a), open_store(activations_b), open_store(information)
    with new_store(store) as target:
        for layer in layers:
            rows = matches.query(
                "layer == @layer and measure == 'correlation' and method == 'matching'"
            ).sort_values("value", ascending=False, kind="stable")
            seen = rows[rows["value"] > 0.1]
            chosen = (seen if len(seen) > 1 else rows).iloc[[0, -1]]
            units = chosen[["unit", "partner"]].to_numpy()
            densities = joint_densities(a[layer], b[layer], units)
            values = nats[f"{layer}/mutual_information"][...]
            for rank, pair, value, density in zip(
                ("high", "low"), units, chosen["value"], densities, strict=True
            ):
                group = target.create_group(f"{layer}/{rank}")
                group.attrs["units"] = pair.tolist()
                group.attrs["correlation"] = float(value)
                group.attrs["mutual_information"] = float(values[tuple(pair)])
                for name, data in zip(("counts", "edges_x", "edges_y"), density, strict=True):
                    save(group, name, data, ("x", "y") if name == "counts" else ("edge",))
        target.attrs["layers"] = list(layers)


def load_joint_densities(store: str | Path) -> list[tuple]:
    """Read back what :func:`write_joint_densities` wrote.

    Returns
    -------
    list of (layer, rank, units, correlation, mutual_information, (counts, edges_x, edges_y))
    """
    source = open_store(store)
    return [
        (
            layer,
            rank,
            *(group.attrs[k] for k in ("units", "correlation", "mutual_information")),
            tuple(group[name][...] for name in ("counts", "edges_x", "edges_y")),
        )
        for layer in source.attrs["layers"]
        for rank in ("high", "low")
        for group in [source[f"{layer}/{rank}"]]
    ]


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


def half_correlations(group: zarr.Group) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Correlations over every other block of images of a layer, and over the blocks between."""
    blocks = load_blocks(group)
    first, second = (reduce(Moments.merge, blocks[half::2]).correlation() for half in (0, 1))
    return first, second


def _tree(parts: list):
    while len(parts) > 1:
        pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
        parts = [dask.delayed(Moments.merge)(*p) if len(p) == 2 else p[0] for p in pairs]
    return parts[0]


def _float32(x: NDArray) -> NDArray[np.float32]:
    return x.astype(np.float32)
