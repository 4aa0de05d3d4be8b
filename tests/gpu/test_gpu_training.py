"""On a GPU nets learn and resume as on a CPU, but for rounding."""

import pytest
import torch
from test_training import RECIPE, bright_and_dark, build

from convergent.nets import training
from convergent.running import devices

DEVICE = "cuda"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return bright_and_dark(tmp_path_factory.mktemp("images") / "images.npz")


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("recipe", [{}, {"optimizer": "sgd", "learning_rate": 0.03}])
def test_nets_learn(images, compiled, recipe):
    recipe = RECIPE | {"epochs": 15} | recipe
    weights, history = training.train(
        build, *images, seed=1, device=DEVICE, compile=compiled, **recipe
    )
    assert history[-1]["train_loss"] < 0.7 * history[0]["train_loss"]
    assert history[-1]["val_top1"] > 0.9
    assert weights.keys() == build().state_dict().keys()
    assert all(value.device.type == "cpu" for value in weights.values())


@pytest.mark.parametrize("compiled", [False, True])
def test_a_killed_run_resumes_and_ends_about_the_same(images, tmp_path, monkeypatch, compiled):
    """About: sums on a GPU have no fixed order."""
    options = RECIPE | {"device": DEVICE, "compile": compiled}
    _, straight = training.train(build, *images, seed=1, **options)
    evaluate, calls = training._evaluate, []

    def killed(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return evaluate(*args)

    monkeypatch.setattr(training, "_evaluate", killed)
    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        training.train(build, *images, seed=1, checkpoint=checkpoint, **options)
    kept = torch.load(checkpoint, weights_only=True)["history"]
    _, resumed = training.train(build, *images, seed=1, checkpoint=checkpoint, **options)
    assert resumed[:2] == kept
    assert len(calls) == 5
    for key in ("learning_rate", "train_loss", "val_loss"):
        expected = [row[key] for row in straight]
        assert [row[key] for row in resumed] == pytest.approx(expected, abs=0.05)


def test_a_checkpoint_of_float16_keeps_its_scale(images, tmp_path, monkeypatch):
    """As on GPUs without bfloat16, where losses are scaled."""
    monkeypatch.setattr(training, "half_precision", lambda device: torch.float16)
    options = RECIPE | {"device": DEVICE, "checkpoint": tmp_path / "checkpoint.pt"}
    _, history = training.train(build, *images, seed=1, **options)
    assert torch.load(options["checkpoint"], weights_only=True)["scaler"]["scale"] > 0
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_the_gpu_is_chosen_with_mixed_precision():
    assert devices.choose_device("auto") == devices.choose_device("cuda") == "cuda"
    assert devices.choose_device("cpu") == "cpu"
    assert devices.half_precision("cuda") in (torch.bfloat16, torch.float16)
