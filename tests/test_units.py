"""The strongest images are those of plain sorting; patches and signals are cut where they lie."""

import zlib

import numpy as np
import pandas as pd
import pytest
import torch

from convergent.activations import recording, statistics
from convergent.activations.strongest import Top
from convergent.nets import datasets, models
from convergent.running.stores import open_store
from convergent.units import pictures
from convergent.units.deconvolution import deconvolve
from convergent.units.receptive_fields import ReceptiveField, receptive_fields

LAYERS = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"]
DATA = {
    "name": "digits", "root": None, "size": 16, "mean": [0.3], "std": [0.25],
    "validation_transform": {"resize": 16}, "train_transform": {"resize": 16, "shift": 1},
}  # fmt: skip


def test_what_lies_outside_a_field_or_a_picture_is_grey(rng):
    picture = rng.integers(0, 100, size=(8, 8, 3), dtype=np.uint8)
    field = ReceptiveField(5, 2, -1)
    patch = pictures.cut(picture, field, 0, 2)
    assert patch.shape == (5, 5, 3)
    assert (patch[0] == pictures.GREY).all()
    np.testing.assert_array_equal(patch[1:], picture[:4, 3:8])
    patch = pictures.cut(picture, field, 3, 1)
    np.testing.assert_array_equal(patch[:3], picture[5:8, 1:6])
    assert (patch[3:] == pictures.GREY).all()
    patch = pictures.cut(picture, ReceptiveField(12, 4, -6), 2, 1)
    assert patch.shape == (8, 8, 3)
    np.testing.assert_array_equal(patch[2:], picture[2:])
    assert (patch[:2] == pictures.GREY).all()


@pytest.fixture
def recorded(rng, tmp_path, small_net):
    """Forty grey images of which thirty are recorded."""
    pixels = rng.integers(0, 255, size=(60, 16, 16, 1), dtype=np.uint8)
    labels = np.arange(60) % 3
    np.savez(tmp_path / "images.npz", images=pixels, labels=labels, validation=np.arange(60) >= 20)
    listing, pixels = datasets.list_arrays(
        "arrays", tmp_path / "images.npz", validation_fraction=0.5, seed=0
    )
    np.savez(tmp_path / "pixels.npz", pixels=pixels)
    images, index = datasets.load_recorded(listing, tmp_path / "pixels.npz", DATA, number=30)
    views = images.__getitems__(list(range(30)))[0]
    inputs = datasets.normalize(views, DATA["mean"], DATA["std"])
    with torch.no_grad():
        small_net.conv3.conv.bias[2] = -1e3  # a dead unit
    recording.record(small_net, inputs, LAYERS, tmp_path / "a.zarr", image_index=index)
    write_statistics(tmp_path, LAYERS)
    return tmp_path, small_net, images, index, views, inputs


def write_statistics(folder, layers, **options):
    options = {"samples": 30, "blocks": 2} | options
    statistics.write_statistics(folder / "a.zarr", folder / "s.zarr", layers, **options)


def write(recorded, layers=LAYERS, **options):
    folder, net, images, index, *_ = recorded
    arguments = (layers, folder / "s.zarr", net, images, index, DATA)
    options = {"pictures": dict.fromkeys(LAYERS)} | options
    pictures.write_units(folder / "u.zarr", *arguments, **options)
    return open_store(folder / "u.zarr")


def test_the_store_holds_patches_and_deconvolutions_of_the_strongest_images(recorded, monkeypatch):
    monkeypatch.setattr(pictures, "BATCH", 7)
    folder, net, _, index, views, inputs = recorded
    assert not np.array_equal(index, np.arange(30))
    store = write(recorded)
    fields = receptive_fields(net, LAYERS, inputs[:1])
    for layer in LAYERS:
        group = store[layer]
        top = Top.load(open_store(folder / "s.zarr")[f"{layer}/strongest"])
        np.testing.assert_array_equal(group["value"][...], top.value)
        np.testing.assert_array_equal(group["image"][...], top.image)
        np.testing.assert_array_equal(group["y"][...], top.y)
        np.testing.assert_array_equal(group["receptive_field"][...], fields[layer])
        assert group["pictured"][...].all()
        side = min(fields[layer].size, 16)
        assert group["patches"].shape == group["deconv"].shape == (*top.value.shape, side, side, 1)
        for unit in range(len(top.value)):
            row = [index.tolist().index(image) for image in top.image[unit]]
            y, x = top.y[unit], top.x[unit]
            signal = deconvolve(net, layer, inputs[row], np.full(9, unit), y, x)
            signal = signal.permute(0, 2, 3, 1).numpy()
            for rank in range(9):
                patch, deconv = group["patches"][unit, rank], group["deconv"][unit, rank]
                if top.value[unit, rank] == 0:
                    assert (patch == pictures.GREY).all()
                    assert (deconv == pictures.GREY).all()
                    continue
                picture = views[row[rank]].permute(1, 2, 0).numpy()
                np.testing.assert_array_equal(
                    patch, pictures.cut(picture, fields[layer], y[rank], x[rank])
                )
                largest = np.abs(signal[rank]).max()
                whole = 128 + 127 * signal[rank] / (largest or 1)
                expected = pictures.cut(np.round(whole), fields[layer], y[rank], x[rank])
                np.testing.assert_allclose(deconv.astype(float), expected, atol=1.01)
                # Nothing is passed back to pixels outside the field.
                assert np.abs(deconv.astype(int) - 128).max() in (126, 127, 128) or largest == 0
    assert not store["conv3/value"][2].any()


