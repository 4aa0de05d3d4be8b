"""Nothing half-made carries a final name."""

import numpy as np
import pytest

from convergent.stores import new_store, open_store, read, save, writing


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
    np.testing.assert_array_equal(read(store["a2"]), np.full((3, 2), 2.0))


@pytest.mark.parametrize("shape", [(3,), (5, 7), (20, 300, 300), (2, 3000, 1000)])
def test_arrays_of_any_shape_come_back(tmp_path, rng, shape):
    data = rng.normal(size=shape).astype(np.float32)
    with new_store(tmp_path / "x.zarr") as group:
        array = save(group, "a", data, tuple("abc"[: len(shape)]))
        assert np.prod(array.chunks) * 4 <= 4 * 2**20
        assert array.shards is not None
    np.testing.assert_array_equal(open_store(tmp_path / "x.zarr")["a"][...], data)
