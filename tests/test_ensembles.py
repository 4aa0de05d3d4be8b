"""Ensembles average probabilities, and are chosen on other images than they are scored on."""

import itertools

import numpy as np
import pytest
import torch
from legible import illegible
from torch import nn

from convergent.activations.blocks import Blocks, Cut, save_blocks
from convergent.activations.moments import Moments
from convergent.consequences.ensembles import alike, answers, ensembles
from convergent.figures.ensembles import draw_ensembles, tabulate_ensembles
from convergent.nets.evaluation import Evaluation, evaluate
from convergent.running.stores import new_store

NETS = ["net1", "net2", "net3"]
LAYERS = ["conv1", "fc6"]
IMAGES, HALF = 30, 14


@pytest.fixture
def scores(rng):
    logits = torch.tensor(3 * rng.standard_normal((3, IMAGES, 4)))
    return dict(zip(NETS, logits.log_softmax(-1), strict=True))


@pytest.fixture
def labels(rng):
    return rng.integers(0, 4, IMAGES)


def similarity(values=(0.1, 0.5, 0.9)):
    pairs = itertools.combinations(NETS, 2)
    return {
        pair: dict.fromkeys(LAYERS, (value, 1 - value))
        for pair, value in zip(pairs, values, strict=True)
    }


def test_ensembles_are_scored_as_scikit_learn_and_evaluation_score_them(scores, labels):
    from sklearn.metrics import accuracy_score, log_loss

    table = ensembles(scores, labels, similarity(), LAYERS, half=HALF)
    assert len(table) == 7 * 2 * 2
    rows = table.set_index(["nets", "layer", "half"])
    for members in (("net2",), ("net1", "net3"), tuple(NETS)):
        for half, part in (("first", slice(0, HALF)), ("last", slice(HALF, None))):
            row = rows.loc["+".join(members), "conv1", half]
            p = np.mean([scores[net].exp().numpy() for net in members], axis=0)[part]
            assert row["loss"] == pytest.approx(log_loss(labels[part], p, labels=range(4)))
            assert row["top1"] == pytest.approx(accuracy_score(labels[part], p.argmax(1)))
            own = [log_loss(labels[part], scores[n].exp()[part], labels=range(4)) for n in members]
            assert row["members_loss"] == pytest.approx(np.mean(own))
    firsts = [scores[net].argmax(1)[:HALF] for net in ("net1", "net3")]
    unlike = float((firsts[0] != firsts[1]).double().mean())
    assert rows.loc["net1+net3", "fc6", "first"]["disagreement"] == pytest.approx(unlike)


def test_similarity_is_that_on_the_other_half_and_the_mean_over_pairs(scores, labels):
    table = ensembles(scores, labels, similarity(), LAYERS, half=HALF)
    rows = table.set_index(["nets", "layer", "half"])["similarity"]
    assert rows["net1+net2", "conv1", "last"] == pytest.approx(0.1)
    assert rows["net1+net2", "conv1", "first"] == pytest.approx(0.9)
    assert rows["net1+net2+net3", "fc6", "last"] == pytest.approx(0.5)
    assert np.isnan(rows["net1", "conv1", "last"])
    # A pair that was not compared leaves its ensembles without a similarity.
    fewer = {pair: of for pair, of in similarity().items() if pair != ("net1", "net2")}
    rows = ensembles(scores, labels, fewer, LAYERS, half=HALF).set_index(["nets", "layer", "half"])
    assert np.isnan(rows.loc["net1+net2+net3", "conv1", "first"]["similarity"])
    assert rows.loc["net2+net3", "conv1", "last"]["similarity"] == pytest.approx(0.9)


