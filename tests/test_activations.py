"""A store holds exactly what the net's ReLUs put out, or says that it does not."""

import re

import numpy as np
import pytest
import torch
import zarr

from convergent.activations import recording, samples
from convergent.nets import models
from convergent.running import stores

LAYERS = ["conv1", "conv3", "conv5", "fc6", "fc7"]


@pytest.fixture
def images():
    return torch.rand(50, 1, 16, 16, generator=torch.Generator().manual_seed(1))


def relu_outputs(net, images):
    """Oracle: run the children one by one."""
    outputs, x = {}, images
    with torch.inference_mode():
        for name, child in net.eval().named_children():
            x = child(x)
            outputs[name] = x.numpy()
    return outputs


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_store_holds_the_relu_outputs(tmp_path, small_net, images, dtype):
    recording.record(small_net, images, LAYERS, tmp_path / "a.zarr", dtype=dtype, batch_size=7)
    store = recording.open_store(tmp_path / "a.zarr")
    expected = relu_outputs(small_net, images)
    for layer in LAYERS:
        values = expected[layer]
        values = values.transpose(0, 2, 3, 1) if values.ndim == 4 else values
        assert store[layer].dtype == dtype
        np.testing.assert_allclose(store[layer][...], values.astype(dtype), rtol=2e-3, atol=1e-6)
        assert store[layer][...].min() == 0
    names = store["conv1"].metadata.dimension_names
    assert names == ("image", "y", "x", "unit")
    assert store["fc6"].metadata.dimension_names == ("image", "unit")
    np.testing.assert_array_equal(store["image_index"][...], np.arange(50))


