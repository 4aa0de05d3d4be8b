"""The images that excite each unit most (section 3.1 of the paper shows nine of each)."""

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
        units = block.shape[-1]
        peaks = _peaks(block)
        block = block.reshape(len(block), -1, units)
        best = cls(
            np.full((units, number), -np.inf, np.float32),
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


class Top(NamedTuple):
    """Strongest images of each unit in falling order, as stores hold them.

    Attributes
    ----------
    value : ndarray of shape (unit, rank), float32
        NaN in the remaining places if there are too few images.
    image, y, x : ndarray of shape (unit, rank), int64
        Place of the image in the data set, and position in the map; 0 in fully connected
        layers, -1 in the remaining places.
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


def _peaks(block: NDArray) -> NDArray:
    """Compute the largest value of each image and unit of (image, ..., unit).

    Values of float16 that are not negative are returned as their bits, which are in the order of
    the values; all others as float32.
    """
    if block.dtype == np.float16:
        peaks = _over_positions(block.view(np.uint16))
        if peaks.max() < 2**15:
            return peaks
        block = widen(block)
    return _over_positions(block).astype(np.float32)


def _over_positions(block: NDArray) -> NDArray:
    """Take maxima over one axis at a time, which is fastest on rows adjacent in memory."""
    while block.ndim > 2:
        block = block.max(axis=1)
    return block


def _entrants(
    peaks: NDArray, floor: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """List row, unit and value of peaks (image, unit) above their unit's floor, by unit and row."""
    if peaks.dtype == np.uint16:
        above = peaks > np.maximum(floor, 0).astype(np.float16).view(np.uint16)
        above[:, floor < 0] = True
    else:
        above = ~(peaks <= floor)  # NaN as well
    row, unit = np.divmod(np.flatnonzero(above), peaks.shape[1])
    order = np.argsort(unit, kind="stable")
    row, unit = row[order], unit[order]
    value = peaks[row, unit]
    return row, unit, widen(value.view(np.float16)) if value.dtype == np.uint16 else value
