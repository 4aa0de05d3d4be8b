"""Estimates: the values of measures, each with its held-out value, its interval and its chance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convergent.inference.comparisons import Comparison
from convergent.inference.infinitesimal import turned, values_without
from convergent.inference.jackknife import Interval, jackknife
from convergent.inference.nulls import chance, too_few_draws
from convergent.measures.choices import Choice
from convergent.measures.evidence import Evidence, Split
from convergent.measures.registry import Measure, Undefined, measures_of_units
from convergent.measures.registry import measure as registered

# Kinds of nulls, in the order of their columns.
NULLS = ("rotation", "images", "untrained", "untrained_one")
# Of these there is a comparison or two, and no draws: they have a mean, but no p.
WITHOUT_DRAWS = ("untrained", "untrained_one")
# What a sample is, for measures that do not take the samples of a layer as they are.
SAMPLES = {
    "image_means": "image_mean",
    "inner_products": "flattened",
    "dissimilarities": "flattened",
}
UNKNOWN = Interval(np.nan, np.nan, np.nan)


class Way(NamedTuple):
    """A way to compare two layers: one row of a table.

    Attributes
    ----------
    measure : Measure
        Measure of layers.
    parameter : str
        Measure of units, for a measure that needs a matrix.
    direction : str
        ``ab``, ``ba``, or empty for a measure that is symmetric.
    """

    measure: Measure
    parameter: str = ""
    direction: str = ""

    @property
    def invariances(self) -> frozenset[str]:
        """List the changes of the second net under which its values stay the same."""
        of_measure = self.measure.invariances
        if self.direction == "ba":
            return of_measure
        return of_measure | self.measure.invariances_of_second

    @property
    def of_codes(self) -> bool:
        """Tell whether it is computed from the matrix of a measure of codes."""
        return bool(self.parameter) and registered(self.parameter).needs == "codes"


def ways(measures: Iterable[Measure]) -> list[Way]:
    """List the ways in which layers are compared, in the order of the rows.

    Parameters
    ----------
    measures : iterable of Measure
        Measures of layers. One that needs a matrix has a row for each measure of units that it is
        computed of; one that is not symmetric has a row for each direction.
    """
    units = tuple(each.name for each in measures_of_units())
    return [
        Way(measure, parameter, direction)
        for measure in measures
        for parameter in ((measure.of or units) if measure.needs == "matrix" else ("",))
        for direction in (("",) if measure.symmetric else ("ab", "ba"))
    ]


def estimates(
    ways: Sequence[Way],
    comparison: Comparison,
    nulls: Mapping[str, Iterable[Split]] | None = None,
    level: float = 0.95,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Compare two layers in several ways, each with its held-out value, interval and chance.

    Parameters
    ----------
    ways : sequence of Way
    comparison : Comparison
    nulls : mapping of str to iterable of Split
        Comparisons of nets that are alike by chance only, by kind (:data:`NULLS`); each is read
        once, draw by draw.
    level : float
        Confidence level of the intervals, and level of the upper end of each null.

    Returns
    -------
    rows : list of dict
        One for each way: layer_a, layer_b, measure, direction, sample (position, image_mean,
        flattened), grid, parameter, value, held_out, standard_error, low, high; null_<kind>,
        null_<kind>_high and p_<kind> for each kind; ceiling, n_images, n_nets, and note: why a
        number is NaN.
    draws : list of dict
        The values of nulls: layer_a, layer_b, measure, parameter, direction, null, draw, value.

    Notes
    -----
    Intervals are those of the jackknife that leaves out one block of images at a time
    (:func:`convergent.inference.jackknife.jackknife`). Three kinds of values without a block are
    not computed anew, but right to first order: those of measures with a gradient
    (:mod:`convergent.inference.infinitesimal`); and where partners were chosen, the choice from all
    images is held fixed, if the measure does not declare `rechosen` or the matrix is one of codes.
    What was chosen is the best, so that a small change of the choice changes the value in second
    order only (the envelope theorem).
    """
    found = [_Found(way, comparison) for way in ways]
    _leave_out(found, comparison)
    draws = []
    for kind, splits in (nulls or {}).items():
        draws += _draw(kind, splits, found, comparison)
    return [each.row(level) for each in found], draws


