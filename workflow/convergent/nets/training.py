"""Training one net from one seed (section 2 of the paper)."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from convergent import ConvergentError
from convergent.nets.datasets import Images, normalize
from convergent.nets.recipe import snapshot_file
from convergent.running.devices import compiled, half_precision
from convergent.running.files import writing
from convergent.running.progress import bar, time_left

logger = logging.getLogger(__name__)


class TrainingError(ConvergentError, RuntimeError):
    """A training that cannot go on: its loss is not a number, or its checkpoint is unreadable."""


def train(
    build: Callable[[], nn.Module],
    training: Images,
    validation: Images,
    *,
    seed: int,
    mean: Sequence[float],
    std: Sequence[float],
    epochs: int,
    batch_size: int,
    optimizer: str,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
    schedule: str,
    step_epochs: int | Sequence[int],
    gamma: float,
    compile: bool = False,
    workers: int = 0,
    device: str = "cpu",
    checkpoint: str | Path | None = None,
    name: str = "net",
    snapshots: Sequence[float] = (),
    keep: Callable[[float, dict[str, torch.Tensor]], None] | None = None,
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """Train a net; the same seed gives the same weights, bit for bit on the CPU.

    Every random choice of an epoch (order, views, dropout) follows from the seed and the
    epoch, so a run that resumes from its checkpoint ends like one that was never stopped.
    The number of workers has no effect on the result.

    Parameters
    ----------
    build : callable
        Function that makes the untrained net with torch's global generator.
    training, validation : Images
        Training views and validation views.
    seed : int
        Seed of the initial weights and of all later random choices.
    mean, std : sequence of float
        Arguments of :func:`convergent.nets.datasets.normalize`.
    optimizer : {"sgd", "adamw"}
        Optimizer; only sgd uses `momentum`.
    schedule : {"step", "onecycle", "constant"}
        Schedule of the rate: multiplied by `gamma` every `step_epochs` (or after each of these
        epochs, if there are several), one cycle that peaks at `learning_rate`, or constant.
    compile : bool
        Compilation of the net on a GPU.
    workers : int
        Processes that decode image files.
    device : {"cpu", "cuda"}
        Device to train on; a GPU computes in mixed precision.
    checkpoint : path, optional
        File for the state after each epoch; if it exists, training resumes from it.
    name : str
        Name of the net in messages.
    snapshots : sequence of float
        Epochs after which `keep` is called, with fractions of an epoch rounded to whole steps, but
        to one step at least; 0 is the untrained net. They change no weights. If the checkpoint is
        beyond one of them, the net is trained from the start, so leave out those that are kept.
    keep : callable, optional
        Function of an epoch of `snapshots` and the state dict at that moment, on the CPU.

    Returns
    -------
    weights : dict
        State dict on the CPU.
    history : list of dict
        One row per epoch: epoch, learning_rate, train_loss, train_top1, val_loss, val_top1,
        val_top5, seconds.

    Raises
    ------
    TrainingError
        If the loss becomes NaN or infinite (the checkpoint stays at the epoch before), or the
        checkpoint cannot be read.
    """
    torch.use_deterministic_algorithms(device == "cpu")
    torch.backends.cudnn.benchmark = device == "cuda"
    net = _seeded(build, seed).to(device, memory_format=torch.channels_last)
    optimize = _optimizer(net, optimizer, learning_rate, momentum, weight_decay)
    steps = math.ceil(len(training) / batch_size)
    scheduler = _scheduler(optimize, schedule, learning_rate, epochs, steps, step_epochs, gamma)
    half = half_precision(device)
    scaler = torch.amp.GradScaler(device, enabled=half is torch.float16)
    parts = {"net": net, "optimizer": optimize, "scheduler": scheduler, "scaler": scaler}
    history: list[dict[str, Any]] = []
    due = {epoch: _step(epoch, steps) for epoch in snapshots if keep is not None}

    def keep_due(step: int) -> None:
        for epoch in [epoch for epoch, last in due.items() if last == step]:
            keep(epoch, _copied(net))  # type: ignore[misc]  # nothing is due without it

    keep_due(0)
    if checkpoint is not None and Path(checkpoint).exists():
        try:
            state = torch.load(checkpoint, map_location="cpu", weights_only=True)
            done = len(state["history"])
            passed = [epoch for epoch, last in due.items() if 0 < last < done * steps]
            if not passed:
                for part, module in parts.items():
                    module.load_state_dict(state[part])
                history = state["history"]
        except Exception as error:
            raise TrainingError(
                f"{checkpoint}: cannot be resumed from ({error}); try again if memory or the disk "
                f"failed. If it is damaged, move it away, and {name} is trained from the start"
            ) from error
        if passed:
            logger.info(
                "%s: trained anew, to the same weights, because its checkpoint after epoch %d is "
                "beyond epoch %g, a snapshot that is not there",
                *(name, done, min(passed)),
            )
        else:
            logger.info("%s: resumed after epoch %d of %d", name, done, epochs)
            keep_due(done * steps)

    forward = compiled(net, device) if compile else net  # the checkpoint keeps the names of `net`
    center, scale = (torch.tensor(values, device=device) for values in (mean, std))

    def batches(images: Images, **options):
        pin = device == "cuda"
        for views, labels in images.loader(batch_size, workers=workers, pin=pin, **options):
            views = normalize(views.to(device, non_blocking=True), center, scale)
            yield (
                views.contiguous(memory_format=torch.channels_last),
                labels.to(device, non_blocking=True),
            )

    resumed, began = len(history), time.perf_counter()
    with bar(name, "batch", epochs * steps, resumed * steps) as shown:
        for epoch in range(len(history), epochs):
            start = time.perf_counter()
            torch.manual_seed(_mixed(seed, epoch))
            training.draw(_mixed(seed, epoch))
            net.train()
            total = torch.zeros(2, device=device)
            rate = optimize.param_groups[0]["lr"]
            for step, (views, labels) in enumerate(batches(training, shuffle=True), 1):
                with torch.autocast(device, half or torch.float32, enabled=half is not None):
                    output = forward(views)
                loss = functional.cross_entropy(output.float(), labels)
                optimize.zero_grad(set_to_none=True)
                scaler.scale(loss).backward()
                scaler.step(optimize)
                scaler.update()
                scheduler.step()
                hits = (output.detach().argmax(1) == labels).sum()
                total += torch.stack([loss.detach() * len(labels), hits])
                if step % 50 == 0 or step == steps:
                    seen = min(step * batch_size, len(training))
                    loss_, top1 = (total / seen).tolist()
                    if not math.isfinite(loss_):
                        raise _died(name, f"loss is {loss_} in epoch {epoch + 1}", rate)
                    shown.set_postfix(epoch=epoch + 1, loss=f"{loss_:.3f}", top1=f"{top1:.1%}")
                keep_due(epoch * steps + step)
                shown.update()
            train_loss, train_top1 = (total / len(training)).tolist()
            val_loss, val_top1, val_top5 = _evaluate(forward, batches(validation), half, device)
            if not math.isfinite(val_loss):
                raise _died(name, f"validation loss is {val_loss} after epoch {epoch + 1}", rate)
            history.append(
                {
                    "epoch": epoch + 1,
                    "learning_rate": rate,
                    "train_loss": train_loss,
                    "train_top1": train_top1,
                    "val_loss": val_loss,
                    "val_top1": val_top1,
                    "val_top5": val_top5,
                    "seconds": round(time.perf_counter() - start, 3),
                }
            )
            spent = time.perf_counter() - began
            logger.info(
                "%s: epoch %d/%d  rate %.2g  loss %.4f  top-1 %.4f  validation %.4f  %.4f  %s left",
                *(name, epoch + 1, epochs, rate, train_loss, train_top1, val_loss, val_top1),
                time_left(spent, epoch + 1 - resumed, epochs - resumed),
            )
            if checkpoint is not None:
                state = {part: module.state_dict() for part, module in parts.items()}
                with writing(checkpoint) as path, open(path, "wb") as file:
                    torch.save({**state, "history": history}, file)
    return _copied(net), history


def untrained(build: Callable[[], nn.Module], seed: int) -> dict[str, torch.Tensor]:
    """Return the state dict of a net before its first step, exactly that with which it is trained.

    Parameters
    ----------
    build : callable
        Function that makes the untrained net with torch's global generator.
    seed : int
        Seed that :func:`train` would be given.
    """
    return _copied(_seeded(build, seed))


def untrained_net(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Make a net as it is before its first step.

    Parameters
    ----------
    build, seed
        See :func:`untrained`.
    """
    return _seeded(build, seed)


