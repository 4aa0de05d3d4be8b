"""The Snakefile, run as its user would, on two nets and a few images.

The repository is copied, so that its library can be edited, and run once; the tests then look
at the results and at what each change would rerun.
"""

import json
import os
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
import zarr
from PIL import Image
from precision import rounding
from running import LAYERS, RUN, age, copy_project, jobs, parsed, planned, snakemake

from convergent.activations.blocks import Cut
from convergent.config import load
from convergent.config.resources import Estimates
from convergent.nets.shapes import read_shapes
from convergent.running import devices

UNITS = dict(zip(LAYERS, [4, 6, 8, 8, 6, 10, 9], strict=True))
SIDES = dict(zip(LAYERS, [16, 7, 3, 3, 3], strict=False))
IMAGES = 30
PAIR_FIGURES = ["fig1", "fig2", "fig3", "fig5", "fig6", "fig7"]
PAIR_FIGURES += [f"figS{number}" for number in range(1, 10)]
PAIR_FIGURES += ["matched_information", "sparse_loss", "eigenvalues", "excess", "similarity"]
PAIR_FIGURES += ["merge", "collapse"]
DRAWN = [f"draw_{name}" for name in PAIR_FIGURES]
RUN_FIGURES = ["fig4", "figS10", "figS11", "figS12"]
# Both nets and their pair are compared with what the nets were before training.
RECORD, WITHIN, CORRELATION = (
    f"{name}_with_untrained" for name in ("record", "statistics", "correlation")
)
DECAYS = [0, *(10.0**e for e in (-5, -4.5, *np.arange(-4, -1.9, 0.2), -1.5, -1))]


