"""Pictures of units: patches of the images that excite them most, and their deconvolutions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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

# Grey of pixels outside an image or a receptive field, and of zero in a deconvolution or filter.
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
    """Write the strongest images of a net's units and their pictures: ``units/<net>.zarr``.

    Each layer is a group with `value`, `image`, `y` and `x` (unit, 9) of
    :class:`convergent.activations.strongest.Top` and with `receptive_field` (size, stride,
    offset). The units in `pictures` also have, as uint8,
    `patches` and `deconv` (unit, 9, height, width, channel): the receptive field in the image as
    the net saw it, grey outside, and its deconvolution, grey where nothing is passed back and
    scaled by its largest value. `pictured` is True for these units. The group of the first
    convolution also has its `filters` (unit, height, width, channel).

    Parameters
    ----------
    layers : sequence of str
    statistics : path
        Store of the net's statistics.
    net : nn.Module
        The net; its mode and device are restored at the end.
    images : Images
        Images that were recorded, in their order.
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
        If receptive fields or deconvolutions cannot be computed for a part of the net.
    StoreError
        If `images` are not those that were recorded.
    ValueError
        If `images` and `image_index` have different lengths.
    """
    from convergent.nets.models import evaluating
    from convergent.running.devices import exact
    from convergent.units.deconvolution import check_relus
    from convergent.units.receptive_fields import receptive_fields

    source = open_store(statistics)
    index = source["image_index"][...]
    # A store with a view was recorded from a data set, whose images have identities.
    identities = images.identities if "view" in source else None
    given = Marks(np.asarray(image_index), identities)
    if len(images) != len(given.index):
        raise ValueError(f"{len(images)} images, but image_index has {len(given.index)} places")
    check_same_images({statistics: source, "images": given})
    order = np.argsort(index)
    exact()  # as in recording
    with evaluating(net, device):
        viewer = _Viewer(net, images, data, device)
        example = viewer.inputs(viewer.views(np.array([0])))
        check_relus(net, example)
        fields = receptive_fields(net, layers, example)
        tops = {layer: Top.load(source[f"{layer}/strongest"]) for layer in layers}
        pictured = {layer: np.zeros(len(top.value), bool) for layer, top in tops.items()}
        for layer, mask in pictured.items():
            chosen = pictures.get(layer, ())
            mask[slice(None) if chosen is None else list(chosen)] = True
        total = sum((top.value[pictured[layer]] > 0).sum() for layer, top in tops.items())
        with new_store(store) as target, stage(Path(store), "picture", total) as advance:
            for layer, top in tops.items():
                group = target.create_group(layer)
                top.save(group)
                save(group, "receptive_field", np.array(fields[layer]), ("size_stride_offset",))
                save(group, "pictured", pictured[layer], ("unit",))
                rows = top._replace(image=order[np.searchsorted(index, top.image, sorter=order)])
                viewer.write(group, layer, rows, pictured[layer], fields[layer], advance)
            for layer in layers:
                weights = _first_filters(net, fields[layer])
                if weights is not None:
                    names = ("unit", "height", "width", "channel")
                    save(target[layer], "filters", _eight_bit(weights), names)
                    break


def cut(picture: NDArray[np.uint8], field: ReceptiveField, y: int, x: int) -> NDArray[np.uint8]:
    """Cut the receptive field of the unit at (y, x) out of a picture (height, width, channel).

    Pixels outside the picture are grey. A field larger than the picture gives all of the picture.
    """
    sides = picture.shape[:2]
    (top, bottom), (left, right) = (field.window(p, s) for p, s in zip((y, x), sides, strict=True))
    patch = np.full((bottom - top, right - left, picture.shape[2]), GREY, np.uint8)
    (i, j), (k, m) = (field.inside(p, s) for p, s in zip((y, x), sides, strict=True))
    patch[i - top : j - top, k - left : m - left] = picture[i:j, k:m]
    return patch


@dataclass(frozen=True)
class _Viewer:
    """A net in evaluation mode, and the recorded images that its units respond to.

    Attributes
    ----------
    net : nn.Module
    images : Images
    data : mapping
        ``mean`` and ``std`` of the channels.
    device : str
        Device that the net is on.
    """

    net: torch.nn.Module
    images: Images
    data: Mapping
    device: str

    def views(self, rows: NDArray[np.integer]) -> torch.Tensor:
        """Load images as uint8 (image, channel, y, x), each from the disk once."""
        different, places = np.unique(rows, return_inverse=True)
        return self.images.__getitems__(different.tolist())[0][places]

    def inputs(self, views: torch.Tensor) -> torch.Tensor:
        """Normalise images as the net takes them, on its device."""
        from convergent.nets.datasets import normalize

        return normalize(views.to(self.device), self.data["mean"], self.data["std"])

    def pictures(
        self, layer: str, rows: NDArray, unit: NDArray, y: NDArray, x: NDArray
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Show images as the net saw them and their deconvolutions, (image, y, x, channel)."""
        from convergent.units.deconvolution import deconvolve

        views = self.views(rows)
        signals = deconvolve(self.net, layer, self.inputs(views), unit, y, x)
        # On the scale of the pixels, as the patches are.
        scaled = signals.cpu().permute(0, 2, 3, 1).numpy() * np.asarray(self.data["std"])
        return views.permute(0, 2, 3, 1).numpy(), _eight_bit(scaled)

    def write(
        self,
        group: zarr.Group,
        layer: str,
        top: Top,
        pictured: NDArray[np.bool_],
        field: ReceptiveField,
        advance: Callable[[float], None],
    ) -> None:
        """Write patches and deconvolutions of the units of `pictured`, shard by shard."""
        side, channels = min(field.size, self.images.size), self.images.channels
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
                rows, y, x = (part[u, r] for part in (top.image, top.y, top.x))
                for page, pictures in zip(pages, self.pictures(layer, rows, u, y, x), strict=True):
                    for n in range(len(u)):
                        page[u[n] - start, r[n]] = cut(pictures[n], field, y[n], x[n])
                advance(len(u))
            for array, page in zip(arrays, pages, strict=True):
                array[start : start + size] = page


def _first_filters(net: torch.nn.Module, field: ReceptiveField) -> NDArray | None:
    """Return filters (unit, height, width, channel) if the layer of this field is the first."""
    from torch import nn

    first = next((m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)), None)
    if not isinstance(first, nn.Conv2d) or (field.size, field.stride) != (
        first.kernel_size[0],
        first.stride[0],
    ):
        return None
    return first.weight.detach().cpu().permute(0, 2, 3, 1).numpy()


def _eight_bit(pictures: NDArray) -> NDArray[np.uint8]:
    """Scale pictures to uint8: grey is 0, black or white the largest size in each picture."""
    largest = np.abs(pictures).max(axis=(1, 2, 3), keepdims=True)
    scaled = np.divide(pictures, largest, out=np.zeros_like(pictures), where=largest > 0)
    return np.round(GREY + 127 * scaled).astype(np.uint8)
