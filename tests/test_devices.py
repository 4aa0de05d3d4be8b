"""The device is chosen in one place, and one that is not there is an error."""

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from convergent.running import devices

WORKFLOW = Path(__file__).parents[1] / "workflow"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_asking_for_a_gpu_that_is_not_there_is_an_error():
    assert devices.choose_device("auto") == "cpu"
    with pytest.raises(ValueError, match="device: cuda"):
        devices.choose_device("cuda")


def test_a_cpu_computes_in_single_precision_and_uncompiled(small_net):
    assert devices.choose_device("cpu") == "cpu"
    assert devices.half_precision("cpu") is None
    assert devices.compiled(small_net, "cpu") is small_net


def test_exact_turns_tf32_off():
    places = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [place.allow_tf32 for place in places]
    try:
        for place in places:
            place.allow_tf32 = True
        devices.exact()
        assert not any(place.allow_tf32 for place in places)
    finally:
        for place, value in zip(places, before, strict=True):
            place.allow_tf32 = value


def test_importing_it_costs_no_torch():
    code = "import sys, convergent.running.devices; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=WORKFLOW).returncode == 0


def test_an_old_processor_in_the_environment_is_told(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert "OPENBLAS_CORETYPE=Haswell is set" in devices.slow_products()
    monkeypatch.delenv("OPENBLAS_CORETYPE")
    assert devices.slow_products() == ""


# A job that takes one of some pretended GPUs and keeps it until its input ends.
JOB = """
import logging, os, sys, types
from pathlib import Path
from convergent.running import devices

logging.basicConfig(level=logging.INFO, format="%(message)s")
devices.LOCKS, devices.WAIT, devices.LOG_EVERY = Path(sys.argv[1]), float(sys.argv[2]), 0
devices.visible_gpus = lambda: sys.argv[3:]
cuda = types.SimpleNamespace(is_available=lambda: True, get_device_name=lambda: "pretended")
sys.modules["torch"] = types.SimpleNamespace(cuda=cuda)
{first}
try:
    devices.choose_device("auto")
    print(os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
except devices.DeviceError as error:
    print(error, flush=True)
sys.stdin.read()
"""
GPUS = [f"GPU-{number}" for number in range(4)]


@pytest.fixture
def job(tmp_path):
    """Starts such jobs."""
    started = []
    clean = {k: v for k, v in os.environ.items() if k not in devices.BATCH_JOB}

    def start(*gpus, first="", wait=100, locks=tmp_path, **environment):
        with open(tmp_path / f"{len(started)}.log", "w", encoding="utf-8") as log:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-c", JOB.format(first=first), locks, str(wait), *gpus],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    cwd=WORKFLOW,
                    env=clean | {"CUDA_VISIBLE_DEVICES": "as it was"} | environment,
                )
            )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def answer(process):
    return process.stdout.readline().strip()


def waits(process, seconds=2):
    return not select.select([process.stdout], [], [], seconds)[0]


def test_each_job_takes_a_gpu_that_no_other_has(job, tmp_path):
    jobs = [job(*GPUS) for _ in range(4)]
    taken = [answer(process) for process in jobs]
    assert sorted(taken) == GPUS
    fifth = job(*GPUS)
    assert waits(fifth)
    log = (tmp_path / "4.log").read_text(encoding="utf-8")
    assert f"{taken[2]} by process {jobs[2].pid} on " in log
    jobs[2].kill()
    assert answer(fifth) == taken[2]


def test_jobs_that_see_different_gpus_do_not_wait_for_each_other(job):
    """Where each has its own under the same number, as LSF and PBS may do."""
    assert [answer(job(gpu)) for gpu in GPUS[:2]] == GPUS[:2]


def test_the_only_gpu_of_a_batch_job_is_used_as_it_is(job, tmp_path):
    for variable in devices.BATCH_JOB:
        assert answer(job("GPU-0", **{variable: "7"})) == "as it was"
    assert not list(tmp_path.glob("*.lock"))


def test_of_several_gpus_of_a_batch_job_each_of_its_jobs_takes_one(job):
    jobs = [job(*GPUS[:2], SLURM_JOB_ID="7") for _ in range(2)]
    assert sorted(map(answer, jobs)) == GPUS[:2]


def test_waiting_ends_with_an_error_that_says_who_has_the_gpu(job):
    first = job("GPU-0")
    assert answer(first) == "GPU-0"
    error = answer(job("GPU-0", wait=2))
    assert error.startswith("no GPU became free in 0 hours: GPU-0 by process")
    assert f"process {first.pid} on " in error
    assert "--resources gpu=1" in error


