"""Settling: the epoch from which a unit keeps the partner that it has at the end of training."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from convergent.activations.moments import Moments
from convergent.activations.side_by_side import Observed
from convergent.inference.jackknife import jackknife
from convergent.inference.nulls import chance, null_columns
from convergent.inference.significance import LEAST
from convergent.measures.matching import semi_matching

NULL = null_columns("shuffled")
UNITS = ["net", "other", "layer", "unit", "partner", "correlation", "settled", "itself"]
SHARES = [
    "net_a", "net_b", "layer", "keeps", "matched", "epoch", "share", "standard_error", "low",
    "high", *NULL, "n_units", "n_images",
]  # fmt: skip
# A net, and the other net or the same one, whose units are its partners.
Way = tuple[str, str]


class Settling(NamedTuple):
    """When units settle.

    Attributes
    ----------
    units : DataFrame
        Rows by `net`, `other` net, `layer` and `unit` that is live at the end: its final `partner`
        in the other net and their `correlation`; `settled`, the first epoch from which on the best
        partner is that one; and `itself`, the first epoch from which on the unit is more like its
        own final state than like that of any other unit of its net.
    shares : DataFrame
        Rows by pair of nets, `layer`, `epoch`, `keeps` (``partner`` or ``itself``) and `matched`
        (``all`` units of both nets, those matched ``well``, with a final correlation of at least
        :data:`convergent.inference.significance.LEAST`, or ``badly``): the share of units that have
        settled by then, with its interval over blocks of images; the null, in which the units of a
        net exchange their partners at every epoch but the last; n_units and n_images. At the last
        epoch every unit has settled, and there is neither interval nor null.
    """

    units: pd.DataFrame
    shares: pd.DataFrame


class _Partners(NamedTuple):
    """Partners of the units of a net at one epoch.

    Attributes
    ----------
    partner : ndarray of shape (unit,)
        The unit whose correlation is largest; -1 for a dead unit.
    without : ndarray of shape (block, unit)
        The same without each block of images.
    correlation : ndarray of shape (unit,)
    sizes : ndarray of shape (block,)
        Images of each block.
    """

    partner: NDArray[np.intp]
    without: NDArray[np.intp]
    correlation: NDArray[np.float64]
    sizes: NDArray[np.int64]


def settling(
    observed: Iterable[Observed], *, draws: int = 99, seed: int = 0, level: float = 0.95
) -> Settling:
    """Find the epochs at which units settle.

    Parameters
    ----------
    observed : iterable of Observed
        From :func:`convergent.activations.side_by_side.observed`, layer by layer; two epochs or
        more.
    draws, seed : int
        Number of draws of the null, and their seed.
    level : float
        Confidence level.

    Returns
    -------
    Settling

    Raises
    ------
    ValueError
        If there are fewer than two epochs.

    Notes
    -----
    Partners are semi-matches by correlation. Which units are matched well is told from all images
    and stays the same without a block of them.
    """
    units: list[dict[str, Any]] = []
    shares: list[dict[str, Any]] = []
    for layer, of_layer in itertools.groupby(observed, lambda each: each.layer):
        courses: dict[Way, dict[float, _Partners]] = defaultdict(dict)
        pairs: dict[Way, None] = {}
        for each in of_layer:
            a, b = each.net_a, each.net_b
            courses[a, b][each.epoch] = _partners(each, turned=False)
            if a != b:
                courses[b, a][each.epoch] = _partners(each, turned=True)
                pairs[a, b] = None
        for pair in pairs:
            epochs = sorted(courses[pair])
            if len(epochs) < 2:
                raise ValueError("one epoch shows no settling; at least 2 are needed")
            sides = [_Side.of(courses, way, epochs) for way in (pair, pair[::-1])]
            for (net, other), side in zip((pair, pair[::-1]), sides, strict=True):
                where = {"net": net, "other": other, "layer": layer}
                units += [where | row for row in side.rows(epochs)]
            rng = np.random.default_rng([seed, len(epochs)])
            where = dict(zip(("net_a", "net_b"), pair, strict=True)) | {"layer": layer}
            shares += [where | row for row in _shares(sides, epochs, draws, rng, level)]
    return Settling(pd.DataFrame(units, columns=UNITS), pd.DataFrame(shares, columns=SHARES))


def kept(same: NDArray[np.bool]) -> NDArray[np.bool]:
    """Tell from which epochs on something stays true.

    Parameters
    ----------
    same : ndarray of shape (epoch, ...), bool

    Returns
    -------
    ndarray of shape (epoch, ...), bool
        True where it is true at that epoch and at all later ones.
    """
    return np.logical_and.accumulate(same[::-1], axis=0)[::-1]


class _Side(NamedTuple):
    """The units of one net that are live at the end.

    Attributes
    ----------
    unit : ndarray of shape (unit,)
    partner : ndarray of shape (unit,)
        Final partners in the other net.
    correlation : ndarray of shape (unit,)
    found : dict of str to ndarray of shape (epoch, unit)
        What is found at each epoch: the ``partner``, and the unit of the final state that is most
        like ``itself``.
    without : dict of str to ndarray of shape (epoch, block, unit)
        The same without each block of images.
    sizes : ndarray of shape (block,)
    """

    unit: NDArray[np.intp]
    partner: NDArray[np.intp]
    correlation: NDArray[np.float64]
    found: dict[str, NDArray[np.intp]]
    without: dict[str, NDArray[np.intp]]
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, courses: dict[Way, dict[float, _Partners]], way: Way, epochs: list[float]) -> _Side:
        course, own = courses[way], courses[way[0], way[0]]
        last = course[epochs[-1]]
        live = np.flatnonzero(last.partner >= 0)
        found, without = {}, {}
        for name, of in (("partner", course), ("itself", own)):
            known = [of[epoch] for epoch in epochs if epoch in of]
            found[name] = np.stack([each.partner[live] for each in known])
            without[name] = np.stack([each.without[:, live] for each in known])
        # At the end a unit is most like itself.
        found["itself"] = np.concatenate([found["itself"], live[None]])
        ends = np.broadcast_to(live, (1, len(last.sizes), len(live)))
        without["itself"] = np.concatenate([without["itself"], ends])
        return cls(live, last.partner[live], last.correlation[live], found, without, last.sizes)

    def final(self, keeps: str) -> NDArray[np.intp]:
        return self.partner if keeps == "partner" else self.unit

    def classes(self) -> dict[str, NDArray[np.bool]]:
        """Tell which units are in each class."""
        well = self.correlation >= LEAST
        return {"all": np.ones(len(well), bool), "well": well, "badly": ~well}

    def rows(self, epochs: list[float]) -> Iterator[dict[str, Any]]:
        first = {}
        for keeps, found in self.found.items():
            stays = kept(found == self.final(keeps))
            first[keeps] = np.asarray(epochs)[stays.argmax(axis=0)]
        numbers = self.unit, self.partner, self.correlation, first["partner"], first["itself"]
        for row in zip(*numbers, strict=True):
            yield dict(zip(UNITS[3:], row, strict=True))


def _shares(
    sides: list[_Side], epochs: list[float], draws: int, rng: np.random.Generator, level: float
) -> Iterator[dict[str, Any]]:
    """Compute the rows of the shares of a pair and layer."""
    sizes = sides[0].sizes
    of_class = {
        name: np.concatenate([side.classes()[name] for side in sides])
        for name in ("all", "well", "badly")
    }
    for keeps in ("partner", "itself"):
        stays = np.concatenate(
            [kept(side.found[keeps] == side.final(keeps)) for side in sides], axis=-1
        )
        # The partner at the end is that of the same images.
        left = [side.without[keeps] for side in sides]
        without = np.concatenate([kept(each == each[-1]) for each in left], axis=-1)
        drawn = [
            np.concatenate([_shuffled(side, keeps, rng) for side in sides], axis=-1)
            for _ in range(draws)
        ]
        for matched, members in of_class.items():
            for number, epoch in enumerate(epochs):
                row: dict[str, Any] = {"keeps": keeps, "matched": matched, "epoch": epoch}
                row |= {"n_units": int(members.sum()), "n_images": int(sizes.sum())}
                if members.any():
                    share = float(stays[number, members].mean())
                    row["share"] = share
                    if number + 1 < len(epochs):
                        values = without[number][:, members].mean(axis=1)
                        row |= jackknife(share, values, sizes, level)._asdict()
                        null = [each[number, members].mean() for each in drawn]
                        row |= chance(share, null, level=level).columns("shuffled")
                yield row


def _shuffled(side: _Side, keeps: str, rng: np.random.Generator) -> NDArray[np.bool]:
    """Let the units exchange what they found at each epoch but the last."""
    found = side.found[keeps].copy()
    for row in found[:-1]:
        rng.shuffle(row)
    return kept(found == side.final(keeps))


def _partners(observed: Observed, turned: bool) -> _Partners:
    blocks = observed.blocks[0]
    whole = _correlation(blocks.total(), turned)
    partner = _best(whole)
    return _Partners(
        partner,
        np.stack([_best(_correlation(rest, turned)) for rest in blocks.leave_one_out()]),
        whole[np.arange(len(whole)), partner],
        np.diff(blocks.cut.edges),
    )


def _correlation(moments: Moments, turned: bool) -> NDArray[np.float64]:
    return moments.correlation().T if turned else moments.correlation()


def _best(correlation: NDArray[np.float64]) -> NDArray[np.intp]:
    """Find the best partner of each unit; -1 for dead ones."""
    return np.where(correlation.any(axis=1), semi_matching(correlation), -1)
