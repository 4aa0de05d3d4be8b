"""Transports are optimal: other solvers, brute force, and the prices that prove it."""

from fractions import Fraction
from itertools import combinations, permutations
from math import gcd

import numpy as np
import ot
import pytest
from comparing import evidence, flat
from hypothesis import given, settings
from hypothesis import strategies as st
from test_measures import activations

from convergent.measures.registry import measure, measures
from convergent.measures.transport import (
    best_flows,
    partial_transport,
    transport,
    transports,
)

SHAPES = [(1, 1), (1, 6), (30, 30), (31, 30), (24, 36), (60, 20), (20, 60), (64, 48)]
SHARES = [0.25, 0.5, 0.75]
PARTIAL = [f"partial_soft_matching_{share}" for share in SHARES]
SOME = settings(max_examples=100, deadline=None)


def matrix(seed, shape, kind):
    """Correlations of units that share something, that share nothing, or with many equal ones."""
    rng = np.random.default_rng(seed)
    if kind == "shared":
        seen = rng.normal(size=(200, 8))
        x, y = (seen @ rng.normal(size=(8, n)) + rng.normal(size=(200, n)) for n in shape)
        return np.corrcoef(x, y, rowvar=False)[: shape[0], shape[0] :]
    if kind == "noise":
        return 0.1 * rng.normal(size=shape)
    return rng.integers(-2, 3, shape) / 4


KINDS = ["shared", "noise", "ties"]
matrices = st.builds(
    matrix,
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.sampled_from(KINDS),
)


