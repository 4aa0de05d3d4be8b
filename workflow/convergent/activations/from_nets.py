"""The engine that runs reductions over the nets themselves, without activation stores.

All nets of a run process each batch of images, and their activations are reduced immediately.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from convergent.activations.blocks import Cut
from convergent.activations.controls import (
    control_moments,
    pairs_of_controls,
    untrained_reductions,
)
from convergent.activations.layouts import Layout
from convergent.activations.recording import outputs
from convergent.activations.reductions import Reduction, moments_by_block, save_results
from convergent.activations.samples import Places, Samples
from convergent.activations.statistics import net_reductions
from convergent.nets.marks import Marks, check_same_images, save_marks
from convergent.nets.marks import batches as batches_of
from convergent.running.stores import StoreError, new_store

if TYPE_CHECKING:
    import torch

# Number of a net, or numbers of the two nets of a pair.
Target = tuple[int, ...]


class Form(NamedTuple):
    """A layer of those nets whose maps are equal.

    Attributes
    ----------
    nets : list of int
        Their numbers.
    units : list of int
        Number of units of each.
    targets : list of tuple of int
        Targets among them, by places in `nets`.
    places : Places
        Recorded positions.
    recorded : int
        Number of recorded positions of each image.
    """

    nets: list[int]
    units: list[int]
    targets: list[Target]
    places: Places
    recorded: int


def observe(
    nets: Mapping[str, torch.nn.Module],
    batches: Iterable[torch.Tensor] | Mapping[str, Iterable[torch.Tensor]],
    layers: Sequence[str],
    statistics: Mapping[str, str | Path],
    correlations: Mapping[tuple[str, str], str | Path],
    *,
    image_index: NDArray[np.integer],
    untrained: Mapping[str, tuple[torch.nn.Module, str | Path]] | None = None,
    controls: Mapping[tuple[str, str], str | Path] | None = None,
    places: Mapping[str, Mapping[str, str | Mapping | Layout]] | None = None,
    other_views: bool = False,
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
    Memory grows with the images only by the mean of each unit over each image.

    Parameters
    ----------
    nets : mapping of name to nn.Module
    batches : iterable of torch.Tensor of shape (image, channel, y, x), or mapping of name to such
        Input of the nets, in any form that :func:`convergent.activations.recording.record` takes.
        A mapping has the input of each net: the same images, perhaps normalised in other ways.
    layers : sequence of str
    statistics : mapping of name to path
        ``statistics/<net>.zarr`` of each net.
    correlations : mapping of two names to path
        ``pairs/<a>-<b>/correlation.zarr`` of the pairs that are wanted, in the order of `nets`.
    image_index : ndarray of shape (image,)
        The images' places in their data set.
    untrained : mapping of name to (nn.Module, path), optional
        Some of the nets before training, and ``nets/<net>/untrained.zarr`` of each.
    controls : mapping of two names to path, optional
        ``pairs/<a>-<b>/controls.zarr`` of pairs whose nets are both in `untrained`.
    places : mapping of name to mapping of layer to str, mapping or Layout, optional
        For each net, the layers that it has and their places, as
        :func:`convergent.activations.recording.record` takes them. A pair is compared at the layers
        that both nets have. Nets without an entry have all `layers`, as places of those names.
    other_views : bool
        Permission for nets to be given the images in different sizes or crops.
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
        If there are fewer images than blocks, or fewer samples than bins, or a layer's maps differ
        in a pair, or nets are given other images. Raised at the first batch that shows it.
    ValueError
        If `image_index` does not have one entry for each image.
    """
    names, before, index = list(nets), list(untrained or {}), np.asarray(image_index)
    numbers = {name: number for number, name in enumerate(names)}
    # Untrained nets come after all others.
    earlier = {name: number for number, name in enumerate(before, len(names))}
    written: dict[Target, str | Path] = {(numbers[net],): statistics[net] for net in names}
    written |= {(numbers[a], numbers[b]): path for (a, b), path in correlations.items()}
    of_untrained: dict[Target, str | Path] = {
        (earlier[net],): path for net, (_, path) in (untrained or {}).items()
    }
    of_controls = {
        path: pairs_of_controls((numbers[a], numbers[b]), (earlier[a], earlier[b]))
        for (a, b), path in (controls or {}).items()
    }
    kinds = {pair: kind for of_pair in of_controls.values() for pair, kind in of_pair.items()}
    targets = [*written, *of_untrained, *kinds]

    def reductions(form: Form) -> tuple[Cut, list[Reduction]]:
        drawn = Samples.random(seed, len(index), form.recorded, samples)
        trained = sum(net < len(names) for net in form.nets)
        widest = max(form.units)
        cut = Cut.of(len(index), blocks).coarsen(widest, widest)
        wanted = {of: tuple(form.nets[net] for net in of) for of in form.targets}
        usual = [of for of, target in wanted.items() if target in written]
        found = moments_by_block(cut, form.units[:trained], usual, device=device)
        if trained < len(form.nets):
            of_pairs = {of: kinds[target] for of, target in wanted.items() if target in kinds}
            own = range(trained, len(form.nets))
            found += control_moments(cut, form.units, of_pairs, own, device=device)
        for net in range(len(form.nets)):
            of_net = net_reductions if net < trained else untrained_reductions
            found += of_net(net, index, form.places, drawn, binning)
        return cut, found

    given = batches if isinstance(batches, Mapping) else dict.fromkeys(names, batches)

    def of_both(each: Mapping[str, Any]) -> dict[str, Any]:
        """Give the untrained nets what their trained selves have."""
        return {**each, **{_untrained(net): each[net] for net in before if net in each}}

    reduced = reduce_nets(
        {**nets, **{_untrained(name): net for name, (net, _) in (untrained or {}).items()}},
        of_both(given),
        layers,
        targets,
        reductions,
        image_index=index,
        places=places and of_both(places),
        other_views=other_views,
        dtype=dtype,
        positions=positions,
        seed=seed,
        device=device,
        threads=threads,
    )
    for target, path in [*written.items(), *of_untrained.items()]:
        with reduced.store(path, target) as store:
            for layer, save_layer in reduced.layers(target):
                save_layer(store.create_group(layer), target)
    for path, pairs in of_controls.items():
        any_pair = next(iter(pairs))
        with reduced.store(path, any_pair) as store:
            for layer, save_layer in reduced.layers(any_pair):
                group = store.create_group(layer)
                for pair in pairs:
                    save_layer(group, pair)


