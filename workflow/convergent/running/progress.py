"""How far a long stage is: a bar on the terminal, and lines in the log with the time left."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

log = logging.getLogger(__name__)


def bar(name: str, unit: str, total: float, initial: int = 0) -> tqdm[Any]:
    """A bar on the terminal, whatever the log is; none where there is no terminal.

    Nor in the first second, which is all that a small stage takes.
    """
    return tqdm(
        desc=name, unit=unit, total=total, initial=initial, unit_scale=total > 1e6,
        file=sys.__stderr__, disable=None, dynamic_ncols=True, delay=1,
    )  # fmt: skip


def time_left(seconds: float, done: float, total: float) -> str:
    """What is left of a stage that took `seconds` for `done` of its `total` steps, as 1:23:45."""
    return tqdm.format_interval(seconds / done * (total - done))


@contextmanager
def stage(name: str | Path, unit: str, total: float) -> Iterator[Callable[[float], None]]:
    """A stage of `total` units of work: call what this gives with how many more are done.

    The log gets a line at every tenth.

    Parameters
    ----------
    name : str or path
        A path, that of what is being made, is told by its last folder and without its suffix.
    unit : str
        What is counted; with an s, it is its plural.
    """
    if isinstance(name, Path):
        name = f"{name.parent.name}/{name.stem}"
    done, told, start = 0.0, 0, time.perf_counter()
    size = tqdm.format_sizeof(total) if total > 1e6 else f"{total:g}"

    def step(more: float) -> None:
        nonlocal done, told
        done += more
        shown.update(more)
        share = done / total
        # What should be a tenth may be a hair less, in fractions.
        if (tenths := int(10 * share + 1e-6)) > told:
            told = tenths
            left = time_left(time.perf_counter() - start, done, total)
            log.info("%s: %.0f%% of %s %ss, about %s left", name, 100 * share, size, unit, left)

    with bar(name, unit, total) as shown:
        yield step


def progress(
    items: Iterable[Item],
    name: str | Path,
    unit: str,
    size: Callable[[Item], float] = len,
    total: float | None = None,
) -> Iterator[Item]:
    """Pass `items` on as a :func:`stage`; whoever takes the next is done with the last.

    Parameters
    ----------
    size : callable
        Work in an item, in units.
    total : float, optional
        Of the sizes; needed unless `items` can be gone through twice.
    """
    with stage(name, unit, sum(map(size, items)) if total is None else total) as step:
        for item in items:
            yield item
            step(size(item))
