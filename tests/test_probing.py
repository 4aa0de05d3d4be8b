"""A layer is recorded as (image, ..., unit), or refused by name."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from convergent import activations
from convergent.probing import ProbingError, unit_axes
from convergent.stores import open_store


class Net(nn.Module):
    """A net of one function."""

    def __init__(self, forward, **modules):
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self.function = forward

    def forward(self, x):
        return self.function(self, x)


def relu(**modules):
    torch.manual_seed(0)
    return {"relu": nn.ReLU(), **modules}


def axis(net, x, layer="relu", **options):
    modules = {layer: net.get_submodule(layer)}
    return unit_axes(net.eval(), modules, x, **options)[layer]


def rows_of_patches(net, x):
    return net.relu(net.linear(x.view(-1, 6))).view(len(x), 16, 12).mean(1)


def tokens_first(net, x):
    return net.relu(net.linear(x.transpose(0, 1))).mean(0)


@pytest.mark.parametrize("images", [1, 2, 4, 16, 100])
@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (rows_of_patches, r"layer relu: .* 16 rows an image"),
        (tokens_first, r"layer relu: .* images along axis 1"),
    ],
)
def test_rows_that_are_not_images_are_refused(tmp_path, forward, message, images):
    """Also by chance: as many images as tokens."""
    net = Net(forward, **relu(linear=nn.Linear(6, 12)))
    with pytest.raises(ProbingError, match=message):
        activations.record(net, torch.randn(images, 16, 6), ["relu"], tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()


def test_time_is_no_unit(tmp_path):
    net = nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU())
    x = torch.randn(30, 3, 50)
    activations.record(net, x, ["1"], tmp_path / "a.zarr", dtype="float32", batch_size=8)
    array = open_store(tmp_path / "a.zarr")["1"]
    with torch.inference_mode():
        expected = net(x).movedim(1, -1).numpy()
    assert array.metadata.dimension_names == ("image", "position", "unit")
    np.testing.assert_allclose(array[...], expected, atol=1e-6)


CASES = {
    "conv": (nn.Conv2d(3, 5, 3), lambda n, x: n.relu(n.m(x)), 1),
    "volume": (nn.Conv3d(1, 5, 3), lambda n, x: n.relu(n.m(x[:, None])), 1),
    "norm": (nn.BatchNorm2d(3), lambda n, x: n.relu(n.m(x)), 1),
    "pooled": (nn.Conv2d(3, 5, 3), lambda n, x: n.relu(functional.max_pool2d(n.m(x), 2)), 1),
    "residual": (nn.Conv2d(3, 3, 3, padding=1), lambda n, x: n.relu(n.m(x) + x), 1),
    "in place": (nn.Conv2d(3, 3, 3, padding=1), lambda n, x: n.relu(n.m(x).add_(1).mul_(2)), 1),
    "gated": (
        nn.Conv2d(3, 5, 3),
        lambda n, x: n.relu(n.m(x).mean((2, 3), keepdim=True).sigmoid() * n.m(x)),
        1,
    ),
    "joined": (nn.Conv2d(3, 5, 3), lambda n, x: n.relu(torch.cat([n.m(x), n.m(x)], 1)), 1),
    "tokens of a map": (
        nn.Conv2d(3, 5, 2, 2),
        lambda n, x: n.relu(n.m(x).flatten(2).transpose(1, 2)),
        2,
    ),
    "shifted": (
        nn.Conv2d(3, 5, 2, 2),
        lambda n, x: n.relu(n.m(x).permute(0, 2, 3, 1).roll((1, 1), (1, 2))),
        3,
    ),
    "linear": (nn.Linear(8, 4), lambda n, x: n.relu(n.m(x)), 3),
    "normed": (nn.LayerNorm(8), lambda n, x: n.relu(n.m(x)), 3),
    "flat": (nn.Conv2d(3, 5, 3), lambda n, x: n.relu(n.m(x).flatten(1)), 1),
}


@pytest.mark.parametrize("case", CASES)
def test_units_are_followed_through_what_a_net_calls(case):
    module, forward, expected = CASES[case]
    net = Net(forward, **relu(m=module))
    assert axis(net, torch.randn(6, 3, 8, 8)) == expected


def test_of_attention_the_units_are_the_last(tmp_path):
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(6, 2, 12, batch_first=True, activation=nn.ReLU())
    net = nn.Sequential(block, nn.ReLU())
    assert axis(net, torch.randn(5, 7, 6), "1") == 2


def test_what_cannot_be_told_is_asked_for(tmp_path):
    net = Net(lambda n, x: n.relu(torch.einsum("nij,jk->nik", x, n.w)), **relu())
    net.w = nn.Parameter(torch.randn(6, 9))
    x = torch.randn(10, 4, 6)
    with pytest.raises(ProbingError, match=r"layer relu: which axis .*unit_axis=\{'relu': -1\}"):
        activations.record(net, x, ["relu"], tmp_path / "a.zarr")
    activations.record(net, x, ["relu"], tmp_path / "a.zarr", unit_axis={"relu": -1})
    assert open_store(tmp_path / "a.zarr")["relu"].shape == (10, 4, 9)
    for wrong in (0, 3, -3):
        with pytest.raises(ProbingError, match="cannot hold the units"):
            activations.record(net, x, ["relu"], tmp_path / "b.zarr", unit_axis={"relu": wrong})


def dropout(net, x):
    return net.relu(net.conv(functional.dropout(x, 0.1, training=True)))


def batch_statistics(net, x):
    return net.relu(functional.batch_norm(net.conv(x), None, None, training=True))


def order(net, x):
    """Depends on where in the batch an image stands."""
    return net.relu(net.conv(x + torch.arange(len(x)).view(-1, 1, 1, 1)))


@pytest.mark.parametrize("images", [1, 2, 64])
@pytest.mark.parametrize("forward", [dropout, batch_statistics, order])
def test_a_net_that_answers_differently_is_refused(tmp_path, forward, images):
    if forward is order and images == 1:
        pytest.skip("a single image has one place")
    net = Net(forward, **relu(conv=nn.Conv2d(3, 8, 3)))
    with pytest.raises(ProbingError, match=r"layer relu: .* no function of an image"):
        activations.record(net, torch.randn(images, 3, 12, 12), ["relu"], tmp_path / "a.zarr")


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.float16])
def test_rounding_is_no_difference(kind, small_net):
    layers = ["conv1", "conv5", "fc7"]
    from convergent import models

    modules = {layer: models.activation(small_net, layer) for layer in layers}
    x = torch.rand(6, 1, 16, 16).to(kind)
    assert list(unit_axes(small_net.to(kind).eval(), modules, x).values()) == [1, 1, 1]


def test_a_layer_that_never_runs_is_named():
    net = Net(lambda n, x: n.conv(x), **relu(conv=nn.Conv2d(3, 8, 3)))
    with pytest.raises(ProbingError, match="layer relu: never runs"):
        axis(net, torch.randn(4, 3, 8, 8))


def test_tokens_are_given_as_they_are_and_pixels_as_floats(tmp_path):
    torch.manual_seed(0)
    words = nn.Sequential(nn.Embedding(10, 6), nn.Linear(6, 4), nn.ReLU())
    tokens = torch.randint(0, 10, (8, 5))
    activations.record(words, tokens, ["2"], tmp_path / "a.zarr", dtype="float32")
    expected = words(tokens).detach().numpy()
    np.testing.assert_allclose(open_store(tmp_path / "a.zarr")["2"][...], expected, atol=1e-6)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    pixels = torch.randint(0, 255, (8, 3, 9, 9))
    activations.record(net, pixels.byte(), ["1"], tmp_path / "b.zarr", dtype="float32")
    expected = net(pixels.float()).detach().permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(open_store(tmp_path / "b.zarr")["1"][...], expected, rtol=1e-4)
    with pytest.raises(ProbingError, match=r"torch\.int64 as they are .*by \.float\(\)"):
        activations.record(net, pixels, ["1"], tmp_path / "c.zarr")
