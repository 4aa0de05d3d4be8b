"""Figures of sparse maps and their clusters (section 4), from reduced results.

The functions ``draw_...`` read the files of a figure and call a function that takes arrays or
tables.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize, PowerNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Rectangle
from numpy.typing import NDArray

from convergent.alignment.clustering import (
    block_matrix,
    leaf_order,
    offset,
    shared_subspaces,
    spans,
)
from convergent.alignment.sparse_maps import map_at_penalty
from convergent.figures.matched_matrix import draw_matched
from convergent.figures.sheets import place, tiles
from convergent.figures.style import NETS, PAGE, SMALL
from convergent.figures.tables import papers_decay
from convergent.measures.matching import matching
from convergent.paper import SIGNIFICANT
from convergent.running.stores import open_store

# Colours of figure 7: units of the first and of the second net, and the tree.
FIRST, SECOND, TREE = NETS[4], NETS[1], NETS[2]
# The same colours of nets, dark enough for text on white, and the frames of enlarged parts.
DARK, FRAME = ("#1b6fa8", "#9a6400"), "#f0e442"
# Colours of the two example units of figure 6.
EXAMPLES = ("#007a5a", "#8b3fa8")
# Marks of layers at the paper's decays, as colours of neighbours are alike.
MARKERS = "osD^vPX"


def decay_label(decay: float) -> str:
    """Format a decay as in the paper."""
    if decay == 0:
        return "0"
    return f"$10^{{{np.log10(decay):.3g}}}$"


def draw_fig5(mapping: Path, nets: Sequence[str], layers: Sequence[str], penalty: float) -> Figure:
    """Draw figure 5 from a pair's sparse maps, at the decay of each layer nearest to `penalty`."""
    store = open_store(mapping)
    maps = {}
    for layer in layers:
        decay, weights, loss, _ = map_at_penalty(store[f"{layer}/ab"], penalty)
        maps[layer] = decay, weights, float(loss.mean())
    return mapping_layers(maps, nets)


