"""The atlas tells of a run what its stores do, and shows it in a browser opened on a file."""

import io
import itertools
import json
import os
import shutil
import stat
import urllib.parse
from pathlib import Path

import chance_tables
import numpy as np
import pandas as pd
import planted
import pytest
from PIL import Image

from convergent.consequences.curves import mean_of_halves
from convergent.figures import atlas
from convergent.figures.atlas import overview, pairs, pictures, writing
from convergent.figures.sheets import softened
from convergent.running.stores import StoreError, open_store

ROOT = Path(__file__).parents[1]
PAGE = sorted((ROOT / "workflow/atlas").glob("*"))
LAYERS = {"conv1": 12, "fc6": 130}
PENALTY = 0.25
POINTS = [0, 0.25, 0.5, 0.75, 1]
# What nets halfway lose, by alignment and by how they are finished; and what the nets themselves
# reach on either half of the images.
LOST = {
    ("none", False, "kept"): 0.8,
    ("none", True, "kept"): 0.5,
    ("none", False, "reset"): 0.48,
    ("correlation", False, "kept"): 0.3,
    ("correlation", True, "kept"): 0.05,
    ("correlation", False, "reset"): 0.06,
    ("weights", False, "kept"): 0.6,
    ("ensemble", False, "kept"): -0.02,
}
ENDS = {"first": (0.98, 0.92), "last": (0.94, 0.9)}


