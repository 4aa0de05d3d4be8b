"""Mutual information of every pair of units (section 3.2 of the paper).

:mod:`convergent.measures.histograms` counts it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from convergent.measures.registry import Measure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def compute(
    codes_a: NDArray[np.uint8],
    codes_b: NDArray[np.uint8],
    *,
    threads: int = 1,
    device: str = "cpu",
) -> NDArray[np.float64]:
    """Compute the mutual information of every unit of one net with every unit of the other."""
    from convergent.measures.histograms import mutual_information

    other = None if codes_b is codes_a else codes_b
    return mutual_information(codes_a, other, threads=threads, device=device)


def without(
    codes_a: NDArray[np.uint8],
    codes_b: NDArray[np.uint8],
    rows: NDArray[np.integer],
    columns: NDArray[np.integer],
    edges: NDArray[np.integer],
    *,
    threads: int = 1,
) -> NDArray[np.float64]:
    """Compute the mutual information of some pairs of units without each block of samples."""
    from convergent.measures.histograms import information_without

    return information_without(codes_a, codes_b, rows, columns, edges, threads=threads)


def bias(codes_a: NDArray[np.uint8], codes_b: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Compute the first-order bias of mutual information, which grows with the bins."""
    from convergent.measures.histograms import correction

    return correction(codes_a, None if codes_b is codes_a else codes_b)


MEASURE = Measure(
    name="mutual_information",
    label="mutual information",
    unit="nats",
    needs="codes",
    gives="units",
    range=(0, float("inf")),
    # Codes follow the order of a unit's activations, whatever their scale. A shift or a change of
    # sign moves values into the bin around zero, or out of it.
    invariances=frozenset({"permutation", "scaling", "isotropic_scaling", "monotone"}),
    symmetric=True,
    higher_is_more_alike=True,
    source="Li et al. 2016",
    compute=compute,
    without=without,
    bias=bias,
    rank=1,
)
