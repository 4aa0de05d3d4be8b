"""Nothing half-made carries a final name."""

import ast
import asyncio
import errno
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from convergent.running import files, stores
from convergent.running.files import file_lock
from convergent.running.stores import (
    FORMAT,
    CheckedArray,
    DiskFullError,
    ReadingError,
    Store,
    StoreError,
    SupersededError,
    UnknownNameError,
    WritingError,
    new_store,
    open_store,
    record_origin,
    save,
    writing,
)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("old", encoding="utf-8")

    def fail():
        with writing(path) as scratch:
            scratch.write_text("half", encoding="utf-8")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_run_left_is_overwritten(tmp_path):
    with writing(tmp_path / "x.zarr") as scratch:
        scratch.touch()
    (tmp_path / "x.zarr").unlink()
    scratch.mkdir()
    (scratch / "rubbish").touch()
    with new_store(tmp_path / "x.zarr") as group:
        save(group, "a", np.arange(3), ("unit",))
    assert not (tmp_path / "x.zarr/rubbish").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["x.zarr"]


def test_a_store_replaces_the_one_before(tmp_path):
    for value in (1.0, 2.0):
        with new_store(tmp_path / "x.zarr") as group:
            save(group, f"a{value:g}", np.full((3, 2), value), ("unit", "unit_b"))
    store = open_store(tmp_path / "x.zarr")
    assert list(store.array_keys()) == ["a2"]
    np.testing.assert_array_equal(store["a2"][...], np.full((3, 2), 2.0))


@pytest.mark.parametrize("shape", [(3,), (5, 7), (20, 300, 300), (2, 3000, 1000)])
def test_arrays_of_any_shape_come_back(tmp_path, rng, shape):
    data = rng.normal(size=shape).astype(np.float32)
    with new_store(tmp_path / "x.zarr") as group:
        array = save(group, "a", data, tuple("abc"[: len(shape)]))
        assert np.prod(array.chunks) * 4 <= 2 * 2**20
        assert array.shards is not None
    np.testing.assert_array_equal(open_store(tmp_path / "x.zarr")["a"][...], data)


@pytest.mark.parametrize("where", [0.2, 0.5, 0.8])
def test_damage_is_found_however_little_is_read(tmp_path, rng, where):
    data = rng.integers(0, 8, (20, 500, 1000)).astype(np.float16)
    with new_store(tmp_path / "x.zarr") as group:
        assert save(group, "a", data, ("a", "b", "c")).chunks[0] == 2
    shard = next(p for p in (tmp_path / "x.zarr/a/c").rglob("*") if p.is_file())
    content = bytearray(shard.read_bytes())
    content[int(where * len(content))] ^= 1
    shard.write_bytes(content)
    array = open_store(tmp_path / "x.zarr")["a"]
    errors = []
    for start in range(20):
        try:
            np.testing.assert_array_equal(array[start : start + 1], data[start : start + 1])
        except StoreError as error:
            errors.append(str(error))
    # The two images of a chunk.
    assert len(errors) == 2
    assert re.search(r"x\.zarr/a: rows \d+ to \d+ cannot be read", errors[0])


@pytest.mark.parametrize("dtype", ["float16", "int64", "uint8", "bool"])
def test_a_missing_shard_is_no_zeros_and_zeros_are_no_missing_shard(tmp_path, dtype):
    """Of zeros alone Zarr writes none."""
    data = np.zeros((30, 1000, 1000), dtype)
    with new_store(tmp_path / "x.zarr") as group:
        rows = save(group, "zeros", data, ("a", "b", "c")).shards[0]
        data[3:, 5, 7] = 1
        save(group, "a", data, ("a", "b", "c"))
    store = open_store(tmp_path / "x.zarr")
    assert not store["zeros"][...].any()
    np.testing.assert_array_equal(store["a"][...], data)
    (tmp_path / "x.zarr/a/c/1/0/0").unlink()
    for array in (store["a"], pickle.loads(pickle.dumps(store["a"]))):
        np.testing.assert_array_equal(array[:rows], data[:rows])
        np.testing.assert_array_equal(array[rows - 1], data[rows - 1])
        for selection in (slice(rows, None), slice(rows - 1, rows + 1), rows, ..., (..., 0)):
            with pytest.raises(StoreError, match=r"x\.zarr/a: rows .*its shard c/1/0/0 is missing"):
                array[selection]


def overwritten(file, start, stop):
    content = bytearray(file.read_bytes())
    part = slice(int(start * len(content)), int(stop * len(content)))
    content[part] = np.random.default_rng(0).bytes(part.stop - part.start)
    file.write_bytes(content)


