"""Moments of any pairs of layers are those of the activations, however they are read."""

import itertools
import tracemalloc

import numpy as np
import pytest
import torch
from precision import rounding
from test_statistics import write_store

from convergent.activations import from_stores, layer_pairs, statistics
from convergent.activations.blocks import Cut
from convergent.activations.grids import Grid, pooling
from convergent.activations.layer_pairs import Group, passes
from convergent.activations.moments import Moments, moments_of_layers
from convergent.inference import similarity
from convergent.inference.jackknife import jackknife
from convergent.measures.evidence import Evidence
from convergent.measures.registry import measure
from convergent.running.stores import StoreError, new_store, open_store, save

MEASURES = [measure(name) for name in ("cka", "semi_mean", "matching_mean")]
# Layers of the second net are named and shaped otherwise.
SHAPES_A = {"conv1": (6, 5, 8), "conv2": (6, 5, 4), "conv3": (3, 3, 5), "fc": (7,)}
SHAPES_B = {"stage1": (6, 5, 3), "stage2": (4, 3, 6), "head": (9,)}
IMAGES = 90


def made(rng, shapes):
    return {
        layer: np.maximum(rng.normal(size=(IMAGES, *shape)) + 0.3, 0).astype(np.float16)
        for layer, shape in shapes.items()
    }


@pytest.fixture
def nets(rng, tmp_path):
    a, b = made(rng, SHAPES_A), made(rng, SHAPES_B)
    b["stage1"] += a["conv1"][..., 2:5]
    b["stage2"][..., 1] = 0
    # Far from zero, so that units are shifted.
    b["head"][:, 2] += 200
    paths = [write_store(tmp_path / f"{n}.zarr", d, chunk_rows=7) for n, d in (("a", a), ("b", b))]
    return a, b, *paths


def on_grid(x, shape):
    """Mean or adaptive average pooling in float64, by PyTorch."""
    x = x.astype(np.float64)
    if x.shape[1:-1] == shape:
        return x.reshape(-1, x.shape[-1])
    if not shape:
        return x.mean(axis=tuple(range(1, x.ndim - 1)))
    channels_first = torch.from_numpy(np.moveaxis(x, -1, 1))
    pooled = torch.nn.functional.adaptive_avg_pool2d(channels_first, shape)
    return np.moveaxis(pooled.numpy(), 1, -1).reshape(-1, x.shape[-1])


def common(x, y, unequal):
    one, two = x.shape[1:-1], y.shape[1:-1]
    if one == two:
        return one, "equal"
    if unequal == "pool" and len(one) == len(two):
        grid = tuple(map(min, one, two))
        return grid, f"pooled {grid[0]}x{grid[1]}"
    return (), "mean"


def pairs_of(a, b, pairs, stores, **options):
    x, y = ({k: open_store(s)[k] for k in d} for s, d in zip(stores, (a, b), strict=True))
    found = layer_pairs.layer_pairs(x, y, pairs, blocks=4, **options)
    return {(p.layer_a, p.layer_b): p for p in found}


def totals(pair):
    return [blocks.total() for blocks in pair.blocks]


def check_moments(found, x, y, within):
    # Float32 sums: of at most a tile's samples, and in pooling of a few positions.
    near = 2 * rounding(x, y)
    exact = np.nan_to_num(np.corrcoef(x, y, rowvar=False))
    units = x.shape[1]
    for moments, expected in zip(
        (found, *within),
        (exact[:units, units:], exact[:units, :units], exact[units:, units:]),
        strict=True,
    ):
        np.testing.assert_allclose(moments.correlation(), expected, atol=near)
    np.testing.assert_allclose(found.mean_x, x.mean(axis=0), rtol=near)
    np.testing.assert_allclose(found.var_y, y.var(axis=0), rtol=10 * near)
    assert found.count == len(x)


@pytest.mark.parametrize("unequal", ["pool", "mean"])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_all_pairs_are_those_of_the_activations_in_float64(nets, unequal):
    a, b, *stores = nets
    pairs = list(itertools.product(a, b))
    found = pairs_of(a, b, pairs, stores, unequal=unequal)
    assert list(found) == pairs
    edges = np.linspace(0, IMAGES, 5).astype(int)
    for (one, two), pair in found.items():
        grid, how = common(a[one], b[two], unequal)
        assert pair.grid == how
        for blocks in pair.blocks:
            np.testing.assert_array_equal(blocks.cut.edges, edges)
        x, y = on_grid(a[one], grid), on_grid(b[two], grid)
        between, *within = totals(pair)
        check_moments(between, x, y, within)
        samples = len(x) // IMAGES
        without = zip(*(blocks.leave_one_out() for blocks in pair.blocks), strict=True)
        for (start, stop), three in zip(itertools.pairwise(edges), without, strict=True):
            gone = np.arange(start * samples, stop * samples)
            check_moments(three[0], *(np.delete(z, gone, axis=0) for z in (x, y)), three[1:])


