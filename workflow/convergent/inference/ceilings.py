"""Ceilings of similarity: what several nets have in common bounds how alike they can be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from convergent.activations.dissimilarities import dissimilarities
from convergent.measures.noise_ceiling import noise_ceiling
from convergent.measures.registry import Undefined, measures
from convergent.nets.marks import check_same_images
from convergent.running.stores import open_store

COLUMNS = ["layer", "measure", "lower", "upper", "n_nets"]


def ceiling_table(activations: Mapping[str, str | Path]) -> pd.DataFrame:
    """Compute the ceilings of measures of dissimilarities, for each layer that several nets have.

    Parameters
    ----------
    activations : mapping of net to path
        Activation stores of the same images.

    Returns
    -------
    DataFrame
        Columns layer, measure, lower and upper (the bounds of Nili et al. 2014, see
        :func:`convergent.measures.noise_ceiling.noise_ceiling`), n_nets. Layers
        without a ceiling, such as those of fewer than three nets, have no rows.

    Raises
    ------
    StoreError
        If the stores are of different images, or an activation is NaN or infinite.
    """
    stores = {path: open_store(path) for path in activations.values()}
    if len(stores) > 1:
        check_same_images(stores, other_views=True)
    layers = dict.fromkeys(
        name for store in stores.values() for name, array in store.arrays() if array.ndim > 1
    )
    rows = []
    for layer in layers:
        found = [dissimilarities(s[layer]).matrix for s in stores.values() if layer in s]
        for measure in measures(needs="dissimilarities"):
            try:
                lower, upper = noise_ceiling(measure, found)
            except Undefined:
                continue
            rows.append([layer, measure.name, lower, upper, len(found)])
    return pd.DataFrame(rows, columns=COLUMNS).astype({"lower": np.float64, "upper": np.float64})
