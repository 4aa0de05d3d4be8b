"""Moments agree with NumPy in float64, however the samples are cut."""

import itertools
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convergent import moments
from convergent.moments import Moments, correlation


def exact(x, y):
    """Correlations in float64, 0 for constant columns."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    x, y = x - x.mean(0), y - y.mean(0)
    scale = np.outer(np.sqrt((x**2).sum(0)), np.sqrt((y**2).sum(0)))
    return np.divide(x.T @ y, scale, out=np.zeros_like(scale), where=scale > 1e-9)


def relu_data(rng, samples, units, dtype=np.float32):
    sources = rng.normal(size=(samples, 5))
    noise = rng.normal(size=(samples, units))
    return np.maximum(sources @ rng.normal(size=(5, units)) + noise, 0).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_correlation_agrees_with_numpy(rng, dtype):
    x, y = relu_data(rng, 20_000, 12, dtype), relu_data(rng, 20_000, 7, dtype)
    y[:, :5] += x[:, :5]
    assert correlation(x, y).shape == (12, 7)
    np.testing.assert_allclose(correlation(x, y), exact(x, y), atol=1e-6)


def test_means_and_variances_agree_with_numpy(rng):
    x, y = relu_data(rng, 5000, 6), relu_data(rng, 5000, 4)
    moments = Moments.of(x, y)
    assert moments.count == 5000
    for values, name in ((x, "x"), (y, "y")):
        mean, var = getattr(moments, f"mean_{name}"), getattr(moments, f"var_{name}")
        np.testing.assert_allclose(mean, values.mean(0, dtype=float), rtol=1e-6)
        np.testing.assert_allclose(var, values.var(0, dtype=float), rtol=1e-6)


def test_moments_within_are_moments_with_itself(rng):
    x = relu_data(rng, 3000, 9)
    within, between = Moments.of(x), Moments.of(x, x.copy())
    np.testing.assert_array_equal(within.comoment, within.comoment.T)
    np.testing.assert_allclose(within.comoment, between.comoment, rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(np.diag(within.correlation()), 1, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(cuts=st.sets(st.integers(1, 2999), max_size=12), seed=st.integers(0, 2**16))
def test_any_chunking_gives_the_same(cuts, seed):
    rng = np.random.default_rng(seed)
    x, y = relu_data(rng, 3000, 5), relu_data(rng, 3000, 4) + 50
    edges = [0, *sorted(cuts), 3000]
    parts = [Moments.of(x[i:j], y[i:j]) for i, j in itertools.pairwise(edges)]
    rng.shuffle(parts)
    total = parts[0]
    for part in parts[1:]:
        total = total.merge(part)
    whole = Moments.of(x, y)
    assert total.count == whole.count
    for field in ("mean_x", "mean_y", "var_x", "var_y"):
        np.testing.assert_allclose(getattr(total, field), getattr(whole, field), rtol=1e-5)
    np.testing.assert_allclose(total.correlation(), whole.correlation(), atol=1e-6)


@pytest.mark.parametrize(("ratio", "dtype", "error"), [(100, np.float32, 1e-5), (1e6, float, 1e-6)])
def test_a_far_mean_costs_no_digits(rng, ratio, dtype, error):
    x, y = relu_data(rng, 10_000, 6).astype(float), relu_data(rng, 10_000, 6)
    y += x.astype(np.float32)
    x = (x + ratio * x.std(0)).astype(dtype)
    np.testing.assert_allclose(correlation(x, y), exact(x, y), atol=error)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dead_units_correlate_zero_and_harm_nobody(rng, dtype):
    x, y = relu_data(rng, 2000, 5, dtype), relu_data(rng, 2000, 4, dtype)
    x[:, 1], x[:, 3], y[:, 0] = 0, 7.3, 1e-3  # silent, stuck, stuck
    moments = Moments.of(x[:700], y[:700]).merge(Moments.of(x[700:], y[700:]))
    np.testing.assert_array_equal(moments.var_x == 0, [False, True, False, True, False])
    np.testing.assert_array_equal(moments.var_y == 0, [True, False, False, False])
    result = moments.correlation()
    assert not result[[1, 3]].any()
    assert not result[:, 0].any()
    np.testing.assert_allclose(result, exact(x, y), atol=1e-6)


def test_correlation_sees_a_duplicate_and_a_mirror_image(rng):
    x = rng.normal(size=(4000, 3)).astype(np.float32)
    result = correlation(x, np.column_stack([2 * x[:, 0] + 1, -x[:, 1]]))
    np.testing.assert_allclose([result[0, 0], result[1, 1]], [1, -1], atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_non_finite_activations_are_refused(rng, value, dtype):
    x = relu_data(rng, 100, 3, dtype)
    x[41, 2] = value
    with pytest.raises(FloatingPointError, match="NaN or infinity"):
        Moments.of(x)
    with pytest.raises(FloatingPointError, match="NaN or infinity"):
        Moments.of(relu_data(rng, 100, 3), x)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((4, 2, 2)), None, r"x must be \(sample, unit\)"),
        (np.zeros((0, 2)), None, "not empty"),
        (np.zeros((4, 2)), np.zeros((5, 2)), "x has 4, y has 5"),
    ],
)
def test_shapes_that_do_not_fit_are_named(x, y, message):
    with pytest.raises(ValueError, match=message):
        Moments.of(x, y)


def test_float16_is_widened_exactly():
    values = np.arange(2**16, dtype=np.uint16).view(np.float16)
    np.testing.assert_array_equal(moments.widen(values), values.astype(np.float32))
    block = values.reshape(256, 256)[::2].T
    np.testing.assert_array_equal(moments.widen(block), block.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("between", [False, True])
def test_torch_adds_up_the_same(rng, monkeypatch, dtype, between):
    """As on a GPU, of which there may be none: the same code on the CPU."""
    x = relu_data(rng, 3000, 6).astype(float)
    x[:, 3] += 100 * x[:, 3].std()
    x, y = x.astype(dtype), relu_data(rng, 3000, 4).astype(dtype) if between else None
    expected = Moments.of(x, y)
    monkeypatch.setattr(moments, "_add_up", partial(moments._add_up_on, "cpu"))
    found = Moments.of(x, y)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(found.correlation(), expected.correlation(), atol=1e-6)


def test_a_part_is_the_moments_of_the_units_alone(rng):
    x = relu_data(rng, 2000, 9)
    part = Moments.of(x).part(slice(0, 4), slice(4, 9))
    alone = Moments.of(x[:, :4], x[:, 4:])
    for a, b in zip(part, alone, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
