"""Verdicts: what of a statistic stands above chance and what does not, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

# Kinds of chance, as columns of the tables name them, and in words that follow "above".
NULLS = {
    "rotation": "its rotated units",
    "images": "its shuffled images",
    "untrained": "its untrained nets",
    "untrained_one": "one untrained net",
}
# Headings of their columns.
COLUMNS = {
    "rotation": "rotated",
    "images": "shuffled",
    "untrained": "untrained",
    "untrained_one": "one untrained",
}
# Those that say what training adds.
OF_TRAINING = ("untrained", "untrained_one")


class Verdict(NamedTuple):
    """Comparison of a value with one kind of chance.

    Attributes
    ----------
    chance : float
        Mean of the null.
    p : float
        NaN if there are too few draws for one.
    above : bool or None
        True if the value stands above chance; None if that is not known.
    below : bool
        True if the whole interval of the value lies below the mean of the null.
    """

    chance: float
    p: float
    above: bool | None
    below: bool


def statistic_rows(
    table: pd.DataFrame,
    statistic: str = "semi_mean",
    measure: str = "correlation",
    direction: str = "ab",
) -> pd.DataFrame:
    """Select the rows of one statistic, by layer, from a table of significance.

    Parameters
    ----------
    table : DataFrame
        Rows of ``significance.csv``.
    statistic, measure : str
    direction : {"ab", "ba"}
        Direction of a statistic that has two; one that has none has its only rows.

    Returns
    -------
    DataFrame
        Rows in their order, with NaN or "" where the table is empty.
    """
    rows = table[(table["statistic"] == statistic) & (table["measure"] == measure)]
    return rows[rows["direction"].fillna("").isin([direction, ""])]


def number(row: Mapping[str, Any] | pd.Series, column: str) -> float:
    """Read a number of a row; NaN where the column is empty or not there."""
    found = row.get(column, np.nan)
    return float(found) if found not in ("", None) else float("nan")


def verdict(row: Mapping[str, Any] | pd.Series, null: str, level: float = 0.95) -> Verdict | None:
    """Compare the value of a row with one kind of chance; higher values are more alike.

    Parameters
    ----------
    row : mapping
        Row of ``significance.csv`` or ``similarity.csv``.
    null : str
        Key of :data:`NULLS`.
    level : float
        The value stands above chance if its p is at most 1 - level or, without a p, if its whole
        interval lies above the mean of the null.

    Returns
    -------
    Verdict or None
        None if the row has no value or no chance level of this kind.
    """
    value, chance, p, low, high = (
        number(row, name) for name in ("value", f"null_{null}", f"p_{null}", "low", "high")
    )
    if not np.isfinite([value, chance]).all():
        return None
    above = None if np.isnan(low) else bool(low > chance)
    if not np.isnan(p):
        above = p <= 1 - level + 1e-9
    return Verdict(chance, p, above, bool(high < chance))


def learned(row: Mapping[str, Any] | pd.Series, level: float = 0.95) -> bool | None:
    """Tell whether a value stands above each chance level of untrained nets; None if unknown."""
    found = [v for null in OF_TRAINING if (v := verdict(row, null, level))]
    if not found or any(each.above is None for each in found):
        return None
    return all(each.above for each in found)


def sentence(row: Mapping[str, Any] | pd.Series, level: float = 0.95) -> str:
    """Say in words what a row of a statistic stands above, for one layer or for all.

    Examples
    --------
    ``conv1: .79 [.74, .84], above its rotated units (.65, p = .048); below its untrained nets
    (.86): learning is not shown``
    """
    head = f"{row['layer']}: {short(number(row, 'value'))}"
    if row["layer"] == "all":
        head = f"best of all layers: {short(number(row, 'value'))}"
    if np.isnan(number(row, "value")):
        return f"{row['layer']}: no value" + (f" ({row['note']})" if _noted(row) else "")
    low, high = number(row, "low"), number(row, "high")
    if not np.isnan(low):
        head += f" [{short(low)}, {short(high)}]"
    told: dict[str, list[str]] = {}
    for null, words in NULLS.items():
        found = verdict(row, null, level)
        if not found:
            continue
        p = "" if np.isnan(found.p) else f", p = {short(found.p, 3)}"
        told.setdefault(_stands(found), []).append(f"{words} ({short(found.chance)}{p})")
    parts = [f"{stands} {_listed(over)}" for stands, over in told.items()]
    conclusion = {True: ": learning is shown", False: ": learning is not shown", None: ""}
    shown = None if row["layer"] == "all" else learned(row, level)
    # What is said of training stands last, before its conclusion.
    parts.sort(key=lambda part: any(NULLS[null] in part for null in OF_TRAINING))
    return ", ".join([head, "; ".join(parts)]) + conclusion[shown] if parts else head


def verdict_table(rows: pd.DataFrame, level: float = 0.95) -> list[str]:
    """Lay out what a statistic stands above, as lines of text in columns.

    Parameters
    ----------
    rows : DataFrame
        Rows of one statistic, of :func:`statistic_rows`.
    level : float
        Confidence level of the nulls.

    Returns
    -------
    list of str
        A line of headings, then one line for each layer: its value with its interval, each chance
        level with a star if the value stands above it, and whether learning is shown.
    """
    known = [
        null for null in NULLS if not rows.get(f"null_{null}", pd.Series()).isin(["", np.nan]).all()
    ]
    lines = [["", "value and interval", *(COLUMNS[null] for null in known), ""]]
    for _, row in rows.iterrows():
        value, low, high = (number(row, name) for name in ("value", "low", "high"))
        interval = "" if np.isnan(low) else f" [{short(low)}, {short(high)}]"
        name = "best layer" if row["layer"] == "all" else row["layer"]
        line = [name, "none" if np.isnan(value) else short(value) + interval]
        for null in known:
            found = verdict(row, null, level)
            line.append(f"{short(found.chance)}{'*' * bool(found.above)}" if found else "")
        shown = None if row["layer"] == "all" else learned(row, level)
        lines.append([*line, "" if shown is None else "shown" if shown else "not shown"])
    if any(line[-1] for line in lines):
        lines[0][-1] = "learning"
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def short(value: float, digits: int = 2) -> str:
    """Write a number without the zero before its point, as the paper does."""
    text = f"{round(value, digits) + 0:.{digits}f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def _stands(found: Verdict) -> str:
    if found.above is None:
        return "beside"
    return "above" if found.above else "below" if found.below else "not above"


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _noted(row: Mapping[str, Any] | pd.Series) -> bool:
    return isinstance(row.get("note"), str) and bool(row["note"])
