"""Fingerprints of the code behind a rule.

Snakemake reruns a rule when its parameters change, but not when a module that its script imports
changes. So each rule has, as a parameter, a hash of the script and of every definition in this
package that the script reaches, found by following names and imports. Comments, docstrings,
layout and functions that the script does not use make no difference.

Imports are followed in every form: of packages and modules at any depth, relative, of all names
(``*``), and of names that another module passes on. A second name of a module is followed if the
``__init__`` of its package states it in plain text, by a dictionary of second names to real ones
or by assigning to ``sys.modules[...]``. If names cannot be followed one by one, the whole counts:
a module that is passed as an object, and all modules in the folder of a file that imports a module
by a computed name, unless the caller lists those that are meant. An import that leads to nothing
is an error.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

from convergent import ConvergentError
from convergent.running.files import WritingError, digest, writing

PACKAGE = Path(__file__).parents[1]
# In place of a definition's name: the code that importing a module runs, and all of its contents.
BODY, WHOLE = "", "*"
# In place of a definition of a package: the modules in it that are imported by a computed name.
COMPUTED = "?"

# A module, by its dotted name below the package ("" is the package), and a definition in it; None
# stands for the module itself.
Place = tuple[str, str | None]

FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
IMPORTS = ast.Import | ast.ImportFrom
ASSIGNMENTS = ast.Assign | ast.AnnAssign | ast.AugAssign


class FingerprintError(ConvergentError, ImportError):
    """An import from the package that leads to nothing; the message names file and import."""


class Import(NamedTuple):
    """A name that an import statement takes from the package.

    Attributes
    ----------
    statement : ast.Import or ast.ImportFrom
    module : str
    name : str or None
        Name in the module; None is the module itself, ``*`` all names.
    binds_top : bool
        True if the statement binds the name of the package, as ``import package.module`` does.
    """

    statement: ast.stmt
    module: str
    name: str | None
    binds_top: bool = False


def fingerprint(
    script: str | Path,
    package: Path = PACKAGE,
    *,
    calls: Iterable[str] = (),
    modules: Iterable[str] = (),
) -> str:
    """Hash a script and the library code that it reaches.

    Parameters
    ----------
    script : path
        A Python file.
    package : path
        Folder of the library, whose name is the package's.
    calls : iterable of str
        Functions of the library, as ``package.module:function``, that the script calls without
        naming them because it gets their names as parameters (:func:`pkgutil.resolve_name`).
    modules : iterable of str
        Modules, such as ``measures.correlation``, that are imported by a computed name. An import
        by a computed name in a folder of which none is listed may import all modules there.

    Returns
    -------
    str
        16 hexadecimal digits.

    Raises
    ------
    FingerprintError
        If the script, or a module that it reaches, imports a name from the package that is neither
        a module nor a definition, or if one of `calls` is no definition.
    """
    files = ((file, file.stat()) for file in sorted(package.rglob("*.py")))
    library = _library(package, tuple((f, stat.st_mtime_ns, stat.st_size) for f, stat in files))
    start = Module(Path(script), None, package.name)
    pending = library.references(start, [start.tree])
    for call in calls:
        module, _, name = call.removeprefix(f"{package.name}.").partition(":")
        places = {place for place in library.look_up(module, name) if place[1]}
        if not places:
            raise FingerprintError(f"{script}: there is no {call} for it to call")
        pending |= places
    reached: dict[Place, str] = {}
    while pending:
        place = pending.pop()
        if place[1] == COMPUTED:
            inside = {(m, WHOLE) for m in modules if m.rpartition(".")[0] == place[0]}
            pending |= inside or {(place[0], WHOLE)}
        elif place not in reached:
            reached[place], more = library.definition(*place)
            pending |= more
    text = [ast.unparse(start.tree), *(f"{at}\n{code}" for at, code in sorted(reached.items()))]
    return hashlib.sha256("\n".join(text).encode()).hexdigest()[:16]


class Remembered:
    """Fingerprints that a file keeps for as long as no file of the library changes.

    Snakemake reads the workflow at each start, and following the names of all its scripts would
    take a third of that time.

    Parameters
    ----------
    file : path
        JSON file, which need not exist. If it cannot be written, nothing is remembered.
    package : path
        Folder of the library.
    """

    def __init__(self, file: str | Path, package: Path = PACKAGE):
        self.file, self.package = Path(file), package
        contents = [(str(f), f.read_bytes()) for f in sorted(package.rglob("*.py"))]
        # Another Python may write the same syntax tree in another way.
        self.library = digest(sys.version_info[:2], contents)
        self.known: dict[str, str] = {}
        try:
            kept = json.loads(self.file.read_text(encoding="utf-8"))
            if kept["library"] == self.library:
                self.known = kept["fingerprints"]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # as if there were none

    def fingerprint(
        self, script: str | Path, *, calls: Iterable[str] = (), modules: Iterable[str] = ()
    ) -> str:
        """Look up or compute what :func:`fingerprint` returns."""
        calls, modules = list(calls), list(modules)
        key = digest(Path(script).read_bytes(), calls, modules)
        if key not in self.known:
            self.known[key] = fingerprint(script, self.package, calls=calls, modules=modules)
            text = json.dumps({"library": self.library, "fingerprints": self.known})
            try:
                with writing(self.file, shared=True) as path:
                    path.write_text(text, encoding="utf-8")
            except WritingError:
                pass  # as a read-only folder
        return self.known[key]


class Module:
    """Parsed file of the package, or a script, which has no name; a folder may have no file.

    Attributes
    ----------
    definitions : dict of str to list of ast.stmt
        Statements, by the names that they define.
    body : list of ast.stmt
        All other statements, except imports and second names of modules.
    imports : dict of str to list of Import
        Imports from the package that run when the file is imported, by the names that they bind.
    foreign : set of str
        Names that are imported from elsewhere.
    """

    def __init__(self, file: Path | None, name: str | None, top: str):
        self.file, self.name, self.top = file, name, top
        is_package = file is None or file.name == "__init__.py"
        # The package that relative imports start from.
        self.package = (name or "") if is_package else (name or "").rpartition(".")[0]
        self.is_package = is_package
        self.tree = _stripped(file.read_text(encoding="utf-8")) if file else ast.Module([], [])
        executed = partial(_statements, in_functions=False)
        self.definitions: dict[str, list[ast.stmt]] = {}
        for statement in self.tree.body:
            for defined in {n for inner in executed([statement]) for n in _defined(inner)}:
                self.definitions.setdefault(defined, []).append(statement)
        self.body = [
            statement
            for statement in self.tree.body
            if not isinstance(statement, FUNCTIONS | IMPORTS)
            and not (isinstance(statement, ASSIGNMENTS) and _defined(statement))
            and _second_name(statement) is None
        ]
        statements = [s for s in executed(self.tree.body) if isinstance(s, IMPORTS)]
        self.imports = self.imported_by(statements)
        bound = {(a.asname or a.name).split(".")[0] for s in statements for a in s.names}
        self.foreign = bound - self.imports.keys()

    def imported_by(self, nodes: Iterable[ast.AST]) -> dict[str, list[Import]]:
        """List the imports from the package among `nodes`, by the names that they bind."""
        imports: dict[str, list[Import]] = {}
        for node in nodes:
            if not isinstance(node, IMPORTS):
                continue
            for alias in node.names:
                if isinstance(node, ast.ImportFrom):
                    module, bound = self._source(node), alias.asname or alias.name
                    entry = Import(node, module or "", alias.name)
                else:
                    module, bound = self._below(alias.name), alias.asname or self.top
                    entry = Import(node, module or "", None, alias.asname is None)
                if module is not None:
                    imports.setdefault(bound, []).append(entry)
        return imports

    def aliases(self) -> Iterator[tuple[str, ast.expr]]:
        """List the second names that a package states in plain text, and what they stand for."""
        for node in ast.walk(self.tree) if self.is_package else ():
            pairs: list[tuple[ast.expr | None, ast.expr]] = []
            if isinstance(node, ast.Dict):
                pairs = list(zip(node.keys, node.values, strict=True))
            elif (pair := _second_name(node)) is not None:
                pairs = [pair]
            prefix = _join(self.top, self.package) + "."
            for key, value in pairs:
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    yield key.value.removeprefix(prefix), value

    def error(self, node: ast.stmt | ast.expr, fault: str) -> FingerprintError:
        """Make the error of an import, with its place."""
        return FingerprintError(f"{self.file}, line {node.lineno}: {ast.unparse(node)}: {fault}")

    def _below(self, module: str | None) -> str | None:
        """Return a module's name below the package; None if it belongs to another."""
        top, _, below = (module or "").partition(".")
        return below if top == self.top else None

    def _source(self, node: ast.ImportFrom) -> str | None:
        """Return the name below the package of the module to import from."""
        if not node.level:
            return self._below(node.module)
        parts = [self.top, *filter(None, self.package.split("."))]
        parts = parts[: len(parts) - node.level + 1]
        if self.name is None or not parts:
            raise self.error(node, f"there is no such package in {self.top}")
        return self._below(".".join([*parts, *filter(None, [node.module])]))


