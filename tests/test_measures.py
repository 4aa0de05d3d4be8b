"""What measures declare holds, and a measure that one file adds appears everywhere."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import planted
import pytest
from comparing import FACTS, evidence
from hypothesis import given, settings
from hypothesis import strategies as st
from running import copy_project, planned, snakemake
from test_atlas import Page, chromium  # noqa: F401

import convergent.measures
from convergent.figures import atlas, one_to_one
from convergent.figures.atlas import writing
from convergent.measures import registry
from convergent.measures.evidence import Split
from convergent.measures.registry import (
    INVARIANCES,
    Measure,
    Undefined,
    measures,
    measures_of_units,
)
from convergent.running.stores import new_store, open_store, save

ROOT = Path(__file__).parents[1]
ALL = measures()
SOME = settings(max_examples=25, deadline=None)
# Images, and units of each layer.
SHAPES = st.tuples(st.integers(30, 60), st.integers(2, 6), st.integers(2, 6))


def compute(measure, x, y):
    """Compute a measure from activations of shape (image, position, unit) or (sample, unit).

    A measure of layers that needs a matrix is that of correlations, or of what it is declared for.
    One that is always held out is fitted on one half of the images and scored on the other.
    """
    x, y = (z[:, None] if z.ndim == 2 else z for z in (x, y))
    if measure.gives == "units":
        found = evidence(x, y, ("codes",))
        return np.asarray(
            measure.compute(*(found.codes if measure.needs == "codes" else found.moments))
        )
    names = FACTS.keys() & {measure.needs}
    middle = len(x) // 2
    halves = tuple(
        evidence(x[part], y[part], names) for part in (slice(middle), slice(middle, None))
    )
    parameter = (measure.of or ("correlation",))[0] if measure.needs == "matrix" else ""
    return np.asarray(Split(evidence(x, y, names), halves).value(measure, parameter))


def activations(rng, images, units_a, units_b):
    """Activations (image, position, unit) of two layers after a ReLU that see much the same."""
    seen = rng.normal(size=(images, 4, 4)) + rng.normal(size=(images, 1, 4))
    x, y = (seen @ rng.normal(size=(4, units)) + 0.3 for units in (units_a, units_b))
    return tuple(np.where(z > 0, z + 0.01, 0) for z in (x, y))


def least_alike(measure, x, y):
    """Tell whether a measure has its value for what is not alike at all, or has none."""
    try:
        values = compute(measure, x, y)
    except Undefined:
        return True
    return (values == (0 if measure.higher_is_more_alike else measure.range[1])).all()


CHANGES = {
    "permutation": lambda y, rng: y[..., np.roll(np.arange(y.shape[-1]), 1)],
    "scaling": lambda y, rng: y * rng.uniform(0.3, 3, y.shape[-1]),
    "isotropic_scaling": lambda y, rng: y * rng.uniform(0.3, 3),
    "shift": lambda y, rng: y - rng.uniform(0.2, 1, y.shape[-1]),
    "sign": lambda y, rng: y * np.where(np.arange(y.shape[-1]) % 2, 1, -1),
    "rotation": lambda y, rng: y @ np.linalg.qr(rng.normal(size=(y.shape[-1],) * 2))[0],
    "monotone": lambda y, rng: np.expm1(y * rng.uniform(0.5, 1.5, y.shape[-1])),
}


UNDECLARED = dict.fromkeys(Measure.__dataclass_fields__) | {"invariances_of_second": frozenset()}


def test_every_invariance_is_tested():
    assert CHANGES.keys() == INVARIANCES


def expected_after(name, measure, values):
    moved = name == "permutation" and measure.gives == "units"
    return np.roll(values, 1, axis=1) if moved else values


DECLARED = [(m, name) for m in ALL for name in sorted(m.invariances)]
NOT_DECLARED = [(m, name) for m in ALL for name in sorted(INVARIANCES - m.invariances)]


def named(value):
    return getattr(value, "name", value)


@pytest.mark.parametrize(("measure", "name"), DECLARED, ids=named)
@SOME
@given(shape=SHAPES, seed=st.integers(0, 2**32 - 1), dead=st.booleans())
def test_a_declared_invariance_holds(measure, name, shape, seed, dead):
    rng = np.random.default_rng(seed)
    x, y = activations(rng, *shape)
    if dead:
        y[..., 0] = 0
    before, changed = compute(measure, x, y), CHANGES[name](y, rng)
    tolerance = {"rtol": 1e-4, "atol": 1e-5}
    after = compute(measure, x, changed)
    np.testing.assert_allclose(after, expected_after(name, measure, before), **tolerance)
    # The same change of the first net.
    before, after = compute(measure, y, x).T, compute(measure, changed, x).T
    np.testing.assert_allclose(after, expected_after(name, measure, before), **tolerance)


@pytest.mark.parametrize(
    ("measure", "name"),
    [(m, name) for m in ALL for name in sorted(m.invariances_of_second)],
    ids=named,
)
@SOME
@given(shape=SHAPES, seed=st.integers(0, 2**32 - 1))
def test_an_invariance_declared_of_the_second_net_holds(measure, name, shape, seed):
    rng = np.random.default_rng(seed)
    x, y = activations(rng, *shape)
    after = compute(measure, x, CHANGES[name](y, rng))
    np.testing.assert_allclose(after, compute(measure, x, y), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("measure", "name"), NOT_DECLARED, ids=named)
def test_an_invariance_that_is_not_declared_does_not_hold(measure, name):
    largest = 0
    # Some changes of some layers leave the directions of most variance alone.
    for seed in range(10):
        rng = np.random.default_rng(seed)
        x, y = activations(rng, 50, 4, 5)
        # Rarely silent, and together: a bin around zero of their own tells of it.
        silent = rng.random((50, 4)) < 0.03
        x[..., 0], y[..., 0] = np.where(silent, 0, 1 + rng.random((2, 50, 4)))
        before = expected_after(name, measure, compute(measure, x, y))
        change = np.abs(compute(measure, x, CHANGES[name](y, rng)) - before).max()
        if measure.gives == "layers":
            # The same change of the first net.
            after = compute(measure, CHANGES[name](x, rng), y)
            change = max(change, np.abs(after - before))
        largest = max(largest, change)
    assert largest > 0.01


@pytest.mark.parametrize("measure", ALL, ids=named)
@SOME
@given(shape=SHAPES, seed=st.integers(0, 2**32 - 1), dead=st.booleans())
def test_range_symmetry_and_dead_units_are_as_declared(measure, shape, seed, dead):
    x, y = activations(np.random.default_rng(seed), *shape)
    if dead:
        x[..., 0], y[..., -1] = 0, 3
    values = compute(measure, x, y)
    low, high = measure.range
    assert (low - 1e-6 <= values).all()
    assert (values <= high + 1e-6).all()
    assert values.shape == ((x.shape[-1], y.shape[-1]) if measure.gives == "units" else ())
    turned = compute(measure, y, x).T
    if measure.symmetric:
        np.testing.assert_allclose(turned, values, atol=1e-6)
    if dead and measure.gives == "units":
        assert not values[0].any()
        assert not values[:, -1].any()
    assert least_alike(measure, 0 * x, y)
    assert least_alike(measure, x, 0 * y)
    assert least_alike(measure, 0 * x, 0 * y)


@pytest.mark.parametrize("measure", ALL, ids=named)
def test_the_same_units_are_more_alike_than_others(measure):
    rng = np.random.default_rng(0)
    x, _ = activations(rng, 75, 5, 5)
    same, other = (compute(measure, x, y) for y in (x, rng.permutation(x)))
    same, other = (np.diagonal(v) if measure.gives == "units" else v for v in (same, other))
    assert ((same > other) == measure.higher_is_more_alike).all()


def test_the_first_is_what_others_are_compared_with():
    assert [m.name for m in measures_of_units()][:2] == ["correlation", "mutual_information"]
    for measure in ALL:
        assert measure.source
        assert measure is registry.measure(measure.name)


def test_an_unknown_invariance_is_an_error():
    with pytest.raises(ValueError, match="measure m: unknown invariance rotations; choose"):
        Measure(**UNDECLARED | {"name": "m", "invariances": frozenset({"rotations"})})


def test_a_distance_of_units_is_an_error():
    values = UNDECLARED | {
        "name": "m",
        "invariances": frozenset(),
        "gives": "units",
        "symmetric": True,
    }
    values |= {"needs": "moments", "compute": abs}
    with pytest.raises(ValueError, match="measure m: units are matched by their largest values"):
        Measure(**values | {"higher_is_more_alike": False})


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"gives": "units", "needs": "samples"}, "computes units from moments or codes, not from"),
        (
            {"gives": "layers", "needs": "codes"},
            "computes layers from moments or .* dissimilarities, not from",
        ),
        ({"gives": "units", "needs": "codes", "symmetric": False}, "must be symmetric"),
        ({"invariances": frozenset({"magic"})}, "unknown invariance magic"),
        ({"compute": None}, "there is neither compute nor choose"),
        ({"compute": None, "choose": abs}, "cannot be scored without score"),
    ],
)
def test_a_measure_that_nothing_can_use_is_an_error(declared, message):
    values = UNDECLARED | {"name": "m", "invariances": frozenset(), "higher_is_more_alike": True}
    values |= {"gives": "units", "needs": "moments", "compute": abs}
    with pytest.raises(ValueError, match=message):
        Measure(**values | declared)


def test_the_registry_is_cheap_to_import():
    code = "import sys; from convergent.measures.registry import measures; measures()\n"
    code += "sys.exit(str(sys.modules.keys() & {'numba', 'torch', 'scipy', 'pandas', 'zarr'}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stderr.strip() == "set()"


TOY = """
from convergent.measures.registry import Measure


