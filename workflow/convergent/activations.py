"""Activation stores: what every unit does on the same images (section 2 of the paper).

A store is a Zarr v3 group with one array per layer, (image, y, x, unit) for convolutional
layers, (image, position, unit) for tokens and times, and (image, unit) for fully connected ones,
taken after the ReLU.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from convergent import ConvergentError
from convergent.marks import Marks, batches, save_marks
from convergent.stores import DiskFullError, as_json, create, new_store, open_store, save

if TYPE_CHECKING:
    import torch

__all__ = [
    "Places",
    "RecordingError",
    "open_store",
    "outputs",
    "random_positions",
    "random_samples",
    "record",
    "samples",
    "taken",
]

logger = logging.getLogger(__name__)


class RecordingError(ConvergentError, OverflowError):
    """An activation that the store cannot hold; the message names the layer."""


def record(
    net: torch.nn.Module,
    images: torch.Tensor | NDArray | Iterable,
    layers: Sequence[str],
    store: str | Path,
    *,
    image_index: NDArray[np.integer] | None = None,
    identity: NDArray[np.integer] | None = None,
    unit_axis: Mapping[str, int] | None = None,
    positions: int | None = None,
    seed: int = 0,
    dtype: str = "float16",
    device: str = "cpu",
    batch_size: int = 128,
    made_by: Mapping[str, Any] | None = None,
) -> None:
    """Write the post-ReLU activations of all `layers` in one pass over the images.

    Shards are written while the net runs on. At most two batches and two shards per layer are
    held, however many images there are. The net is run in evaluation mode and given back as it
    was found.

    Parameters
    ----------
    net : torch.nn.Module
        Of any floating-point type.
    images : array of shape (image, ...), or iterable of batches
        What the net takes. Floats and 8-bit pixels are converted to the net's own type, other
        integers (such as tokens) are given as they are. A batch may be a pair whose first entry
        is the images, or a dictionary with an entry of :data:`convergent.marks.ENTRIES`.
    layers : sequence of str
        Names as given by :func:`convergent.models.layers`.
    store : path
        Where the Zarr group goes; replaces what is there, when complete.
    image_index : ndarray of shape (image,), optional
        The images' places in their data set, kept as ``image_index``. They count from 0 when
        it is left out, as it may be for an array or a `torch.utils.data.DataLoader`.
    identity : ndarray of shape (image,), optional
        A number for each image, by which stores of several nets are known to hold the same images
        in the same order. Left out, it is made from what the net is given: state it where
        nets are given the same images in different forms.
    unit_axis : mapping of layer to int, optional
        Axis of the units, where it cannot be told from the net.
    positions : int, optional
        Keep so many random positions of each image in convolutional layers, drawn with `seed` as
        :func:`random_positions` does; all if left out. Arrays are then (image, position, unit),
        their flat places in (y, x) lie under ``positions``.
    dtype : {"float16", "float32"}
        Of the stored activations. Layers with units that are too small for float16, by the first
        batch, are kept in float32.
    device : str
        For torch, such as ``cpu`` or ``cuda``.
    batch_size : int
        For images given as one array.
    made_by : mapping, optional
        What JSON can hold about the origin of the store, such as its configuration; kept as
        its attribute ``made_by``, for :func:`open_store` to compare.

    Raises
    ------
    KeyError
        If the net has not one of the layers.
    ValueError
        If there are no images, or `image_index` or `identity` do not fit them.
    ProbingError
        If a layer's output is not one row an image, its units cannot be told, or it changes
        when an image is run again among others.
    RecordingError
        If an activation is NaN or infinite, or too large for `dtype` (beyond 65504 in float16).
    DiskFullError
        If the disk fills.
    """
    import torch

    if image_index is None:
        images_known = getattr(images, "dataset", images)
        if not hasattr(images_known, "shape") and images_known is images:
            raise ValueError(f"{store}: batches need image_index, which says how many images")
        image_index = np.arange(len(images_known))
    index = np.asarray(image_index)
    if index.ndim != 1 or len(index) == 0:
        raise ValueError(f"{store}: image_index must name at least one image, got {index.shape}")
    if identity is not None and np.shape(identity) != index.shape:
        raise ValueError(
            f"{store}: identity must hold a number for each of {len(index)} images, got shape "
            f"{np.shape(identity)}"
        )
    writers: dict[str, _Writer] = {}
    marks: list[Marks] = []
    count = 0
    # One more than cores, so that none waits when the net's threads meet.
    threads = torch.get_num_threads() + 1
    try:
        with (
            new_store(store) as group,
            ThreadPoolExecutor(threads) as pool,
            outputs(net, layers, dtype=dtype, device=device, unit_axis=unit_axis) as run,
        ):
            if made_by is not None:
                group.attrs["made_by"] = as_json(made_by)
            for batch in batches(images, batch_size):
                start, count = count, count + len(batch.images)
                if count > len(index):
                    raise ValueError(f"{store}: more images than image_index names ({len(index)})")
                blocks = run(batch.images)
                marks.append(batch.marks(index[start:count]))
                if not writers:
                    for layer, block in blocks.items():
                        places = Places.drawn_for(block.shape, index, positions, seed)
                        array = _create(group, layer, block, len(index), places)
                        writers[layer] = _Writer(array, places, pool, device)
                    _warn_if_small(store, sum(w.array.nbytes for w in writers.values()))
                for layer in layers:
                    writers[layer].append(blocks.pop(layer), start)
            if count < len(index):
                raise ValueError(f"{store}: {count} images where image_index names {len(index)}")
            for writer in writers.values():
                writer.flush()
            for writer in writers.values():
                writer.wait()
            known = Marks.joined(marks)
            if identity is not None:
                known = Marks(index, np.asarray(identity).astype(np.uint64))
            save_marks(group, known)
    except DiskFullError as error:
        left = sum(w.array.nbytes * (1 - w.written / len(index)) for w in writers.values())
        raise DiskFullError(
            f"{error}; about {left / 1e6:.0f} MB before compression were still to be written: "
            "fewer images (activations.images), fewer positions or float16 take less"
        ) from error


@contextmanager
def outputs(
    net: torch.nn.Module,
    layers: Sequence[str],
    *,
    dtype: str = "float16",
    device: str = "cpu",
    unit_axis: Mapping[str, int] | None = None,
) -> Iterator[Callable[[torch.Tensor], dict[str, torch.Tensor]]]:
    """Yield a function from a batch of images to the activations of `layers`.

    They are on `device`, of `dtype`, and have the unit as their last axis; they hold until the
    next call but one. Parameters and errors are those of :func:`record`; the net is held in
    evaluation mode on `device` until the block ends. The first images are run twice, to see what
    the layers' outputs are (:mod:`convergent.probing`).
    """
    import torch

    from convergent.devices import exact
    from convergent.models import activation, evaluating, run_once
    from convergent.probing import unit_axes

    exact()
    modules = {layer: activation(net, layer) for layer in layers}
    types = [p.dtype for p in net.parameters() if p.is_floating_point()]
    # Two of each layer, used in turn: to get fresh memory costs many times the copy.
    slots: list[dict[str, torch.Tensor]] = [{}, {}]
    kinds: dict[str, torch.dtype] = {}
    axes: dict[str, int] = {}
    most = 0

    def run(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        nonlocal most
        slots.reverse()
        if batch.is_floating_point() or batch.dtype == torch.uint8:
            batch = batch.to(device, dtype=(types or [torch.float32])[0], non_blocking=True)
        else:
            batch = batch.to(device, non_blocking=True)
        if not axes:
            axes.update(unit_axes(net, modules, batch, unit_axis))
        # The size of a batch decides how sums are rounded: the last, which may be smaller, is
        # filled up, else units that are the same on all images would seem to vary.
        images, most = len(batch), max(most, len(batch))
        if images < most:
            batch = torch.cat([batch, batch[-1:].expand(most - images, *batch.shape[1:])])

        def keep(layer: str):
            def hook(module, args, output: torch.Tensor) -> None:
                # A copy at once, as what follows the ReLU may work in place.
                values = output.movedim(axes[layer], -1)
                if layer not in kinds:
                    kinds[layer] = _kind(values, getattr(torch, dtype), layer)
                slot = slots[0].get(layer)
                # Of a ReLU that runs more than once the last counts, whatever its shape.
                if slot is None or len(slot) < len(values) or slot.shape[1:] != values.shape[1:]:
                    slot = torch.empty(values.shape, dtype=kinds[layer], device=values.device)
                    slots[0][layer] = slot
                _check(slot[: len(values)].copy_(values), output, layer)

            return hook

        run_once(net, batch, [m.register_forward_hook(keep(n)) for n, m in modules.items()])
        return {layer: slots[0][layer][:images] for layer in layers}

    with evaluating(net, device, channels_last=True):
        yield run


class Places(NamedTuple):
    """Where the recorded positions of a layer lie.

    Attributes
    ----------
    width : int
        Of the map, or the number of tokens; 1 in fully connected layers.
    drawn : ndarray of shape (image, position), or None where all positions are recorded
        Flat places in (y, x).
    """

    width: int
    drawn: NDArray[np.integer] | None = None

    @classmethod
    def of(cls, store: zarr.Group, layer: str) -> Places:
        """Read the places of a layer of an activation store."""
        array = store[layer]
        if "map" in array.attrs:
            return cls(array.attrs["map"][-1], store[f"positions/{layer}"][...])
        return cls(array.shape[-2] if array.ndim > 2 else 1)

    @classmethod
    def drawn_for(
        cls,
        shape: tuple[int, ...],
        image_index: NDArray[np.integer],
        positions: int | None,
        seed: int,
    ) -> Places:
        """Draw the places of activations of this shape, (image, y, x, unit) or (image, unit).

        Places of :func:`random_positions` where `positions` asks for fewer than there are.
        """
        total, width = math.prod(shape[1:-1]), shape[-2] if len(shape) > 2 else 1
        if positions is None or positions >= total:
            return cls(width)
        return cls(width, random_positions(seed, image_index, total, positions))

    def kept(self, block: NDArray | torch.Tensor, start: int) -> NDArray | torch.Tensor:
        """What is recorded of a block (image, y, x, unit) of all positions.

        Parameters
        ----------
        block : ndarray or torch.Tensor
        start : int
            Row of the block's first image.

        Returns
        -------
        ndarray or torch.Tensor of shape (image, position, unit)
            Or the block itself, where all positions are recorded.
        """
        if self.drawn is None:
            return block
        drawn = self.drawn[start : start + len(block)]
        return block.reshape(len(block), -1, block.shape[-1])[np.arange(len(block))[:, None], drawn]

    def flat(self, image: NDArray[np.integer], position: NDArray[np.integer]) -> NDArray[np.int64]:
        """Flat places in (y, x) of the recorded positions of images."""
        return np.asarray(
            position if self.drawn is None else self.drawn[image, position], dtype=np.int64
        )


def taken(
    block: NDArray, start: int, image: NDArray[np.integer], position: NDArray[np.integer]
) -> NDArray:
    """Activations (sample, unit) of those samples that fall into a block of images.

    Parameters
    ----------
    block : ndarray of shape (image, ..., unit)
    start : int
        Row of its first image.
    image, position : ndarray of shape (sample,)
        As :func:`random_samples` gives them.
    """
    first, last = np.searchsorted(image, [start, start + len(block)])
    flat = block.reshape(len(block), -1, block.shape[-1])
    return flat[image[first:last] - start, position[first:last]]


def samples(array: zarr.Array, start: int, stop: int) -> NDArray:
    """Activations of images `start` to `stop` as (sample, unit).

    A sample is an (image, position) pair in a convolutional layer, an image in a fully
    connected one (section 2 of the paper, footnote 5).

    Parameters
    ----------
    array : zarr.Array of shape (image, y, x, unit), (image, position, unit) or (image, unit)
        A layer of an activation store.
    start, stop : int
        Range of images.
    """
    block = array[start:stop]
    return block.reshape(-1, block.shape[-1])


def random_positions(
    seed: int, image_index: NDArray[np.integer], total: int, n: int
) -> NDArray[np.int64]:
    """Draw `n` of `total` positions for each image, without replacement.

    The draw depends on the seed and the image alone, so that nets share it and any chunking
    gives the same.

    Returns
    -------
    ndarray of shape (image, n), int64, ascending in each row
    """
    draws = [np.random.default_rng([seed, i]).choice(total, n, replace=False) for i in image_index]
    return np.sort(np.asarray(draws, dtype=np.int64).reshape(len(image_index), n), axis=1)


def random_samples(
    seed: int, images: int, positions: int, n: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw `n` pairs of an image and a recorded position without replacement.

    All there are if fewer. The draw depends on the arguments alone, so that nets share it.

    Returns
    -------
    image, position : ndarray of shape (sample,), int64
        In ascending order; a position counts through (y, x).
    """
    total = images * positions
    rng = np.random.default_rng([seed, images, positions])
    flat = np.sort(rng.choice(total, n, replace=False)) if n < total else np.arange(total)
    return flat // positions, flat % positions


