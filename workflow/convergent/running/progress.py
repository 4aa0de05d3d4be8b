"""Progress of long stages: lines on the terminal and in the log, with the time left."""

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

# Seconds between two lines on the terminal.
PAUSE = 15

log = logging.getLogger(__name__)


class Lines:
    """A stream for tqdm that writes lines to another, in place of a bar that moves.

    The bars of jobs that run side by side would overwrite each other.

    Parameters
    ----------
    stream : file
        Where the lines go, such as the terminal.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        """Write a state of the bar as a line; nothing where it is to be wiped out."""
        if text := text.strip("\r\n "):
            self.stream.write(f"{text}\n")

    def flush(self) -> None:
        """Let what was written appear."""
        self.stream.flush()

    def isatty(self) -> bool:
        """Tell whether somebody may be looking."""
        return bool(self.stream.isatty())


def bar(name: str, unit: str, total: float, initial: int = 0) -> tqdm[Any]:
    """Show the progress on the terminal, wherever the log goes; nothing if there is no terminal.

    A line appears every :data:`PAUSE` seconds at most, so a small stage shows none.
    """
    return tqdm(
        desc=name, unit=unit, total=total, initial=initial, unit_scale=total > 1e6,
        file=Lines(sys.__stderr__), disable=None, delay=PAUSE, mininterval=PAUSE, leave=False,
        bar_format="    {desc}: {percentage:.0f}%, about {remaining} left",
    )  # fmt: skip


def time_left(seconds: float, done: float, total: float) -> str:
    """Estimate the time left, as 1:23:45, if `done` of `total` steps took `seconds`."""
    return tqdm.format_interval(seconds / done * (total - done))


@contextmanager
def stage(name: str | Path, unit: str, total: float) -> Iterator[Callable[[float], None]]:
    """Report the progress of a stage; the log gets a line at every tenth.

    Parameters
    ----------
    name : str or path
        Name of the stage. The path of a file that it writes is shortened to its folder's name and
        its own, without the suffix.
    unit : str
        What is counted, in the singular; an s makes the plural.
    total : float
        Units of the whole stage.

    Yields
    ------
    callable
        Function to call with the number of units that have been done since the last call.
    """
    if isinstance(name, Path):
        name = f"{name.parent.name}/{name.stem}"
    done, tenths_logged, start = 0.0, 0, time.perf_counter()
    size = tqdm.format_sizeof(total) if total > 1e6 else f"{total:g}"

    def advance(units: float) -> None:
        nonlocal done, tenths_logged
        done += units
        shown.update(units)
        share = done / total
        # Rounding may leave a tenth a little short.
        if (tenths := int(10 * share + 1e-6)) > tenths_logged:
            tenths_logged = tenths
            left = time_left(time.perf_counter() - start, done, total)
            log.info("%s: %.0f%% of %s %ss, about %s left", name, 100 * share, size, unit, left)

    with bar(name, unit, total) as shown:
        yield advance


def progress(
    items: Iterable[Item],
    name: str | Path,
    unit: str,
    size: Callable[[Any], float] = len,
    total: float | None = None,
) -> Iterator[Item]:
    """Pass `items` on as a :func:`stage`: an item is done when the next one is asked for.

    Parameters
    ----------
    items : iterable
    name, unit
        See :func:`stage`.
    size : callable
        Function that returns the units of work in an item.
    total : float, optional
        Sum of the sizes; needed if `items` can be iterated over only once.
    """
    with stage(name, unit, sum(map(size, items)) if total is None else total) as advance:
        for item in items:
            yield item
            advance(size(item))