def reduce_nets(
    nets: Mapping[str, torch.nn.Module],
    batches: Iterable[torch.Tensor] | Mapping[str, Iterable[torch.Tensor]],
    layers: Sequence[str],
    targets: Sequence[Target],
    reductions: Callable[[Form], tuple[Cut, list[Reduction]]],
    *,
    image_index: NDArray[np.integer],
    places: Mapping[str, Mapping[str, str | Mapping | Layout]] | None = None,
    other_views: bool = False,
    dtype: str = "float16",
    positions: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    threads: int = 1,
) -> Reduced:
    """Run reductions over the activations of nets, in one pass over the images.

    Parameters
    ----------
    targets : sequence of tuple of int
        Nets ``(n,)`` and pairs ``(a, b)`` whose results are wanted, by their numbers in `nets`.
    reductions : callable
        Function from the form of a layer to the blocks of its images and its reductions; a
        `ValueError` of it is reported with the layer.
    nets, batches, layers, image_index, places, other_views, dtype, positions, seed, device, threads
        See :func:`observe`, which also lists what is raised.
    """
    names, index = list(nets), np.asarray(image_index)
    owned = {name: _owned(layers, (places or {}).get(name)) for name in names}
    given = batches if isinstance(batches, Mapping) else dict.fromkeys(names, batches)
    # Nets with the same batches share them.
    sources = {id(given[name]): given[name] for name in names}
    marks_of_batches: dict[int, list[Marks]] = {source: [] for source in sources}
    reduced: dict[str, list[_Layer]] = {}
    running: list[Future] = []
    start = 0

    def begin(layer: str, first: Mapping[int, torch.Tensor]) -> list[_Layer]:
        """Prepare the reductions of a layer; nets whose maps differ have their own."""
        forms: dict[tuple[int, ...], list[int]] = {}
        for net, values in first.items():
            forms.setdefault(tuple(values.shape[1:-1]), []).append(net)
        for target in targets:
            maps = [tuple(first[net].shape[1:-1]) for net in target if net in first]
            if len(maps) == 2 and maps[0] != maps[1]:
                raise StoreError(
                    f"layer {layer}: positions of {names[target[0]]} and {names[target[1]]} cannot "
                    f"be aligned, with maps of {maps[0]} and {maps[1]}; bring both to one `grid`"
                )
        return [begin_form(layer, form, {n: first[n] for n in of}) for form, of in forms.items()]

    def begin_form(layer: str, sides: tuple[int, ...], first: Mapping[int, torch.Tensor]) -> _Layer:
        members, units = list(first), [values.shape[-1] for values in first.values()]
        chosen = Places.random((len(index), *sides, max(units)), index, positions, seed)
        total = math.prod(sides)
        own = [tuple(map(members.index, t)) for t in targets if first.keys() >= {*t}]
        try:
            form = Form(members, units, own, chosen, min(positions or total, total))
            cut, made = reductions(form)
        except ValueError as error:
            raise StoreError(f"layer {layer}: {error}") from None
        return _Layer(members, made, cut, chosen)

    def finish(futures: list[Future]) -> None:
        for future in futures:
            future.result()

    with (
        ThreadPoolExecutor(threads) as pool,
        threadpool_limits(1, user_api="blas"),
        ExitStack() as stack,
    ):
        runs = {
            name: stack.enter_context(
                outputs(net, list(owned[name]), places=owned[name], dtype=dtype, device=device)
            )
            for name, net in nets.items()
        }
        for each in zip(*map(batches_of, sources.values()), strict=True):
            now = dict(zip(sources, each, strict=True))
            stop = start + len(each[0].images)
            if stop > len(index):
                raise ValueError(f"there are more images than image_index names ({len(index)})")
            for source, batch in now.items():
                marks_of_batches[source].append(batch.marks(index[start:stop]))
            _check_batch(given, marks_of_batches, other_views)
            values = {name: runs[name](now[id(given[name])].images) for name in names}
            finish(running)
            running = []
            for layer in layers:
                arrays = {
                    net: values[name].pop(layer)
                    for net, name in enumerate(names)
                    if layer in owned[name]
                }
                if layer not in reduced:
                    reduced[layer] = begin(layer, arrays)
                for part in reduced[layer]:
                    batch_of_part = [arrays[net] for net in part.nets]
                    running += map(pool.submit, part.tasks(batch_of_part, start))
            start = stop
        if start < len(index):
            raise ValueError(f"there are {start} images, but image_index names {len(index)}")
        finish(running)
        every = [part for parts in reduced.values() for part in parts]
        finish([pool.submit(task) for part in every for task in part.last_tasks()])
    joined = {source: Marks.joined(parts) for source, parts in marks_of_batches.items()}
    marks = {name: joined[id(given[name])] for name in names}
    return Reduced(reduced, marks, other_views)


