"""Chance where the second net sees the images in another order: they are turned cyclically.

The images of a run stand in a random order. If image i of the first net meets image i + k of the
second, for k from 1 up to the number of images less one, nothing but the choice of images is left
in common. With k = 0, the true order, these turns are a group, so that p is exact for any number
of images. Images are turned as wholes: positions keep their place, and every layer is turned alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from convergent.activations.blocks import Cut
from convergent.activations.from_stores import leaf_rows
from convergent.activations.grids import Grid, Unequal
from convergent.activations.moments import TILE, Moments, widen
from convergent.activations.samples import Places, Samples, sample_rows
from convergent.inference.comparisons import OF_PAIRS
from convergent.measures.evidence import Evidence, Split
from convergent.running.stores import StoreError

# Largest layer that is held in memory, as float32; a larger one is held slice by slice.
HELD_BYTES = 256 * 2**20
# Co-moments of draws that are added up in one pass, in float64. A single draw may take more.
DRAWS_BYTES = 2**30


def turns(
    split: Split,
    a: zarr.Array | NDArray,
    b: zarr.Array | NDArray,
    draws: int,
    seed: int | Sequence[int],
    *,
    cut: Cut,
    samples: Samples | None = None,
    edges: NDArray | None = None,
    information_draws: int | None = None,
    unequal: Unequal = "pool",
    workers: int = 1,
) -> Iterator[Split]:
    """Turn the images of the second layer by random distinct offsets.

    Parameters
    ----------
    split : Split
        Evidence from the same images, all of them.
    a, b : zarr.Array or ndarray of shape (image, ..., unit)
        Activations of the two layers.
    draws : int
        Number of turns; there are at most as many as images, less one.
    seed : int or sequence of int
        Turn i depends on the seed, i and the number of images only, so that all layers and
        pairs of a run are turned alike.
    cut : Cut
        The number of images, and where they are halved.
    samples : Samples, optional
        Samples that the codes of the split are of (:func:`kept_samples`). Without them turns have
        no codes.
    edges : ndarray of shape (unit_b, edge), optional
        Ends of the bins of the second layer. Unless all positions of all images are samples, the
        activations of the turned images at the samples' positions are read and coded by them.
    information_draws : int, optional
        Number of turns that have codes; all by default.
    unequal : {"pool", "mean"}
        How maps of different sizes are compared, as where `split` was made.
    workers : int
        Threads, each of which multiplies for another turn.

    Yields
    ------
    Split
        With halves if `split` has them.

    Raises
    ------
    ValueError
        If arrays and `cut` differ in their images.
    StoreError
        If an activation is NaN or infinite.

    Notes
    -----
    Each turn takes one product of the two layers, in float32, added up in float64. Each layer of up
    to :data:`HELD_BYTES` is read once. Of two larger ones, the smaller is read once, and the
    larger once for every slice of the other. Where random positions of each image were recorded,
    the first position of one image meets the first of another, and so on.
    """
    images = int(cut.edges[-1])
    offsets = _offsets(images, draws, seed)
    codes = _turned_codes(split.whole, b, images, samples, edges, offsets[:information_draws])
    for name, array in (("a", a), ("b", b)):
        if array.shape[0] != images:
            raise ValueError(f"{name} has {array.shape[0]} images, but {images} are cut")
    made = _turned_moments(split, a, b, cut.half, offsets, unequal, workers)
    # Pairs of images may be known of fewer images, which are turned among themselves.
    of_pairs = {name: getattr(split.whole, name) for name in OF_PAIRS}
    places = {name: _offsets(len(z[1]), draws, seed) for name, z in of_pairs.items() if z}
    for draw, (offset, turned) in enumerate(zip(offsets.tolist(), made, strict=True)):
        means = split.whole.image_means
        if means:
            means = means[0], np.roll(means[1], -offset, axis=0)
        compared = dict.fromkeys(OF_PAIRS)
        for name, turns_ in places.items():
            if draw < len(turns_):
                one, other = of_pairs[name]
                compared[name] = one, np.roll(other, [-turns_[draw]] * 2, axis=(0, 1))
        coded = split.whole.codes if draw < len(codes) else None
        turns_of = {"image_means": offset}
        turns_of |= {name: int(each[draw]) for name, each in places.items() if draw < len(each)}
        whole = split.whole.seeing(
            turned.between,
            turns_of,
            image_means=means,
            **compared,
            codes=(coded[0], codes[draw]) if coded else None,
        )
        halves = turned.halves
        if halves and means:
            parts = (slice(cut.half), slice(cut.half, None))
            first, last = (
                half.seeing(half.between, image_means=(means[0][part], means[1][part]))
                for half, part in zip(halves, parts, strict=True)
            )
            halves = first, last
        yield Split(whole, halves)


def kept_samples(statistics: zarr.Group, activations: zarr.Group, layer: str) -> Samples:
    """Read of which rows and recorded positions a layer's codes are.

    Parameters
    ----------
    statistics, activations : zarr.Group
        Stores of the statistics and of the activations of a net.
    layer : str
    """
    rows, place = sample_rows(statistics, layer), statistics[layer]["sample_position"][...]
    positions = Places.of(activations, layer).positions
    # The places of an image ascend.
    number = place if positions is None else (positions[rows] < place[:, None]).sum(axis=1)
    return Samples(rows, number)


def _offsets(images: int, draws: int, seed: int | Sequence[int]) -> NDArray[np.int64]:
    """Choose distinct turns, of which each only depends on its number."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(images,)))
    return 1 + rng.permutation(images - 1)[:draws]


