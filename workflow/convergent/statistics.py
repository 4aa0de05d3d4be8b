"""Statistics of units within a net and between two nets, streamed from activation stores.

Section 2 of the paper: mean, standard deviation, within-net and between-net correlation.
A layer's images are cut into blocks whose moments are kept beside their sum, so that split
halves, intervals and held-out scores later need no second pass over the activations.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial, reduce
from pathlib import Path

import dask
import numpy as np
import zarr
from numpy.typing import NDArray

from convergent.activations import Places, random_samples, taken
from convergent.moments import Moments
from convergent.mutual_information import correction, discretize, mutual_information
from convergent.progress import progress, stage
from convergent.scheduling import compute, task
from convergent.stores import StoreError, new_store, open_store, save
from convergent.strongest import Strongest

# Bytes of activations that one leaf of the reduction reads from each store.
LEAF_BYTES = 24 * 2**20
# Most bytes that the blocks of a layer take, as float32.
BLOCKS_BYTES = 256 * 10**6


def block_moments(
    x: zarr.Array, y: zarr.Array | None = None, *, blocks: int = 20, **options
) -> list[Moments]:
    """Moments of a layer for each block of images, in one pass over the stores.

    A tree of Dask tasks: each leaf reads a run of images and reduces it on one BLAS thread,
    the leaves of a block are merged pairwise. Memory does not grow with the images, and the
    result depends neither on the scheduler nor on its workers.

    Parameters
    ----------
    x, y : zarr.Array of shape (image, y, x, unit), (image, position, unit) or (image, unit)
        The same layer of two nets, or of one net for moments within it.
    blocks : int
        Number of blocks of consecutive images; wide layers get fewer, so that their blocks
        stay under 256 MB, but at least two.
    **options
        `device` for :meth:`convergent.moments.Moments.of`, `scheduler`, `workers` and `step`
        for :func:`convergent.scheduling.compute`.

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
    return _reduce([x] if y is None else [x, y], blocks, **options)[0]


def write_statistics(
    activations: str | Path,
    store: str | Path,
    layers: Sequence[str],
    *,
    samples: int = 60_000,
    binning: str = "paper",
    blocks: int = 20,
    seed: int = 0,
    **options,
) -> None:
    """Statistics of one net: ``statistics/<net>.zarr`` from ``activations/<net>.zarr``.

    Per layer a group with `mean`, `std` (float64), `dead` (bool), `correlation` (float32,
    unit by unit), under ``blocks`` the moments of each block, for mutual information
    `codes` (sample, unit) and `edges` of that many `samples`, whose images and positions are
    `sample_image` and `sample_position`, and under ``strongest`` the images that excite each
    unit most, as :class:`convergent.units.Top` has them; and `image_index`. One pass over the
    store.

    Parameters
    ----------
    samples, seed
        Number and draw of the samples.
    binning : {"paper", "reference"}
        For :func:`convergent.mutual_information.discretize`.
    blocks, **options
        For :func:`block_moments`.

    Raises
    ------
    StoreError
        If activations are not finite or too few; names the store and layer.
    """
    source = open_store(activations)
    index = source["image_index"][...]
    with new_store(store) as target:
        save(target, "image_index", index, ("image",))
        for layer, step in _reading(store, layers, source):
            array = source[layer]
            drawn = random_samples(seed, len(index), math.prod(array.shape[1:-1]), samples)
            each = partial(_unit_by_unit, drawn)
            moments, more = _reduce([array], blocks, each, step=step, **options)
            strongest, values = zip(*more, strict=True)
            places = Places.of(source, layer)
            try:
                save_statistics(
                    target.create_group(layer), moments, reduce(Strongest.merge, strongest),
                    np.concatenate(values), drawn, index, places, binning,
                )  # fmt: skip
            except (FloatingPointError, ValueError) as error:
                raise StoreError(f"{array.store_path}: {error}") from error


def save_statistics(
    group: zarr.Group,
    blocks: Sequence[Moments],
    strongest: Strongest,
    values: NDArray,
    drawn: tuple[NDArray[np.int64], NDArray[np.int64]],
    image_index: NDArray[np.int64],
    places: Places,
    binning: str,
) -> None:
    """Write a layer's group of :func:`write_statistics`.

    Parameters
    ----------
    blocks : sequence of Moments
        Within the net.
    values : ndarray of shape (sample, unit)
        Activations of the samples `drawn`: row of the image and recorded position.
    places : Places
        Where the positions lie.

    Raises
    ------
    ValueError, FloatingPointError
        If the samples cannot be binned.
    """
    total = reduce(Moments.merge, blocks)
    save(group, "mean", total.mean_x, ("unit",))
    save(group, "std", np.sqrt(total.var_x), ("unit",))
    save(group, "dead", total.var_x == 0, ("unit",))
    save(group, "correlation", _float32(total.correlation()), ("unit", "unit_b"))
    save_blocks(group, blocks)
    codes, edges = discretize(values, binning)
    save(group, "codes", codes, ("sample", "unit"))
    save(group, "edges", edges, ("unit", "edge"))
    save(group, "sample_image", image_index[drawn[0]], ("sample",))
    save(group, "sample_position", places.flat(*drawn), ("sample",))
    found = strongest.image >= 0
    flat = places.flat(strongest.image, strongest.position)
    y, x = np.divmod(flat, places.width)
    top = group.create_group("strongest")
    save(top, "value", np.where(found, strongest.value, np.nan), ("unit", "rank"))
    for name, part in {"image": image_index[strongest.image], "y": y, "x": x}.items():
        save(top, name, np.where(found, part, -1), ("unit", "rank"))


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
    a, b = map(open_store, (activations_a, activations_b))
    if not np.array_equal(a["image_index"][...], b["image_index"][...]):
        raise StoreError(f"{activations_a} and {activations_b} were recorded on different images")
    with new_store(store) as target:
        for layer, step in _reading(store, layers, a, b):
            moments = block_moments(a[layer], b[layer], step=step, **options)
            save_correlation(target.create_group(layer), moments)


