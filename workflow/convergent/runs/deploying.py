"""A folder of one's own in which ``snakemake`` runs the workflow of a clone of the repository."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from convergent import ConvergentError

COPIED = ("config.yaml", "presets", "profiles")


class DeployError(ConvergentError, ValueError):
    """A folder or a clone that does not serve; the message says which would."""


def deploy(folder: str | Path, clone: str | Path | None = None) -> None:
    """Copy configuration, presets and profiles into a folder where Snakemake finds the workflow.

    The folder's Snakefile includes that of the clone, which stays where it is.

    Parameters
    ----------
    folder : path
        The folder, which is made if there is none.
    clone : path, optional
        Clone of the repository. By default the one that this library is a part of; a wheel holds
        the library without the workflow.

    Raises
    ------
    DeployError
        If there is no workflow in `clone`, or `folder` already has something of what it would get.
    """
    folder = Path(folder)
    source = Path(clone or Path(__file__).parents[3]).expanduser().resolve()
    if not all((source / name).exists() for name in ("Snakefile", *COPIED)):
        where = f"{source} has no" if clone else "this installation has no"
        raise DeployError(
            f"{where} Snakefile; name a clone of the repository, as in `convergent init "
            f"{folder} --workflow ~/convergent-learning`"
        )
    there = [name for name in ("Snakefile", *COPIED) if (folder / name).exists()]
    if there:
        raise DeployError(
            f"{folder} already has {', '.join(there)}, and nothing is overwritten; name a new one"
        )
    folder.mkdir(parents=True, exist_ok=True)
    unwanted = shutil.ignore_patterns("__pycache__")
    for name in COPIED:
        if (source / name).is_dir():
            shutil.copytree(source / name, folder / name, ignore=unwanted)
        else:
            shutil.copy(source / name, folder)
    (folder / "Snakefile").write_text(
        "# The workflow of the clone from which `convergent init` made this folder.\n"
        f"include: {json.dumps(str(source / 'Snakefile'))}\n",
        encoding="utf-8",
    )
