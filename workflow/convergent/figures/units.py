"""Figures of the images that units respond to (sections 3, S.2 and S.4), from reduced results.

The functions ``draw_...`` read the files of a figure and call a function that takes arrays or
tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convergent.figures.sheets import Sheet, tiles
from convergent.measures.matching import ranking
from convergent.measures.registry import measure as registered
from convergent.running.stores import open_store

# Largest number of units shown at either end, as in the paper.
SHOWN = 8
KINDS = ("patches", "deconv")


def draw_fig2(
    a: Path,
    b: Path,
    matching: Path,
    nets: Sequence[str],
    layers: Sequence[str],
    measure: str,
    side: str = "strongest",
) -> Figure:
    """Draw figure 2, S2 or S4 from both nets' units and their pair's matching."""
    matches, groups = pd.read_csv(matching), open_store(a)
    rankings = {layer: ranking(matches, layer, measure) for layer in layers}
    units = {layer: groups[f"{layer}/image"].shape[0] for layer in layers}
    label = registered(measure).label
    return matched_features(rankings, units, tiles(nets, (a, b), side), nets, label)


def matched_features(
    rankings: Mapping[str, pd.DataFrame],
    units: Mapping[str, int],
    tile: Callable,
    nets: Sequence[str],
    label: str,
) -> Figure:
    """Draw figures 2, S2 and S4: the best and the worst semi-matched units of each layer.

    Parameters
    ----------
    rankings : mapping of layer to DataFrame
        Live units ranked by :func:`convergent.measures.matching.ranking`. Dead units do nothing,
        so they do not count as badly matched.
    units : mapping of layer to int
        Number of units of the first net, dead ones included.
    tile : callable
        Function of (net, layer, unit, kind) that returns a picture; kind is patches or deconv.
    nets : the names of the first and the second net
    label : str
        Label of the measure.
    """
    shown = {layer: min(SHOWN, max(1, len(rows) // 2)) for layer, rows in rankings.items()}
    most, height = max(shown.values()), 5.1
    sheet = Sheet(
        2 * most + 2.2,
        height * len(rankings),
        f"Units of {nets[0]} (above) and their semi-matches in {nets[1]} (below): "
        f"the {most} best (left) and the {most} worst (right)",
    )
    for number, (layer, ranked) in enumerate(rankings.items()):
        top = number * height
        dead = units[layer] - len(ranked)
        note = f" ({dead} dead left out)" if dead else ""
        sheet.text(0.25, top + 2.5, f"{layer}, {label}{note}", rotation=90, fontsize=9)
        for row, net in ((0, nets[0]), (2.15, nets[1])):
            sheet.text(0.7, top + row + 1.4, net, rotation=90, fontsize=8)
        count = shown[layer]
        ends = ((1.0, ranked.iloc[:count]), (1.6 + most, ranked.iloc[len(ranked) - count :]))
        for left, rows in ends:
            for column, (unit, partner, value) in enumerate(rows.itertuples(index=False)):
                x = left + column
                sheet.text(x + 0.47, top + 0.12, f"{value:.3f}")
                sheet.text(x + 0.47, top + 0.3, f"{unit}, {partner}", fontsize=4.5, color="gray")
                for row, net, which in ((0.42, nets[0], unit), (2.57, nets[1], partner)):
                    for step, kind in enumerate(KINDS):
                        sheet.place(tile(net, layer, which, kind), x, top + row + step)
    return sheet.figure


def draw_figS11(
    statistics: Sequence[Path],
    units: Sequence[Path],
    nets: Sequence[str],
    layer: str,
    side: str = "strongest",
) -> Figure:
    """Draw figure S11 or S12 from the statistics and units of all nets."""
    means = {
        net: open_store(path)[f"{layer}/mean"][...]
        for net, path in zip(nets, statistics, strict=True)
    }
    return active_units(means, layer, tiles(nets, units, side))


def active_units(means: Mapping[str, NDArray], layer: str, tile: Callable) -> Figure:
    """Draw figures S11 and S12: the most and the least active units of a layer in all nets.

    Parameters
    ----------
    means : mapping of net to ndarray of shape (unit,)
        Mean activations; dead units are left out.
    layer : str
    tile : callable
        See :func:`matched_features`.
    """
    live = {net: [u for u in np.argsort(-m, kind="stable") if m[u] > 0] for net, m in means.items()}
    shown = min(SHOWN, max(1, min(map(len, live.values())) // 2))
    sheet = Sheet(
        2 * shown + 1.6,
        2.6 * len(means),
        f"{layer}: the {shown} most active units of each net (left) and the {shown} least active, "
        "with mean activation",
    )
    for number, (net, order) in enumerate(live.items()):
        top = 2.6 * number
        sheet.text(0.4, top + 1.3, net, rotation=90, fontsize=9)
        for left, units in ((0.8, order[:shown]), (1.4 + shown, order[-shown:])):
            for column, unit in enumerate(units):
                x = left + column
                sheet.text(x + 0.47, top + 0.12, f"{means[net][unit]:.3g}")
                sheet.text(x + 0.47, top + 0.3, f"unit {unit}", fontsize=4.5, color="gray")
                for step, kind in enumerate(KINDS):
                    sheet.place(tile(net, layer, unit, kind), x, top + 0.42 + step)
    return sheet.figure
