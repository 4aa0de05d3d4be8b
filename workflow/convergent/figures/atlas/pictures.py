"""Pictures of the atlas: sheets of what units see, and the whole images behind them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image

from convergent.figures.sheets import softened

if TYPE_CHECKING:
    from convergent.nets.datasets import Images

# Images as a net takes them, uint8 (image, y, x, channel), by their places in the data set.
Views = Callable[[NDArray[np.int64]], NDArray[np.uint8]]
# Pixels: side of a sheet, largest side of a picture, largest side that is stored without loss.
SHEET, LARGEST, EXACT = 1536, 128, 16
# Largest side of the tile of a unit, with all nine of its patches.
TILE = 64
# Pictures of a layer, by their place in its group of the store; sheets have "-" for "/".
KINDS = ("patches", "deconv", "weakest/patches", "weakest/deconv")


def write_sheets(folder: Path, layer: str, seen: zarr.Group) -> dict[str, Any] | None:
    """Write the pictures of a layer's units to sheets, nine per unit in a block of 3x3.

    There are sheets of `patches` and `deconv`, and the same of the weakest side where there is one.
    Deconvolutions are smoothed as in figures (:func:`convergent.figures.sheets.softened`).
    Sheets are named ``<layer>-<kind>-<number>.<suffix>`` and filled row by row with the units that
    have pictures. Small pictures are stored without loss (PNG); larger ones are shrunk to at most
    `LARGEST` pixels and compressed with loss (WebP).

    Returns
    -------
    dict or None
        The `side` of a picture in pixels, the number of `columns` and of `units` on a full sheet,
        the `suffix`, `exact`, which is true for pictures without loss, `undeconvolved`, the
        reason why there are no deconvolutions or None, and of sheets of small pictures, `tiles`,
        the same numbers and the `kind`; in a first layer also `filters`. None if there are no
        pictures.
    """
    units = np.flatnonzero(seen["pictured"][...])
    if not len(units):
        return None
    exact = seen["patches"].shape[2] <= EXACT
    side = min(seen["patches"].shape[2], LARGEST)
    form = _Form(folder, layer, *(("png", {}) if exact else ("webp", {"quality": _quality(side)})))
    columns, capacity = form.write("patches", side, units, seen)
    kinds = [kind for kind in KINDS[1:] if kind in seen]
    for kind in kinds:
        form.write(kind, side, units, seen)
    tile = min(side, TILE // 3)
    tiles = {"side": side, "columns": columns, "units": capacity, "kind": "patches"}
    # Sheets of tiles that are hardly smaller would only be two copies of the same.
    if 2 * tile <= side:
        fits = form.write("patches", tile, units, seen, name="tiles")
        tiles = {"side": tile, "columns": fits[0], "units": fits[1], "kind": "tiles"}
    described = {"side": side, "columns": columns, "units": capacity, "suffix": form.suffix}
    described |= {"exact": exact, "undeconvolved": seen.attrs.get("undeconvolved"), "tiles": tiles}
    if "filters" in seen:
        described["filters"] = write_filters(form, seen["filters"].oindex[units])
    return described


def write_filters(form: _Form, filters: NDArray[np.uint8]) -> dict[str, int]:
    """Write the filters (unit, height, width, channel) of a first layer to one sheet.

    Returns
    -------
    dict
        The `side` of a filter, the number of `columns` and of `units` on the sheet.
    """
    side = filters.shape[1]
    columns = math.ceil(math.sqrt(len(filters)))
    page = Image.fromarray(sheet(filters[:, None], columns))
    page.save(form.folder / f"{form.layer}-filters-0.png")
    return {"side": side, "columns": columns, "units": columns**2}


class _Form(NamedTuple):
    """Where the sheets of a layer are written, and how they are compressed."""

    folder: Path
    layer: str
    suffix: str
    options: dict[str, Any]

    def write(
        self, kind: str, side: int, units: NDArray[np.intp], seen: zarr.Group, name: str = ""
    ) -> tuple[int, int]:
        """Write sheets of a kind; return the columns, and the units, of a full one."""
        columns = min(max(1, SHEET // (3 * side)), math.ceil(math.sqrt(len(units))))
        self.folder.mkdir(parents=True, exist_ok=True)
        for number, start in enumerate(range(0, len(units), columns**2)):
            chosen = units[start : start + columns**2]
            blocks = seen[kind].oindex[chosen]
            if kind.endswith("deconv"):
                blocks = np.stack([softened(block) for block in blocks])
            blocks = shrunk(blocks, side)
            file = f"{self.layer}-{name or kind.replace('/', '-')}-{number}.{self.suffix}"
            Image.fromarray(sheet(blocks, columns)).save(self.folder / file, **self.options)
        return columns, columns**2


def write_images(
    folder: Path,
    number: int,
    places: NDArray[np.int32],
    views: Views,
) -> dict[str, int]:
    """Write whole images to sheets ``whole-<number>-<n>.webp``, row by row.

    Parameters
    ----------
    folder : path
    number : int
        Number of the way in which nets see them.
    places : ndarray of shape (image,), int32
        Their places in the data set.
    views : callable
        Images, uint8 (image, y, x, channel), by their places.

    Returns
    -------
    dict
        The `side` of an image in pixels, the `view`, the side in which the nets see it, and the
        number of `columns` and of `images` on a full sheet.
    """
    if not len(places):
        return {"side": 0, "view": 0, "columns": 0, "images": 0}
    view = views(places[:1].astype(np.int64)).shape[1]
    side = min(view, LARGEST)
    columns = min(SHEET // side, math.ceil(math.sqrt(len(places))))
    folder.mkdir(parents=True, exist_ok=True)
    for n, start in enumerate(range(0, len(places), columns**2)):
        pictures = views(places[start : start + columns**2].astype(np.int64))
        page = sheet(shrunk(pictures[:, None], side), columns)
        # Small images are stored without loss, by the same format.
        options = {"lossless": True} if view <= EXACT * 2 else {"quality": _quality(side)}
        Image.fromarray(page).convert("RGB").save(folder / f"whole-{number}-{n}.webp", **options)
    return {"side": side, "view": view, "columns": columns, "images": columns**2}


def views_of_nets(
    files: Mapping[str, str],
    data: Mapping[str, Mapping[str, Any]],
    number: int | None,
    seed: int,
) -> dict[str, Views]:
    """Return functions from places of recorded images to the images as each net takes them.

    Parameters
    ----------
    files : mapping
        Argument of :func:`convergent.nets.datasets.recorded`.
    data : mapping of net to mapping
        Section ``data`` of each net. Nets with the same one share a function.
    number : int or None
        Images that were recorded; None for all.
    seed : int
    """
    from convergent.nets.datasets import recorded

    found: dict[str, Views] = {}
    for net, options in data.items():
        twin = next((other for other in found if data[other] == options), None)
        if twin is None:
            images, index, _ = recorded(files, options, number=number, seed=seed)
            found[net] = _by_place(images, index)
        else:
            found[net] = found[twin]
    return found


def _by_place(images: Images, index: NDArray[np.int64]) -> Views:
    order = np.argsort(index)

    def views(places: NDArray[np.int64]) -> NDArray[np.uint8]:
        rows = order[np.searchsorted(index, places, sorter=order)]
        return images.__getitems__(rows.tolist())[0].permute(0, 2, 3, 1).numpy()

    return views


def sheet(blocks: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Lay out pictures (unit, 9 or 1, side, side, channel) on a black sheet (height, width[, 3]).

    Each row has `columns` units; the nine pictures of a unit form a block of 3x3.
    """
    units, pictures, side, _, channels = blocks.shape
    rows, block = -(-units // columns), math.isqrt(pictures)
    page = np.zeros((rows * columns, pictures, side, side, channels), np.uint8)
    page[:units] = blocks
    page = page.reshape(rows, columns, block, block, side, side, channels)
    page = page.transpose(0, 2, 4, 1, 3, 5, 6)
    page = page.reshape(rows * block * side, columns * block * side, channels)
    return page[:, :, 0] if channels == 1 else page


def shrunk(pictures: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Shrink pictures (unit, 9, height, width, channel) that are larger than `side`."""
    if pictures.shape[2] <= side:
        return pictures
    *places, _, _, channels = pictures.shape
    small = np.empty((*places, side, side, channels), np.uint8)
    for place in np.ndindex(*places):
        pixels = pictures[place][:, :, 0] if channels == 1 else pictures[place]
        picture = Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS)
        small[place] = np.reshape(picture, (side, side, channels))
    return small


def _quality(side: int) -> int:
    return 85 if side < LARGEST else 80
