"""Tables of similarity and significance over all pairs of nets, with means over pairs.

Rows of a pair are those of its own file. Rows whose pair is ``all`` are means over pairs of nets,
with intervals over nets; rows whose pair is ``best`` are the most alike of these pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from convergent.figures.tables import kind_of_pair, merged_order, with_kind
from convergent.inference.estimates import WITHOUT_DRAWS
from convergent.inference.nulls import chance, fewest_draws, too_few_draws
from convergent.inference.over_nets import over_nets
from convergent.inference.significance import statistics
from convergent.measures.registry import measure

# Columns of text that tell rows of one pair apart; a table has some of them. `direction` is
# averaged out in means over pairs, since which net of a pair comes first has no meaning there.
KEYS = ["layer_a", "layer_b", "layer", "statistic", "measure", "sample", "grid", "parameter"]
TEXT = [*KEYS, "direction", "null", "note"]
OVER_NETS = ["standard_error_nets", "low_nets", "high_nets"]

Pairs = Mapping[str, Sequence[str]]
Groups = Mapping[str, str] | None


def tabulate_similarity(
    tables: Sequence[Path],
    pairs: Pairs,
    averaged: Sequence[str],
    groups: Groups = None,
    level: float = 0.95,
    ceilings: Path | None = None,
) -> pd.DataFrame:
    """Tabulate the similarity of layers from the files of all pairs, see :func:`similarity`.

    `ceilings` is the file of :func:`convergent.inference.ceilings.ceiling_table`, if there is one.
    """
    found = dict(zip(pairs, map(read_table, tables), strict=True))
    bounds = pd.read_csv(ceilings) if ceilings else None
    return similarity(found, pairs, averaged, groups, level, bounds)


def tabulate_significance(
    tables: Sequence[Path],
    draws: Sequence[Path],
    pairs: Pairs,
    averaged: Sequence[str],
    groups: Groups = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Tabulate statistics of units from the files of all pairs, see :func:`significance`."""
    found, drawn = (
        dict(zip(pairs, map(read_table, paths), strict=True)) for paths in (tables, draws)
    )
    return significance(found, drawn, pairs, averaged, groups, level)