@pytest.mark.parametrize("leaf_bytes", [1, 5000, 10**9])
@pytest.mark.parametrize("entries", [1, 100, 10**9])
def test_leaves_threads_and_passes_do_not_matter(nets, monkeypatch, leaf_bytes, entries):
    a, b, *stores = nets
    pairs = list(itertools.product(a, b))
    expected = pairs_of(a, b, pairs, stores)
    monkeypatch.setattr(from_stores, "LEAF_BYTES", leaf_bytes)
    monkeypatch.setattr(layer_pairs, "LEAF_BYTES", leaf_bytes)
    monkeypatch.setattr(layer_pairs, "ENTRIES", entries)
    shares = []
    found = pairs_of(a, b, pairs, stores, workers=3, step=shares.append)
    assert sum(shares) == pytest.approx(1)
    for pair, other in found.items():
        near = 2 * rounding(*(on_grid(d[k], ()) for d, k in zip((a, b), pair, strict=True)))
        for x, y in zip(totals(other), totals(expected[pair]), strict=True):
            np.testing.assert_allclose(x.correlation(), y.correlation(), atol=near)


def test_kept_moments_within_layers_are_used_only_on_their_own_grid(nets, tmp_path):
    a, b, *stores = nets
    for name, store, layers in zip("ab", stores, (a, b), strict=True):
        statistics.write_statistics(
            store, tmp_path / f"s{name}.zarr", list(layers), blocks=4, samples=60
        )
    kept = tuple(dict(open_store(tmp_path / f"s{name}.zarr").groups()) for name in "ab")
    pairs = list(itertools.product(a, b))
    found, expected = (pairs_of(a, b, pairs, stores, kept=k) for k in (kept, ({}, {})))
    for pair, of in found.items():
        near = 2 * rounding(*(on_grid(d[k], ()) for d, k in zip((a, b), pair, strict=True)))
        for x, y in zip(totals(of), totals(expected[pair]), strict=True):
            assert x.count == y.count
            np.testing.assert_allclose(x.correlation(), y.correlation(), atol=near)


def test_only_the_pairs_that_are_asked_for_are_multiplied():
    pairs = [("a", "x"), ("b", "y"), ("c", "x"), ("c", "y"), ("d", "x")]
    group = Group.of(Grid(()), pairs)
    products = [
        (x, y) for rows, columns in group.strips for x in group.a[rows] for y in group.b[columns]
    ]
    assert sorted(products) == sorted(pairs)
    assert len(Group.of(Grid(()), itertools.product("abc", "xyz")).strips) == 1


def test_passes_hold_no_more_than_their_entries_and_wide_pairs_have_coarser_blocks(monkeypatch):
    monkeypatch.setattr(layer_pairs, "ENTRIES", 10**6)
    units = {"narrow": 100, "middle": 900, "wide": 4096}
    pairs = list(itertools.product(units, units))
    found = passes(units, units, pairs, Cut.of(1000, 20))
    assert sorted(pair for _, some in found for pair in some) == sorted(pairs)
    for cut, some in found:
        assert len(some) == 1 or sum(units[x] * units[y] for x, y in some) <= 10**6
        assert len(cut.edges) - 1 == (4 if "wide" in itertools.chain(*some) else 20)


@pytest.mark.parametrize(("length", "pooled"), [(6, 3), (6, 4), (55, 13), (7, 7), (5, 1)])
def test_pooling_is_that_of_pytorch(rng, length, pooled):
    x = rng.normal(size=(1, 1, length))
    expected = torch.nn.functional.adaptive_avg_pool1d(torch.from_numpy(x), pooled)
    np.testing.assert_allclose(pooling(length, pooled) @ x[0, 0], expected[0, 0], rtol=1e-6)


def test_random_positions_of_other_maps_are_not_taken_for_the_same():
    same, other = Grid((4,), (6, 5)), Grid((4,), (3, 3))
    assert same.common(Grid((4,), (6, 5))) == same
    assert same.common(other) == Grid(())
    assert Grid((4,)).common(Grid((3,))) == Grid((3,))


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e25])
def test_units_of_any_scale_have_their_moments(rng, scale):
    x, y = rng.normal(size=(2, 300, 4))
    y[:, 1] = 0
    x, y = (np.float32(scale) * z.astype(np.float32) for z in (x, y))
    between, first, last = moments_of_layers(
        [x[:, :2], x[:, 2:]], [y[:, :3], y[:, 3:]], [(slice(0, 2), slice(0, 2))], [0, 3]
    )
    for found, sides in ((between, (x, y)), (first, (x[:, :2],)), (last, (y[:, 3:],))):
        expected = Moments.of(*sides)
        near = 2 * rounding(*sides)
        np.testing.assert_allclose(found.correlation(), expected.correlation(), atol=near)
        np.testing.assert_allclose(found.var_x, expected.var_x, rtol=near)


