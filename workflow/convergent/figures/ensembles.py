"""Table and figure of ensembles: accuracy by size, by similarity, and of those chosen by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from convergent.figures.style import NETS, PAGE, SMALL, draw_legend, name_places

SCORES = ["similarity", "loss", "top1", "members_loss", "members_top1", "disagreement"]
# Ensembles of a size: their mean, and those whose members are most and least alike on the half of
# the images that they are not scored on.
CHOICES = {"mean": "mean of all", "least_alike": "least alike", "most_alike": "most alike"}
LOOKS = {"mean": ("black", "-"), "least_alike": (NETS[5], "--"), "most_alike": (NETS[0], ":")}


def tabulate_ensembles(ensembles: Path) -> pd.DataFrame:
    """Average ensembles over the halves of the images, and choose some by their similarity.

    Parameters
    ----------
    ensembles : path
        ``ensembles.csv`` of :func:`convergent.consequences.ensembles.ensembles`.

    Returns
    -------
    DataFrame
        Columns chosen, nets, size, layer, similarity, loss, top1, members_loss, members_top1,
        disagreement. `chosen` is ``each`` for every ensemble; ``mean`` for all of a size; and
        ``least_alike`` or ``most_alike`` for that whose members are so in `layer` on one half of
        the images, as scored on the other, the mean of both ways.
    """
    table = pd.read_csv(ensembles)
    each = table.groupby(["nets", "size", "layer"], sort=False)[SCORES].mean().reset_index()
    parts = [each.assign(chosen="each")]
    parts.append(
        table.groupby(["size", "layer"], sort=False)[SCORES]
        .mean()
        .reset_index()
        .assign(chosen="mean")
    )
    known = table[table["similarity"].notna()]
    groups = known.groupby(["size", "layer", "half"], sort=False)["similarity"]
    for name, rows in (("least_alike", groups.idxmin()), ("most_alike", groups.idxmax())):
        of_halves = known.loc[rows].groupby(["size", "layer"], sort=False)
        parts.append(of_halves[SCORES].mean().reset_index().assign(chosen=name))
    joined = pd.concat(parts, ignore_index=True)
    return joined[["chosen", "nets", "size", "layer", *SCORES]]


def draw_ensembles(table: pd.DataFrame) -> Figure:
    """Draw the accuracy of ensembles by size, by similarity of their members, and by choice.

    Parameters
    ----------
    table : DataFrame
        Result of :func:`tabulate_ensembles`.
    """
    layers = list(dict.fromkeys(table["layer"]))
    columns = 4
    rows = -(-len(layers) // columns)
    figure = Figure(figsize=(PAGE[0], 3 + 1.8 * rows))
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=[3, 1.8 * rows])[:, 0]
    by_size, by_choice = upper.subplots(1, 2, width_ratios=[1, 1.4])
    each = table[table["chosen"] == "each"]
    _draw_by_size(by_size, each[each["layer"] == layers[0]])
    _draw_by_choice(by_choice, table, layers)
    axes = lower.subplots(rows, columns, sharey=True, squeeze=False)
    sizes = sorted(size for size in each["size"].unique() if size > 1)
    for ax in axes.flat[len(layers) :]:
        ax.axis("off")
    for number, ax in enumerate(axes.flat[: len(layers)]):
        rows_of_layer = each[each["layer"] == layers[number]]
        for place, size in enumerate(sizes):
            shown = rows_of_layer[rows_of_layer["size"] == size].dropna(subset="similarity")
            if shown.empty:  # Not every two of the members were compared.
                continue
            ax.plot(
                shown["similarity"], shown["members_loss"] - shown["loss"], ls="",
                marker="os^Dv"[place % 5], ms=4, color=NETS[place % len(NETS)],
                label=f"{size} nets",
            )  # fmt: skip
        ax.set_title(layers[number], loc="left")
    lower.supxlabel("mean similarity of the members' units (semi-matching)", fontsize=9)
    lower.supylabel("gain in loss (nats)", fontsize=9)
    handles = {line.get_label(): line for ax in axes.flat for line in ax.get_lines()}
    empty = axes.flat[len(layers)] if len(layers) < axes.size else None
    draw_legend(
        figure, empty, list(handles.values()), list(handles), loc="outside lower center", ncols=5
    )
    return figure


def _draw_by_size(ax: Axes, each: pd.DataFrame) -> None:
    sizes = each.groupby("size")[["top1", "members_top1"]].mean()
    ax.plot(each["size"], 100 * each["top1"], "o", ms=4, color=NETS[4], label="each ensemble")
    ax.plot(sizes.index, 100 * sizes["top1"], "-", color="black", label="their mean")
    ax.plot(sizes.index, 100 * sizes["members_top1"], ":", color="black", label="mean of members")
    ax.set(xlabel="nets in the ensemble", ylabel="top-1 accuracy (%)", xticks=list(sizes.index))
    ax.set_title("accuracy by size", loc="left")
    ax.legend(fontsize=SMALL)


def _draw_by_choice(ax: Axes, table: pd.DataFrame, layers: list[str]) -> None:
    """Draw the loss of ensembles of two that were chosen by the similarity of each layer."""
    two = table[table["size"] == 2]
    for name, label in CHOICES.items():
        rows = two[two["chosen"] == name].set_index("layer").reindex(layers)
        color, line = LOOKS[name]
        ax.plot(np.arange(len(layers)), rows["loss"], color=color, ls=line, marker=".", label=label)
    name_places(ax, layers)
    ax.set(xlabel="layer that is compared", ylabel="loss (nats)")
    ax.set_title("two nets, chosen on other images", loc="left")
    ax.legend(fontsize=SMALL)
