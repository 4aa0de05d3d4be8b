"""What units see: the images that excite them most, the patches and deconvolutions of these."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import dask
import numpy as np
import zarr
from numpy.typing import NDArray

from convergent.moments import HALF
from convergent.stores import StoreError, create, new_store, open_store, read, save

if TYPE_CHECKING:
    import torch

    from convergent.datasets import Images
    from convergent.receptive_fields import ReceptiveField

# Images shown of each unit, as in the paper.
IMAGES = 9
# What lies outside an image or a receptive field, and no signal in a deconvolution or filter.
GREY = 128
# Bytes of activations that are read at a time.
LEAF_BYTES = 24 * 2**20
# Images whose peaks are compared at first.
FIRST = 32
# Images deconvolved at once.
BATCH = 72

log = logging.getLogger(__name__)


class Top(NamedTuple):
    """Largest activations of each unit, at most one from each image, in falling order.

    Of equal ones that of the earlier image comes first; where an image has its largest value at
    several positions, the first of them counts. Places that too few images leave free have
    value NaN and image, y and x -1.

    Attributes
    ----------
    value : ndarray of shape (unit, rank), float32
    image, y, x : ndarray of shape (unit, rank), int64
        Row of the image in the store, and the position in the map; 0 in fully connected layers.
    """

    value: NDArray[np.float32]
    image: NDArray[np.int64]
    y: NDArray[np.int64]
    x: NDArray[np.int64]


def top_images(array: zarr.Array, number: int = IMAGES, *, threads: int = 1) -> Top:
    """Images that excite the units of a layer most, in one streaming pass.

    Memory does not grow with the images, and the result does not depend on `threads`.

    Parameters
    ----------
    array : zarr.Array of shape (image, y, x, unit) or (image, unit)
        A layer of an activation store.
    number : int
        Images of each unit.
    threads : int
        Runs of images reduced at once, as Dask tasks.

    Raises
    ------
    StoreError
        If activations cannot be read or are not finite.
    """
    images = array.shape[0]
    step = max(1, LEAF_BYTES * images // (array.nbytes * array.chunks[0])) * array.chunks[0]
    starts = np.array_split(np.arange(0, images, step), threads)
    runs = [dask.delayed(_best_of_run)(array, run, step, number) for run in starts if len(run)]
    found = dask.compute(*runs, scheduler="threads", num_workers=threads)
    value, image, position = (np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
    order = np.argsort(-value, axis=1, kind="stable")[:, :number]
    value, image, position = (
        np.take_along_axis(part, order, axis=1) for part in (value, image, position)
    )
    y, x = np.divmod(position, array.shape[2] if array.ndim == 4 else 1)
    y[image < 0] = x[image < 0] = -1
    value[image < 0] = np.nan
    return Top(value, image, y, x)


def write_units(
    store: str | Path,
    layers: Sequence[str],
    activations: str | Path,
    net: torch.nn.Module,
    images: Images,
    image_index: NDArray[np.integer],
    data: Mapping,
    *,
    pictures: Mapping[str, Sequence[int] | None],
    threads: int = 1,
    device: str = "cpu",
) -> None:
    """What the units of a net see: ``units/<net>.zarr``.

    Per layer a group with `value`, `image` (in the data set), `y` and `x` (unit, 9) of
    :func:`top_images`; `receptive_field` (size, stride, offset); and of the units in `pictures`,
    uint8, `patches` and `deconv` (unit, 9, height, width, channel): the receptive field in the
    image as the net saw it, grey outside, and its deconvolution, grey where nothing is passed
    back and scaled by its largest value. `pictured` tells which units have them. The first
    convolution's group has its `filters` (unit, height, width, channel) too.

    Parameters
    ----------
    layers : sequence of str
    activations : path
        Store of the net.
    net : nn.Module
        The net; moved to `device`.
    images : Images
        Those that were recorded, in the order of the store.
    image_index : ndarray of shape (image,)
        Their places in the data set.
    data : mapping
        ``mean`` and ``std`` of the channels.
    pictures : mapping of layer to sequence of int, or None for all units
        Units that get patches and deconvolutions; none in layers that are left out.
    threads : int
        Runs of images reduced at once.
    device : str

    Raises
    ------
    FieldError, FunctionalReluError
        If the net has parts that its receptive fields or deconvolutions cannot be told for.
    ValueError
        If `images` are not those that were recorded.
    """
    import torch

    from convergent.datasets import normalize
    from convergent.deconvolution import check_relus
    from convergent.receptive_fields import receptive_fields

    source = open_store(activations)
    index = source["image_index"][...]
    if not np.array_equal(image_index, index) or len(images) != len(index):
        raise ValueError(f"{activations}: other images were recorded than the {len(images)} given")
    torch.backends.cudnn.allow_tf32 = False  # as in recording
    net = net.to(device).eval()
    example = normalize(images.__getitems__([0])[0].to(device), data["mean"], data["std"])
    check_relus(net, example)
    fields = receptive_fields(net, layers, example)
    with new_store(store) as target:
        for layer in layers:
            top = top_images(source[layer], threads=threads)
            group = target.create_group(layer)
            for name, values in top._asdict().items():
                if name == "image":
                    values = np.where(values >= 0, index[values], -1)
                save(group, name, values, ("unit", "rank"))
            save(group, "receptive_field", np.array(fields[layer]), ("size_stride_offset",))
            chosen = pictures.get(layer, ())
            pictured = np.zeros(len(top.value), bool)
            pictured[slice(None) if chosen is None else list(chosen)] = True
            save(group, "pictured", pictured, ("unit",))
            _write_pictures(group, layer, top, pictured, fields[layer], net, images, data, device)
            log.info("%s: %d units, %d with pictures", layer, len(pictured), pictured.sum())
        weights = _first_filters(net, fields[layers[0]])
        if weights is not None:
            names = ("unit", "height", "width", "channel")
            save(target[layers[0]], "filters", _eight_bit(weights), names)


def cut(picture: NDArray[np.uint8], field: ReceptiveField, y: int, x: int) -> NDArray[np.uint8]:
    """What the unit at (y, x) sees of a picture (height, width, channel), grey outside.

    The receptive field, or where it is larger than the picture all of it.
    """
    sides = picture.shape[:2]
    (top, bottom), (left, right) = (field.window(p, s) for p, s in zip((y, x), sides, strict=True))
    patch = np.full((bottom - top, right - left, picture.shape[2]), GREY, np.uint8)
    (i, j), (k, m) = (field.seen(p, s) for p, s in zip((y, x), sides, strict=True))
    patch[i - top : j - top, k - left : m - left] = picture[i:j, k:m]
    return patch


def _write_pictures(
    group: zarr.Group,
    layer: str,
    top: Top,
    pictured: NDArray[np.bool_],
    field: ReceptiveField,
    net: torch.nn.Module,
    images: Images,
    data: Mapping,
    device: str,
) -> None:
    """Patches and deconvolutions of the units of a layer that are asked for, shard by shard."""
    side, channels = min(field.size, images.size), images.channels
    shape = (*top.value.shape, side, side, channels)
    names = ("unit", "rank", "height", "width", "channel")
    arrays = [create(group, name, shape, np.uint8, names) for name in ("patches", "deconv")]
    step = arrays[0].shards[0]
    for start in range(0, len(pictured), step):
        units = start + np.flatnonzero(pictured[start : start + step])
        if not len(units):
            continue
        size = min(step, len(pictured) - start)
        pages = np.full((2, size, *shape[1:]), GREY, np.uint8)
        unit, rank = np.nonzero(top.value[units] > 0)  # nothing excites the others
        unit = units[unit]
        for first in range(0, len(unit), BATCH):
            u, r = unit[first : first + BATCH], rank[first : first + BATCH]
            row, y, x = (part[u, r] for part in (top.image, top.y, top.x))
            views, signals = _pictures(net, layer, images, data, row, u, y, x, device)
            for page, pictures in zip(pages, (views, signals), strict=True):
                for n in range(len(u)):
                    page[u[n] - start, r[n]] = cut(pictures[n], field, y[n], x[n])
        for array, page in zip(arrays, pages, strict=True):
            array[start : start + size] = page


def _pictures(
    net: torch.nn.Module,
    layer: str,
    images: Images,
    data: Mapping,
    row: NDArray,
    unit: NDArray,
    y: NDArray,
    x: NDArray,
    device: str,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images as the net saw them and their deconvolutions, (image, y, x, channel)."""
    from convergent.datasets import normalize
    from convergent.deconvolution import deconvolve

    rows, places = np.unique(row, return_inverse=True)
    views = images.__getitems__(rows.tolist())[0]
    inputs = normalize(views[places].to(device), data["mean"], data["std"])
    signals = deconvolve(net, layer, inputs, unit, y, x).cpu().permute(0, 2, 3, 1).numpy()
    # On the scale of the pixels, as the patches are.
    return views[places].permute(0, 2, 3, 1).numpy(), _eight_bit(signals * np.asarray(data["std"]))


