"""Measures of images: unbiased CKA, mutual k-NN and RSA, and the dissimilarities under it."""

import itertools
import tracemalloc

import numpy as np
import pytest
from rsatoolbox.data import Dataset
from rsatoolbox.inference.noise_ceiling import boot_noise_ceiling
from rsatoolbox.rdm import RDMs, calc_rdm, compare
from scipy.stats import spearmanr
from test_statistics import write_store

from convergent.activations import inner_products as products
from convergent.activations.dissimilarities import dissimilarities
from convergent.activations.inner_products import inner_products
from convergent.measures import cka_unbiased, mutual_knn, rsa
from convergent.measures.noise_ceiling import noise_ceiling
from convergent.measures.registry import Undefined, measure
from convergent.running.stores import StoreError, open_store

BY_MEANS = [cka_unbiased, mutual_knn]
RSA = [(rsa.compute, rsa.without_blocks), (rsa.compute_cosine, rsa.cosine_without_blocks)]
WAYS = [*((module.compute, module.without_blocks) for module in BY_MEANS), *RSA]
# Both ways of computing products: by units, by images, and by units of a narrow layer.
SHAPES = [(90, 7, 12), (40, 130, 60), (40, 3, 500)]
# Of float32 products, whose sum is divided by a few times less.
NEAR = {"rtol": 1e-4, "atol": 1e-6}


def layers(rng, images, units_a, units_b, shared=5):
    """Means of two layers after a ReLU that share some of what they see."""
    seen = rng.normal(size=(images, shared))
    both = (seen @ rng.normal(size=(shared, n)) + rng.normal(size=n) for n in (units_a, units_b))
    return tuple(np.maximum(z + rng.normal(size=z.shape), 0).astype(np.float32) for z in both)


def song(x, y):
    """HSIC1, equation 5 of Song et al. (2012), by matrices of images."""
    n, one = len(x), np.ones(len(x))
    k, l = (z.astype(float) @ z.T for z in (x, y))  # noqa: E741
    np.fill_diagonal(k, 0)
    np.fill_diagonal(l, 0)
    pairs = (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
    return (np.trace(k @ l) + pairs - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3))


def matrix(rng, images, units=8):
    """Dissimilarities, some of them equal."""
    return np.round(1 - np.corrcoef(rng.normal(size=(images, units))), 1).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_unbiased_cka_is_the_definition_by_matrices_of_images(rng, shape):
    x, y = layers(rng, *shape)
    expected = song(x, y) / np.sqrt(song(x, x) * song(y, y))
    np.testing.assert_allclose(cka_unbiased.compute(x, y), expected, **NEAR)
    np.testing.assert_allclose(cka_unbiased.compute(x, x[:, ::-1]), 1, rtol=1e-6)
    # Units whose mean is far from 0 and which no float32 square holds.
    far = (y.astype(float) + 50) * 1e25
    np.testing.assert_allclose(cka_unbiased.compute(x, far), expected, **NEAR)


@pytest.mark.parametrize(("images", "units"), [(100, 40), (100, 300)])
def test_independent_layers_have_unbiased_cka_0_and_biased_cka_by_their_units(rng, images, units):
    found = []
    for _ in range(60):
        x, y = rng.normal(size=(2, images, units))
        k, l = (z @ z.T for z in (x - x.mean(axis=0), y - y.mean(axis=0)))  # noqa: E741
        biased = np.sum(k * l) / np.sqrt(np.sum(k * k) * np.sum(l * l))
        found.append((cka_unbiased.compute(x, y), biased))
    unbiased, biased = np.mean(found, axis=0)
    assert abs(unbiased) < 0.01
    assert biased == pytest.approx(units / (images + units), abs=0.01)


@pytest.mark.parametrize("images", [60, 6])
def test_dead_units_do_not_change_unbiased_cka(rng, images):
    x, y = layers(rng, images, 6, 9)
    wider = np.concatenate([y, np.full((images, 3), 2.1, np.float32)], axis=1)
    np.testing.assert_allclose(cka_unbiased.compute(x, wider), cka_unbiased.compute(x, y), **NEAR)


