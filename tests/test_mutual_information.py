"""Counts are exact, mutual information is what others compute, bins follow the paper."""

import hashlib

import numpy as np
import pytest
from scipy.special import erf
from sklearn.metrics import mutual_info_score

from convergent.activations import codes as binned
from convergent.measures import histograms as mi
from convergent.measures.matching import matching

UNITS = [(1, 1), (3, 5), (40, 37)]


def random_codes(rng, samples, units, bins=21, active=0.4):
    codes = rng.integers(1, bins, size=(samples, units))
    return np.where(rng.random((samples, units)) < active, codes, 0).astype(np.uint8)


def relu(rng, samples, units, active=0.3):
    shared = rng.normal(size=(samples, 3)) @ rng.normal(size=(3, units))
    x = shared + rng.normal(size=(samples, units))
    return np.maximum(x - np.quantile(x, 1 - active, axis=0), 0).astype(np.float32)


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("samples", [21, 5000, 70_000])
def test_counts_equal_numpys_exactly(rng, samples, units):
    if samples > 5000 and units != (3, 5):
        pytest.skip("more than 16 bits are counted once")
    a, b = random_codes(rng, samples, units[0]), random_codes(rng, samples, units[1])
    a[:, 0] = 20  # one bin gets all samples
    counts = mi.joint_counts(a, b)
    edges = np.arange(33) - 0.5
    for i in range(min(units[0], 6)):
        for j in range(min(units[1], 6)):
            expected = np.histogram2d(a[:, i], b[:, j], bins=[edges, edges])[0]
            np.testing.assert_array_equal(counts[i, j], expected)


@pytest.mark.parametrize("threads", [1, 3])
def test_agrees_with_scikit_learn(rng, threads):
    a, b = random_codes(rng, 3000, 40), random_codes(rng, 3000, 37)
    b[:, :20] = np.where(rng.random((3000, 20)) < 0.7, a[:, :20], b[:, :20])
    result = mi.mutual_information(a, b, threads=threads)
    expected = [[mutual_info_score(a[:, i], b[:, j]) for j in range(37)] for i in range(40)]
    np.testing.assert_allclose(result, expected, atol=1e-10)
    np.testing.assert_allclose(mi.mutual_information(b, a), result.T, atol=1e-12)


def test_one_hot_products_agree(rng):
    a, b = random_codes(rng, 3000, 9), random_codes(rng, 3000, 7)
    expected = mi.mutual_information(a, b)
    np.testing.assert_allclose(mi._on_gpu(a, b, "cpu"), expected, atol=1e-12)


def test_within_a_net_it_is_symmetric_with_entropies(rng):
    codes = random_codes(rng, 4000, 70)
    codes[:, 5], codes[:, 11] = 0, 3  # dead, stuck
    result = mi.mutual_information(codes, threads=2)
    np.testing.assert_array_equal(result, result.T)
    shares = np.stack([np.bincount(c, minlength=32) for c in codes.T]) / 4000
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.nan_to_num(shares * np.log(shares)).sum(axis=1)
    np.testing.assert_allclose(np.diag(result), entropy, atol=1e-12)
    np.testing.assert_allclose(result, mi.mutual_information(codes, codes.copy()), atol=1e-12)
    assert result.min() >= 0
    assert not result[[5, 11]].any()  # exactly


def test_a_permuted_copy_is_matched_perfectly(rng):
    x = relu(rng, 4000, 30)
    permutation = rng.permutation(30)
    y = np.empty_like(x)
    y[:, permutation] = x**2 * 7  # correlation would fall, mutual information does not
    a, b = mi.discretize(x)[0], mi.discretize(y)[0]
    np.testing.assert_array_equal(matching(mi.mutual_information(a, b)), permutation)


@pytest.mark.parametrize("binning", binned.BINNINGS)
@pytest.mark.parametrize("change", [lambda x: 1000 * x, np.sqrt, lambda x: np.log1p(x) ** 3 + x])
def test_a_monotone_change_of_scale_changes_nothing(rng, binning, change):
    x = relu(rng, 3000, 12)
    x[x > 0] += 0.01  # stays above the zero bin
    before, after = (mi.discretize(v, binning)[0] for v in (x, np.where(x > 0, change(x), 0)))
    np.testing.assert_allclose(
        mi.mutual_information(before), mi.mutual_information(after), atol=1e-12
    )


def test_bias_correction_brings_independent_units_to_zero(rng):
    a, b = (random_codes(rng, 20_000, 60, active=1.0) for _ in range(2))
    raw = mi.mutual_information(a, b)
    bias = mi.correction(a, b)
    assert raw.mean() > 0.005
    assert abs((raw - bias).mean()) < 0.01 * raw.mean()


