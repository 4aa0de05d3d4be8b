"""Chance: what a measure would say of a net that has nothing to do with the other's units.

A null is an iterator of :class:`convergent.measures.evidence.Split`, one for each draw. Here is the
null that keeps the space that the units of the second net span, and not its basis, and the
comparison of a value with draws of any null. :mod:`convergent.inference.turned_images` has the
null that keeps both nets and pairs unlike images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convergent.activations.codes import discretize
from convergent.activations.moments import Moments
from convergent.measures.evidence import Evidence, Split

# Reflections that are multiplied together before they are applied.
REFLECTIONS = 128
# Samples, and units, that are rotated at once.
SAMPLES, UNITS = 8192, 512
# Values that differ by less than this share of their size count as equal.
TIE = 1e-6


def null_columns(kind: str) -> tuple[str, str, str]:
    """Name the columns of a null in tables: its mean, its end, and p."""
    return f"null_{kind}", f"null_{kind}_high", f"p_{kind}"


class Chance(NamedTuple):
    """A value among draws of a null.

    Attributes
    ----------
    mean : float
        Mean of the draws.
    high : float
        Draw that a value must pass to be more alike than chance at the level asked: `p` is at most
        1 - level if it does. With too few draws for any such `p`, the draw that is most alike.
    p : float
        (b + 1) / (m + 1), where b of m draws are at least as alike as the value; NaN if there are
        too few draws for it to reach 1 - level (:func:`fewest_draws`).
    """

    mean: float
    high: float
    p: float

    def columns(self, kind: str) -> dict[str, float]:
        """Name the numbers as tables do, by the kind of the null."""
        return dict(zip(null_columns(kind), self, strict=True))

    def mean_only(self) -> Chance:
        """Drop the end and p: for draws that are single comparisons of their own."""
        return Chance(self.mean, math.nan, math.nan)


def chance(
    value: float, draws: ArrayLike, higher_is_more_alike: bool = True, level: float = 0.95
) -> Chance:
    """Compare a value with draws of a null.

    Parameters
    ----------
    value : float
    draws : array_like of shape (draw,)
        Draws that are NaN, as the measure had no value, are left out.
    higher_is_more_alike : bool
        Direction in which the value is compared.
    level : float
        Level of `high`, one-sided.

    Returns
    -------
    Chance
        All NaN without draws.

    Raises
    ------
    ValueError
        If the level is not between 0 and 1.
    """
    fewest = fewest_draws(level)
    known = np.asarray(draws, np.float64)
    known = known[~np.isnan(known)]
    if not known.size:
        return Chance(math.nan, math.nan, math.nan)
    sign = 1 if higher_is_more_alike else -1
    alike = np.sort(sign * known)[::-1]
    # 1e-9: 1 - 0.95 is a little more than 0.05, 1 - 0.9 a little less than 0.1.
    rank = max(1, math.floor((1 - level) * (len(known) + 1) + 1e-9))
    p = math.nan
    if len(known) >= fewest and not math.isnan(value):
        b = int((alike >= sign * value - TIE * abs(value)).sum())
        p = (b + 1) / (len(known) + 1)
    return Chance(float(known.mean()), float(sign * alike[rank - 1]), p)


def fewest_draws(level: float) -> int:
    """Count the draws from which p, at least 1 / (m + 1), can be as small as 1 - level.

    Raises
    ------
    ValueError
        If the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    return math.ceil(1 / (1 - level) - 1e-9) - 1


def too_few_draws(draws: int, level: float) -> str:
    """Say why there is no p with so few draws, and how many it needs; empty if there are enough."""
    fewest = fewest_draws(level)
    if draws >= fewest:
        return ""
    return f"{draws} draws are too few for p, which needs {fewest} at level {level:g}"


