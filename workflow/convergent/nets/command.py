"""The command ``convergent``: ``convergent layers NAME --size SIDE`` prints a net's places."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from convergent import ConvergentError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with the arguments of the command line, and return its exit status."""
    parser = argparse.ArgumentParser(prog="convergent")
    commands = parser.add_subparsers(dest="command", required=True)
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
    options = parser.parse_args(arguments)
    try:
        print(listing_of(options.name, options.size, options.channels, options.arguments))
        sys.stdout.flush()
    except (ConvergentError, ValueError) as error:
        print(f"convergent: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def listing_of(name: str, size: int, channels: int, model: dict) -> str:
    """List the places of a net in lines, in the order in which they run.

    Parameters
    ----------
    name, size, channels, model
        The net for :func:`convergent.nets.models.build`: its name, the side of its input in pixels
        and the input's channels, and further keys of the section `model`.
    """
    import torch
    from torch import nn

    from convergent.nets import models, places

    def measure(net: nn.Module, example: torch.Tensor) -> str:
        default = places.default_places(net, example)
        lines = places.listed(places.places(net, example), marked=default, most=None)
        fault = places.untraceable(net)
        if fault is not None:
            lines += f"\nOnly modules are listed, as the net cannot be traced: {fault}"
        return lines

    options = model | {"size": size, "inputs": channels}
    return places.dry_run(lambda: models.build(name, **options), (channels, size, size), measure)


if __name__ == "__main__":
    sys.exit(main())
