"""An overlay may choose another architecture, and brings its keys with it."""

import re
from copy import deepcopy

import pytest
import yaml
from running import ROOT
from snakemake.utils import update_config

from convergent.config import ConfigError, load
from convergent.config.overlays import remark_on_nets, settle

BASE = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
VGG = {"name": "vgg11", "channels": [4, 4, 8, 8, 8, 8, 8, 8]}


def run(overlay, base=BASE):
    """The run of an overlay, merged as Snakemake merges it: overlay first."""
    merged, whole = {}, deepcopy(base)
    update_config(merged, overlay)
    update_config(whole, merged)
    return load(settle(whole, base, overlay))


def test_another_architecture_takes_nothing_of_the_first_ones():
    found = run({"model": VGG})
    assert found.model.name == "vgg11"
    default = type(found.model)(**VGG)
    assert found.model == default
    assert [layer[:4] for layer in found.layers[:8]] == ["conv"] * 8
    assert set(found.clusters.values()) == {"auto"}
    assert found.mapping.sgd.layers == []
    assert found.mapping.sgd.iterations == load(BASE).mapping.sgd.iterations


def test_what_the_overlay_says_stays():
    k = {"conv1": 3}
    found = run({"model": VGG, "layers": ["conv1", "conv8"], "clustering": {"k": k}})
    assert found.layers == ["conv1", "conv8"]
    assert found.clusters == {"conv1": 3, "conv8": "auto"}


def test_figures_show_the_first_layer_if_an_overlay_does_not_compare_the_one_shown():
    assert run({"layers": ["conv1", "conv2"]}).figures.layer is None
    assert run({"layers": ["conv2", "conv3"]}).figures.layer == "conv3"
    with pytest.raises(ConfigError, match=r"figures\.layer: 'conv5'"):
        run({"layers": ["conv1"], "figures": {"layer": "conv5"}})


def test_sgd_fits_those_of_its_layers_that_an_overlay_compares():
    base = deepcopy(BASE)
    base["mapping"]["sgd"]["layers"] = ["conv1", "conv2", "conv3"]
    assert run({"layers": ["conv1", "conv2"]}, base).mapping.sgd.layers == ["conv1", "conv2"]
    with pytest.raises(ConfigError, match=r"mapping\.sgd\.layers: 'conv3' is not among"):
        run({"layers": ["conv1"], "mapping": {"sgd": {"layers": ["conv3"]}}})


def test_keys_of_the_same_architecture_are_merged():
    found = run({"model": {"name": "alexnet", "dropout": 0.3}, "nets": {"net9": {"seed": 9}}})
    assert found.model.kernel == BASE["model"]["kernel"]
    assert found.model.dropout == 0.3
    assert list(found.nets) == [*BASE["nets"], "net9"]
    assert run({}) == load(BASE)


def test_a_key_of_the_other_architecture_is_refused():
    with pytest.raises(ConfigError, match=r"model\.kernel: no such key"):
        run({"model": VGG | {"kernel": 3}})


NEW = {"alice": {"seed": 5}, "bob": {"seed": 6}}


@pytest.mark.parametrize(
    ("nets", "found"),
    [
        (NEW, "alice bob"),
        (NEW | {"of_alice": {"of": "alice", "epoch": 1}}, "alice bob of_alice"),
        ({"alice": {"seed": 5}}, "net1 net2 net3 net4 alice"),
        ({"net2": {}} | NEW, "net1 net2 net3 net4 alice bob"),
        ({"net3": None} | NEW, "net1 net2 net4 alice bob"),
        ({"net4": {"epochs": 3}, "net1": None}, "net2 net3 net4"),
        # Controls and snapshots are compared with nets that are there.
        (
            {f"start{i}": {"seed": i, "epochs": 0} for i in (1, 2)},
            "net1 net2 net3 net4 start1 start2",
        ),
        (NEW | {"of_net1": {"of": "net1", "epoch": 1}}, "net1 net2 net3 net4 alice bob of_net1"),
    ],
)
def test_several_new_nets_stand_in_place_of_the_default_s(nets, found):
    overlay = {"nets": nets, "training": {"snapshots": [1]}}
    settled = run(overlay)
    assert " ".join(settled.nodes) == found
    # All else of config.yaml stays.
    default = load(BASE)
    assert (settled.layers, settled.clusters) == (default.layers, default.clusters)
    assert settled.figures == default.figures


@pytest.mark.parametrize(
    ("overlay", "remark"),
    [
        (
            {"nets": NEW},
            r"^nets: alice and bob are compared in place of net1, net2, net3, net4 of ",
        ),
        (
            {"nets": {"net1": {}} | NEW},
            r"^nets: alice and bob beside .* make 15 pairs; .*\{net4: null\}$",
        ),
        ({"nets": {"alice": {"seed": 5}}}, r"^nets: alice beside.*10 pairs"),
        ({"nets": {"net4": None} | NEW}, None),
        ({"nets": {"net1": {"epochs": 3}}}, None),
        ({}, None),
    ],
)
def test_new_nets_are_remarked_on_unless_the_others_are_named(overlay, remark):
    found = remark_on_nets(BASE, overlay, run(overlay).compared)
    assert found is None if remark is None else re.search(remark, found)


def test_the_remark_shows_how_to_keep_the_others():
    """What it proposes does it."""
    proposed = re.search(r"nets: (\{.*)\}$", remark_on_nets(BASE, {"nets": NEW}, []))[1]
    nets = yaml.safe_load(proposed.replace("...", "") + "}")
    assert len(run({"nets": nets | NEW}).compared) == 15