def similarity(
    tables: Mapping[str, pd.DataFrame],
    pairs: Pairs,
    averaged: Sequence[str],
    groups: Groups = None,
    level: float = 0.95,
    ceilings: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Join the similarity of layers in all pairs, and average it over pairs.

    Parameters
    ----------
    tables : mapping of pair to DataFrame
        Rows of ``similarity.csv``.
    pairs : mapping of pair to (str, str)
        The two nets of each pair.
    averaged : sequence of str
        Pairs that means are over: those of subjects.
    groups : mapping of net to str, optional
        Groups of nets. With groups there is a mean for each kind of pair.
    level : float
        Level of the upper ends of nulls.
    ceilings : DataFrame, optional
        Rows of :func:`convergent.inference.ceilings.ceiling_table`, of the nets of all averaged
        pairs.

    Returns
    -------
    DataFrame
        Columns of `tables` with `pair` and, if there are groups, `kind` after the layers; then
        n_pairs, and standard_error_nets, low_nets, high_nets. In rows whose pair is ``all``:

        - direction is empty: the two directions of a pair are averaged first.
        - standard_error, low and high are over images, as in every row. They are means of those of
          the pairs: an upper bound, since all pairs see the same images.
        - low_nets and high_nets are the 95% interval over nets
          (:func:`convergent.inference.over_nets.over_nets`); `note` says why there is none.
        - null_<kind> and null_<kind>_high are means over pairs. For untrained nets, of which each
          pair is one draw, null_<kind>_high is their quantile, and p_<kind> tells how many single
          pairs of them are as alike as the nets are on average; 19 pairs are needed for it.
        - ceiling is the upper bound of `ceilings`, if there are no groups, and ceiling_lower, a
          column after it, the lower one.
    """
    table = _joined(tables, pairs, averaged, groups, level, drawn=None)
    table.insert(table.columns.get_loc("ceiling") + 1, "ceiling_lower", np.nan)
    if ceilings is not None and not groups:
        of_all = (table["pair"] == "all") & (table["layer_a"] == table["layer_b"])
        bounds = ceilings.set_index(["layer", "measure"])
        for key, bound in bounds.iterrows():
            rows = of_all & (table["layer_a"] == key[0]) & (table["measure"] == key[1])
            table.loc[rows, ["ceiling_lower", "ceiling"]] = [bound["lower"], bound["upper"]]
    return table


def significance(
    tables: Mapping[str, pd.DataFrame],
    draws: Mapping[str, pd.DataFrame],
    pairs: Pairs,
    averaged: Sequence[str],
    groups: Groups = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Join the statistics of units in all pairs with those over pairs, and compare with chance.

    Parameters
    ----------
    tables, draws : mapping of pair to DataFrame
        Rows of ``significance.csv`` and of ``null_draws.csv``.
    pairs, averaged, groups, level
        As in :func:`similarity`.

    Returns
    -------
    DataFrame
        As :func:`similarity` returns it, but in rows whose pair is ``all``, null_<kind>,
        null_<kind>_high and p_<kind> are those of the mean over pairs of each draw. Rows whose pair
        is ``best`` have the value of the most alike pair, which `note` names, compared with the
        same maximum of each draw.
    """
    drawn = {pair: over_directions(table, ["null", "draw"]) for pair, table in draws.items()}
    return _joined(tables, pairs, averaged, groups, level, drawn)


def _joined(
    tables: Mapping[str, pd.DataFrame],
    pairs: Pairs,
    averaged: Sequence[str],
    groups: Groups,
    level: float,
    drawn: Mapping[str, pd.DataFrame] | None,
) -> pd.DataFrame:
    """Put the rows over pairs after those of pairs, layer by layer."""
    first = next(iter(tables.values()))
    joined = pd.concat((t.assign(pair=p) for p, t in tables.items()), ignore_index=True)
    joined = joined.assign(n_pairs=1)
    keys = [name for name in KEYS if name in first]
    layers = [name for name in keys if name.startswith("layer")]
    columns = [*layers, "pair", *(name for name in first if name not in [*layers, "note"])]
    columns += ["n_pairs", *OVER_NETS, "note"]
    parts = [with_kind(joined.reindex(columns=columns), groups)]
    kinds = {pair: kind_of_pair(pair, groups) if groups else "" for pair in averaged}
    for kind in dict.fromkeys(kinds.values()):
        of_kind = {pair: pairs[pair] for pair in averaged if kinds[pair] == kind}
        rows = [*_rows_over_pairs(tables, of_kind, keys, level, drawn)]
        frame = pd.DataFrame(rows, columns=columns)
        if groups:
            frame.insert(columns.index("pair") + 1, "kind", kind)
        parts.append(frame)
    frame = pd.concat([part.astype(object) for part in parts], ignore_index=True)
    frame = frame.infer_objects()
    order = {name: [*dict.fromkeys(frame[name])] for name in keys}
    for name in layers:
        order[name] = merged_order(table[name].unique() for table in tables.values())
    order["pair"] = [*tables, "all", "best"]
    places = [frame[name].map(order[name].index) for name in [*keys, "pair"]]
    return frame.iloc[np.lexsort(places[::-1])].reset_index(drop=True)


def _rows_over_pairs(
    tables: Mapping[str, pd.DataFrame],
    pairs: Pairs,
    keys: list[str],
    level: float,
    drawn: Mapping[str, pd.DataFrame] | None,
) -> Iterator[dict[str, Any]]:
    """Yield the row `all` and, where there are draws, the row `best` of each statistic."""
    of_pairs = pd.concat(
        (over_directions(tables[pair]).assign(pair=pair) for pair in pairs), ignore_index=True
    )
    of_draws = None
    if drawn is not None:
        of_draws = pd.concat(drawn[pair].assign(pair=pair) for pair in pairs)
        shared = [name for name in keys if name in of_draws]
        of_draws = dict(list(of_draws.groupby(shared, sort=False)))
    for key, rows in of_pairs.groupby(keys, sort=False):
        names = dict(zip(keys, key, strict=True))
        draws = None
        if of_draws is not None:
            draws = of_draws.get(tuple(names[name] for name in shared), pd.DataFrame())
        yield from _rows_of_statistic(names, rows, pairs, level, draws)


def _rows_of_statistic(
    names: Mapping[str, Any],
    rows: pd.DataFrame,
    pairs: Pairs,
    level: float,
    draws: pd.DataFrame | None,
) -> Iterator[dict[str, Any]]:
    """Yield the row `all` and, where there are draws, the row `best` of one statistic."""
    higher = _is_similarity(names.get("statistic", names["measure"]))
    known = rows.dropna(subset="value")
    values = known.set_index("pair")["value"]
    found = over_nets({(pairs[p][0], pairs[p][1]): value for p, value in values.items()})
    numbers = known.select_dtypes("number")
    means: Any = numbers.mean().where(numbers.count() == len(numbers))
    counts: dict[str, Any] = {"n_nets": found.n_nets, "n_pairs": found.n_pairs}
    counts |= {"n_images": known["n_images"].min() if len(known) else 0}
    both: dict[str, Any] = {**names, "direction": "", **counts}
    row: dict[str, Any] = {**means, **both, "pair": "all", "value": found.mean}
    notes = [found.note, *rows["note"]]
    row |= dict(zip(OVER_NETS, found.interval or [np.nan] * 3, strict=True))
    kinds = [name.removeprefix("p_") for name in rows if name.startswith("p_")]
    row |= {f"p_{kind}": np.nan for kind in kinds}
    for kind in kinds:
        if kind in WITHOUT_DRAWS:
            # Each pair has one, so that pairs are the draws.
            of_kind = known[f"null_{kind}"].dropna()
            row |= chance(found.mean, of_kind, higher, level).columns(kind)
            if 0 < len(of_kind) < fewest_draws(level):
                row[f"null_{kind}_high"] = np.nan
                notes.append(f"null {kind}, over pairs: {too_few_draws(len(of_kind), level)}")
        elif draws is not None:
            mean = _of_draws(draws, kind, values.index).mean(axis=1)
            row |= chance(found.mean, mean, higher, level).columns(kind)
    yield row | {"note": _together(notes)}
    if draws is None or known.empty:
        return
    most = values.idxmax() if higher else values.idxmin()
    best: dict[str, Any] = {**both, "pair": "best", "value": values[most], "note": str(most)}
    for kind in kinds:
        table = _of_draws(draws, kind, values.index)
        extreme = table.max(axis=1) if higher else table.min(axis=1)
        of_best = chance(values[most], extreme, higher, level)
        best |= (of_best.mean_only() if kind in WITHOUT_DRAWS else of_best).columns(kind)
    yield best


def _is_similarity(name: str) -> bool:
    """Tell whether higher values of a measure, or a statistic of units, are more alike."""
    of_units = {each.name: each for each in statistics()}
    return (of_units.get(name) or measure(name)).higher_is_more_alike


def _of_draws(draws: pd.DataFrame, kind: str, pairs: pd.Index) -> pd.DataFrame:
    """Arrange the draws of a null by pair; draws that some pair lacks are left out."""
    if draws.empty:
        return pd.DataFrame(columns=pairs, dtype=float)
    table = draws[draws["null"] == kind].pivot_table(index="draw", columns="pair", values="value")
    return table.reindex(columns=pairs).dropna()


def over_directions(table: pd.DataFrame, others: Sequence[str] = ()) -> pd.DataFrame:
    """Average the two directions of each row of a pair; NaN where one of them has no value."""
    keys = [name for name in [*KEYS, *others] if name in table]
    numbers = [name for name in table.select_dtypes("number") if name not in keys]
    groups = table.groupby(keys, sort=False)
    means = groups[numbers].mean()
    frame = means.where(groups[numbers].count().eq(groups.size(), axis=0))
    if "note" in table:
        frame["note"] = groups["note"].agg(_together)
    return frame.reset_index()


def _together(notes: Iterable[str]) -> str:
    """Join notes, each of them once."""
    parts = (part for note in notes for part in note.split("; "))
    return "; ".join(filter(None, dict.fromkeys(parts)))


def read_table(path: Path) -> pd.DataFrame:
    """Read a table of a pair; text that is not there is empty."""
    table = pd.read_csv(path)
    return table.assign(
        **{name: table[name].astype(object).fillna("") for name in TEXT if name in table}
    )
