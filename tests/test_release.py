"""A release holds what a publication needs of a run, and no more than 60 MB of it."""

import json
import os
import tarfile

import pytest

from convergent.running.release import ReleaseError, pack

JOB = {"rule": "match", "code": {"commit": "abc"}, "packages": {"numpy": "2.0"}}


@pytest.fixture
def run(tmp_path):
    """A run of some files, whose bytes cannot be compressed."""
    folder = tmp_path / "digits"
    for name in (
        "tables/accuracy.csv", "figures/fig4.png", "figures/net1-net2/fig3.png", "report.html",
        "atlas/index.html", "atlas/data/conv1/net1.npz", "atlas/data/conv1/net1.js",
        "activations/net1.zarr/c/0", "tables/.snakemake_timestamp",
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.urandom(1000))
    (folder / "figures/fig4.png").write_bytes(os.urandom(50_000))
    (folder / "provenance.jsonl").write_text(json.dumps(JOB) + "\n", encoding="utf-8")
    return folder


def test_a_release_has_tables_figures_the_atlas_and_their_origin_but_no_stores(run, tmp_path):
    about = pack(run, tmp_path / "a.tar.gz", {"run": "digits"}, ["figures/net1-*"])
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        assert set(tar.getnames()) == {
            f"digits/{name}"
            for name in (
                "configuration.json", "release.json", "tables/accuracy.csv", "figures/fig4.png",
                "report.html", "atlas/index.html", "atlas/data/conv1/net1.js", "provenance.jsonl",
            )
        }  # fmt: skip
        assert json.load(tar.extractfile("digits/configuration.json")) == {"run": "digits"}
        packed = tar.extractfile("digits/figures/fig4.png").read()
    assert packed == (run / "figures/fig4.png").read_bytes()
    assert about["megabytes"] == pytest.approx(
        (tmp_path / "a.tar.gz").stat().st_size / 1e6, abs=0.01
    )
    assert about["files"] == 8
    assert about["parts"]["figures"] == 0.05
    assert about["commits"] == ["abc"]
    assert about["packages"] == {"numpy": "2.0"}


def test_the_same_files_make_the_same_release(run, tmp_path):
    first = pack(run, tmp_path / "a.tar.gz", {})
    os.utime(run / "figures/fig4.png", (1, 1))
    assert pack(run, tmp_path / "b.tar.gz", {})["sha256"] == first["sha256"]


def test_a_release_that_is_too_large_says_what_is_large(run, tmp_path):
    with pytest.raises(
        ReleaseError, match=r"more than 0\.03.* largest parts are figures 0 MB, .*leave"
    ):
        pack(run, tmp_path / "a.tar.gz", {}, most=0.03)
    assert not (tmp_path / "a.tar.gz").exists()
    pack(run, tmp_path / "a.tar.gz", {}, ["figures/*"], most=0.03)


def test_a_run_without_results_has_no_release(tmp_path):
    with pytest.raises(ReleaseError, match="make the run first"):
        pack(tmp_path, tmp_path / "a.tar.gz", {})