def save_correlation(group: zarr.Group, blocks: Sequence[Moments]) -> None:
    """Write a layer's group of :func:`write_correlation`."""
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

    def pairs(layer: str) -> int:
        return a[f"{layer}/mean"].size * (b or a)[f"{layer}/mean"].size

    with new_store(store) as target:
        for layer in progress(layers, Path(store), "pair", pairs):
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


def block_edges(blocks: int, images: int, units_a: int, units_b: int) -> NDArray[np.int64]:
    """Ends of a layer's blocks: fewer than asked for where they would take more than 256 MB.

    Raises
    ------
    StoreError
        If there are fewer images than blocks.
    """
    blocks = min(blocks, max(2, BLOCKS_BYTES // (4 * units_a * units_b)))
    if images < blocks:
        raise StoreError(f"{images} images cannot make {blocks} blocks")
    return np.linspace(0, images, blocks + 1).astype(int)


def cut_at_blocks(start: int, stop: int, edges: NDArray[np.int64]) -> tuple[int, list[int]]:
    """First block that a run of images reaches into, and the run's ends and cuts at `edges`."""
    inner = edges[(edges > start) & (edges < stop)].tolist()
    return int(np.searchsorted(edges, start, side="right")) - 1, [start, *inner, stop]


def leaf_rows(array: zarr.Array) -> int:
    """Images that one leaf reads: whole chunks, so that none is decoded twice."""
    rows = array.chunks[0]
    return max(1, LEAF_BYTES * array.shape[0] // (array.nbytes * rows)) * rows


def _reduce(
    arrays: Sequence[zarr.Array],
    blocks: int,
    more: Callable[[NDArray, int], tuple] | None = None,
    *,
    device: str = "cpu",
    **options,
) -> tuple[list[Moments], list[tuple]]:
    """Moments of each block of images, and of each leaf what `more` makes of it and its start."""
    x, y = arrays[0], arrays[-1]
    images = x.shape[0]
    try:
        edges = block_edges(blocks, images, x.shape[-1], y.shape[-1])
    except StoreError as error:
        raise StoreError(f"{x.store_path}: {error}") from None
    blocks = len(edges) - 1

    def leaf(cuts: list[int]) -> list:
        start, stop = cuts[0], cuts[-1]
        data = [array[start:stop] for array in arrays]
        flat = [block.reshape(-1, block.shape[-1]) for block in data]
        rows = (np.asarray(cuts) - start) * (len(flat[0]) // (stop - start))
        try:
            moments = [
                Moments.of(*(block[i:j] for block in flat), device=device)
                for i, j in itertools.pairwise(rows)
            ]
            return [*moments, more and more(data[0], start)]
        except FloatingPointError as error:
            stores = " or ".join(str(array.store_path) for array in arrays)
            raise StoreError(f"{stores}: images {start} to {stop}: {error}") from error

    step = leaf_rows(x)
    parts: list[list] = [[] for _ in range(blocks)]
    rest = []
    for start in range(0, images, step):
        first, cuts = cut_at_blocks(start, min(start + step, images), edges)
        *moments, others = task(leaf, nout=len(cuts))(cuts)
        for block, part in enumerate(moments, first):
            parts[block].append(part)
        rest.append(others)
    tasks = [*map(_tree, parts), *rest]
    results = compute(tasks, **options)
    return results[:blocks], results[blocks:]


def _reading(
    store: str | Path, layers: Sequence[str], *sources: zarr.Group
) -> Iterator[tuple[str, Callable[[float], None]]]:
    """Layers as a stage of what is read of them, each with the `step` of its reduction."""
    sizes = [sum(source[layer].nbytes for source in sources) for layer in layers]
    with stage(Path(store), "byte", sum(sizes)) as step:
        for layer, size in zip(layers, sizes, strict=True):
            yield layer, lambda share, size=size: step(share * size)


def _unit_by_unit(
    drawn: tuple[NDArray[np.int64], NDArray[np.int64]], block: NDArray, start: int
) -> tuple[Strongest, NDArray]:
    """Strongest images and drawn samples of a run of images."""
    return Strongest.of(block, start), taken(block, start, *drawn)


def _tree(parts: list):
    while len(parts) > 1:
        pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
        parts = [dask.delayed(Moments.merge)(*p) if len(p) == 2 else p[0] for p in pairs]
    return parts[0]


def _float32(x: NDArray) -> NDArray[np.float32]:
    return x.astype(np.float32)
