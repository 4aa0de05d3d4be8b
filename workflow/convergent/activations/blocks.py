"""Blocks of images, the same for a whole run, and the moments of each.

The images of a run are recorded in a random order, so that a run of consecutive rows is a random
part of them. The edges of blocks depend only on the numbers of images and of blocks, so that they
are the same for every layer, net and pair. Split halves, held-out scores and jackknife intervals
come from the stored moments of blocks, without a second pass over the activations.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from convergent.activations.moments import Moments
from convergent.running.stores import StoreError, save

# Largest size of the stored blocks of a layer, as float32.
BLOCKS_BYTES = 256 * 2**20
# Arrays of the moments of blocks, and their axes after the block axis.
FIELDS = {
    "count": (),
    "mean_x": ("unit_a",),
    "mean_y": ("unit_b",),
    "var_x": ("unit_a",),
    "var_y": ("unit_b",),
    "correlation": ("unit_a", "unit_b"),
}


class Cut(NamedTuple):
    """Rows at which the images of a run are cut into blocks.

    Attributes
    ----------
    edges : ndarray of shape (block + 1,), int64
        First row of each block, and the number of images.
    half : int
        First row of the last half of the blocks; one of `edges`.
    """

    edges: NDArray[np.int64]
    half: int

    @classmethod
    def of(cls, images: int, blocks: int) -> Cut:
        """Cut images into blocks whose sizes differ by at most one image.

        If the number of blocks is odd, the first half has one block more.

        Raises
        ------
        ValueError
            If there are fewer than two blocks, or fewer images than blocks.
        """
        if blocks < 2:
            raise ValueError(f"{blocks} blocks cannot be split into halves; at least 2 are needed")
        if images < blocks:
            raise ValueError(f"{images} images cannot make {blocks} blocks")
        edges = np.linspace(0, images, blocks + 1).astype(np.int64)
        return cls(edges, int(edges[(blocks + 1) // 2]))

    def coarsen(self, units_a: int, units_b: int) -> Cut:
        """Merge neighbouring blocks of a wide layer until their moments fit into 256 MiB.

        The number of neighbours is a power of two, counted from the start of each half, and no
        blocks are merged across the middle. The blocks of a wider layer are therefore unions of
        those of a narrower one, and the halves are the same in all layers.
        """
        middle = int(np.searchsorted(self.edges, self.half))
        last = len(self.edges) - 1
        neighbours = 1
        while True:
            starts = [*range(0, middle, neighbours), *range(middle, last, neighbours)]
            if len(starts) == 2 or 4 * units_a * units_b * len(starts) <= BLOCKS_BYTES:
                return Cut(self.edges[[*starts, last]], self.half)
            neighbours *= 2

    def across(self, start: int, stop: int) -> tuple[int, list[int]]:
        """Find the first block of rows `start` to `stop`, and the rows at which they are cut.

        The first of these rows is `start` and the last is `stop`.
        """
        inner = self.edges[(self.edges > start) & (self.edges < stop)].tolist()
        return int(np.searchsorted(self.edges, start, side="right")) - 1, [start, *inner, stop]


class Parts(NamedTuple):
    """Moments of images, and of each half of them.

    Attributes
    ----------
    whole : Moments
    halves : (Moments, Moments), optional
        None if one half has no images.
    """

    whole: Moments
    halves: tuple[Moments, Moments] | None


class Blocks(NamedTuple):
    """Moments of every block of images.

    Attributes
    ----------
    cut : Cut
    moments : list of Moments
        One for each block.
    """

    cut: Cut
    moments: list[Moments]

    def total(self) -> Moments:
        """Merge all blocks."""
        return reduce(Moments.merge, self.moments)

    def halves(self) -> tuple[Moments, Moments]:
        """Merge the blocks of the first and those of the last half of the images."""
        middle = int(np.searchsorted(self.cut.edges, self.cut.half))
        first, last = (
            reduce(Moments.merge, part) for part in (self.moments[:middle], self.moments[middle:])
        )
        return first, last

    def parts(self) -> Parts:
        """Merge all blocks, and those of each half."""
        first, last = self.halves()
        return Parts(first.merge(last), (first, last))

    def parts_without(self, halves: tuple[Moments, Moments]) -> Iterator[Parts]:
        """Merge all blocks but one, and those of each half, for each block in turn.

        Parameters
        ----------
        halves : (Moments, Moments)
            Those with all blocks, from :meth:`parts`.
        """
        middle = int(np.searchsorted(self.cut.edges, self.cut.half))
        for side, own in enumerate((self.moments[:middle], self.moments[middle:])):
            if len(own) == 1:
                yield Parts(halves[1 - side], None)
                continue
            for rest in Blocks(self.cut, own).leave_one_out():
                left = (halves[0], rest) if side else (rest, halves[1])
                yield Parts(left[0].merge(left[1]), left)

    def leave_one_out(self) -> Iterator[Moments]:
        """Merge all blocks but one, for each block in turn, as a delete-one jackknife needs."""
        after: list[Moments | None] = [None]
        for moments in self.moments[:0:-1]:
            after.append(moments if after[-1] is None else moments.merge(after[-1]))
        before: Moments | None = None
        for moments in self.moments:
            rest = after.pop()
            # There are at least two blocks, so that one of the two is a Moments.
            yield before.merge(rest) if before and rest else before or rest  # type: ignore[misc]
            before = moments if before is None else before.merge(moments)

    def at(self, edges: NDArray[np.int64]) -> Blocks:
        """Merge neighbouring blocks into those between `edges`.

        Raises
        ------
        ValueError
            If one of `edges` is not an edge of these blocks.
        """
        if not np.isin(edges, self.cut.edges).all():
            raise ValueError(f"blocks cut at {self.cut.edges} cannot be merged to {edges}")
        places = np.searchsorted(self.cut.edges, edges)
        return Blocks(
            Cut(np.asarray(edges), self.cut.half),
            [reduce(Moments.merge, self.moments[i:j]) for i, j in itertools.pairwise(places)],
        )


def aligned(several: Sequence[Blocks]) -> list[Blocks]:
    """Merge the blocks of several layers, nets or pairs into the finest that all have in common.

    Raises
    ------
    ValueError
        If the numbers of images differ, or the rows at which the images are cut into halves.
    """
    if len({(b.cut.edges[-1], b.cut.half) for b in several}) > 1:
        cuts = ", ".join(f"{b.cut.edges[-1]} images halved at {b.cut.half}" for b in several)
        raise ValueError(f"blocks of different images, or different numbers of blocks: {cuts}")
    edges = reduce(np.intersect1d, [blocks.cut.edges for blocks in several])
    return [blocks.at(edges) for blocks in several]


def save_blocks(group: zarr.Group, blocks: Blocks) -> None:
    """Write the moments of blocks under ``blocks``: one array for each field, block axis first.

    Correlations are stored in place of co-moments: in float32 they lose at most 6e-8, whatever
    the scale of the units. Means and variances are float64. `edges` holds the rows at which the
    images are cut; the attribute `half` is the row at which the last half of the blocks begins.
    """
    target = group.create_group("blocks")
    target.attrs["half"] = blocks.cut.half
    save(target, "edges", blocks.cut.edges, ("edge",))
    for name, axes in FIELDS.items():
        if name == "correlation":
            values = [m.correlation().astype(np.float32) for m in blocks.moments]
        else:
            values = [getattr(m, name) for m in blocks.moments]
        save(target, name, np.stack(values), ("block", *axes))


def load_blocks(group: zarr.Group) -> Blocks:
    """Read back what :func:`save_blocks` wrote, in float64."""
    source = group["blocks"]
    fields = (source[name][...] for name in FIELDS)
    moments = [
        Moments.of_correlation(int(count), *values) for count, *values in zip(*fields, strict=True)
    ]
    return Blocks(Cut(source["edges"][...], source.attrs["half"]), moments)


def half_correlations(group: zarr.Group) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Correlate a layer's units over the first and over the last half of the images.

    All groups of a run have the same images in each half, however wide the layers are.
    """
    first, last = load_blocks(group).halves()
    return first.correlation(), last.correlation()


def check_halves(groups: Sequence[zarr.Group]) -> None:
    """Check that several groups have the same images in each half.

    Raises
    ------
    StoreError
        If they do not; names the stores.
    """
    cuts = {(int(g["blocks/edges"][-1]), g["blocks"].attrs["half"]) for g in groups}
    if len(cuts) > 1:
        stores = ", ".join(str(g.store_path) for g in groups)
        raise StoreError(
            f"{stores}: images are cut into halves at different rows ("
            + ", ".join(f"{images} at {half}" for images, half in sorted(cuts))
            + "); make them from the same images with the same statistics.blocks"
        )
