"""Pixels in a receptive field move the unit, pixels outside do not."""

import numpy as np
import pytest
import torch
from torch import nn

from convergent.nets import models
from convergent.nets.models import activation
from convergent.units.receptive_fields import (
    ReceptiveField,
    derived_fields,
    measured_fields,
    receptive_fields,
    sides,
)

LAYERS = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"]


def test_the_papers_net_has_its_known_fields():
    net = models.build("alexnet", channels=(2, 2, 2, 2, 2), fully_connected=(3, 3), classes=2)
    fields = receptive_fields(net, LAYERS, torch.zeros(1, 3, 227, 227))
    expected = [(11, 4), (51, 8), (99, 16), (131, 16), (163, 16)]
    assert [fields[layer][:2] for layer in LAYERS[:5]] == expected
    assert fields["conv1"].offset == 0
    # conv2 sees pool1's 3 of every 2 positions of conv1, two more on each side.
    assert fields["conv2"].offset == -2 * 8
    assert fields["fc6"] == fields["fc7"] == ReceptiveField(227, 0, 0)


def response(net, layer, images):
    kept = {}
    hook = activation(net, layer).register_forward_hook(lambda m, a, out: kept.update(out=out))
    with torch.no_grad():
        net(images)
    hook.remove()
    return kept["out"]


