"""Accuracy along the line between two nets whose units were brought into one order.

The weights between net a and net b are (1 - t) a + t P(b), where P permutes the units of b (Git
Re-Basin, Ainsworth et al. 2023). In between, units vary less than in either parent; repair gives
each unit the mean and deviation that lie between its parents' (REPAIR, Jordan et al. 2023).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from convergent import ConvergentError
from convergent.nets.evaluation import Answers, logits
from convergent.nets.places import places

State = Mapping[str, torch.Tensor]
HALVES = ("first", "last")
# Temperatures of the softmax to choose from. A step changes the least loss by a hundredth at most.
TEMPERATURES = 2.0 ** (np.arange(-20, 13) / 4)
PLAIN = int(np.flatnonzero(TEMPERATURES == 1)[0])
# Functions whose outputs are repaired, and the number of axes of the output after its units.
MAPS: dict[Callable, int] = {
    functional.linear: 0,
    functional.conv1d: 1,
    functional.conv2d: 2,
    functional.conv3d: 3,
    functional.conv_transpose1d: 1,
    functional.conv_transpose2d: 2,
    functional.conv_transpose3d: 3,
}


class MergeError(ConvergentError, ValueError):
    """Nets that cannot be averaged; the message says why."""


class Candidate(NamedTuple):
    """A net whose units were brought into the order of another's.

    Attributes
    ----------
    alignment : str
        What its partners were chosen by: none, correlation, mutual_information or weights.
    chosen : int or None
        Half of the images that chose them, 0 or 1; None if no images did.
    state : mapping of str to torch.Tensor
        Its state dict, permuted.
    """

    alignment: str
    chosen: int | None
    state: State


class Unit(NamedTuple):
    """Mean and deviation of each unit at the output of a convolution or linear map."""

    mean: torch.Tensor
    std: torch.Tensor

    @classmethod
    def of(cls, output: torch.Tensor, axis: int) -> Unit:
        """Measure the units of an output, which lie along an axis, over images and positions."""
        # Much faster than torch.var_mean. Less its first value, a unit that never varies is
        # exactly 0.
        lines = output.flatten(2) if axis < output.ndim - 1 else output.flatten(0, -2)[..., None]
        samples, first = lines.shape[0] * lines.shape[2], lines[:1, :, :1]
        shifted = lines - first
        mean = shifted.sum(2).double().sum(0) / samples
        shifted -= mean.to(shifted.dtype)[:, None]
        variance = shifted.square_().sum(2).double().sum(0) / samples
        return cls((mean + first.flatten()).to(output.dtype), variance.sqrt().to(output.dtype))

    def between(self, other: Unit, t: float) -> Unit:
        """Interpolate means and deviations."""
        return Unit(torch.lerp(self.mean, other.mean, t), torch.lerp(self.std, other.std, t))


class Affine(NamedTuple):
    """Factor and summand of each unit at the output of a convolution or linear map."""

    scale: torch.Tensor
    shift: torch.Tensor

    def of(self, output: torch.Tensor, axis: int) -> torch.Tensor:
        """Change an output whose units lie along an axis."""
        shape = [-1 if n == axis else 1 for n in range(output.ndim)]
        return torch.addcmul(self.shift.view(shape), output, self.scale.view(shape))


class _Maps(TorchFunctionMode):
    """Pass the outputs of convolutions and linear maps on, and replace them by what comes back.

    This sees modules and functions alike, in the order in which they run. What torch computes in
    one operation of its own, such as the maps inside of an attention, it does not see.
    """

    def __init__(self, change: Callable[[int, torch.Tensor, int], torch.Tensor]):
        super().__init__()
        self.change, self.count = change, 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        if function in MAPS:
            output = self.change(self.count, output, output.ndim - 1 - MAPS[function])
            self.count += 1
        return output


def check_same_graph(
    a: nn.Module, b: nn.Module, example: torch.Tensor, names: Sequence[str]
) -> None:
    """Check that two nets have the same operations and the same shapes of weights.

    Raises
    ------
    MergeError
        If they have not; the message names both nets and their first difference.
    """
    kinds = ["weights", "places"]
    shapes = [{k: tuple(v.shape) for k, v in net.state_dict().items()} for net in (a, b)]
    found = [
        {place.name: (place.kind, *place.shape) for place in places(net, example)} for net in (a, b)
    ]
    for kind, (of_a, of_b) in zip(kinds, [shapes, found], strict=True):
        for name in [*of_a, *of_b]:
            if of_a.get(name) != of_b.get(name):
                own = [
                    "none" if name not in of else " ".join(map(str, of[name]))
                    for of in (of_a, of_b)
                ]
                raise MergeError(
                    f"{names[0]} and {names[1]} cannot be merged, as they are different graphs: of "
                    f"their {kind}, {name} is {own[0]} in {names[0]} and {own[1]} in {names[1]}; "
                    "merge nets of one architecture and one width"
                )


def interpolate(net: nn.Module, a: State, b: State, t: float) -> None:
    """Set the weights and buffers of a net to (1 - t) a + t b, in place; whole numbers are a's."""
    for name, target in net.state_dict().items():
        if target.is_floating_point():
            torch.lerp(a[name], b[name], t, out=target)
        else:
            target.copy_(a[name])


