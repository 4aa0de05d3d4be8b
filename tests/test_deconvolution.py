"""Deconvolutions are Zeiler and Fergus's: switches, rectified signals, transposed filters."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from convergent.nets import models, modules
from convergent.units.deconvolution import FunctionalReluError, check_relus, deconvolve


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


class Functional(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
        self.tail = nn.Conv2d(2, 2, 3)
        self.call = call

    def forward(self, x):
        return self.call(self.tail(self.head(x)))


@pytest.mark.parametrize(
    "call", [functional.relu, torch.relu, torch.Tensor.relu, lambda x: x.relu_()]
)
def test_a_functional_relu_is_refused_by_name(call):
    net = nn.Sequential(nn.Identity(), Functional(call))
    with pytest.raises(FunctionalReluError, match=r"^1: this ReLU is a function"):
        check_relus(net, torch.zeros(1, 1, 9, 9))
    zero = np.zeros(1, int)
    with pytest.raises(FunctionalReluError, match=r"^1: this ReLU is a function"):
        deconvolve(net, "1.head.1", torch.zeros(1, 1, 9, 9), zero, zero, zero)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_relus_in_place_or_used_twice_are_refused():
    relu = nn.ReLU()
    with pytest.raises(FunctionalReluError, match=r"^0: this ReLU is used twice"):
        check_relus(nn.Sequential(relu, nn.Identity(), relu), torch.zeros(1, 2))
    with pytest.raises(FunctionalReluError, match=r"^1: this ReLU works in place"):
        check_relus(nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True)), torch.zeros(1, 2))


def test_nets_of_modules_pass(small_net):
    check_relus(small_net, torch.zeros(1, 1, 16, 16))
    assert small_net.training
