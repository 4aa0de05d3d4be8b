"""Fit the sparse maps of a pair of nets from stored statistics or, as in the paper, by SGD."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import zarr
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from convergent.activations.blocks import check_halves, half_correlations
from convergent.activations.moments import Moments
from convergent.activations.samples import samples
from convergent.nets.marks import check_same_images
from convergent.paper import SIGNIFICANT
from convergent.running.progress import progress, stage
from convergent.running.stores import new_store, open_store, save

# Images of one step of SGD, as in the authors' published solver files.
BATCH = 32
# Bytes of both nets' activations in the pool that SGD draws its batches from.
POOL_BYTES = 256 * 2**20


class SparseMap(NamedTuple):
    """Stored map of one decay, in one direction.

    Attributes
    ----------
    decay : float
    weights : ndarray of shape (target, source)
    loss : ndarray of shape (target,)
    nonzero : ndarray of shape (target,)
        Number of weights of each target unit that are not zero.
    """

    decay: float
    weights: NDArray[np.float64]
    loss: NDArray[np.float64]
    nonzero: NDArray[np.integer]


def map_at_penalty(group: zarr.Group, penalty: float) -> SparseMap:
    """Read the map that figures show and clusters are made of.

    Parameters
    ----------
    group : zarr.Group
        A layer and direction of ``mapping.zarr``.
    penalty : float
        Penalty alpha = decay * (number of target units). The decay whose alpha is nearest on a
        logarithmic scale is chosen.
    """
    decays = group["decay"][...]
    index = nearest_decay(decays, group["weights"].shape[1], penalty)
    return SparseMap(
        float(decays[index]), *(group[name][index] for name in ("weights", "loss", "nonzero"))
    )


def nearest_decay(decays: ArrayLike, targets: int, penalty: float) -> int:
    """Find the decay whose penalty for `targets` units is nearest on a logarithmic scale."""
    with np.errstate(divide="ignore"):
        alphas = np.log(np.asarray(decays) * targets)
    return int(np.abs(alphas - np.log(penalty)).argmin())


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
    """Write the exact maps of a pair, both ways: ``pairs/<a>-<b>/mapping.zarr``.

    Each layer and direction (``ab`` predicts b from a) is a group. Its maps are fitted on all
    images from the stored correlations: `decay`, `weights` (decay, target, source; float64, for
    which the gap holds), `loss`, `relative_gap` and the number of `nonzero` weights (decay,
    target). `held_out_loss` is the loss, on the last half of the images, of maps fitted on the
    first half; each half is normalised by itself.

    Raises
    ------
    StoreError
        If the stores are of different images, or cut into different halves.
    """
    from convergent.alignment.lasso import lasso_path, loss

    paths = (statistics_a, statistics_b, correlation)
    stores = [open_store(path) for path in paths]
    check_same_images(dict(zip(paths, stores, strict=True)), other_views=True)

    def weights_of(layer: str) -> int:
        return stores[2][f"{layer}/correlation"].size

    with new_store(store) as target, threadpool_limits(threads, user_api="blas"):
        for layer in progress(layers, Path(store), "weight", weights_of):
            groups = [store[layer] for store in stores]
            check_halves(groups)
            # Correlations over all images, the first half and the last half.
            within_a, within_b, between = (
                (group["correlation"][...], *half_correlations(group)) for group in groups
            )
            for direction, within in (("ab", within_a), ("ba", within_b)):
                cross = between if direction == "ab" else [c.T for c in between]
                whole, fitted, held_out = zip(within, cross, strict=True)
                alphas = np.asarray(decays) * whole[1].shape[1]
                group = target.create_group(f"{layer}/{direction}")
                weights, gaps = lasso_path(*whole, alphas, threads=threads)
                _save_fit(group, decays, weights, loss(weights, *whole), gaps)
                del weights  # before the next fit needs as much memory
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
    """Fit maps from a to b as in the paper, from stored activations.

    Groups are those of :func:`write_mapping`, but only in the direction ``ab`` and without
    `held_out_loss`. The loss is that over all images after the last step.
    """
    from convergent.alignment.lasso import loss, relative_gap, sgd

    paths = (*activations, *statistics, correlation)
    stores = [open_store(path) for path in paths]
    check_same_images(dict(zip(paths, stores, strict=True)), other_views=True)
    a, b, stats_a, stats_b, between = stores

    def counted(batches: Iterator) -> Iterator:
        for batch in batches:
            yield batch
            advance(1)

    with (
        new_store(store) as target,
        threadpool_limits(threads, user_api="blas"),
        stage(Path(store), "step", len(layers) * iterations) as advance,
    ):
        for layer in layers:
            scales = [(g[f"{layer}/mean"][...], g[f"{layer}/std"][...]) for g in (stats_a, stats_b)]
            batches = (
                _second_moments(x, y, *scales) for x, y in _batches(a[layer], b[layer], seed)
            )
            weights = sgd(counted(itertools.islice(batches, iterations)), decays, seed)
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
    """Write the arrays of one layer and direction."""
    nonzero = np.stack([(np.abs(w) > smallest).sum(axis=1) for w in weights])
    save(group, "decay", np.asarray(decays, np.float64), ("decay",))
    save(group, "weights", weights, ("decay", "target", "source"))
    save(group, "loss", losses, ("decay", "target"))
    save(group, "relative_gap", gaps, ("decay", "target"))
    save(group, "nonzero", nonzero, ("decay", "target"))


def _batches(a: zarr.Array, b: zarr.Array, seed: int) -> Iterator[tuple[NDArray, NDArray]]:
    """Yield samples of BATCH random images of both nets, without end.

    Images come from a pool of random runs of them, so memory does not grow with their number.
    All come once before any comes again, except those that do not fill a batch.
    """
    rng = np.random.default_rng(seed)
    images, rows = a.shape[0], a.chunks[0]
    runs = max(1, POOL_BYTES * images // ((a.nbytes + b.nbytes) * rows))
    starts = np.arange(0, images, rows)

    def pool(chosen: NDArray) -> list[NDArray]:
        cuts = [(i, min(i + rows, images)) for i in chosen]
        parts = (
            [samples(x, i, j).reshape(j - i, -1, x.shape[-1]) for i, j in cuts] for x in (a, b)
        )
        return [np.concatenate(part) for part in parts]

    whole = [pool(starts)] if runs >= len(starts) else None
    while True:
        parts = np.split(rng.permutation(starts), range(runs, len(starts), runs))
        for x, y in whole or map(pool, parts):
            order = rng.permutation(len(x))
            for start in range(0, max(len(order) - BATCH, 0) + 1, BATCH):
                batch = order[start : start + BATCH]
                yield x[batch].reshape(-1, x.shape[-1]), y[batch].reshape(-1, y.shape[-1])


def _second_moments(
    x: NDArray, y: NDArray, scale_x: tuple[NDArray, NDArray], scale_y: tuple[NDArray, NDArray]
) -> tuple[NDArray, NDArray]:
    """Average the products of a batch's channels, normalised over all images."""

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
