"""Nothing half-made carries a final name."""

import errno
import os
import pickle
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
import torch

from convergent.stores import (
    DiskFullError,
    StoreError,
    WritingError,
    as_json,
    new_store,
    open_store,
    save,
    writing,
)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("old")

    def fail():
        with writing(path) as scratch:
            scratch.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == "old"
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
        '{"zarr_format": 3, "node_type": "group", "attributes": {}}'), "incomplete"),
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


def test_a_read_decodes_in_the_thread_that_asks(tmp_path):
    code = (
        "import time, numpy as np; from convergent.stores import *\n"
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


def test_a_store_made_by_another_configuration_is_refused(tmp_path):
    made_by = {"data": {"size": 32, "mean": (0.5, 1)}, "net": "net1", "model": {}}
    with new_store(tmp_path / "x.zarr") as group:
        group.attrs["made_by"] = as_json(made_by)
    open_store(tmp_path / "x.zarr", made_by)
    open_store(tmp_path / "x.zarr")
    other = {"data": {"size": 227.0, "mean": [0.5, 1.0], "root": "d"}, "net": "net1"}
    with pytest.raises(StoreError) as error:
        open_store(tmp_path / "x.zarr", other)
    differences = "data.root: absent there, d here; data.size: 32 there, 227.0 here; model: {}"
    assert differences in str(error.value)
    assert "mean" not in str(error.value)
    assert "delete it and run its rule again" in str(error.value)


def test_a_store_that_does_not_say_what_made_it_is_refused_when_asked(tmp_path):
    with new_store(tmp_path / "x.zarr"):
        pass
    with pytest.raises(StoreError, match=r"x\.zarr: made by another .*size: absent there, 3 here"):
        open_store(tmp_path / "x.zarr", {"size": 3})


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


@pytest.fixture
def unwritable(tmp_path):
    """A folder in which this process may read but not write, as any but root may not."""
    folder = tmp_path / "unwritable"
    folder.mkdir()
    (folder / "x.csv").write_text("old")
    with new_store(folder / "x.zarr") as group:
        save(group, "a", np.arange(3), ("unit",))
    for path in (tmp_path, *list(tmp_path.parents)[:2]):
        path.chmod(0o755)
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
        (folder / "x.csv").write_text("old")
        with new_store(folder / "x.zarr") as group:
            save(group, "a", np.arange(3), ("unit",))
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)

    def csv():
        with writing(folder / "x.csv") as path:
            path.write_text("new")

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
    assert (folder / "x.csv").read_text() == "old"
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
        "import sys, time; from pathlib import Path; from convergent.stores import alone\n"
        "with alone('lock', last=True):\n"
        "    print(sys.argv[1], file=open('ran', 'a'), flush=True)\n"
        "    while not Path('go').exists(): time.sleep(0.02)"
    )

    def start(name):
        command = [sys.executable, "-c", code, name]
        return subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)

    def ran():
        return (tmp_path / "ran").read_text().split() if (tmp_path / "ran").exists() else []

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


def test_stores_are_found_from_another_folder(tmp_path, monkeypatch):
    """Where a worker of a cluster reads what it was given."""
    monkeypatch.chdir(tmp_path)
    with new_store("x.zarr") as group:
        save(group, "a", np.arange(3.0), ("unit",))
    array = open_store("x.zarr")["a"]
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(array))[...], [0, 1, 2])
