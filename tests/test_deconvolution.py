"""Deconvolutions are Zeiler and Fergus's: switches, rectified signals, transposed filters."""

import captum.attr
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from convergent.nets import models, modules
from convergent.units.deconvolution import DeconvolutionError, deconvolve, undeconvolved


def reference(net, layer, image, unit, y, x):
    """Run a chain of modules forwards, and the signal back through it, one rule per module."""
    chain = [m for m in net.modules() if not any(m.children())]
    last = chain.index(models.activation(net, layer))
    inputs = []
    for module in chain[: last + 1]:
        inputs.append(image)
        with torch.no_grad():
            image = module(image)
    signal = torch.zeros_like(image)
    signal[(0, unit, y, x) if image.ndim == 4 else (0, unit)] = 1
    for module, given in zip(reversed(chain[: last + 1]), reversed(inputs), strict=True):
        if isinstance(module, nn.ReLU):
            signal = signal.clamp(min=0)
        elif isinstance(module, nn.Conv2d):
            signal = functional.conv_transpose2d(
                signal, module.weight, stride=module.stride, padding=module.padding
            )
            missing = [g - s for g, s in zip(given.shape[2:], signal.shape[2:], strict=True)]
            signal = functional.pad(signal, (0, missing[1], 0, missing[0]))
        elif isinstance(module, nn.Linear):
            signal = signal @ module.weight
        elif isinstance(module, nn.MaxPool2d):
            _, switches = functional.max_pool2d(given, 3, 2, return_indices=True)
            back = torch.zeros(*given.shape[:2], given[0, 0].numel())
            back.scatter_add_(2, switches.flatten(2), signal.flatten(2))
            signal = back.view_as(given)
        elif isinstance(module, nn.Flatten):
            signal = signal.view_as(given)
        elif isinstance(module, modules.LocalResponseNorm):
            leaf = given.clone().requires_grad_()
            output = nn.LocalResponseNorm(5, 1e-4)(leaf)
            (signal,) = torch.autograd.grad(output, leaf, signal)
        else:
            assert isinstance(module, nn.Dropout)
    return signal.detach()


@pytest.fixture
def batch(small_net):
    torch.manual_seed(2)
    return small_net.eval(), torch.rand(5, 1, 16, 16)


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3", "conv5", "fc6", "fc7"])
def test_deconvolutions_are_those_of_a_reference_written_by_hand(batch, layer):
    net, images = batch
    units, y, x = np.array([0, 3, 2, 1, 0]), np.array([0, 1, 2, 0, 1]), np.array([1, 0, 2, 0, 0])
    got = deconvolve(net, layer, images, units, y, x)
    assert got.shape == images.shape
    for n in range(5):
        expected = reference(net, layer, images[n : n + 1], units[n], y[n], x[n])
        torch.testing.assert_close(got[n : n + 1], expected)
    assert got.abs().sum() > 0


def test_it_is_not_the_gradient(batch):
    net, images = batch
    images = images.requires_grad_()
    zeros = np.zeros(5, int)
    kept = {}
    hook = models.activation(net, "conv3").register_forward_hook(lambda m, a, o: kept.update(o=o))
    net(images)
    hook.remove()
    (gradient,) = torch.autograd.grad(kept["o"][:, 0, 0, 0].sum(), images)
    assert not torch.allclose(deconvolve(net, "conv3", images, zeros, zeros, zeros), gradient)


def test_a_module_that_runs_twice_counts_twice():
    torch.manual_seed(4)
    pool = nn.MaxPool2d(2)
    shared = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), pool, nn.Conv2d(2, 2, 3), nn.ReLU(), pool,
        nn.Conv2d(2, 2, 3), nn.ReLU(), nn.Flatten(),
    )  # fmt: skip
    apart = nn.Sequential(*(nn.MaxPool2d(2) if m is pool else m for m in shared._modules.values()))
    images, zeros = torch.rand(3, 1, 32, 32), np.zeros(3, int)
    expected = deconvolve(apart, "7", images, zeros, zeros, zeros)
    assert expected.abs().max() > 0
    torch.testing.assert_close(deconvolve(shared, "7", images, zeros, zeros, zeros), expected)


def by_captum(net, layer, images, unit, y, x):
    rows = torch.arange(len(images))
    chosen = (rows, *map(torch.as_tensor, (unit, y, x)))
    method = captum.attr.NeuronDeconvolution(net, models.activation(net, layer))
    return method.attribute(images.clone().requires_grad_(), lambda output: output[chosen])


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
@pytest.mark.parametrize("layer", ["conv2", "conv5"])
def test_they_are_those_of_captum_to_the_last_bit(batch, layer):
    net, images = batch
    where = np.array([0, 3, 2, 1, 0]), np.array([0, 1, 0, 0, 1]), np.array([1, 0, 0, 0, 0])
    expected = by_captum(net, layer, images, *where)
    assert expected.abs().max() > 0
    assert torch.equal(deconvolve(net, layer, images, *where), expected)


