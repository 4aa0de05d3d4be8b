"""Results of a run in which the second net is the first with its units permuted."""

import numpy as np
import pandas as pd

from convergent.measures.matching import match_table
from convergent.running.stores import new_store, save

NETS = ["net1", "net2", "net3"]


def write_run(folder, layers, nets=NETS, *, pictures=None, seed=0, images=200):
    """Stores and tables of a run whose layers have `layers[name]` units.

    Unit i of net1 is unit ``permutation[i]`` of net2, but for noise; later nets share nothing.
    Its first unit is dead in every net. Pictures of unit u, rank r are `pictures[layer]` pixels
    wide (3 by default; 0 for none) and of brightness ``(u + 10 r) % 256``.

    Returns
    -------
    dict of layer to ndarray of shape (unit,)
        The permutations.
    """
    rng = np.random.default_rng(seed)
    signals, permutations = {}, {}
    for layer, units in layers.items():
        permutations[layer] = np.concatenate([[0], 1 + rng.permutation(units - 1)])
        first = rng.normal(size=(images, units)).astype(np.float32)
        second = np.empty_like(first)
        noise = np.linspace(0.1, 2.5, units, dtype=np.float32)
        second[:, permutations[layer]] = first + noise * rng.normal(size=first.shape)
        rest = [rng.normal(size=first.shape).astype(np.float32) for _ in nets[2:]]
        for net, values in zip(nets, [first, second, *rest], strict=True):
            values[:, 0] = 0
            signals[net, layer] = values
    for net in nets:
        with (
            new_store(folder / f"statistics/{net}.zarr") as statistics,
            new_store(folder / f"units/{net}.zarr") as seen,
        ):
            for layer, units in layers.items():
                values = signals[net, layer]
                group = statistics.create_group(layer)
                save(group, "mean", np.abs(values).mean(axis=0).astype(np.float64), ("unit",))
                save(group, "std", values.std(axis=0).astype(np.float64), ("unit",))
                save(group, "dead", values.std(axis=0) == 0, ("unit",))
                group = seen.create_group(layer)
                top = np.argsort(-values, axis=0)[:9].T
                save(group, "image", top, ("unit", "rank"))
                save(group, "value", np.take_along_axis(values.T, top, axis=1), ("unit", "rank"))
                save(group, "receptive_field", np.array([3, 1, 0]), ("size_stride_offset",))
                side = (pictures or {}).get(layer, 3)
                pictured = np.full(units, side > 0)
                save(group, "pictured", pictured, ("unit",))
                brightness = np.add.outer(np.arange(units), 10 * np.arange(9)) % 256
                shape = (units, 9, max(side, 1), max(side, 1), 1)
                pixels = np.broadcast_to(brightness[:, :, None, None, None], shape)
                for kind in ("patches", "deconv"):
                    names = ("unit", "rank", "height", "width", "channel")
                    save(group, kind, pixels.astype(np.uint8), names)
    for i, a in enumerate(nets):
        for b in nets[i + 1 :]:
            _write_pair(folder / f"pairs/{a}-{b}", a, b, layers, signals)
    rows = {"split": "validation", "image": range(images), "label": 0, "class": "only"}
    pd.DataFrame(rows).to_csv(folder / "images.csv", index=False)
    return permutations


def _write_pair(folder, a, b, layers, signals):
    tables, clusters = [], []
    with (
        new_store(folder / "correlation.zarr") as correlations,
        new_store(folder / "mutual_information.zarr") as information,
        new_store(folder / "mapping.zarr") as maps,
    ):
        for layer, units in layers.items():
            x, y = (_standard(signals[net, layer]) for net in (a, b))
            correlation = x.T @ y / len(x)
            gaussian = -0.5 * np.log1p(-np.minimum(correlation**2, 0.999))
            both = ("unit_a", "unit_b")
            save(correlations.create_group(layer), "correlation", correlation, both)
            save(information.create_group(layer), "mutual_information", gaussian, both)
            for measure, matrix in (("correlation", correlation), ("mutual_information", gaussian)):
                tables.append(match_table(matrix, layer, measure))
            for direction, weights in (("ab", correlation.T), ("ba", correlation)):
                sparse = np.where(np.abs(weights) > 0.3, weights, 0).astype(np.float64)
                group = maps.create_group(f"{layer}/{direction}")
                steps = np.array([1.0, 0.25]) / units
                save(group, "decay", steps, ("decay",))
                names = ("decay", "target", "source")
                save(group, "weights", np.stack([0 * sparse, sparse]), names)
                loss = 0.5 * (1 - (sparse * weights).sum(axis=1))
                save(group, "loss", np.stack([0 * loss + 0.5, loss]), ("decay", "target"))
                count = (sparse != 0).sum(axis=1)
                save(group, "nonzero", np.stack([0 * count, count]), ("decay", "target"))
            for net in (a, b):
                place = np.arange(units)
                rows = {"layer": layer, "net": net, "unit": place, "cluster": place % 3}
                clusters.append(pd.DataFrame(rows | {"leaf": place % 3, "path": "0"}))
    pd.concat(tables).to_csv(folder / "matching.csv", index=False)
    pd.concat(clusters).to_csv(folder / "clusters.csv", index=False)


def _standard(values):
    deviation = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(deviation > 0, deviation, 1)


def stores(folder, nets=NETS):
    """What `convergent.figures.atlas.write_atlas` takes as `nets` and `pairs`."""
    of_nets = {
        net: {kind: folder / f"{kind}/{net}.zarr" for kind in ("statistics", "units")}
        for net in nets
    }
    names = {kind: f"{kind}.zarr" for kind in ("correlation", "mutual_information", "mapping")}
    names |= {kind: f"{kind}.csv" for kind in ("matching", "clusters")}
    pairs = [f"{a}-{b}" for i, a in enumerate(nets) for b in nets[i + 1 :]]
    return of_nets, {
        pair: {kind: folder / "pairs" / pair / name for kind, name in names.items()}
        for pair in pairs
    }
