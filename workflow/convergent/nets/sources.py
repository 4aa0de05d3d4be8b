"""Nets that are built outside this library: by a file of the user, by torchvision or by timm.

The Snakefile lists and hashes their files, so importing this module must not import torch.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import json
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from convergent import ConvergentError
from convergent.running.files import WritingError, digest, writing

if TYPE_CHECKING:
    from torch import nn

LIBRARIES = ("torchvision", "timm")
# Arguments of the libraries' functions that would download weights or read them unchecked.
PRETRAINED = {
    "cache_dir", "checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay",
    "weights", "weights_backbone",
}  # fmt: skip
# Where hashes of files are kept, in the folder that Snakemake runs in.
CACHE = ".snakemake/cache"
# Seconds after which a file that changes again is sure to have another time.
SETTLED = 2.0


class SourceError(ConvergentError, ValueError):
    """A net that cannot be built from its file or library; the message begins with its name."""


def is_brought(name: str) -> bool:
    """Return whether a model's name has a colon, and so means a net from a file or a library."""
    return ":" in name


def parse(name: str) -> tuple[str, str]:
    """Split the name of a brought net.

    Parameters
    ----------
    name : str
        ``path.py:function``, ``torchvision:name`` or ``timm:name``.

    Returns
    -------
    source : str
        "torchvision", "timm", or the path of the file.
    function : str

    Raises
    ------
    SourceError
        If the name is of no such form.
    """
    library, _, model = name.partition(":")
    source, _, function = name.rpartition(":")
    if library in LIBRARIES:
        return library, model
    if not source.endswith(".py"):
        raise SourceError(
            f"model {name}: must be path.py:function, torchvision:name or timm:name, such as "
            "nets.py:resnet20 or torchvision:resnet18"
        )
    if not function.isidentifier():
        raise SourceError(
            f"model {name}: {function!r} cannot be the name of a function; write {source}:function"
        )
    return source, function


def build_brought(
    name: str, arguments: Mapping[str, Any] | None = None, **described: Any
) -> nn.Module:
    """Build a brought net; the code of its file is run.

    torchvision's and timm's nets have random weights, as nothing is ever downloaded. torchvision's
    GoogLeNet and Inception keep their auxiliary heads, so that published weights fit; in evaluation
    the heads do not run. ``arguments: {aux_logits: false}`` leaves them out.

    Parameters
    ----------
    name : str
        As in :func:`parse`; a path counts from the current folder.
    arguments : mapping, optional
        Keyword arguments of the function.
    **described
        ``size``, ``inputs`` and ``classes``, which architectures take and brought nets ignore; pass
        what the function needs in `arguments`.

    Raises
    ------
    SourceError
        If there is no such file or function, it does not take the arguments, raises, or returns
        something other than a net; or the library is not installed.
    """
    from torch import nn

    unknown = set(described) - {"size", "inputs", "classes"}
    if unknown:
        raise SourceError(
            f"model {name}: has no key {', '.join(sorted(unknown))}; write what the "
            "function takes under `arguments: {...}`"
        )
    arguments = dict(arguments or {})
    source, function = parse(name)
    if source in LIBRARIES:
        downloading = PRETRAINED & set(arguments)
        if downloading:
            raise SourceError(
                f"model {name}: arguments: {', '.join(sorted(downloading))} cannot be given, as "
                "weights are never downloaded; name a file of them under `weights`"
            )
        make = _torchvision if source == "torchvision" else _timm
        return _called(name, *make(name, function, arguments))
    path = Path(source).absolute()
    with _importable(name, path) as package:
        module = _imported(name, path, package)
        net = _called(name, _function(name, path, module, function), arguments, path)
    if not isinstance(net, nn.Module):
        raise SourceError(f"model {name}: returned {type(net).__name__}, not a torch.nn.Module")
    return net


