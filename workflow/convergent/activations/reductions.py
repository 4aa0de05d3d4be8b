"""Reductions: quantities of a layer that are computed piece by piece in one pass over the images.

A reduction is data. It says how a piece of the activations is reduced, how the parts of two pieces
are merged, and how the result is saved. The engines, over stores
(:mod:`convergent.activations.from_stores`) and over batches of images
(:mod:`convergent.activations.from_nets`), run any list of reductions.
:func:`convergent.activations.statistics.net_reductions` lists those of the statistics of a net.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from convergent.activations.blocks import Blocks, Cut, save_blocks
from convergent.activations.codes import discretize
from convergent.activations.grids import Grid
from convergent.activations.moments import Moments
from convergent.activations.samples import Places, Samples
from convergent.activations.strongest import Extremes, Top
from convergent.paper import BINS
from convergent.running.stores import save

logger = logging.getLogger(__name__)

# Largest number of units of nets that are put side by side: one symmetric product then gives the
# moments within and between them, and each activation is converted once.
SIDE_BY_SIDE = 2048
# Samples of wider layers that are multiplied at once: their matrices are large beside a batch.
WIDE_SAMPLES = 4096
# Range of the sums of squares in which float32 holds co-moments at full precision.
RANGE = (1e-20, 1e30)


def _unchanged(part: Any) -> Any:
    return part


@dataclass(frozen=True)
class Reduction:
    """A quantity of a layer of one or several nets, as an engine computes it.

    A piece is a run of images, within one block if the reduction has blocks. Parts are merged in
    the order of the images.

    Attributes
    ----------
    nets : tuple of int
        Numbers of the nets whose activations are reduced.
    reduce : callable
        From the row of a piece's first image and the activations (image, ..., unit) of each net in
        `nets` to a part.
    merge : callable
        From the parts of two neighbouring runs of images to the part of both.
    save : mapping of tuple of int to callable
        For a net ``(n,)`` or a pair ``(a, b)``, the function that writes its result. It is called
        with the layer's group in the store of that net or pair and the list of parts.
    cut : Cut, optional
        Blocks of images, each of which has a part of its own. Without it, the list holds one part.
    samples : int
        Number of samples that a piece should have at least, where an engine can wait for them.
    shrink : callable
        From the part of a finished block to a smaller one, where many are held for long.
    """

    nets: tuple[int, ...]
    reduce: Callable[..., Any]
    merge: Callable[[Any, Any], Any]
    save: Mapping[tuple[int, ...], Callable[[zarr.Group, list], None]]
    cut: Cut | None = None
    samples: int = 1
    shrink: Callable[[Any], Any] = _unchanged

    def across(self, start: int, stop: int) -> tuple[int, list[int]]:
        """Find the first block of rows `start` to `stop`, and the rows at which they are cut.

        Without blocks, all rows are in block 0.
        """
        return self.cut.across(start, stop) if self.cut else (0, [start, stop])

    def add(self, parts: dict[int, Any], block: int, start: int, piece: Sequence[NDArray]) -> None:
        """Reduce a piece and merge it into the part of its block.

        Parameters
        ----------
        parts : dict of int to part
            By block.
        block, start : int
            Number of the piece's block, and row of its first image.
        piece : sequence of ndarray of shape (image, ..., unit)
            Activations of every net.
        """
        part = self.reduce(start, *(piece[net] for net in self.nets))
        parts[block] = self.merge(parts[block], part) if block in parts else part


def save_results(
    group: zarr.Group,
    target: tuple[int, ...],
    reductions: Sequence[Reduction],
    results: Sequence[list],
) -> None:
    """Write the results of a layer that belong to a net or a pair, in the order of `reductions`."""
    for reduction, parts in zip(reductions, results, strict=True):
        if target in reduction.save:
            reduction.save[target](group, parts)


def moments_by_block(
    cut: Cut,
    units: Sequence[int],
    targets: Sequence[tuple[int, ...]],
    *,
    device: str = "cpu",
    writers: Mapping[tuple[int, ...], Callable[[zarr.Group, Blocks], None]] | None = None,
) -> list[Reduction]:
    """Make the reductions to moments of every block, within nets and between them.

    Parameters
    ----------
    cut : Cut
        The blocks of images.
    units : sequence of int
        Number of units of each net.
    targets : sequence of tuple of int
        Nets ``(n,)`` and pairs ``(a, b)`` whose moments are wanted.
    device : str
        For :meth:`convergent.activations.moments.Moments.of`.
    writers : mapping of tuple of int to callable, optional
        Functions that write the moments of targets, in place of :func:`save_within` and
        :func:`save_between`.
    """

    def reduce(start: int, *piece: NDArray) -> Moments:
        return Moments.of(*map(_rows, piece), device=device)

    def reduce_side_by_side(start: int, *piece: NDArray) -> Moments:
        x, *others = map(_rows, piece)
        return Moments.of(np.concatenate([x, *others], axis=1) if others else x, device=device)

    def saved(target: tuple[int, ...], rows: slice, columns: slice) -> Callable:
        usual = save_within if len(target) == 1 else save_between
        write = (writers or {}).get(target, usual)

        def save_target(group: zarr.Group, parts: list[Moments]) -> None:
            write(group, Blocks(cut, [part.part(rows, columns) for part in parts]))

        return save_target

    options: dict[str, Any] = {"merge": Moments.merge, "cut": cut, "shrink": _narrow}
    nets = tuple(range(len(units)))
    # Not for a single pair, most of whose symmetric product nobody asks for.
    if sum(units) <= SIDE_BY_SIDE and len(targets) >= len(nets):
        ends = np.cumsum(units).tolist()
        columns = [slice(end - width, end) for end, width in zip(ends, units, strict=True)]
        every_target = {t: saved(t, columns[t[0]], columns[t[-1]]) for t in targets}
        return [Reduction(nets, reduce_side_by_side, save=every_target, **options)]
    options["samples"] = WIDE_SAMPLES
    every = slice(None)
    return [Reduction(t, reduce, save={t: saved(t, every, every)}, **options) for t in targets]


def save_within(group: zarr.Group, blocks: Blocks) -> None:
    """Write `mean`, `std`, `dead` and `correlation` of a net's units, and the blocks."""
    total = blocks.total()
    save(group, "mean", total.mean_x, ("unit",))
    save(group, "std", np.sqrt(total.var_x), ("unit",))
    save(group, "dead", total.var_x == 0, ("unit",))
    save(group, "correlation", total.correlation().astype(np.float32), ("unit", "unit_b"))
    save_blocks(group, blocks)


