"""Rows of the tables in ``workflow/rules/figures.smk``: figures and tables as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from convergent import ConvergentError


class CaptionError(ConvergentError, KeyError):
    """A caption with a placeholder that has no value; the message names both."""

    def __str__(self) -> str:
        return self.args[0]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure: who draws it, from which files, and how the report describes it.

    Attributes
    ----------
    section : str
        Section of the paper, under which the report shows it.
    draw : str
        Function of :mod:`convergent.figures` that draws it, as ``module:function``. It is called
        with `inputs` and `params` by name, and with `nets` if the figure is of a pair.
    inputs : mapping of str to path, function or list
        Input of a rule, with the wildcard ``{pair}`` if the figure is of a pair.
    params : mapping
        Further arguments of the function.
    caption : str
        Placeholders in braces stand for the pair and for `params`.
    of_pair : bool
        Whether there is one figure for each pair; otherwise there is one for the whole run.
    local : bool
        Whether it is drawn where Snakemake runs. Figures of whole matrices need more memory than
        the login node of a cluster should give.
    """

    section: str
    draw: str
    inputs: Mapping[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    caption: str
    of_pair: bool = True
    local: bool = True

    @property
    def modules(self) -> list[str]:
        """List the modules that the function imports by a name in `params`: of its measure."""
        return [f"measures.{self.params['measure']}"] if "measure" in self.params else []


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table over all nets or pairs, and its picture if it has one.

    Attributes
    ----------
    section : str
        Section of the paper, under which the report shows it.
    make : str
        Function of :mod:`convergent.figures` that makes it, as ``module:function``. It is called
        with `inputs` and `params` by name.
    draw : str or None
        Function that draws a figure of the table.
    inputs : mapping of str to path or list
        Input of a rule.
    params : mapping
        Further arguments of `make`.
    caption : str
        Placeholders in braces stand for `params`.
    """

    section: str
    make: str
    draw: str | None = None
    inputs: Mapping[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    caption: str


def describe(
    name: str, row: Figure | Table, kind: str = "figure", pair: str | None = None
) -> dict[str, Any]:
    """Describe a figure or table for :func:`convergent.figures.report.write_report`.

    Parameters
    ----------
    name : str
    row : Figure or Table
    kind : {"figure", "table"}
    pair : str, optional
        Pair that a figure of a pair shows.

    Returns
    -------
    dict
        Its `section`, `caption` and `labels`.

    Raises
    ------
    CaptionError
        If the caption has a placeholder for which there is no value.
    """
    values = {"pair": pair} if pair else {}
    for key, value in row.params.items():
        values[key] = ", ".join(map(str, value)) if isinstance(value, list) else value
    try:
        caption = row.caption.format(**values)
    except (KeyError, IndexError) as error:
        raise CaptionError(
            f"caption of {name}: there is no value for {error}; it can use "
            f"{', '.join(values) or 'none'}"
        ) from None
    layer = values.get("layer", values.get("layers"))
    labels = {kind: name, "pair": values.get("pair"), "layer": layer}
    labels = {key: value for key, value in labels.items() if value}
    return {"section": row.section, "caption": caption, "labels": labels}
