"""Fingerprints of the code behind a rule.

Snakemake reruns a rule when its parameters change, not when a module that its script imports
does. So each rule carries, as a parameter, a hash of the script and of every definition in
this package that the script reaches, found by following names and imports. Comments,
docstrings and layout do not count, nor do functions that the script does not use.

Imports are followed in every form: of packages and modules at any depth, relative, of all names
(``*``), and of names that another module passes on. A module that a package has under another
name as well is found if its ``__init__`` says so in plain text, by a dictionary of old names to
new ones or by assigning to ``sys.modules[...]``. What cannot be told name by name counts whole: a
module that is handed on as an object, and all modules in the folder of a file that imports one
whose name it computes, unless the caller says which of them are meant. An import that leads to
nothing is an error.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

from convergent import ConvergentError

PACKAGE = Path(__file__).parents[1]
# In place of a definition: what importing a module does, and all that is in a module or package.
BODY, WHOLE = "", "*"
# In place of a definition of a package: the modules in it that are imported by a computed name.
COMPUTED = "?"

# A module by its dotted name below the package, which is "" itself, and a definition in it; None
# where the module is meant.
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
        In the module; None is the module itself, ``*`` all names.
    binds_top : bool
        Whether the statement, such as ``import package.module``, binds the name of the package.
    """

    statement: ast.stmt
    module: str
    name: str | None
    binds_top: bool = False


def fingerprint(script: str | Path, package: Path = PACKAGE, *, modules: Iterable[str] = ()) -> str:
    """Hash a script and the library code that it reaches.

    Parameters
    ----------
    script : path
        A Python file.
    package : path
        Folder of the library, whose name is the package's.
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
        If the script, or a module that it reaches, imports from the package what is neither a
        module nor a definition.
    """
    files = ((file, file.stat()) for file in sorted(package.rglob("*.py")))
    library = _library(package, tuple((f, stat.st_mtime_ns, stat.st_size) for f, stat in files))
    start = Module(Path(script), None, package.name)
    pending = library.references(start, [start.tree])
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


class Module:
    """A parsed file of the package, or a script, which has no name; a folder may have no file.

    Attributes
    ----------
    definitions : dict of str to list of ast.stmt
        Statements by the names that they define.
    body : list of ast.stmt
        The others, but for imports and new names of modules.
    imports : dict of str to list of Import
        What it imports from the package when it is imported itself, by the names that it binds.
    foreign : set of str
        Names that it imports from elsewhere.
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
            and not _names_module(statement)
        ]
        statements = [s for s in executed(self.tree.body) if isinstance(s, IMPORTS)]
        self.imports = self.imported_by(statements)
        bound = {(a.asname or a.name).split(".")[0] for s in statements for a in s.names}
        self.foreign = bound - self.imports.keys()

    def imported_by(self, nodes: Iterable[ast.AST]) -> dict[str, list[Import]]:
        """What import statements among `nodes` take from the package, by the names they bind."""
        found: dict[str, list[Import]] = {}
        for node in nodes:
            for alias in node.names if isinstance(node, IMPORTS) else ():
                if isinstance(node, ast.ImportFrom):
                    module, bound, name = self._source(node), alias.asname or alias.name, alias.name
                else:
                    module, bound, name = self._below(alias.name), alias.asname or self.top, None
                if module is not None:
                    binds_top = name is None and alias.asname is None
                    entry = Import(node, module, name, binds_top)
                    found.setdefault(bound, []).append(entry)
        return found

    def aliases(self) -> Iterator[tuple[str, ast.expr]]:
        """Modules that a package names in plain text: what is said to stand for a name."""
        for node in ast.walk(self.tree) if self.is_package else ():
            if isinstance(node, ast.Dict):
                pairs = zip(node.keys, node.values, strict=True)
            else:
                pairs = [(node.targets[0].slice, node.value)] if _names_module(node) else []
            prefix = _join(self.top, self.package) + "."
            for key, value in pairs:
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    yield key.value.removeprefix(prefix), value

    def error(self, node: ast.AST, what: str) -> FingerprintError:
        """A fault of an import, with its place."""
        return FingerprintError(f"{self.file}, line {node.lineno}: {ast.unparse(node)}: {what}")

    def _below(self, module: str) -> str | None:
        """A module's name below the package; None if it is of another."""
        top, _, below = module.partition(".")
        return below if top == self.top else None

    def _source(self, node: ast.ImportFrom) -> str | None:
        if not node.level:
            return self._below(node.module)
        parts = [self.top, *filter(None, self.package.split("."))]
        parts = parts[: len(parts) - node.level + 1]
        if self.name is None or not parts:
            raise self.error(node, f"there is no such package in {self.top}")
        return self._below(".".join([*parts, *filter(None, [node.module])]))


