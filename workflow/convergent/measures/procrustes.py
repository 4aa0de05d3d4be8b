"""Angular shape distance of two layers (Williams et al. 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from convergent.measures.registry import Measure

if TYPE_CHECKING:
    from convergent.measures.spectra import Gradient, Spectra


def compute(spectra: Spectra) -> float:
    """Compute the angle, in radians, between two layers after the best rotation of one.

    Its cosine is the nuclear norm of the covariances between the layers, over the root of the
    product of the total variances. A layer whose units are all dead is at a right angle to any
    other.
    """
    from convergent.measures.spectra import singular_values

    scale = _scale(spectra)
    norm = singular_values(spectra.covariances).sum() if scale else 0.0
    return _angle(norm, scale)


def gradient(spectra: Spectra) -> Gradient:
    """Differentiate :func:`compute` by the covariances; at distance 0, the least, it is 0."""
    from convergent.measures.spectra import Gradient, singular

    scale = _scale(spectra)
    if not scale:
        return Gradient(_angle(0.0, scale), None, None, None)
    left, values, right = singular(spectra.covariances)
    norm = values.sum()
    value, cosine = _angle(norm, scale), norm / scale
    if cosine > 1 - 1e-12:
        return Gradient(value, None, None, None)
    slope = -1 / np.sqrt(1 - cosine**2)
    within = (
        np.diag(np.full(len(each.var_x), -slope * cosine / (2 * each.var_x.sum())))
        for each in (spectra.a.within, spectra.b.within)
    )
    return Gradient(value, (left * (slope / scale)) @ right.T, *within)


def _scale(spectra: Spectra) -> float:
    """Multiply the roots of the total variances of the layers."""
    return float(np.sqrt(spectra.a.within.var_x.sum()) * np.sqrt(spectra.b.within.var_x.sum()))


def _angle(norm: float, scale: float) -> float:
    return float(np.arccos(min(norm / scale, 1.0) if scale else 0.0))


MEASURE = Measure(
    name="procrustes",
    label="angular shape distance",
    unit="radians",
    needs="spectra",
    gives="layers",
    range=(0, np.pi / 2),
    invariances=frozenset({"permutation", "isotropic_scaling", "shift", "sign", "rotation"}),
    symmetric=True,
    higher_is_more_alike=False,
    source="Williams et al. 2021",
    compute=compute,
    gradient=gradient,
)
