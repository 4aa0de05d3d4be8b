"""Accuracy of nets on the validation images, against plain sums and planted answers."""

import logging

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import log_loss, top_k_accuracy_score
from torch import nn

from convergent.nets import datasets, evaluation, training


class Given(nn.Module):
    """Outputs for images of one pixel, which is the number of the row."""

    def __init__(self, outputs, wrap=lambda x: x):
        super().__init__()
        self.outputs, self.wrap = nn.Parameter(outputs), wrap
        self.bn = nn.BatchNorm1d(outputs.shape[1])

    def forward(self, x):
        # Changes the outputs in training mode only.
        scores = self.outputs[x.flatten().long()]
        return self.wrap(self.bn(scores) if self.training else scores)


def batches(labels, size=7):
    images = torch.arange(len(labels), dtype=torch.float32).view(-1, 1, 1, 1)
    return list(zip(images.split(size), torch.as_tensor(labels).split(size), strict=True))


@pytest.fixture
def outputs():
    torch.manual_seed(0)
    return 4 * torch.randn(60, 12)


@pytest.fixture
def labels():
    return np.random.default_rng(0).integers(12, size=60)


def test_loss_and_accuracies_are_scikit_learn_s(outputs, labels):
    net = Given(outputs)
    found = evaluation.evaluate(net, batches(labels), number=12)
    shares = outputs.double().softmax(1).numpy()
    every = np.arange(12)
    assert found.images == 60
    assert found.loss == pytest.approx(log_loss(labels, shares, labels=every), rel=1e-12)
    for k, value in ((1, found.top1), (5, found.top5)):
        assert value == top_k_accuracy_score(labels, shares, k=k, labels=every)
    assert found.chance == np.bincount(labels).max() / 60
    assert net.training


def test_it_agrees_with_the_history_of_a_training(small_net):
    torch.manual_seed(1)
    given = [(torch.rand(20, 1, 16, 16), torch.randint(3, (20,))) for _ in range(3)]
    loss, top1, top5 = training._evaluate(small_net, given, None, "cpu")
    found = evaluation.evaluate(small_net, given, number=3)
    assert found[1:4] == pytest.approx((loss, top1, top5), rel=1e-6)
    assert found.top5 == 1  # there are three classes


def test_outputs_stand_for_labels_in_any_order_together_or_not_at_all(outputs, labels):
    """Like a net whose outputs were put together by hand."""
    order = np.random.default_rng(1).permutation(12)
    shuffled = outputs[:, order]
    expected = evaluation.evaluate(Given(outputs), batches(labels))
    found = evaluation.evaluate(Given(shuffled), batches(labels), order.tolist(), number=12)
    assert found == pytest.approx(expected, rel=1e-12)
    # Outputs 0, 4 and 5 are label 2, 7 is label 0, 1 is label 3, and others none; label 1 has none.
    classes = [2, 3, None, -1, 2, 2, -1, 0, None, -1, -1, -1]
    four = labels % 4
    found = evaluation.evaluate(Given(outputs), batches(four), classes, number=4)
    shares = outputs.double().softmax(1).numpy()
    joined = np.stack([shares[:, 7], shares[:, [0, 4, 5]].sum(1), shares[:, 1]], 1)
    joined /= joined.sum(1, keepdims=True)
    kept = four != 1
    assert found.images == kept.sum()
    assert found.loss == pytest.approx(log_loss(four[kept], joined[kept], labels=[0, 2, 3]))
    top1 = np.array([0, 2, 3])[joined[kept].argmax(1)] == four[kept]
    assert found.top1 == top1.mean()
    assert found.chance == np.bincount(four[kept]).max() / kept.sum()


def test_images_without_labels_do_not_count(outputs, labels):
    some = np.where(np.arange(60) % 3 == 0, -1, labels)
    found = evaluation.evaluate(Given(outputs), batches(some))
    kept = some >= 0
    assert found.images == 40
    assert found.top1 == (outputs.argmax(1).numpy()[kept] == labels[kept]).mean()
    assert evaluation.evaluate(Given(outputs), batches(np.full(60, -1))) == (60, *[None] * 5)


@pytest.mark.parametrize(
    "wrap",
    [lambda x: (x, -x), lambda x: [None, x], lambda x: {"aux": -x, "logits": x},
     lambda x: {"out": x}],
)  # fmt: skip
def test_the_scores_are_found_among_several_outputs(outputs, labels, wrap):
    expected = evaluation.evaluate(Given(outputs), batches(labels))
    assert evaluation.evaluate(Given(outputs, wrap), batches(labels)) == expected


def test_nets_of_any_precision_are_evaluated_in_it(outputs, labels):
    net = Given(outputs).double()
    expected = evaluation.evaluate(Given(outputs), batches(labels))
    assert evaluation.evaluate(net, batches(labels)) == pytest.approx(expected, rel=1e-6)
    assert next(net.parameters()).dtype == torch.float64


@pytest.mark.parametrize(
    ("wrap", "classes", "message"),
    [
        (lambda x: x, None, r"12 outputs and the images have 5 classes: give `classes`"),
        (lambda x: x, [0, 1], r"classes: has 2 entries and the net 12 outputs"),
        (lambda x: x, [5] * 12, r"classes: 5 is no label; labels are 0 to 4"),
        (lambda x: x, [-2] * 12, r"classes: -2 is no label"),
        (lambda x: x, [-1] * 12, r"classes: no output has a label"),
        (lambda x: x[..., None], None, r"output is \(7, 12, 1\), not \(image, class\)"),
        (lambda x: "x", None, r"output is str, not \(image, class\)"),
        (lambda x: x / 0, None, r"outputs are NaN or infinite"),
    ],
)  # fmt: skip
def test_outputs_that_are_not_the_classes_are_refused(outputs, labels, wrap, classes, message):
    with pytest.raises(evaluation.EvaluationError, match=message):
        evaluation.evaluate(Given(outputs, wrap), batches(labels % 5), classes, number=5)


