"""Pages of the site that are made when it is built (a hook of MkDocs; see mkdocs.yml).

The README, the list of files and other documents outside of docs/ become pages, and so do the
registry of measures and the docstrings of the public functions. Links between documents lead from
page to page; what is no page keeps its name only.
"""

import re
import sys
from pathlib import Path, PurePosixPath

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

# Pages by the document that they show.
PAGES = {
    "README.md": "index.md",
    "results/README.md": "files.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"(!?)\[((?:[^\[\]]|`[^`]*`)*)\]\(([^)\s#]*)(#[^)\s]*)?\)")


def on_files(files, config):
    """Add the pages that are no files of docs/."""
    made = {page: (ROOT / document).read_text("utf-8") for document, page in PAGES.items()}
    made |= {"measures.md": measures_page(), "api.md": api_page()}
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Let links lead to pages, as seen from the document that a page shows."""
    source = {page: document for document, page in PAGES.items()}.get(page.file.src_uri)
    folder = PurePosixPath(source or f"docs/{page.file.src_uri}").parent

    def link(match):
        image, text, path, section = match.groups()
        if not path or "://" in path:
            return match[0]
        target = resolved(folder / path)
        found = PAGES.get(target, target.removeprefix("docs/"))
        if files.get_file_from_path(found) is None:
            return text
        return f"{image}[{text}]({found}{section or ''})"

    parts = re.split(r"(^```.*?^```)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(p if p.startswith("```") else LINK.sub(link, p) for p in parts)


def resolved(path):
    """Return a path without its dots."""
    parts = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def measures_page():
    """List the measures of the registry."""
    from convergent.measures.registry import measures

    kinds = {"units": "each unit with each", "layers": "two layers"}
    head = ["measure", "called", "similarity of", "from", "to", "does not change under", "source"]
    rows = [head, ["---"] * len(head)]
    for m in measures():
        low, high = ("" if abs(limit) == float("inf") else f"{limit:g}" for limit in m.range)
        same = ", ".join(sorted(m.invariances)).replace("_", " ")
        rows.append([f"`{m.name}`", m.label, kinds[m.gives], low, high, same, m.source])
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    about = "All measures of the registry; [methods.md](methods.md) defines them."
    return f"# Measures\n\n{about}\n\n{table}\n"


def api_page():
    """Show the docstrings of the modules with short names."""
    from convergent import SHORT_NAMES

    parts = [f"## convergent.{short}\n\n::: {name}" for short, name in sorted(SHORT_NAMES.items())]
    about = "Functions on arrays, which need no run: `from convergent import matching`."
    return "\n\n".join(["# Functions on arrays", about, *parts])