@pytest.fixture
def wide_net():
    """For 64 pixels, so that fields lie inside; 1x3 inputs of every kind of border."""
    torch.manual_seed(0)
    return models.build(
        "alexnet", size=64, channels=(8, 8, 8, 8, 8), fully_connected=(4, 4), classes=2, kernel=5,
        stride=2, padding=1, init="kaiming",
    ).eval()  # fmt: skip


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3", "conv5"])
@pytest.mark.parametrize("place", ["corner", "middle", "end"])
def test_pixels_inside_count_and_pixels_outside_do_not(wide_net, layer, place):
    side = 64
    field = receptive_fields(wide_net, LAYERS, torch.zeros(1, 3, side, side))[layer]
    torch.manual_seed(1)
    image = torch.rand(1, 3, side, side)
    before = response(wide_net, layer, image)
    y = {"corner": 0, "middle": before.shape[2] // 2, "end": before.shape[2] - 1}[place]
    x = before.shape[3] - 1 - y
    (top, bottom), (left, right) = field.inside(y, side), field.inside(x, side)
    inside = torch.zeros(side, side, dtype=torch.bool)
    inside[top:bottom, left:right] = True
    other = torch.where(inside, image, 20 * torch.randn(1, 3, side, side))
    after = response(wide_net, layer, other)
    torch.testing.assert_close(after[0, :, y, x], before[0, :, y, x], rtol=0, atol=0)
    # Each border of the field counts.
    for rows, columns in (
        ((top, top + 1), (left, right)),
        ((bottom - 1, bottom), (left, right)),
        ((top, bottom), (left, left + 1)),
        ((top, bottom), (right - 1, right)),
    ):
        changes = []
        for _ in range(5):
            other = image.clone()
            part = other[:, :, slice(*rows), slice(*columns)]
            part += 50 * torch.randn(part.shape)
            after = response(wide_net, layer, other)
            changes.append((after != before)[0, :, y, x].any().item())
        assert any(changes), (rows, columns)


def test_a_field_larger_than_the_image_shows_all_of_it():
    field = ReceptiveField(25, 4, -9)
    assert field.window(2, 16) == (0, 16)
    assert field.inside(0, 16) == (0, 16)
    assert field.inside(3, 16) == (3, 16)
    assert ReceptiveField(5, 2, -1).window(0, 16) == (-1, 4)
    assert ReceptiveField(5, 2, -1).inside(0, 16) == (0, 4)
    assert ReceptiveField(16, 0, 0).inside(7, 16) == (0, 16)


@pytest.mark.parametrize(
    ("build", "layers", "side"),
    [
        ({"name": "alexnet", "channels": (2,) * 5, "fully_connected": (3, 3)}, LAYERS, 227),
        ({"name": "vgg11", "channels": (2,) * 8}, [f"conv{n}" for n in range(1, 9)], 128),
    ],
)
def test_measured_fields_are_those_derived(build, layers, side):
    net, example = models.build(**build, classes=2), torch.zeros(1, 3, side, side)
    derived = derived_fields(net, layers, example)
    assert list(derived) == layers
    assert (
        measured_fields(net, layers, example) == derived == receptive_fields(net, layers, example)
    )


def test_derived_fields_reach_beyond_a_small_image_and_measured_ones_do_not(small_net):
    example = torch.zeros(1, 1, 16, 16)
    derived = derived_fields(small_net, LAYERS, example)
    measured = measured_fields(small_net, LAYERS, example)
    assert derived["conv5"].size > 16
    assert measured["conv5"] == ReceptiveField(16, 0, 0)
    assert measured["conv2"] == derived["conv2"]
    assert receptive_fields(small_net, LAYERS, example) == derived


class Residual(nn.Module):
    """As torchvision writes its blocks: a sum in place, and one ReLU in place for all."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (nn.Conv2d(4, 4, 3, padding=1) for _ in "ab")
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.second(self.relu(self.first(x)))
        y += x
        return self.relu(y)


class Branches(nn.Module):
    """Branches of unlike reach, the wider of which looks to the upper left only."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, (3, 5), padding=(0, 1))

    def forward(self, x):
        wide = self.second(nn.functional.pad(x, (2, 0, 2, 0)))
        return torch.cat([self.first(x), wide[:, :, : x.shape[2] - 2, : x.shape[3] - 2]], dim=1)


class Skip(nn.Module):
    """The shortcut of ResNets for CIFAR-10: every second pixel."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, stride=2, padding=1)

    def forward(self, x):
        return torch.relu(self.conv(x) + x[:, :, ::2, ::2])


def support(net, place, shape, positions):
    """Change pixels one by one, and see which move a unit of each position in some image."""
    hits = [torch.zeros(shape[-2:], dtype=torch.bool) for _ in positions]
    module, kept = net.get_submodule(place), {}
    hook = module.register_forward_hook(lambda m, a, out: kept.update(out=out.clone()))
    with torch.no_grad():
        for seed in range(6):
            torch.manual_seed(seed)
            image = torch.randn(1, *shape).double()
            pixels = shape[-2] * shape[-1]
            many = image.repeat(pixels + 1, 1, 1, 1)
            for n in range(pixels):
                many[n, :, n // shape[-1], n % shape[-1]] += 3 * torch.randn(shape[0])
            net(many)
            for hit, (y, x) in zip(hits, positions, strict=True):
                units = kept["out"][:, :, y, x]
                # Some processors round equal rows of a batch unlike.
                moved = (units[:-1] - units[-1]).abs() > 1e-12
                hit |= moved.any(dim=1).view(shape[-2:])
    hook.remove()
    lines = [(hit.any(dim=1).nonzero(), hit.any(dim=0).nonzero()) for hit in hits]
    return [[(int(line.min()), int(line.max()) + 1) for line in pair] for pair in lines]


@pytest.mark.parametrize(
    ("parts", "square"),
    [
        ([nn.Conv2d(1, 4, 3), Residual(), Residual()], True),
        ([nn.Conv2d(1, 4, 3, padding=1), Skip(), Residual()], True),
        ([nn.Conv2d(1, 4, 3), nn.MaxPool2d(3, 2, ceil_mode=True), Residual()], True),
        ([nn.Conv2d(1, 4, 3), nn.MaxPool2d(2, 2, padding=1), Skip()], True),
        ([nn.Conv2d(1, 4, 3), Branches()], False),
        ([nn.ConvTranspose2d(1, 4, 3), nn.Conv2d(4, 4, 3, dilation=2)], True),
        ([nn.Conv2d(1, 4, (3, 5)), nn.ReLU()], False),
        ([nn.Conv2d(1, 4, 3, padding="same"), nn.GELU(), nn.Conv2d(4, 4, 3)], True),
    ],
)
def test_fields_are_the_pixels_that_move_a_unit(parts, square):
    side = 17
    torch.manual_seed(0)
    net = nn.Sequential(*parts).double().eval()
    place = str(len(parts) - 1)
    example = torch.zeros(1, 1, side, side)
    field = receptive_fields(net.float(), [place], example)[place]
    net.double()
    cells = net(example.double()).shape[-1]
    positions = [(0, 0), (cells // 2, cells // 2), (cells - 1, cells - 1), (1, cells - 2)]
    found = support(net, place, (1, side, side), positions)
    for (y, x), seen in zip(positions, found, strict=True):
        said = [field.inside(y, side), field.inside(x, side)]
        if square:
            assert said == seen
        for (start, stop), (first, last) in zip(said, seen, strict=True):
            assert start <= first < last <= stop
    assert not any(module._forward_hooks for module in net.modules())


def test_trained_weights_of_zero_do_not_hide_a_branch_and_stay_as_they_are():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), Residual())
    with torch.no_grad():
        net[1].second.weight.zero_()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    assert measured_fields(net, ["1"], torch.zeros(1, 1, 17, 17))["1"].size == 7
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens)[0].transpose(1, 2).view(x.shape)


class Squeeze(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


@pytest.mark.parametrize("module", [Attention(), Squeeze()])
def test_attention_and_gates_by_means_see_the_whole_image(module):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), module)
    places = {"before": "0", "after": "1", "mean": {"place": "0", "grid": "mean"}}
    fields = receptive_fields(net, places, torch.zeros(1, 1, 17, 17))
    whole = ReceptiveField(17, 0, 0)
    assert fields == {"before": ReceptiveField(3, 1, 0), "after": whole, "mean": whole}


def test_a_cell_of_a_grid_sees_what_its_positions_see():
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1))
    places = {"pooled": {"place": "0", "grid": [4, 4]}}
    fields = receptive_fields(net, places, torch.zeros(1, 1, 16, 16))
    assert fields == {"pooled": ReceptiveField(6, 4, -1)}


def test_fields_that_differ_have_one_that_holds_them_all():
    """Windows of 4 x 4 positions, all of which see the same."""

    class Windows(nn.Module):
        def forward(self, x):
            return x + nn.functional.interpolate(nn.functional.avg_pool2d(x, 4), scale_factor=4)

    net = nn.Sequential(nn.Conv2d(1, 4, 1), Windows())
    field = receptive_fields(net, ["1"], torch.zeros(1, 1, 16, 16))["1"]
    assert field == ReceptiveField(7, 1, -3)


def test_sides_are_derived_on_the_meta_device_and_measured_off_it():
    def build():
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), Residual())

    with torch.device("meta"):
        net, example = build(), torch.empty(1, 1, 17, 17)
    assert sides(net, ["1", "2"], example) == {"1": 3, "2": None}
    assert sides(net, ["1", "2"], example, build) == {"1": 3, "2": 7}
    assert sides(build(), ["1", "2"], torch.zeros(1, 1, 17, 17)) == {"1": 3, "2": 7}


def test_a_relu_in_place_leaves_fields_to_be_derived_and_a_sum_in_place_does_not():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3), Residual())
    derived = derived_fields(net, ["1", "2", "3"], torch.zeros(1, 1, 17, 17))
    assert derived == {"1": ReceptiveField(3, 1, 0), "2": ReceptiveField(5, 1, 0)}


def test_what_runs_after_the_layers_counts_for_nothing():
    net = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU(), nn.ConvTranspose2d(1, 1, 3))
    assert receptive_fields(net, ["1"], torch.zeros(1, 1, 9, 9)) == {"1": ReceptiveField(3, 1, 0)}


def test_modes_are_kept_and_dilation_counts():
    net = nn.Sequential(nn.Conv2d(1, 1, 3, dilation=2), nn.ReLU(), nn.AvgPool2d(2), nn.ReLU())
    fields = receptive_fields(net, ["1", "3"], torch.zeros(1, 1, 12, 12))
    assert fields == {"1": ReceptiveField(5, 1, 0), "3": ReceptiveField(6, 2, 0)}
    assert net.training
    np.testing.assert_array_equal(np.array(fields["3"]), [6, 2, 0])
