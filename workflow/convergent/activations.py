"""Activation stores: what every unit does on the same images (section 2 of the paper).

A store is a Zarr v3 group with one array per layer, (image, y, x, unit) for convolutional
layers and (image, unit) for fully connected ones, taken after the ReLU.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import zarr
from numpy.typing import NDArray

from convergent import ConvergentError
from convergent.stores import create, new_store, open_store, read, save

if TYPE_CHECKING:
    import torch

__all__ = ["gather", "open_store", "random_positions", "random_samples", "record", "samples"]


class RecordingError(ConvergentError, OverflowError):
    """An activation that the store cannot hold; the message names the layer."""


def record(
    net: torch.nn.Module,
    images: torch.Tensor | NDArray | Iterable,
    layers: Sequence[str],
    store: str | Path,
    *,
    image_index: NDArray[np.integer] | None = None,
    dtype: str = "float16",
    device: str = "cpu",
    batch_size: int = 128,
) -> None:
    """Write the post-ReLU activations of all `layers` in one pass over the images.

    At most one shard per layer is held, however many images there are.

    Parameters
    ----------
    net : torch.nn.Module
        Put in evaluation mode on `device`.
    images : array of shape (image, channel, y, x), or iterable of batches
        What the net takes, float32. A batch may be a pair whose first entry is the images.
    layers : sequence of str
        Names as given by :func:`convergent.models.layers`.
    store : path
        Where the Zarr group goes; replaces what is there, when complete.
    image_index : ndarray of shape (image,), optional
        The images' places in their data set, kept as ``image_index``. They count from 0 when
        it is left out, as it may be for an array or a `torch.utils.data.DataLoader`.
    dtype : {"float16", "float32"}
        Of the stored activations; the net itself computes in float32.
    device : str
        For torch, such as ``cpu`` or ``cuda``.
    batch_size : int
        For images given as one array.

    Raises
    ------
    KeyError
        If the net has not one of the layers.
    ValueError
        If there are no images, or `image_index` does not fit them.
    RecordingError
        If an activation is NaN or infinite, or too large for `dtype` (above 65504 in float16).
    """
    import torch

    from convergent.models import activation

    if image_index is None:
        images_known = getattr(images, "dataset", images)
        if not hasattr(images_known, "shape") and images_known is images:
            raise ValueError(f"{store}: batches need image_index, which says how many images")
        image_index = np.arange(len(images_known))
    index = np.asarray(image_index)
    if index.ndim != 1 or len(index) == 0:
        raise ValueError(f"{store}: image_index must name at least one image, got {index.shape}")
    torch.backends.cudnn.allow_tf32 = False
    net = net.to(device).eval()
    modules = [activation(net, layer) for layer in layers]
    outputs: dict[str, torch.Tensor] = {}

    def keep(layer: str):
        return lambda module, args, output: outputs.update({layer: output})

    hooks = [m.register_forward_hook(keep(n)) for n, m in zip(layers, modules, strict=True)]
    writers: dict[str, _Writer] = {}
    count = 0
    try:
        with new_store(store) as group, torch.inference_mode():
            for batch in _batches(images, batch_size):
                count += len(batch)
                if count > len(index):
                    raise ValueError(f"{store}: more images than image_index names ({len(index)})")
                net(batch.to(device, dtype=torch.float32, non_blocking=True))
                for layer in layers:
                    block = _to_numpy(outputs.pop(layer), dtype, layer)
                    if layer not in writers:
                        shape = (len(index), *block.shape[1:])
                        writers[layer] = _Writer(group, layer, shape, dtype)
                    writers[layer].append(block)
            if count < len(index):
                raise ValueError(f"{store}: {count} images where image_index names {len(index)}")
            for writer in writers.values():
                writer.flush()
            save(group, "image_index", index.astype(np.int64), ("image",))
    finally:
        for hook in hooks:
            hook.remove()


def samples(
    array: zarr.Array, start: int, stop: int, positions: NDArray[np.integer] | None = None
) -> NDArray:
    """Activations of images `start` to `stop` as (sample, unit).

    A sample is an (image, position) pair in a convolutional layer, an image in a fully
    connected one (section 2 of the paper, footnote 5).

    Parameters
    ----------
    array : zarr.Array of shape (image, y, x, unit) or (image, unit)
        A layer of an activation store.
    start, stop : int
        Range of images.
    positions : ndarray of shape (stop - start, n), optional
        Positions to take of each image, as flat indices into (y, x). All if left out.
    """
    block = read(array, start, stop)
    block = block.reshape(len(block), -1, block.shape[-1])
    if positions is not None:
        block = np.take_along_axis(block, positions[:, :, None], axis=1)
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
    """Draw `n` (image, position) pairs without replacement, all there are if fewer.

    The draw depends on the arguments alone, so that nets share it.

    Returns
    -------
    image, position : ndarray of shape (sample,), int64
        In ascending order; a position counts through (y, x).
    """
    total = images * positions
    rng = np.random.default_rng([seed, images, positions])
    flat = np.sort(rng.choice(total, n, replace=False)) if n < total else np.arange(total)
    return flat // positions, flat % positions


def gather(
    array: zarr.Array,
    image: NDArray[np.integer],
    position: NDArray[np.integer],
    *,
    threads: int = 1,
) -> NDArray:
    """Activations of single samples as (sample, unit), read chunk by chunk.

    Parameters
    ----------
    array : zarr.Array of shape (image, y, x, unit) or (image, unit)
        A layer of an activation store.
    image, position : ndarray of shape (sample,)
        As :func:`random_samples` gives them.
    threads : int
        Chunks read at once.
    """
    result = np.empty((len(image), array.shape[-1]), array.dtype)
    rows = array.chunks[0]

    def fill(start: int) -> None:
        block = samples(array, start, min(start + rows, array.shape[0]))
        first, last = np.searchsorted(image, [start, start + rows])
        positions = len(block) // (min(start + rows, array.shape[0]) - start)
        result[first:last] = block[(image[first:last] - start) * positions + position[first:last]]

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, np.unique(image // rows) * rows))
    return result


class _Writer:
    """Gathers a layer's activations and writes them shard by shard."""

    def __init__(self, group: zarr.Group, layer: str, shape: tuple[int, ...], dtype: str):
        names = ("image", "y", "x", "unit") if len(shape) == 4 else ("image", "unit")
        # Small stores get smaller chunks, so that a block of their images is not all of them.
        self.array = create(group, layer, shape, dtype, names, chunk_rows=max(1, shape[0] // 64))
        self.buffer = np.empty((self.array.shards[0], *shape[1:]), dtype)
        self.filled = self.written = 0

    def append(self, block: NDArray) -> None:
        while len(block):
            part = block[: len(self.buffer) - self.filled]
            self.buffer[self.filled : self.filled + len(part)] = part
            self.filled += len(part)
            block = block[len(part) :]
            if self.filled == len(self.buffer):
                self.flush()

    def flush(self) -> None:
        stop = self.written + self.filled
        self.array[self.written : stop] = self.buffer[: self.filled]
        self.written, self.filled = stop, 0


def _batches(images: torch.Tensor | NDArray | Iterable, size: int) -> Iterator[torch.Tensor]:
    import torch

    if isinstance(images, np.ndarray):
        images = torch.from_numpy(images)
    if isinstance(images, torch.Tensor):
        images = images.split(size)
    for batch in images:
        yield batch[0] if isinstance(batch, tuple | list) else batch


def _to_numpy(output: torch.Tensor, dtype: str, layer: str) -> NDArray:
    import torch

    cast = output.to(getattr(torch, dtype))
    if not torch.isfinite(cast).all():
        largest = output.abs().max().item()
        remedy = "; set recording.dtype: float32" if np.isfinite(largest) else ""
        raise RecordingError(
            f"layer {layer}: activations up to {largest:g} do not fit into {dtype}{remedy}"
        )
    return (cast.permute(0, 2, 3, 1) if cast.ndim == 4 else cast).cpu().numpy()
