"""Nothing is trained twice: what decides weights names their checkpoint, and nothing else does."""

import ast
import hashlib
import inspect
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from running import ROOT, copy_repository, planned, snakemake

from convergent import config
from convergent.nets import datasets, models, modules, recipe, training
from convergent.nets.architectures import alexnet, resnet
from convergent.running import devices

# A run of the version before, all that decides its weights, and the key of its net1.
KEY = "20860f73b834563f"
BEFORE = {
    "run": "before",
    "nets": {"net1": {"seed": 1}, "net2": {"seed": 2}},
    "device": "cpu",
    "data": {
        "name": "arrays", "root": "images.npz", "size": 16, "mean": [0.305], "std": [0.319],
        "train_transform": {"resize": 16, "shift": 1, "flip": False},
        "validation_transform": {"resize": 16},
    },
    "model": {
        "name": "alexnet", "channels": [1, 2, 2, 2, 1], "fully_connected": [2, 2], "kernel": 3,
        "stride": 1, "padding": 1, "dropout": 0.5, "init": "kaiming",
    },
    "training": {
        "epochs": 2, "batch_size": 10, "optimizer": "adamw", "learning_rate": 0.002,
        "momentum": 0.9, "weight_decay": 0.01, "schedule": "onecycle", "step_epochs": 20,
        "gamma": 0.1, "compile": False, "workers": 0,
    },
    "statistics": {"blocks": 2},
    "mapping": {"sgd": {"layers": []}},
    "clustering": {"k": "auto", "alpha": 0.5},
    "units": {"pictures": "all"},
}  # fmt: skip

# What trains, with a hash of its syntax tree when RECIPE got its present name or, since then, when
# somebody made sure that weights stay the same.
TRAINS = {
    models.build: "0f7524cd",
    alexnet.alexnet: "0562dd1c",
    models.options: "619d1756",
    modules.LocalResponseNorm: "23d71b36",
    modules._ResponseNorm: "2da89e34",
    modules._window_sum: "badfa746",
    modules.with_relu: "f6f09bd6",
    modules.ResidualBlock: "77e034bd",
    resnet.resnet: "9405addf",
    alexnet._initialize: "166f4713",
    alexnet._last_side: "e61776fb",
    datasets.Images: "67c79bd1",
    datasets.load: "e6b6a5de",
    datasets.subset: "85f9194d",
    datasets._labels: "acde488d",
    datasets._split: "93fb490e",
    datasets.normalize: "686c28b9",
    training.train: "184b2c3b",
    training._optimizer: "c7973a1d",
    training._scheduler: "7488984c",
    training._seeded: "7a40aff4",
    training._mixed: "4b351a81",
    devices.half_precision: "fac72a5d",
    devices.compiled: "c69f573e",
}
DECIDE = """
{what} decides the weights that a training ends with, and has changed. Decide:
- A training ends with the same weights, bit for bit (train a net before and after the change on
  one machine's CPU and compare; a GPU's path by reading): write {hash!r} beside it in TRAINS.
- It ends with others: do that, and give RECIPE in workflow/convergent/nets/recipe.py another name,
  so that no checkpoint of the old code passes for one of the new. Every net is then trained anew.
"""


def syntax(value):
    """A syntax tree as nested lists, the same in every version of Python; without docstrings."""
    if isinstance(value, list):
        return [syntax(v) for v in value]
    if not isinstance(value, ast.AST):
        return repr(value)
    fields = ((name, inner) for name, inner in ast.iter_fields(value) if inner not in (None, []))
    return [type(value).__name__, *((name, syntax(inner)) for name, inner in fields)]


def code_hash(definition):
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(definition))).body
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(inner):
            inner.body = inner.body[1:]
    return hashlib.sha256(repr(syntax(node)).encode()).hexdigest()[:8]


@pytest.mark.parametrize("definition", TRAINS, ids=lambda d: f"{d.__module__}.{d.__qualname__}")
def test_code_that_decides_weights_changes_with_a_decision_only(definition):
    found = code_hash(definition)
    what = f"{definition.__module__}.{definition.__qualname__}"
    assert found == TRAINS[definition], DECIDE.format(what=what, hash=found)


def write_images(folder):
    """Forty-four images by arithmetic, the same everywhere."""
    number, place = np.arange(44), np.arange(256).reshape(16, 16)
    pixels = (place * 7 + number[:, None, None] * 31) % 120 + 120 * (number[:, None, None] % 2)
    arrays = {"images": pixels.astype(np.uint8), "labels": number % 2, "validation": number >= 20}
    np.savez(folder / "images.npz", **arrays)


@pytest.fixture
def deciding(tmp_path):
    """Arguments that give the key of the version before."""
    write_images(tmp_path)
    listing, _ = datasets.list_arrays(
        "arrays", str(tmp_path / "images.npz"), validation_fraction=0.25, seed=0
    )
    run = config.load(BEFORE)
    return {
        "listing": listing,
        "seed": 1,
        "data": run.data.model_dump(),
        "model": run.model.model_dump(),
        "training": run.training.model_dump(exclude={"workers"}),
        "device": "cpu",
        "threads": 1,
    }


