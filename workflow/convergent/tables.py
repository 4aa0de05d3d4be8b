"""Tables over all nets and pairs, beside the numbers that the paper prints."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

# Section 2: the four nets' top-1 accuracy on ImageNet.
PAPER_TOP1 = (0.5865, 0.5873, 0.5879, 0.5884)
# Section 4: share of Net1's units with no match in Net2 of a correlation above 0.5.
PAPER_UNMATCHED = {"conv1": 0.17, "conv2": 0.37, "conv3": 0.63, "conv4": 0.92, "conv5": 0.75}


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
    order = {layer: i for i, layer in enumerate(frame["layer"].unique())}
    return frame.sort_values("layer", key=lambda c: c.map(order), kind="stable", ignore_index=True)
