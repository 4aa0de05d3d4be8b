"""Statistics of units within a net and between two nets, streamed from activation stores.

Section 2 of the paper: mean, standard deviation, within-net and between-net correlation.
Moments of blocks of images (:mod:`convergent.activations.blocks`) are saved beside their sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from convergent.activations.blocks import Blocks, Cut
from convergent.activations.controls import (
    control_moments,
    halves,
    pairs_of_controls,
    untrained_reductions,
)
from convergent.activations.from_stores import reduce_stores
from convergent.activations.reductions import (
    Reduction,
    binned_samples,
    image_means,
    moments_by_block,
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
        image_means(net),
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
    untrained: bool = False,
    device: str = "cpu",
    **options,
) -> None:
    """Write the statistics of one net: ``statistics/<net>.zarr`` from ``activations/<net>.zarr``.

    Per layer a group with `mean`, `std` (float64), `dead` (bool), `correlation` (float32, unit by
    unit) and `image_mean` (float32; image, unit), the mean of each unit over the positions of each
    image, in the order of the activations. For mutual information there are that many `samples`,
    whose images and positions are `sample_image` and `sample_position`: their `codes` (sample,
    unit), the `edges` of these, and their `values` in the type of the activations. The group
    ``blocks`` holds the moments of each block, and ``strongest`` the images that excite each unit
    most (:class:`convergent.activations.strongest.Top`). Layers with negative activations have
    ``weakest`` as well, the images that drive each unit furthest below zero. The marks of the
    images are stored too. The activations are read once.

    Parameters
    ----------
    samples, seed
        Number of samples, and seed with which they are chosen.
    binning : {"paper", "reference"}
        See :func:`convergent.activations.codes.discretize`.
    untrained : bool
        Whether this is a net before training, with which trained nets are compared:
        ``nets/<net>/untrained.zarr``. The two halves of the images are then its blocks, and neither
        the strongest images nor `values` are kept.
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
                if untrained:
                    cut = halves(cut)
                of_net = untrained_reductions if untrained else net_reductions
                reductions = [
                    *moments_by_block(cut, array.shape[-1:], [(0,)], device=device),
                    *of_net(0, marks.index, Places.of(source, layer), chosen, binning),
                ]
                results = reduce_stores([array], reductions, step=step, **options)
                save_results(target.create_group(layer), (0,), reductions, results)


def write_correlation(
    activations_a: str | Path,
    activations_b: str | Path,
    store: str | Path,
    layers: Sequence[str],
    *,
    controls: str | Path | None = None,
    untrained: tuple[str | Path, str | Path] | None = None,
    other_views: bool = False,
    blocks: int = 20,
    device: str = "cpu",
    **options,
) -> None:
    """Write between-net correlations of a pair: ``pairs/<a>-<b>/correlation.zarr``.

    Per layer a group with `correlation` (float32; unit_a, unit_b) and, under ``blocks``, the
    moments of each block; and the marks of the first net's images.

    Parameters
    ----------
    controls : path, optional
        ``pairs/<a>-<b>/controls.zarr``: per layer the correlations of each of
        :data:`convergent.activations.controls.KINDS`, of shape (half, unit_a, unit_b), float32.
    untrained : (path, path), optional
        Activations of both nets before training, for `controls`. All stores are read once.
    other_views : bool
        Permission for nets that were given the images in different sizes or crops. The attribute
        ``same_views`` of the result says whether they were given the same.
    blocks, device, **options
        See :func:`block_moments`.

    Raises
    ------
    StoreError
        If the nets were recorded on different images, in a different order or, unless
        `other_views` is set, with different views.
    """
    paths = [activations_a, activations_b, *(untrained or ())]
    sources = [open_store(path) for path in paths]
    same = check_same_images(dict(zip(paths, sources, strict=True)), other_views=other_views)
    kinds = pairs_of_controls((0, 1), (2, 3)) if controls and untrained else {}
    beside = new_store(controls) if controls and untrained else nullcontext()
    with new_store(store) as target, beside as control:
        written = [target] if control is None else [target, control]
        for group in written:
            save_marks(group, load_marks(sources[0]))
            group.attrs["same_views"] = same
        for layer, step in _reading(store, layers, *sources):
            arrays = [source[layer] for source in sources]
            units = [array.shape[-1] for array in arrays]
            with _named(arrays[0]):
                cut = _cut(arrays[:2], blocks)
                reductions = moments_by_block(cut, units[:2], [(0, 1)], device=device)
                if kinds:
                    reductions += control_moments(cut, units, kinds, device=device)
                results = reduce_stores(arrays, reductions, step=step, **options)
            save_results(target.create_group(layer), (0, 1), reductions, results)
            if control is not None:
                group = control.create_group(layer)
                for pair in kinds:
                    save_results(group, pair, reductions, results)


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
    arrays, target = ([x], (0,)) if y is None else ([x, y], (0, 1))
    with _named(x):
        cut = _cut(arrays, blocks)
        units = [array.shape[-1] for array in arrays]
        [parts] = reduce_stores(
            arrays, moments_by_block(cut, units, [target], device=device), **options
        )
    return Blocks(cut, parts)


def _cut(arrays: Sequence[zarr.Array], blocks: int) -> Cut:
    """Cut the images of one net or two into blocks."""
    x, y = arrays[0], arrays[-1]
    if x.shape[:-1] != y.shape[:-1]:
        raise StoreError(
            f"{x.store_path} has shape {x.shape}, but {y.store_path} has {y.shape}; only the "
            "numbers of units may differ"
        )
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
