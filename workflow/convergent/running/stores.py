"""Files that are either whole or absent, and Zarr stores that say when they are complete."""

from __future__ import annotations

import difflib
import errno
import fcntl
import hashlib
import itertools
import json
import logging
import math
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.codec import CodecPipeline
from zarr.codecs import Crc32cCodec, ZstdCodec

from convergent import ConvergentError

# zarrs decodes in Rust. It works in the thread that asks (its own pool has one), so that a job
# uses as many threads as it has callers.
os.environ.setdefault("RAYON_NUM_THREADS", "1")
if find_spec("zarrs"):
    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})

logger = logging.getLogger(__name__)

# What a store holds and means, as its attribute `format`; raised with every change of either.
# Stores without the attribute are of format 1.
FORMAT = 2

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


class UnknownNameError(StoreError, KeyError):
    """A name that a store never held; the message says what it holds."""

    __str__ = Exception.__str__  # KeyError's own shows quotes and escapes


class ReadingError(ConvergentError, OSError):
    """What the system did not let read, whatever is stored; the message names path and cause."""


class WritingError(ConvergentError, OSError):
    """A result that could not be written; the message names its path and the cause."""


class DiskFullError(WritingError):
    """A result that its disk could not hold."""


class SupersededError(ConvergentError, RuntimeError):
    """A process whose work another has begun anew."""


@dataclass(frozen=True)
class _CheckedPipeline:
    """What decodes a finished array, of which nothing missing or damaged is read as a number.

    All ways to read an array of Zarr end here, with a list of the shards that they touch. Zarr
    takes a shard that is not there for one of fill values alone, which is never written.
    """

    pipeline: CodecPipeline
    root: Path  # of the store
    array: str  # its path in the store
    rows: int
    height: int  # rows of a shard
    empty: frozenset[str]  # keys of shards that hold the fill value alone

    async def read(self, batch: Iterable[tuple], out: Any, drop_axes: tuple[int, ...] = ()) -> Any:
        """Decode parts of shards into `out`, as `CodecPipeline.read` does."""
        batch = list(batch)
        for shard, *_ in batch:
            try:
                lost = not _is_file(f"{self.root}/{shard.path}")
            except OSError as error:
                raise self._fault(shard.path, error) from error
            if lost and self._key(shard.path) not in self.empty:
                raise self._fault(shard.path)
        try:
            return await self.pipeline.read(batch, out, drop_axes)
        except MemoryError:
            raise
        except Exception:
            # Is it what is stored, or what was asked for? Each shard is read whole, by itself.
            for shard, spec, *_ in batch:
                await self._try(shard, spec)
            raise

    async def _try(self, shard: Any, spec: Any) -> None:
        whole = tuple(slice(0, length) for length in spec.shape)
        into = spec.prototype.nd_buffer.empty(spec.shape, spec.dtype.to_native_dtype())
        try:
            await self.pipeline.read([(shard, spec, whole, whole, True)], into)
        except MemoryError:
            raise
        except Exception as error:
            raise self._fault(shard.path, error) from error

    async def write(self, *_: Any, **__: Any) -> None:
        """Refuse: a finished store stays as it is."""
        raise StoreError(f"{_shown(self.root)}/{self.array}: finished, nothing more is written")

    def _key(self, path: str) -> str:
        return path.removeprefix(f"{self.array}/")

    def _fault(self, path: str, error: Exception | None = None) -> ConvergentError:
        """What is wrong with a shard, at a path within the store."""
        key = self._key(path)
        number = next((int(part) for part in key.split("/") if part.isdigit()), 0)
        start = number * self.height
        what = (
            f"{_shown(self.root)}/{self.array}: rows {start} to "
            f"{min(start + self.height, self.rows)} cannot be read: its shard {key}"
        )
        if error is None:
            return StoreError(f"{what} is missing; {_again(self.root)}")
        if _is_passing(error):
            return _not_read(f"{what}: {error}", error)
        return StoreError(f"{what} is damaged ({error}); {_again(self.root)}")


class CheckedArray(zarr.Array):
    """An array of a finished store: however it is indexed, what is missing or damaged is an error.

    Its attribute ``empty`` names the shards that hold the fill value alone and are not written,
    so that any other that is not there was lost.
    """

    def __init__(self, array: zarr.AsyncArray) -> None:
        super().__init__(array)
        if not isinstance(array.codec_pipeline, _CheckedPipeline):
            place = array.store_path
            rows, height = (next(iter(n), 1) for n in (self.shape, _sides(self)))
            empty = frozenset(self.attrs.get("empty", ()))
            checked = _CheckedPipeline(
                array.codec_pipeline, place.store.root, place.path, rows, height, empty
            )
            object.__setattr__(array, "codec_pipeline", checked)


