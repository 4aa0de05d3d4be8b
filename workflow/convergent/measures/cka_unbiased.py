"""Linear CKA of two layers without bias by the number of images.

A row is an image: the mean of each unit over its positions (``cka_unbiased``), or the activations
of all units at all positions (``cka_unbiased_flattened``).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from convergent.measures.registry import Measure, Undefined

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Images whose products are added up in float32, before their sum goes on in float64.
TILE = 1024
# HSIC of a layer with itself, as a share of its squared variance, that rounding may leave.
ROUNDING = 1e-9
# The one block that leaves out no image.
ALL = (slice(0, 0),)


class Layer(NamedTuple):
    """What the images of one layer take part with.

    Attributes
    ----------
    values : ndarray of shape (image, unit) or (image, image)
        Prepared means of images, or inner products of different images.
    within : float
        HSIC of the layer with itself.
    variance : float
        Total variance of the images.
    """

    values: NDArray
    within: float
    variance: float

    def turned(self, offset: int) -> Layer:
        """Turn the images: image i is what was image i + offset."""
        # The axis of units is that of means of images, which have a last axis of float32.
        axes = (0,) if self.values.dtype == np.float32 else (0, 1)
        return self._replace(values=np.roll(self.values, [-offset] * len(axes), axis=axes))


def prepare(x: NDArray) -> Layer:
    """Centre a layer and compare it with itself, for :func:`compute`."""
    _check_images(len(x), ALL)
    x = _prepared(x)
    if not x.size:
        return Layer(x, 0.0, 0.0)
    return Layer(x, float(_hsic(x, x, ALL)[0]), _variance(x))


def prepare_flattened(k: NDArray) -> Layer:
    """Do for :func:`compute_flattened` what :func:`prepare` does for :func:`compute`."""
    _check_images(len(k), ALL)
    k, variance = _of_different(k)
    return Layer(k, float(_each_hsic(_sums_by_images(k, k, ALL))[0]), variance)


def compute(x: NDArray | Layer, y: NDArray | Layer) -> float:
    """Divide the unbiased HSIC of two layers by that of each with itself.

    The estimate is about 0 for independent layers, however many units there are, and may be
    negative. A layer whose units are all dead has similarity 0 with any other.

    Parameters
    ----------
    x : ndarray of shape (image, unit_a), or Layer
    y : ndarray of shape (image, unit_b), or Layer

    Raises
    ------
    Undefined
        If there are fewer than 4 images, or the HSIC of a layer with itself is not positive.

    Notes
    -----
    HSIC1 of Song et al. (2012, equation 5) comes from the covariances of units, or from the inner
    products of images, whichever takes fewer operations; both are float32 products. The estimator
    of the ratio is that of Murphy et al. (2024).
    """
    a, b = (z if isinstance(z, Layer) else prepare(z) for z in (x, y))
    if not (a.values.size and b.values.size):
        return 0.0
    return _of_layers(a, b, _hsic(a.values, b.values, ALL))


def without_blocks(x: NDArray, y: NDArray, edges: NDArray[np.integer]) -> NDArray[np.float64]:
    """Compute the measure without each block of images.

    Products are computed once for all images, and once more for those of each block.

    Parameters
    ----------
    x : ndarray of shape (image, unit_a)
    y : ndarray of shape (image, unit_b)
    edges : ndarray of shape (block + 1,)
        First row of each block, and the number of images.

    Returns
    -------
    ndarray of shape (block,), float64

    Raises
    ------
    Undefined
        As :func:`compute`, if the measure has no value without one of the blocks.
    """
    return _values(x, y, [slice(i, j) for i, j in itertools.pairwise(edges)])


def compute_flattened(k: NDArray | Layer, l: NDArray | Layer) -> float:  # noqa: E741 as in the paper
    """Compute what :func:`compute` does from inner products of flattened images.

    Parameters
    ----------
    k, l : ndarray of shape (image, image), or Layer
        Inner products of the same images in each layer. Neither what is added to all activations,
        the same for every image, nor a common factor matters.

    Raises
    ------
    Undefined
        As :func:`compute`.
    """
    a, b = (z if isinstance(z, Layer) else prepare_flattened(z) for z in (k, l))
    if not (a.values.any() and b.values.any()):
        return 0.0
    return _of_layers(a, b, _each_hsic(_sums_by_images(a.values, b.values, ALL)))


def flattened_without_blocks(
    k: NDArray,
    l: NDArray,  # noqa: E741
    edges: NDArray[np.integer],
) -> NDArray[np.float64]:
    """Compute :func:`compute_flattened` without each block, as :func:`without_blocks` does."""
    return _values_of_products(k, l, [slice(i, j) for i, j in itertools.pairwise(edges)])


def _values(x: NDArray, y: NDArray, blocks: Sequence[slice]) -> NDArray[np.float64]:
    """Compute the measure without each of the blocks, which may be empty."""
    _check_images(len(x), blocks)
    x, y = _prepared(x), _prepared(y)
    if not (x.size and y.size):
        return np.zeros(len(blocks))
    variances = [_variance(z) for z in (x, y)]
    across, within_a, within_b = (_hsic(*pair, blocks) for pair in ((x, y), (x, x), (y, y)))
    return _ratio(across, within_a, within_b, variances)


def _values_of_products(
    k: NDArray,
    l: NDArray,  # noqa: E741
    blocks: Sequence[slice],
) -> NDArray[np.float64]:
    """Compute the measure from inner products, without each of the blocks, which may be empty."""
    _check_images(len(k), blocks)
    if not (k.any() and l.any()):
        return np.zeros(len(blocks))
    (k, *first), (l, *second) = _of_different(k), _of_different(l)  # noqa: E741
    variances = [*first, *second]
    across, within_a, within_b = (
        _each_hsic(_sums_by_images(*pair, blocks)) for pair in ((k, l), (k, k), (l, l))
    )
    return _ratio(across, within_a, within_b, variances)


def _of_layers(a: Layer, b: Layer, across: NDArray) -> float:
    one, other = (np.array([z.within]) for z in (a, b))
    return float(_ratio(across, one, other, [a.variance, b.variance])[0])


def _variance(x: NDArray) -> float:
    return float(np.einsum("ij,ij", x, x, dtype=np.float64) / len(x))


def _of_different(products: NDArray) -> tuple[NDArray[np.float64], float]:
    """Set inner products of images with themselves to 0; return the total variance, too."""
    products = products.astype(np.float64)
    variance = (products.trace() - products.mean(axis=0).sum()) / len(products)
    np.fill_diagonal(products, 0)
    return products, float(variance)


def _check_images(images: int, blocks: Sequence[slice]) -> None:
    if images - max(block.stop - block.start for block in blocks) < 4:
        raise Undefined("there are fewer than 4 images")


def _ratio(
    across: NDArray, within_a: NDArray, within_b: NDArray, variances: Sequence[float]
) -> NDArray[np.float64]:
    """Divide the HSIC of two layers by that of each with itself, which rounding must not decide."""
    for within, variance in zip((within_a, within_b), variances, strict=True):
        if within.min() <= ROUNDING * variance**2:
            raise Undefined("the unbiased HSIC of a layer with itself is not positive")
    return across / np.sqrt(within_a * within_b)


def _each_hsic(sums: Iterable[_Sums]) -> NDArray[np.float64]:
    return np.array([each.hsic() for each in sums])


class _Sums(NamedTuple):
    """Sums over images i and j other than i of K_ij, of inner products in one layer, and of L_ij.

    Attributes
    ----------
    images : int
    products : float
        Sum of K_ij L_ij.
    chains : float
        Sum of K_ij L_ik.
    first, second : float
        Sums of K_ij and of L_ij.
    """

    images: int
    products: float
    chains: float
    first: float
    second: float

    def hsic(self) -> float:
        """Return HSIC1, equation 5 of Song et al. (2012)."""
        n = self.images
        pairs = self.first * self.second / ((n - 1) * (n - 2))
        return (self.products + pairs - 2 * self.chains / (n - 2)) / (n * (n - 3))


def _prepared(x: NDArray) -> NDArray[np.float32]:
    """Bring the units that vary near mean 0, and all to a largest value of 1, in float32."""
    x = np.asarray(x)
    x = x[:, x.min(axis=0) < x.max(axis=0)]
    if not x.size:
        return x.astype(np.float32)
    x = x - x.mean(axis=0, dtype=np.float64).astype(x.dtype)
    return (x / np.abs(x).max()).astype(np.float32, copy=False)


def _hsic(x: NDArray, y: NDArray, blocks: Sequence[slice]) -> NDArray[np.float64]:
    """Compute HSIC1 of prepared layers without each of the blocks."""
    images, units_a, units_b = len(x), x.shape[1], y.shape[1]
    if 2 * units_a * units_b <= images * (units_a + units_b):
        return _each_hsic(_sums_by_units(x, y, blocks))
    k = _inner(x)
    return _each_hsic(_sums_by_images(k, k if x is y else _inner(y), blocks))


def _sums_by_units(x: NDArray, y: NDArray, blocks: Sequence[slice]) -> Iterator[_Sums]:
    """Compute the sums without each block from covariances of units.

    With rows centred, the rows of inner products add up to 0, so that those of other images add
    up to minus their own squared length.
    """
    products, squares, means, shifts = _product(x, y), [], [], []
    sizes = np.array([len(x) - (block.stop - block.start) for block in blocks])
    for z in (x, y):
        left = [
            z.sum(axis=0, dtype=np.float64) - z[b].sum(axis=0, dtype=np.float64) for b in blocks
        ]
        means.append(np.array(left) / sizes[:, None])
        squares.append(np.einsum("ij,ij->i", z, z, dtype=np.float64))
        # By how much they fall when a mean is subtracted: small, as means are near 0.
        shifts.append(2 * (z @ means[-1].T.astype(np.float32)) - (means[-1] ** 2).sum(axis=1))
    for number, (block, n) in enumerate(zip(blocks, sizes, strict=True)):
        outside = np.outer(means[0][number], means[1][number])
        centred = products - _product(x[block], y[block]) - n * outside
        k, l = (  # noqa: E741 as in the paper
            square - shift[:, number] for square, shift in zip(squares, shifts, strict=True)
        )
        k[block] = l[block] = 0
        chains = k @ l
        yield _Sums(int(n), np.vdot(centred, centred) - chains, chains, -k.sum(), -l.sum())


def _product(x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute x'y, from float32 products of a tile of images each."""
    result = np.zeros((x.shape[1], y.shape[1]))
    for start in range(0, len(x), TILE):
        result += x[start : start + TILE].T @ y[start : start + TILE]
    return result


