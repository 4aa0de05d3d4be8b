"""Figures of nets along their training: similarity by epoch, and when units settle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from convergent.figures.style import CHANCE, MATCHING, NETS, PAGE, SEMI, SMALL
from convergent.inference.dynamics import ALL
from convergent.measures.registry import measure

# Measures that the figure shows, one block of panels each.
SHOWN = (("semi_mean", "correlation"), ("cka_unbiased", ""))
COMPARED = {
    "other": ("another net at that epoch", NETS[0]),
    "final": ("its own final state", NETS[1]),
}
CLASSES = {"well": ("matched well at the end", MATCHING), "badly": ("matched badly", SEMI)}
KEEPS = {"partner": ("keeps its partner", "-"), "itself": ("is most like itself", ":")}
COLUMNS = 4


def tabulate(table: Path) -> pd.DataFrame:
    """Read a table that a job made."""
    return pd.read_csv(table)


def draw_dynamics(table: pd.DataFrame) -> Figure:
    """Draw how alike layers are along training, to other nets and to their final states.

    Parameters
    ----------
    table : DataFrame
        Result of :func:`convergent.inference.dynamics.dynamics_table`.
    """
    table = table[table["net_a"] == ALL].fillna({"parameter": ""})
    layers = list(dict.fromkeys(table["layer"]))
    rows = -(-(len(layers) + 1) // COLUMNS)
    figure = Figure(figsize=(PAGE[0], 2 + 1.4 * rows * len(SHOWN)))
    blocks = figure.subfigures(len(SHOWN), 1, squeeze=False)[:, 0]
    for block, (name, parameter) in zip(blocks, SHOWN, strict=True):
        of_measure = table[(table["measure"] == name) & (table["parameter"] == parameter)]
        axes = block.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
        for ax, layer in zip(_panels(axes, len(layers) + 1), [*layers, None], strict=False):
            if layer is None:
                _draw_accuracy(ax, of_measure)
                continue
            _draw_course(ax, of_measure[of_measure["layer"] == layer])
            ax.set_title(layer, loc="left")
        axes[0, 0].set(ylim=(min(0, of_measure["low"].min()), 1.03))
        label = measure(name).label
        block.supylabel(f"{label}\n({parameter})" if parameter else label, fontsize=9)
        scale_epochs(axes[0, 0], of_measure["epoch"].unique())
    handles, labels = blocks[0].axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=SMALL)
    blocks[-1].supxlabel("epoch", fontsize=9)
    return figure


def draw_settling(table: pd.DataFrame) -> Figure:
    """Draw the share of units that have settled, by epoch.

    Parameters
    ----------
    table : DataFrame
        The shares of :func:`convergent.inference.settling.settling`. Of several pairs of nets their
        mean is drawn.
    """
    layers = list(dict.fromkeys(table["layer"]))
    rows = -(-len(layers) // COLUMNS)
    figure = Figure(figsize=(PAGE[0], 1.2 + 2 * rows))
    axes = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
    for ax, layer in zip(_panels(axes, len(layers)), layers, strict=True):
        of_layer = table[table["layer"] == layer]
        counts = []
        for matched, (label, color) in CLASSES.items():
            of_class = of_layer[of_layer["matched"] == matched]
            for keeps, (what, line) in KEEPS.items():
                course = _mean(of_class[of_class["keeps"] == keeps], ["share", "low", "high"])
                name = f"{label}: {what}"
                ax.plot(
                    course.index, course["share"], line, color=color, marker=".", ms=4, label=name
                )
                if keeps == "partner":
                    ax.fill_between(
                        course.index, course["low"], course["high"], color=color, alpha=0.25, lw=0
                    )
            counts.append(int(of_class.groupby(["net_a", "net_b"])["n_units"].first().sum()))
        null = _mean(
            of_layer[(of_layer["matched"] == "all") & (of_layer["keeps"] == "partner")],
            ["null_shuffled"],
        )
        ax.plot(
            null.index, null["null_shuffled"], "--", color="gray", lw=1, label="partners exchanged"
        )
        ax.set_title(f"{layer}\n({counts[0]} well, {counts[1]} badly)", loc="left", fontsize=SMALL)
    axes[0, 0].set(ylim=(0, 1.04))
    scale_epochs(axes[0, 0], table["epoch"].unique())
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=SMALL)
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel("share of units that have settled", fontsize=9)
    return figure


def scale_epochs(ax: Axes, epochs: Sequence[float]) -> None:
    """Scale the axis of epochs: from 0 to the first epoch linearly, then by powers."""
    later = sorted(epoch for epoch in epochs if epoch > 0)
    ax.set_xscale("symlog", linthresh=later[0], linscale=0.5)
    last, shown = later[-1], [0.0, later[0]]
    shown += [tick for tick in (0.1, 1, 10, 100) if 2.5 * later[0] < tick < 0.5 * last]
    if last > 2 * later[0]:
        shown.append(last)
    ax.set_xticks(shown, [f"{tick:g}" for tick in shown], minor=False)
    ax.set_xticks([], minor=True)
    ax.set_xlim(-0.05 * later[0], last * 1.1)


def _panels(axes: np.ndarray, number: int) -> Iterator[Axes]:
    """Yield the first panels of a grid, and hide the others."""
    for place, ax in enumerate(axes.flat):
        ax.set_visible(place < number)
        if place < number:
            # The last panel of each column carries the epochs.
            ax.tick_params("x", labelbottom=place + axes.shape[1] >= number, labelsize=7)
            yield ax


def _draw_course(ax: Axes, rows: pd.DataFrame) -> None:
    for compared, (label, color) in COMPARED.items():
        course = rows[rows["compared"] == compared].set_index("epoch").sort_index()
        ax.plot(course.index, course["value"], color=color, marker=".", ms=4, label=label)
        # Over nets, where there are enough of them.
        low, high = (course[f"{end}_nets"].fillna(course[end]) for end in ("low", "high"))
        ax.fill_between(course.index, low, high, color=color, alpha=0.25, lw=0)
        if course["null_rotation"].notna().any():
            look = CHANCE["rotation"]
            ax.plot(
                course.index, course["null_rotation"], "--", color=color, lw=1,
                label=f"{label}, {look.label}",
            )  # fmt: skip


def _draw_accuracy(ax: Axes, table: pd.DataFrame) -> None:
    course = table[table["compared"] == "other"].groupby("epoch")["top1"].mean()
    ax.plot(course.index, course, color="black", marker=".", ms=4)
    ax.set_title("top-1 accuracy", loc="left")


def _mean(rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Average over pairs of nets, by epoch."""
    return rows.groupby("epoch")[columns].mean()