def test_results_are_where_the_design_says(project):
    run = project / RUN
    pairs, drawn = run / "pairs/net1-net2", run / "figures/net1-net2"
    for net in ("net1", "net2"):
        weights = torch.load(run / f"nets/{net}/weights.pt", weights_only=True)
        assert weights["conv1.conv.weight"].shape == (4, 1, 3, 3)
        history = pd.read_csv(run / f"nets/{net}/history.csv")
        columns = "epoch learning_rate train_loss train_top1 val_loss val_top1 val_top5 seconds"
        assert list(history) == columns.split()
        shapes = pd.read_csv(run / f"nets/{net}/layers.csv", index_col="layer")
        columns = "place axes units height width positions receptive_field"
        assert list(shapes) == columns.split()
        assert dict(shapes["units"]) == UNITS
        assert dict(shapes["height"].dropna()) == SIDES
        activations = zarr.open_group(run / f"activations/{net}.zarr", mode="r")
        assert activations.attrs["complete"] is True
        order = np.random.default_rng(0).permutation(IMAGES)
        np.testing.assert_array_equal(activations["image_index"][...], order)
        statistics = zarr.open_group(run / f"statistics/{net}.zarr", mode="r")
        for layer, units in UNITS.items():
            sides = (SIDES[layer],) * 2 if layer in SIDES else ()
            assert activations[layer].shape == (IMAGES, *sides, units)
            assert statistics[f"{layer}/mean"].shape == (units,)
            assert statistics[f"{layer}/std"].dtype == np.float64
            assert statistics[f"{layer}/dead"].dtype == bool
            assert statistics[f"{layer}/correlation"].shape == (units, units)
    correlation = zarr.open_group(pairs / "correlation.zarr", mode="r")
    for layer, units in UNITS.items():
        assert correlation[f"{layer}/correlation"].shape == (units, units)
        assert correlation[f"{layer}/blocks/correlation"].shape == (3, units, units)
    matching = pd.read_csv(pairs / "matching.csv")
    columns = ["layer", "measure", "method", "direction", "unit", "partner", "value"]
    assert list(matching) == columns
    semi = matching.query("measure == 'correlation' and method == 'semi'")
    for net, direction in (("net1", "ab"), ("net2", "ba")):
        statistics = zarr.open_group(run / f"statistics/{net}.zarr", mode="r")
        for layer in UNITS:
            of = semi[(semi["layer"] == layer) & (semi["direction"] == direction)]
            live = np.flatnonzero(~statistics[f"{layer}/dead"][...])
            np.testing.assert_array_equal(of["unit"], live)
    one_to_one = matching.query("method == 'matching'")
    assert not one_to_one.duplicated(["layer", "measure", "unit"]).any()
    assert not one_to_one.duplicated(["layer", "measure", "partner"]).any()
    information = zarr.open_group(pairs / "mutual_information.zarr", mode="r")
    within = zarr.open_group(run / "nets/net1/mutual_information.zarr", mode="r")
    for layer, units in UNITS.items():
        for name in ("mutual_information", "corrected"):
            assert information[f"{layer}/{name}"].shape == (units, units)
            assert within[f"{layer}/{name}"].shape == (units, units)
        samples = min(60_000, IMAGES * SIDES.get(layer, 1) ** 2)
        assert statistics[f"{layer}/codes"].shape == (samples, units)
        assert statistics[f"{layer}/codes"].dtype == np.uint8
        assert statistics[f"{layer}/edges"].shape == (units, 20)
    mapping = zarr.open_group(pairs / "mapping.zarr", mode="r")
    trees = zarr.open_group(pairs / "hac.zarr", mode="r")
    for layer, units in UNITS.items():
        for direction in ("ab", "ba"):
            group = mapping[f"{layer}/{direction}"]
            np.testing.assert_allclose(group["decay"][...], DECAYS)
            assert group["weights"].shape == (len(DECAYS), units, units)
        assert trees[f"{layer}/linkage"].shape == (2 * units - 1, 4)
        assert sorted(trees[f"{layer}/order"][...]) == list(range(2 * units))
    clusters = pd.read_csv(pairs / "clusters.csv", dtype={"path": str})
    assert list(clusters) == ["layer", "net", "unit", "cluster", "leaf", "path"]
    similarity = pd.read_csv(pairs / "cluster_similarity.csv")
    assert list(similarity) == ["layer", "leaf", "units_a", "units_b", "between", "within"]
    for layer, units in UNITS.items():
        rows = clusters.query("layer == @layer")
        assert list(rows["net"]) == ["net1"] * units + ["net2"] * units
        assert rows["leaf"].value_counts().max() <= 0.3 * 2 * units
        assert rows["leaf"].nunique() == (similarity["layer"] == layer).sum()
    for net in ("net1", "net2"):
        seen = zarr.open_group(run / f"units/{net}.zarr", mode="r")
        for layer, units in UNITS.items():
            group = seen[layer]
            for name in ("image", "y", "x", "value"):
                assert group[name].shape == (units, 9)
            if not group["pictured"][...].any():
                assert "patches" not in group
                continue
            side = min(int(group["receptive_field"][0]), 16)
            assert group["patches"].shape == group["deconv"].shape == (units, 9, side, side, 1)
            assert group["patches"].dtype == np.uint8
        assert seen["conv1/filters"].shape == (4, 3, 3, 1)
        np.testing.assert_array_equal(np.flatnonzero(seen["fc6/pictured"][...]), [0, 3])
    table = pd.read_csv(pairs / "mapping.csv")
    columns = "layer direction solver decay loss held_out_loss nonzero_per_unit relative_gap"
    assert list(table) == columns.split()
    assert (table["solver"] == "exact").sum() == 7 * 2 * len(DECAYS)
    assert list(table.query("solver == 'sgd'")["layer"].unique()) == ["conv1", "fc6"]
    assert table.query("solver == 'exact'")["relative_gap"].max() <= 1e-6
    assert table["loss"].between(0, 0.6).all()
    assert (run / "atlas/index.html").is_file()
    assert len(list((run / "atlas/data").glob("*/net1-net2.npz"))) == len(LAYERS)
    for net in ("net1", "net2"):
        untrained = zarr.open_group(run / f"nets/{net}/untrained.zarr", mode="r")
        for layer, units in UNITS.items():
            assert untrained[f"{layer}/blocks/correlation"].shape == (2, units, units)
            assert untrained[f"{layer}/image_mean"].shape == (IMAGES, units)
    controls = zarr.open_group(pairs / "controls.zarr", mode="r")
    for layer, units in UNITS.items():
        for name in ("untrained", "untrained_ab", "untrained_ba"):
            assert controls[f"{layer}/{name}"].shape == (2, units, units)
    similarity = pd.read_csv(pairs / "similarity.csv")
    significance = pd.read_csv(pairs / "significance.csv")
    assert set(significance["layer"]) == {*LAYERS, "all"}
    for table in (similarity, significance):
        for kind in ("rotation", "images", "untrained", "untrained_one"):
            assert {f"null_{kind}", f"null_{kind}_high", f"p_{kind}"} <= {*table}
    semi = significance.query("statistic == 'semi_mean' and measure == 'correlation'")
    nulls = [f"null_{kind}" for kind in ("rotation", "images", "untrained", "untrained_one")]
    assert semi.query("layer != 'all'")[nulls].notna().all(axis=None)
    assert semi[["p_rotation", "p_images"]].notna().all(axis=None)
    for name in ("null_draws", "null_matches"):
        assert len(pd.read_csv(pairs / f"{name}.csv"))
    tables = ["accuracy", "unmatched", "measure_agreement", "table1", "cluster_stability"]
    for name in [*tables, "similarity", "significance"]:
        assert len(pd.read_csv(run / f"tables/{name}.csv"))
    over_all = [run / "figures" / n for n in (*RUN_FIGURES, "table1")]
    for path in [drawn / n for n in PAIR_FIGURES] + over_all:
        with Image.open(path.with_suffix(".png")) as image:
            assert min(image.size) > 150
        assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_correlations_are_those_of_the_recorded_activations(project):
    stores = (project / RUN / f"activations/{net}.zarr" for net in ("net1", "net2"))
    a, b = (zarr.open_group(path, mode="r") for path in stores)
    store = zarr.open_group(project / RUN / "pairs/net1-net2/correlation.zarr", mode="r")
    for layer in LAYERS:
        x, y = (g[layer][...].reshape(-1, UNITS[layer]).astype(float) for g in (a, b))
        units = UNITS[layer]
        with np.errstate(invalid="ignore"):
            expected = np.nan_to_num(np.corrcoef(x, y, rowvar=False)[:units, units:])
        found = store[f"{layer}/correlation"][...]
        np.testing.assert_allclose(found, expected, atol=rounding(x, y))


def test_a_second_run_has_nothing_to_do(project):
    assert "Nothing to be done" in snakemake(project)


