"""Figure of nets in which two nets share units: accuracy by size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from convergent.figures.style import MATCHING, NETS, PAGE

SCORES = ["loss", "top1"]
LABELS = {"top1": "top-1 accuracy (%)", "loss": "loss (nats)"}


def draw_zip(table: Path, nets: Sequence[str]) -> Figure:
    """Draw a pair's ``zip.csv``."""
    return accuracy_by_size(pd.read_csv(table), nets)


def accuracy_by_size(table: pd.DataFrame, nets: Sequence[str]) -> Figure:
    """Draw the accuracy and the loss of zipped nets against their number of parameters.

    Parameters
    ----------
    table : DataFrame
        Rows of ``zip.csv``.
    nets : sequence of str
        The two nets, which are dotted lines.
    """
    keys = ["net", "repaired", "parameters"]
    means = table.groupby(keys)[SCORES].mean()
    size = table.loc[table["net"] == nets[0], "parameters"].iloc[0]
    figure = Figure(figsize=(PAGE[0], 3.2))
    for ax, score in zip(figure.subplots(1, 2), reversed(SCORES), strict=True):
        scale = 100 if score == "top1" else 1
        for repaired, line, label in ((False, "--", "zipped"), (True, "-", "zipped and repaired")):
            curve = scale * means.loc["zip", repaired][score]
            ax.plot(
                curve.index / size, curve, color=MATCHING, ls=line, marker=".", ms=4, label=label
            )
        for name, color in zip(nets, NETS, strict=False):
            value = scale * means.loc[name][score].iloc[0]
            ax.axhline(value, color=color, ls=":", lw=1.2, label=name)
        value = scale * means.loc["ensemble"][score].iloc[0]
        ax.plot([2], [value], "*", color="black", ms=9, ls="", label="ensemble (probabilities)")
        ax.set(xlabel="parameters, in those of one net", ylabel=LABELS[score], xlim=(0.97, 2.05))
    figure.axes[1].set_ylim(bottom=0)
    figure.suptitle(f"{nets[0]} and {nets[1]} as one net", x=0.01, ha="left", fontsize=10)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure
