"""Sparse maps and clusters stand above chance where this is planted, and not elsewhere."""

import numpy as np
import pandas as pd
import pytest
from comparing import comparison, evidence
from scipy.stats import ortho_group
from test_cluster_tables import pair as clustered_pair  # noqa: F401
from test_mapping_layers import DECAYS, LAYERS, write
from test_mapping_layers import pair as recorded_pair  # noqa: F401

from convergent.activations.moments import Moments
from convergent.alignment.cluster_tables import Options, cluster_tables
from convergent.alignment.clustering import cluster_similarity
from convergent.alignment.sparse_maps import map_at_penalty
from convergent.inference.estimates import estimates, ways
from convergent.inference.jackknife import jackknife
from convergent.inference.map_nulls import cluster_between, map_loss, significance_of_maps
from convergent.inference.nulls import rotations
from convergent.inference.similarity import Stores
from convergent.measures.evidence import Split

DRAWS = 19
LOSS = map_loss([0.0, 0.001, 0.01, 0.1], 0.2)
BETWEEN = cluster_between(Options(5, 0.2, 0.25))


def turned(x, y):
    """The images null from arrays."""
    for draw in range(DRAWS):
        yield Split(evidence(x, np.roll(y, 1 + 5 * draw, axis=0)))


def rows_of(x, y, *measures):
    found = comparison(x, y, blocks=10)
    nulls = {"rotation": rotations(found.split, DRAWS, 0), "images": turned(x, y)}
    rows, _ = estimates(ways(measures), found, nulls)
    return pd.DataFrame(rows).set_index(["measure", "direction"])


def groups(rng, images, size, noise=0.7):
    """Two nets with five features, each of which several units of both follow."""
    features = rng.normal(size=(images, 5))
    return [
        np.repeat(features, size, axis=1) + noise * rng.normal(size=(images, 5 * size))
        for _ in range(2)
    ]


def test_shared_units_are_predicted_better_than_by_chance(rng):
    x, y = rng.normal(size=(2, 300, 20))
    y[:, :8] = x[:, :8] + 0.3 * rng.normal(size=(300, 8))
    rows = rows_of(x, y, LOSS)
    for direction in ("ab", "ba"):
        row = rows.loc["map_loss", direction]
        # Lower is more alike, and no draw is as low.
        assert row["value"] < row["null_rotation_high"] < row["null_rotation"]
        assert row["p_rotation"] == row["p_images"] == 1 / (DRAWS + 1)
        assert row["low"] < row["value"] < row["high"]
        # What was fitted predicts the images less well on which it was not.
        assert row["held_out"] > row["value"]


def test_a_rotated_copy_shares_no_basis(rng):
    """Sparse maps of a rotated space are as poor as those of any rotation of it."""
    x = rng.normal(size=(300, 12))
    rows = [
        rows_of(x, x @ ortho_group.rvs(12, random_state=seed), LOSS).loc["map_loss", "ab"]
        for seed in range(5)
    ]
    # p is uniform: the mean of five is below .2 once in 120 times.
    assert np.mean([row["p_rotation"] for row in rows]) > 0.2
    assert {row["p_images"] for row in rows} == {1 / (DRAWS + 1)}


def test_independent_nets_are_as_alike_as_by_chance(rng):
    rows = rows_of(*rng.normal(size=(2, 200, 20)), LOSS, BETWEEN)
    assert (rows[["p_rotation", "p_images"]] > 0.05).all(axis=None)


def test_shared_groups_are_more_alike_than_by_chance(rng):
    row = rows_of(*groups(rng, 300, 4), BETWEEN).loc["cluster_between", ""]
    # Units of a group correlate 1 / (1 + .7**2).
    assert row["value"] == pytest.approx(1 / 1.49, abs=0.06)
    assert row["low"] < 1 / 1.49 < row["high"]
    assert row["held_out"] == pytest.approx(row["value"], abs=0.02)
    assert row["p_rotation"] == row["p_images"] == 1 / (DRAWS + 1)


def test_groups_of_each_net_alone_are_not_shared(rng):
    x, y = groups(rng, 300, 4)[0], groups(rng, 300, 4)[0]
    row = rows_of(x, y, BETWEEN).loc["cluster_between", ""]
    assert abs(row["value"]) < 0.2
    assert row["p_images"] > 0.05


def test_leaves_of_one_net_or_of_dead_units_do_not_count(rng):
    x, y = groups(rng, 300, 4)
    x, y = (np.hstack([net, np.zeros((300, 2))]) for net in (x, y))
    x[:, 0] = rng.normal(size=300)
    found = evidence(x, y)
    leaves = found.choose(BETWEEN)
    three = [m.correlation() for m in (found.within_a, found.between, found.within_b)]
    similarity = cluster_similarity(leaves, *three)
    both = (similarity["units_a"] > 0) & (similarity["units_b"] > 0) & (similarity["within"] > 0)
    assert 0 < both.sum() < len(both)
    assert found.value(BETWEEN) == pytest.approx(similarity["between"][both].mean())
    # A net whose units are alike only with each other.
    alone = evidence(x[:, 1:4], rng.normal(size=(300, 6)))
    assert alone.value(cluster_between(Options(2, 0.4, 1.0))) == 0
    # Units of which no two are alike.
    assert alone.value(cluster_between(Options(2, 0.99, 1.0))) == 0


