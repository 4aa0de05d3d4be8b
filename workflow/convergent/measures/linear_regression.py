"""Share of one layer's variance that least squares explains from another, held out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from convergent.measures.registry import Measure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from convergent.measures.spectra import Spectra


@dataclass(frozen=True)
class Fit:
    """Linear map from the units of one layer to those of another.

    Attributes
    ----------
    mean_a, mean_b : ndarray of shape (unit_a,), (unit_b,)
        Means of the units where the map was fitted.
    weights : ndarray of shape (unit_a, unit_b)
    """

    mean_a: NDArray[np.float64]
    mean_b: NDArray[np.float64]
    weights: NDArray[np.float64]

    @cached_property
    def products(self) -> NDArray[np.float64]:
        """Multiply the weights of pairs of units of the first layer, shape (unit_a, unit_a)."""
        return self.weights @ self.weights.T


def choose(spectra: Spectra) -> Fit:
    """Fit each unit of the second layer to those of the first by least squares.

    Directions of the first layer with at most :data:`convergent.measures.spectra.LEAST` of the
    largest variance have no weight, so that units that repeat others do not matter.
    """
    between = spectra.between
    return Fit(between.mean_x, between.mean_y, spectra.a.solve(between.comoment))


def score(spectra: Spectra, fit: Fit) -> float:
    """Compute the share of the second layer's variance, over all units, that a fit explains.

    It is below 0 if the means would predict better. A constant layer is explained by none and
    explains none: 0.
    """
    between, total = spectra.between, spectra.b.within.var_x.sum()
    if not (total > 0 and fit.weights.any()):
        return 0.0
    # The sum of squared residuals, by its parts. None costs a product of matrices but `products`,
    # once for a fit, however often it is scored.
    predicted = np.vdot(fit.products, spectra.a.within.comoment) / between.count
    shared = np.vdot(fit.weights, between.comoment) / between.count
    shift = between.mean_y - fit.mean_b - (between.mean_x - fit.mean_a) @ fit.weights
    return float((2 * shared - predicted - shift @ shift) / total)


MEASURE = Measure(
    name="linear_regression",
    label="variance explained by linear regression",
    unit="",
    needs="spectra",
    gives="layers",
    range=(-float("inf"), 1),
    invariances=frozenset({"permutation", "isotropic_scaling", "shift", "sign", "rotation"}),
    symmetric=False,
    higher_is_more_alike=True,
    source="Kornblith et al. 2019",
    choose=choose,
    score=score,
    always_held_out=True,
)
