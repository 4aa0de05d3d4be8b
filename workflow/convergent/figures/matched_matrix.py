"""Matrices of the units of two nets with partners on the diagonal, as figures 1 and 6 show them."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from convergent.measures.matching import diagonal_order

# Width of the gap before units that are left over, as a share of the longer side of the matrix.
GAP = 0.03


def draw_matched(
    ax: Axes, matrix: NDArray, partner: NDArray[np.integer], **style: Any
) -> tuple[AxesImage, NDArray[np.intp]]:
    """Draw a matrix with partners on its diagonal and the units left over set apart by a gap.

    Units are left over if one net has more of them than the other. Ticks count the pairs, and the
    label of a last one counts the units that are left over. Without any, nothing but the order
    distinguishes the picture from that of the matrix.

    Parameters
    ----------
    ax : Axes
    matrix : ndarray of shape (unit_a, unit_b)
    partner : ndarray of shape (unit_a,)
        Result of :func:`convergent.measures.matching.matching`.
    **style
        Arguments of `Axes.imshow`.

    Returns
    -------
    image : AxesImage
        Its array has NaN in the gap.
    row : ndarray of shape (unit_a,), intp
        Row of the picture that shows each unit of net a.
    """
    rows, columns = diagonal_order(partner, matrix.shape[1])
    shown = matrix[np.ix_(rows, columns)]
    pairs, most = sorted(matrix.shape)
    row = np.argsort(rows)
    if pairs == most:
        return ax.imshow(shown, **style), row
    gap = max(1, round(GAP * most))
    # The axis of the net that has more units.
    along = int(np.argmax(matrix.shape))
    shown = np.insert(shown.astype(float), [pairs] * gap, np.nan, axis=along)
    image = ax.imshow(shown, **style)
    axis = ax.xaxis if along else ax.yaxis
    ticks = [tick for tick in axis.get_ticklocs() if 0 <= tick < pairs and tick % 1 == 0]
    middle = pairs + gap + (most - pairs - 1) / 2
    names = [f"{tick:g}" for tick in ticks]
    axis.set_ticks([*ticks, middle], [*names, f"{most - pairs} left over"])
    if not along:
        axis.get_ticklabels()[-1].set(rotation=90, va="center")
        row = row + gap * (row >= pairs)
    return image, row
