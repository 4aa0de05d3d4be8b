"""Means over pairs of nets have intervals over nets, which know that pairs share nets."""

import itertools

import numpy as np
import pytest

from convergent.inference.over_nets import over_nets

DRAWS = 400


def draw(rng, nets, of_net, of_pair, groups=None):
    """Values of all pairs, or of those between two groups: effects of nets and noise of pairs."""
    effect = rng.normal(0, of_net, nets)
    return {
        (f"net{a}", f"net{b}"): effect[a] + effect[b] + rng.normal(0, of_pair)
        for a, b in itertools.combinations(range(nets), 2)
        if groups is None or (a < groups) != (b < groups)
    }


def coverage(rng, *args, **options):
    intervals = [over_nets(draw(rng, *args, **options)).interval for _ in range(DRAWS)]
    return np.mean([interval.low <= 0 <= interval.high for interval in intervals])


def test_the_interval_is_that_of_leaving_out_one_net(rng):
    values = draw(rng, 5, 1, 1)
    found = over_nets(values)
    assert found.mean == pytest.approx(np.mean([*values.values()]))
    without = [
        np.mean([v for pair, v in values.items() if f"net{i}" not in pair]) for i in range(5)
    ]
    error = np.sqrt(4 / 5 * np.sum((without - np.mean(without)) ** 2))
    assert found.interval.standard_error == pytest.approx(error)
    # Student's t with 4 degrees of freedom.
    assert found.interval.high == pytest.approx(found.mean + 2.7764451 * error)
    assert found[2:] == (5, 10, "")


@pytest.mark.parametrize("nets", [3, 4, 6, 8, 10])
@pytest.mark.parametrize("of_pair", [0, 1])
def test_intervals_over_nets_cover(rng, nets, of_pair):
    assert 0.90 <= coverage(rng, nets, 1, of_pair) <= 0.99


def test_intervals_cover_where_pairs_are_independent_and_between_groups(rng):
    # Too wide, but never too narrow: pairs that share nothing would need 1 / sqrt(2) of it.
    assert coverage(rng, 6, 0, 1) >= 0.95
    assert coverage(rng, 6, 1, 1, groups=3) >= 0.90
    assert coverage(rng, 4, 1, 0, groups=2) >= 0.90


def test_an_interval_over_pairs_would_be_too_narrow(rng):
    """The reason for leaving out nets: the usual standard error over pairs misses the mean."""
    hits = []
    for _ in range(DRAWS):
        values = np.array([*draw(rng, 8, 1, 0.1).values()])
        hits.append(abs(values.mean()) <= 2.05 * values.std(ddof=1) / np.sqrt(len(values)))
    assert np.mean(hits) < 0.80


@pytest.mark.parametrize(
    ("pairs", "nets", "reason"),
    [
        ("ab", 2, "2 nets are too few; 3 are needed"),
        ("ab ac ad", 4, "a is in every pair"),
        ("", 0, "no pair has a value"),
    ],
)
def test_a_mean_without_an_interval_says_why(pairs, nets, reason):
    found = over_nets({tuple(pair): 0.5 for pair in pairs.split()})
    assert found.interval is None
    assert reason in found.note
    assert found.n_nets == nets
    assert np.isnan(found.mean) == (nets == 0)


def test_pairs_without_a_value_are_left_out():
    values = {("a", "b"): 0.2, ("a", "c"): 0.4, ("b", "c"): 0.6, ("a", "d"): np.nan}
    found = over_nets(values)
    assert (found.mean, found.n_nets, found.n_pairs) == (pytest.approx(0.4), 3, 3)
    assert found.interval is not None
