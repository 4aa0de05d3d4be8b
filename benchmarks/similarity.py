"""All measures of two layers from moments, with chance and intervals, beside plain NumPy.

Two layers of 256 units on maps of 13x13 (conv5), ReLU activations of 450 images that share half of
their sources. The library is given the moments of 20 blocks and the means of images; it computes
all measures but those of dissimilarities, 20 rotations and the jackknife. The rival has the
activations in float32, and computes the same blocks and draws of the same measures from them with
NumPy and SciPy: it leaves out each block, and mixes the units, and computes covariances and
everything that follows anew. Ratios are medians of interleaved runs, in processor time of one
thread.

`--units 4096` instead compares the library with the decompositions that the definitions need once
(of each layer's covariances, the singular values for CCA with their vectors, for SVCCA and for the
shape distance, and the assignment), and 20 assignments more, of the matrices of 20 rotations.
Activations are those of fully connected layers. Seconds are those of processors. It prints the peak
memory of the process, too, in which the decompositions are made only after the peak is read.

    uv run python benchmarks/similarity.py [--runs 3]
    uv run python benchmarks/similarity.py --units 4096
"""

import argparse
import itertools
import time

import numpy as np
import scipy.linalg
import threadpoolctl
from common import header, interleaved, median_ratio
from scipy.optimize import linear_sum_assignment

from convergent.activations.blocks import Blocks, Cut
from convergent.activations.moments import Moments
from convergent.inference.comparisons import Comparison
from convergent.inference.estimates import estimates, ways
from convergent.inference.nulls import rotations
from convergent.measures.evidence import Evidence, Split
from convergent.measures.registry import measures
from convergent.measures.spectra import LEAST
from convergent.measures.svcca import SHARE
from convergent.running.devices import peak_memory

UNITS, MAP, IMAGES, BLOCKS, DRAWS = 256, (13, 13), 450, 20, 20
NEEDS = ("moments", "spectra", "matrix", "image_means")


