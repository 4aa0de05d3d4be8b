"""A sweep writes out groups of nets, and its faults are told by its own keys."""

import itertools

import pytest
from running import copy_project, planned, snakemake
from test_overlays import run

from convergent.config import ConfigError, check_data, load

DROPOUT = {"plain": {}, "dropless": {"model": {"dropout": 0}}}


def swept(sweep, **others):
    return run({"sweep": sweep, **others})


def test_groups_have_a_net_for_each_seed_and_stand_in_place_of_those_of_config_yaml():
    found = swept({"seeds": [1, 3], "groups": DROPOUT})
    assert list(found.nets) == ["plain_1", "plain_3", "dropless_1", "dropless_3"]
    assert [node.group for node in found.nodes.values()] == [*["plain"] * 2, *["dropless"] * 2]
    assert [node.model.dropout for node in found.nodes.values()] == [0.5, 0.5, 0, 0]
    assert len(found.compared) == 6
    # The layers of config.yaml stay, and what it says of them.
    assert found.layers == run({}).layers
    assert found.clusters == run({}).clusters


def test_no_two_nets_of_a_sweep_start_from_the_same_weights():
    found = swept({"seeds": [1, 2], "groups": DROPOUT, "keys": {"training.weight_decay": [0, 1]}})
    starts = [node.start for node in found.nodes.values()]
    assert all(a != b for a, b in itertools.combinations(starts, 2))
    assert [node.seed for node in found.nodes.values()][:4] == [1, 2, 101, 102]


def test_keys_make_a_group_of_each_combination():
    keys = {"model.dropout": [0, 0.5], "training.weight_decay": [0, 0.01]}
    found = swept({"seeds": [1], "keys": keys})
    assert {
        name: (node.model.dropout, node.training.weight_decay) for name, node in found.nodes.items()
    } == {
        "dropout_0_weight_decay_0_1": (0, 0),
        "dropout_0_weight_decay_0_01_1": (0, 0.01),
        "dropout_0_5_weight_decay_0_1": (0.5, 0),
        "dropout_0_5_weight_decay_0_01_1": (0.5, 0.01),
    }
    both = swept({"seeds": [1], "groups": {"a": {}, "b": {"epochs": 3}}, "keys": keys})
    assert len(both.nets) == 8
    assert both.nodes["b_dropout_0_weight_decay_0_1"].training.epochs == 3


def test_a_key_inside_a_section_leaves_what_is_beside_it():
    found = swept({"seeds": [1], "keys": {"data.train_transform.shift": [0, 1]}})
    views = [node.data.train_transform for node in found.nodes.values()]
    assert [view.shift for view in views] == [0, 1]
    assert {(view.resize, view.flip) for view in views} == {(16, False)}


def test_nets_that_the_overlay_names_are_there_beside_the_sweep():
    found = swept(
        {"seeds": [8, 9], "groups": DROPOUT}, nets={"net2": {"group": "old"}, "net3": None}
    )
    assert list(found.nets) == ["net2", "plain_8", "plain_9", "dropless_8", "dropless_9"]
    assert (found.nodes["net2"].seed, found.nodes["net2"].group) == (2, "old")