def test_bias_counts_occupied_bins(rng):
    a = np.array([0, 1, 2, 0] * 25, np.uint8)[:, None]
    b = np.array([0, 7] * 50, np.uint8)[:, None]
    assert mi.correction(a, b) == (3 - 1) * (2 - 1) / 200
    assert mi.correction(a) == -(3 - 1) / 200  # of an entropy


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_bins_are_cut_at_numpys_percentiles(rng, dtype):
    x = relu(rng, 5000, 8, active=0.6).astype(dtype)
    x[:, 7] = np.round(x[:, 7])  # ties
    codes, edges = mi.discretize(x)
    assert codes.dtype == np.uint8
    assert edges.shape == (8, 20)
    for unit in range(8):
        cuts = np.percentile(x[:, unit].astype(float), np.arange(5, 100, 5))
        cuts = np.unique(np.concatenate([[1e-6], cuts[cuts > 1e-6]]))
        np.testing.assert_allclose(edges[unit, : len(cuts)], cuts, rtol=1e-6)
        assert np.isinf(edges[unit, len(cuts) :]).all()
        expected = np.searchsorted(edges[unit], x[:, unit].astype(float))
        np.testing.assert_array_equal(codes[:, unit], expected)
    assert (codes[x <= 1e-6] == 0).all()


def signed(rng, samples=5000):
    """Units of either sign: plain, with ties, mostly and rarely 0, negative, never negative."""
    x = rng.normal(size=(samples, 7))
    x[:, 1] = np.round(3 * x[:, 1])
    x[:, 2] *= rng.random(samples) < 0.3
    x[:, 3] = np.where(rng.random(samples) < 0.01, 0, x[:, 3])
    x[:, 4] = -np.exp(x[:, 4])
    x[:, 5] = np.maximum(x[:, 5], 0)
    x[:, 6] = -np.maximum(x[:, 6], 0)
    return x


def percentile_cuts(column):
    """Ends of the bins of a unit, by NumPy: a zero bin of both signs needs a percentile in it."""
    cuts = np.percentile(column, np.arange(5, 100, 5))
    inside = np.abs(cuts) <= 1e-6
    signed = column.min() < -1e-6
    ends = [-1e-6] * int(signed) + [1e-6] * int(not signed or column.max() > 1e-6)
    return np.unique([*cuts[~inside], *(ends if inside.any() else [])])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_bins_of_signed_units_are_cut_at_numpys_percentiles_too(rng, dtype):
    x = signed(rng).astype(dtype)
    codes, edges = mi.discretize(x)
    for unit, column in enumerate(x.T.astype(float)):
        cuts = percentile_cuts(column)
        np.testing.assert_allclose(edges[unit, : len(cuts)], cuts, rtol=1e-6)
        assert np.isinf(edges[unit, len(cuts) :]).all()
        np.testing.assert_array_equal(codes[:, unit], np.searchsorted(edges[unit], column))


@pytest.mark.parametrize("binning", binned.BINNINGS)
def test_a_zero_bin_with_mass_lies_between_the_signs(rng, binning):
    x = signed(rng)
    x[:40, 2] = np.repeat([-1e-6, 1e-6], 20)
    codes, _ = mi.discretize(x, binning)
    assert codes.max() <= 20
    for unit in (2, 6):
        zero = set(codes[np.abs(x[:, unit]) <= 1e-6, unit])
        assert len(zero) == 1
        assert not zero & set(codes[np.abs(x[:, unit]) > 1e-6, unit])


def test_reference_divides_its_shares_between_the_signs(rng):
    x = signed(rng, 20_000)
    codes, _ = mi.discretize(x, "reference")
    for unit, shares in ((0, 20), (3, 20), (4, 20), (6, 20)):
        sizes = np.bincount(codes[np.abs(x[:, unit]) > 1e-6, unit])
        sizes = sizes[sizes > 0]
        assert len(sizes) == shares
        # Signs have as many shares as is nearest to their part of the samples.
        assert sizes.min() > 0.9 * sizes.max()
    few = np.concatenate([np.full(3, -1.0), rng.random(997)])[:, None]
    codes, _ = mi.discretize(few, "reference")
    assert (codes[:3] == 0).all()
    assert (codes[3:] > 0).all()


# Of codes and edges before there were bins below zero.
UNSIGNED = {
    "paper": "4337ad5f1d875d5d79d317c7246a363106315af32637557cab5f633da23f2881",
    "reference": "d8f89285a36d8233d5f9c7d8458c56a5dee23b135595255b1981e1789ab46542",
}


