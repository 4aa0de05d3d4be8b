"""The table of measures of layers: a row for each, with the interval of the blocks and chance."""

import numpy as np
import pandas as pd
import pytest
from comparing import blocks_of, evidence
from test_statistics import LAYERS, activations, write_store

from convergent.activations import statistics
from convergent.activations.blocks import Cut
from convergent.activations.samples import sample_rows
from convergent.inference.jackknife import jackknife
from convergent.inference.significance import NullMatches, significance_tables
from convergent.inference.significance import statistics as statistics_of_units
from convergent.inference.similarity import COLUMNS, NUMBERS, Stores, similarity_table
from convergent.measures.registry import measure, measures
from convergent.running.stores import StoreError, new_store, open_store, save

MEASURES = [measure(name) for name in ("cka", "semi_mean")]
IMAGES = 90
NULLS = {"rotation": 19, "images": 20, "information": 2, "level": 0.95, "seed": 0}


def write_all(folder, a, b):
    """Stores of two nets, from their activations."""
    paths = [write_store(folder / f"{net}.zarr", data) for net, data in (("a", a), ("b", b))]
    made = [folder / f"{name}.zarr" for name in ("statistics_a", "statistics_b", "correlation")]
    for path, store in zip(paths, made, strict=False):
        statistics.write_statistics(path, store, LAYERS, blocks=4, samples=1000)
    statistics.write_correlation(*paths, made[2], LAYERS, blocks=4)
    return Stores(*made, *paths)


@pytest.fixture
def nets(rng, tmp_path):
    """Activations of two nets, and the stores that their similarity is computed from."""
    a = activations(rng, IMAGES, 8)
    b = activations(rng, IMAGES, 6, share={k: v[..., :12] for k, v in a.items()})
    return a, b, write_all(tmp_path, a, b)


def of_moments(table):
    return table[table["parameter"] != "mutual_information"].fillna({"parameter": ""})


def test_values_and_intervals_are_those_of_the_activations(nets):
    a, b, stores = nets
    table = similarity_table(MEASURES, LAYERS, stores).similarity
    assert list(table) == COLUMNS
    assert list(table["direction"]) == ["", "ab", "ba", "ab", "ba"] * 2
    assert (table["layer_a"] == table["layer_b"]).all()
    assert set(zip(table["n_images"], table["n_nets"], strict=True)) == {(IMAGES, 2)}
    edges = np.linspace(0, IMAGES, 5).astype(int)

    def value(row, rows):
        found = evidence(a[row.layer_a][rows].astype(float), b[row.layer_a][rows].astype(float))
        return found.value(measure(row.measure), row.parameter, row.direction)

    for row in of_moments(table).itertuples():
        rows = np.arange(IMAGES)
        without = [value(row, np.delete(rows, rows[edges[i] : edges[i + 1]])) for i in range(4)]
        whole = value(row, rows)
        expected = (whole, *jackknife(whole, without, np.diff(edges)))
        found = (row.value, row.standard_error, row.low, row.high)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_every_measure_has_a_row_in_each_layer_and_an_interval(nets):
    of_layers = measures(gives="layers")
    table = similarity_table(of_layers, LAYERS, nets[2]).similarity
    for _, rows in table.groupby("layer_a"):
        assert set(rows["measure"]) == {each.name for each in of_layers}
    assert (table["note"] == "").all(), table[table["note"] != ""].to_string()
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()


def test_chance_is_that_of_the_nulls_that_can_change_a_measure(nets):
    tables = similarity_table(
        MEASURES, LAYERS, nets[2], statistics=statistics_of_units(), nulls=NULLS, threads=2
    )
    rows = tables.similarity.set_index(["layer_a", "measure", "direction", "parameter"])
    cka = rows.xs("cka", level="measure")
    assert cka[["null_rotation", "p_rotation"]].isna().all(axis=None)
    assert (cka["value"] > cka["null_images_high"]).all()
    np.testing.assert_allclose(cka["p_images"], 1 / 21)
    semi = rows.xs(("semi_mean", "correlation"), level=("measure", "parameter"))
    # All units of b are the same as some of a, but the noise of its own lies along them, too.
    shared = semi.xs("ab", level="direction")
    assert (shared["value"] > shared["null_rotation_high"]).all()
    assert (semi["null_rotation"] > semi["null_images"]).all()
    np.testing.assert_allclose(shared["p_rotation"], 1 / 20)
    # Two draws have a mean and an end, but no p.
    few = rows.xs("mutual_information", level="parameter")
    assert few[["null_rotation", "null_images", "null_images_high"]].notna().all(axis=None)
    assert few["p_images"].isna().all()
    assert rows[["null_untrained", "null_untrained_one"]].isna().all(axis=None)
    significance, draws = significance_tables(tables.statistics, tables.draws)
    assert list(significance)[-len(NUMBERS) :] == NUMBERS
    assert set(significance["layer"]) == {*LAYERS, "all"}
    by_kind = draws.query("statistic == 'unmatched' and layer == 'conv1' and direction == 'ab'")
    assert by_kind.groupby("null").size().to_dict() == {"rotation": 19, "images": 20}


def test_draws_can_be_watched(nets):
    matches = NullMatches()
    similarity_table(MEASURES, LAYERS, nets[2], nulls=NULLS, watch=matches.watch)
    table = matches.table()
    assert set(table["null"]) == {"rotation", "images"}


