"""What units see: the images that excite them most, the patches and deconvolutions of these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import zarr
from numpy.typing import NDArray

from convergent.activations.strongest import Top
from convergent.nets.marks import Marks, check_same_images
from convergent.running.progress import stage
from convergent.running.stores import create, new_store, open_store, save

if TYPE_CHECKING:
    import torch

    from convergent.nets.datasets import Images
    from convergent.units.receptive_fields import ReceptiveField

# What lies outside an image or a receptive field, and no signal in a deconvolution or filter.
GREY = 128
# Images deconvolved at once.
BATCH = 72


def write_units(
    store: str | Path,
    layers: Sequence[str],
    statistics: str | Path,
    net: torch.nn.Module,
    images: Images,
    image_index: NDArray[np.integer],
    data: Mapping,
    *,
    pictures: Mapping[str, Sequence[int] | None],
    device: str = "cpu",
) -> None:
    """What the units of a net see: ``units/<net>.zarr``.

    Per layer a group with `value`, `image`, `y` and `x` (unit, 9) of
    :class:`convergent.activations.strongest.Top`;
    `receptive_field` (size, stride, offset); and of the units in `pictures`,
    uint8, `patches` and `deconv` (unit, 9, height, width, channel): the receptive field in the
    image as the net saw it, grey outside, and its deconvolution, grey where nothing is passed
    back and scaled by its largest value. `pictured` tells which units have them. The first
    convolution's group has its `filters` (unit, height, width, channel) too.

    Parameters
    ----------
    layers : sequence of str
    statistics : path
        Of the net.
    net : nn.Module
        The net; given back as it was found.
    images : Images
        Those that were recorded, in order.
    image_index : ndarray of shape (image,)
        Their places in the data set.
    data : mapping
        ``mean`` and ``std`` of the channels.
    pictures : mapping of layer to sequence of int, or None for all units
        Units that get patches and deconvolutions; none in layers that are left out.
    device : str

    Raises
    ------
    FieldError, FunctionalReluError
        If the net has parts that its receptive fields or deconvolutions cannot be told for.
    StoreError
        If `images` are not those that were recorded.
    ValueError
        If `image_index` is not theirs.
    """
    from convergent.nets.datasets import normalize
    from convergent.nets.models import evaluating
    from convergent.running.devices import exact
    from convergent.units.deconvolution import check_relus
    from convergent.units.receptive_fields import receptive_fields

    source = open_store(statistics)
    index = source["image_index"][...]
    # Where a view is known, images came from a data set, and are marked as those given are.
    identities = images.identities if "view" in source else None
    given = Marks(np.asarray(image_index), identities)
    if len(images) != len(given.index):
        raise ValueError(f"{len(images)} images, where image_index names {len(given.index)}")
    check_same_images({statistics: source, "images": given})
    order = np.argsort(index)
    exact()  # as in recording
    with evaluating(net, device):
        example = normalize(images.__getitems__([0])[0].to(device), data["mean"], data["std"])
        check_relus(net, example)
        fields = receptive_fields(net, layers, example)
        tops = {layer: Top.load(source[f"{layer}/strongest"]) for layer in layers}
        pictured = {layer: np.zeros(len(top.value), bool) for layer, top in tops.items()}
        for layer, mask in pictured.items():
            chosen = pictures.get(layer, ())
            mask[slice(None) if chosen is None else list(chosen)] = True
        total = sum((top.value[pictured[layer]] > 0).sum() for layer, top in tops.items())
        with new_store(store) as target, stage(Path(store), "picture", total) as step:
            for layer, top in tops.items():
                group = target.create_group(layer)
                top.save(group)
                save(group, "receptive_field", np.array(fields[layer]), ("size_stride_offset",))
                save(group, "pictured", pictured[layer], ("unit",))
                rows = top._replace(image=order[np.searchsorted(index, top.image, sorter=order)])
                _write_pictures(
                    group,
                    layer,
                    rows,
                    pictured[layer],
                    fields[layer],
                    net,
                    images,
                    data,
                    device,
                    step,
                )
            for layer in layers:
                weights = _first_filters(net, fields[layer])
                if weights is not None:
                    names = ("unit", "height", "width", "channel")
                    save(target[layer], "filters", _eight_bit(weights), names)
                    break


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
    step: Callable[[float], None],
) -> None:
    """Patches and deconvolutions of the units of a layer that are asked for, shard by shard."""
    side, channels = min(field.size, images.size), images.channels
    shape = (*top.value.shape, side, side, channels)
    names = ("unit", "rank", "height", "width", "channel")
    arrays = [create(group, name, shape, np.uint8, names) for name in ("patches", "deconv")]
    shard = arrays[0].shards[0]
    for start in range(0, len(pictured), shard):
        units = start + np.flatnonzero(pictured[start : start + shard])
        if not len(units):
            continue
        size = min(shard, len(pictured) - start)
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
            step(len(u))
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
    from convergent.nets.datasets import normalize
    from convergent.units.deconvolution import deconvolve

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
