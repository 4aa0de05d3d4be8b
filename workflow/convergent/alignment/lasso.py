"""Sparse linear maps between layers of two nets, solved exactly (section 4 of the paper).

With channels normalised as in footnote 9, the LASSO of each target unit depends on correlations
only. Every fit comes with its duality gap, which proves how far from the optimum it can be.
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

from convergent.measures.selection import kth_largest
from convergent.running.devices import cores

# Target units of one task.
CHUNK = 16
# Error of a correlation. Eigenvalues of a Gram matrix of s units below ACCURACY * sqrt(s), about
# the norm of a matrix of such errors, count as zero.
ACCURACY = 1e-6
# Sweeps of coordinate descent before the first Newton step, and between two steps.
SWEEPS = 6
# Least number of units by which a working set may grow.
GROWTH = 32
# A method stops after PATIENCE rounds in a row in which the gap does not fall below PROGRESS times
# its least value, and after ROUNDS in all.
PATIENCE, PROGRESS = 10, 0.9
ROUNDS = 1000
# Number of ridges that a Newton step tries, each a hundred times the one before.
RIDGES = 8
# If these methods stop before the gap is reached, sweeps over all sources follow: LAST_SWEEPS
# between two evaluations of the gap and EVALUATIONS of these at most. They end when no weight
# changes by more than NEGLIGIBLE times the largest weight, as such changes are rounding.
LAST_SWEEPS, EVALUATIONS, NEGLIGIBLE = 100, 100, 1e-14
# Least ratio of two successive penalties; others are inserted, and solved to a gap of ROUGH.
LEAST_RATIO, ROUGH = 0.2, 1e-2
# An objective below this is rounding, so the gap is not divided by less.
FLOOR = 1e-12
# Step rule of the paper's mapping layers, from the solver files that its authors published.
RATE, RATE_FACTOR, RATE_STEPS, MOMENTUM, INITIAL = 0.001, 0.5, 1500, 0.98, 0.01


def lasso_path(
    gram: NDArray,
    cross: NDArray,
    alphas: Sequence[float],
    gap: float = 1e-6,
    *,
    threads: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit sparse predictions of every target unit, for a path of penalties.

    For each target j this minimises 1/2 (1 - 2 w.r_j + w'Cw) + alpha |w|_1 over w, where C are the
    sources' correlations and r_j theirs with the target. This is the LASSO of the paper's section
    4, with channels normalised as in its footnote 9 and alpha = decay * (number of target units).

    Parameters
    ----------
    gram : ndarray of shape (source, source)
        Correlations of the source units; zero rows for dead units.
    cross : ndarray of shape (source, target)
        Correlations of the source units with the target units.
    alphas : sequence of float
        Penalties, not negative, in any order. They are solved from the largest down, each from
        the solution before it. 0 is least squares: the solution of smallest norm, in the span of
        the eigenvectors of `gram` whose eigenvalue is above 1e-6 sqrt(source).
    gap : float
        Relative duality gap to reach.
    threads : int, optional
        Targets to solve at once; by default one per core.

    Returns
    -------
    weights : ndarray of shape (alpha, target, source), float64
    gaps : ndarray of shape (alpha, target), float64
        Upper bound of (objective - least objective) / objective, computed in float64 from `gram`,
        `cross` and the weights. For least squares it is this value itself, in that span.

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not finite, a penalty is negative, `cross` exceeds what
        correlations can be, or `gram` is not symmetric and positive semi-definite up to the
        rounding of correlations.

    Warns
    -----
    RuntimeWarning
        If a gap was not reached; see `gaps`.

    Notes
    -----
    Coordinate descent runs on a working set of sources, with Newton steps on the support if it
    does not converge in a few sweeps. Sources that violate optimality join the set until the gap
    over all sources is reached. If this stops making progress, plain coordinate descent over all
    sources continues. The number of steps of each method is bounded. Duplicated sources may share
    their weight in any proportion.
    """
    gram, cross, penalties = _checked(gram, cross, alphas)
    threads = threads or cores()
    targets = np.ascontiguousarray(cross.T)
    weights = np.zeros((len(penalties), *targets.shape))
    gaps = np.zeros(weights.shape[:2])
    order = np.argsort(-penalties, kind="stable")
    path = order[penalties[order] > 0]

    def task(start: int) -> None:
        rows = slice(start, start + CHUNK)
        weights[path, rows], gaps[path, rows] = _paths(
            gram, targets[rows], penalties[path], float(gap), ROUNDS
        )

    if len(path):
        with threadpool_limits(1, user_api="blas"):
            tasks = [dask.delayed(task)(start) for start in range(0, len(targets), CHUNK)]
            dask.compute(*tasks, scheduler="threads", num_workers=threads)
    if len(path) < len(penalties):
        with threadpool_limits(threads, user_api="blas"):
            weights[penalties == 0], gaps[penalties == 0] = _least_squares(gram, targets)
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
    """Compute the paper's prediction loss of every target unit (table 1).

    Parameters
    ----------
    weights : ndarray of shape (alpha, target, source)
    gram : ndarray of shape (source, source)
    cross : ndarray of shape (source, target)
        Correlations over the images to score on.

    Returns
    -------
    ndarray of shape (alpha, target), float64
        Half of the unexplained variance: 0.5 if all weights are 0, also for a dead target unit.
        The paper's number is the mean over targets.
    """
    gram, targets = np.asarray(gram, np.float64), np.asarray(cross, np.float64).T
    return np.stack(
        [
            _unexplained(w, targets, targets - _product(w, gram)) / 2
            for w in np.asarray(weights, np.float64)
        ]
    )