@pytest.mark.parametrize("module", BY_MEANS)
@pytest.mark.parametrize("value", [0, 2.1])
def test_a_dead_layer_is_like_none(rng, module, value):
    x, y = layers(rng, 50, 5, 6)
    dead = np.full_like(y, value)
    for pair in ((x, dead), (dead, x), (dead, dead)):
        assert module.compute(*pair) == 0
        assert not module.without_blocks(*pair, np.array([0, 20, 50])).any()


def test_unbiased_cka_has_no_value_where_a_layer_is_not_like_itself(rng):
    x, y = layers(rng, 8, 5, 6)
    with pytest.raises(Undefined, match="of a layer with itself is not positive"):
        cka_unbiased.compute(np.eye(8), y)
    with pytest.raises(Undefined, match="fewer than 4 images"):
        cka_unbiased.compute(x[:3], y[:3])
    with pytest.raises(Undefined, match="fewer than 4 images"):
        cka_unbiased.without_blocks(x, y, np.array([0, 5, 8]))
    # It varies in the images of one block only: what rounding leaves of the rest is no value.
    x[:4], x[4:] = rng.normal(size=(4, 5)), 0.3
    with pytest.raises(Undefined, match="of a layer with itself is not positive"):
        cka_unbiased.without_blocks(x, y, np.array([0, 4, 8]))


def brute_force(x, y, k=10):
    """Mean share of common nearest images, image by image."""
    both = []
    for z in (x, y):
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
        both.append([])
        for i, image in enumerate(z):
            others = [(-round(float(image @ other), 11), j) for j, other in enumerate(z) if j != i]
            both[-1].append({j for _, j in sorted(others)[:k]})
    return np.mean([len(a & b) / k for a, b in zip(*both, strict=True)])


@pytest.mark.parametrize("height", [1, 10**6])
def test_mutual_knn_is_the_share_of_common_neighbours(rng, monkeypatch, height):
    monkeypatch.setattr(mutual_knn, "BYTES", height)
    x, y = (z.astype(float) + 0.1 for z in layers(rng, 70, 6, 9))
    found = mutual_knn.compute(x, y)
    assert found == pytest.approx(brute_force(x, y), abs=1e-12)
    assert 10 / 69 < found < 1
    assert mutual_knn.compute(x, x[:, ::-1] * 3) == 1


def test_of_equally_near_images_the_first_count(rng):
    x = np.repeat(rng.normal(size=(9, 5)), 8, axis=0)[rng.permutation(72)]
    order = mutual_knn.nearest(x, 71)
    assert (np.sort(order, axis=1) == [np.delete(np.arange(72), i) for i in range(72)]).all()
    same = [[j for j in range(72) if j != i and (x[j] == x[i]).all()] for i in range(72)]
    np.testing.assert_array_equal(order[:, :7], same)
    # Images without direction are at right angles to all.
    assert mutual_knn.nearest(np.array([[0, 0], [2, 1], [-1, 0], [1, 2.0]]), 3).tolist() == [
        [1, 2, 3], [3, 0, 2], [0, 3, 1], [1, 0, 2]
    ]  # fmt: skip


def test_mutual_knn_of_unrelated_layers_is_that_of_random_neighbours(rng):
    found = [mutual_knn.compute(*rng.normal(size=(2, 200, 20))) for _ in range(10)]
    # The standard error of a value is below that of 2,000 independent neighbours.
    assert np.mean(found) == pytest.approx(10 / 199, abs=4 * np.sqrt(10 / 199 / 2000 / 10))
    with pytest.raises(Undefined, match="fewer than 11 images"):
        mutual_knn.compute(*rng.normal(size=(2, 10, 20)))
    with pytest.raises(Undefined, match="fewer than 11 images"):
        mutual_knn.without_blocks(*rng.normal(size=(2, 20, 4)), np.array([0, 8, 20]))


@pytest.mark.parametrize("edges", [[0, 20, 40, 60], [0, 1, 5, 45, 60]])
@pytest.mark.parametrize("way", WAYS, ids=["cka", "knn", "rsa", "cosine"])
def test_values_without_a_block_are_those_of_the_other_images(rng, way, edges):
    compute, without_blocks = way
    pairs = [layers(rng, 60, *units) for units in ((6, 8), (90, 70))]
    # Images that are the nearest of all others, and in one block.
    pairs[0][0][5:45] = 1 + 0.01 * pairs[0][0][5:45]
    if way in RSA:
        pairs = [(matrix(rng, 60), matrix(rng, 60))]
    for x, y in pairs:
        expected = []
        for start, stop in itertools.pairwise(edges):
            left = np.delete(np.arange(60), np.s_[start:stop])
            rest = (z[np.ix_(left, left)] if way in RSA else z[left] for z in (x, y))
            expected.append(compute(*rest))
        found = without_blocks(x, y, np.array(edges))
        np.testing.assert_allclose(found, expected, **NEAR)


