"""Decompositions of covariances, which spectral measures share, and derivatives of what they give.

The covariances of each layer are decomposed once, whichever and however many measures are computed
from them, in both directions.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convergent.measures.registry import Undefined

if TYPE_CHECKING:
    from convergent.activations.moments import Moments

# Directions whose variance is above this share of the largest are whitened and inverted.
LEAST = 1e-6
# Canonical correlations above this are perfect to rounding, as that of float32 moments is magnified
# in the directions of least variance.
PERFECT = 0.999


# Rows and columns of the smaller side from which singular values are those of a matrix of products.
LARGE = 256


class Gradient(NamedTuple):
    """Value of a measure, and its derivatives by covariances (co-moments over the count).

    Attributes
    ----------
    value : float
    between : ndarray of shape (unit_a, unit_b), or None
        Derivative by the covariances between the layers; None if it is 0.
    within_a, within_b : ndarray of shape (unit, unit), or None
        Derivatives by those within each layer, whose two triangles count as separate entries.
    """

    value: float
    between: NDArray[np.float64] | None
    within_a: NDArray[np.float64] | None
    within_b: NDArray[np.float64] | None


class Axes:
    """Principal axes of a layer, decomposed when they are first needed.

    Parameters
    ----------
    within : Moments
        Moments within the layer.
    origin : (Axes, ndarray of shape (unit, unit)), optional
        The axes before the units were rotated, and the rotation Q: the units x became x @ Q.
    """

    def __init__(self, within: Moments, origin: tuple[Axes, NDArray] | None = None):
        self.within, self.origin = within, origin

    @cached_property
    def decomposition(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Decompose the covariances: variances, largest first, and directions (unit, axis)."""
        if self.origin:
            axes, rotation = self.origin
            return axes.variances, rotation.T @ axes.directions
        values, vectors = np.linalg.eigh(self.within.comoment / self.within.count)
        return np.maximum(values[::-1], 0), vectors[:, ::-1]

    @cached_property
    def _factor(self) -> tuple[NDArray[np.intp], NDArray[np.float64]] | None:
        """Factorise the co-moments of live units by Cholesky, if all directions are determined."""
        from scipy.linalg.lapack import dpocon, dpotrf

        live = np.flatnonzero(self.within.var_x > 0)
        gram = self.within.comoment
        if len(live) < len(gram):
            gram = gram[np.ix_(live, live)]
        factor, failed = dpotrf(gram, lower=True)
        # The condition by the 1-norm is at least that by eigenvalues, so none is below the limit.
        if failed or dpocon(factor, np.abs(gram).sum(axis=0).max(), uplo="L")[0] <= LEAST:
            return None
        return live, factor

    def solve(self, cross: NDArray[np.float64]) -> NDArray[np.float64]:
        """Find the weights of least squares, from co-moments with other units.

        Directions with at most :data:`LEAST` of the largest variance have no weight.

        Parameters
        ----------
        cross : ndarray of shape (unit, other)

        Returns
        -------
        ndarray of shape (unit, other)
        """
        from scipy.linalg import cho_solve

        if not self.within.var_x.any():
            return np.zeros(cross.shape)
        if self._factor is None:
            directions = self.directions[:, : self.rank]
            squares = self.within.count * self.variances[: self.rank]
            return (directions / squares) @ (directions.T @ cross)
        live, factor = self._factor
        if len(live) == len(cross):
            return cho_solve((factor, True), cross, check_finite=False)
        weights = np.zeros(cross.shape)
        weights[live] = cho_solve((factor, True), cross[live], check_finite=False)
        return weights

    @property
    def variances(self) -> NDArray[np.float64]:
        """Return the variances along the axes, largest first."""
        return self.decomposition[0]

    @property
    def directions(self) -> NDArray[np.float64]:
        """Return the axes, shape (unit, axis)."""
        return self.decomposition[1]

    @cached_property
    def rank(self) -> int:
        """Count the directions with more than :data:`LEAST` of the largest variance."""
        return int(np.count_nonzero(self.variances > LEAST * self.variances[0]))

    def keeping(self, share: float) -> int:
        """Count the directions of largest variance that together keep a share of all variance."""
        if not self.rank:
            return 0
        kept = np.cumsum(self.variances)
        return min(self.rank, int(np.searchsorted(kept, share * kept[-1])) + 1)

    def whitening(self, kept: int) -> NDArray[np.float64]:
        """Divide the first directions by their standard deviations, shape (unit, axis)."""
        return self.directions[:, :kept] / np.sqrt(self.variances[:kept])


