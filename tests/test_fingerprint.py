"""A fingerprint changes with the code that a script reaches, and with nothing else."""

import os
from pathlib import Path

import pytest

from convergent.fingerprint import fingerprint

ROOT = Path(__file__).parents[1]

FILES = {
    "script.py": """
def main():
    from library.core import work
    from library import tools
    return work(), tools.used()
""",
    "library/core.py": '''
"""Docstring."""
import os
from library.tools import deep as below
from library.types import Base

SCALE = 3
UNUSED = 4
print(os.name)

class Thing(Base):
    """Docstring."""
    def method(self):
        return below() * SCALE  # a comment

def work():
    """Docstring."""
    return Thing().method()

def idle():
    return UNUSED
''',
    "library/tools.py": """
def used():
    return 1

def deep():
    return _private()

def _private():
    return 2

def unused():
    return 3
""",
    "library/types.py": """
from library.more import passed_on

class Base:
    value = passed_on
""",
    "library/more.py": """
passed_on = 5
other = 6
""",
}


@pytest.fixture
def project(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def change(project, file, old, new):
    path = project / file
    assert old in path.read_text(encoding="utf-8")
    time = path.stat().st_mtime_ns
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    os.utime(path, ns=(time + 10**9, time + 10**9))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("script.py", "tools.used()", "-tools.used()"),
        ("library/core.py", "Thing().method()", "Thing().method() + 1"),
        ("library/core.py", "below() * SCALE", "below() + SCALE"),
        ("library/core.py", "SCALE = 3", "SCALE = 4"),
        ("library/core.py", "print(os.name)", "print(os.sep)"),
        ("library/tools.py", "return 1", "return 11"),
        ("library/tools.py", "return 2", "return 22"),
        ("library/more.py", "passed_on = 5", "passed_on = 55"),
        ("library/types.py", "value =", "values ="),
    ],
)
def test_code_that_is_reached_counts(project, file, old, new):
    before = fingerprint(project / "script.py", project / "library")
    change(project, file, old, new)
    assert fingerprint(project / "script.py", project / "library") != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("script.py", "def main():", "# a comment\ndef main():"),
        ("library/core.py", "# a comment", "# another"),
        ("library/core.py", '"""Docstring."""', '"""Other words."""'),
        ("library/core.py", "return UNUSED", "return -UNUSED"),
        ("library/core.py", "UNUSED = 4", "UNUSED = 44"),
        ("library/tools.py", "return 3", "return 33"),
        ("library/more.py", "other = 6", "other = 66"),
    ],
)
def test_comments_docstrings_and_unused_code_do_not(project, file, old, new):
    before = fingerprint(project / "script.py", project / "library")
    change(project, file, old, new)
    assert fingerprint(project / "script.py", project / "library") == before


def test_scripts_import_the_library_in_ways_that_are_followed():
    """`import convergent.x` and relative imports would not be."""
    for file in [*ROOT.glob("workflow/scripts/*.py"), *ROOT.glob("workflow/convergent/*.py")]:
        code = file.read_text(encoding="utf-8")
        assert "import convergent." not in code, file
        assert "from ." not in code, file
