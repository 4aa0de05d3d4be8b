"""The views of the atlas lead from what a run found to its units, and everyone can use them."""

import io
import json
import os
import shutil
from pathlib import Path

import chance_tables
import numpy as np
import pandas as pd
import planted
import pytest
from generated_run import multiply
from PIL import Image
from test_atlas import Page, chromium  # noqa: F401
from test_atlas_data import run  # noqa: F401

from convergent.figures.atlas import writing

PAGE = sorted((Path(__file__).parents[1] / "workflow/atlas").glob("*"))
VIEWS = ["overview", "gallery", "map", "curve", "matrix", "units", "core", "search"]
# Finds missing names, repeated ids, skipped headings, and text that stands out little.
FAULTS = Path(__file__).with_name("accessible.js")
# axe-core is not part of this repository: npm pack axe-core, and unpack it.
AXE = Path(os.environ.get("AXE", Path(__file__).parents[1] / "node_modules/axe-core/axe.min.js"))


@pytest.fixture(scope="module")
def atlas(run):  # noqa: F811
    """The atlas of planted data, with the page."""
    opened, permutation, _ = run
    for file in PAGE:
        (opened.folder / file.name).write_bytes(file.read_bytes())
    return opened, permutation


def shown(value):
    """A number as the page writes it, with a minus in place of a hyphen."""
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


