"""Figure of the similarity of layers by each measure, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from convergent.figures.style import NETS
from convergent.measures.registry import measure


def draw_similarity(table: Path, nets: Sequence[str], layers: Sequence[str]) -> Figure:
    """Draw the similarity by layer from a pair's ``similarity.csv``."""
    return similarity_by_layer(pd.read_csv(table, keep_default_na=False), layers, nets)


def similarity_by_layer(table: pd.DataFrame, layers: Sequence[str], nets: Sequence[str]) -> Figure:
    """Draw the similarity of each layer in two nets, one line per measure and direction.

    Parameters
    ----------
    table : DataFrame
        Columns layer_a, layer_b, measure, direction, value, low, high and n_images of
        :func:`convergent.inference.similarity.similarity_table`; low and high may be empty.
    layers : sequence of str
        Layers, from left to right.
    nets : sequence of str
        The two nets.
    """
    figure = Figure(figsize=(6.4, 3.6))
    ax = figure.subplots()
    same = table[table["layer_a"] == table["layer_b"]]
    lines = same.groupby(["measure", "direction"], sort=False)
    for number, ((name, direction), rows) in enumerate(lines):
        rows = rows.set_index("layer_a").reindex(list(layers))
        value, low, high = (
            pd.to_numeric(rows[column], errors="coerce").to_numpy(float)
            for column in ("value", "low", "high")
        )
        arrow = {"ab": f", {nets[0]} to {nets[1]}", "ba": f", {nets[1]} to {nets[0]}"}
        color = NETS[number % len(NETS)]
        label = measure(name).axis + arrow.get(direction, "")
        places = np.arange(len(layers))
        ax.plot(places, value, "o-", color=color, ms=4, label=label)
        ax.fill_between(places, low, high, color=color, alpha=0.25, linewidth=0)
        # The caps show intervals that are too narrow to be visible as a band.
        ax.errorbar(
            places,
            value,
            np.stack([value - low, high - value]),
            fmt="none",
            ecolor=color,
            capsize=3,
        )
    ax.set_xticks(np.arange(len(layers)), layers)
    ax.set(ylim=(min(0, ax.get_ylim()[0]), max(1, ax.get_ylim()[1])), ylabel="similarity of layers")
    ax.set_title(
        f"{' and '.join(nets)}: same layer, 95% intervals over {same['n_images'].max()} images"
    )
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