def find_snapshot(folder: str | Path, epoch: float) -> Path:
    """Find the weights that a training kept after an epoch.

    Parameters
    ----------
    folder : path
        Folder of files that :func:`convergent.nets.recipe.snapshot_file` names.
    epoch : float

    Raises
    ------
    TrainingError
        If there are none; the message lists the epochs that are kept.
    """
    path = Path(folder) / snapshot_file(epoch)
    if not path.is_file():
        kept = sorted((float(file.stem), file.stem) for file in Path(folder).glob("[0-9]*.pt"))
        raise TrainingError(
            f"{path}: no weights are kept after epoch {path.stem}, only after "
            f"{', '.join(stem for _, stem in kept) or 'none'}; add it to training.snapshots"
        )
    return path


def _seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build()


def _copied(net: nn.Module) -> dict[str, torch.Tensor]:
    """Copy a net's state to the CPU, where it does not change with the net."""
    return {
        key: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for key, value in net.state_dict().items()
    }


def _step(epoch: float, steps: int) -> int:
    """Return the step after which a net has been trained for some epochs of `steps` each."""
    return max(1, round(epoch * steps)) if epoch else 0


def _optimizer(net, name, learning_rate, momentum, weight_decay) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(
            net.parameters(), learning_rate, momentum=momentum, weight_decay=weight_decay
        )
    if name == "adamw":
        return torch.optim.AdamW(net.parameters(), learning_rate, weight_decay=weight_decay)
    raise ValueError(f"optimizer {name!r} is none of sgd, adamw")


