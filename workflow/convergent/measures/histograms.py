"""Joint histograms of every pair of units, and their mutual information (section 3.2 of the paper).

Activations are cut into bins that hold 5% of a unit's mass each, with one more bin for values
around zero (footnote 8). The joint histogram of every pair is counted exactly.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from numpy.typing import NDArray

from convergent.activations.codes import discretize

__all__ = [
    "correction",
    "discretize",
    "information_without",
    "joint_counts",
    "mutual_information",
]

# Rows of a histogram are a power of two apart, so that a cell is found by a shift.
STRIDE = 32
# Second units counted together: their codes share one 32-bit word per sample.
LANES = 4
# First units of one task: their lists of active samples stay in cache.
TASK = 32


def mutual_information(
    codes_a: NDArray[np.uint8],
    codes_b: NDArray[np.uint8] | None = None,
    *,
    threads: int = 1,
    device: str = "cpu",
) -> NDArray[np.float64]:
    """Compute the mutual information of every unit of a with every unit of b.

    Parameters
    ----------
    codes_a, codes_b : ndarray of shape (sample, unit_a), (sample, unit_b), uint8
        Codes from :func:`discretize`, for the same samples. Without `codes_b` the result is that
        within a: symmetric, with the units' entropies on the diagonal.
    threads : int
        Number of blocks of units that are counted at once.
    device : {"cpu", "cuda"}
        On a GPU counts come from products of one-hot matrices.

    Returns
    -------
    ndarray of shape (unit_a, unit_b), float64
        Values in nats, from exact counts; never negative; 0 for units that occupy one bin only.

    Raises
    ------
    ValueError
        If the codes do not have shape (sample, unit), differ in length, or are 32 or more.
    """
    codes_a, codes_b, same = _checked(codes_a, codes_b)
    if device != "cpu":
        result = _on_gpu(codes_a, codes_b, device)
    else:
        result = _on_cpu(codes_a, codes_b, same, threads)
    # Exactly 0, which is how matching recognises dead units; rounding would leave some 1e-15.
    for matrix, codes in ((result, codes_a), (result.T, codes_b)):
        matrix[(_marginals(codes) > 0).sum(axis=1) == 1] = 0
    return np.maximum(result, 0, out=result)


def _on_cpu(
    codes_a: NDArray[np.uint8], codes_b: NDArray[np.uint8], same: bool, threads: int
) -> NDArray[np.float64]:
    result = np.empty((codes_a.shape[1], codes_b.shape[1]))
    table = _n_log_n(len(codes_a))
    packed, marginals = _packed(codes_b), _marginals(codes_b)
    sums = table[marginals].sum(axis=1)
    counter = _counter(len(codes_a))

    def task(start: int) -> None:
        units = codes_a[:, start : start + TASK]
        rows = _marginals(units)
        first = start // LANES if same else 0
        _information_block(
            *_active(units, rows), rows, table[rows].sum(axis=1), packed[first:],
            marginals[first * LANES :], sums[first * LANES :], table, counter,
            result[start : start + TASK, first * LANES :],
        )  # fmt: skip

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(task, range(0, codes_a.shape[1], TASK)))
    if same:
        lower = np.tril_indices(len(result), -1)
        result[lower] = result.T[lower]
    return result


def correction(
    codes_a: NDArray[np.uint8], codes_b: NDArray[np.uint8] | None = None
) -> NDArray[np.float64]:
    """Compute the first-order bias of :func:`mutual_information`, to be subtracted from it.

    It is (B_a - 1)(B_b - 1) / 2N, where B is the number of bins that a unit occupies (Miller 1955;
    Panzeri and Treves 1996). Within one net the diagonal holds entropies; their bias is
    -(B - 1) / 2N.

    Returns
    -------
    ndarray of shape (unit_a, unit_b), float64, nats
    """
    codes_a, codes_b, same = _checked(codes_a, codes_b)
    a, b = ((_marginals(c) > 0).sum(axis=1) - 1 for c in (codes_a, codes_b))
    bias = np.outer(a, b) / (2 * len(codes_a))
    if same:
        np.fill_diagonal(bias, -a / (2 * len(codes_a)))
    return bias


def information_without(
    codes_a: NDArray[np.uint8],
    codes_b: NDArray[np.uint8],
    rows: NDArray[np.integer],
    columns: NDArray[np.integer],
    edges: NDArray[np.integer],
    *,
    threads: int = 1,
) -> NDArray[np.float64]:
    """Compute the mutual information of some pairs of units without each block of samples.

    Parameters
    ----------
    codes_a, codes_b : ndarray of shape (sample, unit_a), (sample, unit_b), uint8
        Codes from :func:`discretize`, for the same samples.
    rows, columns : ndarray of shape (pair,)
        Units of a and of b.
    edges : ndarray of shape (block + 1,)
        First sample of each block, and the number of samples.
    threads : int
        Number of runs of pairs that are counted at once.

    Returns
    -------
    ndarray of shape (block, pair), float64
        In nats, as :func:`mutual_information` of all samples but those of a block. Each sample of
        a pair is counted once, for all blocks together.

    Raises
    ------
    ValueError
        If a block holds all samples, or as :func:`mutual_information`.
    """
    codes_a, codes_b, _ = _checked(codes_a, codes_b)
    edges = np.asarray(edges, np.int64)
    if len(codes_a) - np.diff(edges).max() < 1:
        raise ValueError(f"a block holds all {len(codes_a)} samples")
    result = np.empty((len(edges) - 1, len(rows)))
    table = _n_log_n(len(codes_a))

    def task(start: int) -> None:
        some = slice(start, start + TASK)
        a, b = (
            np.ascontiguousarray(codes[:, units[some]].T)
            for codes, units in ((codes_a, rows), (codes_b, columns))
        )
        _information_without(a, b, edges, table, result[:, some])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(task, range(0, len(rows), TASK)))
    return result


def joint_counts(codes_a: NDArray[np.uint8], codes_b: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count joint histograms of all pairs, shape (unit_a, unit_b, 32, 32); for few units."""
    codes_a, codes_b, _ = _checked(codes_a, codes_b)
    units = codes_a.shape[1], codes_b.shape[1]
    counts = np.zeros((*units, STRIDE, STRIDE), np.int64)
    rows = _marginals(codes_a)
    _counts(
        *_active(codes_a, rows), rows, _packed(codes_b), _marginals(codes_b),
        _counter(len(codes_a)), counts.reshape(*units, -1),
    )  # fmt: skip
    return counts


