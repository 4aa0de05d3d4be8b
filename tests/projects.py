"""Copies of the repository with a tiny configuration, to be run as their user would."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

ROOT = Path(__file__).parents[1]
LAYERS = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"]
RUN = "results/tiny"
TINY = {
    "run": "tiny",
    "nets": {"net1": {"seed": 1}, "net2": {"seed": 2}},
    "device": "cpu",
    "data": {"name": "arrays", "root": "images.npz"},
    "model": {"channels": [4, 6, 8, 8, 6], "fully_connected": [10, 9]},
    "training": {"epochs": 1},
    "statistics": {"blocks": 3},
    "mapping": {"sgd": {"layers": ["conv1", "fc6"], "iterations": 20}},
    "clustering": {"k": {"conv1": 3, "conv2": 4, "fc6": "auto"}, "alpha": 0.3},
    "units": {"pictures": {**dict.fromkeys(LAYERS[:5], "all"), "fc6": [0, 3]}},
}


def make_project(folder):
    """The repository in `folder`, two nets on 120 images of its own."""
    for name in ("workflow", "profiles", "envs", "presets"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(ROOT / "Snakefile", folder)
    values = yaml.safe_load((ROOT / "config.yaml").read_text())
    del values["nets"]["net3"], values["nets"]["net4"]
    for key, value in TINY.items():
        values[key] = values[key] | value if isinstance(value, dict) else value
    (folder / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    pixels = rng.integers(0, 80, size=(120, 16, 16)) + 80 * labels[:, None, None]
    np.savez(folder / "images.npz", images=pixels.astype(np.uint8), labels=labels)


def snakemake(folder, *arguments, fails=False, env=None):
    """What a run prints; it must succeed, or fail where that is expected."""
    outside = {k: v for k, v in os.environ.items() if k != "SNAKEMAKE_PROFILE"}
    command = [sys.executable, "-m", "snakemake"]
    if not {"--profile", "--cores"} & set(arguments):
        command += ["--cores", "2"]
    run = subprocess.run(
        [*command, *arguments],
        cwd=folder,
        env=outside | (env or {}),
        capture_output=True,
        text=True,
    )
    output = run.stdout + run.stderr
    assert (run.returncode != 0) == fails, output
    return output
