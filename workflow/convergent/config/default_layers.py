"""Layers of nets that neither name layers nor declare them, found when the Snakefile is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convergent.config.checks import ConfigError
from convergent.nets.sources import digest_of_file, parse, source_files
from convergent.running.files import digest, writing

# The folder that Snakemake keeps in the working directory.
CACHE = Path(".snakemake", "cache", "layers")


def default_layers(net: Mapping[str, Any], cache: Path = CACHE) -> list[str]:
    """Find the places that are compared where none are named: the ends of stages or blocks.

    The net is built and traced once, and the places are kept in a cache.

    Parameters
    ----------
    net : mapping
        ``model``, ``size`` and ``inputs``, as :attr:`convergent.config.nodes.Node.net`.
    cache : path
        Folder of the cache.

    Raises
    ------
    ConfigError
        If torch is not installed where the Snakefile is read.
    """
    name = net["model"]["name"]
    files = source_files(name) if parse(name)[0].endswith(".py") else []
    key = digest(json.dumps(net, sort_keys=True), *map(digest_of_file, files))
    file = cache / f"{key}.json"
    if file.exists():
        return json.loads(file.read_text(encoding="utf-8"))
    try:
        from convergent.nets.models import build, options
        from convergent.nets.places import default_places, dry_run
    except ImportError:
        raise ConfigError(
            f"layers: missing; name the places of {name} to compare (they can only be found where "
            "torch is installed)"
        ) from None
    view = (net["inputs"], net["size"], net["size"])
    found = dry_run(lambda: build(**options(net)), view, default_places)
    with writing(file, shared=True) as path:
        Path(path).write_text(json.dumps(found), encoding="utf-8")
    return found
