"""Comparisons of layers from arrays of activations, as tests need them."""

import numpy as np

from convergent.activations.blocks import Blocks, Cut
from convergent.activations.codes import discretize
from convergent.activations.moments import Moments
from convergent.inference.comparisons import Comparison
from convergent.measures.evidence import Evidence
from convergent.paper import BINS


def flat(x):
    """Samples of activations of shape (image, ..., unit)."""
    return x.reshape(-1, x.shape[-1])


def image_means(x):
    return x.mean(axis=tuple(range(1, x.ndim - 1)))


def dissimilarities(x):
    """One minus the correlation of the images' activations."""
    rows = x.reshape(len(x), -1)
    with np.errstate(invalid="ignore"):
        found = np.corrcoef(rows)
    # What is equal stays equal: ranks would tell the rounding.
    return np.round(1 - np.nan_to_num(found), 6).astype(np.float32)


def inner_products(x):
    """Inner products of the images' activations, over the largest."""
    rows = x.reshape(len(x), -1)
    rows = rows - rows[0]
    return (rows @ rows.T / (np.abs(rows).max() or 1) ** 2).astype(np.float32)


FACTS = {
    "image_means": image_means,
    "inner_products": inner_products,
    "dissimilarities": dissimilarities,
    "codes": lambda x: discretize(flat(x))[0],
}


def facts(x, y, names=tuple(FACTS)):
    """What measures can need of two layers besides moments."""
    # Codes need as many samples as there are bins.
    enough = [name for name in names if name != "codes" or len(flat(x)) >= BINS]
    return {name: (FACTS[name](x), FACTS[name](y)) for name in enough}


def evidence(x, y, names=tuple(FACTS)):
    """Evidence from activations of shape (image, ..., unit), with these facts."""
    a, b = flat(x), flat(y)
    return Evidence(
        Moments.of(a, b), Moments.of(a), Moments.of(b), images=len(x), **facts(x, y, names)
    )


def blocks_of(cut, *layers):
    pieces = [
        [flat(x[start:stop]) for x in layers]
        for start, stop in zip(cut.edges[:-1], cut.edges[1:], strict=True)
    ]
    return Blocks(cut, [Moments.of(*piece) for piece in pieces])


def comparison(x, y, blocks=5, cut=None):
    """Comparison of two layers from activations of shape (image, ..., unit)."""
    cut = cut or Cut.of(len(x), blocks)
    three = blocks_of(cut, x, y), blocks_of(cut, x), blocks_of(cut, y)
    rows = np.repeat(np.arange(len(x)), flat(x).shape[0] // len(x))
    return Comparison("conv1", "conv1", three, sample_rows=rows, **facts(x, y))