def test_the_interval_follows_the_fit(rng):
    """To first order, it is that of maps that are fitted anew without each block."""
    shared = rng.normal(size=(400, 6))
    x, y = (shared @ rng.normal(size=(6, p)) + 1.5 * rng.normal(size=(400, p)) for p in (20, 16))
    x[:, 3] = 0
    found = comparison(x, y, blocks=20)
    rows = {row["direction"]: row for row in estimates(ways([LOSS]), found)[0]}
    for direction in ("ab", "ba"):
        row = rows[direction]
        anew, fixed = [], []
        whole = found.split.whole if direction == "ab" else found.split.whole.turned
        chosen = whole.choose(LOSS)
        for split in found.without():
            rest = split.whole if direction == "ab" else split.whole.turned
            anew.append(rest.value(LOSS))
            fixed.append(rest.score(LOSS, chosen))
        errors = [jackknife(row["value"], v, found.sizes).standard_error for v in (anew, fixed)]
        assert row["standard_error"] == pytest.approx(errors[0], rel=0.05)
        # The loss is not what the fit minimises, so weights held fixed give no interval.
        assert errors[1] < 0.8 * errors[0]


def test_intervals_of_losses_cover_the_expectation(rng):
    mixing = [rng.normal(size=(4, p)) for p in (10, 8)]

    def draw():
        shared = rng.normal(size=(100, 4))
        nets = (shared @ m + 1.5 * rng.normal(size=(100, m.shape[1])) for m in mixing)
        return estimates(ways([LOSS])[:1], comparison(*nets, blocks=10))[0][0]

    rows = pd.DataFrame([draw() for _ in range(200)])
    expectation = rows["value"].mean()
    covered = (rows["low"] <= expectation) & (expectation <= rows["high"])
    assert 0.90 <= covered.mean() <= 0.99


@pytest.mark.parametrize("measure", [LOSS, BETWEEN])
def test_layers_without_live_units_have_no_value_and_say_why(rng, measure):
    x, y = rng.normal(size=(50, 6)), np.zeros((50, 5))
    rows, _ = estimates(ways([measure]), comparison(0 * x, y))
    if measure is LOSS:
        # As in mapping.csv, what is dead counts one half.
        assert [row["value"] for row in rows] == [0.5, 0.5]
    else:
        assert np.isnan(rows[0]["value"])
        assert "no unit of the layers varies" in rows[0]["note"]


def test_values_of_maps_are_those_of_the_mapping(recorded_pair):  # noqa: F811
    _, _, folder = recorded_pair
    store = write(folder)
    stores = Stores(*(folder / name for name in ("sa.zarr", "sb.zarr", "c.zarr")))
    options = {"decays": DECAYS, "penalty": 0.2, "threshold": 0.2, "alpha": 0.5}
    table = significance_of_maps(
        dict.fromkeys(LAYERS, 2), stores, nulls={"maps": 2, "seed": 0, "level": 0.95}, **options
    )
    assert list(table)[:4] == ["layer", "statistic", "measure", "direction"]
    assert list(table["layer"].unique()) == [*LAYERS, "all"]
    assert set(table["measure"]) == {"correlation"}
    assert set(table["statistic"]) == {"map_loss", "cluster_between"}
    losses = table[table["statistic"] == "map_loss"].set_index(["layer", "direction"])
    for layer in LAYERS:
        for direction in ("ab", "ba"):
            expected = map_at_penalty(store[f"{layer}/{direction}"], 0.2).loss.mean()
            # Both are within the relative gap of the optimum.
            assert losses.loc[(layer, direction), "value"] == pytest.approx(expected, rel=1e-4)
    assert (losses["null_rotation"] > 0).all()
    # There are no activations to turn, and two draws give no p.
    assert table[["null_images", "p_rotation"]].isna().all(axis=None)


def test_values_of_clusters_are_those_of_the_clusters(clustered_pair):  # noqa: F811
    folder, _ = clustered_pair
    paths = [folder / name for name in ("sa.zarr", "sb.zarr", "c.zarr")]
    k = dict.fromkeys(["conv1", "fc6"], 3)
    tables = cluster_tables("net1-net2", k, 0.4, 0.3, 0, *paths)
    options = {"decays": [0.1], "penalty": 0.2, "threshold": 0.4, "alpha": 0.3}
    table = significance_of_maps(k, Stores(*paths), **options)
    found = table.query("statistic == 'cluster_between' and layer != 'all'")
    found = found.set_index("layer")["value"]
    leaves = tables.similarity.query("units_a > 0 and units_b > 0 and within > 0")
    pd.testing.assert_series_equal(
        found, leaves.groupby("layer")["between"].mean(), check_names=False, rtol=1e-6
    )


def test_moments_of_maps_may_be_of_unequal_layers(rng):
    x, y = rng.normal(size=(100, 6)), rng.normal(size=(100, 9))
    loss = map_loss([0.01, 0.02, 0.03], 0.18)
    three = Moments.of(x, y), Moments.of(x), Moments.of(y)
    assert loss.choose(*three).shape == (1, 9, 6)
    # Of nine target units the decay is .02, of six .03.
    nine = map_loss([0.02], 0.18)
    np.testing.assert_array_equal(loss.choose(*three), nine.choose(*three))