def _scheduler(optimizer, name, learning_rate, epochs, steps, step_epochs, gamma):
    """Make a schedule that advances once per batch."""
    rates = torch.optim.lr_scheduler
    if name == "step" and isinstance(step_epochs, Sequence):
        return rates.MultiStepLR(optimizer, [epoch * steps for epoch in step_epochs], gamma)
    if name == "step":
        return rates.StepLR(optimizer, step_epochs * steps, gamma)
    if name == "onecycle":
        # Adam's beta goes round with the rate; SGD keeps the momentum of the configuration.
        cycle = "betas" in optimizer.defaults
        return rates.OneCycleLR(
            optimizer, learning_rate, epochs=epochs, steps_per_epoch=steps, cycle_momentum=cycle
        )
    if name == "constant":
        return rates.ConstantLR(optimizer, 1.0)
    raise ValueError(f"schedule {name!r} is none of step, onecycle, constant")


def _mixed(seed: int, epoch: int) -> int:
    """Make a seed for one epoch of one net: 32 bits, as torch's CPU generator takes no more."""
    return int(np.random.SeedSequence([seed, epoch + 1]).generate_state(1)[0])


def _died(name: str, what: str, rate: float) -> TrainingError:
    return TrainingError(
        f"{name}: the {what}, so the net has died. Lower training.learning_rate (it was {rate:g})"
    )


@torch.inference_mode()
def _evaluate(net: nn.Module, batches, half: torch.dtype | None, device: str) -> list[float]:
    """Compute mean loss, top-1 and top-5 accuracy (over all classes if there are fewer)."""
    net.eval()
    total = torch.zeros(3, device=device)
    count = 0
    for views, labels in batches:
        with torch.autocast(device, half or torch.float32, enabled=half is not None):
            output = net(views).float()
        loss = functional.cross_entropy(output, labels, reduction="sum")
        hits = output.topk(min(5, output.shape[1])).indices == labels[:, None]
        total += torch.stack([loss, hits[:, 0].sum(), hits.sum()])
        count += len(labels)
    return (total / count).tolist()