def mapping_layers(maps: Mapping[str, tuple[float, NDArray, float]], nets: Sequence[str]) -> Figure:
    """Draw figure 5: both nets layer by layer, and the maps from the first to the second.

    Parameters
    ----------
    maps : mapping of layer to (decay, weights of shape (target, source), prediction loss)
    nets : the names of the source and the target net
    """
    across = min(4, len(maps))
    down = -(-len(maps) // across)
    figure = Figure(figsize=(PAGE[0], 0.5 + 3.6 * down))
    # Box, arrow, map, arrow, box.
    heights = [0.22, 0.2, 1, 0.2, 0.22]
    grid = figure.add_gridspec(5 * down, across, height_ratios=heights * down)
    for number, (layer, (decay, weights, loss)) in enumerate(maps.items()):
        top, column = 5 * (number // across), number % across
        boxes = []
        for row, net in ((0, nets[0]), (4, nets[1])):
            ax = figure.add_subplot(grid[top + row, column])
            ax.set(xticks=[], yticks=[], facecolor="#e8e8e8")
            ax.spines[:].set_visible(True)
            lines = textwrap.fill(f"{net}, {layer}", 20)
            ax.text(0.5, 0.5, lines, ha="center", va="center", fontsize=SMALL)
            boxes.append(ax)
        boxes[1].set_xlabel(
            f"decay {decay_label(decay)}, loss {loss:.3f}\n"
            f"{_significant(weights).mean():.1f} weights per unit",
            fontsize=SMALL,
        )
        for row in (1, 3):
            ax = figure.add_subplot(grid[top + row, column])
            ax.axis("off")
            ax.add_patch(
                FancyArrowPatch(
                    (0.5, 1), (0.5, 0), transform=ax.transAxes, arrowstyle="-|>",
                    mutation_scale=9, lw=1.5, color="#555555", shrinkA=0, shrinkB=0,
                )
            )  # fmt: skip
        ax = figure.add_subplot(grid[top + 2, column])
        largest = max(float(np.abs(weights).max()), 1e-12)
        # Small weights are visible, too: colour grows with the root of the size.
        ax.imshow(
            np.abs(weights), cmap="Greens", norm=PowerNorm(0.5, 0, largest),
            interpolation="nearest",
        )  # fmt: skip
        ax.spines[:].set_visible(True)
        ax.set_xlabel(f"unit of {nets[0]}", fontsize=SMALL, labelpad=1)
        if column == 0:
            ax.set_ylabel(f"unit of {nets[1]}", fontsize=SMALL)
        ax.tick_params(labelsize=SMALL, length=2, pad=1)
    if number + 1 < down * across:
        # In the place of the next map.
        left = grid[5 * ((number + 1) // across) + 2, (number + 1) % across]
        key = figure.add_subplot(left)
        key.axis("off")
        bar = figure.colorbar(
            ScalarMappable(PowerNorm(0.5, 0, 1), "Greens"), cax=key.inset_axes((0.1, 0, 0.1, 1))
        )
        bar.set_label("size of a weight,\nover the largest of its map", fontsize=SMALL)
        bar.ax.tick_params(labelsize=SMALL)
    title = (
        f"Sparse maps: size of the weight of each unit of {nets[0]} (columns) in the prediction of "
        f"each unit of {nets[1]} (rows)"
    )
    figure.suptitle(textwrap.fill(title, 85), fontsize=9)
    return figure


def draw_fig6(
    mapping: Path, a: Path, b: Path, nets: Sequence[str], layer: str, penalty: float
) -> Figure:
    """Draw figure 6 from a pair's sparse maps and both nets' units."""
    decay, weights, *_ = map_at_penalty(open_store(mapping)[f"{layer}/ab"], penalty)
    pictures = tiles(nets, (a, b))
    return learned_map(weights, nets, layer, decay, lambda net, *of: pictures(net, layer, *of))


def learned_map(
    weights: NDArray, nets: Sequence[str], layer: str, decay: float, tile: Callable
) -> Figure:
    """Draw figure 6: the map, the permuted map, and two units with the units that predict them.

    Columns are permuted to maximise the sum of the weights on the diagonal. If one net has more
    units than the other, those that are left over come last, behind a gap.

    Parameters
    ----------
    weights : ndarray of shape (target, source)
    nets : the names of the source and the target net
    layer : str
    decay : float
    tile : callable
        Function of (net, unit, kind) that returns a picture; kind is patches or deconv.
    """
    figure = Figure(figsize=(PAGE[0], 7.4))
    upper, lower = figure.subfigures(2, 1, height_ratios=[1, 1.2], squeeze=False)[:, 0]
    axes, below = upper.subplots(1, 2), lower.subplots()
    limit = max(float(np.abs(weights).max()), 1e-12)
    style = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, "interpolation": "nearest"}
    image = axes[0].imshow(weights, **style)
    _, row = draw_matched(axes[1], weights, matching(weights), **style)
    axes[0].set(title="as fitted", xlabel=f"unit of {nets[0]}")
    # The places of these columns are not the numbers of their units.
    title = "most predictive units on the diagonal"
    axes[1].set(title=title, xlabel=f"unit of {nets[0]}, in another order", xticks=[])
    examples = example_units(weights)
    for ax, places in zip(axes, (np.arange(len(weights)), row), strict=False):
        ax.set_ylabel(f"unit of {nets[1]}")
        ax.spines[:].set_visible(True)
        width = ax.images[0].get_array().shape[1]
        for place_, color in zip(places[examples], EXAMPLES, strict=False):
            box = Rectangle((-0.5, place_ - 0.5), width, 1, fill=False, ec=color, lw=1)
            ax.add_patch(box)
    upper.colorbar(image, ax=axes, label="weight", shrink=0.75, aspect=30, pad=0.01)
    _predictors(below, weights, examples, nets, tile)
    figure.suptitle(
        f"Mapping layer of {layer} from {nets[0]} to {nets[1]}, decay {decay_label(decay)}"
    )
    return figure


def example_units(weights: NDArray, number: int = 2, sources: int = 3) -> NDArray[np.intp]:
    """Choose target units predicted by about three sources of similar weight, as in figure 6.

    These are the units whose `sources`-th largest weight is largest, of those whose largest weights
    are of other sources than those of the units before. Units with fewer sources come last, and
    units that share sources only where there are no others.
    """
    strongest = np.argsort(-np.abs(weights), axis=1, kind="stable")[:, :sources]
    least = np.abs(np.take_along_axis(weights, strongest[:, -1:], axis=1))[:, 0]
    chosen: list[int] = []
    for _ in range(min(number, len(weights))):
        seen = strongest[chosen].ravel()
        shared = np.isin(strongest, seen).sum(axis=1)
        shared[chosen] = weights.shape[1] + 1
        chosen.append(int(np.lexsort((-least, shared))[0]))
    return np.array(chosen, dtype=np.intp)


def _predictors(
    ax: Axes, weights: NDArray, examples: NDArray, nets: Sequence[str], tile: Callable
) -> None:
    """Draw source units above target units, with arrows as wide as the weights are large."""
    ax.set(xlim=(0, 10.2), ylim=(6.45, -0.4), aspect="equal")
    ax.set_title("two units, and the units that predict each", pad=8)
    ax.axis("off")

    def pictures(net: str, unit: int, x: float, y: float) -> None:
        for step, kind in enumerate(("patches", "deconv")):
            place(ax, tile(net, unit, kind), x - 0.5, y + 1.05 * step, 1, pixels=110)

    for example, (unit, color) in enumerate(zip(examples, EXAMPLES, strict=False)):
        strongest = np.argsort(-np.abs(weights[unit]), kind="stable")[:3]
        strongest = strongest[weights[unit, strongest] != 0]
        x = 5.3 * example + 2.45
        rest = int(_significant(weights[unit])) - len(strongest)
        more = f", {rest} smaller weight{'s' * (rest > 1)} not shown" if rest else ""
        ax.text(x, 6.2, f"{nets[1]}, unit {unit}{more}", ha="center", va="top", color=color)
        pictures(nets[1], unit, x, 4.05)
        for rank, source in enumerate(strongest):
            at = x + (rank - (len(strongest) - 1) / 2) * 1.65
            weight = weights[unit, source]
            pictures(nets[0], source, at, 0)
            # Each arrow ends at its own place, so that their heads stay apart.
            end = x + 0.42 * (rank - (len(strongest) - 1) / 2)
            ax.add_patch(
                FancyArrowPatch(
                    (at, 2.15), (end, 4.0), arrowstyle="-|>", mutation_scale=10, color=color,
                    lw=0.5 + 3 * abs(weight) / np.abs(weights[unit]).max(), shrinkA=0, shrinkB=2,
                )
            )  # fmt: skip
            ax.text(at, -0.08, f"{nets[0]}\nunit {source}", ha="center", va="bottom", fontsize=7)
            ax.text(
                0.27 * end + 0.73 * at, 2.65, f"{weight:.2f}", ha="center", va="center", fontsize=7,
                bbox={"fc": "white", "ec": "none", "pad": 1},
            )  # fmt: skip


def draw_fig7(
    mapping: Path, hac: Path, a: Path, b: Path, nets: Sequence[str], layer: str, penalty: float
) -> Figure:
    """Draw figure 7 from a pair's sparse maps, the tree of their clusters, and both nets' units."""
    decay, weights, *_ = map_at_penalty(open_store(mapping)[f"{layer}/ab"], penalty)
    tree = open_store(hac)[f"{layer}/linkage"][...]
    pictures = tiles(nets, (a, b))
    return cluster_tree(
        weights.T, tree, nets, layer, decay, lambda net, *of: pictures(net, layer, *of)
    )


def cluster_tree(
    weights: NDArray, tree: NDArray, nets: Sequence[str], layer: str, decay: float, tile: Callable
) -> Figure:
    """Draw figure 7: B in leaf order with the tree over it, and two subspaces enlarged.

    Each merged cluster is drawn as the upper right corner of the square that its units occupy on
    the diagonal. Clusters that no weight holds together are not drawn.

    Parameters
    ----------
    weights : ndarray of shape (unit_a, unit_b)
    tree : ndarray of shape (unit_a + unit_b - 1, 4)
        Linkage that :func:`convergent.alignment.clustering.hac` makes from `weights`.
    nets : the names of the first and the second net
    layer : str
    decay : float
    tile : callable
        Function of (net, unit, kind) that returns a picture; kind is patches or deconv.
    """
    order, places = leaf_order(tree), spans(tree)
    top = max(float(np.abs(weights).max()), 1e-12)
    shades = np.clip(block_matrix(weights) * (255 / top), 0, 255).astype(np.uint8)
    pixels = np.repeat(shades[np.ix_(order, order)][:, :, None], 3, axis=2)
    first = order < weights.shape[0]
    for leaf, is_first in enumerate(first):
        pixels[leaf, leaf] = 255 * np.array(to_rgb(FIRST if is_first else SECOND))
    joined = places[offset(weights) - tree[:, 2] > 1e-4 * top]
    figure = Figure(figsize=(PAGE[0], 7.9))
    parts = figure.subfigures(2, 1, height_ratios=[1.75, 1], squeeze=False)[:, 0]
    axes = [parts[0].subplots(), *parts[1].subplots(1, 2)]
    last = len(order) - 0.5
    regions = shared_subspaces(tree, weights.shape[0])
    for number, ax in enumerate(axes):
        if number > len(regions):
            ax.remove()
            continue
        ax.imshow(pixels, interpolation="nearest")
        corners = [
            [(start - 0.5, start - 0.5), (stop + 0.5, start - 0.5), (stop + 0.5, stop + 0.5)]
            for start, stop in joined
        ]
        ax.add_collection(LineCollection(corners, colors=TREE, linewidths=1.6 if number else 0.6))
        if number == 0:
            ax.set(xticks=[], yticks=[], xlim=(-1.5, last + 1), ylim=(last + 1, -1.5))
            scale = ScalarMappable(Normalize(0, top), "gray")
            parts[0].colorbar(scale, ax=ax, label="weight", shrink=0.6, aspect=30, pad=0.02)
            ax.spines[:].set_visible(False)
            continue
        start, stop = regions[number - 1]
        low, high = start - 0.5, stop + 0.5
        ax.set(xlim=(low, high + 2.6), ylim=(high, low))
        ax.spines[:].set_visible(False)
        ticks = np.arange(start, stop + 1)
        units = [
            (nets[0], order[t]) if first[t] else (nets[1], order[t] - len(weights)) for t in ticks
        ]
        # Pictures of the units beside their rows.
        page = Rectangle((high, low), 3, high - low, fc="white", zorder=3)
        ax.add_patch(page)
        for tick, unit in zip(ticks, units, strict=True):
            for step, kind in enumerate(("patches", "deconv")):
                x, y = high + 0.3 + 1.05 * step, tick - 0.47
                place(ax, tile(*unit, kind), x, y, 0.94, pixels=60, zorder=4)
        ax.set_xticks([])
        ax.set_yticks(ticks, [f"{net}, {unit}" for net, unit in units], fontsize=7)
        for label, tick in zip(ax.get_yticklabels(), ticks, strict=True):
            label.set_color(DARK[0] if first[tick] else DARK[1])
        axes[0].add_patch(
            Rectangle((low, low), high - low, high - low, fill=False, ec=FRAME, lw=1.5, zorder=4)
        )
        # Inside the picture: beside the box, on the side that has more room.
        right = high < last / 2
        axes[0].text(
            high + 1.5 if right else low - 1.5, (low + high) / 2, "AB"[number - 1], color=FRAME,
            fontsize=11, weight="bold", va="center", ha="left" if right else "right", zorder=4,
        )  # fmt: skip
        ax.set_title(f"{'AB'[number - 1]}: leaves {start} to {stop}", fontsize=9)
    handles = [
        Line2D([], [], color=color, lw=3, label=name)
        for color, name in ((FIRST, nets[0]), (SECOND, nets[1]), (TREE, "cluster (corner)"))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    figure.suptitle(
        f"Units of both nets clustered by the weights of {layer}; decay {decay_label(decay)}"
    )
    return figure


def draw_sparse_loss(table: Path, nets: Sequence[str], layers: Sequence[str]) -> Figure:
    """Draw the prediction losses from a pair's table of sparse maps."""
    return sparse_loss(pd.read_csv(table), layers, nets)


def sparse_loss(table: pd.DataFrame, layers: Sequence[str], nets: Sequence[str]) -> Figure:
    """Draw prediction loss against the number of weights per unit for each layer.

    Parameters
    ----------
    table : DataFrame
        Rows of ``mapping.csv``. The exact maps from the first net to the second are drawn, and
        those fitted by SGD if there are any.
    layers : sequence of str
    nets : the names of the source and the target net
    """
    rows = table.query("direction == 'ab'")
    figure = Figure(figsize=(PAGE[0], 4.6))
    ax = figure.subplots()
    for number, layer in enumerate(layers):
        color = colormaps["viridis"](0.92 * number / max(1, len(layers) - 1))
        exact = rows.query("layer == @layer and solver == 'exact'")
        marked = np.flatnonzero(~np.isnan(papers_decay(exact["decay"])))
        ax.plot(
            exact["nonzero_per_unit"], exact["loss"], "-", color=color, lw=1.2, label=layer,
            marker=MARKERS[number % len(MARKERS)], ms=4.5, markevery=marked.tolist(),
        )  # fmt: skip
        ax.plot(exact["nonzero_per_unit"], exact["held_out_loss"], ":", color=color, lw=1.2)
        by_sgd = rows.query("layer == @layer and solver == 'sgd'")
        ax.plot(by_sgd["nonzero_per_unit"], by_sgd["loss"], "x", color=color, ms=5)
    for style, label in ((":k", "held-out images"), ("xk", "SGD")):
        if label != "SGD" or (rows["solver"] == "sgd").any():
            ax.plot([], [], style, ms=4.5, label=label)
    ax.set_xscale("symlog", linthresh=1)
    ax.set(
        xlabel="weights per target unit (marks: the paper's decays)",
        ylabel="prediction loss",
        xlim=(-0.05, None),
        ylim=(0, max(0.52, rows["loss"].max() * 1.02)),
    )
    title = f"How many units of {nets[0]} it takes to predict one of {nets[1]}"
    ax.set_title(textwrap.fill(title, 80), loc="left")
    figure.legend(loc="outside lower center", ncols=5)
    return figure


def loss_table(table: pd.DataFrame) -> Figure:
    """Draw table 1: the exact loss, that of SGD and the paper's by layer and decay.

    Parameters
    ----------
    table : DataFrame
        Result of :func:`convergent.figures.tables.table1`.
    """
    layers = list(dict.fromkeys(table["layer"]))
    decays = sorted(table["decay"].unique())
    kinds = [("exact", "exact"), ("sgd", "SGD"), ("paper", "paper, ImageNet")]
    kinds = [(column, label) for column, label in kinds if table[column].notna().any()]
    wide = table.pivot_table(
        index="layer", columns="decay", values=[k for k, _ in kinds], dropna=False
    )
    rows = [
        (f"{layer}, {label}", wide.loc[layer, column].reindex(decays).to_numpy(float))
        for layer in layers
        for column, label in kinds
    ]
    values = np.array([row for _, row in rows])
    keep = ~np.isnan(values).all(axis=1)
    labels = [label for (label, _), kept in zip(rows, keep, strict=True) if kept]
    values = values[keep]
    figure = Figure(figsize=(PAGE[0], 1 + 0.24 * len(values)))
    ax = figure.subplots()
    image = ax.imshow(values, cmap="viridis", vmin=0, vmax=0.5, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            color = "white" if value < 0.3 else "black"
            ax.text(column, row, f"{value:.3f}", ha="center", va="center", color=color, fontsize=8)
    ax.set_xticks(range(len(decays)), [decay_label(d) for d in decays])
    ax.set_yticks(range(len(labels)), labels)
    title = f"Prediction loss of sparse maps, {table['pair'].iloc[0]}"
    title += ", beside the paper's on ImageNet" if table["paper"].notna().any() else ""
    ax.set(xlabel="decay", title=title)
    for row in range(1, len(labels)):
        if labels[row].split(",")[0] != labels[row - 1].split(",")[0]:
            ax.axhline(row - 0.5, color="white", lw=2)
    figure.colorbar(image, ax=ax, label="loss, 0.5 for no weights", extend="max")
    return figure


def _significant(weights: NDArray) -> NDArray[np.int64]:
    """Count the sources of each target unit whose weight is significant.

    Maps fitted by SGD have many weights near zero.
    """
    return (np.abs(weights) > SIGNIFICANT).sum(axis=-1)
