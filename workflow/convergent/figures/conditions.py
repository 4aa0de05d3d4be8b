"""Table and figure of the similarity within and between groups of nets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle

from convergent.figures.chance import column
from convergent.figures.over_pairs import KEYS, over_directions, read_table
from convergent.figures.similarity import way_title
from convergent.figures.style import NETS, PAGE, SMALL, name_places
from convergent.figures.tables import merged_order
from convergent.inference.conditions import ALL, compare_groups
from convergent.measures.registry import measure

# Measures that the figure shows, each with the measure of units that it is computed of: the paper's
# statistic, and one that neither units' order nor layers' widths matter to.
SHOWN = (("semi_mean", "correlation"), ("cka_unbiased", ""))
# Inches: the width of a page, what matrices of groups have of it, the largest of them, the title of
# one, and a letter of a name.
WIDTH, ROOM, LARGEST, TITLE, LETTER = PAGE[0], 5.1, 1.8, 0.2, 0.065
# Matrices side by side, at most.
ACROSS = 7
# Markers of differences, after as many as there are colours.
MARKERS = "sD^v"


def tabulate_conditions(
    tables: Sequence[Path],
    pairs: Mapping[str, Sequence[str]],
    groups: Mapping[str, str],
    same_start: Sequence[str] = (),
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Tabulate the similarity of groups from the files of pairs, see :func:`conditions`."""
    found = dict(zip(pairs, map(read_table, tables), strict=True))
    return conditions(found, pairs, groups, same_start, level, seed)


