"""The strongest images are those of plain sorting, however the images are cut."""

import itertools
from functools import reduce

import numpy as np
import pytest

from convergent.activations.strongest import Extremes, Strongest


def sorted_images(values, number):
    """Value, image and flat position of each unit by plain, stable sorting."""
    flat = values.astype(np.float32).reshape(len(values), -1, values.shape[-1])
    peaks = flat.max(axis=1)
    order = np.argsort(-peaks, axis=0, kind="stable")[:number]
    place = np.take_along_axis(flat.argmax(axis=1), order, axis=0)
    return np.take_along_axis(peaks, order, axis=0).T, order.T, place.T


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("shape", [(150, 3, 4, 5), (150, 7), (9, 2, 2, 3), (40, 6, 3)])
@pytest.mark.parametrize("kind", ["relu", "signed", "ties"])
@pytest.mark.parametrize("cuts", [[], [1, 5, 8], [8]])
def test_strongest_are_those_of_plain_sorting(rng, dtype, shape, kind, cuts):
    values = rng.normal(size=shape)
    if kind == "ties":
        values = np.round(values)
    if kind != "signed":
        values = np.maximum(values, 0)
    values[..., 0] = 0  # a dead unit
    values = values.astype(dtype)
    edges = [0, *cuts, len(values)]
    parts = [Strongest.of(values[i:j], i) for i, j in itertools.pairwise(edges)]
    rng.shuffle(parts)
    strongest = reduce(Strongest.merge, parts)
    value, image, place = sorted_images(values, 9)
    np.testing.assert_array_equal(strongest.value, value)
    np.testing.assert_array_equal(strongest.image, image)
    np.testing.assert_array_equal(strongest.position, place)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("shape", [(150, 3, 4, 5), (150, 7), (9, 2, 2, 3), (40, 6, 3)])
@pytest.mark.parametrize("kind", ["gelu", "signed", "ties"])
@pytest.mark.parametrize("cuts", [[], [1, 5, 8], [8]])
def test_weakest_are_the_strongest_of_the_negated(rng, dtype, shape, kind, cuts):
    values = rng.normal(size=shape)
    if kind == "ties":
        values = np.round(values)
    if kind == "gelu":
        values = np.maximum(values, -0.1 * rng.random(shape))
    values[..., 0] = np.abs(values[..., 0])  # never negative
    values[len(values) // 2 :, ..., 1] = -0.0  # only in the first images
    values[:3] = np.abs(values[:3])  # a block without negative values
    values = values.astype(dtype)
    edges = [0, *cuts, len(values)]
    parts = [Extremes.of(values[i:j], i) for i, j in itertools.pairwise(edges)]
    rng.shuffle(parts)
    weakest = reduce(Extremes.merge, parts).weakest
    depth, image, place = sorted_images(-values, 9)
    np.testing.assert_array_equal(weakest.value, np.maximum(depth, 0))
    np.testing.assert_array_equal(weakest.image, np.where(depth > 0, image, -1))
    np.testing.assert_array_equal(weakest.position, np.where(depth > 0, place, -1))
    strongest = reduce(Strongest.merge, [part.strongest for part in parts])
    for found, expected in zip(strongest, sorted_images(values, 9), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_layers_that_are_never_negative_have_no_weakest_images(rng):
    values = rng.random((40, 2, 2, 3)).astype(np.float16)
    assert Extremes.of(values[:20]).merge(Extremes.of(values[20:], 20)).weakest is None


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_weakest_activations_that_are_not_finite_are_refused(rng, dtype):
    values = rng.normal(size=(120, 2, 2, 3)).astype(dtype)
    values[107, 1, 0, 2] = -np.inf
    with pytest.raises(FloatingPointError, match="NaN or infinity"):
        Extremes.of(values)


def test_places_of_too_few_images_stay_free(rng):
    values = rng.random((4, 2, 2, 3)).astype(np.float16)
    strongest = Strongest.of(values[:1]).merge(Strongest.of(values[1:], 1))
    assert strongest.value.shape == (3, 9)
    assert (strongest.value[:, 4:] == -np.inf).all()
    for part in (strongest.image, strongest.position):
        assert (part[:, 4:] == -1).all()
        assert (part[:, :4] >= 0).all()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.nan])
def test_activations_that_are_not_finite_are_refused(rng, bad, dtype):
    values = rng.random((120, 2, 2, 3)).astype(dtype)
    values[107, 1, 0, 2] = bad
    with pytest.raises(FloatingPointError, match="NaN or infinity"):
        Strongest.of(values)
