"""The workflow runs from any folder, by Snakemake's own ways; the command makes such a folder."""

import shutil
import subprocess
import sys
import zipfile

import pytest
from running import ENVIRONMENT, ROOT, copy_project, jobs, planned, snakemake

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
    jobs = planned(folder)  # as the command proposes it, without a target
    assert {"train": jobs["train"], "draw_fig3": jobs["draw_fig3"]} == {"train": 4, "draw_fig3": 1}
    assert command.main(["init", str(folder)]) == 1
    assert "already has Snakefile, config.yaml" in capsys.readouterr().err


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Return the folder into which the wheel is unpacked, as an installer does it."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    zipfile.ZipFile(file).extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_the_workflow(wheel):
    parts = ["Snakefile", "config.yaml", "presets", "profiles", "envs"]
    parts += [f"workflow/{path.name}" for path in (ROOT / "workflow").glob("[a-z]*")]
    parts.remove("workflow/convergent")
    files = [
        file
        for part in parts
        for file in ((ROOT / part).rglob("*") if (ROOT / part).is_dir() else [ROOT / part])
        if file.is_file() and "__pycache__" not in file.parts
    ]
    assert len(files) > 80
    for file in files:
        packed = wheel / "convergent/repository" / file.relative_to(ROOT)
        assert packed.read_bytes() == file.read_bytes()


@pytest.mark.slow
def test_an_installed_wheel_plans_the_default_run(wheel, tmp_path):
    environment = ENVIRONMENT | {"PYTHONPATH": str(wheel)}

    def python(*command):
        run = subprocess.run(
            [sys.executable, "-P", "-m", *command], cwd=tmp_path, env=environment,
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return run.stdout + run.stderr

    assert "cd own && snakemake --cores all" in python("convergent.runs.command", "init", "own")
    assert str(wheel / "convergent/repository/Snakefile") in (
        (tmp_path / "own/Snakefile").read_text(encoding="utf-8")
    )
    plan = jobs(python("snakemake", "-n", "-d", "own", "-s", "own/Snakefile"))
    assert {rule: plan[rule] for rule in ("train", "atlas")} == {"train": 4, "atlas": 1}


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
