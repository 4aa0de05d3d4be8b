"""Snapshots are the weights of a moment of training, which they do not disturb."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from running import copy_project, planned, snakemake
from test_training import RECIPE, bright_and_dark, build, same

from convergent.nets import datasets, models, training
from convergent.nets.recipe import snapshot_file

# 64 training images: four steps an epoch.
EPOCHS = [0, 0.1, 0.5, 1, 2.75, 4]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return bright_and_dark(tmp_path_factory.mktemp("images") / "images.npz")


@pytest.fixture(scope="module")
def whole(images):
    """Weights, and snapshots of a training that nothing interrupts."""
    kept = {}
    weights, _ = training.train(
        build, *images, seed=1, **RECIPE, snapshots=EPOCHS, keep=kept.__setitem__
    )
    return weights, kept


def test_snapshots_change_no_weights(images, whole):
    plain, _ = training.train(build, *images, seed=1, **RECIPE)
    weights, kept = whole
    assert same(plain, weights)
    assert list(kept) == EPOCHS
    assert same(kept[4], weights)
    assert not any(same(kept[a], kept[b]) for a, b in itertools.pairwise(EPOCHS))


def test_the_first_is_the_untrained_net(whole):
    assert same(training.untrained(build, 1), whole[1][0])
    torch.manual_seed(1)
    assert same(build().state_dict(), whole[1][0])
    assert not same(training.untrained(build, 2), whole[1][0])


def test_each_is_the_net_after_its_share_of_steps(images, whole, monkeypatch):
    """As a training shows that ends after so many steps."""

    class StoppedError(Exception):
        pass

    def weights_after(steps):
        nets, taken = [], [0]
        step = torch.optim.AdamW.step

        def counted(self, *arguments, **options):
            step(self, *arguments, **options)
            taken[0] += 1
            if taken[0] == steps:
                raise StoppedError

        monkeypatch.setattr(torch.optim.AdamW, "step", counted)
        with pytest.raises(StoppedError):
            training.train(lambda: nets.append(build()) or nets[-1], *images, seed=1, **RECIPE)
        monkeypatch.setattr(torch.optim.AdamW, "step", step)
        return nets[0].state_dict()

    # 0.1 of four steps is one, not none, as the net is to have been trained.
    for epoch, steps in {0.1: 1, 0.5: 2, 1: 4, 2.75: 11}.items():
        assert same(whole[1][epoch], weights_after(steps)), epoch


def test_normalisation_is_kept_with_the_weights(images):
    def normalized():
        options = {"name": "resnet", "size": 16, "inputs": 1, "classes": 2, "blocks": 1}
        return models.build(**options, channels=(4, 4, 8))

    kept = {}
    recipe = RECIPE | {"epochs": 1}
    weights, _ = training.train(
        normalized, *images, seed=1, **recipe, snapshots=[0, 0.5, 1], keep=kept.__setitem__
    )
    counted = [kept[epoch]["bn1.num_batches_tracked"].item() for epoch in kept]
    assert counted == [0, 2, 4]
    assert same(kept[1], weights)


@pytest.mark.parametrize("stopped_after", [0, 1, 2, 3])
def test_a_killed_training_ends_with_the_same_snapshots(
    images, whole, tmp_path, monkeypatch, stopped_after
):
    evaluate, calls, kept = training._evaluate, [], {}

    def killed(*arguments):
        calls.append(1)
        if len(calls) == stopped_after + 1:
            raise KeyboardInterrupt
        return evaluate(*arguments)

    monkeypatch.setattr(training, "_evaluate", killed)

    def trained():
        missing = [epoch for epoch in EPOCHS if epoch not in kept]
        return training.train(
            build, *images, seed=1, **RECIPE, checkpoint=tmp_path / "checkpoint.pt",
            snapshots=missing, keep=kept.__setitem__,
        )[0]  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        trained()
    assert same(trained(), whole[0])
    assert len(calls) == 5  # no epoch but the interrupted one is trained twice
    assert kept.keys() == whole[1].keys()
    assert all(same(kept[epoch], whole[1][epoch]) for epoch in EPOCHS)


@pytest.mark.parametrize(
    ("asked", "epochs_trained"), [([0], 0), ([4], 0), ([0, 4], 0), ([3.5], 4), ([1, 4], 4)]
)
def test_earlier_snapshots_that_are_added_later_make_the_net_train_anew(
    images, whole, tmp_path, caplog, asked, epochs_trained
):
    caplog.set_level("INFO")
    arguments = {"seed": 1, **RECIPE, "checkpoint": tmp_path / "checkpoint.pt", "name": "net5"}
    training.train(build, *images, **arguments)
    caplog.clear()
    kept = {}
    weights, history = training.train(
        build, *images, **arguments, snapshots=asked, keep=kept.__setitem__
    )
    assert same(weights, whole[0])
    assert len(history) == 4
    assert list(kept) == asked
    assert all(same(kept[epoch], whole[1][epoch]) for epoch in asked if epoch in EPOCHS)
    messages = [record.getMessage() for record in caplog.records]
    assert sum("epoch " in m and "/4 " in m for m in messages) == epochs_trained
    said = [m for m in messages if m.startswith("net5: trained anew, to the same weights")]
    assert len(said) == bool(epochs_trained)


def test_files_are_named_as_epochs_are_written():
    assert [snapshot_file(epoch) for epoch in (0, 0.0, 0.1, 5.0, 12, 1234567, 2.25)] == [
        "0.pt", "0.pt", "0.1.pt", "5.pt", "12.pt", "1234567.pt", "2.25.pt",
    ]  # fmt: skip


def test_an_epoch_that_is_not_kept_is_named_with_those_that_are(tmp_path):
    for epoch in (0, 0.1, 10, 5):
        (tmp_path / snapshot_file(epoch)).touch()
    (tmp_path / ".7.partial.pt").touch()
    assert training.find_snapshot(tmp_path, 0.1) == tmp_path / "0.1.pt"
    with pytest.raises(training.TrainingError, match=r"epoch 7, only after 0, 0\.1, 5, 10; add it"):
        training.find_snapshot(tmp_path, 7.0)


def test_nothing_is_trained_without_labels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (8, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=pixels)
    listing, _ = datasets.list_arrays(
        "arrays", str(tmp_path / "x.npz"), validation_fraction=0.5, seed=0, labels=False
    )
    listing["split"] = ["train", "validation"] * 4
    with pytest.raises(datasets.DataError, match="none with a label"):
        datasets.load(listing, tmp_path / "x.npz", {})


@pytest.mark.slow
def test_untrained_nets_and_snapshots_are_nets_of_a_run(tmp_path):
    copy_project(tmp_path)
    nets = {
        "net1": {"seed": 1}, "half": {"seed": 1, "data": {"subset": {"half": 1}}},
        "start": {"seed": 1, "epochs": 0}, "early": {"of": "net1", "epoch": 0.5},
    }  # fmt: skip
    values = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    values |= {"run": "any", "nets": nets}
    values["training"] |= {"epochs": 2, "snapshots": [0, 0.5, 2, 9]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    folder = tmp_path / "results/any/nets"
    targets = [f"results/any/nets/{name}/weights.pt" for name in nets]
    snakemake(tmp_path, *targets)

    def weights(path):
        return torch.load(folder / path, weights_only=True)

    kept = sorted(path.name for path in (folder / "net1/snapshots").glob("[0-9]*"))
    assert kept == ["0.5.pt", "0.pt", "2.pt"]
    assert same(weights("start/weights.pt"), weights("net1/snapshots/0.pt"))
    assert same(weights("early/weights.pt"), weights("net1/snapshots/0.5.pt"))
    assert same(weights("net1/weights.pt"), weights("net1/snapshots/2.pt"))
    # The same seed gives the same start, and other images another end.
    assert same(weights("half/snapshots/0.pt"), weights("net1/snapshots/0.pt"))
    assert not same(weights("half/weights.pt"), weights("net1/weights.pt"))
    assert planned(tmp_path, *targets) == {}
    # A removed output comes back from what lies beside the checkpoint, without training.
    before = pd.read_csv(folder / "net1/history.csv")
    (folder / "net1/weights.pt").unlink()
    snakemake(tmp_path, targets[0])
    assert pd.read_csv(folder / "net1/history.csv").equals(before)
    log = (tmp_path / "results/any/logs/train/net1.log").read_text(encoding="utf-8")
    assert "net1: resumed after epoch 2 of 2" in log
    assert same(weights("net1/weights.pt"), weights("net1/snapshots/2.pt"))
