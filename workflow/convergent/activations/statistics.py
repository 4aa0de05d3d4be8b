"""Statistics of units within a net and between two nets, streamed from activation stores.

Section 2 of the paper: mean, standard deviation, within-net and between-net correlation.
Moments of blocks of images (:mod:`convergent.activations.blocks`) are kept beside their sum.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial, reduce
from pathlib import Path

import dask
import numpy as np
import zarr
from numpy.typing import NDArray

from convergent.activations.blocks import Blocks, Cut, save_blocks
from convergent.activations.codes import discretize
from convergent.activations.moments import Moments
from convergent.activations.samples import Places, random_samples, taken
from convergent.activations.strongest import Strongest
from convergent.nets.marks import check_same_images, load_marks, save_marks
from convergent.running.progress import stage
from convergent.running.scheduling import compute, task
from convergent.running.stores import StoreError, new_store, open_store, save

logger = logging.getLogger(__name__)

# Bytes of activations that one leaf of the reduction reads from each store.
LEAF_BYTES = 24 * 2**20


def block_moments(
    x: zarr.Array, y: zarr.Array | None = None, *, blocks: int = 20, **options
) -> Blocks:
    """Moments of a layer for each block of images, in one pass over the stores.

    A tree of Dask tasks: each leaf reads a run of images and reduces it on one BLAS thread,
    the leaves of a block are merged pairwise. Memory does not grow with the images, and the
    result depends neither on the scheduler nor on its workers.

    Parameters
    ----------
    x, y : zarr.Array of shape (image, y, x, unit), (image, position, unit) or (image, unit)
        The same layer of two nets, or of one net for moments within it.
    blocks : int
        Number of blocks of images; those of wide layers are merged, see
        :meth:`convergent.activations.blocks.Cut.kept`.
    **options
        `device` for :meth:`convergent.activations.moments.Moments.of`, `scheduler`, `workers` and
        `step` for :func:`convergent.running.scheduling.compute`.

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
    unit most, as :class:`convergent.units.pictures.Top` has them; and the marks of the images.
    One pass over the store.

    Parameters
    ----------
    samples, seed
        Number and draw of the samples.
    binning : {"paper", "reference"}
        For :func:`convergent.measures.mutual_information.discretize`.
    blocks, **options
        For :func:`block_moments`.

    Raises
    ------
    StoreError
        If activations are not finite or too few; names the store and layer.
    """
    source = open_store(activations)
    marks = load_marks(source)
    index = marks.index
    with new_store(store) as target:
        save_marks(target, marks)
        for layer, step in _reading(store, layers, source):
            array = source[layer]
            drawn = random_samples(seed, len(index), math.prod(array.shape[1:-1]), samples)
            each = partial(_unit_by_unit, drawn)
            found, more = _reduce([array], blocks, each, step=step, **options)
            strongest, values = zip(*more, strict=True)
            places = Places.of(source, layer)
            try:
                save_statistics(
                    target.create_group(layer), found, reduce(Strongest.merge, strongest),
                    np.concatenate(values), drawn, index, places, binning,
                )  # fmt: skip
            except (FloatingPointError, ValueError) as error:
                raise StoreError(f"{array.store_path}: {error}") from error


def save_statistics(
    group: zarr.Group,
    blocks: Blocks,
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
    blocks : Blocks
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
    total = blocks.total()
    std = np.sqrt(total.var_x)
    save(group, "mean", total.mean_x, ("unit",))
    save(group, "std", std, ("unit",))
    save(group, "dead", total.var_x == 0, ("unit",))
    save(group, "correlation", _float32(total.correlation()), ("unit", "unit_b"))
    save_blocks(group, blocks)
    codes, edges = discretize(values, binning)
    silent = (std > 0) & (codes.max(axis=0) == codes.min(axis=0))
    if silent.any():
        logger.warning(
            "%s: %d units that vary have one value in all samples of mutual information, which "
            "is 0 for them (what is at most 1e-6 counts as 0)",
            *(group.store_path, silent.sum()),
        )
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
    *,
    other_views: bool = False,
    **options,
) -> None:
    """Write between-net correlations of a pair: ``pairs/<a>-<b>/correlation.zarr``.

    Per layer a group with `correlation` (float32; unit_a, unit_b) and, under ``blocks``, the
    moments of each block; and the marks of the first net's images.

    Parameters
    ----------
    other_views : bool
        Whether the nets may have seen the images in other sizes or crops. The attribute
        ``same_views`` of the result says whether they have not.
    **options
        Of :func:`block_moments`.

    Raises
    ------
    StoreError
        If the nets were recorded on other images, in another order or, unless `other_views`
        is set, through other views.
    """
    a, b = map(open_store, (activations_a, activations_b))
    same = check_same_images({activations_a: a, activations_b: b}, other_views=other_views)
    with new_store(store) as target:
        save_marks(target, load_marks(a))
        target.attrs["same_views"] = same
        for layer, step in _reading(store, layers, a, b):
            moments = block_moments(a[layer], b[layer], step=step, **options)
            save_correlation(target.create_group(layer), moments)


def save_correlation(group: zarr.Group, blocks: Blocks) -> None:
    """Write a layer's group of :func:`write_correlation`."""
    save(group, "correlation", _float32(blocks.total().correlation()), ("unit_a", "unit_b"))
    save_blocks(group, blocks)


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
) -> tuple[Blocks, list[tuple]]:
    """Reduce to moments of each block of images, and each leaf by `more`, given also its start."""
    x, y = arrays[0], arrays[-1]
    images = x.shape[0]
    try:
        cut = Cut.of(images, blocks).kept(x.shape[-1], y.shape[-1])
    except ValueError as error:
        raise StoreError(f"{x.store_path}: {error}") from None
    blocks = len(cut.edges) - 1

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
        first, cuts = cut.across(start, min(start + step, images))
        *moments, others = task(leaf, nout=len(cuts))(cuts)
        for block, part in enumerate(moments, first):
            parts[block].append(part)
        rest.append(others)
    tasks = [*map(_tree, parts), *rest]
    results = compute(tasks, **options)
    return Blocks(cut, results[:blocks]), results[blocks:]


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
