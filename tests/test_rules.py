"""What the rules say, as Snakemake itself has read them."""

import inspect
import shutil
from dataclasses import replace
from pkgutil import resolve_name

import pytest
import snakemake.api as api
from running import ROOT, copy_project, parsed
from snakemake.exceptions import WorkflowError

from convergent.figures.catalogue import FIGURES, TABLES
from convergent.figures.entries import Shown

# Training, recording and every stage of every pair, and the atlas.
JOBS = {
    "train", "evaluate", "record", "statistics", "correlation", "mutual_information_within",
    "mutual_information", "match", "joint_densities", "agreement", "fit_maps", "fit_maps_sgd",
    "mapping", "hac", "cluster", "units", "atlas", "merge_nets", "zip_nets",
}  # fmt: skip
# These draw whole matrices.
JOBS |= {"draw_fig5", "draw_fig6", "draw_fig7", "draw_figS5"}
JOBS |= {"compare_layers", "compare_all_layers", "compare_maps", "ceilings"}
# What follows from an alignment, by name.
JOBS |= {"prune_units", "stitch_layers", "score_ensembles", "observe_epoch", "follow_training"}
JOBS |= {"observe_probe", "compare_probes"}
READING = {"record", "statistics", "correlation"}
JOBS |= {f"{name}_with_untrained" for name in READING}
FROM_STORES = {name for name in JOBS if name.split("_with")[0] in READING}
FROM_STORES |= {"compare_all_layers", "ceilings"}
WITHOUT_STORE = JOBS - FROM_STORES | {"observe"}
IMAGE_FOLDER = {"data": {"name": "imagefolder", "root": "images"}}
OVERLAYS = [{}, {"activations": {"store": False}}, IMAGE_FOLDER]


def prepare(folder):
    """The default configuration, and an image folder for those who ask for one."""
    for split in ("train", "val"):
        (folder / f"images/{split}/cat").mkdir(parents=True)
        for number in range(21):
            (folder / f"images/{split}/cat/{number}.png").touch()
    shutil.copy(ROOT / "config.yaml", folder)


@pytest.mark.parametrize(
    ("overlay", "expected"),
    list(zip(OVERLAYS, [JOBS, WITHOUT_STORE, JOBS | {"images"}], strict=True)),
    ids=["default", "no store", "image folder"],
)
def test_a_cluster_gets_what_is_heavy_and_nothing_else(tmp_path, monkeypatch, overlay, expected):
    """Other figures, tables, the report and targets are made on the login node."""
    prepare(tmp_path)
    monkeypatch.setattr(api.Workflow, "local_exec", False)
    workflow = parsed(tmp_path, ROOT / "Snakefile", overlay)
    found = {rule.name for rule in workflow.rules if not workflow.is_local(rule)}
    assert found == expected


@pytest.mark.parametrize("overlay", OVERLAYS, ids=["default", "no store", "image folder"])
def test_every_rule_has_a_message(tmp_path, overlay):
    prepare(tmp_path)
    rules = parsed(tmp_path, ROOT / "Snakefile", overlay).rules
    assert [rule.name for rule in rules if not rule.message] == []


def test_every_figure_and_table_is_a_target_by_its_bare_name(tmp_path):
    prepare(tmp_path)
    workflow = parsed(tmp_path, ROOT / "Snakefile")
    rules = {rule.name: rule for rule in workflow.rules}
    for name in [*FIGURES, *TABLES]:
        assert not rules[name].has_wildcards()
    assert {f.removeprefix("results/digits/") for f in map(str, rules["fig3"].input)} == {
        "figures/net1-net2/fig3.png", "figures/net1-net2/fig3.pdf",
    }  # fmt: skip
    # A name of both makes both.
    both = {*FIGURES} & {*TABLES}
    assert both == {*workflow.globals["ALSO_TABLES"]}
    for name in both:
        assert f"results/digits/tables/{name}.csv" in map(str, rules[name].input)


@pytest.mark.parametrize("name", [*FIGURES, *TABLES])
def test_every_row_calls_a_function_with_arguments_that_it_has(name):
    for row in (rows[name] for rows in (FIGURES, TABLES) if name in rows):
        of_pair = getattr(row, "of_pair", False)
        arguments = {*row.inputs, *row.params, *(["nets"] if of_pair else [])}
        call = getattr(row, "make", row.draw)
        function = resolve_name(f"convergent.figures.{call}")
        assert arguments == set(inspect.signature(function).parameters)


