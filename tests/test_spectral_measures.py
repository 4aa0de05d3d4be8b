"""CCA, SVCCA, PWCCA, Procrustes and regression: their definitions, gradients and hard cases."""

import gc
import weakref

import numpy as np
import pytest
from cca_zoo.linear import CCA
from scipy.linalg import orthogonal_procrustes
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from convergent.activations.moments import Moments
from convergent.measures import spectra
from convergent.measures.evidence import Evidence, Split
from convergent.measures.registry import Undefined, measure
from convergent.measures.spectra import singular, singular_values

CORRELATIONS = ("cca", "svcca", "pwcca")
GRADIENTS = ("cca", "svcca", "procrustes")
WAYS = [("cca", ""), ("svcca", ""), ("pwcca", "ab"), ("pwcca", "ba"), ("procrustes", "")]
# Definitions from the samples differ from those from moments by float64's rounding, times the
# condition of covariances, which is below 1e4 here.
ROUNDING = 1e-10


def moments(x, y, weights=None):
    """Moments in float64, of samples that may count more or less than once."""
    share = np.full(len(x), 1.0) if weights is None else weights
    share = share / share.sum()
    means = share @ x, share @ y
    x, y = x - means[0], y - means[1]
    return Moments(len(x), *means, share @ x**2, share @ y**2, (x * share[:, None]).T @ y * len(x))


def evidence(x, y, weights=None, **options):
    return Evidence(*(moments(*of, weights) for of in ((x, y), (x, x), (y, y))), **options)


def layers(samples, units_a, units_b, shared=4, seed=0):
    """Two layers whose units see some common signals, and others of their own."""
    rng = np.random.default_rng(seed)
    seen = rng.normal(size=(samples, shared)) * np.linspace(0.5, 2, shared)
    return tuple(
        seen @ rng.normal(size=(shared, units))
        + rng.normal(size=(samples, units)) @ rng.normal(size=(units, units))
        + rng.normal(size=units)
        for units in (units_a, units_b)
    )


def axes(x, share=1.0):
    """Orthonormal samples of the principal axes of a layer that keep a share of its variance."""
    left, values, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    kept = np.cumsum(values**2) / np.sum(values**2)
    return left[:, : int(np.argmax(kept > share - 1e-12)) + 1]


def by_samples(name, x, y):
    """Each measure as its source defines it, from activations."""
    centred = x - x.mean(axis=0)
    if name == "procrustes":
        a, b = (z / np.linalg.norm(z) for z in (centred, y - y.mean(axis=0)))
        # Layers of unequal widths are compared after units that are 0 are added to the narrower.
        width = max(a.shape[1], b.shape[1])
        a, b = (np.pad(z, ((0, 0), (0, width - z.shape[1]))) for z in (a, b))
        return np.arccos(orthogonal_procrustes(a, b)[1])
    share = 0.99 if name == "svcca" else 1
    a, b = axes(x, share), axes(y, share)
    left, correlations, _ = np.linalg.svd(a.T @ b, full_matrices=False)
    if name != "pwcca":
        return correlations.mean()
    variables = a @ left
    return np.average(correlations, weights=np.abs(variables.T @ centred).sum(axis=1))


@pytest.mark.parametrize(("name", "direction"), WAYS)
@pytest.mark.parametrize("units", [(7, 7), (9, 5), (5, 9), (1, 6), (1, 1)])
def test_values_are_those_of_the_definition_by_samples(name, direction, units):
    x, y = layers(200, *units)
    expected = by_samples(name, *((y, x) if direction == "ba" else (x, y)))
    value = evidence(x, y).value(measure(name), direction=direction)
    assert value == pytest.approx(expected, abs=ROUNDING)


def test_svcca_leaves_out_directions_of_little_variance():
    x, y = layers(400, 6, 8)
    x[:, 0] *= 30
    seen = evidence(x, y).spectra
    assert [axis.keeping(0.99) for axis in (seen.a, seen.b)] == [
        axes(z, 0.99).shape[1] for z in (x, y)
    ]
    assert seen.a.keeping(0.99) < seen.a.rank == 6
    values = [evidence(x, y).value(measure(name)) for name in ("svcca", "cca")]
    assert values == pytest.approx([by_samples(name, x, y) for name in ("svcca", "cca")])
    assert abs(values[0] - values[1]) > 0.01