def masses(shape):
    return [np.full(units, 1 / units) for units in shape]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_transport_agrees_with_pot(shape, kind):
    values = matrix(0, shape, kind)
    plan = ot.emd(*masses(shape), 1 - values, numItermax=10**6)
    assert transport(values).score(values) == pytest.approx((plan * values).sum(), abs=1e-9)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_partial_transport_agrees_with_pot(shape, kind, share):
    values = matrix(0, shape, kind)
    # POT transports exactly the share: where that takes negative values, 0 is better.
    cost = 1 - np.maximum(values, 0)
    plan = ot.partial.partial_wasserstein(*masses(shape), cost, m=share, numItermax=10**6)
    expected = (plan * (1 - cost)).sum() / share
    assert partial_transport(values, share).score(values) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("units", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_partial_transport_of_whole_pairs_is_the_best_of_all_choices(units, kind):
    values = matrix(1, (4, 4), kind)
    totals = [
        values[list(rows), list(columns)].sum()
        for count in range(units + 1)
        for rows in combinations(range(4), count)
        for columns in permutations(range(4), count)
    ]
    found = partial_transport(values, units / 4).score(values)
    assert found == pytest.approx(max(totals) / units, abs=1e-12)


@SOME
@given(values=matrices, share=st.sampled_from([*SHARES, 0.3, 1.0]))
def test_no_unit_gives_or_gets_more_than_its_mass(values, share):
    p, q = values.shape
    for choice, of in ((transport(values), 1), (partial_transport(values, share), share)):
        plan = np.zeros((p, q))
        np.add.at(plan, (choice.rows, choice.columns), of * choice.weights)
        assert len(np.unique(choice.rows * q + choice.columns)) == len(choice.rows)
        assert (choice.weights > 0).all()
        assert plan.sum() <= of + 1e-12
        assert (plan.sum(axis=1) <= 1 / p + 1e-12).all()
        assert (plan.sum(axis=0) <= 1 / q + 1e-12).all()
    whole = transport(values)
    assert np.bincount(whole.rows, whole.weights, p) == pytest.approx(1 / p, abs=1e-12)
    assert np.bincount(whole.columns, whole.weights, q) == pytest.approx(1 / q, abs=1e-12)


@SOME
@given(values=matrices, share=st.sampled_from([*SHARES, 0.3, 1.0]), at_most=st.booleans())
def test_prices_prove_that_no_flow_is_better(values, share, at_most):
    p, q = values.shape
    share = Fraction(share).limit_denominator(1000)
    parts = p * q // gcd(p, q) * share.denominator
    supply, demand = np.full(p, parts // p), np.full(q, parts // q)
    mass = int(parts * share)
    [flow] = best_flows(values, supply, demand, [mass], at_most=at_most)
    slack = flow.price + np.add.outer(flow.row_prices, flow.column_prices) - values
    # Prices are sums of at most a few hundred differences of numbers up to 1.
    assert slack.min() > -1e-12
    assert np.abs(slack[flow.rows, flow.columns]).max(initial=0) < 1e-12
    given, got = np.bincount(flow.rows, flow.mass, p), np.bincount(flow.columns, flow.mass, q)
    for prices, used, of in ((flow.row_prices, given, supply), (flow.column_prices, got, demand)):
        assert (prices >= 0).all()
        assert not prices[used < of].any()
    if at_most:
        assert flow.price >= 0
    if not at_most or flow.price > 1e-12:
        assert flow.mass.sum() == mass


@SOME
@given(values=matrices, seed=st.integers(0, 2**32 - 1))
def test_units_in_another_order_or_of_the_other_layer_have_the_same_value(values, seed):
    rng = np.random.default_rng(seed)
    moved = values[rng.permutation(len(values))][:, rng.permutation(values.shape[1])]
    for choose in (transport, *(lambda x, s=s: partial_transport(x, s) for s in SHARES)):
        value = choose(values).score(values)
        assert choose(moved).score(moved) == pytest.approx(value, abs=1e-12)
        assert choose(values.T).score(values.T) == pytest.approx(value, abs=1e-12)


@SOME
@given(values=matrices)
def test_the_best_share_is_no_worse_than_a_larger_one(values):
    by_share = [partial_transport(values, share).score(values) for share in (*SHARES, 1)]
    scores = [*by_share, transport(values).score(values)]
    assert (np.diff(scores) <= 1e-12).all()
    assert min(by_share) >= 0


def test_a_matrix_of_equal_numbers_is_soon_transported():
    """Equal values leave all paths equally short, which must not make each of them long."""
    values = np.full((400, 300), 0.5)
    assert transport(values).score(values) == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("share", [0, -0.5, 1.5, 2**-0.5])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match=r"share must be a fraction in \(0, 1\] with"):
        partial_transport(np.eye(3), share)


def test_a_flow_that_cannot_be_is_refused():
    ones = np.ones(2, np.int64)
    with pytest.raises(ValueError, match="3 parts of mass cannot leave rows of 2 for columns of 2"):
        best_flows(np.eye(2), ones, ones, [3])
    with pytest.raises(ValueError, match="values contain NaN or infinity"):
        best_flows(np.full((2, 2), np.nan), ones, ones, [1])


@pytest.mark.parametrize("units", [(12, 12), (9, 14)])
@pytest.mark.parametrize("dead", [False, True])
def test_measures_are_of_the_correlations_of_live_units(rng, units, dead):
    x, y = activations(rng, 75, *units)
    if dead:
        x[..., 0], y[..., [1, 3]] = 0, 2
    found = evidence(x, y)
    live = [z[:, np.ptp(z, axis=0) > 0] for z in (flat(x), flat(y))]
    exact = np.corrcoef(*live, rowvar=False)[: live[0].shape[1], live[0].shape[1] :]
    plan = ot.emd(*masses(exact.shape), 1 - exact)
    # Moments hold float32 products.
    near = {"abs": 1e-5}
    value = found.value(measure("soft_matching"), "correlation")
    assert value == pytest.approx((plan * exact).sum(), **near)
    for name, share in zip(PARTIAL, SHARES, strict=True):
        cost = 1 - np.maximum(exact, 0)
        plan = ot.partial.partial_wasserstein(*masses(exact.shape), cost, m=share)
        expected = (plan * (1 - cost)).sum() / share
        assert found.value(measure(name), "correlation") == pytest.approx(expected, **near)


def test_soft_matching_of_as_many_units_is_the_matching(rng):
    found = evidence(*activations(rng, 75, 15, 15))
    values = [
        found.value(measure(name), "correlation") for name in ("soft_matching", "matching_mean")
    ]
    assert values[0] == values[1]


@pytest.mark.parametrize("name", ["soft_matching", *PARTIAL])
def test_a_layer_and_itself_with_units_doubled_have_1(rng, name):
    x, _ = activations(rng, 75, 8, 8)
    twice = np.concatenate([x[..., ::-1], 3 * x], axis=-1)
    for y in (x[..., ::-1], twice):
        assert evidence(x, y).value(measure(name), "correlation") == pytest.approx(1, abs=1e-5)


def test_partial_soft_matching_of_noise_is_not_near_0(rng):
    """The smaller the share, the higher the chance level: values say nothing without it."""
    x, y = rng.normal(size=(2, 20, 100))
    values = np.corrcoef(x, y, rowvar=False)[:100, 100:]
    scores = [partial_transport(values, share).score(values) for share in (0.05, 0.25, 0.75)]
    assert scores[0] > scores[1] > scores[2] > 0.4


def test_transports_are_of_correlations_only():
    named = [m for m in measures(gives="layers") if "soft_matching" in m.name]
    assert [m.name for m in named] == ["soft_matching", *PARTIAL]
    assert {m.of for m in named} == {("correlation",)}


@pytest.mark.parametrize("shape", [(7, 7), (6, 9)])
@pytest.mark.parametrize("mean", [0, -1, -9])
def test_transports_of_several_shares_are_those_of_each(shape, mean):
    # Parts of negative value are left out of all but the transport of all mass.
    values = np.random.default_rng(8).normal(mean, size=shape)
    together = transports(values, SHARES)
    every = [*(partial_transport(values, share) for share in SHARES), transport(values)]
    for choice, alone in zip(together, every, strict=True):
        assert choice.score(values) == pytest.approx(alone.score(values), abs=1e-12)
        assert choice.weights.sum() == pytest.approx(alone.weights.sum())