class Canonical(NamedTuple):
    """Canonical correlations of two layers, and the coordinates of the canonical directions.

    Attributes
    ----------
    correlations : ndarray of shape (direction,)
        Largest first.
    left, right : ndarray of shape (axis, direction)
        Orthonormal coordinates among the whitened axes of each layer.
    """

    correlations: NDArray[np.float64]
    left: NDArray[np.float64]
    right: NDArray[np.float64]


class Spectra:
    """Decompositions of the covariances of two layers, each made when it is first needed.

    Parameters
    ----------
    between : Moments
        Moments between the layers.
    a, b : Axes
        Principal axes of the layers. They may be those of other :class:`Spectra`.
    images : int, optional
        Number of images, if there are several samples in each.
    origin : Spectra, optional
        Spectra of the same layers before units of one were rotated, which the principal axes
        follow, so that these meet as before.
    """

    def __init__(
        self,
        between: Moments,
        a: Axes,
        b: Axes,
        images: int | None = None,
        origin: Spectra | None = None,
    ):
        self.between, self.a, self.b, self.images, self.origin = between, a, b, images, origin

    @classmethod
    def of(
        cls, between: Moments, within_a: Moments, within_b: Moments, images: int | None = None
    ) -> Spectra:
        """Prepare the decompositions of two layers from their moments."""
        return cls(between, Axes(within_a), Axes(within_b), images)

    def turned(self) -> Spectra:
        """Exchange the two layers; nothing is decomposed anew."""
        return _Turned(self)

    def mixed(
        self,
        rotation: NDArray,
        between: Moments,
        within_b: Moments,
        loadings_b: NDArray | None = None,
    ) -> Spectra:
        """Rotate the units of the second layer; nothing is decomposed anew.

        Parameters
        ----------
        rotation : ndarray of shape (unit_b, unit_b)
            Orthogonal matrix Q: the units y become y @ Q.
        between, within_b : Moments
            Moments with, and within, the rotated units.
        loadings_b : ndarray of shape (unit_b, direction), optional
            :attr:`loadings_b` of the rotated units, if they are known.
        """
        b = Axes(within_b, (self.b, rotation))
        found = Spectra(between, self.a, b, self.images, self)
        if loadings_b is not None:
            vars(found)["loadings_b"] = loadings_b
        return found

    @property
    def root_b(self) -> NDArray[np.float64] | None:
        """Return a root of the second layer's covariances, if one is known.

        The covariances are the product of the root, shape (unit, direction), with its transpose.
        """
        found = vars(self).get("loadings_b")
        whole = found is not None and found.shape[1] == len(found)
        return found if whole else None

    @cached_property
    def covariances(self) -> NDArray[np.float64]:
        """Divide the co-moments between the layers by the number of samples."""
        return self.between.comoment / self.between.count

    @cached_property
    def whitened(self) -> NDArray[np.float64]:
        """Correlate the principal axes of the layers, shape (axis_a, axis_b)."""
        if self.origin:
            return self.origin.whitened
        a, b = (axes.whitening(axes.rank) for axes in (self.a, self.b))
        return a.T @ self.covariances @ b

    @cached_property
    def canonical(self) -> Canonical:
        """Compute the canonical correlations of all axes.

        Raises
        ------
        Undefined
            If some of them are 1 whatever the layers are.
        """
        if self.origin:
            return self.origin.canonical
        return self.canonical_of(self.a.rank, self.b.rank)

    @cached_property
    def loadings_a(self) -> NDArray[np.float64]:
        """Compute the covariances of the first layer's units with its canonical variables.

        Returns
        -------
        ndarray of shape (unit, direction)

        Raises
        ------
        Undefined
            If some canonical correlations are 1 whatever the layers are.
        """
        return self.origin.loadings_a if self.origin else _loadings(self.a, self.canonical.left)

    @cached_property
    def loadings_b(self) -> NDArray[np.float64]:
        """Compute the covariances of the second layer's units with its canonical variables."""
        if self.origin and self.b.origin:
            # A product in the precision of the rotation.
            rotation = self.b.origin[1]
            return rotation.T @ self.origin.loadings_b.astype(rotation.dtype)
        return _loadings(self.b, self.canonical.right)

    def canonical_of(self, kept_a: int, kept_b: int) -> Canonical:
        """Compute the canonical correlations of the first principal axes of each layer.

        Raises
        ------
        Undefined
            If some of them are 1 whatever the layers are.
        """
        left, correlations, right = singular(self.whitened[:kept_a, :kept_b])
        self._check(kept_a, kept_b, correlations)
        return Canonical(np.minimum(correlations, 1), left, right)

    def correlations_of(self, kept_a: int, kept_b: int) -> NDArray[np.float64]:
        """Compute what :meth:`canonical_of` does, without directions: in a fraction of the time."""
        correlations = singular_values(self.whitened[:kept_a, :kept_b])
        self._check(kept_a, kept_b, correlations)
        return np.minimum(correlations, 1)

    def _check(self, kept_a: int, kept_b: int, correlations: NDArray) -> None:
        """Raise Undefined if spaces of this many dimensions must meet among so few samples.

        Centred samples have one dimension less than there are samples. Samples of the same image
        may be equal, or depend on each other; that shows in the correlations.
        """
        samples = self.between.count
        images = samples if self.images is None else self.images
        by_samples, by_images = (kept_a + kept_b - (n - 1) for n in (samples, images))
        perfect = by_images > 0 and (correlations[by_images - 1 : by_images] > PERFECT).any()
        if min(kept_a, kept_b) and (by_samples > 0 or perfect):
            raise Undefined(
                f"fewer images than units: {kept_a} and {kept_b} directions vary in {images} "
                f"images of {samples} samples, so that canonical correlations are 1 by arithmetic"
            )


