"""Facts about each unit of a layer that concern no other net, and samples of its activation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from convergent.figures.atlas.files import write_arrays

# Activations of each unit that are kept, and units in a file.
SAMPLES, UNITS = 512, 256
# Levels to which an activation is rounded.
LEVELS = 255


def unit_facts(statistics: zarr.Group, seen: zarr.Group) -> dict[str, NDArray]:
    """Collect the facts about each unit of a layer that concern no other net.

    Parameters
    ----------
    statistics, seen : zarr.Group
        The layer in ``statistics/<net>.zarr`` and in ``units/<net>.zarr``.

    Returns
    -------
    dict
        `mean` and `std` (float32); `dead` (uint8); `rank` by mean activation, from 1; `picture`,
        the unit's place in the sheets of :func:`write_sheets`, or -1; `image` (int32) and `value`
        (float32) of its strongest images, of shape (unit, 9), with `top` and `left` (int32), the
        first row and column of the receptive field in each; and `receptive_field`. Layers with
        negative activations also have `weakest_value`, of the images that drive it furthest below
        zero.
    """
    mean = statistics["mean"][...]
    rank = np.empty(len(mean), np.int32)
    rank[np.argsort(-mean, kind="stable")] = np.arange(1, len(mean) + 1)
    pictured = seen["pictured"][...]
    top, left = field_corners(seen)
    weakest = {"weakest_value": seen["weakest/value"][...]} if "weakest" in seen else {}
    return weakest | {
        "mean": mean.astype(np.float32),
        "std": statistics["std"][...].astype(np.float32),
        "dead": statistics["dead"][...].astype(np.uint8),
        "rank": rank,
        "picture": np.where(pictured, np.cumsum(pictured) - 1, -1).astype(np.int32),
        "image": seen["image"][...].astype(np.int32),
        "value": seen["value"][...].astype(np.float32),
        "top": top,
        "left": left,
        "receptive_field": seen["receptive_field"][...].astype(np.int32),
    }


def field_corners(
    seen: zarr.Group,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Find the first row and column of each receptive field in the image, outside it if negative.

    Parameters
    ----------
    seen : zarr.Group
        The layer in ``units/<net>.zarr``.

    Returns
    -------
    top, left : ndarray of shape (unit, 9), int32
    """
    _, stride, offset = seen["receptive_field"][...]
    top, left = (offset + stride * seen[axis][...] for axis in ("y", "x"))
    return top.astype(np.int32), left.astype(np.int32)


def write_samples(folder: Path, layer: str, net: str, statistics: zarr.Group) -> bool:
    """Write samples of the activation of each unit of a layer, if there are any.

    Samples are spread evenly over those of ``statistics/<net>.zarr`` and rounded to `LEVELS`
    steps between the least and the largest of the unit. A file
    ``data/<layer>/samples/<net>-<n>.js`` holds `UNITS` units: `sample` (unit, sample; uint8), and
    `low` and `high` (unit,), which 0 and `LEVELS` stand for.

    Returns
    -------
    bool
        False if the statistics have no samples.
    """
    if "values" not in statistics:
        return False
    chosen = sample_rows(statistics)
    units = statistics["values"].shape[1]
    for number, start in enumerate(range(0, units, UNITS)):
        part = statistics["values"].oindex[chosen, slice(start, start + UNITS)]
        part = np.nan_to_num(part.T.astype(np.float32))
        low, high = part.min(axis=1), part.max(axis=1)
        span = np.where(high > low, high - low, 1)
        sample = np.round((part - low[:, None]) / span[:, None] * LEVELS).astype(np.uint8)
        arrays = {"sample": sample, "low": low, "high": high}
        write_arrays(folder, f"{layer}/samples/{net}-{number}", arrays)
    return True


def sample_rows(statistics: zarr.Group) -> NDArray[np.intp]:
    """Choose at most `SAMPLES` rows of the samples, spread evenly."""
    total = statistics["values"].shape[0]
    return np.unique(np.linspace(0, total - 1, min(SAMPLES, total)).astype(np.intp))


def sampled_alike(statistics: dict[str, zarr.Group]) -> list[list[str]]:
    """Group nets whose samples of a layer are from the same places of the same images."""
    groups: list[tuple[bytes, list[str]]] = []
    for net, group in statistics.items():
        if "values" not in group:
            continue
        rows = sample_rows(group)
        mark = b"".join(
            group[name][...][rows].tobytes() for name in ("sample_image", "sample_position")
        )
        same = next((nets for found, nets in groups if found == mark), None)
        if same is None:
            groups.append((mark, [net]))
        else:
            same.append(net)
    return [nets for _, nets in groups]
