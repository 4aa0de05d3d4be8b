"""Where jobs compute, and nets in what precision: chosen here for all of them."""

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

# Folder of the locks of GPUs: one for all users of the machine, and for containers that mount it.
# Not $TMPDIR, which each job may have to itself.
LOCKS = Path("/tmp")
# Seconds without a GPU changing hands after which waiting for one ends: longer than a training.
# Whatever queues in order may take as long as it likes.
WAIT = 2 * 24 * 3600
# Seconds between two lines in the log that say who has the GPUs.
TELL = 60
# Variables of a job of Slurm, LSF, PBS, Grid Engine and HTCondor.
BATCH_JOB = ("SLURM_JOB_ID", "LSB_JOBID", "PBS_JOBID", "SGE_TASK_ID", "_CONDOR_SLOT")

logger = logging.getLogger(__name__)

# Held until the process ends.
_claims: list[FileLock] = []


class DeviceError(ConvergentError, ValueError):
    """A device that is asked for and not there, or not to be had."""


def choose_device(wanted: str = "auto") -> str:
    """The device to compute on, logged: ``cuda`` where there is one, unless `wanted` says.

    Of several GPUs this process sees one from now on, which no other job has. The one GPU that a
    scheduler gave is used as it is. A machine without a GPU is spared the import of torch, which
    takes seconds and which not every job needs.

    Raises
    ------
    DeviceError
        If ``cuda`` is wanted and there is none, or if no GPU becomes free.
    """
    if wanted != "cpu" and not _claims:
        gpus = visible_gpus()
        if gpus and not given(gpus):
            os.environ["CUDA_VISIBLE_DEVICES"] = claim(gpus)
        elif wanted == "auto" and not gpus:
            wanted = "cpu"
    if wanted == "cpu":
        logger.info("device: cpu")
        return "cpu"
    import torch

    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise DeviceError("device: cuda is asked for, and torch sees no CUDA device; use auto")
    device = "cuda" if available else "cpu"
    logger.info("device: %s", torch.cuda.get_device_name() if available else device)
    return device


def visible_gpus() -> list[str]:
    """UUIDs of the GPUs, or parts of GPUs, that this process may use.

    ``CUDA_VISIBLE_DEVICES`` may name some by number, in the order of ``nvidia-smi``, or by UUID.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "").replace(" ", "").split(",")
    if all(name.startswith("MIG-") for name in chosen):
        return chosen  # of which CUDA shows a process but the first
    ask = [sys.executable, "-I", "-S", str(Path(__file__).with_name("cuda.py"))]
    environment = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} | os.environ
    answer = subprocess.run(ask, capture_output=True, text=True, env=environment)
    if answer.returncode:
        logger.warning("no GPU is used, as CUDA does not start: %s", answer.stderr.strip())
    return answer.stdout.split()


def given(gpus: list[str]) -> bool:
    """Whether a scheduler gave this process its GPU: in a job of its own, and the only one it sees.

    Others may then share it by the scheduler's will. Of several, in one job in which Snakemake runs
    jobs of its own, each of these claims one.
    """
    return len(gpus) == 1 and any(name in os.environ for name in BATCH_JOB)


def claim(gpus: list[str]) -> str:
    """Keep one of `gpus` for this process until it ends, however it ends; wait while all are kept.

    Snakemake counts GPUs and assigns none. A UUID means the same GPU in every job and container.

    Parameters
    ----------
    gpus : list of str
        As :func:`visible_gpus` has them.

    Returns
    -------
    str
        The one that is kept.

    Raises
    ------
    DeviceError
        If none changes hands for two days, or the locks cannot be written.
    """
    from filelock import FileLock, Timeout

    holders: list[str] = []
    changed, told = time.monotonic(), -float("inf")
    while True:
        for gpu in gpus:
            # For all users, whatever the umask.
            lock = FileLock(_lock_file(gpu), mode=0o666, thread_local=False, on_acquired=_sign)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            except OSError as error:
                raise DeviceError(
                    f"{gpu} cannot be kept for this job ({error}); everybody who uses the GPUs of "
                    f"this machine must be able to read and write {lock.lock_file}"
                ) from error
            _claims.append(lock)
            logger.info("%s of %s", gpu, ", ".join(gpus))
            return gpu
        now = time.monotonic()
        signs = (_lock_file(gpu).read_text(encoding="utf-8") for gpu in gpus)
        found = [f"{gpu} by {sign}" for gpu, sign in zip(gpus, signs, strict=True)]
        if found != holders:
            holders, changed = found, now
        if now >= changed + WAIT:
            raise DeviceError(
                f"no GPU became free in {WAIT / 3600:.0f} hours: {'; '.join(holders)}; end what "
                f"need not run, or let Snakemake wait: --resources gpu={len(gpus)}"
            )
        if now >= told + TELL:
            logger.info("waiting for a GPU: %s", "; ".join(holders))
            told = now
        time.sleep(1)


def _lock_file(gpu: str) -> Path:
    return LOCKS / f"convergent-{gpu}.lock"


def _sign(file: int) -> None:
    """Write into the open lock file who holds it."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    os.truncate(file, 0)
    os.pwrite(file, f"process {os.getpid()} on {platform.node()} since {since}".encode(), 0)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory() -> int:
    """Bytes of memory that this process had at most so far."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux counts what the parent process had in ru_maxrss, too.
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status.read_text(encoding="utf-8"))[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def slow_products() -> str:
    """What is wrong where the environment slows NumPy's products, else nothing."""
    processor = os.environ.get("OPENBLAS_CORETYPE")
    if not processor:
        return ""
    return (
        f"OPENBLAS_CORETYPE={processor} is set: an older processor than there is halves the speed "
        "of products; unset it, unless machines of several kinds must agree to the last bit."
    )


def half_precision(device: str) -> torch.dtype | None:
    """The type of mixed precision on `device`: none on a CPU, bfloat16 where a GPU has it."""
    import torch

    if device == "cpu":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def compiled(net: nn.Module, device: str) -> nn.Module:
    """`net` compiled where there is a GPU, with the same parameters under other names.

    Fuses what surrounds convolutions, at the price of a minute when it first runs.
    """
    import torch

    if device == "cpu":
        return net
    # Without a C compiler the net runs as it is.
    torch._dynamo.config.suppress_errors = True
    # The last batch of an epoch gets code of its own; the others keep theirs for one size.
    return torch.compile(net, dynamic=False)


def exact() -> None:
    """Compute float32 products in float32 on a GPU from now on, as a CPU does.

    By default convolutions there round their inputs to TF32, which has float16's 10 bits.
    """
    import torch

    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
