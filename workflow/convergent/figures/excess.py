"""Figure of the paper's statistic beside its chance levels, and of its excess over each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from convergent.figures.chance import chance_last, column, draw_chance, kinds_of_chance
from convergent.figures.style import CHANCE, MATCHING, PAGE, SEMI, name_places
from convergent.inference.verdicts import statistic_rows, verdict


def draw_excess(
    significance: Path, nets: Sequence[str], layers: Sequence[str], level: float
) -> Figure:
    """Draw the mean of semi-matching by layer and its excess from a pair's significance."""
    table = pd.read_csv(significance, keep_default_na=False)
    return excess_by_layer(table, layers, nets, level)


def excess_by_layer(
    table: pd.DataFrame, layers: Sequence[str], nets: Sequence[str], level: float = 0.95
) -> Figure:
    """Draw the mean correlation of semi-matched units, its chance levels, and their difference.

    Parameters
    ----------
    table : DataFrame
        Rows of ``significance.csv`` of :func:`convergent.inference.significance`.
    layers : sequence of str
        Layers, from left to right.
    nets : sequence of str
        The two nets; units are those of the first.
    level : float
        Confidence level; filled markers of the second panel stand above chance, as
        :func:`convergent.inference.verdicts.verdict` tells.
    """
    rows = statistic_rows(table).set_index("layer").reindex(list(layers))
    shown = kinds_of_chance(rows)
    figure = Figure(figsize=(PAGE[0], 7))
    parts = figure.subfigures(2, 1, height_ratios=[1.15, 1], squeeze=False)[:, 0]
    upper, lower = (part.subplots() for part in parts)
    places = np.arange(len(layers))
    value, low, high = (column(rows, name) for name in ("value", "low", "high"))
    for null in shown:
        draw_chance(upper, rows, null, places, size=4)
    upper.errorbar(
        places, value, np.stack([value - low, high - value]), fmt="o-", color=SEMI, ms=7, lw=2,
        mec=MATCHING, mew=0.8, ecolor=MATCHING, elinewidth=1, capsize=4, zorder=3,
        label="trained nets",
    )  # fmt: skip
    _draw_held_out(upper, places, column(rows, "held_out"))
    ceiling = column(rows, "ceiling")
    if np.isfinite(ceiling).any():
        upper.plot(places, ceiling, ":", color="black", lw=1, label="ceiling")
    for number, null in enumerate(shown):
        # Beside each other, so that no interval hides another.
        at = places + 0.13 * (number - (len(shown) - 1) / 2)
        chance = column(rows, f"null_{null}")
        verdicts = [verdict(row, null, level) for _, row in rows.iterrows()]
        above = np.array([bool(found and found.above) for found in verdicts], bool)
        look = CHANCE[null]
        lower.vlines(at, low - chance, high - chance, color=look.color, lw=1.2)
        for part, face in ((above, look.color), (~above, "white")):
            lower.plot(
                at[part], (value - chance)[part], ls="", marker=look.marker, ms=5,
                color=look.color, mfc=face,
            )  # fmt: skip
        lower.plot(
            [], [], ls="", marker=look.marker, ms=5, color=look.color, label=f"over {look.label}"
        )
    lower.plot([], [], "o", color="black", mfc="white", ms=5, label="not above chance")
    lower.axhline(0, color="black", lw=0.8)
    for ax in (upper, lower):
        name_places(ax, layers)
        ax.set_xlim(-0.5, len(layers) - 0.5)
    least = np.nanmin([0, *low, *(column(rows, f"null_{n}").min() for n in shown)])
    upper.set(ylim=(least, 1), ylabel="mean correlation of\nsemi-matched units")
    lower.set_ylabel("excess over chance")
    images = pd.to_numeric(rows["n_images"], errors="coerce").max()
    over = "" if np.isnan(images) else f", {level:.0%} intervals over {images:.0f} images"
    upper.set_title(f"{nets[0]} to {nets[1]}{over}", loc="left")
    for part, ax in zip(parts, (upper, lower), strict=True):
        part.legend(*chance_last(ax), loc="outside lower center", ncols=3)
    return figure


def _draw_held_out(ax: Axes, places: np.ndarray, held_out: np.ndarray) -> None:
    if np.isfinite(held_out).any():
        ax.plot(
            places, held_out, ls=":", color=MATCHING, lw=1.2, zorder=2.9,
            label="partners chosen on other images",
        )  # fmt: skip
