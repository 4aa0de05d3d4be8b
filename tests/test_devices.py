"""The device is chosen in one place, and one that is not there is an error."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from convergent import devices

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
    code = "import sys, convergent.devices; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=WORKFLOW).returncode == 0


def test_an_old_processor_in_the_environment_is_told(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert "OPENBLAS_CORETYPE=Haswell is set" in devices.slow_products()
    monkeypatch.delenv("OPENBLAS_CORETYPE")
    assert devices.slow_products() == ""


CLAIM = (
    "import sys; from convergent.devices import claim, visible_gpus;"
    "print(claim(visible_gpus()), flush=True); sys.stdin.read()"
)


@pytest.fixture
def job(monkeypatch):
    """Starts jobs that take a GPU of four pretended ones and keep it."""
    gpus = [f"test{os.getpid()}-{number}" for number in range(4)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(gpus))
    started = []

    def start():
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([sys.executable, "-c", CLAIM], cwd=WORKFLOW, **pipes))
        return started[-1]

    start.gpus = gpus
    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_each_job_takes_a_gpu_that_no_other_has(job):
    jobs = [job() for _ in range(4)]
    taken = [process.stdout.readline().strip() for process in jobs]
    assert sorted(taken) == job.gpus
    fifth = job()
    assert not select.select([fifth.stdout], [], [], 2)[0]
    jobs[2].kill()
    assert fifth.stdout.readline().strip() == taken[2]


def test_gpus_that_are_hidden_are_not_taken(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices.visible_gpus() == {}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1, GPU-8f")
    assert list(devices.visible_gpus()) == ["1", "GPU-8f"]