class Store(zarr.Group):
    """A finished store, or a group of one, whose arrays are checked when they are read."""

    def __getitem__(self, path: str) -> Any:
        if not isinstance(path, str):
            raise TypeError(f"a store's arrays and groups have names, got {path!r}")
        path = path.strip("/")
        node = self._folder / path
        with _reading(node, self._root):
            if ".." in path.split("/") or not _is_file(node / "zarr.json"):
                raise self._absent(path)
            return _checked(super().__getitem__(path))

    def __contains__(self, path: str) -> bool:
        try:
            self[path]
        except UnknownNameError:
            return False
        return True

    def members(
        self, max_depth: int | None = 0, **options: Any
    ) -> tuple[tuple[str, CheckedArray | Store], ...]:
        """Names and arrays or groups below this one, sorted; all that were once written."""
        with _reading(self._folder, self._root):
            found = dict(super().members(max_depth, **options))
        for path in self._written():
            name = path if max_depth is None else "/".join(path.split("/")[: max_depth + 1])
            if name not in found:
                self[path]  # which says what is wrong with it
        return tuple((name, _checked(found[name])) for name in sorted(found, key=_natural))

    def keys(self) -> Iterator[str]:
        """Names below this group."""
        return (name for name, _ in self.members())

    def groups(self) -> Iterator[tuple[str, Store]]:
        """Names and groups below this one."""
        return ((name, node) for name, node in self.members() if isinstance(node, Store))

    def arrays(self) -> Iterator[tuple[str, CheckedArray]]:
        """Names and arrays below this one."""
        return ((name, node) for name, node in self.members() if isinstance(node, CheckedArray))

    @property
    def _root(self) -> Path:
        return self.store_path.store.root

    @property
    def _folder(self) -> Path:
        return self._root / self.path

    def _written(self) -> list[str]:
        """Paths of all arrays below this group when the store was finished."""
        root = self if not self.path else zarr.open_group(self._root, mode="r")
        prefix = f"{self.path}/" if self.path else ""
        paths = root.attrs.get("arrays", ())
        return [path.removeprefix(prefix) for path in paths if path.startswith(prefix)]

    def _absent(self, path: str) -> StoreError:
        """Why there is nothing at a path: it was lost, or it never was."""
        written = [name.split("/") for name in self._written()]
        parts = path.strip("/").split("/")
        if any(name[: len(parts)] == parts for name in written):
            return StoreError(f"{_shown(self._folder)}/{path} is missing; {_again(self._root)}")
        for depth, part in enumerate(parts):
            below = [n[depth] for n in written if n[:depth] == parts[:depth] and n[depth:]]
            if part not in below:
                break
        there = ", ".join(dict.fromkeys(below)) or "nothing"
        near = difflib.get_close_matches(part, below, 1)
        return UnknownNameError(
            f"{_shown(self._folder.joinpath(*parts[:depth]))}: no {part} here; it holds {there}"
            + (f". Did you mean {near[0]}?" if near else "")
        )


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
    ticket = uuid.uuid4().hex.encode()
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if last:
            # One write of one length: of several at once the last stands whole.
            os.pwrite(lock, ticket, 0)
        try:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                logger.warning("%s: waiting for the process that holds it", path)
                fcntl.lockf(lock, fcntl.LOCK_EX)
        except OSError as error:
            logger.warning("%s: no locks here (%s)", path, error)
        if last and os.pread(lock, len(ticket), 0) != ticket:
            raise SupersededError(f"{path}: another process came since; this one is not wanted")
        yield
    finally:
        os.close(lock)


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Yield a scratch path beside `path` that takes its name when the block succeeds.

    Works for files and directories. When the block fails, what stood at `path` stays as it
    was and the scratch path is removed; one that a killed run left behind is overwritten. A
    directory that stands at `path` is set aside until the new one has its name: if the process
    is killed in between, the next to write or open it brings it back.

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
        _settle(path, scratch)
        try:
            yield scratch
            _replace(scratch, path)
        finally:
            _remove(scratch)
            _settle(path, scratch)
    except Exception as error:
        refusal = _refusal(path, error)
        if refusal is None:
            raise
        raise refusal from error


