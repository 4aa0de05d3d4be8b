"""Figure of partners on other images than those on which they were chosen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from convergent.figures.style import MATCHING, PAGE, SEMI, SMALL
from convergent.inference.probes import ALL
from convergent.nets.probes import PLAIN

COLUMNS = 4


def draw_probes(table: pd.DataFrame) -> Figure:
    """Draw, by layer, how well partners from the validation images match on each probe.

    Parameters
    ----------
    table : DataFrame
        Result of :func:`convergent.inference.probes.probe_table`.
    """
    table = table[table["net_a"] == ALL]
    layers, probes = (list(dict.fromkeys(table[name])) for name in ("layer", "probe"))
    places = np.arange(len(probes))
    rows = -(-(len(layers) + 1) // COLUMNS)
    letters = max(map(len, probes))
    figure = Figure(figsize=(PAGE[0], 0.9 + 0.06 * letters + 1.7 * rows))
    axes = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
    for place, ax in enumerate(axes.flat):
        ax.set_visible(place <= len(layers))
        if place > len(layers):
            continue
        last = place + COLUMNS > len(layers)
        ax.set_xlim(-0.5, len(probes) - 0.5)
        ax.set_xticks(places, probes if last else [], rotation=90, fontsize=SMALL)
        ax.tick_params("x", labelbottom=last)
        ax.grid(axis="x", color="0.92", lw=0.6)
        if place == len(layers):
            accuracy = table.groupby("probe")["top1"].mean().reindex(probes)
            ax.plot(places, accuracy, "o", color="black", ms=4)
            ax.set_title("top-1 accuracy", loc="left")
            continue
        _draw_layer(ax, table[table["layer"] == layers[place]], probes)
        ax.set_title(layers[place], loc="left")
    axes[0, 0].set(ylim=(min(0, table["value"].min()), 1.03))
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=SMALL
    )
    figure.supylabel("mean correlation of semi-matched units", fontsize=9)
    return figure


def _draw_layer(ax: Axes, rows: pd.DataFrame, probes: Sequence[str]) -> None:
    places = np.arange(len(probes))
    held = rows["chosen_on"].str.startswith("half of")
    own = rows[held].set_index("probe").reindex(probes)
    ax.plot(
        places, own["value"], "_", color=MATCHING, ms=9, mew=1.5,
        label="chosen on other images of the probe",
    )  # fmt: skip
    kept = rows[~held & (rows["chosen_on"] == PLAIN) & (rows["scored_on"] == rows["probe"])]
    kept = kept.set_index("probe").reindex(probes)
    low, high = (kept[f"{end}_nets"].fillna(kept[end]) for end in ("low", "high"))
    ax.errorbar(
        places, kept["value"], np.stack([kept["value"] - low, high - kept["value"]]), fmt="o",
        color=SEMI, mec=MATCHING, mew=0.8, ms=5, ecolor=MATCHING, elinewidth=1,
        label="chosen on the validation images",
    )  # fmt: skip
    ax.plot(places, kept["null_exchanged"], "x", color="gray", ms=4, label="partners exchanged")