def maps(net: nn.Module, example: torch.Tensor) -> list[str]:
    """Name convolutions and linear maps in the order in which they run, without that of the logits.

    A map that is a function has the name of the module that calls it. The last one to run gives
    the logits.
    """
    found = []

    def note(index: int, output: torch.Tensor, axis: int) -> torch.Tensor:
        found.append(inside[-1])
        return output

    with inside_modules(net) as inside:
        watched(net, example, note)
    return found[:-1]


@contextmanager
def inside_modules(net: nn.Module) -> Iterator[list[str]]:
    """Yield a list whose last entry is the path of the module that is running."""
    inside, hooks = [""], []
    for path, module in net.named_modules():
        if path:
            hooks += [module.register_forward_pre_hook(lambda *_, path=path: inside.append(path))]
            hooks += [module.register_forward_hook(lambda *_: _last_off(inside))]
    try:
        yield inside
    finally:
        for hook in hooks:
            hook.remove()


def watched(
    net: nn.Module,
    images: torch.Tensor,
    change: Callable[[int, torch.Tensor, int], torch.Tensor],
) -> torch.Tensor:
    """Run a net whose convolutions and linear maps are replaced by what `change` makes of them.

    Parameters
    ----------
    net : nn.Module
    images : torch.Tensor of shape (image, channel, y, x)
    change : callable
        Function of the number of the map, its output, and the axis of the units in it.
    """
    with torch.inference_mode(), _Maps(change):
        return net(images)


def units_of_maps(net: nn.Module, images: torch.Tensor, number: int) -> list[Unit]:
    """Measure each unit at the outputs of the first `number` convolutions and linear maps."""
    found: list[Unit] = []

    def measure(index: int, output: torch.Tensor, axis: int) -> torch.Tensor:
        if index < number:
            found.append(Unit.of(output, axis))
        return output

    watched(net, images, measure)
    return found


def affine_to(output: torch.Tensor, axis: int, goal: Unit) -> Affine:
    """Find what gives the units of an output the means and deviations of their goals."""
    now = Unit.of(output, axis)
    scale = torch.where(now.std > 0, goal.std / now.std, 1.0)
    return Affine(scale, goal.mean - scale * now.mean)


def repair(net: nn.Module, images: torch.Tensor, goals: Sequence[Unit]) -> list[Affine]:
    """Find what gives each unit the mean and deviation of its goal (REPAIR).

    Layers are measured in the order of the graph, each with all before it repaired. A unit that
    is the same for all images keeps its deviation of zero, at the mean of its goal.

    Parameters
    ----------
    net : nn.Module
    images : torch.Tensor of shape (image, channel, y, x)
        Training images.
    goals : sequence of Unit
        Goals of the convolutions and linear maps, in the order in which they run; any others are
        left as they are.
    """
    found: list[Affine] = []

    def change(index: int, output: torch.Tensor, axis: int) -> torch.Tensor:
        if index >= len(goals):
            return output
        found.append(affine_to(output, axis, goals[index]))
        return found[-1].of(output, axis)

    watched(net, images, change)
    return found


