"""The two nets of a pair, aligned in every way and averaged: from stores to tables."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
import torch
import zarr
from numpy.typing import ArrayLike
from torch import nn

from convergent.consequences.aligning import align, align_weights
from convergent.consequences.collapse import collapse_table, layer_names, partners
from convergent.consequences.curves import points_between
from convergent.consequences.merging import (
    Candidate,
    MergeError,
    check_same_graph,
    interpolate,
    maps,
    merge_table,
)
from convergent.consequences.permutation import (
    Group,
    State,
    check_same_function,
    groups,
    permuted,
)
from convergent.consequences.similarities import half_similarities
from convergent.nets.datasets import Images, load_training, normalize, recorded
from convergent.nets.models import load
from convergent.running.devices import exact
from convergent.running.progress import progress
from convergent.running.stores import open_store

logger = logging.getLogger(__name__)

# Keys of a net's `data` by which it sees an image as it does.
SEEN = ("size", "mean", "std", "validation_transform")
# Images on which a permuted net is compared with the net.
CHECKED = 16


class Side(NamedTuple):
    """A net of a pair.

    Attributes
    ----------
    name : str
    net : nn.Module
    data : mapping
        Its section ``data``.
    statistics : zarr.Group
        Store of its statistics.
    places : mapping of layer to mapping
        Place of each of its layers.
    classes : sequence of int or None, optional
        See :func:`convergent.nets.evaluation.evaluate`; an empty one leaves labels out.
    """

    name: str
    net: nn.Module
    data: Mapping[str, Any]
    statistics: zarr.Group
    places: Mapping[str, Mapping[str, Any]]
    classes: Sequence[int | None] | None = None


def load_pair(inputs: Mapping[str, str], params: Any) -> dict[str, Any]:
    """Load the arguments of :func:`merge_pair` that are inputs of a job.

    Parameters
    ----------
    inputs : mapping of str to path
        Images, weights_a, weights_b, statistics_a, statistics_b and correlation.
    params
        With the attributes names, nets, data, places and classes, which have an entry for each net;
        recorded and images, numbers of images to score and to measure; and seed.
    """
    draw = {"seed": params.seed}
    images, _, classes = recorded(inputs, params.data[0], number=params.recorded, **draw)
    sides = {
        side: Side(
            name,
            load(inputs[f"weights_{side}"], params.nets[n], classes),
            params.data[n],
            open_store(inputs[f"statistics_{side}"]),
            params.places[n],
            params.classes[n],
        )
        for n, (side, name) in enumerate(zip("ab", params.names, strict=True))
    }
    return {
        **sides,
        "correlation": open_store(inputs["correlation"]),
        "images": images,
        "training": load_training(inputs, params.data[0], number=params.images, **draw),
        "classes": classes,
        "batch_size": params.images,
    }


class Pair(NamedTuple):
    """Two nets of one graph and what they are aligned and scored with.

    Attributes
    ----------
    names : (str, str)
    nets : (nn.Module, nn.Module)
        Copies, in evaluation mode and on the device.
    states : (mapping, mapping)
        Their state dicts.
    groups : list of Group
    places : dict of layer to place
        Of the layers that both have at one place.
    batches : callable
        Function that yields (images, labels), in the order of the stores; labels are -1 where
        accuracy cannot be measured.
    labelled : bool
        Whether accuracy can be measured.
    example : torch.Tensor of shape (image, channel, y, x)
        The first images.
    half : int
        Number of images in the first half.
    measured : list of torch.Tensor
        Images that units are measured on: training images, or those of each half.
    """

    names: tuple[str, str]
    nets: tuple[nn.Module, nn.Module]
    states: tuple[State, State]
    groups: list[Group]
    places: dict[str, str]
    batches: Callable[[], Iterator[tuple[torch.Tensor, torch.Tensor]]]
    labelled: bool
    example: torch.Tensor
    half: int
    measured: list[torch.Tensor]

    @classmethod
    def of(
        cls,
        a: Side,
        b: Side,
        correlation: zarr.Group,
        images: Images,
        training: Images | None,
        batch_size: int,
        device: str,
        threads: int,
    ) -> Pair:
        """Check that two nets can be merged, and prepare them; see :func:`merge_pair`."""
        names = [a.name, b.name]
        _check_alike(a, b)
        exact()
        net_a, net_b = (copy.deepcopy(side.net).eval().to(device) for side in (a, b))
        mean, std = (torch.tensor(a.data[key], device=device) for key in ("mean", "std"))

        def views(of: Images) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            for pixels, labels in of.loader(batch_size, workers=threads - 1, pin=device == "cuda"):
                yield normalize(pixels.to(device, non_blocking=True), mean, std), labels

        def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            for batch, labels in views(images):
                yield batch, labels if labelled else torch.full_like(labels, -1)

        labelled = bool((images.labels >= 0).any()) and (a.classes is None or len(a.classes) > 0)
        example = next(views(images))[0][:CHECKED]
        check_same_graph(net_a, net_b, example[:1], names)
        places = {
            layer: place["place"]
            for layer, place in a.places.items()
            if layer in b.places and b.places[layer]["place"] == place["place"]
        }
        first = next(layer for layer in a.places if layer in b.places)
        cut = int(correlation[first]["blocks"].attrs["half"])
        if training is None:
            every = torch.cat([batch for batch, _ in views(images)])
            measured = [every[:cut], every[cut:]]
        else:
            measured = [torch.cat([batch for batch, _ in views(training)])]
        return cls(
            (a.name, b.name),
            (net_a, net_b),
            (net_a.state_dict(), net_b.state_dict()),
            groups(net_a, example[:1]),
            places,
            batches,
            labelled,
            example,
            cut,
            measured,
        )

    def permuted(self, orders: Iterable[Mapping[str, ArrayLike]]) -> list[State]:
        """Put the units of the second net in other orders, and check that it stays the same."""
        states = [permuted(self.states[1], self.groups, order) for order in orders]
        changes = [check_same_function(self.nets[1], each, self.example).order for each in states]
        if any(changes):
            logger.info(
                "%s with its units in the order of %s: local response normalisation sees the order "
                "of channels, which changes outputs by up to %.2g of their deviation",
                *(self.names[1], self.names[0], max(changes)),
            )
        return states


class Merged(NamedTuple):
    """Tables of a pair: of :func:`merge_table` and of :func:`collapse_table`."""

    table: pd.DataFrame
    collapse: pd.DataFrame


def merge_pair(
    a: Side,
    b: Side,
    correlation: zarr.Group,
    images: Images,
    training: Images | None,
    *,
    classes: int,
    points: int,
    batch_size: int,
    seed: int = 0,
    device: str = "cpu",
    threads: int = 1,
) -> Merged:
    """Align two nets on either half of the images, and score the nets in between on the other.

    Parameters
    ----------
    a, b : Side
    correlation : zarr.Group
        Store of the moments of the pair.
    images : Images
        The images of the stores, in their order.
    training : Images or None
        Images that units are measured on; if None, those of the half that chose the partners.
    classes : int
        Number of labels.
    points : int
        Number of points of the line.
    batch_size, device, threads
    seed : int
        Seed of the order in which weights are aligned.

    Returns
    -------
    Merged
        The collapse is that of the net halfway, whose partners correlations on the first half
        chose, on the images that units are measured on, or else on the last half.

    Raises
    ------
    MergeError
        If the nets are different graphs, or see images or name labels differently.
    FollowingError, PermutationError
        If the units of the net cannot be followed or permuted.
    """
    pair = Pair.of(a, b, correlation, images, training, batch_size, device, threads)
    net_a, net_b = pair.nets
    found, states, places = pair.groups, pair.states, pair.places
    by_half = half_similarities(correlation, a.statistics, b.statistics, places, threads=threads)
    chosen: dict[tuple[str, int | None], Mapping] = {
        (measure, half): align(found, similarities, states, seed)
        for measure, halves in by_half.items()
        for half, similarities in enumerate(halves)
    }
    chosen["weights", None] = align_weights(*states, found, seed)
    candidates = [Candidate("none", None, states[1])]
    candidates += [
        Candidate(*key, state)
        for key, state in zip(chosen, pair.permuted(chosen.values()), strict=True)
    ]
    if training is None:
        candidates = [each._replace(chosen=h) for each in candidates for h in _halves_of(each)]
    table = merge_table(
        net_a,
        net_b,
        candidates,
        pair.batches,
        pair.half,
        pair.measured,
        points_between(points),
        classes=a.classes if pair.labelled else None,
        number=classes if pair.labelled else None,
        watch=partial(progress, name=f"{a.name} to {b.name}", unit="point", size=lambda t: 1),
    )
    by_correlation = next(each for each in candidates if each[:2] == ("correlation", 0))
    other, middle = copy.deepcopy(net_b), copy.deepcopy(net_a)
    other.load_state_dict(by_correlation.state)
    interpolate(middle, states[0], by_correlation.state, 0.5)
    of_maps = maps(net_a, pair.example[:1])
    collapse = collapse_table(
        net_a,
        other,
        middle,
        pair.measured[-1].split(batch_size),
        of_maps,
        partners(
            states[1],
            of_maps,
            lambda state: permuted(state, found, chosen["correlation", 0]),
        ),
    )
    shown = dict(zip(of_maps, layer_names(of_maps, places), strict=True))
    return Merged(table, collapse.assign(layer=collapse["layer"].map(shown)))


def _check_alike(a: Side, b: Side) -> None:
    names = f"{a.name} and {b.name} cannot be merged, as they"
    for key in SEEN:
        if a.data[key] != b.data[key]:
            raise MergeError(
                f"{names} see images differently: data.{key} is {a.data[key]} and {b.data[key]}"
            )
    if list(a.classes or []) != list(b.classes or []) or (a.classes is None) != (b.classes is None):
        raise MergeError(f"{names} have other outputs: their `classes` differ")


def _halves_of(candidate: Candidate) -> Sequence[int]:
    return range(2) if candidate.chosen is None else [candidate.chosen]