def test_what_jobs_get_has_the_nets_written_out():
    found = swept({"groups": DROPOUT}, layers=["conv1"])
    again = load(found.model_dump(mode="json"))
    assert again.nodes == found.nodes


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({}, r"sweep: has no group"),
        ({"groop": {}}, r"sweep\.groop: no such key; the keys here are seeds, groups, keys, most"),
        ({"seeds": [1, 1], "groups": DROPOUT}, r"sweep\.seeds: each seed once"),
        ({"seeds": [100], "groups": DROPOUT}, r"sweep\.seeds\.0: .*less than 100"),
        (
            {"groups": {"plain": {"model": {"dropoutt": 0}}}},
            r"sweep\.groups\.plain\.model\.dropoutt: no such key; .*dropout",
        ),
        ({"groups": {"plain": {"modell": 0}}}, r"sweep\.groups\.plain\.modell: no such key"),
        ({"groups": {"9lives": {}}}, r"sweep\.groups\.9lives: not a valid name"),
        ({"groups": {"a": {"seed": 3}}}, r"sweep\.groups\.a\.seed: not a key of a group"),
        ({"groups": {"a": {"weights": "a.pt"}}}, r"sweep\.groups\.a\.weights: not a key"),
        (
            {"groups": {"a": {"data": {"subset": {"classes": []}}}}},
            r"sweep\.groups\.a\.data\.subset\.classes: .*at least 1 item",
        ),
        ({"keys": {"model.dropoutt": [0]}}, r"sweep\.keys\.model\.dropoutt: no such key"),
        ({"keys": {"model.dropout": [0, 2]}}, r"sweep\.keys\.model\.dropout: .*less than 1, got 2"),
        ({"keys": {"epochs": ["few"]}}, r"sweep\.keys\.epochs: .*got 'few'"),
        ({"keys": {"dropout": [0]}}, r"sweep\.keys: 'dropout' is not the path of a key"),
        ({"keys": {"training": [{}]}}, r"sweep\.keys: 'training' is not the path of a key"),
        ({"keys": {"model.dropout": []}}, r"sweep\.keys\.model\.dropout: .*at least 1 item"),
        (
            {"keys": {"model.dropout": [0.5, "0_5"]}},
            r"sweep\.keys: two groups would be called dropout_0_5; .*sweep\.groups",
        ),
        (
            {"keys": {"model.channels": [[100, 101, 102, 103, 104] * 4]}},
            r"sweep\.keys: channels_100.* is no name of a group; .*sweep\.groups",
        ),
        (
            {"groups": DROPOUT, "keys": {"model.dropout": [0, 0.5]}},
            r"sweep\.keys\.model\.dropout: sweep\.groups\.dropless sets it, too",
        ),
        (
            {"seeds": [1, 2, 3], "keys": {"training.epochs": [*range(1, 8)]}},
            r"sweep\.most: 7 groups of 3 are 21 nets to train, more than 20; .* raise sweep\.most "
            r"to 21",
        ),
    ],
)
def test_faults_are_told_by_the_keys_of_the_sweep(sweep, message):
    with pytest.raises(ConfigError, match=message):
        swept(sweep)


def test_a_bound_that_is_raised_admits_more_nets():
    keys = {"training.epochs": [*range(1, 8)]}
    assert len(swept({"seeds": [1, 2, 3], "keys": keys, "most": 21}).nets) == 21


def test_names_that_clash_with_other_nets_are_refused():
    with pytest.raises(ConfigError, match=r"nets\.plain_1: two nets have this name"):
        swept({"groups": DROPOUT}, nets={"plain_1": {"seed": 7}})
    with pytest.raises(ConfigError, match=r"sweep\.seeds: 1 is already the seed of net1"):
        swept({"groups": DROPOUT}, nets={"net1": {"group": "old"}})


@pytest.mark.parametrize(
    ("sweep", "key"),
    [
        ({"groups": {"a": {}, "b": {"data": {"subset": {"classes": [0, 12]}}}}}, "groups.b"),
        ({"keys": {"data.subset.classes": [[0, 1], [2, 12]]}}, "keys"),
        ({"keys": {"data.subset": [{"classes": [12]}]}}, "keys"),
    ],
)
def test_a_class_without_images_is_told_by_the_keys_of_the_sweep(sweep, key):
    found = swept(sweep)
    with pytest.raises(ConfigError, match=rf"sweep\.{key}\.data\.subset\.classes: no class '12'"):
        check_data(found)


def test_the_workflow_trains_the_nets_of_a_sweep_and_compares_their_groups(tmp_path):
    copy_project(tmp_path)
    sweep = "sweep={seeds: [1, 2], groups: {plain: {}, dropless: {model: {dropout: 0}}}}"
    found = planned(tmp_path, "conditions", "--config", sweep)
    assert {name: found[name] for name in ("train", "compare_layers", "conditions")} == {
        "train": 4,
        "compare_layers": 6,
        "conditions": 1,
    }
    printed = snakemake(tmp_path, "conditions", "-n", fails=True)
    assert "conditions: compares groups of nets" in printed
    assert "nets.net1.group" in printed
    few = "sweep={seeds: [1], keys: {model.dropoutt: [0, 1]}}"
    printed = snakemake(tmp_path, "conditions", "-n", "--config", few, fails=True)
    assert "sweep.keys.model.dropoutt: no such key" in printed
