"""Facts that relate the units of a layer in the two nets of a pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from convergent.activations.blocks import load_blocks
from convergent.alignment.sparse_maps import map_at_penalty
from convergent.inference.jackknife import jackknife
from convergent.measures.matching import complete
from convergent.measures.registry import Measure
from convergent.running.stores import open_store

# Number of best partners listed for each unit.
PARTNERS = 10
# Moments of a block of images.
MOMENTS = ("mean_x", "mean_y", "var_x", "var_y", "correlation")
# Correlations are stored to two digits, as whole numbers from -100 to 100.
STEPS = 100


def pair_facts(
    layer: str,
    pair: str,
    paths: Mapping[str, str | Path],
    measures: Sequence[Measure],
    penalty: float,
    level: float = 0.95,
) -> tuple[dict[str, float], dict[str, NDArray]]:
    """Collect the facts that relate the units of a layer in the two nets of a pair.

    Parameters
    ----------
    layer, pair, paths, penalty, level
        See :func:`convergent.figures.atlas.writing.write_atlas`.
    measures : sequence of Measure
        Measures for which `paths` has matrices.

    Returns
    -------
    decay : dict of str to float
        Decay of the sparse maps that predict the units of net ``a`` and of net ``b``. The two
        differ if the nets have unlike numbers of units.
    facts : dict
        Arrays for the units of net ``a``, and the same for net ``b``:

        - ``<measure>/a/partner`` and ``<measure>/a/value`` (unit, place): the best partners in the
          other net by each measure; under the name ``map``, by weight in the sparse map.
        - ``<measure>/a/semi`` and ``<measure>/a/matching`` (unit,): the partners in
          ``matching.csv``, or -1. Their values are in ``..._value``; without a partner the value is
          0 in a semi-matching and NaN in a matching.
        - ``<measure>/a/mutual`` (unit,): 1 if the unit is the best partner of its best partner.
        - ``<measure>/a/low`` and ``high`` (unit,): the interval of the correlation with the best
          partner, where the stores have blocks of images.
        - ``<measure>/a/completed``: the matching, in which the remaining units are paired too.
        - ``map/a/loss`` and ``map/a/weights``: the loss of the prediction of a unit, and the number
          of units that predict it.
        - ``cluster/a`` and ``leaf/a``.

        And for both nets together ``path`` (leaf, depth), the place of each leaf in the tree of
        clusters, -1 beyond its end.
    """
    facts: dict[str, NDArray] = {}
    table = pd.read_csv(paths["matching"]).query("layer == @layer")
    for measure in (m.name for m in measures):
        matrix = open_store(paths[measure])[layer][measure][...]
        rows = table[table["measure"] == measure]
        for side, values in (("a", matrix), ("b", matrix.T)):
            facts |= _named(f"{measure}/{side}", *best_partners(values))
            facts |= assigned(rows, measure, side, len(values))
            completed = complete(facts[f"{measure}/{side}/matching"], values.shape[1])
            facts[f"{measure}/{side}/completed"] = completed.astype(np.int32)
        for side, other in ("ab", "ba"):
            best, back = (facts[f"{measure}/{s}/semi"] for s in (side, other))
            facts[f"{measure}/{side}/mutual"] = mutual(best, back).astype(np.uint8)
    group = open_store(paths["correlation"])[layer]
    if "blocks" in group:
        blocks = {name: group["blocks"][name][...] for name in ("count", *MOMENTS)}
        for side in "ab":
            best, value = (facts[f"correlation/{side}/{name}"] for name in ("semi", "semi_value"))
            low, high = intervals(best, value, blocks if side == "a" else turned(blocks), level)
            facts |= {f"correlation/{side}/low": low, f"correlation/{side}/high": high}
    maps, decays = open_store(paths["mapping"])[layer], {}
    # The map from a to b predicts the units of b; the map from b to a predicts those of a.
    for side, direction in (("a", "ba"), ("b", "ab")):
        decays[side], weights, loss, nonzero = map_at_penalty(maps[direction], penalty)
        facts |= _named(f"map/{side}", *best_partners(weights, np.abs(weights)))
        facts[f"map/{side}/loss"] = loss.astype(np.float32)
        facts[f"map/{side}/weights"] = nonzero.astype(np.int32)
    clusters = pd.read_csv(paths["clusters"], dtype={"path": str}).query("layer == @layer")
    facts["path"] = tree_paths(clusters)
    for side, net in zip("ab", pair.split("-"), strict=True):
        of_net = clusters[clusters["net"] == net].sort_values("unit")
        for name in ("cluster", "leaf"):
            facts[f"{name}/{side}"] = of_net[name].to_numpy(np.int32)
    return decays, facts


def best_partners(
    values: NDArray, size: NDArray | None = None, number: int = PARTNERS
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Find the columns with the largest values of each row, largest first; ties keep their order.

    Parameters
    ----------
    values : ndarray of shape (unit, partner)
    size : ndarray of the same shape, optional
        Values to sort by instead.
    number : int
        Largest number of partners.

    Returns
    -------
    partner : ndarray of shape (unit, number), int32
        -1 where there are no further partners. A value of exactly 0 (a dead unit, or no weight)
        makes no partner.
    value : ndarray of shape (unit, number), float32
    """
    size = values if size is None else size
    number = min(number, values.shape[1])
    partner = np.full((len(values), number), -1, np.int32)
    found = np.zeros(partner.shape, np.float32)
    for row, (value, by) in enumerate(zip(values, size, strict=True)):
        by = np.where(value == 0, -np.inf, by)
        # Only the largest are sorted, and all that equal the last of them.
        largest = np.flatnonzero(by >= -np.partition(-by, number - 1)[number - 1])
        order = largest[np.argsort(-by[largest], kind="stable")][:number]
        order = order[np.isfinite(by[order])]
        partner[row, : len(order)], found[row, : len(order)] = order, value[order]
    return partner, found


