"""What a net loses if some of its units tell it nothing any more (section 6 of the paper).

A unit is replaced by its mean, or by what it is for other images. The paper asks how the removal of
rare units, which no other net has, would affect performance.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from convergent.activations.blocks import aligned, load_blocks
from convergent.activations.moments import Moments
from convergent.activations.probing import Places
from convergent.consequences.replacing import (
    EXAMPLES,
    Part,
    Replaceable,
    by_half,
    per_unit,
    scored,
    truth,
    with_answers,
)
from convergent.measures.matching import semi_matching
from convergent.nets.evaluation import Tally
from convergent.nets.models import evaluating
from convergent.running.progress import progress
from convergent.running.stores import open_store

# The name under which units are removed from every layer at once.
ALL = "all"
# What takes the place of a unit.
REMOVALS = ("mean", "resampled")
# An order of units, and the number of its draw, empty where nothing is drawn.
Order = tuple[str, int | str]
# Orders of each layer, from the first and from the last half of the images.
Chosen = dict[str, tuple[dict[Order, NDArray[np.intp]], dict[Order, NDArray[np.intp]]]]


def orders(
    between: Moments, within: Moments, draws: int, seed: Sequence[int]
) -> dict[Order, NDArray[np.intp]]:
    """Order the units of a layer by when they are removed.

    Parameters
    ----------
    between : Moments
        Moments between the layer and that of the other net.
    within : Moments
        Moments within the layer.
    draws : int
        Number of random orders.
    seed : sequence of int
        Seed of the random orders.

    Returns
    -------
    dict of (str, int or str) to ndarray of shape (unit,)
        ``unmatched_first`` and ``matched_first`` go by the correlation of each unit with its
        semi-match in the other net, which is 0 for a dead unit; ``least_active`` by the mean
        activation; of equal units the lower comes first. ``random`` has a number for each draw.
    """
    similarity = between.correlation()
    best = similarity[np.arange(len(similarity)), semi_matching(similarity)]
    random = np.random.default_rng(seed)
    return {
        ("unmatched_first", ""): np.argsort(best, kind="stable"),
        ("matched_first", ""): np.argsort(-best, kind="stable"),
        ("least_active", ""): np.argsort(within.mean_x, kind="stable"),
        **{("random", draw): random.permutation(len(best)) for draw in range(draws)},
    }


def orders_of_pair(
    statistics: tuple[str | Path, str | Path],
    correlation: str | Path,
    layers: Sequence[str],
    draws: int,
    seed: int = 0,
) -> tuple[tuple[Chosen, Chosen], int]:
    """Order the units of both nets of a pair in every layer, from each half of the images.

    Parameters
    ----------
    statistics : (path, path)
    correlation : path
        Stores of the nets and of the pair.
    layers : sequence of str
    draws : int
        Number of random orders.
    seed : int
        Random orders depend on it, the layer's number and the half.

    Returns
    -------
    chosen : (dict, dict)
        For each net, by layer, the :func:`orders` from the first and from the last half.
    half : int
        First row of the last half of the images.
    """
    stores = [open_store(path) for path in (correlation, *statistics)]
    chosen: tuple[Chosen, Chosen] = ({}, {})
    for number, layer in enumerate(layers):
        between, *within = aligned([load_blocks(store[layer]) for store in stores])
        halves = between.halves()
        for net, blocks in enumerate(within):
            of_net = [
                orders(x.turned() if net else x, y, draws, [seed, number, side])
                for side, (x, y) in enumerate(zip(halves, blocks.halves(), strict=True))
            ]
            chosen[net][layer] = (of_net[0], of_net[1])
    return chosen, between.cut.half


def prune(
    net: nn.Module,
    batches: Callable[[], Iterable[torch.Tensor]],
    labels: NDArray[np.integer],
    places: Places,
    chosen: Chosen,
    shares: Sequence[float],
    *,
    half: int,
    classes: Sequence[int | None] | None = None,
    number: int | None = None,
    device: str = "cpu",
    seed: int = 0,
    name: str = "net",
) -> pd.DataFrame:
    """Measure a net whose units are replaced by their means or resampled, in several orders.

    A resampled unit has the activations of other images of its half: those of the image that comes
    a number of images later in the batch, drawn for each unit. (Images are in a random order.) It
    varies as before, and tells nothing about the image, whereas a mean does not vary.

    Parameters
    ----------
    net : nn.Module
    batches : callable
        Function that returns the images (image, channel, y, x) of a run in their order, as
        batches; it is called twice.
    labels : ndarray of shape (image,)
        Labels, -1 for images without one. If no image has one, the net's own answers stand in
        their place, so that `top1` is the agreement with these.
    places : mapping of layer to place or layout
    chosen : mapping of layer to two mappings
        For each layer the :func:`orders` of its units from the first and from the last half of
        the images. Those from the first half are scored on the last, with the means of the first,
        and the other way round.
    shares : sequence of float
        Shares of the units of a layer that are removed, from 0 to 1.
    half : int
        First row of the last half of the images.
    classes, number : optional
        See :func:`convergent.nets.evaluation.evaluate`.
    device : str
    seed : int
        Seed of what units are resampled by.
    name : str
        Name of the net, for messages of progress.

    Returns
    -------
    DataFrame
        Columns layer (``all`` where units are removed from every layer at once), removal (mean,
        resampled), order, draw, share, half (the one that is scored: first, last), loss, top1.

    Raises
    ------
    PlaceError, ProbingError, EvaluationError, ReplacingError
        If the net lacks a place, its units or answers are not known, or have other numbers.
    """
    known, classes, number = truth(labels, classes, number)
    ways = list(next(iter(chosen.values()))[0])
    tallies: defaultdict[tuple, Tally] = defaultdict(lambda: Tally(classes, number))
    with evaluating(net, device), torch.inference_mode():
        subject = Replaceable(net, places, next(iter(batches()))[:EXAMPLES])
        means = _means(subject, batches(), half)
        removed = {
            (layer, way, share, side): _masks(chosen[layer][1 - side][way], share, device)
            for layer in chosen
            for way in ways
            for share in shares
            for side in (0, 1)
        }

        def without(
            removal: str, way: Order, share: float, part: Part, layer: str, output: torch.Tensor
        ):
            layout, gone = subject.layouts[layer], removed[layer, way, share, part.side]
            if removal == "mean":
                mean = means[1 - part.side][layer]
                other = per_unit(mean, output, layout).to(output.dtype)
            else:
                draw = np.random.default_rng([seed, list(chosen).index(layer), part.rows.start])
                other = _resampled(output, layout.unit_axis or 0, draw)
            return torch.where(per_unit(gone, output, layout), other, output)

        parts = by_half(((b,) for b in batches()), half, subject)
        for part, images in progress(
            parts, f"{name} without units", "image", lambda part: len(part[1]), len(labels)
        ):
            whole, outputs = subject.run(images)
            right = with_answers(known, part.rows, whole)
            for layer in [*chosen, ALL]:
                # Units of every order are the same where none or all are removed.
                done: dict[Any, Any] = {}
                for removal, way, share in itertools.product(REMOVALS, ways, shares):
                    key = (removal, share) if share in (0, 1) else (removal, way, share)
                    if share == 0:
                        done[key] = whole
                    elif key not in done:
                        change = partial(without, removal, way, share, part)
                        done[key] = (
                            subject.changed(images, change)
                            if layer == ALL
                            else subject.rest(layer)(images, change(layer, outputs[layer]))
                        )
                    tallies[layer, removal, *way, share, part.side].add(done[key], right)
    return scored(tallies, ["layer", "removal", "order", "draw", "share"])


def _masks(order: NDArray[np.intp], share: float, device: str) -> torch.Tensor:
    """Mark the first units of an order."""
    gone = torch.zeros(len(order), dtype=torch.bool)
    gone[torch.as_tensor(order[: round(share * len(order))].copy())] = True
    return gone.to(device)


def _resampled(output: torch.Tensor, unit_axis: int, draw: np.random.Generator) -> torch.Tensor:
    """Give each unit the values of other images, those a drawn number of images further on."""
    values = output.movedim(unit_axis, 1)
    images, units = values.shape[:2]
    steps = torch.from_numpy(draw.integers(1, max(images, 2), units)).to(output.device)
    rows = (torch.arange(images, device=output.device)[:, None] + steps) % images
    found = values[rows, torch.arange(units, device=output.device)]
    return found.movedim(1, unit_axis)


def _means(
    subject: Replaceable, batches: Iterable[torch.Tensor], half: int
) -> list[dict[str, torch.Tensor]]:
    """Average the outputs of all units over the images and positions of each half."""
    sums: list[dict[str, torch.Tensor]] = [{}, {}]
    counts: list[dict[str, int]] = [{}, {}]
    for part, images in by_half(((b,) for b in batches), half, subject):
        for layer, output in subject.run(images)[1].items():
            values = output.movedim(subject.layouts[layer].unit_axis or 0, -1).flatten(0, -2)
            total, count = values.double().sum(0), len(values)
            sums[part.side][layer] = sums[part.side].get(layer, 0) + total
            counts[part.side][layer] = counts[part.side].get(layer, 0) + count
    return [
        {layer: (total / counts[side][layer]).float() for layer, total in sums[side].items()}
        for side in (0, 1)
    ]
