"""Zarr stores that record whether they are complete and what made them."""

from __future__ import annotations

import difflib
import itertools
import json
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
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
from convergent.running.files import (
    REFUSED,
    DiskFullError,
    ReadingError,
    SupersededError,
    WritingError,
    digest,
    error_number,
    exists,
    set_aside,
    writing,
)

# The names of `files` are here too, for modules that write results beside stores.
__all__ = [
    "CheckedArray",
    "DiskFullError",
    "ReadingError",
    "Store",
    "StoreError",
    "SupersededError",
    "UnknownNameError",
    "WritingError",
    "create",
    "digest",
    "new_store",
    "open_store",
    "record_origin",
    "save",
    "writing",
]

# zarrs decodes in Rust, in the thread that calls it (its own pool has one thread), so that a job
# uses as many threads as it has callers.
os.environ.setdefault("RAYON_NUM_THREADS", "1")
if find_spec("zarrs"):
    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})

# The attribute `format`: raised whenever the contents of stores or their meaning change.
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


class StoreError(ConvergentError, ValueError):
    """A store that is missing, incomplete, damaged or foreign; the message names its path."""


class UnknownNameError(StoreError, KeyError):
    """A name that a store never held; the message lists the names that it holds."""

    __str__ = Exception.__str__  # KeyError's own shows quotes and escapes


