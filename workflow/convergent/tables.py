"""Tables over all nets and pairs, beside the numbers that the paper prints."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr

from convergent.matching import ranking

# Section 2: the four nets' top-1 accuracy on ImageNet.
PAPER_TOP1 = (0.5865, 0.5873, 0.5879, 0.5884)
# Section 4: share of Net1's units with no match in Net2 of a correlation above 0.5.
PAPER_UNMATCHED = {"conv1": 0.17, "conv2": 0.37, "conv3": 0.63, "conv4": 0.92, "conv5": 0.75}
# Section 3.2: how many of the eight best matched pairs stay the best.
PAPER_TOP8 = {"conv1": 7}


def accuracy(histories: Mapping[str, pd.DataFrame], seeds: Mapping[str, int]) -> pd.DataFrame:
    """Accuracy of every net after its last epoch.

    Parameters
    ----------
    histories : mapping of net to DataFrame
        As ``history.csv`` has them.
    seeds : mapping of net to int

    Returns
    -------
    DataFrame
        Columns net, seed, epochs, train_loss, train_top1, val_loss, val_top1, and paper_top1 for
        the first four nets.
    """
    columns = ["train_loss", "train_top1", "val_loss", "val_top1"]
    rows = [
        {"net": net, "seed": seeds[net], "epochs": len(history), **history.iloc[-1][columns]}
        for net, history in histories.items()
    ]
    frame = pd.DataFrame(rows)
    frame["paper_top1"] = pd.Series(PAPER_TOP1)
    return frame


def unmatched(
    matches: Mapping[str, pd.DataFrame],
    dead: Mapping[str, Mapping[str, int]],
    threshold: float = 0.5,
) -> pd.DataFrame:
    """Share of units whose semi-match correlates less than `threshold` (section 4).

    Parameters
    ----------
    matches : mapping of pair to DataFrame
        As ``matching.csv`` has them.
    dead : mapping of net to mapping of layer to int
        Number of dead units; they are never matched and count as unmatched.
    threshold : float

    Returns
    -------
    DataFrame
        Columns layer, pair, direction, units, dead, unmatched, paper.
    """
    frames = []
    for pair, table in matches.items():
        semi = table.query("measure == 'correlation' and method == 'semi'")
        frame = (
            semi.assign(pair=pair, below=semi["value"] < threshold)
            .groupby(["layer", "pair", "direction"], sort=False)["below"]
            .agg(units="size", unmatched="mean")
            .reset_index()
        )
        frames.append(frame)
    frame = pd.concat(frames, ignore_index=True)
    first = [
        dead[pair.split("-")[direction == "ba"]][layer]
        for layer, pair, direction in zip(
            frame["layer"], frame["pair"], frame["direction"], strict=True
        )
    ]
    frame.insert(4, "dead", first)
    frame["paper"] = frame["layer"].map(PAPER_UNMATCHED)
    return by_layer(frame)


def by_layer(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows put together by layer, layers and their rows in the order in which they come."""
    order = {layer: i for i, layer in enumerate(frame["layer"].unique())}
    return frame.sort_values("layer", key=lambda c: c.map(order), kind="stable", ignore_index=True)


def measure_agreement(
    table: pd.DataFrame,
    correlation: Mapping[str, NDArray],
    mutual_information: Mapping[str, NDArray],
    pair: str,
) -> pd.DataFrame:
    """How far mutual information matches units as correlation does (section 3.2).

    Parameters
    ----------
    table : DataFrame
        As ``matching.csv`` has it, with both measures.
    correlation, mutual_information : mapping of layer to ndarray of shape (unit_a, unit_b)
    pair : str
        For the column of this name.

    Returns
    -------
    DataFrame
        One row per layer: layer, pair, units; top8, how many of the 8 units best semi-matched
        by correlation are among the 8 best by mutual information; paper_top8; tenth, a tenth
        of the units, and top_tenth, how many of these stay; same_partner_semi and
        same_partner_matching, shares of units with the same partner; spearman, the rank
        correlation of the two measures over all pairs of units, and spearman_absolute, that of
        mutual information with the size of correlations, whose sign it does not see.
    """
    rows = []
    for layer, similarity in correlation.items():
        a, b = (ranking(table, layer, m)["unit"] for m in ("correlation", "mutual_information"))
        tenth = max(1, round(len(a) / 10))
        row = {"layer": layer, "pair": pair, "units": len(a)}
        row |= {"top8": len(set(a[:8]) & set(b[:8])), "paper_top8": PAPER_TOP8.get(layer)}
        row |= {"tenth": tenth, "top_tenth": len(set(a[:tenth]) & set(b[:tenth]))}
        for method in ("semi", "matching"):
            chosen = table.query("layer == @layer and method == @method and direction == 'ab'")
            partner = chosen.pivot_table(index="unit", columns="measure", values="partner")
            agree = partner["correlation"] == partner["mutual_information"]
            row[f"same_partner_{method}"] = agree.mean()
        row["spearman"] = _spearman(similarity, mutual_information[layer])
        row["spearman_absolute"] = _spearman(np.abs(similarity), mutual_information[layer])
        rows.append(row)
    return pd.DataFrame(rows)


def _spearman(x: NDArray, y: NDArray) -> float:
    x, y = np.ravel(x), np.ravel(y)
    constant = np.ptp(x) == 0 or np.ptp(y) == 0
    return float("nan") if constant else float(spearmanr(x, y).statistic)
