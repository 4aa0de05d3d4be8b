"""Statistics of units among their chance levels: the table of significance, and bands for figures.

:func:`convergent.inference.similarity.similarity_table` makes the estimates. Here is what is
estimated, the best over layers, and the matched values of every draw of a null.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from convergent.inference.estimates import NULLS, WITHOUT_DRAWS
from convergent.inference.nulls import chance, fewest_draws, too_few_draws
from convergent.inference.similarity import NUMBERS
from convergent.measures.choices import Choice
from convergent.measures.evidence import Evidence, Split
from convergent.measures.registry import Measure, Undefined, measure, measures_of_units

# Semi-matches below this count as none (paper, section 3.2).
LEAST = 0.5
# Layer of the rows with the best over all layers.
ALL = "all"
# Nulls whose matched values are kept for bands.
BANDS = ("rotation", "images")
METHODS = {"semi": "semi_mean", "matching": "matching_mean"}
COLUMNS = [
    "layer", "statistic", "measure", "direction", "sample", "grid", "parameter", *NUMBERS,
]  # fmt: skip
DRAWS = ["layer", "statistic", "measure", "direction", "null", "draw", "value"]
MATCHES = ["layer", "measure", "method", "null", "rank", "mean", "low", "high"]


def unmatched(matrix: NDArray) -> float:
    """Compute the share of units of the first layer whose semi-match is below one half."""
    return float((matrix.max(axis=1) < LEAST).mean())


def best_match(matrix: NDArray) -> Choice:
    """Choose the largest entry of a matrix of units."""
    row, column = np.unravel_index([matrix.argmax()], matrix.shape)
    return Choice(row, column, np.ones(1))


_OF_UNITS: dict[str, Any] = {
    "unit": "",
    "needs": "matrix",
    "gives": "layers",
    "invariances": frozenset({"permutation", "scaling", "isotropic_scaling", "shift"}),
    "source": "Li et al. 2016",
}
UNMATCHED = Measure(
    name="unmatched",
    label="share of units that are not matched",
    range=(0, 1),
    symmetric=False,
    higher_is_more_alike=False,
    compute=unmatched,
    of=("correlation",),
    **_OF_UNITS,
)
BEST_MATCH = Measure(
    name="best_match",
    label="value of the best match",
    range=(-1, float("inf")),
    symmetric=True,
    higher_is_more_alike=True,
    choose=best_match,
    **_OF_UNITS,
)


def statistics() -> list[Measure]:
    """List the statistics of units of the table of significance, in the order of its rows."""
    return [measure("semi_mean"), measure("matching_mean"), UNMATCHED, BEST_MATCH]


def significance_tables(
    rows: Iterable[Mapping[str, Any]],
    draws: Iterable[Mapping[str, Any]],
    level: float = 0.95,
    *,
    of: Sequence[Measure] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Arrange estimates of statistics of units, and compare the best over layers with its chance.

    Parameters
    ----------
    rows, draws : iterable of mapping
        What :func:`convergent.inference.estimates.estimates` returned for every layer.
    level : float
        Level of the upper ends of nulls.
    of : sequence of Measure, optional
        The statistics; :func:`statistics` by default.

    Returns
    -------
    significance : DataFrame
        One row for each layer and statistic, and last those of layer `all`: the best (most alike)
        value over layers. Each draw of a null is compared at its best layer, too, so that `p`
        accounts for the choice of the layer. Columns layer, statistic, measure (of units), and
        those of :func:`convergent.inference.similarity.similarity_table` from `direction` on.
    draws : DataFrame
        Columns layer, statistic, measure, direction, null, draw, value: of layers and of `all`.
    """
    higher = {each.name: each.higher_is_more_alike for each in of or statistics()}
    found, drawn = ([_of_statistic(row) for row in some] for some in (rows, draws))
    of_rows, of_draws = _by_way(found), _by_way(drawn)
    for way, some in of_rows.items():
        best, values = _best(some, of_draws[way], higher[way[0]], level)
        found.append(best)
        drawn += values
    return pd.DataFrame(found, columns=COLUMNS), pd.DataFrame(drawn, columns=DRAWS)


def _by_way(rows: Iterable[Mapping[str, Any]]) -> dict[tuple, list[Mapping[str, Any]]]:
    """Collect rows of the same statistic, measure and direction, in their order."""
    found: dict[tuple, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["statistic"], row["measure"], row["direction"]].append(row)
    return found


