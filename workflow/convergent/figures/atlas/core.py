"""The shared core of a layer: units with a mutual best partner in every other net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from convergent.figures.atlas.pairs import mutual

# Best partners of the units of a net in another net, and their correlations.
Best = Mapping[tuple[str, str], tuple[NDArray[np.int32], NDArray[np.float32]]]


def partners_in_nets(net: str, nets: Sequence[str], best: Best) -> dict[str, NDArray]:
    """Set side by side the best partners that the units of a net have in all nets.

    Parameters
    ----------
    net : str
    nets : sequence of str
        All nets of the run, in their order.
    best : mapping of (net, other net) to (partner, value)
        For each two nets that are compared in the layer, in both orders.

    Returns
    -------
    dict
        `best` (unit, net; int32), -1 in nets that `net` is not compared with and for units without
        a partner, `best_value` (float32; NaN there) and `mutual` (uint8), 1 if the unit is also
        the best partner of its partner. Empty if the net is compared with none.
    """
    units = next((len(values) for (own, _), (_, values) in best.items() if own == net), None)
    if units is None:
        return {}
    shape = (units, len(nets))
    partner, value = np.full(shape, -1, np.int32), np.full(shape, np.nan, np.float32)
    both = np.zeros(shape, np.uint8)
    for place, other in enumerate(nets):
        if (net, other) not in best:
            continue
        partner[:, place], value[:, place] = best[net, other]
        both[:, place] = mutual(partner[:, place], best[other, net][0])
    value[partner < 0] = np.nan
    return {"best": partner, "best_value": value, "mutual": both}


def shared_core(nets: Sequence[str], best: Best) -> dict[str, NDArray]:
    """List the units of a layer that have a mutual best partner in every other net.

    Parameters
    ----------
    nets : sequence of str
        Nets that are compared with each other in the layer, in order.
    best : mapping of (net, other net) to (partner, value)

    Returns
    -------
    dict
        For each group of units, one of each net: `unit` (group, net; int32); `weakest` (group,)
        and `mean` (group,), the lowest and the mean correlation of any two of them (float32); and
        `closed` (group,; uint8), 1 if every two of them are each other's best partners, 0 if one
        unit has all others as mutual partners but not all of these have each other. Closed groups
        come first, each from the highest `weakest` on.
    """
    found: dict[tuple[int, ...], list[float]] = {}
    for net in nets:
        others = [other for other in nets if other != net]
        shared = np.ones(len(best[net, others[0]][0]), bool)
        for other in others:
            shared &= mutual(best[net, other][0], best[other, net][0])
        for unit in np.flatnonzero(shared):
            group = tuple(int(unit if o == net else best[net, o][0][unit]) for o in nets)
            found.setdefault(group, [])
    closed, weakest, mean = [], [], []
    for group in found:
        values, agree = [], True
        for i, a in enumerate(nets):
            for j in range(i + 1, len(nets)):
                partner, value = best[a, nets[j]]
                back = best[nets[j], a][0]
                fits = partner[group[i]] == group[j] and back[group[j]] == group[i]
                agree = agree and bool(fits)
                # Of two that are not each other's best the correlation is not known here.
                values += [float(value[group[i]])] if partner[group[i]] == group[j] else []
        closed.append(agree)
        weakest.append(min(values))
        mean.append(float(np.mean(values)))
    order = np.lexsort((-np.array(weakest), ~np.array(closed, bool)))
    units = np.array(list(found), np.int32).reshape(-1, len(nets))
    return {
        "unit": units[order],
        "closed": np.array(closed, np.uint8)[order],
        "weakest": np.array(weakest, np.float32)[order],
        "mean": np.array(mean, np.float32)[order],
    }
