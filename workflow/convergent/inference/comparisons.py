"""Two layers as they are compared: from all images, from each half, and without each block."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convergent.activations.blocks import Blocks, Cut, Parts
from convergent.activations.moments import Moments
from convergent.measures.evidence import Evidence, Split

# What is known of pairs of images, as the attributes are called.
OF_PAIRS = ("inner_products", "dissimilarities")
# Axes of images of what is known of images.
AXES = {"image_means": (0,), **dict.fromkeys(OF_PAIRS, (0, 1))}
Arrays = tuple[NDArray, NDArray]
Triple = tuple[Moments, Moments, Moments]


@dataclass(frozen=True)
class Comparison:
    """A layer of one net and a layer of another, and what is known of them by blocks of images.

    Attributes
    ----------
    layer_a, layer_b : str
    blocks : (Blocks, Blocks, Blocks)
        Moments between the layers, within the first and within the second, of the same blocks
        (:func:`convergent.activations.blocks.aligned`).
    grid : str
        How maps were compared: ``equal``, ``pooled HxW`` or ``mean``.
    image_means : (ndarray, ndarray) of shape (image, unit), optional
        Mean of each unit over each image.
    inner_products, dissimilarities : (ndarray, ndarray) of shape (image, image), optional
        Those of the first images, or of all.
    codes : (ndarray, ndarray) of shape (sample, unit), uint8, optional
        Codes of the samples of mutual information.
    sample_rows : ndarray of shape (sample,), optional
        Row of the image of each of these samples, ascending; without it there are no halves of the
        codes, and no intervals from them.
    threads : int
        Threads of measures of codes.
    """

    layer_a: str
    layer_b: str
    blocks: tuple[Blocks, Blocks, Blocks]
    grid: str = "equal"
    image_means: Arrays | None = None
    inner_products: Arrays | None = None
    dissimilarities: Arrays | None = None
    codes: Arrays | None = None
    sample_rows: NDArray[np.int64] | None = None
    threads: int = 1

    @property
    def cut(self) -> Cut:
        """Return the rows at which the images are cut."""
        return self.blocks[0].cut

    def edges(self, needs: str = "moments") -> NDArray[np.int64]:
        """Return the rows at which the images that a measure needs are cut into blocks.

        If it needs pairs of images, which are known of some images only, these are cut into as many
        blocks.
        """
        known = getattr(self, needs) if needs in OF_PAIRS else None
        if known is not None:
            images = len(known[0])
            if images < self.cut.edges[-1]:
                blocks = min(len(self.cut.edges) - 1, images)
                return np.linspace(0, images, blocks + 1).astype(np.int64)
        return self.cut.edges

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Count the images of each block."""
        return np.diff(self.cut.edges)

    @cached_property
    def _parts(self) -> list[Parts]:
        return [blocks.parts() for blocks in self.blocks]

    @cached_property
    def split(self) -> Split:
        """Collect what is known from all images, and from each half."""
        whole = Evidence(
            *_wholes(self._parts),
            image_means=self.image_means,
            inner_products=self.inner_products,
            dissimilarities=self.dissimilarities,
            codes=self.codes,
            threads=self.threads,
            images=int(self.cut.edges[-1]),
        )
        half = self.cut.half
        first, last = (
            Evidence(
                *_halves(self._parts)[side],
                image_means=_rows(self.image_means, rows),
                codes=self._codes(rows),
                among=whole.live,
                threads=self.threads,
                images=rows.stop - rows.start,
            )
            for side, rows in enumerate((slice(0, half), slice(half, int(self.cut.edges[-1]))))
        )
        return Split(whole, (first, last))

    def without(self, needs: Collection[str] = ()) -> Iterator[Split]:
        """Leave each block of images out in turn.

        Parameters
        ----------
        needs : collection of str
            What is needed besides moments: names of attributes.

        Yields
        ------
        Split
            Without codes: choices from their matrices are held fixed
            (:attr:`convergent.measures.registry.Measure.without`). The units that vary in all
            images count as live. The half that a block is left out of has moments only; there are
            no halves where nothing is left of it.
        """
        live = self.split.whole.live
        halves = _halves(self._parts)
        left = [
            blocks.parts_without((halves[0][number], halves[1][number]))
            for number, blocks in enumerate(self.blocks)
        ]
        middle = int(np.searchsorted(self.cut.edges, self.cut.half))
        for number, parts in enumerate(zip(*left, strict=True)):
            known: dict[str, Any] = {
                name: _without(getattr(self, name), self.edges(name), number, axes)
                for name, axes in AXES.items()
                if name in needs
            }
            whole = Evidence(
                *_wholes(parts),
                **known,
                among=live,
                threads=self.threads,
                images=int(self.cut.edges[-1] - self.sizes[number]),
            )
            if parts[0].halves is None:
                yield Split(whole)
                continue
            # The other half is the same, with what was computed from it.
            first, last = self.split.halves or (whole, whole)
            if number < middle:
                first = Evidence(*_halves(parts)[0], among=live)
            else:
                last = Evidence(*_halves(parts)[1], among=live)
            yield Split(whole, (first, last))

    def _codes(self, images: slice) -> Arrays | None:
        """Select the codes of the samples of some images."""
        if self.sample_rows is None:
            return None
        return _rows(
            self.codes, slice(*np.searchsorted(self.sample_rows, [images.start, images.stop]))
        )


def _wholes(parts: Sequence[Parts]) -> Triple:
    between, a, b = parts
    return between.whole, a.whole, b.whole


def _halves(parts: Sequence[Parts]) -> tuple[Triple, Triple]:
    # No half is empty where this is called.
    first, last = zip(*(part.halves for part in parts if part.halves), strict=True)
    return first, last


def _rows(arrays: Arrays | None, rows: slice) -> Arrays | None:
    return None if arrays is None else (arrays[0][rows], arrays[1][rows])


def _without(
    arrays: Arrays | None, edges: NDArray[np.int64], number: int, axes: tuple[int, ...]
) -> Arrays | None:
    """Drop the images of a block from the axes of two arrays."""
    if arrays is None or number + 1 >= len(edges):
        return None
    rows = np.arange(edges[number], edges[number + 1])
    a, b = arrays
    for axis in axes:
        a, b = (np.delete(array, rows, axis=axis) for array in (a, b))
    return a, b
