"""Tables of clusters are those of the stored correlations; planted groups are stable."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score
from test_statistics import write_store

from convergent.activations import statistics
from convergent.alignment.cluster_tables import ClusteringError, cluster_tables
from convergent.alignment.clustering import cluster_similarity, spectral_clusters
from convergent.paper import PAPER_LEAVES
from convergent.running.stores import open_store

LAYERS = ["conv1", "fc6"]


@pytest.fixture
def pair(rng, tmp_path):
    """Two recorded nets of 12 and 10 units that see three features, and a dead unit in b."""
    groups = np.arange(12) % 3, np.arange(10) % 3
    nets = [{}, {}]
    for layer, shape in (("conv1", (80, 3, 3)), ("fc6", (80,))):
        features = rng.normal(size=(*shape, 3))
        for net, group in zip(nets, groups, strict=True):
            noise = rng.normal(size=(*shape, len(group)))
            net[layer] = (features[..., group] + 0.4 * noise).astype(np.float32)
    nets[1]["fc6"][..., 4] = 0
    for name, layers in zip("ab", nets, strict=True):
        write_store(tmp_path / f"{name}.zarr", layers, chunk_rows=7)
        paths = (tmp_path / f"{name}.zarr", tmp_path / f"s{name}.zarr")
        statistics.write_statistics(*paths, LAYERS, blocks=4)
    paths = (tmp_path / name for name in ("a.zarr", "b.zarr", "c.zarr"))
    statistics.write_correlation(*paths, LAYERS, blocks=4)
    return tmp_path, np.concatenate(groups)


def tables(folder, clusters, threshold=0.2, alpha=0.3, seed=0):
    stores = (folder / name for name in ("sa.zarr", "sb.zarr", "c.zarr"))
    return cluster_tables("net1-net2", clusters, threshold, alpha, seed, *stores)


def matrices(folder, layer):
    stores = [open_store(folder / name) for name in ("sa.zarr", "c.zarr", "sb.zarr")]
    return [store[f"{layer}/correlation"][...] for store in stores]


@pytest.mark.parametrize("k", [3, "auto"])
def test_planted_groups_come_out_and_are_stable(pair, k):
    folder, groups = pair
    clusters, similarity, eigenvalues, stability = tables(folder, dict.fromkeys(LAYERS, k), 0.4)
    assert list(clusters) == ["layer", "net", "unit", "cluster", "leaf", "path"]
    for layer in LAYERS:
        rows = clusters[clusters["layer"] == layer]
        assert list(rows["net"]) == ["net1"] * 12 + ["net2"] * 10
        assert list(rows["unit"]) == [*range(12), *range(10)]
        truth = groups.copy()
        if layer == "fc6":
            truth[12 + 4] = 3
        assert len(set(zip(rows["cluster"], truth, strict=True))) == len(set(truth))
        expected = spectral_clusters(*matrices(folder, layer), 3, 0.4, 0)
        np.testing.assert_array_equal(rows["cluster"], expected)
        # 0.3 of 22 units: a group of eight or seven is split.
        assert rows["leaf"].value_counts().max() <= 6
        assert [int(p.split("/")[0]) for p in rows["path"]] == list(rows["cluster"])
        values = similarity[similarity["layer"] == layer]
        direct = cluster_similarity(rows["leaf"].to_numpy(), *matrices(folder, layer))
        for name, column in direct.items():
            np.testing.assert_array_equal(values[name], column)
        low = eigenvalues[eigenvalues["layer"] == layer]
        assert list(low["number"]) == list(range(1, len(low) + 1))
        assert (low["eigenvalue"] == 0).sum() == 3
        assert low["eigenvalue"].iloc[3] > 0.5
    table = stability.set_index("layer")
    assert list(table["pair"]) == ["net1-net2"] * 2
    assert list(table["units"]) == [22, 22]
    assert list(table["dead"]) == [0, 1]
    assert list(table["k"]) == [3, 3]
    assert list(table["clusters"]) == [3, 4]
    assert list(table["components"]) == [3, 3]
    assert (table[["seeds", "halves"]] == 1).all(axis=None)
    assert (table["leaf_halves"] < 1).all()  # within groups there is but noise
    assert list(table["paper_leaves"].dropna()) == [PAPER_LEAVES["conv1"]]
    for layer, rows in similarity.groupby("layer"):
        assert table.loc[layer, "leaves"] == len(rows)
        parts = table.loc[layer, ["of_both", "of_a", "of_b"]]
        assert parts.sum() == (rows["within"] > 0).sum() >= len(rows) - 1
        assert parts["of_a"] == ((rows["units_b"] == 0) & (rows["within"] > 0)).sum()


def write_stores(folder, a, b):
    for name, values in (("a", a), ("b", b)):
        write_store(folder / f"{name}.zarr", {"fc6": values.astype(np.float32)}, chunk_rows=7)
        paths = (folder / f"{name}.zarr", folder / f"s{name}.zarr")
        statistics.write_statistics(*paths, ["fc6"], blocks=4)
    paths = (folder / name for name in ("a.zarr", "b.zarr", "c.zarr"))
    statistics.write_correlation(*paths, ["fc6"], blocks=4)


def test_halves_are_the_first_and_the_last_of_the_images(rng, tmp_path):
    """Units that keep company in one half of the images and part in the other."""
    first, second = np.arange(8) % 2, np.arange(8) // 4
    features = rng.normal(size=(80, 2))
    early = np.arange(80)[:, None] < 40
    values = np.where(early, features[:, first], features[:, second])
    values += 0.1 * rng.normal(size=values.shape)
    write_stores(tmp_path, values, values)
    assert tables(tmp_path, {"fc6": 2}, alpha=1).stability["halves"].item() < 0.1


def test_other_seeds_of_k_means_are_compared(rng, tmp_path):
    """Nothing but noise: what k-means finds depends on the seed."""
    write_stores(tmp_path, *rng.normal(size=(2, 80, 40)))
    table = tables(tmp_path, {"fc6": 15}, threshold=0, alpha=1, seed=3).stability
    labels = [spectral_clusters(*matrices(tmp_path, "fc6"), 15, 0, seed) for seed in range(3, 8)]
    indices = [adjusted_rand_score(*two) for two in itertools.combinations(labels, 2)]
    assert min(indices) < 1
    assert table["seeds"].item() == pytest.approx(np.mean(indices))


def test_more_components_than_a_quarter_of_the_units_are_clusters_each(rng, tmp_path):
    """Ten pairs of one unit of each net, and `auto`."""
    values = rng.normal(size=(80, 10))
    write_stores(tmp_path, values, values)
    found = tables(tmp_path, {"fc6": "auto"}, threshold=0.6)
    clusters, table = found.clusters, found.stability
    assert table["components"].item() == table["k"].item() == table["clusters"].item() == 10
    assert (clusters.groupby("unit")["cluster"].nunique() == 1).all()
    assert table["of_both"].item() == 10


@pytest.mark.parametrize("k", ["auto", 3])
def test_a_layer_that_is_dead_in_both_nets_is_one_cluster(tmp_path, k):
    write_stores(tmp_path, *np.zeros((2, 80, 4)))
    clusters, similarity, eigenvalues, table = tables(tmp_path, {"fc6": k})
    assert (clusters["cluster"] == 0).all()
    assert (clusters["leaf"].value_counts() <= 0.3 * 8).all()
    assert (similarity[["between", "within"]] == 0).all(axis=None)
    assert len(eigenvalues) == 0
    row = table.iloc[0]
    assert (row["dead"], row["k"], row["of_both"], row["of_a"], row["of_b"]) == (8, 0, 0, 0, 0)


def test_a_half_without_edges_has_no_stability(rng, tmp_path):
    """All that units share they share in one half of the images."""
    values = rng.normal(size=(80, 8))
    values[:20] = values[40:60] = 0
    values[:20, :] += 5 * rng.normal(size=(20, 1))
    write_stores(tmp_path, values, values[:, ::-1] + rng.normal(size=values.shape))
    table = tables(tmp_path, {"fc6": 2}, threshold=0.85, alpha=1).stability
    assert np.isnan(table["halves"]).all()
    assert np.isfinite(table["seeds"]).all()


def test_results_are_the_same_again(pair):
    folder, _ = pair
    for first, second in zip(*(tables(folder, {"conv1": 7}) for _ in range(2)), strict=True):
        assert first.equals(second)


def test_a_layer_without_edges_is_named(pair):
    folder, _ = pair
    with pytest.raises(ClusteringError, match=r"clustering of conv1, net1-net2: threshold 0.99 "):
        tables(folder, {"conv1": 3}, threshold=0.99)
