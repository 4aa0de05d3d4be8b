"""Evidence: what is known of a layer of one net and a layer of another, as measures read it.

The same measures are computed from all images, from all but a block, from a half, and from nets
that have nothing in common; each of these is an :class:`Evidence`.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convergent.measures.choices import Choice
from convergent.measures.registry import Measure, Undefined
from convergent.measures.registry import measure as registered
from convergent.measures.spectra import Axes, Spectra

if TYPE_CHECKING:
    from convergent.activations.moments import Moments


@dataclass(frozen=True)
class Evidence:
    """What is known of a layer of one net and a layer of another, from some images.

    Attributes
    ----------
    between, within_a, within_b : Moments
        Moments between the layers, within the first and within the second.
    image_means : (ndarray, ndarray) of shape (image, unit), optional
        Mean of each unit over each image, of both layers.
    inner_products, dissimilarities : (ndarray, ndarray) of shape (image, image), optional
        Those of the flattened images, or of some of them, in both layers, float32.
    codes : (ndarray, ndarray) of shape (sample, unit), uint8, optional
        Codes of the samples of mutual information.
    among : (ndarray, ndarray) of shape (unit,), bool, optional
        Units of each layer that count as live, where these are not the units that vary in these
        images: a part of the images is compared at the units that vary in all of them.
    threads : int
        Threads of measures of codes.
    images : int, optional
        Number of images, if there are several samples in each.
    """

    between: Moments
    within_a: Moments
    within_b: Moments
    image_means: tuple[NDArray, NDArray] | None = None
    inner_products: tuple[NDArray, NDArray] | None = None
    dissimilarities: tuple[NDArray, NDArray] | None = None
    codes: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None
    among: tuple[NDArray[np.bool], NDArray[np.bool]] | None = None
    threads: int = 1
    images: int | None = None

    @property
    def moments(self) -> tuple[Moments, Moments, Moments]:
        """Return the moments between the layers, within the first and within the second."""
        return self.between, self.within_a, self.within_b

    @cached_property
    def live(self) -> tuple[NDArray[np.bool], NDArray[np.bool]]:
        """Tell which units of each layer count as live."""
        if self.among is not None:
            return self.among
        return self.within_a.var_x > 0, self.within_b.var_x > 0

    @cached_property
    def _varying(self) -> tuple[bool, bool]:
        """Tell whether both layers have live units, and whether all of their units are live."""
        a, b = self.live
        return bool(a.any() and b.any()), bool(a.all() and b.all())

    @property
    def turned(self) -> Evidence:
        """Exchange the two layers."""
        found = self._twin()
        if found is None:
            found = Evidence(
                self.between.turned(),
                self.within_b,
                self.within_a,
                _exchanged(self.image_means),
                _exchanged(self.inner_products),
                _exchanged(self.dissimilarities),
                _exchanged(self.codes),
                _exchanged(self.among),
                threads=self.threads,
                images=self.images,
            )
            vars(found)["spectra"] = self.spectra.turned()
            # Evidence that held each other would outlive its use, with all of its matrices.
            vars(found)["_twin"] = weakref.ref(self)
            vars(self)["_twin"] = lambda: found
        return found

    def _twin(self) -> Evidence | None:
        """Return the turned evidence, if it was made."""
        return None

    def directed(self, direction: str) -> Evidence:
        """Order the layers: ``ba`` exchanges them, ``ab`` and the empty direction do not."""
        return self.turned if direction == "ba" else self

    @cached_property
    def spectra(self) -> Spectra:
        """Prepare the decompositions of the layers' covariances, which both directions share."""
        return Spectra.of(self.between, self.within_a, self.within_b, self.images)

    def seeing(
        self,
        between: Moments,
        offsets: Mapping[str, int] | None = None,
        within_b: Moments | None = None,
        **changes: Any,
    ) -> Evidence:
        """Replace the moments between the layers; what was computed within them is kept.

        Parameters
        ----------
        between : Moments
        offsets : mapping of str to int, optional
            By how many images `image_means` or `dissimilarities` of the second layer are turned:
            image i is what was image i + offset.
        within_b : Moments, optional
            Moments within the second layer, where they change, too.
        **changes
            Other attributes to replace, but not the moments within the first layer.
        """
        b = self.spectra.b if within_b is None else Axes(within_b)
        found = replace(self, between=between, within_b=b.within, **changes)
        vars(found)["spectra"] = Spectra(between, self.spectra.a, b, found.images)
        vars(found)["_unturned"] = self, offsets or {}
        return found

    def prepared(self, measure: Measure) -> tuple[Any, ...]:
        """Prepare the arguments of a measure that can prepare them, once for all turns of images.

        Raises
        ------
        Undefined
            If they are not known.
        """
        if measure.name not in self._prepared:
            source, offsets = vars(self).get("_unturned", (self, {}))
            if measure.needs in offsets and getattr(self, measure.needs) is not None:
                a, b = source.prepared(measure)
                b = b.turned(offsets[measure.needs])
            else:
                a, b = (measure.prepare(each) for each in self.arguments(measure))  # type: ignore[misc]
            self._prepared[measure.name] = a, b
        return self._prepared[measure.name]

    @cached_property
    def _prepared(self) -> dict[str, tuple[Any, ...]]:
        return {}

    def mixed(
        self,
        rotation: NDArray,
        between: Moments,
        within_b: Moments,
        loadings_b: NDArray | None = None,
        **changes: Any,
    ) -> Evidence:
        """Rotate the units of the second layer; what was decomposed is kept.

        Parameters
        ----------
        rotation : ndarray of shape (unit_b, unit_b)
            Orthogonal matrix Q: the units y become y @ Q. Dead units are left as they are.
        between, within_b : Moments
            Moments with, and within, the rotated units.
        loadings_b : ndarray of shape (unit_b, direction), optional
            Loadings of the rotated units on canonical variables, if they are known.
        **changes
            Other attributes to replace.
        """
        found = replace(self, between=between, within_b=within_b, **changes)
        vars(found)["spectra"] = self.spectra.mixed(rotation, between, within_b, loadings_b)
        return found

    @cached_property
    def _matrices(self) -> dict[tuple[str, bool], NDArray]:
        return {}

    @cached_property
    def _choices(self) -> dict[tuple[str, str], Any]:
        return {}

    def matrix(self, name: str, *, with_dead: bool = False) -> NDArray:
        """Compute a measure of units between the live units of the layers, once.

        Parameters
        ----------
        name : str
            Measure of units.
        with_dead : bool
            Return the matrix of all units, in which dead ones have 0.

        Raises
        ------
        Undefined
            If there are no codes, or no live units.
        """
        some, every = self._varying
        if not some:
            raise Undefined("no unit of one of the layers varies")
        key = name, with_dead or every
        if key not in self._matrices:
            twin = self._twin()
            if twin is not None and key in twin._matrices:
                self._matrices[key] = twin._matrices[key].T
            elif key[1]:
                self._matrices[key] = self._matrix(name)
            else:
                self._matrices[key] = self.matrix(name, with_dead=True)[np.ix_(*self.live)]
        return self._matrices[key]

    def _matrix(self, name: str) -> NDArray:
        of_units = registered(name)
        if of_units.compute is None:
            raise ValueError(f"measure {name} chooses from matrices and makes none")
        if of_units.needs != "codes":
            return of_units.compute(*self.moments)
        if self.codes is None:
            raise Undefined("samples were not kept for this pair of layers")
        return of_units.compute(*self.codes, threads=self.threads)

    def arguments(self, measure: Measure, parameter: str = "") -> tuple[Any, ...]:
        """Return the arguments that a measure of layers needs.

        Parameters
        ----------
        measure : Measure
        parameter : str
            Measure of units, for a measure that needs a matrix.

        Raises
        ------
        Undefined
            If they are not known.
        """
        if measure.needs == "matrix":
            matrix = self.matrix(parameter, with_dead=measure.with_dead)
            return (matrix, *self.live) if measure.with_dead else (matrix,)
        if measure.needs == "moments":
            return self.moments
        if measure.needs == "spectra":
            return (self.spectra,)
        found = getattr(self, measure.needs)
        if found is None:
            raise Undefined(f"{measure.needs.replace('_', ' ')} were not computed")
        return found

    def value(self, measure: Measure, parameter: str = "", direction: str = "") -> float:
        """Compute a measure of layers.

        Raises
        ------
        Undefined
            If it has no value.
        """
        evidence = self.directed(direction)
        if measure.compute:
            if measure.prepare:
                return float(measure.compute(*evidence.prepared(measure)))
            return float(measure.compute(*evidence.arguments(measure, parameter)))
        return evidence.score(measure, evidence.choose(measure, parameter), parameter)

    def choose(self, measure: Measure, parameter: str = "") -> Any:
        """Choose partners or fit a map, once, for a measure that does."""
        key = measure.name, parameter
        if key not in self._choices:
            arguments = self.arguments(measure, parameter)
            same = self._choice_of(measure.equals, parameter) if measure.equals else None
            if same is not None:
                self._choices[key] = same
            elif measure.choose_all is not None:
                chosen = measure.choose_all(*arguments).items()
                self._choices.update({(name, parameter): each for name, each in chosen})
            else:
                self._choices[key] = measure.choose(*arguments)  # type: ignore[misc]
        return self._choices[key]

    def choose_near(self, measure: Measure, parameter: str, near: Any) -> Any:
        """Choose anew from nearly the same evidence, sooner with the hint of `measure.near`."""
        if near is None:
            return self.choose(measure, parameter)
        return measure.choose(*self.arguments(measure, parameter), near=near)  # type: ignore[misc]

    def _choice_of(self, name: str, parameter: str) -> Choice | None:
        """Choose as another measure does, if both match equally many units that all are live."""
        other = registered(name)
        if other.of is not None and parameter not in other.of:
            return None
        if not self._varying[1] or len({*map(len, self.live)}) > 1:
            return None
        found = self.choose(other, parameter)
        return found if len(found.rows) == len(self.live[0]) else None

    def score(self, measure: Measure, chosen: Any, parameter: str = "") -> float:
        """Score what was chosen on these or other images."""
        arguments = self.arguments(measure, parameter)
        if isinstance(chosen, Choice):
            return chosen.score(arguments[0])
        return float(measure.score(*arguments, chosen))  # type: ignore[misc]


