"""Similarity of the layers of two nets, with its chance level and intervals, as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from convergent.activations.blocks import Blocks, aligned, load_blocks
from convergent.activations.controls import KINDS
from convergent.activations.dissimilarities import dissimilarities
from convergent.activations.inner_products import inner_products
from convergent.activations.layer_pairs import Pair, layer_pairs
from convergent.activations.moments import Moments
from convergent.activations.samples import sample_rows
from convergent.inference.comparisons import Arrays, Comparison
from convergent.inference.estimates import NULLS, Way, estimates, ways
from convergent.inference.nulls import null_columns, rotations
from convergent.inference.turned_images import kept_samples, turns
from convergent.measures.evidence import Split
from convergent.measures.registry import Measure
from convergent.nets.marks import check_same_images
from convergent.running.progress import progress, stage
from convergent.running.stores import open_store

NUMBERS = [
    "value", "held_out", "standard_error", "low", "high",
    *(column for kind in NULLS for column in null_columns(kind)),
    "ceiling", "n_images", "n_nets", "note",
]  # fmt: skip
COLUMNS = [
    "layer_a", "layer_b", "measure", "direction", "sample", "grid", "parameter", *NUMBERS,
]  # fmt: skip
# Units of the wider layer above which products take more than one thread.
WIDE = 512
# How what is known of pairs of images is read from a layer of an activation store.
READ: dict[str, Callable[[zarr.Array], NDArray[np.float32]]] = {
    "inner_products": inner_products,
    "dissimilarities": lambda array: dissimilarities(array).matrix,
}
# Names of the stores of activations.
ACTIVATIONS = ("activations_a", "activations_b")
# Kinds of controls that are draws of a null.
CONTROLS = {"untrained": ["untrained"], "untrained_one": ["untrained_ab", "untrained_ba"]}


class Stores(NamedTuple):
    """Stores that the layers of two nets are compared from.

    Attributes
    ----------
    statistics_a, statistics_b, correlation : path
        Statistics of the nets, and correlations of the pair.
    activations_a, activations_b : path, optional
        Activations, for measures of pairs of images and for nulls that turn images.
    untrained_a, untrained_b, controls : path, optional
        Statistics of the untrained nets, and correlations with them
        (:mod:`convergent.activations.controls`), for the nulls of untrained nets.
    untrained_activations_a, untrained_activations_b : path, optional
        Activations of the untrained nets, for measures of pairs of images.
    """

    statistics_a: str | Path
    statistics_b: str | Path
    correlation: str | Path
    activations_a: str | Path | None = None
    activations_b: str | Path | None = None
    untrained_a: str | Path | None = None
    untrained_b: str | Path | None = None
    controls: str | Path | None = None
    untrained_activations_a: str | Path | None = None
    untrained_activations_b: str | Path | None = None

    @classmethod
    def of_job(cls, inputs: Mapping[str, Any]) -> Stores:
        """Take the inputs of a job by their names; those that are optional may be empty."""
        paths: dict[str, Any] = {name: inputs.get(name) or None for name in cls._fields}
        return cls(**paths)


class Tables(NamedTuple):
    """Estimates of the layers of two nets.

    Attributes
    ----------
    similarity : DataFrame
        Rows of ``similarity.csv``: one for each layer and way (:data:`COLUMNS`).
    statistics : list of dict
        The same for the statistics of units.
    draws : list of dict
        Values of the nulls of the statistics, as :func:`convergent.inference.estimates.estimates`
        returns them.
    """

    similarity: pd.DataFrame
    statistics: list[dict[str, Any]]
    draws: list[dict[str, Any]]


def similarity_table(
    measures: Sequence[Measure],
    layers: Sequence[str],
    stores: Stores,
    *,
    statistics: Sequence[Measure] = (),
    nulls: Mapping[str, Any] | None = None,
    watch: Callable[[str, str, Iterable[Split]], Iterable[Split]] | None = None,
    threads: int = 1,
) -> Tables:
    """Compare each layer of one net with the same layer of another, from what is kept of them.

    Parameters
    ----------
    measures : sequence of Measure
        Measures of layers, for the table of similarities.
    layers : sequence of str
    stores : Stores
    statistics : sequence of Measure
        Statistics of units, for the table of significance; some may be among `measures`.
    nulls : mapping, optional
        Numbers of draws `rotation`, `images` and `information` (of these, for which mutual
        information is computed as well), `level` and `seed`, as in the section ``nulls`` of the
        configuration, and the `binning` of its mixtures. Without it there are no nulls but those of
        the controls.
    watch : callable, optional
        Function of a layer, a kind of null and its draws, which passes the draws on, for what else
        is made of them.
    threads : int
        Threads of measures of codes.

    Returns
    -------
    Tables

    Raises
    ------
    StoreError
        If the stores are of different images.

    Notes
    -----
    Each layer is read once, and memory is that of the widest: its blocks between and within the
    nets in float64 (three times twice :data:`convergent.activations.blocks.BLOCKS_BYTES` at most),
    their sums over all images, over the halves and without a block, and one gradient.
    """
    asked = nulls or {}
    opened = {name: open_store(path) for name, path in stores._asdict().items() if path}
    paths = {getattr(stores, name): store for name, store in opened.items()}
    check_same_images(paths, other_views=True)
    tabulated, of_units = ways(measures), ways(statistics)
    every = list(dict.fromkeys([*tabulated, *of_units]))
    names = {each.name for each in statistics}
    found, rows, draws = [], [], []
    name = f"similarity of {Path(stores.correlation).parent.name}"
    size = opened["correlation"]
    for layer in progress(layers, name, "pair", lambda at: size[f"{at}/correlation"].size):
        kept = _Kept(layer, opened)
        comparison = _comparison(kept, every, threads)
        kinds = _nulls(kept, comparison, every, asked)
        if watch:
            kinds = {kind: watch(layer, kind, splits) for kind, splits in kinds.items()}
        level = asked.get("level", 0.95)
        # Several threads for small products would wait for each other most of the time.
        wide = max(map(len, comparison.split.whole.live)) > WIDE
        with threadpool_limits(threads if wide else 1, "blas"):
            estimated, values = estimates(every, comparison, kinds, level)
        for way, row in zip(every, estimated, strict=True):
            if way in tabulated:
                found.append(row)
            if way in of_units:
                rows.append(row)
        draws += [draw for draw in values if draw["measure"] in names]
    return Tables(pd.DataFrame(found, columns=COLUMNS), rows, draws)


def layer_table(
    measures: Sequence[Measure],
    activations_a: str | Path,
    activations_b: str | Path,
    layers_a: Sequence[str],
    layers_b: Sequence[str],
    pairs: Literal["all"] | Sequence[Pair] = "all",
    *,
    statistics: tuple[str | Path, str | Path] | None = None,
    nulls: Mapping[str, Any] | None = None,
    name: str = "layers",
    **options: Any,
) -> pd.DataFrame:
    """Compare any layers of one net with any layers of another, from their activations.

    Parameters
    ----------
    measures : sequence of Measure
        Measures of layers. Those whose arguments are not known for layers of any two maps, such as
        codes of the same samples, have no rows.
    activations_a, activations_b : path
        Activation stores of the two nets.
    layers_a, layers_b : sequence of str
        Layers of the two nets.
    pairs : "all" or sequence of (str, str)
        Pairs of layers to compare.
    statistics : (path, path), optional
        Stores of the nets' statistics, whose moments within layers are used where they can be, and
        whose means of images are.
    nulls : mapping, optional
        Number of draws of `rotation`, `level` and `seed`, as of :func:`similarity_table`. Turned
        images and untrained nets are compared at layers of one name only.
    name : str
        Name of the stage in messages.
    **options
        `unequal`, `blocks`, `scheduler` and `workers` for
        :func:`convergent.activations.layer_pairs.layer_pairs`.

    Returns
    -------
    DataFrame
        Rows as those of :func:`similarity_table`, in the order of `pairs`.

    Raises
    ------
    StoreError
        If the stores are of different images, lack a layer, or have an activation that is NaN or
        infinite.
    """
    paths = [activations_a, activations_b, *(statistics or ())]
    stores = [open_store(path) for path in paths]
    check_same_images(dict(zip(paths, stores, strict=True)), other_views=True)
    a, b, *kept = (
        {layer: store[layer] for layer in layers}
        for store, layers in zip(stores, [layers_a, layers_b] * 2, strict=False)
    )
    options["kept"] = tuple(kept) or ({}, {})
    known = {"moments", "spectra", "matrix", *READ} | ({"image_means"} if kept else set())
    asked_ways = [w for w in ways(measures) if w.measure.needs in known and not w.of_codes]
    needed = [needs for needs in READ if _needed(needs, asked_ways)]

    @cache
    def read(needs: str, net: int, layer: str) -> NDArray[np.float32]:
        return READ[needs]((a, b)[net][layer])

    asked = [(x, y) for x in layers_a for y in layers_b] if pairs == "all" else list(pairs)
    drawn = {"rotation": 0, "seed": 0, "level": 0.95} | dict(nulls or {})
    rows: dict[Pair, list[dict[str, Any]]] = {}
    with stage(name, "pair", len(asked)) as done:
        found = layer_pairs(a, b, asked, step=lambda share: done(share * len(asked)), **options)
        for pair in found:
            x, y = pair.layer_a, pair.layer_b
            means = _image_means(kept[0][x], kept[1][y]) if kept else None
            of_pairs: dict[str, Any] = {
                needs: (read(needs, 0, x), read(needs, 1, y)) for needs in needed
            }
            comparison = Comparison(
                x,
                y,
                pair.blocks,
                pair.grid,
                image_means=means,
                **of_pairs,
            )
            splits = {}
            if drawn["rotation"]:
                splits = {"rotation": rotations(comparison.split, drawn["rotation"], drawn["seed"])}
            rows[x, y], _ = estimates(asked_ways, comparison, splits, drawn["level"])
    table = [row for pair in asked for row in rows[pair]]
    return pd.DataFrame(table, columns=COLUMNS)


def splits(layer: str, stores: Stores, seed: int = 0) -> dict[str, Split]:
    """Collect what is known of a layer of two nets, and of pairs that are alike by chance only.

    Parameters
    ----------
    layer : str
    stores : Stores
    seed : int
        Seed of the order in which the second net sees the images.

    Returns
    -------
    dict of str to Split
        ``none``: the two nets. Where activations are stored, ``shuffled``: the second net sees the
        images in another order (:func:`convergent.inference.turned_images.turns`). Where there are
        controls, ``untrained_ab`` and ``untrained_ba``: the second, or the first, is untrained.
    """
    opened = {name: open_store(path) for name, path in stores._asdict().items() if path}
    kept = _Kept(layer, opened)
    comparison = _comparison(kept, (), 1)
    found = {"none": comparison.split}
    if opened.keys() >= {*ACTIVATIONS}:
        a, b = map(kept.activations, ACTIVATIONS)
        found["shuffled"] = next(turns(comparison.split, a, b, 1, seed, cut=comparison.cut))
    if "controls" in opened and layer in opened["controls"]:
        for name in CONTROLS["untrained_one"]:
            found[name] = _untrained(kept, name, comparison, ())
    return found


class _Kept:
    """What stores hold of a layer, of which everything is read once."""

    def __init__(self, layer: str, stores: Mapping[str, zarr.Group]):
        self.layer, self.stores = layer, stores
        self._found: dict[tuple[str, str], Any] = {}
        self._groups: dict[str, zarr.Group] = {}

    def blocks(self, store: str) -> Blocks:
        return self._once(store, "blocks", load_blocks)

    def array(self, store: str, name: str) -> NDArray | None:
        """Read an array; None if there is none."""
        return self._once(store, name, lambda at: at[name][...] if name in at else None)

    def arrays(self, a: str, b: str, name: str) -> Arrays | None:
        """Read an array of two nets, if both keep it."""
        x, y = self.array(a, name), self.array(b, name)
        return None if x is None or y is None else (x, y)

    def codes(self, a: str, b: str) -> Arrays | None:
        """Read the codes of two nets, if they are of the same images at the same positions."""
        for name in ("sample_image", "sample_position"):
            places = self.arrays(a, b, name)
            if not places or not np.array_equal(*places):
                return None
        return self.arrays(a, b, "codes")

    def activations(self, store: str) -> zarr.Array | None:
        return self.stores[store][self.layer] if store in self.stores else None

    def of_pairs(self, a: str, b: str, ways: Iterable[Way]) -> dict[str, Any]:
        """Read what ways need to know of pairs of images, by the names of its two nets' stores."""
        if not self.stores.keys() >= {a, b}:
            return {}
        return {
            needs: (self._once(a, needs, read), self._once(b, needs, read))
            for needs, read in READ.items()
            if _needed(needs, ways)
        }

    def _once(self, store: str, name: str, read: Callable[[Any], Any]) -> Any:
        key = store, name
        if key not in self._found:
            if store not in self._groups:
                self._groups[store] = self.stores[store][self.layer]
            self._found[key] = read(self._groups[store])
        return self._found[key]


