"""Figures of units compared one to one (sections 3, S.1, S.2 and S.4), from reduced results.

The functions ``draw_...`` read the files of a figure and call a function that takes arrays or
tables; both return a `matplotlib.figure.Figure`. Nothing here reads activations.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convergent.figures.chance import chance_last, column, draw_chance, kinds_of_chance
from convergent.figures.entries import kind_of_pair
from convergent.figures.matched_matrix import draw_matched
from convergent.figures.style import (
    CHANCE,
    MATCHING,
    NETS,
    PAGE,
    SEMI,
    draw_legend,
    grid,
    log_scale,
    name_places,
)
from convergent.inference.over_nets import over_nets
from convergent.inference.verdicts import statistic_rows
from convergent.measures.joint_densities import load_joint_densities
from convergent.measures.matching import mean_values, partners
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
        ascending order. Units that one net has more than the other come last, behind a gap. Panel
        (d) sorts units by the correlation with their partner.
    nets : the names of net a and net b
    layer : str
    """
    a, b = nets
    # Best matched units first, and those without a partner last.
    value = np.where(partner >= 0, between[np.arange(len(between)), partner], -np.inf)
    sorted_by_match = np.argsort(-value, kind="stable")
    panels = [
        (f"(a) {a}, {a}", within_a, f"unit of {a}", f"unit of {a}"),
        (f"(b) {b}, {b}", within_b, f"unit of {b}", f"unit of {b}"),
        (f"(c) {a}, {b}", between, f"unit of {b}", f"unit of {a}"),
        (f"(d) {a}, {b} matched", between, f"unit of {b}, its partner", f"unit of {a}, best first"),
    ]
    low, high = (f(m.min() if f is min else m.max() for _, m, *_ in panels) for f in (min, max))
    style = {"cmap": "gray", "vmin": low, "vmax": high, "interpolation": "nearest"}
    figure = Figure(figsize=(PAGE[0], 6.1), layout="compressed")
    axes = figure.subplots(2, 2).ravel()
    for ax, (title, matrix, xlabel, ylabel) in zip(axes, panels, strict=True):
        if ax is axes[-1]:
            image, _ = draw_matched(ax, matrix[sorted_by_match], partner[sorted_by_match], **style)
        else:
            ax.imshow(matrix, **style)
        ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    figure.colorbar(image, ax=axes, label="correlation", aspect=40, pad=0.02)
    figure.suptitle(f"Correlation matrices of {layer}")
    return figure


def draw_fig3(
    matching: Path, null_matches: Path, nets: Sequence[str], layers: Sequence[str], measure: str
) -> Figure:
    """Draw figure 3 or S3, by correlation or by mutual information, from a pair's matching."""
    matches, chance = (
        table[table["measure"] == measure] for table in map(pd.read_csv, (matching, null_matches))
    )
    return matched_values(matches, layers, nets, registered(measure), chance)


def matched_values(
    matches: pd.DataFrame,
    layers: Sequence[str],
    nets: Sequence[str],
    measure: Measure,
    chance: pd.DataFrame | None = None,
) -> Figure:
    """Draw figures 3 and S3: matched values of each live unit, sorted by the semi-matching.

    Under them are the values that units have by chance, each matching sorted by itself.

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
    chance : DataFrame, optional
        Rows of ``null_matches.csv`` for the measure.
    """
    single = len(layers) == 1
    figure = Figure()
    axes, empty = grid(figure, len(layers), 0.55 if single else 0.88)
    for ax, layer in zip(axes, layers, strict=True):
        rows_ = matches.query("layer == @layer and direction == 'ab'")
        values = rows_.pivot_table(index="unit", columns="method", values="value")
        # A layer of dead units has no rows; a layer in which no unit has a partner has none of that
        # method.
        values = values.reindex(columns=["semi", "matching"])
        values = values.sort_values("semi", ascending=False, kind="stable")
        number = max(1, len(values))
        by_chance = None if chance is None else chance[chance["layer"] == layer]
        if by_chance is not None:
            _chance_curves(ax, by_chance)
        _matched_points(ax, values, size=(1 if single else 0.6) * min(1, (400 / number) ** 0.5))
        ax.set(title=textwrap.fill(layer, 60 if single else 26), xlim=(-0.02 * number, None))
        if measure.range[1] != 1:
            highest = [values["semi"].max()]
            highest += [] if by_chance is None else [by_chance["high"].max()]
            ax.set_ylim(0, 1.05 * np.nanmax([1e-6, *highest]))
        elif by_chance is not None and len(by_chance):
            ax.set_ylim(bottom=min(ax.get_ylim()[0], by_chance["low"].min() - 0.02))
    figure.supxlabel(f"units of {nets[0]}, sorted by their semi-matching in {nets[1]}", fontsize=8)
    figure.supylabel(measure.axis, fontsize=8)
    entries = chance_last(*axes)
    if single and len(entries[0]) == 2:
        axes[0].legend(*entries, loc="lower left")
    else:
        draw_legend(figure, empty, *entries, loc="outside upper center", ncols=2)
    return figure


