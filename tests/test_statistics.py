"""Statistics streamed from stores equal those of the whole arrays."""

import tracemalloc

import numpy as np
import pytest
from precision import rounding

from convergent.activations import from_stores, statistics
from convergent.activations.blocks import half_correlations
from convergent.activations.codes import discretize
from convergent.measures.histograms import correction, mutual_information
from convergent.measures.matrices import write_matrices
from convergent.measures.mutual_information import MEASURE
from convergent.running.stores import StoreError, create, new_store, open_store, save

LAYERS = ["conv1", "fc6"]


def write_store(path, layers, index=None, chunk_rows=None):
    with new_store(path) as group:
        for layer, data in layers.items():
            names = {2: (), 3: ("token",), 4: ("y", "x")}[data.ndim]
            names = ("image", *names, "unit")
            array = create(group, layer, data.shape, data.dtype, names, chunk_rows=chunk_rows)
            array[...] = data
        index = np.arange(len(data)) if index is None else index
        save(group, "image_index", index, ("image",))
    return path


def activations(rng, images, units, share=None):
    conv = np.maximum(rng.normal(size=(images, 6, 5, units)), 0)
    fc = np.maximum(rng.normal(size=(images, 2 * units)), 0)
    if share is not None:
        conv[..., : units // 2] += share["conv1"][..., : units // 2].astype(float)
        fc[:, :units] += share["fc6"][:, :units].astype(float)
    return {"conv1": conv.astype(np.float16), "fc6": fc.astype(np.float16)}


@pytest.fixture
def pair(rng, tmp_path):
    a = activations(rng, 90, 8)
    b = activations(rng, 90, 8, share=a)
    b["conv1"][..., 3] = 0
    paths = [write_store(tmp_path / f"{n}.zarr", d, chunk_rows=7) for n, d in (("a", a), ("b", b))]
    return a, b, *paths


def flat(x):
    return x.reshape(-1, x.shape[-1]).astype(float)


def exact(x, y):
    with np.errstate(invalid="ignore"):
        joint = np.corrcoef(flat(x), flat(y), rowvar=False)
    return np.nan_to_num(joint[: x.shape[-1], x.shape[-1] :])


def test_correlation_store_holds_the_correlations(pair, tmp_path):
    a, b, store_a, store_b = pair
    statistics.write_correlation(store_a, store_b, tmp_path / "c.zarr", LAYERS, blocks=4)
    store = open_store(tmp_path / "c.zarr")
    for layer in LAYERS:
        correlation = store[f"{layer}/correlation"]
        assert correlation.dtype == np.float32
        assert correlation.metadata.dimension_names == ("unit_a", "unit_b")
        near = rounding(flat(a[layer]), flat(b[layer]))
        np.testing.assert_allclose(correlation[...], exact(a[layer], b[layer]), atol=near)
    assert not store["conv1/correlation"][:, 3].any()


def test_statistics_store_holds_mean_std_and_dead(pair, tmp_path):
    _, b, _, store_b = pair
    statistics.write_statistics(store_b, tmp_path / "s.zarr", LAYERS, blocks=4)
    store = open_store(tmp_path / "s.zarr")
    for layer in LAYERS:
        group = store[layer]
        assert group["mean"].dtype == group["std"].dtype == np.float64
        near = rounding(flat(b[layer]))
        np.testing.assert_allclose(group["mean"][...], flat(b[layer]).mean(0), rtol=near)
        np.testing.assert_allclose(group["std"][...], flat(b[layer]).std(0), rtol=near)
        np.testing.assert_array_equal(group["dead"][...], flat(b[layer]).std(0) == 0)
        correlation = group["correlation"][...]
        np.testing.assert_allclose(correlation, exact(b[layer], b[layer]), atol=near)
        np.testing.assert_array_equal(correlation.diagonal(), ~group["dead"][...])
        for half in half_correlations(group):
            np.testing.assert_array_equal(half.diagonal(), ~group["dead"][...])
    assert store["conv1/dead"][...].sum() == 1


@pytest.mark.parametrize("leaf_bytes", [1, 10**9])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_mean_of_each_image_is_kept(rng, tmp_path, monkeypatch, dtype, leaf_bytes):
    monkeypatch.setattr(from_stores, "LEAF_BYTES", leaf_bytes)
    data = {name: x.astype(dtype) for name, x in activations(rng, 90, 8).items()}
    data["tokens"] = data["conv1"].reshape(90, 30, 8) - dtype(1)
    layers = list(data)
    store = write_store(tmp_path / "a.zarr", data, chunk_rows=7)
    statistics.write_statistics(store, tmp_path / "s.zarr", layers, blocks=4, samples=50)
    for layer, values in data.items():
        array = open_store(tmp_path / "s.zarr")[f"{layer}/image_mean"]
        assert array.dtype == np.float32
        assert array.metadata.dimension_names == ("image", "unit")
        positions = values.reshape(90, -1, values.shape[-1]).astype(float)
        # Each of 30 additions rounds, at numbers whose mean is at most that of the magnitudes.
        near = 30 * 2**-24 * np.abs(positions).mean(axis=1)
        assert (np.abs(array[...] - positions.mean(axis=1)) <= near).all()
        if layer == "fc6":
            np.testing.assert_array_equal(array[...], values)


@pytest.mark.parametrize("leaf_bytes", [1, 5000, 10**9])
def test_threads_and_leaves_do_not_matter(pair, monkeypatch, leaf_bytes):
    _, _, store_a, store_b = pair
    x, y = (open_store(s)["conv1"] for s in (store_a, store_b))
    reference = statistics.block_moments(x, y, blocks=6)
    monkeypatch.setattr(from_stores, "LEAF_BYTES", leaf_bytes)
    one, many = (statistics.block_moments(x, y, blocks=6, workers=n) for n in (1, 3))
    for a, b, c in zip(one.moments, many.moments, reference.moments, strict=True):
        np.testing.assert_array_equal(a.comoment, b.comoment)
        near = 2 * rounding(flat(x[...]), flat(y[...]))
        np.testing.assert_allclose(a.correlation(), c.correlation(), atol=near)
        assert a.count == c.count


@pytest.mark.parametrize("free", [False, True])
def test_strongest_images_are_those_of_the_store(pair, tmp_path, monkeypatch, free):
    a, _, store_a, _ = pair
    if free:
        store_a = write_store(tmp_path / "few.zarr", {k: v[:6] for k, v in a.items()})
    monkeypatch.setattr(from_stores, "LEAF_BYTES", 1)
    statistics.write_statistics(store_a, tmp_path / "s.zarr", ["conv1"], blocks=4, samples=50)
    group = open_store(tmp_path / "s.zarr")["conv1/strongest"]
    data = a["conv1"][:6] if free else a["conv1"]
    peaks = data.max(axis=(1, 2))
    order = np.argsort(-peaks, axis=0, kind="stable")[:9]
    number = len(order)
    np.testing.assert_array_equal(group["image"][:, :number], order.T)
    np.testing.assert_array_equal(group["value"][:, :number], np.take_along_axis(peaks, order, 0).T)
    for unit, rank in np.ndindex(8, number):
        image, y, x = (group[name][unit, rank] for name in ("image", "y", "x"))
        assert data[image, y, x, unit] == group["value"][unit, rank]
    assert np.isnan(group["value"][:, number:]).all()
    assert all((group[name][:, number:] == -1).all() for name in ("image", "y", "x"))


def test_memory_does_not_grow_with_the_images(rng, tmp_path, monkeypatch):
    monkeypatch.setattr(from_stores, "LEAF_BYTES", 2**18)
    peaks = []
    for images in (400, 1600):
        data = np.maximum(rng.normal(size=(images, 8, 8, 16)), 0).astype(np.float16)
        x = open_store(write_store(tmp_path / f"{images}.zarr", {"conv1": data}, chunk_rows=16))
        tracemalloc.start()
        statistics.block_moments(x["conv1"], blocks=4)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
    assert peaks[1] < data.nbytes


def test_too_few_images_for_the_blocks_are_refused(rng, tmp_path):
    x = open_store(write_store(tmp_path / "a.zarr", activations(rng, 5, 4)))["fc6"]
    with pytest.raises(ValueError, match="5 images cannot make 20 blocks"):
        statistics.block_moments(x)


def test_a_missing_shard_does_not_read_as_zeros(pair):
    _, _, store_a, _ = pair
    next(p for p in (store_a / "conv1/c").rglob("*") if p.is_file()).unlink()
    with pytest.raises(StoreError, match=r"a\.zarr/conv1: rows 0 to .*its shard c/\S+ is missing"):
        statistics.block_moments(open_store(store_a)["conv1"], blocks=4)


@pytest.mark.parametrize("binning", ["paper", "reference"])
def test_codes_are_those_of_the_drawn_samples(pair, tmp_path, binning):
    a, b, store_a, store_b = pair
    for data, store, name in ((a, store_a, "sa"), (b, store_b, "sb")):
        statistics.write_statistics(
            store, tmp_path / f"{name}.zarr", LAYERS, blocks=4, samples=700, binning=binning
        )
        group = open_store(tmp_path / f"{name}.zarr")
        for layer, count in (("conv1", 700), ("fc6", 90)):
            image = group[f"{layer}/sample_image"][...]
            position = group[f"{layer}/sample_position"][...]
            assert len(set(zip(image, position, strict=True))) == count
            drawn = data[layer].reshape(90, -1, data[layer].shape[-1])[image, position]
            codes, edges = discretize(drawn, binning)
            np.testing.assert_array_equal(group[f"{layer}/codes"][...], codes)
            np.testing.assert_array_equal(group[f"{layer}/edges"][...], edges)
            values = group[f"{layer}/values"]
            assert values.dtype == data[layer].dtype
            np.testing.assert_array_equal(values[...], drawn)
    stores = tmp_path / "sa.zarr", tmp_path / "sb.zarr"
    write_matrices(MEASURE, tmp_path / "mi.zarr", LAYERS, *stores)
    codes = [open_store(s)["conv1/codes"][...] for s in stores]
    group = open_store(tmp_path / "mi.zarr")["conv1"]
    expected = mutual_information(*codes)
    np.testing.assert_allclose(group["mutual_information"][...], expected, atol=1e-6)
    np.testing.assert_allclose(group["corrected"][...], expected - correction(*codes), atol=1e-6)
    assert not group["mutual_information"][:, 3].any()


def test_nets_sampled_elsewhere_are_refused(pair, tmp_path):
    _, _, store_a, store_b = pair
    for seed, store, name in ((0, store_a, "sa"), (1, store_b, "sb")):
        path = tmp_path / f"{name}.zarr"
        statistics.write_statistics(store, path, LAYERS, blocks=4, samples=500, seed=seed)
    with pytest.raises(StoreError, match="conv1/sample_image differ"):
        write_matrices(
            MEASURE, tmp_path / "mi.zarr", LAYERS, tmp_path / "sa.zarr", tmp_path / "sb.zarr"
        )
