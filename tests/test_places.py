"""Every output of a net's graph has a name, at which it is recorded as the net computes it."""

import importlib.util
import re
import textwrap
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision import models as torchvision_models
from torchvision.models import feature_extraction

from convergent.activations import recording
from convergent.activations.probing import ProbingError
from convergent.activations.shapes import layer_shapes
from convergent.nets import models
from convergent.nets.places import (
    PlaceError,
    RunError,
    default_places,
    dry_run,
    places,
    tapping,
    untraceable,
)
from convergent.running.stores import open_store
from convergent.runs import command

# ResNet-20 for CIFAR-10 as users write it: ReLUs are functions, shortcuts take every second pixel.
RESNET = """
    from torch import nn
    from torch.nn import functional as F

    class Block(nn.Module):
        def __init__(self, inputs, planes, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(planes)
            self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(planes)
            self.planes, self.narrow = planes, inputs != planes

        def forward(self, x):
            out = F.relu(self.bn1(self.conv1(x)))
            out = self.bn2(self.conv2(out))
            if self.narrow:
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.planes // 4, self.planes // 4))
            out += x
            return F.relu(out)

    class ResNet(nn.Module):
        def __init__(self, blocks):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(16)
            sides = [(16, 16, 1), (16, 32, 2), (32, 64, 2)]
            for number, (inputs, planes, stride) in enumerate(sides, 1):
                rest = [Block(planes, planes, 1) for _ in range(blocks - 1)]
                stage = nn.Sequential(Block(inputs, planes, stride), *rest)
                self.add_module(f"layer{number}", stage)
            self.linear = nn.Linear(64, 10)

        def forward(self, x):
            out = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
            out = F.avg_pool2d(out, out.size()[3])
            return self.linear(out.view(out.size(0), -1))

    def resnet20():
        return ResNet(3)
"""


@pytest.fixture(scope="module")
def users_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("user") / "nets.py"
    file.write_text(textwrap.dedent(RESNET), encoding="utf-8")
    return file


@pytest.fixture
def resnet20(users_file):
    spec = importlib.util.spec_from_file_location("users_nets", users_file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    net = module.resnet20()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return net


def seen_at(net, names, x):
    """Outputs at places, by one run."""
    found = {}

    def keep(name, output):
        found[name] = output.clone()

    with tapping(net, names, keep) as run, torch.no_grad():
        run(x)
    return found


class Net(nn.Module):
    """A net of one function."""

    def __init__(self, forward, **modules):
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self.function = forward

    def forward(self, x):
        return self.function(self, x)


def test_operations_of_a_user_s_residual_block_are_those_worked_out_by_hand(resnet20):
    net = resnet20.eval()
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    names = ["relu", "layer1", "layer2.0.relu", "layer2.0.add", "layer2.0.relu_1", "layer2.0"]
    found = seen_at(net, names, x)
    with torch.no_grad():
        stem = functional.relu(net.bn1(net.conv1(x)))
        stage, block = net.layer1(stem), net.layer2[0]
        inner = functional.relu(block.bn1(block.conv1(stage)))
        short = torch.zeros(4, 32, 16, 16)
        short[:, 8:24] = stage[:, :, ::2, ::2]
        total = block.bn2(block.conv2(inner)) + short
    expected = [stem, stage, inner, total, functional.relu(total), functional.relu(total)]
    assert list(found) == names
    for name, values in zip(names, expected, strict=True):
        torch.testing.assert_close(found[name], values, msg=name)
    assert total.min() < 0


def test_a_user_s_net_has_its_places_in_order(resnet20):
    example = torch.zeros(1, 3, 32, 32)
    found = {place.name: place for place in places(resnet20, example)}
    block = ["conv1", "bn1", "relu", "conv2", "bn2", "add", "relu_1"]
    names = [name for name in found if name.startswith("layer1.0")]
    assert names == [*(f"layer1.0.{name}" for name in block), "layer1.0"]
    assert found["layer3.2.relu_1"][1:] == ("relu", (1, 64, 8, 8))
    assert found["layer2"][1:] == ("block", (1, 32, 16, 16))
    assert default_places(resnet20, example) == ["layer1", "layer2", "layer3"]
    relus = models.layers(resnet20, example)
    assert relus == ["relu", *(f"layer{i}.{j}.relu{k}" for i in (1, 2, 3) for j in range(3)
                               for k in ("", "_1"))]  # fmt: skip


def test_names_and_values_are_those_of_torchvision():
    torch.manual_seed(0)
    net = torchvision_models.resnet18().eval()
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # or torchvision's outputs would be changed by what follows
    x = torch.randn(2, 3, 64, 64)
    _, theirs = feature_extraction.get_graph_node_names(net)
    theirs.remove("x")
    ours = [place.name for place in places(net, x)]
    assert [name for name in ours if name in theirs] == theirs
    assert set(ours) - set(theirs) == {
        path for path, module in net.named_modules() if path and any(module.children())
    }
    extractor = feature_extraction.create_feature_extractor(net, {name: name for name in theirs})
    with torch.no_grad():
        expected = extractor.eval()(x)
    found = seen_at(net, theirs, x)
    assert list(found) == theirs
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=0, atol=0, msg=name)


