"""Intervals of 95% cover what they are of in 90 to 99% of draws, positions of an image or not.

Unbiased CKA covers the population value, the others their expectation at this number of images.
"""

import numpy as np
import pytest
from comparing import comparison, flat

from convergent.inference.estimates import estimates, ways
from convergent.measures.registry import measure, measures

pytestmark = pytest.mark.slow

IMAGES, POSITIONS, UNITS, BLOCKS, DRAWS = 120, 4, 6, 20, 200
WAYS = ways(measures(gives="layers"))
IDS = ["-".join(filter(None, [way.measure.name, *way[1:]])) for way in WAYS]
RHO = np.linspace(0.4, 0.9, UNITS)
# Neighbours change by leaps, and more where a block is left out than where images are others:
# its intervals are too wide.
WIDE = {"mutual_knn"}


def latent(rng, units, image=1.0):
    """Activations of which each image has a part that all its positions share."""
    of_images = image * rng.normal(size=(IMAGES, 1, units))
    return of_images + rng.normal(size=(IMAGES, POSITIONS, units))


def pairs(rng, rho=RHO, image=1.0):
    """Unit i of one layer correlates with unit i of the other by ``rho[i]``."""
    x, rest = latent(rng, UNITS, image), latent(rng, UNITS, image)
    return x, rho * x + np.sqrt(1 - rho**2) * rest


def rectified(rng):
    """Two layers that see the same by different weights, after a ReLU."""
    weights = np.random.default_rng(5).normal(size=(2, 4, UNITS))
    seen = latent(rng, 4)
    x, y = (seen @ each + rng.normal(size=(IMAGES, POSITIONS, UNITS)) for each in weights)
    return np.maximum(x, 0), np.maximum(y, 0)


def unrelated(rng):
    return pairs(rng, np.zeros(UNITS))


def intervals(make, asked, draws=DRAWS):
    """Values, and low and high ends of intervals, of shape (3, draw, way)."""
    found = []
    for seed in range(draws):
        rows, _ = estimates(asked, comparison(*make(np.random.default_rng((seed, 1))), BLOCKS))
        found.append([[row[name] for name in ("value", "low", "high")] for row in rows])
    return np.array(found).transpose(2, 0, 1)


def covered(low, high, truth):
    return ((low <= truth) & (truth <= high)).mean(axis=0)


@pytest.fixture(scope="module", params=[pairs, rectified])
def of_alike(request):
    return intervals(request.param, WAYS)


@pytest.mark.parametrize("number", range(len(WAYS)), ids=IDS)
def test_the_expectation_at_this_number_of_images_is_covered(of_alike, number):
    value, low, high = of_alike[:, :, number]
    share = covered(low, high, value.mean())
    assert 0.9 <= share <= (1 if WAYS[number].measure.name in WIDE else 0.99)


def test_intervals_of_layers_without_anything_in_common_are_wide_enough():
    """They are too wide, as the first derivatives of most measures are 0 there."""
    value, low, high = intervals(unrelated, WAYS)
    assert (covered(low, high, value.mean(axis=0)) >= 0.93).all()


@pytest.mark.parametrize(("make", "truth"), [(pairs, (RHO**2).mean()), (unrelated, 0)])
def test_the_population_value_of_unbiased_cka_is_covered(make, truth):
    """Units that are alike but for their partners: CKA is the mean square of correlations."""
    _, low, high = intervals(make, ways([measure("cka_unbiased")]))
    share = covered(low, high, truth)
    assert share >= 0.9
    if truth:
        assert share <= 0.99


def test_positions_of_an_image_are_no_images():
    """Where they are taken for images, in any order, the interval is far too short."""
    asked = ways([measure("cka"), measure("semi_mean")])[:2]

    def dependent(rng):
        return pairs(rng, image=2.0)

    def torn(rng):
        order = rng.permutation(IMAGES * POSITIONS)
        return [flat(x)[order, None] for x in dependent(rng)]

    truth = intervals(dependent, asked)
    mean = truth[0].mean(axis=0)
    share = covered(*truth[1:], mean)
    assert (share >= 0.9).all()
    assert (share <= 0.99).all()
    assert (covered(*intervals(torn, asked)[1:], mean) < 0.85).all()


@pytest.mark.parametrize("positions", [4, 9])
def test_a_channel_that_is_constant_in_space_has_the_interval_of_its_images(rng, positions):
    x, y = (z[:, :1] for z in rectified(rng))
    once, _ = estimates(WAYS, comparison(x, y, BLOCKS))
    repeated = comparison(*(np.repeat(z, positions, axis=1) for z in (x, y)), BLOCKS)
    often, _ = estimates(WAYS, repeated)
    for way, one, many in zip(WAYS, once, often, strict=True):
        assert many["n_images"] == one["n_images"] == IMAGES
        for name in ("value", "standard_error", "low", "high"):
            # Sums of more samples round otherwise.
            assert many[name] == pytest.approx(one[name], rel=1e-4, abs=1e-5), (way, name)
