"""Matrices of a measure between all units of two nets, from what a run stores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from convergent.activations.blocks import load_blocks
from convergent.measures.registry import Measure
from convergent.nets.marks import check_same_images
from convergent.running.progress import progress
from convergent.running.stores import StoreError, new_store, open_store, save


def write_matrices(
    measure: Measure,
    store: str | Path,
    layers: Sequence[str],
    statistics_a: str | Path,
    statistics_b: str | Path | None = None,
    correlation: str | Path | None = None,
    *,
    other_views: bool = False,
    threads: int = 1,
    device: str = "cpu",
) -> None:
    """Write a measure of all units of two nets, or of one: ``pairs/<a>-<b>/<measure>.zarr``.

    Per layer a group with an array of the measure's name (float32; unit_a, unit_b), and
    `corrected`, the same minus its bias, where the measure declares one.

    Parameters
    ----------
    measure : Measure
        Measure of units, from codes or moments.
    store : path
        Zarr store to write.
    layers : sequence of str
    statistics_a, statistics_b : path
        Statistics of the nets; without the second, the matrices are those within the first.
    correlation : path
        Correlations of the pair, whose blocks hold the moments between the nets; read by measures
        of moments only.
    other_views : bool
        See :func:`convergent.activations.statistics.write_correlation`.
    threads, device
        Arguments of measures of codes.

    Raises
    ------
    StoreError
        If the two nets were not sampled at the same images and positions, or had different views.
    """
    a, b, between = open_store(statistics_a), None, None
    if statistics_b is not None:
        b = open_store(statistics_b)
        same = check_same_images({statistics_a: a, statistics_b: b}, other_views=other_views)
    if correlation is not None:
        between = open_store(correlation)
        check_same_images({statistics_a: a, correlation: between}, other_views=True)

    compute = measure.compute
    if compute is None:
        raise ValueError(f"measure {measure.name} chooses from matrices and makes none")

    def pairs(layer: str) -> int:
        return a[f"{layer}/mean"].size * (b or a)[f"{layer}/mean"].size

    def codes(layer: str) -> list:
        for name in ("sample_image", "sample_position"):
            samples = [g[f"{layer}/{name}"][...] for g in (a, b) if g is not None]
            if not np.array_equal(samples[0], samples[-1]):
                raise StoreError(
                    f"{statistics_a} and {statistics_b}: {layer}/{name} differ; the samples of "
                    f"{layer} must be the same images at the same positions, so give it a map of "
                    "one size in both nets (by `grid`)"
                )
        found = [g[f"{layer}/codes"][...] for g in (a, b) if g is not None]
        return [found[0], found[-1]]

    def moments(layer: str) -> list:
        groups = [between or a, a, b or a]
        return [load_blocks(group[layer]).total() for group in groups]

    with new_store(store) as target:
        if b is not None:
            target.attrs["same_views"] = same
        for layer in progress(layers, Path(store), "pair", pairs):
            if measure.needs == "codes":
                arguments = codes(layer)
                matrix = compute(*arguments, threads=threads, device=device)
            else:
                arguments = moments(layer)
                matrix = compute(*arguments)
            group, names = target.create_group(layer), ("unit_a", "unit_b")
            save(group, measure.name, matrix.astype(np.float32), names)
            if measure.bias:
                corrected = matrix - measure.bias(*arguments)
                save(group, "corrected", corrected.astype(np.float32), names)
