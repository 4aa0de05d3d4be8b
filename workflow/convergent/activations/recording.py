"""Activation stores: the activations of all units on the same images (section 2 of the paper).

A store is a Zarr v3 group with one array per layer, (image, y, x, unit) for convolutional
layers, (image, position, unit) for tokens and times, and (image, unit) for fully connected ones.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from convergent import ConvergentError
from convergent.activations.layouts import Layout
from convergent.activations.samples import Places
from convergent.nets.marks import Marks, batches, save_marks
from convergent.running.stores import DiskFullError, create, new_store, open_store, save

if TYPE_CHECKING:
    import torch

__all__ = [
    "RecordingError",
    "open_store",
    "outputs",
    "record",
]

logger = logging.getLogger(__name__)

# Largest mean square of rounding errors, as a share of a unit's variance: correlations are then
# off by at most a thousandth.
LOST = 2.0**-11
# Share of a layer's units that may be lost with only a warning: many nets have a few units that
# are hardly ever active.
FEW = 0.01
# Least number of positions along each axis of a map at which rounding is checked.
ROUNDED = 4


class RecordingError(ConvergentError, OverflowError):
    """Activations that the store cannot hold; the message names the layer."""


def record(
    net: torch.nn.Module,
    images: torch.Tensor | NDArray | Iterable,
    layers: Sequence[str],
    store: str | Path,
    *,
    beside: Mapping[str | Path, torch.nn.Module] | None = None,
    places: Mapping[str, str | Mapping | Layout] | None = None,
    image_index: NDArray[np.integer] | None = None,
    identity: NDArray[np.integer] | None = None,
    unit_axis: Mapping[str, int] | None = None,
    positions: int | None = None,
    seed: int = 0,
    dtype: str = "float16",
    device: str = "cpu",
    batch_size: int = 128,
) -> None:
    """Write the activations of all `layers` in one pass over the images.

    Shards are written while the net runs on. At most two batches and two shards per layer are
    in memory, however many images there are. The net is run in evaluation mode and left in the
    mode and on the device that it had.

    Parameters
    ----------
    net : torch.nn.Module
        Net of any floating-point type.
    images : array of shape (image, ...), or iterable of batches
        Input of the net. Floats and 8-bit pixels are converted to the net's own type, other
        integers (such as tokens) are passed on as they are. A batch may be a pair whose first
        entry is the images, or a dictionary with an entry of
        :data:`convergent.nets.marks.ENTRIES`.
    layers : sequence of str
        Names of the arrays in the store.
    store : path
        Path of the Zarr group. Once complete it replaces any store there.
    beside : mapping of path to nn.Module, optional
        Further nets with the same places, which are run on each batch as well, with their stores.
    places : mapping of layer to str, mapping or Layout, optional
        Place of each layer (:func:`convergent.nets.places.places`), and how its output is arranged,
        as :meth:`convergent.activations.layouts.Layout.of` takes it. A layer without an entry is
        the place of that name.
    image_index : ndarray of shape (image,), optional
        The images' places in their data set, stored as ``image_index``. They count from 0 by
        default, which works for an array or a `torch.utils.data.DataLoader`.
    identity : ndarray of shape (image,), optional
        A number for each image. It shows whether stores of several nets hold the same images in
        the same order. By default it is computed from the input of the net; pass it if nets get
        the same images in different forms.
    unit_axis : mapping of layer to int, optional
        Axis of the units, where it cannot be inferred from the net.
    positions : int, optional
        Number of random positions of each image that are stored of convolutional layers, chosen
        by :func:`convergent.activations.samples.random_positions` with `seed`; all by default.
        Arrays are then (image, position, unit), and flat places in (y, x) are stored under
        ``positions``.
    dtype : {"float16", "float32"}
        Type of the stored activations. A layer is stored in float32 if the first batch shows that
        float16 has too few digits for some of its units.
    device : str
        For torch, such as ``cpu`` or ``cuda``.
    batch_size : int
        Number of images of a batch, if images are given as one array.

    Raises
    ------
    PlaceError
        If the net lacks the place of a layer; a `KeyError` too.
    RunError
        If the net cannot run on the images.
    LayoutError
        If a layer's output cannot be arranged as its layout says.
    ValueError
        If there are no images, or `image_index` or `identity` do not match them.
    ProbingError
        If a layer's output does not have one row for each image, the axis of its units cannot be
        inferred, or it changes when an image is run in another batch.
    RecordingError
        If an activation is NaN or infinite, or too large for `dtype` (beyond 65504 in float16); if
        float16 has too few digits for units of a layer, which only later batches show; or if maps
        are of several sizes.
    DiskFullError
        If the disk fills.
    """
    import torch

    if image_index is None:
        data_set = getattr(images, "dataset", images)
        has_length = hasattr(data_set, "shape") or data_set is not images
        if not has_length or not isinstance(data_set, Sized):
            raise ValueError(f"{store}: batches need image_index, with an entry for each image")
        image_index = np.arange(len(data_set))
    index = np.asarray(image_index)
    if index.ndim != 1 or len(index) == 0 or index.dtype.kind not in "iu":
        raise ValueError(
            f"{store}: image_index must be a non-empty array of whole numbers, got "
            f"{index.dtype} of shape {index.shape}"
        )
    if identity is not None:
        identity = np.asarray(identity)
        if identity.shape != index.shape or identity.dtype.kind not in "iu":
            raise ValueError(
                f"{store}: identity must hold a whole number for each of {len(index)} images, got "
                f"{identity.dtype} of shape {identity.shape}"
            )
    nets = {store: net, **(beside or {})}
    writers: dict[tuple[str | Path, str], _Writer] = {}
    marks: list[Marks] = []
    count = 0
    # One more than cores, so that no core idles while the net's threads wait for each other.
    threads = torch.get_num_threads() + 1
    try:
        with ExitStack() as stack:
            groups = {path: stack.enter_context(new_store(path)) for path in nets}
            pool = stack.enter_context(ThreadPoolExecutor(threads))
            options: dict[str, Any] = {"dtype": dtype, "device": device, "unit_axis": unit_axis}
            runs = {
                path: stack.enter_context(
                    outputs(
                        each,
                        layers,
                        places=places,
                        name="" if each is net else str(path),
                        **options,
                    )
                )
                for path, each in nets.items()
            }
            for batch in batches(images, batch_size):
                start, count = count, count + len(batch.images)
                if count > len(index):
                    raise ValueError(
                        f"{store}: there are more images than image_index names ({len(index)})"
                    )
                marks.append(batch.marks(index[start:count]))
                for path, run in runs.items():
                    blocks = run(batch.images)
                    if not start:
                        for layer, block in blocks.items():
                            chosen = Places.random(block.shape, index, positions, seed)
                            array = _create(groups[path], layer, block, len(index), chosen)
                            writers[path, layer] = _Writer(array, chosen, pool, device)
                    for layer in layers:
                        writers[path, layer].append(blocks.pop(layer), start)
                if not start:
                    _warn_if_small(store, sum(w.array.nbytes for w in writers.values()))
            if count < len(index):
                raise ValueError(
                    f"{store}: there are {count} images, but image_index names {len(index)}; give "
                    "the places of the images in the batches, in their order"
                )
            for writer in writers.values():
                writer.flush()
            for writer in writers.values():
                writer.wait()
            joined = Marks.joined(marks)
            if identity is not None:
                joined = Marks(index, identity.astype(np.uint64))
            for group in groups.values():
                save_marks(group, joined)
    except DiskFullError as error:
        left = sum(w.array.nbytes * (1 - w.written / len(index)) for w in writers.values())
        raise DiskFullError(
            f"{error}; about {left / 1e6:.0f} MB before compression were still to be written. "
            "Fewer images (activations.images), fewer positions or float16 need less"
        ) from error


@contextmanager
def outputs(
    net: torch.nn.Module,
    layers: Sequence[str],
    *,
    places: Mapping[str, str | Mapping | Layout] | None = None,
    dtype: str = "float16",
    device: str = "cpu",
    unit_axis: Mapping[str, int] | None = None,
    name: str = "",
) -> Iterator[Callable[[torch.Tensor], dict[str, torch.Tensor]]]:
    """Yield a function from a batch of images to the activations of `layers`.

    Activations are on `device`, of `dtype`, with the unit as their last axis. The next call but
    one reuses their memory. Parameters and errors are those of :func:`record`; errors and warnings
    say `name` beside the layer, if it is given. The net stays in evaluation mode on `device` until
    the context ends. A few of the first images are run beforehand, to probe the outputs of the
    layers (:mod:`convergent.activations.probing`).
    """
    import torch

    from convergent.activations.probing import probe
    from convergent.nets.models import evaluating
    from convergent.nets.places import running_on, tapping
    from convergent.running.devices import exact

    if dtype not in ("float16", "float32"):
        raise ValueError(f"dtype must be float16 or float32, got {dtype!r}")
    if not layers or len(set(layers)) < len(layers):
        raise ValueError(f"layers must name at least one layer, and each once, got {list(layers)}")
    for key, given in (("unit_axis", unit_axis), ("places", places)):
        unknown = sorted(set(given or ()) - set(layers))
        if unknown:
            raise ValueError(f"{key} names {unknown[0]}, which is not among layers")
    exact()
    layouts = {layer: Layout.of((places or {}).get(layer, layer), layer) for layer in layers}
    stated = {n: each.unit_axis for n, each in layouts.items() if each.unit_axis is not None}
    stated |= unit_axis or {}
    of_place: dict[str, list[str]] = {}
    for layer, layout in layouts.items():
        of_place.setdefault(layout.place, []).append(layer)
    types = [p.dtype for p in net.parameters() if p.is_floating_point()]
    # Two for each layer, used in turn: fresh memory costs many times as much as the copy.
    slots: list[dict[str, torch.Tensor]] = [{}, {}]
    axes: dict[str, int] = {}
    shapes: dict[str, torch.Size] = {}
    rounding: dict[str, _Rounding] = {}
    images = most = 0

    called = {layer: f"{layer} of {name}" if name else layer for layer in layers}

    def copy(layer: str, output: torch.Tensor) -> None:
        values = layouts[layer].arrange(output, axes[layer], layer)
        shape = shapes.setdefault(layer, values.shape[1:])
        if len(values) != most or values.shape[1:] != shape:
            raise RecordingError(
                f"layer {called[layer]}: {most} images give {tuple(values.shape)}, but earlier "
                f"ones gave {tuple(shape)} each; pass all images in one size"
            )
        if layer not in rounding:
            rounding[layer] = _Rounding.choose(values[:images], dtype, called[layer])
        slot = slots[0].get(layer)
        if slot is None or len(slot) < len(values):
            slot = torch.empty(values.shape, dtype=rounding[layer].kind, device=values.device)
            slots[0][layer] = slot
        # Copied now, as later modules may work in place.
        _check(slot[: len(values)].copy_(values), values, called[layer])
        rounding[layer].add(values[:images], slot[:images])

    def seen(place: str, output: torch.Tensor) -> None:
        for layer in of_place[place]:
            copy(layer, output)

    with evaluating(net, device, channels_last=True), tapping(net, of_place, seen) as forward:

        def run(batch: torch.Tensor) -> dict[str, torch.Tensor]:
            nonlocal images, most
            slots.reverse()
            if batch.is_floating_point() or batch.dtype == torch.uint8:
                batch = batch.to(device, dtype=(types or [torch.float32])[0], non_blocking=True)
            else:
                batch = batch.to(device, non_blocking=True)
            if not axes:
                of_layers = {layer: layout.place for layer, layout in layouts.items()}
                axes.update(probe(net, of_layers, batch, stated))
            # The size of a batch decides how sums are rounded. The last batch may be smaller and is
            # filled up, or units that are constant on all images would seem to vary.
            images, most = len(batch), max(most, len(batch))
            if images < most:
                batch = torch.cat([batch, batch[-1:].expand(most - images, *batch.shape[1:])])
            with running_on(batch), torch.no_grad():
                forward(batch)
            return {layer: slots[0][layer][:images] for layer in layers}

        yield run
        for layer, each in rounding.items():
            each.check(called[layer])


class _Writer:
    """Writer of a layer's activations, shard by shard, in another thread.

    One shard is filled while the previous one is written.
    """

    def __init__(self, array: zarr.Array, places: Places, pool: ThreadPoolExecutor, device: str):
        import torch

        self.array, self.places, self.pool = array, places, pool
        shape, dtype = (array.shards[0], *array.shape[1:]), getattr(torch, array.dtype.name)
        # Pinned memory, into which the GPU copies directly.
        self.buffers = [torch.empty(shape, dtype=dtype, pin_memory=device == "cuda") for _ in "ab"]
        self.filled = self.written = 0
        self.writing: Future | None = None

    def append(self, block: torch.Tensor, start: int) -> None:
        block = self.places.select(block, start)
        while len(block):
            part = block[: len(self.buffers[0]) - self.filled]
            self.buffers[0][self.filled : self.filled + len(part)] = part
            self.filled += len(part)
            block = block[len(part) :]
            if self.filled == len(self.buffers[0]):
                self.flush()

    def flush(self) -> None:
        self.wait()
        rows = slice(self.written, self.written + self.filled)
        if self.filled:
            shard = self.buffers[0][: self.filled].numpy()
            self.writing = self.pool.submit(self.array.__setitem__, rows, shard)
        self.buffers.reverse()
        self.written, self.filled = rows.stop, 0

    def wait(self) -> None:
        """Wait until nothing is being written; raise the error of a failed write."""
        if self.writing is not None:
            self.writing.result()


def _create(
    group: zarr.Group, layer: str, block: torch.Tensor, images: int, places: Places
) -> zarr.Array:
    shape = (images, *places.select(block[:1], 0).shape[1:])
    names = {2: (), 3: ("position",), 4: ("y", "x"), 5: ("z", "y", "x")}[len(shape)]
    names = ("image", *names, "unit")
    # Small stores get smaller chunks, so that a block of their images is not all of them.
    rows = max(1, images // 64)
    array = create(group, layer, shape, str(block.dtype).split(".")[1], names, chunk_rows=rows)
    if places.positions is not None:
        array.attrs["map"] = list(block.shape[1:-1])
        save(group, f"positions/{layer}", places.positions, ("image", "position"))
    return array


def _warn_if_small(store: str | Path, size: int) -> None:
    free = shutil.disk_usage(Path(store).parent).free
    if free < size / 4:
        logging.warning(
            "%s: %.3g GB of activations may not fit onto the disk, even compressed: %.3g GB are "
            "free; fewer images (activations.images) need less",
            store,
            size / 1e9,
            free / 1e9,
        )


class _Rounding:
    """Rounding errors of the stored type, and each unit's variance, at some positions."""

    def __init__(self, kind: torch.dtype):
        self.kind = kind
        self.count = 0
        self.moments: list[torch.Tensor] = []

    @classmethod
    def choose(cls, values: torch.Tensor, dtype: str, layer: str) -> _Rounding:
        """Choose float32 in place of float16 if the first batch (image, ..., unit) needs it."""
        import torch

        rounding = cls(getattr(torch, dtype))
        if dtype == "float32":
            return rounding
        half = values.to(torch.float16)
        if not torch.isfinite(half).all():
            return rounding  # storing it will raise an error
        rounding.add(values, half)
        lost = rounding.lost()
        if lost.sum() <= FEW * len(lost):
            return cls(torch.float16)
        logger.warning(
            "layer %s: stored as float32, as float16 has too few digits for %d of its %d units",
            *(layer, lost.sum(), len(lost)),
        )
        return cls(torch.float32)

    def add(self, values: torch.Tensor, rounded: torch.Tensor) -> None:
        """Add a batch (image, ..., unit), both exact and rounded."""
        import torch

        if self.kind != torch.float16:
            return
        # A few positions of each image suffice, and cost little.
        steps = [slice(None, None, max(1, side // ROUNDED)) for side in values.shape[1:-1]]
        values, rounded = (
            v[(slice(None), *steps)].reshape(-1, v.shape[-1]).double() for v in (values, rounded)
        )
        count, mean = len(values), values.mean(dim=0)
        parts = [mean, (values - mean).square().sum(dim=0), (values - rounded).square().sum(dim=0)]
        if self.count:
            delta = mean - self.moments[0]
            total = self.count + count
            parts = [
                self.moments[0] + delta * count / total,
                self.moments[1] + parts[1] + delta.square() * self.count * count / total,
                self.moments[2] + parts[2],
            ]
        self.count, self.moments = self.count + count, parts

    def lost(self) -> torch.Tensor:
        """Mark varying units whose rounding error exceeds :data:`LOST` of their variance."""
        _, squares, errors = self.moments
        return (squares > 0) & ~(errors <= LOST * squares)

    def check(self, layer: str) -> None:
        """Raise an error if more than :data:`FEW` of the units are lost; warn if fewer are."""
        if not self.moments:
            return
        lost = self.lost()
        message = (
            f"layer {layer}: float16 has too few digits for {lost.sum()} of its {len(lost)} units, "
            "whose variance is small beside their mean, or which are tiny; set activations.dtype: "
            "float32"
        )
        if lost.sum() > FEW * len(lost):
            raise RecordingError(message)
        if lost.any():
            logger.warning("%s if they matter", message)


def _check(values: torch.Tensor, output: torch.Tensor, layer: str) -> None:
    """Check that all values are finite: those of a layer, converted to the stored type."""
    if all(math.isfinite(value) for value in values.aminmax()):  # NaN is both
        return
    smallest, largest = (value.item() for value in output.aminmax())
    if not (math.isfinite(smallest) and math.isfinite(largest)):
        raise RecordingError(
            f"layer {layer}: activations are NaN or infinite; train the net again, with a lower "
            "training.learning_rate"
        )
    dtype = str(values.dtype).split(".")[1]
    worst = f"up to {largest:g}" if largest > -smallest else f"down to {smallest:g}"
    remedy = "set activations.dtype: float32" if dtype == "float16" else "scale the net's output"
    raise RecordingError(f"layer {layer}: activations {worst} do not fit into {dtype}; {remedy}")