class _Writer:
    """Gathers a layer's activations and writes them shard by shard in another thread.

    One shard fills while the one before is written.
    """

    def __init__(self, array: zarr.Array, places: Places, pool: ThreadPoolExecutor, device: str):
        import torch

        self.array, self.places, self.pool = array, places, pool
        shape, dtype = (array.shards[0], *array.shape[1:]), getattr(torch, array.dtype.name)
        # Pinned, as the GPU copies straight into it.
        self.buffers = [torch.empty(shape, dtype=dtype, pin_memory=device == "cuda") for _ in "ab"]
        self.filled = self.written = 0
        self.writing: Future | None = None

    def append(self, block: torch.Tensor, start: int) -> None:
        block = self.places.kept(block, start)
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
        """Until nothing is being written; raises what failed."""
        if self.writing is not None:
            self.writing.result()


def _create(
    group: zarr.Group, layer: str, block: torch.Tensor, images: int, places: Places
) -> zarr.Array:
    shape = (images, *places.kept(block[:1], 0).shape[1:])
    names = {2: (), 3: ("position",), 4: ("y", "x"), 5: ("z", "y", "x")}[len(shape)]
    names = ("image", *names, "unit")
    # Small stores get smaller chunks, so that a block of their images is not all of them.
    rows = max(1, images // 64)
    array = create(group, layer, shape, str(block.dtype).split(".")[1], names, chunk_rows=rows)
    if places.drawn is not None:
        array.attrs["map"] = list(block.shape[1:-1])
        save(group, f"positions/{layer}", places.drawn, ("image", "position"))
    return array


def _warn_if_small(store: str | Path, size: int) -> None:
    free = shutil.disk_usage(Path(store).parent).free
    if free < size / 4:
        logging.warning(
            "%s: %.3g GB of activations may not fit onto its disk when compressed, %.3g GB are "
            "free; fewer images (activations.images) take less",
            store,
            size / 1e9,
            free / 1e9,
        )


def _kind(values: torch.Tensor, kind: torch.dtype, layer: str) -> torch.dtype:
    """Choose the type to keep a layer in, by its first batch (image, ..., unit).

    Below 2**-14 float16 loses a bit with every halving, until it is 0: where all that a unit does
    lies there, its correlations would be those of rounding.
    """
    import torch

    if kind != torch.float16:
        return kind
    largest = values.abs().amax(dim=tuple(range(values.ndim - 1)))
    lost = (largest > 0) & (largest < torch.finfo(kind).smallest_normal)
    if not lost.any():
        return kind
    logger.warning(
        "layer %s: kept as float32, as %d of its %d units stay below %.2g, where float16 has few "
        "digits",
        *(layer, lost.sum(), len(lost), torch.finfo(kind).smallest_normal),
    )
    return torch.float32


def _check(kept: torch.Tensor, output: torch.Tensor, layer: str) -> None:
    """Raise an error unless all that is kept of an output is finite."""
    if all(math.isfinite(value) for value in kept.aminmax()):  # NaN is both
        return
    smallest, largest = (value.item() for value in output.aminmax())
    if not (math.isfinite(smallest) and math.isfinite(largest)):
        raise RecordingError(
            f"layer {layer}: activations are NaN or infinite; train the net again, with a lower "
            "training.learning_rate"
        )
    dtype = str(kept.dtype).split(".")[1]
    worst = f"up to {largest:g}" if largest > -smallest else f"down to {smallest:g}"
    remedy = "set activations.dtype: float32" if dtype == "float16" else "scale the net's output"
    raise RecordingError(f"layer {layer}: activations {worst} do not fit into {dtype}; {remedy}")
