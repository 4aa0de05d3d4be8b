"""Figure of how often each measure identifies the layers of a net in another."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from convergent.figures.chance import column
from convergent.figures.similarity import towards, way_title
from convergent.figures.style import NETS, PAGE, SMALL
from convergent.inference.identification import by_way


def draw_identification(table: Path, nets: Sequence[str]) -> Figure:
    """Draw the shares of identified layers from a pair's ``identification.csv``."""
    return shares_by_measure(pd.read_csv(table, keep_default_na=False), nets)


def shares_by_measure(table: pd.DataFrame, nets: Sequence[str]) -> Figure:
    """Draw the share of layers that each measure identifies, with its interval and chance.

    Parameters
    ----------
    table : DataFrame
        Result of :func:`convergent.inference.identification.identification`.
    nets : sequence of str
        The two nets.
    """
    ways = list(by_way(table))
    figure = Figure(figsize=(PAGE[0], 1.3 + 0.27 * max(1, len(ways))))
    ax = figure.subplots()
    labels = []
    for place, ((name, parameter, direction), rows) in enumerate(ways):
        names = way_title(name, parameter, 200), towards(direction, nets)
        labels.append(textwrap.fill(", ".join(filter(None, names)), 44))
        counts = []
        for number, net in enumerate(nets):
            row = rows[rows["net"] == net]
            share, low, high, right, layers = (
                column(row, key)[0] for key in ("share", "low", "high", "right", "n_layers")
            )
            counts.append(f"{right:.0f}/{layers:.0f}" if np.isfinite(share) else "none")
            ax.errorbar(
                share, place + (0.16 if number else -0.16), xerr=[[share - low], [high - share]],
                fmt="os"[number], color=NETS[number], ms=4.5, capsize=2, elinewidth=1,
                label=f"layers of {net} among those of {nets[1 - number]}" if not place else None,
            )  # fmt: skip
        beside = ax.get_yaxis_transform()
        ax.text(1.03, place, ", ".join(counts), va="center", fontsize=SMALL, transform=beside)
        note = next((note for note in rows["note"] if note), "")
        ax.text(0.5, place, note, va="center", ha="center", fontsize=SMALL, transform=beside)
    ax.set_title("right", loc="right", x=1.03, ha="left", fontsize=SMALL)
    for number, level in enumerate(sorted(set(np.round(column(table, "chance"), 6)))):
        if np.isfinite(level):
            label = None if number else "chance: 1 / number of layers"
            ax.axvline(level, color="#7f7f7f", lw=1, ls=(0, (4, 2)), label=label, zorder=0)
    ax.set_yticks(range(len(labels)), labels, fontsize=SMALL)
    ax.set(ylim=(len(ways) - 0.4, -0.6), xlim=(-0.02, 1.02))
    ax.set_xlabel("share of layers whose namesake is the most alike, with 95% interval")
    images = pd.to_numeric(table["n_images"], errors="coerce").max()
    layers = pd.to_numeric(table["n_layers"], errors="coerce").max()
    n = "" if np.isnan(images) else f": {layers:.0f} layers, {images:.0f} images"
    figure.suptitle(f"{' and '.join(nets)}{n}", fontsize=10)
    figure.legend(loc="outside lower center", ncols=3, fontsize=SMALL)
    return figure