def test_filters_are_those_of_the_first_convolution(recorded):
    _, net, *_ = recorded
    store = write(recorded)
    weights = net.conv1.conv.weight.detach().permute(0, 2, 3, 1).numpy()
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_array_equal(
        store["conv1/filters"][...], np.round(128 + 127 * weights / largest)
    )
    assert [layer for layer in LAYERS if "filters" in store[layer]] == ["conv1"]


def test_filters_are_kept_whatever_the_order_of_the_layers(recorded):
    store = write(recorded, layers=["conv2", "conv1"], pictures={})
    assert store["conv1/filters"].shape == (4, 3, 3, 1)
    assert "filters" not in store["conv2"]


def test_only_the_units_asked_for_get_pictures(recorded):
    whole = {layer: write(recorded)[f"{layer}/deconv"][...] for layer in ("conv1", "fc6")}
    store = write(recorded, pictures={"conv1": [1, 3], "fc6": None})
    np.testing.assert_array_equal(store["conv1/pictured"][...], [False, True, False, True])
    for unit in (1, 3):
        np.testing.assert_array_equal(store["conv1/deconv"][unit], whole["conv1"][unit])
    np.testing.assert_array_equal(store["fc6/deconv"][...], whole["fc6"])
    assert store["fc6/pictured"][...].all()
    assert not store["conv2/pictured"][...].any()
    assert (store["conv2/image"][...] >= 0).all()


def test_other_images_than_those_recorded_are_refused(recorded):
    folder, net, images, index, *_ = recorded
    with pytest.raises(ValueError, match="images: the same images in another order"):
        write((folder, net, images, index[::-1]))
    # Of batches that know what their images are, also where the index tells nothing.
    batches = images.batches(30, DATA["mean"], DATA["std"])
    recording.record(net, batches, LAYERS, folder / "a.zarr", image_index=index)
    write_statistics(folder, LAYERS)
    write(recorded)
    images.identities = images.identities[::-1]
    with pytest.raises(ValueError, match="images: the same images in another order"):
        write(recorded)


