"""What made a run, kept beside its results; what must not change while a run goes on.

A configuration and code may change: Snakemake runs again exactly what depends on them. Versions of
packages, the kind of device and the listed images may not, as nothing would run again, and the
results of one run would come from two.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from convergent import ConvergentError
from convergent.running.devices import choose_device
from convergent.running.stores import alone, writing

logger = logging.getLogger(__name__)

# Those that a number or a picture goes through.
PACKAGES = (
    "captum", "dask", "matplotlib", "numba", "numpy", "pandas", "pillow", "scikit-learn", "scipy",
    "torch", "torchvision", "zarr", "zarrs",
)  # fmt: skip
ROOT = Path(__file__).parents[3]


class ProvenanceError(ConvergentError, RuntimeError):
    """A run that would go on otherwise than it began; the message says what differs."""


def keep(
    config: Any,
    *,
    device: str | None = None,
    listing: str | Path | None = None,
    lists: bool = False,
) -> dict[str, Any]:
    """Check a job against what its run was made with so far, and keep what makes it.

    The file is ``results/<run>/provenance.json``. Jobs may do so at once, on several machines.

    Parameters
    ----------
    config : Config
        Of the run.
    device : str, optional
        ``device`` of the configuration, if the job computes on it.
    listing : path, optional
        The list of images, if the job reads it.
    lists : bool
        Whether the job makes that list, so that all that depends on it is made again.

    Returns
    -------
    dict
        What the file holds: `config`, `seeds`, `code` (git's commit, and whether files differ from
        it; None without a repository), `made_with` (versions, device and machines; several if
        changes were accepted) and `images` (SHA-256 of their list, which has a checksum of each).

    Raises
    ------
    ProvenanceError
        If a package has another version than the run was made with so far, the device is of
        another kind, or the list of images is another, unless the configuration accepts it.
    """
    path = Path(config.folder, "provenance.json")
    here = {"packages": versions(), "device": device and choose_device(device)}
    images = None if listing is None else hashlib.sha256(Path(listing).read_bytes()).hexdigest()
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path.with_name(f".{path.name}.lock")):
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        made_with = before.get("made_with", [])
        known = None if lists else before.get("images")
        nearest = min(made_with, key=lambda there: len(_differences(there, here)), default=None)
        faults = _differences(nearest, here) if nearest else []
        if nearest is None or faults:
            nearest = {"packages": {}, "device": None, "machines": []}
            made_with = [*made_with, nearest]
        if images and known not in (None, images):
            faults.append(f"{listing}: SHA-256 {known[:16]} there, {images[:16]} here")
        if faults and not config.accept_changes:
            raise ProvenanceError(
                f"{path}: this run was begun with something else ({'; '.join(faults)}). Go back to "
                "that, give this run another name (run), or accept the change with --config "
                "accept_changes=true"
            )
        nearest["packages"] |= here["packages"]
        nearest["device"] = nearest["device"] or here["device"]
        nearest["machines"] = sorted({*nearest["machines"], machine()})
        after = {
            "config": config.model_dump(mode="json", exclude={"accept_changes"}),
            "seeds": {
                "nets": {name: net.seed for name, net in config.nets.items()},
                "data": config.data.seed,
                "analysis": config.statistics.seed,
            },
            "code": commit(),
            "made_with": made_with,
            "images": images or known,
        }
        with writing(path) as scratch:
            scratch.write_text(json.dumps(after, indent=2) + "\n", encoding="utf-8")
    return after


def versions() -> dict[str, str]:
    """Of Python and of the packages that are there."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """Name, kind and number of cores of where this runs."""
    return f"{platform.node()}: {platform.machine()}, {os.cpu_count()} cores"


def commit(root: Path = ROOT) -> dict[str, Any] | None:
    """The git commit of the code, and whether files differ from it; None without a repository."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "Snakefile", "workflow")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return None


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What two environments do not share, of what both know."""
    a, b = ({**entry["packages"], "device": entry["device"]} for entry in (there, here))
    return [
        f"{name}: {a[name]} there, {b[name]} here"
        for name in sorted(a.keys() & b.keys())
        if a[name] and b[name] and a[name] != b[name]
    ]
