"""A store holds exactly what the net's ReLUs put out, or says that it does not."""

import numpy as np
import pytest
import torch
import zarr

from convergent import activations, models, stores

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
    activations.record(small_net, images, LAYERS, tmp_path / "a.zarr", dtype=dtype, batch_size=7)
    store = activations.open_store(tmp_path / "a.zarr")
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
    activations.record(small_net, images, LAYERS, tmp_path / "a.zarr", dtype="float32")
    monkeypatch.setattr(stores, "CHUNK_BYTES", 4000)
    monkeypatch.setattr(stores, "SHARD_BYTES", 16_000)
    batches = ((part, "labels") for part in images.split(9))
    activations.record(
        small_net,
        batches,
        LAYERS,
        tmp_path / "b.zarr",
        dtype="float32",
        image_index=np.arange(100, 150),
    )
    a, b = (activations.open_store(tmp_path / f"{name}.zarr") for name in "ab")
    assert b["conv1"].shards[0] < 50
    for layer in LAYERS:
        np.testing.assert_allclose(a[layer][...], b[layer][...], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(b["image_index"][...], np.arange(100, 150))


def test_arrays_are_sharded_compressed_and_checksummed(tmp_path, small_net, images):
    activations.record(small_net, images, ["conv1"], tmp_path / "a.zarr")
    array = activations.open_store(tmp_path / "a.zarr")["conv1"]
    assert array.metadata.zarr_format == 3
    assert array.shards is not None
    assert [type(c).__name__ for c in array.compressors] == ["ZstdCodec", "Crc32cCodec"]


def test_an_incomplete_store_is_refused(tmp_path):
    zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    with pytest.raises(stores.StoreError, match=r"a\.zarr: incomplete"):
        activations.open_store(tmp_path / "a.zarr")
    with pytest.raises(stores.StoreError, match=r"b\.zarr: no Zarr group"):
        activations.open_store(tmp_path / "b.zarr")


def test_a_failed_recording_leaves_what_was_there(tmp_path, small_net, images):
    store = tmp_path / "a.zarr"
    activations.record(small_net, images, ["fc6"], store)
    before = activations.open_store(store)["fc6"][...]
    for wrong in (images[:3], np.zeros((60, 1, 16, 16), np.float32)):
        with pytest.raises(ValueError, match="image_index names"):
            activations.record(small_net, wrong, ["fc6"], store, image_index=np.arange(50))
    np.testing.assert_array_equal(activations.open_store(store)["fc6"][...], before)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_activations_too_large_for_float16_name_layer_and_remedy(tmp_path, small_net, images):
    with pytest.raises(
        activations.RecordingError, match=r"layer conv1: .* float16; set recording.dtype"
    ):
        activations.record(small_net, 1e6 * images, LAYERS, tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()
    activations.record(small_net, 1e6 * images, LAYERS, tmp_path / "a.zarr", dtype="float32")


def test_a_loader_knows_how_many_images_it_has(tmp_path, small_net, images):
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images), 20)
    activations.record(small_net, loader, ["fc7"], tmp_path / "a.zarr")
    assert activations.open_store(tmp_path / "a.zarr")["fc7"].shape == (50, 9)


def test_bare_batches_need_an_index(tmp_path, small_net, images):
    for batches in (list(images.split(9)), iter(images.split(9))):
        with pytest.raises(ValueError, match="batches need image_index"):
            activations.record(small_net, batches, ["fc7"], tmp_path / "a.zarr")


def test_a_layer_that_is_not_there_is_named(tmp_path, small_net, images):
    with pytest.raises(KeyError, match="no layer 'conv9'; it has conv1, conv2"):
        activations.record(small_net, images, ["conv9"], tmp_path / "a.zarr")


def test_a_damaged_chunk_is_found_and_named(tmp_path, small_net, images):
    activations.record(small_net, images, ["conv1"], tmp_path / "a.zarr")
    shard = next(p for p in (tmp_path / "a.zarr/conv1/c").rglob("*") if p.is_file())
    content = bytearray(shard.read_bytes())
    content[100] ^= 0xFF
    shard.write_bytes(content)
    array = activations.open_store(tmp_path / "a.zarr")["conv1"]
    with pytest.raises(stores.StoreError, match=r"a\.zarr/conv1: rows 0 to 50 cannot be read"):
        activations.samples(array, 0, 50)


def test_samples_are_positions_of_images(tmp_path, small_net, images):
    activations.record(small_net, images, ["conv1", "fc7"], tmp_path / "a.zarr")
    store = activations.open_store(tmp_path / "a.zarr")
    whole = store["conv1"][...]
    np.testing.assert_array_equal(
        activations.samples(store["conv1"], 10, 12), whole[10:12].reshape(-1, 4)
    )
    positions = np.array([[0, 17], [255, 3]])
    np.testing.assert_array_equal(
        activations.samples(store["conv1"], 10, 12, positions),
        [whole[10, 0, 0], whole[10, 1, 1], whole[11, 15, 15], whole[11, 0, 3]],
    )
    assert activations.samples(store["fc7"], 0, 50).shape == (50, 9)


def test_random_positions_depend_on_seed_and_image_alone():
    images = np.arange(40)
    draw = activations.random_positions(3, images, 100, 10)
    assert draw.shape == (40, 10)
    assert all(len(set(row)) == 10 for row in draw)
    assert draw.min() >= 0
    assert draw.max() < 100
    np.testing.assert_array_equal(draw[7:9], activations.random_positions(3, images[7:9], 100, 10))
    assert (draw != activations.random_positions(4, images, 100, 10)).any()


def test_recording_takes_any_net_with_relu_modules(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    x = torch.randn(8, 4)
    assert models.layers(net, x) == ["1"]
    activations.record(net, x, ["1"], tmp_path / "a.zarr", dtype="float32")
    expected = net[:2](x).detach().numpy()
    np.testing.assert_allclose(activations.open_store(tmp_path / "a.zarr")["1"][...], expected)