# What happens to the first shard of an array, to its metadata, or to those of its store.
DAMAGES = {
    "noise at the front": (lambda a: overwritten(a / "c/0/0", 0, 0.3), "fc6/codes: rows"),
    "noise at the end": (lambda a: overwritten(a / "c/0/0", 0.7, 1), "fc6/codes: rows"),
    "truncated": (lambda a: os.truncate(a / "c/0/0", 300), "fc6/codes: rows"),
    "emptied": (lambda a: os.truncate(a / "c/0/0", 0), "fc6/codes: rows"),
    "missing shard": (lambda a: (a / "c/0/0").unlink(), "fc6/codes: rows .* is missing"),
    "missing shards": (lambda a: shutil.rmtree(a / "c"), "fc6/codes: rows .* is missing"),
    "missing array": (shutil.rmtree, "fc6/codes is missing"),
    "missing layer": (lambda a: shutil.rmtree(a.parent), "fc6/codes is missing"),
    "half an array's metadata": (
        lambda a: os.truncate(a / "zarr.json", 100), r"fc6/codes cannot be read"
    ),
    "half the metadata": (lambda a: os.truncate(a.parents[1] / "zarr.json", 20), "cannot be read"),
    "no mark": (lambda a: (a.parents[1] / "zarr.json").write_text(
        '{"zarr_format": 3, "node_type": "group", "attributes": {}}', encoding="utf-8"
    ), "incomplete"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("dtype", ["float16", "float64", "uint8", "int64", "bool"])
def test_every_damage_is_found_and_named(tmp_path, rng, damage, dtype):
    """In whatever a store holds: activations, matrices, codes, masks."""
    data = rng.integers(0, 2, (300, 50)).astype(dtype)
    with new_store(tmp_path / "x.zarr") as group:
        save(group.create_group("fc6"), "codes", data, ("sample", "unit"))
        save(group.create_group("fc7"), "codes", data, ("sample", "unit"))
    spoil, message = DAMAGES[damage]
    spoil(tmp_path / "x.zarr/fc6/codes")
    with pytest.raises(StoreError, match=rf"x\.zarr.*{message}"):
        open_store(tmp_path / "x.zarr")["fc6/codes"][...]
    if "fc6" in message:
        np.testing.assert_array_equal(open_store(tmp_path / "x.zarr")["fc7/codes"][...], data)


# Every way to read an array, here of (12, 6) in shards of four rows, that touches the first.
ROWS = np.array([0, 1, 7])
MASK = np.zeros((12, 6), bool)
MASK[ROWS] = True
WAYS = {
    "[...]": lambda a: a[...],
    "[()]": lambda a: a[()],
    "[:]": lambda a: a[:],
    "[0]": lambda a: a[0],
    "[-12]": lambda a: a[-12],
    "[0, 1]": lambda a: a[0, 1],
    "[::7]": lambda a: a[::7],
    "[:, 2]": lambda a: a[:, 2],
    "[list]": lambda a: a[[0, 1, 7], :],
    "[array, array]": lambda a: a[ROWS, ROWS % 6],
    "[mask]": lambda a: a[MASK],
    "oindex": lambda a: a.oindex[ROWS],
    "oindex, both": lambda a: a.oindex[ROWS, np.array([5, 0])],
    "oindex, mask": lambda a: a.oindex[MASK[:, 0]],
    "vindex": lambda a: a.vindex[ROWS, ROWS % 6],
    "vindex, mask": lambda a: a.vindex[MASK],
    "blocks": lambda a: a.blocks[0],
    "basic": lambda a: a.get_basic_selection(slice(0, 3)),
    "orthogonal": lambda a: a.get_orthogonal_selection((ROWS, slice(None))),
    "coordinates": lambda a: a.get_coordinate_selection((ROWS, ROWS % 6)),
    "mask": lambda a: a.get_mask_selection(MASK),
    "block": lambda a: a.get_block_selection(0),
    "asarray": np.asarray,
    "asarray, dtype": lambda a: np.asarray(a, dtype=np.float64),
    "iterated": lambda a: np.stack(list(a)),
    "numpy": np.sum,
    "async": lambda a: asyncio.run(a.async_array.getitem((slice(0, 3),))),
    "async oindex": lambda a: asyncio.run(a.async_array.oindex.getitem((ROWS, slice(None)))),
    "with_config": lambda a: a.with_config({"write_empty_chunks": True})[...],
    "pickled": lambda a: pickle.loads(pickle.dumps(a)).oindex[ROWS],
}
HARMS = {
    "lost": (Path.unlink, "is missing"),
    "a byte flipped": (lambda f: flip(f, len(f.read_bytes()) // 4), "is damaged"),
    "last byte flipped": (lambda f: flip(f, -1), "is damaged"),
    "truncated": (lambda f: os.truncate(f, f.stat().st_size - 9), "is damaged"),
}
# How an array of a store is come by.
REACHED = {
    "by name": lambda s: s["fc6"]["codes"],
    "by path": lambda s: s["fc6/codes"],
    "get": lambda s: s.get("fc6/codes"),
    "members": lambda s: dict(s.members(max_depth=None))["fc6/codes"],
    "groups": lambda s: dict(dict(s.groups())["fc6"].arrays())["codes"],
    "group_values": lambda s: next(next(s.group_values()).array_values()),
    "pickled store": lambda s: pickle.loads(pickle.dumps(s))["fc6/codes"],
}


def flip(file, position):
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


def small_shards(folder, data):
    """A store of fc6/codes, of which the last shard is of zeros alone."""
    with new_store(folder / "x.zarr") as group:
        group.create_group("fc6").create_array(
            "codes", shape=(12, 6), dtype=data.dtype, chunks=(2, 6), shards=(4, 6),
            compressors=stores.COMPRESSORS, fill_value=0,
        )[:8] = data  # fmt: skip
    return open_store(folder / "x.zarr")


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("harm", HARMS)
def test_no_way_of_reading_takes_damage_for_numbers(tmp_path, rng, harm, dtype):
    data = rng.integers(1, 2, (8, 6)).astype(dtype)
    store = small_shards(tmp_path, data)
    whole = np.concatenate([data, np.zeros((4, 6), dtype)])
    read = {name: way(store["fc6/codes"]) for name, way in WAYS.items()}
    np.testing.assert_array_equal(read["[...]"], whole)
    np.testing.assert_array_equal(read["iterated"], whole)
    np.testing.assert_array_equal(read["oindex"], whole[ROWS])
    np.testing.assert_array_equal(read["vindex"], whole[ROWS, ROWS % 6])
    np.testing.assert_array_equal(read["mask"], whole[MASK])
    spoil, message = HARMS[harm]
    spoil(tmp_path / "x.zarr/fc6/codes/c/0/0")
    fault = rf"x\.zarr/fc6/codes: rows 0 to 4 cannot be read: its shard c/0/0 {message}.*forcerun"
    for way in WAYS.values():
        with pytest.raises(StoreError, match=fault):
            way(store["fc6/codes"])
    for reach in REACHED.values():
        array = reach(open_store(tmp_path / "x.zarr"))
        assert isinstance(array, CheckedArray)
        with pytest.raises(StoreError, match=fault):
            array.oindex[ROWS]
        # What the selection does not touch is not asked for.
        np.testing.assert_array_equal(array.oindex[np.array([4, 7, 11])], whole[[4, 7, 11]])


def test_what_a_store_holds_is_listed_in_order_and_in_whole(tmp_path):
    with new_store(tmp_path / "x.zarr") as group:
        for layer in ("conv10", "conv2", "conv1"):
            save(group.create_group(layer), "mean", np.ones(3), ("unit",))
        save(group, "image_index", np.arange(3), ("image",))
    store = open_store(tmp_path / "x.zarr")
    assert list(store) == list(store.keys()) == ["conv1", "conv2", "conv10", "image_index"]
    assert [name for name, _ in store.members(max_depth=None)][:2] == ["conv1", "conv1/mean"]
    assert all(isinstance(group, Store) for group in store.group_values())
    assert "conv2" in store
    assert "conv2/mean" in store
    assert "conv3" not in store
    shutil.rmtree(tmp_path / "x.zarr/conv2")
    missing = r"x\.zarr/conv2(/mean)? is missing; make it again"
    for read in (
        list, lambda s: list(s.groups()), lambda s: list(s.array_values()), lambda s: s.members(),
        lambda s: "conv2" in s, lambda s: s.get("conv2"), lambda s: s["conv2/mean"],
    ):  # fmt: skip
        with pytest.raises(StoreError, match=missing):
            read(store)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("conv9", r"x\.zarr: no conv9 here; it holds conv1, conv2, fc6\. Did you mean conv"),
        ("conv9/mean", r"x\.zarr: no conv9 here; it holds conv1, conv2, fc6\. Did you mean conv"),
        ("fc6/maen", r"x\.zarr/fc6: no maen here; it holds mean, std\. Did you mean mean\?"),
        ("fc6/mean/0", r"x\.zarr/fc6/mean: no 0 here; it holds nothing$"),
        ("softmax", r"x\.zarr: no softmax here; it holds conv1, conv2, fc6$"),
    ],
)
def test_a_wrong_name_is_a_wrong_name(tmp_path, path, message):
    """Whoever mistypes a layer must not be told to make 40 GB again."""
    with new_store(tmp_path / "x.zarr") as group:
        for layer in ("fc6", "conv2", "conv1"):
            for name in ("std", "mean"):
                save(
                    group.create_group(layer, overwrite=False) if name == "std" else group[layer],
                    name,
                    np.ones(3),
                    ("unit",),
                )
    store = open_store(tmp_path / "x.zarr")
    with pytest.raises(StoreError, match=message) as error:
        store[path]
    assert isinstance(error.value, KeyError)
    assert not re.search("again|delete|forcerun|damage", str(error.value))
    assert store.get(path, 5) == 5
    if path == "fc6/maen":
        with pytest.raises(UnknownNameError, match=message):
            store["fc6"]["maen"]


def test_faults_of_the_caller_are_no_damage(tmp_path, monkeypatch):
    array = small_shards(tmp_path, np.ones((8, 6)))["fc6/codes"]
    for select in (
        lambda: array[12], lambda: array[-13], lambda: array[0, 6], lambda: array.oindex[[3, 12]],
        lambda: array.vindex[[3], [6]], lambda: array[::-1], lambda: array[0, 0, 0],
        lambda: array.blocks[7],
    ):  # fmt: skip
        with pytest.raises(IndexError) as error:
            select()
        assert not isinstance(error.value, StoreError)
    with pytest.raises(TypeError, match="NDBuffer"):
        array.get_basic_selection(slice(0, 3), out=np.empty((3, 6)))
    small = zarr.core.buffer.default_buffer_prototype().nd_buffer.empty((3, 6), np.dtype("u1"))
    with suppress(Exception):  # whatever Zarr makes of another dtype
        array.get_basic_selection(slice(0, 3), out=small)
    with pytest.raises(TypeError):
        open_store(tmp_path / "x.zarr")[0]


# What the pipeline below may raise though all is well on the disk, and what comes of it.
FAILURES = {
    "memory": (MemoryError("no room"), MemoryError, "no room"),
    "stale": (OSError(errno.ESTALE, "Stale file handle"), ReadingError, "Stale.*try again, and"),
    "disk": (
        OSError(errno.EIO, "Input/output error"),
        ReadingError,
        "Input/output.*check the disk",
    ),
    "by zarrs": (RuntimeError("IO error (os error 5)"), ReadingError, "os error 5.*check the disk"),
    "refused": (RuntimeError("denied (os error 13)"), ReadingError, "give yourself permission"),
    "threads": (RuntimeError("can't start new thread"), ReadingError, "new thread; try again"),
    "interrupt": (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_system_is_no_damage(tmp_path, monkeypatch, failure):
    array = small_shards(tmp_path, np.ones((8, 6)))["fc6/codes"]
    raised, kind, message = FAILURES[failure]

    async def read(*_, **__):
        raise raised

    def interrupted(*_, **__):
        raise raised

    if isinstance(raised, KeyboardInterrupt):
        monkeypatch.setattr("zarr.core.array.sync", interrupted)
    else:
        monkeypatch.setattr(type(array.async_array.codec_pipeline.pipeline), "read", read)
    with pytest.raises(kind, match=message) as error:
        array[0]
    assert type(error.value) is kind
    assert not re.search("again:|delete|forcerun|damage", str(error.value))


def test_what_fails_once_is_no_damage(tmp_path, monkeypatch):
    """A shard is damaged only if it cannot be read by itself either."""
    array = small_shards(tmp_path, np.ones((8, 6)))["fc6/codes"]
    pipeline, fails = type(array.async_array.codec_pipeline.pipeline), [True]
    read = pipeline.read

    async def once(*arguments, **options):
        if fails.pop() if fails else False:
            raise RuntimeError("the checksum is invalid")
        return await read(*arguments, **options)

    monkeypatch.setattr(pipeline, "read", once)
    with pytest.raises(RuntimeError, match=r"^the checksum is invalid$"):
        array[0]
    np.testing.assert_array_equal(array[0], np.ones(6))


def test_what_may_not_be_read_is_named(tmp_path, unprivileged):
    store = small_shards(tmp_path, np.ones((8, 6)))
    shard = tmp_path / "x.zarr/fc6/codes/c/0/0"
    with unprivileged(shard):
        with pytest.raises(ReadingError, match=r"shard c/0/0: .*denied.*permission to read it"):
            store["fc6/codes"][0]
        with (
            pytest.raises(ReadingError, match="permission to read it"),
            writing(shard.parents[4] / "y"),
        ):
            store["fc6/codes"].oindex[ROWS]
    with (
        unprivileged(tmp_path / "x.zarr/fc6/codes/c"),
        pytest.raises(ReadingError, match=r"shard c/0/0: .*denied.*permission to read it"),
    ):
        store["fc6/codes"][0]
    for path, read in {
        "x.zarr/zarr.json": lambda: open_store(tmp_path / "x.zarr"),
        "x.zarr/fc6": lambda: store["fc6/codes"],
        "x.zarr/fc6/codes/zarr.json": lambda: store["fc6/codes"],
    }.items():
        with (
            unprivileged(tmp_path / path),
            pytest.raises(ReadingError, match=r"cannot be read.*denied.*permission to read it"),
        ):
            read()


def test_a_finished_store_is_not_written_to(tmp_path):
    array = small_shards(tmp_path, np.ones((8, 6)))["fc6/codes"]
    for write in (
        lambda: array.__setitem__(0, 5), lambda: array.set_basic_selection(slice(2), 5),
        lambda: array.oindex.__setitem__(ROWS, 5), lambda: array.append(np.ones((1, 6))),
    ):  # fmt: skip
        with pytest.raises((StoreError, ValueError), match=r"finished|read-only"):
            write()
    array = open_store(tmp_path / "x.zarr")["fc6/codes"]
    assert array.shape == (12, 6)
    np.testing.assert_array_equal(array[:8], np.ones((8, 6)))


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (
            None,
            "has format 1, .*reads format 2; an earlier version made it.*from the trained weights",
        ),
        (1, "has format 1, .*reads format 2; an earlier version made it.*from the trained weights"),
        (3, "has format 3, .*reads format 2; a newer version made it. Use that version, or"),
    ],
)
def test_a_store_of_another_format_is_refused_and_left(tmp_path, number, message):
    """By hand, as the version before wrote it."""
    assert FORMAT == 2
    group = zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=3)
    group.create_array("fc6", data=np.arange(3))
    group.attrs.update({"complete": True} | ({} if number is None else {"format": number}))
    with pytest.raises(StoreError, match=rf"x\.zarr: {message}") as error:
        open_store(tmp_path / "x.zarr", {"seed": 1})
    assert "delete" not in str(error.value)
    np.testing.assert_array_equal(group["fc6"][...], np.arange(3))
    with new_store(tmp_path / "x.zarr") as target:
        save(target, "fc6", np.arange(4), ("unit",))
    store = open_store(tmp_path / "x.zarr")
    assert store.attrs["format"] == FORMAT
    assert store["fc6"].shape == (4,)


def test_a_store_of_others_has_no_mark(tmp_path):
    group = zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=3)
    group.create_array("fc6", data=np.arange(3))
    with pytest.raises(
        StoreError, match=r"x\.zarr: incomplete, .* lacks the mark of a finished store"
    ):
        open_store(tmp_path / "x.zarr")
    for nothing in (tmp_path / "y.zarr", tmp_path, tmp_path / "x.zarr/zarr.json"):
        with pytest.raises(StoreError, match="no Zarr group here; run the step that makes it"):
            open_store(nothing)


