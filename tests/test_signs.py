"""Layers without a ReLU, and layers of tokens, go through every stage of a pair."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from precision import rounding
from sklearn.linear_model import Lasso
from sklearn.metrics import mutual_info_score
from test_mapping_layers import standardized
from test_mutual_information import gelu, percentile_cuts
from test_statistics import exact, flat, write_store
from torch import nn

from convergent.activations import from_nets, from_stores, recording, samples, statistics
from convergent.activations.codes import discretize
from convergent.alignment import sparse_maps
from convergent.measures.matrices import write_matrices
from convergent.measures.mutual_information import MEASURE
from convergent.running.stores import open_store

LAYERS = ["gelu", "tokens", "plain"]
IMAGES, BLOCKS = 90, 4


def signed_layers(rng, shared):
    """Activations of a map of GELUs, of tokens and of a full connection, with a stuck unit each."""
    layers = {}
    for name, common in shared.items():
        values = common @ rng.normal(size=(3, 8)) + rng.normal(size=(*common.shape[:-1], 8))
        values = gelu(values) if name == "gelu" else values
        values[..., 5] = -2.5
        layers[name] = values.astype(np.float16)
    return layers


@pytest.fixture
def pair(rng, tmp_path, monkeypatch):
    monkeypatch.setattr(from_stores, "LEAF_BYTES", 1)
    sides = {"gelu": (6, 5), "tokens": (7,), "plain": ()}
    shared = {name: rng.normal(size=(IMAGES, *s, 3)) for name, s in sides.items()}
    nets = [signed_layers(rng, shared) for _ in "ab"]
    for name, layers in zip("ab", nets, strict=True):
        store = write_store(tmp_path / f"{name}.zarr", layers, chunk_rows=7)
        statistics.write_statistics(store, tmp_path / f"s{name}.zarr", LAYERS, blocks=BLOCKS)
    stores = tmp_path / "a.zarr", tmp_path / "b.zarr"
    statistics.write_correlation(*stores, tmp_path / "c.zarr", LAYERS, blocks=BLOCKS)
    return *nets, tmp_path


def test_moments_are_numpys(pair):
    a, b, folder = pair
    within, between = (open_store(folder / name) for name in ("sa.zarr", "c.zarr"))
    for layer in LAYERS:
        x, near = flat(a[layer]), rounding(flat(a[layer]), flat(b[layer]))
        group = within[layer]
        np.testing.assert_allclose(group["mean"][...], x.mean(axis=0), atol=near)
        np.testing.assert_allclose(group["std"][...], x.std(axis=0), rtol=near)
        np.testing.assert_array_equal(np.flatnonzero(group["dead"][...]), [5])
        np.testing.assert_allclose(group["correlation"][...], exact(x, x), atol=near)
        found = between[f"{layer}/correlation"][...]
        np.testing.assert_allclose(found, exact(x, b[layer]), atol=near)


def test_information_is_that_of_percentiles_of_either_sign(pair):
    a, b, folder = pair
    stores = folder / "sa.zarr", folder / "sb.zarr"
    write_matrices(MEASURE, folder / "mi.zarr", LAYERS, *stores)
    for layer in LAYERS:
        codes = []
        for net in (a, b):
            codes.append([np.searchsorted(percentile_cuts(x), x) for x in flat(net[layer]).T])
        expected = [[mutual_info_score(i, j) for j in codes[1]] for i in codes[0]]
        found = open_store(folder / "mi.zarr")[f"{layer}/mutual_information"][...]
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert found.max() > 0.3
        assert not found[5].any()


def test_maps_are_scikit_learns(pair):
    a, b, folder = pair
    paths = (folder / name for name in ("sa.zarr", "sb.zarr", "c.zarr"))
    sparse_maps.write_mapping(folder / "m.zarr", LAYERS, [0.0, 0.01], *paths)
    for layer in LAYERS:
        x, y = standardized(a[layer]), standardized(b[layer])
        lasso = Lasso(alpha=0.01 * 8, fit_intercept=False, tol=1e-10, max_iter=100_000).fit(x, y)
        found = open_store(folder / "m.zarr")[f"{layer}/ab/weights"][1]
        np.testing.assert_allclose(found, lasso.coef_, atol=1e-3)


def test_weakest_images_are_those_of_the_store(pair):
    a, _, folder = pair
    store = open_store(folder / "sa.zarr")
    for layer in LAYERS:
        values = a[layer].reshape(IMAGES, -1, 8)
        order = np.argsort(values.min(axis=1), axis=0, kind="stable")[:9]
        group = store[f"{layer}/weakest"]
        assert group["value"].metadata.dimension_names == ("unit", "rank")
        np.testing.assert_array_equal(group["image"][...], order.T)
        lowest = np.take_along_axis(values.min(axis=1), order, axis=0).T
        np.testing.assert_array_equal(group["value"][...], lowest)
        for unit, rank in np.ndindex(8, 9):
            image, y, x = (group[name][unit, rank] for name in ("image", "y", "x"))
            where = {"gelu": (y, x), "tokens": (y,), "plain": ()}[layer]
            assert a[layer][(image, *where, unit)] == lowest[unit, rank]
            assert layer == "gelu" or x == 0


def test_units_that_are_rarely_negative_have_few_weakest_images(rng, tmp_path):
    values = rng.random((40, 3)).astype(np.float32)
    values[[7, 30], 1] = -0.25, -0.5
    store = write_store(tmp_path / "a.zarr", {"fc6": values, "relu": np.abs(values)})
    statistics.write_statistics(store, tmp_path / "s.zarr", ["fc6", "relu"], blocks=4)
    found = open_store(tmp_path / "s.zarr")
    group = found["fc6/weakest"]
    np.testing.assert_array_equal(group["image"][1], [30, 7, *[-1] * 7])
    np.testing.assert_array_equal(group["value"][1], [-0.5, -0.25, *[np.nan] * 7])
    assert np.isnan(group["value"][0]).all()
    assert "weakest" not in found["relu"]


class Tokens(nn.Module):
    def forward(self, x):
        return x.flatten(2).transpose(1, 2)


@pytest.fixture
def net():
    """A net of a map of GELUs, and of its tokens under a full connection."""
    torch.manual_seed(0)
    return nn.Sequential(
        OrderedDict(
            patches=nn.Conv2d(1, 6, 4, stride=4), gelu=nn.GELU(), tokens=Tokens(),
            linear=nn.Linear(6, 5), last=nn.GELU(),
        )
    )  # fmt: skip


TAPS = ["gelu", "tokens", "last"]


@pytest.mark.parametrize("batch", [9, 70])
@pytest.mark.parametrize("positions", [None, 4])
def test_stores_and_nets_agree(tmp_path, monkeypatch, net, batch, positions):
    monkeypatch.setattr(from_stores, "LEAF_BYTES", 1)
    images = torch.rand(70, 1, 16, 12, generator=torch.Generator().manual_seed(1))
    index = np.arange(70)[::-1] * 2
    options = {"image_index": index, "positions": positions}
    recording.record(net, images, TAPS, tmp_path / "a", batch_size=batch, seed=3, **options)
    chosen = {"blocks": 5, "seed": 3, "samples": 500}
    statistics.write_statistics(tmp_path / "a", tmp_path / "s", TAPS, **chosen)
    from_nets.observe(
        {"net": net}, images.split(batch), TAPS, {"net": tmp_path / "o"}, {}, **options, **chosen
    )
    recorded, stored, observed = (open_store(tmp_path / name) for name in "aso")
    for layer in TAPS:
        for name in ("codes", "edges", "values", "image_mean", "sample_image", "sample_position"):
            one, other = (store[f"{layer}/{name}"][...] for store in (stored, observed))
            np.testing.assert_array_equal(one, other)
        for side in ("strongest", "weakest"):
            for name in ("value", "image", "y", "x"):
                one, other = (store[f"{layer}/{side}/{name}"][...] for store in (stored, observed))
                np.testing.assert_array_equal(one, other)
        array = recorded[layer][...]
        assert array[0].size == (positions or 12) * array.shape[-1]
        values = array.reshape(-1, array.shape[-1])
        if len(values) <= 500:
            np.testing.assert_array_equal(stored[f"{layer}/codes"][...], discretize(values)[0])


def test_drawn_tokens_are_kept_by_their_numbers(tmp_path, net):
    images = torch.rand(20, 1, 16, 12, generator=torch.Generator().manual_seed(1))
    for name, positions in (("all", None), ("some", 4)):
        recording.record(net, images, TAPS, tmp_path / name, positions=positions, seed=3)
    whole, part = (open_store(tmp_path / name) for name in ("all", "some"))
    drawn = samples.random_positions(3, np.arange(20), 12, 4)
    for layer in ("tokens", "last"):
        values = whole[layer][...]
        assert values.shape[1] == 12
        np.testing.assert_array_equal(part[layer][...], values[np.arange(20)[:, None], drawn])
        np.testing.assert_array_equal(samples.Places.of(part, layer).positions, drawn)
    statistics.write_statistics(tmp_path / "some", tmp_path / "s", TAPS, blocks=5)
    group = open_store(tmp_path / "s")["last/weakest"]
    for unit, rank in np.ndindex(5, 9):
        image, y, x = (group[name][unit, rank] for name in ("image", "y", "x"))
        if image < 0:  # fewer images than nine drive it below zero
            continue
        assert whole["last"][image, y, unit] == group["value"][unit, rank]
        assert y in drawn[image]
        assert x == 0


def test_layouts_are_recorded(tmp_path, net):
    images = torch.rand(30, 1, 16, 12, generator=torch.Generator().manual_seed(1))
    places = {
        "map": {"place": "tokens", "map": [4, 3]},
        "rest": {"place": "last", "skip_tokens": 2, "unit_axis": -1},
        "half": {"place": "gelu", "grid": [2, 1]},
        "mean": {"place": "last", "grid": "mean"},
    }
    recording.record(net, images, list(places), tmp_path / "a", places=places, dtype="float32")
    recording.record(net, images, TAPS, tmp_path / "b", dtype="float32")
    laid, plain = (open_store(tmp_path / name) for name in "ab")
    maps, last = plain["gelu"][...], plain["last"][...]
    expected = {
        "map": plain["tokens"][...].reshape(30, 4, 3, 6),
        "rest": last[:, 2:],
        "half": maps.reshape(30, 2, 2, 3, 6).mean(axis=(2, 3))[:, :, None],
        "mean": last.mean(axis=1),
    }
    for layer, values in expected.items():
        np.testing.assert_allclose(laid[layer][...], values, rtol=1e-6, atol=1e-7)
    statistics.write_statistics(tmp_path / "a", tmp_path / "s", list(places), blocks=4)
    group = open_store(tmp_path / "s")["map/strongest"]
    where = [group[name][...] for name in ("image", "y", "x")]
    found = laid["map"][...][(*where, np.arange(6)[:, None])]
    np.testing.assert_array_equal(found, group["value"][...])
