"""Fingerprints of the code behind a rule.

Snakemake reruns a rule when its parameters change, not when a module that its script imports
does. So each rule carries, as a parameter, a hash of the script and of every definition in
this package that the script reaches, found by following names and imports. Comments,
docstrings and layout do not count, nor do functions that the script does not use.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parent


class Module(NamedTuple):
    """A parsed module: what it defines, what it imports from here, and the rest of it."""

    definitions: dict[str, list[ast.stmt]]
    imports: dict[str, tuple[str, str | None]]
    rest: list[ast.stmt]


def fingerprint(script: str | Path, package: Path = PACKAGE) -> str:
    """Hash of a script and of the library code that it reaches.

    Parameters
    ----------
    script : path
        A Python file.
    package : path
        Folder of the library, whose name is the package's.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    tree = _stripped(Path(script).read_text(encoding="utf-8"))
    imports = _imports(tree, package)
    pending = _targets([tree], imports, {}, package)
    reached: dict[tuple[str, str], str] = {}
    while pending:
        place = pending.pop()
        name, definition = place
        file = package / f"{name}.py"
        if place in reached or not file.is_file():
            continue
        reached[place], targets = _definition(file, file.stat().st_mtime_ns, definition)
        pending |= {(name, ""), *targets}
    text = [ast.unparse(tree), *(f"{place}\n{code}" for place, code in sorted(reached.items()))]
    return hashlib.sha256("\n".join(text).encode()).hexdigest()[:16]


def _targets(
    nodes: list[ast.AST],
    imports: dict[str, tuple[str, str | None]],
    definitions: dict[str, list[ast.stmt]],
    package: Path,
    module: str = "",
) -> set[tuple[str, str]]:
    """What `nodes` refer to in the package, as (module, definition)."""
    found = set()
    for node in (n for top in nodes for n in ast.walk(top)):
        if isinstance(node, ast.Name):
            if node.id in definitions:
                found.add((module, node.id))
            elif node.id in imports:
                source, name = imports[node.id]
                if name is not None:
                    found.add((source, name))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            source, name = imports.get(node.value.id, ("", ""))
            if name is None and node.value.id not in definitions:
                found.add((source, node.attr))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            local = _imports(node, package)
            found |= {(source, "") for source, _ in local.values()}
    return found


@cache
def _definition(file: Path, changed: int, definition: str) -> tuple[str, set[tuple[str, str]]]:
    """Code of a definition of a module, and what it refers to; "" is what importing it does."""
    module, package, name = _module(file, changed), file.parent, file.stem
    targets = set()
    if definition in module.definitions:
        nodes = module.definitions[definition]
    elif definition in module.imports:  # a name that the module passes on
        targets = _targets([ast.Name(definition)], module.imports, {}, package, name)
        nodes = []
    else:
        nodes = module.rest
    targets |= _targets(nodes, module.imports, module.definitions, package, name)
    return "\n".join(ast.unparse(node) for node in nodes), targets


@cache
def _module(file: Path, changed: int) -> Module:
    tree = _stripped(file.read_text(encoding="utf-8"))
    definitions: dict[str, list[ast.stmt]] = {}
    rest = []
    for node in tree.body:
        for defined in _defined(node):
            definitions.setdefault(defined, []).append(node)
        if not _defined(node) and not isinstance(node, ast.Import | ast.ImportFrom):
            rest.append(node)
    return Module(definitions, _imports(tree, file.parent), rest)


def _defined(node: ast.stmt) -> list[str]:
    """Names that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [
            n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)
        ]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


def _imports(tree: ast.AST, package: Path) -> dict[str, tuple[str, str | None]]:
    """Imports from the package anywhere in `tree`: alias to (module, name or None)."""
    found: dict[str, tuple[str, str | None]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            top, _, module = node.module.partition(".")
            if top == package.name:
                for alias in node.names:
                    place = (module, alias.name) if module else (alias.name, None)
                    found[alias.asname or alias.name] = place
    return found


def _stripped(code: str) -> ast.Module:
    """Syntax tree without docstrings and other idle strings."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [
                statement
                for statement in body
                if not (
                    isinstance(statement, ast.Expr)
                    and isinstance(statement.value, ast.Constant)
                    and isinstance(statement.value.value, str)
                )
            ]
            node.body = kept or [ast.Pass()]
    return tree