def rotations(
    split: Split,
    draws: int,
    seed: int | Sequence[int],
    *,
    values_b: NDArray | None = None,
    information_draws: int | None = None,
    binning: str = "paper",
    halves: bool = False,
) -> Iterator[Split]:
    """Replace the live units of the second layer by random orthogonal mixtures of them.

    The mixtures span the same space, so that a value above these draws shows that the two layers
    share a basis beyond the space. The activations Y of the live units become Y Q, with Q
    uniformly distributed over all rotations and reflections; units of large variance weigh more.
    Dead units stay as they are. Everything comes from the moments, without a pass over
    activations.

    Parameters
    ----------
    split : Split
    draws : int
    seed : int or sequence of int
        Draw i depends on the seed, i and the number of live units only.
    values_b : ndarray of shape (sample, unit), optional
        Activations of the second layer at the samples of mutual information, whose codes the split
        has. They are centred, mixed, and binned anew.
    information_draws : int, optional
        Number of draws that have codes; all by default.
    binning : {"paper", "reference"}
        See :func:`convergent.activations.codes.discretize`.
    halves : bool
        Mix the halves too, by the same Q. Only measures that are always held out need them.

    Yields
    ------
    Split
        Without what is known of pairs of images, and without halves unless asked.

    Notes
    -----
    Products are float32, as those of :meth:`convergent.activations.moments.Moments.of`. For n units
    a draw takes 5.3 n**3 operations, with the loadings that PWCCA needs where these are known and
    both layers have full rank. Co-moments within the mixture take 2 n**3 or 4 n**3 more, and only
    where something reads them.
    """
    live = split.whole.live[1]
    parts = [split.whole, *((split.halves or ()) if halves else ())]
    mixers = [_mixer(part, live) for part in parts]
    coded = split.whole.codes
    information = draws if information_draws is None else information_draws
    for draw in range(draws):
        seeds = np.random.SeedSequence(seed, spawn_key=(draw,))
        q = random_rotation(np.random.default_rng(seeds), int(live.sum()))
        whole, *rest = (mixer(q) for mixer in mixers)
        if coded and values_b is not None and draw < information:
            codes_b = _mixed_codes(values_b, split.whole.within_b, live, q, binning)
            whole = replace(whole, codes=(coded[0], codes_b))
        yield Split(whole, (rest[0], rest[1]) if rest else None)


def random_rotation(rng: np.random.Generator, units: int) -> NDArray[np.float32]:
    """Draw an orthogonal matrix (unit, unit), uniformly distributed (Haar).

    It is the Q of the QR decomposition of normal numbers, with a positive diagonal in R. Its
    reflections are drawn as such (Stewart 1980): a sixth of the time of the decomposition.
    """
    v = np.tril(rng.standard_normal((units, units), dtype=np.float32))
    head = v.diagonal().copy()
    end = -np.copysign(np.sqrt(np.einsum("ij,ij->j", v, v)), head)
    # Reflection j is I - v v' / size, with v of column j.
    v /= head - end
    np.fill_diagonal(v, 1)
    size = end / (end - head)
    q = np.diag(np.sign(end))
    for start in reversed(range(0, units, REFLECTIONS)):
        some = slice(start, start + REFLECTIONS)
        w = np.ascontiguousarray(v[start:, some])
        # These reflections together are I - w inv(inner) w'.
        inner = np.triu(w.T @ w, 1)
        np.fill_diagonal(inner, size[some])
        part = q[start:, start:]
        part -= w @ (np.linalg.inv(inner) @ (w.T @ part))
    return q


class _Mixture(Moments):
    """Moments within a mixture, whose co-moments are computed when they are first read."""

    products: Callable[[], NDArray[np.float64]]

    @classmethod
    def lazily(
        cls, count: int, mean: NDArray, var: NDArray, products: Callable[[], NDArray[np.float64]]
    ) -> _Mixture:
        """Make moments whose co-moments are what `products` returns."""
        # As an entry of the tuple, which nothing reads by its place, they are not known.
        unknown = np.broadcast_to(np.nan, (len(mean), len(mean)))
        found = cls(count, mean, mean, var, var, unknown)
        found.products = products
        return found

    @cached_property
    def comoment(self) -> NDArray[np.float64]:  # type: ignore[override]
        return self.products()


