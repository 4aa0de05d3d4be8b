"""Pixels in a receptive field move the unit, pixels outside do not."""

import numpy as np
import pytest
import torch
from torch import nn

from convergent.nets import models
from convergent.nets.models import activation
from convergent.units.receptive_fields import FieldError, ReceptiveField, receptive_fields

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


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 1)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.first(x) + self.second(x)[:, :, 1:-1, 1:-1])


@pytest.mark.parametrize(
    ("net", "layer", "message"),
    [
        (Branch(), "", "second: its input is not the output of the module before it"),
        (
            nn.Sequential(nn.ConvTranspose2d(1, 1, 3), nn.ReLU()),
            "1",
            "0: the reach of ConvTranspose2d is not known",
        ),
        (
            nn.Sequential(nn.Conv2d(1, 1, (3, 5)), nn.ReLU()),
            "1",
            r"0: kernel_size \(3, 5\) is not the same number in both directions",
        ),
        (
            nn.Sequential(nn.Conv2d(1, 1, 3, padding="same"), nn.ReLU()),
            "1",
            "0: padding same is not the same number in both directions",
        ),
    ],
)
def test_what_cannot_be_told_is_refused(net, layer, message):
    layer = layer or next(iter(models.layers(net, torch.zeros(1, 1, 9, 9))))
    with pytest.raises(FieldError, match=message):
        receptive_fields(net, [layer], torch.zeros(1, 1, 9, 9))
    assert not any(module._forward_hooks for module in net.modules())


def test_what_runs_after_the_layers_counts_for_nothing():
    net = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU(), nn.ConvTranspose2d(1, 1, 3))
    assert receptive_fields(net, ["1"], torch.zeros(1, 1, 9, 9)) == {"1": ReceptiveField(3, 1, 0)}


def test_modes_are_kept_and_dilation_counts():
    net = nn.Sequential(nn.Conv2d(1, 1, 3, dilation=2), nn.ReLU(), nn.AvgPool2d(2), nn.ReLU())
    fields = receptive_fields(net, ["1", "3"], torch.zeros(1, 1, 12, 12))
    assert fields == {"1": ReceptiveField(5, 1, 0), "3": ReceptiveField(6, 2, 0)}
    assert net.training
    np.testing.assert_array_equal(np.array(fields["3"]), [6, 2, 0])
