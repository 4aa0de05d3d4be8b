"""Means over pairs of nets, with intervals over nets: nets are left out, as pairs share them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from convergent.inference.jackknife import Interval, jackknife

# Nets without which there is no interval: of two, leaving one out leaves no pair.
LEAST = 3


class OverNets(NamedTuple):
    """Mean over pairs of nets.

    Attributes
    ----------
    mean : float
        NaN if there is no value.
    interval : Interval or None
        Over nets; None if there is none.
    n_nets, n_pairs : int
        Nets and pairs that have a value.
    note : str
        Reason why there is no interval; empty if there is one.
    """

    mean: float
    interval: Interval | None
    n_nets: int
    n_pairs: int
    note: str


def over_nets(values: Mapping[tuple[str, str], float], level: float = 0.95) -> OverNets:
    """Average a value over pairs of nets, with the interval of the mean over nets.

    Parameters
    ----------
    values : mapping of (str, str) to float
        Value of each pair, by its two nets. Pairs with NaN are left out.
    level : float
        Confidence level.

    Returns
    -------
    OverNets

    Notes
    -----
    The mean over all pairs is a U-statistic of degree 2, and its variance is that of the jackknife
    that leaves out one net, with all its pairs, at a time (Arvesen 1969). With g nets the interval
    is by Student's t with g - 1 degrees of freedom. If values are sums of effects of the two nets,
    the variance is unbiased. What belongs to a pair alone is counted more than once: independent
    pairs get 2 (g - 1) / (g - 2) times their variance, so that the interval is too wide rather than
    too narrow. If only pairs between two groups are there, a 95% interval covers 93% or more.

    References
    ----------
    J. N. Arvesen, Jackknifing U-statistics, Annals of Mathematical Statistics 40, 1969.
    """
    known = {pair: float(value) for pair, value in values.items() if not np.isnan(value)}
    nets = list(dict.fromkeys(net for pair in known for net in pair))
    if not known:
        return OverNets(float("nan"), None, 0, 0, "no pair has a value")
    mean = float(np.mean([*known.values()]))
    without = {net: [v for pair, v in known.items() if net not in pair] for net in nets}
    interval, note = None, ""
    if len(nets) < LEAST:
        note = f"no interval over nets: {len(nets)} nets are too few; {LEAST} are needed"
    elif central := next((net for net, rest in without.items() if not rest), None):
        note = f"no interval over nets: {central} is in every pair, so none is left without it"
    else:
        means = [float(np.mean(rest)) for rest in without.values()]
        interval = jackknife(mean, means, np.ones(len(nets)), level)
    return OverNets(mean, interval, len(nets), len(known), note)
