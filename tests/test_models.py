"""The nets are the paper's, in any size."""

import pytest
import torch

from convergent.nets import models, modules
from convergent.nets.architectures.alexnet import LAYERS


@pytest.fixture(scope="module")
def paper_net():
    with torch.device("meta"):
        return models.build("alexnet")


def test_paper_net_has_the_paper_s_maps(paper_net):
    shapes = {}
    x = torch.empty(1, 3, 227, 227, device="meta")
    for name, child in paper_net.named_children():
        x = child(x)
        shapes[name] = tuple(x.shape[1:])
    expected = {
        "conv1": (96, 55, 55),
        "conv2": (256, 27, 27),
        "conv3": (384, 13, 13),
        "conv4": (384, 13, 13),
        "conv5": (256, 13, 13),
        "fc6": (4096,),
        "fc7": (4096,),
        "fc8": (1000,),
    }
    assert {name: shapes[name] for name in expected} == expected


def test_paper_net_has_no_groups(paper_net):
    # Worked out by hand from the shapes above, weights and biases.
    assert sum(p.numel() for p in paper_net.parameters()) == 62_378_344


def test_order_is_pool_then_norm_and_dropout_after_fc(paper_net):
    names = [name for name, _ in paper_net.named_children()]
    first = ["conv1", "pool1", "norm1", "conv2", "pool2", "norm2", "conv3", "conv4", "conv5"]
    assert names == [*first, "pool5", "flatten", "fc6", "drop6", "fc7", "drop7", "fc8"]


def test_layers_are_named_as_in_the_paper(small_net):
    assert models.layers(small_net, torch.zeros(1, 1, 16, 16)) == list(LAYERS)
    assert small_net.training


def test_every_relu_is_a_module_not_in_place(small_net):
    relus = [m for m in small_net.modules() if isinstance(m, torch.nn.ReLU)]
    assert len(relus) == 7
    assert not any(relu.inplace for relu in relus)


def test_caffenet_initial_values():
    torch.manual_seed(0)
    net = models.build("alexnet", size=67, classes=10)
    stds = {"conv1": 0.01, "conv3": 0.01, "fc6": 0.005, "fc7": 0.005}
    for layer, std in stds.items():
        weight = next(net.get_submodule(layer).parameters())
        assert weight.std().item() == pytest.approx(std, rel=0.02)
    biases = {name: net.get_submodule(name)[0].bias.mean().item() for name in list(LAYERS)}
    assert [biases[name] for name in list(LAYERS)] == [0, 1, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "vgg"}, "model 'vgg' is none of alexnet"),
        ({"size": 40}, "40 pixels shrink to 1 at conv5"),
        ({"init": "zeros"}, "init 'zeros' is none of"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        models.build(**options)


def test_a_trained_net_comes_back_from_its_weights(tmp_path, small_net):
    """Built from the parts of a configuration, with the weights of the file."""
    torch.save(small_net.state_dict(), tmp_path / "weights.pt")
    model = {
        "name": "alexnet", "channels": (4, 6, 8, 8, 6), "fully_connected": (10, 9), "kernel": 3,
        "stride": 1, "padding": 1, "init": "kaiming",
    }  # fmt: skip
    described = {"model": model, "size": 16, "inputs": 1}
    net = models.load(tmp_path / "weights.pt", described, classes=3)
    images = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(net.eval()(images), small_net.eval()(images), rtol=0, atol=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [1, 2, 3, 7, 48])
def test_response_normalisation_is_torch_s(channels, layout):
    """Values and gradients, with windows wider than the channels too."""
    torch.manual_seed(0)
    # On Caffe's scale, where the normalisation is far from the identity.
    x = (300 * torch.randn(2, channels, 5, 4)).contiguous(memory_format=layout).requires_grad_()
    signal = torch.randn(x.shape)
    ours, theirs = modules.LocalResponseNorm()(x), torch.nn.LocalResponseNorm(5, alpha=1e-4)(x)
    torch.testing.assert_close(ours, theirs)
    assert ours.is_contiguous(memory_format=layout)
    gradients = [torch.autograd.grad(y, x, signal)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("size", [1, 3, 9])
def test_gradient_of_response_normalisation_in_any_window(size):
    """Against finite differences, with nearly all of the change in the neighbours' share."""
    torch.manual_seed(0)
    x = torch.randn(2, 6, 2, 3, dtype=torch.float64, requires_grad=True)
    norm = modules.LocalResponseNorm(size, alpha=3.0)
    torch.testing.assert_close(norm(x), torch.nn.LocalResponseNorm(size, alpha=3.0)(x))
    assert torch.autograd.gradcheck(norm, x)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_response_normalisation_in_half_precision_does_not_overflow(half, autocast):
    """The squares would be infinite in float16."""
    x = torch.linspace(0, 6e4, 2 * 8 * 9).view(2, 8, 3, 3).to(half)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        result = modules.LocalResponseNorm()(x)
    assert result.dtype == half
    torch.testing.assert_close(
        result, torch.nn.LocalResponseNorm(5, alpha=1e-4)(x.float()).to(half)
    )