def test_the_least_and_the_most_alike_are_chosen_anew_for_each_half(tmp_path, scores, labels):
    table = ensembles(scores, labels, similarity(), LAYERS, half=HALF)
    table.to_csv(tmp_path / "ensembles.csv", index=False)
    made = tabulate_ensembles(tmp_path / "ensembles.csv")
    rows = table.set_index(["nets", "layer", "half"])["loss"]
    chosen = made[made["size"] == 2].set_index(["chosen", "layer"])["loss"]
    # On the first half, which is scored by what was found on the last, they are the other way.
    least = rows["net1+net2", "conv1", "last"] + rows["net2+net3", "conv1", "first"]
    most = rows["net2+net3", "conv1", "last"] + rows["net1+net2", "conv1", "first"]
    assert chosen["least_alike", "conv1"] == pytest.approx(least / 2)
    assert chosen["most_alike", "conv1"] == pytest.approx(most / 2)
    two = [rows[f"{a}+{b}", "conv1"].mean() for a, b in itertools.combinations(NETS, 2)]
    assert chosen["mean", "conv1"] == pytest.approx(np.mean(two))
    figure = draw_ensembles(made)
    assert not illegible(figure)
    assert [ax.get_title("left") for ax in figure.axes if ax.axison] == [
        "accuracy by size", "two nets, chosen on other images", *LAYERS,
    ]  # fmt: skip
    np.testing.assert_allclose(figure.axes[1].lines[1].get_ydata()[0], least / 2)


def test_many_nets_make_no_more_ensembles_of_a_size_than_asked(rng):
    logits = torch.tensor(rng.standard_normal((8, IMAGES, 3))).log_softmax(-1)
    scores = {f"net{n}": each for n, each in enumerate(logits)}
    labels = rng.integers(0, 3, IMAGES)
    table = ensembles(scores, labels, {}, ["conv1"], half=HALF, most=10)
    counts = table.groupby("size")["nets"].nunique()
    assert counts.to_dict() == {1: 8, 2: 10, 3: 10, 4: 10, 5: 10, 6: 10, 7: 8, 8: 1}
    again = ensembles(scores, labels, {}, ["conv1"], half=HALF, most=10)
    assert again["nets"].tolist() == table["nets"].tolist()


def test_images_without_a_label_or_with_one_that_a_net_lacks_do_not_count(scores, labels):
    full = ensembles(scores, labels, {}, ["conv1"], half=HALF)
    kept = (labels != 3).nonzero()[0]
    partial = {**scores, "net2": scores["net2"].clone()}
    partial["net2"][:, 3] = -torch.inf
    found = ensembles(partial, labels, {}, ["conv1"], half=HALF)
    masked = np.where(labels == 3, -1, labels)
    expected = ensembles(scores, masked, {}, ["conv1"], half=HALF)
    one = found["nets"] == "net1"
    np.testing.assert_allclose(found[one]["loss"], expected[one]["loss"])
    assert len(kept) < IMAGES
    assert (found[one]["loss"].to_numpy() != full[one]["loss"].to_numpy()).any()
    assert np.isfinite(found["loss"]).all()


def test_answers_are_those_that_evaluation_scores(rng):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    images = torch.tensor(rng.standard_normal((IMAGES, 1, 2, 2)), dtype=torch.float32)
    labels = torch.tensor(rng.integers(0, 3, IMAGES))
    found = answers(net, images.split(8), [2, 0, 2], 4)
    assert found[:, [1, 3]].eq(-torch.inf).all()
    batches = list(zip(images.split(8), labels.split(8), strict=True))
    evaluation = evaluate(net, batches, [2, 0, 2], number=4)
    assert isinstance(evaluation, Evaluation)
    known = labels != 1
    loss = -found[known, labels[known]].mean()
    assert float(loss) == pytest.approx(evaluation.loss)


def test_similarity_of_two_nets_is_the_mean_of_both_directions_of_each_half(tmp_path, rng):
    x, y = rng.standard_normal((2, 40, 3))
    y[:, 0] += 2 * x[:, 1]
    y[:, 2] = 1  # dead
    cut = Cut.of(40, 4)
    blocks = Blocks(cut, [Moments.of(x[i : i + 10], y[i : i + 10]) for i in range(0, 40, 10)])
    with new_store(tmp_path / "correlation.zarr") as store:
        save_blocks(store.create_group("conv1"), blocks)
    (found,) = alike(tmp_path / "correlation.zarr", ["conv1"]).values()
    for value, rows in zip(found, (slice(0, 20), slice(20, 40)), strict=True):
        matrix = np.corrcoef(x[rows].T, y[rows, :2].T)[:3, 3:]
        expected = (matrix.max(0).mean() + matrix.max(1).mean()) / 2
        assert value == pytest.approx(expected, abs=1e-5)
