"""Intervals of a pair come from its blocks of images."""

import itertools

import numpy as np
import pytest
from scipy import stats

from convergent.inference.jackknife import jackknife


def without_each(values, sizes):
    """Means of the values without each run of so many of them."""
    edges = np.concatenate([[0], np.cumsum(sizes)])
    runs = itertools.pairwise(edges)
    return [np.delete(values, np.arange(start, stop)).mean() for start, stop in runs]


def test_a_mean_without_one_value_at_a_time_has_the_textbook_interval(rng):
    values = rng.normal(size=30)
    interval = jackknife(values.mean(), without_each(values, [1] * 30), [1] * 30)
    error = values.std(ddof=1) / np.sqrt(30)
    low, high = stats.t.interval(0.95, 29, values.mean(), error)
    np.testing.assert_allclose(interval, (error, low, high))


def test_unequal_blocks_agree_with_equal_ones_where_they_are_equal(rng):
    values = rng.normal(size=40)
    without = without_each(values, [4] * 10)
    error = np.sqrt(9 / 10 * ((without - np.mean(without)) ** 2).sum())
    found = jackknife(values.mean(), without, [4] * 10).standard_error
    np.testing.assert_allclose(found, error)


def test_intervals_of_unequal_blocks_cover_the_truth(rng):
    sizes = [5, 6, 5, 6, 12, 5, 6, 11, 5, 6]
    covered = 0
    for _ in range(2000):
        values = rng.normal(size=sum(sizes))
        _, low, high = jackknife(values.mean(), without_each(values, sizes), sizes)
        covered += low <= 0 <= high
    assert 0.93 <= covered / 2000 <= 0.97


def test_a_statistic_that_does_not_vary_has_no_width():
    assert jackknife(1.0, [1.0] * 5, [3, 4, 3, 4, 3]) == pytest.approx((0, 1, 1))


@pytest.mark.parametrize(("without", "sizes"), [([1.0], [5]), ([1.0, 2.0], [5])])
def test_one_block_has_no_interval(without, sizes):
    with pytest.raises(ValueError, match="needs at least 2 blocks"):
        jackknife(1.0, without, sizes)
