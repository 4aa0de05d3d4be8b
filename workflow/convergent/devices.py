"""Where jobs compute, and nets in what precision: chosen here for all of them."""

from __future__ import annotations

import errno
import logging
import os
import re
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from convergent import ConvergentError

if TYPE_CHECKING:
    import torch
    from torch import nn

logger = logging.getLogger(__name__)

# Held until the process ends.
_claims: list[socket.socket] = []


class DeviceError(ConvergentError, ValueError):
    """A device that is asked for and not there."""


def choose_device(wanted: str = "auto") -> str:
    """The device to compute on, logged: ``cuda`` where there is one, unless `wanted` says.

    Of several GPUs this process sees one from now on, which no other job has. A machine without
    a GPU is spared the import of torch, which takes seconds and which not every job needs.

    Raises
    ------
    DeviceError
        If ``cuda`` is wanted and there is none.
    """
    gpus = {} if wanted == "cpu" else visible_gpus()
    if wanted == "cpu" or (wanted == "auto" and not gpus and not Path("/dev/dxg").exists()):
        logger.info("device: cpu")
        return "cpu"
    if gpus and not _claims:
        os.environ["CUDA_VISIBLE_DEVICES"] = claim(gpus)
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    import torch

    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise DeviceError("device: cuda is asked for, and torch sees no CUDA device; use auto")
    device = "cuda" if available else "cpu"
    logger.info("device: %s", torch.cuda.get_device_name() if available else device)
    return device


def visible_gpus() -> dict[str, str]:
    """GPUs that this process may use: the name that all jobs of the machine know, and CUDA's.

    Those of ``CUDA_VISIBLE_DEVICES`` where it is set, else all that have a driver's file.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return {name: name for name in chosen.replace(" ", "").split(",") if name}
    files = Path("/dev").glob("nvidia[0-9]*")
    numbers = sorted(int(file.name.removeprefix("nvidia")) for file in files)
    return {str(number): str(index) for index, number in enumerate(numbers)}


def claim(gpus: dict[str, str]) -> str:
    """Keep one of `gpus` for this process until it ends, however it ends; wait while all are kept.

    Snakemake counts GPUs and assigns none. An address in Linux's abstract namespace belongs to
    one process at a time and goes with it, so that nothing is left behind to clean up. Within
    an allocation of Slurm, where the same name may mean another GPU, so does the address.

    Parameters
    ----------
    gpus : dict
        As :func:`visible_gpus` has them.

    Returns
    -------
    str
        CUDA's name of the GPU.
    """
    allocation = os.environ.get("SLURM_JOB_ID", "")
    waited = False
    while True:
        for name, device in gpus.items():
            if _binds(f"\0convergent-gpu-{allocation}-{name}"):
                logger.info("GPU %s of %s", name, ", ".join(gpus))
                return device
        if not waited:
            logger.info("waiting for one of the GPUs %s: all are taken", ", ".join(gpus))
            waited = True
        time.sleep(1)


def _binds(address: str) -> bool:
    """Whether `address` was free; from now on it belongs to this process."""
    claimed = socket.socket(socket.AF_UNIX)
    try:
        claimed.bind(address)
    except OSError as error:
        claimed.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    _claims.append(claimed)
    return True


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