def test_a_module_keeps_its_path_whatever_it_is_called():
    """Also where torchvision takes the end of the path for a number of its own."""
    net = nn.Sequential()
    for name in ("conv_1", "conv_2"):
        net.add_module(name, nn.Conv2d(2, 2, 1))
    x = torch.randn(1, 2, 3, 3)
    assert [place.name for place in places(net, x)] == ["conv_1", "conv_2"]
    shared = Net(lambda n, x: n.act_1(n.act(n.act(x) - 1)), act=nn.ReLU(), act_1=nn.ReLU())
    found = seen_at(shared, ["act", "act_2", "act_1"], x)
    torch.testing.assert_close(found["act_2"], (x.relu() - 1).relu())
    assert [place.name for place in places(shared, x)] == ["act", "sub", "act_2", "act_1"]


def in_place(net, x):
    y = net.conv(x)
    functional.relu_(y)
    return y


def test_a_block_s_output_is_what_it_returns_even_if_it_was_changed_in_place():
    block = Net(in_place, conv=nn.Conv2d(2, 3, 1))
    net = nn.Sequential(block, nn.Flatten())
    x = torch.randn(2, 2, 4, 4)
    found = seen_at(net, ["0", "0.conv", "0.relu_"], x)
    torch.testing.assert_close(found["0"], found["0.conv"].relu())
    torch.testing.assert_close(found["0"], found["0.relu_"])
    assert found["0.conv"].min() < 0


def by_data(net, x):
    y = net.relu(net.first(x))
    if y.sum() > 0:
        y = functional.relu(net.second(y))
    return net.relu(y - 0.1)


def test_a_net_whose_course_depends_on_data_has_its_modules():
    torch.manual_seed(0)
    net = Net(by_data, first=nn.Linear(3, 4), second=nn.Linear(4, 4), relu=nn.ReLU())
    x = torch.randn(5, 3)
    assert [place.name for place in places(net, x)] == ["first", "relu", "second", "relu_1"]
    assert models.layers(net, x) == ["relu", "relu_1"]
    torch.testing.assert_close(seen_at(net, ["relu_1"], x)["relu_1"], net(x))
    assert "control flow" in untraceable(net)
    with pytest.raises(PlaceError, match=r"no place 'sub'.*cannot be traced \(.*control flow"):
        seen_at(net, ["sub"], x)


def test_a_part_that_cannot_be_traced_leaves_the_operations_around_it():
    inner = Net(by_data, first=nn.Linear(3, 4), second=nn.Linear(4, 4), relu=nn.ReLU())
    net = Net(lambda n, x: n.inner(x + 1) * 2, inner=inner)
    x = torch.randn(5, 3)
    names = ["add", "inner.first", "inner.relu", "inner.second", "inner.relu_1", "inner", "mul"]
    assert [place.name for place in places(net, x)] == names
    torch.testing.assert_close(seen_at(net, ["mul", "inner.relu_1"], x)["mul"], net(x))