def test_rsa_is_that_of_scipy_and_of_rsatoolbox(rng):
    a, b = matrix(rng, 30), matrix(rng, 30)
    b = np.round((a + b) / 2, 1)
    upper = np.triu_indices(30, 1)
    both = [RDMs(z[upper][None].astype(float)) for z in (a, b)]
    found = rsa.compute(a, b)
    assert found == pytest.approx(spearmanr(a[upper], b[upper]).statistic, abs=1e-12)
    assert found == pytest.approx(compare(*both, method="spearman").item(), abs=1e-12)
    assert rsa.compute_cosine(a, b) == pytest.approx(compare(*both, method="cosine").item())
    assert rsa.compute(a, np.exp(a)) == pytest.approx(1)


def test_rounding_does_not_rank_equal_dissimilarities(rng):
    a, b = matrix(rng, 30), matrix(rng, 30)
    noise = rng.uniform(-2e-7, 2e-7, size=a.shape).astype(np.float32)
    assert rsa.compute(a, b) == rsa.compute(a + noise, b)
    # Distinct dissimilarities lose next to nothing, even where all images are much alike.
    a, b = 1 - 0.01 * rng.random(size=(2, 200, 200))
    b += a
    upper = np.triu_indices(200, 1)
    assert rsa.compute(a, b) == pytest.approx(spearmanr(a[upper], b[upper]).statistic, abs=1e-4)


@pytest.mark.parametrize("way", RSA, ids=["spearman", "cosine"])
def test_rsa_of_images_that_are_all_alike_is_0(rng, way):
    a = matrix(rng, 12)
    none_alike = 1 - np.eye(12)
    for same in (np.zeros((12, 12)), none_alike):
        assert way[0](a, same) == way[0](same, a) == way[0](same, same) == 0
        assert not way[1](a, same, np.array([0, 6, 12])).any()
    with pytest.raises(Undefined, match="fewer than 3 images"):
        way[0](a[:2, :2], a[:2, :2])


@pytest.mark.parametrize(("name", "method"), [("rsa", "spearman"), ("rsa_cosine", "cosine")])
def test_the_ceiling_is_that_of_rsatoolbox(rng, name, method):
    common = matrix(rng, 20)
    nets = [np.round(common + matrix(rng, 20), 1) for _ in range(4)]
    upper = np.triu_indices(20, 1)
    stacked = RDMs(np.array([z[upper] for z in nets], float))
    expected = boot_noise_ceiling(stacked, method=method, rdm_descriptor="index")
    found = noise_ceiling(measure(name), nets)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert 0 < found.lower < found.upper < 1
    with pytest.raises(Undefined, match="a ceiling needs three nets"):
        noise_ceiling(measure(name), nets[:2])
    with pytest.raises(Undefined, match="equally dissimilar in one of the nets"):
        noise_ceiling(measure(name), [*nets, 0 * common])


@pytest.fixture
def layer(rng, tmp_path):
    """Store a layer; return its array in the store."""

    def stored(values):
        return open_store(write_store(tmp_path / "a.zarr", {"layer": values}, chunk_rows=7))[
            "layer"
        ]

    return stored


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("limit", [1, 5000, 10**9])
def test_dissimilarities_are_those_of_rsatoolbox(rng, monkeypatch, layer, dtype, limit):
    monkeypatch.setattr(products, "BLOCK_BYTES", limit)
    monkeypatch.setattr(products, "TILE", 50)
    values = np.maximum(rng.normal(size=(40, 6, 5, 4)), 0).astype(dtype)
    found, constant = dissimilarities(layer(values), images=31)
    assert found.dtype == np.float32
    assert constant == 0
    flat = values[:31].reshape(31, -1).astype(float)
    expected = calc_rdm(Dataset(flat), method="correlation").get_matrices()[0]
    # A few roundings of float32 numbers up to 1.
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(found, found.T)
    assert not found.diagonal().any()


