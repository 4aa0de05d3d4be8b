"""Files that are either whole or absent, and Zarr stores that say when they are complete."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import json
import logging
import math
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
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
# uses as many threads as it has callers.
os.environ.setdefault("RAYON_NUM_THREADS", "1")
if find_spec("zarrs"):
    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})

logger = logging.getLogger(__name__)

# zstd at level 1 shrinks float16 activations by their share of zeros, more than twice where three
# in four are; higher levels gained nothing and shuffles read slower (docs/performance.md). Both
# checksums are needed: zarrs verifies crc32c, which covers what lies on disk, only where it
# decodes a whole shard, zstd's own always.
COMPRESSORS = (ZstdCodec(level=1, checksum=True), Crc32cCodec())
# Uncompressed sizes: a chunk is what one read decodes, a shard is one file; recording holds
# two of each layer.
CHUNK_BYTES = 2 * 2**20
SHARD_BYTES = 16 * 2**20


# The system's refusals: a full disk or quota, no permission, a read-only disk.
FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)

# What must have made the store at a path, where that is known: the jobs of the workflow set it.
origin: Callable[[str | Path], Mapping[str, Any] | None] = lambda path: None  # noqa: E731


class StoreError(ConvergentError, ValueError):
    """A store that is missing, incomplete, damaged or foreign; the message names its path."""


class WritingError(ConvergentError, OSError):
    """A result that could not be written; the message names its path and the cause."""


class DiskFullError(WritingError):
    """A result that its disk could not hold."""


class SupersededError(ConvergentError, RuntimeError):
    """A process whose work another has begun anew."""


class CheckedArray(zarr.Array):
    """An array of a finished store, of which nothing missing or damaged is read as a number.

    Shards that hold the fill value alone are not written; the attribute ``empty`` names them, so
    that any other that is not there was lost.
    """

    def __getitem__(self, selection: Any) -> Any:
        start, stop = self._rows(selection)
        try:
            lost = [k for k in self.absent(start, stop) if k not in self.attrs.get("empty", ())]
            if lost:
                raise FileNotFoundError(f"its shard {lost[0]} is missing")
            return super().__getitem__(selection)
        except Exception as error:
            raise StoreError(
                f"{self.store_path}: rows {start} to {stop} cannot be read ({error}); "
                "delete the store and run its rule again"
            ) from error

    def _rows(self, selection: Any) -> tuple[int, int]:
        """The range of the first axis that a selection reads, which may be all of it."""
        first = selection[0] if isinstance(selection, tuple) and selection else selection
        length = self.shape[0]
        if isinstance(first, int | np.integer):
            return int(first) % length, int(first) % length + 1
        return first.indices(length)[:2] if isinstance(first, slice) else (0, length)

    def absent(self, start: int, stop: int) -> list[str]:
        """Keys of the shards of rows `start` to `stop` that have no file."""
        folder = self.store_path.store.root / self.store_path.path
        sides = self.shards or self.chunks
        grid = [range(math.ceil(n / side)) for n, side in zip(self.shape, sides, strict=True)]
        grid[0] = range(start // sides[0], math.ceil(stop / sides[0]))
        keys = map(self.metadata.encode_chunk_key, itertools.product(*grid))
        return [key for key in keys if not (folder / key).is_file()]


class Store(zarr.Group):
    """A finished store, or a group of one, whose arrays are checked when they are read."""

    def __getitem__(self, path: str) -> CheckedArray | Store:
        try:
            found = super().__getitem__(path)
        except Exception as error:
            what = "is missing" if isinstance(error, KeyError) else f"cannot be read ({error})"
            raise StoreError(
                f"{self.store_path}: {path} {what}; delete the store and run its rule again"
            ) from error
        if isinstance(found, zarr.Array):
            return CheckedArray(found._async_array)
        return Store(found._async_group)

    def groups(self) -> Iterator[tuple[str, Store]]:
        """Names and groups below this one."""
        for name, group in super().groups():
            yield name, Store(group._async_group)


def digest(*parts: object) -> str:
    """Short hash of values by their `repr`, for the name of a file that depends on them."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


