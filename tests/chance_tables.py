"""Tables of a pair with chance levels, made up with the numbers that the default run gives."""

import numpy as np
import pandas as pd

from convergent.measures.registry import measures

LAYERS = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"]
# Mean semi-matching correlations.
TRAINED = [0.79, 0.30, 0.38, 0.38, 0.47, 0.83, 0.86]
NULLS = {
    "rotation": [0.65, 0.20, 0.29, 0.28, 0.24, 0.71, 0.75],
    "images": [0.16, 0.09, 0.11, 0.11, 0.10, 0.17, 0.18],
    "untrained": [0.86, 0.48, 0.60, 0.62, 0.61, 0.39, 0.39],
    "untrained_one": [0.77, 0.30, 0.40, 0.33, 0.35, 0.41, 0.43],
}
DRAWN = ("rotation", "images")
P = 1 / 21


def numbers(place, *, scale=1.0, kinds=tuple(NULLS)):
    """Columns from `value` on of a row of the layer in this place, with p where draws give one."""
    value = scale * TRAINED[place]
    row = {"value": value, "held_out": value - 0.02, "standard_error": 0.02}
    row |= {"low": value - 0.045, "high": value + 0.045}
    for null in NULLS:
        shown = null in kinds
        drawn = shown and null in DRAWN
        chance = scale * NULLS[null][place]
        row[f"null_{null}"] = chance if shown else np.nan
        row[f"null_{null}_high"] = chance + 0.03 if drawn else np.nan
        row[f"p_{null}"] = (P if value > chance + 0.03 else 0.6) if drawn else np.nan
    return row | {"ceiling": 0.97, "n_images": 450, "n_nets": 2, "note": ""}


def significance(layers=LAYERS, **options):
    """Rows of ``significance.csv``: means of matches by both measures, and the share unmatched."""
    rows = []
    for statistic, scale, directions in (
        ("semi_mean", 1, ["ab", "ba"]),
        ("matching_mean", 0.85, [""]),
    ):
        for measure in ("correlation", "mutual_information"):
            for direction in directions:
                for place, layer in enumerate([*layers, "all"]):
                    row = {"layer": layer, "statistic": statistic, "measure": measure}
                    row |= {"direction": direction, "sample": "position", "parameter": ""}
                    best = min(place, len(LAYERS) - 1)
                    rows.append(row | numbers(best, scale=scale, **options))
    return pd.DataFrame(rows)


def over_pairs(pairs=("net1-net2", "net1-net3", "net2-net3"), **options):
    """Rows of the table over all pairs; the mean over them has other columns and no direction."""
    rng = np.random.default_rng(0)
    tables = []
    for pair in [*pairs, "all"]:
        table = significance(**options).query("layer != 'all'")
        if pair == "all":
            table = table.assign(direction="")
        else:
            table["value"] += rng.normal(0, 0.02, len(table))
        tables.append(table.assign(pair=pair))
    return pd.concat(tables, ignore_index=True)


def null_matches(units, layers=LAYERS, measure="correlation", scale=1.0):
    """Rows of ``null_matches.csv``: values of matches by rank, with bands."""
    tables = []
    for place, layer in enumerate(layers):
        for null in DRAWN:
            middle = scale * NULLS[null][place]
            for method, drop in (("semi", 1.0), ("matching", 0.85)):
                rank = np.arange(units)
                mean = drop * middle * np.linspace(1.3, 0.6, units)
                reach = np.minimum(0.06, 0.3 * mean)
                table = {"layer": layer, "measure": measure, "method": method, "null": null}
                table |= {"rank": rank, "mean": mean, "low": mean - reach, "high": mean + reach}
                tables.append(pd.DataFrame(table))
    return pd.concat(tables, ignore_index=True)


def ways():
    """Measures of layers as a table of similarity has them: measure, parameter, direction."""
    found = []
    for measure in measures(gives="layers"):
        of = measure.of or ("correlation", "mutual_information")
        parameters = of if measure.needs == "matrix" else [""]
        for parameter in parameters:
            for direction in [""] if measure.symmetric else ["ab", "ba"]:
                found.append((measure, parameter, direction))
    return found


def similarity(layers=LAYERS, undefined=("cka", "fc7")):
    """Rows of ``similarity.csv`` for all measures of layers; one layer has no value by one."""
    rows = []
    for number, (measure, parameter, direction) in enumerate(ways()):
        for place, layer in enumerate(layers):
            row = {"layer_a": layer, "layer_b": layer, "measure": measure.name}
            row |= {"direction": direction, "sample": "position", "grid": "equal"}
            kinds = [null for null in NULLS if null != "rotation" or number % 2]
            scale = 1 - 0.02 * (direction == "ba")
            row |= {"parameter": parameter} | numbers(place, scale=scale, kinds=kinds)
            if measure.choose is None:
                row["held_out"] = np.nan
            if (measure.name, layer) == undefined:
                empty = dict.fromkeys(("value", "held_out", "standard_error", "low", "high"))
                row |= empty | {"note": "there are fewer images than units"}
            rows.append(row)
    return pd.DataFrame(rows)


def all_layers(rng, rows=LAYERS, columns=LAYERS, grid="equal"):
    """Rows of all pairs of layers for all measures of layers, more alike the nearer their depth."""
    found = []
    for measure, parameter, direction in ways():
        for i, a in enumerate(rows):
            for j, b in enumerate(columns):
                apart = abs(i / max(1, len(rows) - 1) - j / max(1, len(columns) - 1))
                alike = np.exp(-3 * apart) * (0.55 + 0.45 * rng.uniform())
                value = alike if measure.higher_is_more_alike else 1 - alike
                row = {"layer_a": a, "layer_b": b, "measure": measure.name}
                row |= {"parameter": parameter, "direction": direction, "grid": grid}
                found.append(row | {"value": value, "n_images": 450, "note": ""})
    return pd.DataFrame(found)
