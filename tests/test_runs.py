"""A run is opened from code: what was planted in its files comes out under the right names."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from running import ROOT

import convergent
from convergent.config import load
from convergent.running.stores import UnknownNameError, new_store
from convergent.running.stores import save as save_array
from convergent.runs.reading import NotARunError, NotMadeError

# Unit u of net1 is unit ORDER[u] of net2.
ORDER = np.array([2, 0, 3, 1])
PAIR = "pairs/net1-net2"


@pytest.fixture
def run(tmp_path):
    """Two nets of three, with four units in conv1, of which the second has the first's."""
    folder = tmp_path / "planted"
    values = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    del values["nets"]["net4"]
    config = load(values | {"run": "planted", "results": "elsewhere"})
    (folder / PAIR).mkdir(parents=True)
    for store in ("statistics", "units"):
        (folder / store).mkdir()
    with (folder / "provenance.jsonl").open("w", encoding="utf-8") as lines:
        old = load(values | {"run": "old"})
        for name, each in {"old": old, "new": config}.items():
            print(
                json.dumps({"hash": name, "configuration": each.model_dump(mode="json")}),
                file=lines,
            )
        for name in ("old", "new"):
            print(json.dumps({"rule": "match", "configuration": name}), file=lines)
        print('{"rule": "match", "configuration": "o', end="", file=lines)
    between = np.full((4, 4), 0.1, np.float32)
    between[np.arange(4), ORDER] = [0.9, 0.8, 0.7, 0.6]
    with new_store(folder / f"{PAIR}/correlation.zarr") as group:
        save_array(group, "conv1/correlation", between, ("unit_a", "unit_b"))
    weights = np.zeros((2, 4, 4))
    weights[1][ORDER, np.arange(4)] = [1, 2, 3, 4]
    with new_store(folder / f"{PAIR}/mapping.zarr") as group:
        for way, there in (("ab", weights), ("ba", -weights.transpose(0, 2, 1))):
            for name, value in {
                "decay": np.array([0.0, 0.0625]),
                "weights": there,
                "loss": np.zeros((2, 4)),
                "nonzero": np.ones((2, 4), int),
            }.items():
                save_array(
                    group, f"conv1/{way}/{name}", value, ("decay", "target", "source")[: value.ndim]
                )
    rows = [
        ("conv1", "correlation", method, way, unit, partner, between[pair])
        for u, v in enumerate(ORDER)
        for pair in [(u, v)]
        for method, way, unit, partner in [
            ("semi", "ab", u, v), ("semi", "ba", v, u), ("matching", "ab", u, v)
        ]
    ]  # fmt: skip
    columns = ["layer", "measure", "method", "direction", "unit", "partner", "value"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / f"{PAIR}/matching.csv", index=False)
    nulls = [
        ("conv1", "correlation", method, "rotation", rank, 0.3, 0.2, 0.4)
        for method in ("semi", "matching")
        for rank in range(4)
    ]
    columns = ["layer", "measure", "method", "null", "rank", "mean", "low", "high"]
    pd.DataFrame(nulls, columns=columns).to_csv(folder / f"{PAIR}/null_matches.csv", index=False)
    significance = pd.DataFrame(
        {"layer": ["conv1"] * 2, "direction": ["ab", "ba"], "value": [0.5, 0.7]}
    )
    significance.to_csv(folder / f"{PAIR}/significance.csv", index=False)
    patches = np.arange(4 * 9 * 2 * 2, dtype=np.uint8).reshape(4, 9, 2, 2, 1)
    with new_store(folder / "units/net1.zarr") as group:
        save_array(group, "conv1/pictured", np.array([True, True, False, True]), ("unit",))
        save_array(group, "conv1/patches", patches, ("unit", "rank", "height", "width", "channel"))
        for name in ("image", "value", "y", "x"):
            save_array(group, f"conv1/{name}", np.tile(np.arange(9), (4, 1)), ("unit", "rank"))
    with new_store(folder / "statistics/net1.zarr") as group:
        for name in ("mean", "std", "dead"):
            save_array(group, f"conv1/{name}", np.array([0.0, 1.0, 2.0, 3.0]), ("unit",))
    return convergent.open(folder)


def test_a_run_is_read_with_the_configuration_of_its_last_job(run):
    assert run.name == "planted"
    assert run.nets == ["net1", "net2", "net3"]
    assert run.pairs == [("net1", "net2"), ("net1", "net3"), ("net2", "net3")]
    assert run.layers[0] == "conv1"