def compute(between, within_a, within_b):
    return abs(between.correlation())


MEASURE = Measure(
    name="toy",
    label="size of correlation",
    unit="",
    needs="moments",
    gives="units",
    range=(0, 1),
    invariances=frozenset({"permutation", "scaling", "isotropic_scaling", "shift", "sign"}),
    symmetric=True,
    higher_is_more_alike=True,
    source="nobody",
    compute=compute,
)
"""
TOY_OF_LAYERS = (
    TOY.replace('"toy"', '"toy_layers"')
    .replace('"units"', '"layers"')
    .replace(".correlation())", ".correlation()).mean()")
)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A measure in a file of its own."""
    (tmp_path / "measures").mkdir()
    (tmp_path / "measures/toy.py").write_text(TOY, encoding="utf-8")
    folders = [*convergent.measures.__path__, str(tmp_path / "measures")]
    monkeypatch.setattr(convergent.measures, "__path__", folders)
    yield registry.measure("toy")
    registry.measure.cache_clear()
    sys.modules.pop("convergent.measures.toy", None)
    vars(convergent.measures).pop("toy", None)


def script(name, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "workflow/scripts"))
    path = ROOT / f"workflow/scripts/{name}.py"
    spec = importlib.util.spec_from_file_location(f"script_{name}", path)
    module = importlib.util.module_from_spec(spec)
    # What every job sets up is not this process's.
    monkeypatch.setitem(sys.modules, "_job", SimpleNamespace(run=None))
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def run_with_toy(toy, tmp_path, monkeypatch):
    """Folder of a run and the measures in its tables and its atlas, by the jobs' own scripts."""
    layers = {"conv1": 12, "fc6": 20}
    planted.write_run(tmp_path, layers)
    nets, pairs = planted.stores(tmp_path)
    for paths in pairs.values():
        paths["toy"] = paths["correlation"].with_name("toy.zarr")
        correlation = open_store(paths["correlation"])
        with new_store(paths["toy"]) as store:
            for layer in layers:
                matrix = np.abs(correlation[f"{layer}/correlation"][...])
                save(store.create_group(layer), "toy", matrix, ("unit_a", "unit_b"))
        job = SimpleNamespace(
            input=_Names(paths),
            output=SimpleNamespace(
                matching=paths["matching"], table=paths["matching"].with_name("agreement.csv")
            ),
            params=SimpleNamespace(
                layers=list(layers), measures=[m.name for m in measures_of_units()]
            ),
            wildcards=SimpleNamespace(pair="net1-net2"),
        )
        script("match", monkeypatch)(job)
        script("agreement", monkeypatch)(job)
    page = sorted((ROOT / "workflow/atlas").glob("*"))
    writing.write_atlas(
        tmp_path / "atlas", page, "tiny", planted.layers_of(tmp_path), nets, pairs, 0.25
    )
    return tmp_path


