"""The architectures, each declared as ``ARCHITECTURE`` in a module of this package.

The Snakefile reads the declarations, so importing a module of this package must not import torch;
the functions that build nets import it when they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from convergent.running.sections import Section

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Architecture:
    """A kind of net and the keys that the section ``model`` has for it.

    Attributes
    ----------
    name : str
        Value of the key ``model.name``.
    options : type of Section
        The keys with their defaults; the first is ``name``, a `Literal` of the name.
    build : callable
        Function that makes an untrained net from the options (without ``name``), ``size`` (side of
        the square input in pixels), ``inputs`` (its channels) and ``classes``.
    layers : callable or None
        Function of the options that names the layers in the order in which they run; None if only a
        run of the net shows them.
    """

    name: str
    options: type[Section]
    build: Callable[..., nn.Module]
    layers: Callable[[Any], Sequence[str]] | None = None


def _declared() -> dict[str, Architecture]:
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    found = [module.ARCHITECTURE for module in modules if hasattr(module, "ARCHITECTURE")]
    return {architecture.name: architecture for architecture in found}


ARCHITECTURES = _declared()
# The paper's architecture.
DEFAULT = "alexnet"
