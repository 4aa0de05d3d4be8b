"""Blocks of images are the same for every layer, net and pair; what is kept of them is exact."""

import itertools
from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from precision import rounding
from test_statistics import activations, exact, flat, write_store

from convergent.activations import blocks, statistics
from convergent.activations.blocks import Blocks, Cut, aligned, load_blocks, save_blocks
from convergent.activations.moments import Moments
from convergent.alignment import sparse_maps
from convergent.running.stores import StoreError, new_store, open_store


def test_edges_follow_from_images_and_blocks_alone():
    assert Cut.of(90, 4).edges.tolist() == [0, 22, 45, 67, 90]
    assert Cut.of(90, 4).half == 45
    # Of an odd number the first half has one more.
    assert Cut.of(10, 5).half == 6
    for images, number in ((3, 4), (10, 1)):
        with pytest.raises(ValueError, match=f"{number} blocks"):
            Cut.of(images, number)


@given(
    number=st.integers(2, 40),
    images=st.integers(40, 500),
    units=st.lists(st.integers(1, 3000), min_size=2, max_size=2),
)
def test_blocks_of_wide_layers_are_unions_of_the_common_ones(number, images, units):
    cut = Cut.of(images, number)
    narrow, wide = (cut.coarsen(n, n) for n in sorted(units))
    assert set(wide.edges) <= set(narrow.edges) <= set(cut.edges)
    for kept, width in ((narrow, min(units)), (wide, max(units))):
        assert kept.half == cut.half
        assert {0, cut.half, images} <= set(kept.edges)
        size = 4 * width**2 * (len(kept.edges) - 1)
        assert size <= blocks.BLOCKS_BYTES or len(kept.edges) == 3
        if size > blocks.BLOCKS_BYTES // 4:
            continue
        assert len(kept.edges) == len(cut.edges)


def of_rows(x, y, cut):
    parts = [Moments.of(x[i:j], y[i:j]) for i, j in itertools.pairwise(cut.edges)]
    return Blocks(cut, parts)


def assert_close(found, expected):
    assert found.count == expected.count
    for a, b in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("number", [2, 3, 8])
def test_halves_and_rests_are_those_of_their_rows(rng, number):
    x, y = rng.normal(size=(2, 60, 5))
    found = of_rows(x, y, Cut.of(60, number))
    assert_close(found.total(), Moments.of(x, y))
    for half, rows in zip(
        found.halves(), (slice(found.cut.half), slice(found.cut.half, 60)), strict=True
    ):
        assert_close(half, Moments.of(x[rows], y[rows]))
    rests = list(found.leave_one_out())
    assert len(rests) == number
    for rest, (i, j) in zip(rests, itertools.pairwise(found.cut.edges), strict=True):
        left = np.r_[0:i, j:60]
        assert_close(rest, Moments.of(x[left], y[left]))


