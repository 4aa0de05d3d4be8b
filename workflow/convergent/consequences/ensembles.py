"""Ensembles of nets, and how alike their members are (section 6 of the paper).

The paper asks how the similarity of the nets of an ensemble affects its accuracy, and whether
ensembles of greater diversity can be put together after the fact.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from convergent.activations.blocks import half_correlations
from convergent.consequences.replacing import HALVES
from convergent.nets.evaluation import Tally
from convergent.nets.models import evaluating
from convergent.running.stores import open_store

# Two nets, and the similarity of a layer on the first and on the last half of the images.
Alike = Mapping[tuple[str, str], Mapping[str, tuple[float, float]]]


def alike(correlation: str | Path, layers: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Measure how alike the layers of two nets are on each half of the images.

    Parameters
    ----------
    correlation : path
        ``pairs/<a>-<b>/correlation.zarr``.
    layers : sequence of str

    Returns
    -------
    dict of str to (float, float)
        Mean correlation of the live units with their semi-matches, averaged over both directions;
        NaN if no unit of a layer is live.
    """
    store = open_store(correlation)
    found = {}
    for layer in layers:
        first, last = (_mean_best(matrix) for matrix in half_correlations(store[layer]))
        found[layer] = (first, last)
    return found


def answers(
    net: nn.Module,
    batches: Iterable[torch.Tensor],
    classes: Sequence[int | None] | None,
    number: int,
    device: str = "cpu",
) -> torch.Tensor:
    """Return the logarithms of the probabilities that a net gives to the labels.

    Parameters
    ----------
    net : nn.Module
    batches : iterable of torch.Tensor of shape (image, channel, y, x)
    classes, number
        See :func:`convergent.nets.evaluation.evaluate`.
    device : str

    Returns
    -------
    torch.Tensor of shape (image, label), float64
        -inf for labels that the net cannot give.

    Raises
    ------
    EvaluationError
        If the net's outputs are no scores of the labels.
    """
    tally = Tally(classes, number)
    types = [p.dtype for p in net.parameters() if p.is_floating_point()] or [torch.float32]
    with evaluating(net, device), torch.inference_mode():
        found = torch.cat([tally.scores(net(images.to(device, types[0]))) for images in batches])
    every = torch.full((len(found), number), -torch.inf, dtype=torch.float64)
    known = tally.answers.labels if tally.answers else torch.arange(number)
    every[:, known] = found
    return every


def ensembles(
    scores: Mapping[str, torch.Tensor],
    labels: NDArray[np.integer],
    similarity: Alike,
    layers: Sequence[str],
    *,
    half: int,
    most: int = 100,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure ensembles of every size, and how alike their members are.

    Parameters
    ----------
    scores : mapping of net to torch.Tensor of shape (image, label)
        :func:`answers` of the nets, in the order of the run.
    labels : ndarray of shape (image,)
        Images with the label -1, or one that a net cannot give, do not count.
    similarity : mapping of two nets to mapping of layer to (float, float)
        What :func:`alike` returns for pairs of nets.
    layers : sequence of str
    half : int
        First row of the last half of the images.
    most : int
        Largest number of ensembles of a size; of more, as many are drawn.
    seed : int

    Returns
    -------
    DataFrame
        Columns nets (names joined by +), size, layer, half (of the images that are scored: first,
        last), similarity (mean over pairs of members on the other half; NaN if one is not known, or
        there is one member), loss and top1 of the mean of the members' probabilities, members_loss
        and members_top1 (means over members), disagreement (share of images to which two members
        give other first answers, mean over pairs of members).
    """
    # Labels that one of the nets cannot give do not count.
    given = torch.stack([each.isfinite().any(0) for each in scores.values()]).all(0).numpy()
    truth, rows = np.array(labels, np.int64), []
    truth[(truth >= 0) & ~given[truth]] = -1
    sides = [slice(0, half), slice(half, len(truth))]
    for members in _members(list(scores), most, seed):
        pairs = list(itertools.combinations(members, 2))
        together = torch.stack([scores[net] for net in members]).logsumexp(0) - np.log(len(members))
        firsts = {net: scores[net].argmax(1) for net in members}
        for side, part in enumerate(sides):
            known = torch.tensor(truth[part])
            own = [_score(scores[net][part], known) for net in members]
            unlike = [float((firsts[a][part] != firsts[b][part]).double().mean()) for a, b in pairs]
            row = {
                "half": HALVES[side],
                **dict(zip(("loss", "top1"), _score(together[part], known), strict=True)),
                **dict(zip(("members_loss", "members_top1"), np.mean(own, axis=0), strict=True)),
                "disagreement": np.mean(unlike) if unlike else np.nan,
            }
            for layer in layers:
                values = [similarity.get(pair, {}).get(layer, _UNKNOWN)[1 - side] for pair in pairs]
                mean = np.mean(values) if values else np.nan
                head = {"nets": "+".join(members), "size": len(members), "layer": layer}
                rows.append({**head, "half": row["half"], "similarity": mean, **row})
    return pd.DataFrame(rows)


_UNKNOWN = (np.nan, np.nan)


def _score(scores: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    tally = Tally()
    tally.add_scores(scores, labels)
    found = tally.evaluation()
    nothing = found.loss is None or found.top1 is None
    return (np.nan, np.nan) if nothing else (found.loss, found.top1)  # type: ignore[return-value]


def _members(nets: list[str], most: int, seed: int) -> Iterable[tuple[str, ...]]:
    """List the ensembles of each size, or draw as many of them as there may be."""
    random = np.random.default_rng(seed)
    for size in range(1, len(nets) + 1):
        if comb(len(nets), size) <= most:
            yield from itertools.combinations(nets, size)
            continue
        drawn: dict[tuple[int, ...], None] = {}
        while len(drawn) < most:
            drawn[tuple(sorted(random.permutation(len(nets))[:size].tolist()))] = None
        yield from (tuple(nets[i] for i in members) for members in drawn)


def _mean_best(correlation: NDArray) -> float:
    live = correlation[np.ix_(correlation.any(axis=1), correlation.any(axis=0))]
    if not live.size:
        return np.nan
    return float((live.max(axis=1).mean() + live.max(axis=0).mean()) / 2)
