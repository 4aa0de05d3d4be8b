"""Training is reproducible, resumes as if never stopped, and says when a net dies."""

import zlib

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import top_k_accuracy_score

from convergent.nets import datasets, models, training
from convergent.nets.marks import image_marks

RECIPE = {
    "mean": [0.5],
    "std": [0.5],
    "epochs": 4,
    "batch_size": 16,
    "optimizer": "adamw",
    "learning_rate": 3e-3,
    "momentum": 0.9,
    "weight_decay": 0.01,
    "schedule": "onecycle",
    "step_epochs": 2,
    "gamma": 0.1,
}


def build():
    return models.build(
        "alexnet", size=16, inputs=1, classes=2, channels=(8, 12, 16, 16, 12),
        fully_connected=(32, 32), kernel=3, stride=1, padding=1, init="kaiming",
    )  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return bright_and_dark(tmp_path_factory.mktemp("images") / "images.npz")


def bright_and_dark(path):
    """Images that anything learns to tell apart."""
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    pixels = rng.integers(0, 120, size=(80, 16, 16, 1)) + 120 * labels[:, None, None, None]
    pixels = pixels.astype(np.uint8)
    np.savez(path, pixels=pixels)
    listing = pd.DataFrame({"label": labels, "path": [str(i) for i in range(80)]})
    listing["crc32"] = [zlib.crc32(p) for p in pixels]
    listing["identity"] = [hex(mark) for mark in image_marks(pixels)]
    listing["split"] = np.where(np.arange(80) < 64, "train", "validation")
    options = {
        "size": 16, "mean": [0.5], "validation_transform": {"resize": 16},
        "train_transform": {"resize": 16, "shift": 1, "flip": True},
    }  # fmt: skip
    return datasets.load(listing, path, options)


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


def test_same_seed_same_weights_bit_for_bit(images):
    (first, history), (second, _), (other, _) = (
        training.train(build, *images, seed=seed, **RECIPE) for seed in (1, 1, 2)
    )
    assert same(first, second)
    assert not same(first, other)
    columns = "epoch learning_rate train_loss train_top1 val_loss val_top1 val_top5 seconds"
    assert list(history[0]) == columns.split()
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "recipe",
    [{}, {"optimizer": "sgd", "schedule": "step"}, {"optimizer": "sgd", "schedule": "constant"}],
)
def test_a_killed_run_resumes_and_ends_the_same(images, tmp_path, monkeypatch, recipe):
    recipe = RECIPE | recipe
    straight, history = training.train(build, *images, seed=1, **recipe)
    checkpoint = tmp_path / "deep/er/checkpoint.pt"
    evaluate, calls = training._evaluate, []

    def killed(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return evaluate(*args)

    monkeypatch.setattr(training, "_evaluate", killed)
    with pytest.raises(KeyboardInterrupt):
        training.train(build, *images, seed=1, checkpoint=checkpoint, **recipe)
    assert len(torch.load(checkpoint, weights_only=True)["history"]) == 2
    resumed, rows = training.train(build, *images, seed=1, checkpoint=checkpoint, **recipe)
    assert same(straight, resumed)
    assert len(calls) == 5  # epochs 1 and 2 before, 3 interrupted, 3 and 4 after
    drop = {"seconds"}
    assert [{k: v for k, v in r.items() if k not in drop} for r in rows] == [
        {k: v for k, v in r.items() if k not in drop} for r in history
    ]


def test_the_nets_learn(images):
    _, history = training.train(build, *images, seed=1, **RECIPE | {"epochs": 15})
    assert history[-1]["val_top1"] > 0.9


def test_top_5_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(60, 9)), rng.integers(9, size=60)
    batches = [(torch.tensor(scores[i::2]), torch.tensor(labels[i::2])) for i in range(2)]
    _, top1, top5 = training._evaluate(torch.nn.Identity(), batches, None, "cpu")
    expected = [top_k_accuracy_score(labels, scores, k=k) for k in (1, 5)]
    assert [top1, top5] == pytest.approx(expected)


def test_of_fewer_than_five_classes_all_are_the_top_5(images):
    _, history = training.train(build, *images, seed=1, **RECIPE | {"epochs": 1})
    assert history[0]["val_top5"] == 1


def test_nothing_is_compiled_on_a_cpu(images, monkeypatch):
    recipe = RECIPE | {"epochs": 1}
    plain, _ = training.train(build, *images, seed=1, **recipe)
    monkeypatch.setattr(torch, "compile", None)
    assert same(plain, training.train(build, *images, seed=1, compile=True, **recipe)[0])


def test_step_schedule_steps(images):
    recipe = RECIPE | {"optimizer": "sgd", "schedule": "step", "learning_rate": 0.01}
    _, history = training.train(build, *images, seed=1, **recipe)
    assert [row["learning_rate"] for row in history] == pytest.approx([0.01, 0.01, 0.001, 0.001])


def test_steps_may_be_at_uneven_epochs(images):
    recipe = RECIPE | {"optimizer": "sgd", "schedule": "step", "learning_rate": 0.01}
    _, history = training.train(build, *images, seed=1, **recipe | {"step_epochs": [1, 3]})
    rates = [row["learning_rate"] for row in history]
    assert rates == pytest.approx([0.01, 0.001, 0.001, 0.0001])


def test_every_epoch_and_seed_has_its_own_order_and_views(images, monkeypatch):
    seen = []
    fetch = datasets.Images.__getitems__

    def watched(self, indices):
        views, labels = fetch(self, indices)
        if self is images[0]:
            seen.append((indices, views.numpy().tobytes()))
        return views, labels

    monkeypatch.setattr(datasets.Images, "__getitems__", watched)
    recipe = RECIPE | {"epochs": 3, "batch_size": 64, "schedule": "constant"}
    for seed in (1, 2):
        training.train(build, *images, seed=seed, **recipe)
    assert len(seen) == 6
    assert len({tuple(order) for order, _ in seen}) == 6
    assert len({views for _, views in seen}) == 6


def test_workers_decide_nothing(tmp_path, images):
    rng = np.random.default_rng(0)
    for split, n in (("train", 20), ("val", 4)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 255, size=(20, 20), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i}.png")
    transform = {"resize": 20, "shift": 1, "flip": True}
    options = {"size": 16, "mean": [0.5], "validation_transform": {"resize": 20}}
    options["train_transform"] = transform
    files = datasets.load(datasets.list_folder(tmp_path), tmp_path, options)
    recipe = RECIPE | {"epochs": 2}
    alone, helped = (training.train(build, *files, seed=1, workers=n, **recipe)[0] for n in (0, 2))
    assert same(alone, helped)


@pytest.mark.parametrize("batch_size", [16, 64])
def test_a_dead_net_is_reported_with_its_remedy(images, tmp_path, batch_size):
    """Even when only the last step of an epoch kills it; its state is not kept."""
    recipe = RECIPE | {"optimizer": "sgd", "schedule": "constant", "learning_rate": 1e30}
    recipe["batch_size"] = batch_size
    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(training.TrainingError, match=r"net7: the .*loss is .* Lower training"):
        training.train(build, *images, seed=1, name="net7", checkpoint=checkpoint, **recipe)
    assert not checkpoint.exists()


def test_weights_load_safely_and_fit(images, tmp_path):
    weights, _ = training.train(build, *images, seed=1, **RECIPE | {"epochs": 1})
    torch.save(weights, tmp_path / "weights.pt")
    net = build()
    net.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert all(value.device.type == "cpu" for value in weights.values())