@pytest.mark.slow
def test_figures_redraw_alone(project):
    """Asked for by name, each is one job, and the picture the same to the last byte."""
    targets = [*PAIR_FIGURES, *RUN_FIGURES]
    rules = [*DRAWN, *RUN_FIGURES]
    assert planned(project, *targets, "-R", *rules) == dict.fromkeys([*rules, *PAIR_FIGURES], 1)
    names = ["fig1", "fig2", "fig7", "figS10"]
    figures = project / RUN / "figures"
    paths = [next(figures.rglob(f"{name}.png")) for name in names]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}
    rules = ["draw_fig1", "draw_fig2", "draw_fig7", "figS10"]
    assert jobs(snakemake(project, *names, "-R", *rules)) == dict.fromkeys([*rules, *names], 1)
    for path, (content, time) in before.items():
        assert path.stat().st_mtime_ns > time
        assert path.read_bytes() == content


def test_other_images_rerun_all_and_the_same_nothing(project):
    path = project / "images.npz"
    content, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    with np.load(path) as file:
        pixels, labels = file["images"], file["labels"]
    pixels[7, 3, 3] += 1
    np.savez(path, images=pixels, labels=labels)
    everything = {"images": 1} | TRAINED | STATISTICS | DOWNSTREAM
    assert paper_only(planned(project)) == everything
    path.write_bytes(content)
    os.utime(path, ns=times)
    assert planned(project) == {}


def test_jobs_ask_for_memory_though_the_files_of_shapes_were_lost(project, monkeypatch):
    def memory():
        ask = parsed(project, overlay={}).globals["resources_for"]("correlation")["mem_mb"]
        return ask(wildcards=None, threads=1, attempt=1)

    monkeypatch.chdir(project)
    known = memory()
    assert isinstance(known, int)
    files = list((project / RUN).glob("nets/*/layers.csv"))
    assert len(files) == 2
    for file in files:
        file.rename(file.with_suffix(".lost"))
    try:
        assert memory() == known
    finally:
        for file in files:
            file.with_suffix(".lost").rename(file)


def test_figures_of_any_pair_are_targets(project):
    """net3 joins by an overlay, as a preset would bring it."""
    (project / "more.yaml").write_text("nets: {net3: {seed: 3}, net1: null}", encoding="utf-8")
    target = f"{RUN}/figures/net2-net3/fig3.png"
    upstream = {"match": 1, CORRELATION: 1, "mutual_information": 1, WITHIN: 1}
    upstream |= {RECORD: 1, "train": 1, "shapes": 1, "compare_layers": 1}
    expected = {"draw_fig3": 1} | upstream
    assert planned(project, target, "--configfile", "more.yaml") == expected
    assert planned(project, "fig3", "--configfile", "more.yaml") == {"fig3": 1} | expected
    (project / "more.yaml").write_text("nets: {net3: {seed: 3}}", encoding="utf-8")
    assert planned(project, target, "--configfile", "more.yaml") == expected
    assert planned(project, "fig3", "--configfile", "more.yaml") == {}


def test_another_net_reruns_no_job_of_those_there(project):
    """Only what is of the new net, of its pairs, and of all nets or pairs."""
    (project / "more.yaml").write_text("nets: {net3: {seed: 3}}", encoding="utf-8")
    output = snakemake(project, "-n", "--configfile", "more.yaml")
    (project / "more.yaml").unlink()
    assert jobs(output)[CORRELATION] == 2
    messages = re.findall(r"(?m)^Job \d+: (.*)", output)
    assert len(messages) > 20
    named = [message for message in messages if re.search(r"\bnet[12]\b", message)]
    assert named
    assert [message for message in named if "net3" not in message] == []


def test_a_figure_of_a_pair_trains_its_two_nets(tmp_path):
    """Of four nets, though the figure shows chance levels of untrained nets."""
    copy_project(tmp_path)
    options = ["--config", "nets={net1: {}, net3: {seed: 3}, net4: {seed: 4}}"]
    for name in ("fig3", "figS3", "excess"):
        counts = planned(tmp_path, name, *options)
        assert counts["train"] == counts[RECORD] == counts[WITHIN] == 2
        assert counts[CORRELATION] == counts["compare_layers"] == 1


def test_nets_pairs_tables_and_paths_are_targets(project):
    targets = ["net1", "net2", "net1-net2", "accuracy", "unmatched", "table1"]
    assert planned(project, *targets, f"{RUN}/figures/net1-net2/fig3.pdf") == {}


def test_the_report_has_all_figures_and_tables_of_a_pair(project):
    assert planned(project, "report") == {"report": 1}
    said = snakemake(project, "report")
    assert said.count("tiny: 2 nets, top-1 from") == 1
    page = (project / RUN / "report.html").read_text(encoding="utf-8")
    for name in [*PAIR_FIGURES, *RUN_FIGURES, "table1"]:
        assert f'id="{name}-png"' in page
    for name in ("accuracy", "unmatched", "measure_agreement", "table1", "cluster_stability"):
        assert f'id="{name}-csv"' in page
    assert "Clusters of conv1 that are most alike in both nets of net1-net2" in page
    assert "{{" not in page
    # What is made only by name is not made for it.
    assert 'id="prune-png"' not in page