def test_a_new_measure_is_matched_tabulated_drawn_and_in_the_atlas(toy, run_with_toy):
    pair = run_with_toy / "pairs/net1-net2"
    matches = pd.read_csv(pair / "matching.csv")
    assert list(matches["measure"].unique()) == ["correlation", "mutual_information", "toy"]
    agreement = pd.read_csv(pair / "agreement.csv")
    assert list(agreement["measure"]) == ["mutual_information", "toy"] * 2
    np.testing.assert_allclose(agreement.query("measure == 'toy'")["spearman_absolute"], 1)
    rows = matches.query("measure == 'toy'")
    figure = one_to_one.matched_values(rows, ["conv1", "fc6"], ["net1", "net2"], toy)
    assert figure.get_supylabel() == "size of correlation"
    run = json.loads((run_with_toy / "atlas/data/run.json").read_text(encoding="utf-8"))
    assert [m["name"] for m in run["measures"]] == ["correlation", "mutual_information", "toy"]
    assert run["measures"][1]["unit"] == "nats"
    facts = atlas.read(run_with_toy / "atlas/data/fc6/net1-net2.js")
    semi = rows.query("layer == 'fc6' and method == 'semi' and direction == 'ab'")
    np.testing.assert_array_equal(facts["toy/a/semi"], [-1, *semi["partner"]])


