"""The report holds every figure and table with its caption, and needs nothing else."""

import base64
import io
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from convergent.report import write_report


@pytest.fixture
def entries(tmp_path, rng):
    pixels = rng.integers(0, 255, size=(4, 6, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    Image.fromarray(pixels).save(tmp_path / "fig3.png")
    for name in ("fig10", "figS2", "sparse_loss"):
        Image.new("RGBA", (8, 8), "red").save(tmp_path / f"{name}.png")
    pd.DataFrame({"layer": ["conv1", "fc6"], "share": [0.25, None]}).to_csv(
        tmp_path / "unmatched.csv", index=False
    )
    one, more = "Section 3: one to one", "Section S.2: more"
    figures = [("sparse_loss", one), ("figS2", more), ("fig10", one), ("fig3", one)]
    made = [
        {
            "file": tmp_path / f"{name}.png", "section": section,
            "caption": f"What {name} <shows>.", "labels": {"figure": name, "pair": "net1-net2"},
        }
        for name, section in figures
    ]  # fmt: skip
    table = {"file": tmp_path / "unmatched.csv", "section": one, "caption": "Shares."}
    return [table | {"labels": {"table": "unmatched"}}, *made], pixels


@pytest.fixture
def page(tmp_path, entries):
    write_report(tmp_path / "report.html", "A run", entries[0], {"The atlas": "atlas/index.html"})
    return (tmp_path / "report.html").read_text()


def test_figures_come_in_the_order_of_the_paper_then_tables(page):
    titles = re.findall(r"<h[23]>([^<]*)</h[23]>", page)
    assert titles == [
        "Section 3: one to one", "Figure 3", "Figure 10", "Figure sparse loss", "Table unmatched",
        "Section S.2: more", "Figure S2",
    ]  # fmt: skip
    for target in re.findall(r'href="#([^"]*)"', page):
        assert f'id="{target}"' in page


def test_pictures_are_inside_and_look_the_same(page, entries):
    first = re.search(r'src="data:image/webp;base64,([^"]*)" alt="Figure 3"', page)[1]
    with Image.open(io.BytesIO(base64.b64decode(first))) as image:
        seen = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(seen - entries[1]).mean() < 12
    assert page.count("<img") == page.count("data:image/webp") == 4


def test_captions_and_labels_stand_beside_what_they_describe(page):
    figure = page[page.index('id="fig3-png"') :].split("</figure>")[0]
    assert "What fig3 &lt;shows&gt;." in figure
    assert "pair: net1-net2" in figure
    table = page[page.index('id="unmatched-csv"') :].split("</figure>")[0]
    cells = re.findall(r"<td>([^<]*)</td>", table)
    assert cells == ["conv1", "0.25", "fc6", ""]


def test_nothing_is_loaded_from_elsewhere(page):
    outside = re.findall(r'(?:src|href)="(?!data:|#)([^"]*)"', page)
    assert outside == ["atlas/index.html"]