def test_a_release_is_what_a_run_is_verified_by(project):
    said = snakemake(project, "release")
    manifest = json.loads((project / RUN / "release/manifest.json").read_text(encoding="utf-8"))
    assert f"{RUN}/release/tiny.tar.gz: {manifest['megabytes']} MB" in said
    assert planned(project, "release") == {}
    published = project / RUN / "release/tables"
    against = ["verify", "--config", f"verify={{against: {published}}}"]
    assert "0 differ, 0 are missing" in snakemake(project, *against)
    table = pd.read_csv(published / "unmatched.csv")
    table.loc[3, "unmatched"] += 0.01
    table.to_csv(published / "unmatched.csv", index=False)
    said = snakemake(project, *against, fails=True)
    name = f"{table['layer'][3]} net1-net2 {table['direction'][3]}"
    assert f"tables/unmatched.csv, {name}, unmatched: " in said
    verified = pd.read_csv(project / RUN / "tables/verify.csv")
    assert (verified["outcome"] == "differs").sum() == 1
    assert "nothing is published of tiny" in snakemake(project, "verify", fails=True)


def paper_only(counts):
    """Leave out figures beyond the paper's: another row of their table needs no change here."""
    return {rule: n for rule, n in counts.items() if rule in DRAWN or not rule.startswith("draw_")}