def test_batches_and_shards_do_not_matter(tmp_path, small_net, images, monkeypatch):
    recording.record(small_net, images, LAYERS, tmp_path / "a.zarr", dtype="float32")
    monkeypatch.setattr(stores, "CHUNK_BYTES", 4000)
    monkeypatch.setattr(stores, "SHARD_BYTES", 16_000)
    batches = ((part, "labels") for part in images.split(9))
    recording.record(
        small_net,
        batches,
        LAYERS,
        tmp_path / "b.zarr",
        dtype="float32",
        image_index=np.arange(100, 150),
    )
    a, b = (recording.open_store(tmp_path / f"{name}.zarr") for name in "ab")
    assert b["conv1"].shards[0] < 50
    for layer in LAYERS:
        np.testing.assert_allclose(a[layer][...], b[layer][...], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(b["image_index"][...], np.arange(100, 150))


def test_arrays_are_sharded_compressed_and_checksummed(tmp_path, small_net, images):
    recording.record(small_net, images, ["conv1"], tmp_path / "a.zarr")
    array = recording.open_store(tmp_path / "a.zarr")["conv1"]
    assert array.metadata.zarr_format == 3
    assert array.shards is not None
    assert [type(c).__name__ for c in array.compressors] == ["ZstdCodec", "Crc32cCodec"]


def test_an_incomplete_store_is_refused(tmp_path):
    zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    with pytest.raises(stores.StoreError, match=r"a\.zarr: incomplete"):
        recording.open_store(tmp_path / "a.zarr")
    with pytest.raises(stores.StoreError, match=r"b\.zarr: there is no Zarr group"):
        recording.open_store(tmp_path / "b.zarr")


def test_a_failed_recording_leaves_what_was_there(tmp_path, small_net, images):
    store = tmp_path / "a.zarr"
    recording.record(small_net, images, ["fc6"], store)
    before = recording.open_store(store)["fc6"][...]
    for wrong in (images[:3], np.zeros((60, 1, 16, 16), np.float32)):
        with pytest.raises(ValueError, match="image_index names"):
            recording.record(small_net, wrong, ["fc6"], store, image_index=np.arange(50))
    np.testing.assert_array_equal(recording.open_store(store)["fc6"][...], before)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_activations_too_large_for_float16_name_layer_and_remedy(tmp_path, small_net, images):
    with pytest.raises(
        recording.RecordingError, match=r"layer conv1: .* float16; set activations.dtype"
    ):
        recording.record(small_net, 1e6 * images, LAYERS, tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()
    recording.record(small_net, 1e6 * images, LAYERS, tmp_path / "a.zarr", dtype="float32")


@pytest.mark.parametrize(("sign", "way"), [(1, "up to"), (-1, "down to")])
def test_values_beyond_float16_are_refused_on_either_side(tmp_path, sign, way):
    """A layer that is no ReLU's, in the place of one."""

    class Passing(torch.nn.ReLU):
        def forward(self, x):
            return x

    net = torch.nn.Sequential(torch.nn.Flatten(), Passing())
    x = torch.rand(10, 1, 2, 2) + 1
    x[7, 0, 1, 1] = sign * 1e6
    message = rf"layer 1: activations {way} -?1e\+06 do not fit into float16"
    with pytest.raises(recording.RecordingError, match=message):
        recording.record(net, x, ["1"], tmp_path / "a.zarr")
    recording.record(net, x, ["1"], tmp_path / "a.zarr", dtype="float32")
    x[7, 0, 1, 1] = -torch.inf
    with pytest.raises(recording.RecordingError, match="layer 1: activations are NaN or inf"):
        recording.record(net, x, ["1"], tmp_path / "b.zarr", dtype="float32")


@pytest.mark.parametrize("units", [slice(None), slice(3, 4)])
def test_units_too_small_for_float16_are_kept_in_float32(tmp_path, caplog, units):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(1568, 16), torch.nn.ReLU(),
    )  # fmt: skip
    with torch.no_grad():
        net[3].weight[units] *= 1e-6
        net[3].bias[units] = 0
    x = torch.randn(100, 1, 16, 16)
    recording.record(net, x, ["1", "4"], tmp_path / "a.zarr")
    store = recording.open_store(tmp_path / "a.zarr")
    assert (store["1"].dtype, store["4"].dtype) == (np.float16, np.float32)
    number = len(range(16)[units])
    assert f"too few digits for {number} of its 16 units" in caplog.text
    with torch.inference_mode():
        expected = net(x).numpy()
    # float32 sums of 1568 products, each unit on its own scale.
    scale = expected.max(axis=0)
    np.testing.assert_allclose(store["4"][...] / scale, expected / scale, atol=1e-5)


@pytest.mark.parametrize(("mean", "std"), [(1, 6e-6), (10, 0.01), (1000, 1), (-5, 1e-3)])
def test_units_that_vary_little_beside_their_mean_are_kept_in_float32(tmp_path, mean, std):
    """As in an untrained net whose biases are 1."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LeakyReLU(1))
    net[1].__class__ = type("Passing", (torch.nn.ReLU,), {"forward": lambda self, x: x})
    x = mean + std * torch.randn(200, 1, 2, 3, generator=torch.Generator().manual_seed(0))
    recording.record(net, x, ["1"], tmp_path / "a.zarr", batch_size=50)
    array = recording.open_store(tmp_path / "a.zarr")["1"]
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array[...], x.flatten(1).numpy())


@pytest.mark.parametrize("units", [1, 200])
def test_what_later_batches_show_is_told(tmp_path, caplog, units):
    """An error for a layer, a warning for one unit of many."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU())
    x = torch.rand(200, 1, 1, 200)
    x[..., :units] = 1e-7 * torch.rand(200, 1, 1, units)
    x[:50] = 0
    if units == 1:
        recording.record(net, x, ["1"], tmp_path / "a.zarr", batch_size=50)
        assert "too few digits for 1 of its 200 units" in caplog.text
        return
    with pytest.raises(recording.RecordingError, match=r"200 of its 200 .*dtype: float32"):
        recording.record(net, x, ["1"], tmp_path / "a.zarr", batch_size=50)
    assert not list(tmp_path.iterdir())


def test_buffers_that_a_net_writes_are_given_back(tmp_path):
    class Writing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.relu = torch.nn.Linear(4, 5), torch.nn.ReLU()
            self.register_buffer("seen", torch.zeros(()))
            self.register_buffer("last", torch.zeros(4))
            self.table = None

        def forward(self, x):
            self.seen += len(x)
            self.last = x[0] * 2
            if self.table is None:
                self.table = torch.ones(5)
            return self.relu(self.linear(x)) * self.table

    net, x = Writing(), torch.randn(20, 4)
    recording.record(net, x, ["relu"], tmp_path / "a.zarr")
    assert net.seen == 0
    assert not net.last.any()
    net(x).sum().backward()  # nothing that inference left behind stands in the way


def test_a_net_is_given_back_as_it_was_found(tmp_path, small_net, images):
    small_net.train()
    small_net.drop6.eval()
    modes = [module.training for module in small_net.modules()]
    strides = [p.stride() for p in small_net.parameters()]
    places = [p.data_ptr() for p in small_net.parameters()]
    recording.record(small_net, images, ["conv1"], tmp_path / "a.zarr")
    models.layers(small_net, images[:1])
    with pytest.raises(recording.RecordingError):
        recording.record(small_net, images * 1e6, ["conv1"], tmp_path / "a.zarr")
    assert [module.training for module in small_net.modules()] == modes
    assert [p.stride() for p in small_net.parameters()] == strides
    assert [p.data_ptr() for p in small_net.parameters()] == places


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_nets_of_other_precision_are_given_images_of_it(tmp_path, small_net, images, kind):
    recording.record(small_net, images, LAYERS, tmp_path / "a.zarr", dtype="float32")
    recording.record(small_net.to(kind), images, LAYERS, tmp_path / "b.zarr", dtype="float32")
    assert all(p.dtype == kind for p in small_net.parameters())
    a, b = (recording.open_store(tmp_path / f"{name}.zarr") for name in "ab")
    for layer in LAYERS:
        # Weights and every sum in between are rounded to the net's own type.
        atol = 30 * max(torch.finfo(kind).eps, 1e-7) * a[layer][...].max()
        np.testing.assert_allclose(b[layer][...], a[layer][...], atol=atol)


def test_a_full_disk_stops_the_recording(small_disk, caplog, monkeypatch):
    monkeypatch.setattr(stores, "SHARD_BYTES", 10**6)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU())
    with pytest.raises(stores.DiskFullError, match=r"a\.zarr: its disk is full") as error:
        recording.record(net, torch.rand(10_000, 1, 50, 50), ["1"], small_disk / "a.zarr")
    # 50 MB, of which little more than the 8 of the disk were written.
    assert 35 < int(re.search(r"about (\d+) MB before", str(error.value))[1]) < 42
    assert "activations.images" in str(error.value)
    assert "0.05 GB of activations may not fit" in caplog.text
    assert not list(small_disk.iterdir())


