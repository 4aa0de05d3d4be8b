"""Include files in the documents: after each ``<!-- include: path -->`` stands that file.

Run it after editing an included file; ``tests/test_documents.py`` fails until then.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
INCLUDE = re.compile(r"(<!-- include: (?P<path>\S+) -->\n)(?:\n```python\n.*?\n```\n)?", re.DOTALL)


def expand(text: str) -> str:
    """Put the present content of each included file into a document."""

    def block(match: re.Match) -> str:
        file = ROOT / match["path"]
        if not file.exists():
            return match[0]
        return f"{match[1]}\n```python\n{file.read_text(encoding='utf-8').rstrip()}\n```\n"

    return INCLUDE.sub(block, text)


if __name__ == "__main__":
    for page in sorted(ROOT.glob("docs/*.md")):
        page.write_text(expand(page.read_text(encoding="utf-8")), encoding="utf-8")
