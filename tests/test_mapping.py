"""Sparse maps, held against scikit-learn, optimality conditions and planted maps."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso

from convergent.alignment import lasso
from convergent.alignment.lasso import lasso_path, loss, relative_gap, sgd

ALPHAS = [0.3, 0.1, 0.03, 0.01, 0.003]


def standardize(x):
    x = x - x.mean(axis=0)
    std = x.std(axis=0)
    return np.divide(x, std, out=np.zeros_like(x), where=std > 0)


def correlated(samples=2000, sources=30, targets=20, factors=8, seed=0):
    """Sources that share factors, and targets that few of them predict; after a ReLU."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, factors)) @ rng.normal(size=(factors, sources))
    x = np.maximum(x + 0.5 * rng.normal(size=x.shape), 0)
    chosen = rng.normal(size=(sources, targets)) * (rng.random((sources, targets)) < 0.15)
    y = np.maximum(x @ chosen + rng.normal(size=(samples, targets)), 0)
    return standardize(x), standardize(y)


def grams(x, y):
    return x.T @ x / len(x), x.T @ y / len(x)


def objective(gram, cross, w, alpha):
    """One target's, written as in the docstring."""
    return 0.5 * (1 - 2 * w @ cross + w @ gram @ w) + alpha * np.abs(w).sum()


def dual_gap(x, y, w, alpha):
    """From the samples: the residual scaled to be dual feasible, as a textbook has it."""
    residual = y - x @ w
    n = len(x)
    theta = residual * min(1, alpha * n / np.abs(x.T @ residual).max())
    primal = residual @ residual / (2 * n) + alpha * np.abs(w).sum()
    dual = (y @ y - (y - theta) @ (y - theta)) / (2 * n)
    return (primal - dual) / primal


def test_agrees_with_scikit_learn_on_the_samples():
    x, y = correlated()
    weights, gaps = lasso_path(*grams(x, y), ALPHAS, gap=1e-10)
    assert weights.shape == (len(ALPHAS), 20, 30)
    assert gaps.max() <= 1e-10
    for step, alpha in enumerate(ALPHAS):
        for target in range(20):
            model = Lasso(alpha=alpha, fit_intercept=False, tol=1e-12, max_iter=100_000)
            expected = model.fit(x, y[:, target]).coef_
            np.testing.assert_allclose(weights[step, target], expected, atol=1e-6)


def test_the_gap_is_that_of_the_samples():
    x, y = correlated()
    weights, gaps = lasso_path(*grams(x, y), ALPHAS)
    assert gaps.max() <= 1e-6
    for step, alpha in enumerate(ALPHAS):
        for target in range(20):
            gap = dual_gap(x, y[:, target], weights[step, target], alpha)
            assert gap == pytest.approx(gaps[step, target], rel=1e-6, abs=1e-12)


def test_optimality_conditions_hold():
    gram, cross = grams(*correlated())
    weights, _ = lasso_path(gram, cross, ALPHAS, gap=1e-12)
    for alpha, w in zip(ALPHAS, weights, strict=True):
        residual = (cross - gram @ w.T).T
        assert np.abs(residual).max() <= alpha * (1 + 1e-5)
        np.testing.assert_allclose(residual[w != 0], alpha * np.sign(w[w != 0]), atol=1e-5 * alpha)


def test_weights_vanish_from_the_largest_correlation_on():
    gram, cross = grams(*correlated())
    largest = np.abs(cross).max()
    weights, gaps = lasso_path(gram, cross, [2 * largest, largest, 0.98 * largest])
    assert not weights[:2].any()
    assert not gaps[:2].any()
    assert np.count_nonzero(weights[2]) == 1


def test_order_of_penalties_threads_and_company_do_not_matter():
    gram, cross = grams(*correlated(targets=40))
    weights, gaps = lasso_path(gram, cross, ALPHAS, threads=1)
    shuffled = lasso_path(gram, cross[:, 7:9], ALPHAS[::-1], threads=2)
    np.testing.assert_array_equal(shuffled[0][::-1], weights[:, 7:9])
    np.testing.assert_array_equal(shuffled[1][::-1], gaps[:, 7:9])


