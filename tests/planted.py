"""Results of a run in which the second net is the first with its units permuted."""

import numpy as np
import pandas as pd

from convergent.measures.matching import match_table
from convergent.running.stores import new_store, open_store, save

NETS = ["net1", "net2", "net3"]


def write_run(
    folder,
    layers,
    nets=NETS,
    *,
    pictures=None,
    fewer=None,
    signed=(),
    fault=None,
    seed=0,
    images=200,
):
    """Stores and tables of a run whose layers have `layers[name]` units.

    Unit i of net1 is unit ``permutation[i]`` of net2, but for noise; later nets share nothing.
    Its first unit is dead in every net. Pictures of unit u, rank r are `pictures[layer]` pixels
    wide (3 by default; 0 for none) and of brightness ``(u + 10 r) % 256``; layers of `signed` also
    have the weakest side, 128 levels away from it. Layers of `fault` have no deconvolutions, for
    the reason ``fault[layer]``. A net has only the first `fewer[net][layer]`
    units of a layer, and lacks the layer if that is 0.

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
            kept = (fewer or {}).get(net, {}).get(layer, units)
            if kept:
                signals[net, layer] = values[:, :kept]
    for net in nets:
        with (
            new_store(folder / f"statistics/{net}.zarr") as statistics,
            new_store(folder / f"units/{net}.zarr") as seen,
        ):
            for layer in layers:
                if (net, layer) not in signals:
                    continue
                values = signals[net, layer]
                units = values.shape[1]
                group = statistics.create_group(layer)
                save(group, "mean", np.abs(values).mean(axis=0).astype(np.float64), ("unit",))
                save(group, "std", values.std(axis=0).astype(np.float64), ("unit",))
                save(group, "dead", values.std(axis=0) == 0, ("unit",))
                standard = _standard(values)
                save(group, "correlation", standard.T @ standard / images, ("unit", "unit_b"))
                save(group, "values", values.astype(np.float16), ("sample", "unit"))
                for name in ("sample_image", "sample_position"):
                    save(group, name, np.arange(images), ("sample",))
                group = seen.create_group(layer)
                save(group, "receptive_field", np.array([3, 1, 0]), ("size_stride_offset",))
                side = (pictures or {}).get(layer, 3)
                pictured = np.full(units, side > 0)
                save(group, "pictured", pictured, ("unit",))
                brightness = np.add.outer(np.arange(units), 10 * np.arange(9)) % 256
                shape = (units, 9, max(side, 1), max(side, 1), 1)
                kinds = ("patches", "deconv")
                if fault and layer in fault:
                    group.attrs["undeconvolved"], kinds = fault[layer], ("patches",)
                pixels = np.broadcast_to(brightness[:, :, None, None, None], shape)
                sides = [(group, -values, 0)]
                if layer in signed:
                    sides.append((group.create_group("weakest"), values, 128))
                for part, by, away in sides:
                    top = np.argsort(by, axis=0)[:9].T
                    save(part, "image", top, ("unit", "rank"))
                    extremes = np.take_along_axis(values.T, top, axis=1)
                    save(part, "value", extremes, ("unit", "rank"))
                    for axis in ("y", "x"):
                        save(part, axis, np.zeros_like(top), ("unit", "rank"))
                    for kind in kinds:
                        names = ("unit", "rank", "height", "width", "channel")
                        save(part, kind, ((pixels + away) % 256).astype(np.uint8), names)
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
        for layer in layers:
            if (a, layer) not in signals or (b, layer) not in signals:
                continue
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
                steps = np.array([1.0, 0.25]) / len(sparse)
                save(group, "decay", steps, ("decay",))
                names = ("decay", "target", "source")
                save(group, "weights", np.stack([0 * sparse, sparse]), names)
                loss = 0.5 * (1 - (sparse * weights).sum(axis=1))
                save(group, "loss", np.stack([0 * loss + 0.5, loss]), ("decay", "target"))
                count = (sparse != 0).sum(axis=1)
                save(group, "nonzero", np.stack([0 * count, count]), ("decay", "target"))
            for net in (a, b):
                place = np.arange(signals[net, layer].shape[1])
                rows = {"layer": layer, "net": net, "unit": place, "cluster": place % 3}
                clusters.append(pd.DataFrame(rows | {"leaf": place % 3, "path": place % 3}))
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
    return of_nets, {
        pair: {kind: folder / "pairs" / pair / name for kind, name in names.items()}
        for pair in pairs_of(nets)
    }


def layers_of(folder, nets=NETS):
    """What `convergent.figures.atlas.write_atlas` takes as `layers`: those of nets and of pairs."""
    stores = {net: open_store(folder / f"statistics/{net}.zarr") for net in nets}
    for pair in pairs_of(nets):
        stores[pair] = open_store(folder / f"pairs/{pair}/correlation.zarr")
    return {name: sorted(store.group_keys()) for name, store in stores.items()}


def pairs_of(nets):
    return [f"{a}-{b}" for i, a in enumerate(nets) for b in nets[i + 1 :]]
