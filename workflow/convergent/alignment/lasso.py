"""Sparse linear maps from one net's layer to another's, solved exactly (section 4 of the paper).

With channels normalised as in footnote 9, the LASSO of each target unit depends on nothing but
correlations. Every fit comes with its duality gap: a proof of how far from the optimum it can be.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import dask
import numba
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve, cholesky, eigh
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from convergent.running.devices import cores

# Targets of one task.
BLOCK = 16
# Correlations are good to this; eigenvalues of a Gram matrix of s units below ACCURACY * sqrt(s),
# about the norm of a matrix of such errors, count as zero.
ACCURACY = 1e-6
# Sweeps of coordinate descent before the first Newton step, and between two.
SWEEPS = 6
# Least number of units by which a working set may grow.
GROWTH = 32
# Rounds in a row in which the gap does not fall to this share, over working sets and within one,
# after which these are given up; and rounds in all, at most.
PATIENCE, PROGRESS = 10, 0.9
ROUNDS = 1000
# Ridges that a Newton step tries, each a hundred times the one before.
RIDGES = 8
# Where these ways end short of the gap: sweeps over all sources between two looks at it, looks at
# most, and the share of the largest weight below which a change is rounding.
LAST_SWEEPS, LOOKS, STILL = 100, 100, 1e-14
# Least ratio of two penalties in a row, and the gap of those in between.
LONGEST_STEP, ROUGH = 0.2, 1e-2
# Below this an objective is rounding, and a gap relative to it would say nothing.
FLOOR = 1e-12
# Step rule of the paper's mapping layers, as in the solver files that its authors published.
RATE, RATE_FACTOR, RATE_STEPS, MOMENTUM, INITIAL = 0.001, 0.5, 1500, 0.98, 0.01


def lasso_path(
    gram: NDArray,
    cross: NDArray,
    alphas: Sequence[float],
    gap: float = 1e-6,
    *,
    threads: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sparse predictions of every target unit, for a path of penalties.

    For each target j the minimum over w of 1/2 (1 - 2 w.r_j + w'Cw) + alpha |w|_1, with C the
    sources' correlations and r_j theirs with the target: the LASSO of the paper's section 4
    with alpha = decay * (number of target units), as its footnote 9 normalises channels.

    Parameters
    ----------
    gram : ndarray of shape (source, source)
        Correlations of the source units; zero rows for dead units.
    cross : ndarray of shape (source, target)
        Correlations of the source units with the target units.
    alphas : sequence of float
        Penalties, not negative, in any order; solved from the largest down, each from the
        solution before it. 0 is least squares: the solution of smallest norm, in the span of
        the eigenvectors of `gram` whose eigenvalue is above 1e-6 sqrt(source).
    gap : float
        Relative duality gap to reach.
    threads : int, optional
        Targets solved at once; all cores if left out.

    Returns
    -------
    weights : ndarray of shape (alpha, target, source), float64
    gaps : ndarray of shape (alpha, target), float64
        Upper bound of (objective - least objective) / objective; for least squares that itself,
        in the span kept. Computed in float64 from `gram`, `cross` and the weights alone.

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not finite, a penalty is negative, `cross` exceeds what
        correlations can be, or `gram` is not symmetric and positive semi-definite up to the
        rounding of correlations.

    Warns
    -----
    RuntimeWarning
        If a gap was not reached; `gaps` says where.

    Notes
    -----
    Coordinate descent on a working set of sources, with Newton steps on the support where it
    does not converge in a few sweeps; sources that violate optimality join the set until the
    gap over all sources is reached. Should that come to a halt, plain coordinate descent over all
    sources goes on from there. The number of steps of each is bounded. Duplicated sources share
    their weight in any proportion.
    """
    gram, cross, alphas = _checked(gram, cross, alphas)
    threads = threads or cores()
    targets = np.ascontiguousarray(cross.T)
    weights = np.zeros((len(alphas), *targets.shape))
    gaps = np.zeros(weights.shape[:2])
    order = np.argsort(-alphas, kind="stable")
    path = order[alphas[order] > 0]

    def task(start: int) -> None:
        rows = slice(start, start + BLOCK)
        weights[path, rows], gaps[path, rows] = _paths(
            gram, targets[rows], alphas[path], float(gap), ROUNDS
        )

    if len(path):
        with threadpool_limits(1, user_api="blas"):
            tasks = [dask.delayed(task)(start) for start in range(0, len(targets), BLOCK)]
            dask.compute(*tasks, scheduler="threads", num_workers=threads)
    if len(path) < len(alphas):
        with threadpool_limits(threads, user_api="blas"):
            weights[alphas == 0], gaps[alphas == 0] = _least_squares(gram, targets)
    short = ~(gaps <= gap)
    if short.any():
        warnings.warn(
            f"{short.sum()} of {gaps.size} fits have a relative duality gap above {gap:g}; "
            f"the largest is {gaps.max():.1e}",
            RuntimeWarning,
            stacklevel=2,
        )
    return weights, gaps


