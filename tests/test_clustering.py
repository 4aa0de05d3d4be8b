"""Clusters are those of a greedy loop or of plain sums, and planted groups come together."""

from pathlib import Path

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, is_valid_linkage
from sklearn.cluster import kmeans_plusplus

from convergent.alignment.clustering import (
    block_matrix,
    branch,
    cluster_similarity,
    hac,
    kmeans,
    kmeans_seeds,
    leaf_numbers,
    leaf_order,
    offset,
    shared_subspaces,
    spans,
    spectral_clusters,
    write_hac,
)
from convergent.alignment.graphs import combined_graph, embedding, spectrum
from convergent.alignment.sparse_maps import map_at_penalty
from convergent.running.stores import new_store, open_store, save

# A map that the paper's authors fitted; not part of this repository.
AUTHORS_MAP = Path(__file__).parents[2] / "shared/reference/li2016_mapping_conv1_decay-2.6.npy"


def greedy(matrix):
    """Section 4, word for word: merge the two clusters of the largest average, again and again."""
    clusters = {i: [i] for i in range(len(matrix))}
    merges = []
    for new in range(len(matrix), 2 * len(matrix) - 1):
        names = list(clusters)
        best = max(
            ((matrix[np.ix_(clusters[a], clusters[b])].mean(), a, b)
             for i, a in enumerate(names) for b in names[i + 1 :]),
            key=lambda candidate: candidate[0],
        )  # fmt: skip
        clusters[new] = clusters.pop(best[1]) + clusters.pop(best[2])
        merges.append((best[0], frozenset(clusters[new])))
    return merges


@pytest.mark.parametrize("shape", [(6, 6), (5, 8)])
def test_hac_is_the_greedy_loop(rng, shape):
    weights = rng.normal(size=shape)
    tree = hac(weights)
    assert is_valid_linkage(tree)
    members = {i: [i] for i in range(sum(shape))}
    for merge, (left, right, _, size) in enumerate(tree):
        members[sum(shape) + merge] = members[int(left)] + members[int(right)]
        assert size == len(members[sum(shape) + merge])
    got = [
        (offset(weights) - height, frozenset(members[sum(shape) + i]))
        for i, height in enumerate(tree[:, 2])
    ]
    for (average, cluster), (expected, units) in zip(
        got, greedy(block_matrix(weights)), strict=True
    ):
        assert average == pytest.approx(expected)
        assert cluster == units


def test_blocks_of_b_are_where_the_paper_has_them(rng):
    weights = rng.normal(size=(2, 3))
    b = block_matrix(weights)
    np.testing.assert_array_equal(b[:2, 2:], weights)
    np.testing.assert_array_equal(b[2:, :2], weights.T)
    np.testing.assert_array_equal(b[:2, :2], np.eye(2))
    np.testing.assert_array_equal(b[2:, 2:], np.eye(3))


def test_planted_groups_of_both_nets_are_clusters(rng):
    """Three groups of four units of each net, scattered."""
    groups = (
        rng.permutation(np.repeat(np.arange(3), 4)),
        rng.permutation(np.repeat(np.arange(3), 4)),
    )
    weights = np.where(groups[0][:, None] == groups[1], 0.5, 0) + 0.01 * rng.random((12, 12))
    tree = hac(weights)
    labels = fcluster(tree, 3, "maxclust")
    truth = np.concatenate(groups)
    assert len(set(zip(labels, truth, strict=True))) == 3
    order = leaf_order(tree)
    assert sorted(order) == list(range(24))
    assert len(np.flatnonzero(np.diff(truth[order]))) == 2
    regions = shared_subspaces(tree, 12, number=3)
    assert sorted(regions) == [(0, 7), (8, 15), (16, 23)]


def test_spans_hold_the_leaves_of_each_cluster(rng):
    tree = hac(rng.random((5, 7)))
    order, members = leaf_order(tree), {i: {i} for i in range(12)}
    for merge, ((left, right, *_), (start, stop)) in enumerate(zip(tree, spans(tree), strict=True)):
        members[12 + merge] = members[int(left)] | members[int(right)]
        assert set(order[start : stop + 1]) == members[12 + merge]


def test_weights_above_one_and_none_at_all_give_trees():
    assert is_valid_linkage(hac(3 * np.eye(4)))
    tree = hac(np.zeros((3, 2)))
    assert (tree[:, 2] == 1).all()
    assert len(tree) == 4


@pytest.mark.parametrize("weights", [np.zeros(3), np.zeros((0, 3)), np.full((2, 2), np.nan)])
def test_what_is_no_map_is_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        hac(weights)


