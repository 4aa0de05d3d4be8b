"""The report holds every figure and table with its caption, and needs nothing else."""

import base64
import io
import re

import chance_tables
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from convergent.figures.report import summary, write_report


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
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_figures_come_in_the_order_of_the_paper_then_tables(page):
    titles = re.findall(r"<h[23]>([^<]*)</h[23]>", page)
    assert titles == [
        "Section 3: one to one", "Figure 3", "Figure 10", "Sparse loss", "Unmatched",
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


def test_a_summary_tells_the_means_and_where_to_look(tmp_path):
    run = tmp_path / "digits"
    assert summary(run) == ""
    (run / "tables").mkdir(parents=True)
    nets = {"net": list("abc"), "role": ["subject", "subject", "control"]}
    nets = pd.DataFrame(nets | {"val_top1": [0.5, 0.75, 0.1]})
    nets.to_csv(run / "tables/accuracy.csv")
    assert summary(run) == ""
    rows = {
        "layer": ["conv2", "conv2", "fc6"],
        "unmatched": [0.1, 0.3, 1],
        "paper": [0.37] * 2 + [None],
    }
    pd.DataFrame(rows).to_csv(run / "tables/unmatched.csv")
    said = summary(run).splitlines()
    assert said[0] == "digits: 2 nets, top-1 from 50.0% to 75.0%"
    assert said[2].split() == ["conv2", "20%", "(37%)"]
    assert said[3].split() == ["fc6", "100%"]
    assert said[1].endswith("(in brackets: paper, ImageNet):")
    assert said[4] == f"See tables in {run / 'tables'}"
    (run / "atlas").mkdir()
    (run / "atlas/index.html").touch()
    assert summary(run).endswith(f"{run / 'tables'}, the atlas in file://{run}/atlas/index.html")
    (run / "atlas/index.html").unlink()
    (run / "pairs/net1-net2").mkdir(parents=True)
    significance = chance_tables.significance()
    significance.to_csv(run / "pairs/net1-net2/significance.csv", index=False)
    judged = summary(run, "net1-net2", 0.95).splitlines()
    assert judged[:4] == said[:4]
    assert judged[4].startswith("Mean semi-matching correlation of net1-net2, and the same by")
    assert judged[6].split()[:5] == ["conv1", ".79", "[.74,", ".84]", ".65*"]
    assert judged[12].endswith("  shown")
    assert judged[13].startswith("  best layer  .86")
    (run / "tables/accuracy.csv").unlink()  # there are no labels
    assert summary(run).splitlines() == said[1:]


def test_a_summary_begins_with_what_was_left_out_of_the_images(tmp_path):
    listed = tmp_path / "left_out.csv"
    listed.write_text("split,kind,number\ntrain,hidden,1\n", encoding="utf-8")
    assert summary(tmp_path) == ""
    listed.write_text(
        "split,kind,number\ntrain,.gif,30\ntrain,hidden,1\nvalidation,.gif,4\n", encoding="utf-8"
    )
    assert summary(tmp_path) == f"Left out of the images: 34 .gif. See {listed}."