def loss(weights: NDArray, gram: NDArray, cross: NDArray) -> NDArray[np.float64]:
    """The paper's prediction loss of every target unit (table 1).

    Parameters
    ----------
    weights : ndarray of shape (alpha, target, source)
    gram : ndarray of shape (source, source)
    cross : ndarray of shape (source, target)
        Correlations, over the images to score on.

    Returns
    -------
    ndarray of shape (alpha, target), float64
        Half the variance that is left unexplained: 0.5 where all weights are 0, a dead target
        unit among them. The paper's number is the mean over targets.
    """
    gram, targets = np.asarray(gram, np.float64), np.asarray(cross, np.float64).T
    return np.stack(
        [_unexplained(w, targets, targets - _product(w, gram)) / 2 for w in np.float64(weights)]
    )


def relative_gap(
    weights: NDArray, gram: NDArray, cross: NDArray, alphas: Sequence[float], **options
) -> NDArray[np.float64]:
    """How far weights that were found by other means are from the optimum.

    Parameters
    ----------
    weights : ndarray of shape (alpha, target, source)
    gram, cross, alphas, **options
        As for :func:`lasso_path`, which finds the optimum to compare with.

    Returns
    -------
    ndarray of shape (alpha, target), float64
        Upper bound of (objective - least objective) / objective.
    """
    best, gaps = lasso_path(gram, cross, alphas, **options)
    value, least = (
        loss(w, gram, cross) + np.asarray(alphas)[:, None] * np.abs(w).sum(axis=2)
        for w in (weights, best)
    )
    return np.maximum(value - least * (1 - gaps), 0) / np.maximum(value, FLOOR)


