"""Assignments are the best ones: brute force, planted permutations."""

from itertools import permutations

import numpy as np
import pytest

from convergent.matching import match_table, matching, partners, ranking, semi_matching
from convergent.moments import correlation


def test_a_planted_permutation_is_recovered(rng):
    x = np.maximum(rng.normal(size=(3000, 40)), 0)
    permutation = rng.permutation(40)
    y = np.empty_like(x)
    # Unit i of a is unit permutation[i] of b, rescaled and with noise.
    y[:, permutation] = x * rng.uniform(0.1, 10, 40) + 0.05 * rng.normal(size=x.shape)
    similarity = correlation(x, y)
    np.testing.assert_array_equal(matching(similarity), permutation)
    np.testing.assert_array_equal(semi_matching(similarity), permutation)


@pytest.mark.parametrize("shape", [(5, 5), (4, 6), (6, 4)])
def test_matching_has_the_largest_total(rng, shape):
    for _ in range(5):
        similarity = rng.normal(size=shape)
        partner = matching(similarity)
        rows = np.flatnonzero(partner >= 0)
        assert len(rows) == min(shape)
        assert len(set(partner[rows])) == len(rows)
        wide = similarity if shape[0] <= shape[1] else similarity.T
        best = max(
            sum(wide[i, j] for i, j in enumerate(chosen))
            for chosen in permutations(range(wide.shape[1]), wide.shape[0])
        )
        assert similarity[rows, partner[rows]].sum() == pytest.approx(best)


def test_semi_matching_may_share_and_is_never_worse(rng):
    similarity = rng.normal(size=(30, 30))
    semi, one_to_one = semi_matching(similarity), matching(similarity)
    rows = np.arange(30)
    np.testing.assert_array_equal(similarity[rows, semi], similarity.max(axis=1))
    assert similarity[rows, semi].sum() >= similarity[rows, one_to_one].sum()
    assert len(set(semi)) < 30


def test_dead_units_match_last():
    # Row 1 and column 2 are dead; 0 is more than any correlation of the others.
    similarity = np.array([[-0.2, -0.1, 0.0], [0.0, 0.0, 0.0], [-0.3, -0.4, 0.0]])
    np.testing.assert_array_equal(matching(similarity), [1, 2, 0])
    np.testing.assert_array_equal(semi_matching(similarity)[[0, 2]], [1, 0])


def test_dead_units_change_nothing_for_the_others(rng):
    live = rng.uniform(-1, 1, size=(20, 20))
    similarity = np.zeros((23, 23))
    similarity[:20, 3:] = live
    np.testing.assert_array_equal(matching(similarity)[:20] - 3, matching(live))
    np.testing.assert_array_equal(semi_matching(similarity)[:20] - 3, semi_matching(live))


def test_all_dead_is_no_fault():
    np.testing.assert_array_equal(np.sort(matching(np.zeros((3, 3)))), [0, 1, 2])
    np.testing.assert_array_equal(semi_matching(np.zeros((3, 3))), [0, 0, 0])


def test_table_has_every_unit_both_ways(rng):
    similarity = rng.uniform(-1, 1, size=(6, 4)).astype(np.float32)
    table = match_table(similarity, "conv2", "correlation")
    columns = ["layer", "measure", "method", "direction", "unit", "partner", "value"]
    assert list(table) == columns
    counts = table.groupby(["method", "direction"]).size().to_dict()
    assert counts == {("semi", "ab"): 6, ("semi", "ba"): 4, ("matching", "ab"): 4}
    for row in table.itertuples():
        pair = (row.unit, row.partner) if row.direction == "ab" else (row.partner, row.unit)
        assert similarity[pair] == np.float32(row.value)
    np.testing.assert_array_equal(partners(table, "conv2", units=6), matching(similarity))


@pytest.mark.parametrize("solve", [matching, semi_matching])
@pytest.mark.parametrize(
    ("similarity", "message"),
    [
        (np.array([[0.1, np.nan]]), "NaN"),
        (np.zeros(3), r"must be \(unit_a, unit_b\)"),
        (np.zeros((3, 0)), "must be"),
    ],
)
def test_bad_similarities_are_refused(solve, similarity, message):
    with pytest.raises(ValueError, match=message):
        solve(similarity)


def test_ranking_runs_from_best_to_worst():
    similarity = np.array([[0.2, 0.1], [0.3, 0.9], [0.5, 0.4], [0.0, 0.9]])
    table = match_table(similarity, "conv1", "mutual_information")
    best = ranking(table, "conv1", "mutual_information")
    assert best["unit"].tolist() == [1, 3, 2, 0]
    assert best["partner"].tolist() == [1, 1, 0, 0]
    assert best["value"].tolist() == [0.9, 0.9, 0.5, 0.2]
    assert ranking(table, "conv1").empty