def assigned(rows: pd.DataFrame, measure: str, side: str, units: int) -> dict[str, NDArray]:
    """Look up the partners of the units of net a or b in a layer's rows of ``matching.csv``."""
    facts: dict[str, NDArray] = {}
    for method in ("semi", "matching"):
        # The matching is the same in both directions, and the table lists it as ab.
        turned = side == "b" and method == "matching"
        direction = "ba" if side == "b" and not turned else "ab"
        of = rows[(rows["method"] == method) & (rows["direction"] == direction)]
        unit, partner = (of[c].to_numpy() for c in ("unit", "partner"))
        unit, partner = (partner, unit) if turned else (unit, partner)
        # Semi-matching leaves out dead units, which correlate 0 with everything.
        none = 0 if method == "semi" else np.nan
        partners, values = np.full(units, -1, np.int32), np.full(units, none, np.float32)
        partners[unit], values[unit] = partner, of["value"].to_numpy()
        facts[f"{measure}/{side}/{method}"] = partners
        facts[f"{measure}/{side}/{method}_value"] = values
    return facts


def mutual(best: NDArray, back: NDArray) -> NDArray[np.bool_]:
    """Tell which units are the best partner of their best partner; -1 stands for no partner."""
    return (best >= 0) & (back[best] == np.arange(len(best)))