def _first_filters(net: torch.nn.Module, field: ReceptiveField) -> NDArray | None:
    """Filters (unit, height, width, channel) if the layer of this field is the first."""
    from torch import nn

    first = next((m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)), None)
    if not isinstance(first, nn.Conv2d) or (field.size, field.stride) != (
        first.kernel_size[0],
        first.stride[0],
    ):
        return None
    return first.weight.detach().cpu().permute(0, 2, 3, 1).numpy()


def _eight_bit(pictures: NDArray) -> NDArray[np.uint8]:
    """Grey for 0, black or white for the largest size in each picture."""
    largest = np.abs(pictures).max(axis=(1, 2, 3), keepdims=True)
    scaled = np.divide(pictures, largest, out=np.zeros_like(pictures), where=largest > 0)
    return np.round(GREY + 127 * scaled).astype(np.uint8)


def _best_of_run(
    array: zarr.Array, starts: NDArray[np.integer], step: int, number: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Values, rows and flat positions (unit, rank) of a run of images, in falling order."""
    units = array.shape[-1]
    values = np.full((units, number), -np.inf, np.float32)
    rows, positions = np.full((2, units, number), -1)
    seen = 0
    for start in starts.tolist():
        block = read(array, start, min(start + step, array.shape[0]))
        peaks = _peaks(block)
        block = block.reshape(len(block), -1, units)
        first = 0
        while first < len(block):
            # The more images were seen the fewer enter: about as many each time.
            last = first + max(FIRST, seen)
            row, unit, value = _entrants(peaks[first:last], values[:, -1])
            if not np.isfinite(value).all():
                stop = start + len(block)
                raise StoreError(f"{array.store_path}: images {start} to {stop}: NaN or infinity")
            row += first
            hit, begin, count = np.unique(unit, return_index=True, return_counts=True)
            # What stands comes first, so that of equals the earlier image does.
            width = number + count.max(initial=0)
            line = np.repeat(np.arange(len(hit)), count)
            slot = number + np.arange(len(unit)) - np.repeat(begin, count)
            candidates = np.full((len(hit), width), -np.inf, np.float32)
            candidates[:, :number], candidates[line, slot] = values[hit], value
            order = np.argsort(-candidates, axis=1, kind="stable")[:, :number]
            values[hit] = np.take_along_axis(candidates, order, axis=1)
            line, rank = np.nonzero(order >= number)
            entered = begin[line] + order[line, rank] - number
            place = block[row[entered], :, unit[entered]].argmax(axis=1)
            for part, new in ((rows, start + row[entered]), (positions, place)):
                kept = np.take_along_axis(part[hit], np.minimum(order, number - 1), axis=1)
                kept[line, rank] = new
                part[hit] = kept
            seen += len(peaks[first:last])
            first = last
    return values, rows, positions


def _peaks(block: NDArray) -> NDArray:
    """Largest value of each image and unit of (image, y, x, unit) or (image, unit).

    Of float16 that are not negative as their bits, which are in the order of the values; else as
    float32.
    """
    if block.dtype == np.float16:
        peaks = _over_positions(block.view(np.uint16))
        if peaks.max() < 2**15:
            return peaks
        block = HALF[block.view(np.uint16)]
    return _over_positions(block).astype(np.float32)


def _over_positions(block: NDArray) -> NDArray:
    """Maximum over y, then x: rows that lie together in memory go fastest."""
    return block if block.ndim == 2 else block.max(axis=1).max(axis=1)


def _entrants(
    peaks: NDArray, floor: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Row, unit and value of the peaks (image, unit) above each unit's floor, by unit and row."""
    if peaks.dtype == np.uint16:
        above = peaks > np.maximum(floor, 0).astype(np.float16).view(np.uint16)
        above[:, floor < 0] = True
    else:
        above = ~(peaks <= floor)  # NaN as well
    row, unit = np.divmod(np.flatnonzero(above), peaks.shape[1])
    order = np.argsort(unit, kind="stable")
    row, unit = row[order], unit[order]
    value = peaks[row, unit]
    return row, unit, HALF[value] if value.dtype == np.uint16 else value