@pytest.fixture
def page(chromium, atlas):  # noqa: F811
    page = Page(chromium, atlas[0].folder).size(1400, 900)
    chromium.get_log("browser")
    yield page
    assert [entry for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_first_page_says_what_the_run_found_and_leads_there(page, atlas):
    page.open()
    assert page.run("return state.view") == "overview"
    assert "75.0% correct" in page.text("#run-nets")
    findings = [finding["text"] for finding in atlas[0].run["findings"]]
    assert all(text in page.text("#findings") for text in findings)
    page.click("#findings a")
    page.until("return state.view == 'curve' && state.unit")
    page.browser.back()
    page.until("return state.view == 'overview'")


def test_the_map_of_layers_shows_the_excess_over_the_chance_that_is_chosen(page, atlas):
    rows, ways = atlas[0].similarity(), atlas[0].run["ways"]
    way = next(n for n, w in enumerate(ways) if w["name"] == "procrustes")  # less is more alike
    row = np.flatnonzero(rows["way"] == way)[0]
    page.open("#view=overview&way=procrustes&null=images")
    page.until("return document.querySelector('#similarity-map td a')")
    excess = rows["null_images"][row] - rows["value"][row]
    assert page.text("#similarity-map td") == shown(excess)
    page.click("#null option[value=none]")
    page.until("return state.null == 'none'")
    cell = "return document.querySelector('#similarity-map td').innerText"
    page.until(f"{cell} == '{rows['value'][row]:.2f}'")
    page.click("#similarity-map td a")
    page.until("return state.view == 'curve'")
    assert page.address["b"] == "net2"


@pytest.mark.parametrize("nets", [("net1", "net2"), ("net2", "net1")])
def test_each_layer_of_a_net_stands_beside_each_of_the_other(chromium, tmp_path, rng, nets):  # noqa: F811
    """Down those of the net that is named first, whichever the pair names first."""
    layers = {"conv1": 12, "fc6": 8}
    planted.write_run(tmp_path, layers)
    chance_tables.all_layers(rng, [*layers], [*layers]).to_csv(tmp_path / "all.csv", index=False)
    of_nets, of_pairs = planted.stores(tmp_path)
    of_pairs["net1-net2"]["similarity"] = tmp_path / "all.csv"
    described = planted.layers_of(tmp_path)
    atlas = tmp_path / "atlas"
    writing.write_atlas(atlas, PAGE, "tiny", described, of_nets, of_pairs, 0.25)
    page = Page(chromium, atlas).size(1400, 900)
    page.open(f"#view=overview&a={nets[0]}&b={nets[1]}&way=cka")
    page.until("return document.querySelector('#all-layers-map td')")
    assert page.text("#all-layers-title") == f"Layers of {nets[0]} (down) and of {nets[1]} (across)"
    cells = "return [...document.querySelectorAll('#all-layers-map td')].map((td) => td.innerText)"
    table = pd.read_csv(tmp_path / "all.csv").query("measure == 'cka'")
    values = table.pivot_table(index="layer_a", columns="layer_b", values="value").to_numpy()
    values = values if nets[0] == "net1" else values.T
    assert page.run(cells) == [shown(value) for value in values.ravel()]
    # A layer beside itself leads to its units; other two have none in common.
    links = "return [...document.querySelectorAll('#all-layers-map td a')].map((a) => a.hash)"
    assert [("layer=conv1" in link, "layer=fc6" in link) for link in page.run(links)] == [
        (True, False), (False, True),
    ]  # fmt: skip


def test_the_gallery_holds_the_tiles_in_view_and_filters_them(page, atlas):
    opened, _ = atlas
    page.open("#layer=conv1&a=net1&b=net2&view=gallery&sort=unit")
    tiles = "return [...document.querySelectorAll('#tiles .tile')].map((t) => t.dataset.unit)"
    assert page.run(tiles) == [f"net1.{unit}" for unit in range(24)]
    chance = opened.run["layers"][0]["pairs"]["net1-net2"]["chance_of_units"]["correlation"]
    semi = opened.pair("conv1", "net1", "net2")["correlation/a/semi_value"]
    at_chance = 1 + np.flatnonzero(semi[1:] <= chance["rotation"][1])
    page.click("#filter option[value=chance]")
    page.until("return state.filter == 'chance'")
    page.until(
        f"return document.getElementById('count').innerText == '{len(at_chance)} of 24 units'"
    )
    assert page.run(tiles) == [f"net1.{unit}" for unit in at_chance]
    page.click("#filter option[value=dead]")
    page.until("return document.querySelectorAll('#tiles .tile.dead').length == 1")
    page.click("#filter option[value=all]")
    page.until("return document.querySelectorAll('#tiles .tile').length == 24")
    page.run("document.querySelector('#tiles .tile').focus()")
    page.keys("END", "ARROW_LEFT")
    assert page.run("return document.activeElement.dataset.unit") == "net1.22"
    page.keys("ENTER")
    page.heads("unit 22")


def test_thousands_of_tiles_scroll_with_few_on_the_page(page):
    page.open("#layer=conv1&a=net1&b=net2&view=gallery")
    page.run("gallery.rows = counted(4096).map((n) => gallery.rows[n % 24]); layTiles()")
    box = "document.getElementById('tiles')"
    for top in (0, 10000, 30000):
        page.run(f"{box}.scrollTop = {top}; layTiles()")
        shown, first, height = page.run(
            f"""const tiles = [...gallery.tiles.values()], box = {box}.getBoundingClientRect();
            const places = tiles.map((t) => t.getBoundingClientRect());
            return [tiles.length, Math.min(...places.map((p) => p.top)) - box.top, box.height]"""
        )
        assert shown < 250
        assert first <= 8
        assert shown >= height / 104  # at least a tile in each line


def test_partners_are_joined_on_the_map_and_a_line_around_units_lists_them(page, atlas):
    from selenium.webdriver.common.action_chains import ActionChains

    _, permutation = atlas
    page.open("#layer=conv1&a=net1&b=net2&view=map&unit=net1.1")
    assert f"Unit 1 of net1, best partner {permutation[1]} of net2" in page.text("#map-readout")
    plane = page.browser.find_element("id", "plane")
    page.run("document.getElementById('plane').scrollIntoView()")
    reach = plane.size["width"] // 2 - 3
    chain = ActionChains(page.browser)
    chain.move_to_element_with_offset(plane, -reach, -reach).click_and_hold()
    for across, down in ((2 * reach, 0), (0, 2 * reach), (-2 * reach, 0)):
        chain.move_by_offset(across, down)
    chain.release().perform()
    # All but the dead unit of each net.
    page.until("return plane.listed.length == 46")
    assert "46 units: 23 of net1, 23 of net2" in page.text("#map-list")
    page.run("document.getElementById('plane').focus()")
    page.keys("p", "ENTER")
    page.heads(f"unit {permutation[1]}")
    page.click("#nearest")
    page.until("return plane.listed.length == 24")


def test_a_unit_is_scattered_against_any_other(page, atlas):
    opened, permutation = atlas
    page.open("#layer=conv1&a=net1&b=net2&view=curve&unit=net1.2")
    said = "return document.querySelector('.scatter-box b')?.innerText"
    partner = opened.samples("conv1", "net2", permutation[2])
    expected = np.corrcoef(opened.samples("conv1", "net1", 2), partner)[0, 1]
    page.until(f"{said} == '{shown(expected)}'")
    other = permutation[9]
    page.run(
        """const field = document.querySelector(".scatter input");
        field.value = arguments[0];
        field.dispatchEvent(new Event("change"));""",
        int(other),
    )
    expected = np.corrcoef(
        opened.samples("conv1", "net1", 2), opened.samples("conv1", "net2", other)
    )[0, 1]
    page.until(f"{said} == '{shown(expected)}'")
    assert page.address["with"] == f"net2.{other}"


def test_whole_images_unfold_and_lead_to_the_units_that_they_excite(page, atlas):
    opened, _ = atlas
    page.open("#layer=conv1&a=net1&b=net2&view=curve&unit=net1.2")
    page.click("[data-part=whole] summary")
    page.until("return document.querySelectorAll('.wholes canvas').length == 9")
    image = opened.units("conv1", "net1")["image"][2, 0]
    assert f"image {image}" in page.text(".wholes figure")
    drawn = page.browser.find_element("css selector", ".wholes canvas").screenshot_as_png
    pixels = np.asarray(Image.open(io.BytesIO(drawn)).convert("L")).astype(int)
    assert abs(pixels[66, 66] - image % 256) <= 6
    page.click("#unit [data-step='1']")
    page.heads("unit 3")
    page.until("return document.querySelectorAll('.wholes canvas').length == 9")  # still open
    page.click(".wholes a")
    page.until("return state.view == 'search'")
    facts = {net: opened.units("conv1", net) for net in opened.run["nets"]}
    image = facts["net1"]["image"][3, 0]
    found = page.run("return [...document.querySelectorAll('#found a')].map((a) => a.dataset.unit)")
    excited = {
        f"{net}.{unit}"
        for net, of in facts.items()
        for unit in np.flatnonzero(((of["image"] == image) & (of["value"] > 0)).any(axis=1))
    }
    assert set(found) == excited


@pytest.mark.parametrize(
    ("text", "found"),
    [("5", ["net1.5", "net2.5", "net3.5"]), ("net3.7", ["net3.7"]), ("unit 40", [])],
)
def test_units_are_found_by_their_numbers(page, text, found):
    page.open("#layer=conv1&a=net1&b=net2")
    page.browser.find_element("id", "q").send_keys(text, "\ue007")
    page.until("return state.view == 'search'")
    page.until("return document.getElementById('found').innerText")
    section = "#found section:first-child a" if found else "#found a"
    units = page.run(
        "return [...document.querySelectorAll(arguments[0])].map((a) => a.dataset.unit)", section
    )
    assert units == found
    if found:
        page.click(section)
        page.heads(f"unit {found[0].split('.')[1]}")


def test_classes_are_found_by_a_part_of_their_name(page):
    page.open("#layer=conv1&a=net1&b=net2&view=search&q=nl")
    page.click("#found a")
    page.until("return state.view == 'gallery' && state.class == 'only'")
    page.until("return document.getElementById('count').innerText == '23 of 24 units'")


def test_the_core_lists_the_groups_and_partners_stand_side_by_side(page, atlas):
    opened, permutation = atlas
    groups = opened.core("conv1")["unit"]
    page.open("#layer=conv1&a=net1&b=net2&view=core")
    rows = page.run("return document.querySelectorAll('#core tbody tr').length")
    assert rows == len(groups) > 0
    facts = opened.units("conv1", "net1")
    page.open("#layer=conv1&a=net1&b=net2&view=curve&unit=net1.1")
    table = page.text(".in-all table")
    assert str(permutation[1]) in table
    for place, net in enumerate(opened.run["nets"][1:], 1):
        row = page.text(f".in-all [data-in={net}]")
        assert shown(facts["best_value"][1, place]) in row


def test_numbers_of_a_unit_stand_beside_their_chance(page, atlas):
    opened, _ = atlas
    mean, level = opened.run["layers"][0]["pairs"]["net1-net2"]["chance_of_units"]["correlation"][
        "rotation"
    ]
    page.open("#layer=conv1&a=net1&b=net2&view=curve&unit=net1.1")
    said = page.text("#unit .facts")
    assert f"by chance (rotated units) {mean:.2f} on average" in said
    assert f"above {level:.2f} in one unit of twenty" in said


def test_the_data_of_a_unit_are_a_file(page, atlas):
    opened, permutation = atlas
    page.open("#layer=conv1&a=net1&b=net2&view=curve&unit=net1.1")
    page.run(
        """window.saved = null;
        URL.createObjectURL = (blob) => {
          blob.text().then((text) => { saved = text; });
          return "#";
        };
        HTMLAnchorElement.prototype.click = () => {};
        document.getElementById("download").click();"""
    )
    data = json.loads(page.until("return window.saved"))
    assert (data["unit"], data["net"]) == (1, "net1")
    assert data["best"]["net2"]["partner"] == permutation[1]
    assert data["images"] == opened.units("conv1", "net1")["image"][1].tolist()


def test_the_table_fits_beside_a_unit(page):
    page.open("#layer=conv1&a=net1&b=net2&view=units")
    wide, there = page.run(
        "const b = document.querySelector('#units .table-box');"
        "return [b.scrollWidth, b.clientWidth]"
    )
    assert wide <= there


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("view", VIEWS)
def test_all_has_a_name_and_text_stands_out(page, view, dark):
    page.size(1400, 900, dark=dark)
    page.open(f"#layer=conv1&a=net1&b=net2&view={view}&q=5")
    assert page.run(FAULTS.read_text(encoding="utf-8")) == []


def test_faults_of_accessibility_are_seen(page):
    page.open("#layer=conv1&a=net1&b=net2&view=curve")
    page.run(
        """document.querySelector("main").insertAdjacentHTML("beforeend",
          `<button></button><p id="a" style="color: #999; background: #fff">grey</p><h4>deep</h4>`)
        document.querySelector("#unit h2").outerHTML = "<p>no heading</p>";"""
    )
    found = page.run(FAULTS.read_text(encoding="utf-8"))
    for words in ("no name: <button>", "repeated id: a", "h4 after h2", "contrast of 2.8"):
        assert any(fault.startswith(words) for fault in found), words


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed (npm pack axe-core)")
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_no_fault(page, view):
    page.open(f"#layer=conv1&a=net1&b=net2&view={view}&q=5")
    page.run(AXE.read_text(encoding="utf-8"))
    found = page.browser.execute_async_script(
        "axe.run(document, {resultTypes: ['violations'], preload: false}).then((found) =>"
        "arguments[0](found.violations.map((v) => [v.id, v.nodes.map((n) => n.html)])))"
    )
    assert found == []


def test_ten_nets_and_a_hundred_layers_are_there(chromium, atlas, tmp_path):  # noqa: F811
    opened, _ = atlas
    folder = tmp_path / "atlas"
    shutil.copytree(opened.folder, folder)
    run_json = json.loads((folder / "data/run.json").read_text(encoding="utf-8"))
    run_json["nets"], run_json["pairs"] = ["net1", "net2"], ["net1-net2"]
    (folder / "data/run.json").write_text(json.dumps(run_json), encoding="utf-8")
    layers = ["conv1", *(f"features.{n}.conv" for n in range(99))]
    multiply(folder, layers, [f"net{n + 1}" for n in range(10)])
    page = Page(chromium, folder).size(1400, 900)
    page.open("#layer=features.98.conv&a=net9&b=net10&view=gallery")
    assert page.run("return state.layer") == "features.98.conv"
    assert page.run("return document.querySelectorAll('#tiles .tile').length") == 24
    assert page.run("return document.querySelectorAll('.in-all tbody tr').length") == 9
    assert page.run("return document.documentElement.scrollWidth") <= 1400
    assert [e for e in chromium.get_log("browser") if e["level"] == "SEVERE"] == []