def test_canonical_correlations_are_those_of_cca_zoo():
    x, y = layers(300, 8, 5)
    one, two = CCA(n_components=5).fit_transform([x, y])
    expected = [np.corrcoef(one[:, i], two[:, i])[0, 1] for i in range(5)]
    found = evidence(x, y).spectra.canonical.correlations
    np.testing.assert_allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize("direction", ["ab", "ba"])
def test_regression_is_that_of_scikit_learn_on_halves(direction):
    x, y = layers(240, 8, 5)
    # The means differ between the halves, which counts against the fit.
    x[120:] += 0.3
    first, last = slice(120), slice(120, None)
    seen = Split(evidence(x, y), tuple(evidence(x[half], y[half]) for half in (first, last)))
    source, target = (y, x) if direction == "ba" else (x, y)
    expected = [
        r2_score(
            target[test],
            LinearRegression().fit(source[fit], target[fit]).predict(source[test]),
            multioutput="variance_weighted",
        )
        for fit, test in ((first, last), (last, first))
    ]
    value = seen.value(measure("linear_regression"), direction=direction)
    assert value == pytest.approx(np.mean(expected), abs=ROUNDING)


def test_regression_needs_no_decomposition_unless_units_repeat_each_other(monkeypatch):
    x, y = layers(300, 6, 4)
    seen = [evidence(z, y) for z in (x, np.hstack([x, x[:, :2]]))]
    regression = measure("linear_regression")
    decomposed = counted(monkeypatch, "eigh")
    plain, repeated = (each.choose(regression) for each in seen)
    assert decomposed == [8]
    # Units that are the same share their weight.
    np.testing.assert_allclose(repeated.weights[:2], plain.weights[:2] / 2, atol=1e-9)
    values = [
        each.score(regression, fit) for each, fit in zip(seen, (plain, repeated), strict=True)
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-9)


@pytest.mark.parametrize("shape", [(270, 270), (330, 260), (260, 300)])
@pytest.mark.parametrize("rank", [40, 260])
def test_singular_values_of_large_matrices_are_those_of_lapack(rng, shape, rank):
    matrix = rng.normal(size=(shape[0], rank)) @ rng.normal(size=(rank, shape[1]))
    matrix /= np.linalg.norm(matrix, 2)
    left, values, right = singular(matrix)
    expected = np.linalg.svd(matrix, compute_uv=False)
    # Through products, what is below 1e-8 of the largest is rounding.
    for found in (values, singular_values(matrix)):
        np.testing.assert_allclose(found, expected, atol=1e-7)
    np.testing.assert_allclose((left * values) @ right.T, matrix, atol=1e-12)
    for vectors in (left, right):
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(min(shape)), atol=1e-11)


@pytest.mark.parametrize("name", GRADIENTS)
def test_wide_layers_have_the_gradient_of_narrow_ones(monkeypatch, name):
    seen = [evidence(*layers(300, 12, 9)).spectra for _ in "ab"]
    narrow = measure(name).gradient(seen[0])
    monkeypatch.setattr(spectra, "LARGE", 2)
    wide = measure(name).gradient(seen[1])
    for one, other in zip(narrow, wide, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-8, atol=1e-10)


def counted(monkeypatch, name):
    """List the sizes of the matrices that a function of numpy.linalg is called with from now on."""
    sizes, function = [], getattr(np.linalg, name)

    def call(matrix, **options):
        sizes.append(len(matrix))
        return function(matrix, **options)

    monkeypatch.setattr(np.linalg, name, call)
    return sizes


@pytest.mark.parametrize(("name", "direction"), WAYS)
def test_dead_units_change_nothing(name, direction):
    x, y = layers(200, 6, 5)
    more = np.hstack([x, np.zeros((200, 2))])
    plain, padded = (evidence(z, y).value(measure(name), direction=direction) for z in (x, more))
    assert padded == pytest.approx(plain, abs=ROUNDING)


