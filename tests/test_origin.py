"""A run says what made each of its results, and goes on as nothing else unless told to."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from running import RUN, parsed, planned, snakemake

from convergent.running import origin
from convergent.running.stores import open_store, record_origin

VERSIONS = {"python": "3.12", "numpy": "2.3.1", "torch": "2.12.0"}
LISTING = "split,image,label,class,path,crc32\ntrain,0,0,cat,0.png,7\n"


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A function that plays a job: in a folder of its own, with the versions of packages given."""
    monkeypatch.chdir(tmp_path)
    Path("images.csv").write_text(LISTING, encoding="utf-8")

    def run(rule="train", configuration=None, versions=None, device="cpu", **options):
        monkeypatch.setattr(origin, "versions", lambda: VERSIONS | (versions or {}))
        monkeypatch.setattr(origin, "choose_device", lambda wanted: wanted)
        options = {"listing": "images.csv", "device": device} | options
        return origin.record_job("run", rule, {"net": "net1"}, configuration or {}, **options)

    return run


def history(path="run/provenance.jsonl"):
    return origin.parse_history(Path(path).read_text(encoding="utf-8"))


def test_the_history_tells_what_made_each_result(job):
    """Nets of one commit, a figure of another; a configuration once, however often it returns."""
    first, second = {"layers": ["conv1"]}, {"layers": ["conv2"]}
    job(configuration=first, code={"commit": "a", "dirty": False}, origin={"seed": 3})
    for configuration in (second, first, second):
        job("fig1", configuration, code={"commit": "b", "dirty": True}, device=None, listing=None)
    records = history()
    jobs = [record for record in records if "rule" in record]
    assert [record["code"]["commit"] for record in jobs] == ["a", "b", "b", "b"]
    assert [record["rule"] for record in jobs] == ["train", "fig1", "fig1", "fig1"]
    configurations = {r["hash"]: r["configuration"] for r in records if "rule" not in r}
    assert len(records) == len(jobs) + len(configurations) == 6
    assert [configurations[r["configuration"]] for r in jobs] == [first, second, first, second]
    assert jobs[0]["wildcards"] == {"net": "net1"}
    assert jobs[0]["origin"] == origin.fingerprint_of({"seed": 3})
    assert jobs[0]["packages"] == VERSIONS
    assert jobs[0]["machine"] == origin.machine()
    assert jobs[0]["images"] == hashlib.sha256(LISTING.encode()).hexdigest()
    assert jobs[1]["images"] is jobs[1]["device"] is None


def test_real_versions_are_those_of_the_packages():
    import numpy
    import torch

    versions = origin.versions()
    assert versions["numpy"] == numpy.__version__
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]


def test_ordinary_work_is_no_change(job):
    """Another configuration, a job without device, one in a smaller or larger environment."""
    job(device=None, listing=None)
    job()
    job(configuration={"layers": ["conv1"]})
    job(versions={"dask": "1"})
    job(device=None)
    assert not any("accepted" in record for record in history())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"versions": {"torch": "2.13.0"}}, "torch: 2.12.0 there, 2.13.0 here"),
        ({"device": "cuda"}, "device: cpu there, cuda here"),
        ({"versions": {"numpy": "2.4"}, "device": "cuda"}, "device: .*; numpy: 2.3.1 there"),
        ({"listing": "other.csv"}, r"list of images: SHA-256 \w{16} there, \w{16} here"),
    ],
)
def test_a_run_that_goes_on_otherwise_is_refused_until_that_is_accepted(job, change, message):
    Path("other.csv").write_text(LISTING.replace("7", "8"), encoding="utf-8")
    job()
    before = history()
    with pytest.raises(origin.OriginError, match=message) as error:
        job(**change)
    assert "provenance.jsonl" in str(error.value)
    assert "--config accept_changes=true" in str(error.value)
    assert history() == before
    job(**change, accept_changes=True)
    job(**change)
    assert [bool(record.get("accepted")) for record in history()[1:]] == [False, True, False]
    if "listing" not in change:
        job()
        with pytest.raises(origin.OriginError, match=r"torch: .* there, 9 here"):
            job(versions={"torch": "9"})


def test_images_that_are_listed_anew_are_another_run_s_beginning(job):
    job()
    Path("images.csv").write_text(LISTING.replace("7", "8"), encoding="utf-8")
    job("images", lists_images=True, listing=None)
    job()


def test_of_two_environments_that_began_at_once_the_second_is_refused_later(job):
    job()
    path = Path("run/provenance.jsonl")
    text = path.read_text(encoding="utf-8")
    with path.open("a", encoding="utf-8") as file:
        file.write(text.splitlines()[-1].replace("2.12.0", "9") + "\n")
    job()
    with pytest.raises(origin.OriginError, match=r"torch: 2.12.0 there, 9 here"):
        job(versions={"torch": "9"})


