"""How much less a unit varies once two nets are averaged, beside what its match predicts.

If a unit of net a and its partner vary by s_a and s_b and correlate by rho, their mean varies less
the less they are alike. REPAIR (Jordan et al. 2023) calls what is lost so from layer to layer the
collapse of variance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from convergent.consequences.merging import State, watched


class _Sums:
    """Sums over samples of four values of each unit: x, y, their mean, and that of the merged net.

    All values are taken less their means over the first images, since squares of large means would
    hide small variances.
    """

    def __init__(self) -> None:
        self.count = 0
        self.center = self.sums = self.squares = self.product = torch.zeros(())

    def add(self, x: torch.Tensor, y: torch.Tensor, whole: torch.Tensor) -> None:
        """Add samples (sample, unit)."""
        values = torch.stack([x, y, (x + y) / 2, whole]).double()
        if not self.count:
            self.center = values.mean(1, keepdim=True)
        values -= self.center
        self.count += len(x)
        self.sums = self.sums + values.sum(1)
        self.squares = self.squares + values.square().sum(1)
        self.product = self.product + (values[0] * values[1]).sum(0)

    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the variances (4, unit), and the covariance of x and y (unit,)."""
        means = self.sums / self.count
        variances = (self.squares / self.count - means**2).clamp(min=0)
        covariance = self.product / self.count - means[0] * means[1]
        return variances.cpu().numpy(), covariance.cpu().numpy()


def predicted_share(rho: NDArray, s_a: NDArray, s_b: NDArray) -> NDArray[np.float64]:
    """Predict the variance of the mean of two units over the mean of their variances.

    Parameters
    ----------
    rho : ndarray
        Correlation of the two.
    s_a, s_b : ndarray
        Their standard deviations.

    Returns
    -------
    ndarray
        (1 + rho) / 2 where both vary equally; NaN where neither varies.
    """
    with np.errstate(invalid="ignore"):
        return (s_a**2 + s_b**2 + 2 * rho * s_a * s_b) / (2 * (s_a**2 + s_b**2))


def collapse_table(
    a: nn.Module,
    b: nn.Module,
    middle: nn.Module,
    batches: Iterable[torch.Tensor],
    names: Sequence[str],
    partners: Mapping[str, NDArray[np.integer]],
) -> pd.DataFrame:
    """Compare the variance of the units of an averaged net with what their matches predict.

    Variances are those at the outputs of convolutions and linear maps, before anything else.

    Parameters
    ----------
    a, b : nn.Module
        Nets in evaluation mode, the second with its units in the order of the first's.
    middle : nn.Module
        The net whose weights are the mean of theirs.
    batches : iterable of torch.Tensor
        Images, on which no partner was chosen.
    names : sequence of str
        Names of the maps, from :func:`convergent.consequences.merging.maps`.
    partners : mapping of str to ndarray of shape (unit,)
        Number, in net b as it was, of the partner of each unit of a map. Maps without an entry
        are left out.

    Returns
    -------
    DataFrame
        Columns layer, unit, partner, rho (correlation of the two), predicted, alone, whole. The
        last three are variances over the mean of the parents': as :func:`predicted_share` has it;
        if this layer alone is averaged, the weights of each net on the input that it has in its
        own net; and if the whole net is. Empty where neither unit varies.
    """
    sums = [_Sums() for _ in names]
    for images in batches:
        x, y, whole = (_outputs(net, images, len(names)) for net in (a, b, middle))
        for each, *values in zip(sums, x, y, whole, strict=True):
            each.add(*values)
    frames = []
    for name, each in zip(names, sums, strict=True):
        if name not in partners:
            continue
        variances, covariance = each.moments()
        s_a, s_b = np.sqrt(variances[:2])
        with np.errstate(invalid="ignore", divide="ignore"):
            rho = np.where(s_a * s_b > 0, covariance / (s_a * s_b), 0.0)
            alone, whole = 2 * variances[2:] / (variances[0] + variances[1])
        frames.append(
            pd.DataFrame(
                {
                    "layer": name,
                    "unit": np.arange(len(rho)),
                    "partner": partners[name],
                    "rho": rho,
                    "predicted": predicted_share(rho, s_a, s_b),
                    "alone": alone,
                    "whole": whole,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def partners(
    state: State, names: Sequence[str], permute: Callable[[State], State]
) -> dict[str, NDArray[np.int64]]:
    """Find which units of a net a permutation of its state brings to each unit of the maps.

    Parameters
    ----------
    state : mapping of str to torch.Tensor
    names : sequence of str
        Names of the maps. One that is no module with a weight is left out.
    permute : callable
        Function of a state that returns it permuted.
    """
    marked = {}
    for key, value in state.items():
        # Batch normalisation counts its batches in a number without axes.
        rows = torch.arange(len(value) if value.ndim else 1)
        shape = [*value.shape[:1], *[1] * (value.ndim - 1)]
        marked[key] = rows.view(shape).expand(value.shape).clone()
    moved = permute(marked)
    found = {}
    for name in dict.fromkeys(names):
        weight = moved.get(f"{name}.weight")
        if weight is not None:
            found[name] = weight.flatten(1)[:, 0].cpu().numpy().astype(np.int64)
    return found


def layer_names(names: Sequence[str], places: Mapping[str, str]) -> list[str]:
    """Name maps after the layers of the run, if they are the only ones inside of their places.

    Parameters
    ----------
    names : sequence of str
        Names of the maps.
    places : mapping of str to str
        Place of each layer.
    """
    parents = [name.rpartition(".")[0] for name in names]
    layers = {place: layer for layer, place in places.items()}
    return [
        layers.get(name) or (layers.get(parent) if parents.count(parent) == 1 else None) or name
        for name, parent in zip(names, parents, strict=True)
    ]


def _outputs(net: nn.Module, images: torch.Tensor, number: int) -> list[torch.Tensor]:
    """Collect the outputs of the first maps as (sample, unit)."""
    found: list[torch.Tensor] = []

    def collect(index: int, output: torch.Tensor, axis: int) -> torch.Tensor:
        if index < number:
            found.append(output.movedim(axis, -1).flatten(0, -2))
        return output

    watched(net, images, collect)
    return found
