"""Figure of the accuracy of a net that goes on from a layer of another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from convergent.figures.style import CHANCE, MATCHING, NETS, PAGE, SMALL, name_places

# Colour and marker of each map.
MAPS = {
    "matching": (MATCHING, "o"),
    "sparse": (NETS[5], "s"),
    "linear": (NETS[0], "D"),
    "rotation": (NETS[2], "^"),
}
CONTROLS = {"untrained": CHANCE["untrained_one"], "shuffled": CHANCE["images"]}
_OF_CONTROLS = {"untrained": "from untrained", "shuffled": "images shuffled"}
_LABELS = {"matching": "matching", "linear": "least squares", "rotation": "rotation"}


# Weights for each unit in the sparse map that is shown by layer: those of the paper's map of conv1
# (section 4).
FEW = 4.7


def draw_stitch(table: Path, nets: Sequence[str], layers: Sequence[str]) -> Figure:
    """Draw a pair's ``stitch.csv``."""
    return stitched_accuracy(pd.read_csv(table), nets, layers)


def stitched_accuracy(table: pd.DataFrame, nets: Sequence[str], layers: Sequence[str]) -> Figure:
    """Draw accuracy by layer, and by the number of weights for each unit.

    Parameters
    ----------
    table : DataFrame
        Rows of ``stitch.csv``.
    nets : sequence of str
        The two nets; in the left column the second goes on from the first.
    layers : sequence of str
        Layers, from left to right; those that cannot be stitched have a gap.
    """
    # The mean over the halves that are scored.
    keys = ["direction", "layer", "map", "control", "decay"]
    kept = table[table["map"].notna()].fillna({"decay": -1.0})
    means = kept.groupby(keys)[["weights_per_unit", "top1"]].mean().reset_index()
    figure = Figure(figsize=(PAGE[0], 7.6))
    parts = figure.subfigures(2, 1, squeeze=False)[:, 0]
    axes = np.stack([part.subplots(1, 2, sharey=True) for part in parts])
    for column, direction in enumerate(("ab", "ba")):
        a, b = nets if direction == "ab" else nets[::-1]
        rows = means[means["direction"] == direction]
        axes[0, column].set_title(f"{b} goes on from a layer of {a}", loc="left")
        _draw_by_layer(axes[0, column], rows, layers)
        _draw_by_weights(axes[1, column], rows, layers)
    for ax in axes[:, 0]:
        ax.set_ylabel("top-1 accuracy (%)")
    for part, (ax, _), columns in zip(parts, axes, (2, 4), strict=True):
        handles, names = ax.get_legend_handles_labels()
        part.legend(handles, names, loc="outside lower center", ncols=columns, fontsize=SMALL)
    return figure


def _draw_by_layer(ax: Axes, rows: pd.DataFrame, layers: Sequence[str]) -> None:
    places = np.arange(len(layers))
    own = rows[rows["map"] == "own"]["top1"].mean()
    ax.axhline(100 * own, color="black", lw=0.8, label="from its own activations")
    for name, (color, marker) in MAPS.items():
        shown = _few(rows[(rows["map"] == name) & (rows["control"] == "none")])
        label = f"{name}, about {FEW} weights a unit" if name == "sparse" else _LABELS[name]
        ax.plot(
            places, 100 * shown.reindex(list(layers)), color=color, marker=marker, ms=5, label=label
        )
    for control, look in CONTROLS.items():
        shown = _few(rows[(rows["map"] == "matching") & (rows["control"] == control)])
        if len(shown):
            ax.plot(
                places, 100 * shown.reindex(list(layers)), color=look.color, ls=look.line,
                marker=look.marker, ms=4, label=f"matching, {_OF_CONTROLS[control]}",
            )  # fmt: skip
    name_places(ax, layers)
    ax.set(xlim=(-0.5, len(layers) - 0.5), ylim=(0, 102))


def _draw_by_weights(ax: Axes, rows: pd.DataFrame, layers: Sequence[str]) -> None:
    maps = rows[(rows["control"] == "none") & rows["map"].isin(["sparse", "linear"])]
    for number, layer in enumerate(layers):
        curve = maps[maps["layer"] == layer].sort_values("weights_per_unit")
        if curve.empty:
            continue
        color = colormaps["viridis"](number / max(len(layers) - 1, 1) * 0.9)
        ax.plot(
            curve["weights_per_unit"], 100 * curve["top1"], color=color, marker=".", label=layer
        )
        one = rows.query("layer == @layer and control == 'none' and map == 'matching'")
        ax.plot(one["weights_per_unit"], 100 * one["top1"], "o", color=color, mec=MATCHING, ms=6)
    ax.plot([], [], "o", color="white", mec=MATCHING, label="matching")
    ax.axvline(FEW, color="#a0a0a0", lw=0.8, ls=":")
    ax.set_xscale("symlog", linthresh=1)
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.set(xlabel="weights for each unit", xlim=(-0.05, None), ylim=(0, 102))


def _few(rows: pd.DataFrame) -> pd.Series:
    """Select the accuracy of each layer's map whose number of weights is nearest to FEW."""
    away = (rows["weights_per_unit"] - FEW).abs()
    return rows.loc[away.groupby(rows["layer"]).idxmin()].set_index("layer")["top1"]