@pytest.mark.parametrize("binning", binned.BINNINGS)
def test_units_without_negative_values_keep_their_bins(binning):
    x = (np.arange(7000) * 2654435761 % 1009).reshape(1000, 7) / 16 - [0, 9, 20, 30, 45, 60, 99]
    x = np.maximum(x, 0).astype(np.float32)
    x[::3, 1] = -1e-6  # rounding, which the zero bin holds
    codes, edges = mi.discretize(x, binning)
    assert hashlib.sha256(codes.tobytes() + edges.tobytes()).hexdigest() == UNSIGNED[binning]
    beside = mi.discretize(np.insert(x, 3, -x[:, 0], axis=1), binning)
    np.testing.assert_array_equal(np.delete(beside[0], 3, axis=1), codes)
    np.testing.assert_array_equal(np.delete(beside[1], 3, axis=0), edges)


def gelu(x):
    return x * (1 + erf(x / np.sqrt(2))) / 2


def silu(x):
    return x / (1 + np.exp(-x))


def correlated(rng, samples, share):
    """Two normal variables of which this is the correlation."""
    a, b = rng.normal(size=(2, samples))
    return a, share * a + np.sqrt(1 - share**2) * b


@pytest.mark.parametrize("function", [gelu, silu, lambda x: x])
def test_increasing_maps_leave_information_of_signed_units_as_it_is(rng, function):
    """Also maps that make all values positive, as there is no zero bin to speak of."""
    pair = np.stack([function(x) for x in correlated(rng, 20_000, 0.8)], axis=1)
    codes = mi.discretize(pair)[0]
    assert np.bincount(codes[:, 0]).max() <= 0.051 * len(codes)
    information = mi.mutual_information(codes)
    for change in (np.sinh, lambda x: x**3 + x, np.exp, lambda x: 5 - np.exp(-x)):
        changed = mi.mutual_information(mi.discretize(change(pair))[0])
        np.testing.assert_allclose(changed, information, atol=1e-12)
    expected = mutual_info_score(*codes.T)
    np.testing.assert_allclose(information[0, 1], expected, atol=1e-10)


@pytest.mark.parametrize("binning", binned.BINNINGS)
def test_information_of_normal_variables_is_that_of_their_correlation(rng, binning):
    """Twenty bins lose a few percent; one bin for all negative values would lose a third."""
    pair = np.stack(correlated(rng, 60_000, 0.8), axis=1)
    codes = mi.discretize(pair, binning)[0]
    information = (mi.mutual_information(codes) - mi.correction(codes))[0, 1]
    exact = -np.log(1 - 0.8**2) / 2
    assert 0.94 * exact < information < exact
    above = mi.discretize(np.maximum(pair, 0), binning)[0]
    assert mi.mutual_information(above)[0, 1] < 0.7 * exact


def test_paper_and_reference_bins_differ_as_documented(rng):
    x = relu(rng, 10_000, 4, active=0.28)
    assert mi.discretize(x, "paper")[0].max() + 1 in (6, 7)
    codes = mi.discretize(x, "reference")[0]
    assert codes.max() + 1 == 21
    sizes = np.bincount(codes[:, 0])[1:]
    assert np.ptp(sizes) <= 2


def test_units_that_never_or_always_do_the_same_have_one_bin():
    x = np.zeros((100, 4), np.float32)
    x[:, 1], x[:, 2], x[::2, 3] = 7.3, 1e-7, 5.0  # stuck, in the zero bin, two values
    for binning in binned.BINNINGS:
        codes, _ = mi.discretize(x, binning)
        assert [len(np.unique(c)) for c in codes.T] == [1, 1, 1, 2]
        result = mi.mutual_information(codes)
        assert not result[:3].any()
        assert result[3, 3] == pytest.approx(np.log(2))


def test_bad_activations_and_codes_are_named(rng):
    x = relu(rng, 100, 40)
    x[7, 35] = np.nan
    with pytest.raises(FloatingPointError, match="unit 35: activations contain NaN"):
        mi.discretize(x)
    x[7, 35] = np.inf
    with pytest.raises(FloatingPointError, match="unit 35"):
        mi.discretize(x)
    with pytest.raises(ValueError, match="20 samples are too few for 21 bins"):
        mi.discretize(x[:20])
    with pytest.raises(ValueError, match="binning must be paper or reference, got 'mine'"):
        mi.discretize(x, "mine")
    a = random_codes(rng, 50, 3)
    with pytest.raises(ValueError, match="the same samples, got 50 and 49"):
        mi.mutual_information(a, a[:49])
    with pytest.raises(ValueError, match="must be below 32, got 40"):
        mi.mutual_information(a, np.full((50, 2), 40, np.uint8))
    with pytest.raises(ValueError, match="must be uint8"):
        mi.mutual_information(a, a.astype(int))
