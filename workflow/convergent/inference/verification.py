"""Whether the tables of a run say the same as those of a published one.

Of two runs of one configuration on unlike machines, nets differ as those of other seeds do. What
their tables say of nets in general, means over nets or pairs, must then agree as far as the
intervals over nets of both runs allow. If the nets are the same, all numbers must agree, up to
rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit
from scipy.stats import binom

from convergent import ConvergentError
from convergent.inference.over_nets import LEAST, over_nets

# Probability that a run of other nets fails although nothing differs; all cells share it.
FAMILY = 0.01
# What numbers of the same nets may differ by on other computers: relative and absolute.
ROUNDING = (1e-4, 1e-6)
# Numbers that the configuration decides, so that they are the same for any nets; paper_<name>, too.
DESIGN = {
    "decay", "epoch", "epochs", "images", "n_images", "n_nets", "n_pairs", "size", "units",
}  # fmt: skip
# Numbers that belong to others and have no replicates of their own: errors, ends of intervals, p
# values; the ends of nulls, which few draws decide; seeds; and how many units a tenth of them are.
OF_OTHERS = ("p_", "low", "high", "standard_error", "least_p", "seed", "tenth")
# Texts that do not tell rows apart.
REMARKS = ("note",)
COLUMNS = ["table", "row", "column", "check", "published", "found", "allowed", "p", "outcome"]


class VerificationError(ConvergentError, RuntimeError):
    """Tables that say something else than the published ones, or of which there are none."""


class Estimate(NamedTuple):
    """A mean over nets or pairs of nets.

    Attributes
    ----------
    mean, standard_error : float
    n : int
        Number of nets; the standard error has one degree of freedom less.
    """

    mean: float
    standard_error: float
    n: int

    @property
    def half_width(self) -> float:
        """Half of the width of the 95% interval."""
        return float(stdtrit(self.n - 1, 0.975)) * self.standard_error


def read_tables(folder: str | Path) -> dict[str, pd.DataFrame]:
    """Read the tables of a run or of a publication, by name; a release has them under ``tables/``.

    Raises
    ------
    VerificationError
        If there are none.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*.csv")) or sorted(folder.glob("tables/*.csv"))
    if not files:
        raise VerificationError(
            f"{folder}: has no tables (.csv); verify.against should be the folder of a published "
            "run's tables"
        )
    return {file.stem: pd.read_csv(file) for file in files if file.stem != "verify"}


def verify(
    found: Mapping[str, pd.DataFrame], published: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """Compare the tables of a run with those of a published run.

    Parameters
    ----------
    found, published : mapping of str to DataFrame
        Tables by name. Those that only the run has are not looked at, nor are such rows.

    Returns
    -------
    DataFrame
        One row per number that is compared, and per row, column or table that is missing: table,
        row (its names), column, check, published, found, allowed (the largest difference), p, and
        outcome: ``agrees``, ``outside``, ``differs`` or ``missing``. The check is

        - ``design``: of numbers that the configuration decides, which must be equal
        - ``same nets``: of all other numbers, if both runs have the same nets; these must agree to
          1e-4 of the number
        - ``other nets``: of means over nets or pairs, if the nets differ. With half widths h and h'
          of both 95% intervals over nets, a difference of sqrt(h^2 + h'^2) is allowed, and a cell
          beyond it is ``outside``. Chance puts no more than 5% of cells there. `p` is the
          probability of a difference as large as this by chance (Welch). A cell ``differs`` if
          its p is below 1% divided by the number of these cells (Bonferroni).

    Notes
    -----
    The interval over nets is that of :func:`convergent.inference.over_nets.over_nets`: the columns
    low_nets and high_nets where a table has them, else it is computed from the rows of pairs, or of
    nets. With fewer than three nets there is none, and only the design is compared.
    """
    same = same_nets(found, published)
    rows: list[dict[str, Any]] = []
    for name, theirs in published.items():
        if name not in found:
            rows.append({"table": name, "row": "", "column": "", "outcome": "missing"})
        else:
            rows += [{"table": name} | row for row in _compare(found[name], theirs, same)]
    return _judge(pd.DataFrame(rows, columns=COLUMNS))


def same_nets(found: Mapping[str, pd.DataFrame], published: Mapping[str, pd.DataFrame]) -> bool:
    """Tell whether two runs have the same nets: those of equal losses, by table ``accuracy``."""
    if "accuracy" not in found or "accuracy" not in published:
        return False
    ours, theirs = (tables["accuracy"].set_index("net") for tables in (found, published))
    losses = theirs[["train_loss", "val_loss"]]
    beside = ours.reindex(losses.index)[losses.columns]
    return bool(np.isclose(beside, losses, *ROUNDING, equal_nan=True).all())


def most_outside(cells: int) -> int:
    """Return how many of some cells chance puts outside 95% intervals, in 99 runs of 100 at most.

    Cells are counted as independent. Those of a layer are not, but since intervals over few nets
    are wide, less than 5% of them are outside on average.
    """
    return int(binom.ppf(1 - FAMILY, cells, 0.05))


def passes(table: pd.DataFrame) -> bool:
    """Tell whether a run says what the published one says, by a table of :func:`verify`.

    It does if no cell differs or is missing, and no more are outside than :func:`most_outside`.
    """
    outcomes, of_nets = table["outcome"].value_counts(), (table["check"] == "other nets").sum()
    few = outcomes.get("outside", 0) <= most_outside(int(of_nets))
    return bool(few and not {"differs", "missing"} & set(outcomes.index))


def describe(table: pd.DataFrame) -> str:
    """Say how many cells of a table of :func:`verify` do not agree, and name each of them."""
    checks, outcomes = (table[column].value_counts() for column in ("check", "outcome"))
    of_nets = int(checks.get("other nets", 0))
    lines = [
        f"{len(table)} numbers compared ({', '.join(f'{n} {c}' for c, n in checks.items())}): "
        f"{outcomes.get('differs', 0)} differ, {outcomes.get('missing', 0)} are missing"
    ]
    if of_nets:
        lines.append(
            f"nets are others than the published ones; of {of_nets} means over nets, "
            f"{outcomes.get('outside', 0)} lie outside the 95% intervals, where chance puts "
            f"{0.05 * of_nets:.0f} on average and {most_outside(of_nets)} at most"
        )
    for _, cell in table[table["outcome"] != "agrees"].iterrows():
        where = [f"tables/{cell['table']}.csv", cell["row"], cell["column"]]
        told = f"{', '.join(filter(None, where))}: {cell['outcome']}"
        if cell["outcome"] != "missing":
            told += f", {cell['found']:.6g}, published {cell['published']:.6g}"
            told += f", allowed difference {cell['allowed']:.2g}"
        lines.append(told)
    return "\n".join(lines)


def small_form(table: pd.DataFrame, digits: int = 6) -> pd.DataFrame:
    """Reduce a table to what a publication needs.

    Parameters
    ----------
    table : DataFrame
    digits : int
        Significant digits that are kept.

    Returns
    -------
    DataFrame
        Without the rows of single pairs, if there are means over pairs with intervals over nets.
    """
    if {"pair", "low_nets"} <= set(table) and table["low_nets"].notna().any():
        table = table[table["pair"] == "all"]
    numbers = table.select_dtypes("float")
    rounded = {name: numbers[name].map(lambda x: float(f"{x:.{digits}g}")) for name in numbers}
    return table.assign(**rounded).reset_index(drop=True)


def _compare(found: pd.DataFrame, published: pd.DataFrame, same: bool) -> Iterator[dict[str, Any]]:
    """Yield the comparisons of one table."""
    for column in published:
        if column not in found:
            yield {"row": "", "column": column, "outcome": "missing"}
    names = [c for c in published if _is_text(published[c]) and c in found and c not in REMARKS]
    ours, theirs = (_by_row(table, names) for table in (found, published))
    for row in theirs.index.difference(ours.index, sort=False):
        yield {"row": row, "column": "", "outcome": "missing"}
    theirs = theirs.loc[theirs.index.intersection(ours.index, sort=False)]
    numbers = [c for c in published.select_dtypes("number") if c in found]
    for column in numbers:
        design = column in DESIGN or column.startswith("paper")
        if design or same:
            check = "design" if design else "same nets"
            values = zip(theirs.index, ours.loc[theirs.index, column], theirs[column], strict=True)
            for row, here, there in values:
                yield _equal(row, column, check, here, there)
    if not same:
        yield from _over_nets(ours, theirs, names, numbers)


def _is_text(values: pd.Series) -> bool:
    return not pd.api.types.is_numeric_dtype(values)


def _by_row(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Name each row by its texts; rows with the same ones also by their order."""
    text = table[names].astype(object).fillna("").astype(str)
    row = text.apply(lambda cells: " ".join(filter(None, cells)), axis=1) if names else ""
    table = table.assign(row=row)
    order = table.groupby("row").cumcount()
    repeated = table["row"].duplicated(keep=False)
    table["row"] = table["row"].where(~repeated, table["row"] + " #" + (order + 1).astype(str))
    return table.set_index("row")


def _equal(row: str, column: str, check: str, found: float, published: float) -> dict[str, Any]:
    found, published = float(found), float(published)
    allowed = ROUNDING[1] + ROUNDING[0] * abs(published)
    agrees = abs(found - published) <= allowed or np.isnan([found, published]).all()
    return {
        "row": row,
        "column": column,
        "check": check,
        "published": published,
        "found": found,
        "allowed": allowed,
        "outcome": "agrees" if agrees else "differs",
    }


def _over_nets(
    ours: pd.DataFrame, theirs: pd.DataFrame, names: list[str], numbers: list[str]
) -> Iterator[dict[str, Any]]:
    """Yield comparisons of means over nets, without a verdict, which depends on their number."""
    kept = [c for c in numbers if c not in DESIGN and not c.startswith(("paper", *OF_OTHERS))]
    kept = [c for c in kept if not c.endswith("_high")]
    if "low_nets" in theirs and "low_nets" in ours:
        estimates = [
            {
                (row, column): _of_interval(cells, column)
                for row, cells in table.iterrows()
                for column in ("value", "difference")
                if column in table and np.isfinite([cells[column], cells["low_nets"]]).all()
            }
            for table in (ours, theirs)
        ]
    elif "pair" in names or "net" in names:
        estimates = [_of_replicates(table, names, kept) for table in (ours, theirs)]
    else:
        return
    found, published = estimates
    for (row, column), there in published.items():
        here = found.get((row, column))
        if here is None:
            continue
        error = float(np.hypot(here.standard_error, there.standard_error))
        freedom = _welch(here, there)
        difference = here.mean - there.mean
        near = np.isclose(here.mean, there.mean, *ROUNDING)
        p = 1.0 if near else float(2 * stdtr(freedom, -abs(difference) / error)) if error else 0.0
        yield {
            "row": row,
            "column": column,
            "check": "other nets",
            "published": there.mean,
            "found": here.mean,
            "allowed": float(np.hypot(here.half_width, there.half_width)),
            "p": p,
        }


def _of_interval(cells: pd.Series, column: str) -> Estimate:
    """Read a mean with its interval over nets; that of a difference stands beside it."""
    n = int(cells["n_nets"])
    reach = float(stdtrit(n - 1, 0.975))
    return Estimate(cells[column], (cells["high_nets"] - cells["low_nets"]) / 2 / reach, n)


def _of_replicates(
    table: pd.DataFrame, names: list[str], numbers: list[str]
) -> dict[tuple[str, str], Estimate]:
    """Average the rows of pairs, both directions, or of nets; with errors over nets."""
    of_pairs = "pair" in names
    varying = ("pair", "direction") if of_pairs else ("net",)
    shared = [name for name in names if name not in varying]
    by = (
        table[shared].astype(object).fillna("").astype(str).agg(" ".join, axis=1)
        if shared
        else "all"
    )
    found = {}
    for row, rows in table.groupby(by if shared else lambda _: by, sort=False):
        for column in numbers:
            if of_pairs:
                values = rows.groupby("pair")[column].mean()
                pairs = {tuple(pair.split("-")): value for pair, value in values.items()}
                result = over_nets({p: v for p, v in pairs.items() if len(p) == 2})
                if result.interval is not None:
                    error = result.interval.standard_error
                    found[row.strip(), column] = Estimate(result.mean, error, result.n_nets)
            elif (n := int(rows[column].notna().sum())) >= LEAST:
                error = float(rows[column].std() / np.sqrt(n))
                found[row.strip(), column] = Estimate(float(rows[column].mean()), error, n)
    return found


def _welch(a: Estimate, b: Estimate) -> float:
    """Return the degrees of freedom of a difference (Welch 1947)."""
    parts = [(each.standard_error**2, each.n - 1) for each in (a, b)]
    total = sum(square for square, _ in parts)
    return total**2 / sum(square**2 / n for square, n in parts) if total else float(a.n - 1)


def _judge(table: pd.DataFrame) -> pd.DataFrame:
    """Decide about means over nets, since the level of each depends on their number."""
    of_nets = table["check"] == "other nets"
    if of_nets.any():
        cells = table[of_nets]
        outside = (cells["found"] - cells["published"]).abs() > cells["allowed"]
        differs = cells["p"] < FAMILY / len(cells)
        table.loc[of_nets, "outcome"] = np.select(
            [differs, outside & (cells["p"] < 1)], ["differs", "outside"], "agrees"
        )
    return table
