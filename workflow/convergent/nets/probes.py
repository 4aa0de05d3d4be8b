"""Probes: the validation images in another form, to see whether an alignment holds on them, too.

Importing this module is fast, because Snakemake reads :data:`PLAIN` whenever it starts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

# Name of the validation images as they are.
PLAIN = "none"
# What is done to views, by the key of a probe, as a function of 8-bit views as float32
# (image, channel, y, x), the strength, and a random generator of each image.
Change = Callable[["torch.Tensor", float, Sequence[np.random.Generator]], "torch.Tensor"]


def add_noise(
    views: torch.Tensor, strength: float, rngs: Sequence[np.random.Generator]
) -> torch.Tensor:
    """Add Gaussian noise whose deviation is `strength` on the scale from 0 to 1."""
    import torch

    noise = np.stack([rng.standard_normal(views.shape[1:], np.float32) for rng in rngs])
    return views + 255 * strength * torch.from_numpy(noise)


def rotate(
    views: torch.Tensor, strength: float, rngs: Sequence[np.random.Generator]
) -> torch.Tensor:
    """Rotate by `strength` degrees counterclockwise about the centre, bilinearly.

    What was outside of the view is filled with its nearest edge.
    """
    import torch
    from torch.nn import functional

    angle = math.radians(strength)
    cos, sin = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]]).expand(len(views), 2, 3)
    grid = functional.affine_grid(turn, list(views.shape), align_corners=False)
    return functional.grid_sample(views, grid, padding_mode="border", align_corners=False)


def blur(views: torch.Tensor, strength: float, rngs: Sequence[np.random.Generator]) -> torch.Tensor:
    """Blur by a Gaussian whose deviation is `strength` pixels; edges are mirrored."""
    import torch
    from torch.nn import functional

    reach = min(math.ceil(3 * strength), views.shape[-1] - 1)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / strength) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1).expand(views.shape[1], 1, 1, -1)
    padded = functional.pad(views, [reach] * 4, mode="reflect")
    groups = views.shape[1]
    rows = functional.conv2d(padded, kernel, groups=groups)
    return functional.conv2d(rows, kernel.transpose(2, 3), groups=groups)


def lower_contrast(
    views: torch.Tensor, strength: float, rngs: Sequence[np.random.Generator]
) -> torch.Tensor:
    """Move each pixel by the share `strength` towards the mean of its view."""
    mean = views.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (1 - strength) * (views - mean)


CHANGES: dict[str, Change] = {
    "noise": add_noise,
    "rotate": rotate,
    "blur": blur,
    "contrast": lower_contrast,
}


def probed(
    views: torch.Tensor, probe: Mapping[str, Any], numbers: NDArray[np.integer]
) -> torch.Tensor:
    """Change the views of a batch as a probe says.

    Parameters
    ----------
    views : torch.Tensor of shape (image, channel, y, x), uint8
    probe : mapping
        ``change`` (a key of :data:`CHANGES`), ``strength`` and ``seed``. Without a change the views
        stay as they are.
    numbers : ndarray of shape (image,), int
        Number of each image in its listing; noise depends on it and the seed only, so that neither
        the batches nor the order of images matter.

    Returns
    -------
    torch.Tensor of shape (image, channel, y, x), uint8
        Rounded, and clipped to the range of 8 bits.
    """
    import torch

    change = probe.get("change")
    if change is None:
        return views
    rngs = [np.random.default_rng([probe.get("seed", 0), int(number)]) for number in numbers]
    changed = CHANGES[change](views.float(), probe["strength"], rngs)
    return changed.round().clamp(0, 255).to(torch.uint8)
