"""Marks of images, by which two recordings are known to be of the same images."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


def marks(images: NDArray | torch.Tensor) -> NDArray[np.uint64]:
    """Mark each image by its shape and values, however they lie in memory.

    Floats are taken as float32, and integers of more than 8 bits as int64, so that the marks of
    an image do not depend on the precision of the net that it is given to.

    Parameters
    ----------
    images : array or tensor of shape (image, ...)
        Numbers; a tensor may lie on any device.

    Returns
    -------
    ndarray of shape (image,), uint64
        BLAKE2b of 64 bits; any two of a million unlike images share one with a chance of 3e-8.
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
    found = np.empty(len(images), np.uint64)
    for number, image in enumerate(images):
        values = np.ascontiguousarray(image, dtype)
        content = hashlib.blake2b(shape, digest_size=8)
        content.update(values)
        found[number] = int.from_bytes(content.digest(), "little")
    return found
