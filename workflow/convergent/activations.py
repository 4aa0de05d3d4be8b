"""Activation stores: what every unit does on the same images (section 2 of the paper).

A store is a Zarr v3 group with one array per layer, (image, y, x, unit) for convolutional
layers and (image, unit) for fully connected ones, taken after the ReLU.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from convergent import ConvergentError
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


class RecordingError(ConvergentError, OverflowError):
    """An activation that the store cannot hold; the message names the layer."""


def record(
    net: torch.nn.Module,
    images: torch.Tensor | NDArray | Iterable,
    layers: Sequence[str],
    store: str | Path,
    *,
    image_index: NDArray[np.integer] | None = None,
    positions: int | None = None,
    seed: int = 0,
    dtype: str = "float16",
    device: str = "cpu",
    batch_size: int = 128,
    made_by: Mapping[str, Any] | None = None,
) -> None:
    """Write the post-ReLU activations of all `layers` in one pass over the images.

    Shards are written while the net runs on. At most two batches and two shards per layer are
    held, however many images there are.

    Parameters
    ----------
    net : torch.nn.Module
        Put in evaluation mode on `device`, its kernels channels last.
    images : array of shape (image, channel, y, x), or iterable of batches
        What the net takes, float32. A batch may be a pair whose first entry is the images.
    layers : sequence of str
        Names as given by :func:`convergent.models.layers`.
    store : path
        Where the Zarr group goes; replaces what is there, when complete.
    image_index : ndarray of shape (image,), optional
        The images' places in their data set, kept as ``image_index``. They count from 0 when
        it is left out, as it may be for an array or a `torch.utils.data.DataLoader`.
    positions : int, optional
        Keep so many random positions of each image in convolutional layers, drawn with `seed` as
        :func:`random_positions` does; all if left out. Arrays are then (image, position, unit),
        their flat places in (y, x) lie under ``positions``.
    dtype : {"float16", "float32"}
        Of the stored activations; the net itself computes in float32.
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
        If there are no images, or `image_index` does not fit them.
    RecordingError
        If an activation is NaN or infinite, or too large for `dtype` (above 65504 in float16).
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
    run = outputs(net, layers, dtype=dtype, device=device)
    writers: dict[str, _Writer] = {}
    count = 0
    # One more than cores, so that none waits when the net's threads meet.
    threads = torch.get_num_threads() + 1
    try:
        with new_store(store) as group, ThreadPoolExecutor(threads) as pool:
            if made_by is not None:
                group.attrs["made_by"] = as_json(made_by)
            for batch in _batches(images, batch_size):
                start, count = count, count + len(batch)
                if count > len(index):
                    raise ValueError(f"{store}: more images than image_index names ({len(index)})")
                blocks = run(batch)
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
            save(group, "image_index", index.astype(np.int64), ("image",))
    except DiskFullError as error:
        left = sum(w.array.nbytes * (1 - w.written / len(index)) for w in writers.values())
        raise DiskFullError(
            f"{error}; about {left / 1e6:.0f} MB before compression were still to be written: "
            "fewer images (activations.images), fewer positions or float16 take less"
        ) from error


def outputs(
    net: torch.nn.Module, layers: Sequence[str], *, dtype: str = "float16", device: str = "cpu"
) -> Callable[[torch.Tensor], dict[str, torch.Tensor]]:
    """Function from a batch of images to the activations of `layers`.

    They are on `device`, of `dtype`, and have the unit as their last axis; they hold until the
    next call but one. Parameters and errors are those of :func:`record`.
    """
    import torch

    from convergent.devices import exact
    from convergent.models import activation, run_once

    exact()
    # Channels last, the unit is the last axis without a transpose, and convolutions are faster.
    net = net.to(device, memory_format=torch.channels_last).eval()
    modules = [activation(net, layer) for layer in layers]

    kind = getattr(torch, dtype)
    # Two of each layer, used in turn: to get fresh memory costs many times the copy.
    slots: list[dict[str, torch.Tensor]] = [{}, {}]
    most = 0

    def run(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        nonlocal most
        slots.reverse()
        # The size of a batch decides how sums are rounded: the last, which may be smaller, is
        # filled up, else units that are the same on all images would seem to vary.
        images, most = len(batch), max(most, len(batch))
        if images < most:
            batch = torch.cat([batch, batch[-1:].expand(most - images, *batch.shape[1:])])

        def keep(layer: str):
            def hook(module, args, output: torch.Tensor) -> None:
                # A copy at once, as what follows the ReLU may work in place.
                values = output.permute(0, 2, 3, 1) if output.ndim == 4 else output
                slot = slots[0].get(layer)
                # Of a ReLU that runs more than once the last counts, whatever its shape.
                if slot is None or len(slot) < len(values) or slot.shape[1:] != values.shape[1:]:
                    slot = torch.empty(values.shape, dtype=kind, device=values.device)
                    slots[0][layer] = slot
                _check(slot[: len(values)].copy_(values), output, layer)

            return hook

        hooks = [m.register_forward_hook(keep(n)) for n, m in zip(layers, modules, strict=True)]
        run_once(net, batch.to(device, dtype=torch.float32, non_blocking=True), hooks)
        return {layer: slots[0][layer][:images] for layer in layers}

    return run


class Places(NamedTuple):
    """Where the recorded positions of a layer lie.

    Attributes
    ----------
    width : int
        Of the map; 1 in fully connected layers.
    drawn : ndarray of shape (image, position), or None where all positions are recorded
        Flat places in (y, x).
    """

    width: int
    drawn: NDArray[np.integer] | None = None

    @classmethod
    def of(cls, store: zarr.Group, layer: str) -> Places:
        """Of a layer of an activation store."""
        array = store[layer]
        if array.ndim == 3:
            return cls(array.attrs["map"][1], store[f"positions/{layer}"][...])
        return cls(array.shape[2] if array.ndim == 4 else 1)

    @classmethod
    def drawn_for(
        cls,
        shape: tuple[int, ...],
        image_index: NDArray[np.integer],
        positions: int | None,
        seed: int,
    ) -> Places:
        """Of activations of this shape, (image, y, x, unit) or (image, unit).

        Places of :func:`random_positions` where `positions` asks for fewer than there are.
        """
        height, width = shape[1:3] if len(shape) == 4 else (1, 1)
        if positions is None or positions >= height * width:
            return cls(width)
        return cls(width, random_positions(seed, image_index, height * width, positions))

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
    names = ("image", *{4: ("y", "x"), 3: ("position",), 2: ()}[len(shape)], "unit")
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


def _batches(images: torch.Tensor | NDArray | Iterable, size: int) -> Iterator[torch.Tensor]:
    import torch

    if isinstance(images, np.ndarray):
        images = torch.from_numpy(images)
    if isinstance(images, torch.Tensor):
        images = images.split(size)
    for batch in images:
        yield batch[0] if isinstance(batch, tuple | list) else batch


def _check(kept: torch.Tensor, output: torch.Tensor, layer: str) -> None:
    """That what is kept of an output is finite."""
    import torch

    # Nothing is below zero, so the largest tells; NaN counts as larger than any.
    if not torch.isfinite(kept.amax()):
        largest, dtype = output.amax().item(), str(kept.dtype).split(".")[1]
        raise RecordingError(
            f"layer {layer}: activations up to {largest:g} do not fit into {dtype}; set "
            "activations.dtype: float32"
            if np.isfinite(largest)
            else f"layer {layer}: activations are NaN or infinite; train the net again, with a "
            "lower training.learning_rate"
        )
