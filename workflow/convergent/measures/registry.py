"""The declaration of a measure of similarity, and the discovery of all measures.

A measure is a module of :mod:`convergent.measures` that defines ``MEASURE``. Rules, tables,
figures and the atlas read names and labels from here, so a new measure is one new file.

The Snakefile imports this module and every measure when it is parsed. The module of a measure
therefore imports nothing heavier than NumPy at its top; other imports stand in its functions.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Literal

import convergent.measures

# Changes of the activations of one net under which the values of a measure may stay the same.
# `scaling`, `shift`, `sign` and `monotone` change each unit in its own way, `isotropic_scaling` all
# units in the same way.
INVARIANCES = frozenset(
    {"permutation", "scaling", "isotropic_scaling", "shift", "sign", "rotation", "monotone"}
)


@dataclass(frozen=True)
class Measure:
    """A measure of how similar the units of two nets, or two layers, are.

    Attributes
    ----------
    name : str
        Name of its module, its stores and its rows.
    label : str
        Name in texts and figures, as written in the middle of a sentence.
    unit : str
        Unit of its values, such as ``nats``; empty for none.
    needs : {"moments", "codes", "samples"}
        Arguments of `compute`: the moments between the nets, within the first and within the
        second; the codes of both nets; or activations of shape (sample, unit) of both.
    gives : {"units", "layers"}
        Result of `compute`: a matrix (unit_a, unit_b), in which dead units have 0, or a number.
    range : (float, float)
        Least and largest value.
    invariances : frozenset of str
        Those of :data:`INVARIANCES` under which values stay the same. Under a permutation of
        units the rows and columns of a matrix are permuted with them.
    symmetric : bool
        True if the values stay the same when the two nets are exchanged.
    higher_is_more_alike : bool
        True if larger values mean greater similarity, as a matrix of units requires.
    source : str
        Citation.
    compute : callable
        Pure function of arrays. If it needs codes, it also takes the keywords `threads` and
        `device`, and gets the same array twice for the values within one net.
    bias : callable, optional
        Expected excess of `compute` over the true value, from the same positional arguments.
    rank : int
        Place among the measures; equal ranks are ordered by name. The first measure of units is
        the one that the others are compared with.
    """

    name: str
    label: str
    unit: str
    needs: Literal["moments", "codes", "samples"]
    gives: Literal["units", "layers"]
    range: tuple[float, float]
    invariances: frozenset[str]
    symmetric: bool
    higher_is_more_alike: bool
    source: str
    compute: Callable
    bias: Callable | None = None
    rank: int = 100

    def __post_init__(self):
        unknown = sorted(self.invariances - INVARIANCES)
        if unknown:
            raise ValueError(
                f"measure {self.name}: unknown invariance {', '.join(unknown)}; choose from "
                f"{', '.join(sorted(INVARIANCES))}"
            )
        if self.gives == "units" and not self.higher_is_more_alike:
            raise ValueError(
                f"measure {self.name}: units are matched by their largest values; return a "
                "similarity in place of this distance"
            )

    @property
    def axis(self) -> str:
        """Return the label of an axis: name and unit."""
        return f"{self.label}, {self.unit}" if self.unit else self.label


@cache
def measure(name: str) -> Measure:
    """Find a measure by its name.

    Raises
    ------
    ModuleNotFoundError
        If there is no such module.
    """
    return import_module(f"convergent.measures.{name}").MEASURE


def measures(*, gives: str | None = None, needs: str | None = None) -> list[Measure]:
    """List all measures in their order.

    Parameters
    ----------
    gives, needs : str, optional
        List only the measures that declare this.
    """
    names = _names(tuple(convergent.measures.__path__))
    found = sorted(map(measure, names), key=lambda m: (m.rank, m.name))
    return [m for m in found if gives in (None, m.gives) and needs in (None, m.needs)]


def measures_of_units() -> list[Measure]:
    """List the measures that give a matrix of units from the stores of every run."""
    return [m for m in measures(gives="units") if m.needs != "samples"]


@cache
def _names(folders: tuple[str, ...]) -> list[str]:
    """List the modules that define ``MEASURE``, without importing any."""
    found = []
    for module in pkgutil.iter_modules(folders):
        spec = module.module_finder.find_spec(module.name)  # type: ignore[call-arg]
        source = spec.loader.get_source(module.name)  # type: ignore[union-attr]
        if any(line.startswith("MEASURE = ") for line in source.splitlines()):
            found.append(module.name)
    return found
