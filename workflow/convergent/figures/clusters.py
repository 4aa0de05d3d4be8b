"""Figures of the spectral clusters (section S.3), from reduced results.

The functions ``draw_...`` read the files of a figure and call a function that takes arrays or
tables.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from convergent.alignment.graphs import combined
from convergent.figures.sheets import Sheet, tiles
from convergent.figures.style import NETS, draw_legend, grid
from convergent.running.stores import open_store

# Outlines of first-level clusters and of their leaves.
CLUSTER, LEAF = NETS[2], NETS[3]
# Width of the box of a part of a cluster, in tiles.
BOX = 1.45
# Largest number of units per net drawn for a cluster, and the height of a row in tiles.
MOST_UNITS, ROW = 6, 1.35
# Largest number of tiles side by side on a page.
MOST_TILES = 16
# Matrices with more rows than this are averaged down.
MOST_PIXELS = 1024


def draw_figS5(
    a: Path, b: Path, correlation: Path, clusters: Path, nets: Sequence[str], layers: Sequence[str]
) -> Figure:
    """Draw figure S5 from both nets' statistics and their pair's correlations and clusters."""
    stores = [open_store(path) for path in (a, correlation, b)]
    table = pd.read_csv(clusters)
    panels = (
        (
            layer,
            [store[f"{layer}/correlation"][...] for store in stores],
            table.query("layer == @layer"),
        )
        for layer in layers
    )
    return permuted_matrices(panels, nets)


def permuted_matrices(
    layers: Iterable[tuple[str, Sequence[NDArray], pd.DataFrame]], nets: Sequence[str]
) -> Figure:
    """Draw figure S5: combined correlations in the order of clusters, with the clusters outlined.

    Parameters
    ----------
    layers : iterable of (layer, (xx, xy, yy), rows of ``clusters.csv``)
        One panel per layer. Layers are consumed one at a time, which saves memory.
    nets : the names of the two nets
    """
    panels = []
    for layer, matrices, clusters in layers:
        order = np.argsort(clusters["leaf"].to_numpy(), kind="stable")
        matrix = combined(*matrices)[np.ix_(order, order)]
        # Dead units correlate with nothing, not even with themselves.
        dead = not np.diag(matrix).all()
        panels.append((layer, _shrunk(matrix), clusters.iloc[order], dead))
    figure = Figure()
    axes, empty = grid(figure, len(panels), 1.03)
    for ax, (layer, pixels, clusters, dead) in zip(axes, panels, strict=True):
        units = len(clusters)
        extent = (-0.5, units - 0.5, units - 0.5, -0.5)
        image = ax.imshow(
            pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest", extent=extent
        )
        for column, color, width in (("leaf", LEAF, 0.8), ("cluster", CLUSTER, 1.1)):
            edges = np.flatnonzero(np.diff(clusters[column], prepend=-1, append=-1)) - 0.5
            squares = [
                [(i, i), (j, i), (j, j), (i, j), (i, i)] for i, j in itertools.pairwise(edges)
            ]
            ax.add_collection(LineCollection(squares, colors=color, linewidths=width))
        # Dead units are the last cluster, and not one of the k.
        k, leaves = (clusters[column].nunique() - dead for column in ("cluster", "leaf"))
        ax.set(title=f"{layer}: {k} clusters\n{leaves} leaves" + dead * " (+ dead)")
        _name_nets(ax, clusters["net"].to_numpy(), nets)
    label = "correlation (negative ones black)"
    figure.colorbar(image, ax=axes, label=label, location="bottom", shrink=0.5, aspect=40, pad=0.02)
    figure.suptitle(f"Correlations of the units of {' and '.join(nets)} together, by cluster")
    figure.supylabel("unit of either net, by cluster", fontsize=8)
    looks = {"cluster": CLUSTER, "leaf": LEAF, **dict(zip(nets, NETS, strict=False))}
    handles = [Line2D([], [], color=color, lw=2) for color in looks.values()]
    draw_legend(figure, empty, handles, [*looks], loc="outside lower center", ncols=4)
    return figure


def draw_figS9(similarity: Path, nets: Sequence[str], layers: Sequence[str]) -> Figure:
    """Draw figure S9 from the similarities of a pair's clusters."""
    return similarity_curves(pd.read_csv(similarity), layers)