def test_rows_belong_to_the_net_named_first(run):
    there, back = (run.correlation(*of, "conv1") for of in (("net1", "net2"), ("net2", "net1")))
    assert (there.index.name, there.columns.name) == ("net1", "net2")
    assert (back.index.name, back.columns.name) == ("net2", "net1")
    assert there.to_numpy().argmax(axis=1).tolist() == ORDER.tolist()
    pd.testing.assert_frame_equal(back, there.T)


@pytest.mark.parametrize("method", ["semi", "matching"])
def test_partners_are_found_in_both_directions(run, method):
    there = run.matches("net1", "net2", "conv1", method)
    assert there["partner"].tolist() == ORDER.tolist()
    back = run.matches("net2", "net1", "conv1", method)
    assert back.sort_index()["partner"].tolist() == np.argsort(ORDER).tolist()
    assert back.loc[ORDER, "value"].tolist() == there["value"].tolist()


def test_a_sparse_map_predicts_the_second_net_from_the_first(run):
    weights, decay = run.sparse_map("net1", "net2", "conv1")
    assert decay == 0.0625
    assert (weights.index.name, weights.columns.name) == ("net2", "net1")
    assert weights.loc[2, 0] == 1
    back, _ = run.sparse_map("net2", "net1", "conv1")
    assert back.loc[0, 2] == -1


def test_directions_turn_with_the_pair(run):
    for nets, expected in {("net1", "net2"): 0.5, ("net2", "net1"): 0.7}.items():
        rows = run.significance(*nets).set_index("direction")
        assert rows.loc["ab", "value"] == expected


def test_a_unit_has_its_pictures_where_there_are_any(run):
    unit = run.unit("net1", "conv1", 1)
    assert (unit.mean, unit.patches[0].ravel().tolist()) == (1, [36, 37, 38, 39])
    assert unit.deconvolutions is None
    assert run.unit("net1", "conv1", 2).patches is None


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda run: run.correlation("net1", "net22", "conv1"), UnknownNameError, "mean net2"),
        (lambda run: run.correlation("net1", "net2", "convv1"), UnknownNameError, "mean conv1"),
        (lambda run: run.correlation("net1", "net1", "conv1"), UnknownNameError, "correlation"),
        (lambda run: run.matches("net1", "net2", "conv1", "one"), UnknownNameError, "semi"),
        (lambda run: run.unit("net1", "conv1", 4), UnknownNameError, "units 0 to 3"),
        (lambda run: run.clusters("net2", "net1", "conv1"), NotMadeError,
         "snakemake --cores all elsewhere/planted/pairs/net1-net2/clusters.csv"),
        (lambda run: run.plot.fig4(), NotMadeError, "elsewhere/planted"),
        (lambda run: run.plot.stitch(), NotMadeError, "planted/pairs/net1-net2/stitch.csv"),
        (lambda run: run.plot.fig33, AttributeError, "Did you mean fig3"),
        (lambda run: run.plot.fig3("net1", "net2", "conv9"), UnknownNameError, "conv5"),
        (lambda run: run.plot.fig1("net1", "net2", "conv1", "fc6"), TypeError, "one layer"),
        (lambda run: run.plot.fig1("net1", "net2", colour="red"), TypeError, "colour"),
        (lambda run: convergent.open(run.folder.parent), NotARunError, "planted"),
    ],
)  # fmt: skip
def test_errors_say_what_would_be_right(run, call, error, message):
    with pytest.raises(error, match=message):
        call(run)


def test_a_figure_leaves_the_callers_style_and_backend_alone(run):
    """In a process of its own, as the style is set where it is first imported."""
    code = f"""
import matplotlib
matplotlib.use("svg")
import matplotlib.pyplot as plt
plt.rcParams["font.size"] = 17
mine = plt.figure()
before = dict(plt.rcParams)
import convergent
figures = [convergent.open({str(run.folder)!r}).plot.fig3("net2", "net1") for _ in range(2)]
assert dict(plt.rcParams) == before
assert matplotlib.get_backend() == "svg"
assert plt.get_fignums() == [mine.number]
from convergent.figures.style import STYLE
for figure in figures:
    assert figure.dpi == STYLE["figure.dpi"]
    labels = figure.axes[0].get_xticklabels()
    assert {{label.get_size() for label in labels}} == {{STYLE["xtick.labelsize"]}}
assert dict(plt.rcParams) == before
"""
    subprocess.run([sys.executable, "-c", code], check=True)