def test_messages_name_stores_as_the_workflow_does(tmp_path, monkeypatch):
    (tmp_path / "results/digits").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    path = Path("results/digits")
    small_shards(path, np.ones((8, 6)))
    (path / "x.zarr/fc6/codes/c/0/0").unlink()
    with pytest.raises(StoreError) as error:
        open_store(path / "x.zarr")["fc6/codes"][0]
    assert str(error.value).startswith("results/digits/x.zarr/fc6/codes: rows 0 to 4")
    assert "snakemake command with --forcerun results/digits/x.zarr, or in Py" in str(error.value)


# A process that replaces a folder, and is killed before or after its n-th renaming beside it.
KILLED = """
import os, pathlib, signal, sys
from convergent.running.stores import writing

when, left = sys.argv[1], [int(sys.argv[2])]
renamed = os.replace

def replace(source, target):
    left[0] -= 1
    if when == "before" and left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    renamed(source, target)
    if when == "after" and left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)

os.replace = replace
with writing("x.zarr") as scratch:
    scratch.mkdir()
    (scratch / "a").write_text("new")
"""


def folder_of(path, text):
    path.mkdir()
    (path / "a").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("renaming", [1, 2, 3])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_leaves_one_whole_folder(tmp_path, when, renaming):
    folder_of(tmp_path / "x.zarr", "old")
    command = [sys.executable, "-c", KILLED, when, str(renaming)]
    done = subprocess.run(command, cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL
    whole = [p for p in tmp_path.iterdir() if p.name in ("x.zarr", ".x.old.zarr")]
    assert {(path / "a").read_text(encoding="utf-8") for path in whole} <= {"old", "new"}
    assert whole

    def fails():
        with writing(tmp_path / "x.zarr"):
            raise RuntimeError("fails")

    with pytest.raises(RuntimeError, match="fails"):
        fails()
    assert [path.name for path in tmp_path.iterdir()] == ["x.zarr"]
    new = (when, renaming) in {("after", 2), ("before", 3), ("after", 3)}
    assert (tmp_path / "x.zarr/a").read_text(encoding="utf-8") == ("new" if new else "old")
    with writing(tmp_path / "x.zarr") as scratch:
        folder_of(scratch, "newest")
    assert [path.name for path in tmp_path.iterdir()] == ["x.zarr"]
    assert (tmp_path / "x.zarr/a").read_text(encoding="utf-8") == "newest"


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
@pytest.mark.parametrize("renaming", [1, 2])
def test_a_failed_renaming_leaves_the_old_folder(tmp_path, monkeypatch, renaming, error):
    folder_of(tmp_path / "x.zarr", "old")
    replace, count = os.replace, []

    def fails(source, target):
        count.append(source)
        if len(count) == renaming:
            raise error
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(type(error)), writing(tmp_path / "x.zarr") as scratch:
        folder_of(scratch, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["x.zarr"]
    assert (tmp_path / "x.zarr/a").read_text(encoding="utf-8") == "old"


def test_a_store_that_was_set_aside_is_opened(tmp_path):
    with new_store(tmp_path / "x.zarr") as group:
        save(group, "a", np.arange(3), ("unit",))
    (tmp_path / "x.zarr").rename(tmp_path / ".x.old.zarr")
    np.testing.assert_array_equal(open_store(tmp_path / "x.zarr")["a"][...], np.arange(3))
    assert [path.name for path in tmp_path.iterdir()] == ["x.zarr"]


def test_one_who_opens_between_two_renamings_costs_the_writer_nothing(tmp_path, monkeypatch):
    with new_store(tmp_path / "x.zarr") as group:
        save(group, "a", np.arange(3), ("unit",))
    replace, opened = os.replace, []

    def opens(source, target):
        replace(source, target)
        if Path(target).name == ".x.old.zarr" and not opened:
            opened.append(open_store(tmp_path / "x.zarr"))

    monkeypatch.setattr(os, "replace", opens)
    with new_store(tmp_path / "x.zarr") as group:
        save(group, "a", np.arange(4), ("unit",))
    assert opened
    assert [path.name for path in tmp_path.iterdir()] == ["x.zarr"]
    np.testing.assert_array_equal(open_store(tmp_path / "x.zarr")["a"][...], np.arange(4))


def test_a_linked_folder_is_replaced_and_what_it_leads_to_stays(tmp_path):
    folder_of(tmp_path / "elsewhere", "old")
    (tmp_path / "x.zarr").symlink_to(tmp_path / "elsewhere")
    with writing(tmp_path / "x.zarr") as scratch:
        folder_of(scratch, "new")
    assert not (tmp_path / "x.zarr").is_symlink()
    assert (tmp_path / "x.zarr/a").read_text(encoding="utf-8") == "new"
    assert (tmp_path / "elsewhere/a").read_text(encoding="utf-8") == "old"


def test_a_read_decodes_in_the_thread_that_asks(tmp_path):
    code = (
        "import time, numpy as np; from convergent.running.stores import *\n"
        "a = open_store('x.zarr')['a']; a[...]\n"
        "cpu, wall = time.process_time(), time.perf_counter()\n"
        "for _ in range(5): a[...]\n"
        "print((time.process_time() - cpu) / (time.perf_counter() - wall))"
    )
    with new_store(tmp_path / "x.zarr") as group:
        data = np.random.default_rng(0).integers(0, 8, (20, 1000, 1000)).astype(np.float16)
        array = save(group, "a", data, ("a", "b", "c"))
        assert type(array.async_array.codec_pipeline).__name__ == "ZarrsCodecPipeline"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.3


ORIGIN = {"data": {"size": 32, "mean": (0.5, 1)}, "nets": {"net1": 1}, "model": {}}


@pytest.fixture
def recorded(tmp_path):
    """Path of a store that has an origin."""
    with new_store(tmp_path / "x.zarr") as group:
        save(group, "a", np.arange(3), ("row",))
    record_origin(tmp_path / "x.zarr", ORIGIN)
    return tmp_path / "x.zarr"


def test_a_store_says_what_made_it(recorded):
    store = open_store(recorded)
    assert store.attrs["origin"] == json.loads(json.dumps(ORIGIN))
    assert store["a"][...].tolist() == [0, 1, 2]
    record_origin(recorded, {"data": {"size": 3}})
    assert open_store(recorded).attrs["origin"] == {"data": {"size": 3}}
    assert not list(recorded.glob(".*"))


def test_a_store_is_of_a_run_whose_origin_contains_its_own(recorded):
    open_store(recorded, ORIGIN)
    nets = {"net1": 1, "net2": 2}
    open_store(recorded, ORIGIN | {"nets": nets, "units": {"pictures": {}}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"size": 227.0, "mean": [0.5, 1.0]}}, "(data.size: 32 there, 227.0 here);"),
        ({"data": {"size": 32}}, "(data.mean: [0.5, 1] there, absent here);"),
        ({"nets": {"net1": 5}}, "(nets.net1: 1 there, 5 here);"),
        ({"nets": {"net2": 1}}, "(nets.net1: 1 there, absent here);"),
        ({"model": {"kernel": 3}, "nets": {}}, "(model: {} there, absent here; nets.net1: 1 there"),
    ],
)
def test_a_store_made_by_another_configuration_is_refused(recorded, change, message):
    with pytest.raises(StoreError) as error:
        open_store(recorded, ORIGIN | change)
    assert f"x.zarr: made by another configuration {message}" in str(error.value)
    assert "give this run another name (run), or make it again: run the same" in str(error.value)
    assert "delete" not in str(error.value)