class _Found:
    """What is found out about a way, bit by bit."""

    def __init__(self, way: Way, comparison: Comparison):
        self.way, self.comparison = way, comparison
        self.value = self.held_out = np.nan
        # Values without each block, or None if they are yet to be computed or cannot be.
        self.without: list[float] | NDArray[np.float64] | None = None
        self.anew: Callable[[Split], float] | None = None
        self.null: dict[str, list[float]] = defaultdict(list)
        self.notes: dict[str, None] = {}
        measure = way.measure
        try:
            self._compute()
        except Undefined as reason:
            self.note("", reason)
            return
        if not all(live.any() for live in comparison.split.whole.live):
            self.note("", "no unit of one of the layers varies: least alike by definition")
        elif self.value == 0 and (why := _blank(way, comparison.split.whole)):
            self.note("", f"{why} in one of the layers: 0 by definition")
        if measure.choose is not None:
            try:
                held_out = comparison.split.held_out
                self.held_out = self.value if measure.always_held_out else held_out(*way)
            except Undefined as reason:
                self.note("held out", reason)

    def _compute(self) -> None:
        """Compute the value, and those without each block if they need no evidence without it."""
        measure = self.way.measure
        if measure.gradient is not None:
            self._by_gradient()
        elif measure.choose is not None and not measure.always_held_out:
            self._by_choice()
        else:
            self.value = self.comparison.split.value(*self.way)
            units = max(map(len, self.comparison.split.whole.live))
            if measure.widest is not None and units > measure.widest:
                self.note("interval", f"none for more than {measure.widest} units")
            elif measure.without is not None:
                self._by_blocks()
            elif not self.way.of_codes:
                self.anew = lambda rest: rest.value(*self.way)

    def _by_blocks(self) -> None:
        """Let the measure leave out each block by itself."""
        measure, parameter, _ = self.way
        evidence = self.comparison.split.whole.directed(self.way.direction)
        arguments = evidence.arguments(measure, parameter)
        try:
            edges = self.comparison.edges(measure.needs)
            self.without = measure.without(*arguments, edges)  # type: ignore[misc]
        except Undefined as reason:
            self.note("interval", f"without a block of images, {reason}")

    def note(self, of: str, reason: object) -> None:
        self.notes[f"{of}: {reason}" if of else str(reason)] = None

    def _by_gradient(self) -> None:
        """Compute the value and those without each block from one gradient."""
        measure, parameter, _ = self.way
        evidence = self.comparison.split.whole.directed(self.way.direction)
        gradient = measure.gradient(*evidence.arguments(measure, parameter))  # type: ignore[misc]
        self.value = gradient.value
        if self.way.direction == "ba":
            gradient = turned(gradient)
        self.without = values_without(
            gradient, self.comparison.blocks, self.comparison.split.whole.moments
        )

    def _by_choice(self) -> None:
        """Compute the value of a choice, and those without each block at that choice, or anew."""
        measure, parameter, _ = self.way
        evidence = self.comparison.split.whole.directed(self.way.direction)
        chosen = evidence.choose(measure, parameter)
        self.value = evidence.score(measure, chosen, parameter)
        if self.way.of_codes:
            self.without = _of_codes(self.way, chosen, evidence, self.comparison)
            return
        near = None
        if measure.rechosen and measure.near:
            near = measure.near(chosen, *evidence.arguments(measure, parameter))

        def anew(rest: Split) -> float:
            left = rest.whole.directed(self.way.direction)
            kept = left.choose_near(measure, parameter, near) if measure.rechosen else chosen
            return left.score(measure, kept, parameter)

        self.anew = anew

    @property
    def sizes(self) -> NDArray[np.int64]:
        return np.diff(self.comparison.edges(self.way.measure.needs))

    def interval(self, level: float) -> Interval:
        """Compute the interval, or note why there is none."""
        if np.isnan(self.value):
            return UNKNOWN
        if self.without is None:
            if self.way.of_codes:
                self.note("interval", f"{self.way.parameter} is not computed without each block")
            return UNKNOWN
        sizes = self.sizes
        if sizes.sum() - sizes.max() < 2:
            self.note("interval", "without one of the blocks there are fewer than two images")
            return UNKNOWN
        return jackknife(self.value, self.without, sizes, level)

    def row(self, level: float) -> dict[str, Any]:
        measure, parameter, direction = self.way
        comparison = self.comparison
        sample = "image_mean" if comparison.grid == "mean" else "position"
        row: dict[str, Any] = {"layer_a": comparison.layer_a, "layer_b": comparison.layer_b}
        row |= {"measure": measure.name, "direction": direction}
        row |= {"sample": SAMPLES.get(measure.needs, sample), "grid": comparison.grid}
        row |= {"parameter": parameter or None, "value": self.value, "held_out": self.held_out}
        row |= self.interval(level)._asdict()
        for kind in NULLS:
            values = self.null[kind]
            found = chance(self.value, values, measure.higher_is_more_alike, level)
            if kind in WITHOUT_DRAWS:
                found = found.mean_only()
            elif values and (why := too_few_draws(len(values), level)):
                self.note(f"null {kind}", why)
            row |= found.columns(kind)
        row |= {"ceiling": _ceiling(self.way) if np.isfinite(self.value) else np.nan}
        return row | {
            "n_images": int(self.sizes.sum()), "n_nets": 2, "note": "; ".join(self.notes),
        }  # fmt: skip


