"""Whatever is killed, and whenever: the same command again ends with the same results."""

import hashlib
import itertools
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from running import ENVIRONMENT, RUN, snakemake

TARGETS = ["net1", "net2", "accuracy", "cluster_stability", f"{RUN}/pairs/net1-net2/mapping.csv"]
KILLS = 10


def contents(run):
    """Hash of every file of the results, without what tells time and place."""
    found = {}
    for path in sorted(p for p in run.rglob("*") if p.is_file()):
        name = str(path.relative_to(run))
        if name.startswith((".", "logs/", "benchmarks/", "provenance")) or "/." in name:
            continue
        if path.parent.name == "checkpoints":
            continue
        content = path.read_bytes()
        if path.name == "history.csv":
            content = pd.read_csv(path).drop(columns="seconds").to_csv().encode()
        if path.name == "images.npz":
            content = np.load(path)["pixels"].tobytes()
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def histories(run):
    """Of each net, the epochs that its checkpoint has; their seconds tell runs apart."""
    return {
        path.parents[1].name: torch.load(path, weights_only=True)["history"]
        for path in run.glob("nets/*/checkpoints/[!.]*.pt")
    }


def running_jobs(process):
    """Script jobs of a Snakemake."""
    with suppress(psutil.NoSuchProcess):
        below = psutil.Process(process.pid).children(recursive=True)
        return [p for p in below if any("/scripts/" in part for part in p.cmdline())]
    return []


def kill(process, what, rng):
    """Kill a job, Snakemake alone, or both; give the jobs that were running."""
    jobs = running_jobs(process)
    victims = {"job": jobs and [rng.choice(jobs)], "snakemake": [], "all": jobs}[what]
    if what != "job":
        process.send_signal(signal.SIGKILL)
    for victim in victims:
        with suppress(psutil.NoSuchProcess):
            victim.kill()
    process.wait(120)
    return jobs


@pytest.mark.slow
def test_killed_at_any_moment_a_run_ends_as_if_never_disturbed(project, tmp_path):
    """Jobs whose Snakemake is killed go on writing while the next one runs them again."""
    rng = np.random.default_rng(0)
    for name in ("config.yaml", "images.npz"):
        shutil.copy(project / name, tmp_path)
    arguments = [*TARGETS, "--directory", str(tmp_path)]
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    compiled = project / ".snakemake/cache/NUMBA_CACHE_DIR"
    environment = ENVIRONMENT | {"NUMBA_CACHE_DIR": str(compiled)}
    run, seen, jobs, orphans = tmp_path / RUN, [], [], 0
    for number, what in zip(range(KILLS), itertools.cycle(["snakemake", "job", "all"])):
        with open(tmp_path / "output", "w+", encoding="utf-8") as output:
            process = subprocess.Popen(
                command, cwd=project, env=environment, stdout=output, stderr=output
            )
            checkpoint = run / "nets/net1/checkpoints"
            # Until the first job has been started.
            while process.poll() is None and not re.search(
                r"^\[ *\d+/", (tmp_path / "output").read_text(encoding="utf-8"), re.MULTILINE
            ):
                time.sleep(0.05)
            # The first as soon as an epoch has been trained, the others at random.
            until = time.monotonic() + (240 if number == 0 else rng.uniform(0, 4))
            while process.poll() is None and time.monotonic() < until:
                if number == 0 and any(checkpoint.glob("[!.]*.pt")):
                    break
                time.sleep(0.01)
            if process.poll() == 0:
                break
            jobs += (found := kill(process, what, rng))
            orphans += len([p for p in found if p.is_running()]) if what == "snakemake" else 0
        seen.append(histories(run))
        if what != "job":
            snakemake(project, "--unlock", "--directory", str(tmp_path))
    snakemake(project, *arguments, env=environment)
    assert len(seen) >= KILLS // 2
    assert orphans
    assert 0 < len(seen[0]["net1"]) < 10
    for net, history in histories(run).items():
        for before in seen:
            epochs = before.get(net, [])
            assert history[: len(epochs)] == epochs
    assert not any(p.is_running() and p.status() != "zombie" for p in jobs)
    assert not list(run.rglob(".*partial*"))
    found, expected = contents(run), contents(project / RUN)
    assert {"nets/net1/weights.pt", "pairs/net1-net2/mapping.csv"} <= found.keys()
    assert found == {name: expected[name] for name in found}


@pytest.mark.slow
def test_a_full_disk_stops_a_run_that_goes_on_when_there_is_space(project, tmp_path):
    """Nothing with a final name is less than whole."""
    results, target = tmp_path / "results", f"{RUN}/nets/net1/weights.pt"
    results.mkdir()
    for name in ("config.yaml", "images.npz"):
        shutil.copy(project / name, tmp_path)
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "size=112k", "tmpfs", str(results)]
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted here: {error}")
    try:
        output = snakemake(project, target, "--directory", str(tmp_path), fails=True)
        assert re.search(
            r"error: nets\.net1: results/\S+: its disk is full, \d+ MB are free", output
        )
        found, expected = contents(tmp_path / RUN), contents(project / RUN)
        assert found == {name: expected[name] for name in found}
        assert not list(results.rglob(".*partial*"))
        for path in results.rglob("*.pt"):
            torch.load(path, weights_only=True)
        subprocess.run(["mount", "-o", "remount,size=8m", str(results)], check=True)
        snakemake(project, target, "--directory", str(tmp_path))
        weights = (tmp_path / target).read_bytes()
        assert weights == (project / target).read_bytes()
        subprocess.run(["mount", "-o", "remount,ro", str(results)], check=True)
        output = snakemake(project, "net1", "--directory", str(tmp_path), fails=True)
        assert "Read-only file system" in output
        assert (tmp_path / target).read_bytes() == weights
    finally:
        subprocess.run(["umount", str(results)], check=True)
