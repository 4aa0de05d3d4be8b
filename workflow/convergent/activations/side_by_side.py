"""Nets observed side by side: at a moment of their training, or on other images."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from convergent.activations.blocks import Blocks, Cut, aligned, load_blocks
from convergent.activations.from_nets import Form, Target, reduce_nets
from convergent.activations.reductions import Reduction, image_means, moments_by_block
from convergent.running.stores import open_store

if TYPE_CHECKING:
    import torch

# Folders of the stores: of each net, of each net with its final state, of each pair.
NETS, FINAL, PAIRS = "nets", "final", "pairs"


def observe_side_by_side(
    nets: Mapping[str, torch.nn.Module],
    final: Mapping[str, torch.nn.Module],
    batches: Mapping[str, Iterable[torch.Tensor]],
    layers: Sequence[str],
    folder: str | Path,
    *,
    image_index: NDArray[np.integer],
    places: Mapping[str, Mapping[str, Any]] | None = None,
    blocks: int = 20,
    device: str = "cpu",
    **options: Any,
) -> None:
    """Write the moments of nets, and of nets with their final states, in one pass over the images.

    All nets run side by side on each batch, so that no activations are kept.

    Parameters
    ----------
    nets : mapping of name to nn.Module
        Nets as they are, or as they were at one moment of their training.
    final : mapping of name to nn.Module
        The same nets at the end of their training; empty to leave this comparison out.
    batches : mapping of name to iterable of torch.Tensor of shape (image, channel, y, x)
        Input of each net, the same images for all.
    layers : sequence of str
    folder : path
        ``nets/<net>.zarr`` has the blocks of moments and the `image_mean` of each layer of a net,
        ``pairs/<a>-<b>.zarr`` those between two nets, and ``final/<net>.zarr`` those between a net
        and its final state.
    blocks : int
        Number of blocks of images.
    image_index, places, device, **options
        See :func:`convergent.activations.from_nets.observe`.

    Raises
    ------
    RecordingError, StoreError, ValueError
        As :func:`convergent.activations.from_nets.observe`.
    """
    names = list(nets)
    ends = {_final(name): final[name] for name in names if name in final}
    every = {**nets, **ends}
    numbers = {name: number for number, name in enumerate(every)}
    paths: dict[Target, Path] = {
        (numbers[name],): Path(folder, NETS, f"{name}.zarr") for name in names
    }
    paths |= {
        (numbers[name], numbers[_final(name)]): Path(folder, FINAL, f"{name}.zarr")
        for name in names
        if name in final
    }
    paths |= {
        (numbers[a], numbers[b]): Path(folder, PAIRS, f"{a}-{b}.zarr")
        for a, b in itertools.combinations(names, 2)
    }

    def reductions(form: Form) -> tuple[Cut, list[Reduction]]:
        widest = max(form.units)
        cut = Cut.of(len(image_index), blocks).coarsen(widest, widest)
        found = moments_by_block(cut, form.units, form.targets, device=device)
        found += [image_means(n) for n, net in enumerate(form.nets) if net < len(names)]
        return cut, found

    reduced = reduce_nets(
        every,
        _of_both(batches, ends),
        layers,
        list(paths),
        reductions,
        image_index=image_index,
        places=places and _of_both(places, ends),
        device=device,
        **options,
    )
    for target, path in paths.items():
        with reduced.store(path, target) as store:
            for layer, save_layer in reduced.layers(target):
                save_layer(store.create_group(layer), target)


def read_accuracy(folders: Mapping[float, str | Path]) -> dict[tuple[float, str], float]:
    """Read the top-1 accuracy of each net at each epoch; NaN where it is unknown.

    Parameters
    ----------
    folders : mapping of epoch to path
        Each has ``accuracy.csv``, with the columns net and top1.
    """
    found: dict[tuple[float, str], float] = {}
    for epoch, folder in folders.items():
        table = pd.read_csv(Path(folder, "accuracy.csv"))
        found |= {(epoch, net): top1 for net, top1 in zip(table["net"], table["top1"], strict=True)}
    return found


class Observed(NamedTuple):
    """Two nets, or a net and its final state, in one layer at one moment of training.

    Attributes
    ----------
    epoch : float
    compared : {"other", "final"}
        Whether the second is another net at the same epoch, or the first at its last epoch.
    net_a, net_b : str
    layer : str
    blocks : (Blocks, Blocks, Blocks)
        Moments between the layers, within the first and within the second.
    image_means : (ndarray, ndarray) of shape (image, unit)
    """

    epoch: float
    compared: str
    net_a: str
    net_b: str
    layer: str
    blocks: tuple[Blocks, Blocks, Blocks]
    image_means: tuple[NDArray[np.float32], NDArray[np.float32]]


def observed(folders: Mapping[float, str | Path], layers: Sequence[str]) -> Iterator[Observed]:
    """Read what :func:`observe_epoch` wrote, layer by layer and epoch by epoch.

    Parameters
    ----------
    folders : mapping of epoch to path
        The last epoch is the end of the training.
    layers : sequence of str

    Yields
    ------
    Observed
        Of every layer that both nets have: each two nets at each epoch, and each net and its final
        state at each epoch but the last.
    """
    last = max(folders)
    for layer in layers:
        ends = dict(_groups(folders[last], NETS, layer))
        for epoch in sorted(folders):
            within = ends if epoch == last else dict(_groups(folders[epoch], NETS, layer))
            for pair, between in _groups(folders[epoch], PAIRS, layer):
                a, b = pair.split("-")
                yield _observed(epoch, "other", (a, b), between, (within[a], within[b]))
            for net, between in _groups(folders[epoch], FINAL, layer):
                yield _observed(epoch, "final", (net, net), between, (within[net], ends[net]))


def _groups(folder: str | Path, kind: str, layer: str) -> Iterator[tuple[str, zarr.Group]]:
    """Open a layer in each store of a kind that has it."""
    for path in sorted(Path(folder, kind).glob("*.zarr")):
        store = open_store(path)
        if layer in store:
            yield path.stem, store[layer]


def _observed(
    epoch: float,
    compared: str,
    nets: tuple[str, str],
    between: zarr.Group,
    within: tuple[zarr.Group, zarr.Group],
) -> Observed:
    first, a, b = aligned([load_blocks(group) for group in (between, *within)])
    means = within[0]["image_mean"][...], within[1]["image_mean"][...]
    return Observed(epoch, compared, *nets, between.basename, (first, a, b), means)


def _final(name: str) -> str:
    """Name the final state of a net, as messages have it."""
    return f"final {name}"


def _of_both(given: Mapping[str, Any], ends: Mapping[str, Any]) -> dict[str, Any]:
    """Give final states what their nets have."""
    return {**given, **{_final(name): given[name] for name in given if _final(name) in ends}}
