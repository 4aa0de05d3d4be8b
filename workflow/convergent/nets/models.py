"""Nets: building them, loading their weights, and finding their layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from convergent import ConvergentError
from convergent.nets.architectures import ARCHITECTURES, DEFAULT


class WeightsError(ConvergentError, ValueError):
    """Weights that cannot be read or belong to another net; the message names their file."""


def build(name: str = DEFAULT, **options) -> nn.Module:
    """Build an untrained net.

    Parameters
    ----------
    name : str
        Name of one of :data:`convergent.nets.architectures.ARCHITECTURES`.
    **options
        Arguments of the function that builds it, such as
        :func:`convergent.nets.architectures.alexnet.alexnet`.

    Raises
    ------
    ValueError
        If there is no such architecture, or the input is too small for it.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"model {name!r} is none of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name].build(**options)


def options(model: Mapping[str, Any], data: Mapping[str, Any], classes: int) -> dict[str, Any]:
    """Make options for :func:`build` from the configuration's sections ``model`` and ``data``."""
    return {**model, "size": data["size"], "inputs": len(data["mean"]), "classes": classes}


def load(
    weights: str | Path, model: Mapping[str, Any], data: Mapping[str, Any], classes: int
) -> nn.Module:
    """Load a trained net: :func:`build` with :func:`options`, and the weights of a file.

    Raises
    ------
    WeightsError
        If the file cannot be read, or belongs to another net.
    """
    net = build(**options(model, data, classes))
    try:
        net.load_state_dict(torch.load(weights, weights_only=True))
    except Exception as error:
        raise WeightsError(
            f"{weights}: cannot be read as weights of this net ({error}). If they belong to "
            "another net, correct `model`, `data` or the file; if it is damaged, train again: "
            f"run the same snakemake command with --forcerun {weights}"
        ) from error
    return net


def layers(net: nn.Module, example: torch.Tensor) -> list[str]:
    """Name the layers that end in a ReLU, in the order in which they run.

    A ReLU that is a child named ``relu`` has its parent's name, so that the layers of the paper's
    net are conv1 to conv5, fc6 and fc7. Any other has its own path as its name.

    Parameters
    ----------
    net : nn.Module
        Any net whose ReLUs are `nn.ReLU` modules.
    example : torch.Tensor of shape (image, channel, y, x)
        Images, or anything else that the net takes.
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
    """Keep a net in evaluation mode while the block runs, then restore its state.

    Parameters
    ----------
    net : nn.Module
    device : str, optional
        Device of the net inside the block.
    channels_last : bool
        Memory format of the net's kernels on the device. With it the unit is the last axis of
        the maps without a transpose, and convolutions are faster.
    """
    modes = {module: module.training for module in net.modules()}
    buffers = [(m, name, b) for m in net.modules() for name, b in m._buffers.items()]
    tensors = [*net.parameters(), *(b for *_, b in buffers if b is not None)]
    originals = [tensor.data for tensor in tensors]
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
        for tensor, data in zip(tensors, originals, strict=True):
            tensor.data = data
        for module, training in modes.items():
            module.training = training


def activation(net: nn.Module, layer: str) -> nn.ReLU:
    """Find the ReLU module whose output is the activation of `layer`.

    Raises
    ------
    KeyError
        If the net has no such layer; the message lists its layers.
    """
    relus = _relus(net)
    if layer not in relus:
        raise KeyError(f"the net has no layer {layer!r}; it has {', '.join(relus)}")
    return relus[layer]


def _relus(net: nn.Module) -> dict[str, nn.ReLU]:
    return {
        path.removesuffix(".relu"): module
        for path, module in net.named_modules()
        if isinstance(module, nn.ReLU)
    }
