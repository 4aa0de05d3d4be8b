"""Figure of what a net loses with its units, in the order in which they are removed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from convergent.figures.style import MATCHING, NETS, PAGE, SEMI, SMALL

# Colour, line and name of each order.
ORDERS = {
    "unmatched_first": (SEMI, "-", "worst matched first"),
    "matched_first": (MATCHING, "-", "best matched first"),
    "least_active": (NETS[0], "--", "least active first"),
}
RANDOM = "#a0a0a0"
# Name of the removal from all layers at once.
ALL = "all"


def draw_prune(table: Path, nets: Sequence[str], layers: Sequence[str]) -> Figure:
    """Draw a pair's ``prune.csv``."""
    return accuracy_by_share(pd.read_csv(table), nets, layers)


def accuracy_by_share(table: pd.DataFrame, nets: Sequence[str], layers: Sequence[str]) -> Figure:
    """Draw the accuracy that is left against the share of units removed.

    Parameters
    ----------
    table : DataFrame
        Rows of ``prune.csv``.
    nets : sequence of str
        The two nets; each has a row of panels for every four layers.
    layers : sequence of str
        Layers in order, after which comes the removal from all at once.
    """
    # The mean over the halves that are scored.
    keys = ["removal", "net", "layer", "order", "draw", "share"]
    every = table.fillna({"draw": -1}).groupby(keys)["top1"].mean()
    panels = [(net, layer) for net in nets for layer in [*layers, ALL]]
    columns = min(4, len(layers) + 1)
    rows = math.ceil((len(layers) + 1) / columns)
    figure = Figure(figsize=(PAGE[0], 1.75 * rows * len(nets) + 0.7))
    axes = figure.subplots(rows * len(nets), columns, sharex=True, sharey=True, squeeze=False)
    for ax in axes.flat:
        ax.set_visible(False)
    for number, (net, layer) in enumerate(panels):
        own, place = divmod(number, len(layers) + 1)
        row, column = divmod(place, columns)
        ax = axes[own * rows + row, column]
        ax.set_visible(True)
        ax.set_title(f"{net}, {'all layers' if layer == ALL else layer}", loc="left")
        ax.tick_params(labelbottom=place + columns > len(layers), labelleft=column == 0)
        for order, (color, line, label) in ORDERS.items():
            for removal, width, name in (("mean", 1.8, label), ("resampled", 0.8, None)):
                curve = every[removal][net, layer, order].groupby("share").mean()
                ax.plot(curve.index, 100 * curve, color=color, ls=line, lw=width, label=name)
        draws = 100 * every["mean"][net, layer, "random"].groupby("share").agg(
            ["min", "mean", "max"]
        )
        ax.fill_between(
            draws.index, draws["min"], draws["max"], color=RANDOM, alpha=0.35, lw=0,
            label="at random, all draws",
        )  # fmt: skip
        ax.plot(draws.index, draws["mean"], color=RANDOM, lw=1, label="their mean")
        ax.set(xlim=(0, 1), ylim=(0, 101), xticks=[0, 0.5, 1], xticklabels=["0", ".5", "1"])
    figure.supxlabel("share of units removed", fontsize=9)
    figure.supylabel("top-1 accuracy (%)", fontsize=9)
    handles, names = axes[0, 0].get_legend_handles_labels()
    handles.append(Line2D([], [], color="black", lw=0.8))
    names.append("thin: values of other images in place of means")
    figure.legend(handles, names, loc="outside upper center", ncols=2, fontsize=SMALL)
    return figure