class Block(nn.Module):
    """A residual block in any way to write a ReLU."""

    def __init__(self, way):
        super().__init__()
        torch.manual_seed(5)
        self.first, self.second = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.third, self.norm = nn.Conv2d(3, 2, 3, padding=1), nn.BatchNorm2d(3)
        self.relu, self.last = nn.ReLU(), nn.ReLU()
        self.in_place = nn.ReLU(inplace=True)
        self.way = way

    def rectify(self, x, module):
        if self.way == "module":
            return module(x)
        if self.way in ("used again", "in place"):
            return self.relu(x) if self.way == "used again" else self.in_place(x)
        return {
            "function": functional.relu,
            "torch": torch.relu,
            "method": torch.Tensor.relu,
            "method in place": torch.Tensor.relu_,
        }[self.way](x)

    def forward(self, x):
        start = self.rectify(self.norm(self.first(x)), self.relu)
        self.kept = self.second(start)
        return self.rectify(self.third(self.kept + start), self.last)


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
@pytest.mark.parametrize(
    "way", ["used again", "in place", "function", "torch", "method", "method in place"]
)
def test_however_a_relu_is_written_the_deconvolution_is_the_same(way):
    images, where = torch.rand(3, 2, 9, 9), (np.array([0, 1, 0]), np.arange(3), np.full(3, 4))
    apart = nn.Sequential(Block("module")).eval()
    with torch.no_grad():
        apart[0].norm.running_var[:] = torch.tensor([0.5, 1, 2])
    other = nn.Sequential(Block(way)).eval()
    other.load_state_dict(apart.state_dict())
    expected = by_captum(apart, "0.last", images, *where)
    assert expected.abs().max() > 0
    assert torch.equal(deconvolve(other, "0", images, *where), expected)
    assert undeconvolved(other, ["0"], images) == {}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in other.modules())


def test_a_negated_activation_is_passed_back_with_its_sign():
    """Behind a linear layer, the signal is that of a unit with the opposite weights."""
    torch.manual_seed(6)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 1, 3))
    turned = nn.Sequential(net[0], net[1], nn.Conv2d(2, 1, 3))
    with torch.no_grad():
        turned[2].weight[:] = -net[2].weight
    images, zero = torch.rand(2, 1, 8, 8), np.zeros(2, int)
    got = deconvolve(net, "2", images, zero, zero, zero, negative=True)
    assert torch.equal(got, deconvolve(turned, "2", images, zero, zero, zero))
    assert not torch.allclose(got, -deconvolve(net, "2", images, zero, zero, zero))


def test_pooled_cells_and_tokens_are_deconvolved_as_the_sum_of_their_positions():
    torch.manual_seed(7)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 1), nn.Flatten(2))
    images, unit, zero = torch.rand(1, 1, 6, 6), np.array([1]), np.zeros(1, int)

    def at(y, x):
        return deconvolve(net, "2", images, unit, np.array([y]), np.array([x]))

    layout = {"place": "2", "grid": [2, 2]}
    got = deconvolve(net, layout, images, unit, np.array([1]), zero)
    back = nn.Sequential(net[0], net[1])
    images_ = images.clone().requires_grad_()
    rectified = functional.relu(net[2].weight[1, :, 0, 0] / 4)
    output = back[0](images_)
    signal = torch.zeros_like(output)
    signal[0, :, 2:, :2] = rectified[:, None, None]
    (expected,) = torch.autograd.grad(output, images_, signal)
    torch.testing.assert_close(got, expected)
    tokens = {"place": "3", "unit_axis": 1}
    token = deconvolve(net, tokens, images, unit, np.array([4 * 2 + 3]), zero)
    torch.testing.assert_close(token, at(2, 3))


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.gate = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 1)

    def forward(self, x):
        x = torch.relu(self.conv(x))
        return x * torch.relu(self.gate(x.mean((2, 3), keepdim=True)))


@pytest.mark.parametrize(
    ("module", "fault"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.GELU()), "GELU at 0.1"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2)), "GroupNorm at 0.1"),
        (nn.ReLU6(), "ReLU6 at 0"),
        (Gate(), "product of activations at 0"),
    ],
)
def test_places_without_a_meaning_are_refused_and_those_before_and_beside_them_are_not(
    module, fault
):
    channels = 1 if isinstance(module, nn.ReLU6) else 2
    net = nn.Sequential(module, nn.Conv2d(channels, 2, 1), nn.ReLU()).eval()
    images, zero = torch.rand(1, 1, 6, 6), np.zeros(1, int)
    assert undeconvolved(net, ["2"], images) == {"2": fault}
    with pytest.raises(DeconvolutionError, match=f"^2: no deconvolution: {fault}$"):
        deconvolve(net, "2", images, zero, zero, zero)
    if any(module.children()):
        first = next(name for name, _ in module.named_children())
        assert undeconvolved(net, [f"0.{first}"], images) == {}


def test_the_net_keeps_its_mode_and_the_images_their_gradient(small_net):
    images, zero = torch.rand(2, 1, 16, 16, requires_grad=True), np.zeros(2, int)
    deconvolve(small_net, "conv2", images, zero, zero, zero)
    assert small_net.training
    assert images.grad is None
    assert all(parameter.grad is None for parameter in small_net.parameters())
