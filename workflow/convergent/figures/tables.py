"""Tables over all nets and pairs, with the paper's numbers beside them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr

from convergent.figures.entries import kind_of_pair
from convergent.measures.matching import ranking
from convergent.paper import PAPER_DECAYS, PAPER_LOSS, PAPER_TOP1, PAPER_TOP8, PAPER_UNMATCHED
from convergent.running.stores import open_store

# The measure that the paper compares with correlation.
PAPER_MEASURE = "mutual_information"


def tabulate_accuracy(
    evaluations: Sequence[Path],
    histories: Sequence[Path],
    nets: Sequence[str],
    seeds: Mapping[str, int],
    roles: Mapping[str, str] | None = None,
    groups: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Tabulate the accuracy of nets from their files.

    Parameters
    ----------
    evaluations : sequence of path
        ``evaluation.csv`` of each of `nets`.
    histories : sequence of path
        ``history.csv`` of the nets that the run trained, which are those in `seeds`.
    nets, seeds, roles, groups
        See :func:`accuracy`.
    """
    measured = dict(zip(nets, map(pd.read_csv, evaluations), strict=True))
    trained = dict(zip(seeds, map(pd.read_csv, histories), strict=True))
    return accuracy(measured, trained, seeds, roles, groups)


def accuracy(
    evaluations: Mapping[str, pd.DataFrame],
    histories: Mapping[str, pd.DataFrame],
    seeds: Mapping[str, int],
    roles: Mapping[str, str] | None = None,
    groups: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Tabulate the accuracy of every net: those trained after their last epoch, others as measured.

    Parameters
    ----------
    evaluations : mapping of net to DataFrame
        The row of ``evaluation.csv`` of every net.
    histories : mapping of net to DataFrame
        Rows of ``history.csv`` of the nets that the run trained.
    seeds : mapping of net to int
        Seeds of those nets.
    roles : mapping of net to str, optional
        Role of each net: subject, control or snapshot. The column is there if any is no subject.
    groups : mapping of net to str, optional
        Groups of nets. The column is there if there are any.

    Returns
    -------
    DataFrame
        Columns net, [role], [group], seed, epochs, train_loss, train_top1, val_loss, val_top1,
        val_top5, images, chance, at_chance, and paper_top1 for the first four nets that the run
        trained. `images`, `chance` and `at_chance` are as in ``evaluation.csv``. Nets that the run
        did not train have no seed, epochs, train_loss and train_top1, and val_loss, val_top1 and
        val_top5 as measured.
    """
    columns = ["train_loss", "train_top1", "val_loss", "val_top1", "val_top5"]
    paper = dict(zip(histories, PAPER_TOP1, strict=False))
    rows = []
    for net, evaluation in evaluations.items():
        measured = evaluation.iloc[0]
        row: dict[str, object] = {"net": net, "role": (roles or {}).get(net, "subject")}
        row |= {"group": (groups or {}).get(net), "seed": seeds.get(net)}
        if net in histories:
            row |= {"epochs": len(histories[net]), **histories[net].iloc[-1][columns]}
        else:
            row |= {f"val_{name}": measured[name] for name in ("loss", "top1", "top5")}
        row |= {name: measured[name] for name in ("images", "chance", "at_chance")}
        rows.append(row | {"paper_top1": paper.get(net)})
    order = ["net", "role", "group", "seed", "epochs", *columns]
    order += ["images", "chance", "at_chance", "paper_top1"]
    frame = pd.DataFrame(rows, columns=order).astype(
        {"seed": "Int64", "epochs": "Int64", "paper_top1": float}
    )
    hidden = [] if groups else ["group"]
    hidden += ["role"] if (frame["role"] == "subject").all() else []
    return frame.drop(columns=hidden)


def tabulate_unmatched(
    matchings: Sequence[Path],
    statistics: Sequence[Path],
    pairs: Mapping[str, Sequence[str]],
    nets: Sequence[str],
    groups: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Tabulate shares of unmatched units from the files of all pairs and nets."""
    matches = dict(zip(pairs, map(pd.read_csv, matchings), strict=True))
    dead = {
        net: {layer: group["dead"][...] for layer, group in store.groups()}
        for net, store in zip(nets, map(open_store, statistics), strict=True)
    }
    return unmatched(matches, dead, pairs, groups=groups)


def unmatched(
    matches: Mapping[str, pd.DataFrame],
    dead: Mapping[str, Mapping[str, NDArray[np.bool]]],
    pairs: Mapping[str, Sequence[str]],
    threshold: float = 0.5,
    groups: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Tabulate the share of live units whose semi-match correlates below `threshold` (section 4).

    Parameters
    ----------
    matches : mapping of pair to DataFrame
        Rows of ``matching.csv``.
    dead : mapping of net to mapping of layer to ndarray of shape (unit,)
        True for dead units, from the statistics of each net.
    pairs : mapping of pair to (str, str)
        The two nets of each pair.
    threshold : float
    groups : mapping of net to str, optional
        Groups of nets, see :func:`kind_of_pair`.

    Returns
    -------
    DataFrame
        Columns layer, pair, kind (if there are groups), direction, units (of the net whose
        units are counted, dead ones included), dead, unmatched (NaN if all units are dead), paper.
        A pair has the layers that both of its nets have.
    """
    rows = []
    for pair, table in matches.items():
        semi = table.query("measure == 'correlation' and method == 'semi'")
        matched = semi[semi["value"] >= threshold].groupby(["layer", "direction"]).size()
        a, b = pairs[pair]
        # Layers in which all units are dead have no rows.
        layers = dict.fromkeys([*table["layer"], *(name for name in dead[a] if name in dead[b])])
        for net, direction in ((a, "ab"), (b, "ba")):
            for layer in layers:
                of_unit = dead[net][layer]
                live = int((~of_unit).sum())
                share = 1 - matched.get((layer, direction), 0) / live if live else np.nan
                row = {"layer": layer, "pair": pair, "direction": direction}
                row |= {"units": len(of_unit), "dead": len(of_unit) - live, "unmatched": share}
                rows.append(row)
    frame = pd.DataFrame(rows)
    frame["paper"] = frame["layer"].map(PAPER_UNMATCHED)
    return by_layer(with_kind(frame, groups))


def mapping_table(store: str | Path, layers: Sequence[str], solver: str) -> pd.DataFrame:
    """Tabulate the sparse maps of a store as rows of ``mapping.csv``.

    Parameters
    ----------
    solver : {"exact", "sgd"}

    Returns
    -------
    DataFrame
        Columns layer, direction, solver and decay; loss and held_out_loss, means over target
        units; nonzero_per_unit, the mean number of weights of a target unit that are not 0 (exact)
        or above 0.001 (sgd); relative_gap, the largest over target units. For sgd the gap is the
        distance from the optimum.
    """
    source, rows = open_store(store), []
    for layer, direction in itertools.product(layers, ("ab", "ba")):
        if layer not in source or direction not in source[layer]:
            continue
        group = source[f"{layer}/{direction}"]
        decays, scored = group["decay"][...], "held_out_loss" in group
        table = {
            "layer": layer,
            "direction": direction,
            "solver": solver,
            "decay": decays,
            "loss": group["loss"][...].mean(axis=1),
            "held_out_loss": group["held_out_loss"][...].mean(axis=1) if scored else np.nan,
            "nonzero_per_unit": group["nonzero"][...].mean(axis=1),
            "relative_gap": group["relative_gap"][...].max(axis=1),
        }
        rows.append(pd.DataFrame(table))
    return pd.concat(rows, ignore_index=True)


def papers_decay(decays: pd.Series) -> NDArray[np.float64]:
    """Round decays to those of table 1 where they agree to within rounding; others become NaN."""
    near = np.isclose(decays.to_numpy()[:, None], PAPER_DECAYS, rtol=1e-6, atol=1e-12)
    return np.where(near.any(axis=1), np.array(PAPER_DECAYS)[near.argmax(axis=1)], np.nan)


def tabulate_table1(
    mappings: Sequence[Path], statistics: Path, pairs: Sequence[str], pair: str
) -> pd.DataFrame:
    """Make table 1 from the sparse maps of all pairs and the statistics of the second net."""
    dead = {
        layer: (int(group["dead"][...].sum()), group["dead"].shape[0])
        for layer, group in open_store(statistics).groups()
    }
    return table1(dict(zip(pairs, map(pd.read_csv, mappings), strict=True)), pair, dead)


def table1(
    mappings: Mapping[str, pd.DataFrame], pair: str, dead: Mapping[str, tuple[int, int]]
) -> pd.DataFrame:
    """Tabulate prediction losses of mapping layers by decay beside the paper's (table 1).

    Parameters
    ----------
    mappings : mapping of pair to DataFrame
        Rows of ``mapping.csv``.
    pair : str
        Pair to show; the maps predict its second net from its first.
    dead : mapping of layer to (int, int)
        Number of dead units in the pair's second net, and of all its units.

    Returns
    -------
    DataFrame
        One row per layer and decay of the paper, with the columns layer, decay, pair, units and
        dead; exact, exact_held_out and exact_nonzero_per_unit for the exact fit; exact_live, its
        loss over live target units (dead ones count 0.5 each elsewhere); exact_all_pairs, its
        mean loss over all pairs in both directions; sgd and sgd_nonzero_per_unit, where the
        paper's SGD was run; sgd_gap, the largest relative excess of a target unit's objective over
        the optimum; and paper, the loss that the paper prints.
    """
    rows = pd.concat(table.assign(pair=name) for name, table in mappings.items())
    rows = rows.assign(decay=papers_decay(rows["decay"])).dropna(subset="decay")
    shown = rows.query("pair == @pair and direction == 'ab'").set_index(["layer", "decay"])
    exact, by_sgd = (shown.query("solver == @s") for s in ("exact", "sgd"))
    everywhere = rows.query("solver == 'exact'").groupby(["layer", "decay"])["loss"].mean()
    layer = exact.index.get_level_values("layer")
    silent, units = (layer.map(lambda name, k=k: dead[name][k]).to_numpy() for k in (0, 1))
    live = (exact["loss"] * units - 0.5 * silent) / np.where(units > silent, units - silent, np.nan)
    frame = pd.DataFrame(
        {
            "pair": pair,
            "units": units,
            "dead": silent,
            "exact": exact["loss"],
            "exact_held_out": exact["held_out_loss"],
            "exact_nonzero_per_unit": exact["nonzero_per_unit"],
            "exact_live": live,
            "exact_all_pairs": everywhere.reindex(exact.index),
            "sgd": by_sgd["loss"].reindex(exact.index),
            "sgd_nonzero_per_unit": by_sgd["nonzero_per_unit"].reindex(exact.index),
            "sgd_gap": by_sgd["relative_gap"].reindex(exact.index),
        }
    ).reset_index()
    paper = {
        (layer, d): v
        for layer, vs in PAPER_LOSS.items()
        for d, v in zip(PAPER_DECAYS, vs, strict=True)
    }
    frame["paper"] = [paper.get(key) for key in zip(frame["layer"], frame["decay"], strict=True)]
    return frame


def tabulate_by_layer(
    tables: Sequence[Path], groups: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Concatenate the tables of all pairs by layer, with :func:`with_kind`."""
    return by_layer(with_kind(pd.concat(map(pd.read_csv, tables)), groups))


def with_kind(frame: pd.DataFrame, groups: Mapping[str, str] | None) -> pd.DataFrame:
    """Add a column `kind` after `pair` if there are groups, see :func:`kind_of_pair`."""
    if groups:
        kinds = [kind_of_pair(pair, groups) for pair in frame["pair"]]
        frame.insert(frame.columns.get_loc("pair") + 1, "kind", kinds)
    return frame


def by_layer(frame: pd.DataFrame) -> pd.DataFrame:
    """Group rows by layer; layers keep the order that they have in each pair, and rows theirs."""
    of_pairs = [rows["layer"].unique() for _, rows in frame.groupby("pair", sort=False)]
    order = {layer: i for i, layer in enumerate(merged_order(of_pairs))}
    return frame.sort_values("layer", key=lambda c: c.map(order), kind="stable", ignore_index=True)


def merged_order(orders: Iterable[Iterable[str]]) -> list[str]:
    """Merge orders of layers: a layer that only some have follows the one before it there."""
    merged: list[str] = []
    for order in orders:
        place = 0
        for name in order:
            if name not in merged:
                merged.insert(place, name)
            place = merged.index(name) + 1
    return merged


def measure_agreement(
    table: pd.DataFrame, matrices: Mapping[str, Mapping[str, NDArray]], pair: str
) -> pd.DataFrame:
    """Compare the matches of the first measure with those of each other one (section 3.2).

    Parameters
    ----------
    table : DataFrame
        Rows of ``matching.csv``, for all measures.
    matrices : mapping of measure to mapping of layer to ndarray of shape (unit_a, unit_b)
        Matrices by measure. The first measure is correlation; the others are compared with it.
    pair : str
        Value of the column pair.

    Returns
    -------
    DataFrame
        One row per layer and other measure, with these columns:

        - layer, pair, units (of the first net) and, if there are several other measures, measure
        - top8: how many of the 8 units that semi-match best by correlation are among the 8 best by
          the other measure; paper_top8: the paper's number
        - tenth: a tenth of the live units; top_tenth: the same count as top8 for that many units
        - same_partner_semi, same_partner_matching: among the units that have a partner by either
          measure, the share with the same partner by both
        - spearman: rank correlation of the two measures over all pairs of live units
        - spearman_absolute: rank correlation of the other measure with the absolute correlation,
          for measures that do not depend on the sign
    """
    first, *others = matrices
    rows = []
    for layer, similarity in matrices[first].items():
        for other in others:
            row: dict[str, object] = {"layer": layer, "pair": pair}
            row |= {"measure": other} if len(others) > 1 else {}
            row |= {"units": len(similarity)}
            row |= _agreement_of_partners(table, layer, first, other)
            live = np.ix_(similarity.any(axis=1), similarity.any(axis=0))
            x, y = similarity[live], matrices[other][layer][live]
            row |= {"spearman": _spearman(x, y), "spearman_absolute": _spearman(np.abs(x), y)}
            rows.append(row)
    return pd.DataFrame(rows)


def _agreement_of_partners(
    table: pd.DataFrame, layer: str, first: str, other: str
) -> dict[str, object]:
    a, b = (ranking(table, layer, measure)["unit"] for measure in (first, other))
    tenth = max(1, round(len(a) / 10))
    paper = PAPER_TOP8.get(layer) if other == PAPER_MEASURE else None
    row: dict[str, object] = {"top8": len(set(a[:8]) & set(b[:8])), "paper_top8": paper}
    row |= {"tenth": tenth, "top_tenth": len(set(a[:tenth]) & set(b[:tenth]))}
    for method in ("semi", "matching"):
        chosen = table.query("layer == @layer and method == @method and direction == 'ab'")
        chosen = chosen[chosen["measure"].isin([first, other])]
        partner = chosen.pivot_table(index="unit", columns="measure", values="partner")
        partner = partner.reindex(columns=[first, other])
        row[f"same_partner_{method}"] = (partner[first] == partner[other]).mean()
    return row


def _spearman(x: NDArray, y: NDArray) -> float:
    x, y = np.ravel(x), np.ravel(y)
    constant = not x.size or np.ptp(x) == 0 or np.ptp(y) == 0
    return float("nan") if constant else float(spearmanr(x, y).statistic)