ATLAS = {"atlas": 1}
# What is made from similarities with their chance levels.
COMPARED = {"draw_fig3": 1, "draw_figS3": 1, "draw_matched_information": 1, "fig4": 1}
COMPARED |= {"draw_excess": 1, "draw_similarity": 1} | ATLAS
COMPARED |= {"compare_layers": 1, "tabulate_similarity": 1, "significance": 1}
TRAINED = {"train": 2, "evaluate": 2, RECORD: 2, "accuracy": 1} | COMPARED
DOWNSTREAM = {"match": 1, "fig4": 1, "unmatched": 1} | ATLAS
DOWNSTREAM |= {"draw_fig1": 1, "draw_fig3": 1, "draw_figS1": 1, "draw_figS3": 1}
DOWNSTREAM |= {"draw_matched_information": 1}
DOWNSTREAM |= {"joint_densities": 1, "agreement": 1, "measure_agreement": 1}
MATCHED_FEATURES = {"draw_fig2": 1, "draw_figS2": 1, "draw_figS4": 1}
DOWNSTREAM |= MATCHED_FEATURES
# Nets between nets: what chooses partners, and all that statistics and nets depend on.
DOWNSTREAM |= {"merge_nets": 1, "draw_merge": 1, "draw_collapse": 1}
SHARED_CLUSTERS = {"draw_figS6": 1, "draw_figS7": 1}
CLUSTERS = {"cluster": 1, "cluster_stability": 1, "draw_figS5": 1, "draw_figS8": 1, "draw_figS9": 1}
CLUSTERS |= {"draw_eigenvalues": 1} | SHARED_CLUSTERS | ATLAS
STATISTICS = {WITHIN: 2, "mutual_information": 1, "mutual_information_within": 2}
STATISTICS |= {CORRELATION: 1, "figS10": 1, "figS11": 1, "figS12": 1} | CLUSTERS
DRAWN_MAPS = {"hac": 1, "draw_fig5": 1, "draw_fig6": 1, "draw_fig7": 1} | ATLAS
MAPPING = {"fit_maps": 1, "mapping": 1, "table1": 1, "draw_sparse_loss": 1} | DRAWN_MAPS
STATISTICS |= {"fit_maps_sgd": 1} | MAPPING
UNITS_SEEN = {"units": 2, "draw_fig6": 1, "draw_fig7": 1, "draw_figS8": 1, "figS11": 1, "figS12": 1}
STATISTICS |= COMPARED
UNITS_SEEN |= MATCHED_FEATURES | SHARED_CLUSTERS | ATLAS
STATISTICS |= UNITS_SEEN


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        # A comment: nothing. A function: the rules that use it, and what depends on them.
        ("convergent/measures/matching.py", "    rows, columns =", "    # why\n    rows, columns =",
         {}),
        ("scripts/match.py", "def main", "# why\ndef main", {}),
        ("convergent/measures/matching.py", "assignment(costs)", "assignment(1 * costs)",
         DOWNSTREAM | {"draw_fig6": 1} | COMPARED),
        ("convergent/activations/moments.py", "TILE = 1024", "TILE = 2048",
         STATISTICS | DOWNSTREAM),
        ("convergent/measures/histograms.py", "total = 0.0", "total = 0.0 + 0.0",
         {"mutual_information": 1, "mutual_information_within": 2} | DOWNSTREAM | COMPARED),
        ("convergent/activations/controls.py", "values=False", "values=bool(0)",
         {k: v for k, v in (STATISTICS | DOWNSTREAM).items() if k != CORRELATION}),
        ("convergent/measures/cka.py", "MEASURE =", "KERNEL = 1\nMEASURE =", COMPARED),
        ("convergent/measures/correlation.py", "return between", "return 1 * between",
         {"draw_fig3": 1, "draw_figS3": 1, "draw_fig2": 1, "draw_figS2": 1} | COMPARED),
        ("convergent/alignment/lasso.py", "PROGRESS = 10", "PROGRESS = 11",
         MAPPING | {"fit_maps_sgd": 1}),
        ("convergent/alignment/clustering.py", 'method="average"', 'method=str("average")',
         {"hac": 1, "draw_fig7": 1}),
        ("convergent/figures/atlas/pairs.py", "PARTNERS = 10", "PARTNERS = 11", ATLAS),
        ("convergent/alignment/graphs.py", "THREADED = 2048", "THREADED = 2049", CLUSTERS),
        ("convergent/units/pictures.py", "GREY = 128", "GREY = 127", UNITS_SEEN),
        ("convergent/figures/sheets.py", "height // 9", "height // 10",
         {k: v for k, v in UNITS_SEEN.items() if k not in ("units", "atlas")}),
        ("convergent/figures/one_to_one.py", "log_scale(ax)", "ax.semilogy() or log_scale(ax)",
         {"figS10": 1}),
        # Nets are trained anew for another recipe, not for every edit of what trains them.
        ("convergent/nets/modules.py", "float = 1e-4", "float = 2e-4",
         {"evaluate": 2, "accuracy": 1, RECORD: 2} | STATISTICS | DOWNSTREAM),
        ("convergent/nets/training.py", "step % 50 == 0", "step % 60 == 0", {}),
        ("convergent/nets/recipe.py", 'RECIPE = "', 'RECIPE = "2-',
         {"shapes": 2} | TRAINED | STATISTICS | DOWNSTREAM),
        ("convergent/figures/one_to_one.py", "mean_by_layer(matches, layers,",
         "mean_by_layer(matches, [*layers],", {"fig4": 1}),
        ("convergent/figures/tables.py", "dict(zip(seeds,", "dict(zip([*seeds],", {"accuracy": 1}),
        ("convergent/figures/catalogue.py", "Figure 3. Correlation", "Figure 3: correlation", {}),
        ("atlas/page.js", "Theme: light", "Theme: bright", ATLAS),
        # What every job does beside its work decides no result.
        ("scripts/_job.py", "at most %d kB of memory", "at most %d kB", {}),
        ("rules/train.smk", "rule train:", "# why\nrule train:", {}),
        ("../config.yaml", "run: tiny", "# why\nrun: tiny", {}),
    ],
)  # fmt: skip
def test_exactly_what_uses_a_change_reruns(project, file, old, new, expected):
    path = project / "workflow" / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    try:
        assert paper_only(planned(project)) == expected
    finally:
        path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("training={workers: 3}", {}),
        ("model={dropout: 0.4}",
         {"shapes": 2} | TRAINED | STATISTICS | DOWNSTREAM),
        ("accept_changes=true", {}),
        ("data={seed: 1}",
         {"images": 1} | TRAINED | STATISTICS | DOWNSTREAM),
        ("statistics={seed: 1}", {RECORD: 2} | STATISTICS | DOWNSTREAM),
        ("training={epochs: 11}",
         TRAINED | STATISTICS | DOWNSTREAM),
        ("dask={scheduler: processes}", {}),
        ("layers=[fc7, conv2, conv1, conv5, conv4, conv3, fc6]", {}),
        ("activations={positions: 5}", {RECORD: 2} | STATISTICS | DOWNSTREAM),
        ("figures={layer: conv2}",
         {"draw_fig1": 1, "draw_fig3": 1, "draw_figS3": 1, "draw_fig6": 1, "draw_fig7": 1,
          "draw_figS8": 1, "figS11": 1, "figS12": 1} | SHARED_CLUSTERS),
        ("figures={second_layer: conv5}", {"draw_figS7": 1, "draw_figS8": 1, "figS12": 1}),
        ("clustering={threshold: 0.3}", CLUSTERS),
        ("units={pictures: all}", UNITS_SEEN),
        ("mapping={penalty: 0.1}", DRAWN_MAPS),
        ("mapping={exponents: [-3, -2]}", MAPPING | {"fit_maps_sgd": 1}),
        ("mapping={sgd: {iterations: 21}}",
         {"fit_maps_sgd": 1, "mapping": 1, "table1": 1, "draw_sparse_loss": 1}),
        ("statistics={binning: reference}",
         {k: v for k, v in (STATISTICS | DOWNSTREAM).items() if k != CORRELATION}),
        ("statistics={blocks: 4}", STATISTICS | DOWNSTREAM),
        ("nulls={rotation: 21}", COMPARED),
        ("nulls={images: 0}", COMPARED),
        # Without the untrained nets, statistics and correlations have other inputs.
        ("nulls={untrained: false}",
         {k.removesuffix("_with_untrained"): n for k, n in (STATISTICS | DOWNSTREAM).items()}),
        ("nulls={maps: 20}", {}),
        ("nets={net2: {seed: 5}}",
         {"train": 1, "evaluate": 1, RECORD: 1, "accuracy": 1} | STATISTICS | DOWNSTREAM
         | {WITHIN: 1, "mutual_information_within": 1, "units": 1}),
    ],
)  # fmt: skip
def test_exactly_what_uses_a_key_reruns(project, key, expected):
    output = snakemake(project, "-n", "--config", key)
    assert paper_only(jobs(output)) == expected
    # Nets that are replaced are named before anything runs.
    assert output.count("trained again") == ("train" in expected)
    if expected.get("train") == 1:
        assert (
            "nets.net2.seed was 2 and is 5: net2 is trained again and replaced in results/tiny"
        ) in output


