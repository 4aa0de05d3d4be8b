"""Ceilings of nets are those of what they have in common."""

import numpy as np
from comparing import dissimilarities
from test_statistics import write_store

from convergent.inference.ceilings import ceiling_table
from convergent.measures.noise_ceiling import noise_ceiling
from convergent.measures.registry import measures


def test_ceilings_are_of_layers_that_three_nets_have(rng, tmp_path):
    shared = rng.normal(size=(40, 3, 3, 5))
    nets, paths = {}, {}
    for name in "abcd":
        layers = {"conv1": shared + rng.normal(size=shared.shape)}
        if name != "d":
            layers["fc6"] = rng.normal(size=(40, 8))
        if name in "ab":
            layers["fc7"] = rng.normal(size=(40, 8))
        nets[name] = {layer: x.astype(np.float32) for layer, x in layers.items()}
        paths[name] = write_store(tmp_path / f"{name}.zarr", nets[name])
    table = ceiling_table(paths).set_index(["layer", "measure"])
    assert set(table.index.get_level_values("layer")) == {"conv1", "fc6"}
    for measure in measures(needs="dissimilarities"):
        for layer, number in (("conv1", 4), ("fc6", 3)):
            row = table.loc[(layer, measure.name)]
            assert row["n_nets"] == number
            of_nets = [dissimilarities(net[layer]) for net in nets.values() if layer in net]
            expected = noise_ceiling(measure, of_nets)
            # Rounding lets dissimilarities trade places, each with a neighbour among
            # the 780: a rank correlation moves by up to 12 / 780^2.
            found = row[["lower", "upper"]].to_numpy(float)
            np.testing.assert_allclose(found, expected, rtol=0, atol=12 / 780**2)
            assert row["lower"] < row["upper"]
    # What only noise has in common.
    assert table.loc[("fc6", "rsa"), "lower"] < 0.1 < table.loc[("conv1", "rsa"), "lower"]
