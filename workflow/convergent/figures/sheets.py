"""Pictures of units, read from ``units/<net>.zarr`` and placed in figures."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from convergent.running.stores import open_store

# Group id of images stored in a PDF at their own resolution (see `convergent.figures.style.save`).
PICTURE = "picture"
# Inches: width and height that a page has for tiles, the largest side of a tile, and the least to
# which a sheet is made to fit the height of a page.
WIDTH, HEIGHT, INCHES, LEAST = 6.5, 8.6, 0.62, 0.4
# Height in pixels to which `block` enlarges smaller pictures, by a whole number.
SMALL = 16


def tile(
    group: zarr.Group, unit: int, kind: str = "patches", side: str = "strongest"
) -> NDArray[np.uint8] | str:
    """Return the picture (height, width, channel) of a unit, or the reason why there is none.

    Parameters
    ----------
    group : zarr.Group
        A layer of ``units/<net>.zarr``.
    unit : int
    kind : {"patches", "deconv", "filters"}
        Block of nine patches or deconvolutions, or the filter of a unit of the first layer.
    side : {"strongest", "weakest"}
        Images with the largest activations, or the most negative.
    """
    if kind == "filters":
        return group["filters"][unit]
    both = "weakest" in group
    positive = (group["value"][unit] > 0).any()
    negative = both and (group["weakest/value"][unit] < 0).any()
    if not (positive or negative):
        return "dead"
    if not (negative if side == "weakest" else positive):
        return "never negative" if side == "weakest" else "never positive"
    if not group["pictured"][unit]:
        return "no picture"
    if kind == "deconv" and "undeconvolved" in group.attrs:
        return f"no deconvolution: {group.attrs['undeconvolved']}"
    pictures = (group["weakest"] if side == "weakest" else group)[kind][unit]
    return block(softened(pictures) if kind == "deconv" else pictures)


def tiles(
    nets: Sequence[str], stores: Sequence[str | Path], side: str = "strongest"
) -> Callable[..., NDArray[np.uint8] | str]:
    """Make a function of (net, layer, unit, kind) that returns a :func:`tile`.

    Parameters
    ----------
    nets : sequence of str
    stores : sequence of path
        Paths of ``units/<net>.zarr``, in the order of `nets`.
    side : {"strongest", "weakest"}
        See :func:`tile`.
    """
    groups = {net: open_store(path) for net, path in zip(nets, stores, strict=True)}
    return lambda net, layer, unit, kind="patches": tile(groups[net][layer], unit, kind, side)


def softened(deconvolutions: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Smooth deconvolutions (9, height, width, channel) for display, and stretch their contrast.

    What filters hold at the scale of single pixels has hardly any part in what a unit does where
    images are smooth, so that training leaves it as random as it began. In deep layers it hides the
    strokes that excite the unit. A Gaussian of one pixel takes it away (and of less in pictures of
    less than 16 pixels, whose pixels are what there is to see).
    """
    from scipy.ndimage import gaussian_filter

    from convergent.units.pictures import GREY, eight_bit

    width = min(1.0, deconvolutions.shape[1] / 16)
    signals = deconvolutions.astype(np.float32) - GREY
    smooth = gaussian_filter(signals, (0, width, width, 0), mode="constant")
    return eight_bit(smooth)


