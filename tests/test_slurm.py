"""The workflow on a cluster: a real Slurm of one node with two pretended GPUs."""

import os
import re
import subprocess
import sys
import threading
import time

import cloudpickle
import numpy as np
import pandas as pd
import psutil
import pytest
import slurm
import snakemake.api as api
import torch
import zarr
from running import LAYERS, RUN, copy_project, parsed, planned, snakemake

from convergent.running import scheduling

pytestmark = pytest.mark.skipif(bool(slurm.missing()), reason=slurm.missing() or "there is Slurm")
PROFILE = ["--profile", "profiles/slurm"]
ONCE = ["--retries", "0"]


cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Workers do not have this module.
# Both nets are compared with what they were before training.
RECORD = "record_with_untrained"


@pytest.fixture(scope="module")
def cluster():
    with slurm.cluster() as folder:
        yield folder


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    copy_project(folder)
    return folder


def test_arrays_are_of_rules_that_exist_and_are_submitted(copy, monkeypatch):
    """Needs no cluster, but a dry run."""
    profile = (copy / "profiles/slurm/config.yaml").read_text(encoding="utf-8")
    rules = set(re.search(r'slurm-array-jobs: "(.*)"', profile)[1].split(","))
    rules |= set(re.findall(r"(?m)^  ([a-z_]+): \{", profile)) - {"observe"}
    alone = planned(copy, "--config", "nulls={untrained: false}")
    assert rules <= {*planned(copy), *alone}
    monkeypatch.setattr(api.Workflow, "local_exec", False)
    workflow = parsed(copy, copy / "Snakefile", {})
    assert not rules & {rule.name for rule in workflow.rules if workflow.is_local(rule)}


def cancel_once(rule, cancelled):
    """Cancel the first job of `rule` that runs."""
    for _ in range(600):
        for job in slurm.ask("squeue", "-ht", "R", "-o", "%i %k").splitlines():
            if f"rule_{rule}" in job:
                time.sleep(1)
                subprocess.run(["scancel", job.split()[0]], check=True)
                cancelled.append(job.split()[0])
                return
        time.sleep(0.1)


@pytest.mark.slow
def test_a_run_through_the_profile_gives_what_a_local_one_gives(cluster, copy, project):
    """Although one of its jobs is cancelled from outside."""
    cancelled = []
    threading.Thread(target=cancel_once, args=("train", cancelled), daemon=True).start()
    nets = "nets={net3: {seed: 3}}"
    pairs = ["net1-net2", "net1-net3", "net2-net3"]
    targets = [f"{RUN}/pairs/{pair}/correlation.zarr" for pair in pairs]
    targets += ["accuracy", f"{RUN}/pairs/net1-net2/matching.csv"]
    output = snakemake(copy, *targets, "--config", nets, "device=auto", *PROFILE)
    # The cancelled job was submitted again, and nothing else.
    assert len(cancelled) == 1
    assert output.count("Error in rule train") == 1
    rows = slurm.ask("scontrol", "-o", "show", "job").splitlines()
    jobs = pd.DataFrame([dict(re.findall(r"(\w+)=(\S*)", row)) for row in rows])
    jobs["rule"] = jobs["Comment"].str.extract(r"rule_([a-z_]+?)(?:_wildcards|$)")[0]
    assert (jobs["JobState"] == "COMPLETED").sum() == len(jobs) - 1
    count = jobs["rule"].value_counts()
    assert count["train"] == 4
    assert count[RECORD] == count["correlation_with_untrained"] == 3
    # Tables and lists of images are made on the login node.
    assert not {"accuracy", "images"} & set(jobs["rule"])
    # A GPU is asked for where one is used, and nowhere else.
    asks = jobs["TresPerJob"] == "gres:gpu:1"
    using = {"train", "evaluate", RECORD}
    assert set(jobs["rule"][asks]) == using
    assert asks[jobs["rule"].isin(using)].all()
    # What Slurm gave is no GPU of CUDA's, and nothing waits for it.
    log = (copy / RUN / "logs/train/net1.log").read_text(encoding="utf-8")
    assert "device: cpu\n" in log
    assert "waiting for a GPU" not in log
    # Pairs that are ready together are one array.
    of_pairs = jobs["rule"].isin(["correlation_with_untrained", "mutual_information"])
    assert jobs["ArrayJobId"][of_pairs].notna().any()
    for net in ("net1", "net2"):
        weights, expected = (
            torch.load(run / RUN / f"nets/{net}/weights.pt", weights_only=True)
            for run in (copy, project)
        )
        assert all(torch.equal(weights[name], expected[name]) for name in expected)
    path = "pairs/net1-net2/matching.csv"
    pd.testing.assert_frame_equal(*(pd.read_csv(run / RUN / path) for run in (copy, project)))


