"""Report of a run with all figures and tables in one file, and a summary for the terminal."""

from __future__ import annotations

import base64
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from convergent.inference.verdicts import statistic_rows, verdict_table
from convergent.running.files import writing

# Quality of the pictures (WebP): lines and text stay sharp at less than half the size of a PNG.
QUALITY = 85
STYLE = """
:root { color-scheme: light; font: 16px/1.55 system-ui, sans-serif; color: #1b2024; }
body { margin: 0 auto; padding: 1.5rem; max-width: 70rem; background: #fff; }
h1 { font-size: 1.7rem; } h2 { margin-top: 3rem; border-bottom: 2px solid #116611; }
nav ul { columns: 18rem; padding-left: 1.2rem; } a { color: #116611; }
figure { margin: 2rem 0 3rem; } figure img { max-width: 100%; display: block; margin: auto; }
figcaption { max-width: 75ch; margin: 0 auto 1rem; }
.labels span { font-size: .8rem; background: #eef0ec; border-radius: 1em; padding: .15em .7em; }
.table { overflow: auto; max-height: 34rem; }
table { margin: auto; border-collapse: collapse; font-size: .85rem; }
table { font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #dcdfd8; text-align: right; }
th { position: sticky; top: 0; background: #eef0ec; border: 0; }
@media print { .table { max-height: none; overflow: visible; } figure { break-inside: avoid; } }
"""


def write_report(
    path: str | Path, title: str, entries: Sequence[Mapping[str, Any]], links: Mapping[str, str]
) -> None:
    """Write a single HTML page that contains all figures and tables.

    Parameters
    ----------
    path : path
    title : str
    entries : sequence of mapping
        Each has a `file` (.png or .csv), a `section` of the paper, a `caption` and `labels`. The
        page sorts them by section, and in each the paper's figures come first, by number, and
        tables last; otherwise they keep their order.
    links : mapping of str to str
        Link texts of further pages, and their paths relative to this page.
    """
    entries = sorted(entries, key=_place)
    sections = [(s, list(es)) for s, es in itertools.groupby(entries, key=lambda e: e["section"])]
    contents = [
        f"<li>{escape(section)}<ul>"
        + "".join(f'<li><a href="#{_name(e)}">{_title(e)}</a></li>' for e in of)
        + "</ul></li>"
        for section, of in sections
    ]
    more = "".join(f'<p><a href="{escape(p)}">{escape(name)}</a></p>' for name, p in links.items())
    with writing(path) as scratch, open(scratch, "w", encoding="utf-8") as page:
        page.write(
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}'
            '</title><meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1>{more}"
            f"<nav><ul>{''.join(contents)}</ul></nav><main>\n"
        )
        for section, of in sections:
            page.write(f"<section><h2>{escape(section)}</h2>\n")
            page.writelines(_entry(entry) for entry in of)
            page.write("</section>\n")
        page.write("</main></body></html>\n")


def summary(results: str | Path, pair: str = "", level: float = 0.95) -> str:
    """Summarise a run for the terminal in a few lines, from the tables that exist.

    The summary begins with the images that were left out, and says of the layers of `pair` what
    stands above chance at this level.
    """
    results = Path(results)
    lines = []
    listed = results / "left_out.csv"
    left_out = pd.read_csv(listed) if listed.is_file() else pd.DataFrame({"kind": []})
    kinds = left_out[left_out["kind"] != "hidden"].groupby("kind", sort=False)
    if len(kinds):
        told = ", ".join(f"{number} {kind}" for kind, number in kinds["number"].sum().items())
        lines.append(f"Left out of the images: {told}. See {listed}.")
    if not (results / "tables/unmatched.csv").is_file():
        return "\n".join(lines)
    unmatched = pd.read_csv(results / "tables/unmatched.csv")
    # Without labels there is no accuracy.
    if (results / "tables/accuracy.csv").is_file():
        accuracy = pd.read_csv(results / "tables/accuracy.csv")
        if "role" in accuracy:
            accuracy = accuracy[accuracy["role"] == "subject"]
        top1 = accuracy["val_top1"]
        lines.append(
            f"{results.name}: {len(accuracy)} nets, top-1 from {top1.min():.1%} to {top1.max():.1%}"
        )
    lines.append(
        "Live units without a partner above 0.5 in another net, mean of all pairs "
        "(in brackets: paper, ImageNet):"
    )
    width = max(6, *unmatched["layer"].str.len())
    for layer, rows in unmatched.groupby("layer", sort=False):
        paper = rows["paper"].iloc[0]
        beside = "" if pd.isna(paper) else f"  ({paper:.0%})"
        lines.append(f"  {layer:{width}} {rows['unmatched'].mean():4.0%}{beside}")
    significance = results / f"pairs/{pair}/significance.csv"
    if pair and significance.is_file():
        rows = statistic_rows(pd.read_csv(significance, keep_default_na=False))
        if len(rows):
            lines.append(
                f"Mean semi-matching correlation of {pair}, and the same by chance (*: above it):"
            )
            lines += [f"  {line}" for line in verdict_table(rows, level)]
    there = [
        f"{name} in {results / name}" for name in ("tables", "figures") if (results / name).exists()
    ]
    atlas = results / "atlas/index.html"
    # A link that many terminals open.
    there += [f"the atlas in {atlas.resolve().as_uri()}"] if atlas.exists() else []
    return "\n".join([*lines, f"See {', '.join(there)}"])


def picture(path: str | Path) -> str:
    """Compress a picture as WebP and return it as a ``data:`` URL."""
    buffer = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(buffer, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _entry(entry: Mapping[str, Any]) -> str:
    caption = "".join(f"<p>{escape(p)}</p>" for p in entry["caption"].strip().split("\n\n"))
    if str(entry["file"]).endswith(".csv"):
        table = pd.read_csv(entry["file"])
        shown = table.to_html(index=False, border=0, float_format="{:.4g}".format, na_rep="")
        shown = f'<div class="table" tabindex="0">{shown}</div>'
    else:
        shown = f'<img src="{picture(entry["file"])}" alt="{_title(entry)}">'
    labels = {k: v for k, v in entry["labels"].items() if k not in ("figure", "table")}
    tags = " ".join(f"<span>{escape(k)}: {escape(str(v))}</span>" for k, v in labels.items())
    return (
        f'<figure id="{_name(entry)}"><figcaption><h3>{_title(entry)}</h3>'
        f'<p class="labels">{tags}</p>{caption}</figcaption>{shown}</figure>\n'
    )


def _title(entry: Mapping[str, Any]) -> str:
    labels = entry["labels"]
    name = labels.get("figure") or labels["table"]
    drawn = ", drawn" if name.startswith("table") and "figure" in labels else ""
    name = re.sub(r"^fig(?=S?\d)", "figure ", re.sub(r"^table(?=\d)", "table ", name))
    return escape(name[:1].upper() + name[1:].replace("_", " ") + drawn)


def _name(entry: Mapping[str, Any]) -> str:
    return escape(Path(entry["file"]).name.replace(".", "-"))


def _place(entry: Mapping[str, Any]) -> tuple:
    """Return a sort key: by section, then the paper's figures, other figures, and tables."""
    name = entry["labels"].get("figure", "")
    number = re.search(r"fig(S?)(\d+)", name)
    return (
        entry["section"],
        not name,
        number is None,
        (number[1], int(number[2])) if number else ("", 0),
    )