@pytest.mark.parametrize("factors", [None, 3])
def test_a_planted_sparse_map_is_found(factors):
    """Each target is the sum of two sources; exactly, so a tiny penalty tells which."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(5000, 40))
    if factors:
        x += rng.normal(size=(5000, factors)) @ rng.normal(size=(factors, 40))
    x = standardize(x)
    pairs = np.array([rng.choice(40, 2, replace=False) for _ in range(25)])
    y = x[:, pairs[:, 0]] - 0.7 * x[:, pairs[:, 1]]
    weights, _ = lasso_path(*grams(x, standardize(y)), [1e-3])
    found = np.sort(np.argsort(-np.abs(weights[0]))[:, :2])
    np.testing.assert_array_equal(found, np.sort(pairs))
    rest = np.sort(np.abs(weights[0]))[:, :-2]
    assert rest.max() < 0.01


def test_a_permuted_net_gives_the_permutation():
    x, _ = correlated()
    order = np.random.default_rng(2).permutation(30)
    weights, _ = lasso_path(*grams(x, x[:, order]), [0.05])
    np.testing.assert_array_equal(weights[0].argmax(axis=1), order)
    assert np.count_nonzero(weights[0]) == 30
    np.testing.assert_allclose(weights[0].max(axis=1), 0.95)


def test_decay_zero_is_least_squares():
    x, y = correlated()
    weights, gaps = lasso_path(*grams(x, y), [0.1, 0])
    np.testing.assert_allclose(weights[1].T, np.linalg.lstsq(x, y)[0], atol=1e-9)
    assert gaps.max() <= 1e-6


def test_least_squares_of_less_than_full_rank_is_the_smallest_solution():
    x, y = correlated()
    x = np.concatenate([x, x[:, :5], np.zeros((len(x), 2))], axis=1)
    weights, gaps = lasso_path(*grams(x, y), [0])
    np.testing.assert_allclose(weights[0].T, np.linalg.lstsq(x, y)[0], atol=1e-9)
    assert gaps.max() <= 1e-6


@pytest.mark.parametrize("sign", [1, -1])
def test_duplicated_units_share_and_are_certified(sign):
    """Two copies of every source: the objective is that of one copy, and the gap is no less."""
    x, y = correlated()
    gram, cross = grams(x, y)
    twice = np.concatenate([x, sign * x], axis=1)
    weights, gaps = lasso_path(*grams(twice, y), ALPHAS)
    single, _ = lasso_path(gram, cross, ALPHAS)
    assert gaps.max() <= 1e-6
    for step, alpha in enumerate(ALPHAS):
        for target in range(20):
            both = weights[step, target]
            merged = both[:30] + sign * both[30:]
            value = objective(gram, cross[:, target], merged, alpha)
            extra = alpha * (np.abs(both).sum() - np.abs(merged).sum())
            expected = objective(gram, cross[:, target], single[step, target], alpha)
            assert value + extra == pytest.approx(expected, rel=2e-6)


def test_dead_units_on_either_side():
    x, y = correlated()
    x[:, [3, 9]], y[:, [0, 5]] = 0, 0
    gram, cross = grams(x, y)
    weights, gaps = lasso_path(gram, cross, [*ALPHAS, 0])
    assert np.isfinite(weights).all()
    assert not weights[:, [0, 5]].any()
    assert not weights[:, :, [3, 9]].any()
    assert gaps.max() <= 1e-6
    live = np.delete(np.arange(30), [3, 9])
    alone, _ = lasso_path(gram[np.ix_(live, live)], cross[live], ALPHAS)
    np.testing.assert_array_equal(weights[:-1, :, live], alone)


def test_correlations_rounded_to_float32_are_accepted():
    """Few samples: the Gram matrix has rank 15 of 40, and negative eigenvalues by rounding."""
    rng = np.random.default_rng(3)
    x, y = standardize(rng.normal(size=(16, 40))), standardize(rng.normal(size=(16, 10)))
    gram, cross = (m.astype(np.float32) for m in grams(x, y))
    assert np.linalg.eigvalsh(gram.astype(float))[0] < 0
    weights, gaps = lasso_path(gram, cross, [*ALPHAS, 1e-4, 0])
    assert gaps.max() <= 1e-6
    np.testing.assert_allclose(x @ weights[-1].T, y, atol=1e-4)
    assert np.abs(weights).max() < 10


@pytest.mark.parametrize("alphas", [[1e-4], [0.1, 1e-3, 1e-5]])
def test_more_sources_than_samples_are_certified_near_interpolation(alphas):
    """Rank 59 of 200: supports that outgrow the rank would stall."""
    rng = np.random.default_rng(7)
    factors = rng.normal(size=(60, 8))
    x, y = (
        standardize(np.maximum(factors @ rng.normal(size=(8, n)) + rng.normal(size=(60, n)), 0))
        for n in (200, 6)
    )
    weights, gaps = lasso_path(*grams(x, y), alphas)
    assert gaps.max() <= 1e-6
    assert np.count_nonzero(weights, axis=2).max() <= 59
    for step, alpha in enumerate(alphas):
        gap = [dual_gap(x, y[:, t], weights[step, t], alpha) for t in range(6)]
        assert max(gap) <= 1e-5


def hard(name, samples=300, sources=40, targets=6):
    """Sources that are hard to tell apart, targets that depend on them, and the scale of both."""
    rng = np.random.default_rng(8)
    x, _ = correlated(samples, sources)
    factors, noise = rng.normal(size=(samples, 3)), rng.normal(size=(samples, sources))
    spread, few = rng.normal(size=(3, sources)), rng.normal(size=(2, 12, 2 * sources))
    x, scale = {
        "duplicated": (np.concatenate([x, x, -x], axis=1), 1),
        "collinear": (np.repeat(x[:, :1], 2 * sources, axis=1) * np.resize([1, -1, -1], 80), 1),
        "singular": (factors @ spread, 1),
        "condition 1e10": (factors @ spread + 1e-5 * noise, 1),
        "ever more alike": (x[:, :1] + np.geomspace(1, 1e-7, sources) * noise, 1),
        "more sources than samples": (few[0], 1),
        "tiny": (x, 1e-12),
        "tiny and singular": (np.concatenate([x, x], axis=1), 1e-6),
    }[name]
    x = standardize(x)
    y = x @ (rng.normal(size=(x.shape[1], targets)) * (rng.random((x.shape[1], targets)) < 0.1))
    return x, standardize(y + rng.normal(size=y.shape)), scale


HARD = ["duplicated", "collinear", "singular", "condition 1e10", "ever more alike",
        "more sources than samples", "tiny", "tiny and singular"]  # fmt: skip


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", HARD)
def test_hard_problems_end_certified_and_no_worse_than_scikit_learn(name, dtype):
    """In float32 rounding alone gives matrices of less than full rank eigenvalues of -1e-7."""
    x, y, scale = hard(name)
    gram, cross = (m.astype(dtype) for m in grams(scale * x, y))
    alphas = np.array([*ALPHAS, 3e-4])
    weights, gaps = lasso_path(gram, cross, scale * alphas)
    assert gaps.max() <= 1e-6
    for step, alpha in enumerate(alphas):
        for target, w in enumerate(scale * weights[step]):
            model = Lasso(alpha=alpha, fit_intercept=False, tol=1e-8, max_iter=5000)
            best = model.fit(x, y[:, target]).coef_
            value, least = (
                ((y[:, target] - x @ v) ** 2).mean() / 2 + alpha * np.abs(v).sum()
                for v in (w, best)
            )
            # Correlations in float32 are off by 6e-8, and so much is the objective for each weight.
            rounding = 0 if dtype == np.float64 else 6e-8 * (1 + np.abs(w).sum()) ** 2
            assert value <= least * (1 + 2e-6) + rounding


@pytest.mark.parametrize("least", [-1e-7, -1e-6])
def test_a_matrix_that_rounding_made_indefinite_ends_certified(least):
    """Planted: 20 directions of eigenvalue `least`, as errors of that size may leave them."""
    x, y = correlated()
    gram, cross = grams(x, y)
    twice = np.kron(np.ones((2, 2)), gram)
    values, vectors = np.linalg.eigh(twice)
    assert (values < 1e-12).sum() == 30
    values[:20] = least
    indefinite = (vectors * values) @ vectors.T
    weights, gaps = lasso_path(indefinite, np.concatenate([cross, cross]), ALPHAS)
    assert gaps.max() <= 1e-6
    for step, alpha in enumerate(ALPHAS):
        for target, w in enumerate(weights[step]):
            model = Lasso(alpha=alpha, fit_intercept=False, tol=1e-10, max_iter=100_000)
            best = objective(gram, cross[:, target], model.fit(x, y[:, target]).coef_, alpha)
            value = objective(twice, np.concatenate([cross, cross])[:, target], w, alpha)
            assert value <= best * (1 + 2e-6) - least * w @ w


@pytest.mark.parametrize("name", ["plain", *HARD])
def test_coordinate_descent_alone_comes_to_the_same(monkeypatch, name):
    """Where working sets and Newton steps come to a halt, here at once."""
    x, y, scale = hard(name) if name != "plain" else (*correlated(), 1)
    gram, cross = grams(scale * x, y)
    alphas = scale * np.array(ALPHAS)
    weights, gaps = lasso_path(gram, cross, alphas)
    monkeypatch.setattr(lasso, "ROUNDS", 0)
    alone, gaps_alone = lasso_path(gram, cross, alphas)
    best, found = (
        loss(w, gram, cross) + alphas[:, None] * np.abs(w).sum(axis=2) for w in (weights, alone)
    )
    # Where weight moves from unit to unit it takes more sweeps than there are.
    assert gaps_alone.max() <= (1e-4 if name == "more sources than samples" else 1e-6)
    assert (found - best <= gaps_alone * found + 1e-15).all()
    assert (best - found <= gaps * best + 1e-15).all()


def test_coordinate_descent_that_does_not_end_is_given_up_with_its_gap(monkeypatch):
    x, y = correlated()
    monkeypatch.setattr(lasso, "ROUNDS", 0)
    with pytest.warns(RuntimeWarning, match=r"\d+ of 100 fits have a relative duality gap above 0"):
        weights, gaps = lasso_path(*grams(x, y), ALPHAS, gap=0)
    for step, alpha in enumerate(ALPHAS):
        found = [dual_gap(x, y[:, t], weights[step, t], alpha) for t in range(20)]
        np.testing.assert_allclose(gaps[step], found, atol=1e-12)


def test_a_newton_step_without_a_ridge_that_helps_is_none():
    indefinite = np.array([[1e-12, 1e-2], [1e-2, 1e-12]])
    direction = lasso._newton_direction(indefinite, np.arange(2), np.ones(2))
    np.testing.assert_array_equal(direction, 0)


def test_least_squares_of_tiny_sources_is_not_taken_for_rounding():
    x, y = correlated()
    gram, cross = grams(x, y)
    expected, _ = lasso_path(gram, cross, [0])
    weights, gaps = lasso_path(1e-24 * gram, 1e-12 * cross, [0])
    np.testing.assert_allclose(1e-12 * weights, expected, rtol=1e-6)
    assert gaps.max() <= 1e-6


def test_a_gap_that_cannot_be_reached_is_told():
    gram, cross = grams(*correlated())
    with pytest.warns(RuntimeWarning, match="relative duality gap above 0"):
        _, gaps = lasso_path(gram, cross, ALPHAS, gap=0)
    assert gaps.max() < 1e-9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g, c: {"alphas": [0.1, -0.1]}, "alphas must not be negative, got -0.1"),
        (lambda g, c: {"alphas": 0.1}, "alphas must be one-dimensional"),
        (
            lambda g, c: {"cross": c[1:]},
            r"\(source, target\) with 30 sources, got shape \(29, 20\)",
        ),
        (lambda g, c: {"gram": g[1:]}, "gram must be"),
        (lambda g, c: {"gram": g * np.nan}, "gram contains NaN"),
        (lambda g, c: {"gram": g + np.triu(g, 1)}, "gram is not symmetric"),
        (lambda g, c: {"gram": g - 0.5 * np.eye(30)}, "least eigenvalue is -0"),
        (lambda g, c: {"cross": 3 * c}, "cross is larger than correlations"),
    ],
)
def test_faults_are_told(change, message):
    gram, cross = grams(*correlated())
    with pytest.raises(ValueError, match=message):
        lasso_path(**{"gram": gram, "cross": cross, "alphas": ALPHAS} | change(gram, cross))


def test_loss_is_half_the_unexplained_variance():
    x, y = correlated()
    weights = np.random.default_rng(4).normal(scale=0.1, size=(2, 20, 30))
    weights[1, :, 1:] = 0
    expected = [((y - x @ w.T) ** 2).mean(axis=0) / 2 for w in weights]
    np.testing.assert_allclose(loss(weights, *grams(x, y)), expected)
    np.testing.assert_allclose(loss(0 * weights, *grams(x, y)), 0.5)


def test_loss_never_falls_as_the_penalty_grows():
    gram, cross = grams(*correlated())
    alphas = [0, *np.geomspace(1e-5, 1, 25)]
    losses = loss(lasso_path(gram, cross, alphas)[0], gram, cross)
    assert np.diff(losses, axis=0).min() > -1e-6


def test_the_papers_objective_is_the_same():
    """Footnote 9: channels of standard deviation 1/sqrt(N), N = H W s, the loss per image."""
    images, positions = 100, 20
    x, y = correlated(samples=images * positions)
    decay, units = 0.004, y.shape[1]
    root = np.sqrt(positions * units)
    weights = np.random.default_rng(5).normal(scale=0.1, size=(1, units, 30))
    errors = (y - x @ weights[0].T) / root
    papers = (errors**2).sum() / (2 * images) + decay * np.abs(weights).sum()
    ours = loss(weights, *grams(x, y))[0] + decay * units * np.abs(weights[0]).sum(axis=1)
    assert ours.mean() == pytest.approx(papers)


def test_sgd_takes_the_steps_of_a_convolution_trained_by_torch():
    """A 1x1 convolution on normalised images, EuclideanLoss, L1 by its sign, momentum 0.98."""
    x, y = correlated(samples=640)
    shape = (32, 20, 1)  # images, y, x
    root = np.sqrt(20 * y.shape[1])
    images = [torch.tensor(v.reshape(*shape, -1).transpose(0, 3, 1, 2) / root) for v in (x, y)]
    decay, steps = 1e-3, 30
    start = np.random.default_rng(0).normal(scale=0.01, size=(20, 30))
    layer = torch.nn.Conv2d(30, 20, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight[:] = torch.tensor(start)[:, :, None, None]
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.001, momentum=0.98)
    for _ in range(steps):
        optimizer.zero_grad()
        error = ((layer(images[0]) - images[1]) ** 2).sum() / (2 * 32)
        (error + decay * layer.weight.abs().sum()).backward()
        optimizer.step()
    weights = sgd([grams(x, y)] * steps, [0, decay])
    np.testing.assert_allclose(weights[1], layer.weight.detach().numpy()[:, :, 0, 0], atol=1e-12)
    assert np.abs(weights[0] - weights[1]).max() > 1e-5


def test_sgd_comes_to_the_exact_solution_in_the_limit():
    rng = np.random.default_rng(6)
    x = standardize(np.maximum(rng.normal(size=(500, 6)), 0))
    y = standardize(x @ rng.normal(size=(6, 4)) + rng.normal(size=(500, 4)))
    gram, cross = grams(x, y)
    decays = np.array([0, 1e-3, 1e-2, 0.3])
    weights = sgd([(gram, cross)] * 6000, decays)
    exact, _ = lasso_path(gram, cross, 4 * decays)
    np.testing.assert_allclose(weights, exact, atol=2e-3)
    gaps = relative_gap(weights, gram, cross, 4 * decays)
    assert gaps[0].max() < 1e-5
    assert gaps.max() < 0.02


def test_sgd_stopped_early_is_known_to_be_far():
    """The gap of SGD is its distance from the optimum, as the objectives show it."""
    gram, cross = grams(*correlated())
    alphas = np.array([0, 20 * 1e-3])
    weights = sgd([(gram, cross)] * 200, alphas / 20)
    exact, _ = lasso_path(gram, cross, alphas, gap=1e-10)
    value, least = (
        loss(w, gram, cross) + alphas[:, None] * np.abs(w).sum(axis=2) for w in (weights, exact)
    )
    expected = (value - least) / value
    assert np.median(expected) > 0.1
    np.testing.assert_allclose(relative_gap(weights, gram, cross, alphas), expected, atol=2e-6)


def test_sgd_without_batches_or_that_diverges_is_told():
    with pytest.raises(ValueError, match="at least one batch"):
        sgd([], [0.1])
    with pytest.raises(FloatingPointError, match="not finite"), np.errstate(all="ignore"):
        sgd([(1e12 * np.eye(3), np.eye(3))] * 200, [0.1])
