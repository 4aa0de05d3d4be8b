"""No number comes out of nothing: dead units, equal images, overflow, cancellation, NaN."""

from functools import partial, reduce

import numpy as np
import pandas as pd
import pytest
import torch
from precision import rounding

from convergent.activations import moments, recording, statistics
from convergent.activations.moments import Moments
from convergent.alignment import clustering, sparse_maps
from convergent.alignment.cluster_tables import cluster_tables
from convergent.measures.matching import match_table
from convergent.measures.matrices import write_matrices
from convergent.measures.mutual_information import MEASURE
from convergent.nets import models
from convergent.running.stores import StoreError, open_store

LAYERS = ["conv1", "conv4", "fc6", "fc7"]
DECAYS = [0, 0.01, 0.1]


def analyse(folder, recorded):
    """All that is made of the activation stores of a pair, as the workflow does."""
    for net in "ab":
        store = folder / f"statistics_{net}.zarr"
        statistics.write_statistics(recorded[net], store, LAYERS, blocks=4)
    a, b = (folder / f"statistics_{net}.zarr" for net in "ab")
    between = folder / "correlation.zarr"
    statistics.write_correlation(recorded["a"], recorded["b"], between, LAYERS, blocks=4)
    write_matrices(MEASURE, folder / "information.zarr", LAYERS, a, b)
    sparse_maps.write_mapping(folder / "mapping.zarr", LAYERS, DECAYS, a, b, between)
    clustering.write_hac(folder / "hac.zarr", LAYERS, folder / "mapping.zarr", 0.1)
    chosen = dict.fromkeys(LAYERS, 3)
    return cluster_tables("a-b", chosen, 0.05, 0.3, 0, a, b, between)


def everything(folder):
    """Every array of every store below a folder, by its path."""
    found = {}
    for path in sorted(folder.glob("*.zarr")):
        store = open_store(path)
        arrays = [name for name, entry in store.members(max_depth=None) if hasattr(entry, "shape")]
        found |= {f"{path.stem}/{name}": store[name][...] for name in arrays}
    return found


def damped(net, layer, units):
    """The net with units of a layer that never fire."""
    with torch.no_grad():
        convolution = net.get_submodule(layer)[0]
        convolution.weight[units], convolution.bias[units] = 0, -1
    return net


