"""The rest of a net runs from the output of any of its places, and replaced outputs are used."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from convergent.nets import models
from convergent.nets.places import PlaceError, places, rest, tapping


class InPlace(nn.Module):
    """A net whose operations write into their inputs, once without a result that is used."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, images):
        x = self.first(images)
        x += 1
        functional.relu_(x)
        return self.last(x.mean((2, 3)))


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.relu, self.last = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Linear(4, 3)

    def forward(self, images):
        x = self.relu(self.first(images))
        if x.sum() > 0:
            x = x * 2
        return self.last(x.mean((2, 3)))


def residual():
    return models.build("resnet", size=16, inputs=1, classes=3, blocks=1, channels=(4, 6, 8))


NETS = {"residual": residual, "in place": InPlace, "untraceable": Untraceable}


@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
def test_the_rest_of_a_net_gives_what_the_whole_gives(build):
    torch.manual_seed(0)
    net = build().eval()
    images = torch.randn(5, 1, 16, 16)
    for place in places(net, images)[:-1]:
        kept = []
        with tapping(net, [place.name], lambda _, x, kept=kept: kept.append(x.clone())) as run:
            whole = run(images)
        run = rest(net, place.name, images[:2])
        torch.testing.assert_close(run(images, kept[0].clone()), whole)
        # Another value is used, and the same as if a hook put it there.
        with tapping(net, [place.name], lambda _, x: x * 3 + 1, replacing=True) as changed:
            expected = changed(images)
        torch.testing.assert_close(run(images, kept[0] * 3 + 1), expected)
        # Nothing takes the result of relu_, which works in place.
        assert torch.allclose(expected, whole) == (place.name == "relu_"), place.name


def test_the_rest_of_a_net_does_not_run_what_comes_before():
    net = residual().eval()
    images = torch.randn(2, 1, 16, 16)
    run = rest(net, [p.name for p in places(net, images)][-3], images)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    calls = []
    for module in convolutions:
        module.register_forward_hook(lambda *_: calls.append(1))
    kept = []
    with tapping(net, [places(net, images)[-3].name], lambda _, x: kept.append(x)) as whole:
        whole(images)
    before = len(calls)
    run(images, kept[0])
    assert len(calls) == before


def test_a_place_with_several_outputs_is_not_replaced():
    class Two(nn.Module):
        def forward(self, x):
            return x, x + 1

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.two, self.last = Two(), nn.Linear(16, 2)

        def forward(self, images):
            a, b = self.two(images.flatten(1)[:, :16])
            return self.last(a + b)

    with (
        pytest.raises(PlaceError, match="'two' has not one output"),
        tapping(Net().eval(), ["two", "add"], lambda _, x: x, replacing=True) as run,
    ):
        run(torch.randn(2, 1, 16, 16))
