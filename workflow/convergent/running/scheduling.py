"""Schedulers of Dask: where the tasks of a reduction run, and on how many threads."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
from dask.callbacks import Callback
from threadpoolctl import threadpool_limits

from convergent import ConvergentError
from convergent.running.devices import cores

if TYPE_CHECKING:
    from dask_jobqueue import SLURMCluster
    from distributed import Client

# Seconds that a scheduler may take to answer, and to get a worker.
TIMEOUT = 30

logger = logging.getLogger(__name__)


class SchedulerError(ConvergentError, OSError):
    """A scheduler that does not answer, or that gets no workers; the message names the key."""


@contextmanager
def scheduler_for(
    kind: str,
    *,
    threads: int,
    mem_mb: int,
    runtime: int,
    logs: str | Path,
    jobs: int = 1,
    partition: str | None = None,
    account: str | None = None,
    interface: str | None = None,
) -> Iterator[str | SLURMCluster]:
    """Provide the `scheduler` of :func:`compute` for a whole job.

    For ``slurm`` this starts a scheduler in this process and submits its workers to the cluster.
    They end with the context, or soon after this process. Any other `kind` is passed on as it is.
    Scheduler and workers listen on one network interface only, because anyone who reaches a port
    of Dask can run any code.

    Parameters
    ----------
    kind : str
        ``slurm``, or a `scheduler` of :func:`compute`.
    threads, mem_mb, runtime : int
        Threads, megabytes and minutes of each job of workers.
    logs : path
        Folder of the logs of Slurm and of the workers.
    jobs : int
        Number of jobs of workers.
    partition, account : str, optional
        Partition and account of Slurm; its defaults if None.
    interface : str, optional
        Network interface; if None, the one with the address of this machine's name.

    Raises
    ------
    SchedulerError
        If Slurm rejects such jobs, or there is no such interface.
    """
    if kind != "slurm":
        yield kind
        return
    from dask_jobqueue import SLURMCluster

    nowhere = "127.0.0.1:0"  # for Dask's web pages, which cannot be switched off
    with SLURMCluster(
        queue=partition,
        account=account,
        cores=threads,
        processes=1,
        memory=f"{mem_mb}MB",
        walltime=str(runtime),
        interface=_interface(interface),
        log_directory=str(logs),
        python=sys.executable,
        nanny=False,
        death_timeout=TIMEOUT,
        worker_extra_args=["--dashboard-address", nowhere],
        scheduler_options={"dashboard_address": nowhere},
        job_script_prologue=[f"export PYTHONPATH={Path(__file__).parents[2]}"],
    ) as cluster:
        try:
            command = ["sbatch", "--test-only"]
            subprocess.run(
                command, input=cluster.job_script(), capture_output=True, text=True, check=True
            )
        except FileNotFoundError:
            raise SchedulerError("dask.scheduler: slurm needs sbatch, which is not here") from None
        except subprocess.CalledProcessError as error:
            raise SchedulerError(
                f"dask.scheduler: Slurm takes no workers: {error.stderr.strip()}; see "
                "dask.partition and dask.account"
            ) from None
        cluster.scale(jobs=jobs)
        logger.info("%d jobs of workers submitted, logs in %s", jobs, logs)
        yield cluster


def _interface(name: str | None) -> str:
    """Find the network interface of that name, or the one with this machine's address."""
    import psutil

    addresses = {
        interface: [entry.address for entry in entries]
        for interface, entries in psutil.net_if_addrs().items()
    }
    if name is None:
        try:
            address = socket.gethostbyname(socket.gethostname())
        except OSError:
            address = None
        name = next((each for each, own in addresses.items() if address in own), None)
    if name is None or name not in addresses:
        raise SchedulerError(
            f"dask.interface: {name or 'by default'} is no network interface of "
            f"{socket.gethostname()}; use one of {', '.join(addresses)}"
        )
    return name


