"""Values without each block of images, to first order, from one gradient.

The infinitesimal jackknife (Jaeckel 1972; Efron 1982, chapter 6) replaces the value of a measure
without a block by the value from all images, plus the gradient times the change of the covariances.
A measure that costs a decomposition then costs one for all blocks together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from convergent.activations.blocks import Blocks
from convergent.activations.moments import Moments
from convergent.measures.spectra import Gradient


def values_without(
    gradient: Gradient,
    blocks: tuple[Blocks, Blocks, Blocks],
    total: tuple[Moments, Moments, Moments],
) -> NDArray[np.float64]:
    """Approximate a measure without each block of images.

    Parameters
    ----------
    gradient : Gradient
        Value from all images, and its derivatives by covariances.
    blocks : (Blocks, Blocks, Blocks)
        Moments between the layers, within the first and within the second.
    total : (Moments, Moments, Moments)
        All their blocks, merged.

    Returns
    -------
    ndarray of shape (block,)

    Notes
    -----
    Without block i, of n_i of n samples and with co-moments S_i and means m_i, the covariances are
    (S - S_i - n n_i / (n - n_i) (m_i - m)(m_i - m)') / (n - n_i): moments need not be merged.
    """
    values = np.full(len(blocks[0].moments), gradient.value)
    for derivative, parts, all_ in zip(gradient[1:], blocks, total, strict=True):
        if derivative is None:
            continue
        whole = _inner(derivative, all_.comoment) / all_.count
        for number, part in enumerate(parts.moments):
            rest = all_.count - part.count
            x, y = part.mean_x - all_.mean_x, part.mean_y - all_.mean_y
            change = part.count * whole - _inner(derivative, part.comoment)
            change -= all_.count * part.count / rest * float(x @ derivative @ y)
            values[number] += change / rest
    return values


def turned(gradient: Gradient) -> Gradient:
    """Exchange the layers of a gradient, which is then one of the measure of the turned layers."""
    between = None if gradient.between is None else np.ascontiguousarray(gradient.between.T)
    return Gradient(gradient.value, between, gradient.within_b, gradient.within_a)


def _inner(x: NDArray, y: NDArray) -> float:
    return float(np.einsum("ij,ij->", x, y))