def similarity_curves(similarity: pd.DataFrame, layers: Sequence[str]) -> Figure:
    """Draw figure S9: similarity between and within nets by cluster, sorted by similarity between.

    Parameters
    ----------
    similarity : DataFrame
        Rows of ``cluster_similarity.csv``.
    layers : sequence of str
        Layers, one panel each.
    """
    figure = Figure()
    axes, empty = grid(figure, len(layers), 0.98)
    for ax, layer in zip(axes, layers, strict=True):
        rows = similarity.query("layer == @layer").sort_values(
            ["between", "within"], ascending=False, kind="stable"
        )
        shared = (rows["units_a"] > 0) & (rows["units_b"] > 0) & (rows["within"] > 0)
        # A unit correlates with itself by 1, which says nothing of a cluster.
        alone = ((rows["units_a"] <= 1) & (rows["units_b"] <= 1)).to_numpy()
        # Leaves of one net have nothing between the nets.
        between = rows["between"].where(shared)
        # Dead units correlate with nothing.
        within = rows["within"].where((rows["within"] != 0) | (rows["between"] != 0)).to_numpy()
        places = np.arange(1, len(rows) + 1)
        size = min(3.5, 120 / max(1, len(rows)))
        ax.plot(
            places, np.where(alone, np.nan, within), "o-", color=CLUSTER, ms=size, lw=0.8,
            label="within the nets",
        )  # fmt: skip
        ax.plot(
            places[alone], within[alone], "o", color="#a0a0a0", mfc="none", mew=0.6, ms=size,
            label="within, at most one unit of each net (1 by arithmetic)",
        )  # fmt: skip
        ax.plot(places, between, "o-", color=LEAF, ms=size, lw=0.8, label="between the nets")
        ax.axhline(0, color="gray", lw=0.5)
        live = np.isfinite(within).sum()
        ax.set(title=f"{layer}: {shared.sum()} of\n{live} leaves shared", ylim=(None, 1.03))
    handles, labels = axes[0].get_legend_handles_labels()
    draw_legend(figure, empty, handles, labels, loc="outside upper center", ncols=3)
    figure.supxlabel("leaf, from the most alike in both nets to those of one net", fontsize=8)
    figure.supylabel("mean correlation", fontsize=8)
    return figure


def draw_eigenvalues(
    table: Path, stability: Path, nets: Sequence[str], clusters: Mapping[str, int | str]
) -> Figure:
    """Draw the eigenvalues from a pair's files; `clusters` has the configured number, or auto."""
    chosen = {row.layer: (row.k, row.components) for row in pd.read_csv(stability).itertuples()}
    automatic = {layer: k == "auto" for layer, k in clusters.items()}
    return eigenvalues(pd.read_csv(table), chosen, automatic)


def eigenvalues(
    table: pd.DataFrame, chosen: Mapping[str, tuple[int, int]], automatic: Mapping[str, bool]
) -> Figure:
    """Draw the smallest eigenvalues of the Laplacians and the number of clusters (footnote 12).

    Parameters
    ----------
    table : DataFrame
        Rows of ``eigenvalues.csv``.
    chosen : mapping of layer to (int, int)
        Number of clusters k, and number of connected components.
    automatic : mapping of layer to bool
        True if k is where the eigenvalues jump, false if it was configured.
    """
    figure = Figure()
    axes, _ = grid(figure, len(chosen), 0.95)
    for ax, (layer, (k, components)) in zip(axes, chosen.items(), strict=True):
        rows = table.query("layer == @layer")
        size = min(3.5, 200 / max(1, len(rows)))
        ax.plot(rows["number"], rows["eigenvalue"], "o", color=LEAF, ms=size)
        ax.axvline(k + 0.5, color=CLUSTER, lw=1)
        how = "where they jump most" if automatic[layer] else "as configured"
        zeros = f"{components} component{'s' * (components != 1)}"
        ax.set_title(f"{layer}, {zeros}\nk = {k}, {how}", fontsize=8)
    figure.suptitle("Smallest eigenvalues of the graph Laplacians; the line is k")
    figure.supxlabel("eigenvalue's place, from the smallest", fontsize=8)
    figure.supylabel("eigenvalue", fontsize=8)
    return figure


def draw_figS6(
    a: Path,
    b: Path,
    clusters: Path,
    similarity: Path,
    nets: Sequence[str],
    layer: str,
    kind: str,
    number: int,
) -> Figure:
    """Draw figure S6 or S7 from both nets' units and their pair's clusters.

    `kind` is patches, deconv or filters. Only the first layer has filters; a layer that is not the
    first of both nets shows patches instead.
    """
    tables = (pd.read_csv(path) for path in (clusters, similarity))
    rows, leaves = (table[table["layer"] == layer] for table in tables)
    if kind == "filters" and not all("filters" in open_store(path)[layer] for path in (a, b)):
        kind = "patches"
    pictures = tiles(nets, (a, b))
    return shared_clusters(
        rows, leaves, lambda net, unit: pictures(net, layer, unit, kind), nets, layer, number
    )


