"""The same reductions on threads, processes and a cluster."""

import subprocess
import sys
import time

import dask
import numpy as np
import pytest
import threadpoolctl

from convergent import scheduling, statistics
from convergent.stores import create, new_store, open_store


@pytest.fixture(scope="module")
def cluster():
    """A scheduler and a worker in processes of their own, listening on loopback."""
    code = (
        "from distributed import LocalCluster; import sys, time\n"
        "c = LocalCluster(n_workers=2, threads_per_worker=1, host='127.0.0.1', "
        "dashboard_address=None)\n"
        "print(c.scheduler_address, flush=True)\n"
        "sys.stdin.read()"
    )
    start = [sys.executable, "-c", f"if __name__ == '__main__':\n  exec({code!r})"]
    process = subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process.stdout.readline().strip()
    process.stdin.close()
    process.wait(30)


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
    monkeypatch.setattr(statistics, "LEAF_BYTES", 1)
    scheduler = request.getfixturevalue("cluster") if where == "cluster" else where
    expected = statistics.block_moments(*stores, blocks=4)
    found = statistics.block_moments(*stores, blocks=4, scheduler=scheduler, workers=2)
    for a, b in zip(expected, found, strict=True):
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
    monkeypatch.setattr(scheduling, "PATIENCE", 1)
    start = time.monotonic()
    with pytest.raises(scheduling.SchedulerError, match=r"no scheduler answers at tcp://127.0.0.1"):
        scheduling.compute([], scheduler="tcp://127.0.0.1:9")
    assert time.monotonic() - start < 30
