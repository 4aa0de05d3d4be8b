"""The record of how the results of a run were made, and a check that its environment stays.

The settings that determined a store are its attribute ``origin``. For all other results there is
the history of the run, ``provenance.jsonl``, with a JSON record in each line: one for each job that
was started, and one for each configuration. The history only grows, so that it shows which commit
trained a net and which drew a figure of it.

The configuration and the code may change, because Snakemake then runs exactly the jobs that depend
on them again. Versions of packages, the kind of device and the listed images may not: no job would
run again, and the results of one run would come from two environments.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from convergent import ConvergentError
from convergent.running.devices import choose_device
from convergent.running.files import append

# Name of the file with a run's history.
HISTORY = "provenance.jsonl"
# All packages that can affect a number or a picture.
PACKAGES = (
    "dask", "matplotlib", "numba", "numpy", "pandas", "pillow", "scikit-learn", "scipy",
    "timm", "torch", "torchvision", "zarr", "zarrs",
)  # fmt: skip
ROOT = Path(__file__).parents[3]


class OriginError(ConvergentError, RuntimeError):
    """A job whose environment or images are not those of its run; the message says what differs."""


def select(origin: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Return the part of a run's origin that is named by some keys.

    Parameters
    ----------
    origin : mapping
        Nested settings.
    keys : iterable of str
        Names of settings or of sections, such as ``statistics.seed`` or ``data``.

    Raises
    ------
    KeyError
        If there is no such setting.
    """
    part: dict[str, Any] = {}
    for key in keys:
        *sections, name = key.split(".")
        source, target = origin, part
        for section in sections:
            source, target = source[section], target.setdefault(section, {})
        target[name] = source[name]
    return part


def record_job(
    folder: str | Path,
    rule: str,
    wildcards: Mapping[str, str],
    configuration: Mapping[str, Any],
    *,
    origin: Mapping[str, Any] | None = None,
    code: Mapping[str, Any] | None = None,
    device: str | None = None,
    listing: str | Path | None = None,
    lists_images: bool = False,
    accept_changes: bool = False,
) -> dict[str, Any]:
    """Compare a job with the earlier ones of its run and append it to the run's history.

    Jobs on several machines may do so at once: each appends its lines by one write.

    Parameters
    ----------
    folder : path
        Folder of the run's results, which holds ``provenance.jsonl``.
    rule : str
    wildcards : mapping
    configuration : mapping
        The whole configuration. The history records it once; jobs refer to it by its hash.
    origin : mapping, optional
        Settings that determine the job's result; the history records their hash.
    code : mapping, optional
        Commit of the code, as :func:`commit` returns it.
    device : str, optional
        ``device`` of the configuration, if the job computes on it.
    listing : path, optional
        The list of images, if the job reads it; the history records its SHA-256.
    lists_images : bool
        True for the job that makes that list; all jobs that depend on it then run again.
    accept_changes : bool
        Permission to go on in spite of differences; the history then records them.

    Returns
    -------
    dict
        The job's record.

    Raises
    ------
    OriginError
        If a package has another version than in earlier jobs, the device is of another kind, or
        the list of images is another, and the change is not accepted.
    """
    path = Path(folder, HISTORY)
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    records = parse_history(text)
    past = _Past()
    for record in records:
        if "rule" in record:
            past.add(record)
    job: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "rule": rule,
        "wildcards": dict(wildcards),
        "code": code,
        "configuration": fingerprint_of(configuration),
        "origin": origin and fingerprint_of(origin),
        "packages": versions(),
        "device": device and choose_device(device),
        "machine": machine(),
        "images": listing and hashlib.sha256(Path(listing).read_bytes()).hexdigest(),
    }
    if lists_images:
        job["lists_images"] = True
    differences = past.differences(job)
    if differences and not accept_changes:
        raise OriginError(
            f"{path}: earlier jobs of this run had another environment or other images "
            f"({'; '.join(differences)}). Go back to those, give this run another name (run), or "
            "accept the change with --config accept_changes=true"
        )
    if differences:
        job["accepted"] = differences
    new = [job]
    if all(record.get("hash") != job["configuration"] for record in records):
        new.insert(0, {"hash": job["configuration"], "configuration": configuration})
    lines = "".join(json.dumps(record) + "\n" for record in new)
    # A killed job may have left half a line.
    append(path, lines if text.endswith("\n") or not text else f"\n{lines}")
    return job


def parse_history(text: str) -> list[dict[str, Any]]:
    """Return the records of a history in order, without lines that a killed job left unfinished.

    On NFS, which has no atomic append, two jobs that begin in the same moment on different
    machines may also spoil each other's lines.
    """
    records = []
    for line in text.splitlines():
        with suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict):
                records.append(record)
    return records


def fingerprint_of(settings: Mapping[str, Any]) -> str:
    """Return a short hash of nested settings, which JSON must be able to hold."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that decide results."""
    installed = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in PACKAGES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


def machine() -> str:
    """Return name, kind and number of cores of this machine."""
    return f"{platform.node()}: {platform.machine()}, {os.cpu_count()} cores"


def commit(root: Path = ROOT) -> dict[str, Any] | None:
    """Return the git commit of the code and whether files differ from it.

    Without a repository there is none. An installed library may lie in one that is not its own.
    """
    if not (root / "Snakefile").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "Snakefile", "workflow")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return None


class _Past:
    """The environments and the list of images that earlier jobs of a run had.

    Smaller environments, of which a job has several, are merged where they agree.
    """

    def __init__(self) -> None:
        self.environments: list[dict[str, str]] = []
        self.images: str | None = None

    def differences(self, job: Mapping[str, Any]) -> list[str]:
        """Return what differs between a job and the earlier ones that are most like it."""
        nearest = self._nearest(job)
        differences = [] if nearest is None else _compare(nearest, _environment(job))
        if job.get("images") and self.images and job["images"] != self.images:
            differences.append(
                f"list of images: SHA-256 {self.images[:16]} there, {job['images'][:16]} here"
            )
        return differences

    def add(self, job: Mapping[str, Any]) -> None:
        """Add a job of the history, unless it differs from those before it unaccepted."""
        if job.get("lists_images"):
            self.images = None
        if self.differences(job) and not job.get("accepted"):
            return  # Two jobs with different environments began in the same moment.
        nearest, environment = self._nearest(job), _environment(job)
        if nearest is None or _compare(nearest, environment):
            self.environments.append(environment)
        else:
            nearest.update(environment)
        self.images = job.get("images") or self.images

    def _nearest(self, job: Mapping[str, Any]) -> dict[str, str] | None:
        here = _environment(job)
        return min(self.environments, key=lambda there: len(_compare(there, here)), default=None)


def _environment(job: Mapping[str, Any]) -> dict[str, str]:
    """Return the versions of a job's packages, and the kind of its device if it has one."""
    device = job.get("device")
    return {**job["packages"], **({"device": device} if device else {})}


def _compare(there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """Describe the differences in what two environments both record."""
    return [
        f"{name}: {there[name]} there, {here[name]} here"
        for name in sorted(there.keys() & here.keys())
        if there[name] != here[name]
    ]