def _leave_out(found: Sequence[_Found], comparison: Comparison) -> None:
    """Compute anew, without each block of images, the values that must be, block after block."""
    values: dict[int, list[float]] = {n: [] for n, each in enumerate(found) if each.anew}
    if not values:
        return
    for split in comparison.without({found[number].way.measure.needs for number in values}):
        for number in list(values):
            each = found[number]
            try:
                values[number].append(each.anew(split))  # type: ignore[misc]
            except Undefined as reason:
                each.note("interval", f"without a block of images, {reason}")
                del values[number]
        if not values:
            return
    for number, without in values.items():
        found[number].without = without[: len(found[number].sizes)]


def _of_codes(
    way: Way, chosen: Choice, evidence: Evidence, comparison: Comparison
) -> NDArray[np.float64] | None:
    """Score a choice of pairs of units by a measure of codes, without each block of images."""
    without = registered(way.parameter).without
    if without is None or comparison.sample_rows is None or evidence.codes is None:
        return None
    units = [np.arange(len(live)) for live in evidence.live]
    if not way.measure.with_dead:
        units = [np.flatnonzero(live) for live in evidence.live]
    edges = np.searchsorted(comparison.sample_rows, comparison.cut.edges)
    pairs = units[0][chosen.rows], units[1][chosen.columns]
    values = without(*evidence.codes, *pairs, edges, threads=evidence.threads)
    return values @ chosen.weights


def _blank(way: Way, evidence: Evidence) -> str:
    """Say what is the same throughout a layer whose units vary, so that nothing resembles it."""
    if way.of_codes:
        if any((codes == codes[0]).all() for codes in evidence.codes or ()):
            return "every unit stays in one bin"
        return ""
    of_images = way.measure.needs == "dissimilarities"
    if of_images and not all(z.matrix.any() for z in evidence.prepared(way.measure)):
        return "all pairs of images are equally dissimilar"
    return ""


def _draw(
    kind: str, splits: Iterable[Split], found: Sequence[_Found], comparison: Comparison
) -> list[dict[str, Any]]:
    """Compare nets that are alike by chance only, in each way that they can change."""
    asked = [each for each in found if np.isfinite(each.value) and kind not in each.way.invariances]
    reasons: dict[int, str] = {}
    draws = []
    for draw, split in enumerate(splits if asked else ()):
        for number, each in enumerate(asked):
            try:
                value = split.value(*each.way)
            except Undefined as reason:
                reasons[number] = str(reason)
                continue
            each.null[kind].append(value)
            measure, parameter, direction = each.way
            row: dict[str, Any] = {"layer_a": comparison.layer_a, "layer_b": comparison.layer_b}
            row |= {"measure": measure.name, "parameter": parameter, "direction": direction}
            draws.append(row | {"null": kind, "draw": draw, "value": value})
    for number, why in reasons.items():
        if not asked[number].null[kind]:
            asked[number].note(f"null {kind}", why)
    return draws


def _ceiling(way: Way) -> float:
    """Return the most alike that units can be on average, where that is known.

    Every live unit can have a partner in a mean over units (the matching averages over those of the
    layer that has fewer), and correlate 1 with it. Mutual information is bounded by the entropies
    of the units, and other measures by nothing that this pair of nets shows.
    """
    measure, parameter, _ = way
    if measure.needs != "matrix":
        return np.nan
    bound = measure.range[1 if measure.higher_is_more_alike else 0]
    if measure.higher_is_more_alike:
        bound = min(bound, registered(parameter).range[1])
    return bound if np.isfinite(bound) else np.nan
