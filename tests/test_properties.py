"""What must hold for any shape, cut, and number of dead and equal units."""

import itertools
from functools import reduce

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from precision import rounding
from scipy.cluster.hierarchy import is_valid_linkage
from scipy.optimize import linear_sum_assignment

from convergent.activations.codes import BINNINGS, discretize
from convergent.activations.moments import Moments
from convergent.activations.strongest import Extremes
from convergent.alignment.clustering import block_matrix, hac, offset, spectral_clusters
from convergent.measures.histograms import mutual_information
from convergent.measures.matching import complete, matching, semi_matching

FEW = settings(max_examples=60, deadline=None)
seeds, dtypes = st.integers(0, 2**32), st.sampled_from([np.float16, np.float32, np.float64])


def units(rng, samples, number, dtype, kinds):
    """Activations of units of these kinds: alive, far from zero, rare, ..., a copy."""
    x = np.maximum(rng.normal(size=(samples, number)) + rng.normal(size=(samples, 1)), 0)
    for unit, kind in enumerate(kinds[:number]):
        if kind == "far":
            x[:, unit] += 100 * (1 + x[:, unit].max())
        if kind == "rare":
            x[:, unit] *= rng.random(samples) < 0.05
        if kind == "silent":
            x[:, unit] = 0
        if kind == "signed":
            x[:, unit] -= rng.choice([1, 1e-5]) * (rng.random(samples) < 0.4)
        if kind == "stuck":
            x[:, unit] = rng.uniform(0.1, 50)
        if kind == "copy":
            x[:, unit] = x[:, unit - 1]
    return x.astype(dtype)


kinds = st.lists(
    st.sampled_from(["alive", "far", "rare", "silent", "signed", "stuck", "copy"]), max_size=6
)


def cuts(rng, length):
    """Ends of consecutive runs of any length."""
    inner = rng.choice(np.arange(1, length), rng.integers(0, min(length, 8)), replace=False)
    return [0, *sorted(inner.tolist()), length]


def exact(x, y):
    """Correlations in float64, 0 for units that do not vary."""
    alive = np.ptp(x, axis=0)[:, None].astype(bool) & np.ptp(y, axis=0).astype(bool)
    x, y = (z.astype(float) - z.astype(float).mean(axis=0) for z in (x, y))
    scale = np.sqrt(np.outer((x**2).sum(axis=0), (y**2).sum(axis=0)))
    return np.divide(x.T @ y, scale, out=np.zeros_like(scale), where=alive)


@FEW
@given(seeds, st.integers(1, 3000), st.integers(1, 6), st.integers(1, 6), dtypes, kinds, kinds)
def test_moments_of_any_cut_are_those_of_the_whole(seed, samples, a, b, dtype, kinds_a, kinds_b):
    rng = np.random.default_rng(seed)
    x, y = units(rng, samples, a, dtype, kinds_a), units(rng, samples, b, dtype, kinds_b)
    parts = [Moments.of(x[i:j], y[i:j]) for i, j in itertools.pairwise(cuts(rng, samples))]
    rng.shuffle(parts)
    total = reduce(Moments.merge, parts)
    assert total.count == samples
    np.testing.assert_array_equal(total.var_x == 0, np.ptp(x, axis=0) == 0)
    near = rounding(x, y)
    np.testing.assert_allclose(total.correlation(), exact(x, y), atol=near)
    whole = Moments.of(x, y)
    size = np.sqrt((y.astype(float) ** 2).mean(axis=0)).max()
    np.testing.assert_allclose(total.mean_y, whole.mean_y, atol=near * size)
    np.testing.assert_allclose(total.correlation(), whole.correlation(), atol=2 * near)
    within = Moments.of(x).correlation()
    np.testing.assert_array_equal(within, within.T)
    for unit in range(1, a):
        if unit < len(kinds_a) and kinds_a[unit] == "copy":
            np.testing.assert_allclose(within[unit], within[unit - 1], atol=2 * near)


@FEW
@given(seeds, st.integers(1, 60), st.integers(1, 5), st.integers(1, 9), kinds)
def test_extremes_of_any_cut_are_those_of_the_whole(seed, images, number, positions, kinds):
    rng = np.random.default_rng(seed)
    x = units(rng, images * positions, number, np.float16, kinds)
    x = np.round(x.reshape(images, positions, number), 1)  # ties
    parts = [Extremes.of(x[i:j], i) for i, j in itertools.pairwise(cuts(rng, images))]
    merged, whole = reduce(Extremes.merge, parts), Extremes.of(x)
    assert (merged.weakest is None) == (whole.weakest is None)
    for side, once, values in zip(merged, whole, (x, np.maximum(-x, 0)), strict=True):
        if side is None:
            assert (x >= 0).all()
            continue
        for cut, part in zip(side, once, strict=True):
            np.testing.assert_array_equal(cut, part)
        peaks = np.sort(values.max(axis=1), axis=0)[::-1][:9].T
        np.testing.assert_array_equal(once.value[:, : peaks.shape[1]], peaks)