def compute(
    tasks: Sequence,
    *,
    scheduler: str | SLURMCluster = "threads",
    workers: int = 1,
    step: Callable[[float], None] = lambda share: None,
) -> list[Any]:
    """Compute Dask tasks, each on one BLAS thread.

    Parameters
    ----------
    tasks : sequence of dask.delayed.Delayed
        Made by :func:`task`.
    scheduler : str or SLURMCluster
        ``threads``, ``processes``, the address of a running ``distributed`` scheduler, such as
        ``tcp://10.0.0.1:8786``, or what :func:`scheduler_for` yields.
    workers : int
        Threads or processes, at most one per core; a running cluster has its own.
    step : callable
        Function that is called with each further share of the work that is done, from 0 to 1; see
        :func:`convergent.running.progress.stage`.

    Raises
    ------
    SchedulerError
        If no scheduler answers at the address, if it has no workers or is lost, or if all workers
        that were submitted have ended.
    """
    if scheduler in ("threads", "processes"):
        # The limit is set around all tasks of this process: if each set its own, the first to end
        # would lift it for the others.
        with threadpool_limits(1, user_api="blas"), _Steps(step):
            return list(
                dask.compute(*tasks, scheduler=scheduler, num_workers=min(workers, cores()))
            )
    with _connected(scheduler) as client:
        if isinstance(scheduler, str):
            _wait_for_workers(client, scheduler)
        try:
            client.run(importlib.import_module, __package__)
        except ImportError as error:
            raise SchedulerError(
                f"dask.scheduler: workers of {scheduler} cannot import what tasks need ({error}); "
                f"start them in an environment like this one, with {Path(__file__).parents[2]} on "
                "PYTHONPATH"
            ) from error
        futures = client.compute(list(tasks))
        done, checked = 0, time.monotonic()
        while done < len(futures):
            time.sleep(0.02)
            before, done = done, sum(future.done() for future in futures)
            step((done - before) / len(futures))
            if time.monotonic() < checked + TIMEOUT:
                continue
            if isinstance(scheduler, str):
                _wait_for_workers(client, scheduler)
            elif not _in_queue(scheduler):
                raise SchedulerError(
                    "dask.scheduler: all jobs of workers have ended before the work was done; "
                    "their logs are in the folder .workers beside this one"
                )
            checked = time.monotonic()
        try:
            return client.gather(futures)
        except CancelledError as error:
            raise SchedulerError(
                f"dask.scheduler: {scheduler} was lost before the work was done ({error})"
            ) from error


def _connected(scheduler: str | SLURMCluster) -> Client:
    """Connect a client to the scheduler."""
    from distributed import Client

    if isinstance(scheduler, str):
        _check_answer(scheduler)
    return Client(scheduler, timeout=TIMEOUT)


def _check_answer(address: str) -> None:
    """Check that a scheduler answers at an address.

    A client whose connection fails can leave distributed's event loop, which all clients of a
    process share, in a state in which no later one connects. So this check runs in a loop, and a
    thread, of its own.
    """
    from distributed import rpc

    async def ask() -> None:
        async with rpc(address) as scheduler:
            identity = await scheduler.identity()
        if identity["type"] != "Scheduler":
            raise ValueError(f"there is a {identity['type']}")

    async def ask_in_time() -> None:
        await asyncio.wait_for(ask(), TIMEOUT)

    with ThreadPoolExecutor(1) as pool:
        error = pool.submit(asyncio.run, ask_in_time()).exception()
    if error is not None:
        raise SchedulerError(
            f"dask.scheduler: no scheduler answers at {address} ({str(error) or 'no answer'}); "
            "start one with `dask scheduler` and `dask worker`, or set it to threads or processes"
        ) from error


def _wait_for_workers(client: Client, address: str) -> None:
    """Wait until the scheduler has a worker."""
    try:
        client.wait_for_workers(1, timeout=TIMEOUT)
    except OSError as error:
        raise SchedulerError(
            f"dask.scheduler: the scheduler at {address} has no workers ({error}); start some with "
            f"`dask worker {address}`, or set it to threads or processes"
        ) from error


class _Steps(Callback):
    """Callback that reports every task of this process as one share of all."""

    def __init__(self, step: Callable[[float], None]) -> None:
        super().__init__()
        self.step = step

    def _posttask(self, key, result, tasks, state, worker) -> None:
        self.step(1 / len(tasks))


def _in_queue(cluster: SLURMCluster) -> bool:
    """Tell whether any job of workers waits or runs."""
    jobs = ",".join(str(worker.job_id) for worker in cluster.workers.values())
    queue = subprocess.run(["squeue", "-h", "-j", jobs], capture_output=True, text=True)
    return bool(queue.stdout.strip())


def task(function, nout: int):
    """Make `function`, with `nout` results, a lazy task that runs on one BLAS thread anywhere."""

    def on_one_thread(*args):
        _limit_blas(os.getpid())
        return function(*args)

    return dask.delayed(on_one_thread, nout=nout, pure=False)


@cache
def _limit_blas(process: int) -> None:
    """Limit BLAS to one thread for good, as a worker process runs nothing but tasks."""
    import numpy  # noqa: F401 (its BLAS is the one to limit)

    threadpool_limits(1, user_api="blas")
