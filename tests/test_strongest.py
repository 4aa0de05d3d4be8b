"""The strongest images are those of plain sorting, however the images are cut."""

import itertools
from functools import reduce

import numpy as np
import pytest

from convergent.activations.strongest import Strongest


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
