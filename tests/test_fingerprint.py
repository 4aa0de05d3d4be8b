"""A fingerprint changes with the code that a script reaches, and with nothing else."""

import os
from functools import partial

import pytest

from convergent.running import fingerprint as fingerprints
from convergent.running.fingerprint import PACKAGE, FingerprintError, Remembered, fingerprint

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


# A package with rooms. `build` of nets/models.py is what is reached, however it is imported.
ROOMS = {
    "library/__init__.py": """
START = 1
""",
    "library/nets/__init__.py": """
print("the room of nets")
""",
    "library/nets/models.py": """
from ..running.stores import open_store as opened
from . import layers

SIZES = [3]

def build():
    return opened(), layers.relu(), SIZES

def idle():
    return 1
""",
    "library/nets/layers.py": """
def relu():
    return 0

def gelu():
    return 0.5
""",
    "library/nets/parts/__init__.py": "",
    "library/nets/parts/deep.py": """
from ...running import stores
from .. import layers
from ..models import *

def whole():
    return build()
""",
    "library/running/__init__.py": "",
    "library/running/stores.py": """
def open_store():
    return "open"

def closed():
    return "closed"
""",
}
REACHED = [
    ("library/nets/models.py", "return opened()", "return -opened()"),
    ("library/nets/models.py", "SIZES = [3]", "SIZES = [4]"),
    ("library/nets/layers.py", "return 0\n", "return 7\n"),
    ("library/running/stores.py", '"open"', '"opened"'),
    ("library/nets/__init__.py", "the room", "another room"),
]
UNUSED = [
    ("library/nets/models.py", "return 1", "return 11"),
    ("library/nets/layers.py", "return 0.5", "return 5.5"),
    ("library/running/stores.py", '"closed"', '"shut"'),
    ("library/__init__.py", "START = 1", "START = 2"),
]


def rooms(folder, script, files=None):
    """The package with rooms, changed by `files`, and a script; a function for its fingerprint."""
    for name, text in {**ROOMS, **(files or {}), "script.py": script}.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text, encoding="utf-8")
    return lambda: fingerprint(folder / "script.py", folder / "library")


def lazily(name):
    """An `__init__` whose modules have moved, and are imported when they are asked for."""
    return {
        "library/__init__.py": f"""
import importlib

START = 1
MOVED = {{"models": "{name}"}}

class Finder:
    def load(self, name):
        return importlib.import_module(MOVED[name])

print(Finder())

def __getattr__(name):
    return importlib.import_module(MOVED[name])
"""
    }


REEXPORT = {"library/__init__.py": "from library.nets import models\nSTART = 1\n"}
# Also where `import library.models` finds it.
ALIAS = """
import sys
from library.nets import models
START = 1
sys.modules["library.models"] = models
"""


@pytest.mark.parametrize(
    ("script", "files"),
    [
        ("from library.nets import models\nmodels.build()", {}),
        ("from library.nets import models as m\nm.build()", {}),
        ("import library.nets.models\nlibrary.nets.models.build()", {}),
        ("import library.nets.models as m\nm.build()", {}),
        ("from library.nets.models import build\nbuild()", {}),
        ("import library\nimport library.nets.models\nlibrary.nets.models.build()", {}),
        ("from library import nets\nnets.models.build()", {}),
        ("from library.nets.models import *\nbuild()", {}),
        ("from library.nets.parts.deep import whole\nwhole()", {}),
        ("def f():\n    from library.nets import models\n    return models.build()", {}),
        ("from importlib import import_module\nimport_module('library.nets.models').build()",
         {"library/nets/models.py": ROOMS["library/nets/models.py"].split("def idle")[0]}),
        ("from library import models\nmodels.build()", REEXPORT),
        ("from library.models import build\nbuild()", {"library/__init__.py": ALIAS}),
        ("import library.models\nlibrary.models.build()", {"library/__init__.py": ALIAS}),
        ("from library import models\nmodels.build()", lazily("library.nets.models")),
        ("from library import models\nmodels.build()", lazily(".nets.models")),
        ("from library.models import build\nbuild()", lazily("nets.models")),
        ("from library.nets import build\nbuild()",
         {"library/nets/__init__.py": "from .models import build\nprint('the room')"}),
        ("from library.nets import build\nbuild()",
         {"library/nets/__init__.py": "from .models import *\nprint('the room')"}),
    ],
)  # fmt: skip
def test_imports_are_followed_in_every_form(tmp_path, script, files):
    found = rooms(tmp_path, script, files)
    before = found()
    for file, old, new in REACHED:
        change(tmp_path, file, old, new)
        assert found() != before, file
        change(tmp_path, file, new, old)
        assert found() == before
    for file, old, new in UNUSED:
        if old in (tmp_path / file).read_text(encoding="utf-8"):
            change(tmp_path, file, old, new)
    assert found() == before


