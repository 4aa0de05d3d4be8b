"""Where jobs compute, and nets in what precision: chosen here for all of them."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from convergent import ConvergentError

if TYPE_CHECKING:
    import torch
    from torch import nn

logger = logging.getLogger(__name__)


class DeviceError(ConvergentError, ValueError):
    """A device that is asked for and not there."""


def choose_device(wanted: str = "auto") -> str:
    """The device to compute on, logged: ``cuda`` where there is one, unless `wanted` says.

    A machine without a GPU is spared the import of torch, which takes seconds and which not
    every job needs.

    Raises
    ------
    DeviceError
        If ``cuda`` is wanted and there is none.
    """
    if wanted == "cpu" or (wanted == "auto" and not _has_gpu()):
        logger.info("device: cpu")
        return "cpu"
    import torch

    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise DeviceError("device: cuda is asked for, and torch sees no CUDA device; use auto")
    device = "cuda" if available else "cpu"
    logger.info("device: %s", torch.cuda.get_device_name() if available else device)
    return device


def _has_gpu() -> bool:
    """Whether there may be a CUDA device, by the files of its driver."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
