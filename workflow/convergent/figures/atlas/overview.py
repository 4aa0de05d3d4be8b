"""What the atlas's first page says: how alike layers are beyond chance, and what follows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from convergent.consequences.curves import CURVE, mean_of_halves
from convergent.figures.merging import HOW, LABELS, LINES
from convergent.inference.nulls import null_columns
from convergent.inference.significance import LEAST, statistics
from convergent.inference.verdicts import NULLS, sentence, short, statistic_rows, verdict
from convergent.inference.verdicts import number as number_of
from convergent.measures.registry import Measure, measures, measures_of_units

# A unit counts as predicted if the sparse map explains half of its variance: a loss of 0.5 is that
# of its mean.
PREDICTED = 0.25
# Columns of the tables that the overview shows, and kinds of chance that have no p.
NUMBERS = ("value", "low", "high")


def similarity_rows(
    pairs: Mapping[str, Mapping[str, str | Path]], layers: Sequence[str]
) -> tuple[list[dict[str, Any]], dict[str, NDArray]]:
    """Collect all similarities of layers and pairs, with their chance levels.

    Parameters
    ----------
    pairs : mapping of pair to mapping
        Paths of `significance` and `similarity`, the tables of a pair; either may be left out.
    layers : sequence of str
        Layers of the run, in order.

    Returns
    -------
    ways : list of dict
        The ways to compare: `name` of the measure or statistic, `of` (measure of units that it is
        made from, or ""), `label`, and `higher`, which is true if larger values are more alike.
    rows : dict
        Arrays with one entry for each row: `way`, `pair`, `layer_a` and `layer_b`, places in
        `ways`, in `pairs` and in `layers` (int32); `direction` (int32; 0 none, 1 ab, 2 ba); and
        `value`, `low`, `high` and, for each kind of chance, ``null_<kind>`` and ``p_<kind>``
        (float32; NaN where they are not known). Rows of all layers together are left out.
    """
    known = {each.name: each for each in (*statistics(), *measures())}
    found = [_of_pair(paths, place) for place, paths in enumerate(pairs.values())]
    tables = [table for table in found if len(table)]
    if not tables:
        return [], {}
    table = pd.concat(tables, ignore_index=True)
    place = {layer: number for number, layer in enumerate(layers)}
    table = table[table["layer_a"].isin(place) & table["layer_b"].isin(place)]
    keys = table[["name", "of"]].drop_duplicates()
    ways = [_way(known.get(name), name, of) for name, of in keys.itertuples(index=False)]
    number = {(way["name"], way["of"]): n for n, way in enumerate(ways)}
    places = {
        "way": [number[key] for key in zip(table["name"], table["of"], strict=True)],
        "pair": table["pair"],
        "layer_a": table["layer_a"].map(place),
        "layer_b": table["layer_b"].map(place),
        "direction": table["direction"].map({"": 0, "ab": 1, "ba": 2}),
    }
    rows = {name: np.asarray(values, np.int32) for name, values in places.items()}
    columns = [*NUMBERS, *(f"{kind}_{null}" for null in NULLS for kind in ("null", "p"))]
    for name in columns:
        if name in table:
            rows[name] = pd.to_numeric(table[name], errors="coerce").to_numpy(np.float32)
    return ways, rows


def _of_pair(paths: Mapping[str, str | Path], pair: int) -> pd.DataFrame:
    """Join the tables of statistics of units and of similarities of layers of a pair."""
    found = []
    if "significance" in paths:
        table = pd.read_csv(paths["significance"], keep_default_na=False)
        table = table[table["layer"] != "all"]
        names = {"layer": "layer_a", "statistic": "name", "measure": "of"}
        found.append(table.rename(columns=names).assign(layer_b=table["layer"]))
    if "similarity" in paths:
        table = pd.read_csv(paths["similarity"], keep_default_na=False)
        table = table.rename(columns={"measure": "name", "parameter": "of"})
        # Means over matched units are in the first table, unless it compares other layers.
        twice = table["name"].isin([name for part in found for name in set(part["name"])])
        found.append(table[~twice | (table["layer_a"] != table["layer_b"])])
    return pd.concat(found).assign(pair=pair) if found else pd.DataFrame()


def _way(measure: Measure | None, name: str, of: str) -> dict[str, Any]:
    labels = {each.name: each.label for each in measures_of_units()}
    label = measure.label if measure else name.replace("_", " ")
    label = f"{label}: {labels.get(of, of)}" if of else label
    higher = measure.higher_is_more_alike if measure else True
    return {"name": name, "of": of, "label": label, "higher": higher}


def findings(
    pairs: Mapping[str, Mapping[str, str | Path]],
    tallies: pd.DataFrame,
    cores: Mapping[str, tuple[str, int, int]],
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """Say in at most five sentences what the run found, each with the view that shows it.

    Parameters
    ----------
    pairs : mapping of pair to mapping
        Paths of `significance`; it may be left out.
    tallies : DataFrame
        Rows by `layer`, `pair` and `net`: its `live` units, their mean best correlation `mean`,
        how many are `unmatched`, and how many of these the sparse map has `predicted`.
    cores : mapping of layer to (str, int, int)
        A net, how many of its units have a mutual best partner in every other net, and how many
        units it has.
    level : float

    Returns
    -------
    list of dict
        `text` and `link`, parts of the address of a view.
    """
    found = []
    alive = tallies[tallies["live"] > 0]
    if alive.empty:
        return []
    count = tallies["pair"].nunique()
    over = f"over {count} pairs" if count > 1 else f"in {tallies['pair'].iloc[0]}"
    means = alive.groupby("layer", sort=False)["mean"].mean()
    best, worst = means.idxmax(), means.idxmin()
    text = f"The best partners of units correlate {short(means[best])} on average in {best}"
    if best != worst:
        text += f", more than in any other layer, and least in {worst} ({short(means[worst])})"
    found.append({"text": f"{text}, {over}.", "link": {"view": "curve", "layer": best}})
    said = _above_chance(pairs, list(means.index), level)
    if said:
        found.append({"text": said, "link": {"view": "overview"}})
    sums = alive.groupby("layer", sort=False)[["live", "unmatched", "predicted"]].sum()
    share = sums["unmatched"] / sums["live"]
    total, most = sums.sum(), share.idxmax()
    text = f"{_percent(total['unmatched'], total['live'])} of all live units have no partner in "
    text += f"another net that correlates {LEAST} or more"
    text += f"; most such units are in {most} ({share[most]:.0%})." if len(share) > 1 else "."
    link = {"view": "units", "layer": most, "filter": "unmatched"}
    found.append({"text": text, "link": link})
    if total["unmatched"]:
        share = _percent(total["predicted"], total["unmatched"])
        text = f"Of these units, {share} are predicted by a few units together all the same "
        text += f"(the loss of the sparse map is below {PREDICTED})."
        found.append({"text": text, "link": link | {"sort": "loss"}})
    if cores:
        largest = max(cores, key=lambda layer: cores[layer][1] / max(1, cores[layer][2]))
        net, shared, units = cores[largest]
        text = f"The shared core is largest in {largest}, where {shared} of {units} units of {net} "
        text += "have a mutual best partner in every other net."
        found.append({"text": text, "link": {"view": "core", "layer": largest}})
    return found


def _above_chance(
    pairs: Mapping[str, Mapping[str, str | Path]], layers: Sequence[str], level: float
) -> str:
    """Say in how many layers the mean best correlation stands above each kind of chance."""
    above: dict[str, dict[str, bool]] = {}
    for paths in pairs.values():
        if "significance" not in paths:
            continue
        table = pd.read_csv(paths["significance"], keep_default_na=False)
        rows = [statistic_rows(table, direction=direction) for direction in ("ab", "ba")]
        for _, row in pd.concat(rows).iterrows():
            for null in NULLS:
                found = verdict(row, null, level) if row["layer"] in layers else None
                if found and found.above is not None:
                    layer = above.setdefault(null, {})
                    layer[row["layer"]] = layer.get(row["layer"], True) and found.above
    said = [f"{NULLS[n].removeprefix('its ')} in {sum(by.values())}" for n, by in above.items()]
    if not said:
        return ""
    listed = " and ".join(filter(None, [", ".join(said[:-1]), said[-1]]))
    return f"Of {len(layers)} layers, this mean stands in every pair above that of {listed}."


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if part and whole else "none"


def chance_facts(
    layer: str, significance: str | Path | None, level: float = 0.95
) -> dict[str, dict[str, Any]]:
    """Collect the chance levels of the mean semi-matching correlation of a layer of a pair.

    Parameters
    ----------
    layer : str
    significance : path or None
        The pair's ``significance.csv``.
    level : float

    Returns
    -------
    dict
        For the units of net ``a`` and of net ``b``, if the table has them: the `sentence` of
        :func:`convergent.inference.verdicts.sentence`; `value`, `low` and `high`; and `nulls`, for
        each kind the mean, the upper level and p. Numbers that are not known are None.
    """
    if significance is None:
        return {}
    table = pd.read_csv(significance, keep_default_na=False).query("layer == @layer")
    facts: dict[str, dict[str, Any]] = {}
    for side, direction in (("a", "ab"), ("b", "ba")):
        for _, row in statistic_rows(table, direction=direction).iterrows():

            def known(name: str, row: pd.Series = row) -> float | None:
                value = number_of(row, name)
                return None if math.isnan(value) else value

            nulls = {kind: list(map(known, null_columns(kind))) for kind in NULLS}
            facts[side] = {name: known(name) for name in ("value", "low", "high")}
            facts[side]["nulls"] = {k: v for k, v in nulls.items() if v[0] is not None}
            facts[side]["sentence"] = sentence(row, level)
    return facts


def merging_facts(merge: str | Path) -> dict[str, Any]:
    """Collect the accuracy of nets between the two nets of a pair.

    Parameters
    ----------
    merge : path
        The pair's ``merge.csv``.

    Returns
    -------
    dict
        The points `t`; the number of `images`; `labelled`, false where the values are agreement
        with the two nets for want of labels; `curves`, each with its `alignment`, the `label` of
        this, `how` the nets between are finished (a value of ``figures.merging.HOW``, or None for
        the ensemble), and for each t a value and the ends of its interval in `share`, `low` and
        `high`, as :func:`convergent.consequences.curves.mean_of_halves` has them (None where they
        are not known).
    """
    means = mean_of_halves(pd.read_csv(merge)).query("not corrected")
    labelled = bool(means["top1"].notna().any())
    means["share"] = means["top1" if labelled else "agreement"]
    curves = []
    for (alignment, repaired, norm), rows in means.groupby(CURVE, sort=False):
        values = rows.sort_values("t")[["share", "low", "high"]].round(5)
        how = None if alignment == "ensemble" else HOW[LINES[repaired, norm]]
        curve = {"alignment": alignment, "label": LABELS[alignment], "how": how}
        curves.append(curve | values.astype(object).where(values.notna(), None).to_dict("list"))
    curves.sort(key=lambda curve: list(LABELS).index(curve["alignment"]))
    return {
        "t": sorted(set(means["t"].tolist())),
        "images": int(means["n_images"].max()),
        "labelled": labelled,
        "curves": curves,
    }