def source_files(name: str, folder: str | Path = ".") -> list[Path]:
    """List the files that a brought net's code consists of, without running any of it.

    These are its file and the modules that it imports from its own folder (and theirs), as far as
    import statements name them.

    Parameters
    ----------
    name : str
        As in :func:`parse`.
    folder : path
        Folder from which the path counts.

    Returns
    -------
    list of Path
        The net's own file first; empty for torchvision and timm.

    Raises
    ------
    SourceError
        If the file is not there, or a file cannot be parsed.
    """
    source, _ = parse(name)
    if source in LIBRARIES:
        return []
    first = Path(folder, source)
    if not first.is_file():
        raise SourceError(f"model {name}: there is no file {first}{_near_file(first)}")
    found, waiting = {first}, [first]
    while waiting:
        file = waiting.pop()
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError) as error:
            where, fault = "", str(error)
            if isinstance(error, SyntaxError):
                where, fault = f", line {error.lineno}", error.msg
            raise SourceError(f"model {name}: {file}{where} is not Python: {fault}") from error
        package = file.relative_to(first.parent).parts[:-1]
        new = set(_local(first.parent, _imports(tree, package))) - found
        found |= new
        waiting += new
    return [first, *sorted(found - {first})]


def digest_of_file(path: str | Path, cache: str | Path = CACHE) -> str:
    """Compute the SHA-256 of a file's content, and keep it until the file changes.

    Parameters
    ----------
    path : path
    cache : path
        Folder in which hashes are kept, each with the size and times of its file.

    Returns
    -------
    str
        64 hexadecimal digits, as ``sha256sum`` prints them.

    Raises
    ------
    SourceError
        If the file cannot be read.
    """
    path = Path(path).absolute()
    note = Path(cache, f"{digest(str(path))}.json")
    try:
        stat = path.stat()
        # Also st_ctime, since copying a file may keep the time of its content.
        stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        with suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(note.read_text(encoding="utf-8"))
            if kept["stamp"] == stamp:
                return str(kept["sha256"])
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}){_near_file(path)}") from error
    if time.time() - stat.st_ctime > SETTLED:
        with suppress(WritingError), writing(note, shared=True) as scratch:
            scratch.write_text(json.dumps({"stamp": stamp, "sha256": found}), encoding="utf-8")
    return found


def nearest(name: str, names: Iterable[str], separator: str = "; ") -> str:
    """Return a question with the nearest of some names, or nothing if none is near."""
    near = difflib.get_close_matches(name, list(names), 1)
    return f"{separator}did you mean {near[0]}?" if near else ""


