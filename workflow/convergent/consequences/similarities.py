"""Similarities of units from one half of the images, so that the other half can score a choice."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import zarr
from numpy.typing import NDArray

from convergent.activations.blocks import half_correlations
from convergent.activations.samples import sample_rows
from convergent.measures.histograms import mutual_information

# Similarity (unit_a, unit_b) of the units at each place.
Similarities = dict[str, NDArray[np.float64]]


def correlations_of_halves(
    correlation: zarr.Group, places: Mapping[str, str]
) -> list[Similarities]:
    """Correlate the units of two nets at each place, on either half of the blocks of images."""
    halves: list[Similarities] = [{}, {}]
    for layer, place in places.items():
        for found, matrix in zip(halves, half_correlations(correlation[layer]), strict=True):
            found[place] = matrix
    return halves


def half_similarities(
    correlation: zarr.Group,
    statistics_a: zarr.Group,
    statistics_b: zarr.Group,
    places: Mapping[str, str],
    *,
    threads: int = 1,
) -> dict[str, list[Similarities]]:
    """Compare the units of two nets on the first and on the last half of the blocks of images.

    Parameters
    ----------
    correlation : zarr.Group
        Store of the moments of the pair.
    statistics_a, statistics_b : zarr.Group
        Stores of the statistics of the nets, whose codes are of the same samples.
    places : mapping of str to str
        Layers to compare, and the place of each.
    threads : int
        Threads for mutual information.

    Returns
    -------
    dict of str to list of dict
        For correlation and mutual_information, similarities by place on each half. Mutual
        information is left out if the samples of the nets are not the same.
    """
    found = {"correlation": correlations_of_halves(correlation, places)}
    information: list[Similarities] = [{}, {}]
    for layer, place in places.items():
        a, b = statistics_a[layer], statistics_b[layer]
        for name in ("sample_image", "sample_position"):
            if not np.array_equal(a[name][...], b[name][...]):
                return found
        first = sample_rows(statistics_a, layer) < correlation[layer]["blocks"].attrs["half"]
        codes = a["codes"][...], b["codes"][...]
        for half, rows in enumerate((first, ~first)):
            matrix = mutual_information(*(each[rows] for each in codes), threads=threads)
            information[half][place] = matrix
    return {**found, "mutual_information": information}