def test_nets_at_chance_are_told_from_nets_above_it():
    """Right answers that come by chance pass the test about once in a thousand nets."""
    rng = np.random.default_rng(0)
    for images, chance, above in ((2000, 0.1, 0.2), (10_000, 0.1, 0.18), (2000, 0.5, 0.62)):
        lucky = rng.binomial(images, chance, 2000)
        assert np.mean([evaluation.at_chance(right, images, chance) for right in lucky]) > 0.998
        good = rng.binomial(images, above, 2000)
        assert np.mean([evaluation.at_chance(right, images, chance) for right in good]) < 0.01
    # ResNet-20s with random weights on CIFAR-10's 10,000 test images.
    assert evaluation.at_chance(1205, 10_000, 0.1)
    # Few images prove little.
    assert evaluation.at_chance(3, 5, 0.5)
    assert evaluation.at_chance(0, 2000, 0.1)


def images(labels):
    """Images of one grey pixel, as data sets load them."""
    pixels = np.arange(len(labels), dtype=np.uint8)[:, None, None, None]
    views, labels = torch.from_numpy(pixels), torch.as_tensor(labels)

    class Some:
        def __init__(self):
            self.labels = labels.numpy()

        def __len__(self):
            return len(labels)

        def loader(self, size, **_):
            return zip(views.split(size), labels.split(size), strict=True)

    return Some()


def evaluated(net, labels, **options):
    # Pixels from 0 to 1 become the numbers of rows again.
    data = {"mean": [0.0], "std": [1 / 255]}
    return evaluation.evaluate_images(
        "net7", net, images(labels), data, number=12, batch_size=9, **options
    )


class Rounded(Given):
    def forward(self, x):
        return super().forward(x.round())


def test_images_are_normalised_and_a_net_at_chance_is_warned_about(outputs, labels, caplog):
    right = 9 * torch.eye(12)[labels] + outputs / 9
    with caplog.at_level(logging.WARNING):
        found = evaluated(Rounded(right), labels)
        assert found == pytest.approx(evaluation.evaluate(Given(right), batches(labels)))
        assert (found.top1, found.at_chance) == (1, False)
        assert not caplog.records
        found = evaluated(Rounded(right.flip(0)), labels)
        assert found.at_chance
        (record,) = caplog.records
        assert f"net7: top-1 is {found.top1:.1%}, and chance is" in record.getMessage()
    with pytest.raises(evaluation.EvaluationError, match="net7: the net has 11 outputs"):
        evaluated(Rounded(outputs[:, 1:]), labels)


def test_an_untrained_net_may_be_at_chance_and_may_lack_outputs(outputs, labels, caplog):
    with caplog.at_level(logging.WARNING):
        assert evaluated(Rounded(outputs / 9), labels, untrained=True).at_chance
        missing = Rounded(outputs[:, 1:])
        assert evaluated(missing, labels, untrained=True) == (60, *[None] * 5)
        assert not caplog.records
    with pytest.raises(evaluation.EvaluationError, match="net7: classes: has 2 entries"):
        evaluated(missing, labels, classes=[0, 1], untrained=True)


def test_without_labels_or_classes_nothing_is_run(labels):
    class Never(nn.Module):
        def forward(self, x):
            raise AssertionError("it was run")

    nothing = (60, *[None] * 5)
    assert evaluated(Never(), np.full(60, -1)) == nothing
    assert evaluated(Never(), labels, classes=[]) == nothing


def test_images_of_a_real_data_set(tmp_path):
    """The digits' nearest means, as a net: right as often as in plain NumPy."""
    listing, pixels = datasets.list_arrays("digits", None, validation_fraction=0.5, seed=0)
    options = {"size": 8, "mean": [0.3], "std": [0.4], "validation_transform": {"resize": 8}}
    np.savez(tmp_path / "x.npz", pixels=pixels)
    listing.to_csv(tmp_path / "x.csv", index=False)
    flat = (pixels.reshape(len(pixels), 64) / 255 - 0.3) / 0.4
    labels, chosen = listing["label"].to_numpy(), (listing["split"] == "validation").to_numpy()
    flat = flat[listing["path"].astype(int)]
    means = np.stack([flat[~chosen & (labels == k)].mean(0) for k in range(10)])
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    net[1].weight.data = torch.tensor(means, dtype=torch.float32)
    net[1].bias.data = torch.tensor(-(means**2).sum(1) / 2, dtype=torch.float32)
    files = {"listing": tmp_path / "x.csv", "pixels": tmp_path / "x.npz"}
    loaded, _, classes = datasets.recorded(files, options)
    found = evaluation.evaluate_images("net", net, loaded, options, number=classes, batch_size=64)
    distances = ((flat[chosen][:, None] - means) ** 2).sum(2)
    assert found.images == chosen.sum()
    assert found.top1 == (distances.argmin(1) == labels[chosen]).mean()
    assert not found.at_chance
    assert list(pd.DataFrame([found])) == ["images", "loss", "top1", "top5", "chance", "at_chance"]
