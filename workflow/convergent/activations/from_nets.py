"""Statistics straight from the nets, without an activation store between.

All nets of a run see each batch of images, and what would be read back from their stores is
reduced at once: moments within every net and between all, samples for mutual information, and
the strongest images.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import zarr
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from convergent.activations.blocks import Blocks, Cut
from convergent.activations.moments import Moments
from convergent.activations.recording import outputs
from convergent.activations.samples import Places, random_samples, taken
from convergent.activations.statistics import save_correlation, save_statistics
from convergent.activations.strongest import Strongest
from convergent.nets import marks
from convergent.paper import BINS
from convergent.running.stores import StoreError, new_store

if TYPE_CHECKING:
    import torch

# Nets whose units are no more than this together are put side by side: one symmetric product then
# gives what is within and between them, and each activation is converted once.
SIDE_BY_SIDE = 2048
# Sums of squares between which co-moments lose no digit in float32 but the last.
RANGE = (1e-20, 1e30)
# Rows of a wide layer that are multiplied at a time: its matrices are large beside a batch.
WIDE_ROWS = 4096


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
    """Statistics of nets and correlations between them in one pass over the images.

    Numbers are those of :func:`convergent.activations.statistics.write_statistics` and
    :func:`convergent.activations.statistics.write_correlation` on recorded activations, to
    rounding. Memory does not grow with the images.

    Parameters
    ----------
    nets : mapping of name to nn.Module
    batches : iterable of torch.Tensor of shape (image, channel, y, x)
        What the nets take, as :func:`convergent.activations.recording.record` takes it.
    layers : sequence of str
    statistics : mapping of name to path
        ``statistics/<net>.zarr`` of each net.
    correlations : mapping of two names to path
        ``pairs/<a>-<b>/correlation.zarr`` of the pairs that are wanted, in the order of `nets`.
    image_index : ndarray of shape (image,)
        The images' places in their data set.
    dtype, positions
        What a store would keep, see :func:`convergent.activations.recording.record`.
    samples, binning, blocks, seed
        See :func:`convergent.activations.statistics.write_statistics`.
    device : str
        Where nets run and products are made.
    threads : int
        Reductions at once, beside the forward pass of the next batch.

    Raises
    ------
    RecordingError
        If an activation is NaN or infinite, or too large for `dtype`.
    StoreError
        If there are fewer images than blocks, or samples than bins: found at the first batch.
    ValueError
        If `image_index` does not fit the images.
    """
    names, index = list(nets), np.asarray(image_index)
    pairs = [(names.index(a), names.index(b)) for a, b in correlations]
    known: list[marks.Marks] = []
    reductions: dict[str, _Reduction] = {}
    running: list[Future] = []
    start = 0

    def finish(futures: list[Future]) -> None:
        for finished in [future.result() for future in futures]:
            finished()

    with (
        ThreadPoolExecutor(threads) as pool,
        threadpool_limits(1, user_api="blas"),
        ExitStack() as held,
    ):
        watched = [
            held.enter_context(outputs(net, layers, dtype=dtype, device=device))
            for net in nets.values()
        ]
        for batch in marks.batches(batches):
            stop = start + len(batch.images)
            if stop > len(index):
                raise ValueError(f"more images than image_index names ({len(index)})")
            seen = [run(batch.images) for run in watched]
            known.append(batch.marks(index[start:stop]))
            finish(running)
            running = []
            for layer in layers:
                arrays = [values.pop(layer) for values in seen]
                if layer not in reductions:
                    reductions[layer] = _Reduction(
                        layer, arrays, index, pairs, positions=positions, samples=samples,
                        blocks=blocks, seed=seed, device=device,
                    )  # fmt: skip
                running += [pool.submit(t) for t in reductions[layer].tasks(arrays, start)]
            start = stop
        if start < len(index):
            raise ValueError(f"{start} images where image_index names {len(index)}")
        finish(running)
        finish([pool.submit(t) for r in reductions.values() for t in r.last_tasks()])
    images = marks.Marks.joined(known)
    for n, name in enumerate(names):
        with new_store(statistics[name]) as target:
            marks.save_marks(target, images)
            for layer, reduction in reductions.items():
                reduction.save_net(target.create_group(layer), n, binning)
    for pair, path in zip(pairs, correlations.values(), strict=True):
        with new_store(path) as target:
            marks.save_marks(target, images)
            target.attrs["same_views"] = None if images.view is None else True
            for layer, reduction in reductions.items():
                save_correlation(target.create_group(layer), reduction.moments(*pair))


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
    """Compute what :func:`convergent.measures.joint_densities.stored_values` reads.

    From the net itself, of the first images of `batches`, as many as `image_index` names.
    """
    index = np.asarray(image_index)
    values: dict[str, list[NDArray]] = {layer: [] for layer in units}
    places: dict[str, Places] = {}
    start = 0
    with outputs(net, list(units), dtype=dtype, device=device) as run:
        for batch in marks.batches(batches):
            if start >= len(index):
                break
            for layer, block in run(batch.images[: len(index) - start]).items():
                if layer not in places:
                    places[layer] = Places.drawn_for(block.shape, index, positions, seed)
                kept = places[layer].kept(block, start).cpu().numpy()
                values[layer].append(kept.reshape(-1, kept.shape[-1])[:, units[layer]])
            start += len(batch.images)
    return {layer: np.concatenate(parts).astype(np.float32) for layer, parts in values.items()}


class _Reduction:
    """A layer of all nets, as far as it has been seen.

    Nets are in groups whose units lie side by side: all in one, or in wide layers each alone.
    Its tasks may run at once; what they return is called when all of a batch are done.
    """

    def __init__(
        self,
        layer: str,
        first: Sequence[torch.Tensor],
        index: NDArray[np.integer],
        pairs: Sequence[tuple[int, int]],
        *,
        positions: int | None,
        samples: int,
        blocks: int,
        seed: int,
        device: str,
    ):
        shape, units = first[0].shape, [array.shape[-1] for array in first]
        nets, total = range(len(units)), math.prod(shape[1:-1])
        self.index, self.device = index, device
        self.places = Places.drawn_for(shape, index, positions, seed)
        self.drawn = random_samples(seed, len(index), min(positions or total, total), samples)
        if len(self.drawn[0]) < BINS:
            raise StoreError(
                f"layer {layer}: {len(self.drawn[0])} samples are fewer than the {BINS} bins of "
                "mutual information"
            )
        # Of numbers as they are kept, which may be wider in some nets.
        kinds = [str(array.dtype).split(".")[1] for array in first]
        self.values = [
            np.empty((len(self.drawn[0]), u), kind) for u, kind in zip(units, kinds, strict=True)
        ]
        self.strongest: list[Strongest | None] = [None for _ in nets]
        together = sum(units) <= SIDE_BY_SIDE
        self.groups = [list(nets)] if together else [[n] for n in nets]
        self.products = [(0, 0)] if together else [(n, n) for n in nets] + list(pairs)
        self.enough = 1 if together else WIDE_ROWS
        ends = np.cumsum(units).tolist()
        # Group and columns of each net.
        self.columns = [
            (0, slice(end - width, end)) if together else (n, slice(None))
            for n, end, width in zip(nets, ends, units, strict=True)
        ]
        try:
            self.cut = Cut.of(len(index), blocks).kept(max(units), max(units))
        except ValueError as error:
            raise StoreError(f"layer {layer}: {error}") from None
        self.block = 0
        self.found: dict[tuple[int, int, int], Moments] = {}
        self.waiting: list[list[NDArray]] = []

    def tasks(self, batch: Sequence[torch.Tensor], start: int) -> Iterator[Callable]:
        """Reductions that are due when images from `start` on come, (image, ..., unit) a net."""
        arrays = [self.places.kept(block, start).cpu().numpy() for block in batch]
        for n, array in enumerate(arrays):
            yield partial(self._unit_by_unit, n, array, start)
        first, cuts = self.cut.across(start, start + len(arrays[0]))
        for block, (i, j) in enumerate(itertools.pairwise(cuts), first):
            if block != self.block:
                yield from self._multiply(block)
            rows = [a[i - start : j - start].reshape(-1, a.shape[-1]) for a in arrays]
            # What waits for later batches must outlive the next but one.
            self.waiting.append(rows if self.enough == 1 else [r.copy() for r in rows])
            if sum(len(rows[0]) for rows in self.waiting) >= self.enough:
                yield from self._multiply(block)

    def last_tasks(self) -> Iterator[Callable]:
        """Reductions of what still waits when no more images come."""
        yield from self._multiply(self.block)

    def save_net(self, group: zarr.Group, net: int, binning: str) -> None:
        """Write what is known of one net."""
        save_statistics(
            group, self.moments(net, net), self.strongest[net], self.values[net], self.drawn,
            self.index, self.places, binning,
        )  # fmt: skip

    def moments(self, a: int, b: int) -> Blocks:
        """Read out the moments of each block, between two nets or within one."""
        (group_a, rows), (group_b, columns) = self.columns[a], self.columns[b]
        moments = [
            self.found[block, group_a, group_b].part(rows, columns)
            for block in range(len(self.cut.edges) - 1)
        ]
        return Blocks(self.cut, moments)

    def _unit_by_unit(self, net: int, array: NDArray, start: int) -> Callable[[], None]:
        strongest, values = Strongest.of(array, start), taken(array, start, *self.drawn)
        first = np.searchsorted(self.drawn[0], start)
        self.values[net][first : first + len(values)] = values
        before = self.strongest[net]

        def finish() -> None:
            self.strongest[net] = strongest if before is None else before.merge(strongest)

        return finish

    def _multiply(self, block: int) -> Iterator[Callable]:
        """Products of the rows that wait, all of one block; those that come next are of `block`."""
        waiting, self.waiting = self.waiting, []
        current, self.block = self.block, block
        if not waiting:
            return
        for g, h in self.products:
            yield partial(self._product, (current, g, h), waiting)

    def _product(
        self, key: tuple[int, int, int], waiting: list[list[NDArray]]
    ) -> Callable[[], None]:
        x, *y = (
            np.concatenate([np.concatenate([rows[n] for n in group], axis=1) for rows in waiting])
            for group in (self.groups[g] for g in dict.fromkeys(key[1:]))
        )
        moments = Moments.of(x, *y, device=self.device)
        before = self.found.get(key)
        moments = moments if before is None else before.merge(moments)

        def finish() -> None:
            self.found[key] = moments
            # The block before is done, and what is kept of it has the precision of float32.
            done = (key[0] - 1, *key[1:])
            if done in self.found:
                self.found[done] = _narrow(self.found[done])

        return finish


def _narrow(moments: Moments) -> Moments:
    """Moments with co-moments in float32, unless units are too small or too large for it."""
    size = moments.count * np.concatenate([moments.var_x, moments.var_y])
    size = size[size > 0]
    if size.size and not RANGE[0] < size.min() <= size.max() < RANGE[1]:
        return moments
    return moments._replace(comoment=moments.comoment.astype(np.float32, copy=False))
