"""Operations between an image and the output of a place, as autograd records them.

To autograd a ReLU is one operation, whether it is a module or a function, works in place or is
used again. Signals travel back through the recorded operations, and hooks on these can give them
other rules than those of the gradient.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.autograd.graph import Node

from convergent.activations.layouts import Layout
from convergent.nets.places import tapping


class Operations(NamedTuple):
    """Outputs of places for some images, and the operations that led to them.

    Attributes
    ----------
    images : torch.Tensor of shape (image, channel, y, x)
        The input, at which gradients arrive.
    outputs : dict of layer to torch.Tensor of shape (image, ..., unit)
        Outputs as their layouts arrange them.
    nodes : list of Node
        Operations whose results depend on the images; each follows those that take its result.
    modules : dict of Node to str
        Path of the module in which each operation took place.
    """

    images: torch.Tensor
    outputs: dict[str, torch.Tensor]
    nodes: list[Node]
    modules: dict[Node, str]


class _Done(Exception):
    """All outputs are there; the rest of the net need not run."""


def operations(net: nn.Module, places: Mapping[str, Layout], images: torch.Tensor) -> Operations:
    """Run a net, which must be in evaluation mode, and record its operations up to some places.

    Parameters
    ----------
    net : nn.Module
    places : mapping of layer to Layout
        Layouts as :func:`convergent.activations.probing.layouts` makes them.
    images : torch.Tensor of shape (image, channel, y, x)
        Normalised images, on the device of the net.
    """
    images = images.detach().requires_grad_()
    outputs: dict[str, torch.Tensor] = {}
    modules: dict[Node, str] = {}

    def seen(place: str, output: torch.Tensor) -> None:
        for layer, layout in places.items():
            if layout.place == place:
                # A copy, since later operations may work in place.
                outputs[layer] = layout.arrange(output, layer=layer).clone()
        # A traced net would print the error that passes through it.
        if len(outputs) == len(places) and not run.traced and not isinstance(net, fx.GraphModule):
            raise _Done

    names = list(dict.fromkeys(layout.place for layout in places.values()))
    hooks = []
    for path, module in net.named_modules():
        hooks += [module.register_forward_pre_hook(_note(modules, path.rpartition(".")[0]))]
        hooks += [module.register_forward_hook(_note(modules, path))]
    try:
        with torch.enable_grad(), tapping(net, names, seen) as run:
            run(images.clone())  # for operations in place
    except _Done:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    nodes = _depending(_ordered(outputs.values()), images)
    # An operation whose result no module returns belongs to the module of the one that takes it.
    for node in nodes:
        for before, _ in node.next_functions:
            if before is not None:
                modules.setdefault(before, modules.get(node, ""))
    return Operations(images, outputs, nodes, modules)


def kind(node: Node) -> str:
    """Name an operation, such as Relu or Convolution."""
    return re.sub(r"Backward\d*$", "", node.name().rpartition("::")[2])


def _note(modules: dict[Node, str], path: str):
    """Make a hook that notes a module's path for the operations of its inputs or outputs."""

    def hook(module: nn.Module, args: Any, output: Any = None) -> None:
        for tensor in args if output is None else [output]:
            if isinstance(tensor, torch.Tensor) and tensor.grad_fn is not None:
                modules.setdefault(tensor.grad_fn, path)

    return hook


def _ordered(outputs) -> list[Node]:
    """List all operations that lead to outputs, each after all those that take its result."""
    order: list[Node] = []
    visited: set[Node] = set()
    stack = [(output.grad_fn, False) for output in outputs if output.grad_fn is not None]
    while stack:
        node, finished = stack.pop()
        if finished:
            order.append(node)
        elif node not in visited:
            visited.add(node)
            stack.append((node, True))
            stack += [(before, False) for before, _ in node.next_functions if before is not None]
    return order[::-1]


def _depending(nodes: list[Node], images: torch.Tensor) -> list[Node]:
    """Select the operations whose results depend on the images."""
    found: set[Node] = set()
    for node in reversed(nodes):
        source = getattr(node, "variable", None) is images
        if source or any(before in found for before, _ in node.next_functions):
            found.add(node)
    return [node for node in nodes if node in found]
