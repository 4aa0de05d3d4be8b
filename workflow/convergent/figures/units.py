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

# Largest number of units shown at either end. The paper shows eight; their pictures would be too
# small at the width of a page.
SHOWN = 6
KINDS = ("patches", "deconv")
BELOW = "; image patches over deconvolutions"


def draw_fig2(
    a: Path,
    b: Path,
    matching: Path,
    nets: Sequence[str],
    layers: Sequence[str],
    measure: str,
    side: str = "strongest",
    kinds: Sequence[str] = KINDS,
) -> Figure:
    """Draw figure 2, S2 or S4 from both nets' units and their pair's matching."""
    matches, groups = pd.read_csv(matching), open_store(a)
    rankings = {layer: ranking(matches, layer, measure) for layer in layers}
    units = {layer: groups[f"{layer}/image"].shape[0] for layer in layers}
    of_measure = registered(measure)
    label = f"{of_measure.label} ({of_measure.unit})" if of_measure.unit else of_measure.label
    return matched_features(rankings, units, tiles(nets, (a, b), side), nets, label, kinds)


def matched_features(
    rankings: Mapping[str, pd.DataFrame],
    units: Mapping[str, int],
    tile: Callable,
    nets: Sequence[str],
    label: str,
    kinds: Sequence[str] = KINDS,
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
        Label of the measure, and its unit.
    kinds : sequence of {"patches", "deconv"}
        Pictures of each unit, from above.
    """
    shown = {layer: min(SHOWN, max(1, len(rows) // 2)) for layer, rows in rankings.items()}
    most = max(shown.values())
    # From the top of a layer: its first pictures, those of the second net, and the next layer.
    first, second = 0.46, 0.7 + len(kinds)
    height = second + len(kinds) + 0.08
    sheet = Sheet(
        2 * most + 1.8,
        height * len(rankings),
        f"Units of {nets[0]} (above) and their semi-matches in {nets[1]} (below) by {label}: the "
        f"{most} best (left) and the {most} worst (right){BELOW if len(kinds) > 1 else ''}",
    )
    for number, (layer, ranked) in enumerate(rankings.items()):
        top = number * height
        dead = units[layer] - len(ranked)
        note = f"\n({dead} dead in {nets[0]})" if dead else ""
        middle = top + (first + second + len(kinds)) / 2
        sheet.text(0.35, middle, f"{layer}{note}", rotation=90, fontsize=8)
        for row, net in ((first, nets[0]), (second, nets[1])):
            sheet.text(0.85, top + row + len(kinds) / 2, net, rotation=90)
        count = shown[layer]
        ends = ((1.05, ranked.iloc[:count]), (1.8 + most, ranked.iloc[len(ranked) - count :]))
        for left, rows in ends:
            for column, (unit, partner, value) in enumerate(rows.itertuples(index=False)):
                x = left + column
                sheet.text(x + 0.47, top + 0.11, f"{value:.2f}")
                for row, net, which in ((first, nets[0], unit), (second, nets[1], partner)):
                    sheet.text(x + 0.47, top + row - 0.12, f"{which}", color="dimgray")
                    for step, kind in enumerate(kinds):
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
        2 * shown + 1.4,
        2.5 * len(means),
        f"{layer}: the {shown} most active live units of each net (left) and the {shown} least "
        f"active, with their mean activation and number{BELOW}",
    )
    for number, (net, order) in enumerate(live.items()):
        top = 2.5 * number
        sheet.text(0.35, top + 1.45, net, rotation=90, fontsize=8)
        for left, units in ((0.65, order[:shown]), (1.4 + shown, order[-shown:])):
            for column, unit in enumerate(units):
                x = left + column
                sheet.text(x + 0.47, top + 0.12, f"{means[net][unit]:.2g}")
                sheet.text(x + 0.47, top + 0.34, f"{unit}", color="dimgray")
                for step, kind in enumerate(KINDS):
                    sheet.place(tile(net, layer, unit, kind), x, top + 0.46 + step)
    return sheet.figure
