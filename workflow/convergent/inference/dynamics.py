"""Similarity of layers along training: to another net at the same epoch, and to the final state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from convergent.activations.side_by_side import Observed
from convergent.inference.comparisons import Comparison
from convergent.inference.estimates import Way, estimates, ways
from convergent.inference.nulls import null_columns, rotations
from convergent.inference.over_nets import over_nets
from convergent.measures.registry import measure

# Measures of the table: of units, and of layers as wholes, by positions and by images.
MEASURES = ("semi_mean", "matching_mean", "cka", "cka_unbiased")
NULL = null_columns("rotation")
WHERE = ["epoch", "compared", "net_a", "net_b", "top1"]
WHAT = ["layer", "measure", "direction", "sample", "parameter"]
NUMBERS = ["value", "held_out", "standard_error", "low", "high", *NULL, "ceiling"]
OVER = ["low_nets", "high_nets", "n_images", "n_nets", "note"]
COLUMNS = [*WHERE, *WHAT, *NUMBERS, *OVER]
# Name of both nets in rows over nets.
ALL = "all"


def dynamics_table(
    observed: Iterable[Observed],
    accuracy: Mapping[tuple[float, str], float],
    *,
    draws: int = 20,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """Compare nets along their training with each other and with their own final states.

    Parameters
    ----------
    observed : iterable of Observed
        From :func:`convergent.activations.side_by_side.observed`.
    accuracy : mapping of (epoch, net) to float
        Top-1 accuracy of each net at each epoch; NaN or missing if unknown.
    draws, seed : int
        Number of draws in which the units of the second net are rotated, and their seed.
    level : float
        Confidence level.

    Returns
    -------
    DataFrame
        Rows by `layer`, `epoch` and measure. `compared` is ``other``, for two nets at the same
        epoch, or ``final``, for a net and itself at the end. value, held_out, the interval over
        blocks of images (low, high) and the null of rotated units are those of
        :func:`convergent.inference.estimates.estimates`; `top1` is the mean accuracy of the nets at
        that epoch. In rows whose nets are ``all`` these are means over nets or pairs and both
        directions, and low_nets and high_nets the interval over nets; `note` says why there is
        none, or why another number is missing.
    """
    asked = [way for way in ways([measure(name) for name in MEASURES]) if not way.of_codes]
    rows = []
    for each in observed:
        rows += _rows(each, asked, accuracy, draws, seed, level)
    table = pd.DataFrame(rows, columns=COLUMNS)
    return pd.concat([table, _over_nets(table, level)], ignore_index=True)


def _rows(
    observed: Observed,
    asked: list[Way],
    accuracy: Mapping[tuple[float, str], float],
    draws: int,
    seed: int,
    level: float,
) -> list[dict[str, Any]]:
    comparison = Comparison(
        observed.layer, observed.layer, observed.blocks, image_means=observed.image_means
    )
    nulls = {"rotation": rotations(comparison.split, draws, seed)} if draws else {}
    found, _ = estimates(asked, comparison, nulls, level)
    nets = {observed.net_a, observed.net_b}
    known = [accuracy.get((observed.epoch, net), np.nan) for net in sorted(nets)]
    where = {name: getattr(observed, name) for name in WHERE if name != "top1"}
    where |= {"top1": float(np.mean(known)), "layer": observed.layer}
    return [{**row, **where, "n_nets": len(nets)} for row in found]


def _over_nets(table: pd.DataFrame, level: float) -> pd.DataFrame:
    """Average over nets or pairs, and both directions."""
    table = table.assign(parameter=table["parameter"].fillna(""))
    keys = ["layer", "epoch", "compared", "measure", "sample", "parameter"]
    rows = []
    for key, group in table.groupby(keys, sort=False):
        values = group.groupby(["net_a", "net_b"], sort=False)["value"].mean()
        found = over_nets(dict(values.items()), level)
        numbers = group[["top1", *NUMBERS]].mean()
        # A mean over pairs is no single estimate, and has no p of its own.
        numbers[[NULL[1], NULL[2]]] = np.nan
        interval = found.interval
        row = dict(zip(keys, key, strict=True)) | numbers.to_dict()
        row |= {"net_a": ALL, "net_b": ALL, "n_nets": found.n_nets, "note": found.note}
        row |= {"n_images": group["n_images"].max()}
        row |= {"low_nets": interval.low, "high_nets": interval.high} if interval else {}
        rows.append(row)
    over = pd.DataFrame(rows, columns=COLUMNS)
    return over.assign(parameter=over["parameter"].replace("", None), direction="")