def test_a_missing_place_is_told_with_those_that_there_are(resnet20, tmp_path):
    x = torch.randn(4, 3, 32, 32)
    with pytest.raises(KeyError, match=r"no place 'layer2\.0\.sum'") as error:
        recording.record(resnet20, x, ["sums"], tmp_path / "a.zarr",
                         places={"sums": "layer2.0.sum"})  # fmt: skip
    message = str(error.value)
    assert "did you mean layer2.0" in message
    assert re.search(r"\n  layer1\.0\.add +add +16 x 32 x 32\n", message)
    assert re.search(r"and \d+ more", message)
    assert not list(tmp_path.iterdir())


def test_a_net_is_left_as_it_was(resnet20):
    """Tracing writes into modules that keep what they saw, and constants into the net."""

    def forward(net, x):
        net.kept = net.conv(x)
        return net.kept + torch.ones(1, 2, 1, 1)

    net = Net(forward, conv=nn.Conv2d(3, 2, 1)).train()
    before = {path: dict(vars(module)) for path, module in net.named_modules()}
    x = torch.randn(2, 3, 4, 4)
    assert untraceable(net) is None
    assert {path: dict(vars(module)) for path, module in net.named_modules()} == before
    found = seen_at(net, ["add"], x)["add"]
    torch.testing.assert_close(found, net.conv(x) + 1)


def test_gradients_pass_through_the_graph(resnet20):
    """They are the net's own: its parameters are shared."""
    net, x = resnet20.eval(), torch.randn(2, 3, 32, 32)
    net(x).sum().backward()
    expected = {name: p.grad.clone() for name, p in net.named_parameters()}
    net.zero_grad()
    kept = {}
    with tapping(net, ["layer1.0.add"], kept.__setitem__) as run:
        run(x).sum().backward()
    assert kept["layer1.0.add"].requires_grad
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=0, atol=0)


def test_a_graph_that_is_not_the_net_is_refused(tmp_path):
    """Tracing keeps the number that Python drew, whatever the net draws later."""
    numbers = iter(range(1, 10**6))
    net = Net(lambda n, x: n.conv(x) * next(numbers), conv=nn.Conv2d(3, 2, 1))
    with pytest.raises(ProbingError, match=r"graph that torch\.fx traced .* does not compute"):
        recording.record(net, torch.randn(9, 3, 4, 4), ["mul"], tmp_path / "a.zarr")


def test_recorded_places_are_arranged_as_their_layouts_say(tmp_path):
    """One place may be two layers; class tokens are left out, the others make a map."""
    torch.manual_seed(0)
    net = torchvision_models.VisionTransformer(32, 8, 3, 2, 12, 24, num_classes=4).eval()
    x = torch.randn(10, 3, 32, 32)
    last = "encoder.layers.encoder_layer_2"
    layouts = {
        "tokens": last,
        "map": {"place": last, "skip_tokens": 1, "map": [4, 4]},
        "mean": {"place": last, "skip_tokens": 1, "grid": "mean"},
        "sum": f"{last}.add",
    }
    recording.record(
        net, x, list(layouts), tmp_path / "a.zarr", places=layouts, dtype="float32", batch_size=4
    )
    store = open_store(tmp_path / "a.zarr")
    tokens = store["tokens"][...]
    with torch.no_grad():
        expected = feature_extraction.create_feature_extractor(net, [last, f"{last}.add"])(x)
    np.testing.assert_allclose(tokens, expected[last].numpy(), atol=1e-5)
    np.testing.assert_allclose(store["sum"][...], expected[f"{last}.add"].numpy(), atol=1e-5)
    np.testing.assert_array_equal(store["map"][...], tokens[:, 1:].reshape(10, 4, 4, 12))
    np.testing.assert_allclose(store["mean"][...], tokens[:, 1:].mean(axis=1), atol=1e-5)
    told = layer_shapes(lambda: net, (3, 32, 32), places=layouts).layers
    assert {name: layer.axes for name, layer in told.items()} == {
        "sum": "token unit", "tokens": "token unit", "map": "y x unit", "mean": "unit"
    }  # fmt: skip
    assert told["map"][1:] == (last, "y x unit", 12, 4, 4, 16, None)
    net_of = default_places(net, x[:1])
    assert net_of == [f"encoder.layers.encoder_layer_{number}" for number in range(3)]


