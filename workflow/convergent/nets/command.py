"""What ``convergent layers NAME --size SIDE`` prints: a net's places."""

from __future__ import annotations


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
