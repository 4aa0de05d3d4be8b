"""Moments of any pairs of layers of two nets, in one pass over both nets' stores.

Layers that share a grid are put side by side, so that all pairs of them are one product, and each
activation is read and converted once. Layers whose maps differ are compared on a common grid
(:mod:`convergent.activations.grids`). The moments within a layer are taken from the statistics of
its net; on any other grid on which the layer is compared, they are computed once.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import zarr
from numpy.typing import NDArray

from convergent.activations.blocks import Blocks, Cut, load_blocks
from convergent.activations.from_stores import LEAF_BYTES, reduce_stores
from convergent.activations.grids import Grid, Unequal
from convergent.activations.moments import Moments, moments_of_layers
from convergent.activations.reductions import Reduction
from convergent.running.stores import StoreError

# Entries of the co-moments between layers, of all pairs of one pass. With 20 blocks in float64 and
# those being merged, a pass takes up to 1 GB. More pairs are read in several passes.
ENTRIES = 2**21

Pair = tuple[str, str]


class LayerPair(NamedTuple):
    """Moments of a layer of one net and a layer of another on a common grid.

    Attributes
    ----------
    layer_a, layer_b : str
    grid : str
        ``equal``, ``pooled HxW``, or ``mean`` over the positions of each image.
    blocks : (Blocks, Blocks, Blocks)
        Moments between the layers, within the first and within the second, of the same blocks of
        images.
    """

    layer_a: str
    layer_b: str
    grid: str
    blocks: tuple[Blocks, Blocks, Blocks]


class Group(NamedTuple):
    """Pairs of layers that are compared on one grid, and the products that they need.

    Attributes
    ----------
    grid : Grid
    a, b : tuple of str
        Layers of the two nets, in the order in which they stand side by side.
    strips : list of (slice, slice)
        Layers of `a` and of `b` of each product.
    """

    grid: Grid
    a: tuple[str, ...]
    b: tuple[str, ...]
    strips: list[tuple[slice, slice]]

    @property
    def layers(self) -> list[tuple[int, str]]:
        """List the layers of both nets, each with the number of its net."""
        return [*((0, layer) for layer in self.a), *((1, layer) for layer in self.b)]

    @classmethod
    def of(cls, grid: Grid, pairs: Iterable[Pair]) -> Group:
        """Arrange pairs of layers so that few products give them all."""
        pairs = list(pairs)
        met_by_a, met_by_b = _met(pairs), _met([(b, a) for a, b in pairs])
        a, b = _alike_together(met_by_a), _alike_together(met_by_b)
        strips, start = [], 0
        for met, run in itertools.groupby(a, key=met_by_a.__getitem__):
            stop = start + len(list(run))
            numbers = enumerate(sorted(map(b.index, met)))
            for _, each in itertools.groupby(numbers, key=lambda at: at[1] - at[0]):
                neighbours = [number for _, number in each]
                strips.append((slice(start, stop), slice(neighbours[0], neighbours[-1] + 1)))
            start = stop
        return cls(grid, tuple(a), tuple(b), strips)


def _met(pairs: Iterable[Pair]) -> dict[str, frozenset[str]]:
    """Collect the second layers that each first layer is compared with."""
    met: dict[str, list[str]] = defaultdict(list)
    for first, second in pairs:
        met[first].append(second)
    return {first: frozenset(seconds) for first, seconds in met.items()}


def _alike_together(met: Mapping[str, frozenset[str]]) -> list[str]:
    """Order layers so that those that are compared with the same layers are neighbours."""
    kinds = list(dict.fromkeys(met.values()))
    return sorted(met, key=lambda layer: kinds.index(met[layer]))


def layer_pairs(
    a: Mapping[str, zarr.Array],
    b: Mapping[str, zarr.Array],
    pairs: Sequence[Pair],
    *,
    kept: tuple[Mapping[str, zarr.Group], Mapping[str, zarr.Group]] = ({}, {}),
    unequal: Unequal = "pool",
    blocks: int = 20,
    step: Callable[[float], None] = lambda share: None,
    **options: Any,
) -> Iterator[LayerPair]:
    """Compute the moments of pairs of layers from two activation stores.

    Parameters
    ----------
    a, b : mapping of str to zarr.Array of shape (image, ..., unit)
        Layers of the two nets, of the same images in the same order.
    pairs : sequence of (str, str)
        Layer of the first net and layer of the second.
    kept : (mapping, mapping) of str to zarr.Group
        Groups of the two nets' statistics with the moments within layers; those of layers that are
        left out are computed.
    unequal : {"pool", "mean"}
        How maps of different sizes are compared, see
        :meth:`convergent.activations.grids.Grid.common`.
    blocks : int
        Number of blocks of images; those of wide layers are merged, see
        :meth:`convergent.activations.blocks.Cut.coarsen`.
    step : callable
        Function that is called with the share of the work, from 0 to 1, that was done since.
    **options
        `scheduler` and `workers` for :func:`convergent.running.scheduling.compute`.

    Yields
    ------
    LayerPair
        In the order of `pairs`, unless some layers are so wide that their blocks are merged: these
        come last.

    Raises
    ------
    StoreError
        If the stores differ in their images, there are fewer images than blocks, or an activation
        is NaN or infinite.

    Notes
    -----
    One pass holds at most :data:`ENTRIES` co-moments between layers for each block, and the squares
    of the widths of the layers that it compares; a pair of layers that has more has its own pass.
    Memory does not grow with the images.
    """
    images, *others = sorted({array.shape[0] for array in (*a.values(), *b.values())})
    if others:
        raise StoreError(
            f"{_named(a)} and {_named(b)} hold different numbers of images: "
            f"{', '.join(map(str, [images, *others]))}"
        )
    try:
        cut = Cut.of(images, blocks)
    except ValueError as error:
        raise StoreError(f"{_named(a)} and {_named(b)}: {error}") from error
    units_a, units_b = ({k: v.shape[-1] for k, v in of.items()} for of in (a, b))
    plan = passes(units_a, units_b, pairs, cut)
    for merged, some in plan:
        yield from _one_pass(
            (a, b),
            some,
            kept,
            unequal,
            merged,
            step=lambda share: step(share / len(plan)),
            **options,
        )


def passes(
    a: Mapping[str, int], b: Mapping[str, int], pairs: Sequence[Pair], cut: Cut
) -> list[tuple[Cut, list[Pair]]]:
    """Divide pairs of layers into passes over the stores whose moments fit into memory.

    Parameters
    ----------
    a, b : mapping of str to int
        Number of units of each layer.
    pairs : sequence of (str, str)
    cut : Cut

    Returns
    -------
    list of (Cut, list of (str, str))
        The blocks and the pairs of each pass: pairs whose blocks are merged alike, of at most
        :data:`ENTRIES` products of units.
    """
    alike: dict[int, tuple[Cut, list[Pair]]] = {}
    for pair in pairs:
        # As coarse as the kept blocks of the wider layer, so that these can be used.
        widest = max(a[pair[0]], b[pair[1]])
        merged = cut.coarsen(widest, widest)
        alike.setdefault(len(merged.edges), (merged, []))[1].append(pair)
    result = []
    for merged, some in (alike[key] for key in sorted(alike, reverse=True)):
        entries = ENTRIES
        for pair in some:
            size = a[pair[0]] * b[pair[1]]
            if entries + size > ENTRIES:
                result.append((merged, list[Pair]()))
                entries = 0
            entries += size
            result[-1][1].append(pair)
    return result


def _one_pass(
    nets: tuple[Mapping[str, zarr.Array], Mapping[str, zarr.Array]],
    pairs: Sequence[Pair],
    kept: tuple[Mapping[str, zarr.Group], Mapping[str, zarr.Group]],
    unequal: Unequal,
    cut: Cut,
    **options: Any,
) -> Iterator[LayerPair]:
    names = [list(dict.fromkeys(pair[side] for pair in pairs)) for side in (0, 1)]
    own = [{layer: Grid.of(nets[side][layer]) for layer in names[side]} for side in (0, 1)]
    grids = {(x, y): own[0][x].common(own[1][y], unequal) for x, y in pairs}
    groups = [
        Group.of(grid, (pair for pair in pairs if grids[pair] == grid))
        for grid in dict.fromkeys(grids.values())
    ]
    # Numbers of those layers of each group whose moments within the layer are not kept.
    inner = [
        [
            number
            for number, (side, layer) in enumerate(group.layers)
            if layer not in kept[side] or own[side][layer] != group.grid
        ]
        for group in groups
    ]

    def reduce(start: int, *pieces: NDArray) -> list[Moments]:
        of = (
            dict(zip(names[0], pieces[: len(names[0])], strict=True)),
            dict(zip(names[1], pieces[len(names[0]) :], strict=True)),
        )
        return [
            moments
            for group, numbers in zip(groups, inner, strict=True)
            for moments in moments_of_layers(
                [group.grid.arrange(of[0][layer]) for layer in group.a],
                [group.grid.arrange(of[1][layer]) for layer in group.b],
                group.strips,
                numbers,
            )
        ]

    arrays = [nets[side][layer] for side in (0, 1) for layer in names[side]]
    reduction = Reduction(tuple(range(len(arrays))), reduce, _merge, save={}, cut=cut)
    [parts] = reduce_stores(arrays, [reduction], rows=_rows(arrays), **options)
    made = (Blocks(cut, list(moments)) for moments in zip(*parts, strict=True))
    found: dict[Pair, LayerPair] = {}
    for group, numbers in zip(groups, inner, strict=True):
        strips = list(itertools.islice(made, len(group.strips)))
        within = {group.layers[number]: next(made) for number in numbers}
        for side, layer in group.layers:
            if (side, layer) not in within:
                within[side, layer] = load_blocks(kept[side][layer]).at(cut.edges)
        for (rows, columns), strip in zip(group.strips, strips, strict=True):
            for (x, units_x), (y, units_y) in itertools.product(
                _slices(nets[0], group.a[rows]), _slices(nets[1], group.b[columns])
            ):
                between = Blocks(cut, [moments.part(units_x, units_y) for moments in strip.moments])
                grid = _described(group.grid, own[0][x], own[1][y])
                found[x, y] = LayerPair(x, y, grid, (between, within[0, x], within[1, y]))
    yield from (found[pair] for pair in pairs)


def _slices(arrays: Mapping[str, zarr.Array], layers: Sequence[str]) -> Iterator[tuple[str, slice]]:
    """Yield layers that stand side by side, each with the columns of its units."""
    stop = 0
    for layer in layers:
        start, stop = stop, stop + arrays[layer].shape[-1]
        yield layer, slice(start, stop)


def _described(grid: Grid, a: Grid, b: Grid) -> str:
    if a == b:
        return "equal"
    return f"pooled {'x'.join(map(str, grid.shape))}" if grid.shape else "mean"


def _merge(first: list[Moments], second: list[Moments]) -> list[Moments]:
    return [x.merge(y) for x, y in zip(first, second, strict=True)]


def _rows(arrays: Sequence[zarr.Array]) -> int:
    """Count the images that one leaf reads: whole chunks of most layers, as far as they fit."""
    fit = 2 * LEAF_BYTES * arrays[0].shape[0] // sum(array.nbytes for array in arrays)
    chunk = max((n for n in (array.chunks[0] for array in arrays) if n <= fit), default=1)
    return max(1, fit // chunk * chunk)


def _named(arrays: Mapping[str, zarr.Array]) -> str:
    """Return the path of the store of some arrays."""
    return str(next(iter(arrays.values())).store_path.store.root)