def _comparison(kept: _Kept, ways: Sequence[Way], threads: int) -> Comparison:
    """Read what is kept of a layer of two nets."""
    nets = "statistics_a", "statistics_b"
    between, within_a, within_b = aligned([kept.blocks(name) for name in ("correlation", *nets)])
    codes = kept.codes(*nets)
    return Comparison(
        kept.layer,
        kept.layer,
        (between, within_a, within_b),
        image_means=kept.arrays(*nets, "image_mean"),
        **kept.of_pairs(*ACTIVATIONS, ways),
        codes=codes,
        sample_rows=sample_rows(kept.stores["statistics_a"], kept.layer) if codes else None,
        threads=threads,
    )


def _nulls(
    kept: _Kept, comparison: Comparison, ways: Sequence[Way], asked: Mapping[str, Any]
) -> dict[str, Iterable[Split]]:
    """List the nulls of a layer, none of which is drawn yet."""
    kinds: dict[str, Iterable[Split]] = {}
    seed, information = asked.get("seed", 0), asked.get("information", 0)
    stores, layer = kept.stores, kept.layer
    if draws := asked.get("rotation", 0):
        kinds["rotation"] = rotations(
            comparison.split,
            draws,
            seed,
            values_b=kept.array("statistics_b", "values") if information else None,
            information_draws=information,
            binning=asked.get("binning", "paper"),
        )
    if (draws := asked.get("images", 0)) and stores.keys() >= {*ACTIVATIONS}:
        a, b = map(kept.activations, ACTIVATIONS)
        coded = comparison.codes is not None and information
        kinds["images"] = turns(
            comparison.split,
            a,
            b,
            draws,
            seed,
            cut=comparison.cut,
            samples=kept_samples(stores["statistics_b"], stores["activations_b"], layer)
            if coded
            else None,
            edges=kept.array("statistics_b", "edges") if coded else None,
            information_draws=information,
            workers=comparison.threads,
        )
    if "controls" in stores and layer in stores["controls"]:
        for kind, controls in CONTROLS.items():
            kinds[kind] = (_untrained(kept, control, comparison, ways) for control in controls)
    return kinds