def test_a_store_without_an_origin_is_refused_by_a_run(tmp_path):
    with new_store(tmp_path / "x.zarr") as group:
        group.attrs["made_by"] = ORIGIN  # as earlier versions wrote it
    open_store(tmp_path / "x.zarr")
    with pytest.raises(StoreError, match=r"x\.zarr: its origin is not recorded .*make it again"):
        open_store(tmp_path / "x.zarr", ORIGIN)


@pytest.mark.parametrize("full", ["before", "between", "at last"])
def test_a_full_disk_is_named_and_nothing_is_left(small_disk, rng, full):
    ballast = small_disk / "ballast"
    data = rng.normal(size=(20, 500, 1000)).astype(np.float16)

    def fill():
        with suppress(OSError):
            ballast.write_bytes(bytes(9 * 2**20))

    def record():
        if full == "before":
            fill()
        with new_store(small_disk / "x.zarr") as group:
            if full == "between":
                fill()
            save(group, "a", data, ("a", "b", "c"))

    with pytest.raises(DiskFullError, match=r"x\.zarr: its disk is full.*\d+ MB are free"):
        record()
    assert set(small_disk.iterdir()) <= {ballast}


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("StorageError: IO error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_known_by_either_writer(tmp_path, error):
    """As Python tells it, and as zarrs does."""

    def write():
        with new_store(tmp_path / "x.zarr") as group:
            save(group, "a", np.arange(3), ("unit",))
            raise error

    with pytest.raises(DiskFullError, match=r"x\.zarr: its disk is full, \d+ MB are free"):
        write()
    assert not list(tmp_path.iterdir())


def reachable(folder):
    """Let other users enter a temporary folder: pytest keeps its folders to one user."""
    for path in (folder, *folder.parents):
        if Path(tempfile.gettempdir()) in path.parents:
            path.chmod(0o755)


@pytest.fixture
def unprivileged(tmp_path):
    """What takes from this process the right to read a file or folder, for a while."""
    reachable(tmp_path)
    tmp_path.chmod(0o777)

    @contextmanager
    def without(path):
        mode, user = path.stat().st_mode, os.geteuid()
        path.chmod(0)
        if user == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(user)
            path.chmod(mode)

    return without


@pytest.fixture
def unwritable(tmp_path):
    """A folder in which this process may read but not write, as any but root may not."""
    folder = tmp_path / "unwritable"
    folder.mkdir()
    (folder / "x.csv").write_text("old", encoding="utf-8")
    with new_store(folder / "x.zarr") as group:
        save(group, "a", np.arange(3), ("unit",))
    reachable(tmp_path)
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)


