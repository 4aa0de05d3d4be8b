"""Moments agree with NumPy in float64, however the samples are cut."""

import itertools
import pickle
from functools import partial, reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from precision import rounding

from convergent.activations import moments
from convergent.activations.moments import Moments, correlation


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
    np.testing.assert_allclose(correlation(x, y), exact(x, y), atol=rounding(x, y))


def test_means_and_variances_agree_with_numpy(rng):
    x, y = relu_data(rng, 5000, 6), relu_data(rng, 5000, 4)
    moments = Moments.of(x, y)
    assert moments.count == 5000
    for values, name in ((x, "x"), (y, "y")):
        mean, var = getattr(moments, f"mean_{name}"), getattr(moments, f"var_{name}")
        np.testing.assert_allclose(mean, values.mean(0, dtype=float), rtol=rounding(values))
        np.testing.assert_allclose(var, values.var(0, dtype=float), rtol=rounding(values))


def test_moments_within_are_moments_with_itself(rng):
    x = relu_data(rng, 3000, 9)
    within, between = Moments.of(x), Moments.of(x, x.copy())
    np.testing.assert_array_equal(within.comoment, within.comoment.T)
    np.testing.assert_allclose(within.correlation(), between.correlation(), atol=2 * rounding(x))
    np.testing.assert_allclose(within.var_x, between.var_x, rtol=2 * rounding(x))


