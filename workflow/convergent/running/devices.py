"""Devices of jobs, and the precision of nets on them."""

from __future__ import annotations

import logging
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from convergent import ConvergentError

if TYPE_CHECKING:
    import torch
    from filelock import FileLock
    from torch import nn

# Folder of the locks of GPUs, shared by all users of the machine and by containers that mount it.
# Not $TMPDIR, which may be different for each job.
LOCKS = Path("/tmp")
# Seconds to wait for a GPU while none changes hands: longer than a training. A queue that moves may
# take any time.
WAIT = 2 * 24 * 3600
# Seconds between two lines in the log that say who holds the GPUs.
LOG_EVERY = 60
# Environment variables that mark a job of Slurm, LSF, PBS, Grid Engine and HTCondor.
BATCH_JOB = ("SLURM_JOB_ID", "LSB_JOBID", "PBS_JOBID", "SGE_TASK_ID", "_CONDOR_SLOT")

logger = logging.getLogger(__name__)

# Locks that this process holds until it ends.
_claims: list[FileLock] = []


class DeviceError(ConvergentError, ValueError):
    """A device that is asked for and missing, or that cannot be claimed."""


def choose_device(wanted: str = "auto") -> str:
    """Choose the device to compute on and log it.

    ``auto`` means ``cuda`` on a machine with a GPU, and ``cpu`` on others. If there are several
    GPUs, this process claims one that no other job has, and sees only that one from now on. A
    single GPU that a scheduler assigned is used without a claim. On a machine without a GPU torch
    is not imported: that takes seconds, and not every job needs it.

    Raises
    ------
    DeviceError
        If ``cuda`` is wanted and there is none, or if no GPU becomes free.
    """
    if wanted != "cpu" and not _claims:
        gpus = visible_gpus()
        if gpus and not is_assigned(gpus):
            os.environ["CUDA_VISIBLE_DEVICES"] = claim(gpus)
        elif wanted == "auto" and not gpus:
            wanted = "cpu"
    if wanted == "cpu":
        logger.info("device: cpu")
        return "cpu"
    import torch

    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise DeviceError("device: cuda is asked for, but torch sees no CUDA device; use auto")
    device = "cuda" if available else "cpu"
    logger.info("device: %s", torch.cuda.get_device_name() if available else device)
    return device


def visible_gpus() -> list[str]:
    """List the UUIDs of the GPUs, or parts of GPUs, that this process may use.

    ``CUDA_VISIBLE_DEVICES`` may name some of them by UUID, or by number in the order of
    ``nvidia-smi``.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "").replace(" ", "").split(",")
    if all(name.startswith("MIG-") for name in chosen):
        return chosen  # CUDA shows a process only the first of them
    command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("cuda.py"))]
    environment = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} | os.environ
    answer = subprocess.run(command, capture_output=True, text=True, env=environment)
    if answer.returncode:
        logger.warning("no GPU is used, because CUDA does not start: %s", answer.stderr.strip())
    return answer.stdout.split()


def is_assigned(gpus: list[str]) -> bool:
    """Tell whether a scheduler assigned this process the only GPU that it sees.

    The scheduler may have assigned it to other processes as well. If Snakemake runs several jobs
    inside one job of the scheduler, with several GPUs, each of them claims one.
    """
    return len(gpus) == 1 and any(name in os.environ for name in BATCH_JOB)


def claim(gpus: list[str]) -> str:
    """Claim one of `gpus` for this process until it ends; wait while others hold them all.

    Snakemake counts GPUs but assigns none. A UUID means the same GPU in every job and container.
    The claim ends with the process, even if it is killed.

    Parameters
    ----------
    gpus : list of str
        UUIDs, as :func:`visible_gpus` lists them.

    Returns
    -------
    str
        UUID of the one that is claimed.

    Raises
    ------
    DeviceError
        If none changes hands for two days, or the locks cannot be written.
    """
    from filelock import FileLock, Timeout

    holders: list[str] = []
    changed, logged = time.monotonic(), -float("inf")
    while True:
        for gpu in gpus:
            # The mode is for all users, whatever the umask.
            lock = FileLock(
                _lock_file(gpu), mode=0o666, thread_local=False, on_acquired=_write_holder
            )
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            except OSError as error:
                raise DeviceError(
                    f"{gpu} cannot be claimed for this job ({error}); everybody who uses the GPUs "
                    f"of this machine must be able to read and write {lock.lock_file}"
                ) from error
            _claims.append(lock)
            logger.info("%s of %s", gpu, ", ".join(gpus))
            return gpu
        now = time.monotonic()
        current = [f"{gpu} by {_lock_file(gpu).read_text(encoding='utf-8')}" for gpu in gpus]
        if current != holders:
            holders, changed = current, now
        if now >= changed + WAIT:
            raise DeviceError(
                f"no GPU became free in {WAIT / 3600:.0f} hours: {'; '.join(holders)}; end jobs "
                f"that are not needed, or let Snakemake wait: --resources gpu={len(gpus)}"
            )
        if now >= logged + LOG_EVERY:
            logger.info("waiting for a GPU: %s", "; ".join(holders))
            logged = now
        time.sleep(1)


def _lock_file(gpu: str) -> Path:
    """Name the lock of a GPU."""
    return LOCKS / f"convergent-{gpu}.lock"


def _write_holder(file: int) -> None:
    """Write the holder of a lock into its open file."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    os.truncate(file, 0)
    os.pwrite(file, f"process {os.getpid()} on {platform.node()} since {since}".encode(), 0)


def cores() -> int:
    """Count the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory() -> int:
    """Measure the largest memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # On Linux, ru_maxrss includes the memory of the parent process.
        return 1024 * int(re.findall(r"VmHWM:\s+(\d+)", status.read_text(encoding="utf-8"))[0])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def slow_products() -> str:
    """Explain how the environment slows NumPy's products; empty if it does not."""
    processor = os.environ.get("OPENBLAS_CORETYPE")
    if not processor:
        return ""
    return (
        f"OPENBLAS_CORETYPE={processor} is set: the code for an older processor halves the speed "
        "of products; unset it, unless machines of several kinds must agree to the last bit."
    )


def half_precision(device: str) -> torch.dtype | None:
    """Choose the type of mixed precision: none on a CPU, bfloat16 on a GPU that has it."""
    import torch

    if device == "cpu":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def compiled(net: nn.Module, device: str) -> nn.Module:
    """Compile a net on a GPU; its parameters are the same, under other names.

    Compiling fuses the operations around convolutions. The first run takes a minute longer.
    """
    import torch

    if device == "cpu":
        return net
    # Without a C compiler the net runs uncompiled.
    torch._dynamo.config.suppress_errors = True
    # The last batch of an epoch may be smaller: each size gets its own code.
    return torch.compile(net, dynamic=False)


def exact() -> None:
    """Make a GPU compute float32 products in float32 from now on, as a CPU does.

    By default its convolutions round their inputs to TF32, which has the 10 bits of float16.
    """
    import torch

    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
