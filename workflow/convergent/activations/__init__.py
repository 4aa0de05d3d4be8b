"""Activations of units: recording, samples, moments by block, strongest images, statistics.

May import from :mod:`convergent.nets` and the rooms below it.
"""

from importlib import import_module
from typing import Any

# Where the public names of this package are defined; they are imported when they are used.
NAMES = {
    "record": "convergent.activations.recording",
    "open_store": "convergent.running.stores",
}


def __getattr__(name: str) -> Any:
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(NAMES[name]), name)