def test_an_axis_that_cannot_be_told_is_asked_for_by_its_key(tmp_path):
    net = Net(lambda n, x: torch.einsum("nij,jk->nik", n.lin(x), n.w), lin=nn.Linear(6, 6))
    net.w = nn.Parameter(torch.randn(6, 9))
    key = r"nets\.<net>\.layers\.far: \{place: einsum, unit_axis: -1\}"
    places_of = {"far": "einsum"}
    with pytest.raises(ProbingError, match=rf"layer far \(place einsum\): .*{key}"):
        layer_shapes(lambda: net, (4, 6), places=places_of)
    with pytest.raises(ProbingError, match=key):
        recording.record(net, torch.randn(9, 4, 6), ["far"], tmp_path / "a", places=places_of)
    stated = {"far": {"place": "einsum", "unit_axis": -1}}
    recording.record(net, torch.randn(9, 4, 6), ["far"], tmp_path / "a", places=stated)
    assert open_store(tmp_path / "a")["far"].shape == (9, 4, 9)
    assert layer_shapes(lambda: net, (4, 6), places=stated).layers["far"].units == 9


def test_a_net_that_needs_another_size_says_so(tmp_path):
    """In the net's own words, which tracing would spoil."""

    def build():
        return torchvision_models.VisionTransformer(32, 8, 1, 2, 12, 24, num_classes=4)

    message = r"images of shape \(3, 64, 64\): .*Expected 32 but got 64!; set data\.size"
    with pytest.raises(RunError, match=message):
        layer_shapes(build, (3, 64, 64), places={"a": "encoder"})
    with pytest.raises(RunError, match=message):
        recording.record(build(), torch.randn(4, 3, 64, 64), ["encoder"], tmp_path / "a")
    with pytest.raises(RunError, match=r"\(1, 32, 32\)"):
        places(build(), torch.zeros(1, 1, 32, 32))


def test_a_relu_with_layers_after_it_does_not_stand_for_its_parent():
    """As in DenseNet's transitions, whose output is not that of their ReLU."""
    parts = {"norm": nn.BatchNorm1d(3), "relu": nn.ReLU(), "linear": nn.Linear(3, 2)}
    net = nn.Sequential(OrderedDict(inner=nn.Sequential(OrderedDict(parts)), last=nn.Linear(2, 2)))
    x = torch.randn(5, 3)
    found = seen_at(net, ["inner", "inner.relu", "inner.linear"], x)
    torch.testing.assert_close(found["inner"], found["inner.linear"], rtol=0, atol=0)
    assert found["inner.relu"].shape == (5, 3)
    parts = {"linear": nn.Linear(3, 2), "relu": nn.ReLU()}
    ends = nn.Sequential(OrderedDict(inner=nn.Sequential(OrderedDict(parts))))
    assert (seen_at(ends, ["inner"], x)["inner"] >= 0).all()


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)), ["1"]),
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.ReLU(), nn.Linear(4, 2)), ["2"]),
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 2)), ["0"]),
        # Two blocks are too few; those within them are three.
        (
            lambda: nn.Sequential(
                *(
                    nn.Sequential(*(nn.Sequential(nn.Linear(3, 3)) for _ in range(n)))
                    for n in (1, 3)
                )
            ),
            ["0.0", "1.0", "1.1"],
        ),
    ],
)
def test_default_places_follow_the_rule(build, expected):
    assert default_places(build(), torch.zeros(1, 3)) == expected