def test_no_image_or_layer_is_mixed_up_while_others_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "CHUNK_BYTES", 40)
    monkeypatch.setattr(stores, "SHARD_BYTES", 120)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU(), torch.nn.ReLU(inplace=True))
    images = torch.arange(500.0).reshape(500, 1, 1, 1)
    recording.record(net, images, ["1", "2"], tmp_path / "a.zarr", batch_size=7)
    store = recording.open_store(tmp_path / "a.zarr")
    assert store["1"].shards[0] < 100
    for layer in ("1", "2"):
        np.testing.assert_array_equal(store[layer][...], np.arange(500.0)[:, None])


def test_an_error_of_the_writing_thread_reaches_the_caller(
    tmp_path, small_net, images, monkeypatch
):
    def fail(self, rows, values):
        raise OSError("the disk is gone")

    monkeypatch.setattr(zarr.Array, "__setitem__", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        recording.record(small_net, images, LAYERS, tmp_path / "a.zarr")
    assert not list(tmp_path.iterdir())


def test_a_loader_knows_how_many_images_it_has(tmp_path, small_net, images):
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images), 20)
    recording.record(small_net, loader, ["fc7"], tmp_path / "a.zarr")
    assert recording.open_store(tmp_path / "a.zarr")["fc7"].shape == (50, 9)


def test_bare_batches_need_an_index(tmp_path, small_net, images):
    for batches in (list(images.split(9)), iter(images.split(9))):
        with pytest.raises(ValueError, match="batches need image_index"):
            recording.record(small_net, batches, ["fc7"], tmp_path / "a.zarr")


def test_a_layer_that_is_not_there_is_named(tmp_path, small_net, images):
    with pytest.raises(KeyError, match="no place 'conv9'; did you mean conv5"):
        recording.record(small_net, images, ["conv9"], tmp_path / "a.zarr")


