"""Style of all figures, and the function that saves them.

A colour has the same meaning everywhere: light green is semi-matching and dark green is matching,
as in the paper, and each net has a colour of its own.
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
# Palette of Okabe and Ito, which colour-blind readers can tell apart, too.
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
