"""Curves of nets between two nets: their points over both halves of the images, their barriers."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

# Columns that tell curves apart.
CURVE = ["alignment", "repaired", "batch_norm"]


def points_between(number: int) -> list[float]:
    """Return equally spaced points from 0 to 1."""
    return np.linspace(0, 1, number).tolist()


def mean_of_halves(table: pd.DataFrame) -> pd.DataFrame:
    """Join the two halves of every point: each was scored by what the other chose.

    Parameters
    ----------
    table : DataFrame
        Rows of :func:`convergent.consequences.merging.merge_table`.

    Returns
    -------
    DataFrame
        Rows of t, alignment, repaired, batch_norm and corrected (whether the temperature is chosen,
        which may be 1), with means of loss, top1 and agreement over the halves, intervals and
        standard errors of these (as of nets that were chosen beforehand), and n_images.
    """
    key = ["t", *CURVE, "half"]
    parts = []
    for corrected in (False, True):
        # The row at temperature 1 comes first.
        part = table.groupby(key, sort=False).nth(-1 if corrected else 0)
        parts.append(part.assign(corrected=corrected))
    rows = pd.concat(parts)
    rows["variance"] = rows["loss_standard_error"] ** 2
    groups = rows.groupby(["t", *CURVE, "corrected"], sort=False)
    found = groups[["loss", "top1", "agreement"]].mean()
    found["loss_standard_error"] = np.sqrt(groups["variance"].sum()) / groups.size()
    found["n_images"] = groups["n_images"].sum()
    right = (found["top1"] * found["n_images"]).round()
    ends = [
        stats.binomtest(int(k), int(n)).proportion_ci(method="wilson") if k >= 0 else (np.nan,) * 2
        for k, n in zip(right, found["n_images"], strict=True)
    ]
    found[["low", "high"]] = np.array(ends).reshape(-1, 2)
    return found.reset_index()


def barriers(table: pd.DataFrame) -> pd.DataFrame:
    """Measure how far nets in between are worse than the line between the parents.

    Parameters
    ----------
    table : DataFrame
        Rows of :func:`convergent.consequences.merging.merge_table`.

    Returns
    -------
    DataFrame
        Columns alignment, repaired, batch_norm, quantity, barrier_max (the largest excess of any
        point, at least 0), barrier_half (that at t = 1/2, empty if it is no point) and t_max.
        Quantities are loss, corrected_loss (at the chosen temperatures) and top1, whose excess is
        what is lost of it; without labels, agreement in place of top1.
    """
    means = mean_of_halves(table)
    labelled = means["top1"].notna().any()
    share = "top1" if labelled else "agreement"
    rows = []
    for curve, part in means.groupby(CURVE, sort=False):
        quantities = {
            "loss": part[~part["corrected"]].set_index("t")["loss"],
            "corrected_loss": part[part["corrected"]].set_index("t")["loss"],
            share: -part[~part["corrected"]].set_index("t")[share],
        }
        for quantity, values in quantities.items():
            line = np.interp(values.index, [0, 1], [values.loc[0], values.loc[1]])
            excess = values - line
            rows.append(
                {
                    **dict(zip(CURVE, curve, strict=True)),
                    "quantity": quantity,
                    "barrier_max": excess.max(),
                    "barrier_half": excess.get(0.5, np.nan),
                    "t_max": excess.idxmax(),
                }
            )
    return pd.DataFrame(rows)
