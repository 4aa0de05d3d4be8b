"""Figures of units compared one to one (sections 3, S.1, S.2 and S.4), from reduced results.

The functions ``draw_...`` read the files of a figure and call a function that takes arrays or
tables; both return a `matplotlib.figure.Figure`. Nothing here reads activations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convergent.figures.style import MATCHING, NETS, SEMI
from convergent.measures.joint_densities import load_joint_densities
from convergent.measures.matching import column_order, mean_values, partners
from convergent.measures.registry import Measure
from convergent.measures.registry import measure as registered
from convergent.running.stores import open_store


def draw_fig1(
    a: Path, b: Path, correlation: Path, matching: Path, nets: Sequence[str], layer: str
) -> Figure:
    """Draw figure 1 from both nets' statistics and their pair's correlations and matching."""
    within_a, within_b, between = (
        open_store(store)[f"{layer}/correlation"][...] for store in (a, b, correlation)
    )
    partner = partners(pd.read_csv(matching), layer, units=len(between))
    return correlation_matrices(within_a, within_b, between, partner, nets, layer)


def correlation_matrices(
    within_a: NDArray,
    within_b: NDArray,
    between: NDArray,
    partner: NDArray[np.integer],
    nets: Sequence[str],
    layer: str,
) -> Figure:
    """Draw figure 1: within-net, between-net and permuted between-net correlations of a layer.

    Parameters
    ----------
    within_a, within_b : ndarray of shape (unit_a, unit_a), (unit_b, unit_b)
    between : ndarray of shape (unit_a, unit_b)
    partner : ndarray of shape (unit_a,)
        The matching; -1 for units without a partner, which take the columns without one in
        ascending order. Any remaining columns come last.
    nets : the names of net a and net b
    layer : str
    """
    order = column_order(partner, between.shape[1])
    a, b = nets
    panels = [
        (f"(a) {a}, {a}", within_a, f"unit of {a}", f"unit of {a}"),
        (f"(b) {b}, {b}", within_b, f"unit of {b}", f"unit of {b}"),
        (f"(c) {a}, {b}", between, f"unit of {b}", f"unit of {a}"),
        (
            f"(d) {a}, {b} permuted",
            between[:, order],
            f"unit of {b}, matched order",
            f"unit of {a}",
        ),
    ]
    low, high = (f(m.min() if f is min else m.max() for _, m, *_ in panels) for f in (min, max))
    figure = Figure(figsize=(13, 3.6))
    axes = figure.subplots(1, 4)
    for ax, (title, matrix, xlabel, ylabel) in zip(axes, panels, strict=True):
        image = ax.imshow(matrix, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    figure.colorbar(image, ax=axes, label="correlation", fraction=0.012, pad=0.01)
    figure.suptitle(f"Correlation matrices of {layer}")
    return figure


def draw_fig3(matching: Path, nets: Sequence[str], layers: Sequence[str], measure: str) -> Figure:
    """Draw figure 3 or S3, by correlation or by mutual information, from a pair's matching."""
    matches = pd.read_csv(matching).query("measure == @measure")
    return matched_values(matches, layers, nets, registered(measure))