class _Turned(NamedTuple):
    """Moments between the layers for a turn, and the evidence of both halves."""

    between: Moments
    halves: tuple[Evidence, Evidence] | None


class _Layer:
    """A layer as float32, near 0 and in range, which is held in memory if it fits.

    Attributes
    ----------
    shift : ndarray of shape (unit,)
        Mean of each unit whose mean exceeds three deviations, else 0; subtracted from it.
    exponent : ndarray of shape (unit,)
        Power of two by which its units are divided, of units whose squares float32 cannot hold.
    held : ndarray of shape (image, position, unit), or None
    rows : int
        Images that are read at once.
    """

    def __init__(self, array: zarr.Array | NDArray, grid: Grid, within: Moments):
        self.array, self.grid = array, grid
        wide = array.dtype == np.float64
        mean, std = within.mean_x, np.sqrt(within.var_x)
        kept = mean if wide else mean.astype(np.float32)
        self.shift = np.where(np.abs(mean) > 3 * std, kept, kept.dtype.type(0))
        size = np.frexp(std)[1]
        self.exponent = np.where((std > 0) & (np.abs(size) > 30), size, 0)
        self.images, self.units = array.shape[0], array.shape[-1]
        self.positions = int(np.prod(grid.shape))
        self.bytes = 4 * int(np.prod(array.shape))
        self.held: NDArray[np.float32] | None = None
        self.rows = self.images
        if self.bytes <= HELD_BYTES:
            self.held = self.read(0, self.images)
        else:
            self.rows = leaf_rows(array) if isinstance(array, zarr.Array) else self.fit

    @property
    def fit(self) -> int:
        """Count the images that are held at once."""
        return max(1, HELD_BYTES * self.images // max(self.bytes, 1))

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Read images as (image, position, unit)."""
        if self.held is not None:
            return self.held[start:stop]
        x = self.grid.arrange(self.array[start:stop])
        if x.dtype == np.float16:
            x = widen(x)
        if self.shift.any():
            x = x - self.shift
        if self.exponent.any():
            x = np.ldexp(x, -self.exponent)
        return x.astype(np.float32, copy=False).reshape(stop - start, self.positions, self.units)

    def scaled(self, mean: NDArray) -> NDArray:
        """Shift and scale a mean as the activations."""
        return np.ldexp(mean - self.shift, -self.exponent)


def _turned_moments(
    split: Split,
    a: zarr.Array | NDArray,
    b: zarr.Array | NDArray,
    half: int,
    offsets: NDArray[np.int64],
    unequal: Unequal,
    workers: int,
) -> Iterator[_Turned]:
    """Compute the moments of every turn; see :func:`turns`."""
    own = [
        Grid.of(array) if isinstance(array, zarr.Array) else Grid(array.shape[1:-1])
        for array in (a, b)
    ]
    grid = own[0].common(own[1], unequal)
    whole = split.whole
    x, y = _Layer(a, grid, whole.within_a), _Layer(b, grid, whole.within_b)
    size = 8 * 2 * (x.units + y.units) * y.units
    some = max(1, DRAWS_BYTES // size)
    for first in range(0, len(offsets), some):
        batch = offsets[first : first + some].tolist()
        # Many threads for one small product would wait for each other most of the time.
        with threadpool_limits(max(1, workers // len(batch)), "blas"):
            products = _products(x, y, batch, half if split.halves else x.images, workers)
            sums = _Ranges.of(y, batch, half) if split.halves else None
        if not np.isfinite(products).all():
            stores = " or ".join(str(getattr(z, "store_path", "an array")) for z in (a, b))
            raise StoreError(f"{stores}: activations contain NaN or infinity")
        for draw, offset in enumerate(batch):
            if not split.halves or not sums:
                raw = whole.between._replace(comoment=products[draw, 0])
                yield _Turned(_centred(x, y, raw), None)
                continue
            pairs = []
            for part, (start, stop) in enumerate([(0, half), (half, x.images)]):
                mine = split.halves[part].within_a
                other = sums.within(start + offset, stop + offset)
                means, variances = (mine.mean_x, other.mean_x), (mine.var_x, other.var_x)
                raw = Moments(other.count, *means, *variances, products[draw, part])
                pairs.append((_centred(x, y, raw), other))
            varies = whole.live[1] & (pairs[0][1].var_x > 0) & (pairs[1][1].var_x > 0)
            among = split.halves[0].live[0], varies
            first_half, last_half = (
                before.seeing(crossed, within_b=other, image_means=None, codes=None, among=among)
                for (crossed, other), before in zip(pairs, split.halves, strict=True)
            )
            merged = first_half.between.merge(last_half.between)
            # Turns change nothing within a layer.
            between = whole.between._replace(comoment=merged.comoment)
            yield _Turned(between, (first_half, last_half))


def _centred(x: _Layer, y: _Layer, raw: Moments) -> Moments:
    """Turn sums of products of two scaled layers, in place of co-moments, into co-moments."""
    comoment = raw.comoment - raw.count * np.outer(x.scaled(raw.mean_x), y.scaled(raw.mean_y))
    return raw._replace(comoment=np.ldexp(comoment, np.add.outer(x.exponent, y.exponent)))


def _products(
    x: _Layer, y: _Layer, offsets: Sequence[int], half: int, workers: int
) -> NDArray[np.float64]:
    """Add up products of image i of `x` and image i + offset of `y`.

    Returns
    -------
    ndarray of shape (offset, part, unit_x, unit_y)
        Parts are the images i before and after `half`; one part if that is the end.
    """
    images = x.images
    parts = 1 if half == images else 2
    total = np.zeros((len(offsets), parts, x.units, y.units))
    # The smaller layer is read once, and held slice by slice while the other streams by.
    turned = y.bytes < x.bytes
    held, streamed = (y, x) if turned else (x, y)
    slices = images if held.held is not None else held.fit

    def add(draw: int) -> None:
        offset = -offsets[draw] if turned else offsets[draw]
        for row, stop, place in _runs(
            start, start + len(here), first, first + len(there), offset, images
        ):
            # Cut where the images of x are halved.
            begin = place if turned else row
            middle = min(max(half - begin, 0), stop - row)
            for part, (i, j) in enumerate([(0, middle), (middle, stop - row)][:parts]):
                mine = here[row - start + i : row - start + j]
                other = there[place - first + i : place - first + j]
                if turned:
                    mine, other = other, mine
                _add_product(_flat(mine), _flat(other), total[draw, part])

    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, images, slices):
            here = held.read(start, min(start + slices, images))
            for first in range(0, images, streamed.rows):
                last = min(first + streamed.rows, images)
                spans = (start, start + len(here), first, last)
                signed = [-offset if turned else offset for offset in offsets]
                met = [d for d, o in enumerate(signed) if any(_runs(*spans, o, images))]
                if met:
                    there = streamed.read(first, last)
                    list(pool.map(add, met))
    return total


def _runs(
    start: int, stop: int, first: int, last: int, offset: int, images: int
) -> Iterator[tuple[int, int, int]]:
    """Yield runs of rows from `start` to `stop` whose turned rows lie from `first` to `last`.

    Each run is its first row, the row after its last, and the turned row of its first. Row r turns
    to (r + offset) modulo `images`.
    """
    for turn in (-images, 0, images):
        low = max(start, first - offset + turn)
        high = min(stop, last - offset + turn)
        if low < high:
            yield low, high, low + offset - turn


def _flat(block: NDArray) -> NDArray:
    """Reshape (image, position, unit) to (sample, unit)."""
    return block.reshape(-1, block.shape[-1])


@np.errstate(invalid="ignore", over="ignore")  # infinities are found later
def _add_product(x: NDArray, y: NDArray, total: NDArray[np.float64]) -> None:
    """Add x' y to `total`, each product of few rows in float32, as `Moments.of` does."""
    rows = max(TILE, *total.shape)
    for start in range(0, len(x), rows):
        total += x[start : start + rows].T @ y[start : start + rows]


class _Ranges(NamedTuple):
    """Sums of a layer over ranges of images that begin and end at given rows.

    Attributes
    ----------
    layer : _Layer
    points : list of int
        These rows, ascending, from 0 to the number of images.
    sums : ndarray of shape (point, unit)
        Sums of all images before each row.
    squares : ndarray of shape (point, unit, unit)
        Sums of products of units.
    """

    layer: _Layer
    points: list[int]
    sums: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, layer: _Layer, offsets: Sequence[int], half: int) -> _Ranges:
        """Add up what the halves of turned images need, in one pass."""
        images = layer.images
        inner = {place % images for offset in offsets for place in (offset, offset + half)}
        points = sorted({0, images} | inner)
        sums = np.zeros((len(points), layer.units))
        squares = np.zeros((len(points), layer.units, layer.units))
        for first in range(0, images, layer.rows):
            last = min(first + layer.rows, images)
            block = layer.read(first, last)
            for number, (start, stop) in enumerate(itertools.pairwise(points), 1):
                start, stop = max(start, first), min(stop, last)
                if start < stop:
                    rows = _flat(block[start - first : stop - first])
                    sums[number] += rows.sum(axis=0, dtype=np.float64)
                    _add_product(rows, rows, squares[number])
        np.cumsum(sums, axis=0, out=sums)
        np.cumsum(squares, axis=0, out=squares)
        return cls(layer, points, sums, squares)

    def within(self, start: int, stop: int) -> Moments:
        """Return the moments of images from `start` up to `stop`, counted on past the end."""
        layer, images = self.layer, self.layer.images
        first, last = (self.points.index(place % images) for place in (start, stop))
        total, square = self.sums[last] - self.sums[first], self.squares[last] - self.squares[first]
        if start // images < stop // images:
            total, square = total + self.sums[-1], square + self.squares[-1]
        count = (stop - start) * layer.positions
        mean = total / count
        square -= count * np.outer(mean, mean)
        var = np.ldexp(np.maximum(square.diagonal() / count, 0), 2 * layer.exponent)
        mean = np.ldexp(mean, layer.exponent) + layer.shift
        comoment = np.ldexp(square, np.add.outer(layer.exponent, layer.exponent))
        return Moments(count, mean, mean, var, var, comoment)


