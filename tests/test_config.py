"""Every fault of a configuration is named before anything runs."""

import copy
import datetime
import math
import random
from pathlib import Path

import numpy as np
import pytest
import yaml

from convergent import config
from convergent.config.overlays import settle
from convergent.nets.datasets import list_arrays
from convergent.nets.shapes import Layer

ROOT = Path(__file__).parents[1]


@pytest.fixture
def digits():
    values = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    # Which every test that chooses layers has.
    return values | {"figures": {"layer": "conv1"}}


def merged(values, overlay):
    """What Snakemake makes of a config file over another."""
    result = dict(values)
    for key, value in overlay.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def test_default_run_is_four_nets_on_digits(digits):
    run = config.load(digits)
    assert list(run.compared) == [
        "net1-net2", "net1-net3", "net1-net4", "net2-net3", "net2-net4", "net3-net4",
    ]  # fmt: skip
    assert [net.seed for net in run.nets.values()] == [1, 2, 3, 4]
    assert run.pair == "net1-net2"
    config.check_data(run)


@pytest.mark.parametrize("preset", sorted((ROOT / "presets").glob("*.yaml")), ids=lambda p: p.stem)
def test_presets_are_valid_over_the_default(digits, preset):
    overlay = yaml.safe_load(preset.read_text(encoding="utf-8"))
    run = config.load(settle(merged(digits, overlay), digits, overlay))
    assert run.run == preset.stem


def test_imagenet_preset_is_the_paper_s_run(digits):
    overlay = yaml.safe_load((ROOT / "presets/imagenet.yaml").read_text(encoding="utf-8"))
    run = config.load(merged(digits, overlay))
    for part in ("model", "training"):
        assert getattr(run, part) == type(getattr(run, part))()
    assert run.layers == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"]


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ({"clustering": {"k": {"conv1": 0}}}, r"clustering\.k: should be .* got .'conv1': 0"),
        ({"clustering": {"k": "some"}}, r"clustering\.k: should be a number of clusters, auto"),
        ({"units": {"pictures": "some"}}, r"units\.pictures: should be all, none, or by layer"),
        ({"units": {"pictures": {"fc6": 3}}}, r"units\.pictures: should be all, none, or by"),
        ({"trainig": {}}, "trainig: no such key; the keys here are run, nets"),
        ({"training": {"epoch": 3}}, "training.epoch: no such key; the keys here are epochs"),
        ({"nets": {"net1": {"sed": 1}}}, "nets.net1.sed: no such key; the keys here are seed"),
        ({"data": {"train_transform": {"flp": 1}}}, "data.train_transform.flp: no such key"),
        ({"training": {"epochs": "many"}}, "training.epochs: .* integer.*, got 'many'"),
        ({"training": {"optimizer": "adam"}}, "training.optimizer: .*'sgd' or 'adamw', got 'adam'"),
        ({"model": {"channels": [1, 2]}}, "model.channels: .* at least 5"),
        ({"model": {"dropout": 1.0}}, "model.dropout: .* less than 1, got 1.0"),
        ({"layers": ["conv1", "conv9"]}, "layers: alexnet has no layer 'conv9'; it has conv1"),
        ({"layers": ["conv1", "conv1"]}, "layers: name each layer once"),
        ({"layers": ["conv2"], "figures": {"layer": "conv1"}}, "figures.layer: 'conv1' is not am"),
        ({"nets": {"net2": {"seed": 1}}}, "nets.net2.seed: 1 is already the seed of net1"),
        ({"nets": {"net1": {"seed": -1}}}, "nets.net1.seed: .* greater than or equal to 0"),
        ({"nets": {"a-b": {"seed": 9}}}, "nets.a-b: not a valid name; "),
        ({"run": "../elsewhere"}, "run: .* got '../elsewhere'"),
        ({"run": None}, "run: .* valid string"),
        ({"figures": {"pair": "net2-net1"}}, "figures.pair: 'net2-net1' is none of net1-net2"),
        ({"data": {"name": "imagefolder"}}, "data.root: missing; say where"),
        ({"data": {"std": [0.1, 0.1, 0.1]}}, "data.mean: needs as many numbers as std"),
        ({"data": {"mean": [0.5] * 3, "std": [0.5] * 3}}, "data.mean: 3 numbers do not fit digits"),
        ({"data": {"train_transform": {"resize": "big"}}},
         r"data.train_transform.resize: should be a number .* \[height, width\], got 'big'"),
        ({"training": {"learning_rate": float("inf")}}, "training.learning_rate: .* finite"),
        ({"data": {"size": 17}}, "data.validation_transform.resize: 16 pixels leave no view"),
        ({"model": {"name": "lenet"}}, "model.name: should be alexnet, .*, got 'lenet'"),
        ({"model": {"depth": 3}}, "model.depth: no such key; the keys here are name, channels"),
        ({"activations": {"images": 10}}, "statistics.blocks: 20 blocks need at least as many"),
        ({"statistics": 3}, "statistics: "),
        ({"nulls": {"rotation": -1}}, "nulls.rotation: .* greater than or equal to 0, got -1"),
        ({"nulls": {"images": 2.5}}, "nulls.images: .* integer.*, got 2.5"),
        ({"nulls": {"level": 1}}, "nulls.level: .* less than 1, got 1"),
        ({"nulls": {"level": 0.5}}, "nulls.level: .* greater than 0.5, got 0.5"),
        ({"nulls": {"permutation": 3}}, "nulls.permutation: no such key; the keys here are rotat"),
    ],
)  # fmt: skip
def test_faults_are_named_by_their_key(digits, overlay, message):
    with pytest.raises(config.ConfigError, match=message):
        config.load(merged(digits, overlay))


