"""Statistics of units within a net and between two nets, streamed from activation stores.

Section 2 of the paper: mean, standard deviation, within-net and between-net correlation.
Moments of blocks of images (:mod:`convergent.activations.blocks`) are saved beside their sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from convergent.activations.blocks import Blocks, Cut
from convergent.activations.from_stores import reduce_stores
from convergent.activations.reductions import (
    Reduction,
    binned_samples,
    moments_by_block,
    save_between,
    save_results,
    strongest,
)
from convergent.activations.samples import Places, Samples
from convergent.nets.marks import check_same_images, load_marks, save_marks
from convergent.running.progress import stage
from convergent.running.stores import StoreError, new_store, open_store


def net_reductions(
    net: int, image_index: NDArray[np.integer], places: Places, samples: Samples, binning: str
) -> list[Reduction]:
    """List the reductions of the statistics of a net, apart from its moments.

    To add a statistic, add an entry here; it then works for stores and for nets alike.

    Parameters
    ----------
    net, image_index, places, samples, binning
        See :func:`convergent.activations.reductions.binned_samples`.
    """
    return [
        strongest(net, image_index, places),
        binned_samples(net, image_index, places, samples, binning),
    ]


def write_statistics(
    activations: str | Path,
    store: str | Path,
    layers: Sequence[str],
    *,
    samples: int = 60_000,
    binning: str = "paper",
    blocks: int = 20,
    seed: int = 0,
    device: str = "cpu",
    **options,
) -> None:
    """Write the statistics of one net: ``statistics/<net>.zarr`` from ``activations/<net>.zarr``.

    Per layer a group with `mean`, `std` (float64), `dead` (bool), `correlation` (float32,
    unit by unit) and, for mutual information, `codes` (sample, unit) and `edges` of that many
    `samples`, whose images and positions are `sample_image` and `sample_position`. The group
    ``blocks`` holds the moments of each block, and ``strongest`` the images that excite each unit
    most (:class:`convergent.activations.strongest.Top`). The marks of the images are stored as
    well. The activations are read once.

    Parameters
    ----------
    samples, seed
        Number of samples, and seed with which they are chosen.
    binning : {"paper", "reference"}
        See :func:`convergent.activations.codes.discretize`.
    blocks, device, **options
        See :func:`block_moments`.

    Raises
    ------
    StoreError
        If activations are not finite or too few; names the store and layer.
    """
    source = open_store(activations)
    marks = load_marks(source)
    with new_store(store) as target:
        save_marks(target, marks)
        for layer, step in _reading(store, layers, source):
            array = source[layer]
            positions = math.prod(array.shape[1:-1])
            chosen = Samples.random(seed, len(marks.index), positions, samples)
            with _named(array):
                cut = _cut([array], blocks)
                reductions = [
                    *moments_by_block(cut, array.shape[-1:], [(0,)], device=device),
                    *net_reductions(0, marks.index, Places.of(source, layer), chosen, binning),
                ]
                results = reduce_stores([array], reductions, cut, step=step, **options)
                save_results(target.create_group(layer), (0,), reductions, results)


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
        Permission for nets that were given the images in different sizes or crops. The attribute
        ``same_views`` of the result says whether they were given the same.
    **options
        See :func:`block_moments`.

    Raises
    ------
    StoreError
        If the nets were recorded on different images, in a different order or, unless
        `other_views` is set, with different views.
    """
    a, b = map(open_store, (activations_a, activations_b))
    same = check_same_images({activations_a: a, activations_b: b}, other_views=other_views)
    with new_store(store) as target:
        save_marks(target, load_marks(a))
        target.attrs["same_views"] = same
        for layer, step in _reading(store, layers, a, b):
            moments = block_moments(a[layer], b[layer], step=step, **options)
            save_between(target.create_group(layer), moments)


def block_moments(
    x: zarr.Array,
    y: zarr.Array | None = None,
    *,
    blocks: int = 20,
    device: str = "cpu",
    **options,
) -> Blocks:
    """Compute the moments of a layer for each block of images, in one pass over the stores.

    Parameters
    ----------
    x, y : zarr.Array of shape (image, y, x, unit), (image, position, unit) or (image, unit)
        The same layer of two nets, or of one net for moments within it.
    blocks : int
        Number of blocks of images; those of wide layers are merged, see
        :meth:`convergent.activations.blocks.Cut.coarsen`.
    device : str
        See :meth:`convergent.activations.moments.Moments.of`.
    **options
        For :func:`convergent.activations.from_stores.reduce_stores`.

    Raises
    ------
    StoreError
        If the stores differ in their images or positions, or there are fewer images than
        blocks, or an activation is NaN or infinite.
    """
    if y is not None and x.shape[:-1] != y.shape[:-1]:
        raise StoreError(
            f"{x.store_path} has shape {x.shape}, but {y.store_path} has {y.shape}; only the "
            "numbers of units may differ"
        )
    arrays, target = ([x], (0,)) if y is None else ([x, y], (0, 1))
    with _named(x):
        cut = _cut(arrays, blocks)
        units = [array.shape[-1] for array in arrays]
        [parts] = reduce_stores(
            arrays, moments_by_block(cut, units, [target], device=device), cut, **options
        )
    return Blocks(cut, parts)


def _cut(arrays: Sequence[zarr.Array], blocks: int) -> Cut:
    """Cut the images of one net or two into blocks."""
    x, y = arrays[0], arrays[-1]
    return Cut.of(x.shape[0], blocks).coarsen(x.shape[-1], y.shape[-1])


@contextmanager
def _named(array: zarr.Array) -> Iterator[None]:
    """Name the array in errors about its numbers."""
    try:
        yield
    except StoreError:
        raise
    except (FloatingPointError, ValueError) as error:
        raise StoreError(f"{array.store_path}: {error}") from error


def _reading(
    store: str | Path, layers: Sequence[str], *sources: zarr.Group
) -> Iterator[tuple[str, Callable[[float], None]]]:
    """Yield layers, each with the function that reports progress in reading it."""
    sizes = [sum(source[layer].nbytes for source in sources) for layer in layers]
    with stage(Path(store), "byte", sum(sizes)) as step:
        for layer, size in zip(layers, sizes, strict=True):

            def report(share: float, size: int = size) -> None:
                step(share * size)

            yield layer, report