def shared_clusters(
    clusters: pd.DataFrame,
    similarity: pd.DataFrame,
    tile: Callable,
    nets: Sequence[str],
    layer: str,
    number: int,
) -> Figure:
    """Draw figures S6 and S7: the clusters with the highest similarity between the nets.

    A cluster shows the units of the first net in dashed boxes, a gap, and the units of the second.
    Clusters follow each other in rows, of the length that leaves least of them empty.

    Parameters
    ----------
    clusters, similarity : DataFrame
        The layer's rows of ``clusters.csv`` and ``cluster_similarity.csv``.
    tile : callable
        Function of (net, unit) that returns a picture.
    nets : the names of the two nets
    layer : str
    number : int
        Largest number of clusters.
    """
    rows = similarity[similarity["between"] > 0]
    rows = rows.sort_values("between", ascending=False, kind="stable").head(number)
    # A label, the units, gaps behind those of each net, and the number of those left out.
    units = rows[["units_a", "units_b"]]
    widths = 2.1 + units.clip(upper=MOST_UNITS).sum(axis=1) + (units > MOST_UNITS).any(axis=1) / 2
    widths = widths.tolist()
    longest = max([4.0, *widths])
    lengths = np.arange(longest, max(longest, min(MOST_TILES, sum(widths))) + 0.5, 0.5)
    flows = {length: _flow(widths, length) for length in lengths}
    # Lines of this length, and how many of them; shorter ones have larger pictures.
    length = min(flows, key=lambda length: (length * (1 + flows[length][-1][1]), length))
    places = flows[length]
    sheet = Sheet(
        length,
        ROW * (1 + places[-1][1]),
        f"{layer}: {len(rows)} leaves of highest mean correlation (grey) between the units of "
        f"{nets[0]} (dashed) and {nets[1]}",
    )
    if rows.empty:
        sheet.text(length / 2, ROW / 2, "no cluster has units of both nets", fontsize=9)
    for number_, (row, (left, line)) in enumerate(zip(rows.itertuples(), places, strict=False), 1):
        top = ROW * line
        sheet.text(left + 0.45, top + 0.42, f"#{number_}", fontsize=8)
        sheet.text(left + 0.45, top + 0.72, f"{row.between:.2f}", color="gray")
        _members(sheet, clusters[clusters["leaf"] == row.leaf], tile, nets, left + 0.9, top + 0.05)
    return sheet.figure


def _flow(widths: Sequence[float], length: float) -> list[tuple[float, int]]:
    """Place boxes in lines of this length, and return the left end and the line of each."""
    places, left, line = [(0.0, 0)][len(widths) :], 0.0, 0
    for width in widths:
        if left and left + width > length:
            left, line = 0.0, line + 1
        places.append((left, line))
        left += width
    return places


def draw_figS8(
    a: Path, b: Path, clusters: Path, similarity: Path, nets: Sequence[str], layer: str
) -> Figure:
    """Draw figure S8 from both nets' units and their pair's clusters."""
    tables = (pd.read_csv(clusters, dtype={"path": str}), pd.read_csv(similarity))
    rows, leaves = (table[table["layer"] == layer] for table in tables)
    pictures = tiles(nets, (a, b))
    return branches(rows, leaves, lambda net, unit: pictures(net, layer, unit), nets, layer)


