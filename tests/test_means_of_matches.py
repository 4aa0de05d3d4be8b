"""Means of matched units, as measures of layers, are those of the paper's figure 4."""

import numpy as np
import pytest
from comparing import evidence, flat
from scipy import integrate, stats
from scipy.optimize import linear_sum_assignment
from test_measures import activations, compute

from convergent.measures.matching import match_table, mean_values
from convergent.measures.registry import measure


@pytest.mark.parametrize("units", [(12, 12), (7, 15), (15, 7)])
@pytest.mark.parametrize("dead", [False, True])
def test_they_are_the_points_of_figure_4(rng, units, dead):
    x, y = map(flat, activations(rng, 75, *units))
    if dead:
        x[:, 2], y[:, [0, 3]] = 0, 1
    with np.errstate(invalid="ignore"):
        exact = np.nan_to_num(np.corrcoef(x, y, rowvar=False)[: units[0], units[0] :])
    for turned in (False, True):
        matrix, (one, two) = (exact.T, (y, x)) if turned else (exact, (x, y))
        points = mean_values(match_table(matrix, "conv1", "correlation")).iloc[0]
        for name, column in (("semi_mean", "semi"), ("matching_mean", "matching")):
            assert compute(measure(name), one, two) == pytest.approx(points[column], abs=1e-5)


def test_they_are_what_they_say_by_definition(rng):
    x, y = map(flat, activations(rng, 75, 6, 9))
    exact = np.corrcoef(x, y, rowvar=False)[:6, 6:]
    near = {"abs": 1e-5}
    assert compute(measure("semi_mean"), x, y) == pytest.approx(exact.max(axis=1).mean(), **near)
    best = exact[linear_sum_assignment(exact, maximize=True)].mean()
    assert compute(measure("matching_mean"), x, y) == pytest.approx(best, **near)


def test_a_layer_and_itself_in_another_order_have_1(rng):
    x, _ = map(flat, activations(rng, 75, 8, 8))
    for name in ("semi_mean", "matching_mean"):
        assert compute(measure(name), x, x[:, ::-1]) == pytest.approx(1, abs=1e-6)


def expected_maximum(samples, units):
    """Expected largest correlation of a unit with this many independent Gaussian ones."""

    def below(r):
        return stats.t.cdf(r * np.sqrt((samples - 2) / (1 - r**2)), samples - 2) ** units

    return 1 - integrate.quad(below, -1, 1, limit=200)[0]


# .228 and .074 are of single draws of 96 and 96 units, matched one to one, which deviate by .004
# and .0014 from their mean; semi-matches are by .005 to .016 more alike.
@pytest.mark.parametrize(
    ("samples", "matched", "deviation"), [(100, 0.228, 4e-3), (1000, 0.074, 1.4e-3)]
)
def test_units_that_have_nothing_in_common_are_matched_by_chance(rng, samples, matched, deviation):
    draws = [evidence(*rng.normal(size=(2, samples, 96)), ()) for _ in range(10)]
    semi, matching = (
        np.array([draw.value(measure(name), "correlation") for draw in draws])
        for name in ("semi_mean", "matching_mean")
    )
    assert matching.mean() == pytest.approx(matched, abs=2 * deviation)
    near = 5 * semi.std(ddof=1) / np.sqrt(len(draws))
    assert semi.mean() == pytest.approx(expected_maximum(samples, 96), abs=near)
    assert (semi > matching).all()
