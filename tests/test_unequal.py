"""Nets of 12 and 8 units, the second noisy copies of units of the first, in each stage."""

import numpy as np
import pandas as pd
import pytest
from test_statistics import write_store

from convergent.activations import statistics
from convergent.alignment.cluster_tables import ClusteringError, cluster_tables
from convergent.alignment.clustering import spectral_clusters, write_hac
from convergent.alignment.sparse_maps import map_at_penalty, write_mapping, write_sgd_mapping
from convergent.figures import clusters, one_to_one, sparse_maps
from convergent.figures.tables import mapping_table, measure_agreement, table1
from convergent.measures import joint_densities, registry
from convergent.measures.matching import match_table, mean_values
from convergent.measures.matrices import write_matrices
from convergent.running.stores import open_store

A, B = 12, 8
LAYERS = ["conv1", "fc6"]
MEASURES = ["correlation", "mutual_information"]
# With this penalty, each direction has a decay of its own.
PENALTY = 0.25
DECAYS = [PENALTY / A, PENALTY / B]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Folder with the stores of a pair, and the unit of a that each unit of b copies."""
    folder, rng = tmp_path_factory.mktemp("unequal"), np.random.default_rng(5)
    copied = {layer: rng.permutation(A)[:B] for layer in LAYERS}
    nets = {"a": {}, "b": {}}
    for layer, shape in (("conv1", (120, 3, 3)), ("fc6", (120,))):
        first = np.maximum(rng.normal(size=(*shape, A)), 0)
        scale = rng.uniform(0.2, 5, B)
        second = (first[..., copied[layer]] + 0.1 * rng.normal(size=(*shape, B))) * scale
        nets["a"][layer], nets["b"][layer] = (v.astype(np.float32) for v in (first, second))
    for name, layers in nets.items():
        write_store(folder / f"{name}.zarr", layers)
        statistics.write_statistics(
            folder / f"{name}.zarr", folder / f"s{name}.zarr", LAYERS, blocks=4
        )
    stores = [folder / name for name in ("sa.zarr", "sb.zarr", "correlation.zarr")]
    statistics.write_correlation(folder / "a.zarr", folder / "b.zarr", stores[2], LAYERS, blocks=4)
    measure = registry.measure("mutual_information")
    write_matrices(measure, folder / "mutual_information.zarr", LAYERS, *stores[:2])
    write_mapping(folder / "mapping.zarr", LAYERS, DECAYS, *stores)
    write_hac(folder / "hac.zarr", LAYERS, folder / "mapping.zarr", PENALTY)
    return folder, copied


@pytest.fixture(scope="module")
def matches(pair):
    folder, _ = pair
    matrices, tables = {}, []
    for name in MEASURES:
        store = open_store(folder / f"{name}.zarr")
        matrices[name] = {layer: store[f"{layer}/{name}"][...] for layer in LAYERS}
        tables += [match_table(matrix, layer, name) for layer, matrix in matrices[name].items()]
    return pd.concat(tables), matrices


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("layer", LAYERS)
def test_copies_are_matched_and_other_units_have_no_partner(pair, matches, measure, layer):
    copied = pair[1][layer]
    rows = matches[0].query("layer == @layer and measure == @measure")
    matching = rows.query("method == 'matching'").set_index("unit")["partner"]
    assert matching.to_dict() == dict(zip(copied, range(B), strict=True))
    back = rows.query("method == 'semi' and direction == 'ba'")
    np.testing.assert_array_equal(back["partner"], copied)
    forth = rows.query("method == 'semi' and direction == 'ab'").set_index("unit")["partner"]
    assert len(forth) == A
    np.testing.assert_array_equal(forth[copied], range(B))
    means = mean_values(rows).iloc[0]
    # Over the eight that can have a partner; over all twelve.
    assert means["matching"] == pytest.approx(back["value"].mean())
    assert means["semi"] < means["matching"]


@pytest.mark.parametrize("layer", LAYERS)
def test_measures_agree_about_copies(matches, layer):
    table, matrices = matches
    row = measure_agreement(table, matrices, "a-b").set_index("layer").loc[layer]
    assert (row["units"], row["top8"], row["same_partner_matching"]) == (A, 8, 1)


@pytest.mark.parametrize("layer", LAYERS)
def test_maps_are_of_the_penalty_in_each_direction(pair, layer):
    folder, copied = pair[0], pair[1][layer]
    store = open_store(folder / "mapping.zarr")[layer]
    ab, ba = (map_at_penalty(store[direction], PENALTY) for direction in ("ab", "ba"))
    assert (ab.weights.shape, ba.weights.shape) == ((B, A), (A, B))
    assert (ab.decay, ba.decay) == (PENALTY / B, PENALTY / A)
    # Each copy is predicted by what it copies, and the other way round; nothing else is predicted.
    np.testing.assert_array_equal(np.argwhere(ab.weights), np.c_[range(B), copied])
    np.testing.assert_array_equal(np.argwhere(ba.weights.T), np.c_[range(B), copied])
    others = np.setdiff1d(range(A), copied)
    np.testing.assert_array_equal(ba.loss[others], 0.5)
    # The LASSO of one source: correlation less penalty.
    between = open_store(folder / "correlation.zarr")[f"{layer}/correlation"][...]
    expected = between[copied, range(B)] - PENALTY
    np.testing.assert_allclose(ab.weights[range(B), copied], expected, atol=1e-5)


def test_sgd_finds_the_maps_of_unequal_nets(pair):
    folder, copied = pair
    paths = [(folder / "a.zarr", folder / "b.zarr"), (folder / "sa.zarr", folder / "sb.zarr")]
    write_sgd_mapping(
        folder / "sgd.zarr", ["conv1"], DECAYS, *paths, folder / "correlation.zarr", iterations=600
    )
    weights = open_store(folder / "sgd.zarr")["conv1/ab/weights"][0]
    np.testing.assert_array_equal(np.abs(weights).argmax(axis=1), copied["conv1"])


def test_table1_is_of_the_units_that_are_predicted(pair):
    folder, _ = pair
    table = mapping_table(folder / "mapping.zarr", LAYERS, "exact")
    rows = table1({"a-b": table.assign(decay=1e-3)}, "a-b", dict.fromkeys(LAYERS, (0, B)))
    assert set(rows["units"]) == {B}
    np.testing.assert_array_equal(rows["exact_live"], rows["exact"])


@pytest.mark.parametrize("layer", LAYERS)
def test_hac_joins_each_copy_with_what_it_copies_first(pair, layer):
    folder, copied = pair[0], pair[1][layer]
    group = open_store(folder / "hac.zarr")[layer]
    tree = group["linkage"][...]
    assert tree.shape == (A + B - 1, 4)
    joined = {frozenset(map(int, merge[:2])) for merge in tree[:B]}
    assert joined == {frozenset((int(unit), A + j)) for j, unit in enumerate(copied)}
    assert group.attrs["decay"] == PENALTY / B


def spectral(folder, k, alpha=0.3):
    stores = (folder / name for name in ("sa.zarr", "sb.zarr", "correlation.zarr"))
    return cluster_tables("a-b", dict.fromkeys(LAYERS, k), 0.4, alpha, 0, *stores)


def test_spectral_clusters_are_copies_and_singles(pair):
    """As many clusters as units of a, although neither net has as many as both together."""
    folder, copied = pair
    found = spectral(folder, A)
    for layer in LAYERS:
        rows = found.clusters[found.clusters["layer"] == layer]
        of_a, of_b = (rows[rows["net"] == net].set_index("unit")["cluster"] for net in "ab")
        assert (len(of_a), len(of_b)) == (A, B)
        np.testing.assert_array_equal(of_b, of_a[copied[layer]])
        assert of_a.nunique() == A
    table = found.stability.set_index("layer")
    assert table[["units", "of_both", "of_a", "of_b"]].to_numpy().tolist() == [[20, 8, 4, 0]] * 2
    assert (table[["seeds", "halves"]] == 1).all(axis=None)


def test_k_and_alpha_count_the_units_of_both_nets(pair):
    folder, _ = pair
    matrices = [
        open_store(folder / name)["fc6/correlation"][...]
        for name in ("sa.zarr", "correlation.zarr", "sb.zarr")
    ]
    assert spectral_clusters(*matrices, k=A + B, threshold=0).max() == A + B - 1
    with pytest.raises(ClusteringError, match="conv1, a-b: k must be from 1 to the 20 units"):
        spectral(folder, A + B + 1)
    # A tenth of 20 units: leaves of two, and a cluster of all is split.
    leaves = spectral(folder, 1, alpha=0.1).clusters.groupby("layer")["leaf"].value_counts()
    assert leaves.max() == 2
    with pytest.raises(ClusteringError, match=r"at most 0\.8 units"):
        spectral(folder, 1, alpha=0.04)


def test_figures_draw_unequal_nets(pair, matches, tmp_path):
    folder, copied = pair
    matches[0].to_csv(tmp_path / "matching.csv", index=False)
    found = spectral(folder, A)
    found.clusters.to_csv(tmp_path / "clusters.csv", index=False)
    stores = [folder / name for name in ("sa.zarr", "sb.zarr", "correlation.zarr")]
    nets = ["a", "b"]
    figure = one_to_one.draw_fig1(*stores, tmp_path / "matching.csv", nets, "conv1")
    shown = np.asarray(figure.axes[3].images[0].get_array().filled(np.nan))
    between = open_store(stores[2])["conv1/correlation"][...]
    rows = np.sort(copied["conv1"])
    np.testing.assert_array_equal(np.diag(shown[:B]), np.sort(between[rows].max(axis=1))[::-1])
    figure = sparse_maps.draw_fig5(folder / "mapping.zarr", nets, LAYERS, PENALTY)
    assert [ax.images[0].get_array().shape for ax in figure.axes if ax.images] == [(B, A)] * 2
    figure = clusters.draw_figS5(*stores, tmp_path / "clusters.csv", nets, LAYERS)
    assert [ax.images[0].get_array().shape for ax in figure.axes[:2]] == [(A + B, A + B)] * 2


def test_joint_densities_are_of_a_unit_of_each_net(pair, matches):
    folder, copied = pair
    shown = joint_densities.shown_pairs(matches[0], ["conv1"])
    values = [
        joint_densities.stored_values(folder / name, {"conv1": shown["conv1"][side].to_numpy()})
        for name, side in (("a.zarr", "unit"), ("b.zarr", "partner"))
    ]
    path = folder / "joint.zarr"
    joint_densities.write_joint_densities(path, shown, *values, folder / "mutual_information.zarr")
    for _, _, (unit, partner), r, *_ in joint_densities.load_joint_densities(path):
        assert copied["conv1"][partner] == unit
        assert r > 0.9