@pytest.mark.parametrize(
    ("level", "needed"), [(0.95, 19), (0.9, 9), (0.99, 99), (0.975, 39), (0.6, 2)]
)
def test_too_few_draws_for_the_level_are_told(digits, level, needed):
    enough = {"rotation": needed, "images": 0, "maps": needed + 1, "level": level}
    assert config.load(merged(digits, {"nulls": enough})).nulls.too_few() == ""
    few = {"rotation": needed - 1, "images": 1}
    told = config.load(merged(digits, {"nulls": enough | few})).nulls.too_few()
    assert f"nulls.rotation: {needed - 1}, nulls.images: 1: fewer than the {needed}" in told
    # With fewer than that the least p value is above 1 - level.
    assert 1 / (needed + 1) <= 1 - level + 1e-12 < 1 / needed + 2e-12


def test_presets_have_the_draws_of_the_default_but_where_they_cost_too_much(digits):
    for preset in (ROOT / "presets").glob("*.yaml"):
        overlay = yaml.safe_load(preset.read_text(encoding="utf-8"))
        run = config.load(settle(merged(digits, overlay), digits, overlay))
        # Groups of nets are compared by exchanging nets, not with draws for each of many pairs.
        if run.sweep is None:
            assert run.nulls.rotation >= run.nulls.needed, preset.stem
            assert run.nulls.untrained, preset.stem


def test_pairs_of_nets_that_began_differently_are_compared_with_their_untrained_nets(digits):
    nets = {
        "net3": None,
        "net4": None,
        "again": {"seed": 1, "training": {"weight_decay": 0.1}},
        "wide": {"seed": 1, "model": {"channels": [8, 8, 8, 8, 8]}},
        "start": {"seed": 1, "epochs": 0},
        "early": {"of": "net1", "epoch": 1},
        "first": {"of": "net1", "epoch": 0},
    }
    overlay = {"nets": nets, "training": {"snapshots": [0, 1]}}
    run = config.load(merged(digits, overlay | {"pairs": ["all", "*-early", "*-first", "*-start"]}))
    assert len(run.compared) > 12
    assert set(run.controlled) == {
        "net1-net2", "net1-wide", "net2-again", "net2-wide", "net2-early", "again-wide",
        "wide-early",
    }  # fmt: skip
    overlay |= {"nulls": {"untrained": False}}
    assert config.load(merged(digits, overlay)).controlled == {}


def test_a_single_net_is_refused(digits):
    with pytest.raises(config.ConfigError, match=r"nets: at least two .* got 1"):
        config.load(digits | {"nets": {"net1": {"seed": 1}}})


def test_an_overlay_leaves_nets_out_with_null(digits):
    run = config.load(merged(digits, {"nets": {"net2": None, "net4": None}}))
    assert list(run.compared) == ["net1-net3"]


def test_all_faults_are_named_at_once(digits):
    with pytest.raises(config.ConfigError, match=r"model\.stride(.|\n)*training\.epochs"):
        config.load(merged(digits, {"training": {"epochs": 0}, "model": {"stride": 0}}))


