"""Soft matching of the units of two layers (Khosla & Williams 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convergent.measures.registry import Measure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from convergent.measures.choices import Choice


def choose(matrix: NDArray) -> Choice:
    """Choose the optimal transport between live units that all have the same mass."""
    from convergent.measures.transport import transport

    return transport(matrix)


def choose_all(matrix: NDArray) -> dict[str, Choice]:
    """Choose the optimal transports of parts of the mass, too, which cost little more."""
    from convergent.measures.partial_soft_matching import choose_all

    return choose_all(matrix)


MEASURE = Measure(
    name="soft_matching",
    label="soft matching",
    unit="",
    needs="matrix",
    gives="layers",
    range=(-1, 1),
    invariances=frozenset({"permutation", "scaling", "isotropic_scaling", "shift"}),
    symmetric=True,
    higher_is_more_alike=True,
    source="Khosla & Williams 2024",
    choose=choose,
    choose_all=choose_all,
    of=("correlation",),
    rank=130,
)
