"""Figure of the similarity of layers by each measure, with intervals and chance levels."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from convergent.figures.chance import chance_last, column, draw_chance, kinds_of_chance
from convergent.figures.style import NETS, PAGE, SMALL, carry_names
from convergent.measures.registry import Measure, measure

# Inches: width of a page, height of a panel, the title and the legend, and the width of a letter
# and of a name at the smallest size of text.
WIDTH, PANEL, HEAD, LETTER, NAME = PAGE[0], 1.42, 0.8, 0.062, 0.13
# Panels side by side, and those of a table with few measures.
MOST, FEW = 4, 3
# Looks of the directions.
WAYS = {"": ("#333333", "o"), "ab": (NETS[0], "o"), "ba": (NETS[1], "s")}


def draw_similarity(table: Path, nets: Sequence[str], layers: Sequence[str]) -> Figure:
    """Draw the similarity by layer from a pair's ``similarity.csv``."""
    return similarity_by_layer(pd.read_csv(table, keep_default_na=False), layers, nets)


def similarity_by_layer(table: pd.DataFrame, layers: Sequence[str], nets: Sequence[str]) -> Figure:
    """Draw the similarity of each layer in two nets, a panel for each measure.

    If the table compares no layers of the same name, its pairs of layers are drawn in its order.
    Directions of a measure share a panel, whose chance levels are those of the first. A cross marks
    a layer that has no value, and a reason stands under the title.

    Parameters
    ----------
    table : DataFrame
        Rows of :func:`convergent.inference.similarity.similarity_table`: columns layer_a, layer_b,
        measure, direction, value, low, high and n_images; parameter, held_out, chance levels
        (``null_...``) and note, if there are any. Numbers may be empty.
    layers : sequence of str
        Layers, from left to right.
    nets : sequence of str
        The two nets.
    """
    table = table.assign(parameter=table.get("parameter", ""))
    table["parameter"] = table["parameter"].fillna("")
    same = table[table["layer_a"] == table["layer_b"]]
    what, shown, names = "same layer", same, same["layer_a"]
    if same.empty:
        what, shown, names = "pairs of layers", table, table["layer_a"] + ", " + table["layer_b"]
        layers = list(dict.fromkeys(names))
    panels = list(shown.groupby(["measure", "parameter"], sort=False))
    across = min(max(1, len(panels)), FEW if len(panels) <= 2 * FEW else MOST)
    down = -(-max(1, len(panels)) // across)
    room = LETTER * max(map(len, layers), default=0)
    figure = Figure(figsize=(WIDTH, HEAD + PANEL * down + room + 0.2))
    axes = figure.subplots(down, across, squeeze=False)
    for number, ((name, parameter), rows) in enumerate(panels):
        ax = axes.flat[number]
        for direction, of_way in rows.groupby("direction", sort=False):
            placed = of_way.set_index(names[of_way.index]).reindex(list(layers))
            _draw_way(ax, placed, direction, nets, first=direction in ("", "ab"))
        _scale(ax, measure(name))
        title = way_title(name, parameter) + _reason(rows)
        ax.set_title(title, fontsize=SMALL, pad=3)
        lowest = number >= (down - 1) * across
        step = max(1, int(np.ceil(NAME * len(layers) / (WIDTH / across - 0.5))))
        ticks, named = range(0, len(layers), step), list(layers[::step])
        ax.set_xticks(ticks, named if lowest else [], rotation=90, fontsize=SMALL)
        ax.set_xlim(-0.5, len(layers) - 0.5)
        ax.tick_params("y", labelsize=SMALL)
        ax.tick_params(length=2, pad=2)
    for number in range(len(panels), axes.size):
        carry_names(axes.flat[number], axes.flat[number - across], named, SMALL)
    images = pd.to_numeric(shown["n_images"], errors="coerce").max()
    title = f"{' and '.join(nets)}: {what}, 95% intervals over {images:.0f} images"
    figure.suptitle(textwrap.fill(title, 80), fontsize=9)
    handles, labels = chance_last(*axes.flat[: len(panels)])
    longest = max(map(len, labels), default=0)
    columns = 4 if longest < 27 else 2 if longest < 50 else 1
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=SMALL)
    return figure


def _draw_way(
    ax: Axes, rows: pd.DataFrame, direction: str, nets: Sequence[str], *, first: bool
) -> None:
    """Draw one direction of a measure, and its chance levels if it is the first."""
    color, marker = WAYS[direction]
    label = towards(direction, nets) or "value"
    places = np.arange(len(rows)) + {"": 0, "ab": -0.08, "ba": 0.08}[direction]
    value, low, high, held_out = (
        column(rows, name) for name in ("value", "low", "high", "held_out")
    )
    if first:
        for null in kinds_of_chance(rows):
            draw_chance(ax, rows, null, np.arange(len(rows)), size=2)
    ax.plot(places, value, "-", marker=marker, color=color, ms=2.5, lw=1, label=label, zorder=3)
    # The caps show intervals that are too narrow to be visible as a band.
    ax.errorbar(
        places, value, np.stack([value - low, high - value]), fmt="none", ecolor=color,
        elinewidth=1, capsize=2, zorder=3,
    )  # fmt: skip
    if np.isfinite(held_out).any():
        ax.plot(places, held_out, ":", color=color, lw=1.2, label="held out", zorder=2.9)
    notes = rows["note"].fillna("") if "note" in rows else pd.Series("", rows.index)
    missing = np.isnan(value) & (notes != "").to_numpy()
    if missing.any():
        # In units of the panel's height, whatever its scale.
        across = ax.get_xaxis_transform()
        ax.plot(
            np.flatnonzero(missing), np.full(missing.sum(), 0.06), "x", color="black", ms=4,
            transform=across, label="no value", zorder=4, clip_on=False,
        )  # fmt: skip


def _scale(ax: Axes, of_measure: Measure) -> None:
    """Let the scale begin at 0 or below, and end at the measure's largest value if it has one."""
    low, high = ax.get_ylim()
    most = of_measure.range[1]
    ax.set_ylim(min(0, low), max(most, high) if np.isfinite(most) and most <= 1 else high)


def towards(direction: str, nets: Sequence[str]) -> str:
    """Name a direction by the nets, as ``net1 to net2``; nothing for a measure without one."""
    return {"ab": "{0} to {1}", "ba": "{1} to {0}"}.get(direction, "").format(*nets)


def way_title(name: str, parameter: str, letters: int = 27) -> str:
    """Title a panel: a measure, the measure of units that it is computed of, and its unit.

    Lines have at most so many letters.
    """
    of_measure, of_units = measure(name), measure(parameter) if parameter else None
    unit = of_measure.unit or (of_units.unit if of_units else "")
    words = [of_measure.label, *([of_units.label] if of_units else []), *([unit] if unit else [])]
    distance = "" if of_measure.higher_is_more_alike else " (lower is more alike)"
    return textwrap.fill(", ".join(words) + distance, letters)


def _reason(rows: pd.DataFrame) -> str:
    """Return the first reason why a layer has no value, as lines of a title, or nothing."""
    if "note" not in rows:
        return ""
    notes = rows.loc[np.isnan(column(rows, "value")), "note"].fillna("")
    lines = textwrap.wrap(f"x: {max(notes)}", 28) if any(notes) else []
    return "".join(f"\n{line}" for line in lines)
