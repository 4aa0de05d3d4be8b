"""The paper's claims beside what a run says of them: a table, and its form in documents."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from convergent.figures.over_pairs import read_table
from convergent.figures.tables import merged_order
from convergent.inference.over_nets import over_nets
from convergent.inference.verdicts import short
from convergent.paper import (
    PAPER_LEAVES,
    PAPER_LOSS,
    PAPER_SPARSE,
    PAPER_TOP8,
    PAPER_UNMATCHED,
)
from convergent.running.stores import open_store

# Draws of chance for distributions of mean activations.
DRAWS = 99
COLUMNS = [
    "section", "quantity", "layer", "paper", "method", "exact", "low", "high", "interval",
    "rotated", "shuffled", "untrained", "chance", "n_images", "n_nets", "n_pairs",
]  # fmt: skip
# Numbers of a claim that stand in a document, and their headings.
SHOWN = {
    "paper": "paper",
    "method": "its method here",
    "exact": "exact",
    "rotated": "rotated units",
    "shuffled": "shuffled images",
    "untrained": "untrained nets",
    "chance": "by chance",
}

Pairs = Mapping[str, Sequence[str]]


def tabulate_claims(
    significance: Path,
    agreement: Path,
    stability: Path,
    mappings: Sequence[Path],
    statistics: Sequence[Path],
    untrained: Sequence[Path],
    pairs: Pairs,
    kind: str,
    seed: int,
) -> pd.DataFrame:
    """Tabulate the paper's claims beside what a run says of them.

    Parameters
    ----------
    significance, agreement, stability : path
        ``tables/significance.csv``, ``measure_agreement.csv`` and ``cluster_stability.csv``.
    mappings : sequence of path
        ``mapping.csv`` of each of `pairs`.
    statistics, untrained : sequence of path
        Statistics of the nets of `pairs`, and of some of these before training.
    pairs : mapping of pair to (str, str)
        Pairs of nets of one kind, over which means are.
    kind : str
        Their kind, if the run has groups of nets.
    seed : int
        Seed of the draws of chance.

    Returns
    -------
    DataFrame
        One row per quantity and layer:

        - section of the paper, quantity, layer
        - paper: the number that the paper prints, if any
        - method: what the paper's method gives in this run
        - exact: what the exact solution of its problem gives, where the paper's is not exact
        - low, high: 95% interval of `exact`, or else of `method`, over nets or, with fewer than
          three, over images (interval); it leaves out one net, or one block of images, at a time
        - rotated, shuffled, untrained: `method` if the units of one net are rotated at random, if
          it sees the images in another order, and for the nets before training
        - chance: `method` by chance in another sense; see docs/methods.md
        - n_images, n_nets, n_pairs
    """
    found = dict(zip(pairs, map(pd.read_csv, mappings), strict=True))
    means, before = (_mean_activations(paths) for paths in (statistics, untrained))
    parts = [
        _matches(read_table(significance), kind),
        _agreement(pd.read_csv(agreement), pairs),
        _losses(found, pairs),
        _clusters(pd.read_csv(stability), pairs),
        _activations(means, before, pairs, seed),
    ]
    rows = [row for part in parts for row in part]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return frame.astype(
        {name: float for name in COLUMNS if name in SHOWN or name in ("low", "high")}
    )


def markdown(table: pd.DataFrame) -> str:
    """Write a table of :func:`tabulate_claims` in Markdown, with a column for each layer.

    The interval stands behind the number that it belongs to.
    """
    layers = [*dict.fromkeys(table["layer"])]
    lines = [["quantity (section of the paper)", "", *layers], ["---"] * (len(layers) + 2)]
    for (section, quantity), rows in table.groupby(["section", "quantity"], sort=False):
        rows = rows.set_index("layer").reindex(layers)
        digits = 1 if rows[[*SHOWN]].max(axis=None) > 2 else 2
        head = f"{quantity} ({section})"
        for name in SHOWN:
            if rows[name].notna().any():
                cells = [_cell(row, name, digits) for _, row in rows.iterrows()]
                lines.append([head, SHOWN[name], *cells])
                head = "…"
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cell(row: pd.Series, name: str, digits: int) -> str:
    if pd.isna(row[name]):
        return ""
    has_interval = "method" if pd.isna(row["exact"]) else "exact"
    interval = ""
    if name == has_interval and pd.notna(row["low"]):
        interval = f" [{short(row['low'], digits)}, {short(row['high'], digits)}]"
    return short(row[name], digits) + interval


def _matches(significance: pd.DataFrame, kind: str) -> Iterator[dict[str, Any]]:
    """Yield mean matches and shares of unmatched units."""
    rows = significance[(significance["pair"] == "all") & (significance["layer"] != "all")]
    rows = rows[rows["measure"] == "correlation"]
    if "kind" in rows:
        rows = rows[rows["kind"] == kind]
    for statistic, section, quantity, paper in (
        ("semi_mean", "3.1", "mean correlation of semi-matched units", {}),
        ("matching_mean", "3.1", "mean correlation of matched units", {}),
        ("unmatched", "4", "share of units without a match above .5", PAPER_UNMATCHED),
    ):
        for _, row in rows[rows["statistic"] == statistic].iterrows():
            of_nets = pd.notna(row["low_nets"])
            yield {
                "section": section,
                "quantity": quantity,
                "layer": row["layer"],
                "paper": paper.get(row["layer"]),
                "method": row["value"],
                "low": row["low_nets" if of_nets else "low"],
                "high": row["high_nets" if of_nets else "high"],
                "interval": "nets" if of_nets else "images",
                "rotated": row["null_rotation"],
                "shuffled": row["null_images"],
                "untrained": row["null_untrained"],
                **{name: row[name] for name in ("n_images", "n_nets", "n_pairs")},
            }


def _agreement(table: pd.DataFrame, pairs: Pairs) -> Iterator[dict[str, Any]]:
    """Yield how far mutual information agrees with correlation."""
    if "measure" in table:
        table = table[table["measure"] == "mutual_information"]
    quantity = "of the 8 best matched pairs, those that stay so by mutual information"
    for layer, rows in _by_layer(table, pairs):
        yield {
            **_over_pairs(rows.set_index("pair")["top8"], pairs),
            "section": "3.2",
            "quantity": quantity,
            "layer": layer,
            "paper": PAPER_TOP8.get(layer),
            # Of 8 units that are drawn at random from all, so many are among the other 8.
            "chance": float((64 / rows["units"]).mean()),
        }


def _losses(mappings: Mapping[str, pd.DataFrame], pairs: Pairs) -> Iterator[dict[str, Any]]:
    """Yield losses of dense maps, and of maps as sparse as the paper's."""
    table = pd.concat(frame.assign(pair=pair) for pair, frame in mappings.items())
    exact, by_sgd = (table[table["solver"] == solver] for solver in ("exact", "sgd"))
    for layer, rows in _by_layer(exact, pairs):
        ways = rows.groupby(["pair", "direction"], sort=False)
        dense = rows[rows["decay"] == 0].groupby("pair")["loss"].mean()
        sgd = by_sgd[(by_sgd["layer"] == layer) & (by_sgd["decay"] == 0)]["loss"]
        row = {"section": "4", "layer": layer}
        yield {
            **_over_pairs(dense, pairs, "exact"),
            **row,
            "quantity": "loss of dense maps (.5: nothing is predicted)",
            "paper": PAPER_LOSS.get(layer, [None])[0],
            "method": float(sgd.mean()) if len(sgd) else None,
        }
        if layer in PAPER_SPARSE:
            weights, loss = PAPER_SPARSE[layer]
            at = ways.apply(lambda path, weights=weights: loss_at(path, weights))
            yield {
                **_over_pairs(at.groupby("pair").mean(), pairs, "exact"),
                **row,
                "quantity": f"loss of maps with {weights:g} weights a unit",
                "paper": loss,
            }