@pytest.mark.slow
def test_jobs_queue_as_long_as_gpus_change_hands(job):
    """Each waits longer than the limit in all, but not for any one of those before it."""
    queue = [job("GPU-0", wait=6)]
    assert answer(queue[0]) == "GPU-0"
    last = job("GPU-0", wait=6)
    for _ in range(3):
        assert waits(last, 3)
        between = job("GPU-0", wait=100)
        os.kill(last.pid, signal.SIGSTOP)
        queue.pop().kill()
        assert answer(between) == "GPU-0"
        os.kill(last.pid, signal.SIGCONT)
        queue.append(between)
    queue.pop().kill()
    assert answer(last) == "GPU-0"


def test_what_a_job_forks_neither_frees_its_gpu_nor_keeps_it(job):
    """As the workers do that read images."""
    fork = "devices.claim(['GPU-0']); os.fork() or os.execlp('sleep', 'sleep', '1')"
    stays = "devices.claim(['GPU-0']); child = os.fork() or __import__('time').sleep(1000)"
    holder = job("GPU-0", first=fork)
    assert answer(holder) == "as it was"
    waiting = job("GPU-0")
    assert waits(waiting, 3)
    holder.kill()
    assert answer(waiting) == "GPU-0"
    waiting.kill()
    waiting.wait()
    holder = job("GPU-0", first=f"{stays}; print(child, flush=True)")
    child = int(answer(holder))
    holder.kill()
    holder.wait()
    try:
        assert answer(job("GPU-0")) == "GPU-0"
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_users_of_one_machine_wait_for_each_other(job):
    other = "import filelock._error, random, secrets; os.umask(0o077); os.setuid({})"
    with tempfile.TemporaryDirectory() as locks:
        Path(locks).chmod(0o1777)  # as /tmp has
        holder = job("GPU-0", first=other.format(65533), locks=locks)
        assert answer(holder) == "GPU-0"
        waiting = job("GPU-0", first=other.format(65534), locks=locks)
        assert waits(waiting)
        holder.kill()
        assert answer(waiting) == "GPU-0"


def test_a_lock_that_cannot_be_written_is_named(job, tmp_path):
    (tmp_path / "convergent-GPU-0.lock").mkdir()
    error = answer(job("GPU-0"))
    assert "GPU-0 cannot be claimed for this job" in error
    assert f"must be able to read and write {tmp_path}" in error


PRETENDED_CUDA = """
#include <stdlib.h>
#include <string.h>
static int number(const char *name) { const char *v = getenv(name); return v ? atoi(v) : 0; }
int cuInit(unsigned flags) { return number("FAKE_ERROR"); }
int cuDeviceGetCount(int *count) { *count = number("FAKE_GPUS"); return 0; }
int cuDeviceGet(int *device, int index) { *device = 10 + index; return 0; }
int cuDeviceGetUuid(char *uuid, int device) { memset(uuid, device, 16); return 0; }
int cuDeviceGetUuid_v2(char *uuid, int device) {
  memset(uuid, device + number("FAKE_PART"), 16);
  return 0;
}
"""


@pytest.fixture
def pretended_cuda(tmp_path, monkeypatch):
    if not sys.platform.startswith("linux") or not shutil.which("cc"):
        pytest.skip("needs Linux and a C compiler")
    (tmp_path / "cuda.c").write_text(PRETENDED_CUDA, encoding="utf-8")
    library = tmp_path / "libcuda.so.1"
    build = ["cc", "-shared", "-fPIC", "-o", library, tmp_path / "cuda.c"]
    subprocess.run(build, check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_gpus_are_known_by_their_uuids(pretended_cuda, monkeypatch, caplog):
    monkeypatch.setenv("FAKE_GPUS", "2")
    first, second = "0a0a0a0a-0a0a-0a0a-0a0a-0a0a0a0a0a0a", "0b0b0b0b-0b0b-0b0b-0b0b-0b0b0b0b0b0b"
    assert devices.visible_gpus() == [f"GPU-{first}", f"GPU-{second}"]
    monkeypatch.setenv("FAKE_PART", "1")
    assert devices.visible_gpus()[0] == f"MIG-{second}"
    assert not caplog.records
    monkeypatch.setenv("FAKE_ERROR", "100")
    assert devices.visible_gpus() == []
    assert not caplog.records
    monkeypatch.setenv("FAKE_ERROR", "803")
    assert devices.visible_gpus() == []
    assert "CUDA does not start: cuInit gives error 803" in caplog.text


def test_parts_of_gpus_are_taken_by_their_names(monkeypatch):
    """CUDA would show but the first of them."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-8f, MIG-90")
    assert devices.visible_gpus() == ["MIG-8f", "MIG-90"]


def test_gpus_that_are_hidden_are_not_taken(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices.visible_gpus() == []