def _turned_codes(
    whole: Evidence,
    b: zarr.Array | NDArray,
    images: int,
    samples: Samples | None,
    edges: NDArray | None,
    offsets: NDArray[np.int64],
) -> list[NDArray[np.uint8]]:
    """Code the second layer's activations at the samples of turned images, for each turn."""
    if whole.codes is None or samples is None:
        return []
    codes = whole.codes[1]
    positions = len(codes) // images
    if len(codes) == images * (samples.position.max() + 1):
        by_image = codes.reshape(images, positions, -1)
        return [np.roll(by_image, -offset, axis=0).reshape(codes.shape) for offset in offsets]
    if edges is None:
        return []
    found = [np.empty_like(codes) for _ in offsets]
    rows = leaf_rows(b) if isinstance(b, zarr.Array) else images
    for first in range(0, images, rows):
        block = b[first : first + rows]
        block = block.reshape(len(block), -1, block.shape[-1])
        for offset, each in zip(offsets, found, strict=True):
            image = (samples.image + offset) % images - first
            here = np.flatnonzero((image >= 0) & (image < len(block)))
            each[here] = _encode(block[image[here], samples.position[here]], edges)
    return found


def _encode(x: NDArray, edges: NDArray) -> NDArray[np.uint8]:
    """Count the edges of each unit that lie below its activations (sample, unit)."""
    codes = np.empty(x.shape, np.uint8)
    for unit, ends in enumerate(edges):
        codes[:, unit] = np.searchsorted(ends, x[:, unit].astype(np.float64))
    return codes
