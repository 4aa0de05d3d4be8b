"""Graphs of similar units and the spectrum of their Laplacians (section S.3 of the paper)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from threadpoolctl import threadpool_limits

# Graphs of at least this many units are decomposed by two threads, smaller ones by one, however
# many the job has, so that results do not depend on that number.
THREADED = 2048


class Spectrum(NamedTuple):
    """The low end of the spectrum of a graph's Laplacian.

    Attributes
    ----------
    eigenvalues : ndarray of shape (number,), float64
        In rising order, exactly 0 once for each connected component.
    vectors : ndarray of shape (unit, number), float64
        Orthonormal; each is 0 outside one component, and its entry of largest size is positive.
    component : ndarray of shape (unit,), intp
        Connected component of each unit, as :func:`number_by_size` numbers them.
    """

    eigenvalues: NDArray[np.float64]
    vectors: NDArray[np.float64]
    component: NDArray[np.intp]

    @property
    def components(self) -> int:
        """Count the connected components."""
        return int(self.component.max()) + 1


def combined(xx: NDArray, xy: NDArray, yy: NDArray) -> NDArray[np.float64]:
    """Join the similarities of the units of both nets, the first net first (section S.3.2)."""
    return np.block([[xx, xy], [np.transpose(xy), yy]]).astype(np.float64, copy=False)


def within_graph(similarity: NDArray, threshold: float) -> NDArray[np.float64]:
    """Build the similarity graph of the units of one net (section S.3.1).

    Parameters
    ----------
    similarity : ndarray of shape (unit, unit)
        Correlations within a net.
    threshold : float
        tau, at least 0; edges at or below it, and thus all negative ones, are dropped.

    Returns
    -------
    ndarray of shape (unit, unit), float64
        Weights of the edges, 0 where there is none; no self loops.

    Raises
    ------
    ValueError
        If `similarity` is not a finite square matrix, or the threshold negative.
    """
    graph = _above(similarity, threshold)
    if graph.shape[0] != graph.shape[1]:
        raise ValueError(f"similarity within a net must be square, got shape {graph.shape}")
    np.fill_diagonal(graph, 0)
    return graph


def combined_graph(xx: NDArray, xy: NDArray, yy: NDArray, threshold: float) -> NDArray[np.float64]:
    """Add both nets' similarity graphs and the one between them (section S.3.1).

    Parameters
    ----------
    xx, xy, yy : ndarray of shape (unit_a, unit_a), (unit_a, unit_b), (unit_b, unit_b)
        Correlations within the first net, between the two, within the second.
    threshold : float
        tau, see :func:`within_graph`.

    Returns
    -------
    ndarray of shape (unit_a + unit_b, unit_a + unit_b), float64
    """
    shapes = tuple(map(np.shape, (xx, xy, yy)))
    a, b = shapes[1] if len(shapes[1]) == 2 else (-1, -1)
    if shapes != ((a, a), (a, b), (b, b)):
        raise ValueError(
            f"xx, xy, yy must be (unit_a, unit_a), (unit_a, unit_b), (unit_b, unit_b), "
            f"got shapes {', '.join(map(str, shapes))}"
        )
    return within_graph(combined(xx, xy, yy), threshold)


def spectrum(graph: NDArray, number: int) -> Spectrum:
    """Find the smallest eigenvalues of the unnormalised Laplacian D - W and their eigenvectors.

    Each component is solved by itself, so that a repeated eigenvalue 0 is exact and complete
    (Lanczos methods miss repetitions) and isolated units cost nothing. Among equal eigenvalues
    that of the larger component comes first.

    Parameters
    ----------
    graph : ndarray of shape (unit, unit)
        Weights of the edges, symmetric, not negative, 0 on the diagonal.
    number : int
        Eigenvalues to find, at most the number of units.
    """
    graph = np.asarray(graph, np.float64)
    if not 1 <= number <= len(graph):
        raise ValueError(f"number must be from 1 to the {len(graph)} units, got {number}")
    component = number_by_size(connected_components(csr_array(graph > 0), directed=False)[1])
    members = np.split(np.argsort(component, kind="stable"), np.cumsum(np.bincount(component))[:-1])
    values, owners, vectors = [], [], []
    for owner, units in enumerate(members):
        low, columns = _component_pairs(graph, units, min(number, len(units)))
        values.append(low)
        owners.append(np.stack([np.full(len(low), owner), np.arange(len(low))], axis=1))
        vectors.append(columns)
    eigenvalues, places = np.concatenate(values), np.concatenate(owners)
    chosen = np.argsort(eigenvalues, kind="stable")[:number]
    embedding = np.zeros((len(graph), number))
    for column, (owner, place) in enumerate(places[chosen]):
        embedding[members[owner], column] = vectors[owner][:, place]
    return Spectrum(eigenvalues[chosen], embedding, component)


def embedding(low: Spectrum, k: int) -> NDArray[np.float64]:
    """Return the k eigenvectors of smallest eigenvalue, shape (unit, k) (section S.3.2).

    With more than k components any k vectors of the null space would do. These are chosen: one
    for each of the k - 1 largest components and one for all others together, each constant there.
    k-means then makes a cluster of each of these components and one of all other units.
    """
    if low.components < k:
        if low.vectors.shape[1] < k:
            raise ValueError(f"k = {k} needs {k} eigenvectors, got {low.vectors.shape[1]}")
        return low.vectors[:, :k]
    labels = np.minimum(low.component, k - 1)
    return np.eye(k)[labels] / np.sqrt(np.bincount(labels))


def eigengap(low: Spectrum) -> int:
    """Choose the number of clusters where the eigenvalues jump (footnote 12 of the paper).

    This is the k with the largest step from the k-th eigenvalue to the next, and the first of
    equal steps. It is at least 2, at least the number of components, and within `low`.
    """
    least = max(2, low.components)
    steps = np.diff(low.eigenvalues)[least - 1 :]
    return least + int(steps.argmax()) if len(steps) else least


def number_by_size(labels: NDArray[np.integer]) -> NDArray[np.intp]:
    """Renumber labels from the largest cluster on; among equals that of the first unit first."""
    _, first, labels, sizes = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    return np.argsort(np.lexsort((first, -sizes)))[labels]


def _above(similarity: NDArray, threshold: float) -> NDArray[np.float64]:
    """Copy similarities, with 0 for those at or below the threshold."""
    if not threshold >= 0:
        raise ValueError(f"threshold must be at least 0, got {threshold}")
    similarity = np.array(similarity, np.float64)
    if similarity.ndim != 2 or 0 in similarity.shape:
        raise ValueError(f"similarity must be (unit, unit), got shape {similarity.shape}")
    if not np.isfinite(similarity).all():
        raise ValueError("similarity contains NaN or infinity; dead units must have 0")
    similarity[similarity <= threshold] = 0
    return similarity


def _component_pairs(
    graph: NDArray, units: NDArray[np.intp], number: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the low eigenvalues and eigenvectors of one connected component."""
    constant = np.full((len(units), 1), len(units) ** -0.5)
    if number == 1:
        return np.zeros(1), constant
    laplacian = -graph[np.ix_(units, units)].T  # Fortran's order, which LAPACK overwrites
    np.fill_diagonal(laplacian, -laplacian.sum(axis=0))
    with threadpool_limits(1 if len(units) < THREADED else 2, user_api="blas"):
        values, vectors = eigh(
            laplacian, subset_by_index=[0, number - 1], overwrite_a=True, check_finite=False
        )
    largest = np.abs(vectors).argmax(axis=0)
    vectors *= np.sign(vectors[largest, np.arange(number)])
    # The first eigenvalue and its vector are known exactly.
    return np.concatenate([[0.0], values[1:]]), np.hstack([constant, vectors[:, 1:]])
