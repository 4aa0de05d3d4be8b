"""Targets that nothing makes: what may have been meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from convergent import ConvergentError

# What people call the removal of results elsewhere.
REMOVAL = ("clean", "clear", "delete", "reset")


class TargetError(ConvergentError, ValueError):
    """A target that nothing makes; the message says which may be meant."""


def check_targets(
    targets: Iterable[str], names: Sequence[str], nets: Sequence[str], folder: str
) -> None:
    """Check targets that are no files, and names of pairs in those that are.

    Parameters
    ----------
    targets : iterable of str
        What Snakemake is asked for.
    names : sequence of str
        Targets by name: rules without wildcards.
    nets : sequence of str
        Nets in the order of the configuration, by which pairs are named.
    folder : str
        Folder of the run.

    Raises
    ------
    TargetError
        If a name is no target, or a pair is named in the wrong order or has an unknown net.
    """
    for target in targets:
        if target in names or Path(target).exists():
            continue
        for part in target.removeprefix(f"{folder}/").split("/"):
            _check_pair(part, nets)
        if "/" in target or "." in target:
            continue
        if target in REMOVAL:
            raise TargetError(f"{target}: no target removes results; a run is its folder, {folder}")
        lower = {name.lower(): name for name in names}
        near = difflib.get_close_matches(target.lower(), lower, 3, 0.6)
        meant = f"; did you mean {' or '.join(lower[name] for name in near)}?" if near else ""
        raise TargetError(
            f"{target}: no such target{meant} (docs/targets.md lists all of them; "
            "pairs are targets, too, such as "
            f"{'-'.join(nets[:2])}, and so are nets and files of results)"
        )


def _check_pair(part: str, nets: Sequence[str]) -> None:
    """Refuse a part of a target that is a pair in the wrong order, or with an unknown net."""
    if not (found := re.fullmatch(r"([^-.]+)-([^-.]+)", part)):
        return
    a, b = found.groups()
    if a in nets and b in nets and nets.index(a) > nets.index(b):
        raise TargetError(f"{part}: pairs are named in the order of the nets: {b}-{a}")
    if a in nets and b in nets and a == b:
        raise TargetError(f"{part}: a pair has two nets")
    if (a in nets) != (b in nets):
        unknown = b if a in nets else a
        raise TargetError(f"{part}: there is no net {unknown}; nets are {', '.join(nets)}")
