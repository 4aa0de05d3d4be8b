"""The two nets of a pair, zipped: from stores to a table of accuracy by size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import zarr
from numpy.typing import NDArray
from torch import nn

from convergent.consequences.aligning import align, likeness
from convergent.consequences.merged_pairs import Pair, Side
from convergent.consequences.merging import maps
from convergent.consequences.permutation import Group, State
from convergent.consequences.replacing import scored, truth, with_answers
from convergent.consequences.similarities import correlations_of_halves
from convergent.consequences.zipping import Zipped, check_zipped, first_shared
from convergent.nets.datasets import Images
from convergent.nets.evaluation import Tally, logits

ENSEMBLE = "ensemble"


class Aligned(NamedTuple):
    """The second net of a pair in the order of the first.

    Attributes
    ----------
    chosen : int
        Half of the images that chose the partners, 0 or 1.
    state : mapping of str to torch.Tensor
        Its state dict.
    likeness : dict of str to ndarray of shape (unit,)
        How alike the partners of each group are, by which some are shared before others.
    measured : torch.Tensor of shape (image, channel, y, x)
        Images that units are measured on to repair them.
    """

    chosen: int
    state: State
    likeness: Mapping[str, NDArray[np.floating]]
    measured: torch.Tensor


def zip_pair(
    a: Side,
    b: Side,
    correlation: zarr.Group,
    images: Images,
    training: Images | None,
    *,
    classes: int,
    shares: Sequence[float],
    batch_size: int,
    seed: int = 0,
    device: str = "cpu",
    threads: int = 1,
) -> pd.DataFrame:
    """Align two nets on either half of the images, and score them zipped on the other.

    Parameters
    ----------
    a, b, correlation, images, training, classes, batch_size, seed, device, threads
        See :func:`convergent.consequences.merged_pairs.merge_pair`.
    shares : sequence of float
        Shares of the units of each group that are shared, those that correlate most first.

    Returns
    -------
    DataFrame
        See :func:`zip_table`.

    Raises
    ------
    MergeError
        If the nets are different graphs, or see images or name labels differently.
    FollowingError, PermutationError, ZipError
        If the units of the net cannot be followed, permuted or shared.
    """
    pair = Pair.of(a, b, correlation, images, training, batch_size, device, threads)
    halves = correlations_of_halves(correlation, pair.places)
    orders = [align(pair.groups, found, pair.states, seed) for found in halves]
    states = pair.permuted(orders)
    aligned = [
        Aligned(
            half, states[half], likeness(pair.groups, found, orders[half], pair.states),
            pair.measured[half if len(pair.measured) > 1 else 0],
        )
        for half, found in enumerate(halves)
    ]  # fmt: skip
    check_zipped(pair.nets[0], states[0], pair.groups, pair.example)
    return zip_table(
        dict(zip(pair.names, pair.nets, strict=True)),
        pair.groups,
        aligned,
        lambda: (batch for batch, _ in pair.batches()),
        images.labels if pair.labelled else np.full(len(images), -1),
        shares,
        half=pair.half,
        classes=a.classes,
        number=classes,
    )


def zip_table(
    nets: Mapping[str, nn.Module],
    groups: Sequence[Group],
    aligned: Sequence[Aligned],
    batches: Callable[[], Iterable[torch.Tensor]],
    labels: NDArray[np.integer],
    shares: Sequence[float],
    *,
    half: int,
    classes: Sequence[int | None] | None = None,
    number: int | None = None,
) -> pd.DataFrame:
    """Score two nets zipped by several shares of their units, in one pass over the images.

    Parameters
    ----------
    nets : mapping of str to nn.Module
        Two nets of one graph, in evaluation mode and on one device.
    groups : sequence of Group
    aligned : sequence of Aligned
        One for each half of the images, to be scored on the other.
    batches : callable
        Function that returns the images of a run in their order, on the device, as batches.
    labels : ndarray of shape (image,)
        -1 for images without one. If no image has one, the answers of the ensemble take their
        place, so that `top1` is the agreement with it.
    shares : sequence of float
    half : int
        First row of the last half of the images.
    classes, number
        See :func:`convergent.nets.evaluation.evaluate`.

    Returns
    -------
    DataFrame
        Columns net (zip, the names of the nets, and ensemble: the mean of their probabilities),
        share (of the units of each group that are shared; empty except for zip), alignment,
        repaired, units, parameters, half (the one that is scored: first, last), loss, top1.
    """
    known, classes, number = truth(labels, classes, number)
    first = next(iter(nets.values()))
    example = next(iter(batches()))[:1]
    count = len(maps(first, example))
    size = sum(parameter.numel() for parameter in first.parameters())
    units = sum(group.size for group in groups)
    tallies: defaultdict[tuple, Tally] = defaultdict(lambda: Tally(classes, number))
    zipped: list[list[tuple]] = [[], []]  # by the half that is scored
    for one in aligned:
        apart = Zipped(first, one.state, groups, first_shared(one.likeness, 0), example)
        goals = apart.units_of_maps(one.measured, count)
        for share in shares:
            found = Zipped(first, one.state, groups, first_shared(one.likeness, share), example)
            key = "zip", share, "correlation"
            size_of = found.units, found.parameters
            for repaired in (False, True):
                affines = found.repair(one.measured, goals) if repaired else []
                zipped[1 - one.chosen].append(((*key, repaired, *size_of), found, affines))
    start = 0
    for batch in batches():
        stop = start + len(batch)
        middle = min(max(half, start), stop)
        for side, rows in enumerate((slice(start, middle), slice(middle, stop))):
            if rows.start == rows.stop:
                continue
            images = batch[rows.start - start : rows.stop - start]
            with torch.inference_mode():
                outputs = [logits(net(images)) for net in nets.values()]
            alone = [tallies[name, None, "none", False, units, size, side] for name in nets]
            scores = [each.scores(output) for each, output in zip(alone, outputs, strict=True)]
            both = tallies[ENSEMBLE, None, "none", False, 2 * units, 2 * size, side]
            both.answers, mean = alone[0].answers, torch.logaddexp(*scores) - np.log(2)
            right = with_answers(known, rows, mean)
            for tally, given in zip((*alone, both), (*scores, mean), strict=True):
                tally.add_scores(given, right)
            for key, found, affines in zipped[side]:
                tallies[*key, side].add(found.logits(images, affines), right)
        start = stop
    columns = ["net", "share", "alignment", "repaired", "units", "parameters"]
    return scored(tallies, columns)
