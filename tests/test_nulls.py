"""Nulls are what they say: rotated and turned layers, and no more alike than chance."""

import tracemalloc

import numpy as np
import pytest
from comparing import comparison, dissimilarities, evidence, flat, image_means
from precision import rounding
from scipy import stats
from test_statistics import write_store

from convergent.activations import from_stores
from convergent.activations.blocks import Cut
from convergent.activations.codes import discretize
from convergent.activations.moments import Moments
from convergent.activations.samples import Samples
from convergent.inference import nulls, turned_images
from convergent.inference.nulls import (
    chance,
    fewest_draws,
    random_rotation,
    rotations,
    too_few_draws,
)
from convergent.inference.turned_images import kept_samples, turns
from convergent.measures.evidence import Evidence, Split
from convergent.measures.registry import Undefined, measure
from convergent.running.stores import StoreError, new_store, open_store, save

# A right test fails by chance in one of 10,000 sets of draws.
FALSE_ALARM = 1e-4


def relu_layers(rng, images=60, positions=(3, 2), units=(7, 9)):
    """Two layers with common units, a dead unit, and one that never fires in the first half."""
    x = np.maximum(rng.normal(size=(images, *positions, units[0])), 0)
    y = np.maximum(rng.normal(size=(images, *positions, units[1])) * np.arange(1, units[1] + 1), 0)
    y[..., 2:5] += 3 * x[..., :3]
    y[..., 1] = 0
    y[: images // 2, ..., 6] = 0
    return x.astype(np.float32), y.astype(np.float32)


def rotation(seed, draw, units=8):
    """The matrix of a draw."""
    seeds = np.random.SeedSequence(seed, spawn_key=(draw,))
    return random_rotation(np.random.default_rng(seeds), units)


def same_moments(found, expected, near):
    assert found.count == expected.count
    for side in "xy":
        live = getattr(expected, f"var_{side}") > 0
        std = np.sqrt(getattr(expected, f"var_{side}"))
        error = np.abs(getattr(found, f"mean_{side}") - getattr(expected, f"mean_{side}"))
        assert (error <= near * (std + np.abs(getattr(expected, f"mean_{side}")))).all()
        variances = getattr(found, f"var_{side}"), getattr(expected, f"var_{side}")
        np.testing.assert_allclose(*variances, rtol=near)
        np.testing.assert_array_equal(variances[0] > 0, live)
    size = expected.count * np.sqrt(np.outer(expected.var_x, expected.var_y))
    assert (np.abs(found.comoment - expected.comoment) <= near * size).all()
    np.testing.assert_allclose(found.correlation(), expected.correlation(), atol=near)


@pytest.mark.parametrize("units", [1, 2, 5, 300])
def test_a_random_rotation_is_orthogonal_however_reflections_are_grouped(monkeypatch, units):
    found = []
    for group in (1, 2, 128):
        monkeypatch.setattr(nulls, "REFLECTIONS", group)
        found.append(random_rotation(np.random.default_rng(0), units))
    # Each of the products rounds by 2**-24 of entries below 1.
    near = 4 * units * 2.0**-24
    np.testing.assert_allclose(found[0] @ found[0].T, np.eye(units), atol=near)
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=near)


def test_random_rotations_are_uniformly_distributed():
    """A row of such a 3 x 3 matrix is uniform on the sphere, so that its entries are, too."""
    drawn = np.array([random_rotation(np.random.default_rng(i), 3) for i in range(1500)])
    for entry in np.ndindex(3, 3):
        values = drawn[:, *entry]
        assert stats.kstest(values, stats.uniform(-1, 2).cdf).pvalue > FALSE_ALARM / 9
    # Half of them are reflections, and the trace has the moments of Haar measure: 0 and 1.
    assert stats.binomtest(int((np.linalg.det(drawn) > 0).sum()), 1500).pvalue > FALSE_ALARM
    traces = np.trace(drawn, axis1=1, axis2=2)
    assert abs(traces.mean()) < 4 / np.sqrt(1500)
    assert abs((traces**2).mean() - 1) < 4 * np.std(traces**2) / np.sqrt(1500)


