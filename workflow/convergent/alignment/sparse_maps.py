"""Mapping layers of a pair of nets, fitted from stored statistics or, as in the paper, by SGD."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from convergent.activations.blocks import check_halves, half_correlations
from convergent.activations.moments import Moments
from convergent.activations.samples import samples
from convergent.alignment.lasso import lasso_path, loss, relative_gap, sgd
from convergent.nets.marks import check_same_images
from convergent.paper import SIGNIFICANT
from convergent.running.progress import progress, stage
from convergent.running.stores import new_store, open_store, save

# Images of one step of SGD, as in the authors' published solver files.
BATCH = 32
# Bytes of activations of both nets that SGD draws its batches from at a time.
POOL_BYTES = 256 * 2**20


def write_mapping(
    store: str | Path,
    layers: Sequence[str],
    decays: Sequence[float],
    statistics_a: str | Path,
    statistics_b: str | Path,
    correlation: str | Path,
    *,
    threads: int = 1,
) -> None:
    """Exact maps of a pair, both ways: ``pairs/<a>-<b>/mapping.zarr``.

    Per layer and direction (``ab`` predicts b from a) a group with `decay`,
    `weights` (decay, target, source; float64, for which the gap holds), `loss` and
    `relative_gap` (decay, target) and the number of `nonzero` weights of each target, fitted on
    all images from the stored correlations, and `held_out_loss`: that of maps fitted on the first
    half of the images, on the last half, each half normalised by itself.

    Raises
    ------
    StoreError
        If the stores are of other images, or cut into other halves.
    """
    paths = (statistics_a, statistics_b, correlation)
    stores = [open_store(path) for path in paths]
    check_same_images(dict(zip(paths, stores, strict=True)), other_views=True)

    def weights_of(layer: str) -> int:
        return stores[2][f"{layer}/correlation"].size

    with new_store(store) as target, threadpool_limits(threads, user_api="blas"):
        for layer in progress(layers, Path(store), "weight", weights_of):
            groups = [store[layer] for store in stores]
            check_halves(groups)
            everywhere = [group["correlation"][...] for group in groups]
            # Of net a, net b and between them: over all images, one half, the other half.
            over = [(c, *half_correlations(g)) for c, g in zip(everywhere, groups, strict=True)]
            for direction, within in (("ab", over[0]), ("ba", over[1])):
                cross = over[2] if direction == "ab" else [c.T for c in over[2]]
                whole, fitted, held_out = zip(within, cross, strict=True)
                alphas = np.asarray(decays) * whole[1].shape[1]
                group = target.create_group(f"{layer}/{direction}")
                weights, gaps = lasso_path(*whole, alphas, threads=threads)
                _save_fit(group, decays, weights, loss(weights, *whole), gaps)
                del weights  # before as much again
                half, _ = lasso_path(*fitted, alphas, threads=threads)
                save(group, "held_out_loss", loss(half, *held_out), ("decay", "target"))
                del half


def write_sgd_mapping(
    store: str | Path,
    layers: Sequence[str],
    decays: Sequence[float],
    activations: tuple[str | Path, str | Path],
    statistics: tuple[str | Path, str | Path],
    correlation: str | Path,
    *,
    iterations: int,
    seed: int = 0,
    threads: int = 1,
) -> None:
    """Maps from a to b fitted as in the paper, from stored activations.

    Groups as :func:`write_mapping` has them, direction ``ab`` only and without
    `held_out_loss`; the loss is that over all images after the last step.
    """
    paths = (*activations, *statistics, correlation)
    stores = [open_store(path) for path in paths]
    check_same_images(dict(zip(paths, stores, strict=True)), other_views=True)
    a, b, stats_a, stats_b, between = stores

    def told(batches: Iterator) -> Iterator:
        for batch in batches:
            yield batch
            step(1)

    with (
        new_store(store) as target,
        threadpool_limits(threads, user_api="blas"),
        stage(Path(store), "step", len(layers) * iterations) as step,
    ):
        for layer in layers:
            scales = [(g[f"{layer}/mean"][...], g[f"{layer}/std"][...]) for g in (stats_a, stats_b)]
            batches = (
                _second_moments(x, y, *scales) for x, y in _batches(a[layer], b[layer], seed)
            )
            weights = sgd(told(itertools.islice(batches, iterations)), decays, seed)
            gram = stats_a[f"{layer}/correlation"][...]
            cross = between[f"{layer}/correlation"][...]
            gaps = relative_gap(
                weights, gram, cross, np.asarray(decays) * cross.shape[1], threads=threads
            )
            group = target.create_group(f"{layer}/ab")
            _save_fit(group, decays, weights, loss(weights, gram, cross), gaps, SIGNIFICANT)


def _save_fit(
    group: zarr.Group,
    decays: Sequence[float],
    weights: NDArray,
    losses: NDArray,
    gaps: NDArray,
    smallest: float = 0.0,
) -> None:
    nonzero = np.stack([(np.abs(w) > smallest).sum(axis=1) for w in weights])
    save(group, "decay", np.asarray(decays, np.float64), ("decay",))
    save(group, "weights", weights, ("decay", "target", "source"))
    save(group, "loss", losses, ("decay", "target"))
    save(group, "relative_gap", gaps, ("decay", "target"))
    save(group, "nonzero", nonzero, ("decay", "target"))


def _batches(a: zarr.Array, b: zarr.Array, seed: int) -> Iterator[tuple[NDArray, NDArray]]:
    """Samples of BATCH random images of both nets, for ever.

    Images are drawn from a pool of random runs of them, so memory does not grow with their
    number; each comes once before any comes again, but for what does not fill a batch.
    """
    rng = np.random.default_rng(seed)
    images, rows = a.shape[0], a.chunks[0]
    runs = max(1, POOL_BYTES * images // ((a.nbytes + b.nbytes) * rows))
    starts = np.arange(0, images, rows)

    def pool(chosen: NDArray) -> list[NDArray]:
        cuts = [(i, min(i + rows, images)) for i in chosen]
        blocks = (
            [samples(x, i, j).reshape(j - i, -1, x.shape[-1]) for i, j in cuts] for x in (a, b)
        )
        return [np.concatenate(block) for block in blocks]

    whole = [pool(starts)] if runs >= len(starts) else None
    while True:
        parts = np.split(rng.permutation(starts), range(runs, len(starts), runs))
        for x, y in whole or map(pool, parts):
            drawn = rng.permutation(len(x))
            for start in range(0, max(len(drawn) - BATCH, 0) + 1, BATCH):
                batch = drawn[start : start + BATCH]
                yield x[batch].reshape(-1, x.shape[-1]), y[batch].reshape(-1, y.shape[-1])


def _second_moments(
    x: NDArray, y: NDArray, scale_x: tuple[NDArray, NDArray], scale_y: tuple[NDArray, NDArray]
) -> tuple[NDArray, NDArray]:
    """Mean products of a batch's channels, normalised by means and deviations over all images."""

    def products(moments: Moments, first: tuple, second: tuple) -> NDArray:
        (mean_x, std_x), (mean_y, std_y) = first, second
        centred = moments.comoment / moments.count
        centred += np.outer(moments.mean_x - mean_x, moments.mean_y - mean_y)
        scale = np.outer(std_x, std_y)
        return np.divide(centred, scale, out=np.zeros_like(centred), where=scale > 0)

    return (
        products(Moments.of(x), scale_x, scale_x),
        products(Moments.of(x, y), scale_x, scale_y),
    )
