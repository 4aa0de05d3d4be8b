"""Pictures of units: patches of the images that excite them most, and their deconvolutions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from convergent.activations.strongest import Top
from convergent.nets.marks import Marks, check_same_images
from convergent.running.progress import stage
from convergent.running.stores import create, new_store, open_store, save

if TYPE_CHECKING:
    import torch

    from convergent.activations.layouts import Layout
    from convergent.nets.datasets import Images
    from convergent.units.receptive_fields import ReceptiveField

# Grey of pixels outside an image or a receptive field, and of zero in a deconvolution or filter.
GREY = 128
# Images deconvolved at once.
BATCH = 72
# Bytes of what autograd keeps of a batch, at most.
KEPT = 2**31


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
    places: Mapping[str, str | Mapping | Layout] | None = None,
    device: str = "cpu",
) -> None:
    """Write the strongest images of a net's units and their pictures: ``units/<net>.zarr``.

    Each layer is a group with `value`, `image`, `y` and `x` (unit, 9) of
    :class:`convergent.activations.strongest.Top` and with `receptive_field` (size, stride,
    offset; 0 if it is not known, in layers without pictures). The units in `pictures` also have,
    as uint8, `patches` and `deconv` (unit, 9, height, width, channel): the receptive field in the
    image as the net saw it, grey outside, and its deconvolution, grey where nothing is passed
    back and scaled by its largest value. `pictured` is True for these units. Layers without
    deconvolutions have no `deconv`, and their attribute ``undeconvolved`` says why. The group of
    the first convolution also has its `filters` (unit, height, width, channel).

    Layers with negative activations have a group ``weakest`` with the same arrays for the images
    that drive each unit furthest below zero. Their deconvolutions are those of the negated
    activation.

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
    places : mapping of layer to str, mapping or Layout, optional
        Places and layouts with which the layers were recorded, see
        :func:`convergent.activations.recording.record`.
    device : str

    Raises
    ------
    StoreError
        If `images` are not those that were recorded.
    ValueError
        If `images` and `image_index` have different lengths.
    """
    from convergent.activations.probing import layouts
    from convergent.nets.models import evaluating
    from convergent.running.devices import exact
    from convergent.units.deconvolution import undeconvolved
    from convergent.units.receptive_fields import (
        ReceptiveField,
        derived_fields,
        receptive_fields,
    )

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
        named = {layer: (places or {}).get(layer, layer) for layer in layers}
        tops = {layer: _tops(source[layer]) for layer in layers}
        pictured = {
            layer: np.zeros(len(top["strongest"].value), bool) for layer, top in tops.items()
        }
        for layer, mask in pictured.items():
            chosen = pictures.get(layer, ())
            mask[slice(None) if chosen is None else list(chosen)] = True
        shown = {layer: named[layer] for layer in layers if pictured[layer].any()}
        fields, made, faults = derived_fields(net, named, example), {}, {}
        if shown:
            made = layouts(net, shown, example)
            fields |= receptive_fields(net, made, example)
            faults = undeconvolved(net, made, example)
            viewer = replace(viewer, batch=_batch(net, made, example))
        total = sum(
            _excited(side, top.value[pictured[layer]]).sum()
            for layer, sides in tops.items()
            for side, top in sides.items()
        )
        with new_store(store) as target, stage(Path(store), "picture", total) as advance:
            for layer in layers:
                group = target.create_group(layer)
                field = np.array(fields.get(layer, ReceptiveField(0, 0, 0)))
                save(group, "receptive_field", field, ("size_stride_offset",))
                save(group, "pictured", pictured[layer], ("unit",))
                if layer in faults:
                    group.attrs["undeconvolved"] = faults[layer]
                for side, top in tops[layer].items():
                    part = group if side == "strongest" else group.create_group(side)
                    top.save(part)
                    if layer not in made:
                        continue
                    rows = order[np.searchsorted(index, top.image, sorter=order)]
                    page = _Page(made[layer], fields[layer], side, layer not in faults)
                    viewer.write(part, page, top._replace(image=rows), pictured[layer], advance)
            for layer in layers:
                units = len(pictured[layer])
                weights = _first_filters(net, fields[layer], units) if layer in fields else None
                if weights is not None:
                    names = ("unit", "height", "width", "channel")
                    save(target[layer], "filters", eight_bit(weights), names)
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


class _Page(NamedTuple):
    """What the pictures of a layer show, on one side.

    Attributes
    ----------
    layout : Layout
    field : ReceptiveField
    side : {"strongest", "weakest"}
    deconvolved : bool
        Whether there are deconvolutions beside the patches.
    """

    layout: Layout
    field: ReceptiveField
    side: str
    deconvolved: bool


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
    batch : int
        Images shown at once.
    """

    net: torch.nn.Module
    images: Images
    data: Mapping
    device: str
    batch: int = BATCH

    def views(self, rows: NDArray[np.integer]) -> torch.Tensor:
        """Load images as uint8 (image, channel, y, x), each from the disk once."""
        different, places = np.unique(rows, return_inverse=True)
        return self.images.__getitems__(different.tolist())[0][places]

    def inputs(self, views: torch.Tensor) -> torch.Tensor:
        """Normalise images as the net takes them, on its device."""
        from convergent.nets.datasets import normalize

        return normalize(views.to(self.device), self.data["mean"], self.data["std"])

    def pictures(
        self, page: _Page, rows: NDArray, unit: NDArray, y: NDArray, x: NDArray
    ) -> dict[str, NDArray[np.uint8]]:
        """Show images as the net saw them and their deconvolutions, (image, y, x, channel)."""
        from convergent.units.deconvolution import deconvolve

        views = self.views(rows)
        shown = {"patches": views.permute(0, 2, 3, 1).numpy()}
        if page.deconvolved:
            inputs, negative = self.inputs(views), page.side == "weakest"
            signals = deconvolve(self.net, page.layout, inputs, unit, y, x, negative=negative)
            # On the scale of the pixels, as the patches are.
            scaled = signals.cpu().permute(0, 2, 3, 1).numpy() * np.asarray(self.data["std"])
            shown["deconv"] = eight_bit(scaled)
        return shown

    def write(
        self,
        group: zarr.Group,
        page: _Page,
        top: Top,
        pictured: NDArray[np.bool_],
        advance: Callable[[float], None],
    ) -> None:
        """Write patches and deconvolutions of the units of `pictured`, shard by shard."""
        side, channels = min(page.field.size, self.images.size), self.images.channels
        shape = (*top.value.shape, side, side, channels)
        names = ("unit", "rank", "height", "width", "channel")
        kinds = ("patches", "deconv") if page.deconvolved else ("patches",)
        arrays = {kind: create(group, kind, shape, np.uint8, names) for kind in kinds}
        shard = arrays["patches"].shards[0]
        for start in range(0, len(pictured), shard):
            units = start + np.flatnonzero(pictured[start : start + shard])
            if not len(units):
                continue
            size = min(shard, len(pictured) - start)
            sheets = {kind: np.full((size, *shape[1:]), GREY, np.uint8) for kind in kinds}
            unit, rank = np.nonzero(_excited(page.side, top.value[units]))
            unit = units[unit]
            for first in range(0, len(unit), self.batch):
                u, r = unit[first : first + self.batch], rank[first : first + self.batch]
                rows, y, x = (part[u, r] for part in (top.image, top.y, top.x))
                for kind, pictures in self.pictures(page, rows, u, y, x).items():
                    for n in range(len(u)):
                        patch = cut(pictures[n], page.field, y[n], x[n])
                        sheets[kind][u[n] - start, r[n]] = patch
                advance(len(u))
            for kind, array in arrays.items():
                array[start : start + size] = sheets[kind]


