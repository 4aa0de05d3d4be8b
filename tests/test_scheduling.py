"""The same reductions on threads, processes and a cluster."""

import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import dask
import numpy as np
import pytest
import threadpoolctl

from convergent.activations import from_stores, statistics
from convergent.running import scheduling
from convergent.running.stores import create, new_store, open_store

CLUSTER = """
import sys
from distributed import LocalCluster

if __name__ == "__main__":
    cluster = LocalCluster(
        n_workers=int(sys.argv[1]), threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    )
    print(cluster.scheduler_address, flush=True)
    for line in sys.stdin:
        cluster.scale(int(line))
"""


@contextmanager
def running_cluster(workers):
    """A scheduler and workers in processes of their own, listening on loopback."""
    start = [sys.executable, "-c", CLUSTER, str(workers)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(start, **pipes) as process:
        yield process.stdout.readline().strip(), process
        process.stdin.close()


@pytest.fixture(scope="module")
def cluster():
    with running_cluster(2) as (address, _):
        yield address


@pytest.fixture
def stores(rng, tmp_path):
    for name in "ab":
        with new_store(tmp_path / name) as group:
            values = np.maximum(rng.normal(size=(60, 4, 4, 6)), 0).astype(np.float16)
            names = ("image", "y", "x", "unit")
            create(group, "conv1", values.shape, values.dtype, names, chunk_rows=7)[...] = values
    return [open_store(tmp_path / name)["conv1"] for name in "ab"]


@pytest.mark.parametrize("where", ["threads", "processes", "cluster"])
def test_any_scheduler_gives_the_same(stores, monkeypatch, request, where):
    monkeypatch.setattr(from_stores, "LEAF_BYTES", 1)
    scheduler = request.getfixturevalue("cluster") if where == "cluster" else where
    expected = statistics.block_moments(*stores, blocks=4)
    found = statistics.block_moments(*stores, blocks=4, scheduler=scheduler, workers=2)
    for a, b in zip(expected.moments, found.moments, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("where", ["threads", "processes", "cluster"])
def test_tasks_have_one_blas_thread(request, where):
    def blas_threads():  # not at the top: this module is not to be found on the cluster
        pools = threadpoolctl.threadpool_info()
        return [max(p["num_threads"] for p in pools if p["user_api"] == "blas")]

    scheduler = request.getfixturevalue("cluster") if where == "cluster" else where
    before = blas_threads()
    tasks = [scheduling.task(blas_threads, nout=1)() for _ in range(4)]
    assert scheduling.compute(tasks, scheduler=scheduler, workers=2) == [[1]] * 4
    assert blas_threads() == before


@pytest.mark.parametrize("where", ["threads", "processes", "cluster"])
def test_tasks_tell_shares_that_add_up(request, where):
    scheduler = request.getfixturevalue("cluster") if where == "cluster" else where
    shares = []
    leaves = [scheduling.task(abs, 1)(n) for n in range(5)]
    tasks = [dask.delayed(max)(leaves[0], leaves[1]), *leaves[2:]]
    tasks.append(scheduling.task(time.sleep, 1)(0.5))
    scheduling.compute(tasks, scheduler=scheduler, workers=2, step=shares.append)
    # A cluster is asked now and then, not told of every task.
    assert np.count_nonzero(shares) >= (2 if where == "cluster" else 5)
    assert sum(shares) == pytest.approx(1)


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr(scheduling, "TIMEOUT", 1)
    start = time.monotonic()
    with pytest.raises(scheduling.SchedulerError, match=r"no scheduler answers at tcp://127.0.0.1"):
        scheduling.compute([], scheduler="tcp://127.0.0.1:9")
    assert time.monotonic() - start < 30


def test_what_is_no_scheduler_is_named(monkeypatch, cluster):
    """One says nothing, as the port of a web page does, the other something else.

    Neither keeps this process from one that is.
    """
    monkeypatch.setattr(scheduling, "TIMEOUT", 5)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = "tcp://{}:{}".format(*server.getsockname())
        start = time.monotonic()
        with pytest.raises(scheduling.SchedulerError, match=f"no scheduler answers at {address}"):
            scheduling.compute([], scheduler=address)
        assert time.monotonic() - start < 30
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = "tcp://{}:{}".format(*server.getsockname())

        def answer():
            while True:
                server.accept()[0].sendall(b"HTTP/1.1 400 Bad Request\r\n" * 9)

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(scheduling.SchedulerError, match=f"no scheduler answers at {address}"):
            scheduling.compute([], scheduler=address)
    assert scheduling.compute([scheduling.task(abs, 1)(-1)], scheduler=cluster) == [1]


def test_a_scheduler_without_workers_is_told(monkeypatch):
    monkeypatch.setattr(scheduling, "TIMEOUT", 2)
    with running_cluster(0) as (address, _):
        start = time.monotonic()
        with pytest.raises(scheduling.SchedulerError, match=f"{address} has no workers"):
            scheduling.compute([scheduling.task(abs, 1)(-1)], scheduler=address)
        assert time.monotonic() - start < 30


@pytest.mark.slow
def test_workers_that_go_are_missed_and_a_scheduler_that_goes_is_told(monkeypatch):
    monkeypatch.setattr(scheduling, "TIMEOUT", 3)
    tasks = [scheduling.task(time.sleep, 1)(60) for _ in range(2)]
    for order, message in (("0\n", "has no workers"), (None, "was lost before the work was done")):
        with running_cluster(1) as (address, process):

            def leave(process=process, order=order):
                time.sleep(4)
                if order is None:
                    process.kill()
                else:
                    process.stdin.write(order)
                    process.stdin.flush()

            threading.Thread(target=leave).start()
            start = time.monotonic()
            with pytest.raises(scheduling.SchedulerError, match=message):
                scheduling.compute(tasks, scheduler=address)
            assert time.monotonic() - start < 40
