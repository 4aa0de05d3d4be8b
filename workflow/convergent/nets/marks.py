"""Marks of images: proof that nets were recorded on the same images, in the same order.

Each image of a run has two: its identity, from the pixels of its source as they were decoded,
and its view, from the tensor before normalisation. Stores hold both, and the marks of stores are
compared before the stores are: correlations between different images look like any others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from convergent.running.stores import StoreError, save

if TYPE_CHECKING:
    import torch

# Number of images that an error message names.
NAMED = 5
# Keys under which a batch that is a dictionary may have its images.
ENTRIES = ("image", "images", "pixel_values", "input", "inputs", "input_ids", "x")


class Marks(NamedTuple):
    """Images of a store, in its order.

    Attributes
    ----------
    index : ndarray of shape (image,), int64
        Positions of the images in the data set.
    identity, view : ndarray of shape (image,), uint64, or None if unknown
        Marks of the images' sources and of the net's inputs.
    """

    index: NDArray[np.integer]  # type: ignore[assignment]  # hides tuple.index, which nobody calls
    identity: NDArray[np.uint64] | None = None
    view: NDArray[np.uint64] | None = None

    @classmethod
    def joined(cls, parts: Sequence[Marks]) -> Marks:
        """Join the marks of batches; marks that any batch lacks become None."""
        columns = zip(*parts, strict=True)
        joined = (None if any(p is None for p in c) else np.concatenate(c) for c in columns)
        return cls(*joined)  # type: ignore[arg-type]  # each part has an index


def image_marks(images: NDArray | torch.Tensor) -> NDArray[np.uint64]:
    """Mark each image by its shape and values, regardless of their layout in memory.

    Floats are converted to float32, and integers of more than 8 bits to int64, so that the mark
    of an image does not depend on the precision of the net that it is prepared for.

    Parameters
    ----------
    images : array or tensor of shape (image, ...)
        Numbers; a tensor may lie on any device.

    Returns
    -------
    ndarray of shape (image,), uint64
        BLAKE2b of 64 bits; the chance that two of a million different images share one is 3e-8.
    """
    if not isinstance(images, np.ndarray):
        images = images.detach().cpu()
        # NumPy has no bfloat16.
        images = (images.float() if images.is_floating_point() else images).numpy()
    if np.issubdtype(images.dtype, np.floating):
        dtype = "<f4"
    else:
        dtype = "u1" if images.dtype.itemsize == 1 else "<i8"
    shape = str(images.shape[1:]).encode()
    marks = np.empty(len(images), np.uint64)
    for number, image in enumerate(images):
        values = np.ascontiguousarray(image, dtype)
        if dtype == "<f4":
            values = values + np.float32(0)  # -0 is 0
        content = hashlib.blake2b(shape, digest_size=8)
        content.update(values.data)
        marks[number] = int.from_bytes(content.digest(), "little")
    return marks


class Batch(NamedTuple):
    """Images of a batch in the form that a net takes, and their marks.

    Attributes
    ----------
    images : torch.Tensor of shape (image, ...)
    identity, view : ndarray of shape (image,), uint64, or None
    """

    images: torch.Tensor
    identity: NDArray[np.uint64] | None = None
    view: NDArray[np.uint64] | None = None

    def marks(self, index: NDArray[np.integer]) -> Marks:
        """Return the marks of the images, whose positions in their data set are `index`.

        Images without an identity are identified by the tensor that the net is given.
        """
        identity = image_marks(self.images) if self.identity is None else self.identity
        return Marks(index, identity, self.view)


def batches(images: torch.Tensor | NDArray | Iterable, size: int = 128) -> Iterator[Batch]:
    """Cut an array of images into batches of a size, or take batches as they come.

    Parameters
    ----------
    images, size
        Arguments of :func:`convergent.activations.recording.record`.

    Raises
    ------
    ValueError
        If a batch is a dictionary without images.
    """
    import torch

    if isinstance(images, np.ndarray):
        images = torch.from_numpy(images)
    if isinstance(images, torch.Tensor):
        images = images.split(size)
    for batch in images:
        if isinstance(batch, Batch):
            yield batch
            continue
        if isinstance(batch, Mapping):
            known = [entry for entry in ENTRIES if entry in batch]
            if not known:
                raise ValueError(
                    f"a batch is a dictionary of {', '.join(map(str, batch))}; its images must be "
                    f"under one of {', '.join(ENTRIES)}"
                )
            batch = batch[known[0]]
        elif isinstance(batch, tuple | list):
            batch = batch[0]
        yield Batch(torch.as_tensor(batch))


def save_marks(group: zarr.Group, marks: Marks) -> None:
    """Write marks as ``image_index`` and, if they are known, ``identity`` and ``view``."""
    save(group, "image_index", marks.index.astype(np.int64), ("image",))
    for name in ("identity", "view"):
        if getattr(marks, name) is not None:
            save(group, name, getattr(marks, name), ("image",))


def load_marks(group: zarr.Group) -> Marks:
    """Read the marks that :func:`save_marks` wrote."""
    known = {name: group[name][...] for name in ("identity", "view") if name in group}
    return Marks(group["image_index"][...], **known)


def check_same_images(
    stores: Mapping[str | Path, zarr.Group | Marks], *, other_views: bool = False
) -> bool | None:
    """Check that stores hold the same images in the same order.

    Parameters
    ----------
    stores : mapping of path to group, or to marks
        Two or more; the first is compared with each of the others. Marks that either of two
        stores lacks are not compared.
    other_views : bool
        Permission for views to differ.

    Returns
    -------
    bool or None
        True if all views are the same, False if some differ, None if they are unknown.

    Raises
    ------
    StoreError
        If images differ; the message names the stores and the first of these images, and says
        whether only the order seems to differ.
    """
    (first, expected), *others = (
        (path, marks if isinstance(marks, Marks) else load_marks(marks))
        for path, marks in stores.items()
    )
    same: bool | None = True
    for path, found in others:
        for name in ("index", "identity"):
            a, b = getattr(expected, name), getattr(found, name)
            if a is not None and b is not None and not np.array_equal(a, b):
                raise StoreError(f"{first} and {path}: {_difference(expected.index, a, b)}")
        if expected.view is None or found.view is None:
            same = None
        elif not np.array_equal(expected.view, found.view):
            if not other_views:
                differ = np.flatnonzero(expected.view != found.view)
                raise StoreError(
                    f"{first} and {path}: the same images, but the nets were given different "
                    f"views of {len(differ)} of {len(found.view)}, the first of them "
                    f"{_names(expected.index[differ])}; record both with the same size, resizing "
                    "and crop, or set other_views=True if they are meant to differ"
                )
            same = None if same is None else False
    return same


def _difference(index: NDArray, a: NDArray, b: NDArray) -> str:
    """Say how two stores' images differ."""
    if len(a) != len(b):
        return f"recorded on {len(a)} and {len(b)} images; record both on the same"
    differ = np.flatnonzero(a != b)
    what = f"{len(differ)} of {len(a)} images differ, the first of them {_names(index[differ])}"
    if np.array_equal(np.sort(a), np.sort(b)):
        return (
            f"the same images in another order ({what}), perhaps from a loader that shuffles; "
            "record both in one order (shuffle=False)"
        )
    return (
        f"recorded on different images ({what}); record both on the same images, or, if the nets "
        "take the same images in different forms, pass `identity` to record, one number per image"
    )


def _names(index: NDArray) -> str:
    more = ", ..." if len(index) > NAMED else ""
    return f"image_index {', '.join(str(i) for i in index[:NAMED])}{more}"