EIGHT = {
    "resnet18": ["layer1", "layer2", "layer3", "layer4"],
    "vgg11_bn": ["features.2", "features.6", "features.10", "features.13", "features.17",
                 "features.20", "features.24", "features.27", "classifier.1", "classifier.4"],
    "googlenet": ["conv1", "conv2", "conv3",
                  "inception3a", "inception3b", *(f"inception4{name}" for name in "abcde"),
                  "inception5a", "inception5b"],
    "mobilenet_v3_small": [f"features.{number}" for number in range(13)],
    "densenet121": [f"features.{part}{number}" for number in (1, 2, 3)
                    for part in ("denseblock", "transition")] + ["features.denseblock4"],
    "convnext_tiny": [f"features.{number}" for number in range(8)],
    "vit_b_16": [f"encoder.layers.encoder_layer_{number}" for number in range(12)],
    "swin_t": [f"features.{number}" for number in range(8)],
}  # fmt: skip
# Operations, one of each net that has any at which units can be compared.
OPERATIONS = {
    "resnet18": "layer3.0.add",
    "googlenet": "inception4a.cat",
    "mobilenet_v3_small": "features.11.add",
    "densenet121": "relu",
    "convnext_tiny": "features.5.0.add",
    "vit_b_16": "encoder.layers.encoder_layer_0.add",
    "swin_t": "features.5.1.add",
}


def build(name):
    options = {"init_weights": False} if name == "googlenet" else {}
    return torchvision_models.get_model(name, weights=None, **options)


@pytest.mark.parametrize("name", EIGHT)
def test_known_nets_are_compared_after_stages_or_blocks(name):
    size = 224 if name == "vit_b_16" else 64
    assert dry_run(lambda: build(name), (3, size, size), default_places) == EIGHT[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", EIGHT)
def test_known_nets_are_recorded_as_their_shapes_say(tmp_path, name):
    size = 224 if name == "vit_b_16" else 64
    layers = dict(enumerate([*EIGHT[name], *filter(None, [OPERATIONS.get(name)])]))
    layers = {f"layer{number}": place for number, place in layers.items()}
    told = layer_shapes(lambda: build(name), (3, size, size), places=layers).layers
    torch.manual_seed(0)
    net, x = build(name).eval(), torch.randn(3, 3, size, size)
    recording.record(net, x, list(layers), tmp_path / "a", places=layers, dtype="float32")
    store = open_store(tmp_path / "a")
    assert told.keys() == layers.keys()
    for layer, place in layers.items():
        array, row = store[layer], told[layer]
        assert row.place == place
        assert array.shape[-1] == row.units
        assert array.shape[1:-1] == {
            "unit": (), "token unit": (row.positions,), "y x unit": (row.height, row.width)
        }[row.axes]  # fmt: skip
    modules = [place for place in EIGHT[name] if place in dict(net.named_modules())][-1:]
    kept = {}
    hook = net.get_submodule(modules[0]).register_forward_hook(
        lambda module, args, output: kept.update(output=output.clone())
    )
    with torch.no_grad():
        net(x)
    hook.remove()
    (layer,) = (layer for layer, place in layers.items() if place == modules[0])
    expected, found = kept["output"], torch.from_numpy(store[layer][...])
    expected = expected.movedim(1, -1) if expected.ndim == 4 and name != "swin_t" else expected
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_the_command_prints_the_places_of_a_user_s_net(users_file, capsys, monkeypatch):
    monkeypatch.chdir(users_file.parent)
    assert command.main(["layers", "nets.py:resnet20", "--size", "32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(re.fullmatch(r"  layer2\.1\.add +add +32 x 16 x 16", line) for line in lines)
    marked = [line.split()[1] for line in lines if line.startswith("*")]
    assert marked == ["layer1", "layer2", "layer3"]
    assert command.main(["layers", "alexnet", "--size", "20"]) == 1
    assert "20 pixels shrink" in capsys.readouterr().err