def test_a_copy_elsewhere_runs_nothing_again(project, tmp_path):
    """Although every file is newer than those that were made from it."""
    copied = shutil.copytree(project, tmp_path / "copied")
    age(copied)
    output = snakemake(copied, "-n")
    assert "results/tiny was copied" in output
    assert jobs(output) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "trainings=3"], "trainings: no such key; the keys here are run, nets"),
        (["--config", "nets={net2: {seed: 1}}"], "nets.net2.seed: 1 is already the seed of net1"),
        (["--config", "mapping={sgd: {layers: [fc8]}}"], "mapping.sgd.layers: 'fc8' is not among"),
        (
            ["--config", "clustering={k: 99}"],
            "clustering.k: 99 clusters requested for conv1, but both nets",
        ),
        (
            ["--config", "clustering={alpha: 0.01}"],
            "clustering.alpha: clusters of at most 0.08",
        ),
        (["--config", "clustering={threshold: -0.1}"], "clustering.threshold: Input should be gre"),
        (["--config", "units={pictures: {fc6: [10]}}"], "units.pictures.fc6: there is no unit 10"),
        (["--config", "figures={second_layer: fc8}"], "figures.second_layer: 'fc8' is not among"),
        (["--config", "dask={scheduler: cluster}"], "dask.scheduler: String should match pattern"),
        (["--config", "layers=[conv9]"], "layers: alexnet has no layer 'conv9'"),
        (["--config", "data={root: nowhere.npz}"], "data.root: there is no file nowhere.npz"),
        (
            ["--config", "statistics={blocks: 31}"],
            "statistics.blocks: 31 blocks need at least as many",
        ),
        (["--config", "nets={fig4: {seed: 9}}"], "nets.fig4: fig4 is a target of the workflow"),
    ],
)
def test_faults_are_told_before_anything_runs(project, arguments, message):
    before = sorted(p for p in (project / RUN).rglob("*"))
    output = snakemake(project, *arguments, fails=True)
    assert message in output
    assert "Traceback" not in output
    assert sorted(p for p in (project / RUN).rglob("*")) == before


@pytest.mark.slow
def test_an_image_folder_is_checked_then_used(project, tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(11):
                pixels = rng.integers(0, 255, size=(20, 20), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i}.jpg")
    bad = tmp_path / "train/dog/1.jpg"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:300])
    data = f"data={{name: imagefolder, root: {tmp_path}}}"
    output = snakemake(project, "net1", "--config", "run=folder", data, fails=True)
    assert f"{bad}: " in output
    assert not list((project / "results/folder").rglob("*.pt"))
    bad.write_bytes(whole)
    options = ["net1", "--config", "run=folder", data]
    snakemake(project, *options)
    store = zarr.open_group(project / "results/folder/activations/net1.zarr", mode="r")
    assert store["conv1"].shape == (22, 16, 16, 4)
    (tmp_path / "notes.txt").touch()
    assert planned(project, *options) == {}
    # Changed where it is, which no folder tells: found by whatever reads it.
    seen = tmp_path / "val/dog/3.jpg"
    whole = seen.read_bytes()
    Image.fromarray(255 - pixels).save(seen)
    output = snakemake(project, *options, "-R", RECORD, fails=True)
    assert f"{seen}: has changed since it was listed" in output
    seen.write_bytes(whole)
    # Another image: the folder has changed.
    Image.fromarray(pixels).save(tmp_path / "train/dog/11.jpg")
    expected = {"net1": 1, "images": 1, "train": 1, "evaluate": 1}
    expected |= {RECORD: 1, WITHIN: 1, "units": 1}
    assert paper_only(planned(project, *options)) == expected


@pytest.mark.slow
def test_without_a_store_the_numbers_are_the_same(project):
    """All of a pair and its nets, from one job that reads no store."""
    options = ["--config", "run=live", "activations={store: false}"]
    counts = planned(project, "net1-net2", "net1", "net2", *options)
    assert counts["observe"] == 1
    assert not counts.keys() & {RECORD, WITHIN, CORRELATION, "fit_maps_sgd"}
    targets = ["clusters.csv", "joint_densities.zarr", "correlation.zarr"]
    targets = [f"results/live/pairs/net1-net2/{name}" for name in targets]
    snakemake(project, *targets, "results/live/units/net1.zarr", *options)
    run = project / "results/live"
    assert not (run / "activations").exists()
    for name in ("matching", "clusters"):
        path = f"pairs/net1-net2/{name}.csv"
        expected, found = (pd.read_csv(r / path) for r in (project / RUN, run))
        columns = [c for c in expected if c != "value"]
        pd.testing.assert_frame_equal(found[columns], expected[columns])
    for path in ("units/net1.zarr", "pairs/net1-net2/joint_densities.zarr"):
        expected, found = (zarr.open_group(r / path, mode="r") for r in (project / RUN, run))
        for name, array in expected.members(max_depth=None):
            if isinstance(array, zarr.Array):
                np.testing.assert_allclose(found[name][...], array[...], rtol=1e-5, atol=1e-6)
    assert planned(project, *targets, *options) == {}


