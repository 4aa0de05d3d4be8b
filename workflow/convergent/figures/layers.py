"""Figure of the similarity of every layer of a net with every layer of another."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from convergent.figures.similarity import towards, way_title
from convergent.figures.style import NETS, PAGE, SMALL, carry_names
from convergent.inference.identification import by_way, value_matrix
from convergent.inference.verdicts import short
from convergent.measures.registry import measure

# Inches: largest side of a cell, and the least in which a value can be
# read; then the gap beside a panel, a line of its title, the title and scale of the page, and the
# width of a letter of a name.
LARGEST, LEGIBLE = 0.36, 0.2
BESIDE, LINE, HEAD, LETTER = 0.16, 0.13, 0.8, 0.062
# Colour of the most similar layer.
BEST = "#d55e00"


def draw_layers(table: Path, nets: Sequence[str], sides: Sequence[Sequence[str]]) -> Figure:
    """Draw the matrices of layers from a pair's table of all pairs of layers."""
    return matrices_of_layers(pd.read_csv(table, keep_default_na=False), sides, nets)


def matrices_of_layers(
    table: pd.DataFrame, sides: Sequence[Sequence[str]], nets: Sequence[str]
) -> Figure:
    """Draw a matrix of layers for each measure and direction that has values.

    Rows are layers of the first net. The most similar layer of each row is framed, and a line
    runs along equal depths in proportion to the nets. Every panel has its own scale, whose ends
    are in its title.

    Parameters
    ----------
    table : DataFrame
        Columns layer_a, layer_b, measure, direction, grid, value and n_images of
        :func:`convergent.inference.similarity.layer_table`, and parameter, if there is one.
    sides : (sequence of str, sequence of str)
        Layers of the two nets, in order.
    nets : sequence of str
        The two nets.
    """
    matrices = {way: value_matrix(rows, sides) for way, rows in by_way(table)}
    panels = [(way, values) for way, values in matrices.items() if np.isfinite(values).any()]
    height, width = map(len, sides)
    left, below = (LETTER * max(map(len, side), default=0) + 0.3 for side in sides)
    page = PAGE[0] - left, PAGE[1] - below - HEAD
    downs = {n: -(-len(panels) // n) for n in range(1, max(1, len(panels)) + 1)}
    titles = {
        n: [
            _title(name, parameter, direction, nets, max(16, int(page[0] / n / 0.057)))
            for (name, parameter, direction), _ in panels
        ]
        for n in downs
    }
    # Above a panel.
    above = {n: LINE * (1 + max(map(len, told), default=0)) for n, told in titles.items()}
    sizes = {
        n: min(LARGEST, (page[0] / n - BESIDE) / width, (page[1] / down - above[n]) / height)
        for n, down in downs.items()
        if down
    } or {1: LARGEST}
    # As many panels side by side as leave the largest cells, and then the fewest rows of panels.
    across = max(sizes, key=lambda n: (sizes[n], -downs[n], -n))
    cell, down = sizes[across], max(1, downs[across])
    figure = Figure(
        figsize=(PAGE[0], min(PAGE[1], down * (height * cell + above[across]) + below + HEAD))
    )
    axes = figure.subplots(down, across, squeeze=False)
    for number, ((name, *_), values) in enumerate(panels):
        ax = axes.flat[number]
        low, high = _draw_matrix(ax, values, measure(name).higher_is_more_alike, cell)
        lines = [*titles[across][number], f"{short(low)} to {short(high)}"]
        ax.set_title("\n".join(lines), fontsize=SMALL, pad=3)
        lowest = number >= (down - 1) * across
        _name_layers(ax, sides, cell, left=not number % across, below=lowest)
    for number in range(len(panels), axes.size):
        names = sides[1][:: _step(cell)]
        carry_names(axes.flat[number], axes.flat[number - across], names, SMALL)
    drawn = [ax for ax in axes.flat[: len(panels)] if ax.images]
    if drawn:
        bar = figure.colorbar(
            drawn[0].images[0], ax=drawn, location="bottom", shrink=0.4, aspect=40, pad=0.01
        )
        bar.set_ticks(drawn[0].images[0].get_clim(), labels=["least alike", "most alike"])
        bar.ax.tick_params(labelsize=SMALL, length=0)
    figure.supylabel(nets[0], color=NETS[0], fontsize=9)
    figure.supxlabel(nets[1], color=NETS[1], fontsize=9)
    kinds = table.drop_duplicates(["layer_a", "layer_b"])["grid"].str.split().str[0].value_counts()
    grids = {"pooled": "on maps pooled to the smaller", "mean": "by the mean of each map"}
    told = [f"{kinds[kind]} pairs {way}" for kind, way in grids.items() if kind in kinds]
    drawn_ways = dict(panels)
    empty = dict.fromkeys(
        way_title(name, parameter, 200)
        for name, parameter, direction in matrices
        if (name, parameter, direction) not in drawn_ways
    )
    told += [f"no values of {', '.join(empty)}"] if empty else []
    title = "; ".join([f"{' and '.join(nets)}, {table['n_images'].max()} images", *told])
    figure.suptitle(textwrap.fill(title, 95), fontsize=8)
    return figure


def _title(
    name: str, parameter: str, direction: str, nets: Sequence[str], letters: int
) -> list[str]:
    """Title a panel, in lines of at most so many letters."""
    lines = way_title(name, parameter, letters), towards(direction, nets)
    return "\n".join(filter(None, lines)).split("\n")


def _draw_matrix(
    ax: Axes, values: NDArray[np.float64], higher_is_more_alike: bool, cell: float
) -> tuple[float, float]:
    """Draw one matrix (layer_a, layer_b) with cells of this side in inches; return its scale."""
    known = values[np.isfinite(values)]
    low, high = min(0, known.min()), max(known.max(), 1e-9)
    cmap = "viridis" if higher_is_more_alike else "viridis_r"
    image = ax.imshow(values, cmap=cmap, vmin=low, vmax=high, aspect="equal")
    height, width = values.shape
    # Layers of equal proportional depth, from the first to the last of both nets.
    ax.plot([0, width - 1], [0, height - 1], color="white", lw=0.8, ls=":")
    best_of = np.nanargmax if higher_is_more_alike else np.nanargmin
    for row in np.flatnonzero(np.isfinite(values).any(axis=1)):
        best = best_of(values[row])
        if cell >= LEGIBLE:
            corner = best - 0.45, row - 0.45
            ax.add_patch(Rectangle(corner, 0.9, 0.9, fill=False, ec=BEST, lw=1.4))
        else:
            ax.plot(best, row, "o", color=BEST, ms=max(1, 30 * cell), mew=0)
    if cell >= LEGIBLE:
        colors = np.asarray(image.cmap(image.norm(values)))
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                dark = colors[row, column, :3].mean() < 0.5
                text = ax.text(
                    column, row, short(value)[:4].replace("1.00", "1.0"), ha="center", va="center",
                    fontsize=SMALL, color="white" if dark else "black",
                )  # fmt: skip
                # A seam in the colour of the cell keeps the line off the figures.
                seam = withStroke(linewidth=2, foreground=colors[row, column])
                text.set_path_effects([seam])
    return low, high


def _name_layers(
    ax: Axes, sides: Sequence[Sequence[str]], cell: float, *, left: bool, below: bool
) -> None:
    """Name the layers of a panel that stands at the left, and of one with none below it."""
    step = _step(cell)
    for axis, side, named in ((ax.yaxis, sides[0], left), (ax.xaxis, sides[1], below)):
        axis.set_ticks(range(0, len(side), step), side[::step] if named else [], fontsize=SMALL)
    ax.tick_params("x", rotation=90)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)


def _step(cell: float) -> int:
    """Return the step at which names can be read, a name taking an eighth of an inch."""
    return max(1, int(np.ceil(0.125 / cell)))
