"""What a person may write wrongly about nets, layers and pairs: each error names its key."""

import copy
import os
from functools import partial

import pytest
import torch
import yaml
from running import ROOT
from torch import nn

from convergent import ConvergentError
from convergent.activations.shapes import layer_shapes
from convergent.config import ConfigError, check_data, load
from convergent.config.overlays import settle
from convergent.units.receptive_fields import sides

BASE = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
NET = """from torch import nn


def net():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 10))
"""
LAYERS = {"conv1": "1", **dict.fromkeys(BASE["layers"][1:])}
MINE = {"model": "nets.py:net", "weights": "a.pt", "layers": LAYERS}
FIRST, SECOND = BASE["nets"]["net1"], BASE["nets"]["net2"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder of a user with a net of their own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NET, encoding="utf-8")
    torch.save({"3.bias": torch.zeros(10)}, "a.pt")


def run(nets, **keys):
    """All that is checked before the first job."""
    values = copy.deepcopy(BASE) | {"nets": {"net1": FIRST, "net2": SECOND} | nets} | keys
    found = load(values, lambda net: ["1"])
    check_data(found, found.trains)
    for node in found.nodes.values():
        node.contents()
    return found


def test_what_the_faults_are_made_from_is_right():
    assert run({"mine": MINE}).nodes["mine"].kind == "brought"


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (MINE | {"model": "net.py:net"}, r"nets\.mine\.model: .* no file net\.py; did you m"),
        (MINE | {"model": "nets.py:"}, r"nets\.mine\.model\.name: .*write nets\.py:function"),
        (MINE | {"model": "nets:net"}, r"nets\.mine\.model\.name: .*must be path\.py:function"),
        (MINE | {"weights": "b.pt"}, r"nets\.mine\.weights: .*b\.pt: cannot be read .*mean a\.pt"),
        (MINE | {"weights": "."}, r"nets\.mine\.weights: .*cannot be read \(Is a directory\)$"),
        (MINE | {"layers": dict.fromkeys(BASE["layers"])}, r"nets\.mine\.layers: all layers ar"),
        (MINE | {"classes": [99] * 10}, r"nets\.mine\.classes: 99 is no label.* 0 to 9"),
        (MINE | {"seed": 1}, r"nets\.mine\.seed: a net with weights has no such key"),
        ({"seed": 9, "epochs": 0, "training": {"momentum": 0}}, r"nets\.mine\.training: an un"),
        ({"seed": 9, "epochs": 0, "data": {"subset": {"half": 0}}}, r"nets\.mine\.data\.subset: a"),
        ({"seed": 9, "epochs": 3, "training": {"epochs": 2}}, r"nets\.mine: epochs and train"),
        ({"seed": 9, "data": {"subset": {"classes": [99]}}}, r"nets\.mine\.data\.subset\.classes"),
        ({"of": "net1", "epoch": 3}, r"nets\.mine\.epoch: 3 .*keeps are none .*trained for 20"),
        ({"of": "mine", "epoch": 3}, r"nets\.mine\.of: 'mine' is not trained here; .* net1, net2"),
        (3, r"nets\.mine: should be keys with values, such as \{seed: 1\}, got 3"),
    ],
)  # fmt: skip
def test_a_fault_of_a_net_names_its_key(net, message):
    with pytest.raises(ConvergentError, match=message):
        run({"mine": net})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"pairs": []}, r"pairs: an empty list selects no pair"),
        ({"pairs": "within"}, r"pairs: 'within' .*nets\.net1\.group.* net1 none, net2 none"),
        ({"pairs": ["net1-net9"]}, r"pairs: 'net1-net9' selects no pair; the nets are net1, net2"),
        ({"layer_pairs": "every"}, r"layer_pairs: should be same, all, or pairs .* got 'every'"),
        ({"layer_pairs": [["conv1"]]}, r"layer_pairs: should be same, all, or pairs"),
        ({"layer_pairs": [["conv1", "conv9"]]}, r"layer_pairs: 'conv9' is not among layers"),
    ],
)
def test_a_fault_of_pairs_names_its_key(keys, message):
    with pytest.raises(ConfigError, match=message) as error:
        run({}, **keys)
    assert str(error.value).count("\n") == 1


def test_code_that_is_not_python_is_told_with_its_line(folder):
    with open("nets.py", "a", encoding="utf-8") as file:
        file.write("def other(:\n")
    with pytest.raises(ConvergentError, match=r"nets\.mine\.model: .*line 6 is not Python"):
        run({"mine": MINE})


@pytest.mark.parametrize(
    ("nets", "expected"),
    [
        ({"a": MINE, "b": MINE}, ["a", "b"]),
        # Names that config.yaml has, too, and nets of it that are left out anyway.
        ({"net1": MINE, "net2": MINE}, ["net1", "net2"]),
        ({**dict.fromkeys(BASE["nets"]), "a": MINE, "b": MINE}, ["a", "b"]),
        # Nothing can be compared with a single net but those that there are.
        ({"a": MINE}, [*BASE["nets"], "a"]),
        ({"a": {"seed": 9}}, [*BASE["nets"], "a"]),
        ({"a": MINE, "b": {"of": "net1", "epoch": 1}}, [*BASE["nets"], "a", "b"]),
        ({"net4": None, "a": MINE, "b": MINE}, ["net1", "net2", "net3", "a", "b"]),
    ],
)
def test_nets_of_an_overlay_join_those_of_the_default_or_stand_alone(nets, expected):
    merged = copy.deepcopy(BASE)
    merged["nets"] |= nets
    found = settle(merged, BASE, {"nets": nets})["nets"]
    assert [name for name, net in found.items() if net is not None] == expected


class Spectrum(nn.Module):
    """The axis of units of an FFT cannot be followed."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, x):
        return torch.fft.fft2(self.conv(x)).abs().mean((2, 3))


def test_a_stated_axis_of_units_holds_for_receptive_fields():
    places = {"spectrum": {"place": "abs", "unit_axis": 1}, "answer": "mean"}
    fields = partial(sides, build=Spectrum)
    found = layer_shapes(Spectrum, (1, 8, 8), places=places, receptive_fields=fields).layers
    assert found["spectrum"][2:] == ("y x unit", 4, 6, 6, 36, 8)
    assert found["answer"].units == 4


def test_the_file_itself_is_no_suggestion():
    os.mkdir("weights.pt")
    with pytest.raises(ConvergentError, match=r"weights\.pt: cannot be read \(Is a directory\)$"):
        run({"mine": MINE | {"weights": "weights.pt"}})


def test_what_training_keeps_on_the_way_is_no_part_of_the_origin():
    """Snapshots that are asked for later must not make recorded activations out of date."""
    before = run({"a": {"seed": 9}})
    training = BASE["training"] | {"snapshots": [0, 1]}
    after = run({"a": {"seed": 9, "training": {"snapshots": [2]}}}, training=training)
    assert after.origin == before.origin
    assert after.nodes["a"].training.kept == [2]