def _near_file(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return ""
    return nearest(path.name, (p.name for p in folder.iterdir() if p.is_file()))


def _imports(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the dotted names, as tuples, that the import statements of a module may mean.

    `package` is the folder of the module, below the folder that imports count from.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level <= len(package) + 1:
            above = package[: len(package) + 1 - node.level] if node.level else ()
            base = (*above, *(node.module or "").split(".")) if node.module else above
            # What is imported from a package may be a module of it.
            yield from ((*base, alias.name) for alias in node.names)


def _local(root: Path, names: Iterable[tuple[str, ...]]) -> Iterator[Path]:
    """Yield the files below `root` that are run when modules of some names are imported."""
    for name in names:
        for depth in range(1, len(name) + 1):
            place = root.joinpath(*name[:depth])
            files = (place / "__init__.py", place.with_name(f"{place.name}.py"))
            yield from [file for file in files if file.is_file()][:1]


@contextmanager
def _importable(name: str, path: Path) -> Iterator[str]:
    """Let a net's file import what lies beside it while the block runs; yield its package's name.

    Modules of other folders may have the same names, so those of this one are forgotten afterwards
    and the others brought back. The package, whose name no other folder has, is for relative
    imports.
    """
    folder = path.parent
    files = [file.absolute().relative_to(folder) for file in source_files(name)[1:]]
    modules = (file.parent if file.stem == "__init__" else file.with_suffix("") for file in files)
    local = {".".join(module.parts) for module in modules}
    package = f"_nets_{digest(str(folder))}"
    for module in [module for module in sys.modules if module.split(".")[0] == package]:
        del sys.modules[module]
    sys.modules[package] = ModuleType(package)
    sys.modules[package].__path__ = [str(folder)]
    others = {module: sys.modules.pop(module) for module in local if module in sys.modules}
    importlib.invalidate_caches()
    sys.path.insert(0, str(folder))
    try:
        yield package
    finally:
        sys.path.remove(str(folder))
        for module in local:
            sys.modules.pop(module, None)
        sys.modules.update(others)


def _imported(name: str, path: Path, package: str) -> ModuleType:
    """Import a net's file as a module of the package."""
    spec = importlib.util.spec_from_file_location(
        f"{package}.{re.sub(r'[^0-9a-zA-Z_]', '_', path.stem)}", path
    )
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]  # a .py file has one
    sys.modules[module.__name__] = module
    try:
        spec.loader.exec_module(module)  # type: ignore[union-attr]
    except (Exception, SystemExit) as error:
        raise SourceError(
            f"model {name}: {path} cannot be imported: {_described(error, path)}"
        ) from error
    return module


def _function(name: str, path: Path, module: ModuleType, function: str) -> Callable[..., Any]:
    from torch import nn

    own = [
        key
        for key, value in vars(module).items()
        if callable(value)
        and getattr(value, "__module__", None) == module.__name__
        and key[0] != "_"
    ]
    if not hasattr(module, function):
        raise SourceError(
            f"model {name}: {path} has no function {function}; it has {', '.join(own) or 'none'}"
            f"{nearest(function, own)}"
        )
    found = getattr(module, function)
    if not callable(found) or isinstance(found, nn.Module):
        raise SourceError(
            f"model {name}: {function} in {path} is {type(found).__name__}, not a function that "
            "returns a net"
        )
    return found


def _torchvision(
    name: str, model: str, arguments: dict[str, Any]
) -> tuple[Callable[..., nn.Module], dict[str, Any]]:
    from torchvision import models

    known = models.list_models()
    if model not in known:
        raise SourceError(f"model {name}: torchvision has no {model}{nearest(model, known)}")
    function = models.get_model_builder(model)
    fixed: dict[str, Any] = {"weights": None}
    if "weights_backbone" in inspect.signature(function).parameters:
        fixed["weights_backbone"] = None
    if model in ("googlenet", "inception_v3"):
        # Their initial weights as they always were, without torchvision's warning.
        fixed["init_weights"] = True
    return function, fixed | arguments


def _timm(
    name: str, model: str, arguments: dict[str, Any]
) -> tuple[Callable[..., nn.Module], dict[str, Any]]:
    try:
        import timm
    except ImportError as error:
        raise SourceError(
            f"model {name}: timm is not installed; it is an extra: uv sync --extra timm, or "
            "pip install timm"
        ) from error
    # Names with a colon of their own, such as hf-hub:..., would be downloaded.
    if not timm.is_model(model):
        raise SourceError(f"model {name}: timm has no {model}{nearest(model, timm.list_models())}")
    return timm.create_model, {"model_name": model, "pretrained": False} | arguments


def _called(
    name: str, function: Callable[..., Any], arguments: Mapping[str, Any], path: Path | None = None
) -> Any:
    """Call a function that makes a net; if that fails, explain what is wrong."""
    signature = inspect.signature(function)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise SourceError(
            f"model {name}: arguments: {error}; the function takes {_names(signature)}"
        ) from error
    try:
        return function(**arguments)
    except (Exception, SystemExit) as error:
        raise SourceError(
            f"model {name}: cannot be built: {_described(error, path)}{_constructor(error)}"
        ) from error


def _described(error: BaseException, path: Path | None) -> str:
    """Return what an error says, with the last line of the file that led to it."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    where = f" ({path.name}, line {lines[-1]})" if path and lines else ""
    return f"{type(error).__name__}: {error}{where}"


def _constructor(error: BaseException) -> str:
    """Return what a class takes, if the error is that it was called with another argument."""
    found = re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument", str(error))
    if isinstance(error, TypeError) and found:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            for value in [*frame.f_locals.values(), frame.f_globals.get(found[1])]:
                if isinstance(value, type) and value.__name__ == found[1]:
                    return f"; {found[1]} takes {_names(inspect.signature(value))}"
    return ""


def _names(signature: inspect.Signature) -> str:
    return ", ".join(signature.parameters) or "none"