@dataclass(frozen=True)
class _CheckedPipeline:
    """A decoder of finished arrays that never reads missing or damaged data as numbers.

    Every read of a Zarr array ends here, with a list of the shards that it touches. Zarr writes no
    file for a shard that holds only fill values, and so mistakes a lost shard for such a one.
    """

    pipeline: CodecPipeline
    root: Path  # of the store
    array: str  # its path in the store
    rows: int
    height: int  # rows of a shard
    empty: frozenset[str]  # keys of shards that hold nothing but the fill value

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
            # The data may be damaged, or the request wrong: read each shard whole, by itself.
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
        """Refuse to write: a finished store stays as it is."""
        raise StoreError(f"{_shown(self.root)}/{self.array}: it is finished and cannot be changed")

    def _key(self, path: str) -> str:
        return path.removeprefix(f"{self.array}/")

    def _fault(self, path: str, error: Exception | None = None) -> ConvergentError:
        """Return an error that says what is wrong with a shard, given its path in the store."""
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
    """An array of a finished store that raises an error wherever its data are missing or damaged.

    Its attribute ``empty`` names the shards that hold nothing but the fill value and so have no
    file. Any other shard without a file was lost.
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
        """Return names and arrays or groups below this one, sorted; a lost one is an error."""
        with _reading(self._folder, self._root):
            found = dict(super().members(max_depth, **options))
        for path in self._written():
            name = path if max_depth is None else "/".join(path.split("/")[: max_depth + 1])
            if name not in found:
                self[path]  # raises an error that says what is wrong
        return tuple((name, _checked(found[name])) for name in sorted(found, key=_natural))

    def keys(self) -> Iterator[str]:
        """Iterate over the names below this group."""
        return (name for name, _ in self.members())

    def groups(self) -> Iterator[tuple[str, Store]]:
        """Iterate over names and groups below this one."""
        return ((name, node) for name, node in self.members() if isinstance(node, Store))

    def arrays(self) -> Iterator[tuple[str, CheckedArray]]:
        """Iterate over names and arrays below this one."""
        return ((name, node) for name, node in self.members() if isinstance(node, CheckedArray))

    @property
    def _root(self) -> Path:
        return self.store_path.store.root

    @property
    def _folder(self) -> Path:
        return self._root / self.path

    def _written(self) -> list[str]:
        """Return the paths of all arrays that the finished store had below this group."""
        root = self if not self.path else zarr.open_group(self._root, mode="r")
        prefix = f"{self.path}/" if self.path else ""
        paths = root.attrs.get("arrays", ())
        return [path.removeprefix(prefix) for path in paths if path.startswith(prefix)]

    def _absent(self, path: str) -> StoreError:
        """Return an error that says why nothing is at a path: it was lost, or was never there."""
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


@contextmanager
def new_store(path: str | Path) -> Iterator[zarr.Group]:
    """Yield an empty Zarr v3 group that becomes the store at `path` when the block succeeds.

    The attribute ``format`` is :data:`FORMAT`, ``arrays`` names all arrays of the store, and
    ``complete`` is written last. The errors are those of :func:`writing`.
    """
    with writing(path) as scratch:
        group = zarr.open_group(scratch, mode="w-", zarr_format=3)
        group.attrs["format"] = FORMAT
        yield group
        nodes = group.members(max_depth=None)
        arrays = {name: node for name, node in nodes if isinstance(node, zarr.Array)}
        for array in arrays.values():
            empty = _without_file(array)
            if empty:
                array.attrs["empty"] = empty
        group.attrs["arrays"] = sorted(arrays, key=_natural)
        group.attrs["complete"] = True


def open_store(path: str | Path, origin: Mapping[str, Any] | None = None) -> Store:
    """Open a finished store for reading.

    Its arrays raise :class:`StoreError` when missing or damaged data are read.

    Parameters
    ----------
    path : path
    origin : mapping, optional
        All settings that determine the results of the run that reads the store. The store's own
        origin (see :func:`record_origin`) must be a part of them; it is not checked if None.

    Raises
    ------
    StoreError
        If there is no store at `path`, it lacks the mark of a finished one, has another format
        than :data:`FORMAT`, or was made by another configuration; the message names each key that
        differs.
    ReadingError
        If the system refuses to read it.
    """
    # Absolute, because a task may read the store in a process that runs in another folder.
    root = Path(path).absolute()
    if not exists(root):
        with suppress(OSError):
            os.replace(set_aside(root), root)
    with _reading(root, root):
        try:
            group = Store(zarr.open_group(root, mode="r")._async_group)
        except (FileNotFoundError, NotADirectoryError):
            raise StoreError(
                f"{path}: there is no Zarr group here; run the step that makes it first"
            ) from None
    if group.attrs.get("complete") is not True:
        raise StoreError(
            f"{path}: incomplete, as it lacks the mark of a finished store; {_again(root)}"
        )
    _check_format(path, group.attrs.get("format", 1))
    if origin is not None:
        _check_origin(path, group.attrs.get("origin"), origin)
    return group


def record_origin(path: str | Path, origin: Mapping[str, Any]) -> None:
    """Write the settings that determined a finished store as its attribute ``origin``.

    Parameters
    ----------
    path : path
    origin : mapping
        Nested settings that JSON can hold, such as those of the nets and of the images.
    """
    file = Path(path, "zarr.json")
    metadata = json.loads(file.read_text(encoding="utf-8"))
    metadata["attributes"]["origin"] = origin
    with writing(file) as scratch:
        scratch.write_text(json.dumps(metadata, indent=2), encoding="utf-8")


def _check_origin(path: str | Path, recorded: Any, expected: Mapping[str, Any]) -> None:
    """Raise an error unless the origin of a store is a part of the expected one."""
    if not recorded:
        raise StoreError(
            f"{path}: its origin is not recorded (it was made by an earlier version, or not by "
            f"a job of the workflow); {_again(Path(path).absolute())}"
        )
    # Convert as JSON does: tuples to lists, keys to strings.
    there, here = _flat(recorded), _flat(json.loads(json.dumps(expected)))
    differ = [
        f"{key}: {value} there, {here.get(key, 'absent')} here"
        for key, value in sorted(there.items())
        if key not in here or value != here[key]
    ]
    if differ:
        raise StoreError(
            f"{path}: made by another configuration ({'; '.join(differ)}); go back to that one, "
            f"give this run another name (run), or {_again(Path(path).absolute())}"
        )


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
    `chunk_rows` bounds the chunk along the first. In arrays of floats, values that were never
    written are NaN, not zero.
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
    """Return the leaves of nested mappings by their dotted keys."""
    leaves: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            leaves |= _flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def _split(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    """Return the shape of the largest part of at most `size` elements, split along leading axes."""
    part = []
    for axis, length in enumerate(shape):
        rest = math.prod(shape[axis + 1 :])
        part.append(max(1, min(length, size // rest)))
    return tuple(part)


def _check_format(path: str | Path, number: Any) -> None:
    """Raise an error unless a store has the format that this version reads."""
    if number == FORMAT:
        return
    fault = f"{path}: has format {number}, but this version of convergent reads format {FORMAT}"
    if isinstance(number, int) and number < FORMAT:
        raise StoreError(
            f"{fault}; an earlier version made it. Run the same snakemake command to make it again "
            f"from the trained weights, which stay as they are (with --forcerun {_shown(path)} if "
            "Snakemake finds the store up to date); in Python, repeat the call that wrote it"
        )
    raise StoreError(
        f"{fault}; a newer version made it. Use that version, or give this run another name (run)"
    )


def _again(root: Path) -> str:
    """Advise how to make a store again; Snakemake must be forced, as it sees no damage."""
    return (
        f"make it again: run the same snakemake command with --forcerun {_shown(root)}, or in "
        "Python repeat the call that wrote it"
    )


def _shown(path: str | Path) -> Path:
    """Return a path relative to the working folder if it lies there, as rules write it."""
    with suppress(OSError, ValueError):
        return Path(path).relative_to(Path.cwd())
    return Path(path)


def _checked(node: zarr.Array | zarr.Group) -> CheckedArray | Store:
    """Return an array or a group of Zarr as the class that checks what it reads."""
    if isinstance(node, zarr.Array):
        return CheckedArray(node._async_array)
    return Store(node._async_group)


def _sides(array: zarr.Array) -> tuple[int, ...]:
    """Return the side lengths of the part of an array that is one file."""
    return array.shards or array.chunks


def _without_file(array: zarr.Array) -> list[str]:
    """Return the keys of the shards that have no file."""
    folder = array.store_path.store.root / array.path
    grid = (range(math.ceil(n / s)) for n, s in zip(array.shape, _sides(array), strict=True))
    keys = map(array.metadata.encode_chunk_key, itertools.product(*grid))
    return [key for key in keys if not _is_file(folder / key)]


def _natural(path: str) -> Any:
    """Return a sorting key that puts conv2 before conv10."""
    return [
        (part.isdigit(), int(part) if part.isdigit() else part) for part in re.split(r"(\d+)", path)
    ]


def _is_file(path: str | Path) -> bool:
    """Return whether a file is there; unlike `Path.is_file`, raise an error if in doubt."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


@contextmanager
def _reading(path: Path, root: Path) -> Iterator[None]:
    """Raise an error that names unreadable metadata and says whether the store is damaged."""
    try:
        yield
    except (ConvergentError, MemoryError):
        raise
    except Exception as error:
        what = f"{_shown(path)} cannot be read"
        if _is_passing(error):
            raise _not_read(f"{what}: {error}", error) from error
        raise StoreError(f"{what}: its metadata are damaged ({error}); {_again(root)}") from error


def _is_passing(error: Exception) -> bool:
    """Return whether the system failed, not the data: errors of codecs have no number."""
    return error_number(error) is not None or bool(re.search(r"\bthread\b|futures", str(error)))


def _not_read(message: str, error: Exception) -> ReadingError:
    """Return an error for data that the system refused to read, with advice."""
    advice = (
        "give yourself permission to read it"
        if error_number(error) in REFUSED
        else "try again, and check the disk or the network if it persists"
    )
    return ReadingError(f"{message}; {advice}")