def _tops(layer: zarr.Group) -> dict[str, Top]:
    """Read the strongest images of a layer's units and, if there are any, the weakest."""
    return {side: Top.load(layer[side]) for side in ("strongest", "weakest") if side in layer}


def _excited(side: str, value: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mark activations that can be shown: positive ones, or on the weakest side negative ones."""
    return value > 0 if side == "strongest" else value < 0


def _batch(net: torch.nn.Module, places: Mapping[str, Layout], example: torch.Tensor) -> int:
    """Choose how many images to deconvolve at once, so that what is kept of them fits."""
    from torch.autograd.graph import saved_tensors_hooks

    from convergent.units.operations import operations

    sizes: dict[int, int] = {parameter.data_ptr(): 0 for parameter in net.parameters()}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        sizes.setdefault(tensor.data_ptr(), tensor.nbytes)
        return tensor

    with saved_tensors_hooks(count, lambda tensor: tensor):
        operations(net, places, example)
    return max(1, min(BATCH, KEPT // max(1, sum(sizes.values()))))


def _first_filters(net: torch.nn.Module, field: ReceptiveField, units: int) -> NDArray | None:
    """Return filters (unit, height, width, channel) if the layer of this field is the first."""
    from torch import nn

    first = next((m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)), None)
    if not isinstance(first, nn.Conv2d) or (field.size, field.stride, units) != (
        first.kernel_size[0],
        first.stride[0],
        first.out_channels,
    ):
        return None
    return first.weight.detach().cpu().permute(0, 2, 3, 1).numpy()


def eight_bit(pictures: NDArray) -> NDArray[np.uint8]:
    """Scale pictures to uint8: grey is 0, black or white the largest size in each picture."""
    largest = np.abs(pictures).max(axis=(1, 2, 3), keepdims=True)
    scaled = np.divide(pictures, largest, out=np.zeros_like(pictures), where=largest > 0)
    return np.round(GREY + 127 * scaled).astype(np.uint8)
