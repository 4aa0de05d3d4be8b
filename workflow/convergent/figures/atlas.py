"""The atlas: a page to explore a run with, and the data that it shows.

A browser allows a page opened from the disk to load scripts and pictures beside it, but nothing
else. The data are therefore scripts, each with a single call ``receive(name, "...")`` that holds an
.npz file in base64; :func:`read` returns its arrays. The .npz file itself lies beside the script,
except for matrices, whose exact values are in the run's stores.
"""

from __future__ import annotations

import base64
import io
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray
from PIL import Image

from convergent.alignment.sparse_maps import map_at_penalty
from convergent.consequences.curves import CURVE, mean_of_halves
from convergent.figures.merging import HOW, LABELS, LINES
from convergent.figures.style import MATCHING, NETS, SEMI
from convergent.figures.tables import merged_order
from convergent.inference.nulls import null_columns
from convergent.inference.verdicts import NULLS, sentence, statistic_rows
from convergent.inference.verdicts import number as number_of
from convergent.measures.matching import complete
from convergent.measures.registry import Measure, measures_of_units
from convergent.paper import PAPER_UNMATCHED
from convergent.running.progress import progress
from convergent.running.stores import open_store, writing

# Number of best partners listed for each unit.
PARTNERS = 10
# Largest number of matrix values in one file; a larger matrix is split into stripes of rows.
STRIPE = 2**20
# Correlations are stored to two digits, as whole numbers from -100 to 100.
STEPS = 100
# Pixels: side of a sheet, largest side of a picture, largest side that is stored without loss.
SHEET, LARGEST, EXACT = 1536, 128, 16
# Pictures of a layer, by their place in its group of the store; sheets have "-" for "/".
KINDS = ("patches", "deconv", "weakest/patches", "weakest/deconv")