def draw_fig4(
    matchings: Sequence[Path],
    significance: Path,
    pairs: Sequence[str],
    layers: Sequence[str],
    groups: Mapping[str, str] | None = None,
) -> Figure:
    """Draw figure 4 from the matchings of all pairs and their table of significance.

    `groups` has the group of each net, if any.
    """
    matches = {
        pair: pd.read_csv(path).query("measure == 'correlation'")
        for pair, path in zip(pairs, matchings, strict=True)
    }
    table = pd.read_csv(significance, keep_default_na=False)
    table = table[table["pair"].isin(pairs)]
    return mean_by_layer(matches, layers, groups, table)


def mean_by_layer(
    matches: Mapping[str, pd.DataFrame],
    layers: Sequence[str],
    groups: Mapping[str, str] | None = None,
    significance: pd.DataFrame | None = None,
) -> Figure:
    """Draw figure 4: mean matched correlation by layer over all pairs, with their spread.

    Each layer's mean is over the pairs that have the layer, or rather live units in it. If their
    number differs between layers, it is below the name of the layer.

    Parameters
    ----------
    matches : mapping of pair to DataFrame
        Rows of ``matching.csv`` for one measure;
        :func:`convergent.measures.matching.mean_values` says what the means count.
    layers : sequence of str
        Layers of any pair, from left to right.
    groups : mapping of net to str, optional
        Groups of nets. If there are any, there is a line for each kind of pair
        (:func:`convergent.figures.entries.kind_of_pair`) instead of a bar for all.
    significance : DataFrame, optional
        Rows of ``tables/significance.csv`` of these pairs, whose chance levels and ceilings are
        averaged.
    """
    means = pd.concat({pair: mean_values(table) for pair, table in matches.items()}, names=["pair"])
    means = means.droplevel("measure")
    tables = {
        # Pairs in the order of `matches`.
        method: means[method].unstack("pair").reindex(list(layers))  # noqa: PD010
        for method in ("semi", "matching")
    }
    levels = {method: _levels(significance, f"{method}_mean", layers) for method in tables}
    n = len(matches)
    over = f"{'up to ' * _differ(tables['semi'])}{n} pair{'s' * (n > 1)} of nets"
    if groups:
        return _lines_by_kind(tables, groups, over, levels)
    shown = kinds_of_chance(levels["semi"])
    figure = Figure(figsize=(PAGE[0], 4.4))
    ax = figure.subplots()
    places = np.arange(len(layers))
    styles = [("semi", "semi-matching", SEMI, -0.2), ("matching", "matching", MATCHING, 0.2)]
    for method, label, color, shift in styles:
        table, level = tables[method], levels[method]
        center, spread = table.mean(axis=1), table.std(axis=1, ddof=0)
        ax.bar(places + shift, center, 0.38, color=color, label=label)
        # Where bars stand close, levels of chance that share a bar have a part of its width each.
        for number, null in enumerate(shown):
            side = 0.38 / len(shown)
            at = places + shift - 0.19 + side * (number + 0.5)
            _bar_level(ax, at, level, null, side, named=method == "semi")
        low, high = np.array([_ends_over_nets(row) for _, row in table.iterrows()]).T
        if np.isfinite(low).any():
            ax.vlines(places + shift, low, high, color="white", lw=6, zorder=2.9)
            ax.vlines(
                places + shift, low, high, color="black", alpha=0.45, lw=4, zorder=3,
                label="95% interval over nets" if method == "semi" else "",
            )  # fmt: skip
        ax.errorbar(
            places + shift, center, spread, fmt="none", ecolor="black", elinewidth=1, capsize=3,
            zorder=3.5,
        )  # fmt: skip
        jitter = np.linspace(-0.12, 0.12, table.shape[1]) if table.shape[1] > 1 else [0]
        for pair, offset in zip(table.columns, jitter, strict=True):
            ax.plot(
                places + shift + offset, table[pair], ".", color="black", ms=2.5, alpha=0.6,
                zorder=3.2,
            )  # fmt: skip
        ceiling = column(level, "ceiling")
        if np.isfinite(ceiling).any():
            ax.hlines(
                ceiling, places + shift - 0.19, places + shift + 0.19, color="black", lw=1, ls=":",
                label="ceiling" if method == "semi" else "",
            )  # fmt: skip
    name_places(ax, _names(tables["semi"]))
    ax.set(ylim=(min(0, ax.get_ylim()[0]), 1), ylabel="mean correlation of matched units")
    ax.set_title(f"{over}: mean, standard deviation, each pair a dot")
    figure.legend(*chance_last(ax), loc="outside lower center", ncols=3)
    return figure


