"""Chance levels as figures draw them: numbers of tables, bands and lines by layer."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import Container
from numpy.typing import ArrayLike, NDArray

from convergent.figures.style import CHANCE


def column(table: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """Read a column of numbers; NaN where it is empty, and everywhere if it is not there."""
    if name not in table:
        return np.full(len(table), np.nan)
    return pd.to_numeric(table[name], errors="coerce").to_numpy(float)


def kinds_of_chance(table: pd.DataFrame) -> list[str]:
    """List the nulls for which a table has a value, in the order of :data:`CHANCE`."""
    return [null for null in CHANCE if np.isfinite(column(table, f"null_{null}")).any()]


def draw_chance(
    ax: Axes, table: pd.DataFrame, null: str, places: ArrayLike, *, size: float = 3
) -> None:
    """Draw a chance level by layer: its mean, and up to its upper level as a band if it has one.

    Parameters
    ----------
    ax : Axes
    table : DataFrame
        Columns ``null_<null>`` and ``null_<null>_high``, one row for each place.
    null : str
        Key of :data:`CHANCE`.
    places : array_like of shape (row,)
    size : float
        Size of the markers.
    """
    label, color, marker, line = CHANCE[null]
    mean, high = column(table, f"null_{null}"), column(table, f"null_{null}_high")
    if np.isfinite(high).any():
        ax.fill_between(
            places, mean, high, color=color, alpha=0.3, lw=0, zorder=1,
            label="shaded: up to the upper end of draws",
        )  # fmt: skip
    ax.plot(
        places, mean, color=color, marker=marker, ms=size, lw=1, ls=line, zorder=1.5,
        label=f"chance: {label}",
    )  # fmt: skip


def chance_last(*axes: Axes) -> tuple[list[Artist], list[str]]:
    """Collect the entries of a legend for panels: each label once, values first, then chance.

    What bands are comes last.

    Returns
    -------
    handles : list of Artist
    labels : list of str
    """
    entries: dict[str, Artist] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    names = [f"chance: {look.label}" for look in CHANCE.values()]

    def place(label: str) -> tuple[int, bool]:
        other = len(names) if label.startswith(("shaded:", "bands:")) else -1
        null = next((n for n, name in enumerate(names) if label.startswith(name)), other)
        return null, not isinstance(entries[label], Container)

    labels = sorted(entries, key=place)
    return [entries[label] for label in labels], labels