@pytest.mark.parametrize("where", ["one layer", "everywhere", "one net"])
def test_dead_units_and_layers_are_zeros_never_nan(tmp_path, small_net, where):
    """A whole layer that is dead in both nets, all but one unit, or all of one net."""
    images = torch.rand(60, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    dead = {"one layer": ["fc6"], "everywhere": LAYERS, "one net": LAYERS}[where]
    recorded = {net: tmp_path / f"recorded_{net}.zarr" for net in "ab"}
    for net, path in recorded.items():
        torch.manual_seed(ord(net))
        for module in small_net.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        if net == "a" or where != "one net":
            for layer in dead:
                damped(small_net, layer, slice(None))
        recording.record(small_net, images, LAYERS, path)
    tables = analyse(tmp_path, recorded)
    arrays = everything(tmp_path)
    for name, values in arrays.items():
        if "strongest" not in name and "edges" not in name:
            assert np.isfinite(values.astype(float)).all(), name
    for table in tables:
        assert np.isfinite(table.select_dtypes("number")).all(axis=None)
    for layer in dead:
        assert arrays[f"statistics_a/{layer}/dead"].all()
        assert not arrays[f"correlation/{layer}/correlation"].any()
        assert not arrays[f"information/{layer}/mutual_information"].any()
        assert not arrays[f"mapping/{layer}/ab/weights"].any()
    for layer in LAYERS:
        table = match_table(arrays[f"correlation/{layer}/correlation"], layer, "correlation")
        assert table["value"].between(-1, 1).all()


def varying(net, images, layers):
    """Units that vary over equal images of one batch: some processors round its rows unlike."""
    found = {}
    with models.evaluating(net, "cpu", channels_last=True), torch.no_grad():
        hooks = [
            net.get_submodule(layer).register_forward_hook(
                lambda module, given, output, layer=layer: found.update({layer: output.clone()})
            )
            for layer in layers
        ]
        net(images)
    for hook in hooks:
        hook.remove()
    return {layer: (values != values[0]).any(dim=0).numpy() for layer, values in found.items()}


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_equal_images_leave_fully_connected_units_dead(tmp_path, small_net, dtype):
    """Also where batches are of unlike size: recording adds no variation to that of the net."""
    image = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    images = image.expand(90, 1, 16, 16).contiguous()
    recorded, live = {net: tmp_path / f"recorded_{net}.zarr" for net in "ab"}, {}
    for net, size in zip("ab", (64, 27), strict=True):
        recording.record(small_net, images, LAYERS, recorded[net], batch_size=size, dtype=dtype)
        live[net] = varying(small_net, images[:size], ("fc6", "fc7"))
    analyse(tmp_path, recorded)
    arrays = everything(tmp_path)
    for layer in ("fc6", "fc7"):
        for net in "ab":
            mean, std = (arrays[f"statistics_{net}/{layer}/{of}"] for of in ("mean", "std"))
            assert arrays[f"statistics_{net}/{layer}/dead"][~live[net][layer]].all()
            assert not std[~live[net][layer]].any()
            assert (std <= 4 * np.finfo(np.float32).eps * np.abs(mean).max()).all()
        dead = np.ix_(~live["a"][layer], ~live["b"][layer])
        assert not arrays[f"correlation/{layer}/correlation"][dead].any()
    assert arrays["correlation/conv1/correlation"].any()


def test_one_image_is_refused_by_name(tmp_path, small_net):
    recording.record(small_net, torch.rand(1, 1, 16, 16), LAYERS, tmp_path / "a.zarr")
    with pytest.raises(StoreError, match=r"a\.zarr/conv1: 1 images cannot make 2 blocks"):
        statistics.write_statistics(tmp_path / "a.zarr", tmp_path / "s.zarr", LAYERS, blocks=2)
    assert not (tmp_path / "s.zarr").exists()


def test_one_sample_makes_every_unit_dead(rng):
    found = Moments.of(rng.normal(size=(1, 3)), rng.normal(size=(1, 4)))
    assert not found.correlation().any()
    assert not found.var_x.any()


def test_images_that_are_not_scaled_overflow_float16_and_say_so(tmp_path, small_net):
    """As where 8-bit values go into a net whose weights are made for the scale from 0 to 1."""
    images = 255 * torch.rand(30, 1, 16, 16)
    with torch.no_grad():
        small_net.get_submodule("conv1")[0].weight *= 400
    with pytest.raises(
        recording.RecordingError,
        match=r"layer conv\d: activations up to \S+ do not fit into float16; set activations.dtype",
    ):
        recording.record(small_net, images, LAYERS, tmp_path / "a.zarr")
    assert not list(tmp_path.iterdir())
    recording.record(small_net, images, LAYERS, tmp_path / "a.zarr", dtype="float32")
    assert open_store(tmp_path / "a.zarr")["conv1"][...].max() > 65_504


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_broken_net_is_not_recorded(tmp_path, small_net, value, dtype):
    with torch.no_grad():
        small_net.get_submodule("conv4")[0].bias[2] = value
    with pytest.raises(recording.RecordingError, match="layer conv4: activations are NaN or inf"):
        recording.record(small_net, torch.rand(9, 1, 16, 16), LAYERS, tmp_path / "a", dtype=dtype)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cuts", [1, 7])
@pytest.mark.parametrize("by", ["numpy", "torch"])
def test_a_mean_of_a_million_deviations_costs_no_digits(rng, monkeypatch, dtype, cuts, by):
    """Whatever the values lost when they were rounded to `dtype`."""
    if by == "torch":
        monkeypatch.setattr(moments, "_add_up", partial(moments._add_up_on, "cpu"))
    sources = rng.normal(size=(20_000, 3))
    x = (sources @ rng.normal(size=(3, 5)) + 1e6 * rng.uniform(1, 3, 5)).astype(dtype)
    y = (sources @ rng.normal(size=(3, 4)) - 1e6).astype(dtype)
    parts = zip(np.array_split(x, cuts), np.array_split(y, cuts), strict=True)
    found = reduce(Moments.merge, [Moments.of(*part) for part in parts]).correlation()
    x, y = (z.astype(float) - z.astype(float).mean(axis=0) for z in (x, y))
    expected = x.T @ y / np.sqrt(np.outer((x**2).sum(axis=0), (y**2).sum(axis=0)))
    np.testing.assert_allclose(found, expected, atol=rounding(x, y))


@pytest.mark.slow
@pytest.mark.parametrize("way", [{"batch_size": 7}, {"threads": 2}])
def test_batches_and_threads_change_no_more_than_rounding(tmp_path, small_net, way):
    """The README promises that correlations agree to 1e-5."""
    way = {"threads": 1, "batch_size": 128} | way
    images = torch.rand(80, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    before, found = torch.get_num_threads(), []
    try:
        for threads, batch_size in ((1, 128), (1, 128), (way["threads"], way["batch_size"])):
            folder = tmp_path / str(len(found))
            torch.set_num_threads(threads)
            recorded = {net: folder / f"recorded_{net}.zarr" for net in "ab"}
            for seed, path in enumerate(recorded.values()):
                options = {"batch_size": batch_size, "dtype": "float32"}
                options["identity"] = np.arange(80)
                recording.record(small_net, images.roll(seed, 2), LAYERS, path, **options)
            tables = analyse(folder, recorded)
            found.append((everything(folder), tables))
    finally:
        torch.set_num_threads(before)
    (first, tables), (again, tables_again), (other, _) = found
    for name, values in first.items():
        np.testing.assert_array_equal(again[name], values)
        if name.endswith(("/correlation", "/mean", "/std")):
            np.testing.assert_allclose(other[name], values, atol=1e-5)
    for one, two in zip(tables, tables_again, strict=True):
        pd.testing.assert_frame_equal(one, two, check_exact=True)