def test_every_input_of_a_row_is_the_output_of_a_rule(tmp_path):
    prepare(tmp_path)
    workflow = parsed(tmp_path, ROOT / "Snakefile")
    config = workflow.globals["RUN"]
    for name, row in [*FIGURES.items(), *TABLES.items()]:
        shown = Shown(config, ("net1", "net2") if getattr(row, "of_pair", False) else ())
        for key in row.inputs if name != "conditions" else ():
            files = row.file(key, shown, "results/digits/")
            for file in [files] if isinstance(files, str) else files:
                assert any(rule.is_producer(file) for rule in workflow.rules), (name, file)


def with_caption(monkeypatch, folder, caption):
    """The workflow in which table accuracy has another caption."""
    copy_project(folder)
    row = TABLES["accuracy"]
    monkeypatch.setitem(TABLES, "accuracy", replace(row, caption=f"{caption} {row.caption}"))
    return parsed(folder)


def test_a_caption_holds_parameters_of_its_row(tmp_path, monkeypatch):
    workflow = with_caption(monkeypatch, tmp_path, "Seeds {seeds}.")
    entry = workflow.globals["REPORTED"]["results/tiny/tables/accuracy.csv"]
    assert entry["caption"].startswith("Seeds {'net1': 1, 'net2': 2}. Accuracy")


def test_a_caption_that_needs_what_its_row_does_not_have_is_named(tmp_path, monkeypatch):
    with pytest.raises(WorkflowError, match=r"caption of accuracy: .*'net'; .* seeds"):
        with_caption(monkeypatch, tmp_path, "{net}")


def test_an_import_that_no_fingerprint_can_follow_is_told_before_anything_runs(tmp_path):
    copy_project(tmp_path)
    script = tmp_path / "workflow/scripts/hac.py"
    script.write_text(
        "from convergent.nets import model\n" + script.read_text(encoding="utf-8"), encoding="utf-8"
    )
    with pytest.raises(WorkflowError, match=r"hac\.py, line 1: from convergent.nets import model"):
        parsed(tmp_path)


def test_a_drawing_function_that_is_not_there_is_told_before_anything_runs(tmp_path, monkeypatch):
    copy_project(tmp_path)
    monkeypatch.setitem(FIGURES, "fig4", replace(FIGURES["fig4"], draw="one_to_one:fig4"))
    with pytest.raises(WorkflowError, match=r"there is no convergent\.figures\.one_to_one:fig4"):
        parsed(tmp_path)


def test_what_the_figures_need_comes_before_the_same_of_other_nets(tmp_path):
    prepare(tmp_path)
    workflow = parsed(tmp_path, ROOT / "Snakefile", {"figures": {"pair": "net2-net4"}})

    def priority(rule, **wildcards):
        value = workflow.get_rule(rule).priority
        return value(wildcards) if callable(value) else value

    for rule in ("train", "record_with_untrained"):
        drawn, other = (priority(rule, net=net) for net in ("net4", "net1"))
        assert drawn > other, rule
    for rule in ("correlation_with_untrained", "match", "compare_layers"):
        drawn, other = (priority(rule, pair=pair) for pair in ("net2-net4", "net1-net2"))
        assert drawn > other, rule
    # Of the pair that is drawn, a figure goes first, and what takes longest last.
    order = [priority(rule, pair="net2-net4") for rule in ("draw_fig3", "match", "cluster")]
    assert order == sorted({*order}, reverse=True)
    assert priority("shapes", net="net1") > priority("train", net="net2")


def test_ensembles_are_of_nets_that_share_layers(tmp_path):
    prepare(tmp_path)
    other = {"seed": 5, "model": {"name": "resnet", "blocks": 1}, "layers": ["relu1"]}
    overlay = {"nets": {"other": other}, "pairs": ["net1-net2"]}
    rule = parsed(tmp_path, ROOT / "Snakefile", overlay).get_rule("score_ensembles")
    assert [*rule.params.nets] == ["net1", "net2", "net3", "net4"]
