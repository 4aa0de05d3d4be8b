"""VGG-11, the second architecture: what it takes to have one more."""

import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from convergent import config
from convergent.activations.shapes import layer_shapes
from convergent.nets import models, training
from convergent.nets.datasets import Images
from convergent.units.receptive_fields import sides

ROOT = Path(__file__).parents[1]
SMALL = {"name": "vgg11", "channels": [3, 4, 5, 5, 6, 6, 7, 7]}


def test_the_published_net():
    """As torchvision's vgg11_bn has it up to its full connections."""
    net = layer_shapes(lambda: models.build("vgg11"), (3, 32, 32), receptive_fields=sides)
    assert list(net.layers) == [f"conv{number}" for number in range(1, 9)]
    assert [layer.units for layer in net.layers.values()] == [64, 128, *[256] * 2, *[512] * 4]
    assert [layer.height for layer in net.layers.values()] == [32, 16, 8, 8, 4, 4, 2, 2]
    fields = [layer.receptive_field for layer in net.layers.values()]
    assert fields == [3, 8, 18, 26, 46, 62, 102, 134]
    assert net.costs.parameters == 9_225_984 + 512 * 10 + 10


@pytest.mark.parametrize("batch_norm", [False, True])
def test_every_relu_is_a_module_not_in_place(batch_norm):
    options = {"batch_norm": batch_norm, "fully_connected": (9, 8), "size": 32, "inputs": 1}
    net = models.build(**SMALL | options)
    names = [*(f"conv{number}" for number in range(1, 9)), "fc9", "fc10"]
    assert models.layers(net, torch.zeros(1, 1, 32, 32)) == names
    assert not any(models.activation(net, name).inplace for name in names)
    norms = sum(isinstance(module, torch.nn.BatchNorm2d) for module in net.modules())
    assert norms == 8 * batch_norm


def test_a_small_input_is_named():
    with pytest.raises(ValueError, match=r"data\.size: 31 pixels are too few"):
        models.build("vgg11", size=31)


def configured(**model):
    values = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    return values | {
        "layers": [], "model": {"name": "vgg11"} | model, "clustering": {"k": "auto", "alpha": 0.2},
        "mapping": {"sgd": {"layers": ["conv7"]}},
    }  # fmt: skip


def test_a_run_may_have_it():
    run = config.load(configured(fully_connected=[9], batch_norm=False))
    assert run.layers == [*(f"conv{number}" for number in range(1, 9)), "fc9"]
    assert run.model.channels[-1] == 512
    assert config.load(run.model_dump(mode="json")) == run
    net = layer_shapes(
        lambda: models.build(**models.options(run.nodes["net1"].net | {"size": 32})), (1, 32, 32)
    )
    config.check_shapes(run, "net1", {"net1": net.layers})


def test_keys_and_layers_of_other_architectures_are_refused():
    with pytest.raises(config.ConfigError, match=r"model\.kernel: no such key; .*batch_norm"):
        config.load(configured(kernel=3))
    with pytest.raises(config.ConfigError, match=r"model\.channels: .* at least 8"):
        config.load(configured(channels=[1, 2]))
    with pytest.raises(config.ConfigError, match="layers: vgg11 has no layer 'fc6'"):
        config.load(configured() | {"layers": ["fc6"]})


def test_it_trains(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 32, 32, 1), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", pixels=pixels)
    rows = pd.DataFrame({"label": [0, 1] * 10, "path": [str(number) for number in range(20)]})
    rows["crc32"] = [zlib.crc32(image) for image in pixels]
    images = Images(rows, tmp_path / "x.npz", resize=32, size=32, channels=1)
    options = SMALL | {"size": 32, "inputs": 1, "classes": 2}
    weights, history = training.train(
        lambda: models.build(**options), images, images, seed=1, mean=[0.5], std=[0.3], epochs=1,
        batch_size=5, optimizer="adamw", learning_rate=0.01, momentum=0.9, weight_decay=0.01,
        schedule="onecycle", step_epochs=1, gamma=0.1,
    )  # fmt: skip
    assert len(history) == 1
    assert np.isfinite(history[0]["train_loss"])
    models.build(**options).load_state_dict(weights)
    assert weights["conv1.norm.running_mean"].abs().sum() > 0