@pytest.mark.parametrize("kind", ["unwritable", "small_disk"])
def test_where_nothing_may_be_written_the_old_stays(request, kind):
    """For want of permission, and on a disk that is read-only."""
    folder = request.getfixturevalue(kind)
    if kind == "small_disk":
        (folder / "x.csv").write_text("old", encoding="utf-8")
        with new_store(folder / "x.zarr") as group:
            save(group, "a", np.arange(3), ("unit",))
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)

    def csv():
        with writing(folder / "x.csv") as path:
            path.write_text("new", encoding="utf-8")

    def torch_file():
        with writing(folder / "x.pt") as path, open(path, "wb") as file:
            torch.save({}, file)

    def store(name):
        with new_store(folder / name) as group:
            save(group, "a", np.arange(4), ("unit",))

    for write, name in (
        (csv, "x.csv"), (torch_file, "x.pt"), (lambda: store("x.zarr"), "x.zarr"),
        (lambda: store("deeper/y.zarr"), "deeper/y.zarr"),
    ):  # fmt: skip
        with pytest.raises(WritingError, match=rf"{name}: cannot be written .*give yourself"):
            write()
    assert sorted(p.name for p in folder.iterdir()) == ["x.csv", "x.zarr"]
    assert (folder / "x.csv").read_text(encoding="utf-8") == "old"
    np.testing.assert_array_equal(open_store(folder / "x.zarr")["a"][...], np.arange(3))


