"""The workflow runs from any folder, by Snakemake's own ways; the command makes such a folder."""

import shutil

import pytest
from running import ROOT, copy_project, planned, snakemake

import convergent
from convergent.runs import command
from convergent.runs.deploying import DeployError, deploy

# As Snakemake's documentation deploys workflows.
MODULE = f"""
configfile: "config.yaml"

module convergent:
    snakefile: "{ROOT / "Snakefile"}"
    config: config

use rule * from convergent
"""


def tiny(folder, snakefile):
    """A folder of the user's own with a small configuration and the given Snakefile."""
    copy_project(folder)
    shutil.rmtree(folder / "workflow")
    (folder / "Snakefile").write_text(snakefile, encoding="utf-8")


def test_a_folder_has_the_clone_s_configuration_and_runs_its_workflow(tmp_path, capsys):
    folder = tmp_path / "own"
    assert command.main(["init", str(folder)]) == 0
    assert f"cd {folder}" in capsys.readouterr().out
    for name in ("config.yaml", "presets/cifar10.yaml", "profiles/default/config.yaml"):
        assert (folder / name).read_bytes() == (ROOT / name).read_bytes()
    jobs = planned(folder, "fig3")
    assert {"train": jobs["train"], "draw_fig3": jobs["draw_fig3"]} == {"train": 2, "draw_fig3": 1}
    assert command.main(["init", str(folder)]) == 1
    assert "already has Snakefile, config.yaml" in capsys.readouterr().err


def test_a_folder_s_own_configuration_counts(tmp_path):
    deploy(tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text(
        config.read_text(encoding="utf-8").replace("run: digits", "run: mine"), encoding="utf-8"
    )
    printed = snakemake(tmp_path, "-n", "fig3")
    assert "results/mine/figures" in printed
    assert "results/digits" not in printed


def test_without_a_configuration_the_clone_s_counts(tmp_path):
    assert planned(tmp_path, "-s", str(ROOT / "Snakefile"), "fig3")["draw_fig3"] == 1


def test_a_module_plans_the_same(tmp_path):
    shutil.copy(ROOT / "config.yaml", tmp_path)
    expected = planned(tmp_path, "-s", str(ROOT / "Snakefile"), "fig3")
    (tmp_path / "Snakefile").write_text(MODULE, encoding="utf-8")
    assert planned(tmp_path, "fig3") == expected


def test_a_clone_is_asked_for_where_there_is_none(tmp_path):
    with pytest.raises(DeployError, match="has no Snakefile; name a clone"):
        deploy(tmp_path / "own", tmp_path)
    assert not (tmp_path / "own").exists()


@pytest.mark.slow
@pytest.mark.parametrize("snakefile", [f'include: "{ROOT / "Snakefile"}"\n', MODULE])
def test_a_tiny_run_in_a_folder_of_its_own(tmp_path, snakefile, capsys):
    tiny(tmp_path, snakefile)
    snakemake(tmp_path, "fig3")
    run = convergent.open(tmp_path / "results/tiny")
    assert run.matches("net2", "net1", "conv1")["partner"].between(0, 3).all()
    assert (run.folder / "figures/net1-net2/fig3.png").exists()
    assert planned(tmp_path, "fig3") == {}
    assert command.main(["open", str(run.folder)]) == 0
    printed = capsys.readouterr().out
    assert "correlation.zarr, matching.csv" in printed
    assert "atlas: not made yet" in printed
