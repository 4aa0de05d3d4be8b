"""The repository, copied so that its library can be edited, and run as its user would."""

import multiprocessing
import os
import re
import shutil
import sys
import tempfile
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
    "figures": {"layer": "conv1"},
    "mapping": {"sgd": {"layers": ["conv1", "fc6"], "iterations": 20}},
    "clustering": {"k": {"conv1": 3, "conv2": 4, "fc6": "auto"}, "alpha": 0.3},
    "units": {"pictures": {**dict.fromkeys(LAYERS[:5], "all"), "fc6": [0, 3]}},
}


def copy_repository(folder):
    for name in ("workflow", "profiles", "envs", "presets"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(ROOT / "Snakefile", folder)
    values = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    del values["nets"]["net3"], values["nets"]["net4"]
    for key, value in TINY.items():
        values[key] = values[key] | value if isinstance(value, dict) else value
    (folder / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


# Processes that have Snakemake imported, which takes longer than most of what they are for.
PREPARED = multiprocessing.get_context("forkserver")
PREPARED.set_forkserver_preload(["snakemake.cli"])


def snakemake(folder, *arguments, fails=False, env=None):
    """What a run prints; it must succeed, or fail where that is expected."""
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as output:
        run = PREPARED.Process(
            target=_snakemake, args=(folder, arguments, ENVIRONMENT | (env or {}), output.name)
        )
        run.start()
        run.join()
        printed = output.read()
    assert (run.exitcode != 0) == fails, printed
    return printed


def _snakemake(folder, arguments, environment, output):
    """The command, in a process of its own."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(os.open(output, os.O_WRONLY | os.O_APPEND), stream.fileno())
    from snakemake.cli import main
    from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

    # A cluster is asked every second how its jobs fare, and not ever more rarely.
    RemoteExecutor.next_seconds_between_status_checks = property(lambda _: 1, lambda *_: None)
    main([*([] if "--profile" in arguments else ["--cores", "2"]), *arguments])


def jobs(output):
    """Rules that a run executed, or a dry run would, and how often."""
    # The terminal gets a line a job; what Snakemake says of them all is in its log.
    if log := re.search(r"^Complete log\(s\): (.*)", output, re.MULTILINE):
        output = Path(log[1]).read_text(encoding="utf-8")
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


def age(folder):
    """Let every file be newer than those that were made from it."""
    files = sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_mtime)
    newest = files[-1].stat().st_mtime
    for number, file in enumerate(files):
        os.utime(file, (newest + 1000 - number,) * 2)


def parsed(folder, snakefile=None, overlay=None):
    """The workflow as Snakemake reads it in a folder, with a configuration on top."""
    from snakemake.api import SnakemakeApi
    from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings

    with SnakemakeApi(OutputSettings()) as api:
        return api.workflow(
            resource_settings=ResourceSettings(cores=2),
            config_settings=ConfigSettings(config=overlay or {}),
            snakefile=snakefile or folder / "Snakefile",
            workdir=folder,
        )._workflow
