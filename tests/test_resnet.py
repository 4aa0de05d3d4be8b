"""ResNets as He et al. describe them and as others have published them."""

import functools
from pathlib import Path

import pytest
import torch
import yaml
from torch.nn import functional

from convergent import config
from convergent.activations.shapes import layer_shapes
from convergent.nets import models
from convergent.nets.places import places

ROOT = Path(__file__).parents[1]
# Weights of github.com/akamaster/pytorch_resnet_cifar10, for those who have them.
PUBLISHED = Path.home() / ".cache/convergent-data"
CHECKSUMMED = {3: "resnet20-12fca82f.th", 9: "resnet56-4bfd9763.th"}


def reference(weights, images):
    """The net by functions, as published, for maps whose sides are even."""

    def convolved(x, name, stride=1):
        return functional.conv2d(x, weights[f"{name}.weight"], stride=stride, padding=1)

    def normalized(x, name):
        values = (
            weights[f"{name}.{part}"] for part in ["running_mean", "running_var", "weight", "bias"]
        )
        return functional.batch_norm(x, *values)

    x = functional.relu(normalized(convolved(images, "conv1"), "bn1"))
    for stage in (1, 2, 3):
        numbers = {int(name.split(".")[1]) for name in weights if name.startswith(f"layer{stage}.")}
        for number in sorted(numbers):
            name = f"layer{stage}.{number}"
            stride = 2 if stage > 1 and number == 0 else 1
            inner = normalized(convolved(x, f"{name}.conv1", stride), f"{name}.bn1")
            inner = normalized(convolved(functional.relu(inner), f"{name}.conv2"), f"{name}.bn2")
            if stride == 2:
                quarter = inner.shape[1] // 4
                x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter))
            x = functional.relu(inner + x)
    x = functional.avg_pool2d(x, x.shape[3]).flatten(1)
    return functional.linear(x, weights["linear.weight"], weights["linear.bias"])


def check(net):
    """Outputs agree to the rounding of float32, which 20 to 56 layers pass on."""
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    net.eval()
    with torch.no_grad():
        expected = reference(net.state_dict(), images)
        torch.testing.assert_close(net(images), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.01


@pytest.mark.parametrize("blocks", [1, 3])
def test_it_computes_what_functions_compute(blocks):
    torch.manual_seed(0)
    net = models.build("resnet", blocks=blocks)
    net(torch.randn(20, 3, 32, 32))  # moves the means and variances of normalisation
    check(net)


@pytest.mark.parametrize("blocks", CHECKSUMMED)
def test_published_weights_fit_by_their_names(blocks):
    path = PUBLISHED / CHECKSUMMED[blocks]
    if not path.exists():
        pytest.skip(f"{path} is not here")
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    net = models.build("resnet", blocks=blocks)
    net.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    check(net)


@pytest.mark.parametrize(("blocks", "parameters"), [(3, 0.27), (5, 0.46), (7, 0.66), (9, 0.85)])
def test_it_has_the_published_number_of_weights(blocks, parameters):
    """Table 6 of He et al., in millions."""
    net = models.build("resnet", blocks=blocks)
    found = sum(parameter.numel() for parameter in net.parameters())
    assert round(found / 10**6, 2) == pytest.approx(parameters, abs=0.011)


def test_its_layers_are_declared_before_anything_is_built():
    options = {"name": "resnet", "blocks": 2, "channels": [3, 4, 7], "inputs": 1, "size": 15}
    net = models.build(**options, classes=2)
    values = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    values |= {
        "layers": [], "clustering": {"k": "auto", "alpha": 0.2}, "mapping": {"sgd": {"layers": []}},
        "model": {key: options[key] for key in ("name", "blocks", "channels")},
        "figures": {"layer": "layer1.0"},
    }  # fmt: skip
    run = config.load(values)
    declared = ["relu1", *(f"layer{stage}.{number}" for stage in (1, 2, 3) for number in (0, 1))]
    assert run.layers == declared
    found = [place.name for place in places(net, torch.zeros(1, 1, 15, 15))]
    assert [name for name in found if name in declared] == declared
    inner = ["relu1", *(f"{name}.{relu}" for name in declared[1:] for relu in ("relu1", "relu"))]
    assert [name for name in found if "relu" in name] == inner
    build = functools.partial(models.build, **options)
    sizes = layer_shapes(build, (1, 15, 15), layers=declared).layers
    assert [(sizes[name].units, sizes[name].height) for name in declared] == [
        (3, 15), (3, 15), (3, 15), (4, 8), (4, 8), (7, 4), (7, 4),
    ]  # fmt: skip


def test_stages_that_lose_channels_are_refused():
    values = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    values |= {"layers": [], "model": {"name": "resnet", "channels": [16, 32, 8]}}
    with pytest.raises(config.ConfigError, match=r"model\.channels: shortcuts add channels"):
        config.load(values)
