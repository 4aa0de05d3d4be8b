"""Descriptions of figures and tables, listed in ``rules/figures.smk`` and ``tables.smk``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from convergent import ConvergentError


class CaptionError(ConvergentError, KeyError):
    """Error: a caption has a placeholder without a value. The message names both."""

    def __str__(self) -> str:
        return self.args[0]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Figure: the function that draws it, its input files, and its place in the report.

    Attributes
    ----------
    section : str
        Section of the paper, under which the report shows it.
    draw : str
        Function of :mod:`convergent.figures` that draws the figure, as ``module:function``. It
        takes `inputs` and `params` by name and, if the figure shows a pair, `nets`.
    inputs : mapping of str to path, function or list
        Inputs of the rule, with the wildcard ``{pair}`` if the figure shows a pair.
    params : mapping
        Further arguments of the function; in a figure of a pair also functions of the wildcards.
    caption : str
        Caption; placeholders in braces stand for the pair and for `params`.
    of_pair : bool
        True if there is one figure per pair, false if there is one for the whole run.
    by_name : bool
        True if the figure is drawn only where it is asked for by name.
    local : bool
        True if the figure is drawn where Snakemake runs. Figures of whole matrices need more
        memory than one should use on the login node of a cluster.
    """

    section: str
    draw: str
    inputs: Mapping[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    caption: str
    of_pair: bool = True
    by_name: bool = False
    local: bool = True

    @property
    def modules(self) -> list[str]:
        """List the modules that the function imports by name: that of the measure in `params`."""
        return [f"measures.{self.params['measure']}"] if "measure" in self.params else []


@dataclass(frozen=True, kw_only=True)
class Table:
    """Table over all nets or pairs, with a figure of it if there is one.

    Attributes
    ----------
    section : str
        Section of the paper, under which the report shows it.
    make : str
        Function of :mod:`convergent.figures` that makes the table, as ``module:function``. It
        takes `inputs` and `params` by name.
    draw : str or None
        Function that draws a figure of the table.
    inputs : mapping of str to path or list
        Inputs of the rule.
    params : mapping
        Further arguments of `make`.
    caption : str
        Caption; placeholders in braces stand for `params`.
    by_name : bool
        True if the table is made only where it is asked for by name.
    """

    section: str
    make: str
    draw: str | None = None
    inputs: Mapping[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    caption: str
    by_name: bool = False


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
        Pair that the figure shows.

    Returns
    -------
    dict
        The `section`, `caption` and `labels`.

    Raises
    ------
    CaptionError
        If the caption has a placeholder without a value.
    """
    values = {"pair": pair} if pair else {}
    for key, value in row.params.items():
        if callable(value):
            value = value(SimpleNamespace(pair=pair))
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