def test_a_rotated_or_permuted_layer_is_found_where_it_is(rng, tmp_path):
    shapes = {f"a{i}": (4, 4, 6) for i in range(3)} | {"a3": (20,), "a4": (20,)}
    a = {k: np.maximum(rng.normal(size=(200, *s)), 0).astype(np.float32) for k, s in shapes.items()}
    planted = {"a0": "b2", "a1": "b0", "a2": "b3", "a3": "b4", "a4": "b1"}
    b, permuted = {}, {"a1", "a4"}
    for one, two in planted.items():
        units = a[one].shape[-1]
        turn = np.linalg.qr(rng.normal(size=(units, units)))[0]
        turn = np.eye(units)[rng.permutation(units)] if one in permuted else turn
        b[two] = (a[one] @ turn).astype(np.float32)
    stores = [write_store(tmp_path / f"{n}.zarr", dict(sorted(d.items())))
              for n, d in (("a", a), ("b", b))]  # fmt: skip
    table = similarity.layer_table(MEASURES, *stores, sorted(a), sorted(b), blocks=4)
    assert list(table) == similarity.COLUMNS
    values = {name: rows.set_index(["layer_a", "layer_b"]) for name, rows in
              table[table["direction"] != "ba"].groupby("measure")}  # fmt: skip
    assert values.keys() == {measure.name for measure in MEASURES}
    for one, two in planted.items():
        best = {name: rows.loc[one]["value"].idxmax() for name, rows in values.items()}
        # No unit of a rotated layer has a partner, so only CKA must find it.
        assert best["cka"] == two
        assert values["cka"].loc[one, two]["value"] == pytest.approx(1, abs=1e-5)
        if one in permuted:
            assert set(best.values()) == {two}
            for name in ("semi_mean", "matching_mean"):
                assert values[name].loc[one, two]["value"] == pytest.approx(1, abs=1e-5)


def test_the_table_has_the_values_and_intervals_of_the_activations(nets):
    a, b, *stores = nets
    asked = [("conv3", "stage2"), ("conv1", "stage1"), ("fc", "stage1")]
    table = similarity.layer_table(MEASURES, *stores, list(a), list(b), asked, blocks=4)
    assert [*dict.fromkeys(zip(table["layer_a"], table["layer_b"], strict=True))] == asked
    assert [*dict.fromkeys(table["grid"])] == ["pooled 3x3", "equal", "mean"]
    assert [*dict.fromkeys(table["sample"])] == ["position", "image_mean"]
    edges = np.linspace(0, IMAGES, 5).astype(int)

    def value(row, rows):
        grid, _ = common(a[row.layer_a], b[row.layer_b], "pool")
        x, y = on_grid(a[row.layer_a][rows], grid), on_grid(b[row.layer_b][rows], grid)
        seen = Evidence(Moments.of(x, y), Moments.of(x), Moments.of(y))
        return seen.value(measure(row.measure), row.parameter or "", row.direction)

    for row in table.fillna({"parameter": ""}).itertuples():
        rows = np.arange(IMAGES)
        without = [value(row, np.delete(rows, rows[i:j])) for i, j in itertools.pairwise(edges)]
        whole = value(row, rows)
        expected = (whole, *jackknife(whole, without, np.diff(edges)))
        found = (row.value, row.standard_error, row.low, row.high)
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-5)
        np.testing.assert_allclose(row.value, whole, rtol=1e-4)


def test_memory_does_not_grow_with_the_images(rng, tmp_path, monkeypatch):
    monkeypatch.setattr(layer_pairs, "LEAF_BYTES", 2**18)
    peaks = []
    for images in (400, 1600):
        data = {f"l{i}": np.maximum(rng.normal(size=(images, 8, 8, 16)), 0).astype(np.float16)
                for i in range(3)}  # fmt: skip
        store = open_store(write_store(tmp_path / f"{images}.zarr", data, chunk_rows=16))
        arrays = {layer: store[layer] for layer in data}
        tracemalloc.start()
        list(layer_pairs.layer_pairs(arrays, arrays, [*itertools.product(data, data)], blocks=4))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
    assert peaks[1] < sum(each.nbytes for each in data.values())


def test_faults_of_stores_are_named(nets, rng, tmp_path):
    a, b, *stores = nets
    other = write_store(tmp_path / "o.zarr", made(rng, SHAPES_B), index=np.arange(IMAGES)[::-1])
    with pytest.raises(StoreError, match="order"):
        similarity.layer_table(MEASURES, stores[0], other, list(a), list(b))
    with pytest.raises(StoreError, match=r"no stage9 here.*Did you mean stage"):
        similarity.layer_table(MEASURES, *stores, list(a), ["stage9"])
    with pytest.raises(StoreError, match="cannot make 200 blocks"):
        similarity.layer_table(MEASURES, *stores, list(a), list(b), blocks=200)
    b["stage2"][70, 1, 1, 1] = np.nan
    bad = write_store(tmp_path / "bad.zarr", b)
    with pytest.raises(StoreError, match=r"bad.zarr/stage2: images.*NaN"):
        similarity.layer_table(MEASURES, stores[0], bad, list(a), list(b), blocks=4)
    with new_store(tmp_path / "few.zarr") as group:
        for layer, data in b.items():
            save(group, layer, data[:50], ("image", *"yxu"[4 - data.ndim :]))
    few = open_store(tmp_path / "few.zarr")
    with pytest.raises(StoreError, match=r"different numbers of images: 50, 90"):
        pairs_of(a, b, [("fc", "head")], [stores[0], few.store_path.store.root])