def test_the_key_is_that_of_the_version_before(deciding):
    assert recipe.checkpoint_key(**deciding) == KEY


def test_nets_of_the_default_run_are_found_again():
    run = config.load(yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8")))
    listing, _ = datasets.list_arrays("digits", None, **run.data.split)
    key = recipe.checkpoint_key(
        listing,
        seed=1,
        data=run.data.model_dump(),
        model=run.model.model_dump(),
        training=run.training.model_dump(exclude={"workers"}),
        device="cpu",
        threads=1,
    )
    assert key == "028e7ea60d46cfa2"


def test_where_images_lie_and_what_else_is_listed_of_them_do_not_count(deciding):
    listing = deciding["listing"].assign(path="elsewhere", identity=np.arange(44))
    assert recipe.checkpoint_key(**deciding | {"listing": listing[sorted(listing)]}) == KEY
    data = deciding["data"] | {"root": "elsewhere", "name": "digits", "seed": 5}
    assert recipe.checkpoint_key(**deciding | {"data": data}) == KEY


def test_what_decides_no_weights_does_not_count(deciding):
    training = deciding["training"] | {"workers": 5, "snapshots": [0, 0.5]}
    assert recipe.checkpoint_key(**deciding | {"training": training}) == KEY


def test_all_that_decides_weights_counts(deciding, monkeypatch):
    listing, changed = deciding["listing"], [{"seed": 2}, {"threads": 2}]
    changed += [{"listing": listing.assign(**{name: 7})} for name in recipe.COLUMNS]
    changed += [{"listing": listing.iloc[::-1]}]
    changed += [{"code": "one"}, {"code": "other"}]
    for part in ("data", "model", "training"):
        names = recipe.VIEWS if part == "data" else deciding[part]
        names = [name for name in names if f"{part}.{name}" not in recipe.WITHOUT_EFFECT]
        changed += [{part: deciding[part] | {name: "other"}} for name in names]
    transform = deciding["data"]["train_transform"] | {"shift": 2}
    changed += [{"data": deciding["data"] | {"train_transform": transform}}]
    keys = [recipe.checkpoint_key(**deciding | change) for change in changed]
    monkeypatch.setattr(recipe, "RECIPE", "another")
    keys.append(recipe.checkpoint_key(**deciding))
    assert len({KEY, *keys}) == len(changed) + 2


def test_a_gpu_s_half_precision_counts_and_its_threads_do_not(deciding, monkeypatch):
    def key(half, threads):
        monkeypatch.setattr(devices, "half_precision", lambda device: half)
        return recipe.checkpoint_key(**deciding | {"device": "cuda", "threads": threads})

    assert key(torch.float16, 1) == key(torch.float16, 8)
    assert len({key(torch.float16, 1), key(torch.bfloat16, 1), KEY}) == 3


def test_later_keys_count_only_where_a_training_is_another(deciding, monkeypatch):
    later = {"training.warmup": [], "data.train_transform.turn": 0}
    monkeypatch.setattr(recipe, "LATER", recipe.LATER | later)

    def key(warmup, turn):
        transform = deciding["data"]["train_transform"] | {"turn": turn}
        data = deciding["data"] | {"train_transform": transform}
        values = deciding["training"] | {"warmup": warmup}
        return recipe.checkpoint_key(**deciding | {"data": data, "training": values})

    assert key([], 0) == KEY
    assert len({KEY, key([1], 0), key([], 5), key([1], 5)}) == 4


def test_a_checkpoint_of_the_version_before_is_used_again(tmp_path):
    """Its weights come out as they are, and nothing is trained."""
    copy_repository(tmp_path)
    write_images(tmp_path)
    (tmp_path / "before.yaml").write_text(yaml.safe_dump(BEFORE), encoding="utf-8")
    net = tmp_path / "results/before/nets/net1"
    (net / "checkpoints").mkdir(parents=True)
    kept = Path(__file__).parent / f"fixtures/{KEY}.pt"
    (net / "checkpoints" / kept.name).write_bytes(kept.read_bytes())
    target = "results/before/nets/net1/weights.pt"
    snakemake(tmp_path, target, "--configfile", "before.yaml")
    log = (tmp_path / "results/before/logs/train/net1.log").read_text(encoding="utf-8")
    assert "net1: resumed after epoch 2 of 2" in log
    assert "epoch 1/2" not in log
    state = torch.load(kept, weights_only=True)
    weights = torch.load(net / "weights.pt", weights_only=True)
    assert list(weights) == list(state["net"])
    assert all(torch.equal(weights[name], state["net"][name]) for name in weights)
    history = pd.read_csv(net / "history.csv").to_dict("records")
    assert history == [pytest.approx(row) for row in state["history"]]
    assert (net / "checkpoints" / kept.name).read_bytes() == kept.read_bytes()
    assert [path.name for path in (net / "checkpoints").iterdir()] == [kept.name]
    assert planned(tmp_path, target, "--configfile", "before.yaml") == {}
