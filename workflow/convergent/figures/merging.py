"""Figures of nets between two nets: how well they do, and how much their units vary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from convergent.consequences.curves import CURVE, mean_of_halves
from convergent.figures.style import MATCHING, NETS, PAGE, SMALL, log_scale

LABELS = {
    "none": "as trained",
    "correlation": "aligned by correlation",
    "mutual_information": "aligned by mutual information",
    "weights": "aligned by weights",
    "ensemble": "ensemble",
}
COLORS = dict(zip(LABELS, ["#8c8c8c", MATCHING, NETS[0], NETS[5], "#000000"], strict=True))
# By `repaired` and `batch_norm`.
LINES = {(False, "kept"): "--", (True, "kept"): "-", (False, "reset"): ":"}
HOW = {"--": "averaged", "-": "repaired", ":": "batch normalisation reset"}
ACROSS = 4


def draw_merge(table: Path, nets: Sequence[str]) -> Figure:
    """Draw the accuracy and the loss along the line between the nets of a pair."""
    return curves_of_merging(pd.read_csv(table), nets)


def curves_of_merging(table: pd.DataFrame, nets: Sequence[str]) -> Figure:
    """Draw accuracy, loss, and loss at chosen temperatures along the line between two nets.

    Parameters
    ----------
    table : DataFrame
        Rows of ``merge.csv``. Without labels, agreement with the nets takes the place of accuracy.
    nets : sequence of str
    """
    means = mean_of_halves(table)
    labelled = means["top1"].notna().any()
    share = "top1" if labelled else "agreement"
    figure = Figure(figsize=(PAGE[0], 7))
    axes: dict[str, Axes] = figure.subplot_mosaic(
        [["share", "share"], ["loss", "corrected"]], height_ratios=[1.2, 1]
    )
    used = set()
    for (alignment, repaired, norm), rows in means.groupby(CURVE, sort=False):
        line = "-" if alignment == "ensemble" else LINES[repaired, norm]
        used |= set() if alignment == "ensemble" else {line}
        look: dict[str, Any] = {"color": COLORS[alignment], "ls": line, "lw": 1.4}
        plain, corrected = rows[~rows["corrected"]], rows[rows["corrected"]]
        ax = axes["share"]
        ax.plot(plain["t"], plain[share], **look)
        if labelled:
            band: dict[str, Any] = {"color": COLORS[alignment], "alpha": 0.1, "lw": 0}
            ax.fill_between(plain["t"], plain["low"], plain["high"], **band)
        axes["loss"].plot(plain["t"], plain["loss"], **look)
        axes["corrected"].plot(corrected["t"], corrected["loss"], **look)
    images = int(means["n_images"].max())
    what = "accuracy (top-1)" if labelled else "agreement with the nets"
    title = f"{nets[0]} (t = 0) to {nets[1]} (t = 1), {images} images"
    axes["share"].set(ylim=(0, 1.01), ylabel=what)
    axes["share"].set_title(title, loc="left")
    axes["loss"].set(ylabel="cross-entropy (nats)", title="loss")
    axes["corrected"].set(title="loss at chosen temperatures")
    for name, ax in axes.items():
        ax.set(xlabel="t", xlim=(0, 1))
        if name != "share":
            log_scale(ax)
    top = max(axes[name].get_ylim()[1] for name in ("loss", "corrected"))
    low = min(axes[name].get_ylim()[0] for name in ("loss", "corrected"))
    for name in ("loss", "corrected"):
        axes[name].set_ylim(low, top)
    shown = [name for name in LABELS if (means["alignment"] == name).any()]
    handles = [Line2D([], [], color=COLORS[name], label=LABELS[name]) for name in shown]
    handles += [
        Line2D([], [], color="#444444", ls=line, label=how)
        for line, how in HOW.items()
        if line in used
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=SMALL)
    return figure


def draw_collapse(table: Path, nets: Sequence[str]) -> Figure:
    """Draw the variance of units of the net halfway beside what their matches predict."""
    return variances_of_units(pd.read_csv(table, dtype={"layer": str}), nets)


def variances_of_units(table: pd.DataFrame, nets: Sequence[str]) -> Figure:
    """Draw a panel for each layer: measured against predicted variance, unit by unit.

    Parameters
    ----------
    table : DataFrame
        Rows of ``collapse.csv``.
    nets : sequence of str
    """
    layers = list(dict.fromkeys(table["layer"]))
    across = min(ACROSS, max(len(layers), 1))
    down = max(math.ceil(len(layers) / across), 1)
    figure = Figure(figsize=(PAGE[0], 1.0 + 1.8 * down))
    axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    top = max(1.0, 1.02 * table["whole"].quantile(0.995)) if len(table) else 1.0
    for number, ax in enumerate(axes.flat):
        if number >= len(layers):
            ax.set_visible(False)
            continue
        rows = table[table["layer"] == layers[number]].dropna(subset=["predicted"])
        ax.plot([0, 1], [0, 1], color="black", lw=0.7, zorder=1)
        ax.plot(rows["predicted"], rows["alone"], "o", color=NETS[1], ms=4, mew=0, alpha=0.6)
        over = rows["whole"] > top
        ax.plot(
            rows["predicted"], rows["whole"].clip(upper=top), "o", color=MATCHING, ms=2.5, mew=0
        )
        ax.plot(rows.loc[over, "predicted"], [top] * over.sum(), "^", color=MATCHING, ms=4)
        means = rows[["predicted", "whole"]].mean()
        ax.set_title(
            f"{layers[number]}\nline {means['predicted']:.2f}, all {means['whole']:.2f}",
            fontsize=SMALL,
        )
        ax.set(xlim=(0, 1), ylim=(0, top), xticks=[0, 0.5, 1], xticklabels=["0", ".5", "1"])
        ax.xaxis.set_tick_params(labelbottom=number + across >= len(layers))
    handles = [
        Line2D([], [], ls="", marker="o", color=NETS[1], ms=4, label="this layer averaged"),
        Line2D([], [], ls="", marker="o", color=MATCHING, ms=3, label="all layers averaged"),
        Line2D([], [], color="black", lw=0.7, label="as predicted"),
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=3, fontsize=SMALL)
    figure.suptitle(f"{nets[0]} and {nets[1]} halfway", x=0.01, ha="left", fontsize=9)
    figure.supxlabel("variance that the match predicts, over that of the parents", fontsize=9)
    figure.supylabel("measured variance, over that of the parents", fontsize=9)
    return figure