def _sums_by_images(
    k: NDArray,
    l: NDArray,  # noqa: E741
    blocks: Sequence[slice],
) -> Iterator[_Sums]:
    """Compute the sums without each block from inner products of different images."""
    products = k * l
    rows = [matrix.sum(axis=1) for matrix in (k, l, products)]
    for block in blocks:
        n = len(k) - (block.stop - block.start)
        first, second, of_products = (
            row - matrix[:, block].sum(axis=1)
            for row, matrix in zip(rows, (k, l, products), strict=True)
        )
        first[block] = second[block] = of_products[block] = 0
        yield _Sums(n, of_products.sum(), first @ second, first.sum(), second.sum())


def _inner(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute the inner products of different images; those of an image with itself are 0."""
    result = (x @ x.T).astype(np.float64)
    np.fill_diagonal(result, 0)
    return result


_COMMON: dict[str, Any] = {
    "unit": "",
    "gives": "layers",
    # An estimate of two layers that share nothing lies on either side of 0.
    "range": (-float("inf"), float("inf")),
    "invariances": frozenset({"permutation", "isotropic_scaling", "shift", "sign", "rotation"}),
    "symmetric": True,
    "higher_is_more_alike": True,
    "source": "Song et al. 2012; Murphy et al. 2024",
}
MEASURES = (
    Measure(
        name="cka_unbiased",
        label="unbiased linear CKA",
        needs="image_means",
        compute=compute,
        prepare=prepare,
        without=without_blocks,
        **_COMMON,
    ),
    Measure(
        name="cka_unbiased_flattened",
        label="unbiased CKA, flattened",
        needs="inner_products",
        compute=compute_flattened,
        prepare=prepare_flattened,
        without=flattened_without_blocks,
        module="cka_unbiased",
        **_COMMON,
    ),
)
