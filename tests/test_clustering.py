"""Clusters are those of a greedy loop over averages, and planted groups come together."""

from pathlib import Path

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, is_valid_linkage

from convergent.clustering import (
    block_matrix,
    drawn_map,
    hac,
    leaf_order,
    offset,
    shared_subspaces,
    spans,
    write_hac,
)
from convergent.stores import new_store, open_store, save

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
    write_hac(tmp_path / "hac.zarr", ["conv1"], tmp_path / "mapping.zarr", penalty=0.06)
    group = open_store(tmp_path / "hac.zarr")["conv1"]
    assert dict(group.attrs) == {"decay": 0.01}
    np.testing.assert_array_equal(group["linkage"][...], hac(weights[1].T))
    np.testing.assert_array_equal(group["order"][...], leaf_order(hac(weights[1].T)))
    mapping = open_store(tmp_path / "mapping.zarr")["conv1/ab"]
    for penalty, step in ((1e-9, 1), (0.06, 1), (0.4, 2), (9, 2)):
        decay, drawn, loss = drawn_map(mapping, penalty)
        assert (decay, loss) == (decays[step], mapping["loss"][step].mean())
        np.testing.assert_array_equal(drawn, weights[step])


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
