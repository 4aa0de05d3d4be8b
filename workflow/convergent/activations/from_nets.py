"""The engine that runs reductions over the nets themselves, without activation stores.

All nets of a run process each batch of images, and their activations are reduced immediately.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from convergent.activations.blocks import Cut
from convergent.activations.recording import outputs
from convergent.activations.reductions import Reduction, moments_by_block, save_results
from convergent.activations.samples import Places, Samples
from convergent.activations.statistics import net_reductions
from convergent.nets.marks import Marks, save_marks
from convergent.nets.marks import batches as batches_of
from convergent.running.stores import StoreError, new_store

if TYPE_CHECKING:
    import torch


def observe(
    nets: Mapping[str, torch.nn.Module],
    batches: Iterable[torch.Tensor],
    layers: Sequence[str],
    statistics: Mapping[str, str | Path],
    correlations: Mapping[tuple[str, str], str | Path],
    *,
    image_index: NDArray[np.integer],
    dtype: str = "float16",
    positions: int | None = None,
    samples: int = 60_000,
    binning: str = "paper",
    blocks: int = 20,
    seed: int = 0,
    device: str = "cpu",
    threads: int = 1,
) -> None:
    """Write statistics of nets and correlations between them, in one pass over the images.

    The numbers equal, to rounding, those that
    :func:`convergent.activations.statistics.write_statistics` and
    :func:`convergent.activations.statistics.write_correlation` compute from recorded activations.
    Memory does not grow with the number of images.

    Parameters
    ----------
    nets : mapping of name to nn.Module
    batches : iterable of torch.Tensor of shape (image, channel, y, x)
        Input of the nets, in any form that :func:`convergent.activations.recording.record` takes.
    layers : sequence of str
    statistics : mapping of name to path
        ``statistics/<net>.zarr`` of each net.
    correlations : mapping of two names to path
        ``pairs/<a>-<b>/correlation.zarr`` of the pairs that are wanted, in the order of `nets`.
    image_index : ndarray of shape (image,)
        The images' places in their data set.
    dtype, positions
        See :func:`convergent.activations.recording.record`.
    samples, binning, blocks, seed
        See :func:`convergent.activations.statistics.write_statistics`.
    device : str
        Device of torch on which nets run and products are computed.
    threads : int
        Number of reductions that run at once, during the forward pass of the next batch.

    Raises
    ------
    RecordingError
        If an activation is NaN or infinite, or too large for `dtype`.
    StoreError
        If there are fewer images than blocks, or fewer samples than bins. Raised at the first
        batch.
    ValueError
        If `image_index` does not have one entry for each image.
    """
    names, index = list(nets), np.asarray(image_index)
    targets: list[tuple[int, ...]] = [(n,) for n in range(len(names))]
    targets += [(names.index(a), names.index(b)) for a, b in correlations]
    marks_of_batches: list[Marks] = []
    reduced: dict[str, _Layer] = {}
    running: list[Future] = []
    start = 0

    def begin(layer: str, first: Sequence[torch.Tensor]) -> _Layer:
        shape, units = first[0].shape, [values.shape[-1] for values in first]
        places = Places.random(shape, index, positions, seed)
        total = math.prod(shape[1:-1])
        chosen = Samples.random(seed, len(index), min(positions or total, total), samples)
        try:
            cut = Cut.of(len(index), blocks).coarsen(max(units), max(units))
            reductions = moments_by_block(cut, units, targets, device=device)
            for net in range(len(names)):
                reductions += net_reductions(net, index, places, chosen, binning)
        except ValueError as error:
            raise StoreError(f"layer {layer}: {error}") from None
        return _Layer(reductions, cut, places)

    def finish(futures: list[Future]) -> None:
        for future in futures:
            future.result()

    with (
        ThreadPoolExecutor(threads) as pool,
        threadpool_limits(1, user_api="blas"),
        ExitStack() as stack,
    ):
        runs = [
            stack.enter_context(outputs(net, layers, dtype=dtype, device=device))
            for net in nets.values()
        ]
        for batch in batches_of(batches):
            stop = start + len(batch.images)
            if stop > len(index):
                raise ValueError(f"there are more images than image_index names ({len(index)})")
            values = [run(batch.images) for run in runs]
            marks_of_batches.append(batch.marks(index[start:stop]))
            finish(running)
            running = []
            for layer in layers:
                arrays = [each.pop(layer) for each in values]
                if layer not in reduced:
                    reduced[layer] = begin(layer, arrays)
                running += map(pool.submit, reduced[layer].tasks(arrays, start))
            start = stop
        if start < len(index):
            raise ValueError(f"there are {start} images, but image_index names {len(index)}")
        finish(running)
        finish([pool.submit(task) for each in reduced.values() for task in each.last_tasks()])
    marks = Marks.joined(marks_of_batches)
    paths = [*(statistics[name] for name in names), *correlations.values()]
    for target, path in zip(targets, paths, strict=True):
        with new_store(path) as store:
            save_marks(store, marks)
            if len(target) == 2:
                store.attrs["same_views"] = None if marks.view is None else True
            for layer, each in reduced.items():
                each.save(store.create_group(layer), target)


def observed_values(
    net: torch.nn.Module,
    batches: Iterable[torch.Tensor],
    units: Mapping[str, NDArray[np.integer]],
    *,
    image_index: NDArray[np.integer],
    positions: int | None = None,
    seed: int = 0,
    dtype: str = "float16",
    device: str = "cpu",
) -> dict[str, NDArray[np.float32]]:
    """Compute the values that :func:`convergent.measures.joint_densities.stored_values` reads.

    The net itself is run on the first images of `batches`, as many as `image_index` names.
    """
    index = np.asarray(image_index)
    values: dict[str, list[NDArray]] = {layer: [] for layer in units}
    places: dict[str, Places] = {}
    start = 0
    with outputs(net, list(units), dtype=dtype, device=device) as run:
        for batch in batches_of(batches):
            if start >= len(index):
                break
            for layer, block in run(batch.images[: len(index) - start]).items():
                if layer not in places:
                    places[layer] = Places.random(block.shape, index, positions, seed)
                block = places[layer].select(block, start).cpu().numpy()
                values[layer].append(block.reshape(-1, block.shape[-1])[:, units[layer]])
            start += len(batch.images)
    return {layer: np.concatenate(parts).astype(np.float32) for layer, parts in values.items()}


class _Layer:
    """One layer of all nets, with the parts of its reductions so far.

    Tasks for one batch may run at the same time; those of the next batch must wait for them.
    """

    def __init__(self, reductions: Sequence[Reduction], cut: Cut, places: Places):
        self.reductions, self.cut, self.places = reductions, cut, places
        self.parts: list[dict[int, Any]] = [{} for _ in reductions]
        # Least number of samples of a piece, unless its block ends earlier.
        self.samples = max(reduction.samples for reduction in reductions)
        # Activations of each net that wait to fill a piece, with their block and first image.
        self.waiting: list[list[NDArray]] = []
        self.block = self.start = 0

    def tasks(self, batch: Sequence[torch.Tensor], start: int) -> list[Callable[[], None]]:
        """List the work for a new batch: (image, ..., unit) of each net, from row `start` on."""
        arrays = [self.places.select(values, start).cpu().numpy() for values in batch]
        first, cuts = self.cut.across(start, start + len(arrays[0]))
        pieces = []
        for block, (i, j) in enumerate(itertools.pairwise(cuts), first):
            if block != self.block:
                pieces += self._piece()
            if not self.waiting:
                self.block, self.start = block, i
            self.waiting.append([values[i - start : j - start] for values in arrays])
            if sum(math.prod(each[0].shape[:-1]) for each in self.waiting) >= self.samples:
                pieces += self._piece()
        if self.waiting:
            # The next batch but one reuses the memory of this one.
            self.waiting[-1] = [values.copy() for values in self.waiting[-1]]
        return self._reduce(pieces)

    def last_tasks(self) -> list[Callable[[], None]]:
        """List the work that is left after the last batch."""
        return self._reduce(self._piece())

    def save(self, group: zarr.Group, target: tuple[int, ...]) -> None:
        """Write the results of one net or pair."""
        results = [list(parts.values()) for parts in self.parts]
        save_results(group, target, self.reductions, results)

    def _piece(self) -> list[tuple[int, int, list[NDArray]]]:
        """Join the waiting activations to one piece, with its block and first image."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return []
        # A single array is not copied.
        piece = waiting[0]
        if len(waiting) > 1:
            piece = [np.concatenate(each) for each in zip(*waiting, strict=True)]
        return [(self.block, self.start, piece)]

    def _reduce(self, pieces: list[tuple[int, int, list[NDArray]]]) -> list[Callable[[], None]]:
        if not pieces:
            return []
        each = zip(self.reductions, self.parts, strict=True)
        return [partial(_add, reduction, parts, pieces) for reduction, parts in each]


def _add(
    reduction: Reduction, parts: dict[int, Any], pieces: list[tuple[int, int, list[NDArray]]]
) -> None:
    """Add pieces in their order. When a block begins, shrink the one before."""
    for block, start, piece in pieces:
        if reduction.by_block and block not in parts and block - 1 in parts:
            parts[block - 1] = reduction.shrink(parts[block - 1])
        reduction.add(parts, block, start, piece)
