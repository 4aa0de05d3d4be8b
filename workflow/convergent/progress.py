"""How far a long stage is: a bar on the terminal, and lines in the log with the time left."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar

from tqdm import tqdm

Batch = TypeVar("Batch", bound=Sized)

log = logging.getLogger(__name__)


def bar(name: str, unit: str, total: int, initial: int = 0) -> tqdm[Any]:
    """A bar on the terminal, whatever the log is; none where there is no terminal."""
    return tqdm(
        desc=name, unit=unit, total=total, initial=initial,
        file=sys.__stderr__, disable=None, dynamic_ncols=True,
    )  # fmt: skip


def time_left(seconds: float, done: int, total: int) -> str:
    """What is left of a stage that took `seconds` for `done` of its `total` steps, as 1:23:45."""
    return tqdm.format_interval(seconds / done * (total - done))


def progress(batches: Iterable[Batch], total: int, name: str) -> Iterator[Batch]:
    """Pass on batches of images, and tell how many of `total` images are done.

    The log gets a line at every tenth; whoever takes the next batch is done with the last.
    """
    done = told = 0
    start = time.perf_counter()
    with bar(name, "image", total) as shown:
        for batch in batches:
            yield batch
            done += len(batch)
            shown.update(len(batch))
            if 10 * done // total > told:
                told = 10 * done // total
                left = time_left(time.perf_counter() - start, done, total)
                log.info("%s: %d of %d images, about %s left", name, done, total, left)