def _levels(table: pd.DataFrame | None, statistic: str, layers: Sequence[str]) -> pd.DataFrame:
    """Average the chance levels and the ceiling of a statistic over pairs, one row a layer."""
    if table is None:
        return pd.DataFrame(index=list(layers))
    rows = statistic_rows(table, statistic)
    averaged = [f"null_{null}{end}" for null in CHANCE for end in ("", "_high")] + ["ceiling"]
    values = pd.DataFrame({name: column(rows, name) for name in averaged})
    return values.groupby(rows["layer"].to_numpy()).mean().reindex(list(layers))


def _ends_over_nets(values: pd.Series) -> tuple[float, float]:
    """Return the ends of the interval over nets of the mean over pairs; NaN if there is none."""
    found = over_nets({tuple(pair.split("-")): value for pair, value in values.items()})
    return (found.interval.low, found.interval.high) if found.interval else (np.nan, np.nan)


def _bar_level(
    ax: Axes, places: NDArray, level: pd.DataFrame, null: str, side: float, *, named: bool
) -> None:
    """Mark the levels of one null on bars: a marker, and a stalk up to the upper level."""
    label, color, marker, _ = CHANCE[null]
    mean, high = column(level, f"null_{null}"), column(level, f"null_{null}_high")
    ax.vlines(places, mean, high, color=color, lw=2, zorder=4)
    ax.plot(
        places, mean, ls="", marker=marker, ms=4, color=color, mec="white", mew=0.5, zorder=4.1,
        label=f"chance: {label}" if named else None,
    )  # fmt: skip


def _differ(table: pd.DataFrame) -> bool:
    """Tell whether layers (rows) have different numbers of pairs (columns)."""
    return len(set(table.notna().sum(axis=1))) > 1


def _names(table: pd.DataFrame) -> list[str]:
    """Name the layers (rows), with the number of their pairs (columns) if it differs."""
    counts = table.notna().sum(axis=1)
    return [f"{layer}\nn = {n}" if _differ(table) else layer for layer, n in counts.items()]


def _lines_by_kind(
    tables: Mapping[str, pd.DataFrame],
    groups: Mapping[str, str],
    over: str,
    levels: Mapping[str, pd.DataFrame],
) -> Figure:
    """Draw the means of each kind of pair as a line, in a panel for each kind of matching.

    Kinds of pairs that have no layer in common, as those of other architectures, have a row of
    panels each.
    """
    kinds = tables["semi"].columns.map(lambda pair: kind_of_pair(pair, groups))
    colors = dict(zip(dict.fromkeys(kinds), itertools.cycle(NETS), strict=False))
    rows = _sharing(tables["semi"].T.groupby(kinds, sort=False).count().T > 0)
    if len(rows) < 2:  # Also layers that are dead everywhere have their places.
        rows = [(list(tables["semi"].index), list(colors))]
    figure = Figure(figsize=(PAGE[0], 1.4 + 3 * len(rows)))
    axes = figure.subplots(len(rows), 2, sharey=True, squeeze=False)
    for down, (layers, of_row) in enumerate(rows):
        places = np.arange(len(layers))
        for ax, (method, table) in zip(axes[down], tables.items(), strict=True):
            for number, kind in enumerate(of_row):
                of_kind = table.loc[layers, kinds == kind]
                center, spread = of_kind.mean(axis=1), of_kind.std(axis=1, ddof=0)
                shift = 0.08 * (number - (len(of_row) - 1) / 2)
                label = f"{kind} (n = {of_kind.shape[1]})"
                ax.errorbar(
                    places + shift, center, spread, fmt="o-", color=colors[kind], ms=4, capsize=3,
                    label=label,
                )  # fmt: skip
            level = levels[method].loc[layers]
            for null in kinds_of_chance(level):
                draw_chance(ax, level, null, places)
            name_places(ax, _names(table.loc[layers, kinds.isin(of_row)]))
            if not down:
                ax.set_title({"semi": "semi-matching", "matching": "matching"}[method])
        axes[down, 0].set_ylabel("mean correlation of matched units")
    axes[0, 0].set_ylim(min(0, axes[0, 0].get_ylim()[0]), 1)
    entries = chance_last(*axes[:, 1])
    figure.legend(*entries, loc="outside lower center", ncols=2, title="kind of pair")
    figure.suptitle(f"{over}: mean and standard deviation")
    return figure


