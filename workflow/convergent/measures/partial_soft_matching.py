"""Partial soft matching: the best share of the units of two layers (Kapoor et al. 2026).

The published score, 1 minus the sum of transported correlations, depends on the share more than on
the layers. The sum is divided here by the share that may be transported, so that it is a mean over
what is matched: 1 for layers that are the same, whatever the share.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from convergent.measures.registry import Measure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from convergent.measures.choices import Choice


SHARES = (0.25, 0.5, 0.75)


def choose(matrix: NDArray, share: float) -> Choice:
    """Choose the optimal transport of at most a share of the mass of live units."""
    from convergent.measures.transport import partial_transport

    return partial_transport(matrix, share)


def choose_all(matrix: NDArray) -> dict[str, Choice]:
    """Choose the optimal transports of all shares, and of all mass, by measure, in one go."""
    from convergent.measures.transport import transports

    chosen = transports(matrix, SHARES)
    names = [*(measure.name for measure in MEASURES), "soft_matching"]
    return dict(zip(names, chosen, strict=True))


MEASURES = tuple(
    Measure(
        name=f"partial_soft_matching_{share}",
        label=f"partial soft matching of {share:.0%}",
        unit="",
        needs="matrix",
        gives="layers",
        range=(0, 1),
        invariances=frozenset({"permutation", "scaling", "isotropic_scaling", "shift"}),
        symmetric=True,
        higher_is_more_alike=True,
        source="Kapoor et al. 2026",
        choose=partial(choose, share=share),
        choose_all=choose_all,
        of=("correlation",),
        module="partial_soft_matching",
        rank=140,
    )
    for share in SHARES
)