def test_the_store_holds_the_tree_of_the_map_of_the_penalty(tmp_path, rng):
    decays, weights = np.array([0, 0.01, 0.1]), rng.random((3, 5, 4))
    with new_store(tmp_path / "mapping.zarr") as group:
        layer = group.create_group("conv1/ab")
        save(layer, "decay", decays, ("decay",))
        save(layer, "weights", weights, ("decay", "target", "source"))
        save(layer, "loss", rng.random((3, 5)), ("decay", "target"))
        save(layer, "nonzero", rng.integers(4, size=(3, 5)), ("decay", "target"))
    write_hac(tmp_path / "hac.zarr", ["conv1"], tmp_path / "mapping.zarr", penalty=0.06)
    group = open_store(tmp_path / "hac.zarr")["conv1"]
    assert dict(group.attrs) == {"decay": 0.01}
    np.testing.assert_array_equal(group["linkage"][...], hac(weights[1].T))
    np.testing.assert_array_equal(group["order"][...], leaf_order(hac(weights[1].T)))
    mapping = open_store(tmp_path / "mapping.zarr")["conv1/ab"]
    for penalty, index in ((1e-9, 1), (0.06, 1), (0.4, 2), (9, 2)):
        chosen = map_at_penalty(mapping, penalty)
        assert chosen.decay == decays[index]
        for name, values in chosen._asdict().items():
            np.testing.assert_array_equal(values, mapping[name][index])


def planted(rng, groups_a, groups_b, noise=0.3):
    """Correlations of two nets whose units are noisy copies of a few features."""
    features = rng.normal(size=(max(*groups_a, *groups_b) + 1, 500))
    units = [features[g] + noise * rng.normal(size=(len(g), 500)) for g in (groups_a, groups_b)]
    values = np.corrcoef(np.concatenate(units))
    a = len(groups_a)
    return values[:a, :a], values[:a, a:], values[a:, a:]


def same_partition(labels, truth):
    return len(set(zip(labels, truth, strict=True))) == len(set(labels)) == len(set(truth))


@pytest.mark.parametrize("noise", [0.3, 0.8])
def test_planted_groups_across_two_nets_are_found(rng, noise):
    """Of unlike sizes, with unlike numbers of units from each net, one in one net only."""
    a = rng.permutation(np.repeat([0, 1, 2, 3], [4, 7, 2, 5]))
    b = rng.permutation(np.repeat([0, 1, 2, 4], [6, 1, 5, 4]))
    labels = spectral_clusters(*planted(rng, a, b, noise), k=5, threshold=0.2, seed=0)
    truth = np.concatenate([a, b])
    assert labels.shape == (34,)
    assert same_partition(labels, truth)
    sizes = np.bincount(labels)
    assert (np.diff(sizes) <= 0).all()


def test_clusters_are_found_where_groups_touch(rng):
    """One component: k-means on a real embedding."""
    a, b = (rng.permutation(np.repeat(np.arange(4), 10)) for _ in range(2))
    matrices = planted(rng, a, b)
    for matrix in matrices:
        matrix += 0.25
    graph = combined_graph(*matrices, 0.2)
    assert spectrum(graph, 1).components == 1
    labels = spectral_clusters(*matrices, k=4, threshold=0.2, seed=0)
    assert same_partition(labels, np.concatenate([a, b]))
    for _ in range(2):
        np.testing.assert_array_equal(labels, spectral_clusters(*matrices, 4, 0.2, 0))


def test_dead_units_are_a_group_of_their_own(rng):
    a, b = np.repeat([0, 1, 2], 5), np.repeat([0, 1, 2], 4)
    xx, xy, yy = planted(rng, a, b)
    for matrix in (xx, xx.T, xy):
        matrix[[0, 7]] = 0
    for matrix in (yy, yy.T, xy.T):
        matrix[11] = 0
    truth = np.concatenate([a, b])
    truth[[0, 7, 15 + 11]] = 3
    labels = spectral_clusters(xx, xy, yy, k=3, threshold=0.2, seed=0)
    assert same_partition(labels, truth)
    assert set(labels[[0, 7, 26]]) == {3}
    # More clusters than live units: each has its own.
    assert spectral_clusters(xx, xy, yy, k=27).max() == 24
    nothing = [np.zeros_like(m) for m in (xx, xy, yy)]
    np.testing.assert_array_equal(spectral_clusters(*nothing, k=3), 0)


def test_isolated_units_beyond_k_share_a_cluster(rng):
    matrices = planted(rng, np.array([0, 0, 0, 1, 1, 2, 3]), np.array([0, 0, 1, 1, 4, 5]), 0.1)
    labels = spectral_clusters(*matrices, k=3, threshold=0.5, seed=0)
    assert same_partition(labels, [0, 0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2])


@pytest.mark.parametrize(
    ("k", "threshold", "message"),
    [
        (3, 0.999, "threshold 0.999 drops every edge: the largest similarity is 0.9"),
        (3, -0.2, "threshold must be at least 0"),
        (0, 0.2, "from 1 to the 13 units of both nets, got 0"),
        (14, 0.2, "from 1 to the 13 units of both nets, got 14"),
    ],
)
def test_what_cannot_be_clustered_is_refused(rng, k, threshold, message):
    matrices = planted(rng, np.array([0, 0, 0, 1, 1, 2, 3]), np.array([0, 0, 1, 1, 4, 5]), 0.3)
    with pytest.raises(ValueError, match=message):
        spectral_clusters(*matrices, k, threshold)