@FEW
@given(seeds, st.integers(21, 400), st.integers(1, 40), dtypes, kinds, st.sampled_from(BINNINGS))
def test_bins_of_a_unit_are_its_own(seed, samples, number, dtype, kinds, binning):
    """They depend on no other unit, follow the order of its values, and equal units share them."""
    rng = np.random.default_rng(seed)
    x = units(rng, samples, number, dtype, kinds)
    codes, edges = discretize(x, binning)
    assert codes.max() < 21
    parts = [discretize(x[:, i:j], binning) for i, j in itertools.pairwise(cuts(rng, number))]
    np.testing.assert_array_equal(np.concatenate([c for c, _ in parts], axis=1), codes)
    order = rng.permutation(samples)
    np.testing.assert_array_equal(discretize(x[order], binning)[0], codes[order])
    for column, code, ends in zip(x.T, codes.T, edges, strict=True):
        assert (np.diff(code[np.argsort(column, kind="stable")].astype(int)) >= 0).all()
        if column.min() >= 0:
            assert (code[column <= 1e-6] == 0).all()
        assert (np.diff(ends[np.isfinite(ends)]) > 0).all()
        if np.ptp(column) == 0:
            assert len(set(code)) == 1
    information = mutual_information(codes)
    dead = [len(set(code)) == 1 for code in codes.T]
    assert not information[dead].any()
    diagonal = np.diag(information)
    assert (information <= np.minimum.outer(diagonal, diagonal) + 1e-9).all()
    for unit in range(1, min(number, len(kinds))):
        if kinds[unit] == "copy":
            assert abs(information[unit, unit - 1] - diagonal[unit]) < 1e-9


@FEW
@given(
    seeds, st.integers(1, 9), st.integers(1, 9), st.integers(0, 3), st.integers(0, 3), st.booleans()
)
def test_matchings_are_the_best_and_leave_dead_units_without(seed, a, b, dead_a, dead_b, copies):
    rng = np.random.default_rng(seed)
    live = rng.uniform(-1, 1, size=(a, b))
    if copies:
        live[-1], live[:, -1] = live[0], live[:, 0]
    similarity = np.zeros((a + dead_a, b + dead_b))
    rows = np.sort(rng.choice(a + dead_a, a, replace=False))
    columns = np.sort(rng.choice(b + dead_b, b, replace=False))
    similarity[np.ix_(rows, columns)] = live
    partner = matching(similarity)
    both = np.flatnonzero(partner >= 0)
    assert set(both) <= set(rows)
    assert set(partner[both]) <= set(columns)
    best = similarity[linear_sum_assignment(similarity, maximize=True)].sum()
    np.testing.assert_allclose(similarity[both, partner[both]].sum(), best, atol=1e-9)
    if dead_a == dead_b == 0:
        assert len(both) == min(a, b)
    taken = complete(partner, similarity.shape[1])
    taken = taken[taken >= 0]
    assert len(set(taken)) == len(taken) == min(similarity.shape)
    semi = semi_matching(similarity)
    np.testing.assert_allclose(similarity[rows, semi[rows]], live.max(axis=1))
    assert set(semi[rows]) <= set(columns)


@FEW
@given(seeds, st.integers(1, 7), st.integers(1, 7), st.integers(0, 2))
def test_every_merge_of_a_tree_is_of_the_largest_average(seed, a, b, dead):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(a, b))
    weights[:dead] = 0
    tree, matrix = hac(weights), block_matrix(weights)
    assert is_valid_linkage(tree)
    clusters = {i: [i] for i in range(a + b)}
    for number, (left, right, height, _) in enumerate(tree, a + b):
        averages = {
            (i, j): matrix[np.ix_(clusters[i], clusters[j])].mean()
            for i, j in itertools.combinations(clusters, 2)
        }
        merged = averages[min(left, right), max(left, right)]
        assert abs(offset(weights) - height - merged) < 1e-9
        assert merged > max(averages.values()) - 1e-9
        clusters[number] = clusters.pop(int(left)) + clusters.pop(int(right))


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(2, 4), st.integers(0, 3), st.integers(0, 3))
def test_planted_clusters_are_found_among_dead_and_equal_units(seed, k, dead_a, dead_b):
    """Wherever their units stand; dead units are the last cluster."""
    rng = np.random.default_rng(seed)
    truth = [np.concatenate([np.repeat(np.arange(k), 3), np.full(d, k)]) for d in (dead_a, dead_b)]
    truth = [rng.permutation(t) for t in truth]

    def similarity(s, t):
        return np.where((s[:, None] == t) & (s < k)[:, None], rng.uniform(0.5, 0.9), 0.1) * (
            (s < k)[:, None] & (t < k)
        )

    xx, yy = similarity(truth[0], truth[0]), similarity(truth[1], truth[1])
    labels = spectral_clusters(xx, similarity(*truth), yy, k, threshold=0.2, seed=seed % 1000)
    everyone = np.concatenate(truth)
    assert len(set(zip(labels, everyone, strict=True))) == len(set(everyone)) == len(set(labels))
    assert (labels[everyone == k] == k).all()
