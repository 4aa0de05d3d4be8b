"""Singular vector canonical correlation of two layers (Raghu et al. 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convergent.measures.registry import Measure

if TYPE_CHECKING:
    from convergent.measures.spectra import Gradient, Spectra

# Share of the variance of each layer in the directions that are compared (section 2 of the source).
SHARE = 0.99


def compute(spectra: Spectra) -> float:
    """Average the canonical correlations of the directions that keep 99% of each layer's variance.

    A layer whose units are all dead has similarity 0 with any other.

    Raises
    ------
    Undefined
        If some correlations are 1 whatever the layers are, as there are too few samples.
    """
    correlations = spectra.correlations_of(spectra.a.keeping(SHARE), spectra.b.keeping(SHARE))
    return float(correlations.mean()) if len(correlations) else 0.0


def gradient(spectra: Spectra) -> Gradient:
    """Differentiate :func:`compute` by the covariances, for as many directions as are kept now."""
    from convergent.measures.spectra import mean_correlation_gradient

    return mean_correlation_gradient(spectra, spectra.a.keeping(SHARE), spectra.b.keeping(SHARE))


MEASURE = Measure(
    name="svcca",
    label="SVCCA",
    unit="",
    needs="spectra",
    gives="layers",
    range=(0, 1),
    invariances=frozenset({"permutation", "isotropic_scaling", "shift", "sign", "rotation"}),
    symmetric=True,
    higher_is_more_alike=True,
    source="Raghu et al. 2017",
    compute=compute,
    gradient=gradient,
)