def _untrained(kept: _Kept, control: str, trained: Comparison, ways: Sequence[Way]) -> Split:
    """Collect what is known of a layer of two nets of which one or both are untrained."""
    untrained_a, untrained_b = KINDS[control]
    a = "untrained_a" if untrained_a else "statistics_a"
    b = "untrained_b" if untrained_b else "statistics_b"
    activations_a = "untrained_activations_a" if untrained_a else "activations_a"
    activations_b = "untrained_activations_b" if untrained_b else "activations_b"
    cut = kept.blocks("untrained_a").cut
    within_a, within_b = (kept.blocks(net).at(cut.edges) for net in (a, b))
    between = Blocks(
        cut,
        [
            Moments.of_correlation(x.count, x.mean_x, y.mean_x, x.var_x, y.var_x, correlation)
            for x, y, correlation in zip(
                within_a.moments,
                within_b.moments,
                kept.array("controls", control),  # type: ignore[arg-type]
                strict=True,
            )
        ],
    )
    return Comparison(
        kept.layer,
        kept.layer,
        (between, within_a, within_b),
        image_means=kept.arrays(a, b, "image_mean"),
        **kept.of_pairs(activations_a, activations_b, ways),
        codes=kept.codes(a, b),
        sample_rows=trained.sample_rows,
        threads=trained.threads,
    ).split


def _needed(needs: str, ways: Iterable[Way]) -> bool:
    return any(way.measure.needs == needs for way in ways)


def _image_means(a: zarr.Group, b: zarr.Group) -> Arrays | None:
    """Read the mean of each unit over each image, where both nets keep it."""
    if "image_mean" not in a or "image_mean" not in b:
        return None
    return a["image_mean"][...], b["image_mean"][...]
