"""How well a net, trained here or brought along, classifies the validation images of the run."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from scipy import stats
from torch import nn

from convergent import ConvergentError
from convergent.nets.datasets import Images, normalize
from convergent.nets.models import evaluating
from convergent.running.progress import progress

logger = logging.getLogger(__name__)

# Probability that luck alone puts a net above chance.
LUCK = 0.001
# Untrained nets, too, may be right more often than by luck, as they give similar images the same
# answer: ResNet-20s with random weights reached 4 to 12% on the 10 classes of CIFAR-10. So chance
# plus a half of it counts as chance, or a tenth of the way from chance to 100% if that is less.
UNTRAINED, WAY = 1.5, 0.1


class EvaluationError(ConvergentError, ValueError):
    """A net whose outputs cannot be compared with the classes of the images."""


class OutputsError(EvaluationError):
    """A net with another number of outputs than there are labels."""


class Evaluation(NamedTuple):
    """How well a net classifies images; all but `images` are None if there was nothing to classify.

    Attributes
    ----------
    images : int
        Images that count, those with a label that the net can give; all images if none has one.
    loss : float or None
        Mean cross-entropy, in nats.
    top1, top5 : float or None
        Shares of images whose label is the net's first answer, or among its first five (or all, if
        there are fewer).
    chance : float or None
        Share of the most frequent label: the accuracy of a net that always gives this answer.
    at_chance : bool or None
        Whether an untrained net could have this `top1`, by :func:`at_chance`.
    """

    images: int
    loss: float | None = None
    top1: float | None = None
    top5: float | None = None
    chance: float | None = None
    at_chance: bool | None = None


class Answers(NamedTuple):
    """Which outputs of a net mean which labels.

    Attributes
    ----------
    outputs : list of int
        Those that mean a label, in the labels' order.
    labels : tensor of int64, shape (label,)
        The labels, ascending.
    sizes : list of int
        Outputs of each label.
    """

    outputs: list[int]
    labels: torch.Tensor
    sizes: list[int]

    @classmethod
    def of(cls, outputs: int, classes: Sequence[int | None] | None, number: int | None) -> Answers:
        """Read which outputs of a net mean which labels; see :func:`evaluate`."""
        if classes is None:
            if number is not None and outputs != number:
                raise OutputsError(
                    f"the net has {outputs} outputs and the images have {number} classes: give "
                    "`classes`, a list with the label (from 0, as in images.csv) of each output, "
                    "or -1 where it is none of them; or `classes: []` to measure no accuracy"
                )
            classes = range(outputs)
        if len(classes) != outputs:
            raise EvaluationError(
                f"classes: has {len(classes)} entries and the net {outputs} outputs; give one each"
            )
        known = sorted((label, i) for i, label in enumerate(classes) if label not in (None, -1))
        wrong = [label for label, _ in known if label < 0 or label >= (number or label + 1)]
        if wrong or not known:
            what = f"{wrong[0]} is no label" if wrong else "no output has a label"
            raise EvaluationError(f"classes: {what}; labels are 0 to {(number or outputs) - 1}")
        means = torch.tensor([label for label, _ in known])
        labels, sizes = means.unique_consecutive(return_counts=True)
        return cls([i for _, i in known], labels, sizes.tolist())

    def scores(self, output: torch.Tensor) -> torch.Tensor:
        """Return logarithms of the labels' probabilities (image, label), which add up to 1."""
        log = output[:, self.outputs].double().log_softmax(1).cpu()
        if len(self.outputs) == len(self.labels):
            return log
        return torch.stack([part.logsumexp(1) for part in log.split(self.sizes, 1)], 1)


class Tally:
    """Running sums of how well a net's outputs classify images; see :func:`evaluate`.

    Parameters
    ----------
    classes, number
        Arguments of :func:`evaluate`.
    """

    def __init__(self, classes: Sequence[int | None] | None = None, number: int | None = None):
        self.classes, self.number = classes, number
        self.sums = torch.zeros(3, dtype=torch.float64)
        self.counts = torch.zeros(0, dtype=torch.int64)
        self.answers: Answers | None = None
        self.images = 0

    def scores(self, output: Any) -> torch.Tensor:
        """Return logarithms of the labels' probabilities (image, label), on the CPU, in float64.

        Parameters
        ----------
        output
            What the net returned for a batch.

        Raises
        ------
        EvaluationError
            As :func:`evaluate`.
        """
        output = logits(output)
        if not output.isfinite().all():
            raise EvaluationError(
                "the net's outputs are NaN or infinite; its weights may be damaged"
            )
        self.answers = self.answers or Answers.of(output.shape[1], self.classes, self.number)
        return self.answers.scores(output)

    def add(self, output: Any, labels: torch.Tensor) -> None:
        """Count a batch: the net's output and the labels (image,), -1 where there is none."""
        self.add_scores(self.scores(output), labels)

    def add_scores(self, scores: torch.Tensor, labels: torch.Tensor) -> None:
        """Count a batch: logarithms of probabilities as :meth:`scores` returns them, and labels."""
        known = torch.arange(scores.shape[1]) if self.answers is None else self.answers.labels
        matches = labels.cpu()[:, None] == known
        self.images += len(labels)
        kept = matches.any(1)
        scores, matches = scores[kept], matches[kept]
        target = matches.to(torch.uint8).argmax(1)
        hits = scores.topk(min(5, scores.shape[1])).indices == target[:, None]
        loss = -scores[torch.arange(len(target)), target].sum()
        self.sums += torch.stack([loss, hits[:, 0].sum(), hits.sum()])
        new = target.bincount(minlength=len(known))
        self.counts = self.counts + new if len(self.counts) else new

    def evaluation(self) -> Evaluation:
        """Return what was counted so far."""
        counted = int(self.counts.sum())
        if not counted:
            return Evaluation(self.images)
        loss, top1, top5 = (self.sums / counted).tolist()
        chance = int(self.counts.max()) / counted
        at = at_chance(round(top1 * counted), counted, chance)
        return Evaluation(counted, loss, top1, top5, chance, at)


