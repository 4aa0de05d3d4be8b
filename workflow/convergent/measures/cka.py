"""Linear centred kernel alignment of two layers (Kornblith et al. 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from convergent.measures.registry import Measure

if TYPE_CHECKING:
    from convergent.activations.moments import Moments


def compute(between: Moments, within_a: Moments, within_b: Moments) -> float:
    """Divide the squared norm of the covariances of two layers by the norms within each.

    The norms are Frobenius norms. A layer whose units are all dead has similarity 0 with any other.
    """
    within = np.linalg.norm(within_a.comoment) * np.linalg.norm(within_b.comoment)
    return float(np.sum(between.comoment**2) / within) if within > 0 else 0.0


MEASURE = Measure(
    name="cka",
    label="linear CKA",
    unit="",
    needs="moments",
    gives="layers",
    range=(0, 1),
    invariances=frozenset({"permutation", "isotropic_scaling", "shift", "sign", "rotation"}),
    symmetric=True,
    higher_is_more_alike=True,
    source="Kornblith et al. 2019",
    compute=compute,
)
