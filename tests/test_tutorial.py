"""The notebook's cells run one after another on the default run, without Jupyter."""

import json

import matplotlib
import pytest
from running import ROOT

import convergent

RUN = ROOT / "results/digits"
CELLS = json.loads((ROOT / "docs/tutorial.ipynb").read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def test_every_cell_of_code_is_told_beforehand_and_keeps_no_output():
    kinds = [cell["cell_type"] for cell in CELLS]
    assert all(kinds[n - 1] == "markdown" for n, kind in enumerate(kinds) if kind == "code")
    assert all(not cell["outputs"] for cell in CELLS if cell["cell_type"] == "code")


def test_the_tutorial_runs(monkeypatch):
    if not (RUN / "tables/significance.csv").exists():
        pytest.skip("the default run is not in results/digits: uv run snakemake --cores all")
    monkeypatch.chdir(ROOT / "docs")
    before, names = dict(matplotlib.rcParams), {}
    for cell in CODE:
        exec(cell.replace("%matplotlib inline\n", ""), names)
    assert dict(matplotlib.rcParams) == before
    run = names["run"]
    assert run.folder.samefile(RUN)
    assert isinstance(run, type(convergent.open(RUN)))
    # The best partner is the largest value of its row, and p values are shares.
    values = run.correlation("net1", "net2", "conv3")
    assert names["semi"].loc[names["best"], "value"] == pytest.approx(values.to_numpy().max())
    assert len(names["found"]) == len(run.layers) + 1
    assert names["found"]["p_rotation"].dropna().between(0, 1).all()
