"""The command ``convergent``: a folder for runs of one's own, the places of a net, a run."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from convergent import ConvergentError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with the arguments of the command line, and return its exit status."""
    parser = argparse.ArgumentParser(prog="convergent")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_init(commands)
    _add_layers(commands)
    opening = commands.add_parser("open", help="print what a run is, and where its atlas is")
    opening.add_argument("run", type=Path, help="folder of a run, such as results/digits")
    options = parser.parse_args(arguments)
    try:
        print({"init": _init, "layers": _layers, "open": _open}[options.command](options))
        sys.stdout.flush()
    except (ConvergentError, ValueError) as error:
        print(f"convergent: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _add_init(commands: argparse._SubParsersAction) -> None:
    initial = commands.add_parser(
        "init",
        help="make a folder for runs of your own",
        description="Copy the configuration, the presets and the profiles into a folder, where "
        "`snakemake` then runs the workflow.",
    )
    initial.add_argument("folder", type=Path, nargs="?", default=Path(), help="the folder (.)")
    initial.add_argument(
        "--workflow",
        type=Path,
        metavar="CLONE",
        help="a clone whose workflow to run, in place of the one that was installed",
    )


def _init(options: argparse.Namespace) -> str:
    from convergent.runs.deploying import deploy

    deploy(options.folder, options.workflow)
    return (
        f"{options.folder} has config.yaml, presets and profiles. Edit config.yaml, and run\n"
        f"  cd {options.folder} && snakemake --cores all"
    )


def _add_layers(commands: argparse._SubParsersAction) -> None:
    listing = commands.add_parser(
        "layers",
        help="print the places of a net that can be layers, in the order in which they run",
        description="Print the places of a net, their kind and the shape of their output for one "
        "image. A star marks those that are layers if a configuration names none.",
    )
    listing.add_argument(
        "name", help="as model.name: an architecture, path.py:function, torchvision:name, timm:name"
    )
    listing.add_argument("--size", type=int, required=True, help="side of the input in pixels")
    listing.add_argument("--channels", type=int, default=3, help="channels of the input (3)")
    listing.add_argument(
        "--arguments",
        type=json.loads,
        default={},
        metavar="JSON",
        help='the net\'s other keys of `model`, such as \'{"arguments": {"num_classes": 10}}\'',
    )


def _layers(options: argparse.Namespace) -> str:
    from convergent.nets.command import listing_of

    return listing_of(options.name, options.size, options.channels, options.arguments)


def _open(options: argparse.Namespace) -> str:
    from convergent.runs.reading import Run

    run = Run(options.run)
    lines = [f"{run.name} in {run.folder}"]
    accuracy = run.accuracy["val_top1"] if "accuracy" in run.tables else {}
    for net in run.nets:
        trained = (run.folder / f"nets/{net}/weights.pt").exists()
        of = f"{accuracy[net]:.1%} of the validation images are right" if net in accuracy else ""
        lines.append(f"  {net}: {of or ('made' if trained else 'not made yet')}")
    lines.append(f"layers: {', '.join(run.layers)}")
    made = {
        pair: [path.name for path in sorted((run.folder / "pairs" / pair).glob("[!.]*"))]
        for pair in map("-".join, run.pairs)
    }
    common = set.intersection(*map(set, made.values())) if made else set()
    shared = [name for name in next(iter(made.values()), []) if name in common]
    lines.append(f"every pair: {', '.join(shared) or 'nothing yet'}")
    for pair, names in made.items():
        more = [name for name in names if name not in common]
        lines.append(f"  {pair}{': also ' if more else ''}{', '.join(more)}")
    lines.append(f"tables: {', '.join(run.tables) or 'none yet'}")
    figures = sorted(path.relative_to(run.folder / "figures").with_suffix("").as_posix()
                     for path in (run.folder / "figures").rglob("*.png"))  # fmt: skip
    lines.append(f"figures: {', '.join(figures) or 'none yet'}")
    atlas = run.folder / "atlas/index.html"
    lines.append(f"atlas: {atlas.as_uri() if atlas.exists() else 'not made yet (target atlas)'}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
