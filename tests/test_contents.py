"""Files of a net that is brought along are inputs by their content, and nets by what they are."""

import os

import pytest
import torch
from running import RUN, copy_project, planned, snakemake
from torch import nn

BLOCKS = """from torch import nn


def block(inputs, units):
    return nn.Sequential(nn.Conv2d(inputs, units, 3, padding=1), nn.ReLU())
"""
NETS = """from blocks import block
from torch import nn


def small():
    return nn.Sequential(block(1, 5), nn.Flatten(), nn.Linear(1280, 3))
"""
OVERLAY = """
nets:
  mine: {model: nets.py:small, weights: a.pt, layers: {conv1: '0'}}
layers: {conv1: conv1}
training: {epochs: 1}
mapping: {sgd: {layers: []}}
"""
# What depends on the weights of one net of three.
OF_MINE = {
    "adopt": 1, "record": 1, "statistics": 1, "correlation": 2, "mutual_information": 2, "match": 2,
}  # fmt: skip
PAIRS = ("net1-net2", "net1-mine", "net2-mine")


def write_weights(folder, seed):
    torch.manual_seed(seed)
    block = nn.Sequential(nn.Conv2d(1, 5, 3, padding=1), nn.ReLU())
    net = nn.Sequential(block, nn.Flatten(), nn.Linear(1280, 3))
    torch.save(net.state_dict(), folder / "own/a.pt")


def asked(pairs=PAIRS):
    files = [f"{RUN}/pairs/{pair}/matching.csv" for pair in pairs]
    return (*files, "--configfile", "own/mine.yaml")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Three nets, one of them brought along, compared in a layer."""
    folder = tmp_path_factory.mktemp("contents")
    copy_project(folder)
    (folder / "own").mkdir()
    write_weights(folder, 0)
    for name, text in (("blocks.py", BLOCKS), ("nets.py", NETS), ("mine.yaml", OVERLAY)):
        (folder / "own" / name).write_text(text, encoding="utf-8")
    snakemake(folder, *asked())
    return folder


@pytest.fixture
def folder(finished):
    """The finished run, whose files are brought back after the test."""
    own = finished / "own"
    before = {path: path.read_bytes() for path in own.iterdir() if path.is_file()}
    yield finished
    for path, content in before.items():
        path.write_bytes(content)


def edit(folder, name, old, new):
    path = folder / "own" / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_dates_of_files_do_not_count(folder):
    for name in ("a.pt", "nets.py", "blocks.py"):
        os.utime(folder / "own" / name)
    assert planned(folder, *asked()) == {}


def test_a_local_import_that_changes_reruns_its_net_alone(folder):
    edit(folder, "blocks.py", "nn.ReLU()", "nn.ReLU6()")
    assert planned(folder, *asked()) == OF_MINE | {"shapes": 1}


def test_weights_that_change_rerun_their_net_alone(folder):
    write_weights(folder, 1)
    assert planned(folder, *asked()) == OF_MINE


def test_another_net_and_groups_rerun_nothing(folder):
    edit(folder, "mine.yaml", "nets:\n", "nets:\n  net1: {group: a}\n  net5: {seed: 5}\n")
    assert planned(folder, *asked()) == {}
    with_untrained = ("record", "statistics", "correlation")
    of_net5 = ("shapes", "train", "match", *(f"{name}_with_untrained" for name in with_untrained))
    found = planned(folder, *asked([*PAIRS, "net1-net5"]))
    assert found == {"mutual_information": 1, **dict.fromkeys(of_net5, 1)}


def test_a_net_that_is_left_out_and_other_pairs_rerun_nothing(folder):
    edit(folder, "mine.yaml", "layers: {conv1: conv1}", "layers: {conv1: conv1}\npairs: [net1-*]")
    assert planned(folder, *asked()) == {}
    edit(folder, "mine.yaml", "nets:\n", "nets:\n  net2: null\n")
    assert planned(folder, *asked(["net1-mine"])) == {}


def test_snapshots_that_are_kept_change_nothing_that_is_recorded(folder):
    edit(folder, "mine.yaml", "epochs: 1", "epochs: 1, snapshots: [0, 1]")
    edit(folder, "mine.yaml", "nets:\n", "nets:\n  net1: {training: {snapshots: [1]}}\n")
    assert planned(folder, *asked()) == {}