def relative_gap(
    weights: NDArray, gram: NDArray, cross: NDArray, alphas: Sequence[float], **options
) -> NDArray[np.float64]:
    """Bound how far weights that were fitted by other means are from the optimum.

    Parameters
    ----------
    weights : ndarray of shape (alpha, target, source)
    gram, cross, alphas, **options
        Arguments of :func:`lasso_path`, which finds the optimum to compare with.

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
    """Fit maps as the paper does, by stochastic gradient descent with momentum.

    There is one step per batch, and all decays see the same batches. The step rule is that of the
    authors' published solver files: rate 0.001, halved every 1,500 steps, momentum 0.98, weights
    from a normal distribution of standard deviation 0.01, and the sign of a weight as the gradient
    of its size. There are no biases, as channels are centred. With channels of standard deviation
    1/sqrt(N) (footnote 9), the gradient of the loss per image is that of the loss of
    :func:`lasso_path` divided by the number of target units, so only the second moments of a batch
    matter.

    Parameters
    ----------
    batches : iterable of (gram, cross)
        Mean products over a batch, of shape (source, source) and (source, target), of channels
        that have mean 0 and variance 1 over all images.
    decays : sequence of float
        The paper's L1 multipliers; alpha = decay * (number of target units).
    seed : int
        Seed of the initial weights, which all decays share.

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
    weights: NDArray | None = None
    velocity: NDArray = np.zeros(())
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
    """Check the arguments of :func:`lasso_path` and return them as float64 arrays."""
    gram = np.ascontiguousarray(gram, np.float64)
    cross, penalties = np.asarray(cross, np.float64), np.asarray(alphas, np.float64)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or 0 in gram.shape:
        raise ValueError(f"gram must be (source, source), got shape {gram.shape}")
    if cross.ndim != 2 or len(cross) != len(gram):
        raise ValueError(
            f"cross must be (source, target) with {len(gram)} sources, got shape {cross.shape}"
        )
    if penalties.ndim != 1:
        raise ValueError(f"alphas must be one-dimensional, got shape {penalties.shape}")
    for name, values in (("gram", gram), ("cross", cross), ("alphas", penalties)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} contains NaN or infinity; dead units must have 0")
    if (penalties < 0).any():
        raise ValueError(f"alphas must not be negative, got {penalties.min():g}")
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
    return gram, cross, penalties


def _rank_threshold(gram: NDArray) -> float:
    """Return the value below which eigenvalues of a matrix of correlations count as zero."""
    return ACCURACY * np.sqrt(len(gram)) * (np.abs(gram).max() or 1.0)


