"""Files and names from elsewhere: nothing in them runs, and no name leaves the results folder."""

import ast
import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from snakemake.common.configfile import load_configfile
from snakemake.exceptions import WorkflowError

from convergent import ConvergentError, config
from convergent.nets import datasets, models, training

ROOT = Path(__file__).parents[1]
# Calls that run or unpickle what they read, and the arguments that keep them from it.
UNSAFE = {"read_pickle", "to_pickle", "unsafe_load", "full_load"}
SAFE_WITH = {("torch", "load"): ("weights_only", True), ("np", "load"): ("allow_pickle", False)}
TINY = {"channels": (4, 6, 8, 8, 6), "fully_connected": (10, 9), "kernel": 3, "stride": 1}
TINY |= {"name": "alexnet", "padding": 1, "dropout": 0.5, "init": "kaiming"}


class Trap:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def trap(tmp_path):
    trap = Trap(tmp_path / "sprung")
    pickle.loads(pickle.dumps(trap))
    trap.path.rmdir()  # it works
    yield trap
    assert not trap.path.exists()


def calls(file):
    """Calls in a file, as (object or None, function, keywords)."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name, owner = getattr(node.func, "id", None), None
            if name is None:
                name, owner = node.func.attr, getattr(node.func.value, "id", "something")
            yield owner, name, {k.arg: getattr(k.value, "value", None) for k in node.keywords}


def test_no_code_unpickles_or_evaluates():
    loads = 0
    for file in ROOT.glob("workflow/**/*.py"):
        text = file.read_text(encoding="utf-8")
        for module in ("pickle", "joblib", "dill", "shelve", "marshal"):
            assert f"import {module}" not in text, file
            assert f"from {module}" not in text, file
        for owner, name, keywords in calls(file):
            assert name not in UNSAFE, (file, name)
            assert owner is not None or name not in ("eval", "exec"), (file, name)
            if (owner, name) in SAFE_WITH:
                key, value = SAFE_WITH[owner, name]
                assert keywords.get(key) is value, (file, name)
                loads += 1
    assert loads > 3


@pytest.mark.parametrize("where", ["images", "labels", "validation"])
def test_arrays_that_hold_pickles_are_refused(tmp_path, trap, where):
    arrays = {"images": np.zeros((90, 8, 8), np.uint8), "labels": np.arange(90) % 3}
    arrays |= {"validation": np.arange(90) % 2}
    arrays[where] = np.array([trap] * 90, dtype=object)
    path = tmp_path / "x.npz"
    np.savez(path, **arrays)
    with pytest.raises(datasets.DataError, match=r"x\.npz: cannot be read"):
        datasets.list_arrays("arrays", str(path), validation_fraction=0.5, seed=0)
    values = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    values["data"] |= {"name": "arrays", "root": str(path)}
    if where != "images":
        with pytest.raises(config.ConfigError, match=r"data\.root: .*x\.npz is not an \.npz file"):
            config.check_data(config.load(values))
    np.savez(path, pixels=arrays[where])
    rows = pd.DataFrame({"label": [0], "path": ["0"], "crc32": [0]})
    with pytest.raises(datasets.DataError, match=r"x\.npz: cannot be read"):
        datasets.Images(rows, path, resize=8, size=8, channels=1)


@pytest.mark.parametrize("kind", ["torch", "pickle", "cut"])
def test_weights_and_checkpoints_that_are_something_else_are_refused(tmp_path, trap, kind):
    path = tmp_path / "x.pt"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(trap))
    else:
        torch.save({"net": trap if kind == "torch" else torch.zeros(1000)}, path)
    if kind == "cut":
        os.truncate(path, 900)
    net = {"model": TINY, "size": 16, "inputs": 1}
    with pytest.raises(
        models.WeightsError, match=r"(?s)x\.pt: cannot be read as weights .*--forcerun"
    ):
        models.load(path, net, 3)
    images = [None] * 4
    with pytest.raises(
        training.TrainingError, match=r"(?s)x\.pt: cannot be resumed .*move it away"
    ):
        training.train(
            lambda: torch.nn.Linear(2, 2), images, images, seed=1, mean=[0.5], std=[0.5], epochs=1,
            batch_size=2, optimizer="sgd", learning_rate=0.1, momentum=0.9, weight_decay=0,
            schedule="constant", step_epochs=1, gamma=0.1, checkpoint=path,
        )  # fmt: skip


def test_cifar10_is_opened_only_where_it_is_the_published_one(tmp_path, trap, monkeypatch):
    """Its own files are pickles; torchvision knows their checksums."""

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", offline)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch", "batches.meta"]:
        (folder / name).write_bytes(pickle.dumps(trap))
    with pytest.raises(datasets.DataError, match=rf"{tmp_path}: CIFAR-10 .*no network"):
        datasets.list_arrays("cifar10", str(tmp_path), validation_fraction=0.5, seed=0)


def bomb(path):
    """196 million pixels in 24 kilobytes."""
    Image.new("1", (14_000, 14_000)).save(path)
    assert path.stat().st_size < 50_000


def test_bombs_and_broken_images_are_refused_by_name(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / "cat").mkdir(parents=True)
        Image.new("L", (20, 20)).save(tmp_path / split / "cat/0.png")
    listing = datasets.list_folder(tmp_path)
    bomb(tmp_path / "train/cat/1.png")
    (tmp_path / "val/cat/1.jpg").write_bytes(b"")
    (tmp_path / "val/cat/2.jpg").write_text("<svg/>", encoding="utf-8")
    with pytest.raises(datasets.DataError) as error:
        datasets.list_folder(tmp_path, threads=2)
    message = str(error.value)
    assert "train/cat/1.png: " in message
    assert "bomb" in message
    assert "val/cat/1.jpg: " in message
    assert "val/cat/2.jpg: " in message
    # Put there after it was listed.
    bomb(tmp_path / "train/cat/0.png")
    rows = listing.query("split == 'train'")
    images = datasets.Images(rows, tmp_path, resize=20, size=20, channels=3)
    with pytest.raises(datasets.DataError, match=r"train/cat/0\.png: cannot be decoded .*bomb"):
        images.__getitems__([0])


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.mkdir [sprung]",
        "!!python/object/new:os.mkdir [sprung]",
        "!!python/object/apply:subprocess.check_output [[mkdir, sprung]]",
        "!!python/name:os.mkdir",
        "!!python/module:os",
    ],
)
def test_tags_of_a_config_run_nothing(tmp_path, monkeypatch, value):
    """Read as Snakemake reads every file of configuration, and refuses this one."""
    monkeypatch.chdir(tmp_path)
    Path("evil.yaml").write_text(f"data: {{root: {value}}}\n", encoding="utf-8")
    with pytest.raises(WorkflowError, match="not valid JSON or YAML"):
        load_configfile("evil.yaml")
    assert not Path("sprung").exists()


@pytest.mark.parametrize(
    "name",
    ["..", ".", "", "../x", "a/b", "/tmp/x", "a/../..", ".hidden", "-rf", "a b", "a\n", "~", "$A",
     "a\0", "{net}", "*", "a\\b", "x" * 65, 3, None, ["a"]],
)  # fmt: skip
def test_names_cannot_leave_the_results_folder(name):
    values = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    with pytest.raises(config.ConfigError, match=r"\brun\b"):
        config.load(values | {"run": name})
    if not isinstance(name, list):
        nets = values["nets"] | {name: {"seed": 9}}
        with pytest.raises(config.ConfigError, match=r"\bnets\b"):
            config.load(values | {"nets": nets})


def test_damaged_arrays_are_an_error_of_the_configuration(tmp_path):
    values = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    values["data"] |= {"name": "arrays", "root": str(tmp_path / "x.npz")}
    np.savez(tmp_path / "x.npz", images=np.zeros((90, 8, 8)), labels=np.arange(90))
    whole = (tmp_path / "x.npz").read_bytes()
    noise = np.random.default_rng(0).bytes(len(whole))
    for content in (b"", noise, whole[:-30], whole[:500] + noise[500:], whole[:-999] + bytes(999)):
        (tmp_path / "x.npz").write_bytes(content)
        with pytest.raises(ConvergentError, match=r"data\.root: .*x\.npz is not an \.npz file"):
            config.check_data(config.load(values))
    np.savez(tmp_path / "x.npz", images=np.zeros((90, 8, 8)), labels=np.array(3))
    with pytest.raises(ConvergentError, match=r"data\.root: .*x\.npz is not an \.npz file"):
        config.check_data(config.load(values))
