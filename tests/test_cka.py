"""Linear CKA is that of Kornblith et al. (2019), by the n x n definition."""

import numpy as np
import pytest
from comparing import flat
from test_measures import activations, compute

from convergent.measures.registry import measure


def by_gram_matrices(x, y):
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    return np.sum(k * l) / np.sqrt(np.sum(k * k) * np.sum(l * l))


@pytest.mark.parametrize("units", [(3, 7), (40, 40)])
def test_it_is_the_alignment_of_gram_matrices(rng, units):
    x, y = map(flat, activations(rng, 50, *units))
    np.testing.assert_allclose(compute(measure("cka"), x, y), by_gram_matrices(x, y), rtol=1e-5)


def test_a_layer_with_itself_is_1_and_with_noise_near_the_share_of_units(rng):
    x, y = rng.normal(size=(2, 4000, 20))
    assert compute(measure("cka"), x, x @ np.linalg.qr(y[:20])[0]) == pytest.approx(1, abs=1e-5)
    # The expectation for independent normal units: units over samples.
    assert compute(measure("cka"), x, y) == pytest.approx(20 / 4000, rel=0.3)


def test_dead_units_change_nothing(rng):
    x, y = map(flat, activations(rng, 25, 5, 5))
    wider = np.concatenate([y, np.full((100, 3), 2.0)], axis=1)
    # Sums of float32 products, whose order may depend on the number of units.
    near = {"rtol": 8 * np.finfo(np.float32).eps}
    found = [compute(measure("cka"), x, each) for each in (wider, y)]
    np.testing.assert_allclose(*found, **near)
