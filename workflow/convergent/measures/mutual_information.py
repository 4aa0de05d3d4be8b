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
    # Codes follow the order of a unit's activations above zero, whatever their scale.
    invariances=frozenset({"permutation", "scaling", "isotropic_scaling", "monotone"}),
    symmetric=True,
    higher_is_more_alike=True,
    source="Li et al. 2016",
    compute=compute,
    bias=bias,
    rank=1,
)
