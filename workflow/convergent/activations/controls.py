"""Controls: nets before their first step, compared with each other and with the trained nets.

Similarity of untrained nets is what the architecture, the images and chance give; what training
adds stands above it. For a pair of nets a and b, and a0 and b0 as they were before training, three
pairs are compared: a0 with b0, a with b0, and a0 with b. Of these, means and correlations over each
half of the images are kept, and no more blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import zarr
from numpy.typing import NDArray

from convergent.activations.blocks import Blocks, Cut
from convergent.activations.reductions import (
    Reduction,
    binned_samples,
    image_means,
    moments_by_block,
)
from convergent.activations.samples import Places, Samples
from convergent.running.stores import save

# Names of the three pairs, each with whether its first and its second net are untrained.
KINDS = {
    "untrained": (True, True),
    "untrained_ab": (False, True),
    "untrained_ba": (True, False),
}


def halves(cut: Cut) -> Cut:
    """Merge the blocks of each half of the images."""
    return Cut(np.asarray([0, cut.half, cut.edges[-1]], np.int64), cut.half)


def pairs_of_controls(
    trained: tuple[int, int], untrained: tuple[int, int]
) -> dict[tuple[int, ...], str]:
    """Name the kind of each pair of controls, by the numbers of its nets.

    Parameters
    ----------
    trained, untrained : (int, int)
        Numbers of the two nets of a pair, as trained and as they were before.
    """
    return {
        (untrained[0] if first else trained[0], untrained[1] if second else trained[1]): kind
        for kind, (first, second) in KINDS.items()
    }


def control_moments(
    cut: Cut,
    units: Sequence[int],
    kinds: Mapping[tuple[int, ...], str],
    nets: Sequence[int] = (),
    *,
    device: str = "cpu",
) -> list[Reduction]:
    """Make the reductions to the moments of untrained nets, in each half of the images.

    Parameters
    ----------
    cut : Cut
        Blocks of images of the run.
    units : sequence of int
        Number of units of each net.
    kinds : mapping of (int, int) to str
        Pairs, each with its kind (:data:`KINDS`), under which its correlations are saved, of shape
        (half, unit_a, unit_b), float32.
    nets : sequence of int
        Untrained nets whose moments are wanted.
    device : str
        For :meth:`convergent.activations.moments.Moments.of`.
    """
    return moments_by_block(
        halves(cut),
        units,
        [*((net,) for net in nets), *kinds],
        device=device,
        writers={pair: partial(_save_halves, kind) for pair, kind in kinds.items()},
    )


def untrained_reductions(
    net: int, image_index: NDArray[np.integer], places: Places, samples: Samples, binning: str
) -> list[Reduction]:
    """List the reductions of the statistics of an untrained net, apart from its moments.

    Parameters
    ----------
    net, image_index, places, samples, binning
        See :func:`convergent.activations.reductions.binned_samples`.
    """
    return [
        image_means(net),
        binned_samples(net, image_index, places, samples, binning, values=False),
    ]


def _save_halves(name: str, group: zarr.Group, blocks: Blocks) -> None:
    """Write the correlations of both halves."""
    correlations = np.stack([moments.correlation() for moments in blocks.moments])
    save(group, name, correlations.astype(np.float32), ("half", "unit_a", "unit_b"))
