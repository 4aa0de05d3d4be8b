"""Partners that were chosen on some images, scored on others that are unlike them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from convergent.activations.side_by_side import Observed
from convergent.inference.jackknife import jackknife
from convergent.inference.nulls import chance, null_columns
from convergent.inference.over_nets import over_nets
from convergent.measures.matching import semi_matching
from convergent.nets.probes import PLAIN

# Name of both nets in rows over pairs.
ALL = "all"
NULL = null_columns("exchanged")
COLUMNS = [
    "net_a", "net_b", "layer", "probe", "top1", "chosen_on", "scored_on", "value",
    "standard_error", "low", "high", *NULL, "same_partner", "low_nets", "high_nets", "n_units",
    "n_images", "n_nets", "note",
]  # fmt: skip


def probe_table(
    observed: Mapping[str, Iterable[Observed]],
    accuracy: Mapping[tuple[str, str], float],
    *,
    draws: int = 99,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """Score partners from one set of images on another, by layer and probe.

    Parameters
    ----------
    observed : mapping of probe to iterable of Observed
        From :func:`convergent.activations.side_by_side.observed`, of the same pairs and layers; one
        is :data:`PLAIN`.
    accuracy : mapping of (probe, net) to float
        Top-1 accuracy; NaN or missing if unknown.
    draws, seed : int
        Number of draws in which the units of a net exchange their partners, and their seed.
    level : float
        Confidence level.

    Returns
    -------
    DataFrame
        Rows by pair of nets, layer and probe. `value` is the mean correlation, on the images that
        `scored_on` names, of the units that are live on both sets and the semi-matches that they
        have on the images of `chosen_on`, over both directions. `chosen_on` and `scored_on` are
        :data:`PLAIN` or the probe; if both are the probe, partners from each half of its images are
        scored on the other. same_partner is the share of units that have the same partner on both.
        The interval leaves out one block at a time of the images that are scored. In rows whose
        nets are ``all`` these are means over pairs, with the interval over nets.
    """
    rows = []
    rng = np.random.default_rng(seed)
    for layer in zip(*observed.values(), strict=True):
        sets = dict(zip(observed, layer, strict=True))
        plain = sets[PLAIN]
        for probe, each in sets.items():
            top1 = np.mean([accuracy.get((probe, net), np.nan) for net in (each.net_a, each.net_b)])
            where = {"net_a": each.net_a, "net_b": each.net_b, "layer": each.layer}
            where |= {"probe": probe, "top1": float(top1), "n_nets": 2}
            rows += [where | row for row in _rows(probe, plain, each, draws, rng, level)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    return pd.concat([table, _over_nets(table, level)], ignore_index=True)


def _rows(
    probe: str,
    plain: Observed,
    probed: Observed,
    draws: int,
    rng: np.random.Generator,
    level: float,
) -> Iterable[dict[str, Any]]:
    """Score both ways, and each half of the probe's images on the other."""
    sets = {PLAIN: plain.blocks[0], probe: probed.blocks[0]}
    wholes = {name: blocks.total().correlation() for name, blocks in sets.items()}
    live = [np.all([whole.any(axis=axis) for whole in wholes.values()], axis=0) for axis in (1, 0)]
    partners = {name: _partners(whole, live) for name, whole in wholes.items()}
    units = sum(len(each) for each in partners[probe])
    same = [a == b for a, b in zip(partners[PLAIN], partners[probe], strict=True)]
    told: dict[str, Any] = {"n_units": units}
    if not units:
        yield told | {"note": "no unit is live on both sets of images"}
        return
    told["same_partner"] = float(np.concatenate(same).mean())
    ways = dict.fromkeys([(PLAIN, probe), (probe, PLAIN)])
    for chosen, scored in ways:
        blocks = sets[scored]
        value = _score(wholes[scored], partners[chosen], live)
        without = [
            _score(rest.correlation(), partners[chosen], live) for rest in blocks.leave_one_out()
        ]
        null = [
            _score(wholes[scored], [rng.permutation(each) for each in partners[chosen]], live)
            for _ in range(draws)
        ]
        row = told | {"chosen_on": chosen, "scored_on": scored, "value": value}
        row |= {"n_images": int(blocks.cut.edges[-1])}
        row |= jackknife(value, without, np.diff(blocks.cut.edges), level)._asdict()
        yield row | chance(value, null, level=level).columns("exchanged")
    halves = [half.correlation() for half in sets[probe].halves()]
    scores = [_score(halves[1 - side], _partners(halves[side], live), live) for side in (0, 1)]
    row = {"chosen_on": f"half of {probe}", "scored_on": probe, "value": float(np.mean(scores))}
    note = "each half of the images is scored by partners from the other; no interval"
    yield told | row | {"n_images": int(sets[probe].cut.edges[-1]), "note": note}


def _partners(
    correlation: NDArray[np.float64], live: Sequence[NDArray[np.bool]]
) -> list[NDArray[np.intp]]:
    """Find the semi-matches of live units among live units, in both directions."""
    among = correlation[np.ix_(*live)]
    return [
        semi_matching(matrix) if matrix.size else np.zeros(0, int) for matrix in (among, among.T)
    ]


def _score(
    correlation: NDArray[np.float64],
    partners: Sequence[NDArray[np.intp]],
    live: Sequence[NDArray[np.bool]],
) -> float:
    """Average the correlations of partners over the units of each net, and over both nets."""
    among = correlation[np.ix_(*live)]
    found = [
        matrix[np.arange(len(partner)), partner].mean()
        for matrix, partner in zip((among, among.T), partners, strict=True)
    ]
    return float(np.mean(found))


def _over_nets(table: pd.DataFrame, level: float) -> pd.DataFrame:
    """Average over pairs of nets."""
    rows = []
    for key, group in table.groupby(["layer", "probe", "chosen_on", "scored_on"], sort=False):
        values = group.set_index(["net_a", "net_b"])["value"]
        found = over_nets(dict(values.items()), level)
        numbers = group[["top1", "value", "low", "high", NULL[0], "same_partner"]].mean()
        row = dict(zip(["layer", "probe", "chosen_on", "scored_on"], key, strict=True))
        row |= numbers.to_dict() | {"net_a": ALL, "net_b": ALL, "note": found.note}
        row |= {"n_nets": found.n_nets, "n_units": group["n_units"].sum()}
        row |= {"n_images": group["n_images"].max()}
        if found.interval:
            row |= {"low_nets": found.interval.low, "high_nets": found.interval.high}
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)