def _sharing(has: pd.DataFrame) -> list[tuple[list[str], list[str]]]:
    """Part layers (rows) and kinds of pairs (columns) so that no two parts share any."""
    parts: list[tuple[list[str], list[str]]] = []
    for layer, row in has.iterrows():
        kinds = list(has.columns[row])
        joined = [part for part in parts if set(part[1]) & set(kinds)]
        parts = [part for part in parts if part not in joined]
        of_layer = [*(other for part in joined for other in part[0]), str(layer)]
        parts.append((of_layer, [*(k for part in joined for k in part[1]), *kinds]))
    return [
        ([layer for layer in has.index if layer in layers], list(dict.fromkeys(kinds)))
        for layers, kinds in parts
        if kinds
    ]


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
        Nets may have different layers; a net that lacks a layer has no line in its panel.
    layers : sequence of str
        Layers of any net, one panel each.
    markers : layers in which every unit has a marker; in others only the two ends have one
    """
    figure = Figure()
    axes, empty = grid(figure, len(layers), 0.88)
    for ax, layer in zip(axes, layers, strict=True):
        dead = []
        lacking = [net for net, by_layer in means.items() if layer not in by_layer]
        # A layer without a ReLU may have negative means, which a logarithmic axis cannot show.
        signed = any((of[layer] < 0).any() for of in means.values() if layer in of)
        for number, (net, by_layer) in enumerate(means.items()):
            if net in lacking:
                continue
            values = np.sort(by_layer[layer])[::-1]
            live = values[values != 0] if signed else values[values > 0]
            dead.append(len(values) - len(live))
            ax.plot(
                np.arange(len(live)), live, color=NETS[number % len(NETS)], lw=1, marker="o", ms=3,
                mfc="none", markevery=None if layer in markers else [0, -1], label=net,
            )  # fmt: skip
        if not signed:
            log_scale(ax)
        notes = [f"dead: {', '.join(map(str, dead))}"] if any(dead) else []
        notes += [f"in {len(means) - len(lacking)} of {len(means)} nets"] if lacking else []
        ax.set_title("\n".join(textwrap.wrap(layer, 24) + textwrap.wrap("; ".join(notes), 24)))
    handles = {line.get_label(): line for ax in axes for line in ax.get_lines()}
    named = [net for net in means if net in handles]
    lines = [handles[net] for net in named]
    draw_legend(figure, empty, lines, named, loc="outside upper center", ncols=6)
    figure.supxlabel("unit, from the most active to the least", fontsize=8)
    figure.supylabel("mean activation", fontsize=8)
    return figure


def draw_figS1(densities: Path, nets: Sequence[str]) -> Figure:
    """Draw figure S1 from a pair's joint densities."""
    counts, titles, labels = [], [], []
    for layer, rank, units, r, information, density in load_joint_densities(densities):
        counts.append(density)
        titles.append(f"{layer}, {rank} correlation\nr = {r:.3f}, I = {information:.2f} nats")
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
    figure = Figure(figsize=(PAGE[0], 2.7 * rows))
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


def _chance_curves(ax: Axes, chance: pd.DataFrame) -> None:
    """Draw rows of ``null_matches.csv`` of one layer as bands, with a line along their means."""
    lines = {"semi": "-", "matching": (0, (3, 1.5))}
    for (null, method), rows in chance.groupby(["null", "method"], sort=False):
        rows, color = rows.sort_values("rank"), CHANCE[null].color
        ax.fill_between(
            rows["rank"], rows["low"], rows["high"], color=color, alpha=0.25, lw=0, zorder=1,
            label="bands: range of draws",
        )  # fmt: skip
        label = f"chance: {CHANCE[null].label}" + ", matching" * (method == "matching")
        ax.plot(
            rows["rank"], rows["mean"], color=color, lw=1, ls=lines[method], label=label, zorder=1.5
        )


def _matched_points(ax: Axes, values: pd.DataFrame, size: float) -> None:
    ranks = np.arange(len(values))
    ax.plot(ranks, values["semi"], "o", color=SEMI, ms=7 * size, label="semi-matching")
    ax.plot(ranks, values["matching"], "o", color=MATCHING, ms=3.5 * size, label="matching")
    ax.set_ylim(min(0, values.min(axis=None)) - 0.02, 1.02)
