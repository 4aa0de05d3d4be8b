"""How alike several nets can be to what they have in common (Nili et al. 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from convergent.measures.registry import Measure, Undefined
from convergent.measures.rsa import centred_ranks, cosine, of_pairs


class Ceiling(NamedTuple):
    """Bounds of the mean similarity to several nets that any dissimilarities of images can have.

    Attributes
    ----------
    lower : float
        Mean similarity of each net with the mean of the others.
    upper : float
        Mean similarity of each net with the mean of all, the net among them.
    """

    lower: float
    upper: float


def noise_ceiling(measure: Measure, dissimilarities: Sequence[NDArray]) -> Ceiling:
    """Bound how alike the same layer of several nets can be to anything.

    Parameters
    ----------
    measure : Measure
        ``rsa`` or ``rsa_cosine``.
    dissimilarities : sequence of ndarray of shape (image, image)
        Of the same images, in each net.

    Raises
    ------
    Undefined
        If there are fewer than three nets, or all pairs of images are equally dissimilar in one.

    Notes
    -----
    Each net is ranked (rsa) or scaled to length 1 (rsa_cosine) before means are taken, as the mean
    is then most similar to all nets (Nili et al. 2014; exactly so, if no ranks are equal).
    """
    if len(dissimilarities) < 3:
        raise Undefined("a ceiling needs three nets")
    ranked = measure.name == "rsa"
    nets = [of_pairs(each).astype(np.float64) for each in dissimilarities]
    if ranked:
        nets = [centred_ranks(each) for each in nets]
    lengths = [np.linalg.norm(each) for each in nets]
    if not all(lengths):
        raise Undefined("all pairs of images are equally dissimilar in one of the nets")
    if not ranked:
        nets = [each / length for each, length in zip(nets, lengths, strict=True)]

    def alike(net: NDArray, mean: NDArray) -> float:
        return cosine(net, centred_ranks(mean) if ranked else mean)

    total = np.sum(nets, axis=0)
    lower = np.mean([alike(each, total - each) for each in nets])
    upper = np.mean([alike(each, total) for each in nets])
    return Ceiling(float(lower), float(upper))