def loss_at(path: pd.DataFrame, weights: float) -> float:
    """Interpolate the loss of sparse maps with some weights a unit, from rows of ``mapping.csv``.

    NaN if no map of the path has as many.
    """
    path = path.sort_values("nonzero_per_unit")
    number = path["nonzero_per_unit"]
    if not number.iloc[0] <= weights <= number.iloc[-1]:
        return math.nan
    return float(np.interp(weights, number, path["loss"]))


def _clusters(table: pd.DataFrame, pairs: Pairs) -> Iterator[dict[str, Any]]:
    """Yield numbers of leaves, the share of them with units of both nets, and their stability."""
    table = table.assign(shared=table["of_both"] / table["leaves"])
    for column, quantity, paper, chance in (
        ("leaves", "leaves of clusters", PAPER_LEAVES, None),
        ("shared", "share of leaves with units of both nets", {}, None),
        ("leaf_halves", "leaves that other images give (adjusted Rand index)", {}, 0.0),
    ):
        for layer, rows in _by_layer(table, pairs):
            yield {
                **_over_pairs(rows.set_index("pair")[column], pairs),
                "section": "S.3",
                "quantity": quantity,
                "layer": layer,
                "paper": paper.get(layer),
                "chance": chance,
            }


def _activations(
    means: Mapping[str, Mapping[str, NDArray]],
    before: Mapping[str, Mapping[str, NDArray]],
    pairs: Pairs,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Yield how far the distributions of mean activations of two nets differ."""
    rng = np.random.default_rng(seed)
    for layer in merged_order(means.values()):
        having = {p: nets for p, nets in pairs.items() if all(layer in means[n] for n in nets)}
        both = {pair: [means[net][layer] for net in nets] for pair, nets in having.items()}
        distances = pd.Series({pair: largest_gap(*units) for pair, units in both.items()})
        controls = [
            largest_gap(*(before[net][layer] for net in nets))
            for nets in having.values()
            if all(net in before for net in nets)
        ]
        yield {
            **_over_pairs(distances, pairs),
            "section": "S.4",
            "quantity": "largest gap between the distributions of mean activations",
            "layer": layer,
            "untrained": float(np.mean(controls)) if controls else None,
            "chance": float(np.mean([gap_by_chance(x, y, rng) for x, y in both.values()])),
        }


def largest_gap(x: ArrayLike, y: ArrayLike) -> float:
    """Measure the largest gap between two cumulative distributions (Kolmogorov and Smirnov)."""
    x, y = np.sort(x), np.sort(y)
    every = np.concatenate([x, y])
    shares = [np.searchsorted(of, every, side="right") / len(of) for of in (x, y)]
    return float(np.abs(shares[0] - shares[1]).max())


def gap_by_chance(x: ArrayLike, y: ArrayLike, rng: np.random.Generator) -> float:
    """Average the gap over random divisions of all values into two sets of the same sizes."""
    every, size = np.concatenate([x, y]), len(np.asarray(x))
    drawn = (rng.permutation(every) for _ in range(DRAWS))
    return float(np.mean([largest_gap(each[:size], each[size:]) for each in drawn]))


def _mean_activations(paths: Iterable[str | Path]) -> dict[str, dict[str, NDArray]]:
    """Read the mean activations of live units by net and layer; layers without any are left out."""
    found = {}
    for path in map(Path, paths):
        # statistics/<net>.zarr, or nets/<net>/untrained.zarr
        net = path.parent.name if path.stem == "untrained" else path.stem
        layers = {
            layer: group["mean"][...][~group["dead"][...]]
            for layer, group in open_store(path).groups()
        }
        found[net] = {layer: mean for layer, mean in layers.items() if len(mean)}
    return found


def _by_layer(table: pd.DataFrame, pairs: Pairs) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the rows of some pairs by layer, in the order of the nets."""
    table = table[table["pair"].isin(pairs)]
    order = merged_order(rows["layer"].unique() for _, rows in table.groupby("pair", sort=False))
    for layer in order:
        yield layer, table[table["layer"] == layer]


def _over_pairs(values: pd.Series, pairs: Pairs, name: str = "method") -> dict[str, Any]:
    """Average a value over pairs, with its interval over nets if there are three or more."""
    of_nets = {(pairs[p][0], pairs[p][1]): float(v) for p, v in values.items()}
    mean = over_nets(of_nets)
    row: dict[str, Any] = {name: mean.mean, "n_nets": mean.n_nets, "n_pairs": mean.n_pairs}
    if mean.interval is not None:
        row |= {"low": mean.interval.low, "high": mean.interval.high, "interval": "nets"}
    return row