def _checked(codes_a, codes_b) -> tuple[NDArray[np.uint8], NDArray[np.uint8], bool]:
    same = codes_b is None
    codes_a = np.asarray(codes_a)
    codes_b = codes_a if same else np.asarray(codes_b)
    for codes in (codes_a, codes_b):
        if codes.ndim != 2 or 0 in codes.shape or codes.dtype != np.uint8:
            raise ValueError(f"codes must be uint8 (sample, unit), got {codes.dtype} {codes.shape}")
        if codes.max() >= STRIDE:
            raise ValueError(f"codes must be below {STRIDE}, got {codes.max()}")
    if len(codes_a) != len(codes_b):
        raise ValueError(
            f"codes must be of the same samples, got {len(codes_a)} and {len(codes_b)}"
        )
    return codes_a, codes_b, same


def _packed(codes: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Pack codes of each LANES units into one word per sample, shape (units / LANES, sample)."""
    words = np.zeros((-(-codes.shape[1] // LANES), len(codes)), np.uint32)
    _pack(codes, words)
    return words


def _marginals(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the samples that each unit has in each bin, shape (unit, 32)."""
    counts = np.zeros((codes.shape[1], STRIDE), np.int64)
    _count_marginals(codes, counts)
    return counts


def _active(
    codes: NDArray[np.uint8], marginals: NDArray[np.int64]
) -> tuple[NDArray, NDArray[np.uint8], NDArray[np.int64]]:
    """List the samples in which each unit is not in bin 0, their codes, and each unit's start."""
    starts = np.concatenate([[0], np.cumsum(marginals[:, 1:].sum(axis=1))])
    index = np.empty(starts[-1], np.uint16 if len(codes) <= 2**16 else np.uint32)
    code = np.empty(starts[-1], np.uint8)
    _list_active(codes, starts[:-1].copy(), index, code)
    return index, code, starts


def _n_log_n(n: int) -> NDArray[np.float64]:
    counts = np.arange(n + 1, dtype=np.float64)
    counts[1:] *= np.log(counts[1:])
    return counts


def _counter(samples: int) -> NDArray:
    """Make an empty array of the smallest type that counts all samples and so stays in cache."""
    return np.empty(0, np.uint16 if samples < 2**16 else np.uint32)


@numba.njit(nogil=True, cache=True)
def _count_marginals(codes, counts):
    for sample in range(codes.shape[0]):
        for unit in range(codes.shape[1]):
            counts[unit, codes[sample, unit]] += 1


@numba.njit(nogil=True, cache=True)
def _list_active(codes, places, index, code):
    for sample in range(codes.shape[0]):
        for unit in range(codes.shape[1]):
            value = codes[sample, unit]
            if value > 0:
                index[places[unit]] = sample
                code[places[unit]] = value
                places[unit] += 1


@numba.njit(nogil=True, cache=True)
def _pack(codes, words):
    samples, units = codes.shape
    for first in range(0, samples, 64):  # so few rows that they stay in cache
        for unit in range(units):
            shift = np.uint32(8 * (unit % LANES))
            for sample in range(first, min(first + 64, samples)):
                words[unit // LANES, sample] |= np.uint32(codes[sample, unit]) << shift


@numba.njit(nogil=True, cache=True)
def _count(index, code, start, stop, words, h0, h1, h2, h3):
    """Count one unit's active samples with four units; rows of bin 0 stay empty.

    Everything is unsigned: signed indices would be checked for being negative.
    """
    h0[:] = 0
    h1[:] = 0
    h2[:] = 0
    h3[:] = 0
    mask = np.uint32(STRIDE - 1)
    for s in range(np.uint64(start), np.uint64(stop)):
        word = words[index[s]]
        row = np.uint32(code[s]) * np.uint32(STRIDE)
        h0[row + (word & mask)] += 1
        h1[row + ((word >> np.uint32(8)) & mask)] += 1
        h2[row + ((word >> np.uint32(16)) & mask)] += 1
        h3[row + ((word >> np.uint32(24)) & mask)] += 1


@numba.njit(nogil=True, cache=True)
def _information_block(
    index, code, starts, rows, row_sums, packed, marginals, sums, table, counter, result
):
    """Compute mutual information of a block of units with all others, four of these at a time."""
    histograms = np.empty((LANES, STRIDE * STRIDE), counter.dtype)
    h0, h1, h2, h3 = histograms[0], histograms[1], histograms[2], histograms[3]
    samples = packed.shape[1]
    height = 0
    for unit in range(rows.shape[0]):
        for bin_ in range(STRIDE):
            if rows[unit, bin_] > 0 and bin_ >= height:
                height = bin_ + 1
    for group in range(packed.shape[0]):
        for unit in range(starts.size - 1):
            _count(index, code, starts[unit], starts[unit + 1], packed[group], h0, h1, h2, h3)
            for lane in range(LANES):
                other = group * LANES + lane
                if other >= result.shape[1]:
                    break
                total = 0.0
                for column in range(STRIDE):
                    inactive = marginals[other, column]
                    if inactive == 0:
                        continue
                    for row in range(1, height):
                        n = np.int64(histograms[lane, row * STRIDE + column])
                        inactive -= n
                        total += table[n]
                    total += table[inactive]
                result[unit, other] = (total - row_sums[unit] - sums[other]) / samples + np.log(
                    samples
                )


@numba.njit(nogil=True, cache=True)
def _information_without(a, b, edges, table, result):
    """Count pairs of rows of codes (pair, sample) by block, and leave each block out in turn."""
    blocks = edges.size - 1
    for pair in range(a.shape[0]):
        height, width = a[pair].max() + 1, b[pair].max() + 1
        counts = np.zeros((blocks, height, width), np.int64)
        for block in range(blocks):
            for sample in range(edges[block], edges[block + 1]):
                counts[block, a[pair, sample], b[pair, sample]] += 1
        total = counts.sum(axis=0)
        for block in range(blocks):
            left = total - counts[block]
            samples = left.sum()
            information = 0.0
            for row in range(height):
                for column in range(width):
                    information += table[left[row, column]]
            one, other = left.sum(axis=1), left.sum(axis=0)
            for row in range(height):
                information -= table[one[row]]
            for column in range(width):
                information -= table[other[column]]
            varies = (one > 0).sum() > 1 and (other > 0).sum() > 1
            information = information / samples + np.log(samples)
            result[block, pair] = max(information, 0.0) if varies else 0.0


@numba.njit(nogil=True, cache=True)
def _counts(index, code, starts, rows, packed, marginals, counter, result):
    """Count as :func:`_information_block` does, and store the counts instead of their sums."""
    histograms = np.empty((LANES, STRIDE * STRIDE), counter.dtype)
    for group in range(packed.shape[0]):
        for unit in range(starts.size - 1):
            _count(
                index, code, starts[unit], starts[unit + 1], packed[group],
                histograms[0], histograms[1], histograms[2], histograms[3],
            )  # fmt: skip
            for lane in range(LANES):
                other = group * LANES + lane
                if other >= result.shape[1]:
                    break
                for column in range(STRIDE):
                    inactive = marginals[other, column]
                    for row in range(1, STRIDE):
                        n = np.int64(histograms[lane, row * STRIDE + column])
                        inactive -= n
                        result[unit, other, row * STRIDE + column] = n
                    result[unit, other, column] = inactive


def _on_gpu(codes_a: NDArray, codes_b: NDArray, device: str) -> NDArray[np.float64]:
    """Compute mutual information by products of one-hot matrices, in pieces of units that fit.

    Zeros and ones are exact in TF32 and sums in float32 up to 2**24 samples, so counts are too.
    """
    import torch

    bins = int(max(codes_a.max(), codes_b.max())) + 1
    samples = len(codes_a)
    if samples >= 2**24:
        raise ValueError(f"{samples} samples are too many for float32 to count exactly")
    table = torch.from_numpy(_n_log_n(samples)).to(device)
    step = max(1, 2**28 // (samples * bins))
    result = np.empty((codes_a.shape[1], codes_b.shape[1]))
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        for start, a in _one_hot(codes_a, bins, step, device):
            for other, b in _one_hot(codes_b, bins, step, device):
                counts = (a @ b.T).round().long()
                joint = counts.view(len(a) // bins, bins, len(b) // bins, bins)
                rows, columns = joint[:, :, 0].sum(-1), joint[0].sum(0)
                total = table[joint].sum((1, 3))
                total -= table[rows].sum(1)[:, None] + table[columns].sum(1)
                block = total / samples + np.log(samples)
                result[start : start + len(block), other : other + block.shape[1]] = block.cpu()
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return result


def _one_hot(codes: NDArray, bins: int, step: int, device: str) -> Iterator:
    """Yield pieces of `step` units as (unit x bin, sample) matrices of zeros and ones."""
    import torch

    for start, stop in itertools.pairwise([*range(0, codes.shape[1], step), codes.shape[1]]):
        piece = torch.from_numpy(np.ascontiguousarray(codes[:, start:stop].T)).to(device)
        hot = piece[:, None, :] == torch.arange(bins, device=device, dtype=torch.uint8)[:, None]
        yield start, hot.flatten(0, 1).float()