class Library:
    """The modules of a package, each parsed once, and what their definitions refer to."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.modules: dict[str, Module | None] = {}
        self.known: dict[tuple[str, str], tuple[str, set[Place]]] = {}

    def module(self, name: str) -> Module | None:
        """The module of that name, where there is a file or a folder for it."""
        if name not in self.modules:
            path = self.folder.joinpath(*filter(None, name.split(".")))
            files = [path / "__init__.py", *([path.with_name(f"{path.name}.py")] if name else [])]
            file = next((file for file in files if file.is_file()), None)
            found = file or path.is_dir()
            self.modules[name] = Module(file, name, self.folder.name) if found else None
        return self.modules[name]

    def definition(self, module: str, name: str) -> tuple[str, set[Place]]:
        """Code of a definition of a module, and what it refers to."""
        if (module, name) not in self.known:
            here = self.module(module)
            targets: set[Place] = {(module, BODY)}
            nodes = here.definitions.get(name, [])
            if name == BODY:
                # A decorator of the package may enter what it decorates in a list.
                functions = [s for s in here.tree.body if isinstance(s, FUNCTIONS)]
                listed = [s for s in functions if self.references(here, s.decorator_list)]
                nodes = here.body + listed
                targets.add((module.rpartition(".")[0], BODY))
                # Imports of functions that nothing reaches must lead somewhere as well.
                self.run_by(here, here.imported_by(_statements(here.tree.body)))
                targets |= self.run_by(here, here.imports)
            elif name == WHOLE:
                targets |= {(module, inner) for inner in here.definitions}
                passed_on = (p for inner in here.imports for p in self.look_up(module, inner))
                targets |= {place for place in passed_on if place[1] is not None}
                targets |= {(inner, WHOLE) for inner in self.beneath(here)}
            targets |= self.references(here, nodes)
            self.known[module, name] = "\n".join(ast.unparse(node) for node in nodes), targets
        return self.known[module, name]

    def references(self, here: Module, nodes: Iterable[ast.AST]) -> set[Place]:
        """What code of a module refers to in the package."""
        pending = list(nodes)
        local = here.imported_by(_statements(pending))
        found = self.run_by(here, local)
        while pending:
            node = pending.pop()
            chain = _chain(node)
            if chain:
                found |= self.follow(here, chain, local)
                continue
            if isinstance(node, ast.Call) and _imports_by_name(node):
                found |= self.imported_by_name(here, node)
            pending += ast.iter_child_nodes(node)
        return found

    def run_by(self, here: Module, imports: Mapping[str, list[Import]]) -> set[Place]:
        """What imports of a module run; raises an error for one that leads to nothing."""
        found = set()
        for entry in (entry for entries in imports.values() for entry in entries):
            places = self.imported(entry)
            if not places:
                nothing = f"there is no such module or definition in {self.folder.name}"
                raise here.error(entry.statement, nothing)
            found |= {(module, BODY) for module, _ in places} | {(self.find(entry.module), BODY)}
        return found

    def follow(
        self, here: Module, chain: list[str], local: Mapping[str, list[Import]]
    ) -> set[Place]:
        """What a name with its attributes, such as ``nets.models.build``, refers to."""
        first, *rest = chain
        found: set[Place] = set()
        if here.name is not None and first in here.definitions:
            found.add((here.name, first))
        pending = []
        for imports in (local, here.imports):
            for entry in imports.get(first, ()):
                pending += [(place, rest) for place in self.imported(entry)]
            for entry in imports.get("*", ()):
                pending += [(p, rest) for p in self.look_up(self.find(entry.module), first)]
        while pending:
            (module, name), rest = pending.pop()
            inner = self.look_up(module, rest[0]) if name is None and rest else set()
            if name is not None:
                found.add((module, name))
            elif inner:
                pending += [(place, rest[1:]) for place in inner]
            else:
                found.add((module, WHOLE))
        return found

    def find(self, name: str, seen: frozenset[Place] = frozenset()) -> str | None:
        """The module that a dotted name below the package stands for."""
        found = ""
        for part in filter(None, name.split(".")):
            inner = _join(found, part)
            if not self.module(inner):
                modules = sorted(m for m, d in self.look_up(found, part, seen) if d is None)
                inner = modules[0] if modules else None
            if inner is None:
                return None
            found = inner
        return found

    def imported(self, entry: Import, seen: frozenset[Place] = frozenset()) -> set[Place]:
        """What the name that an import binds may stand for."""
        module = self.find(entry.module, seen)
        if module is None:
            return set()
        if entry.binds_top:
            return {("", None)}
        if entry.name in (None, "*"):
            return {(module, None)}
        return self.look_up(module, entry.name, seen)

    def look_up(self, module: str, name: str, seen: frozenset[Place] = frozenset()) -> set[Place]:
        """What a name in a module may stand for, where it is defined."""
        here = self.module(module)
        if here is None or (module, name) in seen:
            return set()
        seen |= {(module, name)}
        found: set[Place] = {(module, name)} if name in here.definitions else set()
        for entry in here.imports.get(name, ()):
            found |= self.imported(entry, seen)
        if not found:
            for entry in here.imports.get("*", ()):
                source = self.find(entry.module, seen)
                found |= self.look_up(source, name, seen) if source is not None else set()
        if not found and here.is_package and self.module(_join(module, name)):
            found = {(_join(module, name), None)}
        if not found:
            for alias, value in here.aliases():
                found |= self.meant(here, value, seen) if alias == name else set()
        if not found and name in here.foreign:
            found = {(module, BODY)}
        return found

    def meant(self, here: Module, value: ast.AST, seen: frozenset[Place]) -> set[Place]:
        """The module that a package names in plain text, or by what it imports."""
        if isinstance(value, ast.Call) and _imports_by_name(value):
            value = value.args[0]
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            name = value.value.removeprefix(f"{self.folder.name}.")
            names = [name, _join(here.package, name.lstrip("."))]
            return {(m, None) for m in (self.find(n, seen) for n in names) if m}
        entries = here.imports.get("".join(_chain(value)), ())
        return {place for entry in entries for place in self.imported(entry, seen)}

    def imported_by_name(self, here: Module, call: ast.Call) -> set[Place]:
        """What ``import_module`` may import."""
        name = call.args[0]
        if here.is_package and isinstance(name, ast.Subscript):
            # Out of a dictionary of names, which is followed where one of them is imported.
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
        """Names of the modules in the folder of a package."""
        folder = self.folder.joinpath(*filter(None, here.package.split(".")))
        for file in folder.rglob("*.py") if here.is_package else ():
            parts = file.relative_to(self.folder).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if name != here.name:
                yield name


@lru_cache(maxsize=4)
def _library(folder: Path, files: tuple) -> Library:
    """What is known of a package, as long as none of its files changes."""
    return Library(folder)


def _statements(nodes: Iterable[ast.AST], *, in_functions: bool = True) -> Iterator[ast.AST]:
    """Statements at any depth; those in no function or class are what importing may run."""
    for node in nodes:
        yield node
        if in_functions or not isinstance(node, FUNCTIONS):
            for field in ("body", "orelse", "finalbody", "handlers", "cases"):
                inner = getattr(node, field, None)
                if isinstance(inner, list):
                    yield from _statements(inner, in_functions=in_functions)


def _defined(node: ast.AST) -> list[str]:
    """Names that a statement itself defines."""
    if isinstance(node, FUNCTIONS):
        return [node.name]
    targets = [*getattr(node, "targets", ()), getattr(node, "target", None)]
    targets += [item.optional_vars for item in getattr(node, "items", ())]
    names = (n for target in targets if target for n in ast.walk(target))
    return [n.id for n in names if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]


def _chain(node: ast.AST) -> list[str]:
    """A name and its attributes; nothing if it is no name."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if isinstance(node, ast.Name) else []


def _imports_by_name(call: ast.Call) -> bool:
    return _chain(call.func)[-1:] in (["import_module"], ["__import__"]) and bool(call.args)


def _names_module(node: ast.AST) -> bool:
    """Whether a statement is ``sys.modules["name"] = ...``."""
    slot = node.targets[0] if isinstance(node, ast.Assign) else None
    if not isinstance(slot, ast.Subscript) or _chain(slot.value)[-1:] != ["modules"]:
        return False
    return isinstance(slot.slice, ast.Constant)


def _join(*names: str) -> str:
    return ".".join(filter(None, names))


def _stripped(code: str) -> ast.Module:
    """Syntax tree without docstrings and other idle strings."""
    tree = ast.parse(code)
    for node in _statements([tree]):
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
