"""Each measure and null says what is known of layers that were made up.

They share 30 of 100 units, or the space that their units span, or nothing at all.
"""

import numpy as np
import pandas as pd
import pytest
from comparing import comparison
from test_means_of_matches import expected_maximum

from convergent.activations.samples import Samples
from convergent.inference.estimates import estimates, ways
from convergent.inference.nulls import rotations
from convergent.inference.turned_images import turns
from convergent.measures.mutual_knn import K
from convergent.measures.registry import Undefined, measures

IMAGES, UNITS, SHARED, RHO = 600, 100, 30, 0.8
BLOCKS, DRAWS, REPEATS = 20, 19, 8
WAYS = ways(measures(gives="layers"))
KINDS = ["shared", "rotated", "nothing"]


def layers(kind, seed):
    """Two layers of Gaussian units, of shape (image, position, unit)."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, IMAGES, UNITS))
    if kind == "shared":
        # Scales differ, so that no measure may depend on them unless it says so.
        y[:, :SHARED] = RHO * x[:, -SHARED:] + np.sqrt(1 - RHO**2) * y[:, :SHARED]
        y = y[:, rng.permutation(UNITS)]
    if kind == "rotated":
        y = x @ np.linalg.qr(rng.normal(size=(UNITS, UNITS)))[0]
    return x[:, None], y[:, None]


def compare(kind, seed):
    return comparison(*layers(kind, seed), BLOCKS)


def held_out(split, way):
    try:
        return split.held_out(*way)
    except Undefined:
        return np.nan


@pytest.fixture(scope="module", params=KINDS)
def found(request):
    """Kind of layers, their estimates, and the values of layers that were made alike."""
    kind = request.param
    compared, (x, y) = compare(kind, 0), layers(kind, 0)
    samples = Samples(np.arange(IMAGES), np.zeros(IMAGES, int))
    nulls = {
        "rotation": rotations(compared.split, DRAWS, 0, values_b=y[:, 0]),
        "images": turns(compared.split, x, y, DRAWS, 0, cut=compared.cut, samples=samples),
    }
    rows, _ = estimates(WAYS, compared, nulls)
    table = pd.DataFrame(rows)
    others = [compare(kind, seed).split for seed in range(1, REPEATS + 1)]
    return (
        kind,
        table,
        {
            "value": np.array([[split.value(*way) for way in WAYS] for split in others]),
            "held_out": np.array([[held_out(split, way) for way in WAYS] for split in others]),
        },
    )


# Population values, which held-out and unbiased estimates have on average; kinds that are not
# listed have none that is known.
RANKS = 6 / np.pi * np.arcsin(SHARED * RHO**2 / UNITS / 2)
UNBIASED = {
    "cka_unbiased": {"shared": SHARED * RHO**2 / UNITS, "rotated": 1, "nothing": 0},
    # Sums over so many units are nearly Gaussian: the rank correlation follows from the linear.
    "rsa": {"shared": RANKS, "nothing": 0},
    "semi_mean": {"shared": SHARED * RHO / UNITS, "nothing": 0},
    "matching_mean": {"shared": SHARED * RHO / UNITS, "nothing": 0},
    "soft_matching": {"shared": SHARED * RHO / UNITS, "nothing": 0},
    "partial_soft_matching_0.25": {"shared": RHO, "nothing": 0},
    "partial_soft_matching_0.5": {"shared": SHARED * RHO / (0.5 * UNITS), "nothing": 0},
    "partial_soft_matching_0.75": {"shared": SHARED * RHO / (0.75 * UNITS), "nothing": 0},
}


def cka(shared):
    """Squared norms of covariances of n samples exceed those of the population by p q / n."""
    noise = UNITS**2 / IMAGES
    return (shared * RHO**2 + noise) / (UNITS + noise)


def explained(shared):
    """Least squares on n images with p regressors errs (n - 2) / (n - p - 2) times as much."""
    half = IMAGES // 2
    error = (1 + 1 / half) * (half - 2) / (half - UNITS - 2)
    return 1 - (1 - shared * RHO**2 / UNITS) * error


# Values at this number of images, chance included.
CHANCE = expected_maximum(IMAGES, UNITS)
BIASED = {
    "cka": {"shared": cka(SHARED), "rotated": 1, "nothing": UNITS / (IMAGES + UNITS)},
    "linear_regression": {"shared": explained(SHARED), "rotated": 1, "nothing": explained(0)},
    "semi_mean": {"shared": (SHARED * RHO + (UNITS - SHARED) * CHANCE) / UNITS, "nothing": CHANCE},
    "mutual_knn": {"rotated": 1, "nothing": K / (IMAGES - 1)},
    "rsa_cosine": {"nothing": 1 - 1 / UNITS},
}


@pytest.mark.parametrize("column", ["value", "held_out"])
def test_values_are_on_average_what_is_known(found, column):
    kind, _, repeats = found
    checked = 0
    for number, way in enumerate(WAYS):
        name, values = way.measure.name, repeats[column][:, number]
        held = way.measure.choose is not None and not way.measure.always_held_out
        known = BIASED if column == "value" and (name in BIASED or held) else UNBIASED
        expected = known.get(name, {}).get(kind)
        if expected is None or way.of_codes or (column == "held_out" and not held):
            continue
        checked += 1
        # t of 7 degrees of freedom is below 6 but for one in 2,000. What is known is right to the
        # second order of 1 / n.
        near = 6 * values.std(ddof=1) / np.sqrt(REPEATS) + 2 * UNITS / IMAGES**2 + 1e-5
        assert values.mean() == pytest.approx(expected, abs=near), (name, way.direction)
    assert checked or (kind, column) == ("rotated", "held_out")


def test_intervals_have_what_such_layers_have_on_average(found):
    """Of one draw, every interval: at four standard errors, so that all of them hold it."""
    _, table, repeats = found
    for row, values in zip(table.itertuples(), repeats["value"].T, strict=True):
        near = 4 * (row.standard_error + values.std(ddof=1) / np.sqrt(REPEATS)) + 1e-5
        assert abs(row.value - values.mean()) < near, (row.measure, row.parameter, row.direction)
        assert row.low - 1e-9 <= row.value <= row.high + 1e-9


def test_a_measure_without_a_basis_finds_a_rotated_layer_the_same(found):
    kind, table, _ = found
    for way, row in zip(WAYS, table.itertuples(), strict=True):
        if "rotation" in way.invariances:
            assert np.isnan(row.p_rotation)
            # An unbiased estimate may pass 1.
            most = min(way.measure.range[1], 1) if way.measure.higher_is_more_alike else 0
            # arccos(1 - e) is sqrt(2 e).
            near = 1e-5 if way.measure.higher_is_more_alike else np.sqrt(2e-5)
            assert (abs(row.value - most) < near) == (kind == "rotated"), row.measure


def test_only_layers_with_something_in_common_are_more_alike_than_other_images(found):
    kind, table, _ = found
    assert table["p_images"].notna().all()
    passed = table["p_images"] <= 1 / (DRAWS + 1) + 1e-9
    if kind == "nothing":
        # Nearly one in 20 by chance; measures agree with each other.
        assert passed.mean() < 0.25
    else:
        assert passed.all(), table.loc[~passed, "measure"].tolist()


def test_only_layers_that_share_units_are_more_alike_than_rotated_ones(found):
    kind, table, _ = found
    of_units = table[table["parameter"].notna()]
    assert of_units["p_rotation"].notna().all()
    passed = of_units["p_rotation"] <= 1 / (DRAWS + 1) + 1e-9
    if kind == "shared":
        assert passed.all(), of_units.loc[~passed, "measure"].tolist()
        assert (of_units["value"] > of_units["null_rotation_high"]).all()
    else:
        assert passed.mean() < 0.25


def test_excess_over_a_rotation_is_what_the_basis_shares(found):
    """A rotated space has none: its units are as alike as those of any other basis."""
    kind, table, _ = found
    rows = table[table["parameter"] == "correlation"]
    excess = rows["value"] - rows["null_rotation"]
    if kind == "shared":
        assert (excess > 0.1).all()
    else:
        assert (excess.abs() < 4 * rows["standard_error"]).all()


def test_every_null_that_lacks_says_why(found):
    _, table, _ = found
    for way, row in zip(WAYS, table.itertuples(), strict=True):
        assert np.isfinite([row.value, row.standard_error]).all()
        if np.isnan(row.p_rotation) and "rotation" not in way.invariances:
            assert "null rotation: " in row.note