class Reduced:
    """Results of :func:`reduce_nets`, to be written to stores.

    Parameters
    ----------
    parts : mapping of layer to list of _Layer
        The nets of each layer, those whose maps differ apart.
    marks : mapping of name to Marks
        Images that each net was given.
    other_views : bool
        Permission for nets of a pair to be given the images in different sizes or crops.
    """

    def __init__(
        self, parts: Mapping[str, list[_Layer]], marks: Mapping[str, Marks], other_views: bool
    ):
        self.parts, self.marks, self.other_views = parts, marks, other_views

    @contextmanager
    def store(self, path: str | Path, target: Target) -> Iterator[zarr.Group]:
        """Write a new store of a net or a pair, with the marks of its images."""
        names = list(self.marks)
        marks: dict[str | Path, Marks] = {names[net]: self.marks[names[net]] for net in target}
        with new_store(path) as store:
            save_marks(store, next(iter(marks.values())))
            if len(target) == 2:
                same = check_same_images(marks, other_views=self.other_views)
                store.attrs["same_views"] = same
            yield store

    def layers(self, target: Target) -> Iterator[tuple[str, Callable[[zarr.Group, Target], None]]]:
        """Yield the layers that all nets of a target have.

        With each comes a function that writes the results of the target, or of another one whose
        nets have the same layer on equal maps, into a group.
        """
        for layer, parts in self.parts.items():
            for part in parts:
                if {*target} <= {*part.nets}:
                    yield layer, part.save