def from_store(part, by):
    """Moments as they come back: with float32 co-moments, or from float32 correlations."""
    if by == "comoment":
        return part._replace(comoment=part.comoment.astype(np.float32).astype(np.float64))
    return Moments.of_correlation(*part[:-1], part.correlation().astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("by", ["comoment", "correlation"])
@settings(max_examples=20, deadline=None)
@given(cuts=st.sets(st.integers(1, 2999), max_size=12), seed=st.integers(0, 2**16))
def test_units_correlate_exactly_one_with_themselves(dtype, by, cuts, seed):
    """In any chunking, after a process or a store."""
    rng = np.random.default_rng(seed)
    x = relu_data(rng, 3000, 6).astype(float)
    x[:, 3] += 100 * x[:, 3].std()
    x[:, 4] = 7
    x = x.astype(dtype)
    live = np.diag([1, 1, 1, 1, 0, 1])
    edges = [0, *sorted(cuts), 3000]
    parts = [Moments.of(x[i:j]) for i, j in itertools.pairwise(edges)]
    for some in (parts, pickle.loads(pickle.dumps(parts)), [from_store(p, by) for p in parts]):
        rng.shuffle(some)
        total = reduce(Moments.merge, some)
        np.testing.assert_array_equal(np.diag(np.diag(total.correlation())), live)
        narrow = total._replace(comoment=total.comoment.astype(np.float32))
        np.testing.assert_array_equal(np.diag(np.diag(narrow.correlation())), live)
        part = total.part(slice(1, 4), slice(1, 4)).correlation()
        np.testing.assert_array_equal(part.diagonal(), 1)


def test_x_with_itself_is_within_however_it_is_given(rng):
    x = relu_data(rng, 500, 3)
    for same in (x, x.tolist(), np.round(100 * x).astype(int)):
        np.testing.assert_array_equal(correlation(same, same).diagonal(), 1)


def test_other_units_are_not_taken_for_the_same(rng):
    """Neither two of equal means and variances, nor two that are nearly equal."""
    flags = np.array([[0, 0, 1, 1], [0, 1, 0, 1.0]]).T
    assert correlation(flags[:, :1], flags[:, 1:]) == 0
    x = np.repeat(rng.integers(0, 2, size=(2000, 1)), 2, axis=1).astype(np.float32)
    x[:2] = [[0, 1], [1, 0]]
    found = Moments.of(x[:, :1], x[:, 1:])
    assert (found.mean_x, found.var_x) == (found.mean_y, found.var_y)
    assert found.correlation().item() == pytest.approx(exact(x, x)[0, 1], abs=rounding(x))
    near = rng.normal(size=(2000, 1)).astype(np.float32)
    near = np.hstack([near, near + 0.02 * rng.normal(size=near.shape)]).astype(np.float32)
    for found in (correlation(near[:, :1], near[:, 1:]).item(), correlation(near, near)[0, 1]):
        assert 1 - found == pytest.approx(1 - exact(near, near)[0, 1], abs=rounding(near))
        assert found < 1


def by_torch(monkeypatch, by):
    if by == "torch":
        monkeypatch.setattr(moments, "_add_up", partial(moments._add_up_on, "cpu"))


@pytest.mark.parametrize("by", ["numpy", "torch"])
@pytest.mark.parametrize(
    ("dtype", "exponents"),
    [
        (np.float32, [-120, -100, -60, 0, 100, 120]),
        (np.float64, [-490, -100, -60, 0, 100, 490]),
        (np.float32, [0] * 6),
        (np.float32, [-100] * 6),
    ],
)
def test_units_of_any_scale_correlate_as_those_near_one(rng, monkeypatch, by, dtype, exponents):
    """Of 2**-100 (1e-30) as of 2**100, alone or beside others, shifted ones and dead ones too."""
    by_torch(monkeypatch, by)
    x, y = relu_data(rng, 5000, 6), relu_data(rng, 5000, 6)
    y[:, :4] += x[:, :4]
    x[:, 0] += 100
    x[:, 5], y[:, 1] = 3, 0
    expected, within = exact(x, y), exact(x, x)
    scale = np.ldexp(1.0, exponents)
    a, b = (x * scale).astype(dtype), (y * scale[::-1]).astype(dtype)
    for parts in ([(a, b)], [(a[:900], b[:900]), (a[900:], b[900:])]):
        found = reduce(Moments.merge, [Moments.of(*part) for part in parts])
        np.testing.assert_allclose(found.correlation(), expected, atol=rounding(x, y))
        np.testing.assert_allclose(found.mean_x / scale, x.mean(0, float), rtol=rounding(x))
        np.testing.assert_allclose(
            found.var_y / scale[::-1] ** 2, y.var(0, dtype=float), rtol=rounding(y)
        )
        own = reduce(Moments.merge, [Moments.of(part[0]) for part in parts]).correlation()
        np.testing.assert_allclose(own, within, atol=rounding(x))
        np.testing.assert_array_equal(own.diagonal(), [1, 1, 1, 1, 1, 0])


@pytest.mark.parametrize("by", ["numpy", "torch"])
def test_a_few_small_values_are_seen(monkeypatch, by):
    """Also such that cancel, or come after the pilot."""
    by_torch(monkeypatch, by)
    few = np.array([[1e-30, 0], [-1e-30, 1e-30]], np.float32)
    np.testing.assert_array_equal(correlation(few, few), [[1, -1], [-1, 1]])
    for dtype, value in ((np.float32, 1e-30), (np.float64, 1e-130)):
        late = np.zeros((3000, 2), dtype)
        late[2000:] = value
        late[2500:, 1] = 0
        np.testing.assert_allclose(
            correlation(late, late), exact(late / value, late / value), atol=rounding(late / value)
        )


@pytest.mark.parametrize("by", ["numpy", "torch"])
@pytest.mark.parametrize(
    ("scale", "size"), [(1e-200, "small"), (1e200, "large"), (1e-155, "small")]
)
def test_variances_that_float64_does_not_hold_are_named(rng, monkeypatch, by, scale, size):
    by_torch(monkeypatch, by)
    x = relu_data(rng, 300, 3).astype(float)
    x[:, 1] *= scale
    with pytest.raises(
        FloatingPointError, match=f"unit 1 of x is too {size} for float64; multiply"
    ):
        Moments.of(x)
    with pytest.raises(FloatingPointError, match=f"unit 1 of y is too {size}"):
        Moments.of(relu_data(rng, 300, 2), x)
    parts = [Moments.of(np.full((9, 2), value)) for value in (scale, 3 * scale)]
    with pytest.raises(FloatingPointError, match=f"unit 0 of x is too {size}"):
        parts[0].merge(parts[1])


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
    near = 2 * rounding(x, y - 50)
    for field in ("mean_x", "mean_y", "var_x", "var_y"):
        np.testing.assert_allclose(getattr(total, field), getattr(whole, field), rtol=near)
    np.testing.assert_allclose(total.correlation(), whole.correlation(), atol=near)


@pytest.mark.parametrize(("ratio", "dtype"), [(100, np.float32), (1e6, float), (1e9, float)])
def test_a_far_mean_costs_no_digits(rng, ratio, dtype):
    x, y = relu_data(rng, 10_000, 6).astype(float), relu_data(rng, 10_000, 6)
    y += x.astype(np.float32)
    error = rounding(x, y)
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
    np.testing.assert_allclose(result, exact(x, y), atol=rounding(x, y))


def test_correlation_sees_a_duplicate_and_a_mirror_image(rng):
    x = rng.normal(size=(4000, 3)).astype(np.float32)
    result = correlation(x, np.column_stack([2 * x[:, 0] + 1, -x[:, 1]]))
    np.testing.assert_allclose([result[0, 0], result[1, 1]], [1, -1], atol=rounding(x))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("scale", [1, 1e-30])
def test_non_finite_activations_are_refused(rng, value, dtype, scale):
    x = (scale * relu_data(rng, 100, 3)).astype(dtype)
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
    x = relu_data(rng, 3000, 6)
    x, y = x.astype(float), relu_data(rng, 3000, 4).astype(dtype) if between else None
    x[:, 3] += 100 * x[:, 3].std()
    x = x.astype(dtype)
    expected = Moments.of(x, y)
    monkeypatch.setattr(moments, "_add_up", partial(moments._add_up_on, "cpu"))
    found = Moments.of(x, y)
    near = 2 * rounding(x, x if y is None else y)
    for field in ("mean_x", "mean_y", "var_x", "var_y"):
        np.testing.assert_allclose(getattr(found, field), getattr(expected, field), rtol=near)
    scale = 3000 * np.outer(*(np.sqrt(getattr(expected, f"var_{s}")) for s in "xy"))
    np.testing.assert_allclose(found.comoment / scale, expected.comoment / scale, atol=near)
    np.testing.assert_allclose(found.correlation(), expected.correlation(), atol=near)


def test_a_part_is_the_moments_of_the_units_alone(rng):
    x = relu_data(rng, 2000, 9)
    part = Moments.of(x).part(slice(0, 4), slice(4, 9))
    alone = Moments.of(x[:, :4], x[:, 4:])
    for field in ("mean_x", "mean_y", "var_x", "var_y"):
        np.testing.assert_allclose(
            getattr(part, field), getattr(alone, field), rtol=2 * rounding(x)
        )
    np.testing.assert_allclose(part.correlation(), alone.correlation(), atol=2 * rounding(x))


def test_moments_are_made_again_from_correlations(rng):
    x, y = relu_data(rng, 2000, 4), relu_data(rng, 2000, 3)
    x[:, 2] = 0
    found = Moments.of(x, y)
    again = Moments.of_correlation(*found[:-1], found.correlation())
    np.testing.assert_allclose(again.comoment, found.comoment, rtol=1e-13)


@pytest.mark.parametrize("kind", [">f4", ">f8", ">f2", np.longdouble, np.int16])
def test_any_real_numbers_are_taken(rng, kind):
    x = np.round(100 * rng.normal(size=(50, 3)))
    found = Moments.of(x.astype(kind), x.astype(kind)).correlation()
    np.testing.assert_allclose(found, Moments.of(x, x).correlation(), atol=rounding(x))
    with pytest.raises(ValueError, match="x must hold real numbers, got complex"):
        Moments.of(x.astype(complex))