def conditions(
    tables: Mapping[str, pd.DataFrame],
    pairs: Mapping[str, Sequence[str]],
    groups: Mapping[str, str],
    same_start: Sequence[str] = (),
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Tabulate the similarity of layers within and between groups of nets.

    Parameters
    ----------
    tables : mapping of pair to DataFrame
        Rows of ``similarity.csv``; those of two layers of one name count.
    pairs : mapping of pair to (str, str)
        The two nets of each pair.
    groups : mapping of net to str
        Group of each net.
    same_start : sequence of str
        Pairs whose nets were trained from the same weights, which do not count.
    level : float
        Level of intervals.
    seed : int
        Seed of the groupings, where they are too many to try all.

    Returns
    -------
    DataFrame
        Columns layer, measure, sample, parameter, those of
        :func:`convergent.inference.conditions.compare_groups`, and before `note` the means of the
        chance levels, ``null_<kind>``, over the pairs within the group or between the two, and
        n_images. The two directions of a pair are averaged.
    """
    parts = []
    for pair, table in tables.items():
        same = table[(table["layer_a"] == table["layer_b"]).to_numpy()]
        if pair not in same_start and not same.empty:
            parts.append(over_directions(same).assign(pair=pair))
    every = pd.concat(parts, ignore_index=True).rename(columns={"layer_a": "layer"})
    keys = ["layer", *(key for key in KEYS if key in every and key not in ("layer", "layer_b"))]
    kinds = [name for name in every if name.startswith("null_") and not name.endswith("_high")]
    order = {pair: frozenset(groups[net] for net in pairs[pair]) for pair in tables}
    rows = []
    for key, of_key in every.groupby(keys, sort=False):
        values = {
            (pairs[pair][0], pairs[pair][1]): value
            for pair, value in zip(of_key["pair"], column(of_key, "value"), strict=True)
        }
        # A net without this layer has no pair.
        present = {net: group for net, group in groups.items() if any(net in p for p in values)}
        names = dict(zip(keys, key, strict=True))
        higher = measure(names["measure"]).higher_is_more_alike
        of_pairs = of_key["pair"].map(order)
        for row in compare_groups(values, present, higher, level, seed):
            cell = of_key[of_pairs == frozenset((row["group_a"], row["group_b"]))]
            means = {kind: column(cell, kind) for kind in kinds}
            row |= {
                k: v[np.isfinite(v)].mean() if np.isfinite(v).any() else np.nan
                for k, v in means.items()
            }
            row["n_images"] = of_key["n_images"].min()
            left_out = [p for p in same_start if order[p] == {row["group_a"], row["group_b"]}]
            if left_out:
                row["note"] = "; ".join(
                    filter(
                        None, [row["note"], f"left out, as they start alike: {', '.join(left_out)}"]
                    )
                )
            rows.append(names | row)
    frame = pd.DataFrame(rows)
    frame = frame[[*(name for name in frame if name != "note"), "note"]]
    layers = merged_order(part["layer_a"].unique() for part in parts)
    return frame.sort_values(
        "layer", key=lambda c: c.map(layers.index), kind="stable", ignore_index=True
    )


def draw_conditions(table: pd.DataFrame, level: float = 0.95) -> Figure:
    """Draw matrices of groups by layer, and by how much nets of one group are more alike.

    Parameters
    ----------
    table : DataFrame
        Rows of :func:`conditions`. Measures of :data:`SHOWN` are drawn; if there are none, the
        first.
    level : float
        Markers are filled where p is at most 1 - level.
    """
    # Groups that share no layer with another, such as nets of another architecture, are left out.
    between = table[table["group_a"] != table["group_b"]]
    shared = between if len(between) else table[table["group_a"] != ALL]
    layers = [layer for layer in dict.fromkeys(table["layer"]) if layer in set(shared["layer"])]
    compared = {*shared["group_a"], *shared["group_b"]}
    groups = [group for group in dict.fromkeys(table["group_a"]) if group in compared]
    table = table[table["layer"].isin(layers) & table["group_a"].isin([*groups, ALL])]
    table = table.assign(parameter=table.get("parameter", pd.Series("", table.index)).fillna(""))
    ways = dict(list(table.groupby(["measure", "parameter"], sort=False)))
    shown = [way for way in SHOWN if way in ways] or [next(iter(ways))]
    longest = max(map(len, layers)) + len(": 0.00")
    across = min(len(layers), ACROSS, max(1, int(ROOM / (LETTER * longest))))
    down = -(-len(layers) // across)
    names = LETTER * max(map(len, groups))
    matrix = min(LARGEST, ROOM / across) + TITLE
    heights = [down * matrix + names + 0.3] * len(shown) + [2.7]
    figure = Figure(figsize=(WIDTH, sum(heights)))
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, way in zip(parts, shown, strict=False):
        _draw_matrices(part, ways[way], layers, groups, across)
        part.suptitle(f"{way_title(*way, letters=100)}, mean over pairs of nets", fontsize=9)
    panels = parts[-1].subplots(1, len(shown), squeeze=False)[0]
    for ax, way in zip(panels, shown, strict=True):
        _draw_differences(ax, ways[way], layers, groups, level)
        ax.set_title(way_title(*way, letters=60), fontsize=9)
    panels[0].set_ylabel("within minus between groups")
    handles, labels = panels[0].get_legend_handles_labels()
    parts[-1].legend(
        handles, labels, loc="outside lower center", ncols=4, fontsize=SMALL, columnspacing=1
    )
    return figure


def _draw_matrices(
    part: SubFigure, rows: pd.DataFrame, layers: Sequence[str], groups: Sequence[str], across: int
) -> None:
    """Draw the matrix of groups of each layer, as deviations from the mean of its cells."""
    axes = part.subplots(-(-len(layers) // across), across, squeeze=False)
    place = {name: number for number, name in enumerate(groups)}
    matrices = {}
    for layer, cells in rows[rows["group_a"] != ALL].groupby("layer", sort=False):
        matrix = np.full((len(groups), len(groups)), np.nan)
        a, b = cells["group_a"].map(place), cells["group_b"].map(place)
        matrix[a, b] = matrix[b, a] = column(cells, "value")
        matrices[layer] = matrix
    means = {layer: float(np.nanmean(matrix)) for layer, matrix in matrices.items()}
    reach = max(np.nanmax(np.abs(m - means[layer])) for layer, m in matrices.items()) or 1.0
    colors = colormaps["PuOr_r"].with_extremes(bad="#d9d9d9")
    for number, ax in enumerate(axes.flat):
        ax.spines[:].set_visible(False)
        if number >= len(layers):
            ax.set_visible(False)
            continue
        layer = layers[number]
        shown = matrices[layer] - means[layer]
        image = ax.imshow(shown, cmap=colors, vmin=-reach, vmax=reach, aspect="equal")
        # The diagonal, within groups.
        for at in range(len(groups)):
            ax.add_patch(Rectangle((at - 0.5, at - 0.5), 1, 1, fill=False, ec="black", lw=0.5))
        ax.set_title(f"{layer}: {means[layer]:.2f}", fontsize=SMALL, pad=2)
        lowest = number + across >= len(layers)
        ax.set_xticks(range(len(groups)), groups if lowest else [], rotation=90, fontsize=SMALL)
        first = number % across == 0
        ax.set_yticks(range(len(groups)), groups if first else [], fontsize=SMALL)
        ax.tick_params(length=1.5, pad=1)
    bar = part.colorbar(image, ax=axes, shrink=0.9, aspect=12, pad=0.01)
    bar.set_label("minus the mean", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)


def _draw_differences(
    ax: Axes, rows: pd.DataFrame, layers: Sequence[str], groups: Sequence[str], level: float
) -> None:
    """Draw the difference by layer: of each group and the first, and over all groups."""
    lines = [(groups[0], other) for other in groups[1:]]
    if (rows["group_a"] == ALL).any():
        lines.append((ALL, ALL))
    for number, (a, b) in enumerate(lines):
        line = rows[(rows["group_a"] == a) & (rows["group_b"] == b)]
        line = line.set_index("layer").reindex(list(layers))
        # Beside each other, so that no interval hides another.
        at = np.arange(len(layers)) + 0.6 * ((number + 0.5) / len(lines) - 0.5)
        value, low, high, p = (
            column(line, name) for name in ("difference", "low_difference", "high_difference", "p")
        )
        # The last two colours are black and one that is too light.
        again, of_color = divmod(number, len(NETS) - 2)
        color = "black" if a == ALL else NETS[of_color]
        marker = "o" if a == ALL else MARKERS[again % len(MARKERS)]
        label = ALL if a == ALL else f"{a} and {b}"
        # p is a multiple of 1 over the number of groupings, up to rounding.
        sure = p <= 1 - level + 1e-9
        ax.errorbar(
            at, value, np.stack([value - low, high - value]), fmt="none", ecolor=color,
            elinewidth=1, capsize=2,
        )  # fmt: skip
        for part, face in ((sure, color), (~sure, "white")):
            ax.plot(at[part], value[part], marker, ms=4, color=color, mfc=face)
        ax.plot([], [], marker, ms=4, color=color, label=label)
    ax.axhline(0, color="black", lw=0.6)
    ax.set_xlim(-0.6, len(layers) - 0.4)
    name_places(ax, layers)
    ax.tick_params(labelsize=SMALL)
