"""Documents for contributors say what is so: included files, packages, links."""

import re
import sys
from dataclasses import fields

import pytest
from running import ROOT
from test_rooms import ROOMS

from convergent.inference.map_nulls import cluster_between, map_loss
from convergent.inference.significance import statistics
from convergent.measures.registry import Measure, measures

sys.path.insert(0, str(ROOT / "docs"))
from include import INCLUDE, expand

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def read(path):
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_included_files_are_included_as_they_are(page):
    assert expand(read(page)) == read(page), "run docs/include.py"
    paths = {match["path"] for match in INCLUDE.finditer(read(page))}
    assert {path for path in paths if not (ROOT / path).exists()} == set()


def test_a_file_takes_the_place_of_its_last_version():
    marker = "before\n\n<!-- include: docs/include.py -->\n"
    once = expand(marker + "\nafter\n")
    assert read(ROOT / "docs/include.py").rstrip() in once
    assert once.startswith(marker)
    assert once.endswith("```\n\nafter\n")
    assert expand(once.replace("import re\n", "import os\n")) == once


def test_the_packages_are_listed_in_their_order():
    table = read(ROOT / "docs/architecture.md").split("## Packages")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == ROOMS


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_links_between_documents_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", read(page)):
        if "://" in link:
            continue
        path, _, section = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if section:
            titles = re.findall(r"^#+ (.*)", read(target), re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", t).lower().replace(" ", "-") for t in titles]
            assert section in anchors, link


def test_every_measure_is_defined_with_its_source():
    methods = read(ROOT / "docs/methods.md")
    maps = map_loss([0.01], 0.25), cluster_between(None)
    for measure in (*measures(), *statistics(), *maps):
        assert f"`{measure.name}`" in methods
        # The first author, who stands in the definition or the heading.
        assert measure.source.split()[0] in methods


def test_the_fields_of_a_measure_are_explained():
    table = read(ROOT / "docs/extending.md").split("## An architecture")[0]
    assert {field.name for field in fields(Measure)} <= set(re.findall(r"`(\w+)`", table))
