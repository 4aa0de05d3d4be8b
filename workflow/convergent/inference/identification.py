"""Identification of layers: whether the same layer of another net is the most alike of all.

This is the test by which Kornblith et al. (2019), section 6.1, compare measures: of two nets of one
architecture, a measure should find each layer of the one most alike to its own counterpart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.typing import DataFrameGroupBy
from scipy.stats import binomtest

from convergent.measures.registry import measure as registered

# Columns that tell the ways of comparing layers apart.
WAY = ["measure", "parameter", "direction"]
COLUMNS = [
    *WAY, "net", "right", "share", "chance", "low", "high", "p",
    "n_layers", "n_images", "note",
]  # fmt: skip


class Identified(NamedTuple):
    """Layers that were looked up in another net.

    Attributes
    ----------
    right : ndarray of shape (layer,), bool
    candidates : ndarray of shape (layer,), int64
        Number of layers among which each was looked up.
    """

    right: NDArray[np.bool]
    candidates: NDArray[np.int64]


def identified(
    values: NDArray[np.float64], rows: Sequence[int], columns: Sequence[int]
) -> Identified:
    """Look up layers by their largest value.

    Parameters
    ----------
    values : ndarray of shape (layer, layer of the other net)
        Larger is more alike; NaN where there is no value.
    rows, columns : sequence of int
        Places of the layers to look up, and of the same layers in the other net.

    Returns
    -------
    Identified
        Of the layers whose value with their namesake is known.
    """
    own = values[rows, columns] if len(rows) else np.zeros(0)
    known = np.isfinite(own)
    others = values[np.asarray(rows, np.intp)[known]].copy()
    candidates = np.isfinite(others).sum(axis=1)
    others[np.arange(len(others)), np.asarray(columns, np.intp)[known]] = -np.inf
    best = np.nanmax(others, axis=1, initial=-np.inf)
    return Identified(own[known] > best, candidates)


def by_way(table: pd.DataFrame) -> DataFrameGroupBy:
    """Group the rows of a table of similarity by :data:`WAY`, in their order."""
    table = table.assign(parameter=table.get("parameter", ""))
    table[WAY] = table[WAY].fillna("")
    return table.groupby(WAY, sort=False)


def value_matrix(rows: pd.DataFrame, sides: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Arrange values of pairs of layers as a matrix (layer_a, layer_b), NaN where there is none."""
    values = pd.to_numeric(rows["value"], errors="coerce").to_numpy(float)
    matrix = np.full((len(sides[0]), len(sides[1])), np.nan)
    places = [
        [side.index(layer) for layer in rows[name]]
        for side, name in zip(map(list, sides), ("layer_a", "layer_b"), strict=True)
    ]
    matrix[places[0], places[1]] = values
    return matrix


def identification_table(
    table: str | Path, sides: Sequence[Sequence[str]], nets: Sequence[str]
) -> pd.DataFrame:
    """Identify the layers of two nets from their table of all pairs of layers."""
    return identification(pd.read_csv(table, keep_default_na=False), sides, nets)


def identification(
    table: pd.DataFrame,
    sides: Sequence[Sequence[str]],
    nets: Sequence[str],
    level: float = 0.95,
) -> pd.DataFrame:
    """Count for each measure the layers whose namesake in the other net is the most alike.

    Parameters
    ----------
    table : DataFrame
        Columns layer_a, layer_b, measure, direction, value, n_images and, if a measure has one,
        parameter of :func:`convergent.inference.similarity.layer_table`, for all pairs of layers.
    sides : (sequence of str, sequence of str)
        Layers of the two nets. Those of the same name are the ones to identify, among all layers of
        the other net.
    nets : (str, str)
        The two nets.
    level : float
        Confidence level of the interval.

    Returns
    -------
    DataFrame
        Two rows for each measure, parameter and direction: one for each net whose layers are looked
        up in the other. `right` of `n_layers` are identified: the namesake is more alike than each
        other layer, and a tie is not right. `chance` is the mean of 1 / number of candidates. `low`
        and `high` are the exact interval of the share by Clopper and Pearson, and `p` is exact and
        one-sided against `chance`; both take layers as independent. Without a value, `note` says
        why.
    """
    rows: list[dict[str, object]] = []
    common = [layer for layer in sides[0] if layer in sides[1]]
    for key, of_way in by_way(table):
        matrix = value_matrix(of_way, sides)
        if not registered(key[0]).higher_is_more_alike:
            matrix = -matrix
        for number, net in enumerate(nets):
            values = matrix.T if number else matrix
            places = [
                [sides[side].index(layer) for layer in common] for side in (number, 1 - number)
            ]
            found = identified(values, *places)
            row: dict[str, object] = dict(zip(WAY, key, strict=True)) | {"net": net}
            row |= {"n_layers": len(found.right), "n_images": of_way["n_images"].max(), "note": ""}
            if not len(found.right):
                row["note"] = "the nets have no layers of the same name"
                if common:
                    row["note"] = next(filter(None, of_way.get("note", [])), "there is no value")
                rows.append(row)
                continue
            right, layers = int(found.right.sum()), len(found.right)
            chance = float(np.mean(1 / found.candidates))
            test = binomtest(right, layers, chance, alternative="greater")
            interval = binomtest(right, layers).proportion_ci(level, method="exact")
            row |= {"right": right, "share": right / layers, "chance": chance, "p": test.pvalue}
            rows.append(row | {"low": interval.low, "high": interval.high})
    return pd.DataFrame(rows, columns=COLUMNS).astype({"right": "Int64"})
