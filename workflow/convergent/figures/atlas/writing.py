"""Write the atlas of a run: the page, its data and its pictures."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from convergent.figures.atlas.core import partners_in_nets, shared_core
from convergent.figures.atlas.files import write_arrays, write_description
from convergent.figures.atlas.overview import (
    PREDICTED,
    chance_facts,
    findings,
    merging_facts,
    similarity_rows,
)
from convergent.figures.atlas.pairs import (
    STEPS,
    chance_of_units,
    hundredths,
    pair_facts,
    partners_over_training,
)
from convergent.figures.atlas.pictures import Views, write_images, write_sheets
from convergent.figures.atlas.plane import plane
from convergent.figures.atlas.units import (
    UNITS,
    sampled_alike,
    unit_facts,
    write_samples,
)
from convergent.figures.style import MATCHING, NETS, SEMI
from convergent.figures.tables import merged_order
from convergent.inference.significance import LEAST
from convergent.measures.registry import measures_of_units
from convergent.paper import PAPER_UNMATCHED
from convergent.running.progress import progress
from convergent.running.stores import open_store, writing

# Largest number of matrix values in one file; a larger matrix is split into stripes of rows.
STRIPE = 2**20
# Number of this form of the data.
FORMAT = 2


class Extras(NamedTuple):
    """What an atlas shows beyond a run's pairs of nets, as far as it is there.

    Attributes
    ----------
    facts : mapping
        Facts of the run for its first page, by their names: anything that JSON can hold.
    views : mapping of net to callable
        Views of images as the net takes them. Nets that see the same share one.
    epochs : mapping of epoch to path
        Folders ``dynamics/<epoch>`` of the run.
    """

    facts: Mapping[str, Any] = {}
    views: Mapping[str, Views] = {}
    epochs: Mapping[float, str | Path] = {}


def facts_of_run(
    data: str, images: int, code: Mapping[str, Any] | None, folder: str | Path
) -> dict[str, Any]:
    """Collect what the first page says of a run beside its nets.

    Parameters
    ----------
    data : str
        Name of the data set.
    images : int
        Number of images that were recorded.
    code : mapping or None
        Commit of the code, as :func:`convergent.running.origin.commit` returns it.
    folder : path
        Folder of the atlas, which lies in that of the run.
    """
    made: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat(), "version": None}
    with suppress(PackageNotFoundError):  # the library may lie beside the workflow alone
        made["version"] = version("convergent-learning")
    links = {"report": "report.html", "tables": "tables", "figures": "figures"}
    there = {k: f"../{v}" for k, v in links.items() if Path(folder).parent.joinpath(v).exists()}
    commit = (code or {}).get("commit")
    return made | {"commit": commit, "data": data, "images": images, "links": there}


def observed_epochs(folder: str | Path) -> dict[float, Path]:
    """Find the epochs at which nets were observed along their training, beside an atlas."""
    epochs = {}
    for path in Path(folder).parent.glob("dynamics/*/pairs"):
        epochs[float(path.parent.name)] = path.parent
    return epochs


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
    extras: Extras | None = None,
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
        Paths of the net's stores, `statistics` and `units`, and of its `evaluation`, the table of
        its accuracy, which may be left out.
    pairs : mapping of pair (``<a>-<b>``) to mapping
        Paths of the pair's `mapping`, `matching` and `clusters`, and of one store of matrices per
        measure, under the measure's name. `correlation` is required; `significance` and
        `similarity`, the tables of chance levels, `null_matches`, those of units, and `merge`,
        that of nets between the two, may be left out.
    penalty : float
        Penalty of the sparse maps, see :func:`convergent.alignment.sparse_maps.map_at_penalty`.
    classes : sequence of str
        Class of each recorded image, for captions; none, or empty names, if they have no labels.
    level : float
        Confidence level at which something stands above chance.
    extras : Extras, optional
    """
    stores = {pair: open_store(paths["correlation"]) for pair, paths in pairs.items()}
    every = merged_order(layers[net] for net in nets)

    def cells(layer: str) -> int:
        of_layer = [store for pair, store in stores.items() if layer in layers[pair]]
        return sum(store[f"{layer}/correlation"].size for store in of_layer)

    with writing(folder) as scratch:
        scratch.mkdir()
        for file in page:
            shutil.copyfile(file, scratch / Path(file).name)
        atlas = _Atlas(scratch, layers, nets, pairs, penalty, level, extras or Extras())
        for layer in progress(every, Path(folder), "pair", cells):
            atlas.write_layer(layer)
        wholes = atlas.write_whole_images()
        ways, rows = similarity_rows(pairs, every)
        if rows:
            write_arrays(scratch, "similarity", rows)
        labels, names = pd.factorize(np.asarray(classes if any(classes) else [], object))
        keys = ("name", "label", "unit", "source")
        colors = {net: NETS[number % len(NETS)] for number, net in enumerate(nets)}
        merged = {pair: paths["merge"] for pair, paths in pairs.items() if "merge" in paths}
        facts = dict((extras or Extras()).facts) | {"nets": _accuracies(nets)}
        tallies = pd.DataFrame(atlas.tallies)
        contents = {
            "format": FORMAT,
            "run": run,
            "facts": facts,
            "findings": findings(pairs, tallies, atlas.cores, level) if len(tallies) else [],
            "nets": list(nets),
            "pairs": list(pairs),
            "measures": [{key: getattr(m, key) for key in keys} for m in atlas.measures],
            "layers": atlas.described,
            "classes": list(names),
            "labels": labels.tolist(),
            "level": level,
            "unmatched": LEAST,
            "paper_unmatched": PAPER_UNMATCHED,
            "colors": colors | {"semi": SEMI, "matching": MATCHING},
            "merging": {pair: merging_facts(path) for pair, path in merged.items()},
            "ways": ways,
            "wholes": wholes,
            "steps": STEPS,
            "units_in_a_file": UNITS,
        }
        write_description(scratch, "run", contents)