class Library:
    """Modules of a package, each parsed once, and what their definitions refer to."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.modules: dict[str, Module | None] = {}
        self.followed: dict[Place, tuple[str, set[Place]]] = {}

    def module(self, name: str) -> Module | None:
        """Parse the module of that name; None if there is neither a file nor a folder for it."""
        if name not in self.modules:
            path = self.folder.joinpath(*filter(None, name.split(".")))
            files = [path / "__init__.py", *([path.with_name(f"{path.name}.py")] if name else [])]
            file = next((file for file in files if file.is_file()), None)
            exists = file or path.is_dir()
            self.modules[name] = Module(file, name, self.folder.name) if exists else None
        return self.modules[name]

    def definition(self, module: str, name: str | None) -> tuple[str, set[Place]]:
        """Return the code of a definition of a module, and what it refers to."""
        if (module, name) not in self.followed:
            here = self.module(module)
            assert here is not None  # places are made of modules that exist
            targets: set[Place] = {(module, BODY)}
            nodes = here.definitions.get(name or BODY, [])
            if name == BODY:
                # A decorator of the package may enter what it decorates in a list.
                functions = [s for s in here.tree.body if isinstance(s, FUNCTIONS)]
                listed = [s for s in functions if self.references(here, s.decorator_list)]
                nodes = [*here.body, *listed]
                targets.add((module.rpartition(".")[0], BODY))
                # Imports in functions that nothing reaches must lead somewhere as well.
                self.run_by(here, here.imported_by(_statements(here.tree.body)))
                targets |= self.run_by(here, here.imports)
            elif name == WHOLE:
                targets |= {(module, inner) for inner in here.definitions}
                passed_on = (p for inner in here.imports for p in self.look_up(module, inner))
                targets |= {place for place in passed_on if place[1] is not None}
                targets |= {(inner, WHOLE) for inner in self.beneath(here)}
            targets |= self.references(here, nodes)
            self.followed[module, name] = "\n".join(ast.unparse(node) for node in nodes), targets
        return self.followed[module, name]

    def references(self, here: Module, nodes: Iterable[ast.AST]) -> set[Place]:
        """List what code of a module refers to in the package."""
        pending = list(nodes)
        local = here.imported_by(_statements(pending))
        places = self.run_by(here, local)
        while pending:
            node = pending.pop()
            chain = _chain(node)
            if chain:
                places |= self.follow(here, chain, local)
                continue
            if isinstance(node, ast.Call) and _imports_by_name(node):
                places |= self.imported_by_name(here, node)
            pending += ast.iter_child_nodes(node)
        return places

    def run_by(self, here: Module, imports: Mapping[str, list[Import]]) -> set[Place]:
        """List what imports of a module run; raise an error for one that leads to nothing."""
        run: set[Place] = set()
        for entry in (entry for entries in imports.values() for entry in entries):
            places, source = self.imported(entry), self.find(entry.module)
            if not places or source is None:
                fault = f"there is no such module or definition in {self.folder.name}"
                raise here.error(entry.statement, fault)
            run |= {(module, BODY) for module, _ in places} | {(source, BODY)}
        return run

    def follow(
        self, here: Module, chain: list[str], local: Mapping[str, list[Import]]
    ) -> set[Place]:
        """List what a name with its attributes, such as ``nets.models.build``, refers to."""
        first, *rest = chain
        places: set[Place] = set()
        if here.name is not None and first in here.definitions:
            places.add((here.name, first))
        pending: list[tuple[Place, list[str]]] = []
        for imports in (local, here.imports):
            for entry in imports.get(first, ()):
                pending += [(place, rest) for place in self.imported(entry)]
            for entry in imports.get("*", ()):
                pending += [(place, rest) for place in self.passed_on(entry, first)]
        while pending:
            (module, name), rest = pending.pop()
            inner = self.look_up(module, rest[0]) if name is None and rest else set()
            if name is not None:
                places.add((module, name))
            elif inner:
                pending += [(place, rest[1:]) for place in inner]
            else:
                places.add((module, WHOLE))
        return places

    def find(self, name: str, visited: frozenset[Place] = frozenset()) -> str | None:
        """Find the module that a dotted name below the package stands for."""
        module = ""
        for part in filter(None, name.split(".")):
            inner = _join(module, part)
            if self.module(inner):
                module = inner
                continue
            modules = sorted(m for m, d in self.look_up(module, part, visited) if d is None)
            if not modules:
                return None
            module = modules[0]
        return module

    def imported(self, entry: Import, visited: frozenset[Place] = frozenset()) -> set[Place]:
        """List what the name that an import binds may stand for."""
        module = self.find(entry.module, visited)
        if module is None:
            return set()
        if entry.binds_top:
            return {("", None)}
        if entry.name in (None, "*"):
            return {(module, None)}
        return self.look_up(module, entry.name, visited)

    def passed_on(
        self, entry: Import, name: str, visited: frozenset[Place] = frozenset()
    ) -> set[Place]:
        """List what a name may stand for that an import of all names (``*``) binds."""
        source = self.find(entry.module, visited)
        return set() if source is None else self.look_up(source, name, visited)

    def look_up(
        self, module: str, name: str, visited: frozenset[Place] = frozenset()
    ) -> set[Place]:
        """List what a name in a module may stand for, where it is defined."""
        here = self.module(module)
        if here is None or (module, name) in visited:
            return set()
        visited |= {(module, name)}
        places: set[Place] = {(module, name)} if name in here.definitions else set()
        for entry in here.imports.get(name, ()):
            places |= self.imported(entry, visited)
        if not places:
            for entry in here.imports.get("*", ()):
                places |= self.passed_on(entry, name, visited)
        if not places and here.is_package and self.module(_join(module, name)):
            places = {(_join(module, name), None)}
        if not places:
            for alias, value in here.aliases():
                places |= self.resolve(here, value, visited) if alias == name else set()
        if not places and name in here.foreign:
            places = {(module, BODY)}
        return places

    def resolve(self, here: Module, value: ast.expr, visited: frozenset[Place]) -> set[Place]:
        """Find the module that a package names in plain text, or by what it imports."""
        if isinstance(value, ast.Call) and _imports_by_name(value):
            value = value.args[0]
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            name = value.value.removeprefix(f"{self.folder.name}.")
            names = [name, _join(here.package, name.lstrip("."))]
            return {(m, None) for m in (self.find(n, visited) for n in names) if m}
        entries = here.imports.get("".join(_chain(value)), ())
        return {place for entry in entries for place in self.imported(entry, visited)}

    def imported_by_name(self, here: Module, call: ast.Call) -> set[Place]:
        """List what ``import_module`` may import."""
        name = call.args[0]
        if here.is_package and isinstance(name, ast.Subscript):
            # A name from a dictionary; it is followed from the import of that name.
            statements = here.definitions.get("".join(_chain(name.value)), [])
            if any(isinstance(getattr(s, "value", None), ast.Dict) for s in statements):
                return set()
        if not isinstance(name, ast.Constant):
            return {(here.package, COMPUTED)}
        top, _, below = str(name.value).partition(".")
        if top not in ("", self.folder.name):
            return set()
        module = self.find(below if top else _join(here.package, below.lstrip(".")))
        if module is None:
            raise here.error(call, f"there is no such module in {self.folder.name}")
        return {(module, WHOLE)}

    def beneath(self, here: Module) -> Iterator[str]:
        """List the names of the modules in the folder of a package."""
        folder = self.folder.joinpath(*filter(None, here.package.split(".")))
        for file in folder.rglob("*.py") if here.is_package else ():
            parts = file.relative_to(self.folder).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if name != here.name:
                yield name


@lru_cache(maxsize=4)
def _library(folder: Path, files: tuple) -> Library:
    """Cache a package as long as none of its files changes."""
    return Library(folder)


def _statements(nodes: Iterable[ast.AST], *, in_functions: bool = True) -> Iterator[ast.AST]:
    """List statements at any depth; importing may run those outside of functions and classes."""
    for node in nodes:
        yield node
        if in_functions or not isinstance(node, FUNCTIONS):
            for field in ("body", "orelse", "finalbody", "handlers", "cases"):
                inner = getattr(node, field, None)
                if isinstance(inner, list):
                    yield from _statements(inner, in_functions=in_functions)


def _defined(node: ast.AST) -> list[str]:
    """List the names that a statement itself defines."""
    if isinstance(node, FUNCTIONS):
        return [node.name]
    targets = [*getattr(node, "targets", ()), getattr(node, "target", None)]
    targets += [item.optional_vars for item in getattr(node, "items", ())]
    names = (n for target in targets if target for n in ast.walk(target))
    return [n.id for n in names if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]


def _chain(node: ast.AST) -> list[str]:
    """Split a name with attributes into its parts; none for any other expression."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if isinstance(node, ast.Name) else []


def _imports_by_name(call: ast.Call) -> bool:
    """Tell whether a call imports a module by its name."""
    return _chain(call.func)[-1:] in (["import_module"], ["__import__"]) and bool(call.args)


def _second_name(node: ast.AST) -> tuple[ast.expr, ast.expr] | None:
    """Return name and value of ``sys.modules["name"] = value``; None for other statements."""
    slot = node.targets[0] if isinstance(node, ast.Assign) else None
    if not isinstance(slot, ast.Subscript) or _chain(slot.value)[-1:] != ["modules"]:
        return None
    return (slot.slice, node.value) if isinstance(slot.slice, ast.Constant) else None  # type: ignore


def _join(*names: str) -> str:
    """Join the names that are not empty by dots."""
    return ".".join(filter(None, names))


def _stripped(code: str) -> ast.Module:
    """Parse code and drop docstrings and other strings without effect."""
    tree = ast.parse(code)
    for node in _statements([tree]):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            effective = [
                statement
                for statement in body
                if not (
                    isinstance(statement, ast.Expr)
                    and isinstance(statement.value, ast.Constant)
                    and isinstance(statement.value.value, str)
                )
            ]
            node.body = effective or [ast.Pass()]  # type: ignore[attr-defined]
    return tree