@pytest.mark.parametrize("limit", [1, 5000, 10**9])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_flattened_unbiased_cka_is_the_definition_by_activations(
    rng, monkeypatch, layer, dtype, limit
):
    monkeypatch.setattr(products, "BLOCK_BYTES", limit)
    monkeypatch.setattr(products, "TILE", 50)
    seen = rng.normal(size=(40, 6, 5, 4))
    # Activations far from 0, at every place by another distance, and of another size.
    x, y = (
        np.maximum(seen + rng.normal(size=seen.shape), 0) * size + 20 * size * rng.random((6, 5, 4))
        for size in (1, 50)
    )
    k, l = (inner_products(layer(z.astype(dtype)), images=31) for z in (x, y))  # noqa: E741
    assert k.dtype == np.float32
    np.testing.assert_array_equal(k, k.T)
    a, b = (z.astype(dtype)[:31].reshape(31, -1).astype(float) for z in (x, y))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    expected = song(a, b) / np.sqrt(song(a, a) * song(b, b))
    np.testing.assert_allclose(cka_unbiased.compute_flattened(k, l), expected, rtol=1e-4)
    edges = np.array([0, 8, 20, 31])
    without = cka_unbiased.flattened_without_blocks(k, l, edges)
    for start, stop, value in zip(edges, edges[1:], without, strict=False):
        rest = np.delete(np.arange(31), np.arange(start, stop))
        part = cka_unbiased.compute_flattened(k[np.ix_(rest, rest)], l[np.ix_(rest, rest)])
        assert value == pytest.approx(part, rel=1e-6)


def test_flattened_images_that_are_all_equal_are_like_nothing(rng, layer):
    same = inner_products(layer(np.full((15, 9), 0.3, np.float32)))
    other = inner_products(layer(rng.normal(size=(15, 9))))
    assert not same.any()
    assert cka_unbiased.compute_flattened(same, other) == 0
    with pytest.raises(Undefined, match="fewer than 4 images"):
        cka_unbiased.compute_flattened(other[:3, :3], other[:3, :3])


@pytest.mark.parametrize("scale", [1e-38, 1, 1e38])
def test_constant_images_are_like_no_other_and_scale_does_not_matter(rng, layer, scale):
    values = np.maximum(rng.normal(size=(15, 9)), 0).astype(np.float32)
    values[3], values[8] = 0, 0.7
    expected = dissimilarities(layer(values)).matrix
    found, constant = dissimilarities(layer(values * np.float32(scale)))
    assert constant == 2
    for image in (3, 8):
        np.testing.assert_array_equal(found[image], np.arange(15) != image)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_activations_that_are_not_numbers_are_named(rng, layer):
    values = rng.normal(size=(15, 9)).astype(np.float32)
    values[4, 2] = np.nan
    with pytest.raises(StoreError, match=r"a\.zarr/layer: images 0 to 15: .* NaN or infinity"):
        dissimilarities(layer(values))


def test_memory_of_dissimilarities_is_that_of_a_few_blocks(rng, monkeypatch, layer):
    monkeypatch.setattr(products, "BLOCK_BYTES", 2**19)
    values = rng.normal(size=(300, 16, 16, 32)).astype(np.float16)
    array = layer(values)
    tracemalloc.start()
    dissimilarities(array)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 2**19 + 4 * 300**2
    assert peak < values.nbytes


@pytest.mark.parametrize("name", ["rsa", "rsa_cosine", "mutual_knn"])
def test_what_is_prepared_turns_with_the_images(name):
    of = measure(name)
    x, y = np.random.default_rng(3).normal(size=(2, 40, 6))
    if of.needs == "dissimilarities":
        x, y = (1 - np.corrcoef(z).astype(np.float32) for z in (x, y))
    axes = (0, 1) if of.needs == "dissimilarities" else (0,)
    for offset in (1, 17, 39):
        expected = of.compute(x, np.roll(y, [-offset] * len(axes), axes))
        found = of.compute(of.prepare(x), of.prepare(y).turned(offset))
        assert found == pytest.approx(expected, abs=1e-12)
