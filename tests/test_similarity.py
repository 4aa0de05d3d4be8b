"""The table of measures of layers: a row for each, with the interval of the blocks."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from test_statistics import LAYERS, activations, write_store

from convergent.activations import statistics
from convergent.activations.moments import Moments
from convergent.inference.jackknife import jackknife
from convergent.inference.similarity import COLUMNS, similarity_table
from convergent.running.stores import StoreError


def mean_size(between, within_a, within_b):
    return np.abs(between.correlation()).mean()


def ratio(between, within_a, within_b):
    return within_a.var_x.sum() / within_b.var_x.sum()


MEASURES = [
    SimpleNamespace(name="size", symmetric=True, compute=mean_size),
    SimpleNamespace(name="ratio", symmetric=False, compute=ratio),
]


@pytest.fixture
def stores(rng, tmp_path):
    """Activations of two nets, and the stores that their similarity is computed from."""
    a = activations(rng, 90, 8)
    b = activations(rng, 90, 6, share={k: v[..., :12] for k, v in a.items()})
    paths = [write_store(tmp_path / f"{net}.zarr", data) for net, data in (("a", a), ("b", b))]
    made = [tmp_path / f"{name}.zarr" for name in ("statistics_a", "statistics_b", "correlation")]
    for path, store in zip(paths, made, strict=False):
        statistics.write_statistics(path, store, LAYERS, blocks=4)
    statistics.write_correlation(*paths, made[2], LAYERS, blocks=4)
    return a, b, made


def test_values_and_intervals_are_those_of_the_activations(stores):
    a, b, paths = stores
    table = similarity_table(MEASURES, LAYERS, *paths)
    assert list(table) == COLUMNS
    assert list(table["direction"]) == ["", "ab", "ba"] * 2
    assert (table["layer_a"] == table["layer_b"]).all()
    assert table[["parameter", "held_out"]].isna().all(axis=None)
    assert set(zip(table["n_images"], table["n_nets"], strict=True)) == {(90, 2)}
    edges = np.linspace(0, 90, 5).astype(int)
    sizes = np.diff(edges)

    def value(measure, layer, rows, turned):
        x, y = (data[layer][rows].reshape(-1, data[layer].shape[-1]) for data in (a, b))
        x, y = (y, x) if turned else (x, y)
        return measure.compute(Moments.of(x, y), Moments.of(x), Moments.of(y))

    for row in table.itertuples():
        measure = next(m for m in MEASURES if m.name == row.measure)
        turned = row.direction == "ba"
        rows = np.arange(90)
        whole = value(measure, row.layer_a, rows, turned)
        without = [
            value(measure, row.layer_a, np.delete(rows, rows[edges[i] : edges[i + 1]]), turned)
            for i in range(4)
        ]
        expected = (whole, *jackknife(whole, without, sizes))
        found = (row.value, row.standard_error, row.low, row.high)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_stores_of_other_images_are_not_compared(stores, rng, tmp_path):
    _, _, (statistics_a, _, correlation) = stores
    other = write_store(tmp_path / "o.zarr", activations(rng, 90, 6), index=np.arange(90)[::-1])
    statistics.write_statistics(other, tmp_path / "so.zarr", LAYERS, blocks=4)
    with pytest.raises(StoreError, match="order"):
        similarity_table(MEASURES, LAYERS, statistics_a, tmp_path / "so.zarr", correlation)


def test_without_measures_the_table_is_empty(stores):
    assert isinstance(similarity_table([], [], *stores[2]), pd.DataFrame)