def block(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Arrange nine pictures (9, height, width, channel) in a block of 3x3 with white gaps.

    Small pictures are enlarged by repeating pixels, so that the gaps stay narrow beside them.
    """
    scale = -(-SMALL // pictures.shape[1])
    pictures = pictures.repeat(scale, axis=1).repeat(scale, axis=2)
    _, height, width, channels = pictures.shape
    gap = height // 9
    page = np.full((3 * height + 2 * gap, 3 * width + 2 * gap, channels), 255, np.uint8)
    for rank, picture in enumerate(pictures):
        y, x = (rank // 3) * (height + gap), (rank % 3) * (width + gap)
        page[y : y + height, x : x + width] = picture
    return page


def wrapped(reason: str, width: int = 16) -> list[str]:
    """Break a reason into lines that fit into a tile, at spaces or else at dots of a path."""
    if len(reason) <= width:
        return [reason]
    words = re.sub(r"([._])", r"\1\0", reason.replace(" ", " \0")).split("\0")
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1] + word.rstrip()) > width:
            lines.append("")
        lines[-1] += word
    return [line.rstrip() for line in lines]


class Sheet:
    """Figure on which pictures are placed. A tile has side 1, and y points down.

    Tiles are as large as a page allows; a sheet of many layers is longer than a page.
    """

    def __init__(self, width: float, height: float, title: str):
        self.inches = inches = min(INCHES, WIDTH / width, max(LEAST, HEIGHT / height))
        # About thirteen letters to an inch; a short sheet is still as wide as a readable title.
        across = max(width * inches, 4.0)
        lines = textwrap.wrap(title, int(13 * across))
        head = 0.17 * len(lines) + 0.08
        whole = height * inches + head
        self.figure = Figure(figsize=(across, whole))
        self.figure.set_layout_engine("none")
        share = width * inches / across
        self.ax = self.figure.add_axes(((1 - share) / 2, 0, share, height * inches / whole))
        self.ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
        self.ax.axis("off")
        self.figure.suptitle("\n".join(lines), y=1 - 0.05 / whole, va="top", fontsize=9)

    def place(self, picture: NDArray[np.uint8] | str, x: float, y: float, size: float = 0.94):
        """Place a picture, or a grey tile with the reason why there is none."""
        place(self.ax, picture, x, y, size, pixels=size * self.inches * self.figure.dpi)

    def frame(self, x: float, y: float, width: float = 0.96, height: float = 0.96, **style: Any):
        """Draw a box around the pictures whose upper left corner is at (x, y)."""
        options: dict[str, Any] = {"fill": False, "lw": 1.2, "ec": "black"}
        self.ax.add_patch(Rectangle((x - 0.01, y - 0.01), width, height, **options | style))

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Write text, centred on (x, y)."""
        options: dict[str, Any] = {"fontsize": 7, "va": "center", "ha": "center"}
        self.ax.text(x, y, text, **options | style)


def place(
    ax: Axes,
    picture: NDArray[np.uint8] | str,
    x: float,
    y: float,
    size: float,
    pixels: float,
    zorder: float = 2,
) -> None:
    """Place a picture on axes with its upper left corner at (x, y).

    `pixels` is the side of the picture in pixels of the figure.
    """
    if isinstance(picture, str):
        ax.add_patch(Rectangle((x, y), size, size, fc="#e8e8e8", ec="none", zorder=zorder))
        middle = (x + size / 2, y + size / 2)
        # As many lines of 7 points as a tile holds, with an ellipsis for what does not fit.
        inches = pixels / rcParams["figure.dpi"]
        lines, fit = wrapped(picture, max(4, int(inches / 0.058))), max(1, int(inches / 0.11))
        text = "\n".join(lines if len(lines) <= fit else [*lines[: fit - 1], "..."])
        ax.text(*middle, text, ha="center", va="center", fontsize=7, zorder=zorder)
        return
    rgb = np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture
    limits = ax.get_xlim(), ax.get_ylim()
    # Enlarged pictures stay sharp; in a PNG, pictures larger than their place are averaged.
    way = "nearest" if len(rgb) <= pixels else "antialiased"
    ax.imshow(
        rgb, extent=(x, x + size, y + size, y), interpolation=way, gid=PICTURE, zorder=zorder,
        aspect=ax.get_aspect(),
    )  # fmt: skip
    # The edges of white patches must be visible, too.
    ax.add_patch(Rectangle((x, y), size, size, fill=False, ec="#b0b0b0", lw=0.3, zorder=zorder))
    ax.set(xlim=limits[0], ylim=limits[1])