def save_between(group: zarr.Group, blocks: Blocks) -> None:
    """Write the `correlation` between the units of two nets, and the blocks."""
    correlation = blocks.total().correlation().astype(np.float32)
    save(group, "correlation", correlation, ("unit_a", "unit_b"))
    save_blocks(group, blocks)


def strongest(net: int, image_index: NDArray[np.integer], places: Places) -> Reduction:
    """Make the reduction to the images that excite each unit of a net most, and least.

    They are saved as ``strongest`` and, if the layer has negative activations, as ``weakest``.

    Parameters
    ----------
    net : int
        Number of the net.
    image_index : ndarray of shape (image,)
        The images' places in their data set.
    places : Places
        Recorded positions of the layer.
    """

    def save_extremes(group: zarr.Group, parts: list[Extremes]) -> None:
        strongest, weakest = parts[0]
        Top.of(strongest, image_index, places).save(group.create_group("strongest"))
        # Zeros with a minus sign are not negative.
        if weakest is not None and (weakest.image >= 0).any():
            top = Top.of(weakest, image_index, places)
            top._replace(value=-top.value).save(group.create_group("weakest"))

    return Reduction(
        (net,),
        lambda start, x: Extremes.of(x, start),
        Extremes.merge,
        {(net,): save_extremes},
    )


def image_means(net: int) -> Reduction:
    """Make the reduction to the mean of each unit over the positions of each image.

    It is saved as `image_mean`. The activations of layers without positions are their own means.

    Parameters
    ----------
    net : int
        Number of the net.
    """

    def save_means(group: zarr.Group, parts: list[list[NDArray]]) -> None:
        means = np.concatenate(parts[0]).astype(np.float32, copy=False)
        save(group, "image_mean", means, ("image", "unit"))

    def reduce(start: int, x: NDArray) -> list[NDArray]:
        # The same order of addition, whichever engine arranged the activations. Without positions
        # they are kept as they are, which may take half of the memory, in an array of their own.
        means = Grid(()).arrange(np.ascontiguousarray(x))
        return [means.copy() if x.ndim == 2 else means]

    return Reduction((net,), reduce, operator.add, {(net,): save_means})


def binned_samples(
    net: int,
    image_index: NDArray[np.integer],
    places: Places,
    samples: Samples,
    binning: str,
    *,
    values: bool = True,
) -> Reduction:
    """Make the reduction to samples: their codes, which mutual information is counted from.

    They are saved as `codes`, and as `values` in the type of the activations, which other units
    can be mixed from and binned anew.

    Parameters
    ----------
    net, image_index, places
        See :func:`strongest`.
    samples : Samples
    binning : {"paper", "reference"}
        See :func:`convergent.activations.codes.discretize`.
    values : bool
        Whether `values` are saved as well.

    Raises
    ------
    ValueError
        If there are fewer samples than bins.
    """
    if len(samples.image) < BINS:
        raise ValueError(
            f"{len(samples.image)} samples are too few for the {BINS} bins of mutual information"
        )

    def save_codes(group: zarr.Group, parts: list[list[NDArray]]) -> None:
        drawn = np.concatenate(parts[0])
        codes, edges = discretize(drawn, binning)
        # The moments, which are saved first, say which units vary.
        silent = (group["std"][...] > 0) & (codes.max(axis=0) == codes.min(axis=0))
        if silent.any():
            logger.warning(
                "%s: %d units vary, but not within the samples of mutual information, which is 0 "
                "for them (activations within 1e-6 of 0 count as 0)",
                *(group.store_path, silent.sum()),
            )
        save(group, "codes", codes, ("sample", "unit"))
        save(group, "edges", edges, ("unit", "edge"))
        if values:
            save(group, "values", drawn, ("sample", "unit"))
        save(group, "sample_image", image_index[samples.image], ("sample",))
        save(group, "sample_position", places.flat(*samples), ("sample",))

    return Reduction(
        (net,),
        # Lists of arrays, so that nothing is copied until all are there.
        lambda start, x: [samples.values(x, start)],
        operator.add,
        {(net,): save_codes},
    )


def _rows(x: NDArray) -> NDArray:
    """Reshape activations (image, ..., unit) to (sample, unit)."""
    return x.reshape(-1, x.shape[-1])


def _narrow(moments: Moments) -> Moments:
    """Convert co-moments to float32, unless units are too small or too large for it."""
    size = moments.count * np.concatenate([moments.var_x, moments.var_y])
    size = size[size > 0]
    if size.size and not RANGE[0] < size.min() <= size.max() < RANGE[1]:
        return moments
    return moments._replace(comoment=moments.comoment.astype(np.float32, copy=False))