def test_colours_keep_their_channels_and_their_scales(rng, tmp_path):
    """Three channels of unlike deviation; five images, so that places stay free."""
    torch.manual_seed(3)
    net = models.build(
        "alexnet", size=16, inputs=3, classes=2, channels=(4, 4, 4, 4, 4), fully_connected=(4, 4),
        kernel=3, stride=1, padding=1, init="kaiming",
    )  # fmt: skip
    data = {"mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.4]}
    pixels = rng.integers(0, 255, size=(5, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "pixels.npz", pixels=pixels)
    rows = pd.DataFrame({"label": 0, "crc32": [zlib.crc32(p) for p in pixels]})
    rows["path"] = [str(i) for i in range(5)]
    images = datasets.Images(rows, tmp_path / "pixels.npz", resize=16, size=16, channels=3)
    inputs = datasets.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2), **data)
    recording.record(net, inputs, ["conv1", "conv2"], tmp_path / "a.zarr")
    write_statistics(tmp_path, ["conv1", "conv2"])
    arguments = (["conv1", "conv2"], tmp_path / "s.zarr", net, images, np.arange(5), data)
    everything = {"conv1": None, "conv2": None}
    pictures.write_units(tmp_path / "u.zarr", *arguments, pictures=everything)
    store = open_store(tmp_path / "u.zarr")
    fields = receptive_fields(net, ["conv1", "conv2"], inputs[:1])
    for layer, field in fields.items():
        group = {name: array[...] for name, array in store[layer].arrays()}
        assert (group["image"][:, 5:] == -1).all()
        assert np.isnan(group["value"][:, 5:]).all()
        for unit, rank in np.argwhere(~(group["value"] > 0)):
            assert (group["patches"][unit, rank] == pictures.GREY).all()
            assert (group["deconv"][unit, rank] == pictures.GREY).all()
        for unit, rank in np.argwhere(group["value"] > 0):
            image, y, x = (group[name][unit, rank] for name in ("image", "y", "x"))
            expected = pictures.cut(pixels[image], field, y, x)
            np.testing.assert_array_equal(group["patches"][unit, rank], expected)
            signal = deconvolve(net, layer, inputs[image : image + 1], [unit], [y], [x])[0]
            signal = signal.permute(1, 2, 0).numpy() * np.array(data["std"])
            whole = np.round(128 + 127 * signal / np.abs(signal).max())
            np.testing.assert_allclose(
                group["deconv"][unit, rank].astype(float),
                pictures.cut(whole, field, y, x),
                atol=1.01,
            )
    weights = net.conv1.conv.weight.detach().permute(0, 2, 3, 1).numpy()
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    expected = np.round(128 + 127 * weights / largest)
    np.testing.assert_array_equal(store["conv1/filters"][...], expected)


class Signed(torch.nn.Module):
    """A place in the middle of a block, then one without deconvolutions."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(1, 3, 3, padding=1)
        self.second = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.third = torch.nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.third(torch.nn.functional.gelu(self.second(x) + x[:, :1]))


PLACES = {
    "sum": "add",
    "pooled": {"place": "add", "grid": [4, 4]},
    "mean": {"place": "add", "grid": "mean"},
    "last": "third",
}


@pytest.fixture
def signed(recorded):
    folder, _, images, index, views, inputs = recorded
    torch.manual_seed(1)
    net = Signed()
    recording.record(net, inputs, list(PLACES), folder / "a.zarr", places=PLACES, image_index=index)
    write_statistics(folder, list(PLACES))
    return folder, net, images, index, views, inputs


def test_places_of_operations_have_pictures_of_both_sides(signed):
    _, net, _, index, views, inputs = signed
    store = write(signed, list(PLACES), pictures=dict.fromkeys(PLACES), places=PLACES)
    sides = {"sum": (5, 1, -2), "pooled": (8, 4, -2), "mean": (16, 0, 0), "last": (7, 1, -3)}
    for layer, field in sides.items():
        np.testing.assert_array_equal(store[f"{layer}/receptive_field"][...], field)
        assert ("deconv" in store[layer]) == (layer != "last")
    assert store["last"].attrs["undeconvolved"] == "Gelu"
    field = ReceptiveField(*sides["sum"])
    weak = {name: array[...] for name, array in store["sum/weakest"].arrays()}
    unit = int(np.argmin(weak["value"][:, 0]))
    ranks = np.flatnonzero(weak["value"][unit] < 0)
    assert len(ranks)
    rows = [index.tolist().index(image) for image in weak["image"][unit, ranks]]
    y, x = (weak[name][unit, ranks] for name in "yx")
    units = np.full(len(ranks), unit)
    signals = deconvolve(net, "add", inputs[rows], units, y, x, negative=True)
    for n, rank in enumerate(ranks):
        picture = views[rows[n]].permute(1, 2, 0).numpy()
        cut = pictures.cut(picture, field, y[n], x[n])
        np.testing.assert_array_equal(weak["patches"][unit, rank], cut)
        signal = signals[n].permute(1, 2, 0).numpy()
        whole = np.round(128 + 127 * signal / np.abs(signal).max())
        expected = pictures.cut(whole, field, y[n], x[n])
        np.testing.assert_allclose(weak["deconv"][unit, rank].astype(float), expected, atol=1.01)


def test_without_pictures_no_gradient_is_needed(signed, monkeypatch):
    monkeypatch.setattr(torch.autograd, "grad", None)
    store = write(signed, list(PLACES), pictures={}, places=PLACES)
    np.testing.assert_array_equal(store["sum/receptive_field"][...], [0, 0, 0])
    assert (store["sum/weakest/image"][...] >= 0).any()
    assert not {"patches", "deconv"} & set(store["sum"].keys())
    with pytest.raises(TypeError):
        write(signed, list(PLACES), pictures={"sum": [0]}, places=PLACES)