def layers(images: int, positions: int, units: int) -> list[np.ndarray]:
    """Two layers (image, position, unit), of sources of which they share half."""
    rng = np.random.default_rng(0)
    shared, *own = rng.normal(size=(3, images, positions, units // 2)).astype(np.float32)
    found = []
    for sources in own:
        both = np.concatenate([shared, sources], axis=-1)
        both *= np.arange(1, units + 1, dtype=np.float32) ** -0.5
        weights = rng.normal(size=(units, units)).astype(np.float32)
        found.append(np.maximum(both @ weights, 0))
    return found


def moments(x: np.ndarray, y: np.ndarray, cut: Cut) -> Blocks:
    flat = ([z[i:j].reshape(-1, z.shape[-1]) for z in (x, y)] for i, j in edges_of(cut))
    return Blocks(cut, [Moments.of(a) if x is y else Moments.of(a, b) for a, b in flat])


def edges_of(cut: Cut) -> list[tuple[int, int]]:
    return list(itertools.pairwise(cut.edges.tolist()))


def compared(x: np.ndarray, y: np.ndarray) -> tuple[tuple[Blocks, ...], tuple[np.ndarray, ...]]:
    """Moments of blocks between and within the layers, and means of images: what a run keeps."""
    cut = Cut.of(len(x), BLOCKS).coarsen(x.shape[-1], y.shape[-1])
    blocks = moments(x, y, cut), moments(x, x, cut), moments(y, y, cut)
    return blocks, (x.mean(axis=1), y.mean(axis=1))


def library(blocks, image_means=None) -> list[dict]:
    """Estimate all measures with intervals and 20 rotations."""
    of = [m for m in measures(gives="layers") if m.needs in NEEDS[: 3 + (image_means is not None)]]
    asked = [way for way in ways(of) if not way.of_codes]
    comparison = Comparison("a", "b", blocks, image_means=image_means)
    drawn = {"rotation": rotations(comparison.split, DRAWS, 0)}
    rows, _ = estimates(asked, comparison, drawn)
    return rows


def covariances(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Covariances between and within layers (sample, unit), and means."""
    means = x.mean(axis=0, dtype=np.float64), y.mean(axis=0, dtype=np.float64)
    x, y = x - means[0].astype(np.float32), y - means[1].astype(np.float32)
    return [(p.T @ q / len(x)).astype(np.float64) for p, q in ((x, y), (x, x), (y, y))] + [*means]


def axes(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh(a)
    return values[::-1], vectors[:, ::-1]


def whitened(c, variances, vectors) -> np.ndarray:
    kept = [v > LEAST * v[0] for v in variances]
    a, b = (u[:, k] / np.sqrt(v[k]) for u, v, k in zip(vectors, variances, kept, strict=True))
    return a.T @ c @ b


def correlated(c, a, b) -> np.ndarray:
    return c / np.sqrt(np.outer(a.diagonal(), b.diagonal()))


def partial(matrix: np.ndarray, share: float) -> float:
    """Average the best pairs of a share of units: an assignment with units that stand aside."""
    units = len(matrix)
    pairs = round(share * units)
    wide = np.zeros((2 * units - pairs, 2 * units - pairs))
    wide[:units, :units] = matrix
    wide[units:, units:] = -10
    rows, columns = linear_sum_assignment(wide, maximize=True)
    inside = (rows < units) & (columns < units)
    return float(wide[rows[inside], columns[inside]].sum() / pairs)


def matched(matrix: np.ndarray) -> list[float]:
    rows, columns = linear_sum_assignment(matrix, maximize=True)
    mean = float(matrix[rows, columns].mean())  # the matching, and soft matching
    semi = [float(matrix.max(axis=axis).mean()) for axis in (1, 0)]
    return [*semi, mean, *(partial(matrix, share) for share in (0.25, 0.5, 0.75))]


def projected(c, a, b) -> list[float]:
    """CCA, and PWCCA both ways."""
    (va, ua), (vb, ub) = axes(a), axes(b)
    left, found, right = np.linalg.svd(whitened(c, (va, vb), (ua, ub)), full_matrices=False)
    values = [float(found.mean())]
    for v, u, directions in ((va, ua, left), (vb, ub, right.T)):
        kept = v > LEAST * v[0]
        weights = np.abs((u[:, kept] * np.sqrt(v[kept])) @ directions).sum(axis=0)
        values.append(float(weights @ found / weights.sum()))
    return values


def spectral(c, a, b) -> list[float]:
    (va, ua), (vb, ub) = axes(a), axes(b)
    kept = [np.searchsorted(np.cumsum(v), SHARE * v.sum()) + 1 for v in (va, vb)]
    several = whitened(c, (va, vb), (ua, ub))[: kept[0], : kept[1]]
    norm = np.linalg.svd(c, compute_uv=False).sum()
    cka = (c**2).sum() / (np.linalg.norm(a) * np.linalg.norm(b))
    angle = np.arccos(norm / np.sqrt(np.trace(a) * np.trace(b)))
    svcca = np.linalg.svd(several, compute_uv=False).mean()
    return [float(cka), float(svcca), float(angle), *projected(c, a, b)]


def explained(fitted, scored) -> float:
    """Variance of the second layer that a fit on some images explains of others."""
    (c, a, _, x, y), (d, e, f, mean_x, mean_y) = fitted, scored
    weights = scipy.linalg.solve(a, c, assume_a="pos")
    predicted = (weights * (e @ weights)).sum()
    shift = mean_y - y - (mean_x - x) @ weights
    total = np.trace(f)
    return float((2 * (weights * d).sum() - predicted - shift @ shift) / total)


def regressed(first, last) -> list[float]:
    found = []
    for turned in (False, True):
        p, q = ((z[0].T, z[2], z[1], z[4], z[3]) if turned else z for z in (first, last))
        found.append((explained(p, q) + explained(q, p)) / 2)
    return found


def unbiased(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    for matrix in (k, l):
        np.fill_diagonal(matrix, 0)

    def hsic(k, l):  # noqa: E741
        n = len(k)
        pairs = k.sum() * l.sum() / ((n - 1) * (n - 2))
        return ((k * l).sum() + pairs - 2 * (k.sum(axis=0) @ l.sum(axis=0)) / (n - 2)) / n / (n - 3)

    return float(hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l)))


def neighbours(x: np.ndarray, y: np.ndarray) -> float:
    near = []
    for z in (x, y):
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
        inner = z @ z.T
        np.fill_diagonal(inner, -np.inf)
        among = np.zeros(inner.shape, bool)
        np.put_along_axis(among, np.argpartition(-inner, 9, axis=1)[:, :10], True, axis=1)
        near.append(among)
    return float((near[0] & near[1]).sum() / (10 * len(x)))


def everything(x: np.ndarray, y: np.ndarray, half: int) -> list[float]:
    """All measures of two layers (image, position, unit)."""
    units = x.shape[-1]
    pieces = [slice(None), slice(0, half), slice(half, None)]
    whole, *halves = (
        covariances(x[some].reshape(-1, units), y[some].reshape(-1, units)) for some in pieces
    )
    c, a, b, *_ = whole
    means = x.mean(axis=1), y.mean(axis=1)
    return [
        *spectral(c, a, b), *regressed(*halves), *matched(correlated(c, a, b)),
        unbiased(*means), neighbours(*means),
    ]  # fmt: skip


def rival(x: np.ndarray, y: np.ndarray) -> list[float]:
    """Values, those without each block, and those of 20 rotations, all from activations."""
    cut = Cut.of(len(x), BLOCKS)
    values = everything(x, y, cut.half)
    for start, stop in edges_of(cut):
        rows = np.r_[0:start, stop : len(x)]
        half = cut.half - (stop - start if start < cut.half else 0)
        everything(x[rows], y[rows], half)
    rng = np.random.default_rng(0)
    units = x.shape[-1]
    flat = x.reshape(-1, units), y.reshape(-1, units)
    for _ in range(DRAWS):
        q = np.linalg.qr(rng.normal(size=(units, units)))[0].astype(np.float32)
        c, a, b, *_ = covariances(flat[0], flat[1] @ q)
        # No other measure changes.
        matched(correlated(c, a, b))
        projected(c, a, b)
    return values


def needed(blocks) -> dict[str, float]:
    """Time what the definitions of measures need once, and the assignments of true and mixed units.

    Returns processor seconds of each decomposition and of all assignments. The mixed correlations
    are those of the library's own draws, which are not timed.
    """
    between, within_a, within_b = (each.total() for each in blocks)
    c, a, b = (m.comoment / m.count for m in (between, within_a, within_b))
    seconds, start = {}, time.process_time()

    def done(name: str) -> None:
        nonlocal start
        seconds[name] = seconds.get(name, 0) + time.process_time() - start
        start = time.process_time()

    (va, ua), (vb, ub) = axes(a), axes(b)
    done("axes")
    white = whitened(c, (va, vb), (ua, ub))
    done("whitening")
    np.linalg.svd(white, full_matrices=False)
    done("CCA")
    kept = [np.searchsorted(np.cumsum(v), SHARE * v.sum()) + 1 for v in (va, vb)]
    np.linalg.svd(white[: kept[0], : kept[1]], compute_uv=False)
    done("SVCCA")
    np.linalg.svd(c, compute_uv=False)
    done("shape distance")
    del a, b, c, white, ua, ub
    split = Split(Evidence(between, within_a, within_b))
    for whole, _ in itertools.chain([split], rotations(split, DRAWS, 0)):
        matrix = whole.matrix("correlation")
        start = time.process_time()
        linear_sum_assignment(matrix, maximize=True)
        done("assignments")
    return seconds


def timed(way) -> tuple[float, float]:
    """Seconds by the clock, and of processors."""
    clock, own = time.perf_counter(), time.process_time()
    way()
    return time.perf_counter() - clock, time.process_time() - own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=UNITS)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="BLAS threads of --units")
    options = parser.parse_args()
    header()
    if options.units != UNITS:
        # More samples than units, so that canonical correlations have values.
        x, y = layers(4 * options.units, 1, options.units)
        blocks, _ = compared(x, y)
        del x, y
        library(compared(*layers(600, 1, 16))[0])  # compiles
        with threadpoolctl.threadpool_limits(options.threads, "blas"):
            clock, own = timed(lambda: library(blocks))
            peak = peak_memory() // 2**20
            base = needed(blocks)
        total = sum(base.values())
        print(
            f"{options.units} units, {len(blocks[0].moments)} blocks: {clock:.1f} s, of processors "
            f"{own:.1f} s, {own / total:.2f} times what is needed; peak {peak} MB"
        )
        print("needed:", ", ".join(f"{name} {share:.2f} s" for name, share in base.items()))
        return
    x, y = layers(IMAGES, int(np.prod(MAP)), UNITS)
    kept = compared(x, y)
    # One thread each: threads that share small products wait for each other on a busy machine.
    with threadpoolctl.threadpool_limits(1, "blas"):
        times = interleaved(
            {"library": lambda: library(*kept), "NumPy": lambda: rival(x, y)},
            options.runs,
            time.process_time,
        )
    print(f"{UNITS} units: {min(times['library']):.1f} to {max(times['library']):.1f} s, ", end="")
    print(f"{median_ratio(times['NumPy'], times['library']):.1f} times as fast as NumPy")


if __name__ == "__main__":
    main()
