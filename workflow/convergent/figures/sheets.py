"""Pictures of units, read from ``units/<net>.zarr`` and placed in figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import zarr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from convergent.running.stores import open_store

# Mark of the images that a PDF holds at their own resolution (see `convergent.figures.style.save`).
PICTURE = "picture"
INCHES = 0.62
# Height in pixels below which pictures of a block are enlarged by a whole number.
SMALL = 16


def tile(group: zarr.Group, unit: int, kind: str = "patches") -> NDArray[np.uint8] | str:
    """Return the picture (height, width, channel) of a unit, or why there is none.

    Parameters
    ----------
    group : zarr.Group
        A layer of ``units/<net>.zarr``.
    unit : int
    kind : {"patches", "deconv", "filters"}
        Nine images in a block of three by three, or the filter of a unit of the first layer.
    """
    if kind == "filters":
        return group["filters"][unit]
    values = group["value"][unit]
    if not (values > 0).any():
        return "dead"
    if not group["pictured"][unit]:
        return "no picture"
    return block(group[kind][unit])


def tiles(
    nets: Sequence[str], stores: Sequence[str | Path]
) -> Callable[..., NDArray[np.uint8] | str]:
    """Return a function that gives the :func:`tile` of (net, layer, unit, kind).

    Parameters
    ----------
    nets : sequence of str
    stores : sequence of path
        Their ``units/<net>.zarr``.
    """
    groups = {net: open_store(path) for net, path in zip(nets, stores, strict=True)}
    return lambda net, layer, unit, kind="patches": tile(groups[net][layer], unit, kind)


def block(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Join nine pictures (9, height, width, channel) in a block of 3x3 with white between them.

    Pixels of small pictures are repeated, so that the space between stays narrow beside them.
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


class Sheet:
    """A figure on which pictures are placed, one tile a unit wide and high; y goes down."""

    def __init__(self, width: float, height: float, title: str, inches: float = INCHES):
        self.figure = Figure(figsize=(width * inches + 0.3, height * inches + 0.6))
        self.inches = inches
        self.ax = self.figure.subplots()
        self.ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
        self.ax.axis("off")
        self.figure.suptitle(title)

    def place(self, picture: NDArray[np.uint8] | str, x: float, y: float, size: float = 0.94):
        """Put a picture, or an empty tile that says why there is none."""
        place(self.ax, picture, x, y, size, pixels=size * self.inches * self.figure.dpi)

    def frame(self, x: float, y: float, width: float = 0.98, height: float = 0.98, **style):
        """Draw a box around what is placed from x and y on."""
        style = {"fill": False, "lw": 1.2, "ec": "black"} | style
        self.ax.add_patch(Rectangle((x - 0.02, y - 0.02), width, height, **style))

    def text(self, x: float, y: float, text: str, **style) -> None:
        """Write text, centred on (x, y)."""
        self.ax.text(x, y, text, **{"fontsize": 6.5, "va": "center", "ha": "center"} | style)


def place(
    ax: Axes,
    picture: NDArray[np.uint8] | str,
    x: float,
    y: float,
    size: float,
    pixels: float,
    zorder: float = 2,
) -> None:
    """Put a picture on axes, its upper left corner at (x, y); `pixels` is its side on paper."""
    if isinstance(picture, str):
        ax.add_patch(Rectangle((x, y), size, size, fc="#e8e8e8", ec="none", zorder=zorder))
        middle = (x + size / 2, y + size / 2)
        ax.text(*middle, picture, ha="center", va="center", fontsize=6, zorder=zorder)
        return
    rgb = np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture
    limits = ax.get_xlim(), ax.get_ylim()
    # Never blurred when enlarged; what is larger than its place is averaged in a PNG.
    way = "nearest" if len(rgb) <= pixels else "antialiased"
    ax.imshow(
        rgb, extent=(x, x + size, y + size, y), interpolation=way, gid=PICTURE, zorder=zorder,
        aspect=ax.get_aspect(),
    )  # fmt: skip
    # White patches end somewhere too.
    ax.add_patch(Rectangle((x, y), size, size, fill=False, ec="#b0b0b0", lw=0.3, zorder=zorder))
    ax.set(xlim=limits[0], ylim=limits[1])