def write_atlas(
    folder: str | Path,
    page: Sequence[str | Path],
    run: str,
    layers: Mapping[str, Sequence[str]],
    nets: Mapping[str, Mapping[str, str | Path]],
    pairs: Mapping[str, Mapping[str, str | Path]],
    penalty: float,
    classes: Sequence[str] = (),
    level: float = 0.95,
) -> None:
    """Write the folder ``atlas/``: the page, its data and its pictures.

    Parameters
    ----------
    folder : path
    page : sequence of path
        Files of the page, including ``index.html``.
    run : str
        Name of the run.
    layers : mapping of net or pair to sequence of str
        Layers of each of `nets`, in its order, and the layers that each of `pairs` compares.
    nets : mapping of net to mapping
        Paths of the net's stores, `statistics` and `units`.
    pairs : mapping of pair (``<a>-<b>``) to mapping
        Paths of the pair's `mapping`, `matching` and `clusters`, and of one store of matrices per
        measure, under the measure's name. `correlation` is required; `significance`, the table of
        chance levels, and `merge`, that of nets between the two, may be left out.
    penalty : float
        Penalty of the sparse maps, see :func:`convergent.alignment.sparse_maps.map_at_penalty`.
    classes : sequence of str
        Class of each recorded image, for captions; none, or empty names, if they have no labels.
    level : float
        Confidence level at which something stands above chance.
    """
    stores = {pair: open_store(paths["correlation"]) for pair, paths in pairs.items()}
    measures = [m for m in measures_of_units() if all(m.name in p for p in pairs.values())]

    def cells(layer: str) -> int:
        of_layer = [store for pair, store in stores.items() if layer in layers[pair]]
        return sum(store[f"{layer}/correlation"].size for store in of_layer)

    with writing(folder) as scratch:
        scratch.mkdir()
        for file in page:
            shutil.copyfile(file, scratch / Path(file).name)
        described: list[dict[str, Any]] = []
        every = merged_order(layers[net] for net in nets)
        for layer in progress(every, Path(folder), "pair", cells):
            described.append({"name": layer, "nets": {}, "pairs": {}})
            for net, paths in nets.items():
                if layer not in layers[net]:
                    continue
                seen = open_store(paths["units"])[layer]
                arrays = unit_facts(open_store(paths["statistics"])[layer], seen)
                write_arrays(scratch, f"{layer}/{net}", arrays)
                sheets = write_sheets(scratch / "pictures" / net, layer, seen)
                units = len(arrays["mean"])
                described[-1]["nets"][net] = {"units": units, "pictures": sheets}
            for pair, paths in pairs.items():
                if layer not in layers[pair]:
                    continue
                decay, parts = pair_facts(layer, pair, paths, measures, penalty)
                write_arrays(scratch, f"{layer}/{pair}", parts)
                matrix = stores[pair][layer]["correlation"][...]
                rows = max(1, STRIPE // matrix.shape[1])
                for n, start in enumerate(range(0, len(matrix), rows)):
                    stripe = {"correlation": hundredths(matrix[start : start + rows])}
                    write_arrays(scratch, f"{layer}/{pair}-{n}", stripe, plain=False)
                chance = chance_facts(layer, paths.get("significance"), level)
                described[-1]["pairs"][pair] = {"decay": decay, "rows": rows, "chance": chance}
        contents: dict[str, Any] = {"run": run, "nets": list(nets), "pairs": list(pairs)}
        labels, names = pd.factorize(np.asarray(classes if any(classes) else [], object))
        keys = ("name", "label", "unit", "source")
        contents["measures"] = [{key: getattr(m, key) for key in keys} for m in measures]
        contents |= {"layers": described, "classes": list(names), "labels": labels.tolist()}
        colors = {net: NETS[number % len(NETS)] for number, net in enumerate(nets)}
        contents["paper_unmatched"] = PAPER_UNMATCHED
        contents["colors"] = colors | {"semi": SEMI, "matching": MATCHING}
        merged = {pair: paths["merge"] for pair, paths in pairs.items() if "merge" in paths}
        contents["merging"] = {pair: merging_facts(path) for pair, path in merged.items()}
        text = json.dumps(contents | {"steps": STEPS})
        (scratch / "data/run.json").write_text(text, encoding="utf-8")
        (scratch / "data/run.js").write_text(f'receive("run", {text});\n', encoding="utf-8")


def unit_facts(statistics: zarr.Group, seen: zarr.Group) -> dict[str, NDArray]:
    """Collect the facts about each unit of a layer that concern no other net.

    Parameters
    ----------
    statistics, seen : zarr.Group
        The layer in ``statistics/<net>.zarr`` and in ``units/<net>.zarr``.

    Returns
    -------
    dict
        `mean` and `std` (float32); `dead` (uint8); `rank` by mean activation, from 1; `picture`,
        the unit's place in the sheets of :func:`write_sheets`, or -1; `image` (int32) and `value`
        (float32) of its strongest images, of shape (unit, 9); and `receptive_field`. Layers with
        negative activations also have `weakest_value`, of the images that drive it furthest below
        zero.
    """
    mean = statistics["mean"][...]
    rank = np.empty(len(mean), np.int32)
    rank[np.argsort(-mean, kind="stable")] = np.arange(1, len(mean) + 1)
    pictured = seen["pictured"][...]
    weakest = {"weakest_value": seen["weakest/value"][...]} if "weakest" in seen else {}
    return weakest | {
        "mean": mean.astype(np.float32),
        "std": statistics["std"][...].astype(np.float32),
        "dead": statistics["dead"][...].astype(np.uint8),
        "rank": rank,
        "picture": np.where(pictured, np.cumsum(pictured) - 1, -1).astype(np.int32),
        "image": seen["image"][...].astype(np.int32),
        "value": seen["value"][...].astype(np.float32),
        "receptive_field": seen["receptive_field"][...].astype(np.int32),
    }


def pair_facts(
    layer: str,
    pair: str,
    paths: Mapping[str, str | Path],
    measures: Sequence[Measure],
    penalty: float,
) -> tuple[dict[str, float], dict[str, NDArray]]:
    """Collect the facts that relate the units of a layer in the two nets of a pair.

    Parameters
    ----------
    layer, pair, paths, penalty
        See :func:`write_atlas`.
    measures : sequence of Measure
        Measures for which `paths` has matrices.

    Returns
    -------
    decay : dict of str to float
        Decay of the sparse maps that predict the units of net ``a`` and of net ``b``. The two
        differ if the nets have unlike numbers of units.
    facts : dict
        Arrays for the units of net ``a``, and the same for net ``b``:

        - ``<measure>/a/partner`` and ``<measure>/a/value`` (unit, place): the best partners in the
          other net by each measure; under the name ``map``, by weight in the sparse map.
        - ``<measure>/a/semi`` and ``<measure>/a/matching`` (unit,): the partners in
          ``matching.csv``, or -1. Their values are in ``..._value``; without a partner the value is
          0 in a semi-matching and NaN in a matching.
        - ``<measure>/a/completed``: the matching, in which the remaining units are paired too.
        - ``map/a/loss`` and ``map/a/weights``: the loss of the prediction of a unit, and the number
          of units that predict it.
        - ``cluster/a`` and ``leaf/a``.
    """
    facts: dict[str, NDArray] = {}
    table = pd.read_csv(paths["matching"]).query("layer == @layer")
    for measure in (m.name for m in measures):
        matrix = open_store(paths[measure])[layer][measure][...]
        rows = table[table["measure"] == measure]
        for side, values in (("a", matrix), ("b", matrix.T)):
            facts |= _named(f"{measure}/{side}", *best_partners(values))
            facts |= assigned(rows, measure, side, len(values))
            completed = complete(facts[f"{measure}/{side}/matching"], values.shape[1])
            facts[f"{measure}/{side}/completed"] = completed.astype(np.int32)
    maps, decays = open_store(paths["mapping"])[layer], {}
    # The map from a to b predicts the units of b; the map from b to a predicts those of a.
    for side, direction in (("a", "ba"), ("b", "ab")):
        decays[side], weights, loss, nonzero = map_at_penalty(maps[direction], penalty)
        facts |= _named(f"map/{side}", *best_partners(weights, np.abs(weights)))
        facts[f"map/{side}/loss"] = loss.astype(np.float32)
        facts[f"map/{side}/weights"] = nonzero.astype(np.int32)
    clusters = pd.read_csv(paths["clusters"]).query("layer == @layer")
    for side, net in zip("ab", pair.split("-"), strict=True):
        of_net = clusters[clusters["net"] == net].sort_values("unit")
        for name in ("cluster", "leaf"):
            facts[f"{name}/{side}"] = of_net[name].to_numpy(np.int32)
    return decays, facts


def chance_facts(
    layer: str, significance: str | Path | None, level: float = 0.95
) -> dict[str, dict[str, Any]]:
    """Collect the chance levels of the mean semi-matching correlation of a layer of a pair.

    Parameters
    ----------
    layer : str
    significance : path or None
        The pair's ``significance.csv``.
    level : float

    Returns
    -------
    dict
        For the units of net ``a`` and of net ``b``, if the table has them: the `sentence` of
        :func:`convergent.inference.verdicts.sentence`; `value`, `low` and `high`; and `nulls`, for
        each kind the mean, the upper level and p. Numbers that are not known are None.
    """
    if significance is None:
        return {}
    table = pd.read_csv(significance, keep_default_na=False).query("layer == @layer")
    facts: dict[str, dict[str, Any]] = {}
    for side, direction in (("a", "ab"), ("b", "ba")):
        for _, row in statistic_rows(table, direction=direction).iterrows():

            def known(name: str, row: pd.Series = row) -> float | None:
                value = number_of(row, name)
                return None if math.isnan(value) else value

            nulls = {kind: list(map(known, null_columns(kind))) for kind in NULLS}
            facts[side] = {name: known(name) for name in ("value", "low", "high")}
            facts[side]["nulls"] = {k: v for k, v in nulls.items() if v[0] is not None}
            facts[side]["sentence"] = sentence(row, level)
    return facts


def merging_facts(merge: str | Path) -> dict[str, Any]:
    """Collect the accuracy of nets between the two nets of a pair.

    Parameters
    ----------
    merge : path
        The pair's ``merge.csv``.

    Returns
    -------
    dict
        The points `t`; the number of `images`; `labelled`, false where the values are agreement
        with the two nets for want of labels; `curves`, each with its `alignment`, the `label` of
        this, `how` the nets between are finished (a value of ``figures.merging.HOW``, or None for
        the ensemble), and for each t a value and the ends of its interval in `share`, `low` and
        `high`, as :func:`convergent.consequences.curves.mean_of_halves` has them (None where they
        are not known).
    """
    means = mean_of_halves(pd.read_csv(merge)).query("not corrected")
    labelled = bool(means["top1"].notna().any())
    means["share"] = means["top1" if labelled else "agreement"]
    curves = []
    for (alignment, repaired, norm), rows in means.groupby(CURVE, sort=False):
        values = rows.sort_values("t")[["share", "low", "high"]].round(5)
        how = None if alignment == "ensemble" else HOW[LINES[repaired, norm]]
        curve = {"alignment": alignment, "label": LABELS[alignment], "how": how}
        curves.append(curve | values.astype(object).where(values.notna(), None).to_dict("list"))
    curves.sort(key=lambda curve: list(LABELS).index(curve["alignment"]))
    return {
        "t": sorted(set(means["t"].tolist())),
        "images": int(means["n_images"].max()),
        "labelled": labelled,
        "curves": curves,
    }


def best_partners(
    values: NDArray, size: NDArray | None = None, number: int = PARTNERS
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Find the columns with the largest values of each row, largest first; ties keep their order.

    Parameters
    ----------
    values : ndarray of shape (unit, partner)
    size : ndarray of the same shape, optional
        Values to sort by instead.
    number : int
        Largest number of partners.

    Returns
    -------
    partner : ndarray of shape (unit, number), int32
        -1 where there are no further partners. A value of exactly 0 (a dead unit, or no weight)
        makes no partner.
    value : ndarray of shape (unit, number), float32
    """
    size = values if size is None else size
    number = min(number, values.shape[1])
    partner = np.empty((len(values), number), np.int32)
    found = np.empty(partner.shape, np.float32)
    for row, (value, by) in enumerate(zip(values, size, strict=True)):
        order = np.argsort(np.where(value == 0, np.inf, -by), kind="stable")[:number]
        found[row] = value[order]
        partner[row] = np.where(value[order] == 0, -1, order)
    return partner, found


def assigned(rows: pd.DataFrame, measure: str, side: str, units: int) -> dict[str, NDArray]:
    """Look up the partners of the units of net a or b in a layer's rows of ``matching.csv``."""
    facts: dict[str, NDArray] = {}
    for method in ("semi", "matching"):
        # The matching is the same in both directions, and the table lists it as ab.
        turned = side == "b" and method == "matching"
        direction = "ba" if side == "b" and not turned else "ab"
        of = rows[(rows["method"] == method) & (rows["direction"] == direction)]
        unit, partner = (of[c].to_numpy() for c in ("unit", "partner"))
        unit, partner = (partner, unit) if turned else (unit, partner)
        # Semi-matching leaves out dead units, which correlate 0 with everything.
        none = 0 if method == "semi" else np.nan
        partners, values = np.full(units, -1, np.int32), np.full(units, none, np.float32)
        partners[unit], values[unit] = partner, of["value"].to_numpy()
        facts[f"{measure}/{side}/{method}"] = partners
        facts[f"{measure}/{side}/{method}_value"] = values
    return facts


def hundredths(correlation: NDArray) -> NDArray[np.int8]:
    """Round correlations to two digits and return them as whole numbers."""
    return np.round(STEPS * np.clip(correlation, -1, 1)).astype(np.int8)


def write_sheets(folder: Path, layer: str, seen: zarr.Group) -> dict[str, Any] | None:
    """Write the pictures of a layer's units to sheets, nine per unit in a block of 3x3.

    There are sheets of `patches` and `deconv`, and the same of the weakest side where there is one.
    Sheets are named ``<layer>-<kind>-<number>.<suffix>`` and filled row by row with the units that
    have pictures. Small pictures are stored without loss (PNG); larger ones are shrunk to at most
    `LARGEST` pixels and compressed with loss (WebP).

    Returns
    -------
    dict or None
        The `side` of a picture in pixels, the number of `columns` and of `units` on a full sheet,
        the `suffix`, `exact`, which is true for pictures without loss, and `undeconvolved`, the
        reason why there are no deconvolutions or None. None if there are no pictures.
    """
    units = np.flatnonzero(seen["pictured"][...])
    if not len(units):
        return None
    exact = seen["patches"].shape[2] <= EXACT
    side = min(seen["patches"].shape[2], LARGEST)
    columns = min(max(1, SHEET // (3 * side)), math.ceil(math.sqrt(len(units))))
    capacity = columns**2
    folder.mkdir(parents=True, exist_ok=True)
    suffix, options = ("png", {}) if exact else ("webp", {"quality": 90 if side < LARGEST else 80})
    for kind in KINDS:
        if kind not in seen:
            continue
        for number, start in enumerate(range(0, len(units), capacity)):
            chosen = units[start : start + capacity]
            blocks = shrunk(seen[kind].oindex[chosen], side)
            path = folder / f"{layer}-{kind.replace('/', '-')}-{number}.{suffix}"
            Image.fromarray(sheet(blocks, columns)).save(path, **options)
    described = {"side": side, "columns": columns, "units": capacity}
    fault = {"undeconvolved": seen.attrs.get("undeconvolved")}
    return described | {"suffix": suffix, "exact": exact} | fault


def sheet(blocks: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Lay out pictures (unit, 9, side, side, channel) on a black sheet (height, width[, 3]).

    Each row has `columns` units.
    """
    units, _, side, _, channels = blocks.shape
    rows = -(-units // columns)
    page = np.zeros((rows * columns, 9, side, side, channels), np.uint8)
    page[:units] = blocks
    page = page.reshape(rows, columns, 3, 3, side, side, channels)
    page = page.transpose(0, 2, 4, 1, 3, 5, 6)
    page = page.reshape(rows * 3 * side, columns * 3 * side, channels)
    return page[:, :, 0] if channels == 1 else page


def shrunk(pictures: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Shrink pictures (unit, 9, height, width, channel) that are larger than `side`."""
    if pictures.shape[2] <= side:
        return pictures
    *places, _, _, channels = pictures.shape
    small = np.empty((*places, side, side, channels), np.uint8)
    for place in np.ndindex(*places):
        pixels = pictures[place][:, :, 0] if channels == 1 else pictures[place]
        picture = Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS)
        small[place] = np.reshape(picture, (side, side, channels))
    return small


def write_arrays(
    folder: Path, name: str, arrays: Mapping[str, NDArray], *, plain: bool = True
) -> None:
    """Write arrays as ``data/<name>.js`` for the page and, if `plain`, as ``.npz`` beside it."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    path = folder / f"data/{name}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    if plain:
        path.with_suffix(".npz").write_bytes(buffer.getvalue())
    text = base64.b64encode(buffer.getvalue()).decode()
    path.write_text(f'receive("{name}", "{text}");\n', encoding="utf-8")


def read(path: str | Path) -> dict[str, NDArray]:
    """Read the arrays of a script written by :func:`write_arrays`."""
    text = Path(path).read_text(encoding="utf-8").split('"')[3]
    with np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False) as arrays:
        return dict(arrays)


def _named(prefix: str, partner: NDArray, value: NDArray) -> dict[str, NDArray]:
    return {f"{prefix}/partner": partner, f"{prefix}/value": value}