def test_without_draws_asked_for_there_is_no_chance(nets):
    table = similarity_table(MEASURES, LAYERS, nets[2]).similarity
    assert table.filter(regex="null_|p_").isna().all(axis=None)


def controls(folder, a, b, untrained_a, untrained_b, stores):
    """Add what untrained nets show: statistics of two blocks, and correlations by half."""
    cut = Cut.of(IMAGES, 2)
    paths, recorded = [], []
    for net, layers in (("a", untrained_a), ("b", untrained_b)):
        recorded.append(write_store(folder / f"u{net}.zarr", layers))
        paths.append(folder / f"untrained_{net}.zarr")
        statistics.write_statistics(recorded[-1], paths[-1], LAYERS, blocks=2, samples=1000)
    kinds = {
        "untrained": (untrained_a, untrained_b),
        "untrained_ab": (a, untrained_b),
        "untrained_ba": (untrained_a, b),
    }
    with new_store(folder / "controls.zarr") as store:
        save(store, "image_index", np.arange(IMAGES), ("image",))
        for layer in LAYERS:
            group = store.create_group(layer)
            for name, (x, y) in kinds.items():
                moments = blocks_of(cut, x[layer].astype(float), y[layer].astype(float)).moments
                halves = np.stack([m.correlation() for m in moments]).astype(np.float32)
                save(group, name, halves, ("half", "unit_a", "unit_b"))
    return stores._replace(
        untrained_a=paths[0], untrained_b=paths[1], controls=folder / "controls.zarr",
        untrained_activations_a=recorded[0], untrained_activations_b=recorded[1],
    )  # fmt: skip


def test_untrained_nets_are_compared_with_each_other_and_with_trained_ones(nets, rng, tmp_path):
    a, b, stores = nets
    untrained = activations(rng, IMAGES, 8), activations(rng, IMAGES, 6)
    stores = controls(tmp_path, a, b, *untrained, stores)
    table = similarity_table(MEASURES, LAYERS, stores).similarity

    def value(row, x, y):
        found = evidence(x[row.layer_a].astype(float), y[row.layer_a].astype(float))
        return found.value(measure(row.measure), row.parameter, row.direction)

    for row in of_moments(table).itertuples():
        near = {"abs": 1e-5}
        assert row.null_untrained == pytest.approx(value(row, *untrained), **near)
        one = value(row, a, untrained[1]), value(row, untrained[0], b)
        assert row.null_untrained_one == pytest.approx(np.mean(one), **near)
    with_codes = table[table["parameter"] == "mutual_information"]
    assert with_codes["null_untrained_one"].notna().all()
    assert table.filter(regex="untrained.*high|p_untrained").isna().all(axis=None)


@pytest.mark.parametrize("name", ["rsa", "rsa_cosine", "cka_unbiased_flattened"])
def test_measures_of_pairs_of_images_are_compared_with_those_of_untrained_nets(
    nets, rng, tmp_path, name
):
    """As two nets that are the untrained ones would be; each store is read once."""
    a, b, stores = nets
    untrained = activations(rng, IMAGES, 8), activations(rng, IMAGES, 6)
    stores = controls(tmp_path, a, b, *untrained, stores)
    table = similarity_table([measure(name)], LAYERS, stores).similarity.set_index("layer_a")

    def alike(number, x, y):
        folder = tmp_path / str(number)
        folder.mkdir()
        found = similarity_table([measure(name)], LAYERS, write_all(folder, x, y)).similarity
        return found.set_index("layer_a")["value"]

    both = alike(0, *untrained)
    one = (alike(1, a, untrained[1]) + alike(2, untrained[0], b)) / 2
    np.testing.assert_allclose(table["null_untrained"], both[table.index], rtol=1e-12)
    np.testing.assert_allclose(table["null_untrained_one"], one[table.index], rtol=1e-12)
    assert (table["value"] > table["null_untrained"]).all()
    # Without the activations there is no such chance level, and the note says so.
    kept = stores._replace(untrained_activations_a=None, untrained_activations_b=None)
    table = similarity_table([measure(name)], LAYERS, kept).similarity
    assert table[["null_untrained", "null_untrained_one"]].isna().all(axis=None)
    assert table["note"].str.contains("null untrained: ").all()


def test_samples_of_shuffled_images_are_found_in_their_rows(rng, tmp_path):
    a, index = activations(rng, IMAGES, 8), rng.permutation(500)[:IMAGES]
    path = write_store(tmp_path / "a.zarr", a, index=index)
    statistics.write_statistics(path, tmp_path / "s.zarr", LAYERS, blocks=4, samples=1000)
    store = open_store(tmp_path / "s.zarr")
    rows = sample_rows(store, "conv1")
    assert (np.diff(rows) >= 0).all()
    np.testing.assert_array_equal(index[rows], store["conv1/sample_image"][...])


def test_stores_of_other_images_are_not_compared(nets, rng, tmp_path):
    stores = nets[2]
    other = write_store(tmp_path / "o.zarr", activations(rng, 90, 6), index=np.arange(90)[::-1])
    statistics.write_statistics(other, tmp_path / "so.zarr", LAYERS, blocks=4)
    with pytest.raises(StoreError, match="order"):
        similarity_table(MEASURES, LAYERS, stores._replace(statistics_b=tmp_path / "so.zarr"))


def test_without_measures_the_table_is_empty(nets):
    table = similarity_table([], [], nets[2]).similarity
    assert isinstance(table, pd.DataFrame)
    assert list(table) == COLUMNS