def test_a_line_that_a_killed_job_left_is_passed_over(job):
    job()
    path = Path("run/provenance.jsonl")
    with path.open("a", encoding="utf-8") as file:
        file.write('{"time": "2026')
    job("record")
    assert [record.get("rule") for record in history()] == [None, "train", "record"]
    with pytest.raises(origin.OriginError):
        job(versions={"torch": "9"})


def test_jobs_may_append_at_once(tmp_path):
    code = (
        "import sys; from convergent.running import origin\n"
        "configuration = {'filling': 'x' * 5000, 'process': sys.argv[1]}\n"
        "for number in range(50): origin.record_job('.', sys.argv[1], {}, configuration)"
    )
    jobs = [
        subprocess.Popen([sys.executable, "-c", code, f"rule{number}"], cwd=tmp_path)
        for number in range(4)
    ]
    assert [job.wait(120) for job in jobs] == [0] * 4
    lines = (tmp_path / "provenance.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(history(tmp_path / "provenance.jsonl")) == len(lines) == 4 * 51


def test_a_part_of_an_origin_has_the_keys_that_are_named():
    whole = {"nets": {"a": 1, "b": 2}, "data": {"size": 3}, "mapping": {"sgd": {"layers": []}}}
    assert origin.select(whole, ["nets.b", "data"]) == {"nets": {"b": 2}, "data": {"size": 3}}
    assert origin.select(whole, ["mapping.sgd"]) == {"mapping": {"sgd": {"layers": []}}}
    with pytest.raises(KeyError, match="nowhere"):
        origin.select(whole, ["data.nowhere"])


def test_the_commit_and_whether_code_differs_from_it(tmp_path):
    assert origin.commit(tmp_path) is None

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    (tmp_path / "workflow").mkdir()
    (tmp_path / "workflow/a.py").write_text("1", encoding="utf-8")
    git("add", "-A")
    git("commit", "-m", "of another project, in which the library is installed")
    assert origin.commit(tmp_path) is None
    (tmp_path / "Snakefile").touch()
    git("add", "-A")
    git("commit", "-m", "first")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/x").write_text("no code", encoding="utf-8")
    assert origin.commit(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "workflow/b.py").write_text("2", encoding="utf-8")
    assert origin.commit(tmp_path)["dirty"]


@pytest.mark.parametrize("store", [True, False])
def test_every_rule_that_writes_a_store_states_its_origin(project, store):
    workflow = parsed(project, overlay={"activations": {"store": store}})
    writers = [
        rule for rule in workflow.rules if any(str(path).endswith(".zarr") for path in rule.output)
    ]
    assert len(writers) > 5
    for rule in writers:
        assert "origin" in rule.params.keys(), rule.name  # noqa: SIM118


def test_stores_of_a_run_have_its_origin(project):
    mapping = open_store(project / RUN / "pairs/net1-net2/mapping.zarr").attrs["origin"]
    statistics = open_store(project / RUN / "statistics/net2.zarr").attrs["origin"]
    assert mapping["nets"] == {"net1": 1, "net2": 2}
    assert statistics["nets"] == {"net2": 2}
    assert mapping["data"] == statistics["data"]
    assert "decays" in mapping["mapping"]
    assert "mapping" not in statistics


def test_the_workflow_refuses_a_store_of_another_configuration(project):
    path = project / RUN / "statistics/net1.zarr"
    right = open_store(path).attrs["origin"]
    record_origin(path, right | {"data": right["data"] | {"size": 15}})
    try:
        output = snakemake(project, "unmatched", "-f", "--rerun-triggers", "params", fails=True)
        assert "net1.zarr: made by another configuration (data.size: 15 there, 16 here)" in output
    finally:
        record_origin(path, right)
        snakemake(project, "unmatched", "-f", "--rerun-triggers", "params")


def test_the_workflow_refuses_to_mix_versions(project):
    path = project / RUN / "provenance.jsonl"
    whole = path.read_text(encoding="utf-8")
    jobs = [record for record in origin.parse_history(whole) if "rule" in record]
    assert {job["rule"] for job in jobs} > {"images", "train", "record_with_untrained", "draw_fig1"}
    assert all(job["packages"] == origin.versions() for job in jobs)
    assert {job["device"] for job in jobs} == {"cpu", None}
    numpy = json.dumps({"numpy": origin.versions()["numpy"]})[1:-1]
    path.write_text(whole.replace(numpy, '"numpy": "1.0"'), encoding="utf-8")
    try:
        assert planned(project) == {}
        output = snakemake(project, "unmatched", "-f", fails=True)
        assert "provenance.jsonl: earlier jobs of this run had another environment" in output
        assert "(numpy: 1.0 there, " in output
        snakemake(project, "unmatched", "-f", "--config", "accept_changes=true")
        *_, last = history(path)
        assert last["accepted"] == [f"numpy: 1.0 there, {origin.versions()['numpy']} here"]
    finally:
        path.write_text(whole, encoding="utf-8")