def _of_statistic(row: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the entries of an estimate; its parameter is the measure of units."""
    names = {"layer": row["layer_a"], "statistic": row["measure"], "measure": row["parameter"]}
    return {**row, **names, "parameter": None}


def _best(
    rows: Sequence[Mapping[str, Any]],
    draws: Iterable[Mapping[str, Any]],
    higher: bool,
    level: float,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Find the best row of a statistic over layers, and compare it with the best of each draw."""
    choose = max if higher else min
    known = [row for row in rows if not np.isnan(row["value"])]
    best = dict(choose(known, key=lambda row: row["value"]) if known else rows[0])
    notes = [f"best in layer {best['layer']}, of {len(known)}"] if known else [best["note"]]
    best["layer"] = ALL
    for name in ("held_out", "standard_error", "low", "high"):
        best[name] = np.nan
    by_draw: dict[tuple[str, int], list[float]] = defaultdict(list)
    for draw in draws:
        if not np.isnan(draw["value"]):
            by_draw[draw["null"], draw["draw"]].append(draw["value"])
    kept = []
    for kind in NULLS:
        numbers = sorted(number for null, number in by_draw if null == kind)
        # A draw that lacks a layer had fewer to be the best of.
        full = [number for number in numbers if len(by_draw[kind, number]) == len(known)]
        values = [choose(by_draw[kind, number]) for number in full]
        found = chance(best["value"], values, higher, level)
        if kind in WITHOUT_DRAWS:
            found = found.mean_only()
        elif numbers and len(values) < fewest_draws(level):
            notes.append(f"null {kind}: {too_few_draws(len(values), level)}")
        best |= found.columns(kind)
        names = {name: best[name] for name in DRAWS[:4]} | {"null": kind}
        kept += [
            {**names, "draw": number, "value": value}
            for number, value in zip(full, values, strict=True)
        ]
    best["note"] = "; ".join(note for note in notes if note)
    return best, kept


class NullMatches:
    """Values of matched units in every draw of a null, from best to worst, for bands in figures."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str, str, str], list[NDArray]] = defaultdict(list)

    def watch(self, layer: str, kind: str, splits: Iterable[Split]) -> Iterator[Split]:
        """Pass draws on, and keep the matched values of those of rotation and images.

        Parameters
        ----------
        layer, kind : str
            Name of the layer and kind of the null.
        splits : iterable of Split
        """
        for split in splits:
            if kind in BANDS:
                for of_units in measures_of_units():
                    for method in METHODS:
                        try:
                            values = matched_values(split.whole, of_units.name, method)
                        except Undefined:  # such as a draw without codes
                            continue
                        self.found[layer, of_units.name, method, kind].append(values)
            yield split

    def table(self, level: float = 0.95) -> pd.DataFrame:
        """Average the draws at each rank, and find the interval that holds the level of them.

        Returns
        -------
        DataFrame
            Columns layer, measure, method (semi, matching), null, rank (0 is the best), mean, low
            and high: quantiles over draws, or the least and the largest of too few draws
            (:func:`convergent.inference.nulls.fewest_draws`).
        """
        frames = []
        for (layer, of_units, method, kind), values in self.found.items():
            several = np.stack(values)
            tail = (1 - level) / 2 if len(several) >= fewest_draws(level) else 0
            low, high = np.quantile(several, [tail, 1 - tail], axis=0)
            names = {"layer": layer, "measure": of_units, "method": method, "null": kind}
            ranks = {"rank": np.arange(several.shape[1]), "mean": several.mean(axis=0)}
            frames.append(pd.DataFrame({**names, **ranks, "low": low, "high": high}))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=MATCHES)


def matched_values(evidence: Evidence, of_units: str, method: str) -> NDArray[np.float64]:
    """Sort the values of matched units from best to worst.

    Parameters
    ----------
    evidence : Evidence
    of_units : str
        Measure of units.
    method : {"semi", "matching"}

    Returns
    -------
    ndarray of shape (unit,)
        Of the live units of the first layer, or of as many pairs as the layer with fewer live units
        can have; pairs that the matching leaves out have 0.

    Raises
    ------
    Undefined
        If there is no such matrix.
    """
    by = measure(METHODS[method])
    chosen = evidence.choose(by, of_units)
    matrix, *_ = evidence.arguments(by, of_units)
    live = [int(of.sum()) for of in evidence.live]
    values = np.zeros(live[0] if method == "semi" else min(live))
    values[: len(chosen.rows)] = matrix[chosen.rows, chosen.columns]
    return np.sort(values)[::-1]