class _Turned(Spectra):
    """Spectra of two layers in the other order.

    Parameters
    ----------
    other : Spectra
        The layers in their order.
    """

    def __init__(self, other: Spectra):
        super().__init__(other.between.turned(), other.b, other.a, other.images)
        self.other = other

    @cached_property
    def whitened(self) -> NDArray[np.float64]:
        return self.other.whitened.T

    @cached_property
    def canonical(self) -> Canonical:
        correlations, left, right = self.other.canonical
        return Canonical(correlations, right, left)

    @property
    def loadings_a(self) -> NDArray[np.float64]:  # type: ignore[override]
        return self.other.loadings_b

    @property
    def loadings_b(self) -> NDArray[np.float64]:  # type: ignore[override]
        return self.other.loadings_a


def _loadings(axes: Axes, directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the covariances of a layer's units with its canonical variables."""
    kept = axes.directions[:, : axes.rank] * np.sqrt(axes.variances[: axes.rank])
    return kept @ directions


def singular(
    matrix: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Decompose a matrix by singular values.

    Parameters
    ----------
    matrix : ndarray of shape (row, column)

    Returns
    -------
    left : ndarray of shape (row, direction)
        Orthonormal columns.
    values : ndarray of shape (direction,)
        Largest first.
    right : ndarray of shape (column, direction)
        Orthonormal columns.

    Notes
    -----
    LAPACK's decomposition spends most of its time where it makes a large matrix bidiagonal, which
    cannot use its caches. A large matrix M with no more columns than rows is instead decomposed
    through the eigenvectors V of M'M, and M V = Q R, where R is diagonal to rounding: in half the
    time. Values below 1e-8 of the largest are rounding.
    """
    if min(matrix.shape) <= LARGE:
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        return left, values, right.T
    if matrix.shape[0] < matrix.shape[1]:
        right, values, left = singular(matrix.T)
        return left, values, right
    from scipy.linalg import qr

    right = np.linalg.eigh(matrix.T @ matrix)[1][:, ::-1]
    left, triangle = qr(matrix @ right, mode="economic", overwrite_a=True, check_finite=False)
    values = triangle.diagonal()
    left *= np.where(values < 0, -1, 1)
    return left, np.abs(values), right


def singular_values(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the singular values of a matrix, largest first, as :func:`singular` does."""
    if min(matrix.shape) <= LARGE:
        return np.linalg.svd(matrix, compute_uv=False).astype(np.float64, copy=False)
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    return np.sqrt(np.maximum(np.linalg.eigvalsh(tall.T @ tall)[::-1], 0))


def mean_correlation_gradient(spectra: Spectra, kept_a: int, kept_b: int) -> Gradient:
    """Differentiate the mean canonical correlation of the first principal axes of two layers.

    Parameters
    ----------
    spectra : Spectra
    kept_a, kept_b : int
        Number of axes of each layer. They are the same for changed covariances.

    Raises
    ------
    Undefined
        If some correlations are 1 whatever the layers are.

    Notes
    -----
    For a canonical correlation rho with directions u and v, where u'Au = v'Bv = 1,
    d rho = u'dC v - rho (u'dA u + v'dB v) / 2 while the kept axes span the same spaces. These turn,
    too: by first-order perturbation, dA moves axis i towards axis j by e_j'dA e_i / (l_i - l_j).
    """
    if not (kept_a and kept_b):
        return Gradient(0.0, None, None, None)
    full = (kept_a, kept_b) == (spectra.a.rank, spectra.b.rank)
    found = spectra.canonical if full else spectra.canonical_of(kept_a, kept_b)
    count = len(found.correlations)
    left = spectra.a.whitening(kept_a) @ found.left
    right = spectra.b.whitening(kept_b) @ found.right
    within = []
    for axes, kept, own, coordinates, across, other in (
        (spectra.a, kept_a, left, found.left, spectra.covariances, right),
        (spectra.b, kept_b, right, found.right, spectra.covariances.T, left),
    ):
        # A product with its own transpose costs half.
        root = own * np.sqrt(found.correlations / (2 * count))
        derivative = -(root @ root.T)
        if kept < len(axes.variances):
            turned = coordinates / (count * np.sqrt(axes.variances[:kept, None]))
            derivative += _turning(axes, kept, turned, across @ other)
        within.append(derivative)
    return Gradient(float(found.correlations.mean()), left @ right.T / count, *within)


def _turning(axes: Axes, kept: int, own: NDArray, towards: NDArray) -> NDArray[np.float64]:
    """Compute the part of a derivative that comes from the turning of the space of kept axes.

    Parameters
    ----------
    axes : Axes
    kept : int
    own : ndarray of shape (kept, direction)
        Coordinates of the canonical directions among the kept axes.
    towards : ndarray of shape (unit, direction)
        Covariances of the units with the other layer's canonical variables.
    """
    inside, outside = axes.directions[:, :kept], axes.directions[:, kept:]
    turning = (outside.T @ towards) @ own.T
    gaps = axes.variances[:kept] - axes.variances[kept:, None]
    # Equal axes on both sides could be kept either way.
    turning = np.divide(turning, gaps, out=np.zeros_like(turning), where=gaps > 0)
    moved = outside @ turning @ inside.T
    return (moved + moved.T) / 2
