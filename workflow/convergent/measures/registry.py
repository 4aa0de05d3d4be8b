"""The declaration of a measure of similarity, and the discovery of all measures.

A measure is a module of :mod:`convergent.measures` that defines ``MEASURE``. Rules, tables,
figures and the atlas read names and labels from here, so a new measure is one new file.

The Snakefile imports this module and every measure when it is parsed. The module of a measure
therefore imports nothing heavier than NumPy at its top; other imports stand in its functions.
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Literal

from convergent import ConvergentError

# Changes of the activations of one net under which the values of a measure may stay the same.
# `scaling`, `shift`, `sign` and `monotone` change each unit in its own way, `isotropic_scaling` all
# units in the same way.
INVARIANCES = frozenset(
    {"permutation", "scaling", "isotropic_scaling", "shift", "sign", "rotation", "monotone"}
)
# What measures can be computed from, by what they give.
NEEDS = {
    "units": ("moments", "codes"),
    "layers": ("moments", "spectra", "matrix", "image_means", "inner_products", "dissimilarities"),
}


class Undefined(ConvergentError, ValueError):
    """Error: a measure has no value for these layers. The message is the reason, as a phrase."""


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
    needs : str
        Arguments of `compute`, one of :data:`NEEDS`: the moments between the nets, within the first
        and within the second; the :class:`convergent.measures.spectra.Spectra` of these moments;
        the codes of both nets; a matrix (unit_a, unit_b) of a measure of units, of live units only;
        the mean of each unit over each image, shape (image, unit), of both; or the inner products
        or the dissimilarities of the flattened images, shape (image, image), in both.
    gives : {"units", "layers"}
        Result of `compute`: a matrix (unit_a, unit_b), in which dead units have 0, or a number.
    range : (float, float)
        Least and largest value.
    invariances : frozenset of str
        Those of :data:`INVARIANCES` under which values stay the same. Under a permutation of
        units the rows and columns of a matrix are permuted with them.
    invariances_of_second : frozenset of str
        Of a measure that is not symmetric, those under which values stay the same if only the
        second net changes.
    symmetric : bool
        True if the values stay the same when the two nets are exchanged.
    higher_is_more_alike : bool
        True if larger values mean greater similarity, as a matrix of units requires.
    source : str
        Citation.
    compute : callable, optional
        Pure function of arrays. If it needs codes, it also takes the keywords `threads` and
        `device`, and gets the same array twice for the values within one net. A measure of layers
        that has no value raises :class:`Undefined` with the reason.
    prepare : callable, optional
        Function of an argument of `compute` that is of one layer, to an object that `compute` takes
        in its place. Its method `turned`, of an offset, gives the object of turned images: image i
        is what was image i + offset. What it holds is computed once for the null of turned images.
    choose : callable, optional
        In place of `compute`, for a measure that chooses partners or fits a map: function of the
        same arguments to what is chosen. If the measure needs a matrix, that is a
        :class:`convergent.measures.choices.Choice` of its entries.
    choose_all : callable, optional
        Function of the same arguments to what several measures choose, by name, if that costs less
        than `choose` for each.
    equals : str
        Measure that chooses the same where the layers have equally many units, all of them live.
    score : callable, optional
        Function of the arguments, and of what `choose` returned for these or other images, to the
        value. A measure of a matrix has none: the chosen entries are summed.
    rechosen : bool
        True if intervals choose anew without each block of images. Otherwise they hold the choice
        from all images fixed, which is right to first order if what is chosen is the best. Choices
        from a matrix of codes are always held fixed, as a matrix costs much.
    near : callable, optional
        Function of what was chosen, and of the arguments that it was chosen from, to a keyword of
        the same name, with which `choose` finds its choice from nearly the same arguments sooner.
        It must not change the choice. Intervals that choose anew use it.
    always_held_out : bool
        True if the value itself is chosen on one half of the images and scored on the other.
    gradient : callable, optional
        Function of the arguments of `compute` to a :class:`convergent.measures.spectra.Gradient`:
        the value and its derivatives by the covariances. Where there is one, intervals are those
        of the infinitesimal jackknife, which computes the measure once.
    widest : int, optional
        Units of the wider layer up to which there are intervals, where they cost a decomposition
        for each block.
    of : tuple of str, optional
        Measures of units whose matrices a measure that needs a matrix is computed of, one row
        each, with the name in the column `parameter`; None for all.
    with_dead : bool
        True if the matrix that it needs has the dead units, too, whose values are 0. `choose` then
        takes, after the matrix, which units of each layer count as live, as those of a part of the
        images do that vary in all.
    without : callable, optional
        Values without each block. For a measure of layers: function of the arguments of `compute`
        and of the edges of blocks of images, to an array of shape (block,); by default `compute` is
        called anew for each block. For a measure of codes: function of the arguments of `compute`,
        of the rows and columns of some pairs of units, and of the edges of blocks of samples, to
        an array of shape (block, pair); without it, choices from its matrix have no intervals.
    bias : callable, optional
        Expected excess of `compute` over the true value, from the same positional arguments.
    module : str
        Name of its module, if that is not its own name because the module declares several
        measures in ``MEASURES``.
    rank : int
        Place among the measures; equal ranks are ordered by name. The first measure of units is
        the one that the others are compared with.
    """

    name: str
    label: str
    unit: str
    needs: str
    gives: Literal["units", "layers"]
    range: tuple[float, float]
    invariances: frozenset[str]
    symmetric: bool
    higher_is_more_alike: bool
    source: str
    compute: Callable | None = None
    prepare: Callable | None = None
    choose: Callable | None = None
    choose_all: Callable | None = None
    equals: str = ""
    score: Callable | None = None
    rechosen: bool = False
    near: Callable | None = None
    always_held_out: bool = False
    gradient: Callable | None = None
    widest: int | None = None
    of: tuple[str, ...] | None = None
    invariances_of_second: frozenset[str] = frozenset()
    with_dead: bool = False
    without: Callable | None = None
    bias: Callable | None = None
    module: str = ""
    rank: int = 100

    def __post_init__(self):
        unknown = sorted((self.invariances | self.invariances_of_second) - INVARIANCES)
        if unknown:
            raise ValueError(
                f"measure {self.name}: unknown invariance {', '.join(unknown)}; choose from "
                f"{', '.join(sorted(INVARIANCES))}"
            )
        if self.needs not in NEEDS[self.gives]:
            raise ValueError(
                f"measure {self.name}: the workflow computes {self.gives} from "
                f"{' or '.join(NEEDS[self.gives])}, not from {self.needs}"
            )
        if not self.compute and not self.choose:
            raise ValueError(f"measure {self.name}: there is neither compute nor choose")
        if self.choose and not self.score and self.needs != "matrix":
            raise ValueError(f"measure {self.name}: what it chooses cannot be scored without score")
        if self.gives == "units" and not self.symmetric:
            raise ValueError(
                f"measure {self.name}: a matrix of units must be symmetric, as matching reads its "
                "transpose for the other direction"
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
        If no module declares it.
    """
    for found in measures():
        if found.name == name:
            return found
    raise ModuleNotFoundError(
        f"no measure is called {name}; there are {', '.join(m.name for m in measures())}"
    )


def measures(*, gives: str | None = None, needs: str | None = None) -> list[Measure]:
    """List all measures in their order.

    Parameters
    ----------
    gives, needs : str, optional
        List only the measures that declare this.
    """
    # Found by its name in text: as an object, it would make every measure a part of the
    # fingerprint of each rule that looks one up.
    folders = tuple(sys.modules["convergent.measures"].__path__)
    found = [m for name in _names(folders) for m in _declared(name)]
    found.sort(key=lambda m: (m.rank, m.name))
    return [m for m in found if gives in (None, m.gives) and needs in (None, m.needs)]


def measures_of_units() -> list[Measure]:
    """List the measures that give a matrix of units."""
    return measures(gives="units")


@cache
def _declared(module: str) -> tuple[Measure, ...]:
    """List the measures that a module declares.

    Raises
    ------
    ValueError
        If one of them has a name that does not tell its module.
    """
    found = import_module(f"convergent.measures.{module}")
    declared = getattr(found, "MEASURES", None) or (found.MEASURE,)
    for each in declared:
        if (each.module or each.name) != module:
            raise ValueError(
                f"measures/{module}.py: its measure must be called {module} or give it as its "
                f"module, not {each.name}"
            )
    return tuple(declared)


@cache
def _names(folders: tuple[str, ...]) -> list[str]:
    """List the modules that define ``MEASURE`` or ``MEASURES``, without importing any."""
    starts = tuple(f"{name}{end}" for name in ("MEASURE", "MEASURES") for end in (" =", ":"))
    found = []
    for module in pkgutil.iter_modules(folders):
        spec = module.module_finder.find_spec(module.name)  # type: ignore[call-arg]
        source = spec.loader.get_source(module.name)  # type: ignore[union-attr]
        # With or without a type.
        if any(line.startswith(starts) for line in source.splitlines()):
            found.append(module.name)
    return found