@pytest.mark.slow
def test_positions_processes_and_float32_are_a_matter_of_configuration(project):
    options = ["run=part", "activations={positions: 4, dtype: float32}"]
    options = ["--config", *options, "dask={scheduler: processes}"]
    snakemake(project, f"{RUN.replace('tiny', 'part')}/pairs/net1-net2/correlation.zarr", *options)
    stores = [project / f"results/part/activations/{net}.zarr" for net in ("net1", "net2")]
    x, y = (zarr.open_group(path, mode="r")["conv2"][...] for path in stores)
    assert x.dtype == np.float32
    assert x.shape == (IMAGES, 4, 6)
    with np.errstate(invalid="ignore"):
        x, y = x.reshape(-1, 6), y.reshape(-1, 6)
        expected = np.corrcoef(x, y, rowvar=False)[:6, 6:]
    store = zarr.open_group(project / "results/part/pairs/net1-net2/correlation.zarr", mode="r")
    found = store["conv2/correlation"][...]
    np.testing.assert_allclose(found, np.nan_to_num(expected), atol=rounding(x, y))


@pytest.mark.slow
def test_results_go_where_they_are_wanted_stores_go_and_nothing_is_written_elsewhere(
    project, tmp_path
):
    """Also: two jobs at a time on two pretended GPUs have one each."""
    home, results = tmp_path / "home", tmp_path / "scratch"
    home.mkdir()
    gpus = [f"MIG-{os.getpid()}-{number}" for number in (7, 9)]
    own = {"HOME": str(home), "CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    own |= dict.fromkeys(["XDG_CACHE_HOME", "XDG_CONFIG_HOME"], str(home))
    options = ["--resources", "gpu=2", "--config", "run=brief", f"results={results}"]
    options += ["device=auto", "activations={keep: false}"]
    run = results / "brief"
    target = str(run / "pairs/net1-net2/correlation.zarr")
    before = files(project)
    snakemake(project, target, str(run / "statistics/net1.zarr"), *options, env=own)
    assert files(project) == before
    assert {path.name for path in home.iterdir()} <= {"snakemake"}
    logs = [(run / f"logs/train/{net}.log").read_text(encoding="utf-8") for net in ("net1", "net2")]
    assert sorted(re.search(f"(\\S+) of {', '.join(gpus)}", log)[1] for log in logs) == gpus
    for gpu in gpus:
        devices._lock_file(gpu).unlink()
    assert not list((run / "activations").glob("*"))
    assert planned(project, target, *options) == {}
    # What needs a store makes it again.
    more = planned(project, str(run / "pairs/net1-net2/joint_densities.zarr"), *options)
    assert more[RECORD] == 2
    assert "train" not in more


def files(folder):
    """All but Snakemake's own and compiled modules."""
    paths = (path.relative_to(folder) for path in folder.rglob("*"))
    return sorted(path for path in paths if not {".snakemake", "__pycache__"} & set(path.parts))


def test_jobs_take_no_more_memory_than_they_ask_for(project):
    values = yaml.safe_load((project / "config.yaml").read_text(encoding="utf-8"))
    values["data"]["root"] = str(project / "images.npz")
    shapes = read_shapes(project / RUN / "nets/net1/layers.csv")
    work = Estimates(load(values), {"net1": shapes})
    seen = 0
    for log in (project / RUN / "logs").rglob("*.log"):
        stage = log.parent.name
        peak = re.search(r"at most (\d+) kB of memory", log.read_text(encoding="utf-8"))
        if peak and hasattr(work, stage):
            assert int(peak[1]) * 1024 < 10**6 * getattr(work, stage)(1).mem_mb, stage
            seen += 1
    assert seen > 15


@pytest.mark.slow
def test_a_store_of_another_configuration_is_refused(project):
    """As where results were copied, or touched to pass for up to date."""
    target = f"{RUN}/pairs/net1-net2/correlation.zarr"
    options = ["--config", "activations={positions: 3}"]
    kept = project / "kept"
    shutil.copytree(project / RUN, kept)
    try:
        snakemake(project, target, "--touch", *options)
        output = snakemake(project, target, "-f", *options, fails=True)
        assert "activations/net1.zarr: made by another configuration" in output
        assert "activations.positions: None there, 3 here" in output
    finally:
        shutil.rmtree(project / RUN)
        shutil.move(kept, project / RUN)
        snakemake(project, "--touch")


@pytest.mark.slow
def test_no_damaged_store_is_averaged_in(project):
    """Whatever is wrong with whichever store: the jobs that read it fail and name it."""
    kept, run = project / "kept", project / RUN
    shutil.copytree(run, kept)
    pair = run / "pairs/net1-net2"

    def shard(array):
        return next(p for p in (array / "c").rglob("*") if p.is_file())

    def noise(path):
        content = bytearray(path.read_bytes())
        content[10:60] = np.random.default_rng(0).bytes(50)
        path.write_bytes(content)

    try:
        noise(shard(pair / "correlation.zarr/conv2/correlation"))
        os.truncate(shard(pair / "mapping.zarr/conv4/ab/weights"), 40)
        shutil.rmtree(run / "statistics/net2.zarr")
        shutil.copytree(kept / "statistics/net1.zarr", run / "statistics/net2.zarr")
        snakemake(project, "--touch")
        made = [pair / "hac.zarr", pair / "clusters.csv", pair / "matching.csv"]
        targets = [str(path.relative_to(project)) for path in made]
        output = snakemake(project, *targets, "-k", "-R", "hac", "cluster", "match", fails=True)
        for message in (
            "mapping.zarr/conv4/ab/weights: rows",
            "statistics/net2.zarr: made by another configuration (store: statistics/net1.zarr ",
            "correlation.zarr/conv2/correlation: rows 0 to 6 cannot be read",
        ):
            assert message in output
        shard(run / "activations/net1.zarr/conv3").unlink()
        noise(shard(run / "activations/net2.zarr/fc6"))
        made += [run / "statistics/net2.zarr", pair / "correlation.zarr"]
        targets = [str(path.relative_to(project)) for path in made[3:]]
        output = snakemake(project, *targets, "-k", "-f", fails=True)
        for message in ("net1.zarr/conv3: rows 0 to ", "net2.zarr/fc6: rows 0 to "):
            assert message in output
        assert not any(path.exists() for path in made)
    finally:
        shutil.rmtree(run)
        shutil.move(kept, run)
        snakemake(project, "--touch")


@pytest.mark.slow
def test_a_net_that_dies_says_so_and_earlier_weights_come_back(project):
    """Last, for what follows from the weights is out of date afterwards."""
    target = f"{RUN}/nets/net1/weights.pt"
    before = (project / target).read_bytes()
    recipe = "training={learning_rate: 1e30, optimizer: sgd, schedule: constant}"
    output = snakemake(project, target, "--config", recipe, fails=True)
    assert "net1: the loss is" in output
    assert "Lower training.learning_rate" in output
    # A failure must not pass for a result when it is run again.
    assert planned(project, target, "--config", recipe) == {"train": 1}
    snakemake(project, target)
    assert "resumed after epoch 10 of 10" in (project / RUN / "logs/train/net1.log").read_text(
        encoding="utf-8"
    )
    assert (project / target).read_bytes() == before


def test_what_follows_from_an_alignment_is_made_by_name_and_by_nothing_else(project):
    rules = ["prune_units", "draw_prune", "prune", "stitch_layers", "draw_stitch", "stitch"]
    rules += ["score_ensembles", "ensemble"]
    rules += ["zip_nets", "draw_zip", "zip"]
    assert jobs(snakemake(project, "prune", "stitch", "ensemble", "zip")) == dict.fromkeys(rules, 1)
    run = project / RUN
    top1 = {
        net: pd.read_csv(run / f"nets/{net}/evaluation.csv")["top1"].item()
        for net in ("net1", "net2")
    }
    images = zarr.open_group(run / "activations/net1.zarr", mode="r")["image_index"].size
    # Halves of the images count by their sizes.
    half = Cut.of(images, 3).half
    weights = {"first": half / images, "last": 1 - half / images}

    def mean(rows):
        return (rows["top1"] * rows["half"].map(weights)).sum()

    prune = pd.read_csv(run / "pairs/net1-net2/prune.csv")
    assert {*prune["layer"]} == {*LAYERS, "all"}
    whole = prune[(prune["share"] == 0) & (prune["order"] == "matched_first")]
    for (net, *_), rows in whole.groupby(["net", "layer", "removal"]):
        assert mean(rows) == pytest.approx(top1[net])
    stitch = pd.read_csv(run / "pairs/net1-net2/stitch.csv", keep_default_na=False)
    assert {*stitch["layer"]} == {*LAYERS}
    assert {*stitch["control"]} == {"none", "untrained", "shuffled"}
    own = stitch[stitch["map"] == "own"].astype({"top1": float})
    for (direction, _), rows in own.groupby(["direction", "layer"]):
        assert mean(rows) == pytest.approx(top1["net2" if direction == "ab" else "net1"])
    zipped = pd.read_csv(run / "pairs/net1-net2/zip.csv")
    for net in top1:
        assert mean(zipped[zipped["net"] == net]) == pytest.approx(top1[net])
    merged = pd.read_csv(run / "pairs/net1-net2/merge.csv").query("t == 0.5 and temperature == 1")
    halfway = merged[(merged["alignment"] == "correlation") & ~merged["repaired"]]
    halfway = halfway.set_index("half")["loss"].sort_index()
    joined = zipped[(zipped["share"] == 1) & ~zipped["repaired"]].set_index("half")["loss"]
    np.testing.assert_allclose(joined.sort_index(), halfway, rtol=1e-3)
    ensembles = pd.read_csv(run / "ensembles.csv").query("layer == 'conv1'")
    for net in top1:
        assert mean(ensembles[ensembles["nets"] == net]) == pytest.approx(top1[net])
    assert {*pd.read_csv(run / "tables/ensemble.csv")["chosen"]} >= {"each", "mean"}
    # The report now shows these, and still asks for nothing.
    assert jobs(snakemake(project, "report")) == {"report": 1}
    page = (run / "report.html").read_text(encoding="utf-8")
    section = page[page.index("<h2>Section 6: what follows</h2>") :].split("</section>")[0]
    shown = ["prune", "stitch", "merge", "collapse", "zip", "ensemble"]
    shown = [*(f"{name}-png" for name in shown), "ensemble-csv"]
    assert re.findall(r'<figure id="([^"]*)"', section) == shown
