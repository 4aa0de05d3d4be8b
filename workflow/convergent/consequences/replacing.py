"""Nets that run on with other outputs of a layer than their own, scored by halves of the images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from convergent import ConvergentError
from convergent.activations.layouts import Layout
from convergent.activations.probing import Places, layouts
from convergent.nets.evaluation import Tally, logits
from convergent.nets.places import rest, tapping

logger = logging.getLogger(__name__)

# Names of the halves of the images, in order.
HALVES = ("first", "last")
# Images on which nets are examined before they run on all.
EXAMPLES = 4


class ReplacingError(ConvergentError, ValueError):
    """Batches, labels or units that do not fit together."""


class Part(NamedTuple):
    """Images of a batch that are in one half.

    Attributes
    ----------
    side : int
        0 for the first half, 1 for the last.
    rows : slice
        Their rows among all images.
    """

    side: int
    rows: slice


def by_half(
    batches: Iterable[Sequence[torch.Tensor]], half: int, *nets: Replaceable
) -> Iterator[tuple[Any, ...]]:
    """Yield the images of batches, those of the two halves apart.

    Parameters
    ----------
    batches : iterable of sequence of torch.Tensor of shape (image, channel, y, x)
        All images of a run, in its order, as each net takes them.
    half : int
        First row of the last half.
    *nets : Replaceable

    Yields
    ------
    part : Part
    images : torch.Tensor
        One for each net, on its device.
    """
    start = 0
    for batch in batches:
        stop = start + len(batch[0])
        middle = min(max(half, start), stop)
        for side, (i, j) in enumerate(((start, middle), (middle, stop))):
            if i < j:
                views = [
                    net.takes(images[i - start : j - start])
                    for net, images in zip(nets, batch, strict=True)
                ]
                yield Part(side, slice(i, j)), *views
        start = stop


class Replaceable:
    """A net, in evaluation mode, whose outputs at layers can be replaced.

    Parameters
    ----------
    net : nn.Module
        Net in evaluation mode as long as this is used.
    places : mapping of layer to place or layout
    example : torch.Tensor of shape (image, channel, y, x)

    Attributes
    ----------
    layouts : dict of layer to Layout
        With the axis of units.
    """

    def __init__(self, net: nn.Module, places: Places, example: torch.Tensor):
        self.net = net
        floats = [p for p in net.parameters() if p.is_floating_point()] or [torch.empty(0)]
        self.device, self.dtype = floats[0].device, floats[0].dtype
        self.example = example = self.takes(example)
        self.layouts = layouts(net, places, example)
        self._rests: dict[str, Callable[..., Any]] = {}

    def takes(self, images: torch.Tensor) -> torch.Tensor:
        """Bring images to the device and the type of the net."""
        return images.to(self.device, self.dtype)

    def run(self, images: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the scores of the classes, and the output of each layer, as the net has it."""
        found: dict[str, torch.Tensor] = {}
        with tapping(self.net, self._names(), lambda name, output: _keep(found, name, output)) as f:
            answer = logits(f(images))
        return answer, {layer: found[layout.place] for layer, layout in self.layouts.items()}

    def rest(self, layer: str) -> Callable[[torch.Tensor, torch.Tensor], Any]:
        """Return the function of images and a layer's output that runs the rest of the net."""
        if layer not in self._rests:
            place = self.layouts[layer].place
            self._rests[layer] = run = rest(self.net, place, self.example)
            output = self.run(self.example)[1][layer]
            answers = (logits(run(self.example, torch.full_like(output, i))) for i in (0, 1))
            if torch.equal(*answers):
                logger.warning(
                    "layer %s: nothing depends on what replaces the output of %s; if an operation "
                    "in place follows, or is this place, name the place after it",
                    *(layer, place),
                )
        return self._rests[layer]

    def changed(
        self, images: torch.Tensor, change: Callable[[str, torch.Tensor], torch.Tensor]
    ) -> Any:
        """Run the net with every layer's output changed, in the order in which they run.

        Parameters
        ----------
        images : torch.Tensor of shape (image, channel, y, x)
        change : callable
            Function of a layer and its output.
        """
        owners = {layout.place: layer for layer, layout in self.layouts.items()}

        def replace(name: str, output: torch.Tensor) -> torch.Tensor:
            return change(owners[name], output)

        with tapping(self.net, self._names(), replace, replacing=True) as run:
            return run(images)

    def _names(self) -> list[str]:
        return list(dict.fromkeys(layout.place for layout in self.layouts.values()))


def per_unit(values: torch.Tensor, output: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Shape a value of each unit so that it is broadcast over an output of the layer.

    Raises
    ------
    ReplacingError
        If there are not as many values as units.
    """
    axis = (layout.unit_axis or 0) % output.ndim
    if len(values) != output.shape[axis]:
        raise ReplacingError(
            f"place {layout.place}: has {output.shape[axis]} units where {len(values)} are known; "
            "its statistics are those of another net"
        )
    return values.reshape([-1 if other == axis else 1 for other in range(output.ndim)])


def truth(
    labels: NDArray[np.integer], classes: Sequence[int | None] | None, number: int | None
) -> tuple[torch.Tensor, Sequence[int | None] | None, int | None]:
    """Return labels, classes and their number as they count; see :func:`with_answers`.

    No label counts where no image has one, or `classes` is empty, as for a net of other classes.
    """
    known = torch.tensor(np.asarray(labels, np.int64))
    if (known < 0).all() or (classes is not None and not len(classes)):
        return torch.full_like(known, -1), None, None
    return known, classes, number


def with_answers(labels: torch.Tensor, rows: slice, output: torch.Tensor) -> torch.Tensor:
    """Return the labels of some images or, where none of all images has one, a net's own answers.

    The accuracy of a changed net is then its agreement with the net as it is.
    """
    return output.argmax(1).cpu() if bool((labels < 0).all()) else labels[rows]


def scored(tallies: Mapping[tuple, Tally], columns: Sequence[str]) -> pd.DataFrame:
    """Tabulate tallies by their keys, whose last entry is the side of the images.

    Returns
    -------
    DataFrame
        `columns`, half (first, last), loss (nats) and top1.
    """
    rows = []
    for (*key, side), tally in tallies.items():
        found = tally.evaluation()
        rows.append([*key, HALVES[side], found.loss, found.top1])
    return pd.DataFrame(rows, columns=[*columns, "half", "loss", "top1"])


def _keep(found: dict[str, torch.Tensor], name: str, output: torch.Tensor) -> None:
    # A copy, as later modules may work in place.
    found[name] = output.clone()
