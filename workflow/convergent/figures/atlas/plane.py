"""Place the units of both nets of a pair in the plane, so that those which correlate lie close."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.linalg import LinearOperator, eigsh

# Neighbours of each unit, and rounds of attraction and repulsion.
NEIGHBOURS, ROUNDS = 12, 200
# Units that each unit is pushed away from in a round, for each neighbour.
REPELLED = 2
# Rows whose neighbours are found at once.
ROWS = 512
# Curve of attraction over distance, that of UMAP for a smallest distance of 0.3.
A, B = 0.9922, 1.1122


def plane(
    xx: NDArray, xy: NDArray, yy: NDArray, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Place the units of two nets in the plane by their correlations.

    Units are joined with those that they correlate with most, in either net. From the two largest
    principal axes of the correlations on, joined units attract and others repel each other, as in
    UMAP (McInnes, Healy and Melville 2018).

    Parameters
    ----------
    xx, xy, yy : ndarray of shape (unit_a, unit_a), (unit_a, unit_b), (unit_b, unit_b)
        Correlations within the first net, between the two, within the second; 0 for dead units.
    seed : int

    Returns
    -------
    a, b : ndarray of shape (unit_a, 2) and (unit_b, 2), float32
        Places between 0 and 1; NaN for units that correlate with no other, dead ones among them.
    """
    similarity = np.block([[xx, xy], [np.transpose(xy), yy]]).astype(np.float32, copy=False)
    np.fill_diagonal(similarity, 0)
    alive = np.flatnonzero((similarity > 0).any(axis=1))
    places = np.full((len(similarity), 2), np.nan, np.float32)
    if len(alive) > 2:
        graph = neighbours(similarity[np.ix_(alive, alive)])
        start = principal_axes(similarity[np.ix_(alive, alive)])
        places[alive] = arranged(start, graph, seed)
    elif len(alive):
        places[alive] = np.linspace(0, 1, len(alive))[:, None]
    return places[: len(xx)], places[len(xx) :]


def neighbours(similarity: NDArray[np.float32], number: int = NEIGHBOURS) -> coo_array:
    """Join each unit with the `number` units of largest positive similarity, both ways."""
    number = min(number, len(similarity) - 1)
    nearest = np.empty((len(similarity), number), np.intp)
    for start in range(0, len(similarity), ROWS):
        part = -similarity[start : start + ROWS]
        nearest[start : start + ROWS] = np.argpartition(part, number - 1, axis=1)[:, :number]
    weight = np.clip(np.take_along_axis(similarity, nearest, axis=1), 0, 1)
    # Relative to the unit's best neighbour, so that badly matched units are not left alone.
    weight /= np.maximum(weight.max(axis=1, keepdims=True), 1e-6)
    rows = np.repeat(np.arange(len(similarity)), number)
    graph = coo_array((weight.ravel(), (rows, nearest.ravel())), shape=similarity.shape).tocsr()
    joined = graph.maximum(graph.T).tocoo()
    joined.eliminate_zeros()
    return joined


def principal_axes(similarity: NDArray[np.float32]) -> NDArray[np.float64]:
    """Find the coordinates of units on the two main axes of their similarities, about 0 to 10."""
    size = len(similarity)
    mean = similarity.mean(axis=0, dtype=np.float64)

    def centred(vector: NDArray) -> NDArray:
        vector = vector.ravel() - vector.mean()
        product = similarity @ vector.astype(np.float32)
        return product - product.mean()

    operator = LinearOperator((size, size), matvec=centred, dtype=np.float64)
    start = mean - mean.mean() + np.linspace(-1e-3, 1e-3, size)
    if size <= 8:  # too few for Lanczos
        dense = np.stack([centred(row) for row in np.eye(size)])
        axes = np.linalg.eigh((dense + dense.T) / 2)[1][:, -2:]
    else:
        axes = eigsh(operator, k=2, which="LA", v0=start, tol=1e-3)[1]
    # Whichever sign the solver gives.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    return 10 * axes / np.maximum(np.abs(axes).max(axis=0), 1e-9)


def arranged(start: NDArray, graph: coo_array, seed: int) -> NDArray[np.float32]:
    """Let joined units attract and others repel each other, and scale each axis to 0 to 1."""
    rng = np.random.default_rng(seed)
    place = start + rng.normal(0, 0.05, start.shape)
    row, column, weight = graph.row, graph.col, graph.data[:, None].astype(np.float64)
    degree = np.maximum(np.bincount(row, weight[:, 0], len(place)), 1e-9)[:, None]
    for step in range(ROUNDS):
        rate = 1 - step / ROUNDS
        apart = place[row] - place[column]
        square = (apart**2).sum(axis=1, keepdims=True)
        pull = -2 * A * B * square ** (B - 1) / (1 + A * square**B)
        pull[square[:, 0] == 0] = 0
        move = summed(row, weight * np.clip(pull * apart, -4, 4), len(place)) / degree
        for _ in range(REPELLED):
            apart = place - place[rng.permutation(len(place))]
            square = (apart**2).sum(axis=1, keepdims=True)
            push = 2 * B / ((0.1 + square) * (1 + A * square**B))
            move += np.clip(push * apart, -4, 4) / REPELLED
        place = place + rate * move
    place -= place.min(axis=0)
    return (place / np.maximum(place.max(axis=0), 1e-9)).astype(np.float32)


def summed(row: NDArray, values: NDArray, size: int) -> NDArray[np.float64]:
    """Add up values (edge, axis) of each row."""
    return np.stack([np.bincount(row, part, size) for part in values.T], axis=1)
