"""The repository, copied so that its library can be edited, and run as its user would."""

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
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "SNAKEMAKE_PROFILE"}
TINY = {
    "run": "tiny",
    "nets": {"net1": {"seed": 1}, "net2": {"seed": 2}},
    "device": "cpu",
    "data": {"name": "arrays", "root": "images.npz"},
    "model": {"channels": [4, 6, 8, 8, 6], "fully_connected": [10, 9]},
    "training": {"epochs": 10},
    "statistics": {"blocks": 3},
    "mapping": {"sgd": {"layers": ["conv1", "fc6"], "iterations": 20}},
    "clustering": {"k": {"conv1": 3, "conv2": 4, "fc6": "auto"}, "alpha": 0.3},
    "units": {"pictures": {**dict.fromkeys(LAYERS[:5], "all"), "fc6": [0, 3]}},
}


def copy_repository(folder):
    for name in ("workflow", "profiles", "envs", "presets"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(ROOT / "Snakefile", folder)
    values = yaml.safe_load((ROOT / "config.yaml").read_text())
    del values["nets"]["net3"], values["nets"]["net4"]
    for key, value in TINY.items():
        values[key] = values[key] | value if isinstance(value, dict) else value
    (folder / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def snakemake(folder, *arguments, fails=False, env=None):
    """What a run prints; it must succeed, or fail where that is expected."""
    if "--profile" in arguments:
        command = [str(ROOT / "tests/impatient.py")]
    else:
        command = ["-m", "snakemake", "--cores", "2"]
    run = subprocess.run(
        [sys.executable, *command, *arguments],
        cwd=folder,
        env=ENVIRONMENT | (env or {}),
        capture_output=True,
        text=True,
    )
    output = run.stdout + run.stderr
    assert (run.returncode != 0) == fails, output
    return output


def jobs(output):
    """Rules that a run executed, or a dry run would, and how often."""
    if "Job stats:" not in output:
        assert "Nothing to be done" in output, output
        return {}
    table = output.split("Job stats:")[1].split("total")[0].splitlines()[3:]
    counts = {row.split()[0]: int(row.split()[1]) for row in table if row.strip()}
    counts.pop("all", None)  # has nothing to run
    return counts


def planned(folder, *arguments):
    return jobs(snakemake(folder, *arguments, "-n"))


def copy_project(folder):
    """Two nets with few units on a few images."""
    copy_repository(folder)
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    pixels = rng.integers(0, 80, size=(120, 16, 16)) + 80 * labels[:, None, None]
    np.savez(folder / "images.npz", images=pixels.astype(np.uint8), labels=labels)
