"""Mean canonical correlation of two layers (Raghu et al. 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convergent.measures.registry import Measure

if TYPE_CHECKING:
    from convergent.measures.spectra import Gradient, Spectra


def compute(spectra: Spectra) -> float:
    """Average the canonical correlations of two layers.

    There are as many as the layer of lower rank has directions with more than
    :data:`convergent.measures.spectra.LEAST` of the variance of its first. A layer whose units are
    all dead has similarity 0 with any other.

    Raises
    ------
    Undefined
        If some correlations are 1 whatever the layers are, as there are too few samples.
    """
    correlations = spectra.canonical.correlations
    return float(correlations.mean()) if len(correlations) else 0.0


def gradient(spectra: Spectra) -> Gradient:
    """Differentiate :func:`compute` by the covariances."""
    from convergent.measures.spectra import mean_correlation_gradient

    return mean_correlation_gradient(spectra, spectra.a.rank, spectra.b.rank)


MEASURE = Measure(
    name="cca",
    label="mean canonical correlation",
    unit="",
    needs="spectra",
    gives="layers",
    range=(0, 1),
    invariances=frozenset(
        {"permutation", "scaling", "isotropic_scaling", "shift", "sign", "rotation"}
    ),
    symmetric=True,
    higher_is_more_alike=True,
    source="Raghu et al. 2017",
    compute=compute,
    gradient=gradient,
)
