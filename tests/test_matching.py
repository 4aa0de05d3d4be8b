"""Assignments are the best ones: brute force, planted permutations."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from convergent.activations.moments import correlation
from convergent.measures.matching import (
    column_prices,
    complete,
    diagonal_order,
    match_table,
    matching,
    mean_values,
    partners,
    ranking,
    semi_matching,
)


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
        assert similarity[rows, partner[rows]].sum() == pytest.approx(best_total(similarity))


@pytest.mark.parametrize("prices", ["any", "own"])
def test_prices_of_columns_change_no_matching(rng, prices):
    values = rng.normal(size=(40, 40))
    values[:, 7] = values[3] = 0
    partner = matching(values)
    given = rng.normal(size=40)
    if prices == "own":
        given = column_prices(values, complete(partner, 40))
        # Every row prefers its own column at these prices, as far as the sweeps have come.
        own = np.arange(40), complete(partner, 40)
        lacks = [(z.max(axis=1) - z[own]).sum() for z in (values, values - given)]
        assert lacks[1] < lacks[0] / 20
    near = values + rng.normal(scale=0.01, size=values.shape)
    for similarity in (values, near):
        np.testing.assert_array_equal(matching(similarity, given), matching(similarity))


def test_semi_matching_may_share_and_is_never_worse(rng):
    similarity = rng.normal(size=(30, 30))
    semi, one_to_one = semi_matching(similarity), matching(similarity)
    rows = np.arange(30)
    np.testing.assert_array_equal(similarity[rows, semi], similarity.max(axis=1))
    assert similarity[rows, semi].sum() >= similarity[rows, one_to_one].sum()
    assert len(set(semi)) < 30


def test_no_live_unit_is_pushed_below_zero_by_a_dead_one():
    # .9 and nothing, rather than .8 and -.9 or .9 and -.9.
    np.testing.assert_array_equal(matching([[0.9, -0.9, 0], [0.8, -0.9, 0]]), [0, -1])
    # Row 1 and column 2 are dead, and take a live unit each.
    similarity = np.array([[-0.2, -0.1, 0.0], [0.0, 0.0, 0.0], [-0.3, -0.4, 0.0]])
    np.testing.assert_array_equal(matching(similarity), [1, -1, -1])
    np.testing.assert_array_equal(semi_matching(similarity)[[0, 2]], [1, 0])


def best_total(similarity):
    """Largest sum of an assignment in which no row or column that could be assigned is not."""
    wide = similarity if len(similarity) <= similarity.shape[1] else similarity.T
    rows = range(len(wide))
    return max(
        sum(wide[i, chosen[i]] for i in rows)
        for chosen in permutations(range(wide.shape[1]), len(wide))
    )


# Few values, so that many are equal.
tenths = st.integers(-9, 9).map(lambda n: n / 10)


@settings(max_examples=200, deadline=None)
@given(
    arrays.arrays(float, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=tenths),
    st.sets(st.integers(0, 4)),
    st.sets(st.integers(0, 4)),
)
@example(np.array([[0.9, -0.9, 0], [0.8, -0.9, 0]]), set(), set())
def test_the_total_is_the_best_of_all_assignments_with_dead_units(similarity, rows, columns):
    similarity[[i for i in rows if i < len(similarity)]] = 0
    similarity[:, [j for j in columns if j < similarity.shape[1]]] = 0
    partner = matching(similarity)
    paired = np.flatnonzero(partner >= 0)
    assert len(set(partner[paired])) == len(paired)
    assert similarity[paired].any(axis=1).all()
    assert similarity[:, partner[paired]].any(axis=0).all()
    total = similarity[paired, partner[paired]].sum()
    assert total == pytest.approx(best_total(similarity))
    # It is that of the whole assignment, too, whose dead units count 0.
    whole = complete(partner, similarity.shape[1])
    taken = np.flatnonzero(whole >= 0)
    assert len(set(whole[taken])) == len(taken) == min(similarity.shape)
    np.testing.assert_array_equal(whole[paired], partner[paired])


def test_units_of_mutual_information_match_as_far_as_they_live(rng):
    """It is never negative, so that no unit is better off with a dead one."""
    similarity = np.zeros((9, 9))
    similarity[:7, 3:] = rng.uniform(0.01, 1, size=(7, 6))
    partner = matching(similarity)
    assert (partner[:7] >= 0).sum() == 6
    assert (partner[7:] == -1).all()
    assert partner[partner >= 0].min() == 3


def test_all_dead_is_no_fault():
    np.testing.assert_array_equal(matching(np.zeros((3, 3))), [-1, -1, -1])
    np.testing.assert_array_equal(semi_matching(np.zeros((3, 3))), [0, 0, 0])
    table = match_table(np.zeros((3, 3)), "fc6", "correlation")
    assert table.empty
    assert mean_values(table).empty


@pytest.mark.parametrize(
    ("partner", "columns", "completed", "order"),
    [
        ([2, -1, 0, -1], 4, [2, 1, 0, 3], ([0, 1, 2, 3], [2, 1, 0, 3])),
        ([2, -1, 0], 5, [2, 1, 0], ([0, 1, 2], [2, 1, 0, 3, 4])),
        ([-1, 1, -1, -1], 3, [0, 1, 2, -1], ([0, 1, 2, 3], [0, 1, 2])),
        ([1, -1, -1, 0], 2, [1, -1, -1, 0], ([0, 3, 1, 2], [1, 0])),
        ([-1, -1], 2, [0, 1], ([0, 1], [0, 1])),
        ([1, 0], 2, [1, 0], ([0, 1], [1, 0])),
    ],
)
def test_a_partial_matching_is_completed_in_order(partner, columns, completed, order):
    partner = np.array(partner)
    before = partner.copy()
    np.testing.assert_array_equal(complete(partner, columns), completed)
    for got, expected in zip(diagonal_order(partner, columns), order, strict=True):
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(partner, before)


def test_means_are_over_the_live_units_that_can_have_a_partner():
    # Of four units of a one is dead, of five of b two: three pairs at most, and one is below 0.
    similarity = np.zeros((4, 5))
    similarity[:3, 1:4] = [[0.9, 0.2, -0.1], [0.8, 0.1, -0.9], [-0.9, -0.9, -0.9]]
    table = match_table(similarity, "conv2", "correlation")
    counts = table.groupby(["method", "direction"]).size().to_dict()
    assert counts == {("semi", "ab"): 3, ("semi", "ba"): 3, ("matching", "ab"): 2}
    other = match_table(np.array([[0.5, 0.5]]), "fc6", "correlation")
    means = mean_values(pd.concat([table, other]))
    assert means.loc[("conv2", "correlation"), "semi"] == pytest.approx((0.9 + 0.8 - 0.9) / 3)
    assert means.loc[("conv2", "correlation"), "matching"] == pytest.approx((0.9 + 0.1) / 3)
    assert means.loc[("fc6", "correlation")].tolist() == [0.5, 0.5]
    # Nobody has a partner, where all correlate below 0 and dead units are there to be had.
    table = match_table(np.array([[-0.5, 0], [0, 0]]), "conv1", "correlation")
    assert mean_values(table).loc[("conv1", "correlation")].tolist() == [-0.5, 0]


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