def test_layers_are_compared_by_the_coarser_of_their_blocks(rng, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCKS_BYTES", 4 * 6 * 6 * 10)
    cut = Cut.of(60, 10)
    x, y = rng.normal(size=(60, 3)), rng.normal(size=(60, 12))
    fine, coarse = (of_rows(v, v, cut.coarsen(v.shape[1], v.shape[1])) for v in (x, y))
    assert len(fine.moments) > len(coarse.moments)
    for found, v in zip(aligned([fine, coarse]), (x, y), strict=True):
        np.testing.assert_array_equal(found.cut.edges, coarse.cut.edges)
        for moments, (i, j) in zip(
            found.moments, itertools.pairwise(coarse.cut.edges), strict=True
        ):
            assert_close(moments, Moments.of(v[i:j], v[i:j]))
    with pytest.raises(ValueError, match="different numbers of blocks"):
        aligned([fine, of_rows(x, x, Cut.of(60, 9))])
    with pytest.raises(ValueError, match="cannot be merged"):
        coarse.at(cut.edges)


@pytest.mark.parametrize("layer", ["conv1", "fc6"])
def test_stored_blocks_are_those_of_the_activations(rng, tmp_path, layer):
    a = activations(rng, 90, 8)
    b = activations(rng, 90, 8, share=a)
    for name, data in (("a", a), ("b", b)):
        write_store(tmp_path / name, data, chunk_rows=7)
    statistics.write_correlation(
        tmp_path / "a", tmp_path / "b", tmp_path / "c.zarr", [layer], blocks=4
    )
    found = load_blocks(open_store(tmp_path / "c.zarr")[layer])
    np.testing.assert_array_equal(found.cut.edges, [0, 22, 45, 67, 90])
    for moments, (i, j) in zip(found.moments, itertools.pairwise(found.cut.edges), strict=True):
        expected = Moments.of(flat(a[layer][i:j]), flat(b[layer][i:j]))
        assert moments.count == expected.count
        near = 2 * rounding(flat(a[layer][i:j]), flat(b[layer][i:j]))
        np.testing.assert_allclose(moments.mean_x, expected.mean_x, rtol=near)
        np.testing.assert_allclose(moments.var_y, expected.var_y, rtol=near)
        np.testing.assert_allclose(moments.correlation(), expected.correlation(), atol=near)
    near = rounding(flat(a[layer]), flat(b[layer]))
    np.testing.assert_allclose(found.total().correlation(), exact(a[layer], b[layer]), atol=near)


@pytest.mark.parametrize("scale", [1, 1e-30, 1e30])
def test_a_unit_correlates_one_with_itself_over_every_part(rng, tmp_path, scale):
    """Whatever its scale, as far as float32 holds the activations."""
    x = np.maximum(rng.normal(size=(300, 6)), 0)
    x[:, 3] += 100 * x[:, 3].std()
    x[:, 5] = 2
    x = (x * scale).astype(np.float32)
    cut = Cut.of(300, 6)
    with new_store(tmp_path / "s.zarr") as group:
        parts = [Moments.of(x[i:j]) for i, j in itertools.pairwise(cut.edges)]
        save_blocks(group, Blocks(cut, parts))
    found = load_blocks(open_store(tmp_path / "s.zarr"))
    for moments in (found.total(), *found.halves(), *found.leave_one_out()):
        np.testing.assert_array_equal(moments.correlation().diagonal(), [1, 1, 1, 1, 1, 0])


def test_nets_of_unequal_width_are_cut_alike(rng, tmp_path, monkeypatch):
    """Held-out losses are those of the halves of the images themselves."""
    monkeypatch.setattr(blocks, "BLOCKS_BYTES", 4 * 60 * 60 * 11)
    n = 1200
    x = np.maximum(rng.normal(size=(n, 60)), 0)
    x[: n // 2] += 2 * rng.random(60)
    y = np.maximum(x[:, :12] + x[:, 12:24], 0)
    for name, values in (("a", x), ("b", y)):
        write_store(tmp_path / name, {"fc6": values.astype(np.float32)}, chunk_rows=50)
        statistics.write_statistics(tmp_path / name, tmp_path / f"s{name}", ["fc6"], blocks=20)
    statistics.write_correlation(tmp_path / "a", tmp_path / "b", tmp_path / "c", ["fc6"], blocks=20)
    kept = [len(load_blocks(open_store(tmp_path / p)["fc6"]).moments) for p in ("sa", "sb", "c")]
    assert kept == [10, 20, 20]
    sparse_maps.write_mapping(
        tmp_path / "m", ["fc6"], [0], *(tmp_path / p for p in ("sa", "sb", "c")), threads=1
    )
    loss = open_store(tmp_path / "m")["fc6/ab/held_out_loss"][...]
    (x1, y1), (x2, y2) = (
        [(v[half] - v[half].mean(0)) / v[half].std(0) for v in (x, y)]
        for half in (slice(n // 2), slice(n // 2, n))
    )
    expected = ((y2 - x2 @ np.linalg.lstsq(x1, y1)[0]) ** 2).mean(0) / 2
    np.testing.assert_allclose(loss[0], expected, rtol=0.02, atol=1e-5)
    other = [tmp_path / "sb", tmp_path / "c"]
    statistics.write_statistics(tmp_path / "a", tmp_path / "s9", ["fc6"], blocks=9)
    with pytest.raises(StoreError, match=r"halves at different rows .*same statistics\.blocks"):
        sparse_maps.write_mapping(tmp_path / "m", ["fc6"], [0], tmp_path / "s9", *other)


def test_rests_of_two_blocks_are_the_blocks(rng):
    x = rng.normal(size=(10, 2))
    found = of_rows(x, x, Cut.of(10, 2))
    first, last = found.leave_one_out()
    assert first is found.moments[1]
    assert last is found.moments[0]
    assert reduce(Moments.merge, [last, first]).count == 10