def _least_squares(gram: NDArray, targets: NDArray) -> tuple[NDArray, NDArray]:
    """Solve the least squares; return weights (target, source) and their relative gaps."""
    live, threshold = np.flatnonzero(gram.diagonal() > 0), _rank_threshold(gram)
    part = gram[np.ix_(live, live)]
    try:
        cholesky(part - threshold * np.eye(len(live)), lower=True, check_finite=False)
        factor = cho_factor(part, lower=True, check_finite=False)
        solve = lambda rows: cho_solve(factor, rows.T, check_finite=False).T  # noqa: E731
    except LinAlgError:
        values, vectors = eigh(part, check_finite=False, driver="evd")
        span, inverse = vectors[:, values > threshold], 1 / values[values > threshold]
        solve = lambda rows: (rows @ span * inverse) @ span.T  # noqa: E731
    weights = np.zeros_like(targets)
    weights[:, live] = solve(targets[:, live])
    residual = targets - weights @ gram
    excess = np.einsum("ts,ts->t", residual[:, live], solve(residual[:, live])) / 2
    objective = _unexplained(weights, targets, residual) / 2
    return weights, np.maximum(excess, 0) / np.maximum(objective, FLOOR)


def _unexplained(weights: NDArray, targets: NDArray, residual: NDArray) -> NDArray:
    """Compute 1 - 2 w.r + w'Cw of each target, with `residual` = r - Cw."""
    return np.maximum(1 - np.einsum("ts,ts->t", weights, targets + residual), 0)