def repaired(net: nn.Module, images: torch.Tensor, affines: Sequence[Affine]) -> torch.Tensor:
    """Run a net with the affine maps that :func:`repair` has found."""

    def change(index: int, output: torch.Tensor, axis: int) -> torch.Tensor:
        return output if index >= len(affines) else affines[index].of(output, axis)

    return watched(net, images, change)


def batch_norms(net: nn.Module) -> list[_BatchNorm]:
    """List the batch normalisations of a net that keep statistics."""
    found = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    return [module for module in found if module.running_mean is not None]


def reset_batch_norm(net: nn.Module, images: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
    """Measure the statistics of all batch normalisations anew, each with all before it renewed.

    Returns
    -------
    list of (mean, variance)
        For :func:`with_statistics`; the net keeps its own.
    """
    norms = batch_norms(net)
    own = [(norm.running_mean.clone(), norm.running_var.clone(), norm.momentum) for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0  # the statistics of the one batch
    try:
        with torch.inference_mode():
            net(images)
        return [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
    finally:
        for norm, (mean, variance, momentum) in zip(norms, own, strict=True):
            norm.eval()
            norm.momentum = momentum
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)


@contextmanager
def with_statistics(net: nn.Module, statistics: Sequence[Sequence[torch.Tensor]]) -> Iterator[None]:
    """Give a net's batch normalisations other statistics while the block runs."""
    norms = batch_norms(net)
    own = [(norm.running_mean, norm.running_var) for norm in norms]
    try:
        for norm, (mean, variance) in zip(norms, statistics, strict=True):
            norm.running_mean, norm.running_var = mean, variance
        yield
    finally:
        for norm, (mean, variance) in zip(norms, own, strict=True):
            norm.running_mean, norm.running_var = mean, variance


class _Variant(NamedTuple):
    """A curve of the table, and the net that runs at the point in question."""

    alignment: str
    chosen: int | None
    repaired: bool
    batch_norm: str
    run: Callable[[torch.Tensor], torch.Tensor]


class _Tally:
    """Sums over the images of each half."""

    def __init__(self) -> None:
        shape = (2, len(TEMPERATURES))
        self.loss, self.square, self.even = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self.right, self.agreed, self.images = np.zeros(2), np.zeros(2), np.zeros(2, int)

    def add(self, halves: NDArray, scores: torch.Tensor, targets: _Targets) -> None:
        """Add images: logarithms of probabilities, of shape (temperature, image, label)."""
        losses, even = -(scores * targets.goal).sum(2).numpy(), -scores.mean(2).numpy()
        answers = scores[PLAIN].argmax(1)
        agreed = (answers == targets.parents).double().mean(0).numpy()
        right = (answers == targets.labels).numpy()
        for half in range(2):
            rows = halves == half
            self.loss[half] += losses[:, rows].sum(1)
            self.square[half] += (losses[:, rows] ** 2).sum(1)
            self.even[half] += even[:, rows].sum(1)
            self.right[half] += right[rows].sum()
            self.agreed[half] += agreed[rows].sum()
            self.images[half] += rows.sum()

    def temperature(self, half: int) -> int:
        """Choose the temperature of least loss, by its number.

        One more image counts, with every label equally, since a half whose images are all given
        the right answer would choose 0.
        """
        if not self.images[half]:
            return PLAIN
        return int((self.loss[half] + self.even[half] / self.images[half]).argmin())

    def rows(self, half: int, labelled: bool) -> Iterator[dict[str, Any]]:
        """Make rows of a half: as it is, and at the temperature that the other half chooses."""
        number = int(self.images[half])
        interval = (
            stats.binomtest(int(self.right[half]), number).proportion_ci(method="wilson")
            if labelled
            else (np.nan, np.nan)
        )
        for index in dict.fromkeys([PLAIN, self.temperature(1 - half)]):
            loss = self.loss[half, index] / number
            variance = max(self.square[half, index] / number - loss**2, 0)
            yield {
                "temperature": TEMPERATURES[index],
                "half": HALVES[half],
                "loss": loss,
                "top1": self.right[half] / number if labelled else np.nan,
                "low": interval[0],
                "high": interval[1],
                "loss_standard_error": np.sqrt(variance / number),
                "agreement": self.agreed[half] / number,
                "n_images": number,
            }


class _Targets(NamedTuple):
    """What a batch of images is scored by.

    Attributes
    ----------
    goal : torch.Tensor of shape (image, label)
        Probabilities that cross-entropy is measured against.
    labels : torch.Tensor of shape (image,)
        Numbers among the labels that the net can give; -1 without labels.
    parents : torch.Tensor of shape (parent, image)
        Answers of the two nets.
    """

    goal: torch.Tensor
    labels: torch.Tensor
    parents: torch.Tensor


def merge_table(
    a: nn.Module,
    b: nn.Module,
    candidates: Sequence[Candidate],
    batches: Callable[[], Iterable[tuple[torch.Tensor, torch.Tensor]]],
    half: int,
    measured: Sequence[torch.Tensor],
    points: Sequence[float],
    *,
    classes: Sequence[int | None] | None = None,
    number: int | None = None,
    watch: Callable[[Iterable], Iterable] = iter,
) -> pd.DataFrame:
    """Score all nets between two nets, with one pass over the images for each point.

    Parameters
    ----------
    a, b : nn.Module
        Nets of the same graph, in evaluation mode and on one device.
    candidates : sequence of Candidate
        Weights of b, permuted. One that was chosen on a half of the images is scored on the other.
    batches : callable
        Function that yields (images, labels), in the order of the run and on the nets' device;
        labels are -1 where there are none.
    half : int
        Number of images in the first half.
    measured : sequence of torch.Tensor
        Images that repair and reset are measured on. Several are those for candidates that were
        chosen on the first half and on the last; a single one is for all.
    points : sequence of float
        Points t; 0 is net a, and 1 is net b.
    classes, number
        See :func:`convergent.nets.evaluation.evaluate`. Images whose label no output has do not
        count.
    watch : callable
        Wrapper of the points that reports progress.

    Returns
    -------
    DataFrame
        Columns t, alignment, repaired, batch_norm (kept, reset), temperature, half (the one whose
        images are scored), loss, top1, low, high (95%, Wilson), loss_standard_error, agreement,
        n_images. Each net has a row at temperature 1, and one at the temperature that the other
        half chooses, unless it is 1. The alignment ``ensemble`` is the mixture (1 - t) p_a + t p_b
        of the nets' probabilities. `agreement` is the mean share of images that are given the
        answer of a, and of b. Without labels, `top1` is empty and `loss` is the cross-entropy
        with the mean of the nets' probabilities.
    """
    norms = bool(batch_norms(a))
    states = a.state_dict()
    merged = [copy.deepcopy(a) for _ in candidates]
    by_half = measured if len(measured) > 1 else [measured[0]] * 2
    count = len(maps(a, measured[0][:1]))
    goals = []
    for candidate in candidates:
        images = by_half[candidate.chosen or 0]
        interpolate(merged[0], states, candidate.state, 1.0)
        goals.append([units_of_maps(net, images, count) for net in (a, merged[0])])
    with torch.inference_mode():
        outputs = [(logits(a(x)).cpu(), logits(b(x)).cpu(), labels) for x, labels in batches()]
    answers = Answers.of(outputs[0][0].shape[1], classes, number)
    kept, known = _targets(outputs, answers)
    labelled = bool((known[0].labels >= 0).all())
    rows: list[dict[str, Any]] = []
    for t in watch(points):
        variants: list[_Variant] = []
        for candidate, net, ends in zip(candidates, merged, goals, strict=True):
            interpolate(net, states, candidate.state, t)
            images, own = by_half[candidate.chosen or 0], candidate[:2]
            between = [x.between(y, t) for x, y in zip(*ends, strict=True)]
            # The parents have what they would be given.
            affines = repair(net, images, between) if 0 < t < 1 else []
            variants.append(_Variant(*own, False, "kept", net))
            variants.append(_Variant(*own, True, "kept", _repairing(net, affines)))
            if norms:
                renewed = reset_batch_norm(net, images)
                variants.append(_Variant(*own, False, "reset", _renewing(net, renewed)))
        tallies = [_Tally() for _ in [*variants, "ensemble"]]
        start = 0
        for (images, labels), (of_a, of_b, _), counted, targets in zip(
            batches(), outputs, kept, known, strict=True
        ):
            halves = (np.arange(start, start + len(labels)) >= half).astype(int)[counted.numpy()]
            start += len(labels)
            for variant, tally in zip(variants, tallies, strict=False):
                with torch.inference_mode():
                    output = logits(variant.run(images)).cpu()
                _check_finite(output, variant.alignment, t)
                tally.add(halves, _scores(output[counted], answers), targets)
            scores = _mixed(_scores(of_a[counted], answers), _scores(of_b[counted], answers), t)
            tallies[-1].add(halves, scores, targets)
        curves = [variant[:4] for variant in variants] + [("ensemble", None, False, "kept")]
        for (alignment, chosen, mended, norm), tally in zip(curves, tallies, strict=True):
            for scored in range(2) if chosen is None else [1 - chosen]:
                found = tally.rows(scored, labelled) if tally.images[scored] else ()
                key = {"t": t, "alignment": alignment, "repaired": mended, "batch_norm": norm}
                rows += [{**key, **row} for row in found]
    return pd.DataFrame(rows)


def _last_off(inside: list[str]) -> None:
    """Leave a module; what a hook returned would replace the module's output."""
    inside.pop()


def _repairing(net: nn.Module, affines: Sequence[Affine]) -> Callable:
    return lambda images: repaired(net, images, affines)


def _renewing(net: nn.Module, statistics: Sequence[Sequence[torch.Tensor]]) -> Callable:
    def run(images: torch.Tensor) -> torch.Tensor:
        with with_statistics(net, statistics):
            return net(images)

    return run


def _targets(
    outputs: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]], answers: Answers
) -> tuple[list[torch.Tensor], list[_Targets]]:
    """Tell which images of each batch count, and what these are scored by."""
    labelled = any((labels >= 0).any() for *_, labels in outputs)
    kept, known = [], []
    for of_a, of_b, labels in outputs:
        matches = labels.cpu()[:, None] == answers.labels
        counted = matches.any(1) if labelled else torch.ones(len(labels), dtype=torch.bool)
        both = [answers.scores(output[counted]) for output in (of_a, of_b)]
        parents = torch.stack([scores.argmax(1) for scores in both])
        if labelled:
            goal = matches[counted].double()
            numbers = goal.argmax(1)
        else:
            goal = (both[0].exp() + both[1].exp()) / 2
            numbers = torch.full((len(goal),), -1)
        kept.append(counted)
        known.append(_Targets(goal, numbers, parents))
    if not any(counted.any() for counted in kept):
        raise MergeError("no image has a label that the nets can give; check `classes`")
    return kept, known


def _scores(output: torch.Tensor, answers: Answers) -> torch.Tensor:
    """Return logarithms of probabilities (temperature, image, label) at all temperatures."""
    temperatures = torch.as_tensor(TEMPERATURES, dtype=output.dtype)
    scaled = output[None] / temperatures[:, None, None]
    scores = answers.scores(scaled.flatten(0, 1))
    return scores.view(len(temperatures), len(output), -1)


def _mixed(scores_a: torch.Tensor, scores_b: torch.Tensor, t: float) -> torch.Tensor:
    """Mix probabilities, which are given by their logarithms."""
    if t in (0, 1):
        return scores_b if t else scores_a
    return torch.logaddexp(scores_a + np.log1p(-t), scores_b + np.log(t))


def _check_finite(output: torch.Tensor, alignment: str, t: float) -> None:
    if not output.isfinite().all():
        raise MergeError(
            f"the outputs at t = {t:g} of the nets merged by {alignment} are NaN or infinite"
        )
