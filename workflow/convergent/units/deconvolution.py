"""Deconvolutions: the pixels of an image that excite a unit (Zeiler and Fergus 2014)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from convergent import ConvergentError
from convergent.activations.layouts import Layout
from convergent.activations.probing import Places, layouts
from convergent.nets.models import evaluating
from convergent.nets.modules import LocalResponseNorm
from convergent.units.operations import Operations, kind, operations

# Operations through which a signal travels back, by autograd's names. Sums and concatenations pass
# it to each of their parts.
JOINING = {"Add", "Sub", "Cat", "Stack"}
# These pass it by their gradient: operations of the nets of Zeiler and Fergus, and others that only
# move values or are linear in the one input that depends on the image.
PASSING = {
    "Relu", "MaxPool2DWithIndices", "AdaptiveMaxPool2D", "AvgPool2D", "AdaptiveAvgPool2D", "Mean",
    "Convolution", "MkldnnConvolution", "CudnnConvolution", "Addmm", "Mm", "Mv", "Bmm", "Addbmm",
    "Baddbmm", "Linear", "NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm",
    "BatchNormImplIndex", "Mul", "Div", "Neg", "Sum", "View", "UnsafeView", "ReshapeAlias",
    "Permute", "Transpose", "T", "Squeeze", "Unsqueeze", "Expand", "Repeat", "Slice", "Select",
    "Index", "IndexSelect", "Split", "SplitWithSizes", "Unbind", "Roll", "Flip", "AsStrided",
    "Clone", "ToCopy", "Alias", "ConstantPadNd", "ReflectionPad2D", "ReplicationPad2D",
    "UpsampleNearest2D", "UpsampleBilinear2D", "PixelShuffle", "PixelUnshuffle",
    "AccumulateGrad",
}  # fmt: skip
# Modules through which a signal travels back by the gradient, whatever operations they use.
NORMALISING = (nn.LocalResponseNorm, LocalResponseNorm)


class DeconvolutionError(ConvergentError, ValueError):
    """A place whose activations have no deconvolution; the message says why."""


def deconvolve(
    net: nn.Module,
    layer: str | Mapping[str, Any] | Layout,
    images: torch.Tensor,
    unit: NDArray[np.integer],
    y: NDArray[np.integer],
    x: NDArray[np.integer],
    *,
    negative: bool = False,
) -> torch.Tensor:
    """Deconvolve one activation in each image of a batch.

    The activation is passed back to the pixels, and each ReLU on the way lets positive signals
    through and nothing else. Max pooling sends a signal back to where the maximum was; sums and
    concatenations send it to each of their parts; batch and local response normalisation pass it
    as their gradient does.

    Parameters
    ----------
    net : nn.Module
        The net. It runs in evaluation mode; its own mode is restored.
    layer : str, mapping or Layout
        Place or layout, see :meth:`convergent.activations.layouts.Layout.of`.
    images : torch.Tensor of shape (image, channel, y, x)
        Normalised images, on the device of the net.
    unit, y, x : ndarray of shape (image,)
        The activation in each image, as in :class:`convergent.activations.strongest.Top`; y and x
        are ignored in layers without positions.
    negative : bool
        Pass the negated activation back, to see what makes a unit negative.

    Returns
    -------
    torch.Tensor of shape (image, channel, y, x), float32

    Raises
    ------
    DeconvolutionError
        If deconvolution has no meaning there, see :func:`undeconvolved`.
    """
    places = layouts(net, {"layer": layer}, images[:1])
    with evaluating(net):
        recorded = operations(net, places, images)
    fault = _fault(net, recorded)
    if fault:
        raise DeconvolutionError(f"{places['layer'].place}: no deconvolution: {fault}")
    chosen = _chosen(recorded.outputs["layer"], unit, y, x).sum()
    for node in recorded.nodes:
        if kind(node) == "Relu":
            node.register_hook(_rectify)
    return torch.autograd.grad(-chosen if negative else chosen, recorded.images)[0]


def undeconvolved(net: nn.Module, places: Places, example: torch.Tensor) -> dict[str, str]:
    """Say why activations of some layers have no deconvolution.

    Deconvolution has a meaning if only convolutions, full connections, ReLUs, poolings, batch or
    local response normalisations, sums and concatenations lead to a layer, in any order and
    wiring. It has none where signals cannot be rectified (GELU, SiLU) or depend on products
    of activations (attention, squeeze and excitation) or on statistics of the image (layer
    normalisation).

    Parameters
    ----------
    net : nn.Module
        The net. It runs in evaluation mode; its own mode is restored.
    places : mapping of layer to place or layout, or sequence of places
    example : torch.Tensor of shape (image, channel, y, x)
        An input that the net accepts.

    Returns
    -------
    dict of layer to str
        The operation without deconvolution that is nearest to the image, and its module, such as
        ``GELU at features.1.0.block.4``. Layers that have deconvolutions are left out.
    """
    made = layouts(net, places, example)
    with evaluating(net):
        faults = {
            layer: _fault(net, operations(net, {layer: layout}, example[:1]))
            for layer, layout in made.items()
        }
    return {layer: fault for layer, fault in faults.items() if fault}


def _chosen(values: torch.Tensor, unit: NDArray, y: NDArray, x: NDArray) -> torch.Tensor:
    """Choose one of the activations (image, ..., unit) of each image."""
    unit, y, x = (torch.as_tensor(np.asarray(part), device=values.device) for part in (unit, y, x))
    rows = torch.arange(len(values), device=values.device)
    if values.ndim == 2:
        return values[rows, unit]
    width = values.shape[-2] if values.ndim > 3 else 1
    return values.flatten(1, -2)[rows, y * width + x, unit]


def _fault(net: nn.Module, recorded: Operations) -> str | None:
    """Describe the operation nearest to the image that has no deconvolution."""
    if not recorded.nodes:
        return "no gradient leads to the image"
    depending = set(recorded.nodes)
    for node in reversed(recorded.nodes):
        path = recorded.modules.get(node, "")
        module = net.get_submodule(path)
        if isinstance(module, NORMALISING):
            continue
        paths = sum(before in depending for before, _ in node.next_functions)
        known = kind(node) in (JOINING if paths > 1 else JOINING | PASSING)
        if not known:
            name = kind(node) if any(module.children()) else type(module).__name__
            if kind(node) in PASSING:
                name = "product of activations"
            return f"{name} at {path}" if path else name
    return None


def _rectify(
    given: tuple[torch.Tensor, ...], signals: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor]:
    """Let the positive signals through a ReLU, whatever it was given."""
    return (functional.relu(signals[0]),)
