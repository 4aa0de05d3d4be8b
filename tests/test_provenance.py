"""A run says what made it, and goes on as nothing else unless it is told to."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from running import RUN, planned, snakemake

from convergent import config
from convergent.running import provenance

ROOT = Path(__file__).parents[1]
VERSIONS = {"python": "3.12", "numpy": "2.3.1", "torch": "2.12.0"}
LISTING = "split,image,label,class,path,crc32\ntrain,0,0,cat,0.png,7\n"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that plays a job: in a folder of its own, with the versions of packages given."""
    monkeypatch.chdir(tmp_path)
    values = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    Path("images.csv").write_text(LISTING, encoding="utf-8")

    def job(versions=None, device="cpu", listing="images.csv", lists=False, **overlay):
        monkeypatch.setattr(provenance, "versions", lambda: VERSIONS | (versions or {}))
        monkeypatch.setattr(provenance, "choose_device", lambda wanted: wanted)
        configured = config.load(values | overlay)
        return provenance.keep(configured, device=device, listing=listing, lists=lists)

    return job


def kept():
    return json.loads(Path("results/digits/provenance.json").read_text(encoding="utf-8"))


def test_the_file_holds_all_that_makes_a_run(run):
    run()
    found = kept()
    assert config.load(found["config"]).nets["net3"].seed == 3
    assert found["seeds"] == {
        "nets": {"net1": 1, "net2": 2, "net3": 3, "net4": 4}, "data": 0, "analysis": 0,
    }  # fmt: skip
    assert found["made_with"] == [
        {"packages": VERSIONS, "device": "cpu", "machines": [provenance.machine()]}
    ]
    assert found["code"] == provenance.commit()
    assert len(found["images"]) == 64


def test_real_versions_are_those_of_the_packages():
    import numpy
    import torch

    versions = provenance.versions()
    assert versions["numpy"] == numpy.__version__
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]


def test_ordinary_work_is_no_change(run):
    """Another configuration or net, a job without device, one in a smaller environment."""
    run(device=None, listing=None)
    run()
    run(layers=["conv1"], figures={}, mapping={}, nets={"a": {"seed": 8}, "b": {"seed": 9}})
    assert kept()["config"]["layers"] == ["conv1"]
    assert kept()["seeds"]["nets"] == {"a": 8, "b": 9}
    run(device=None)
    assert len(kept()["made_with"]) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"versions": {"torch": "2.13.0"}}, "torch: 2.12.0 there, 2.13.0 here"),
        ({"device": "cuda"}, "device: cpu there, cuda here"),
        ({"versions": {"numpy": "2.4"}, "device": "cuda"}, "device: .*; numpy: 2.3.1 there"),
        ({"listing": "other.csv"}, r"other\.csv: SHA-256 \w{16} there, \w{16} here"),
    ],
)
def test_a_run_that_goes_on_otherwise_is_refused_until_that_is_accepted(run, change, message):
    Path("other.csv").write_text(LISTING.replace("7", "8"), encoding="utf-8")
    run()
    before = kept()
    with pytest.raises(provenance.ProvenanceError, match=message) as error:
        run(**change)
    assert "provenance.json" in str(error.value)
    assert "--config accept_changes=true" in str(error.value)
    assert kept() == before
    run(**change, accept_changes=True)
    run(**change)
    if "listing" not in change:
        assert len(kept()["made_with"]) == 2
        run()
        with pytest.raises(provenance.ProvenanceError, match=r"torch: .* there, 9 here"):
            run(versions={"torch": "9"})


def test_images_that_are_listed_anew_are_another_run_s_beginning(run):
    run()
    Path("images.csv").write_text(LISTING.replace("7", "8"), encoding="utf-8")
    run(lists=True, listing=None)
    run()


def test_jobs_may_keep_it_at_once(tmp_path):
    code = (
        "import sys, yaml; from convergent import config\n"
        "from convergent.running import provenance\n"
        "provenance.machine = lambda: sys.argv[2]\n"
        "values = yaml.safe_load(open(sys.argv[1]))\n"
        "for _ in range(20): provenance.keep(config.load(values))"
    )
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(ROOT / "config.yaml"), f"machine {number}"],
            cwd=tmp_path,
        )
        for number in range(4)
    ]
    assert [job.wait(120) for job in jobs] == [0] * 4
    found = json.loads((tmp_path / "results/digits/provenance.json").read_text(encoding="utf-8"))
    assert found["made_with"][0]["machines"] == [f"machine {number}" for number in range(4)]


def test_the_commit_and_whether_code_differs_from_it(tmp_path):
    assert provenance.commit(tmp_path) is None

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    (tmp_path / "workflow").mkdir()
    (tmp_path / "workflow/a.py").write_text("1", encoding="utf-8")
    git("add", "-A")
    git("commit", "-m", "first")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/x").write_text("no code", encoding="utf-8")
    assert provenance.commit(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "workflow/b.py").write_text("2", encoding="utf-8")
    assert provenance.commit(tmp_path)["dirty"]


def test_the_workflow_refuses_to_mix_versions(project):
    path = project / RUN / "provenance.json"
    whole = path.read_text(encoding="utf-8")
    found = json.loads(whole)
    assert found["made_with"][0]["packages"] == provenance.versions()
    assert found["made_with"][0]["device"] == "cpu"
    assert found["seeds"]["nets"] == {"net1": 1, "net2": 2}
    found["made_with"][0]["packages"]["numpy"] = "1.0"
    path.write_text(json.dumps(found), encoding="utf-8")
    try:
        assert planned(project) == {}
        output = snakemake(project, "unmatched", "-f", fails=True)
        assert "provenance.json: this run was begun with something else (numpy: 1.0 " in output
        snakemake(project, "unmatched", "-f", "--config", "accept_changes=true")
        entries = json.loads(path.read_text(encoding="utf-8"))["made_with"]
        assert [e["packages"]["numpy"] for e in entries] == ["1.0", provenance.versions()["numpy"]]
    finally:
        path.write_text(whole, encoding="utf-8")
