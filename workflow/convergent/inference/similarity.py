"""Similarity of the layers of two nets, with intervals, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from convergent.activations.blocks import aligned, load_blocks
from convergent.activations.moments import Moments
from convergent.inference.jackknife import jackknife
from convergent.measures.registry import Measure
from convergent.nets.marks import check_same_images
from convergent.running.progress import progress
from convergent.running.stores import open_store

COLUMNS = [
    "layer_a", "layer_b", "measure", "direction", "sample", "parameter", "value", "held_out",
    "standard_error", "low", "high", "n_images", "n_nets",
]  # fmt: skip


def similarity_table(
    measures: Sequence[Measure],
    layers: Sequence[str],
    statistics_a: str | Path,
    statistics_b: str | Path,
    correlation: str | Path,
) -> pd.DataFrame:
    """Compare each layer of one net with the same layer of another.

    Parameters
    ----------
    measures : sequence of Measure
        Measures that give layers from moments.
    layers : sequence of str
    statistics_a, statistics_b, correlation : path
        Stores of the two nets and of the pair.

    Returns
    -------
    DataFrame
        One row for each layer and measure; for a measure that is not symmetric, one for each
        direction (ab, ba). Columns layer_a, layer_b, measure, direction, sample (position:
        each image and position of a map is a sample), parameter, value, held_out (empty for
        measures without a choice to hold out), standard_error, low and high (95%, by
        :func:`convergent.inference.jackknife.jackknife`), n_images, n_nets.

    Raises
    ------
    StoreError
        If the stores are of different images.
    """
    paths = (correlation, statistics_a, statistics_b)
    stores = [open_store(path) for path in paths]
    check_same_images(dict(zip(paths, stores, strict=True)), other_views=True)
    rows = []
    name = f"similarity of {Path(correlation).parent.name}"
    for layer in progress(layers, name, "pair", lambda at: stores[0][f"{at}/correlation"].size):
        several = aligned([load_blocks(store[layer]) for store in stores])
        sizes = np.diff(several[0].cut.edges)
        total = [blocks.total() for blocks in several]
        ways = [
            (measure, direction)
            for measure in measures
            for direction in ([""] if measure.symmetric else ["ab", "ba"])
        ]
        without = [
            [_compute(*way, *moments) for way in ways]
            for moments in zip(*(blocks.leave_one_out() for blocks in several), strict=True)
        ]
        for way, values in zip(ways, zip(*without, strict=True), strict=True):
            value = _compute(*way, *total)
            row: dict[str, object] = {"layer_a": layer, "layer_b": layer}
            row |= {"measure": way[0].name, "direction": way[1], "sample": "position"}
            row |= {"value": value, "n_images": int(sizes.sum()), "n_nets": 2}
            rows.append(row | jackknife(value, values, sizes)._asdict())
    return pd.DataFrame(rows, columns=COLUMNS)


def _compute(
    measure: Measure, direction: str, between: Moments, within_a: Moments, within_b: Moments
) -> float:
    if direction == "ba":
        return float(measure.compute(between.turned(), within_b, within_a))
    return float(measure.compute(between, within_a, within_b))