def listening():
    """Addresses at which this process waits for others."""
    connections = psutil.Process().net_connections("inet")
    return [c.laddr.ip for c in connections if c.status == "LISTEN"]


@pytest.mark.slow
def test_workers_are_jobs_that_listen_on_one_interface(cluster, tmp_path, monkeypatch):
    options = {"threads": 1, "mem_mb": 500, "runtime": 5, "logs": tmp_path, "jobs": 2}
    with scheduling.scheduler_for("slurm", **options) as scheduler:
        tasks = [scheduling.task(listening, nout=1)() for _ in range(8)]
        found = scheduling.compute(tasks, scheduler=scheduler)
        # Of their last words no work comes.
        monkeypatch.setattr(scheduling, "TIMEOUT", 3)
        tasks = [scheduling.task(lambda: os._exit(1), nout=1)() for _ in range(2)]
        with pytest.raises(scheduling.SchedulerError, match="all jobs of workers have ended"):
            scheduling.compute(tasks, scheduler=scheduler)
    assert {len(addresses) for addresses in found} == {2}
    assert {ip for addresses in [*found, listening()] for ip in addresses} == {"127.0.0.1"}
    with (
        pytest.raises(scheduling.SchedulerError, match=r"takes no workers: .*invalid partition"),
        scheduling.scheduler_for("slurm", partition="nowhere", **options),
    ):
        pass
    with (
        pytest.raises(scheduling.SchedulerError, match=r"dask\.interface: ib9 is no network"),
        scheduling.scheduler_for("slurm", interface="ib9", **options),
    ):
        pass


@pytest.mark.slow
def test_a_pair_is_reduced_by_workers_of_the_cluster(cluster, copy, project):
    before = slurm.ask("scontrol", "-o", "show", "job").count("JobId=")
    path = "pairs/net1-net2/correlation.zarr"
    snakemake(copy, f"{RUN}/{path}", "--config", "dask={scheduler: slurm, jobs: 2}", "-f")
    assert slurm.ask("scontrol", "-o", "show", "job").count("JobId=") == before + 2
    found, expected = (zarr.open_group(run / RUN / path, mode="r") for run in (copy, project))
    for layer in LAYERS:
        name = f"{layer}/blocks/correlation"
        np.testing.assert_array_equal(found[name][...], expected[name][...])


@pytest.mark.slow
def test_a_job_that_fails_is_reported_with_its_log(cluster, copy):
    store = f"{RUN}/activations/net1.zarr"
    weights = copy / RUN / "nets/net1/weights.pt"
    snakemake(copy, str(weights.relative_to(copy)), "--config", "device=cpu")
    weights.write_bytes(b"damaged")
    output = snakemake(
        copy, store, "--allowed-rules", RECORD, *PROFILE, *ONCE, "--config", "device=cpu",
        fails=True,
    )  # fmt: skip
    assert f"Error in rule {RECORD}" in output
    assert "weights.pt" in output.split(f"Error in rule {RECORD}")[1].split("Logfile")[1]
    weights.unlink()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--default-resources", "slurm_partition=nowhere"], "invalid partition"),
        (
            ["--set-resources", "train:gpu_model=a100", "--config", "device=auto"],
            "(?i)generic resource|node configuration is not available",
        ),
        (["--config", "device=cuda"], "device: cuda is asked for, but torch sees no CUDA device"),
    ],
)
def test_what_the_cluster_does_not_have_is_told_within_a_minute(cluster, copy, options, message):
    start = time.monotonic()
    target = f"{RUN}/nets/net1/weights.pt"
    output = snakemake(copy, target, "-f", *PROFILE, *ONCE, *options, fails=True)
    assert re.search(message, output), output
    assert time.monotonic() - start < 60