def branches(
    clusters: pd.DataFrame,
    similarity: pd.DataFrame,
    tile: Callable,
    nets: Sequence[str],
    layer: str,
) -> Figure:
    """Draw figure S8: one cluster as a tree whose leaves show the units of both nets.

    Parameters
    ----------
    clusters, similarity : DataFrame
        The layer's rows of ``clusters.csv``, with paths as strings, and of
        ``cluster_similarity.csv``. :func:`example_cluster` chooses the cluster.
    tile : callable
        Function of (net, unit) that returns a picture.
    nets : the names of the two nets
    layer : str
    """
    root = example_cluster(clusters, similarity).split("/")
    paths = clusters["path"].str.split("/")
    members = clusters[[path[: len(root)] == root for path in paths]]
    leaves = [rows for _, rows in members.groupby("leaf")]
    # For each node of the tree: the heights of its leaves on the sheet, and the nets of its units.
    nodes: dict[tuple[str, ...], tuple[list[float], list[str]]] = {}
    for line, rows in enumerate(leaves):
        path = rows["path"].iloc[0].split("/")
        for level in range(len(root), len(path) + 1):
            lines, owners = nodes.setdefault(tuple(path[:level]), ([], []))
            lines.append(ROW * (line + 0.5))
            owners += rows["net"].tolist()
    step, depth = 2.0, max(map(len, nodes)) - len(root) + 1
    sizes = pd.DataFrame([[(rows["net"] == net).sum() for net in nets] for rows in leaves])
    name = "/".join(root)
    sheet = Sheet(
        step * depth + _width(sizes) + 0.5,
        ROW * len(leaves),
        f"{layer}: cluster {name} as a tree; units of {nets[0]} dashed, then those of {nets[1]}",
    )
    for node, (lines, owners) in nodes.items():
        x, y = step * (len(node) - len(root)) + 0.1, float(np.mean(lines))
        top = len(node) == len(root)
        if not top:
            above = float(np.mean(nodes[node[:-1]][0]))
            bend = [x - step + BOX, x - 0.3, x - 0.3, x]
            sheet.ax.plot(bend, [above, above, y, y], "-", color=LEAF, lw=1)
        if not any(node == other[:-1] for other in nodes):
            sheet.ax.plot([x + BOX, step * depth - 0.15], [y, y], ":", color=LEAF, lw=0.8)
        sheet.frame(x, y - 0.38, BOX, 0.8, lw=0.8, ec=CLUSTER if top else LEAF)
        counts = " + ".join(str(owners.count(net)) for net in nets)
        label = ("part" if len(root) > 1 else f"cluster {root[0]}") if top else f"part {node[-1]}"
        sheet.text(x + BOX / 2, y, f"{label}\n{counts}")
    for line, rows in enumerate(leaves):
        _members(sheet, rows, tile, nets, step * depth, ROW * line + 0.05)
    return sheet.figure


def example_cluster(clusters: pd.DataFrame, similarity: pd.DataFrame, most: int = 12) -> str:
    """Choose the cluster, or part of one, that figure S8 shows, and return its path.

    Candidates have two to `most` leaves or, if no cluster was split that way, any number. The
    candidate with the largest sum over leaves of the number of units times the similarity between
    the nets is chosen.
    """
    paths = clusters.drop_duplicates("leaf").set_index("leaf")["path"]
    rows = similarity.set_index("leaf")
    shared = rows["between"] * (rows["units_a"] + rows["units_b"])
    nodes: dict[str, list[float]] = {}
    for leaf, path in paths.items():
        parts = path.split("/")
        for level in range(1, len(parts) + 1):
            nodes.setdefault("/".join(parts[:level]), []).append(shared[leaf])
    split = {node: sum(values) for node, values in nodes.items() if 1 < len(values) <= most}
    chosen = split or {node: sum(values) for node, values in nodes.items()}
    return max(chosen, key=chosen.__getitem__)


def _width(sizes: pd.DataFrame) -> float:
    """Return the width of the largest cluster in tiles; `sizes` has shape (cluster, net)."""
    return 1.4 + max(1, int(sizes.clip(upper=MOST_UNITS).sum(axis=1).max())) if len(sizes) else 4.0


def _members(
    sheet: Sheet, members: pd.DataFrame, tile: Callable, nets: Sequence[str], x: float, top: float
) -> None:
    """Place the pictures of a cluster: units of the first net, a gap, units of the second."""
    for number, net in enumerate(nets):
        units = members.loc[members["net"] == net, "unit"].tolist()
        for unit in units[:MOST_UNITS]:
            sheet.place(tile(net, unit), x, top)
            if number == 0:
                sheet.frame(x, top, ls="--", lw=0.8)
            sheet.text(x + 0.47, top + 1.13, f"{unit}", color="dimgray")
            x += 1
        if len(units) > MOST_UNITS:
            sheet.text(x + 0.3, top + 0.47, f"+{len(units) - MOST_UNITS}")
            x += 0.2
        x += 0.5


def _name_nets(ax: Axes, owners: NDArray, nets: Sequence[str]) -> None:
    """Draw a strip under a matrix whose colours tell the nets of its units."""
    strip = ax.inset_axes((0, -0.06, 1, 0.04))
    colors = [[to_rgb(NETS[nets.index(owner)]) for owner in owners]]
    strip.imshow(colors, aspect="auto", interpolation="nearest")
    strip.set(xticks=[], yticks=[])
    strip.spines[:].set_visible(False)
    ax.set_xticks([])


def _shrunk(matrix: NDArray) -> NDArray[np.float64]:
    """Average a matrix that has more entries than a picture can show over squares."""
    step = -(-len(matrix) // MOST_PIXELS)
    starts = np.arange(0, len(matrix), step)
    sizes = np.diff(starts, append=len(matrix))
    sums = np.add.reduceat(np.add.reduceat(matrix, starts, axis=0), starts, axis=1)
    return sums / np.outer(sizes, sizes)