def folders(root, train=1, val=1):
    for split, n in (("train", train), ("val", val)):
        for i in range(n):
            (root / split / "cat").mkdir(parents=True, exist_ok=True)
            (root / split / "cat" / f"{i}.png").touch()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: None, r"data\.root: there is no folder"),
        (lambda root: root.mkdir(), r"data\.root: .*train is missing"),
        (lambda root: (root / "train").mkdir(parents=True), r"val is missing; expected"),
        (lambda root: folders(root, val=19), r"statistics\.blocks: 20 .* imagefolder has 19"),
        (lambda root: folders(root, val=20), None),
    ],
)
def test_image_folders_are_looked_at_first(digits, tmp_path, prepare, message):
    prepare(tmp_path / "root")
    data = {"name": "imagefolder", "root": str(tmp_path / "root")}
    run = config.load(merged(digits, {"data": data}))
    if message is None:
        config.check_data(run)
        assert config.image_sources(run) == [
            str(tmp_path / "root/train/cat"), str(tmp_path / "root/val/cat"),
        ]  # fmt: skip
    else:
        with pytest.raises(config.ConfigError, match=message):
            config.check_data(run)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (None, r"data\.root: there is no file"),
        ({"labels": np.zeros(76)}, r"statistics\.blocks: 20 .* arrays has 19"),
        ({"labels": np.zeros(81)}, None),
        ({"labels": np.zeros(80), "validation": np.arange(80) < 19}, "arrays has 19"),
        ({"images": np.zeros(80)}, "is not an .npz file with images and labels"),
    ],
)
def test_array_files_are_looked_at_first(digits, tmp_path, arrays, message):
    path = tmp_path / "x.npz"
    if arrays is not None:
        np.savez(path, **arrays)
    run = config.load(merged(digits, {"data": {"name": "arrays", "root": str(path)}}))
    if message is None:
        config.check_data(run)
        assert config.image_sources(run) == [str(path)]
    else:
        with pytest.raises(config.ConfigError, match=message):
            config.check_data(run)


@pytest.mark.parametrize(
    ("labels", "trains", "made", "message"),
    [
        (True, False, ["val/cat"], None),
        (True, True, ["val/cat"], r"train is missing; .*/train and .*/val \(or test\)$"),
        (True, False, ["cat"], r"val is missing; .* without classes and data\.labels: false"),
        (False, False, [""], None),
        (False, False, ["test"], None),
        (False, False, ["val"], None),
        (False, True, ["val"], r"data\.labels: nets cannot be trained"),
    ],
)
def test_folders_that_only_training_needs_may_be_missing(
    digits, tmp_path, labels, trains, made, message
):
    for folder in made:
        (tmp_path / "root" / folder).mkdir(parents=True)
        for image in range(25):
            (tmp_path / "root" / folder / f"{image}.png").touch()
    data = {"name": "imagefolder", "root": str(tmp_path / "root"), "labels": labels}
    run = config.load(merged(digits, {"data": data}))
    if message:
        with pytest.raises(config.ConfigError, match=message):
            config.check_data(run, trains)
    else:
        config.check_data(run, trains)
        assert config.count_images(run.data, trains) == (0, 25)
        assert config.image_sources(run, trains) == [str(tmp_path / "root" / made[0])]


def test_a_folder_of_fewer_images_than_blocks_is_refused_without_labels_too(digits, tmp_path):
    for image in range(19):
        (tmp_path / f"{image}.png").touch()
    data = {"name": "imagefolder", "root": str(tmp_path), "labels": False}
    with pytest.raises(config.ConfigError, match=r"statistics\.blocks: 20 .* has 19"):
        config.check_data(config.load(merged(digits, {"data": data})), trains=False)


