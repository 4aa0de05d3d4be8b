"""What the rules say, as Snakemake itself has read them."""

import shutil

import pytest
import snakemake.api as api
from running import ROOT, parsed

# Training, recording and every stage of every pair, and the atlas.
JOBS = {
    "train", "record", "statistics", "correlation", "mutual_information_within",
    "mutual_information", "match", "joint_densities", "agreement", "fit_maps", "fit_maps_sgd",
    "mapping", "hac", "cluster", "units", "atlas",
}  # fmt: skip
WITHOUT_STORE = JOBS - {"record", "statistics", "correlation"} | {"observe"}
# They draw whole matrices.
MATRICES = {"fig5", "fig6", "fig7", "figS5"}
MATRICES |= {f"draw_{name}" for name in MATRICES}
WIDE = {"model": {"fully_connected": [2048, 128]}}


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        ({}, JOBS),
        (WIDE, JOBS | MATRICES),
        ({"activations": {"store": False}}, WITHOUT_STORE),
        ({"data": {"name": "imagefolder", "root": "images"}}, JOBS | {"images"}),
    ],
    ids=["default", "wide", "no store", "image folder"],
)
def test_a_cluster_gets_what_is_heavy_and_nothing_else(tmp_path, monkeypatch, overlay, expected):
    """Figures, tables, the report and targets are made on the login node."""
    for folder in ("train", "val"):
        (tmp_path / f"images/{folder}/cat").mkdir(parents=True)
        for number in range(21):
            (tmp_path / f"images/{folder}/cat/{number}.png").touch()
    shutil.copy(ROOT / "config.yaml", tmp_path)
    monkeypatch.setattr(api.Workflow, "local_exec", False)
    workflow = parsed(tmp_path, ROOT / "Snakefile", overlay)
    found = {rule.name for rule in workflow.rules if not workflow.is_local(rule)}
    assert found == expected