def turned(blocks: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """Exchange the two nets in the moments of blocks of images."""
    swapped = {name: blocks[name.translate(str.maketrans("xy", "yx"))] for name in MOMENTS[:-1]}
    return swapped | {
        "count": blocks["count"],
        "correlation": blocks["correlation"].transpose(0, 2, 1),
    }


def intervals(
    partner: NDArray[np.integer],
    value: NDArray,
    blocks: Mapping[str, NDArray],
    level: float = 0.95,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute the interval of each unit's correlation with its partner.

    The jackknife leaves out one block of images at a time and holds the partner fixed.

    Parameters
    ----------
    partner : ndarray of shape (unit,)
        -1 for none.
    value : ndarray of shape (unit,)
        Their correlations.
    blocks : mapping
        `count` and :data:`MOMENTS` of each block of images, as
        :func:`convergent.activations.blocks.save_blocks` writes them.
    level : float

    Returns
    -------
    low, high : ndarray of shape (unit,), float32
        NaN for units without a partner.
    """
    low, high = np.full((2, len(partner)), np.nan, np.float32)
    units = np.flatnonzero(partner >= 0)
    count = blocks["count"][:, None].astype(np.float64)
    x, y = blocks["mean_x"][:, units], blocks["mean_y"][:, partner[units]]
    # Around the means of all images, so that no digits are lost.
    x, y = (mean - (count * mean).sum(axis=0) / count.sum() for mean in (x, y))
    xx, yy = blocks["var_x"][:, units], blocks["var_y"][:, partner[units]]
    xy = blocks["correlation"][:, units, partner[units]] * np.sqrt(xx * yy)
    sums = [count * part for part in (x, y, xx + x * x, yy + y * y, xy + x * y)]
    rest = count.sum() - count
    x, y, xx, yy, xy = ((part.sum(axis=0) - part) / rest for part in sums)
    spread = np.sqrt(np.maximum((xx - x * x) * (yy - y * y), 0))
    without = np.divide(xy - x * y, spread, out=np.zeros_like(spread), where=spread > 0)
    for unit, values in zip(units, without.T, strict=True):
        found = jackknife(float(value[unit]), values, count[:, 0], level)
        low[unit], high[unit] = found.low, found.high
    return low, high


def tree_paths(clusters: pd.DataFrame) -> NDArray[np.int32]:
    """List the path in the tree of clusters of each leaf of a layer, -1 beyond its end."""
    paths = clusters.drop_duplicates("leaf").set_index("leaf")["path"]
    found = np.full((clusters["leaf"].max() + 1, 1 + paths.str.count("/").max()), -1, np.int32)
    for leaf, path in paths.items():
        steps = [int(step) for step in path.split("/")]
        found[leaf, : len(steps)] = steps
    return found


def chance_of_units(
    layer: str, null_matches: str | Path | None, level: float = 0.95
) -> dict[str, dict[str, list[float]]]:
    """Collect what the best partner of a unit of a layer correlates by chance.

    Parameters
    ----------
    layer : str
    null_matches : path or None
        The pair's ``null_matches.csv``.
    level : float

    Returns
    -------
    dict of measure to dict
        For each kind of chance the mean over units of the best value, and the value that only a
        share of 1 - `level` of the units passes.
    """
    if null_matches is None:
        return {}
    table = pd.read_csv(null_matches).query("layer == @layer and method == 'semi'")
    facts: dict[str, dict[str, list[float]]] = {}
    for (measure, null), rows in table.groupby(["measure", "null"], sort=False):
        means = rows["mean"].dropna()
        if len(means):
            found = [float(means.mean()), float(means.quantile(level))]
            facts.setdefault(str(measure), {})[str(null)] = found
    return facts


def partners_over_training(
    layer: str, pair: str, epochs: Mapping[float, str | Path]
) -> dict[str, NDArray]:
    """Find the best partner of each unit of a layer at each epoch that was observed.

    Parameters
    ----------
    layer, pair : str
    epochs : mapping of epoch to path
        Folders ``dynamics/<epoch>`` of the run.

    Returns
    -------
    dict
        `epoch` (epoch,) and for the units of net ``a``, and the same for net ``b``, ``a/partner``
        and ``a/value`` of shape (epoch, unit). Empty if the pair was not followed there.
    """
    found: dict[str, list[NDArray]] = {}
    there = []
    for epoch in sorted(epochs):
        store = Path(epochs[epoch], "pairs", f"{pair}.zarr")
        if not store.is_dir() or layer not in (group := open_store(store)):
            continue
        there.append(epoch)
        matrix = load_blocks(group[layer]).total().correlation()
        for side, values in (("a", matrix), ("b", matrix.T)):
            partner, value = best_partners(values, number=1)
            found.setdefault(f"{side}/partner", []).append(partner[:, 0])
            found.setdefault(f"{side}/value", []).append(value[:, 0])
    arrays: dict[str, NDArray] = {name: np.stack(parts) for name, parts in found.items()}
    return arrays | {"epoch": np.array(there, np.float32)} if there else {}


def hundredths(correlation: NDArray) -> NDArray[np.int8]:
    """Round correlations to two digits and return them as whole numbers."""
    return np.round(STEPS * np.clip(correlation, -1, 1)).astype(np.int8)


def _named(prefix: str, partner: NDArray, value: NDArray) -> dict[str, NDArray]:
    return {f"{prefix}/partner": partner, f"{prefix}/value": value}