@pytest.mark.parametrize(
    ("given", "counts"),
    [
        ({"labels": True}, (60, 20)),
        ({"labels": True, "trains": False}, (0, 20)),
        ({"labels": False}, (0, 80)),
        ({"labels": False, "mask": np.arange(80) < 33}, (0, 33)),
        ({"labels": True, "mask": np.ones(80), "trains": False}, (0, 80)),
    ],
)
def test_counted_arrays_are_those_that_are_listed(digits, tmp_path, given, counts):
    path, labels, trains = tmp_path / "x.npz", given["labels"], given.get("trains", True)
    arrays = {"images": np.zeros((80, 8, 8), np.uint8)}
    arrays |= {"labels": np.arange(80) % 4} if labels else {}
    arrays |= {"validation": given["mask"]} if "mask" in given else {}
    np.savez(path, **arrays)
    data = {"name": "arrays", "root": str(path), "labels": labels}
    run = config.load(merged(digits, {"data": data}))
    assert config.count_images(run.data, trains) == counts
    listing, _ = list_arrays("arrays", str(path), **run.data.split, labels=labels, trains=trains)
    splits = listing["split"].value_counts()
    assert (splits.get("train", 0), splits["validation"]) == counts


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ({"data": {"subset": {}}}, "data.subset: should have one of classes, .* got none"),
        (
            {"data": {"subset": {"half": 0, "fraction": 0.5}}},
            "data.subset: .* got fraction and half",
        ),
        ({"data": {"subset": {"half": 2}}}, r"data\.subset\.half: .*got 2"),
        (
            {"data": {"subset": {"part": 2}}},
            r"data\.subset\.part: no such key; .*classes, fraction",
        ),
        ({"data": {"labels": False, "subset": {"half": 0}}}, "data.subset: images without labels"),
        ({"training": {"snapshots": [1, 0, 1.0]}}, "training.snapshots: each epoch once"),
        ({"training": {"snapshots": [-1]}}, r"training\.snapshots\.0: "),
        ({"training": {"step_epochs": []}}, r"training\.step_epochs\."),
    ],
)
def test_subsets_and_snapshots_that_cannot_be_are_named(digits, overlay, message):
    with pytest.raises(config.ConfigError, match=message):
        config.load(merged(digits, overlay))


def test_snapshots_after_the_last_epoch_are_not_kept(digits):
    training = {"epochs": 5, "snapshots": [0, 7, 0.1, 5]}
    assert config.load(merged(digits, {"training": training})).training.kept == [0, 0.1, 5]


def test_layers_of_the_default_architecture_are_none_of_others(digits):
    overlay = {
        "nets": {
            "a": {"model": "torchvision:resnet18", "weights": "a.pt"},
            "b": {"model": "torchvision:resnet34", "weights": "b.pt", "layers": {"other": "relu"}},
            "c": {"model": "torchvision:resnet34", "weights": "c.pt"},
        },
        "pairs": "a-c",
    }
    values = settle(merged(digits, overlay), digits, overlay)
    run = config.load(values, lambda net: [net["model"]["name"][-2:], "layer1"])
    assert [node.layers for node in run.nodes.values()] == [
        ["18", "layer1"], ["other"], ["34", "layer1"],
    ]  # fmt: skip


def test_views_of_training_images_matter_only_if_a_net_is_trained(digits):
    """Those of config.yaml are too small for others' nets."""
    overlay = {
        "nets": {
            "a": {"model": "torchvision:resnet18", "seed": 1, "epochs": 0},
            "b": {"model": "torchvision:resnet18", "weights": "b.pt"},
        },
        "pairs": "a-b",
        "layers": ["layer1"],
        "data": {"size": 32, "validation_transform": {"resize": 32}},
    }
    assert not config.load(settle(merged(digits, overlay), digits, overlay)).trains
    overlay["nets"]["a"]["epochs"] = 1
    with pytest.raises(config.ConfigError, match=r"data\.train_transform\.resize: 16 pixels leave"):
        config.load(settle(merged(digits, overlay), digits, overlay))


# Layers of a net: 24 units in 16 positions, and 10 units.
SHAPES = {
    "conv1": Layer("conv1", "relu", "y x unit", 24, 4, 4, 16, 3),
    "fc6": Layer("fc6", "relu", "unit", 10, None, None, 1, None),
}


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ({}, None),
        ({"layers": ["conv1"]}, None),
        ({"units": {"pictures": {"fc6": [3, 10]}}}, "units.pictures.fc6: there is no unit 10"),
        ({"units": {"pictures": {"conv1": [23], "fc6": []}}}, None),
        (
            {"clustering": {"k": 21}},
            "clustering.k: 21 clusters requested for fc6, but both .* 20 units",
        ),
        (
            {"clustering": {"alpha": 0.04}},
            "alpha: clusters of at most 0.8 units of fc6 .* least 0.05",
        ),
        (
            {"activations": {"images": 20}},
            r"activations.images: 20 validation .* give 20 samples of",
        ),
        ({"data": {"validation_fraction": 0.011}, "statistics": {"blocks": 2}}, "data: 20 valid"),
    ],
)
def test_keys_are_checked_against_the_shapes_of_the_net(digits, overlay, message):
    base = {"mapping": {"sgd": {"layers": []}}, "clustering": {"k": 5}, "layers": ["conv1", "fc6"]}
    run = config.load(merged(merged(digits, base), overlay))
    if message is None:
        config.check_shapes(run, "net1", {"net1": SHAPES, "net2": SHAPES})
    else:
        with pytest.raises(config.ConfigError, match=message):
            config.check_shapes(run, "net1", {"net1": SHAPES, "net2": SHAPES})