def _exchanged(pair: tuple[NDArray, NDArray] | None) -> tuple[NDArray, NDArray] | None:
    return None if pair is None else (pair[1], pair[0])


class Split(NamedTuple):
    """Evidence from all images, and from each half of them.

    Attributes
    ----------
    whole : Evidence
    halves : (Evidence, Evidence), optional
        From the first and from the last half of the blocks of images, among the units that vary in
        all; both lack what is known of pairs of images.
    """

    whole: Evidence
    halves: tuple[Evidence, Evidence] | None = None

    def value(self, measure: Measure, parameter: str = "", direction: str = "") -> float:
        """Compute a measure from all images; one that is always held out, from both halves.

        Raises
        ------
        Undefined
            If it has no value.
        """
        if measure.always_held_out:
            return self.held_out(measure, parameter, direction)
        return self.whole.value(measure, parameter, direction)

    def held_out(self, measure: Measure, parameter: str = "", direction: str = "") -> float:
        """Choose on one half of the images and score on the other; average both ways.

        Raises
        ------
        Undefined
            If there are no halves, the measure chooses nothing, or it has no value.
        """
        if self.halves is None or measure.choose is None:
            raise Undefined("nothing was chosen that could be held out")
        first, last = (half.directed(direction) for half in self.halves)
        ways = ((first, last), (last, first))
        scores = [y.score(measure, x.choose(measure, parameter), parameter) for x, y in ways]
        return float(np.mean(scores))