def evaluate(
    net: nn.Module,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    classes: Sequence[int | None] | None = None,
    *,
    number: int | None = None,
    device: str = "cpu",
) -> Evaluation:
    """Measure loss and accuracy of a net, in its own precision.

    Parameters
    ----------
    net : nn.Module
        Net whose output is (image, class), before a softmax. Of several outputs the first tensor
        counts, or the one that is named ``logits``.
    batches : iterable of (tensor, tensor)
        Images (image, channel, y, x) as the net takes them, and labels (image,), int64. Images with
        the label -1 have none, and do not count.
    classes : sequence of int or None, optional
        Label for each output of the net; -1 or None for outputs that are no class of the images,
        which are left out. The probabilities of outputs with the same label add up. Images whose
        label no output has do not count. By default the outputs are the labels, in order.
    number : int, optional
        Number of labels in the data; without `classes` the net must have as many outputs.
    device : {"cpu", "cuda"}

    Raises
    ------
    EvaluationError
        If the outputs are not (image, class), not finite, or not as many as the labels or as
        `classes`.
    """
    types = [p.dtype for p in net.parameters() if p.is_floating_point()] or [torch.float32]
    tally = Tally(classes, number)
    with evaluating(net, device), torch.inference_mode():
        for views, labels in batches:
            tally.add(net(views.to(device, types[0])), labels)
    return tally.evaluation()


def evaluate_images(
    name: str,
    net: nn.Module,
    images: Images,
    data: Mapping[str, Any],
    classes: Sequence[int | None] | None = None,
    *,
    number: int,
    untrained: bool = False,
    batch_size: int,
    workers: int = 0,
    device: str = "cpu",
) -> Evaluation:
    """Evaluate a net on images of the run, and warn if it is at chance.

    Nothing is measured where there are no labels, `classes` is empty, or the net is untrained and
    has not an output for each label.

    Parameters
    ----------
    name : str
        Name of the net, for messages.
    net : nn.Module
    images : Images
    data : mapping
        The net's section ``data``, of which ``mean`` and ``std`` count.
    classes, number, device
        Arguments of :func:`evaluate`.
    untrained : bool
        Whether the net is meant to be untrained, and so may be at chance.
    batch_size, workers : int
        Arguments of :meth:`convergent.nets.datasets.Images.loader`.
    """
    if (images.labels < 0).all() or (classes is not None and not len(classes)):
        return Evaluation(len(images))

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        mean, std = (torch.tensor(data[key], device=device) for key in ("mean", "std"))
        for views, labels in images.loader(batch_size, workers=workers, pin=device == "cuda"):
            yield normalize(views.to(device, non_blocking=True), mean, std), labels

    shown = progress(batches(), name, "image", lambda batch: len(batch[1]), len(images))
    try:
        evaluation = evaluate(net, shown, classes, number=number, device=device)
    except OutputsError as error:
        if untrained and classes is None:
            logger.info("%s: no accuracy is measured: %s", name, error)
            return Evaluation(len(images))
        raise OutputsError(f"{name}: {error}") from error
    except EvaluationError as error:
        raise EvaluationError(f"{name}: {error}") from error
    if evaluation.at_chance and not untrained:
        logger.warning(
            "%s: top-1 is %.1f%%, and chance is %.1f%%. Check its weights, its normalisation "
            "(data.mean, data.std) and the order of its classes",
            *(name, 100 * evaluation.top1, 100 * evaluation.chance),  # type: ignore[operator]
        )
    return evaluation


def at_chance(right: int, images: int, chance: float) -> bool:
    """Return whether an untrained net could be right as often, by a binomial test.

    Parameters
    ----------
    right, images : int
        Right answers, and all answers.
    chance : float
        Share of right answers of a net that always gives the same answer.
    """
    untrained = min(UNTRAINED * chance, chance + WAY * (1 - chance))
    return bool(stats.binom.sf(right - 1, images, untrained) > LUCK)


def logits(output: Any) -> torch.Tensor:
    """Return the scores of the classes (image, class) among the outputs of a net.

    Raises
    ------
    EvaluationError
        If there are none.
    """
    if isinstance(output, Mapping):
        output = output["logits"] if "logits" in output else list(output.values())
    if isinstance(output, list | tuple):
        output = next((part for part in output if isinstance(part, torch.Tensor)), output)
    if not isinstance(output, torch.Tensor) or output.ndim != 2:
        what = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise EvaluationError(
            f"the net's output is {what}, not (image, class): give `classes: []` to measure no "
            "accuracy"
        )
    return output