def test_all_layers_are_compared_where_none_are_named(digits):
    run, named = (config.load(digits | layers) for layers in ({"layers": []}, {}))
    assert run.layer_names == named.layer_names
    assert run.origin == named.origin


def test_nets_of_other_architectures_have_their_own_default_layers(digits):
    other = {"model": "torchvision:resnet18", "seed": 5, "epochs": 0}
    values = digits | {"layers": [], "nets": digits["nets"] | {"other": other, "another": other}}
    values["nets"]["another"] = other | {"seed": 6}
    run = config.load(values | {"pairs": "net*-net*"}, lambda net: [net["model"]["name"], "b"])
    assert run.nodes["other"].layers == ["torchvision:resnet18", "b"]
    assert run.nodes["net1"].layers == digits["layers"]


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ({"seed": 5, "epochs": 0, "classes": [1, 0]}, None),
        ({"seed": 5, "classes": [1, 0]}, r"nets.other.classes: a net that is trained on the run's"),
        ({"seed": 5, "epochs": 0, "prefix": "x."}, r"nets.other.prefix: a net without weights"),
    ],
)
def test_an_untrained_net_may_have_other_classes(digits, net, message):
    values = digits | {"nets": digits["nets"] | {"other": net}}
    if message is None:
        assert config.load(values).nodes["other"].own.classes == [1, 0]
    else:
        with pytest.raises(config.ConfigError, match=message):
            config.load(values)


def test_an_overlay_leaves_out_keys_of_the_architecture_and_layers_with_null(digits):
    overlay = {"model": {"dropout": None, "stride": "null"}, "clustering": {"k": {"fc7": None}}}
    run = config.load(merged(digits, overlay))
    assert (run.model.dropout, run.model.stride, run.clusters["fc7"]) == (0.5, 4, "auto")


def test_more_blocks_than_digits_are_refused(digits):
    run = config.load(merged(digits, {"statistics": {"blocks": 500}}))
    with pytest.raises(config.ConfigError, match=r"500 blocks .* digits has 450"):
        config.check_data(run)


def test_more_images_than_there_are_cannot_be_recorded(digits):
    run = config.load(merged(digits, {"activations": {"images": 451}}))
    with pytest.raises(config.ConfigError, match=r"activations\.images: 451 .* digits has 450"):
        config.check_data(run)


def test_schema_and_documentation_are_up_to_date():
    """Made by `python -m convergent.config`."""
    schema = ROOT / "workflow/schemas/config.schema.json"
    assert schema.read_text(encoding="utf-8") == config.schema()
    assert (ROOT / "docs/configuration.md").read_text(encoding="utf-8") == config.documentation()


def test_every_key_is_documented_by_a_noun():
    rows = config.documentation().splitlines()[6:]
    assert len(rows) > 35
    meanings = [row.split("|")[4].strip() for row in rows]
    assert all(len(meaning) > 10 for meaning in meanings), rows
    assert not [meaning for meaning in meanings if meaning.split()[0] in ("Of", "In", "At")]


@pytest.mark.parametrize(
    ("pictures", "expected"),
    [
        ("all", {"conv1": None, "fc6": None}),
        ("none", {}),
        ({"fc6": [3, 1], "conv5": "all"}, {"fc6": [3, 1]}),
    ],
)
def test_units_with_pictures(digits, pictures, expected):
    values = merged(digits, {"units": {"pictures": pictures}, "mapping": {"sgd": {"layers": []}}})
    assert config.load(values | {"layers": ["conv1", "fc6"]}).pictures == expected


