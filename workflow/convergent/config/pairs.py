"""The pairs of nets that a run compares."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convergent.config.nodes import Node

# Every two subjects; those of the same group, or of different groups.
WORDS = ("all", "within", "between")


def select_pairs(nodes: Mapping[str, Node], chosen: str | list[str]) -> dict[str, tuple[str, str]]:
    """Select pairs of nets by names, patterns and words.

    Parameters
    ----------
    nodes : mapping of name to Node
        The nets in config order.
    chosen : str or list of str
        Value of the key ``pairs``.

    Returns
    -------
    dict
        The two nets of each pair by the pair's name, in config order.

    Raises
    ------
    ValueError
        If an entry selects no pair.
    """
    entries = [chosen] if isinstance(chosen, str) else chosen
    if not entries:
        raise ValueError("pairs: an empty list selects no pair; write pairs: all, or name some")
    every = list(itertools.combinations(nodes, 2))
    selected: set[tuple[str, str]] = set()
    for entry in entries:
        found = {pair for pair in every if _fits(entry, *(nodes[name] for name in pair))}
        if not found:
            raise ValueError(f"pairs: {entry!r} selects no pair; {_remedy(nodes, entry)}")
        selected |= found
    return {f"{a}-{b}": (a, b) for a, b in every if (a, b) in selected}


def _fits(entry: str, a: Node, b: Node) -> bool:
    if entry not in WORDS:
        return any(fnmatchcase(f"{x.name}-{y.name}", entry) for x, y in ((a, b), (b, a)))
    if a.role != "subject" or b.role != "subject":
        return False
    if entry == "all":
        return True
    return None not in (a.group, b.group) and (a.group == b.group) == (entry == "within")


def _remedy(nodes: Mapping[str, Node], entry: str) -> str:
    """Say what would select a pair."""
    subjects = [name for name, node in nodes.items() if node.role == "subject"]
    if entry == "all":
        return (
            f"it means every two subjects, and there are {len(subjects)} (untrained nets are "
            "controls, and snapshots are not subjects either): name pairs, such as "
            f"{'-'.join(list(nodes)[:2])}"
        )
    if entry in WORDS:
        groups = ", ".join(f"{name} {nodes[name].group or 'none'}" for name in subjects)
        return f"give subjects groups, such as nets.{subjects[0]}.group; they have: {groups}"
    return f"the nets are {', '.join(nodes)}, and a pair is written {'-'.join(list(nodes)[:2])}"
