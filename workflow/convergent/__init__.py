"""Convergent learning: which features nets that start from different seeds share.

The packages are named after the way of the data, and a module imports only from packages before
its own: running, nets, activations, measures, alignment, inference, consequences, units, figures,
config, runs.
Notation is that of Li, Yosinski, Clune, Lipson and Hopcroft, "Convergent Learning" (ICLR 2016).
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Short names of the modules of the public interface: ``from convergent.matching import matching``.
SHORT_NAMES = {
    "clustering": "convergent.alignment.clustering",
    "mapping": "convergent.alignment.lasso",
    "matching": "convergent.measures.matching",
    "models": "convergent.nets.models",
    "moments": "convergent.activations.moments",
    "mutual_information": "convergent.measures.histograms",
}


class ConvergentError(Exception):
    """A fault of the input; its message says what is wrong, where, and what would be right."""


def open(folder: Any) -> Any:
    """Open the folder of a run, such as ``results/digits``, to read and draw what it found.

    Returns
    -------
    convergent.runs.reading.Run

    Raises
    ------
    convergent.runs.reading.NotARunError
        If no run has written there.
    """
    # By its name, since no job of the workflow reaches this package through this module.
    return import_module("convergent.runs.reading").Run(folder)


class _ShortNames(MetaPathFinder, Loader):
    """Import a module by its short name; both names mean one module."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        package, _, short = name.rpartition(".")
        return ModuleSpec(name, self) if package == __name__ and short in SHORT_NAMES else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(SHORT_NAMES[spec.name.rpartition(".")[2]])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # Importing gave the module the spec of its short name.
        if module.__spec__ is not None:
            module.__spec__ = module.__spec__.loader_state


sys.meta_path.append(_ShortNames())
