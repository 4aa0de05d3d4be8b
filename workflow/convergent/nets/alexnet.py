"""Geometry of the paper's net."""

from __future__ import annotations

LAYERS = {"alexnet": ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"]}


def alexnet_sides(size: int, kernel: int, stride: int, padding: int) -> list[int]:
    """Side of the maps of conv1 to conv5, and of what fc6 sees, for an input of side `size`.

    Raises
    ------
    ValueError
        If a map shrinks to nothing.
    """
    sides, side = [], size
    geometry = [(kernel, stride, padding), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1)]
    for number, (k, s, p) in enumerate(geometry, 1):
        side = (side + 2 * p - k) // s + 1
        pooled = number in (1, 2, 5)
        if side < (3 if pooled else 1):
            raise ValueError(
                f"data.size: {size} pixels shrink to {max(side, 0)} at conv{number}; take a larger "
                "view, or a smaller model.kernel or model.stride"
            )
        sides.append(side)
        side = (side - 3) // 2 + 1 if pooled else side
    return [*sides, side]
