"""Style of all figures, and the function that saves them.

A colour has the same meaning everywhere: light green is semi-matching and dark green is matching,
as in the paper, and each net has a colour of its own.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import LogLocator, NullFormatter

from convergent.figures.sheets import PICTURE
from convergent.running.files import writing

SEMI, MATCHING = "#7fd07f", "#116611"
# Palette of Okabe and Ito, which colour-blind readers can tell apart, too.
NETS = ("#0072b2", "#e69f00", "#cc79a7", "#009e73", "#56b4e9", "#d55e00", "#000000", "#f0e442")


class Chance(NamedTuple):
    """Look of a chance level: its name in legends, colour, marker and line."""

    label: str
    color: str
    marker: str
    line: str | tuple


# Muted, and told apart by lightness, marker and line as well.
CHANCE = {
    "rotation": Chance("units rotated", "#7a7ac2", "D", "-"),
    "images": Chance("images shuffled", "#a0a0a0", "v", "-"),
    "untrained": Chance("both nets untrained", "#8b3f5c", "s", (0, (5, 1.5))),
    "untrained_one": Chance("one net untrained", "#d38fa4", "^", (0, (2, 1))),
}
# Inches: width and height of a page. No figure is wider, so that none is scaled down in print, and
# all text is at least SMALL points.
PAGE = (6.5, 9.0)
SMALL = 7
# Letters of names beside each other that fit under an axis.
MOST_LETTERS = 70
# Letters to a line of a legend in the place of a panel.
LEGEND_LETTERS = 18
# Height of a letter of a slanted name, in inches.
SLANTED = 0.05
STYLE = {
    "figure.dpi": 200,
    "savefig.dpi": 200,
    "figure.constrained_layout.use": True,
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titlepad": 4,
    "figure.titlesize": 9,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "image.composite_image": False,
}
matplotlib.rcParams.update(STYLE)


def grid(figure: Figure, number: int, shape: float) -> tuple[list[Axes], Axes | None]:
    """Fill the width of a page with rows of three or four panels, with few places empty.

    Parameters
    ----------
    figure : Figure
    number : int
    shape : float
        Height of a panel over its width, titles and labels included.

    Returns
    -------
    axes : list of Axes
    empty : Axes or None
        The empty place behind the last panel, without an axis, for a legend. None if there is none.
    """
    columns = min(number, min((3, 4), key=lambda columns: -number % columns))
    rows = -(-number // columns)
    figure.set_size_inches(PAGE[0], rows * shape * PAGE[0] / columns + 0.8)
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for ax in axes[number:]:
        ax.axis("off")
    return axes[:number], axes[number] if axes[number:] else None


def draw_legend(
    figure: Figure, empty: Axes | None, handles: Sequence[Artist], labels: Sequence[str], **outside
) -> None:
    """Draw a legend in the empty place behind the panels, or else outside of all of them."""
    if empty is None:
        figure.legend(handles, labels, **outside)
    else:
        lines = [textwrap.fill(label, LEGEND_LETTERS) for label in labels]
        figure.legend(
            handles, lines, loc="center left", bbox_to_anchor=(0, 0.5),
            bbox_transform=empty.transAxes, borderaxespad=0,
        ).set_in_layout(False)  # fmt: skip


def name_places(ax: Axes, names: Sequence[str]) -> None:
    """Name the places 0, 1, ... of the horizontal axis, slanted if the names are long together."""
    ax.set_xticks(range(len(names)), names)
    if sum(map(len, names)) > MOST_LETTERS:
        ax.tick_params("x", rotation=40)
        place, figure = ax.get_subplotspec(), ax.get_figure(root=True)
        # The names take none of the height of the axes; axes side by side need it once.
        if place is not None and figure is not None and place.is_first_col():
            figure.set_figheight(figure.get_figheight() + SLANTED * max(map(len, names)))
        for label in ax.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")


def log_scale(ax: Axes) -> None:
    """Make the vertical axis logarithmic, with plain numbers; call it once everything is drawn.

    It stays as it is if what it shows has no finite ends, or is never above 0.
    """
    if not np.isfinite(ax.get_ylim()).all() or ax.get_ylim()[1] <= 0:
        return
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())


def carry_names(ax: Axes, above: Axes, names: Sequence[str], size: float) -> None:
    """Let an empty place of a grid carry the names of the horizontal axis of the panel above it."""
    ax.set(xlim=above.get_xlim(), ylim=above.get_ylim(), aspect=above.get_aspect(), yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_xticks(above.get_xticks(), names, rotation=90, fontsize=size)
    ax.tick_params("x", top=False, bottom=False, labeltop=True, labelbottom=False, pad=0)


def save(figure: Figure, *paths: str | Path) -> None:
    """Save a figure to each path, in the format of its suffix, with the same bytes each time.

    A PDF holds the pictures of units at their own resolution. It must be the last path, since this
    changes the figure.
    """
    for path in paths:
        metadata = {}
        if Path(path).suffix == ".pdf":
            metadata = {"CreationDate": None}
            for image in figure.findobj():
                if isinstance(image, AxesImage) and image.get_gid() == PICTURE:
                    image.set_interpolation("none")
        with writing(path) as scratch:
            figure.savefig(scratch, metadata=metadata)
        # The layout holds for the other formats, too; it takes longer than all the rest.
        figure.set_layout_engine("none")
