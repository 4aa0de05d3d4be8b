"""Deconvolutions: the pixels of an image that excite a unit (Zeiler and Fergus 2014)."""

from __future__ import annotations

import warnings
from collections import OrderedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from convergent import ConvergentError
from convergent.nets.models import activation, evaluating, run_once

# Functions that rectify.
RELUS = {
    torch.relu,
    torch.relu_,
    functional.relu,
    functional.relu_,
    torch.Tensor.relu,
    torch.Tensor.relu_,
}


class FunctionalReluError(ConvergentError, ValueError):
    """A net with a ReLU that is not a module; the message names the layer."""


def deconvolve(
    net: nn.Module,
    layer: str,
    images: torch.Tensor,
    unit: NDArray[np.integer],
    y: NDArray[np.integer],
    x: NDArray[np.integer],
) -> torch.Tensor:
    """Deconvolve one activation in each image of a batch.

    The activation is passed back to the pixels, and each ReLU on the way lets positive signals
    through and nothing else. Max pooling sends a signal back to where the maximum was, and local
    response normalisation as its gradient does. captum's `NeuronDeconvolution` computes it.

    Parameters
    ----------
    net : nn.Module
        The net. It runs in evaluation mode; its own mode is restored.
    layer : str
        Name as :func:`convergent.nets.models.layers` returns it.
    images : torch.Tensor of shape (image, channel, y, x)
        Normalised images, on the device of the net.
    unit, y, x : ndarray of shape (image,)
        The activation in each image; y and x are ignored in fully connected layers.

    Returns
    -------
    torch.Tensor of shape (image, channel, y, x), float32

    Raises
    ------
    FunctionalReluError
        See :func:`check_relus`.
    """
    from captum.attr import NeuronDeconvolution

    check_relus(net, images[:1])
    rows = torch.arange(len(images), device=images.device)
    unit, y, x = (torch.as_tensor(np.asarray(v), device=images.device) for v in (unit, y, x))

    def chosen(output: torch.Tensor) -> torch.Tensor:
        return output[rows, unit, y, x] if output.ndim == 4 else output[rows, unit]

    with evaluating(net), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Setting backward hooks")
        method = NeuronDeconvolution(_up_to(net, layer), activation(net, layer))
        return method.attribute(images.detach().requires_grad_(), chosen).detach()


def check_relus(net: nn.Module, example: torch.Tensor) -> None:
    """Check that each ReLU of a net is a module of its own, as deconvolution needs.

    captum rectifies the signal at modules only. At a function it would silently use the plain
    gradient.

    Parameters
    ----------
    net : nn.Module
    example : torch.Tensor of shape (image, channel, y, x)
        An input that the net accepts.

    Raises
    ------
    FunctionalReluError
        If a ReLU is a call to a function, works in place, or is used twice; names the layer.
    """
    paths = {module: path or type(module).__name__ for path, module in net.named_modules()}
    inside: list[nn.Module] = []
    calls: list[nn.Module] = []

    def enter(module: nn.Module, args: tuple) -> None:
        inside.append(module)
        if isinstance(module, nn.ReLU):
            if module.inplace or module in calls:
                fault = "works in place" if module.inplace else "is used twice"
                raise FunctionalReluError(
                    f"{paths[module]}: this ReLU {fault}; deconvolution needs an nn.ReLU() of its "
                    "own at each place"
                )
            calls.append(module)

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func in RELUS and not isinstance(inside[-1], nn.ReLU):
                raise FunctionalReluError(
                    f"{paths[inside[-1]]}: this ReLU is a function; deconvolution needs a module, "
                    "so make it an nn.ReLU()"
                )
            return func(*args, **(kwargs or {}))

    def leave(module: nn.Module, args: tuple, output: torch.Tensor) -> None:
        inside.pop()

    hooks = [module.register_forward_pre_hook(enter) for module in paths]
    hooks += [module.register_forward_hook(leave) for module in paths]
    with Watch():
        run_once(net, example, hooks)


def _up_to(net: nn.Module, layer: str) -> nn.Module:
    """Cut a sequential net after a layer, as what follows need not run."""
    if type(net) is not nn.Sequential:
        return net
    front: OrderedDict[str, nn.Module] = OrderedDict()
    for name, child in net._modules.items():  # named_children() leaves repeated modules out
        front[name] = child
        if activation(net, layer) in child.modules():
            break
    return nn.Sequential(front)