@pytest.mark.parametrize("scale", [1, 1e-20, 1e20])
def test_rotated_moments_are_those_of_rotated_activations(rng, scale):
    x, y = (z.astype(np.float64) for z in relu_layers(rng))
    y *= scale
    split = comparison(x, y, 5).split
    live = np.arange(9) != 1
    found = list(rotations(split, 3, 7, halves=True))
    assert len(found) == 3
    for draw, (whole, halves) in enumerate(found):
        q = rotation(7, draw)
        mixed = y.copy()
        mixed[..., live] = y[..., live] @ q.astype(np.float64)
        for part, rows in (
            (whole, slice(None)),
            (halves[0], slice(0, 36)),
            (halves[1], slice(36, None)),
        ):
            a, b = flat(x[rows]), flat(mixed[rows])
            near = 2 * rounding(a, b)
            for moments, expected in zip(
                part.moments, (Moments.of(a, b), Moments.of(a), Moments.of(b)), strict=True
            ):
                same_moments(moments, expected, near)
            np.testing.assert_array_equal(part.live[1], live)
            means = image_means(mixed[rows])
            # Of float64 means, mixed in float32.
            np.testing.assert_allclose(part.image_means[1], means, atol=scale * 9 * 9 * 2.0**-22)
        assert whole.dissimilarities is None
        assert whole.codes is None


def test_mixed_samples_are_binned_anew(rng, monkeypatch):
    x, y = relu_layers(rng)
    split = comparison(x, y).split
    drawn = list(rotations(split, 3, 1, values_b=flat(y), information_draws=2))
    assert [each.whole.codes is None for each in drawn] == [False, False, True]
    live = np.arange(9) != 1
    for draw, each in enumerate(drawn[:2]):
        q = rotation(1, draw).astype(np.float64)
        centred = flat(y).astype(np.float64) - split.whole.within_b.mean_x
        expected, _ = discretize(centred[:, live] @ q)
        codes_a, codes_b = each.whole.codes
        np.testing.assert_array_equal(codes_a, split.whole.codes[0])
        assert not codes_b[:, 1].any()
        # A value on an edge may round to its other side.
        assert (codes_b[:, live] != expected).mean() < 1e-3
        assert codes_b[:, live].max() == 19
        assert each.whole.matrix("mutual_information").shape == (7, 8)
    monkeypatch.setattr(nulls, "SAMPLES", 50)
    monkeypatch.setattr(nulls, "UNITS", 3)
    [small] = rotations(split, 1, 1, values_b=flat(y))
    # Products of other shapes may round otherwise.
    assert (small.whole.codes[1] != drawn[0].whole.codes[1]).mean() < 1e-3


def test_a_rotation_depends_on_its_number_and_not_on_what_else_is_drawn(rng):
    x, y = relu_layers(rng)
    split = comparison(x, y).split
    way = measure("semi_mean"), "correlation", "ab"

    def values(draws, seed, **options):
        return [each.value(*way) for each in rotations(split, draws, seed, **options)]

    five = values(5, 0)
    assert values(2, 0) == five[:2]
    assert values(5, 0, halves=True, values_b=flat(y)) == five
    assert len({*five, *values(5, 1), *values(5, [0, 1])}) == 15


def test_layers_without_live_units_are_not_rotated(rng):
    x, y = relu_layers(rng)
    y[:] = 3
    [found] = rotations(comparison(x, y).split, 1, 0)
    np.testing.assert_array_equal(found.whole.between.mean_y, 3)
    assert not found.whole.between.comoment.any()
    with pytest.raises(Undefined, match="varies"):
        found.whole.matrix("correlation")


def test_chance_counts_draws_that_are_as_alike():
    draws = np.arange(1.0, 20.0)
    assert chance(19.5, draws) == (10, 19, 1 / 20)
    assert chance(19, draws) == (10, 19, 2 / 20)
    assert chance(0.5, draws) == (10, 19, 1)
    assert chance(0.5, draws, higher_is_more_alike=False) == (10, 1, 1 / 20)
    # Equal but for rounding is as alike.
    assert chance(19 * (1 + 1e-12), draws).p == 2 / 20
    assert chance(19.5, [*draws, np.nan, np.nan]) == (10, 19, 1 / 20)
    np.testing.assert_array_equal(chance(np.nan, draws), [10, 19, np.nan])
    np.testing.assert_array_equal(chance(1, []), [np.nan] * 3)
    np.testing.assert_array_equal(chance(1, [np.nan]), [np.nan] * 3)


@pytest.mark.parametrize(("level", "fewest"), [(0.95, 19), (0.9, 9), (0.99, 99), (0.5, 1)])
def test_there_is_no_p_with_too_few_draws(rng, level, fewest):
    assert fewest_draws(level) == fewest
    draws = rng.normal(size=fewest)
    assert chance(10, draws, level=level).p == 1 / (fewest + 1)
    mean, high, p = chance(10, draws[:-1], level=level)
    assert np.isnan(p)
    if fewest > 1:
        assert (mean, high) == (draws[:-1].mean(), draws[:-1].max())
    assert too_few_draws(fewest, level) == ""
    assert f"which needs {fewest} at level" in too_few_draws(fewest - 1, level)