def sgd(
    batches: Iterable[tuple[NDArray, NDArray]], decays: Sequence[float], seed: int = 0
) -> NDArray[np.float64]:
    """The paper's fit: stochastic gradient descent with momentum, all decays on the same batches.

    One step per batch, with the step rule of the authors' published solver files: rate 0.001,
    halved every 1,500 steps, momentum 0.98, weights from a normal distribution of standard
    deviation 0.01, and the sign of a weight as the gradient of its size. Their biases are left
    out: channels are centred. With channels of standard deviation 1/sqrt(N) (footnote 9), the
    gradient of the loss per image is that of :func:`lasso_path`'s divided by the number of target
    units, so a batch enters by its second moments alone.

    Parameters
    ----------
    batches : iterable of (gram, cross)
        Of shape (source, source) and (source, target): mean products over a batch of channels
        that have mean 0 and variance 1 over all images.
    decays : sequence of float
        The paper's L1 multipliers; alpha = decay * (number of target units).
    seed : int
        Of the initial weights, which all decays share.

    Returns
    -------
    ndarray of shape (decay, target, source), float64

    Raises
    ------
    ValueError
        If there is no batch.
    FloatingPointError
        If the weights do not stay finite.
    """
    decay = np.asarray(decays, np.float64)[:, None, None]
    weights = velocity = None
    for step, (gram, cross) in enumerate(batches):
        if weights is None:
            shape = cross.shape[::-1]
            start = np.random.default_rng(seed).normal(scale=INITIAL, size=shape)
            weights = np.repeat(start[None], len(decay), axis=0)
            velocity = np.zeros_like(weights)
        rate = RATE * RATE_FACTOR ** (step // RATE_STEPS)
        gradient = (weights @ gram - cross.T) / len(cross.T) + decay * np.sign(weights)
        velocity = MOMENTUM * velocity + rate * gradient
        weights -= velocity
    if weights is None:
        raise ValueError("stochastic gradient descent needs at least one batch")
    if not np.isfinite(weights).all():
        raise FloatingPointError("the weights of stochastic gradient descent are not finite")
    return weights


def _checked(
    gram: NDArray, cross: NDArray, alphas: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    gram = np.ascontiguousarray(gram, np.float64)
    cross, alphas = np.asarray(cross, np.float64), np.asarray(alphas, np.float64)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or 0 in gram.shape:
        raise ValueError(f"gram must be (source, source), got shape {gram.shape}")
    if cross.ndim != 2 or len(cross) != len(gram):
        raise ValueError(
            f"cross must be (source, target) with {len(gram)} sources, got shape {cross.shape}"
        )
    if alphas.ndim != 1:
        raise ValueError(f"alphas must be one-dimensional, got shape {alphas.shape}")
    for name, values in (("gram", gram), ("cross", cross), ("alphas", alphas)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} contains NaN or infinity; dead units must have 0")
    if (alphas < 0).any():
        raise ValueError(f"alphas must not be negative, got {alphas.min():g}")
    diagonal, rounding = gram.diagonal(), _rank_threshold(gram)
    if np.abs(gram - gram.T).max() > rounding:
        raise ValueError("gram is not symmetric")
    try:
        cholesky(gram + rounding * np.eye(len(gram)), lower=True, check_finite=False)
    except LinAlgError:
        least = eigh(gram, eigvals_only=True, subset_by_index=[0, 0])[0]
        raise ValueError(
            f"gram is not positive semi-definite: its least eigenvalue is {least:.2g}, more than "
            f"rounding ({rounding:.1g}); correlations of one set of samples always are"
        ) from None
    worst = (cross**2 - diagonal[:, None]).max(initial=0)
    if worst > rounding:
        raise ValueError(
            "cross is larger than correlations with targets of variance 1 can be: "
            f"cross**2 exceeds the diagonal of gram by {worst:.2g}"
        )
    return gram, cross, alphas


def _rank_threshold(gram: NDArray) -> float:
    """Eigenvalues of a Gram matrix of correlations that are below this count as zero."""
    return ACCURACY * np.sqrt(len(gram)) * (np.abs(gram).max() or 1.0)


def _least_squares(gram: NDArray, targets: NDArray) -> tuple[NDArray, NDArray]:
    """Weights (target, source) of the least squares and how far they are from the optimum."""
    live, threshold = np.flatnonzero(gram.diagonal() > 0), _rank_threshold(gram)
    part = gram[np.ix_(live, live)]
    try:
        cholesky(part - threshold * np.eye(len(live)), lower=True, check_finite=False)
        factor = cho_factor(part, lower=True, check_finite=False)
        solve = lambda rows: cho_solve(factor, rows.T, check_finite=False).T  # noqa: E731
    except LinAlgError:
        values, vectors = eigh(part, check_finite=False, driver="evd")
        kept, inverse = vectors[:, values > threshold], 1 / values[values > threshold]
        solve = lambda rows: (rows @ kept * inverse) @ kept.T  # noqa: E731
    weights = np.zeros_like(targets)
    weights[:, live] = solve(targets[:, live])
    residual = targets - weights @ gram
    excess = np.einsum("ts,ts->t", residual[:, live], solve(residual[:, live])) / 2
    objective = _unexplained(weights, targets, residual) / 2
    return weights, np.maximum(excess, 0) / np.maximum(objective, FLOOR)


def _unexplained(weights: NDArray, targets: NDArray, residual: NDArray) -> NDArray:
    """1 - 2 w.r + w'Cw of each target, with `residual` = r - Cw."""
    return np.maximum(1 - np.einsum("ts,ts->t", weights, targets + residual), 0)


def _product(weights: NDArray, gram: NDArray) -> NDArray:
    """`weights` @ `gram`, by way of a sparse matrix where most weights are zero."""
    sparse = np.count_nonzero(weights) < 0.05 * weights.size
    return csr_array(weights) @ gram if sparse else weights @ gram


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _dot(x, y):
    total = 0.0
    for i in range(x.size):
        total += x[i] * y[i]
    return total


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _gap(w, r, q, alpha):
    """Duality gap and objective at `w`, with `q` = r - Cw.

    The dual point is the residual, scaled to be feasible. Written as a sum of terms none of which
    is negative.
    """
    unexplained, norm, largest = 1.0, 0.0, 0.0
    for i in range(w.size):
        unexplained -= w[i] * (r[i] + q[i])
        norm += abs(w[i])
        largest = max(largest, abs(q[i]))
    unexplained = max(unexplained, 0.0)
    scale = 1.0 if largest <= alpha else alpha / largest
    gap = 0.5 * unexplained * (1 - scale) ** 2
    for i in range(w.size):
        gap += max(alpha * abs(w[i]) - scale * w[i] * q[i], 0.0)
    return gap, 0.5 * unexplained + alpha * norm


@numba.njit(nogil=True, cache=True)
def _subtract(q, row, factor):
    for i in range(q.size):
        q[i] -= row[i] * factor


@numba.njit(nogil=True, cache=True)
def _sweep(gram, w, q, alpha):
    """One round of coordinate descent; keeps `q` = r - Cw."""
    for j in range(w.size):
        scale = gram[j, j]
        if scale <= 0:
            continue
        z = q[j] + scale * w[j]
        if z > alpha:
            new = (z - alpha) / scale
        elif z < -alpha:
            new = (z + alpha) / scale
        else:
            new = 0.0
        if new != w[j]:
            _subtract(q, gram[j], new - w[j])
            w[j] = new


@numba.njit(nogil=True, cache=True)
def _residual(gram, r, w, q):
    """Make `q` = r - Cw from the start, so that errors do not add up."""
    q[:] = r
    for i in np.flatnonzero(w):
        _subtract(q, gram[i], w[i])


@numba.njit(nogil=True, cache=True)
def _newton_direction(gram, support, b):
    """Solution of the support's equations; a ridge above rounding keeps duplicates apart.

    No step at all where `gram` is so far from positive semi-definite that no ridge helps.
    """
    k = support.size
    h = np.empty((k, k))
    largest = 0.0
    for i in support:
        largest = max(largest, gram[i, i])
    ridge = 1e-10 * largest
    for _ in range(RIDGES):
        for i in range(k):
            row = gram[support[i]]
            for j in range(k):
                h[i, j] = row[support[j]]
            h[i, i] += ridge
        ok = True
        try:
            lower = np.linalg.cholesky(h)
        except Exception:
            ok = False
        if ok:
            break
        ridge *= 100
    if not ok:
        return np.zeros(k)
    d = b.copy()
    for i in range(k):
        d[i] = (d[i] - _dot(lower[i, :i], d[:i])) / lower[i, i]
    for i in range(k - 1, -1, -1):
        d[i] /= lower[i, i]
        _subtract(d[:i], lower[i, :i], d[i])
    return d


@numba.njit(nogil=True, cache=True)
def _newton(gram, w, q, alpha):
    """Newton step on the support that ends where signs would change; keeps `q` = r - Cw.

    Returns whether it ended before its full length, which leaves a smaller support.
    """
    support = np.flatnonzero(w)
    if support.size == 0:
        return False
    old = w[support]
    sign = np.sign(old)
    b = q[support] - alpha * sign
    d = _newton_direction(gram, support, b)
    # The whole step, with what changes its sign set to zero; or else up to the first change.
    new = old + d
    first, step = -1, 1.0
    for i in range(new.size):
        if new[i] * sign[i] < 0:
            new[i] = 0.0
            t = -old[i] / d[i]
            if t < step:
                first, step = i, t
    for attempt in range(2):
        change = -_dot(b, new - old)
        delta = np.zeros(w.size)
        for i in range(new.size):
            if new[i] != old[i]:
                _subtract(delta, gram[support[i]], old[i] - new[i])
        change += 0.5 * _dot(new - old, delta[support])
        if change < 0 or attempt == 1 or first < 0:
            break
        new = old + step * d
        new[first] = 0.0
    if change < 0:
        w[support] = new
        q -= delta
    return attempt == 1 and change < 0


@numba.njit(nogil=True, cache=True)
def _solve(gram, r, w, q, alpha, tolerance, rounds):
    """Minimise over a working set, in place."""
    least, idle = np.inf, 0
    for _ in range(rounds):
        for newton in (False, True):
            if newton:
                # Supports of more units than the rank of `gram` shrink one unit at a time.
                while _newton(gram, w, q, alpha):
                    pass
            else:
                for _ in range(SWEEPS):
                    _sweep(gram, w, q, alpha)
            gap, objective = _gap(w, r, q, alpha)
            if gap <= tolerance * objective:
                return
        idle = 0 if gap < PROGRESS * least else idle + 1
        least = min(gap, least)
        if idle == PATIENCE:
            return


@numba.njit(nogil=True, cache=True)
def _working_set(w, q, alpha):
    """Sources in use, and of those that violate optimality the worst: at most as many again."""
    violation = np.where(w == 0, np.abs(q) - alpha, 0.0)
    limit = max(GROWTH, np.count_nonzero(w))
    threshold = 0.0
    if np.count_nonzero(violation > 0) > limit:
        threshold = np.partition(violation, w.size - limit - 1)[w.size - limit - 1]
    chosen = (w != 0) | (violation > threshold)
    if threshold > 0:
        # Duplicates violate it equally: as many of them as there is room for.
        equal = np.flatnonzero(violation == threshold)
        chosen[equal[: limit - np.count_nonzero(violation > threshold)]] = True
    return np.flatnonzero(chosen)


@numba.njit(nogil=True, cache=True)
def _by_working_sets(gram, r, w, q, alpha, tolerance, rounds):
    """Minimise over all sources, in place, working set by working set; returns the gap."""
    gap, objective = _gap(w, r, q, alpha)
    bound = gap / max(objective, FLOOR)
    least, idle = np.inf, 0
    for _ in range(rounds):
        idle = 0 if bound < PROGRESS * least else idle + 1
        least = min(bound, least)
        if bound <= tolerance or idle == PATIENCE:
            break
        members = _working_set(w, q, alpha)
        inner = np.empty((members.size, members.size))
        for i in range(members.size):
            row = gram[members[i]]
            for j in range(members.size):
                inner[i, j] = row[members[j]]
        part, rest = w[members], q[members]
        _solve(inner, r[members], part, rest, alpha, 0.3 * max(tolerance, bound), rounds)
        w[members] = part
        _residual(gram, r, w, q)
        gap, objective = _gap(w, r, q, alpha)
        bound = gap / max(objective, FLOOR)
    return bound


@numba.njit(nogil=True, cache=True)
def _by_sweeps(gram, r, w, q, alpha, tolerance):
    """Minimise over all sources, in place, by coordinate descent alone; returns the gap."""
    gap, objective = _gap(w, r, q, alpha)
    best, kept = gap / max(objective, FLOOR), w.copy()
    for _ in range(LOOKS):
        before = w.copy()
        for _ in range(LAST_SWEEPS):
            _sweep(gram, w, q, alpha)
        _residual(gram, r, w, q)
        gap, objective = _gap(w, r, q, alpha)
        bound = gap / max(objective, FLOOR)
        if bound < best:
            best, kept = bound, w.copy()
        if best <= tolerance or np.abs(w - before).max() <= STILL * np.abs(w).max():
            break
    w[:] = kept
    _residual(gram, r, w, q)
    return best


@numba.njit(nogil=True, cache=True)
def _fit(gram, r, w, q, alpha, tolerance, rounds):
    """Minimise over all sources, in place; returns the gap that was reached."""
    bound = _by_working_sets(gram, r, w, q, alpha, tolerance, rounds)
    return bound if bound <= tolerance else _by_sweeps(gram, r, w, q, alpha, tolerance)


@numba.njit(nogil=True, cache=True)
def _paths(gram, targets, alphas, tolerance, rounds):
    """Weights (alpha, target, source) and gaps of some targets, for decreasing penalties."""
    weights = np.zeros((alphas.size, targets.shape[0], gram.shape[0]))
    gaps = np.empty((alphas.size, targets.shape[0]))
    for target in range(targets.shape[0]):
        r = targets[target]
        w, q = np.zeros(r.size), r.copy()
        for step in range(alphas.size):
            # Far below the last penalty: by way of others, so that no support outgrows the rank.
            level = LONGEST_STEP * np.abs(q).max()
            while level > alphas[step]:
                _fit(gram, r, w, q, level, ROUGH, rounds)
                level *= LONGEST_STEP
            gaps[step, target] = _fit(gram, r, w, q, alphas[step], tolerance, rounds)
            weights[step, target] = w
    return weights, gaps
