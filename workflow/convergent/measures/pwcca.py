"""Projection-weighted canonical correlation of two layers (Morcos et al. 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from convergent.measures.registry import Measure

if TYPE_CHECKING:
    from convergent.measures.spectra import Spectra


# Units of the wider layer up to which there are intervals.
WIDEST = 512


def compute(spectra: Spectra) -> float:
    """Average the canonical correlations, weighted by what they account for in the first layer.

    The weight of canonical variable h of the first layer is the sum over its units x of |<h, x>|
    (section 3.1 of the source). A layer whose units are all dead has similarity 0 with any other.

    Raises
    ------
    Undefined
        If some correlations are 1 whatever the layers are, as there are too few samples.

    Notes
    -----
    There is no gradient: canonical directions of nearly equal correlations turn far, and not in
    proportion, when some images are left out. Linearised intervals came out up to eight times as
    wide as those of the jackknife, and with the weights held fixed between a fifth and nine tenths
    as wide (nets of the default run). Each block therefore costs two decompositions, and layers of
    more than :data:`WIDEST` units have no interval.
    """
    correlations = spectra.canonical.correlations
    if not len(correlations):
        return 0.0
    weights = np.abs(spectra.loadings_a).sum(axis=0, dtype=np.float64)
    return float(weights @ correlations / weights.sum())


MEASURE = Measure(
    name="pwcca",
    label="PWCCA",
    unit="",
    needs="spectra",
    gives="layers",
    range=(0, 1),
    invariances=frozenset({"permutation", "isotropic_scaling", "shift", "sign"}),
    invariances_of_second=frozenset({"scaling", "rotation"}),
    symmetric=False,
    higher_is_more_alike=True,
    source="Morcos et al. 2018",
    compute=compute,
    widest=WIDEST,
)
