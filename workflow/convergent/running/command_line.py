"""Mistakes on Snakemake's command line that it would answer with a traceback.

The default profile runs this file, since Snakemake reads its profile before it looks at the keys
and the files of a configuration. It imports nothing of this library, whose place is known only
later.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterator
from pathlib import Path

EXAMPLE = "snakemake fig3 --config 'training={epochs: 5}'"


def asked_for() -> argparse.Namespace | None:
    """Parse Snakemake's command line; None if this process has none."""
    from snakemake.cli import get_argument_parser

    # Whoever calls Snakemake's functions says otherwise what is asked for.
    if not any(Path(sys.argv[0]).match(name) for name in ("snakemake", "snakemake/__main__.py")):
        return None
    return get_argument_parser().parse_known_args(sys.argv[1:])[0]


def check() -> None:
    """End this process, which is Snakemake's, with a sentence if its command line has a fault."""
    if asked := asked_for():
        for fault in faults(asked):
            sys.exit(fault)


def faults(asked: argparse.Namespace) -> Iterator[str]:
    """Yield a sentence for each fault of what Snakemake is asked for.

    Parameters
    ----------
    asked : argparse.Namespace
        Arguments as Snakemake parses them.
    """
    for entry in asked.config or ():
        yield from _faults_of_entry(entry)
    own = Path(asked.directory or "") / "config.yaml"
    for file in (*(asked.configfile or ()), *([own] if own.exists() else [])):
        yield from _faults_of_file(file)


def _faults_of_entry(entry: str) -> Iterator[str]:
    path, equals, value = entry.partition("=")
    if not equals:
        yield (
            f"{entry}: --config takes KEY=VALUE, in quotes if there are spaces, and targets stand "
            f"before it: {EXAMPLE}"
        )
    elif "." in path:
        section, *inner = path.split(".")
        for key in reversed(inner):
            value = f"{{{key}: {value or 'VALUE'}}}"
        yield f"{entry}: keys of a section stand in braces: --config '{section}={value}'"


def _faults_of_file(file: Path) -> Iterator[str]:
    import yaml

    if not file.suffix and not file.exists():
        yield (
            f"{file}: there is no such configuration file; targets stand before --configfile: "
            "snakemake fig3 --configfile FILE"
        )
    elif not file.is_file():
        there = {path.stem: path for path in sorted(file.parent.glob("*.yaml"))}
        near = difflib.get_close_matches(file.stem, there, 1)
        meant = f"did you mean {there[near[0]]}?" if near else f"there are {', '.join(there)}"
        yield f"{file}: there is no such file{'; ' + meant if there else ''}"
    else:
        try:
            # Several times as fast, where it was compiled.
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            values = yaml.load(file.read_text(encoding="utf-8"), loader)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            place = getattr(error, "problem_mark", None)
            line = f" (line {place.line + 1})" if place else ""
            yield f"{file}: not valid YAML: {getattr(error, 'problem', error)}{line}"
        else:
            if not isinstance(values, dict):
                yield f"{file}: should hold keys with values, such as run: mine"