@pytest.mark.parametrize(("name", "direction"), [("cca", ""), ("pwcca", "ba")])
def test_repeated_units_change_no_canonical_correlation(name, direction):
    x, y = layers(200, 6, 5)
    more = np.hstack([x, x[:, :2]])
    plain, longer = (evidence(z, y).value(measure(name), direction=direction) for z in (x, more))
    assert longer == pytest.approx(plain, abs=ROUNDING)


@pytest.mark.parametrize(
    ("name", "expected"),
    [(name, 0) for name in (*CORRELATIONS, "linear_regression")] + [("procrustes", np.pi / 2)],
)
def test_constant_layers_have_nothing_in_common_with_any(name, expected):
    # So many samples that the mean of a constant has no rounding.
    x, y = layers(128, 4, 3)
    of = measure(name)
    for a, b in ((np.full_like(x, 2), y), (x, np.full_like(y, 2)), (0 * x, 0 * y)):
        seen = evidence(a, b)
        assert Split(seen, (seen, seen)).value(of) == expected
        if of.gradient:
            assert of.gradient(seen.spectra) == (expected, None, None, None)


@pytest.mark.parametrize("name", [*CORRELATIONS, "procrustes"])
def test_a_layer_is_most_alike_itself_rotated(name):
    x, _ = layers(100, 5, 3)
    rotated = 2 * x @ np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    of = measure(name)
    # An angle near 0 loses half of the digits of its cosine.
    best = of.range[of.higher_is_more_alike]
    assert evidence(x, rotated).value(of) == pytest.approx(best, abs=1e-7)


@pytest.mark.parametrize("name", CORRELATIONS)
def test_too_few_images_make_correlations_of_1_and_are_refused(name):
    of = measure(name)
    rng = np.random.default_rng(0)
    # Directions of equal variance, of which none is left out.
    x, y = (axes(rng.normal(size=(13, units))) for units in (8, 5))
    # 12 dimensions of centred samples hold 7 and 5 without an overlap, but not 8 and 5.
    largest = [np.linalg.svd(axes(z).T @ axes(y))[1][0] for z in (x[:, :7], x)]
    assert largest[0] < 1 - 1e-4 < 1 - ROUNDING < largest[1]
    assert evidence(x[:, :7], y).value(of) < 1
    with pytest.raises(Undefined, match="fewer images than units: 8 and 5 directions vary in 13"):
        evidence(x, y).value(of)
    if of.gradient:
        with pytest.raises(Undefined, match="fewer images than units"):
            of.gradient(evidence(x, y).spectra)


@pytest.mark.parametrize("name", CORRELATIONS)
def test_positions_that_are_alike_do_not_count_as_images(name):
    of = measure(name)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 180, 30))
    alike = [np.repeat(z[:20], 9, axis=0) for z in (x, y)]
    with pytest.raises(Undefined, match=r"directions vary in 20 images of 180 samples"):
        evidence(*alike, images=20).value(of)
    # Where positions differ, there are enough samples.
    assert 0 < evidence(x, y, images=20).value(of) < 1


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("units", [(6, 6), (7, 4), (4, 7), (1, 5)])
@pytest.mark.parametrize("lacking", [False, True])
def test_gradients_are_those_of_finite_differences(name, units, lacking):
    x, y = layers(300, *units)
    x[:, 0] *= 8
    if lacking:
        # A dead unit and one that repeats another: covariances stay singular as weights change.
        x, y = (np.hstack([z, z[:, :1] - z[:, -1:], 0 * z[:, :1]]) for z in (x, y))
    of, whole = measure(name), evidence(x, y)
    gradient = of.gradient(whole.spectra)
    assert gradient.value == pytest.approx(whole.value(of), abs=ROUNDING)
    step = 1e-4
    for change in np.random.default_rng(1).normal(size=(3, len(x))):
        more, less = (evidence(x, y, 1 + sign * step * change) for sign in (1, -1))
        expected = (more.value(of) - less.value(of)) / (2 * step)
        # The error of central differences is of the order of the step's square.
        assert linear(gradient, more, less) / (2 * step) == pytest.approx(expected, abs=1e-6)