@pytest.mark.parametrize(("points", "k"), [(5, 1), (40, 3), (200, 50), (60, 58)])
def test_k_means_starts_where_scikit_learn_does(rng, points, k):
    places = rng.normal(size=(points, 7))
    for seed in range(5):
        expected, _ = kmeans_plusplus(places, k, random_state=np.random.RandomState(seed))
        seeds = kmeans_seeds(places, k, np.random.RandomState(seed))
        np.testing.assert_array_equal(seeds, expected)


@pytest.mark.parametrize("largest", [1, 2.4, 5, 12.8])
@pytest.mark.parametrize("k", [2, 6, 20])
def test_no_leaf_exceeds_the_bound(rng, k, largest):
    """A giant component, small ones, isolated and dead units."""
    graph = np.where(rng.random((60, 60)) < 0.2, rng.random((60, 60)), 0)
    graph = np.triu(graph, 1) + np.triu(graph, 1).T
    graph[40:] = graph[:, 40:] = 0
    graph[40, 41] = graph[41, 40] = graph[42, 43] = graph[43, 42] = 0.5
    points = embedding(spectrum(graph, k), k)
    labels = kmeans(points, k, seed=0)
    paths = branch(labels, points, graph, largest)
    leaf = leaf_numbers(paths)
    assert np.bincount(leaf).max() <= largest
    assert (np.bincount(leaf) > 0).all()
    assert [int(p.split("/")[0]) for p in paths] == list(labels)
    small = np.bincount(labels)[labels] <= largest
    assert all(("/" in p) != s for p, s in zip(paths, small, strict=True))
    # Leaves of one cluster are neighbours, so that a matrix in their order shows both.
    order = np.argsort(leaf, kind="stable")
    assert (np.diff(labels[order]) >= 0).all()


def test_a_component_that_is_a_cluster_is_split_where_its_graph_is_thin(rng):
    group = rng.permutation(np.repeat(np.arange(3), 8))
    graph = np.where(group[:, None] == group, 0.9, 0.1)
    np.fill_diagonal(graph, 0)
    points = embedding(spectrum(graph, 1), 1)
    paths = branch(kmeans(points, 1, 0), points, graph, 8)
    assert same_partition(paths, group)
    assert set(paths) == {"0/0", "0/1", "0/2"}


def test_units_without_edges_in_a_large_cluster_are_cut_evenly():
    graph = np.zeros((120, 120))
    graph[3, 77] = graph[77, 3] = 0.5
    labels = np.zeros(120, int)
    sizes = np.bincount(leaf_numbers(branch(labels, np.zeros((120, 1)), graph, 10)))
    assert sorted(sizes) == [2, *[9] * 2, *[10] * 10]


def test_leaves_are_numbered_along_the_tree():
    paths = ["10", "2/1", "2/0/11", "0", "2/0/2", "2/0/11"]
    np.testing.assert_array_equal(leaf_numbers(paths), [4, 3, 2, 0, 1, 2])


def test_a_bound_that_no_leaf_can_keep_is_refused():
    with pytest.raises(ValueError, match=r"at most 0\.96 units hold none; take a larger alpha"):
        branch(np.zeros(3, int), np.zeros((3, 1)), np.zeros((3, 3)), 0.96)


def test_similarities_are_plain_sums(rng):
    xx, xy, yy = planted(rng, np.arange(6) % 3, np.arange(5) % 3)
    labels = np.array([0, 0, 1, 1, 1, 2, 0, 1, 1, 3, 3])
    got = cluster_similarity(labels, xx, xy, yy)
    for cluster in range(4):
        a = [i for i in range(6) if labels[i] == cluster]
        b = [j for j in range(5) if labels[6 + j] == cluster]
        assert (got["units_a"][cluster], got["units_b"][cluster]) == (len(a), len(b))
        between = sum(xy[i, j] for i in a for j in b) / max(len(a) * len(b), 1)
        assert got["between"][cluster] == pytest.approx(between)
        nets = [
            sum(m[i, j] for i in u for j in u) / len(u) ** 2 for m, u in ((xx, a), (yy, b)) if u
        ]
        assert got["within"][cluster] == pytest.approx(sum(nets) / len(nets))
    assert got["between"][2] == got["between"][3] == 0


@pytest.mark.skipif(not AUTHORS_MAP.exists(), reason="the authors' map is not here")
def test_the_authors_map_has_the_structure_of_figure_7():
    """Most of the smallest clusters join a unit of each net; two subspaces of 4 + 4 units."""
    weights = np.load(AUTHORS_MAP).T
    tree = hac(weights)
    small = tree[(tree[:, 3] == 2) & (tree[:, 2] < 0.95)]
    mixed = (small[:, 0] < 96) != (small[:, 1] < 96)
    assert mixed.all()
    assert len(small) > 50
    first = leaf_order(tree) < 96
    for start, stop in shared_subspaces(tree, 96):
        assert first[start : stop + 1].sum() == 4
        assert stop - start == 7
