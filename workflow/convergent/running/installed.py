"""Packages that the workflow needs and that are not installed."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

# What reading the rules takes; where rules have environments of their own, these have the rest.
TO_READ_RULES = ("numpy", "pydantic")


def missing_packages(project: str | Path, only: tuple[str, ...] | None = None) -> list[str]:
    """List the requirements of a project that are not installed, whatever their version.

    Parameters
    ----------
    project : path
        The project's ``pyproject.toml``. Without one, an installer has seen to all requirements.
    only : tuple of str, optional
        Packages to look for; all by default.
    """
    if not Path(project).exists():
        return []
    values = tomllib.loads(Path(project).read_text(encoding="utf-8"))
    missing = []
    for requirement in values["project"]["dependencies"]:
        name = re.split(r"[^\w.-]", requirement)[0]
        try:
            if only is None or name in only:
                distribution(name)
        except PackageNotFoundError:
            missing.append(name)
    return missing