class _Atlas:
    """An atlas that is being written, layer by layer.

    Attributes
    ----------
    described : list of dict
        What ``run.json`` says of each layer.
    tallies : list of dict
        Numbers of units of each layer, pair and net, see
        :func:`convergent.figures.atlas.overview.findings`.
    cores : dict of layer to (str, int, int)
        The first net of the layer, the number of its units in the shared core, and of all.
    """

    def __init__(
        self,
        folder: Path,
        layers: Mapping[str, Sequence[str]],
        nets: Mapping[str, Mapping[str, str | Path]],
        pairs: Mapping[str, Mapping[str, str | Path]],
        penalty: float,
        level: float,
        extras: Extras,
    ):
        self.folder, self.layers, self.nets, self.pairs = folder, layers, nets, pairs
        self.penalty, self.level, self.extras = penalty, level, extras
        of_all = (m for m in measures_of_units() if all(m.name in p for p in pairs.values()))
        self.measures = list(of_all)
        self.described: list[dict[str, Any]] = []
        self.tallies: list[dict[str, Any]] = []
        self.cores: dict[str, tuple[str, int, int]] = {}
        # Nets that see the images in the same way share one picture of each.
        self.views = list(dict.fromkeys(extras.views.values()))
        self.shown: list[set[int]] = [set() for _ in self.views]

    def write_layer(self, layer: str) -> None:
        """Write all data and pictures of a layer."""
        about: dict[str, Any] = {"name": layer, "nets": {}, "pairs": {}}
        self.described.append(about)
        nets = [net for net in self.nets if layer in self.layers[net]]
        statistics = {net: open_store(self.nets[net]["statistics"])[layer] for net in nets}
        best: dict[tuple[str, str], tuple[NDArray[np.int32], NDArray[np.float32]]] = {}
        for pair in self.pairs:
            if layer in self.layers[pair]:
                a, b = pair.split("-")
                about["pairs"][pair], facts = self._write_pair(layer, pair, statistics)
                for side, way in (("a", (a, b)), ("b", (b, a))):
                    main = self.measures[0].name
                    names = (f"{main}/{side}/semi", f"{main}/{side}/semi_value")
                    best[way] = (facts[names[0]], facts[names[1]])
        for group, sampled in enumerate(sampled_alike(statistics)):
            about["nets"] |= {net: {"samples": group} for net in sampled}
        about["nets"] = {net: about["nets"].get(net, {}) for net in nets}
        for net in nets:
            beside = partners_in_nets(net, list(self.nets), best)
            about["nets"][net] |= self._write_net(layer, net, statistics[net], beside)
        whole = len(nets) > 1 and all((p, q) in best for p in nets for q in nets if p != q)
        about["core"] = nets if whole else []
        if whole:
            write_arrays(self.folder, f"{layer}/shared/core", shared_core(nets, best))
            others = [list(self.nets).index(net) for net in nets[1:]]
            both = partners_in_nets(nets[0], list(self.nets), best)["mutual"][:, others]
            self.cores[layer] = (nets[0], int(both.all(axis=1).sum()), len(both))

    def _write_pair(
        self, layer: str, pair: str, statistics: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, NDArray]]:
        paths = self.pairs[pair]
        decay, facts = pair_facts(layer, pair, paths, self.measures, self.penalty, self.level)
        write_arrays(self.folder, f"{layer}/{pair}", facts)
        matrix = open_store(paths["correlation"])[layer]["correlation"][...]
        rows = max(1, STRIPE // matrix.shape[1])
        for n, start in enumerate(range(0, len(matrix), rows)):
            stripe = {"correlation": hundredths(matrix[start : start + rows])}
            write_arrays(self.folder, f"{layer}/{pair}-{n}", stripe, plain=False)
        within = [statistics[net] for net in pair.split("-")]
        placed = all("correlation" in group for group in within)
        if placed:
            xx, yy = (group["correlation"][...] for group in within)
            a, b = plane(xx, matrix, yy)
            write_arrays(self.folder, f"{layer}/plane/{pair}", {"a": a, "b": b})
        training = partners_over_training(layer, pair, self.extras.epochs)
        if training:
            write_arrays(self.folder, f"{layer}/training/{pair}", training)
        self._count(layer, pair, facts, statistics)
        return {
            "decay": decay,
            "rows": rows,
            "chance": chance_facts(layer, paths.get("significance"), self.level),
            "chance_of_units": chance_of_units(layer, paths.get("null_matches"), self.level),
            "plane": placed,
            "training": bool(training),
        }, facts

    def _write_net(
        self, layer: str, net: str, statistics: Any, beside: dict[str, NDArray]
    ) -> dict[str, Any]:
        seen = open_store(self.nets[net]["units"])[layer]
        arrays = unit_facts(statistics, seen)
        write_arrays(self.folder, f"{layer}/{net}", arrays | beside)
        write_samples(self.folder, layer, net, statistics)
        if net in self.extras.views:
            shown = arrays["image"][arrays["value"] > 0]
            self.shown[self.views.index(self.extras.views[net])].update(shown.tolist())
        sheets = write_sheets(self.folder / "pictures" / net, layer, seen)
        return {"units": len(arrays["mean"]), "pictures": sheets}

    def _count(
        self,
        layer: str,
        pair: str,
        facts: Mapping[str, NDArray],
        statistics: Mapping[str, Any],
    ) -> None:
        """Count the units of both nets that have no match, and those that a map predicts."""
        for side, net in zip("ab", pair.split("-"), strict=True):
            live = ~statistics[net]["dead"][...]
            value = facts[f"{self.measures[0].name}/{side}/semi_value"]
            unmatched = live & (value < LEAST)
            predicted = unmatched & (facts[f"map/{side}/loss"] < PREDICTED)
            tally = {"layer": layer, "pair": pair, "net": net, "live": int(live.sum())}
            tally |= {"mean": float(value[live].mean()) if live.any() else np.nan}
            tally |= {"unmatched": int(unmatched.sum()), "predicted": int(predicted.sum())}
            self.tallies.append(tally)

    def write_whole_images(self) -> dict[str, Any]:
        """Write the whole images that excite units, once for all nets that see them alike."""
        described = []
        for number, (views, shown) in enumerate(zip(self.views, self.shown, strict=True)):
            places = np.array(sorted(shown), np.int32)
            write_arrays(self.folder, f"whole-{number}", {"image": places})
            described.append(write_images(self.folder / "pictures", number, places, views))
        nets = {net: self.views.index(view) for net, view in self.extras.views.items()}
        return {"nets": nets, "sheets": described}


def _accuracies(nets: Mapping[str, Mapping[str, str | Path]]) -> dict[str, dict[str, Any]]:
    """Read what each net reaches on the validation images, as far as that is known."""
    found: dict[str, dict[str, Any]] = {}
    for net, paths in nets.items():
        found[net] = {}
        if "evaluation" in paths:
            row = pd.read_csv(paths["evaluation"]).iloc[0]
            known = {name: row[name] for name in ("images", "top1", "chance") if name in row}
            found[net] = {name: float(v) for name, v in known.items() if pd.notna(v)}
    return found
