"""Include files in the documents: after each ``<!-- include: path -->`` stands that file.

After each ``<!-- claims: path -->`` stands the table of claims that ``snakemake claims``
makes of a run. Run it after editing one; ``tests/test_documents.py`` fails until then.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

INCLUDE = re.compile(r"(<!-- include: (?P<path>\S+) -->\n)(?:\n```python\n.*?\n```\n)?", re.DOTALL)
CLAIMS = re.compile(r"(<!-- claims: (?P<path>\S+) -->\n)(?:\n(?:\|.*\n)+)?")


def expand(text: str) -> str:
    """Put the present content of each included file into a document."""

    def block(match: re.Match) -> str:
        file = ROOT / match["path"]
        if not file.exists():
            return match[0]
        return f"{match[1]}\n```python\n{file.read_text(encoding='utf-8').rstrip()}\n```\n"

    def claims(match: re.Match) -> str:
        import pandas as pd

        from convergent.figures.claims import markdown

        return f"{match[1]}\n{markdown(pd.read_csv(ROOT / match['path']))}"

    return CLAIMS.sub(claims, INCLUDE.sub(block, text))


if __name__ == "__main__":
    for page in sorted(ROOT.glob("docs/*.md")):
        page.write_text(expand(page.read_text(encoding="utf-8")), encoding="utf-8")