def test_a_damaged_chunk_is_found_and_named(tmp_path, small_net, images):
    recording.record(small_net, images, ["conv1"], tmp_path / "a.zarr")
    shard = next(p for p in (tmp_path / "a.zarr/conv1/c").rglob("*") if p.is_file())
    content = bytearray(shard.read_bytes())
    content[100] ^= 0xFF
    shard.write_bytes(content)
    array = recording.open_store(tmp_path / "a.zarr")["conv1"]
    with pytest.raises(stores.StoreError, match=r"a\.zarr/conv1: rows 0 to 50 cannot be read"):
        samples.samples(array, 0, 50)


def test_samples_are_positions_of_images(tmp_path, small_net, images):
    recording.record(small_net, images, ["conv1", "fc7"], tmp_path / "a.zarr")
    store = recording.open_store(tmp_path / "a.zarr")
    whole = store["conv1"][...]
    np.testing.assert_array_equal(
        samples.samples(store["conv1"], 10, 12), whole[10:12].reshape(-1, 4)
    )
    assert samples.samples(store["fc7"], 0, 50).shape == (50, 9)


def test_random_positions_depend_on_seed_and_image_alone():
    images = np.arange(40)
    draw = samples.random_positions(3, images, 100, 10)
    assert draw.shape == (40, 10)
    assert all(len(set(row)) == 10 for row in draw)
    assert draw.min() >= 0
    assert draw.max() < 100
    np.testing.assert_array_equal(draw[7:9], samples.random_positions(3, images[7:9], 100, 10))
    assert (draw != samples.random_positions(4, images, 100, 10)).any()


def test_drawn_positions_alone_are_kept(tmp_path, small_net, images):
    index = np.arange(50) * 3
    for name, positions in (("all", None), ("some", 5)):
        recording.record(
            small_net, images, ["conv1", "conv2", "fc6"], tmp_path / name, image_index=index,
            positions=positions, seed=8, batch_size=7,
        )  # fmt: skip
    whole, part = (recording.open_store(tmp_path / name) for name in ("all", "some"))
    for layer, width in (("conv1", 16), ("conv2", 7)):
        values = whole[layer][...]
        assert part[layer].metadata.dimension_names == ("image", "position", "unit")
        drawn = samples.random_positions(8, index, width * width, 5)
        y, x = np.divmod(drawn, width)
        np.testing.assert_array_equal(part[layer][...], values[np.arange(50)[:, None], y, x])
        places = samples.Places.of(part, layer)
        assert places.width == width
        np.testing.assert_array_equal(places.flat(np.array([4]), np.array([2])), drawn[4, 2])
    np.testing.assert_array_equal(part["fc6"][...], whole["fc6"][...])
    assert samples.Places.of(part, "fc6") == (1, None)


def test_recording_takes_any_net_with_relu_modules(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    x = torch.randn(8, 4)
    assert models.layers(net, x) == ["1"]
    recording.record(net, x, ["1"], tmp_path / "a.zarr", dtype="float32")
    expected = net[:2](x).detach().numpy()
    np.testing.assert_allclose(recording.open_store(tmp_path / "a.zarr")["1"][...], expected)


def test_a_relu_that_runs_twice_has_two_names(tmp_path, images):
    """As in the bottlenecks of ResNets, where it is wider then."""

    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.narrow, self.wide = torch.nn.Conv2d(1, 3, 3), torch.nn.Conv2d(3, 5, 3, 2)
            self.relu = torch.nn.ReLU()

        def forward(self, x):
            return self.relu(self.wide(self.relu(self.narrow(x))))

    net = Twice()
    assert models.layers(net, images[:1]) == ["relu", "relu_1"]
    recording.record(net, images, ["relu", "relu_1"], tmp_path / "a.zarr", batch_size=20)
    with torch.inference_mode():
        expected = {"relu": net.narrow(images).relu(), "relu_1": net(images)}
    store = recording.open_store(tmp_path / "a.zarr")
    for name, values in expected.items():
        values = values.permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(store[name][...], values, rtol=2e-3, atol=1e-6)