def merged_nets(labelled=True):
    """Rows as of merge.csv, whose curves are parabolas; temperature 2 is as good as 1."""
    rows = []
    for (alignment, repaired, norm), lost in LOST.items():
        for t, (half, (a, b)), temperature in itertools.product(POINTS, ENDS.items(), (1, 2)):
            share = (1 - t) * a + t * b - lost * 4 * t * (1 - t)
            row = {"t": t, "alignment": alignment, "repaired": repaired, "batch_norm": norm}
            row |= {"temperature": temperature, "half": half, "loss": 1 - share, "n_images": 100}
            row |= {"top1": share if labelled else np.nan, "low": share, "high": share}
            rows.append(row | {"loss_standard_error": 0.01, "agreement": share - 0.01})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder of a run with an atlas of three nets; net2 is net1 permuted."""
    folder = tmp_path_factory.mktemp("run")
    planted.write_run(folder, LAYERS, pictures={"fc6": 40}, signed=["fc6"])
    nets, pairs = planted.stores(folder)
    # One pair has a table of chance levels.
    pairs["net1-net2"]["significance"] = folder / "significance.csv"
    chance_tables.significance(["conv1", "fc6"]).to_csv(folder / "significance.csv", index=False)
    pairs["net1-net2"]["merge"] = folder / "merge.csv"
    merged_nets().to_csv(folder / "merge.csv", index=False)
    classes = ["first", "second"] * 100
    layers = planted.layers_of(folder)
    writing.write_atlas(folder / "atlas", PAGE, "tiny", layers, nets, pairs, PENALTY, classes)
    return folder


@pytest.fixture(scope="module")
def permutations(tmp_path_factory):
    return planted.write_run(tmp_path_factory.mktemp("again"), LAYERS)


@pytest.mark.parametrize("layer", LAYERS)
def test_best_partners_are_those_of_the_matrices(run, layer):
    facts = atlas.read(run / f"atlas/data/{layer}/net1-net3.js")
    pair = run / "pairs/net1-net3"
    for measure in ("correlation", "mutual_information"):
        matrix = open_store(pair / f"{measure}.zarr")[layer][measure][...]
        for side, values in (("a", matrix), ("b", matrix.T)):
            partner, value = (facts[f"{measure}/{side}/{name}"] for name in ("partner", "value"))
            assert (partner[0] == -1).all()  # unit 0 is dead
            live = values[1:, 1:]
            np.testing.assert_array_equal(value[1:], -np.sort(-live, axis=1)[:, : value.shape[1]])
            np.testing.assert_array_equal(
                np.take_along_axis(values, partner, axis=1)[1:], value[1:]
            )


@pytest.mark.parametrize(("side", "direction"), [("a", "ba"), ("b", "ab")])
def test_map_partners_are_the_units_that_predict_a_unit(run, side, direction):
    facts = atlas.read(run / "atlas/data/fc6/net1-net2.js")
    group = open_store(run / "pairs/net1-net2/mapping.zarr")[f"fc6/{direction}"]
    weights = group["weights"][1]  # of the decay whose penalty is 0.25
    for unit, partners in enumerate(facts[f"map/{side}/partner"]):
        found = partners[partners >= 0]
        expected = np.flatnonzero(weights[unit])
        assert set(found) == set(expected[np.argsort(-np.abs(weights[unit, expected]))][:10])
        sizes = np.abs(weights[unit, found])
        assert (np.diff(sizes) <= 0).all()
        np.testing.assert_allclose(
            facts[f"map/{side}/value"][unit][: len(found)], weights[unit, found], rtol=1e-6
        )
    np.testing.assert_allclose(facts[f"map/{side}/loss"], group["loss"][1], rtol=1e-6)
    np.testing.assert_array_equal(facts[f"map/{side}/weights"], (weights != 0).sum(axis=1))


def test_matches_are_those_of_the_table(run):
    facts = atlas.read(run / "atlas/data/fc6/net2-net3.js")
    table = pd.read_csv(run / "pairs/net2-net3/matching.csv").query("layer == 'fc6'")
    rows = table.query("measure == 'correlation' and method == 'semi' and direction == 'ba'")
    # Unit 0 is dead in both nets.
    np.testing.assert_array_equal(facts["correlation/b/semi"], [-1, *rows["partner"]])
    np.testing.assert_allclose(facts["correlation/b/semi_value"], [0, *rows["value"]], rtol=1e-5)
    forth, back = facts["correlation/a/matching"], facts["correlation/b/matching"]
    assert forth[0] == back[0] == -1
    np.testing.assert_array_equal(back[forth[1:]], np.arange(1, LAYERS["fc6"]))
    np.testing.assert_array_equal(
        facts["correlation/b/matching_value"][forth[1:]], facts["correlation/a/matching_value"][1:]
    )
    for side in "ab":
        np.testing.assert_array_equal(
            facts[f"correlation/{side}/completed"], [0, *facts[f"correlation/{side}/matching"][1:]]
        )


def test_units_left_over_have_no_partner_of_their_own():
    rows = pd.DataFrame(
        {"method": "matching", "direction": "ab", "unit": [0, 2], "partner": [1, 0], "value": 0.5}
    )
    facts = pairs.assigned(rows, "m", "a", 3)
    assert list(facts["m/a/matching"]) == [1, -1, 0]
    assert np.isnan(facts["m/a/matching_value"][1])
    assert list(pairs.assigned(rows, "m", "b", 2)["m/b/matching"]) == [2, 0]


def test_a_planted_permutation_is_in_the_data(run, permutations):
    for layer, permutation in permutations.items():
        facts = atlas.read(run / f"atlas/data/{layer}/net1-net2.js")
        half = slice(1, LAYERS[layer] // 2)  # little noise
        np.testing.assert_array_equal(facts["correlation/a/semi"][half], permutation[half])


def test_ranks_count_from_the_most_active(run):
    for net in planted.NETS:
        facts = atlas.read(run / f"atlas/data/conv1/{net}.js")
        order = np.argsort(facts["rank"])
        assert sorted(facts["rank"]) == list(range(1, 13))
        assert (np.diff(facts["mean"][order]) <= 0).all()
        assert list(np.flatnonzero(facts["dead"])) == [0]


def test_matrices_are_the_correlations_to_two_digits(run, monkeypatch, tmp_path):
    matrix = open_store(run / "pairs/net1-net2/correlation.zarr")["fc6/correlation"][...]
    kept = atlas.read(run / "atlas/data/fc6/net1-net2-0.js")["correlation"]
    assert kept.dtype == np.int8
    assert np.abs(kept / 100 - matrix).max() <= 0.00501
    # In stripes of rows, where it is large.
    monkeypatch.setattr(writing, "STRIPE", 1000)
    nets, pairs = planted.stores(run)
    layers = {name: ["fc6"] for name in (*nets, *pairs)}
    writing.write_atlas(tmp_path / "atlas", PAGE, "tiny", layers, nets, pairs, PENALTY)
    stripes = len(list((tmp_path / "atlas/data/fc6").glob("net1-net2-*.js")))
    assert stripes == -(-130 // (1000 // 130))
    paths = [tmp_path / f"atlas/data/fc6/net1-net2-{n}.js" for n in range(stripes)]
    rows = np.concatenate([atlas.read(path)["correlation"] for path in paths])
    np.testing.assert_array_equal(rows, kept)


def test_other_tools_read_the_same(run):
    path = run / "atlas/data/fc6/net1.npz"
    plain, wrapped = np.load(path), atlas.read(path.with_suffix(".js"))
    assert set(plain) == set(wrapped)
    for name in plain:
        np.testing.assert_array_equal(plain[name], wrapped[name])
    contents = json.loads((run / "atlas/data/run.json").read_text(encoding="utf-8"))
    assert contents["layers"][1]["nets"]["net2"]["units"] == 130


def test_chance_levels_are_those_of_the_table(run):
    layers = json.loads((run / "atlas/data/run.json").read_text(encoding="utf-8"))["layers"]
    facts = layers[0]["pairs"]["net1-net2"]["chance"]
    assert list(facts) == ["a", "b"]
    assert facts["a"]["value"] == 0.79
    assert facts["a"]["nulls"]["rotation"] == pytest.approx([0.65, 0.68, 1 / 21])
    assert facts["a"]["nulls"]["untrained"] == [0.86, None, None]
    assert layers[0]["pairs"]["net1-net3"]["chance"] == {}


def test_curves_of_merging_are_those_of_the_table(run, tmp_path):
    facts = json.loads((run / "atlas/data/run.json").read_text(encoding="utf-8"))["merging"]
    assert list(facts) == ["net1-net2"]
    facts = facts["net1-net2"]
    assert facts["t"] == POINTS
    assert (facts["images"], facts["labelled"]) == (200, True)
    hows = {("False", "kept"): "averaged", ("True", "kept"): "repaired"}
    assert len(facts["curves"]) == len(LOST)
    for curve, (key, lost) in zip(facts["curves"], LOST.items(), strict=True):
        assert curve["alignment"] == key[0]
        how = hows.get((str(key[1]), key[2]), "batch normalisation reset")
        assert curve["how"] == (None if key[0] == "ensemble" else how)
        share = [0.96 - 0.05 * t - lost * 4 * t * (1 - t) for t in POINTS]
        np.testing.assert_allclose(curve["share"], share, atol=1e-5)
        assert all(np.less(curve["low"], share) & np.greater(curve["high"], share))
    merged_nets(labelled=False).to_csv(tmp_path / "merge.csv", index=False)
    facts = overview.merging_facts(tmp_path / "merge.csv")
    assert not facts["labelled"]
    assert facts["curves"][0]["share"][0] == pytest.approx(0.95)
    assert facts["curves"][0]["low"] == [None] * len(POINTS)


def test_sheets_hold_every_picture_in_its_place(run):
    about = json.loads((run / "atlas/data/run.json").read_text(encoding="utf-8"))["layers"]
    sheets = (("conv1", "deconv", 0), ("fc6", "deconv", 0), ("fc6", "weakest-patches", 128))
    assert not list((run / "atlas/pictures/net2").glob("conv1-weakest*"))
    for layer, kind, away in sheets:
        exact = layer == "conv1"
        described = next(one for one in about if one["name"] == layer)["nets"]["net2"]["pictures"]
        assert described["exact"] is exact
        side, columns, full = (described[key] for key in ("side", "columns", "units"))
        for unit in (0, 5, LAYERS[layer] - 1):
            name = f"{layer}-{kind}-{unit // full}.{described['suffix']}"
            with Image.open(run / "atlas/pictures/net2" / name) as image:
                pixels = np.asarray(image.convert("L")).astype(int)
            row, column = divmod(unit % full, columns)
            for rank in range(9):
                y, x = (3 * row + rank // 3) * side, (3 * column + rank % 3) * side
                there = pixels[y : y + side, x : x + side]
                planned = np.full((1, side, side, 1), (unit + 10 * rank + away) % 256, np.uint8)
                if kind == "deconv":
                    planned = softened(planned)
                assert np.abs(there - planned[0, :, :, 0].astype(int)).max() <= (0 if exact else 12)


def test_large_pictures_are_shrunk_and_units_without_are_skipped(tmp_path, rng, monkeypatch):
    planted.write_run(tmp_path, {"conv1": 6}, pictures={"conv1": 200})
    seen = open_store(tmp_path / "units/net1.zarr")["conv1"]
    monkeypatch.setattr(pictures, "SHEET", 3 * pictures.LARGEST * 2)
    described = pictures.write_sheets(tmp_path / "pictures", "conv1", seen)
    assert (described["side"], described["columns"], described["units"]) == (128, 2, 4)
    with Image.open(tmp_path / "pictures/conv1-patches-1.webp") as image:
        assert image.size == (768, 384)
    planted.write_run(tmp_path, {"conv1": 6}, pictures={"conv1": 0})
    seen = open_store(tmp_path / "units/net1.zarr")["conv1"]
    assert pictures.write_sheets(tmp_path / "none", "conv1", seen) is None
    assert not (tmp_path / "none").exists()


def test_colours_and_places_of_a_sheet(rng):
    blocks = rng.integers(0, 255, size=(5, 9, 4, 4, 3), dtype=np.uint8)
    page = pictures.sheet(blocks, 3)
    assert page.shape == (24, 36, 3)
    np.testing.assert_array_equal(page[12 + 4 : 12 + 8, 12 + 8 : 12 + 12], blocks[4, 5])
    assert not page[12:, 24:].any()


def test_a_failed_atlas_leaves_the_old_one(run, tmp_path):
    nets, pairs = planted.stores(run)
    layers, missing = ({key: [name] for key in (*nets, *pairs)} for name in ("conv1", "conv9"))
    rest = (nets, pairs, PENALTY)
    writing.write_atlas(tmp_path / "atlas", PAGE, "tiny", layers, *rest)
    with pytest.raises(StoreError, match="no conv9 here"):
        writing.write_atlas(tmp_path / "atlas", PAGE, "tiny", missing, *rest)
    assert (tmp_path / "atlas/data/conv1/net1.js").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["atlas"]


@pytest.fixture(scope="module")
def unequal(tmp_path_factory):
    """Folder of a run in which net2 has 8 of net1's 12 units of conv1, and net3 lacks fc6.

    Units of fc6 have no deconvolution, and images no class.
    """
    folder = tmp_path_factory.mktemp("unequal")
    fewer = {"net2": {"conv1": 8}, "net3": {"fc6": 0}}
    permutations = planted.write_run(
        folder, {"conv1": 12, "fc6": 20}, fewer=fewer, fault={"fc6": "GELU at 3"}
    )
    nets, pairs = planted.stores(folder)
    del pairs["net2-net3"]
    layers = planted.layers_of(folder)
    rest = (layers, nets, pairs, PENALTY, [""] * 200)
    writing.write_atlas(folder / "atlas", PAGE, "unequal", *rest)
    return folder, permutations["conv1"]


def test_nets_of_other_widths_and_layers_have_their_own_facts(unequal):
    folder, permutation = unequal
    contents = json.loads((folder / "atlas/data/run.json").read_text(encoding="utf-8"))
    conv1, fc6 = contents["layers"]
    assert {net: about["units"] for net, about in conv1["nets"].items()} == {
        "net1": 12, "net2": 8, "net3": 12,
    }  # fmt: skip
    assert list(fc6["nets"]) == ["net1", "net2"]
    assert list(fc6["pairs"]) == ["net1-net2"]
    assert contents["classes"] == contents["labels"] == []
    facts = atlas.read(folder / "atlas/data/conv1/net1-net2.js")
    forth, back = facts["correlation/a/matching"], facts["correlation/b/matching"]
    assert (len(forth), len(back)) == (12, 8)
    # Units with little noise; unit 0 is dead.
    there = [unit for unit in range(1, 6) if permutation[unit] < 8]
    np.testing.assert_array_equal(forth[there], permutation[there])
    np.testing.assert_array_equal(back[permutation[there]], there)
    assert (forth < 0).sum() == 5
    # Decays times the units that are predicted are the penalty, in either direction.
    assert conv1["pairs"]["net1-net2"]["decay"] == {"a": PENALTY / 12, "b": PENALTY / 8}
    weights = open_store(folder / "pairs/net1-net2/mapping.zarr")["conv1/ba/weights"][1]
    np.testing.assert_array_equal(facts["map/a/weights"], (weights != 0).sum(axis=1))


# The page, in Chromium.


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("needs Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    switches = ["headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-sync"]
    switches += ["disable-background-networking", "disable-component-update"]
    switches += [f"user-data-dir={tmp_path_factory.mktemp('profile')}"]
    for switch in switches:
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(driver)
    browser = webdriver.Chrome(options=options, service=service)
    yield browser
    browser.quit()


class Page:
    """The atlas in a browser: waits where a person would, and sees what a person would."""

    def __init__(self, browser, folder):
        self.browser, self.folder = browser, folder

    def size(self, width, height, dark=False):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        return self

    def open(self, fragment=""):
        self.browser.get("about:blank")
        self.browser.get(f"file://{self.folder}/index.html{fragment}")
        self.until("return 'ready' in document.body.dataset")
        return self

    def until(self, script, *arguments):
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, 20).until(
            lambda browser: browser.execute_script(script, *arguments)
        )

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def click(self, selector):
        self.until("return document.querySelector(arguments[0])", selector).click()

    def point(self, selector, offset=0):
        """Click, as a mouse does, on the middle of an element or as far right and below it."""
        from selenium.webdriver.common.action_chains import ActionChains

        target = self.browser.find_element("css selector", selector)
        chain = ActionChains(self.browser).move_to_element_with_offset(target, offset, offset)
        chain.click().perform()

    def point_of_curve(self, unit):
        """Click on a unit of the curve."""
        from selenium.webdriver.common.action_chains import ActionChains

        self.until("return curve.order.includes(arguments[0])", unit)
        plot = self.browser.find_element("css selector", "#plot svg")
        across, down = self.run("return curve.place(curve.order.indexOf(arguments[0]))", unit)
        middle = plot.size["width"] / 2, plot.size["height"] / 2
        offset = round(across - middle[0]), round(down - middle[1])
        ActionChains(self.browser).move_to_element_with_offset(plot, *offset).click().perform()

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0]).innerText", selector)

    def keys(self, *keys):
        from selenium.webdriver.common.keys import Keys

        self.browser.switch_to.active_element.send_keys(*(getattr(Keys, k, k) for k in keys))

    def heads(self, words):
        """Wait until the panel shows a unit."""
        shown = "return document.querySelector('#unit h2')?.innerText.endsWith(arguments[0])"
        self.until(shown, words)

    @property
    def address(self):
        fragment = urllib.parse.urlparse(self.browser.current_url).fragment
        return dict(urllib.parse.parse_qsl(fragment))


@pytest.fixture
def page(chromium, run):
    page = Page(chromium, run / "atlas").size(1400, 900)
    chromium.get_log("browser")
    yield page
    assert [entry for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_a_planted_match_is_found_by_clicking_through(page, permutations):
    """From a point of the curve to the unit, to its partner, and back."""
    page.open()
    page.click("#layers a[data-layer=fc6]")
    unit, partner = 7, permutations["fc6"][7]
    page.until("return state.view == 'curve' && curve.order.length == 130")
    page.point_of_curve(unit)
    page.heads(f"unit {unit}")
    first = "section[data-net=net2] .way[data-measure=%s] a"
    for measure in ("correlation", "mutual_information", "map"):
        link = page.until("return document.querySelector(arguments[0])", first % measure)
        assert link.get_attribute("data-unit") == f"net2.{partner}"
    page.click(first % "correlation")
    page.heads(f"unit {partner}")
    assert page.address["unit"] == f"net2.{partner}"
    page.click("section[data-net=net1] .way[data-measure=correlation] a")
    page.heads(f"unit {unit}")
    page.browser.back()
    page.heads(f"unit {partner}")


def test_the_weakest_side_is_a_second_row_where_there_is_one(page, run):
    drawn = "return [...document.querySelectorAll('#unit .large')].map(row => row.innerText)"
    canvases = "return document.querySelectorAll('#unit .large canvas').length"
    page.open("#layer=fc6&a=net1&b=net2&unit=net2.9")
    page.until(f"{canvases} == 4")
    first, second = page.run(drawn)
    assert "excites it most" in first
    assert "most negative" in second
    lowest = open_store(run / "units/net2.zarr")["fc6/weakest/value"][9, 0]
    assert f"Most negative\n\N{MINUS SIGN}{-lowest:.2f}" in page.text("#unit .facts")
    page.open("#layer=fc6&a=net1&b=net2&unit=net2.0")
    assert len(page.run(drawn)) == 1  # dead, and so never negative
    page.open("#layer=conv1&a=net1&b=net2&unit=net2.9")
    page.until(f"{canvases} == 2")
    assert len(page.run(drawn)) == 1
    assert "Most negative" not in page.text("#unit .facts")


def test_a_cell_of_the_matrix_shows_both_units(page, permutations):
    page.open("#layer=conv1&a=net1&b=net2&view=matrix&order=matched")
    page.until("return document.getElementById('loading').hidden")
    side = page.browser.find_element("id", "cells").size["width"] / 12
    # On the diagonal is each unit's partner, here unit 3's.
    page.point("#cells", round((3.5 - 6) * side))
    page.heads("unit 3")
    partner = permutations["conv1"][3]
    assert page.address["with"] == f"net2.{partner}"
    value = open_store(page.folder.parent / "pairs/net1-net2/correlation.zarr")
    expected = f"{value['conv1/correlation'][3, partner]:.2f}"
    assert f"Unit 3 of net1, unit {partner} of net2: correlation {expected}" == page.text(
        "#matrix-readout"
    )
    page.until("return document.querySelector('.compared')")
    assert expected in page.text(".compared")


@pytest.mark.parametrize("order", ["original", "matched", "best", "clusters"])
@pytest.mark.parametrize("pair", [("net1", "net2"), ("net2", "net1")])
def test_what_is_drawn_is_the_matrix_in_that_order(page, order, pair, permutations):
    a, b = pair
    page.open(f"#layer=conv1&a={a}&b={b}&view=matrix&order={order}")
    page.until("return document.getElementById('loading').hidden")
    drawn = page.run(
        """
        const canvas = document.getElementById("pixels"), side = canvas.width / 12;
        const at = canvas.getContext("2d"), cells = [];
        for (let i = 0; i < 12; i++) for (let j = 0; j < 12; j++)
          cells.push([...at.getImageData((j + 0.5) * side, (i + 0.5) * side, 1, 1).data]);
        return [cells, shown.rows, shown.columns, [...palette()]];"""
    )
    cells, rows, columns, colors = (np.array(part) for part in drawn)
    matrix = open_store(page.folder.parent / "pairs/net1-net2/correlation.zarr")
    matrix = matrix["conv1/correlation"][...]
    matrix = matrix if a == "net1" else matrix.T
    expected = colors[np.round(100 * matrix[np.ix_(rows, columns)]).astype(int) + 100]
    red, green, blue = (cells[:, n].reshape(12, 12) for n in range(3))
    np.testing.assert_array_equal(red + 256 * green + 65536 * blue, expected % 2**24)
    assert sorted(rows) == sorted(columns) == list(range(12))
    if order == "original":
        assert list(rows) == list(columns) == list(range(12))
    elif order == "matched":
        forth = permutations["conv1"]
        back = np.argsort(forth)
        assert list(rows) == list(range(12))
        assert list(columns[:6]) == list((forth if a == "net1" else back)[:6])
    elif order == "best":
        assert (np.diff(matrix[rows, columns][:-1]) <= 0.006).all()
    else:
        assert list(rows % 3) == sorted(rows % 3)


def test_the_cross_hair_is_on_a_unit_and_its_best_partner(page, permutations):
    unit, partner = 9, permutations["fc6"][9]
    for chosen in (f"net1.{unit}", f"net2.{partner}"):
        page.open(f"#layer=fc6&a=net1&b=net2&view=matrix&order=clusters&unit={chosen}")
        page.until("return document.getElementById('loading').hidden")
        assert page.text("#matrix-readout").startswith(
            f"Unit {unit} of net1, unit {partner} of net2"
        )


def test_filters_and_sorting_are_in_the_address(page):
    page.open("#layer=fc6&a=net1&b=net2&view=units&filter=unmatched&sort=semi")
    facts = atlas.read(page.folder / "data/fc6/net1-net2.js")
    values = facts["correlation/a/semi_value"]
    live = atlas.read(page.folder / "data/fc6/net1.js")["dead"] == 0
    unmatched = np.flatnonzero(live & (values < 0.5))
    assert 50 > len(unmatched) > 5
    assert page.text("#count") == f"{len(unmatched)} of 130 units"
    rows = "return [...document.querySelectorAll('#units tbody tr')].map(r => +r.dataset.unit)"
    assert page.run(rows) == list(unmatched[np.argsort(values[unmatched], kind="stable")])
    page.click("#units th.c-mean button")
    page.until("return location.hash.includes('sort=-mean')")
    page.until("return document.querySelector('th.c-mean').ariaSort == 'descending'")
    means = atlas.read(page.folder / "data/fc6/net1.js")["mean"]
    assert page.run(rows) == list(unmatched[np.argsort(-means[unmatched], kind="stable")])
    page.click("#filter option[value=all]")
    page.until("return document.getElementById('count').innerText == '130 of 130 units'")
    assert len(page.run(rows)) == 50
    page.click("#pages button:last-child")
    page.until("return document.getElementById('pages').innerText.includes('51 to 100')")
    page.browser.find_element("id", "find").send_keys("7")
    page.until("return document.getElementById('count').innerText == '1 of 130 units'")
    page.keys("7")  # which the field has still
    page.until("return document.querySelector('#units tbody tr')?.dataset.unit == '77'")
    assert page.run(rows) == [77]
    assert page.address["find"] == "77"
    page.open(page.browser.current_url[page.browser.current_url.index("#") :])
    assert page.run(rows) == [77]


def test_an_address_that_says_nonsense_shows_the_first_layer_and_says_so(page):
    page.open("#layer=conv9&a=net7&b=net1&unit=net1.4000&order=up&sort=%3Cb%3E&view=matrix")
    page.until("return document.getElementById('loading').hidden")
    best = atlas.read(page.folder / "data/conv1/net1-net2.js")["correlation/a/semi_value"].argmax()
    assert page.run("return [state.layer, state.a, state.b, state.order]") == [
        "conv1", "net1", "net2", "matched",
    ]  # fmt: skip
    assert page.address["unit"] == f"net1.{best}"
    said = page.text("#notice")
    assert "no net net7" in said
    assert "no layer conv9" in said


def test_a_link_to_a_unit_that_is_not_there_says_so(page):
    page.open("#layer=conv1&a=net1&b=net2&unit=net1.500")
    best = atlas.read(page.folder / "data/conv1/net1-net2.js")["correlation/a/semi_value"].argmax()
    assert page.text("#notice") == (
        "Unit 500 of net1 is not in this run: conv1 has units 0 to 11. "
        f"Instead this is unit {best} of net1 in conv1."
    )
    page.open("#layer=conv1&a=net1&b=net2&unit=net1.5")
    assert page.run("return document.getElementById('notice').hidden")


def test_everything_can_be_reached_by_keys(page, permutations):
    page.open("#layer=conv1&a=net1&b=net2")
    page.run("document.getElementById('plot').focus()")
    page.keys("HOME", "ARROW_RIGHT", "ARROW_RIGHT")
    said, rank = page.run(
        "const plot = document.activeElement;"
        "return [plot.getAttribute('aria-valuetext'), plot.getAttribute('aria-valuenow')]"
    )
    assert rank == "3"  # ranks count from 1
    unit = int(said.removeprefix("Unit ").split(",")[0])
    assert said.startswith(f"Unit {unit}, rank 3: best partner {permutations['conv1'][unit]}")
    page.keys("ENTER")
    page.heads(f"unit {unit}")
    assert page.run("return document.activeElement.id") == "unit"
    page.open("#layer=conv1&a=net1&b=net2&view=matrix&order=original&unit=net1.0&with=net2.0")
    page.run("document.getElementById('cells').focus()")
    page.keys("ARROW_DOWN", "ARROW_DOWN", "ARROW_RIGHT")
    assert page.text("#matrix-readout").startswith("Unit 2 of net1, unit 1 of net2")
    page.keys("+", "+", "ENTER")
    page.heads("unit 2")
    assert page.address["with"] == "net2.1"
    names = page.run(
        """
        return [...document.querySelectorAll("button, a, select, input, [role=img]")]
          .filter((e) => e.checkVisibility())
          .filter((e) => !(e.innerText.trim() || e.ariaLabel || e.labels?.length || e.title))
          .map((e) => e.outerHTML.slice(0, 80));"""
    )
    assert names == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("view", ["gallery", "map", "curve", "matrix", "units", "core", "merging"])
@pytest.mark.parametrize("size", [(1400, 900), (390, 844)])
def test_it_fits_the_screen_in_light_and_dark(page, size, view, dark):
    address = f"#layer=fc6&a=net1&b=net2&view={view}&unit=net1.5&with=net2.7"
    page.size(*size, dark=dark).open(address)
    assert page.run("return document.documentElement.scrollWidth") <= size[0]
    page.run("document.getElementById('unit').scrollIntoView()")
    page.until("return document.querySelector('#unit .large canvas')")  # drawn once it is seen
    # Text stands out from what it stands on, as the guidelines for accessible pages ask.
    ratio = page.run(
        """
        const light = (color) => {
          const canvas = document.createElement("canvas").getContext("2d");
          canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
          return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).reduce((sum, c, n) => {
            c /= 255;
            c = c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
            return sum + [0.2126, 0.7152, 0.0722][n] * c;
          }, 0);
        };
        const of = (s, key) => light(getComputedStyle(document.querySelector(s))[key]);
        const layer = "#layers a[aria-current]";
        const pairs = [[".summary", "body"], ["dt", "aside"], ["dd", "aside"], [layer, layer],
                       [".small-print", "aside"], ["footer", "body"]];
        return pairs.map(([text, ground]) => [of(text, "color"), of(ground, "backgroundColor")])
          .map((p) => (Math.max(...p) + 0.05) / (Math.min(...p) + 0.05));"""
    )
    assert min(ratio) >= 4.5
    screenshot = Image.open(io.BytesIO(page.browser.get_screenshot_as_png())).convert("L")
    corner = np.asarray(screenshot)[-3:, :3].mean()
    assert (corner < 60) == dark


@pytest.mark.parametrize("nets", [("net1", "net2"), ("net2", "net1")])
def test_nets_between_two_nets_are_drawn_from_the_first_to_the_second(page, nets):
    page.open("#layer=fc6&a={}&b={}&view=merging".format(*nets))
    means = mean_of_halves(merged_nets()).query("not corrected")
    drawn = page.run(
        """
        const of = (name) => [...document.querySelectorAll(`#merging-plot ${name}`)];
        return [of("polyline").map((line) => [...line.points].map(({ x, y }) => [x, y])),
                of("text.tick").map((tick) => [tick.textContent, tick.getAttribute("y")])];"""
    )
    lines, ticks = np.array(drawn[0]), dict(drawn[1])
    assert lines.shape == (len(LOST), len(POINTS), 2)
    top, bottom = (float(ticks[share]) - 4 for share in ("100%", "0%"))
    shares = means.sort_values("t", kind="stable")["top1"].to_numpy().reshape(len(POINTS), -1).T
    shares = shares if nets[0] == "net1" else shares[:, ::-1]
    np.testing.assert_allclose((bottom - lines[:, :, 1]) / (bottom - top), shares, atol=1e-3)
    assert (np.ptp(lines[:, :, 0], axis=0) == 0).all()
    cells = "return [...document.querySelectorAll('#merging td')].map((td) => td.innerText)"
    halfway = ["", *(f"{100 * share:.1f}%" for share in shares[:, 2])]
    assert page.run(cells) == [*halfway[:-1], "", "", halfway[-1]]  # no other curves by weights
    page.run("document.getElementById('t').focus()")
    page.keys("ARROW_RIGHT", "ARROW_RIGHT")
    assert page.text("#t-words") == "t = 1"
    reached = 0.91 if nets[0] == "net1" else 0.96
    assert set(page.run(cells)) == {"", f"{100 * reached:.1f}%"}


def test_nets_that_were_not_merged_have_no_such_view(page):
    hidden = "return document.querySelector('[data-view=merging]').hidden"
    page.open("#layer=fc6&a=net1&b=net2&view=merging")
    assert not page.run(hidden)
    page.click("#b option[value=net3]")
    page.until("return state.b == 'net3'")
    page.until(hidden)
    assert page.run("return state.view") == "curve"


def test_the_theme_can_be_chosen(page):
    page.open()
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = page.run(ground)
    page.click("#theme")
    assert page.run(ground) == light
    page.click("#theme")
    assert page.run(ground) != light
    page.open()  # remembered
    assert page.run(ground) != light
    page.click("#theme")
    assert page.run(ground) == light


def test_a_row_shows_its_unit_and_the_keyboard_stays_where_it_was(page):
    page.open("#layer=fc6&a=net1&b=net2&view=units&sort=unit")
    page.click("#units tr[data-unit='3'] .c-loss")
    page.heads("unit 3")
    assert page.run("return document.activeElement.dataset.unit") == "net1.3"
    assert page.text("#chosen") == "Unit 3 of net1, fc6"
    page.run("document.querySelector('#unit [data-step=\"1\"]').focus()")
    page.keys("ENTER")
    page.heads("unit 4")
    page.until("return document.activeElement.dataset.step == '1'")
    page.keys("ENTER")
    page.heads("unit 5")
    page.run("document.querySelector('#pages [data-turn=\"1\"]').focus()")
    page.keys("ENTER")
    page.until("return document.getElementById('pages').innerText.includes('51 to 100')")
    page.until("return document.activeElement.dataset.turn == '1'")
    page.keys("ENTER")
    page.until("return document.getElementById('pages').innerText.includes('101 to 130')")
    page.until("return document.activeElement.dataset.turn == '-1'")
    assert page.address["page"] == "2"
    page.click("#units tr[data-unit='120'] .c-loss")
    page.heads("unit 120")
    page.open(page.browser.current_url[page.browser.current_url.index("#") :])
    assert page.run("return document.querySelectorAll('#units tr.chosen').length") == 1
    page.click("#layers a[data-layer=conv1]")
    page.until("return !location.hash.includes('page')")


def test_on_a_phone_a_unit_that_is_chosen_comes_into_view(page):
    page.size(390, 844).open("#layer=fc6&a=net1&b=net2&view=units&sort=unit")
    top = "return document.getElementById('unit').getBoundingClientRect().top"
    assert page.run(top) > 844
    page.run("document.querySelector('#units tr[data-unit=\"2\"] a').click()")
    page.heads("unit 2")
    page.until(f"{top} < 10")
    page.run("document.querySelector('section[data-net=net2] .way[data-measure=map] a').click()")
    page.until("return location.hash.includes('unit=net2.')")
    page.until(f"{top} > -10")


def test_what_belongs_to_another_matrix_is_not_clicked(page):
    page.open("#layer=fc6&a=net1&b=net2&view=matrix&unit=net1.7")
    page.until("return document.getElementById('loading').hidden")
    page.run(
        """
        document.getElementById("swap").click();
        const box = document.getElementById("cells").getBoundingClientRect();
        for (const type of ["pointerdown", "pointerup"]) {
          const [clientX, clientY] = [box.left + 9, box.top + 200];
          const options = { clientX, clientY, pointerId: 1, bubbles: true };
          const event = new PointerEvent(type, options);
          HTMLElement.prototype.setPointerCapture = () => {};
          document.getElementById("cells").dispatchEvent(event);
        }"""
    )
    page.until("return document.getElementById('loading').hidden")
    assert "with" not in page.address
    assert page.address["unit"] == "net1.7"


def test_the_browser_keeps_its_own_keys_and_its_scrolling(page):
    page.open("#layer=fc6&a=net1&b=net2&view=matrix")
    page.until("return document.getElementById('loading').hidden")
    prevented = """
        const event = new arguments[0](arguments[1], {cancelable: true, ...arguments[2]});
        return !document.getElementById("cells").dispatchEvent(event)"""
    for keys, taken in (({}, True), ({"altKey": True}, False), ({"ctrlKey": True}, False)):
        script = prevented.replace("arguments[0]", "KeyboardEvent")
        assert page.run(script, None, "keydown", {"key": "ArrowLeft"} | keys) == taken
    script = prevented.replace("arguments[0]", "WheelEvent")
    assert not page.run(script, None, "wheel", {"deltaY": 100})
    assert page.run(script, None, "wheel", {"deltaY": -100})


@pytest.mark.parametrize("layer", LAYERS)
def test_dead_units_share_no_partner(page, layer):
    page.open(f"#layer={layer}&a=net1&b=net2&view=units&filter=shared")
    facts = atlas.read(page.folder / f"data/{layer}/net1-net2.js")
    live = atlas.read(page.folder / f"data/{layer}/net1.js")["dead"] == 0
    partners = facts["correlation/a/semi"][live]
    shared = np.isin(partners, np.flatnonzero(np.bincount(partners) > 1)).sum()
    assert page.text("#count") == f"{shared} of {len(live)} units"


def test_a_unit_that_is_dead_says_so(page):
    page.open("#layer=conv1&a=net1&b=net2&view=units&filter=dead&unit=net1.0")
    assert page.text("#count") == "1 of 12 units"
    assert "never fires" not in page.text("#units tbody")
    assert "dead" in page.text("#units tbody")
    assert "correlates with nothing" in page.text("#unit")


@pytest.mark.parametrize("part", [0, 0.5])
def test_a_missing_or_damaged_file_is_named(chromium, run, tmp_path, part):
    shutil.copytree(run / "atlas", tmp_path / "atlas")
    file = tmp_path / "atlas/data/fc6/net1-net2.js"
    if part:
        os.truncate(file, int(part * file.stat().st_size))
    else:
        file.unlink()
    page = Page(chromium, tmp_path / "atlas").size(1400, 900)
    page.open("#layer=fc6&a=net1&b=net2")
    page.until("return !document.getElementById('fault').hidden")
    assert "data/fc6/net1-net2.js cannot be read" in page.text("#fault")
    chromium.get_log("browser")  # which holds the failure


def test_a_copy_without_some_pictures_says_so_in_their_place(chromium, run, tmp_path):
    shutil.copytree(run / "atlas", tmp_path / "atlas")
    lacking = list((tmp_path / "atlas/pictures").glob("*/conv1-deconv-*"))
    assert lacking
    for file in lacking:
        file.unlink()
    page = Page(chromium, tmp_path / "atlas").size(1400, 900)
    page.open("#layer=conv1&a=net1&b=net2&view=units&unit=net1.3")
    page.until("return document.querySelector('#unit').textContent.includes('in this copy')")
    assert "no deconvolutions in this copy of the atlas" in page.text("#unit")
    assert page.run("return document.getElementById('fault').hidden")
    page.until("return document.querySelector('#unit .picture canvas') != null")
    chromium.get_log("browser")  # which holds the failures


def test_the_page_asks_nothing_of_the_network():
    for path in PAGE:
        text = path.read_text(encoding="utf-8")
        for word in ("fetch(", "import ", 'src="http', "url(http", "XMLHttpRequest"):
            assert word not in text, path
        assert not path.stat().st_mode & stat.S_IXUSR


def test_the_page_says_what_stands_above_chance(page):
    page.open("#layer=conv1&a=net2&b=net1")
    said = page.text("#chance")
    assert said.startswith("Mean [95% interval] and chance: .79 [")
    assert said.endswith("one untrained net (.77): learning is not shown.")
    page.open("#layer=conv1&a=net1&b=net3")
    assert page.run("return document.getElementById('chance').hidden")


def test_the_page_quotes_the_paper(page):
    page.open("#layer=fc6&a=net1&b=net2&view=units")
    quoted = "return document.getElementById('paper-unmatched').textContent"
    assert page.run(quoted) == (
        "17% of conv1, 37% of conv2, 63% of conv3, 92% of conv4, 75% of conv5"
    )


@pytest.mark.parametrize("pair", [("net1", "net2"), ("net2", "net1")])
@pytest.mark.parametrize("order", ["original", "matched", "best", "clusters"])
def test_a_matrix_of_unequal_nets_has_the_units_left_over_behind_a_line(
    chromium, unequal, pair, order
):
    folder, permutation = unequal
    page = Page(chromium, folder / "atlas").size(1400, 900)
    page.open(f"#layer=conv1&a={pair[0]}&b={pair[1]}&view=matrix&order={order}")
    page.until("return document.getElementById('loading').hidden")
    rows, columns, cuts = page.run("return [shown.rows, shown.columns, shown.cuts]")
    units = {"net1": 12, "net2": 8}
    assert sorted(rows) == list(range(units[pair[0]]))
    assert sorted(columns) == list(range(units[pair[1]]))
    words = page.text("#order-words")
    assert ("Behind the line are the 4 further units of net1." in words) == (
        order in ("matched", "best")
    )
    if order in ("matched", "best"):
        assert cuts == ([[8], []] if pair[0] == "net1" else [[], [8]])
        ours, theirs = (rows, columns) if pair[0] == "net1" else (columns, rows)
        placed = dict(zip(ours[:8], theirs[:8], strict=True))
        there = [unit for unit in range(1, 6) if permutation[unit] < 8]
        assert [placed[unit] for unit in there] == list(permutation[there])


def test_what_a_pair_of_unequal_nets_lacks_cannot_be_chosen(chromium, unequal):
    folder, _ = unequal
    page = Page(chromium, folder / "atlas").size(1400, 900)
    # net3 lacks fc6, and is not compared with net2.
    page.open("#layer=fc6&a=net1&b=net3")
    assert page.address["layer"] == "conv1"
    link = "return document.querySelector('#layers a[data-layer=fc6]')"
    assert page.run(f"{link}.getAttribute('href')") is None
    assert page.run(f"{link}.title") == "net1 and net3 are not compared in fc6"
    panel = "return [...document.querySelectorAll('#unit [data-net]')].map(e => e.dataset.net)"
    beside = "return [...document.querySelectorAll('#unit [data-in]')].map(e => e.dataset.in)"
    assert page.run(panel) == ["net3"]
    assert page.run(beside) == ["net2", "net3"]
    assert "Classes" not in page.text("#unit .facts")
    page.click("#a option[value=net2]")
    page.until("return state.a == 'net2'")
    assert page.address["b"] == "net1"
    page.click("#layers a[data-layer=fc6]")
    page.until("return state.layer == 'fc6' && location.hash.includes('unit=net2.')")
    page.heads("unit " + page.address["unit"].split(".")[1])
    assert page.run(panel) == ["net1"]
    page.until("return document.querySelector('#unit .large canvas')")
    assert page.run("return document.querySelectorAll('#unit .large canvas').length") == 1
    assert "no deconvolution: GELU at 3" in page.text("#unit .large")
    errors = [entry for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []
