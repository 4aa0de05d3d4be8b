"""An overlay may choose another architecture, and brings its keys with it."""

from copy import deepcopy

import pytest
import yaml
from running import ROOT
from snakemake.utils import update_config

from convergent.config import ConfigError, load
from convergent.config.overlays import settle

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