@pytest.mark.parametrize(
    ("script", "files", "message"),
    [
        ("from library.nets import model", {}, r"script\.py, line 1: .* import model"),
        ("from library.nets.models import bild", {}, r"script\.py, line 1: .* import bild"),
        ("import library.net.models", {}, r"script\.py, line 1: import library.net.models"),
        ("from library.net import *", {}, r"script\.py.* from library.net import \*"),
        ("def f():\n    from library import net", {}, r"script\.py, line 2: .* import net"),
        ("from . import library", {}, r"script\.py, line 1: .* no such package"),
        ("import importlib\nimportlib.import_module('library.net')", {}, r"line 2: importlib"),
        ("from library.nets import models\nmodels.build()",
         {"library/nets/layers.py": "from .model import x\ndef relu(): ..."},
         r"library/nets/layers\.py, line 1: from \.model import x: there is no such module or"),
        ("from library.nets import models\nmodels.build()",
         {"library/running/stores.py": "def open_store(): ...\ndef f():\n from ...x import y"},
         r"stores\.py, line 3: from \.\.\.x import y: there is no such package in library"),
        ("from library import models", lazily("library.nets.model"), "from library import models"),
        ("from library import models", {"library/__init__.py": "from library import models"},
         r"script\.py, line 1: from library import models"),
    ],
)  # fmt: skip
def test_an_import_that_leads_to_nothing_is_an_error(tmp_path, script, files, message):
    with pytest.raises(FingerprintError, match=message):
        rooms(tmp_path, script, files)()


def test_an_alias_that_two_functions_import_from_two_places_means_both(tmp_path):
    code = """
def one():
    from library.nets import layers as it
    return it.relu()

def two():
    from library.running import stores as it
    return it.closed()
"""
    files = {"library/both.py": code}
    both = rooms(tmp_path / "both", "from library.both import *\none(), two()", files)
    only = rooms(tmp_path / "only", "from library.both import one\none()", files)
    for name, found, counts in (("both", both, [True, True]), ("only", only, [True, False])):
        changes = [("nets/layers.py", "return 0\n", "return 7\n")]
        changes += [("running/stores.py", '"closed"', '"shut"')]
        for (file, old, new), expected in zip(changes, counts, strict=True):
            before = found()
            change(tmp_path / name, f"library/{file}", old, new)
            assert (found() != before) == expected


@pytest.mark.parametrize(
    "script",
    [
        "from library.nets import layers\nfor room in [layers]: room.relu()",
        "from library.nets import layers\ngetattr(layers, 'gelu')()",
        "from library import nets\nprint(vars(nets))",
        "from library.registry import found\nfound()",
    ],
)
def test_what_cannot_be_told_name_by_name_counts_whole(tmp_path, script):
    registry = """
from importlib import import_module

def found():
    return [import_module(f"library.nets.{name}") for name in ("layers", "models")]
"""
    found = rooms(tmp_path, script, {"library/registry.py": registry})
    before = found()
    change(tmp_path, "library/nets/layers.py", "return 0.5", "return 5.5")
    assert found() != before


def test_of_computed_imports_the_modules_that_the_caller_names_count(tmp_path):
    files = {
        "library/nets/registry.py": """
from importlib import import_module

def net(name):
    return import_module(f"library.nets.{name}")
""",
        "library/nets/plain.py": "def plain(): ...",
    }
    script = "from library.nets.registry import net\nnet('layers')"
    whole = rooms(tmp_path, script, files)
    for modules, counts in (
        (["nets.layers"], True),
        (["running.stores"], True),
        (["nets.plain"], False),
    ):
        named = partial(fingerprint, tmp_path / "script.py", tmp_path / "library", modules=modules)
        before = named(), whole()
        change(tmp_path, "library/nets/layers.py", "return 0\n", "return 7\n")
        assert (named() != before[0]) == counts
        assert whole() != before[1]
        change(tmp_path, "library/nets/layers.py", "return 7\n", "return 0\n")


