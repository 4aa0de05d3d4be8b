"""Files that are either whole or absent, and Zarr stores that say when they are complete."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from convergent import ConvergentError

# zarrs decodes in Rust. It works in the thread that asks (its own pool has one), so that a job
# uses as many threads as it has callers. Whether a chunk is empty is not worth a look at each.
os.environ.setdefault("RAYON_NUM_THREADS", "1")
zarr.config.set({"array.write_empty_chunks": True})
if find_spec("zarrs"):
    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})

# zstd at level 1 shrinks float16 activations by their share of zeros, more than twice where three
# in four are; higher levels gained nothing and shuffles read slower (docs/performance.md). Both
# checksums are needed: zarrs verifies crc32c, which covers what lies on disk, only where it
# decodes a whole shard, zstd's own always.
COMPRESSORS = (ZstdCodec(level=1, checksum=True), Crc32cCodec())
# Uncompressed sizes: a chunk is what one read decodes, a shard is one file; recording holds
# two of each layer.
CHUNK_BYTES = 2 * 2**20
SHARD_BYTES = 16 * 2**20


class StoreError(ConvergentError, ValueError):
    """A store that is missing, incomplete, damaged or foreign; the message names its path."""


class DiskFullError(StoreError):
    """A store that its disk could not hold."""


def digest(*parts: object) -> str:
    """Short hash of values by their `repr`, for the name of a file that depends on them."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Yield a scratch path beside `path` that takes its name when the block succeeds.

    Works for files and directories. When the block fails, what stood at `path` stays as it
    was and the scratch path is removed; one that a killed run left behind is overwritten.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.stem}.partial{path.suffix}")
    _remove(scratch)
    try:
        yield scratch
        if scratch.is_dir():
            _remove(path)
        os.replace(scratch, path)
    finally:
        _remove(scratch)


@contextmanager
def new_store(path: str | Path) -> Iterator[zarr.Group]:
    """Yield an empty Zarr v3 group that becomes the store at `path` when the block succeeds.

    The attribute ``complete`` is its last write.

    Raises
    ------
    DiskFullError
        If the disk fills.
    """
    with writing(path) as scratch:
        try:
            group = zarr.open_group(scratch, mode="w-", zarr_format=3)
            yield group
            group.attrs["complete"] = True
        except Exception as error:
            # An error that comes from zarrs has the system's number only in its words.
            if getattr(error, "errno", None) != errno.ENOSPC and "os error 28" not in str(error):
                raise
            free = shutil.disk_usage(scratch.parent).free
            raise DiskFullError(
                f"{path}: its disk is full, {free / 1e6:.0f} MB are free; free some space, or keep "
                "the results on another disk"
            ) from error


def open_store(path: str | Path, made_by: Mapping[str, Any] | None = None) -> zarr.Group:
    """Open a finished store for reading.

    Parameters
    ----------
    path : path
    made_by : mapping, optional
        What must have made the store: its attribute ``made_by``, compared as JSON.

    Raises
    ------
    StoreError
        If there is no store at `path`, it lacks the mark of a finished one, or was made by
        something else; names what differs.
    """
    try:
        # Whole paths, as a task may read it in a process that runs in another folder.
        group = zarr.open_group(Path(path).resolve(), mode="r")
    except FileNotFoundError:
        raise StoreError(f"{path}: no Zarr group here; has its rule been run?") from None
    if group.attrs.get("complete") is not True:
        raise StoreError(
            f"{path}: incomplete, its writer did not finish; delete it and run its rule again"
        )
    if made_by is not None:
        there, here = (_flat(m) for m in (group.attrs.get("made_by", {}), as_json(made_by)))
        differ = [
            f"{key}: {there.get(key, 'absent')} there, {here.get(key, 'absent')} here"
            for key in sorted(there | here)
            if key not in there or key not in here or there[key] != here[key]
        ]
        if differ:
            raise StoreError(
                f"{path}: made by another configuration ({'; '.join(differ)}); "
                "delete it and run its rule again"
            )
    return group


def as_json(value: Any) -> Any:
    """The value as it comes back from JSON: tuples as lists, keys as strings."""
    return json.loads(json.dumps(value))


def create(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: np.typing.DTypeLike,
    dimension_names: tuple[str, ...],
    chunk_rows: int | None = None,
) -> zarr.Array:
    """Create a sharded, compressed, checksummed array.

    Chunks and shards split the leading axes first, so that the last stays whole where it can;
    `chunk_rows` bounds the chunk along the first. In arrays of floats a chunk that is missing
    reads as NaN, never as zeros.
    """
    dtype = np.dtype(dtype)
    chunk = _split(
        (min(shape[0], chunk_rows or shape[0]), *shape[1:]), CHUNK_BYTES // dtype.itemsize
    )
    chunks_of = tuple(math.ceil(length / c) for length, c in zip(shape, chunk, strict=True))
    per_shard = _split(chunks_of, SHARD_BYTES // (math.prod(chunk) * dtype.itemsize))
    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=chunk,
        shards=tuple(c * n for c, n in zip(chunk, per_shard, strict=True)),
        compressors=COMPRESSORS,
        fill_value=np.nan if dtype.kind == "f" else 0,
        dimension_names=dimension_names,
    )


def save(
    group: zarr.Group, name: str, data: NDArray, dimension_names: tuple[str, ...]
) -> zarr.Array:
    """Create an array and write all of it."""
    array = create(group, name, data.shape, data.dtype, dimension_names)
    array[...] = data
    return array


def read(array: zarr.Array, start: int = 0, stop: int | None = None) -> NDArray:
    """Rows `start` to `stop` of the first axis.

    Raises
    ------
    StoreError
        If they cannot be read or fail their checksum; names the store, array and rows.
    """
    try:
        return array[start:stop]
    except Exception as error:
        raise StoreError(
            f"{array.store_path}: rows {start} to {stop} cannot be read ({error}); "
            "delete the store and run its rule again"
        ) from error


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of nested mappings by their dotted keys."""
    leaves = {}
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            leaves |= _flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def _split(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    """Largest block of at most `size` elements that splits leading axes first."""
    block = []
    for axis, length in enumerate(shape):
        rest = math.prod(shape[axis + 1 :])
        block.append(max(1, min(length, size // rest)))
    return tuple(block)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