def test_levels_are_shares():
    with pytest.raises(ValueError, match=r"between 0 and 1, got 95"):
        chance(1, [0, 2], level=95)


@pytest.mark.parametrize("alike", [True, False])
def test_a_value_beyond_the_upper_end_is_significant_and_no_other(rng, alike):
    for draws in (19, 20, 39, 99, 150):
        null = rng.normal(size=draws)
        for value in rng.normal(scale=2, size=200):
            _, high, p = chance(value, null, alike, 0.95)
            assert (p <= 0.05) == (value > high if alike else value < high)


def assert_uniform(p, draws):
    """Whether 200 values of p are a sample from 1/(m+1), 2/(m+1), ... 1: in ten bins."""
    assert len(p) == 200
    ranks = np.round(np.array(p) * (draws + 1)).astype(int)
    counts = np.bincount((ranks - 1) * 10 // (draws + 1), minlength=10)
    assert stats.chisquare(counts).pvalue > FALSE_ALARM


def p_of(null, split, way, draws):
    values = [each.value(*way) for each in null]
    assert len(values) == draws
    return chance(split.value(*way), values, way[0].higher_is_more_alike).p


@pytest.mark.parametrize("name", ["semi_mean", "matching_mean"])
def test_p_of_rotation_is_uniform_if_the_basis_is_as_good_as_random(name):
    """Two nets see the same Gaussian space; the basis of one of them is drawn at random."""
    way = measure(name), "correlation", "ab" if name == "semi_mean" else ""
    found = []
    for trial in range(200):
        rng = np.random.default_rng(trial)
        x = rng.normal(size=(80, 5))
        y = (x + rng.normal(size=(80, 5))) @ stats.ortho_group(5, seed=rng).rvs()
        split = Split(Evidence(Moments.of(x, y), Moments.of(x), Moments.of(y)))
        found.append(p_of(rotations(split, 99, trial), split, way, 99))
    assert_uniform(found, 99)


def test_a_shared_basis_passes_every_rotation(rng):
    x = rng.normal(size=(300, 8))
    split = Split(evidence(x, x + 0.7 * rng.normal(size=x.shape)))
    for way in (("semi_mean", "correlation", "ab"), ("matching_mean", "correlation", "")):
        assert p_of(rotations(split, 99, 0), split, (measure(way[0]), *way[1:]), 99) == 0.01


@pytest.mark.parametrize("name", ["semi_mean", "cka"])
def test_p_of_turned_images_is_uniform_for_independent_nets(name):
    """Positions of an image are alike, so that p would be too small if they counted as images."""
    way = (measure(name), *(("correlation", "ba") if name == "semi_mean" else ("", "")))
    found = []
    for trial in range(200):
        rng = np.random.default_rng(trial)
        x, y = (rng.normal(size=(120, 1, u)) + 0.3 * rng.normal(size=(120, 4, u)) for u in (4, 3))
        a, b = flat(x), flat(y)
        split = Split(Evidence(Moments.of(a, b), Moments.of(a), Moments.of(b)))
        found.append(p_of(turns(split, x, y, 99, trial, cut=Cut.of(120, 4)), split, way, 99))
    assert_uniform(found, 99)


LAYERS = {
    "map": ((37, 4, 3, 6), (37, 4, 3, 8), np.float16),
    "vector": ((37, 6), (37, 5), np.float32),
    "wider a": ((37, 5, 9), (37, 5, 4), np.float32),
    "double": ((37, 6), (37, 8), np.float64),
}


def stored(tmp_path, rng, kind, chunk_rows=7):
    """Two layers in stores, with units of large means and of any scale, dead and half dead ones."""
    *shapes, dtype = LAYERS[kind]
    x, y = (np.maximum(rng.normal(size=shape), 0) for shape in shapes)
    y[..., :2] += x[..., 1:3]
    y[..., 0] += 20
    y[..., 2] = 0
    x[..., 0] = 5
    y[:15, ..., 3] = 0
    if kind == "double":
        x *= 10.0 ** np.linspace(-40, 40, x.shape[-1])
        y *= 10.0 ** np.linspace(-40, 40, y.shape[-1])
    x, y = x.astype(dtype), y.astype(dtype)
    names = zip("ab", (x, y), strict=True)
    paths = [
        write_store(tmp_path / f"{kind}{n}.zarr", {"l": z}, chunk_rows=chunk_rows) for n, z in names
    ]
    return x, y, *(open_store(path)["l"] for path in paths)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("held", ["both", "smaller", "neither"])
@pytest.mark.parametrize("workers", [1, 3])
def test_turned_moments_are_those_of_turned_images(rng, tmp_path, monkeypatch, kind, held, workers):
    x, y, a, b = stored(tmp_path, rng, kind)
    size = min(4 * x.size, 4 * y.size)
    if held != "both":
        monkeypatch.setattr(turned_images, "HELD_BYTES", size if held == "smaller" else size // 3)
        monkeypatch.setattr(turned_images, "DRAWS_BYTES", 1 if held == "smaller" else 2**12)
        monkeypatch.setattr(from_stores, "LEAF_BYTES", 1)
    split = comparison(x, y, 5).split
    cut = Cut.of(37, 5)
    options = {"cut": cut, "samples": Samples.random(0, 37, x[0, ..., 0].size, 10**6)}
    found = list(turns(split, a, b, 9, 3, **options, workers=workers))
    offsets = turned_images._offsets(37, 9, 3)
    assert len(set(offsets)) == len(found) == 9
    assert offsets.min() > 0
    for offset, (whole, halves) in zip(offsets, found, strict=True):
        turned = np.roll(y, -offset, axis=0)
        for part, rows in (
            (whole, slice(None)),
            (halves[0], slice(0, cut.half)),
            (halves[1], slice(cut.half, None)),
        ):
            one, other = flat(x[rows]), flat(turned[rows])
            three = Moments.of(one, other), Moments.of(one), Moments.of(other)
            for moments, expected in zip(part.moments, three, strict=True):
                same_moments(moments, expected, 2 * rounding(one, other))
            np.testing.assert_allclose(part.image_means[1], image_means(turned[rows]), rtol=1e-6)
            assert part.images == len(x[rows])
        both = [half.within_b.var_x > 0 for half in halves]
        np.testing.assert_array_equal(halves[0].live[1], both[0] & both[1])
        np.testing.assert_allclose(whole.dissimilarities[1], dissimilarities(turned), atol=1e-6)
        np.testing.assert_array_equal(whole.codes[0], split.whole.codes[0])
        codes = split.whole.codes[1].reshape(37, -1, y.shape[-1])
        np.testing.assert_array_equal(whole.codes[1], flat(np.roll(codes, -offset, axis=0)))


def test_samples_of_some_positions_are_read_where_images_are_turned(rng, tmp_path, monkeypatch):
    monkeypatch.setattr(from_stores, "LEAF_BYTES", 1)
    x, y, a, b = stored(tmp_path, rng, "map")
    samples = Samples.random(0, 37, 12, 100)
    codes_a, _ = discretize(samples.values(x, 0))
    codes_b, edges = discretize(samples.values(y, 0))
    split = comparison(x, y).split
    split = split._replace(whole=split.whole.seeing(split.whole.between, codes=(codes_a, codes_b)))
    options = {"cut": Cut.of(37, 5), "samples": samples}
    found = list(turns(split, a, b, 4, 0, **options, edges=edges, information_draws=3))
    assert [each.whole.codes is None for each in found] == [False] * 3 + [True]
    for offset, each in zip(turned_images._offsets(37, 3, 0), found[:3], strict=True):
        values = samples.values(np.roll(y, -offset, axis=0), 0)
        expected = (edges[None] < values[..., None]).sum(axis=2)
        np.testing.assert_array_equal(each.whole.codes[1], expected)
    [blind] = turns(split, a, b, 1, 0, **options)
    assert blind.whole.codes is None


def test_samples_are_found_again_in_stores(tmp_path):
    """Stores name images by their places in a data set, and positions by those in the map."""
    positions = np.array([[0, 5, 7], [1, 2, 11], [3, 4, 8]])
    with new_store(tmp_path / "a.zarr") as activations:
        save(activations, "l", np.zeros((3, 3, 2)), ("image", "position", "unit"))
        activations["l"].attrs["map"] = [3, 4]
        save(activations.create_group("positions"), "l", positions, ("image", "position"))
    statistics = {
        "image_index": np.array([40, 7, 9]),
        "l": {"sample_image": np.array([40, 7, 7, 9]), "sample_position": np.array([5, 1, 11, 8])},
    }
    found = kept_samples(statistics, open_store(tmp_path / "a.zarr"), "l")
    np.testing.assert_array_equal(found.image, [0, 1, 1, 2])
    np.testing.assert_array_equal(found.position, [1, 0, 2, 2])


def test_maps_of_different_sizes_are_turned_on_their_common_grid(rng):
    x, y = rng.normal(size=(20, 4, 4, 3)), rng.normal(size=(20, 2, 2, 5))
    pooled = x.reshape(20, 2, 2, 2, 2, 3).mean(axis=(2, 4))
    split = comparison(pooled, y, 4).split
    [found] = turns(split, x, y, 1, 0, cut=Cut.of(20, 4))
    turned = np.roll(y, -turned_images._offsets(20, 1, 0)[0], axis=0)
    near = 2 * rounding(flat(pooled), flat(y))
    same_moments(found.whole.between, Moments.of(flat(pooled), flat(turned)), near)


def test_turns_are_distinct_and_depend_on_their_number_only(rng):
    x, y = relu_layers(rng, images=9)
    split = comparison(x, y).split
    way = measure("semi_mean"), "correlation", "ab"

    def values(draws, seed, y=y):
        cut = Cut.of(9, 5)
        return [each.value(*way) for each in turns(split, x, y, draws, seed, cut=cut)]

    every = values(100, 0)
    # There are no more than eight turns of nine images, whatever the seed.
    assert len(every) == 8
    assert values(3, 0) == every[:3]
    np.testing.assert_allclose(sorted(values(100, 5)), sorted(every), rtol=1e-12)
    exact = [evidence(x, np.roll(y, -offset, axis=0)).value(*way) for offset in range(1, 9)]
    np.testing.assert_allclose(sorted(every), sorted(exact), rtol=1e-5)


def test_dissimilarities_of_some_images_are_turned_among_themselves(rng):
    x, y = relu_layers(rng)
    split = comparison(x, y).split
    some = tuple(dissimilarities(z[:6]) for z in (x, y))
    split = split._replace(whole=split.whole.seeing(split.whole.between, dissimilarities=some))
    found = [each.whole.dissimilarities for each in turns(split, x, y, 7, 0, cut=Cut.of(60, 5))]
    assert found[5:] == [None, None]
    turned = {tuple(d[1][0].round(4)) for d in found[:5]}
    expected = (np.roll(some[1], [k, k], axis=(0, 1)) for k in range(1, 6))
    assert turned == {tuple(each[0].round(4)) for each in expected}


class Counting:
    """Activations that count how often each image is read."""

    def __init__(self, values):
        self.values, self.shape, self.dtype = values, values.shape, values.dtype
        self.read = np.zeros(len(values), int)

    def __getitem__(self, rows):
        self.read[rows] += 1
        return self.values[rows]


def test_layers_are_read_as_seldom_as_memory_allows(rng, monkeypatch):
    x, y = rng.normal(size=(40, 3, 6)), rng.normal(size=(40, 3, 4))
    split = comparison(x, y, 4).split._replace(halves=None)

    def reads():
        a, b = Counting(x), Counting(y)
        list(turns(split, a, b, 9, 0, cut=Cut.of(40, 4)))
        return a.read.max(), b.read.max(), a.read.min(), b.read.min()

    assert reads() == (1, 1, 1, 1)
    monkeypatch.setattr(turned_images, "HELD_BYTES", 4 * y.size)
    assert reads() == (1, 1, 1, 1)
    # Two slices of the smaller layer, past each of which the larger streams.
    monkeypatch.setattr(turned_images, "HELD_BYTES", 2 * y.size)
    assert reads() == (2, 1, 2, 1)


def test_memory_of_turns_does_not_grow_with_the_images(rng, tmp_path, monkeypatch):
    monkeypatch.setattr(turned_images, "HELD_BYTES", 2**18)
    monkeypatch.setattr(from_stores, "LEAF_BYTES", 2**16)
    peaks = []
    for images in (300, 1200):
        x = np.maximum(rng.normal(size=(images, 8, 8, 12)), 0).astype(np.float16)
        array = open_store(write_store(tmp_path / f"{images}.zarr", {"l": x}, chunk_rows=8))["l"]
        within = Moments.of(flat(x))
        split = Split(Evidence(within, within, within))
        tracemalloc.start()
        list(turns(split, array, array, 5, 0, cut=Cut.of(images, 4)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < x.nbytes


def test_activations_that_are_not_numbers_or_of_other_images_are_refused(rng, tmp_path):
    x, y, a, b = stored(tmp_path, rng, "vector")
    split = comparison(x, y).split
    with pytest.raises(ValueError, match="a has 37 images, but 38 are cut"):
        next(turns(split, a, b, 1, 0, cut=Cut.of(38, 5)))
    bad = y.copy()
    bad[3, 3] = np.inf
    with pytest.raises(StoreError, match="NaN or infinity"):
        next(turns(split, a, bad, 1, 0, cut=Cut.of(37, 5)))