@contextmanager
def new_store(path: str | Path) -> Iterator[zarr.Group]:
    """Yield an empty Zarr v3 group that becomes the store at `path` when the block succeeds.

    Its attribute ``format`` is :data:`FORMAT`, ``arrays`` names all that it holds, and
    ``complete`` is its last write. Errors are those of :func:`writing`.
    """
    with writing(path) as scratch:
        group = zarr.open_group(scratch, mode="w-", zarr_format=3)
        group.attrs["format"] = FORMAT
        made_by = origin(path)
        if made_by is not None:
            group.attrs["made_by"] = as_json(made_by)
        yield group
        nodes = group.members(max_depth=None)
        arrays = {name: node for name, node in nodes if isinstance(node, zarr.Array)}
        for array in arrays.values():
            empty = _without_file(array)
            if empty:
                array.attrs["empty"] = empty
        group.attrs["arrays"] = sorted(arrays, key=_natural)
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
        If there is no store at `path`, it lacks the mark of a finished one, is of another
        format than :data:`FORMAT`, or was made by something else; names what differs.
    ReadingError
        If the system does not let it be read.
    """
    # Whole paths, as a task may read it in a process that runs in another folder.
    root = Path(path).absolute()
    if not _exists(root):
        with suppress(OSError):
            os.replace(_aside(root), root)
    with _reading(root, root):
        try:
            group = Store(zarr.open_group(root, mode="r")._async_group)
        except (FileNotFoundError, NotADirectoryError):
            raise StoreError(f"{path}: no Zarr group here; has what makes it been run?") from None
    if group.attrs.get("complete") is not True:
        raise StoreError(f"{path}: incomplete, it has no mark of a finished store; {_again(root)}")
    _check_format(path, group.attrs.get("format", 1))
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
                f"{path}: made by another configuration ({'; '.join(differ)}); go back to that "
                f"one, give this run another name (run), or {_again(root)}"
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


def _check_format(path: str | Path, number: Any) -> None:
    """That a store is of the format that this version reads."""
    if number == FORMAT:
        return
    of = f"{path}: of format {number}, where this version of convergent reads {FORMAT}"
    if isinstance(number, int) and number < FORMAT:
        raise StoreError(
            f"{of}: an earlier version made it. The same snakemake command makes it again, from "
            f"the trained weights, which are used as they are (with --forcerun {_shown(path)} if "
            "it takes the store for up to date); in Python, call again what wrote it"
        )
    raise StoreError(
        f"{of}: a newer version made it. Use that version, or give this run another name (run)"
    )


def _again(root: Path) -> str:
    """How a store is made again; Snakemake takes a damaged one for finished until it is told."""
    return (
        f"make it again: the same snakemake command with --forcerun {_shown(root)}, or in Python "
        "the call that wrote it"
    )


def _shown(path: str | Path) -> Path:
    """A path as the workflow has it: from the working folder, where it lies there."""
    with suppress(OSError, ValueError):
        return Path(path).relative_to(Path.cwd())
    return Path(path)


def _checked(node: zarr.Array | zarr.Group) -> CheckedArray | Store:
    if isinstance(node, zarr.Array):
        return CheckedArray(node._async_array)
    return Store(node._async_group)


def _sides(array: zarr.Array) -> tuple[int, ...]:
    """Lengths of what is one file of an array."""
    return array.shards or array.chunks


def _without_file(array: zarr.Array) -> list[str]:
    """Keys of the shards that have no file."""
    folder = array.store_path.store.root / array.path
    grid = (range(math.ceil(n / s)) for n, s in zip(array.shape, _sides(array), strict=True))
    keys = map(array.metadata.encode_chunk_key, itertools.product(*grid))
    return [key for key in keys if not _is_file(folder / key)]


def _natural(path: str) -> Sequence[Any]:
    """Sorts conv2 before conv10."""
    return [
        (part.isdigit(), int(part) if part.isdigit() else part) for part in re.split(r"(\d+)", path)
    ]


def _is_file(path: str | Path) -> bool:
    """Whether a file is there; unlike `Path.is_file`, an error if that cannot be told."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


@contextmanager
def _reading(path: Path, root: Path) -> Iterator[None]:
    """Say which metadata could not be read, and whether the store at `root` is damaged."""
    try:
        yield
    except (ConvergentError, MemoryError):
        raise
    except Exception as error:
        what = f"{_shown(path)} cannot be read"
        if _is_passing(error):
            raise _not_read(f"{what}: {error}", error) from error
        raise StoreError(f"{what}: its metadata are damaged ({error}); {_again(root)}") from error


def _number(error: BaseException) -> int | None:
    """The system's number of an error, which zarrs has in its words alone."""
    words = re.search(r"\(os error (\d+)\)", str(error))
    return int(words[1]) if words else getattr(error, "errno", None)


def _is_passing(error: Exception) -> bool:
    """Whether the system failed, not what is stored: codecs raise errors without a number."""
    return _number(error) is not None or bool(re.search(r"\bthread\b|futures", str(error)))


def _not_read(message: str, error: Exception) -> ReadingError:
    advice = (
        "give yourself the right to read it"
        if _number(error) in REFUSED
        else "try again, and check the disk or the network if it stays"
    )
    return ReadingError(f"{message}; {advice}")


def _refusal(path: Path, error: Exception) -> WritingError | None:
    """What kept the system from writing `path`, if that is what an error tells."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ReadingError):
            return None
        number = _number(cause)
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


def _aside(path: Path) -> Path:
    """Where a directory waits until its successor has its name."""
    return path.with_name(f".{path.stem}.old{path.suffix}")


def _replace(scratch: Path, path: Path) -> None:
    """Give a file or directory its final name; what had it is set aside if it must be."""
    while True:
        if scratch.is_dir() and _exists(path):
            os.replace(path, _aside(path))
        try:
            return os.replace(scratch, path)
        except OSError as error:
            # Somebody who opened the store meanwhile brought back what was set aside.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def _settle(path: Path, scratch: Path) -> None:
    """Bring back what was set aside, or remove it where its successor stands."""
    aside = _aside(path)
    if not _exists(aside):
        return
    if not _exists(path):
        os.replace(aside, path)
    else:
        # Under a name that is never brought back, as a kill may leave half of it.
        os.replace(aside, scratch)
        _remove(scratch)


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        # After an error threads of zarrs may write on for a moment.
        for _ in range(100):
            shutil.rmtree(path, ignore_errors=True)
            if not path.exists():
                return
            time.sleep(0.02)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
