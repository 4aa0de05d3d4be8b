"""The packages of the library stand in one order, and imports run down it."""

import ast
import importlib
import subprocess
import sys

import pytest

import convergent
from convergent.running.fingerprint import PACKAGE

ROOMS = ["running", "nets", "activations", "measures", "alignment", "inference"]
ROOMS += ["consequences", "units", "figures", "config", "runs"]


def imported(file):
    """Rooms that a module imports from, wherever in it the import stands."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: imports are absolute"
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            names = below if node.module == "convergent" else [node.module]
        for name in names:
            top, _, room = name.partition(".")
            if top == "convergent" and room.split(".")[0] in [*ROOMS, *convergent.SHORT_NAMES]:
                yield room.split(".")[0]


def test_every_folder_is_a_room_that_says_what_is_in_it():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name[0] != "_"}
    assert folders == set(ROOMS)
    for room in ROOMS:
        assert len(importlib.import_module(f"convergent.{room}").__doc__.split()) > 15


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_rooms_before_it(room):
    allowed = ROOMS[: ROOMS.index(room) + 1]
    files = sorted((PACKAGE / room).rglob("*.py"))
    assert files
    for file in files:
        assert set(imported(file)) <= set(allowed), file


def test_ground_imports_from_no_room():
    for file in PACKAGE.glob("*.py"):
        assert not set(imported(file)), file


PUBLIC = {
    "moments": ["Moments", "correlation"],
    "mutual_information": ["discretize", "mutual_information"],
    "matching": ["semi_matching", "matching"],
    "mapping": ["lasso_path"],
    "clustering": ["hac", "spectral_clusters"],
    "models": ["build", "layers"],
    "activations": ["record", "open_store"],
}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_imported_both_ways(module):
    names = ", ".join(PUBLIC[module])
    code = f"""
import importlib
from convergent import {module} as module
from convergent.{module} import {names}
for name, value in zip({PUBLIC[module]!r}, ({names},)):
    assert getattr(module, name) is value
import convergent.{module} as again
assert again is module
assert module.__spec__.name == module.__name__
assert importlib.reload(module) is module
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_no_module_has_is_an_error():
    with pytest.raises(ModuleNotFoundError, match=r"convergent\.matchings"):
        importlib.import_module("convergent.matchings")
