"""Where the Dask tasks of a reduction run, and on how many threads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import dask
from threadpoolctl import threadpool_limits

from convergent import ConvergentError
from convergent.devices import cores

# Seconds that a scheduler may take to answer.
PATIENCE = 30


class SchedulerError(ConvergentError, OSError):
    """A scheduler that does not answer; the message names its address."""


def compute(tasks: Sequence, *, scheduler: str = "threads", workers: int = 1) -> list[Any]:
    """Results of Dask tasks, each made on one BLAS thread.

    Parameters
    ----------
    tasks : sequence of dask.delayed.Delayed
        Made by :func:`task`.
    scheduler : str
        ``threads``, ``processes`` or the address of a running ``distributed`` scheduler, such as
        ``tcp://10.0.0.1:8786``.
    workers : int
        Threads or processes, at most one per core; a running cluster has its own.

    Raises
    ------
    SchedulerError
        If no scheduler answers at the address.
    """
    if scheduler in ("threads", "processes"):
        # In this process the limit holds around all tasks: set and lifted inside of them it would
        # be lifted by the first to end.
        with threadpool_limits(1, user_api="blas"):
            return list(
                dask.compute(*tasks, scheduler=scheduler, num_workers=min(workers, cores()))
            )
    from distributed import Client

    try:
        client = Client(scheduler, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise SchedulerError(
            f"dask.scheduler: no scheduler answers at {scheduler} ({error}); start one with "
            "`dask scheduler` and `dask worker`, or set it to threads or processes"
        ) from error
    with client:
        return list(dask.compute(*tasks, scheduler=client))


def task(function, nout: int):
    """A lazy `function` with `nout` results, one BLAS thread to itself in any process."""

    def alone(*args):
        _one_blas_thread(os.getpid())
        return function(*args)

    return dask.delayed(alone, nout=nout, pure=False)


@cache
def _one_blas_thread(process: int) -> None:
    """For good: a worker process does nothing but tasks."""
    import numpy  # noqa: F401 (whose BLAS is to be limited)

    threadpool_limits(1, user_api="blas")