def test_a_new_measure_is_on_the_page(chromium, run_with_toy):  # noqa: F811
    chromium.get_log("browser")
    page = Page(chromium, run_with_toy / "atlas").size(1400, 900)
    page.open("#layer=fc6&a=net1&b=net2&view=units&sort=-toy&unit=net1.5")
    heads = page.run("return [...document.querySelectorAll('thead th')].map((e) => e.innerText)")
    assert heads[3:5] == ["Mutual information", "Size of correlation ▼"]
    assert page.run("return document.querySelectorAll('.way[data-measure=toy] a').length") > 0
    values = page.run(
        "return [...document.querySelectorAll('td:nth-child(5) .value')].map((e) => e.innerText)"
    )
    assert values == sorted(values, reverse=True)
    assert len(values) == 19
    assert [e for e in chromium.get_log("browser") if e["level"] == "SEVERE"] == []


class _Names(dict):
    """Paths by name, as Snakemake has them: both as attributes and as items."""

    __getattr__ = dict.__getitem__


@pytest.mark.slow
def test_new_measures_have_their_stores_and_rows_without_another_edit(tmp_path):
    copy_project(tmp_path)
    folder = tmp_path / "workflow/convergent/measures"
    (folder / "toy.py").write_text(TOY, encoding="utf-8")
    (folder / "toy_layers.py").write_text(TOY_OF_LAYERS, encoding="utf-8")
    counts = planned(tmp_path)
    assert (counts["toy"], counts["toy_within"], counts["compare_layers"]) == (1, 2, 1)
    pair = "results/tiny/pairs/net1-net2"
    names = ["toy.zarr", "measure_agreement.csv", "similarity.csv"]
    names = [f"{pair}/{name}" for name in names]
    snakemake(tmp_path, *names, "results/tiny/nets/net1/toy.zarr", "matched_toy")
    assert (tmp_path / "results/tiny/figures/net1-net2/matched_toy.png").exists()
    correlation, toy = (open_store(tmp_path / pair / f"{n}.zarr") for n in ("correlation", "toy"))
    within = open_store(tmp_path / "results/tiny/nets/net1/toy.zarr")
    statistics = open_store(tmp_path / "results/tiny/statistics/net1.zarr")
    similarity = pd.read_csv(tmp_path / pair / "similarity.csv").query("measure == 'toy_layers'")
    for layer, value in zip(similarity["layer_a"], similarity["value"], strict=True):
        matrix = toy[f"{layer}/toy"][...]
        expected = np.abs(correlation[f"{layer}/correlation"][...])
        np.testing.assert_allclose(matrix, expected, atol=1e-6)
        np.testing.assert_allclose(value, expected.mean(), atol=1e-6)
        inner = np.abs(statistics[f"{layer}/correlation"][...])
        np.testing.assert_allclose(within[f"{layer}/toy"][...], inner, atol=1e-6)
    matches = pd.read_csv(tmp_path / pair / "matching.csv")
    assert list(matches["measure"].unique()) == ["correlation", "mutual_information", "toy"]
    # A measure reruns what is made from it.
    text = TOY.replace("abs(between", "0.5 * abs(between")
    (folder / "toy.py").write_text(text, encoding="utf-8")
    again = planned(tmp_path, f"{pair}/measure_agreement.csv", f"{pair}/similarity.csv")
    assert again == {"toy": 1, "match": 1, "agreement": 1, "compare_layers": 1}
