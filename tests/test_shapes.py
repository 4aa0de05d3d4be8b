"""A net itself tells the shapes of its layers, before it is trained."""

import subprocess
import sys
from collections import OrderedDict

import pandas as pd
import pytest
import torch
from torch import nn

from convergent.activations.shapes import layer_shapes
from convergent.nets import models, shapes
from convergent.units.receptive_fields import sides


@pytest.fixture(scope="module")
def paper():
    return layer_shapes(models.build, (3, 227, 227), receptive_fields=sides)


def test_the_paper_s_maps(paper):
    maps = [55, 27, 13, 13, 13, None, None]
    units = [96, 256, 384, 384, 256, 4096, 4096]
    assert [layer.units for layer in paper.layers.values()] == units
    assert [layer.height for layer in paper.layers.values()] == maps
    assert [layer.width for layer in paper.layers.values()] == maps
    assert [layer.positions for layer in paper.layers.values()] == [(m or 1) ** 2 for m in maps]
    fields = [layer.receptive_field for layer in paper.layers.values()]
    assert fields == [11, 51, 99, 131, 163, 227, 227]
    assert {layer.axes for layer in paper.layers.values()} == {"y x unit", "unit"}


def test_costs_are_those_worked_out_by_hand(paper):
    convolutions = 55**2 * 96 * 3 * 121 + 27**2 * 256 * 96 * 25
    convolutions += 13**2 * 9 * (384 * 256 + 384 * 384 + 256 * 384)
    full = 9216 * 4096 + 4096 * 4096 + 4096 * 1000
    assert paper.costs.multiply_adds == convolutions + full
    assert paper.costs.parameters == 62_378_344
    maps = 55**2 * 96 + 27**2 * 256 + 13**2 * (384 + 384 + 256)
    assert paper.costs.outputs == maps + 4096 + 4096 + 1000


def test_shapes_are_those_of_what_the_layers_give(small_net):
    example, found = torch.zeros(1, 1, 16, 16), {}
    told = layer_shapes(lambda: small_net, (1, 16, 16))
    for name in models.layers(small_net, example):
        hook = models.activation(small_net, name).register_forward_hook(
            lambda module, args, output, name=name: found.update({name: output.shape})
        )
        models.run_once(small_net, example, [hook])
    assert list(told.layers) == list(found)
    for name, layer in told.layers.items():
        assert found[name] == (1, layer.units, *filter(None, (layer.height, layer.width)))


class Branch(nn.Module):
    """Adds what goes around, and asks for values, which the meta device has none of."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(2, 2, 3, padding=1, groups=2), nn.ReLU()

    def forward(self, x):
        return self.relu(x + self.conv(x) * float(x.max()))


def test_a_net_that_needs_values_is_run_and_its_field_after_a_branch_is_measured():
    def build():
        layers = {"first": nn.Conv2d(1, 2, 3), "relu": nn.ReLU(), "branch": Branch()}
        return nn.Sequential(OrderedDict(layers))

    found = layer_shapes(build, (1, 6, 5), receptive_fields=sides)
    first, branch = found.layers.values()
    assert first[3:] == (2, 4, 3, 12, 3)
    assert branch[3:] == (2, 4, 3, 12, 5)
    # One group sees one channel.
    assert found.costs.multiply_adds == 12 * (2 * 9 + 2 * 9)


def test_tokens_have_their_units_last():
    net = nn.Sequential(nn.Flatten(2), nn.Linear(6, 7), nn.ReLU())
    (layer,) = layer_shapes(lambda: net, (5, 2, 3)).layers.values()
    assert (layer.axes, layer.units, layer.positions) == ("token unit", 7, 5)


def test_what_is_written_is_read_again_and_no_other_net_s(tmp_path, paper):
    path, options = tmp_path / "layers.csv", {"name": "alexnet", "size": 227}
    assert shapes.read_shapes(path) is None
    shapes.write_shapes(path, paper, options)
    assert shapes.read_shapes(path) == shapes.read_shapes(path, options) == paper
    assert shapes.read_shapes(path, options | {"size": 16}) is None
    columns = "layer place axes units height width positions receptive_field"
    assert list(pd.read_csv(path)) == columns.split()


def test_an_input_that_is_too_small_is_told():
    with pytest.raises(ValueError, match=r"data.size: 5 pixels shrink to"):
        layer_shapes(lambda: models.build(size=5, kernel=3, stride=1), (3, 5, 5))


def test_rules_read_shapes_and_architectures_without_torch():
    code = "import convergent.config.resources, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