def matched_values(
    matches: pd.DataFrame, layers: Sequence[str], nets: Sequence[str], measure: Measure
) -> Figure:
    """Draw figures 3 and S3: matched values of each live unit, sorted by the semi-matching.

    Parameters
    ----------
    matches : DataFrame
        Rows of ``matching.csv`` for one measure.
    layers : sequence of str
        Layers, one panel each.
    nets : the names of net a and net b
    measure : Measure
        The measure, which labels the axis. The axis ends at 1 if that is the measure's largest
        possible value, and otherwise at the largest value in the data.
    """
    columns = min(3, len(layers))
    rows = -(-len(layers) // columns)
    single = len(layers) == 1
    figure = Figure(figsize=(6.4, 4.2) if single else (4.2 * columns, 3 * rows))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, layer in zip(axes, layers, strict=False):
        rows_ = matches.query("layer == @layer and direction == 'ab'")
        values = rows_.pivot_table(index="unit", columns="method", values="value")
        # A layer of dead units has no rows; a layer in which no unit has a partner has none of that
        # method.
        values = values.reindex(columns=["semi", "matching"])
        values = values.sort_values("semi", ascending=False, kind="stable")
        number = max(1, len(values))
        _matched_points(ax, values, size=(1 if single else 0.6) * min(1, (400 / number) ** 0.5))
        ax.set(title=f"{layer}, {nets[0]} to {nets[1]}", xlim=(-0.02 * number, None))
        ax.set(xlabel=f"unit of {nets[0]}, sorted by its semi-matching", ylabel=measure.axis)
        if measure.range[1] != 1:
            ax.set_ylim(0, 1.05 * max(1e-6, values["semi"].max()))
    if single:
        axes[0].legend(loc="lower left")
    else:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
    for ax in axes[len(layers) :]:
        ax.remove()
    return figure


def draw_fig4(matchings: Sequence[Path], pairs: Sequence[str], layers: Sequence[str]) -> Figure:
    """Draw figure 4 from the matchings of all pairs."""
    matches = {
        pair: pd.read_csv(path).query("measure == 'correlation'")
        for pair, path in zip(pairs, matchings, strict=True)
    }
    return mean_by_layer(matches, layers)


def mean_by_layer(matches: Mapping[str, pd.DataFrame], layers: Sequence[str]) -> Figure:
    """Draw figure 4: mean matched correlation by layer over all pairs, with their spread.

    Parameters
    ----------
    matches : mapping of pair to DataFrame
        Rows of ``matching.csv`` for one measure;
        :func:`convergent.measures.matching.mean_values` says what the means count.
    layers : sequence of str
    """
    means = pd.concat({pair: mean_values(table) for pair, table in matches.items()}, names=["pair"])
    means = means.droplevel("measure")
    figure = Figure(figsize=(6.4, 4.2))
    ax = figure.subplots()
    places = np.arange(len(layers))
    styles = [("semi", "semi-matching", SEMI, -0.2), ("matching", "matching", MATCHING, 0.2)]
    for method, label, color, shift in styles:
        table = means[method].unstack("pair").reindex(list(layers))  # noqa: PD010
        center, spread = table.mean(axis=1), table.std(axis=1, ddof=0)
        ax.bar(places + shift, center, 0.38, color=color, label=label)
        ax.errorbar(
            places + shift, center, spread, fmt="none", ecolor="black", elinewidth=1, capsize=3
        )
        jitter = np.linspace(-0.12, 0.12, table.shape[1]) if table.shape[1] > 1 else [0]
        for pair, offset in zip(table.columns, jitter, strict=True):
            ax.plot(places + shift + offset, table[pair], ".", color="black", ms=2.5, alpha=0.6)
    ax.set_xticks(places, layers)
    ax.set(ylim=(min(0, ax.get_ylim()[0]), 1), ylabel="mean correlation of matched units")
    n = len(matches)
    ax.set_title(f"{n} pair{'s' * (n > 1)} of nets: mean, standard deviation, each pair a dot")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def draw_figS10(statistics: Sequence[Path], nets: Sequence[str], layers: Sequence[str]) -> Figure:
    """Draw figure S10 from the statistics of all nets."""
    means = {
        net: {layer: group["mean"][...] for layer, group in store.groups()}
        for net, store in zip(nets, map(open_store, statistics), strict=True)
    }
    # As in the paper, only the first layer has few enough units to mark each of them.
    return mean_activations(means, layers, markers=layers[:1])


def mean_activations(
    means: Mapping[str, Mapping[str, NDArray]], layers: Sequence[str], markers: Iterable[str]
) -> Figure:
    """Draw figure S10: mean activations of the units of all nets, in descending order.

    Parameters
    ----------
    means : mapping of net to mapping of layer to ndarray of shape (unit,)
    layers : sequence of str
        Layers, one panel each.
    markers : layers in which every unit has a marker; in others only the two ends have one
    """
    columns = min(4, len(layers))
    rows = -(-len(layers) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.9 * rows))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, layer in zip(axes, layers, strict=False):
        silent = []
        for number, (net, by_layer) in enumerate(means.items()):
            values = np.sort(by_layer[layer])[::-1]
            live = values[values > 0]
            silent.append(len(values) - len(live))
            ax.plot(
                np.arange(len(live)), live, color=NETS[number % len(NETS)], lw=1, marker="o", ms=3,
                mfc="none", markevery=None if layer in markers else [0, -1], label=net,
            )  # fmt: skip
        ax.set_yscale("log")
        dead = f" ({'/'.join(map(str, silent))} silent)" if any(silent) else ""
        ax.set(title=f"{layer}{dead}", xlabel="unit, sorted", ylabel="mean activation")
    axes[0].legend()
    for ax in axes[len(layers) :]:
        ax.remove()
    return figure


def draw_figS1(densities: Path, nets: Sequence[str]) -> Figure:
    """Draw figure S1 from a pair's joint densities."""
    counts, titles, labels = [], [], []
    for layer, rank, units, r, information, density in load_joint_densities(densities):
        counts.append(density)
        titles.append(f"{layer}, {rank} correlation: r = {r:.3f}, I = {information:.2f} nats")
        labels.append((f"{nets[0]}, unit {units[0]}", f"{nets[1]}, unit {units[1]}"))
    return joint_activations(counts, titles, labels)


def joint_activations(
    densities: Sequence[tuple[NDArray, NDArray, NDArray]],
    titles: Sequence[str],
    labels: Sequence[tuple[str, str]],
) -> Figure:
    """Draw figure S1: joint distributions of the activations of pairs of units.

    Parameters
    ----------
    densities : sequence of (counts, edges_x, edges_y)
        Joint histograms, one panel each, two per row, drawn on a logarithmic scale.
    titles : sequence of str
    labels : sequence of (str, str)
        Labels of the two axes.
    """
    rows = max(1, -(-len(densities) // 2))
    figure = Figure(figsize=(9, 3.6 * rows))
    axes = figure.subplots(rows, 2, squeeze=False).ravel()
    panels = zip(axes, densities, titles, labels, strict=False)
    for ax, (counts, x, y), title, (xlabel, ylabel) in panels:
        mesh = ax.pcolormesh(
            x, y, np.ma.masked_equal(counts.T, 0), norm=LogNorm(vmin=1), cmap="viridis",
            rasterized=True,
        )  # fmt: skip
        figure.colorbar(mesh, ax=ax, label="samples")
        ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    return figure


def _matched_points(ax: Axes, values: pd.DataFrame, size: float) -> None:
    ranks = np.arange(len(values))
    ax.plot(ranks, values["semi"], "o", color=SEMI, ms=7 * size, label="semi-matching")
    ax.plot(ranks, values["matching"], "o", color=MATCHING, ms=3.5 * size, label="matching")
    ax.set_ylim(min(0, values.min(axis=None)) - 0.02, 1.02)
