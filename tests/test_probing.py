"""A layer is recorded as (image, ..., unit), or refused by name."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from convergent.activations import probing, recording
from convergent.activations.probing import ProbingError, probe
from convergent.nets.places import RunError
from convergent.running.stores import open_store


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
    return probe(net, {layer: layer}, x, **options)[layer]


def rows_of_patches(net, x):
    return net.relu(net.linear(x.view(-1, 6))).view(len(x), 16, 12).mean(1)


def tokens_first(net, x):
    return net.relu(net.linear(x.transpose(0, 1))).mean(0)


@pytest.mark.parametrize("images", [1, 2, 4, 16, 100])
@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (rows_of_patches, r"layer relu: .* 16 rows for each image"),
        (tokens_first, r"layer relu: .* images along axis 1"),
    ],
)
def test_rows_that_are_not_images_are_refused(tmp_path, forward, message, images):
    """Also by chance: as many images as tokens."""
    net = Net(forward, **relu(linear=nn.Linear(6, 12)))
    with pytest.raises(ProbingError, match=message):
        recording.record(net, torch.randn(images, 16, 6), ["relu"], tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()


def test_time_is_no_unit(tmp_path):
    net = nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU())
    x = torch.randn(30, 3, 50)
    recording.record(net, x, ["1"], tmp_path / "a.zarr", dtype="float32", batch_size=8)
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
    "layer norm of maps": (
        nn.Sequential(nn.Conv2d(3, 5, 3), nn.LayerNorm([5, 6, 6])),
        lambda n, x: n.relu(n.m(x)),
        1,
    ),
    "batch norm of tokens": (
        nn.Sequential(nn.Linear(64, 4), nn.BatchNorm1d(3)),
        lambda n, x: n.relu(n.m(x.flatten(2))),
        2,
    ),
    "group norm of tokens": (
        nn.Sequential(nn.Linear(64, 4), nn.GroupNorm(1, 3)),
        lambda n, x: n.relu(n.m(x.flatten(2))),
        2,
    ),
    "one slope": (
        nn.Sequential(nn.Linear(64, 4), nn.PReLU()),
        lambda n, x: n.relu(n.m(x.flatten(2))),
        2,
    ),
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
    with pytest.raises(
        ProbingError, match=r"layer relu: the axis of units .*unit_axis=\{'relu': -1\}"
    ):
        recording.record(net, x, ["relu"], tmp_path / "a.zarr")
    recording.record(net, x, ["relu"], tmp_path / "a.zarr", unit_axis={"relu": -1})
    assert open_store(tmp_path / "a.zarr")["relu"].shape == (10, 4, 9)
    for wrong in (0, 3, -3):
        with pytest.raises(ProbingError, match="cannot hold the units"):
            recording.record(net, x, ["relu"], tmp_path / "b.zarr", unit_axis={"relu": wrong})


def dropout(net, x):
    return net.relu(net.conv(functional.dropout(x, 0.1, training=True)))


def batch_statistics(net, x):
    return net.relu(functional.batch_norm(net.conv(x), None, None, training=True))


def order(net, x):
    """Depends on where in the batch an image stands."""
    return net.relu(net.conv(x + torch.arange(len(x)).view(-1, 1, 1, 1)))


def rarely(net, x):
    """Drops one image in a thousand."""
    return net.relu(net.conv(x) * (torch.rand(len(x), 1, 1, 1) > 1e-3))


def by_numpy(net, x):
    return net.relu(net.conv(x) + 1e-6 * np.random.rand())  # noqa: NPY002


def mean_of_many(net, x):
    return net.relu(net.conv(x - x.mean(0) if len(x) > 4 else x))


def beside_a_large_unit(net, x):
    maps = functional.batch_norm(net.conv(x), None, None, training=True)
    return net.relu(torch.cat([maps, torch.full_like(maps[:, :1], 1e4)], 1))


@pytest.mark.parametrize("images", [1, 2, 64])
@pytest.mark.parametrize(
    "forward",
    [dropout, rarely, by_numpy, batch_statistics, mean_of_many, beside_a_large_unit, order],
)
def test_a_net_that_answers_differently_is_refused(tmp_path, forward, images):
    if forward is mean_of_many and images < 5:
        pytest.skip("the same for few images")
    net = Net(forward, **relu(conv=nn.Conv2d(3, 8, 3)))
    with pytest.raises(ProbingError, match=r"layer relu: .* not depend on the image alone"):
        recording.record(net, torch.randn(images, 3, 12, 12), ["relu"], tmp_path / "a.zarr")


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.float16])
def test_rounding_is_no_difference(kind, small_net):
    layers = ["conv1", "conv5", "fc7"]
    places = {layer: layer for layer in layers}
    x = torch.rand(6, 1, 16, 16).to(kind)
    assert probe(small_net.to(kind), places, x) == dict.fromkeys(layers, 1)


def test_rounding_of_a_unit_that_hardly_fires_is_no_difference():
    """Rounding is that of the terms that a unit adds up, which are as large as in other units."""
    output = torch.rand(16, 9) + 0.5
    output[:, 4] *= 0.01
    other = output.clone()
    other[3, 4] += 5e-6  # 5e-4 of the largest value of the unit
    probing._check_same("layer x", output, other)
    other[3, 4] += 1e-3
    with pytest.raises(ProbingError, match="unit 4 changes"):
        probing._check_same("layer x", output, other)


def test_a_layer_that_never_runs_is_named():
    net = Net(lambda n, x: n.conv(x), **relu(conv=nn.Conv2d(3, 8, 3)))
    with pytest.raises(ProbingError, match="layer relu: never runs"):
        axis(net, torch.randn(4, 3, 8, 8))


def test_tokens_are_given_as_they_are_and_pixels_as_floats(tmp_path):
    torch.manual_seed(0)
    words = nn.Sequential(nn.Embedding(10, 6), nn.Linear(6, 4), nn.ReLU())
    tokens = torch.randint(0, 10, (8, 5))
    recording.record(words, tokens, ["2"], tmp_path / "a.zarr", dtype="float32")
    expected = words(tokens).detach().numpy()
    np.testing.assert_allclose(open_store(tmp_path / "a.zarr")["2"][...], expected, atol=1e-6)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    pixels = torch.randint(0, 255, (8, 3, 9, 9))
    recording.record(net, pixels.byte(), ["1"], tmp_path / "b.zarr", dtype="float32")
    expected = net(pixels.float()).detach().permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(open_store(tmp_path / "b.zarr")["1"][...], expected, rtol=1e-4)
    with pytest.raises(RunError, match=r"passed on as torch\.int64; .*by \.float\(\)"):
        recording.record(net, pixels, ["1"], tmp_path / "c.zarr")


def test_random_numbers_after_a_layer_do_not_matter():
    net = Net(lambda n, x: functional.dropout(n.relu(n.conv(x)), training=True),
              **relu(conv=nn.Conv2d(3, 8, 3)))  # fmt: skip
    assert axis(net, torch.randn(4, 3, 8, 8)) == 1


@pytest.mark.parametrize("images", [1, 2, 3])
def test_few_images_that_are_squeezed_are_no_fault(images):
    net = Net(lambda n, x: n.relu(n.m(x)[:, :, None].squeeze()), **relu(m=nn.Linear(6, 5)))
    assert axis(net, torch.randn(images, 6)) == 1


def test_each_use_of_a_shared_relu_is_recorded_and_judged_by_itself(tmp_path):
    """Small after it was large; other axes the first time."""
    torch.manual_seed(0)
    first, last = nn.Linear(6, 8), nn.Linear(8, 8)

    def forward(net, x):
        gate = net.relu(1e6 * first(x.mean(1)))
        return net.relu(1e-7 * last(first(x)) * (1 + gate[:, None] * 0))

    net = Net(forward, **relu(first=first, last=last))
    x = torch.randn(40, 3, 6)
    recording.record(net, x, ["relu_1"], tmp_path / "a.zarr")
    array = open_store(tmp_path / "a.zarr")["relu_1"]
    assert array.dtype == np.float32
    np.testing.assert_allclose(array[...], net(x).detach().numpy(), rtol=1e-4, atol=1e-12)
    with pytest.raises(recording.RecordingError, match=r"layer relu: .* do not fit into float16"):
        recording.record(net, x, ["relu", "relu_1"], tmp_path / "b.zarr")


def test_images_of_several_sizes_are_refused(tmp_path):
    """Also where the smaller maps would spread over the larger ones."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    sizes = [torch.randn(4, 3, 9, 9), torch.randn(4, 3, 3, 3)]
    with pytest.raises(recording.RecordingError, match=r"layer 1: .* in one size"):
        recording.record(net, sizes, ["1"], tmp_path / "a.zarr", image_index=np.arange(8))
    assert not list(tmp_path.iterdir())


def test_wrong_arguments_are_named_before_the_net_runs(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    x = torch.randn(8, 3, 9, 9)

    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(x)

    for images, options, message in (
        (x, {"layers": ["1", "1"]}, "each once"),
        (x, {"layers": []}, "at least one layer"),
        (x, {"dtype": "bfloat16"}, "float16 or float32"),
        (x, {"unit_axis": {"2": 1}}, "unit_axis names 2"),
        (x, {"identity": np.arange(8) / 2}, "identity must hold a whole number .* float64"),
        (x, {"image_index": np.ones(8)}, "image_index must be a .* of whole numbers"),
        (torch.utils.data.DataLoader(Endless()), {}, "batches need image_index"),
    ):
        layers = options.pop("layers", ["1"])
        with pytest.raises(ValueError, match=message):
            recording.record(net, images, layers, tmp_path / "a.zarr", **options)
    assert not list(tmp_path.iterdir())
