"""Similarity graphs are the paper's; the spectrum is exact and complete, ties included."""

import numpy as np
import pytest
from scipy.linalg import eigvalsh
from sklearn.manifold import spectral_embedding
from threadpoolctl import threadpool_limits

from convergent.alignment import graphs
from convergent.alignment.graphs import combined_graph, eigengap, embedding, spectrum
from convergent.alignment.graphs import within_graph as within


def correlations(rng, a=9, b=7):
    values = np.corrcoef(rng.normal(size=(a + b, 20)))
    return values[:a, :a], values[:a, a:], values[a:, a:]


def laplacian(graph):
    return np.diag(graph.sum(axis=0)) - graph


def blocks(rng, sizes, weight=0.0):
    """Connected groups of random weights, scattered; groups are joined by a small weight."""
    group = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    graph = rng.uniform(0.5, 1, (len(group), len(group)))
    graph = np.where(group[:, None] == group, np.triu(graph) + np.triu(graph).T, weight)
    np.fill_diagonal(graph, 0)
    return graph, group


def test_the_combined_graph_is_the_sum_of_the_three(rng):
    xx, xy, yy = correlations(rng)
    graph = combined_graph(xx, xy, yy, 0.1)
    between = np.where(xy > 0.1, xy, 0)
    expected = np.block([[within(xx, 0.1), between], [between.T, within(yy, 0.1)]])
    np.testing.assert_array_equal(graph, expected)
    assert not graph.diagonal().any()
    assert 0 < np.count_nonzero(graph) < graph.size - len(graph)
    assert graph.min() == 0


def test_an_edge_at_the_threshold_is_dropped():
    assert not within(np.array([[1, 0.5], [0.5, 1]]), 0.5).any()
    assert within(np.array([[1, 0.5], [0.5, 1]]), 0.49).any()


def test_the_embedding_is_that_of_scikit_learn_up_to_sign(rng):
    graph, _ = blocks(rng, [7, 8, 9], weight=np.triu(0.02 * rng.random((24, 24)), 1))
    graph = np.maximum(graph, graph.T)
    expected = spectral_embedding(
        graph, n_components=5, norm_laplacian=False, drop_first=False, random_state=0
    )
    got = spectrum(graph, 5).vectors
    assert spectrum(graph, 5).components == 1
    expected /= np.linalg.norm(expected, axis=0)
    signs = np.sign((got * expected).sum(axis=0))
    np.testing.assert_allclose(got, signs * expected, atol=1e-6)


def test_the_spectrum_of_a_disconnected_graph_is_complete(rng):
    graph, group = blocks(rng, [6, 1, 9, 1, 1, 4])
    low = spectrum(graph, 15)
    np.testing.assert_allclose(low.eigenvalues, eigvalsh(laplacian(graph))[:15], atol=1e-12)
    np.testing.assert_array_equal(low.eigenvalues[:6], 0)
    assert low.eigenvalues[6] > 1
    np.testing.assert_allclose(
        laplacian(graph) @ low.vectors, low.vectors * low.eigenvalues, atol=1e-12
    )
    np.testing.assert_allclose(low.vectors.T @ low.vectors, np.eye(15), atol=1e-12)
    np.testing.assert_array_equal(np.bincount(low.component), [9, 6, 4, 1, 1, 1])
    assert len(set(zip(low.component, group, strict=True))) == 6
    singles = [np.flatnonzero(low.component == c)[0] for c in (3, 4, 5)]
    assert singles == sorted(singles)


def test_with_more_components_than_k_the_rest_are_one_place(rng):
    graph, _ = blocks(rng, [6, 1, 9, 1, 4, 1])
    low = spectrum(graph, 4)
    points = embedding(low, 4)
    np.testing.assert_allclose(points.T @ points, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(laplacian(graph) @ points, 0, atol=1e-12)
    places = np.unique(points, axis=0, return_inverse=True)[1].ravel()
    expected = np.minimum(low.component, 3)
    assert len(set(zip(places, expected, strict=True))) == 4
    np.testing.assert_array_equal(embedding(spectrum(graph, 8), 8), spectrum(graph, 8).vectors)


@pytest.mark.parametrize("weight", [0.0, 0.01])
def test_the_eigenvalues_jump_after_the_planted_groups(rng, weight):
    graph, _ = blocks(rng, [9, 12, 8, 10, 11], weight)
    assert eigengap(spectrum(graph, 25)) == 5


def test_isolated_units_do_not_hide_the_groups(rng):
    graph, _ = blocks(rng, [9, 12, 8, *[1] * 7])
    assert eigengap(spectrum(graph, 18)) == 10
    # All eigenvalues are zero: each component is a cluster.
    assert eigengap(spectrum(np.zeros((6, 6)), 3)) == 6


@pytest.mark.parametrize("threaded", [10, 10_000])
def test_the_spectrum_is_the_same_bit_for_bit_for_any_number_of_threads(rng, monkeypatch, threaded):
    monkeypatch.setattr(graphs, "THREADED", threaded)
    graph, _ = blocks(rng, [150, 170], weight=0.01)
    results = []
    for threads in (1, 2, 4):
        with threadpool_limits(threads):
            results.append(spectrum(graph, 20))
    for low in results[1:]:
        np.testing.assert_array_equal(low.vectors, results[0].vectors)
    places = np.abs(results[0].vectors).argmax(axis=0)
    assert (results[0].vectors[places, np.arange(20)] > 0).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: within(m[0], -0.1), "threshold must be at least 0, got -0.1"),
        (lambda m: within(m[0], np.nan), "threshold must be at least 0"),
        (lambda m: within(m[1], 0.1), r"must be square, got shape \(9, 7\)"),
        (lambda m: combined_graph(m[0], m[1].T, m[2], 0.1), r"got shapes \(9, 9\), \(7, 9\)"),
        (lambda m: combined_graph(m[0], m[1] * np.nan, m[2], 0.1), "NaN or infinity"),
        (lambda m: spectrum(np.zeros((3, 3)), 4), "from 1 to the 3 units, got 4"),
    ],
)
def test_what_is_no_graph_is_refused(rng, make, message):
    with pytest.raises(ValueError, match=message):
        make(correlations(rng))