def linear(gradient, more, less):
    """Change of a measure from one evidence to another, to first order."""
    return sum(
        np.vdot(slope, one.comoment / one.count - other.comoment / other.count)
        for slope, one, other in zip(gradient[1:], moments_of(more), moments_of(less), strict=True)
    )


def moments_of(seen):
    return seen.between, seen.within_a, seen.within_b


def errors(name, x, y, blocks=20):
    """Standard error of the jackknife that recomputes a measure, and of the linearised one."""
    of, whole = measure(name), evidence(x, y)
    gradient = of.gradient(whole.spectra)
    left_out = np.array_split(np.arange(len(x)), blocks)
    without = [
        evidence(np.delete(x, rows, axis=0), np.delete(y, rows, axis=0)) for rows in left_out
    ]
    values = [
        [each.value(of) for each in without],
        [linear(gradient, each, whole) for each in without],
    ]
    return np.std(values, axis=1) * np.sqrt(blocks - 1)


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("samples", [500, 8000])
def test_the_linearised_jackknife_is_the_plain_one_up_to_1_over_n(name, samples):
    units, blocks = 8, 20
    of = [errors(name, *layers(samples, units, 6, shared=6, seed=seed)) for seed in range(6)]
    off = np.mean([abs(linearised / plain - 1) for plain, linearised in of])
    # Covariances of unit variance change by 1 / sqrt(blocks * samples) without a block; the error
    # relative to the first order is that much again, for each unit.
    assert off < units / np.sqrt(blocks * samples)


def test_all_measures_share_two_decompositions_and_draws_of_images_need_none(monkeypatch):
    x, y = layers(200, 7, 5)
    whole = evidence(x, y)
    decomposed, factored = counted(monkeypatch, "eigh"), counted(monkeypatch, "svd")
    for name, direction in WAYS[:4]:
        whole.value(measure(name), direction=direction)
    assert sorted(decomposed) == [5, 7]
    # One for the full and one for the truncated spaces.
    assert len(factored) == 2
    cca = measure("cca")
    cca.gradient(whole.spectra)
    assert (len(decomposed), len(factored)) == (2, 2)
    # The second net sees the images in another order.
    turned = np.roll(y, 50, axis=0)
    draw = whole.seeing(moments(x, turned))
    values = [draw.value(measure(name), direction=direction) for name, direction in WAYS]
    assert len(decomposed) == 2
    expected = [evidence(x, turned).value(measure(n), direction=d) for n, d in WAYS]
    assert values == pytest.approx(expected, abs=ROUNDING)


def test_both_directions_give_turned_gradients():
    x, y = layers(200, 7, 5)
    whole = evidence(x, y)
    for name in GRADIENTS:
        one, other = (measure(name).gradient(each.spectra) for each in (whole, whole.turned))
        turned = (one.between.T, one.within_b, one.within_a)
        for found, expected in zip(other[1:], turned, strict=True):
            np.testing.assert_allclose(found, expected, atol=ROUNDING)


def test_rotated_units_are_not_decomposed_anew(monkeypatch):
    x, y = layers(200, 7, 5)
    whole = evidence(x, y)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    draw = whole.mixed(rotation, moments(x, y @ rotation), moments(y @ rotation, y @ rotation))
    decomposed, factored = counted(monkeypatch, "eigh"), counted(monkeypatch, "svd")
    values = [draw.value(measure("pwcca"), direction=direction) for direction in ("ba", "ab")]
    before = [whole.value(measure("pwcca"), direction=direction) for direction in ("ba", "ab")]
    assert (sorted(decomposed), len(factored)) == ([5, 7], 1)
    expected = evidence(x, y @ rotation).value(measure("pwcca"), direction="ba")
    assert values == pytest.approx([expected, before[1]], abs=ROUNDING)
    # The weights are those of units of the basis.
    assert abs(values[0] - before[0]) > 1e-3


def test_evidence_that_was_turned_goes_with_its_last_user():
    seen = evidence(*layers(100, 4, 3))
    assert seen.turned.turned is seen
    assert seen.turned is seen.turned
    gone = weakref.ref(seen)
    turned = seen.turned
    gc.disable()
    try:
        del seen
        assert gone() is None
    finally:
        gc.enable()
    assert turned.turned.within_a is turned.within_b
