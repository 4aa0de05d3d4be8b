"""What the rules say, as Snakemake itself has read them."""

import shutil

import pytest
import snakemake.api as api
from running import ROOT, copy_project, parsed
from snakemake.exceptions import WorkflowError

# Training, recording and every stage of every pair, and the atlas.
JOBS = {
    "train", "record", "statistics", "correlation", "mutual_information_within",
    "mutual_information", "match", "joint_densities", "agreement", "fit_maps", "fit_maps_sgd",
    "mapping", "hac", "cluster", "units", "atlas",
    # They draw whole matrices.
    "fig5", "fig6", "fig7", "figS5", "draw_fig5", "draw_fig6", "draw_fig7", "draw_figS5",
}  # fmt: skip
WITHOUT_STORE = JOBS - {"record", "statistics", "correlation"} | {"observe"}


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        ({}, JOBS),
        ({"activations": {"store": False}}, WITHOUT_STORE),
        ({"data": {"name": "imagefolder", "root": "images"}}, JOBS | {"images"}),
    ],
    ids=["default", "no store", "image folder"],
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


def with_params(folder, caption):
    """The workflow where rule accuracy has params that only a job can tell, and another caption."""
    copy_project(folder)
    rules = folder / "workflow/rules/matching.smk"
    params = "net=lambda wildcards: wildcards.net, file=lambda wildcards, output: output.table"
    params += ", kind=lambda wildcards: wildcards.get('kind', 'top-1')"
    text = rules.read_text(encoding="utf-8")
    assert "        seeds={name" in text
    rules.write_text(
        text.replace("        seeds={name", f"        {params}, seeds={{name"), encoding="utf-8"
    )
    (folder / "workflow/report/accuracy.rst").write_text(caption, encoding="utf-8")
    return parsed(folder)


def test_params_may_be_functions_of_wildcards_where_something_is_reported(tmp_path):
    workflow = with_params(tmp_path, "{{ snakemake.params.kind }} of {{ snakemake.params.seeds }}")
    entry = workflow.globals["REPORTED"]["results/tiny/tables/accuracy.csv"]
    assert entry["caption"] == "top-1 of {'net1': 1, 'net2': 2}"


@pytest.mark.parametrize("param", ["net", "file", "nett"])
def test_a_caption_that_needs_what_only_a_job_can_tell_is_named(tmp_path, param):
    caption = f"{{{{ snakemake.params.{param} }}}}"
    with pytest.raises(WorkflowError, match=rf"report/accuracy\.rst: .*'{param}'.*: kind, seeds"):
        with_params(tmp_path, caption)


def test_an_import_that_no_fingerprint_can_follow_is_told_before_anything_runs(tmp_path):
    copy_project(tmp_path)
    script = tmp_path / "workflow/scripts/fig4.py"
    script.write_text(
        "from convergent.nets import model\n" + script.read_text(encoding="utf-8"), encoding="utf-8"
    )
    with pytest.raises(WorkflowError, match=r"fig4\.py, line 1: from convergent.nets import model"):
        parsed(tmp_path)
