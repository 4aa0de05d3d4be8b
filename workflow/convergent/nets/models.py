"""The nets (section 2 of the paper): AlexNet without groups, in any width and input size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.utils.hooks import RemovableHandle

from convergent import ConvergentError
from convergent.nets.alexnet import alexnet_sides


class WeightsError(ConvergentError, ValueError):
    """Weights that cannot be read or are of another net; the message names their file."""


def build(name: str = "alexnet", **options) -> nn.Module:
    """Build an untrained net.

    Parameters
    ----------
    name : {"alexnet"}
    **options
        Of the architecture, see :func:`alexnet`.

    Raises
    ------
    ValueError
        If there is no such architecture, or the input is too small for it.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"model {name!r} is none of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name](**options)


def alexnet(
    *,
    size: int = 227,
    inputs: int = 3,
    classes: int = 1000,
    channels: Sequence[int] = (96, 256, 384, 384, 256),
    fully_connected: Sequence[int] = (4096, 4096),
    kernel: int = 11,
    stride: int = 4,
    padding: int = 0,
    dropout: float = 0.5,
    init: str = "caffenet",
) -> nn.Sequential:
    """The paper's net: CaffeNet without groups; five convolutions, three full connections.

    3x3/2 max pooling follows conv1, conv2 and conv5, local response normalisation the first
    two poolings, dropout fc6 and fc7. For a 227 pixel input the maps of conv1 to conv5 are
    55, 27, 13, 13 and 13 wide.

    Parameters
    ----------
    size : int
        Side of the square input, in pixels.
    inputs : int
        Channels of the input: 1 for grey, 3 for colour.
    classes : int
        Units of fc8.
    channels : sequence of 5 int
        Units of conv1 to conv5.
    fully_connected : sequence of 2 int
        Units of fc6 and fc7.
    kernel, stride, padding : int
        Geometry of conv1. conv2 is 5x5 with padding 2, conv3 to conv5 3x3 with padding 1.
    dropout : float
        Probability in fc6 and fc7.
    init : {"caffenet", "kaiming"}
        Gaussians and biases as in CaffeNet's definition, or He's for small nets trained
        without its long schedule.

    Returns
    -------
    nn.Sequential
        One child per layer of the paper; child ``conv1`` is the convolution and its ReLU, so
        its output is the activation that the paper analyses.

    Raises
    ------
    ValueError
        If a map shrinks to nothing, or `init` is unknown.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    width, side = inputs, alexnet_sides(size, kernel, stride, padding)[-1]
    geometry = [(kernel, stride, padding), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1)]
    for number, (units, shape) in enumerate(zip(channels, geometry, strict=True), 1):
        layers[f"conv{number}"] = _with_relu(conv=nn.Conv2d(width, units, *shape))
        width = units
        if number in (1, 2, 5):
            layers[f"pool{number}"] = nn.MaxPool2d(3, 2)
        if number in (1, 2):
            layers[f"norm{number}"] = LocalResponseNorm()
    layers["flatten"] = nn.Flatten()
    width *= side * side
    for number, units in enumerate(fully_connected, 6):
        layers[f"fc{number}"] = _with_relu(linear=nn.Linear(width, units))
        layers[f"drop{number}"] = nn.Dropout(dropout)
        width = units
    layers["fc8"] = nn.Linear(width, classes)
    net = nn.Sequential(layers)
    _initialize(net, init)
    return net


class LocalResponseNorm(nn.Module):
    """Local response normalisation with the values of `nn.LocalResponseNorm`, on a CPU faster.

    Divides each value by (1 + alpha / size * sum of the squares of the `size` channels around
    it) to the power of 3/4. Half precision is widened to float32 inside, which squares on
    Caffe's scale of 0 to 255 need.

    Parameters
    ----------
    size : int
        Channels in a window, an odd number.
    alpha : float
    """

    def __init__(self, size: int = 5, alpha: float = 1e-4):
        super().__init__()
        self.size, self.alpha = size, alpha

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise a batch (image, channel, y, x), in its own dtype."""
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        return _ResponseNorm.apply(wide, self.size, self.alpha / self.size).to(x.dtype)


def options(model: Mapping[str, Any], data: Mapping[str, Any], classes: int) -> dict[str, Any]:
    """Options for :func:`build` from the parts ``model`` and ``data`` of the configuration."""
    return {**model, "size": data["size"], "inputs": len(data["mean"]), "classes": classes}


def load(
    weights: str | Path, model: Mapping[str, Any], data: Mapping[str, Any], classes: int
) -> nn.Module:
    """A trained net: :func:`build` with the :func:`options` given, and the weights of a file.

    Raises
    ------
    WeightsError
        If the file cannot be read, or fits another net.
    """
    net = build(**options(model, data, classes))
    try:
        net.load_state_dict(torch.load(weights, weights_only=True))
    except Exception as error:
        raise WeightsError(
            f"{weights}: no weights of this net that can be read ({error}). If they are of another "
            "net, correct `model` or `data`, or the file; if it is damaged, train again: the same "
            f"snakemake command with --forcerun {weights}"
        ) from error
    return net


