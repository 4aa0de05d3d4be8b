"""One net that goes on from a layer of another, through a map of units (Lenc and Vedaldi 2015).

Maps come from the moments of the layers, in place of training: the paper's matching (section 3),
its sparse maps (section 4), least squares, and the rotation that brings one layer nearest to the
other (Procrustes).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from convergent import ConvergentError
from convergent.activations.layouts import Layout
from convergent.activations.moments import Moments
from convergent.alignment.lasso import lasso_path
from convergent.consequences.replacing import (
    EXAMPLES,
    Replaceable,
    by_half,
    scored,
    truth,
    with_answers,
)
from convergent.inference.similarity import Stores, splits
from convergent.measures.matching import matching
from convergent.nets.evaluation import Tally, logits
from convergent.nets.models import evaluating
from convergent.nets.places import Place, places
from convergent.running.progress import progress

COLUMNS = ["layer", "map", "decay", "weights_per_unit", "control"]
# Name in the column `map` of the net that goes on from its own activations.
OWN = "own"


class StitchError(ConvergentError, ValueError):
    """A layer that cannot be stitched; the message says why, and which could."""


class Seam(NamedTuple):
    """Map of the units of one layer to those of another, with means and scales undone.

    Attributes
    ----------
    map : str
        Name of the map: matching, sparse, linear, rotation.
    decay : float or str
        Decay of a sparse map, empty for others.
    control : str
        none, untrained, shuffled.
    weights_per_unit : float
        Weights that are not zero, by target unit.
    slope : ndarray of shape (target, source), float32
    offset : ndarray of shape (target,), float32
    """

    map: str
    decay: float | str
    control: str
    weights_per_unit: float
    slope: NDArray[np.float32]
    offset: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        name: tuple[str, float | str],
        control: str,
        weights: NDArray,
        source: Moments,
        target: Moments,
    ) -> Seam:
        """Undo the means and scales of a map between units of mean 0 and deviation 1.

        Parameters
        ----------
        name : (str, float or str)
            Name of the map, and its decay.
        control : str
        weights : ndarray of shape (target, source)
        source, target : Moments
            Moments within the layers. A dead source counts as 0, and the prediction of a dead
            target, as of one without any source, is its mean.
        """
        std = np.sqrt(source.var_x)
        scaled = np.divide(weights, std, out=np.zeros_like(weights), where=std > 0)
        slope = scaled * np.sqrt(target.var_x)[:, None]
        offset = target.mean_x - slope @ source.mean_x
        used = np.count_nonzero(weights) / len(weights)
        return cls(*name, control, used, slope.astype(np.float32), offset.astype(np.float32))


def maps(
    between: Moments, within: Moments, decays: Sequence[float], *, threads: int = 1
) -> Iterator[tuple[tuple[str, float | str], NDArray[np.float64]]]:
    """Fit all maps from the units of a layer, at mean 0 and deviation 1, to those of another.

    Parameters
    ----------
    between : Moments
        Moments between the source and the target.
    within : Moments
        Moments within the source.
    decays : sequence of float
        Decays of the sparse maps; 0 is least squares, which is fitted in any case.
    threads : int
        Targets to solve at once.

    Yields
    ------
    name : (str, float or str)
        ``matching``, whose weights are 1 for partners; ``sparse`` with each decay, and ``linear``
        (:func:`convergent.alignment.lasso.lasso_path`); ``rotation``, the orthogonal map of the
        live units that predicts best, with orthogonal rows or columns if their numbers differ.
    weights : ndarray of shape (target, source)
    """
    similarity = between.correlation()
    partner = matching(similarity)
    sources = np.flatnonzero(partner >= 0)
    permutation = np.zeros(similarity.shape[::-1])
    permutation[partner[sources], sources] = 1
    yield ("matching", ""), permutation
    fitted = [decay for decay in decays if decay > 0]
    alphas = np.asarray([*fitted, 0]) * similarity.shape[1]
    weights, _ = lasso_path(within.correlation(), similarity, list(alphas), threads=threads)
    for decay, sparse in zip(fitted, weights[:-1], strict=True):
        yield ("sparse", decay), sparse
    yield ("linear", ""), weights[-1]
    live = np.ix_(similarity.any(axis=0), similarity.any(axis=1))
    rotation = np.zeros(similarity.shape[::-1])
    left, _, right = np.linalg.svd(similarity.T[live], full_matrices=False)
    rotation[live] = left @ right
    yield ("rotation", ""), rotation


def seams(
    layer: str,
    stores: Stores,
    direction: str,
    decays: Sequence[float],
    *,
    seed: int = 0,
    threads: int = 1,
) -> tuple[list[Seam], list[Seam]]:
    """Make the maps of a layer of a pair, and those of its controls, from each half of the images.

    Parameters
    ----------
    layer : str
    stores : Stores
    direction : {"ab", "ba"}
        ``ab`` if the second net goes on from the first.
    decays : sequence of float
        Decays of the sparse maps.
    seed : int
        Seed of the order of images in the control ``shuffled``.
    threads : int

    Returns
    -------
    first, last : list of Seam
        Controls: ``none``; ``shuffled``, whose maps are fitted while the nets see unlike images;
        ``untrained``, from the source before training; the last two where the stores have them.
    """
    found = splits(layer, stores, seed)
    kinds = {"none": "none", "shuffled": "shuffled"}
    kinds["untrained"] = "untrained_ba" if direction == "ab" else "untrained_ab"
    made: tuple[list[Seam], list[Seam]] = ([], [])
    for side, of_side in enumerate(made):
        halves = {kind: split.halves[side] for kind, split in found.items() if split.halves}
        if direction == "ba":
            halves = {kind: half.turned for kind, half in halves.items()}
        for control, kind in kinds.items():
            if kind in halves:
                half = halves[kind]
                # Scales are those of images in their true order.
                source = half if control == "untrained" else halves["none"]
                within = source.within_a, halves["none"].within_b
                of_side += [
                    Seam.of(name, control, weights, *within)
                    for name, weights in maps(half.between, half.within_a, decays, threads=threads)
                ]
    return made


def stitch(
    nets: tuple[nn.Module, nn.Module],
    batches: Callable[[], Iterable[tuple[torch.Tensor, torch.Tensor]]],
    labels: NDArray[np.integer],
    of_layers: tuple[Mapping[str, Any], Mapping[str, Any]],
    layers: Sequence[str],
    seams_of: Callable[[str], tuple[Sequence[Seam], Sequence[Seam]]],
    *,
    half: int,
    untrained: nn.Module | None = None,
    classes: Sequence[int | None] | None = None,
    number: int | None = None,
    device: str = "cpu",
    name: str = "net",
) -> pd.DataFrame:
    """Measure a net that goes on from each layer of another.

    Parameters
    ----------
    nets : (nn.Module, nn.Module)
        Source, whose activations are mapped, and target, which goes on from there.
    batches : callable
        Function that returns the images of a run in their order, as batches (image, channel, y, x)
        for the source and for the target. It is called for each layer.
    labels : ndarray of shape (image,)
        See :func:`convergent.consequences.pruning.prune`; without labels those are answers of the
        target.
    of_layers : (mapping, mapping) of layer to place or layout
        Places in the source and in the target.
    layers : sequence of str
    seams_of : callable
        Function of a layer that returns its maps from the first and from the last half of the
        images; each is scored on the other half.
    half : int
        First row of the last half of the images.
    untrained : nn.Module, optional
        The source before training, for seams whose control is ``untrained``.
    classes, number : optional
        Of the target; see :func:`convergent.nets.evaluation.evaluate`.
    device : str
    name : str
        Name of the stitched net, for messages of progress.

    Returns
    -------
    DataFrame
        Columns layer, map (also ``own``: the target as it is), decay, weights_per_unit, control,
        half (the one that is scored), loss, top1, and note, which says why a layer cannot be
        stitched.

    Raises
    ------
    PlaceError, ProbingError, EvaluationError, ReplacingError
        As :func:`convergent.consequences.pruning.prune`.

    Notes
    -----
    Values are clipped at 0 where the target's own activations are never below 0, as after a ReLU.
    """
    known, classes, number = truth(labels, classes, number)
    tables = []
    trained, target_net = nets
    with (
        evaluating(trained, device),
        evaluating(target_net, device),
        evaluating(untrained or nn.Identity(), device),
        torch.inference_mode(),
    ):
        first = [views[:EXAMPLES] for views in next(iter(batches()))]
        for layer in layers:
            source, target, control = (
                Replaceable(net, {layer: place[layer]}, views)
                for net, place, views in (
                    (trained, of_layers[0], first[0]),
                    (target_net, of_layers[1], first[1]),
                    (untrained or trained, of_layers[0], first[0]),
                )
            )
            try:
                check_seam(layer, source, target)
            except StitchError as error:
                tables.append(pd.DataFrame([{"layer": layer, "note": str(error)}]))
                continue
            made, parts = seams_of(layer), by_half(batches(), half, source, target)
            parts = progress(
                parts, f"{name} at {layer}", "image", lambda part: len(part[1]), len(labels)
            )
            tallies = _score(
                layer, (source, target, control), parts, known, made, lambda: Tally(classes, number)
            )
            tables.append(scored(tallies, COLUMNS).assign(note=""))
    order = [*COLUMNS, "half", "loss", "top1", "note"]
    return pd.concat(tables, ignore_index=True).reindex(columns=order)


def _score(
    layer: str,
    nets: tuple[Replaceable, Replaceable, Replaceable],
    parts: Iterable[tuple[Any, ...]],
    labels: torch.Tensor,
    seams: tuple[Sequence[Seam], Sequence[Seam]],
    new: Callable[[], Tally],
) -> Mapping[tuple, Tally]:
    """Run all images through the seams of a layer that were made from the other half."""
    source, target, control = nets
    tallies: defaultdict[tuple, Tally] = defaultdict(new)
    tensors = [[(torch.tensor(s.slope), torch.tensor(s.offset)) for s in part] for part in seams]
    axes = [net.layouts[layer] for net in (source, target)]
    clipped = None
    for part, views, other in parts:
        whole, outputs = target.run(other)
        own = outputs[layer]
        clipped = bool((own >= 0).all()) if clipped is None else clipped
        known = with_answers(labels, part.rows, whole)
        tallies[layer, OWN, "", "", "none", part.side].add(whole, known)
        inputs = {"none": _units_last(source.run(views)[1][layer], axes[0])}
        made = zip(seams[1 - part.side], tensors[1 - part.side], strict=True)
        for seam, (slope, offset) in made:
            given = inputs["none"]
            if seam.control == "untrained":
                if "untrained" not in inputs:
                    inputs["untrained"] = _units_last(control.run(views)[1][layer], axes[0])
                given = inputs["untrained"]
            value = nn.functional.linear(given, slope.to(given), offset.to(given))
            value = value.clamp(min=0) if clipped else value
            value = value.movedim(-1, axes[1].unit_axis or 0).contiguous()
            key = (layer, seam.map, seam.decay, seam.weights_per_unit, seam.control, part.side)
            tallies[key].add(target.rest(layer)(other, value), known)
    return tallies


def check_seam(layer: str, source: Replaceable, target: Replaceable) -> None:
    """Check that a layer of one net can be stitched to that of another.

    Raises
    ------
    StitchError
        If the layers leave out tokens or are brought to a grid, their positions differ, or the
        target's output depends on its input by paths that do not run through the layer.
    """
    layouts = source.layouts[layer], target.layouts[layer]
    if any(layout.skip_tokens or layout.grid for layout in layouts):
        raise StitchError(
            f"layer {layer}: its statistics are of a part of its tokens or of a grid (skip_tokens, "
            "grid), and say nothing of the rest; compare the places as they are"
        )
    outputs = [net.run(net.example)[1][layer] for net in (source, target)]
    shapes = [
        tuple(_units_last(output, layout).shape[1:-1])
        for output, layout in zip(outputs, layouts, strict=True)
    ]
    if shapes[0] != shapes[1]:
        raise StitchError(
            f"layer {layer}: maps of {_by(shapes[0])} cannot stand for maps of {_by(shapes[1])}"
        )
    if _cuts(target, layer, outputs[1]):
        return
    place = layouts[1].place
    near = _nearest(target, place)
    advice = f"the nearest place through which they all run is {near}" if near else "no place can"
    raise StitchError(
        f"layer {layer}: other paths to the output do not run through its place {place}; {advice}"
    )


def _cuts(net: Replaceable, layer: str, output: torch.Tensor) -> bool:
    """Tell whether all that the net's output depends on runs through a layer's place."""
    run = net.rest(layer)
    other = torch.randn(net.example.shape, generator=torch.Generator().manual_seed(0))
    answers = [logits(run(images, output.clone())) for images in (net.example, net.takes(other))]
    return torch.allclose(*answers, rtol=1e-4, atol=1e-5)


def _nearest(net: Replaceable, place: str) -> str | None:
    """Find the place nearest to another in the order of the net that can be stitched."""
    found: list[Place] = places(net.net, net.example)
    names = [each.name for each in found]
    here = names.index(place) if place in names else 0
    # The last is the net's own output.
    for name in sorted(names[:-1], key=lambda name: abs(names.index(name) - here)):
        try:
            other = Replaceable(net.net, {name: name}, net.example)
            if _cuts(other, name, other.run(other.example)[1][name]):
                return name
        except ConvergentError:
            continue  # a place without units
    return None


def _units_last(output: torch.Tensor, layout: Layout) -> torch.Tensor:
    return output.movedim(layout.unit_axis or 0, -1)


def _by(sides: Sequence[int]) -> str:
    return " x ".join(map(str, sides)) or "one position"
