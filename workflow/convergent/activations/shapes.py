"""Shapes of a net's layers as they are recorded, and costs of the net, before it is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from convergent.activations.layouts import Layout
from convergent.activations.probing import ProbingError, described, follow, unit_axis
from convergent.nets import models
from convergent.nets.places import dry_run
from convergent.nets.shapes import Costs, Layer, Shapes

# Axes of a recorded activation without the image axis, by the number of all its axes.
AXES = {2: ("unit",), 3: ("token", "unit"), 4: ("y", "x", "unit"), 5: ("z", "y", "x", "unit")}
# Modules whose outputs count as costs.
COUNTED = (
    nn.modules.conv._ConvNd,
    nn.Linear,
    nn.modules.batchnorm._BatchNorm,
    nn.GroupNorm,
    nn.LayerNorm,
)


def layer_shapes(
    build: Callable[[], nn.Module],
    shape: Sequence[int],
    layers: Sequence[str] | None = None,
    places: Mapping[str, str | Mapping | Layout] | None = None,
    receptive_fields: Callable[
        [nn.Module, Mapping[str, Layout], torch.Tensor], Mapping[str, int | None]
    ] = lambda net, places, example: {},
) -> Shapes:
    """Measure the shapes of a net's layers as they are recorded.

    The net is run on one image, on torch's meta device if it supports that
    (:func:`convergent.nets.places.dry_run`).

    Parameters
    ----------
    build : callable
        Function that makes the net.
    shape : sequence of int
        Shape (channel, y, x) of an image.
    layers : sequence of str, optional
        Names of layers; those of `places` by default, or else all ReLUs.
    places : mapping of layer to str, mapping or Layout, optional
        Places and layouts as :func:`convergent.activations.recording.record` takes them.
    receptive_fields : callable, optional
        Function of net, layouts by place and example that returns sides of receptive fields by
        place, such as :func:`convergent.units.receptive_fields.sides`.

    Returns
    -------
    Shapes
        With the layers in the order in which they run.

    Raises
    ------
    PlaceError, RunError, ProbingError, LayoutError
        As :func:`convergent.activations.recording.record` raises them.
    """

    def measure(net: nn.Module, example: torch.Tensor) -> Shapes:
        names = list(layers or places or models.layers(net, example))
        layouts = {name: Layout.of((places or {}).get(name, name), name) for name in names}
        # On the meta device, which has no values, the axis of units may not be found.
        found = _forms(net, layouts, example)
        # Those of the places themselves; an axis that is stated holds here, too.
        plain = {each.place: Layout(each.place, each.unit_axis) for each in layouts.values()}
        fields = receptive_fields(net, plain, example)
        return Shapes(
            {
                name: _layer(name, layouts[name].place, form, fields.get(layouts[name].place))
                for name, form in found.items()
            },
            _costs(net, example),
        )

    try:
        return dry_run(build, shape, measure)
    except ProbingError:
        return measure(build(), torch.zeros(1, *shape))


def _forms(
    net: nn.Module, layouts: Mapping[str, Layout], example: torch.Tensor
) -> dict[str, tuple[int, ...]]:
    """Find the shapes of layers as they are recorded, in the order in which they run."""
    found = follow(net, [layout.place for layout in layouts.values()], example)
    forms = {}
    for place, (output, known) in found.items():
        for layer, layout in layouts.items():
            if layout.place != place:
                continue
            where = described(layer, place)
            if not isinstance(output, torch.Tensor) or not 2 <= output.ndim <= 5:
                what = getattr(output, "shape", type(output).__name__)
                raise ProbingError(
                    f"{where}: its output must be a tensor of shape (image, ..., unit), got {what}"
                )
            if len(output) != len(example):
                raise ProbingError(
                    f"{where}: the first axis does not count images: {len(example)} image gives "
                    f"{tuple(output.shape)}"
                )
            axis = unit_axis(layer, place, output.shape, known, layout.unit_axis)
            forms[layer] = tuple(layout.arrange(output, axis, layer).shape)
    for layer, layout in layouts.items():
        if layer not in forms:
            where = described(layer, layout.place)
            raise ProbingError(f"{where}: never runs when the net is given images")
    return forms


def _layer(name: str, place: str, form: Sequence[int], receptive_field: int | None) -> Layer:
    """Describe a layer by the form (image, ..., unit) in which it is recorded."""
    height, width = form[1:3] if len(form) == 4 else (None, None)
    positions = 1
    for length in form[1:-1]:
        positions *= length
    return Layer(
        layer=name,
        place=place,
        axes=" ".join(AXES[len(form)]),
        units=form[-1],
        height=height,
        width=width,
        positions=positions,
        receptive_field=receptive_field,
    )


def _costs(net: nn.Module, example: torch.Tensor) -> Costs:
    """Count what a net costs for one image."""
    outputs = 0

    def add(module: nn.Module, args: tuple, output: torch.Tensor) -> None:
        nonlocal outputs
        outputs += output.numel()

    counted = [module for module in net.modules() if isinstance(module, COUNTED)]
    with FlopCounterMode(display=False) as counter:
        models.run_once(net, example, [module.register_forward_hook(add) for module in counted])
    return Costs(
        multiply_adds=counter.get_total_flops() // 2,
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        outputs=outputs,
    )