def layers(net: nn.Module, example: torch.Tensor) -> list[str]:
    """Names of the layers that end in a ReLU, in the order in which they run.

    A ReLU that is a child named ``relu`` lends its parent's name, so the paper's nets give
    conv1 to conv5, fc6 and fc7; any other is named by its own path.

    Parameters
    ----------
    net : nn.Module
        Any net whose ReLUs are `nn.ReLU` modules.
    example : torch.Tensor of shape (image, channel, y, x)
        Something it takes.
    """
    order: list[nn.Module] = []
    relus = {module: name for name, module in _relus(net).items()}
    hooks = [relu.register_forward_hook(lambda relu, *_: order.append(relu)) for relu in relus]
    run_once(net, example, hooks)
    return list(dict.fromkeys(relus[relu] for relu in order))


def run_once(net: nn.Module, example: torch.Tensor, hooks: Sequence[RemovableHandle]) -> None:
    """Run a net on an example in evaluation mode, then remove hooks and restore its modes."""
    try:
        with evaluating(net), torch.no_grad():
            net(example)
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def evaluating(
    net: nn.Module, device: str | None = None, *, channels_last: bool = False
) -> Iterator[nn.Module]:
    """Hold a net in evaluation mode, and give it back as it was found.

    Parameters
    ----------
    net : nn.Module
    device : str, optional
        Where the net is meanwhile.
    channels_last : bool
        Whether its kernels are so on the device: the unit is then the last axis of its maps
        without a transpose, and convolutions are faster.
    """
    modes = {module: module.training for module in net.modules()}
    buffers = [(m, name, b) for m in net.modules() for name, b in m._buffers.items()]
    tensors = [*net.parameters(), *(b for *_, b in buffers if b is not None)]
    found = [tensor.data for tensor in tensors]
    formats = {4: torch.channels_last, 5: torch.channels_last_3d} if channels_last else {}
    try:
        net.eval()
        for tensor in tensors:
            memory_format = formats.get(tensor.ndim, torch.preserve_format)
            # Buffers are copied in any case, as a net may write into them.
            copy = not isinstance(tensor, nn.Parameter)
            tensor.data = tensor.data.to(
                device or tensor.device, memory_format=memory_format, copy=copy
            )
        yield net
    finally:
        for module, name, buffer in buffers:
            module._buffers[name] = buffer
        for tensor, data in zip(tensors, found, strict=True):
            tensor.data = data
        for module, training in modes.items():
            module.training = training


def activation(net: nn.Module, layer: str) -> nn.ReLU:
    """The ReLU module whose output is the activation of `layer`.

    Raises
    ------
    KeyError
        If the net has no such layer; names those that it has.
    """
    relus = _relus(net)
    if layer not in relus:
        raise KeyError(f"the net has no layer {layer!r}; it has {', '.join(relus)}")
    return relus[layer]


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {"alexnet": alexnet}


class _ResponseNorm(torch.autograd.Function):
    """x * s**-0.75 with s = 1 + scale * window sum of x**2, and its gradient in one more sum."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, size: int, scale: float) -> torch.Tensor:
        s = _window_sum(x * x, size).mul_(scale).add_(1)
        root = s.rsqrt()
        factor = root.sqrt().mul_(root)  # much faster than a power
        ctx.save_for_backward(x, s, factor)
        ctx.size, ctx.scale = size, scale
        return x * factor

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x, s, factor = ctx.saved_tensors
        direct = gradient * factor
        others = _window_sum((direct * x).div_(s), ctx.size).mul_(x)
        return direct.sub_(others, alpha=1.5 * ctx.scale), None, None


def _window_sum(values: torch.Tensor, size: int) -> torch.Tensor:
    """Each channel with its (size - 1) / 2 neighbours on either side added."""
    total = values.clone()
    for shift in range(1, min(size // 2 + 1, values.shape[1])):
        total[:, shift:] += values[:, :-shift]
        total[:, :-shift] += values[:, shift:]
    return total


def _with_relu(**linear: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(linear, relu=nn.ReLU()))


def _relus(net: nn.Module) -> dict[str, nn.ReLU]:
    return {
        path.removesuffix(".relu"): module
        for path, module in net.named_modules()
        if isinstance(module, nn.ReLU)
    }


def _initialize(net: nn.Module, init: str) -> None:
    """Caffe's bvlc_reference_caffenet: std 0.01 (fc6, fc7 0.005); bias 1 in some layers."""
    if init not in ("caffenet", "kaiming"):
        raise ValueError(f"init {init!r} is none of caffenet, kaiming")
    for path, module in net.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        layer = path.split(".")[0]
        if init == "kaiming":
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
        else:
            nn.init.normal_(module.weight, std=0.005 if layer in ("fc6", "fc7") else 0.01)
            ones = layer in ("conv2", "conv4", "conv5", "fc6", "fc7")
            nn.init.constant_(module.bias, float(ones))