@pytest.mark.parametrize(
    ("k", "expected"), [(4, [4, 4]), ("auto", ["auto"] * 2), ({"fc6": 9}, ["auto", 9])]
)
def test_numbers_of_clusters(digits, k, expected):
    values = merged(digits, {"mapping": {"sgd": {"layers": []}}})
    values |= {"layers": ["conv1", "fc6"], "clustering": {"k": k, "alpha": 0.1}}
    assert list(config.load(values).clusters.values()) == expected


@pytest.mark.parametrize("layers", [["conv2", "conv1"], ["fc6", "conv1", "conv2"]])
def test_layers_come_in_the_order_of_the_net(digits, layers):
    values = merged(digits, {"mapping": {"sgd": {"layers": layers[:2]}}})
    run = config.load(values | {"layers": layers})
    assert run.layers == run.layers_of_pair("net1-net2") == sorted(layers)
    assert run.sgd_layers == sorted(layers[:2])
    assert run.second_layer_of("net1", "net2") == "conv2"
    for made in (run.clusters, run.pictures):
        assert list(made) == sorted(layers)
    assert run == config.load(values | {"layers": sorted(layers)})


# What somebody, or another program, may put where something else belongs.
ANYTHING = [
    None, "null", True, False, 0, 1, -1, 2, 3, 7, 21, 10**6, 10**30, -(10**30), 2**31, 2**63, 0.5,
    1.5, -0.0, 1e-300, 1e300, math.nan, math.inf, -math.inf, "", "a", "../x", "/etc/passwd",
    "a b", "a\nb", "{net}", "net1-net2", "conv1", "fc7", "fc8", "auto", "all", "none", "cpu", "é",
    "\0", "x" * 300, "1", "1e3", "0x10", [], {}, [1], ["conv1"], ["conv1"] * 2, [None], [[]],
    {"a": 1}, {"conv1": 1}, {"conv1": None}, {"conv1": []}, {1: 2}, {None: 1}, datetime.date(2020,
    1, 1), b"x", (1, 2), [1, 2], [0.5], [0.5] * 3, {"seed": 1}, {"seed": 9}, [16, 16], [10**9] *
    2, "digits", "cifar10", "arrays", "imagefolder", "imagenet", "paper", "reference", "step",
    "float16", "tcp://a:1", {"layers": ["fc6"]},
]  # fmt: skip
KEYS = ["x", "nets", "run", "seed", 1, None, True, "a.b", "[key]", "{x}", "conv1"]


def places(value, path=()):
    """Paths of all keys and entries."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


def mutated(rng, values):
    """A configuration with one to three things changed, left out, renamed, doubled or moved."""
    values = copy.deepcopy(values)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        paths = list(places(values))
        *path, key = rng.choice(paths)
        parent = values
        for part in path:
            parent = parent[part]
        change, value = rng.randrange(10), parent[key]
        if change < 5:
            parent[key] = copy.deepcopy(rng.choice(ANYTHING))
        elif change == 5:
            del parent[key]
        elif change == 6 and isinstance(parent, dict):
            parent[rng.choice(KEYS)] = parent.pop(key)
        elif change == 7:
            parent[key] = value * 2 if isinstance(value, list) else str(value)
        elif type(value) in (int, float):
            parent[key] = value * rng.choice([-1, 0, 10, 1000, 0.001])
        else:
            other = values
            for part in rng.choice(paths):
                other = other[part] if isinstance(other, dict | list) and part in other else 3
            parent[key] = copy.deepcopy(other)
    return values


@pytest.mark.parametrize("seed", range(4))
def test_any_configuration_is_accepted_or_its_key_named(digits, seed):
    """Accepted means that all the workflow asks of it has an answer."""
    rng, accepted, unnamed = random.Random(seed), 0, []
    asked = [name for name, value in vars(config.Config).items() if isinstance(value, property)]
    for _ in range(750):
        values = mutated(rng, digits)
        try:
            run = config.load(values)
            for name in asked:
                getattr(run, name)
            assert config.load(run.model_dump(mode="json")) == run
            accepted += 1
            config.check_data(run)
        except config.ConfigError as error:
            first, *rest = str(error).split("\n  ")
            # Pydantic writes the key `true` as 1.
            keys = (*config.Config.model_fields, *map(str, values), "1")
            unnamed += [line for line in rest or [first] if not line.startswith(keys)]
    assert not unnamed
    assert 50 < accepted < 400