def test_what_cannot_be_read_is_not_taken_for_what_cannot_be_written(tmp_path):
    def write():
        with writing(tmp_path / "out/x.csv"):
            try:
                raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/0.png")
            except PermissionError as error:
                raise StoreError(f"cannot be read ({error})") from error

    with pytest.raises(StoreError, match=r"cannot be read .*/elsewhere"):
        write()


def test_of_those_that_wait_for_a_lock_only_the_last_goes_on(tmp_path):
    """As jobs of Snakemakes that were killed one after the other."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from convergent.running.files import file_lock\n"
        "with file_lock('lock', newest_wins=True):\n"
        "    print(sys.argv[1], file=open('ran', 'a'), flush=True)\n"
        "    while not Path('go').exists(): time.sleep(0.02)"
    )

    def start(name):
        command = [sys.executable, "-c", code, name]
        return subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)

    def ran():
        return (
            (tmp_path / "ran").read_text(encoding="utf-8").split()
            if (tmp_path / "ran").exists()
            else []
        )

    killed = start("killed")
    while not ran():
        time.sleep(0.02)
    killed.kill()
    killed.communicate()
    first = start("first")
    while "first" not in ran():
        time.sleep(0.02)
    waiting = []
    for name in ("second", "third"):
        waiting.append(start(name))
        assert "waiting for the process" in waiting[-1].stderr.readline()
    assert ran() == ["killed", "first"]
    (tmp_path / "go").touch()
    for process, code in ((first, 0), (waiting[0], 1), (waiting[1], 0)):
        message = process.communicate(timeout=60)[1]
        assert process.returncode == code
        assert ("SupersededError" in message) == (code == 1)
    assert ran() == ["killed", "first", "third"]


def ran_of_two(lock, ahead, monkeypatch):
    """Which of two go on whose steps up to the lock are forced to alternate.

    The second runs a step after each of the first, which was `ahead` steps before it (or behind
    it, below zero). Neither locks before both asked, and the second waits for the first.
    """
    turns = {name: threading.Semaphore(0) for name in "ab"}
    stepped, ran, at_lock = threading.Semaphore(0), [], set()

    def stop(name):
        stepped.release()
        assert turns[name].acquire(timeout=20)

    def come(name):
        def trace(frame, event, _):
            if frame.f_code.co_name not in ("file_lock", "come"):
                return None
            if event == "line" and frame.f_code.co_name == "file_lock" and name not in at_lock:
                stop(name)
            return trace

        sys.settrace(trace)
        try:
            with file_lock(lock, newest_wins=True):
                ran.append(name)
        except SupersededError:
            pass
        finally:
            sys.settrace(None)
            stepped.release()

    def lockf(*_):
        name = threading.current_thread().name
        at_lock.add(name)
        stop(name)

    monkeypatch.setattr(files.fcntl, "lockf", lockf)
    threads = {name: threading.Thread(target=come, args=name, name=name) for name in "ab"}

    def step(name):
        if name not in at_lock:
            turns[name].release()
            assert stepped.acquire(timeout=20)

    for thread in threads.values():
        thread.start()
        assert stepped.acquire(timeout=20)
    for _ in range(abs(ahead)):
        step("a" if ahead > 0 else "b")
    while at_lock != {"a", "b"}:
        step("a")
        step("b")
    for name, thread in threads.items():
        turns[name].release()
        thread.join(20)
    return ran


@pytest.mark.parametrize("ahead", [-20, -3, -2, -1, 0, 1, 2, 3, 20])
def test_of_two_that_come_at_once_exactly_one_goes_on(tmp_path, monkeypatch, ahead):
    (tmp_path / "lock").write_text(
        "an old ticket, longer than those of today " * 5, encoding="utf-8"
    )
    ran = ran_of_two(tmp_path / "lock", ahead, monkeypatch)
    assert len(ran) == 1
    if abs(ahead) == 20:
        assert ran == ["b" if ahead > 0 else "a"]


def test_of_many_that_come_at_once_exactly_one_goes_on(tmp_path):
    code = (
        "import os, time; from convergent.running import files\n"
        "for round in range(20):\n"
        "    asked, asks = os.pipe()\n"
        "    files.logger.warning = lambda *_: os.write(asks, b'w')\n"
        "    with files.file_lock('lock'):\n"
        "        start = time.time() + 0.05\n"
        "        for number in range(8):\n"
        "            if not os.fork():\n"
        "                time.sleep(max(0, start - time.time()))\n"
        "                try:\n"
        "                    with files.file_lock('lock', newest_wins=True):\n"
        "                        print(round, file=open('ran', 'a'), flush=True)\n"
        "                except files.SupersededError: pass\n"
        "                finally: os._exit(0)\n"
        "        waiting = b''\n"
        "        while len(waiting) < 8: waiting += os.read(asked, 8)\n"
        "    for number in range(8): os.wait()\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    assert (tmp_path / "ran").read_text(encoding="utf-8").split() == [
        str(round) for round in range(20)
    ]


def test_where_there_are_no_locks_nobody_waits(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "lockf", refuse)
    with file_lock(tmp_path / "lock", newest_wins=True):
        assert "has no locks" in caplog.text
        with file_lock(tmp_path / "lock"):
            pass


def test_stores_are_found_from_another_folder(tmp_path, monkeypatch):
    """Where a worker of a cluster reads what it was given."""
    monkeypatch.chdir(tmp_path)
    with new_store("x.zarr") as group:
        save(group, "a", np.arange(3.0), ("unit",))
    array = open_store("x.zarr")["a"]
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(array))[...], [0, 1, 2])


def text_without_encoding(tree):
    """Calls that read or write text in whatever encoding the machine prefers."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or any(k.arg == "encoding" for k in node.keywords):
            continue
        name = ast.unparse(node.func).rpartition(".")[2]
        mode = [*node.args[1:2], *(k.value for k in node.keywords if k.arg == "mode")]
        binary = any("b" in str(getattr(value, "value", "")) for value in mode)
        if name in ("read_text", "write_text") or (ast.unparse(node.func) == "open" and not binary):
            yield f"{node.lineno}: {ast.unparse(node)}"


def test_text_is_utf8_on_every_machine():
    root = Path(stores.__file__).parents[3]
    files = [
        path for part in ("workflow", "benchmarks", "tests") for path in (root / part).rglob("*.py")
    ]
    assert len(files) > 100
    found = {
        str(path.relative_to(root)): calls
        for path in files
        if (calls := list(text_without_encoding(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert not found
    for rules in [root / "Snakefile", *(root / "workflow/rules").glob("*.smk")]:
        for call in re.findall(r"(?:_text|\bopen)\([^()]*\)", rules.read_text(encoding="utf-8")):
            assert "encoding" in call


def test_nothing_advises_to_delete():
    """What cannot be read now may be good, and forty gigabytes."""
    root = Path(stores.__file__).parents[3]
    files = [
        path
        for kind in ("py", "js", "smk", "rst")
        for path in (root / "workflow").rglob(f"*.{kind}")
    ]
    files += [root / "README.md", root / "results/README.md", *(root / "docs").glob("*.md")]
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?i)\bdelete (it|them|the|this|that|your)\b|be deleted", text), path
