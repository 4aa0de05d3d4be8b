"""Layouts: how the output of a place of a net becomes (image, [positions...,] unit).

The axis of the units is moved to the end, leading tokens are left out, tokens become a map, and
maps are pooled to a common grid, in this order.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from convergent import ConvergentError

if TYPE_CHECKING:
    import torch

# Axes between image and unit, by their number.
POSITIONS = {0: "no positions", 1: "tokens", 2: "a map", 3: "a volume"}


class LayoutError(ConvergentError, ValueError):
    """A layout that is malformed, or does not fit the output of its place."""


@dataclass(frozen=True)
class Layout:
    """The place of a layer, and how its output is arranged.

    Attributes
    ----------
    place : str
        Name of a place of the net's graph.
    unit_axis : int, optional
        Axis of the units in the output, whose axis 0 is the image; inferred from the net if None.
    skip_tokens : int
        Number of leading tokens that are left out, such as a class token or registers.
    map : tuple of int, optional
        Height and width of the map that the remaining tokens form, row by row.
    grid : "mean" or tuple of int, optional
        Height and width that maps are brought to by adaptive average pooling: a cell is the mean
        of the positions that it touches, so cells overlap if the sides are not multiples of the
        grid's. ``mean`` takes the mean over all positions, which leaves (image, unit).

    Raises
    ------
    LayoutError
        If a value is of the wrong kind; names the place and the key.
    """

    place: str
    unit_axis: int | None = None
    skip_tokens: int = 0
    map: tuple[int, int] | None = None
    grid: Literal["mean"] | tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.place, str) or not self.place:
            raise LayoutError(f"place must be the name of a place of the net, got {self.place!r}")
        if self.unit_axis is not None and (not _whole(self.unit_axis) or self.unit_axis == 0):
            raise LayoutError(
                f"{self.place}: unit_axis must be the number of an axis after the image's, which "
                f"is 0, or negative to count from the last, got {self.unit_axis!r}"
            )
        if not _whole(self.skip_tokens) or self.skip_tokens < 0:
            raise LayoutError(
                f"{self.place}: skip_tokens must be a whole number of at least 0, "
                f"got {self.skip_tokens!r}"
            )
        for key, words in (("map", ()), ("grid", ("mean",))):
            value = getattr(self, key)
            if value is None or (isinstance(value, str) and value in words):
                continue
            if (
                not isinstance(value, Sequence)
                or isinstance(value, str)
                or len(value) != 2
                or not all(_whole(side) and side > 0 for side in value)
            ):
                accepted = " or ".join([*words, "[height, width], both at least 1"])
                raise LayoutError(f"{self.place}: {key} must be {accepted}, got {value!r}")
            object.__setattr__(self, key, tuple(value))  # lists of a configuration do not hash

    @classmethod
    def of(cls, value: str | Mapping[str, Any] | Layout, layer: str | None = None) -> Layout:
        """Make a layout from an entry of the configuration.

        Parameters
        ----------
        value : str, mapping or Layout
            Name of a place, or a mapping with the attributes of a layout as its keys.
        layer : str, optional
            Name of the layer, which is the place of a mapping without one. Errors name it.

        Raises
        ------
        LayoutError
            If a key is unknown or missing, or a value is of the wrong kind.
        """
        if isinstance(value, Layout):
            return value
        where = f"layer {layer}: " if layer else ""
        if not isinstance(value, Mapping):
            value = {"place": value}
        known = [field.name for field in fields(cls)]
        for key in value:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, 1)
                hint = f"did you mean {near[0]}? " if near else ""
                raise LayoutError(f"{where}unknown key {key!r}; {hint}known are {', '.join(known)}")
        if layer is None and "place" not in value:
            raise LayoutError("place is missing: a layout names the place of the net")
        try:
            return cls(**({"place": layer} | dict(value)))
        except LayoutError as error:
            raise LayoutError(f"{where}{error}") from None

    def arrange(
        self, output: torch.Tensor, axis: int | None = None, layer: str | None = None
    ) -> torch.Tensor:
        """Arrange an output as (image, [positions...,] unit).

        Parameters
        ----------
        output : tensor of shape (image, ...)
            Output of the place, on any device, meta included. Without `grid` the result is a view
            of it where torch can make one.
        axis : int, optional
            Axis of the units; `unit_axis` by default.
        layer : str, optional
            Name of the layer, for errors.

        Returns
        -------
        tensor of shape (image, unit), (image, token, unit), (image, y, x, unit) or, of volumes,
        (image, z, y, x, unit)

        Raises
        ------
        LayoutError
            If the layout does not fit the output; names the layer and what there is.
        """
        from torch.nn import functional

        where = f"layer {layer} (place {self.place})" if layer else f"place {self.place}"
        axis = self.unit_axis if axis is None else axis
        shape = tuple(output.shape)
        if axis is None:
            raise LayoutError(f"{where}: set unit_axis, the axis of the units in {shape}")
        if not -output.ndim < axis < output.ndim or axis == 0:
            raise LayoutError(
                f"{where}: unit_axis is {axis}, but the output has shape {shape}, whose axis 0 "
                "is the image"
            )
        values = output.movedim(axis, -1)
        found = f"the output, {tuple(values.shape)}, has {POSITIONS.get(values.ndim - 2, 'more')}"
        for key in ("skip_tokens", "map"):
            if getattr(self, key) and values.ndim != 3:
                raise LayoutError(f"{where}: {key} is for (image, token, unit), but {found}")
        if self.skip_tokens:
            tokens = values.shape[1]
            if self.skip_tokens >= tokens:
                raise LayoutError(
                    f"{where}: skip_tokens is {self.skip_tokens}, but there are {tokens} tokens; "
                    f"skip at most {tokens - 1}"
                )
            values = values[:, self.skip_tokens :]
        if self.map:
            tokens = values.shape[1]
            if self.map[0] * self.map[1] != tokens:
                left = f" after skip_tokens: {self.skip_tokens}" if self.skip_tokens else ""
                raise LayoutError(
                    f"{where}: a map of {_by(self.map)} has {self.map[0] * self.map[1]} tokens, "
                    f"but there are {tokens}{left}"
                )
            values = values.unflatten(1, self.map)
        if self.grid is None:
            return values
        if values.ndim == 2:
            raise LayoutError(f"{where}: grid is for layers with positions, but {found}")
        if self.grid == "mean":
            return values.flatten(1, -2).mean(dim=1)
        if values.ndim != 4:
            remedy = "; set map, the height and width that they form" if values.ndim == 3 else ""
            raise LayoutError(f"{where}: grid is for maps, but {found}{remedy}")
        sides = tuple(values.shape[1:3])
        if any(new > old for new, old in zip(self.grid, sides, strict=True)):
            raise LayoutError(
                f"{where}: a grid of {_by(self.grid)} is larger than the map, which is {_by(sides)}"
            )
        if sides == self.grid:
            return values
        return functional.adaptive_avg_pool2d(values.movedim(-1, 1), self.grid).movedim(1, -1)

    def shape(
        self, shape: Sequence[int], axis: int | None = None, layer: str | None = None
    ) -> tuple[int, ...]:
        """Compute the shape that :meth:`arrange` gives for an output of a shape.

        Parameters and errors are those of :meth:`arrange`.
        """
        import torch

        return tuple(self.arrange(torch.empty(*shape, device="meta"), axis, layer).shape)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _by(sides: Sequence[int]) -> str:
    return " x ".join(str(side) for side in sides)