def _untrained(name: str) -> str:
    """Name the untrained self of a net, as messages have it."""
    return f"untrained {name}"


def _owned(
    layers: Sequence[str], places: Mapping[str, str | Mapping | Layout] | None
) -> dict[str, str | Mapping | Layout]:
    """Map those of the layers that a net has to their places."""
    if places is None:
        return {layer: layer for layer in layers}
    return {layer: places[layer] for layer in layers if layer in places}


def _check_batch(
    given: Mapping[str, Iterable], marks: Mapping[int, list[Marks]], other_views: bool
) -> None:
    """Raise an error unless all nets were given the same images in the last batch."""
    names = {id(source): name for name, source in given.items()}
    if len(marks) > 1:
        last: dict[str | Path, Marks] = {
            names[source]: parts[-1] for source, parts in marks.items()
        }
        check_same_images(last, other_views=other_views)


def observed_values(
    net: torch.nn.Module,
    batches: Iterable[torch.Tensor],
    units: Mapping[str, NDArray[np.integer]],
    *,
    image_index: NDArray[np.integer],
    places: Mapping[str, str | Mapping | Layout] | None = None,
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
    chosen: dict[str, Places] = {}
    owned = {layer: (places or {}).get(layer, layer) for layer in units}
    start = 0
    with outputs(net, list(units), places=owned, dtype=dtype, device=device) as run:
        for batch in batches_of(batches):
            if start >= len(index):
                break
            for layer, block in run(batch.images[: len(index) - start]).items():
                if layer not in chosen:
                    chosen[layer] = Places.random(block.shape, index, positions, seed)
                block = chosen[layer].select(block, start).cpu().numpy()
                values[layer].append(block.reshape(-1, block.shape[-1])[:, units[layer]])
            start += len(batch.images)
    return {layer: np.concatenate(parts).astype(np.float32) for layer, parts in values.items()}


class _Layer:
    """One layer of some nets, by their numbers, with the parts of its reductions so far.

    Tasks for one batch may run at the same time; those of the next batch must wait for them.
    """

    def __init__(
        self, nets: Sequence[int], reductions: Sequence[Reduction], cut: Cut, places: Places
    ):
        self.nets, self.reductions, self.cut, self.places = nets, reductions, cut, places
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
        own = tuple(self.nets.index(net) for net in target)
        save_results(group, own, self.reductions, results)

    def _piece(self) -> list[tuple[int, list[NDArray]]]:
        """Join the waiting activations to one piece, with its first image."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return []
        # A single array is not copied.
        piece = waiting[0]
        if len(waiting) > 1:
            piece = [np.concatenate(each) for each in zip(*waiting, strict=True)]
        return [(self.start, piece)]

    def _reduce(self, pieces: list[tuple[int, list[NDArray]]]) -> list[Callable[[], None]]:
        if not pieces:
            return []
        each = zip(self.reductions, self.parts, strict=True)
        return [partial(_add, reduction, parts, pieces) for reduction, parts in each]


def _add(
    reduction: Reduction, parts: dict[int, Any], pieces: list[tuple[int, list[NDArray]]]
) -> None:
    """Add pieces in their order. When a block begins, shrink the one before."""
    for start, piece in pieces:
        block, _ = reduction.across(start, start + len(piece[0]))
        if block not in parts and block - 1 in parts:
            parts[block - 1] = reduction.shrink(parts[block - 1])
        reduction.add(parts, block, start, piece)
