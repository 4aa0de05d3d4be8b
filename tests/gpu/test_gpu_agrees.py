"""What a GPU computes of a net is what a CPU computes."""

import numpy as np
import pytest
import torch
from precision import rounding
from test_moments import relu_data
from test_mutual_information import random_codes
from test_training import bright_and_dark, build

from convergent.activations import from_nets, moments, recording, reductions, statistics
from convergent.measures import histograms as mi
from convergent.nets import modules
from convergent.nets.architectures.alexnet import LAYERS
from convergent.nets.datasets import normalize
from convergent.running import devices
from convergent.running.stores import new_store, save
from convergent.units.deconvolution import deconvolve

DEVICE = "cuda"


@pytest.mark.parametrize("positions", [None, 4])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_recordings(tmp_path, dtype, positions):
    torch.manual_seed(0)
    net, layers = build().eval(), list(LAYERS)
    images, _ = bright_and_dark(tmp_path / "images.npz")
    for device in ("cpu", DEVICE):
        batches = images.batches(10, [0.5], [0.25], device=device)
        store, index = tmp_path / f"{device}.zarr", np.arange(len(images))
        recording.record(
            net, batches, layers, store, image_index=index, dtype=dtype, device=device,
            positions=positions,
        )  # fmt: skip
    expected, got = (recording.open_store(tmp_path / f"{d}.zarr") for d in ("cpu", DEVICE))
    for layer in layers:
        values = expected[layer][...].astype(np.float32)
        assert values.max() > 0
        step = 2**-10 if dtype == "float16" else 0
        np.testing.assert_allclose(
            got[layer][...].astype(np.float32), values, rtol=step, atol=1e-4 * values.max()
        )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("between", [False, True])
def test_moments(rng, dtype, between):
    x, y = (relu_data(rng, 50_000, units).astype(dtype) for units in (300, 200))
    arguments = (x, y) if between else (x,)
    expected, got = (moments.Moments.of(*arguments, device=d) for d in ("cpu", DEVICE))
    near = 2 * rounding(*arguments)
    for field in ("mean_x", "mean_y", "var_x", "var_y"):
        np.testing.assert_allclose(getattr(got, field), getattr(expected, field), rtol=near)
    np.testing.assert_allclose(got.correlation(), expected.correlation(), atol=near)


def test_statistics_of_stores(tmp_path, rng):
    near = 0
    for name in "ab":
        with new_store(tmp_path / name) as group:
            values = relu_data(rng, 40 * 36, 8).astype(np.float16)
            near, values = max(near, 2 * rounding(values)), values.reshape(40, 6, 6, 8)
            save(group, "conv1", values, ("image", "y", "x", "unit"))
            save(group, "image_index", np.arange(40), ("image",))
    for device in ("cpu", DEVICE):
        options = {"blocks": 4, "device": device, "workers": 2}
        statistics.write_statistics(
            tmp_path / "a", tmp_path / f"s.{device}", ["conv1"], samples=300, **options
        )
        statistics.write_correlation(
            tmp_path / "a", tmp_path / "b", tmp_path / f"c.{device}", ["conv1"], **options
        )
    for name in "sc":
        expected, got = (
            recording.open_store(tmp_path / f"{name}.{d}")["conv1/correlation"][...]
            for d in ("cpu", DEVICE)
        )
        np.testing.assert_allclose(got, expected, atol=near)


@pytest.mark.parametrize("positions", [None, 4])
@pytest.mark.parametrize("wide", [False, True])
def test_observations(tmp_path, monkeypatch, positions, wide):
    if wide:
        monkeypatch.setattr(reductions, "SIDE_BY_SIDE", 1)
    images, _ = bright_and_dark(tmp_path / "images.npz")
    for device in ("cpu", DEVICE):
        nets = {}
        for seed in (0, 1):
            torch.manual_seed(seed)
            nets[f"net{seed}"] = build()
        from_nets.observe(
            nets,
            images.batches(10, [0.5], [0.25], device=device),
            list(LAYERS),
            {name: tmp_path / f"{name}.{device}" for name in nets},
            {("net0", "net1"): tmp_path / f"pair.{device}"},
            image_index=np.arange(len(images)),
            positions=positions,
            blocks=3,
            dtype="float32",
            device=device,
            threads=3,
        )
    for name in ("net0", "net1", "pair"):
        expected, got = (recording.open_store(tmp_path / f"{name}.{d}") for d in ("cpu", DEVICE))
        for layer in list(LAYERS):
            np.testing.assert_allclose(
                got[f"{layer}/correlation"][...], expected[f"{layer}/correlation"][...], atol=1e-3
            )


@pytest.mark.parametrize("layer", ["conv1", "conv3", "conv5", "fc7"])
def test_deconvolutions(small_net, layer):
    devices.exact()
    torch.manual_seed(2)
    images, zeros = torch.rand(5, 1, 16, 16), np.zeros(5, int)
    small_net.eval()
    expected = deconvolve(small_net, layer, images, zeros, zeros, zeros)
    got = deconvolve(small_net.to(DEVICE), layer, images.to(DEVICE), zeros, zeros, zeros)
    torch.testing.assert_close(got.cpu(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("samples", "units"), [(60_000, (300, 200)), (21, (1, 3))])
def test_mutual_information(rng, samples, units):
    a, b = (random_codes(rng, samples, n) for n in units)
    expected = mi.mutual_information(a, b)
    np.testing.assert_allclose(mi.mutual_information(a, b, device=DEVICE), expected, atol=1e-12)


def test_mutual_information_within_a_net(rng):
    codes = random_codes(rng, 5000, 70)
    codes[:, 5] = 0  # dead
    expected = mi.mutual_information(codes)
    np.testing.assert_allclose(mi.mutual_information(codes, device=DEVICE), expected, atol=1e-12)


@pytest.mark.parametrize("half", [torch.float32, torch.bfloat16, torch.float16])
def test_response_normalisation(half):
    """On Caffe's scale, where squares of float16 would be infinite."""
    torch.manual_seed(0)
    x = (5000 * torch.randn(4, 96, 9, 9)).to(half)
    expected = torch.nn.LocalResponseNorm(5, alpha=1e-4)(x.float()).to(half)
    got = modules.LocalResponseNorm()(x.to(DEVICE, memory_format=torch.channels_last))
    torch.testing.assert_close(got.cpu(), expected)


def test_normalisation(rng):
    views = torch.from_numpy(rng.integers(0, 256, size=(2, 3, 4, 4), dtype=np.uint8))
    mean, std = [0.1, 0.2, 0.3], [1.0, 0.5, 1 / 255]
    got = normalize(views.to(DEVICE), mean, std)
    torch.testing.assert_close(got.cpu(), normalize(views, mean, std))