def _product(weights: NDArray, gram: NDArray) -> NDArray:
    """Multiply `weights` by `gram`, as a sparse matrix if most weights are zero."""
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
    """Compute the duality gap and the objective at `w`, with `q` = r - Cw.

    The dual point is the residual, scaled to be feasible. The gap is a sum of terms that are not
    negative.
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
def _places(marks):
    """Return the places of elements that are not 0.

    This and the next two take the place of NumPy's functions and indices, which take Numba ten
    times as long to compile: the first map of a run waits for that.
    """
    number = 0
    for i in range(marks.size):
        number += marks[i] != 0
    places = np.empty(number, np.int64)
    number = 0
    for i in range(marks.size):
        if marks[i] != 0:
            places[number] = i
            number += 1
    return places


@numba.njit(nogil=True, cache=True)
def _take(x, places):
    taken = np.empty(places.size)
    for i in range(places.size):
        taken[i] = x[places[i]]
    return taken


@numba.njit(nogil=True, cache=True)
def _put(x, places, values):
    for i in range(places.size):
        x[places[i]] = values[i]


@numba.njit(nogil=True, cache=True)
def _largest(x):
    """Return the largest size of an element."""
    largest = 0.0
    for i in range(x.size):
        largest = max(largest, abs(x[i]))
    return largest


@numba.njit(nogil=True, cache=True)
def _subtract(q, row, factor):
    for i in range(q.size):
        q[i] -= row[i] * factor


@numba.njit(nogil=True, cache=True)
def _sweep(gram, w, q, alpha):
    """Do one round of coordinate descent in place; `q` stays r - Cw."""
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
    """Compute `q` = r - Cw from scratch, so that rounding errors do not add up."""
    for i in range(w.size):
        q[i] = r[i]
    for i in range(w.size):
        if w[i] != 0:
            _subtract(q, gram[i], w[i])


@numba.njit(nogil=True, cache=True)
def _newton_direction(gram, support, b):
    """Solve the equations of the support, with a ridge for duplicated sources.

    The direction is 0 if `gram` is so far from positive semi-definite that no ridge helps.
    """
    k = support.size
    h = np.empty((k, k))
    largest = 0.0
    for i in range(k):
        largest = max(largest, gram[support[i], support[i]])
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
    d = np.empty(k)
    for i in range(k):
        d[i] = (b[i] - _dot(lower[i, :i], d[:i])) / lower[i, i]
    for i in range(k - 1, -1, -1):
        d[i] /= lower[i, i]
        _subtract(d[:i], lower[i, :i], d[i])
    return d


@numba.njit(nogil=True, cache=True)
def _newton(gram, w, q, alpha):
    """Do a Newton step on the support, up to the first change of a sign; `q` stays r - Cw.

    Returns whether the step was cut short, which leaves a smaller support.
    """
    support = _places(w)
    k = support.size
    if k == 0:
        return False
    old, b = _take(w, support), _take(q, support)
    for i in range(k):
        b[i] -= alpha if old[i] > 0 else -alpha
    d = _newton_direction(gram, support, b)
    # Try the whole step, with weights that change sign set to zero; else stop at the first change.
    new, move = np.empty(k), np.empty(k)
    first, step = -1, 1.0
    for i in range(k):
        new[i] = old[i] + d[i]
        if (new[i] < 0 < old[i]) or (old[i] < 0 < new[i]):
            new[i] = 0.0
            t = -old[i] / d[i]
            if t < step:
                first, step = i, t
    for attempt in range(2):
        delta = np.zeros(w.size)
        for i in range(k):
            move[i] = new[i] - old[i]
            if move[i] != 0:
                _subtract(delta, gram[support[i]], -move[i])
        change = 0.5 * _dot(move, _take(delta, support)) - _dot(b, move)
        if change < 0 or attempt == 1 or first < 0:
            break
        for i in range(k):
            new[i] = old[i] + step * d[i]
        new[first] = 0.0
    if change < 0:
        _put(w, support, new)
        _subtract(q, delta, 1.0)
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
    """Choose the sources in use and as many again, at most, that violate optimality most."""
    violation = np.zeros(w.size)
    violating = used = 0
    for i in range(w.size):
        if w[i] != 0:
            used += 1
        else:
            violation[i] = abs(q[i]) - alpha
            violating += violation[i] > 0
    limit = max(GROWTH, used)
    threshold = kth_largest(violation, limit + 1) if violating > limit else 0.0
    chosen = np.zeros(w.size)
    room = limit
    for i in range(w.size):
        if violation[i] > threshold:
            room -= 1
            chosen[i] = 1
        elif w[i] != 0:
            chosen[i] = 1
    if threshold > 0:
        # Duplicates violate it equally: add as many of them as there is room for.
        for i in range(w.size):
            if violation[i] == threshold and room > 0:
                room -= 1
                chosen[i] = 1
    return _places(chosen)


@numba.njit(nogil=True, cache=True)
def _by_working_sets(gram, r, w, q, alpha, tolerance, rounds):
    """Minimise over all sources in place, working set by working set; return the gap."""
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
        part, rest = _take(w, members), _take(q, members)
        limit = 0.3 * max(tolerance, bound)
        _solve(inner, _take(r, members), part, rest, alpha, limit, rounds)
        _put(w, members, part)
        _residual(gram, r, w, q)
        gap, objective = _gap(w, r, q, alpha)
        bound = gap / max(objective, FLOOR)
    return bound


@numba.njit(nogil=True, cache=True)
def _by_sweeps(gram, r, w, q, alpha, tolerance):
    """Minimise over all sources in place, by coordinate descent only; return the gap."""
    gap, objective = _gap(w, r, q, alpha)
    best, best_w = gap / max(objective, FLOOR), w.copy()
    for _ in range(EVALUATIONS):
        before = w.copy()
        for _ in range(LAST_SWEEPS):
            _sweep(gram, w, q, alpha)
        _residual(gram, r, w, q)
        gap, objective = _gap(w, r, q, alpha)
        bound = gap / max(objective, FLOOR)
        if bound < best:
            best, best_w = bound, w.copy()
        _subtract(before, w, 1.0)
        if best <= tolerance or _largest(before) <= NEGLIGIBLE * _largest(w):
            break
    for i in range(w.size):
        w[i] = best_w[i]
    _residual(gram, r, w, q)
    return best


@numba.njit(nogil=True, cache=True)
def _fit(gram, r, w, q, alpha, tolerance, rounds):
    """Minimise over all sources in place; return the gap that was reached."""
    bound = _by_working_sets(gram, r, w, q, alpha, tolerance, rounds)
    return bound if bound <= tolerance else _by_sweeps(gram, r, w, q, alpha, tolerance)


@numba.njit(nogil=True, cache=True)
def _paths(gram, targets, alphas, tolerance, rounds):
    """Fit some targets for decreasing penalties; return weights and gaps as `lasso_path`."""
    weights = np.zeros((alphas.size, targets.shape[0], gram.shape[0]))
    gaps = np.empty((alphas.size, targets.shape[0]))
    for target in range(targets.shape[0]):
        r = targets[target]
        w, q = np.zeros(r.size), r.copy()
        for step in range(alphas.size):
            # Large steps go by way of other penalties, so that no support outgrows the rank.
            level = LEAST_RATIO * _largest(q)
            while level > alphas[step]:
                _fit(gram, r, w, q, level, ROUGH, rounds)
                level *= LEAST_RATIO
            gaps[step, target] = _fit(gram, r, w, q, alphas[step], tolerance, rounds)
            for i in range(w.size):
                weights[step, target, i] = w[i]
    return weights, gaps
