"""A folder of one's own in which ``snakemake`` runs the workflow, which stays where it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from convergent import ConvergentError

COPIED = ("config.yaml", "presets", "profiles")
# Folders that may hold the workflow: the clone that this library is a part of, and a wheel's.
SOURCES = (Path(__file__).parents[3], Path(__file__).parents[1] / "repository")


class DeployError(ConvergentError, ValueError):
    """A folder or a clone that does not serve; the message says which would."""


def deploy(folder: str | Path, clone: str | Path | None = None) -> None:
    """Copy configuration, presets and profiles into a folder where Snakemake finds the workflow.

    The folder's Snakefile includes that of the clone, or of the installed package.

    Parameters
    ----------
    folder : path
        The folder, which is made if there is none.
    clone : path, optional
        Clone of the repository. By default the one that this library is a part of, or else what
        was installed with it.

    Raises
    ------
    DeployError
        If there is no workflow in `clone`, or `folder` already has something of what it would get.
    """
    folder = Path(folder)
    sources = [Path(clone).expanduser().resolve()] if clone else SOURCES
    source = next((path for path in sources if _is_workflow(path)), None)
    if source is None:
        where = f"{sources[0]} has no" if clone else "this installation has no"
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
        "# The workflow of the clone or the installation by which `convergent init` made this "
        "folder.\n"
        f"include: {json.dumps(str(source / 'Snakefile'))}\n"
        "\n\n"
        "# An included file does not say what is made if no target is named.\n"
        'workflow.default_target = "all"\n',
        encoding="utf-8",
    )


def _is_workflow(folder: Path) -> bool:
    return all((folder / name).exists() for name in ("Snakefile", *COPIED))
