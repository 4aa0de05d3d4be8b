"""Correlation of every pair of units (section 2 of the paper)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convergent.measures.registry import Measure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from convergent.activations.moments import Moments


def compute(between: Moments, within_a: Moments, within_b: Moments) -> NDArray[np.float64]:
    """Correlate every unit of one net with every unit of the other; dead units have 0."""
    return between.correlation()


MEASURE = Measure(
    name="correlation",
    label="correlation",
    unit="",
    needs="moments",
    gives="units",
    range=(-1, 1),
    invariances=frozenset({"permutation", "scaling", "isotropic_scaling", "shift"}),
    symmetric=True,
    higher_is_more_alike=True,
    source="Li et al. 2016",
    compute=compute,
    rank=0,
)