@contextmanager
def alone(path: str | Path, *, last: bool = False) -> Iterator[None]:
    """Hold the lock at `path`, a file for nothing else, while the block runs.

    Waits for another process that holds it; one that was killed holds it no more. Where the file
    system has no locks, nothing is waited for.

    Parameters
    ----------
    path : path
    last : bool
        Whether of several that wait only the one that came last may go on.

    Raises
    ------
    SupersededError
        If another came since and only the last may go on.
    """
    ticket = f"{platform.node()} {os.getpid()} {time.time_ns()}"
    with open(path, "a+") as lock:
        if last:
            lock.truncate(0)
            lock.write(ticket)
            lock.flush()
        try:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                logger.warning("%s: waiting for the process that holds it", path)
                fcntl.lockf(lock, fcntl.LOCK_EX)
        except OSError as error:
            logger.warning("%s: no locks here (%s)", path, error)
        lock.seek(0)
        if last and lock.read() != ticket:
            raise SupersededError(f"{path}: another process came since; this one is not wanted")
        yield


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Yield a scratch path beside `path` that takes its name when the block succeeds.

    Works for files and directories. When the block fails, what stood at `path` stays as it
    was and the scratch path is removed; one that a killed run left behind is overwritten.

    Raises
    ------
    DiskFullError
        If the disk fills.
    WritingError
        If there is no permission to write, or the disk is read-only.
    """
    path = Path(path)
    scratch = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(scratch)
        try:
            yield scratch
            if scratch.is_dir():
                _remove(path)
            os.replace(scratch, path)
        finally:
            _remove(scratch)
    except Exception as error:
        refusal = _refusal(path, error)
        if refusal is None:
            raise
        raise refusal from error


@contextmanager
def new_store(path: str | Path) -> Iterator[zarr.Group]:
    """Yield an empty Zarr v3 group that becomes the store at `path` when the block succeeds.

    The attribute ``complete`` is its last write. Errors are those of :func:`writing`.
    """
    with writing(path) as scratch:
        group = zarr.open_group(scratch, mode="w-", zarr_format=3)
        made_by = origin(path)
        if made_by is not None:
            group.attrs["made_by"] = as_json(made_by)
        yield group
        for _, array in group.members(max_depth=None):
            if isinstance(array, zarr.Array):
                empty = CheckedArray(array._async_array).absent(0, array.shape[0])
                if empty:
                    array.attrs["empty"] = empty
        group.attrs["complete"] = True


def open_store(path: str | Path, made_by: Mapping[str, Any] | None = None) -> Store:
    """Open a finished store for reading.

    Its arrays raise :class:`StoreError` for what is missing or damaged when that is read.

    Parameters
    ----------
    path : path
    made_by : mapping, optional
        What must have made the store: its attribute ``made_by``, compared as JSON. Left out,
        what `origin` knows.

    Raises
    ------
    StoreError
        If there is no store at `path`, it lacks the mark of a finished one, or was made by
        something else; names what differs.
    """
    try:
        # Whole paths, as a task may read it in a process that runs in another folder.
        group = Store(zarr.open_group(Path(path).resolve(), mode="r")._async_group)
    except FileNotFoundError:
        raise StoreError(f"{path}: no Zarr group here; has its rule been run?") from None
    except Exception as error:
        raise StoreError(
            f"{path}: cannot be read ({error}); delete it and run its rule again"
        ) from error
    if group.attrs.get("complete") is not True:
        raise StoreError(
            f"{path}: incomplete, its writer did not finish; delete it and run its rule again"
        )
    made_by = origin(path) if made_by is None else made_by
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
    `chunk_rows` bounds the chunk along the first. In arrays of floats what was never written is
    NaN, not zero.
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


def _refusal(path: Path, error: Exception) -> WritingError | None:
    """What kept the system from writing `path`, if that is what an error tells."""
    cause: BaseException | None = error
    while cause is not None:
        # zarrs has the number in its words alone.
        words = re.search(r"\(os error (\d+)\)", str(cause))
        number = int(words[1]) if words else getattr(cause, "errno", None)
        file = getattr(cause, "filename", None)
        if number in FULL:
            free = shutil.disk_usage(path.parent).free
            return DiskFullError(
                f"{path}: its disk is full, {free / 1e6:.0f} MB are free; free some space, or keep "
                "the results on another disk"
            )
        if number in REFUSED and (file is None or Path(file).is_relative_to(path.parent)):
            return WritingError(
                f"{path}: cannot be written ({cause}); give yourself the right to write there, or "
                "keep the results in another folder"
            )
        cause = cause.__cause__ or cause.__context__
    return None


def _remove(path: Path) -> None:
    if path.is_dir():
        # After an error threads of zarrs may write on for a moment.
        for _ in range(100):
            shutil.rmtree(path, ignore_errors=True)
            if not path.exists():
                return
            time.sleep(0.02)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
