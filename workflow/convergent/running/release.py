"""A finished run in a single file, small enough to be published beside its article."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from convergent import ConvergentError
from convergent.running.files import writing
from convergent.running.origin import HISTORY, parse_history

# What a release has of a run's folder. Activations, statistics, weights and correlations are made
# again from the configuration, with the code and the packages that the release names.
PARTS = ("tables", "figures", "atlas", "report.html", HISTORY)
# Data of the atlas for other programs; its page reads the same from the scripts beside them.
TWICE = ("atlas/data/*.npz",)
# Megabytes (of 10^6 bytes).
MOST = 60


class ReleaseError(ConvergentError, RuntimeError):
    """A release that would be too large; the message says what is large."""


def pack(
    folder: str | Path,
    archive: str | Path,
    configuration: Mapping[str, Any],
    leave_out: Sequence[str] = (),
    most: float = MOST,
) -> dict[str, Any]:
    """Pack what a release has of a run into a .tar.gz, the same bytes for the same files.

    Parameters
    ----------
    folder : path
        Folder of the run.
    archive : path
    configuration : mapping
        The whole configuration, which the archive holds as ``configuration.json``.
    leave_out : sequence of str
        Patterns of paths below `folder` that are left out as well.
    most : float
        Largest size of the archive in megabytes.

    Returns
    -------
    dict
        What the archive holds: run, megabytes, files (their number), sha256, parts (megabytes
        before compression by folder), left_out, commits (of the code, of all jobs of the run), and
        packages. All but the first three entries are in the archive, as ``release.json``.

    Raises
    ------
    ReleaseError
        If the archive would be larger than `most`, or the run has nothing to release.
    """
    folder = Path(folder)
    found = {
        path.relative_to(folder).as_posix(): path
        for part in PARTS
        for path in [folder / part, *sorted((folder / part).rglob("*"))]
        if path.is_file() and not path.name.startswith(".")
    }
    names = [name for name in found if not _matches(name, [*TWICE, *leave_out])]
    if not names:
        raise ReleaseError(f"{folder}: has none of {', '.join(PARTS)}; make the run first")
    sizes: Counter[str] = Counter()
    for name in names:
        sizes["/".join(Path(name).parts[:2][: len(Path(name).parts) - 1]) or name] += (
            found[name].stat().st_size
        )
    history = folder / HISTORY
    jobs = [
        job
        for job in parse_history(history.read_text(encoding="utf-8") if history.exists() else "")
        if "rule" in job
    ]
    about = {
        "parts": {name: round(size / 1e6, 3) for name, size in sizes.most_common()},
        "left_out": [*TWICE, *leave_out],
        "commits": [*dict.fromkeys((job["code"] or {}).get("commit") for job in jobs)],
        "packages": jobs[-1]["packages"] if jobs else {},
    }
    with writing(archive) as scratch:
        with open(scratch, "wb") as file:
            _write(file, folder.name, {name: found[name] for name in names}, configuration, about)
        size = scratch.stat().st_size / 1e6
        if size > most:
            largest = ", ".join(
                f"{name} {size / 1e6:.0f} MB" for name, size in sizes.most_common(5)
            )
            raise ReleaseError(
                f"{archive}: would be {size:.1f} MB, more than {most:g}. Before compression, the "
                f"largest parts are {largest}; leave some out by release.leave_out, such as "
                f"[{sizes.most_common(1)[0][0]}/*]"
            )
        digest = hashlib.sha256(scratch.read_bytes()).hexdigest()
    return {
        "run": folder.name,
        "megabytes": round(size, 2),
        "files": len(names) + 2,
        "sha256": digest,
        **about,
    }


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _write(file, run: str, paths: Mapping[str, Path], configuration, about) -> None:
    """Write the archive, without times, owners and modes of the files."""
    notes = {"configuration.json": configuration, "release.json": about}
    with (
        gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as tar,
    ):
        for name, content in notes.items():
            _add(tar, f"{run}/{name}", (json.dumps(content, indent=2) + "\n").encode())
        for name, path in paths.items():
            _add(tar, f"{run}/{name}", path.read_bytes())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = 0o644
    tar.addfile(entry, io.BytesIO(content))
