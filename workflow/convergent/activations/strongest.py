"""The images that excite each unit most (section 3.1 of the paper shows nine of each).

Units that are not behind a ReLU also have images that drive them furthest below zero.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from convergent.activations.moments import widen
from convergent.activations.samples import Places
from convergent.running.stores import save

# Number of images of each unit, as in the paper.
IMAGES = 9
# Number of images whose peaks are compared first.
FIRST = 32


class Strongest(NamedTuple):
    """Largest activations of each unit, at most one from each image, in falling order.

    Immutable; start with :meth:`of`, update with :meth:`merge`. The result does not depend on the
    blocks of images, nor on the order in which they are merged. Equal values are in the order of
    their images; if an image has its largest value at several positions, the first counts. If
    there are too few images, the remaining places have value -inf and image and position -1.

    Attributes
    ----------
    value : ndarray of shape (unit, rank), float32
    image, position : ndarray of shape (unit, rank), int64
        Row of the image, and of the position among those of the image.
    """

    value: NDArray[np.float32]
    image: NDArray[np.int64]
    position: NDArray[np.int64]

    @classmethod
    def of(cls, block: NDArray, start: int = 0, number: int = IMAGES) -> Strongest:
        """Find the strongest images of a block.

        Parameters
        ----------
        block : ndarray of shape (image, ..., unit)
            Activations, float16 or float32.
        start : int
            Row of the block's first image.
        number : int
            Images of each unit.

        Raises
        ------
        FloatingPointError
            If one of the strongest activations is NaN or infinite.
        """
        return cls._of_peaks(block, _peaks(block)[0], start, number)

    @classmethod
    def _of_peaks(
        cls, block: NDArray, peaks: NDArray, start: int, number: int, above: float = -np.inf
    ) -> Strongest:
        """Find the largest peaks (image, unit) that are above a number, and where they are."""
        units = block.shape[-1]
        block = block.reshape(len(block), -1, units)
        best = cls(
            np.full((units, number), above, np.float32),
            *np.full((2, units, number), -1),
        )
        first = 0
        while first < len(block):
            # Ever fewer images enter; each run, twice as long as the last, admits about as many.
            last = first + max(FIRST, first)
            best = _entered(best, block, peaks, first, last, start)
            first = last
        return best

    def merge(self, other: Strongest) -> Strongest:
        """Find the strongest images of two disjoint blocks together."""
        value = np.concatenate([self.value, other.value], axis=1)
        image = np.concatenate([self.image, other.image], axis=1)
        position = np.concatenate([self.position, other.position], axis=1)
        order = np.lexsort((image, -value))[:, : self.value.shape[1]]
        return Strongest(
            *(np.take_along_axis(part, order, axis=1) for part in (value, image, position))
        )


class Extremes(NamedTuple):
    """Strongest images of each unit and, where there are negative activations, the weakest.

    Like :class:`Strongest`, it does not depend on the blocks of images.

    Attributes
    ----------
    strongest : Strongest
    weakest : Strongest or None
        Magnitudes of the most negative activations of each unit, at most one from each image, in
        falling order. Only negative activations count; places that remain have value 0 and image
        and position -1. None if no block can have any.
    """

    strongest: Strongest
    weakest: Strongest | None

    @classmethod
    def of(cls, block: NDArray, start: int = 0, number: int = IMAGES) -> Extremes:
        """Find the strongest and weakest images of a block; see :meth:`Strongest.of`."""
        peaks, depths = _peaks(block)
        strongest = Strongest._of_peaks(block, peaks, start, number)
        if depths is None:
            return cls(strongest, None)
        # The bits are largest where the peak of the depths is.
        return cls(strongest, Strongest._of_peaks(_bits(block), depths, start, number, above=0))

    def merge(self, other: Extremes) -> Extremes:
        """Find the strongest and weakest images of two disjoint blocks together."""
        weakest = self.weakest or other.weakest
        if self.weakest and other.weakest:
            weakest = self.weakest.merge(other.weakest)
        return Extremes(self.strongest.merge(other.strongest), weakest)


class Top(NamedTuple):
    """Strongest images of each unit in falling order, or weakest in rising, as stores hold them.

    Attributes
    ----------
    value : ndarray of shape (unit, rank), float32
        NaN in the remaining places if there are too few images.
    image, y, x : ndarray of shape (unit, rank), int64
        Place of the image in the data set, and position in the map. `x` is 0 in layers of tokens,
        whose `y` is the number of the token; both are 0 in layers without positions, and all
        are -1 in the remaining places.
    """

    value: NDArray[np.float32]
    image: NDArray[np.int64]
    y: NDArray[np.int64]
    x: NDArray[np.int64]

    @classmethod
    def of(cls, strongest: Strongest, image_index: NDArray[np.integer], places: Places) -> Top:
        """Look up the images in their data set, and the recorded positions in the map.

        Parameters
        ----------
        strongest : Strongest
        image_index : ndarray of shape (image,)
            The images' places in their data set.
        places : Places
            Recorded positions of the layer.
        """
        filled = strongest.image >= 0
        flat = places.flat(strongest.image, strongest.position)
        where = (image_index[strongest.image], *np.divmod(flat, places.width))
        return cls(
            np.where(filled, strongest.value, np.nan),
            *(np.where(filled, part, -1) for part in where),
        )

    @classmethod
    def load(cls, group: zarr.Group) -> Top:
        """Read back what :meth:`save` wrote."""
        return cls(*(group[name][...] for name in cls._fields))

    def save(self, group: zarr.Group) -> None:
        """Write one array for each field."""
        for name, values in self._asdict().items():
            save(group, name, values, ("unit", "rank"))


def _entered(
    best: Strongest, block: NDArray, peaks: NDArray, first: int, last: int, start: int
) -> Strongest:
    """Enter activations above `best` in rows `first` to `last` of a block from `start` on."""
    row, unit, value = _entrants(peaks[first:last], best.value[:, -1])
    if not np.isfinite(value).all():
        raise FloatingPointError("activations contain NaN or infinity")
    row += first
    number = best.value.shape[1]
    hit, begin, count = np.unique(unit, return_index=True, return_counts=True)
    # Entries of `best` come first, so that the earlier of two images with equal values wins.
    line = np.repeat(np.arange(len(hit)), count)
    slot = number + np.arange(len(unit)) - np.repeat(begin, count)
    candidates = np.full((len(hit), number + count.max(initial=0)), -np.inf, np.float32)
    candidates[:, :number], candidates[line, slot] = best.value[hit], value
    order = np.argsort(-candidates, axis=1, kind="stable")[:, :number]
    best.value[hit] = np.take_along_axis(candidates, order, axis=1)
    line, rank = np.nonzero(order >= number)
    entered = begin[line] + order[line, rank] - number
    place = block[row[entered], :, unit[entered]].argmax(axis=1)
    for part, new in ((best.image, start + row[entered]), (best.position, place)):
        updated = np.take_along_axis(part[hit], np.minimum(order, number - 1), axis=1)
        updated[line, rank] = new
        part[hit] = updated
    return best


def _peaks(block: NDArray) -> tuple[NDArray, NDArray[np.unsignedinteger] | None]:
    """Compute the extremes of each image and unit of (image, ..., unit).

    Returns
    -------
    peaks : ndarray of shape (image, unit)
        Largest values; as their bits, unsigned integers in the order of the values, if no value of
        the block has a minus sign.
    depths : ndarray of shape (image, unit), or None if no value has a minus sign
        Bits of the largest magnitudes of negative values, 0 where there are none.
    """
    # As unsigned integers, negative numbers are in the order of their magnitudes, and above all
    # others.
    bits = _over_positions(_bits(block))
    sign = bits.dtype.type(1 << (8 * bits.itemsize - 1))
    if bits.max() < sign:
        return bits, None
    peaks = _over_positions(widen(block) if block.dtype == np.float16 else block)
    return peaks, np.where(bits < sign, 0, bits & ~sign)


def _bits(block: NDArray) -> NDArray[np.unsignedinteger]:
    """View floating-point numbers as unsigned integers."""
    return block.view(f"u{block.itemsize}")


def _over_positions(block: NDArray) -> NDArray:
    """Take maxima over one axis at a time, which is fastest on rows adjacent in memory."""
    while block.ndim > 2:
        block = block.max(axis=1)
    return block


def _entrants(
    peaks: NDArray, floor: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """List row, unit and value of peaks (image, unit) above their unit's floor, by unit and row."""
    kind = np.dtype(f"f{peaks.itemsize}")
    if peaks.dtype.kind == "u":
        above = peaks > _bits(np.maximum(floor, 0).astype(kind))
        above[:, floor < 0] = True
    else:
        above = ~(peaks <= floor)  # NaN as well
    row, unit = np.divmod(np.flatnonzero(above), peaks.shape[1])
    order = np.argsort(unit, kind="stable")
    row, unit = row[order], unit[order]
    value = peaks[row, unit].view(kind)
    return row, unit, widen(value) if kind == np.float16 else value