def test_what_a_decorator_of_the_package_may_enter_in_a_list_counts(tmp_path):
    """Importing the module is enough; other decorators enter nothing."""
    files = {
        "library/listed.py": """
LIST = []
def entered(f):
    LIST.append(f)
    return f
""",
        "library/measures.py": """
from functools import cache
from library.listed import entered

@entered
def cka():
    return 1

@cache
def cca():
    return 2
""",
    }
    script = "import library.measures\nfrom library.listed import LIST\nprint(LIST)"
    found = rooms(tmp_path, script, files)
    before = found()
    change(tmp_path, "library/measures.py", "return 2", "return 22")
    assert found() == before
    change(tmp_path, "library/measures.py", "return 1", "return 11")
    assert found() != before


def test_names_that_are_defined_under_a_condition_are_found(tmp_path):
    files = {
        "library/fast.py": """
try:
    from numba import njit
except ImportError:
    def njit(f):
        return f
if njit:
    SPEED = 2
with open("x") as FILE:
    pass
"""
    }
    found = rooms(tmp_path, "from library.fast import SPEED, FILE, njit\nprint(SPEED)", files)
    before = found()
    change(tmp_path, "library/fast.py", "SPEED = 2", "SPEED = 3")
    assert found() != before


def test_functions_that_a_script_calls_by_name_count(project):
    """Those that it gets as parameters, and no others of their module."""
    script, package = project / "script.py", project / "library"
    script.write_text("def main(call):\n    call()\n", encoding="utf-8")

    def found():
        return fingerprint(script, package, calls=["library.tools:deep"])

    before = found()
    assert before != fingerprint(script, package)
    change(project, "library/tools.py", "return 1", "return 10")
    assert found() == before
    change(project, "library/tools.py", "return 2", "return 20")
    assert found() != before


@pytest.mark.parametrize("call", ["library.tools:shallow", "library.tool:deep", "library.tools"])
def test_a_function_to_call_that_is_not_there_is_an_error(project, call):
    with pytest.raises(FingerprintError, match=f"there is no {call}"):
        fingerprint(project / "script.py", project / "library", calls=[call])


def test_every_import_of_the_library_can_be_followed(tmp_path):
    """Also of modules that no script reaches yet."""
    modules = [p.relative_to(PACKAGE).with_suffix("") for p in PACKAGE.rglob("*.py")]
    names = [".".join(m.parts).removesuffix("__init__").rstrip(".") for m in modules]
    script = tmp_path / "script.py"
    script.write_text(
        "\n".join(f"import {f'convergent.{n}'.rstrip('.')}" for n in names), encoding="utf-8"
    )
    fingerprint(script)


def test_fingerprints_are_remembered_until_the_library_changes(project, monkeypatch):
    script, kept = project / "script.py", project / "kept/fingerprints.json"
    first = fingerprint(script, project / "library")
    assert Remembered(kept, project / "library").fingerprint(script) == first
    # Now it is looked up.
    monkeypatch.setattr(fingerprints, "fingerprint", lambda *_, **__: pytest.fail("followed"))
    assert Remembered(kept, project / "library").fingerprint(script) == first
    monkeypatch.undo()
    calls = ["library.tools:unused"]
    with_call = Remembered(kept, project / "library").fingerprint(script, calls=calls)
    assert with_call == fingerprint(script, project / "library", calls=calls) != first
    # Even if its times and sizes stay the same.
    tools = project / "library/tools.py"
    times = tools.stat().st_atime_ns, tools.stat().st_mtime_ns
    tools.write_text(
        tools.read_text(encoding="utf-8").replace("return 2", "return 5"), encoding="utf-8"
    )
    os.utime(tools, ns=times)
    fingerprints._library.cache_clear()
    assert Remembered(kept, project / "library").fingerprint(script) != first
    change(project, "script.py", "tools.used()", "tools.deep()")
    changed = Remembered(kept, project / "library").fingerprint(script)
    assert changed == fingerprint(script, project / "library")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"library": 1}'])
def test_fingerprints_do_without_their_file(project, text):
    kept = project / "fingerprints.json"
    kept.write_text(text, encoding="utf-8")
    expected = fingerprint(project / "script.py", project / "library")
    assert Remembered(kept, project / "library").fingerprint(project / "script.py") == expected
