"""The look of every figure, and how a figure is written.

A colour means the same everywhere: light green is semi-matching, dark green is matching, as in the
paper, and each net keeps its own.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from convergent.figures.sheets import PICTURE
from convergent.running.stores import writing

matplotlib.use("agg")

SEMI, MATCHING = "#7fd07f", "#116611"
# Okabe and Ito's colours, told apart by the colour-blind too.
NETS = ("#0072b2", "#e69f00", "#cc79a7", "#009e73", "#56b4e9", "#d55e00", "#000000", "#f0e442")
STYLE = {
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "image.composite_image": False,
}
matplotlib.rcParams.update(STYLE)


def save(figure: Figure, *paths: str | Path) -> None:
    """Write a figure to each path, in the format of its suffix, with the same bytes each time.

    A PDF, which should come last, holds pictures of units at their own resolution.
    """
    for path in paths:
        metadata = {}
        if Path(path).suffix == ".pdf":
            metadata = {"CreationDate": None}
            for image in figure.findobj(
                lambda a: isinstance(a, AxesImage) and a.get_gid() == PICTURE
            ):
                image.set_interpolation("none")
        with writing(path) as scratch:
            figure.savefig(scratch, metadata=metadata)
