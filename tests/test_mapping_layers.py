"""Maps in stores are those of the activations, held-out images and SGD's batches included."""

import numpy as np
import pandas as pd
import pytest
from test_statistics import activations, write_store

from convergent.activations import statistics
from convergent.alignment import sparse_maps
from convergent.alignment.lasso import loss
from convergent.figures.tables import mapping_table, table1
from convergent.paper import PAPER_LOSS
from convergent.running.stores import open_store

LAYERS, DECAYS, BLOCKS = ["conv1", "fc6"], [0.0, 0.001, 0.01, 0.1], 4


@pytest.fixture
def pair(rng, tmp_path):
    """Recorded nets that share units, with unequal images and a dead unit in net b."""
    a = activations(rng, 90, 8)
    b = activations(rng, 90, 8, share=a)
    b["conv1"][..., 3] = 0
    for name, layers in (("a", a), ("b", b)):
        write_store(tmp_path / f"{name}.zarr", layers, chunk_rows=7)
        statistics.write_statistics(
            tmp_path / f"{name}.zarr", tmp_path / f"s{name}.zarr", LAYERS, blocks=BLOCKS
        )
    statistics.write_correlation(
        tmp_path / "a.zarr", tmp_path / "b.zarr", tmp_path / "c.zarr", LAYERS, blocks=BLOCKS
    )
    return a, b, tmp_path


def write(folder):
    paths = (folder / name for name in ("sa.zarr", "sb.zarr", "c.zarr"))
    sparse_maps.write_mapping(folder / "m.zarr", LAYERS, DECAYS, *paths, threads=2)
    return open_store(folder / "m.zarr")


def standardized(x):
    x = x.reshape(-1, x.shape[-1]).astype(float)
    std = x.std(axis=0)
    return np.divide(x - x.mean(axis=0), std, out=np.zeros_like(x), where=std > 0)


def test_losses_are_those_of_the_activations(pair):
    a, b, folder = pair
    store = write(folder)
    for layer in LAYERS:
        for direction, source, target in (("ab", a, b), ("ba", b, a)):
            group = store[f"{layer}/{direction}"]
            x, y = standardized(source[layer]), standardized(target[layer])
            assert group["weights"].shape == (len(DECAYS), y.shape[1], x.shape[1])
            np.testing.assert_array_equal(group["decay"][...], DECAYS)
            live = y.any(axis=0)
            for step in range(len(DECAYS)):
                errors = ((y - x @ group["weights"][step].T) ** 2).mean(axis=0) / 2
                np.testing.assert_allclose(
                    group["loss"][step], np.where(live, errors, 0.5), atol=1e-6
                )
            assert group["relative_gap"][...].max() <= 1e-6


def test_held_out_losses_are_of_maps_fitted_on_the_first_half_of_the_images(pair):
    a, b, folder = pair
    store = write(folder)
    for layer in LAYERS:
        fit, held = (
            [standardized(v[layer][rows]) for v in (a, b)] for rows in (slice(45), slice(45, 90))
        )
        weights = np.linalg.lstsq(*fit)[0]
        errors = ((held[1] - held[0] @ weights) ** 2).mean(axis=0) / 2
        expected = np.where(held[1].any(axis=0), errors, 0.5)
        got = store[f"{layer}/ab/held_out_loss"][...]
        np.testing.assert_allclose(got[0], expected, atol=1e-5)
        assert (got[0] >= store[f"{layer}/ab/loss"][0] - 0.02).all()


def write_sgd(folder, **options):
    sparse_maps.write_sgd_mapping(
        folder / "sgd.zarr",
        ["fc6", "conv1"],
        DECAYS,
        (folder / "a.zarr", folder / "b.zarr"),
        (folder / "sa.zarr", folder / "sb.zarr"),
        folder / "c.zarr",
        **options,
    )
    return open_store(folder / "sgd.zarr")


def test_sgd_on_the_stores_comes_near_the_exact_maps(pair):
    """32 of 90 images a step: noisy, but near; and above the optimum, as its gap says."""
    _, _, folder = pair
    exact, by_sgd = write(folder), write_sgd(folder, iterations=1500)
    group, best = by_sgd["conv1/ab"], exact["conv1/ab"]
    assert np.abs(group["weights"][...] - best["weights"][...]).max() < 0.05
    assert (group["loss"][0] >= best["loss"][0] - 1e-9).all()
    alphas = np.array(DECAYS)[:, None] * 8
    value = group["loss"][...] + alphas * np.abs(group["weights"][...]).sum(axis=2)
    least = best["loss"][...] + alphas * np.abs(best["weights"][...]).sum(axis=2)
    np.testing.assert_allclose(group["relative_gap"][...], (value - least) / value, atol=3e-6)
    assert "ba" not in by_sgd["conv1"]