def _mixer(part: Evidence, live: NDArray[np.bool]) -> Callable[[NDArray], Evidence]:
    """Prepare what all mixtures of the second layer of some evidence need."""
    between, within = part.between, part.within_b
    count = between.count
    std_a, std_b = np.sqrt(between.var_x), np.sqrt(within.var_x[live])
    scale = std_b.max(initial=0) or 1.0
    # Covariances over a unit's own and over the largest deviation, which float32 holds.
    weights = std_b / scale
    across = (between.correlation()[:, live] * weights).astype(np.float32)
    inside = within.correlation()[np.ix_(live, live)] * np.outer(weights, weights)
    inside = inside.astype(np.float32)
    # With a root of the covariances, variances need no other product than the loadings.
    root = part.spectra.root_b
    root = None if root is None else (root / scale).astype(np.float32)

    def mix(q: NDArray) -> Evidence:
        mean, var = within.mean_x.copy(), within.var_x.copy()
        mean[live] = mean[live] @ q
        if root is None:
            half, loadings = inside @ q, None
            spread = np.maximum(np.einsum("ij,ij->j", q, half, dtype=np.float64), 0)
        else:
            half, loadings = None, q.T @ root
            spread = np.einsum("ij,ij->i", loadings, loadings, dtype=np.float64)
        var[live] = scale**2 * spread

        def products() -> NDArray[np.float64]:
            square = (q.T @ (inside @ q if half is None else half)).astype(np.float64)
            square = (square + square.T) / 2
            np.fill_diagonal(square, spread)
            comoment = np.zeros((len(live), len(live)))
            comoment[np.ix_(live, live)] = count * scale**2 * square
            return comoment

        comoment = np.zeros((len(std_a), len(live)))
        comoment[:, live] = (across @ q) * (count * scale * std_a)[:, None]
        means = part.image_means
        if means is not None:
            mixed = np.array(means[1])
            mixed[:, live] = _mixed(means[1], within, live, q, scale) + mean[live]
            means = means[0], mixed
        whole = np.eye(len(live), dtype=q.dtype)
        whole[np.ix_(live, live)] = q
        return part.mixed(
            whole,
            Moments(count, between.mean_x, mean, between.var_x, var, comoment),
            _Mixture.lazily(count, mean, var, products),
            None if loadings is None else np.float32(scale) * loadings,
            image_means=means,
            inner_products=None,
            dissimilarities=None,
            codes=None,
            among=(part.live[0], live),
        )

    return mix


def _mixed(
    x: NDArray, within: Moments, live: NDArray[np.bool], q: NDArray, scale: float
) -> NDArray[np.float32]:
    """Mix the deviations of live units from their means, of x of shape (sample, unit)."""
    centred = (x[:, live] - within.mean_x[live]) / scale
    return (centred.astype(np.float32) @ q) * np.float32(scale)


def _mixed_codes(
    values: NDArray, within: Moments, live: NDArray[np.bool], q: NDArray, binning: str
) -> NDArray[np.uint8]:
    """Bin mixtures of values of shape (sample, unit); the codes of dead units are 0."""
    codes = np.zeros(values.shape, np.uint8)
    scale = float(np.sqrt(within.var_x.max(initial=0))) or 1.0
    places = np.flatnonzero(live)
    for first in range(0, len(places), UNITS):
        some = q[:, first : first + UNITS]
        tiles = (values[i : i + SAMPLES] for i in range(0, len(values), SAMPLES))
        mixed = np.concatenate([_mixed(tile, within, live, some, scale) for tile in tiles])
        codes[:, places[first : first + UNITS]] = discretize(mixed, binning)[0]
    return codes
