"""Nets: building them, loading their weights, and finding their layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from convergent.nets import sources
from convergent.nets.architectures import ARCHITECTURES, DEFAULT
from convergent.nets.weights import WeightsError

__all__ = [
    "WeightsError",
    "activation",
    "build",
    "evaluating",
    "layers",
    "load",
    "options",
    "run_once",
]


def build(name: str = DEFAULT, **options) -> nn.Module:
    """Build an untrained net.

    Parameters
    ----------
    name : str
        Name of one of :data:`convergent.nets.architectures.ARCHITECTURES`; or a net that is brought
        along, as ``path.py:function``, ``torchvision:name`` or ``timm:name``.
    **options
        Arguments of the function that builds it, such as
        :func:`convergent.nets.architectures.alexnet.alexnet`; for a brought net those of
        :func:`convergent.nets.sources.build_brought`.

    Raises
    ------
    ValueError
        If there is no such architecture, or the input is too small for it.
    SourceError
        If a brought net cannot be built.
    """
    if sources.is_brought(name):
        return sources.build_brought(name, **options)
    if name not in ARCHITECTURES:
        raise ValueError(
            f"model {name!r} is none of {', '.join(ARCHITECTURES)}, and no path.py:function, "
            "torchvision:name or timm:name"
        )
    return ARCHITECTURES[name].build(**options)


def options(net: Mapping[str, Any], classes: int | None = None) -> dict[str, Any]:
    """Make options for :func:`build` from a net of the run.

    Parameters
    ----------
    net : mapping
        ``model``, the net's section of the configuration; ``size``, the side of its square input in
        pixels; and ``inputs``, the input's channels.
    classes : int, optional
        Classes of the run's images; the architecture's own default if they are not known yet.
    """
    known = {} if classes is None else {"classes": classes}
    return {**net["model"], "size": net["size"], "inputs": net["inputs"], **known}


def load(weights: str | Path, net: Mapping[str, Any], classes: int) -> nn.Module:
    """Load a net of the run: :func:`build` with :func:`options`, and the weights of a file.

    Raises
    ------
    WeightsError
        If the file cannot be read, or belongs to another net.
    """
    module = build(**options(net, classes))
    try:
        module.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except Exception as error:
        raise WeightsError(
            f"{weights}: cannot be read as weights of this net ({error}). If they belong to "
            "another net, correct `model`, `data` or the file; if it is damaged, make it again: "
            f"run the same snakemake command with --forcerun {weights}"
        ) from error
    return module


def layers(net: nn.Module, example: torch.Tensor) -> list[str]:
    """Name all ReLUs of a net, in the order in which they run.

    A ReLU that is the child ``relu`` of an `nn.Sequential` has its parent's name, so that the
    layers of the paper's net are conv1 to conv5, fc6 and fc7. Any other has the name that
    :func:`convergent.nets.places.places` gives it.

    Parameters
    ----------
    net : nn.Module
        Any net; ReLUs that are functions are found if torch.fx can trace it.
    example : torch.Tensor of shape (image, channel, y, x)
        Images, or anything else that the net takes.
    """
    from convergent.nets.places import named_once, places

    return named_once(net, [place for place in places(net, example) if place.kind == "relu"])


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
        If `layer` is not the first use of a ReLU module; the message lists those.
    """
    relus = {path: module for path, module in net.named_modules() if isinstance(module, nn.ReLU)}
    for path in (layer, f"{layer}.relu"):
        if path in relus:
            return relus[path]
    raise KeyError(f"{layer!r} is no ReLU module of the net; it has {', '.join(relus) or 'none'}")