@pytest.mark.parametrize("pool", [2**28, 20_000])
def test_batches_take_every_image_once_and_both_nets_alike(pair, monkeypatch, pool):
    _, _, folder = pair
    monkeypatch.setattr(sparse_maps, "POOL_BYTES", pool)
    monkeypatch.setattr(sparse_maps, "BATCH", 7)
    a = open_store(folder / "a.zarr")["fc6"]
    known = {row.tobytes(): i for i, row in enumerate(a[...])}
    batches = sparse_maps._batches(a, a, seed=0)
    seen, drawn = [], 0
    while drawn < 77:
        x, y = next(batches)
        assert len(x) <= 7
        np.testing.assert_array_equal(x, y)
        seen += [known[row.tobytes()] for row in x]
        drawn += len(x)
    assert len(set(seen)) == len(seen)
    assert seen != sorted(seen)


def test_second_moments_of_all_images_are_the_correlations(pair):
    a, b, folder = pair
    x, y = (v["conv1"].reshape(-1, 8) for v in (a, b))
    scales = [
        (group["conv1/mean"][...], group["conv1/std"][...])
        for group in map(open_store, (folder / "sa.zarr", folder / "sb.zarr"))
    ]
    moments = sparse_maps._second_moments(x, y, *scales)
    first, second = standardized(x), standardized(y)
    for got, expected in zip(moments, (first.T @ first, first.T @ second), strict=True):
        np.testing.assert_allclose(got, expected / len(x), atol=1e-5)


def test_tables_sum_up_the_stores(pair):
    _, _, folder = pair
    store = write(folder)
    write_sgd(folder, iterations=20)
    table = mapping_table(folder / "m.zarr", LAYERS, "exact")
    columns = "layer direction solver decay loss held_out_loss nonzero_per_unit relative_gap"
    assert list(table) == columns.split()
    assert len(table) == 2 * 2 * len(DECAYS)
    row = table.query("layer == 'fc6' and direction == 'ba' and decay == 0.01").iloc[0]
    group = store["fc6/ba"]
    assert row["loss"] == group["loss"][2].mean()
    assert row["held_out_loss"] == group["held_out_loss"][2].mean()
    assert row["nonzero_per_unit"] == np.count_nonzero(group["weights"][2]) / 16
    assert row["relative_gap"] == group["relative_gap"][2].max()
    by_sgd = mapping_table(folder / "sgd.zarr", LAYERS, "sgd")
    assert list(by_sgd["layer"].unique()) == LAYERS
    assert by_sgd["held_out_loss"].isna().all()
    assert (by_sgd["nonzero_per_unit"] < 16).all()

    both = {"a-b": pd.concat([table, by_sgd]), "a-c": table.assign(loss=0.3)}
    frame = table1(both, "a-b", {"conv1": (1, 8), "fc6": (0, 16)}).set_index(["layer", "decay"])
    assert len(frame) == 2 * len(DECAYS)
    shown = frame.loc[("conv1", 0.001)]
    exact = table.query("layer == 'conv1' and direction == 'ab' and decay == 0.001")["loss"].item()
    assert shown["exact"] == exact
    assert shown["exact_live"] == pytest.approx((8 * exact - 0.5) / 7)
    back = table.query("layer == 'conv1' and direction == 'ba' and decay == 0.001")["loss"].item()
    assert shown["exact_all_pairs"] == pytest.approx((exact + back + 0.6) / 4)
    assert shown["paper"] == PAPER_LOSS["conv1"][3] == 0.172
    expected = by_sgd.query("layer == 'conv1' and decay == 0.001").iloc[0]
    assert shown["sgd"] == expected["loss"]
    assert shown["sgd_gap"] == expected["relative_gap"]
    assert np.isnan(frame.loc[("fc6", 0.1), "paper"])


def test_a_permuted_net_is_mapped_by_its_permutation(rng, tmp_path):
    a = activations(rng, 90, 8)
    order = {"conv1": rng.permutation(8), "fc6": rng.permutation(16)}
    b = {layer: a[layer][..., order[layer]] for layer in LAYERS}
    for name, layers in (("a", a), ("b", b)):
        write_store(tmp_path / f"{name}.zarr", layers)
        statistics.write_statistics(
            tmp_path / f"{name}.zarr", tmp_path / f"s{name}.zarr", LAYERS, blocks=BLOCKS
        )
    statistics.write_correlation(
        tmp_path / "a.zarr", tmp_path / "b.zarr", tmp_path / "c.zarr", LAYERS, blocks=BLOCKS
    )
    store = write(tmp_path)
    for layer in LAYERS:
        weights = store[f"{layer}/ab/weights"][2]
        np.testing.assert_array_equal(weights.argmax(axis=1), order[layer])
        assert (
            loss(weights[None], np.eye(len(weights)), np.eye(len(weights))[:, order[layer]]).max()
            < 0.02
        )
