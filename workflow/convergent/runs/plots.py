"""Figures of a run, drawn for a caller who has a style and a backend of their own.

Each row says what a row of ``rules/figures.smk`` says; ``tests/test_runs.py`` compares the two.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from functools import partial
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, NamedTuple

from convergent.measures.registry import measures_of_units

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convergent.runs.reading import Run


class Plot(NamedTuple):
    """Figure: its function, its files of a pair or of the run, and the kinds of its arguments."""

    draw: str
    inputs: Mapping[str, str]
    params: Mapping[str, Any] = {}


PAIR = "pairs/{pair}/"
UNITS = {"a": "units/{a}.zarr", "b": "units/{b}.zarr"}
STATISTICS = {"a": "statistics/{a}.zarr", "b": "statistics/{b}.zarr"}
MATCHING = {"matching": f"{PAIR}matching.csv"}
MATCHES = {**MATCHING, "null_matches": f"{PAIR}null_matches.csv"}
CORRELATION = {"correlation": f"{PAIR}correlation.zarr"}
MAPPING = {"mapping": f"{PAIR}mapping.zarr"}
CLUSTERS = {"clusters": f"{PAIR}clusters.csv", "similarity": f"{PAIR}cluster_similarity.csv"}


def layers_of(run: Run, a: str, b: str) -> list[str]:
    """List the layers that both nets have."""
    return run.configuration.layers_of(a, b)


def layer_of(run: Run, a: str, b: str) -> str:
    """Return the layer that figures of one layer show."""
    return run.configuration.layer_of(a, b)


def second_layer_of(run: Run, a: str, b: str) -> str:
    """Return the layer of figS7 and figS8."""
    return run.configuration.second_layer_of(a, b)


def other_layers_of(run: Run, a: str, b: str) -> list[str]:
    """List all layers except that of figure 3, unless it is the only one."""
    layers = layers_of(run, a, b)
    return [layer for layer in layers if layer != layer_of(run, a, b)] or layers


def pictured(run: Run, a: str, b: str, number: int | None = None) -> list[str]:
    """List the first layers in which all units have pictures, or else the first layers."""
    every = layers_of(run, a, b)
    shown = [layer for layer in every if run.configuration.pictures.get(layer, ()) is None]
    return (shown or every)[:number]


def penalty_of(run: Run, a: str, b: str) -> float:
    """Return the penalty at which figures show sparse maps."""
    return run.configuration.mapping.penalty


def side_of(run: Run, a: str, b: str) -> str:
    """Return which images stand for a unit."""
    return run.configuration.figures.side


LAYER, LAYERS, PENALTY = {"layer": layer_of}, {"layers": layers_of}, {"penalty": penalty_of}
SECOND = {"layer": second_layer_of}
PICTURED = {"measure": "correlation", "side": side_of, "kinds": ["patches", "deconv"]}
OF_PAIRS = {
    "fig1": Plot("one_to_one:draw_fig1", {**STATISTICS, **CORRELATION, **MATCHING}, LAYER),
    "fig2": Plot(
        "units:draw_fig2",
        {**UNITS, **MATCHING},
        {**PICTURED, "layers": partial(pictured, number=3)},
    ),
    "fig3": Plot(
        "one_to_one:draw_fig3",
        MATCHES,
        {"measure": "correlation", "layers": lambda *of: [layer_of(*of)]},
    ),
    "excess": Plot(
        "excess:draw_excess",
        {"significance": f"{PAIR}significance.csv"},
        {**LAYERS, "level": lambda run, a, b: run.configuration.nulls.level},
    ),
    "similarity": Plot("similarity:draw_similarity", {"table": f"{PAIR}similarity.csv"}, LAYERS),
    "fig5": Plot("sparse_maps:draw_fig5", MAPPING, {**LAYERS, **PENALTY}),
    "fig6": Plot("sparse_maps:draw_fig6", {**UNITS, **MAPPING}, {**LAYER, **PENALTY}),
    "fig7": Plot(
        "sparse_maps:draw_fig7",
        {**UNITS, **MAPPING, "hac": f"{PAIR}hac.zarr"},
        {**LAYER, **PENALTY},
    ),
    "sparse_loss": Plot("sparse_maps:draw_sparse_loss", {"table": f"{PAIR}mapping.csv"}, LAYERS),
    "prune": Plot("pruning:draw_prune", {"table": f"{PAIR}prune.csv"}, LAYERS),
    "stitch": Plot("stitching:draw_stitch", {"table": f"{PAIR}stitch.csv"}, LAYERS),
    "figS1": Plot("one_to_one:draw_figS1", {"densities": f"{PAIR}joint_densities.zarr"}),
    "figS2": Plot(
        "units:draw_fig2",
        {**UNITS, **MATCHING},
        {**PICTURED, "kinds": ["patches"], "layers": pictured},
    ),
    "figS3": Plot(
        "one_to_one:draw_fig3", MATCHES, {"measure": "correlation", "layers": other_layers_of}
    ),
    "figS4": Plot(
        "units:draw_fig2",
        {**UNITS, **MATCHING},
        {
            **PICTURED,
            "measure": "mutual_information",
            "layers": partial(pictured, number=2),
        },
    ),
    "figS5": Plot(
        "clusters:draw_figS5",
        {**STATISTICS, **CORRELATION, "clusters": CLUSTERS["clusters"]},
        LAYERS,
    ),
    "figS6": Plot(
        "clusters:draw_figS6", {**UNITS, **CLUSTERS}, {**LAYER, "kind": "filters", "number": 12}
    ),
    "figS7": Plot(
        "clusters:draw_figS6", {**UNITS, **CLUSTERS}, {**SECOND, "kind": "patches", "number": 8}
    ),
    "figS8": Plot("clusters:draw_figS8", {**UNITS, **CLUSTERS}, SECOND),
    "figS9": Plot("clusters:draw_figS9", {"similarity": CLUSTERS["similarity"]}, LAYERS),
    "eigenvalues": Plot(
        "clusters:draw_eigenvalues",
        {"table": f"{PAIR}eigenvalues.csv", "stability": f"{PAIR}cluster_stability.csv"},
        {
            "clusters": lambda run, a, b: {
                layer: run.configuration.clusters[layer] for layer in layers_of(run, a, b)
            }
        },
    ),
    "merge": Plot("merging:draw_merge", {"table": f"{PAIR}merge.csv"}),
    "collapse": Plot("merging:draw_collapse", {"table": f"{PAIR}collapse.csv"}),
    "zip": Plot("zipping:draw_zip", {"table": f"{PAIR}zip.csv"}),
    "layers": Plot(
        "layers:draw_layers",
        {"table": f"{PAIR}layer_similarity.csv"},
        {"sides": lambda run, *nets: [run.configuration.nodes[net].layers for net in nets]},
    ),
    "identification": Plot(
        "identification:draw_identification", {"table": f"{PAIR}identification.csv"}
    ),
}
OF_PAIRS["matched_information"] = Plot(
    "one_to_one:draw_fig3", MATCHES, {"measure": "mutual_information", **LAYERS}
)
for measure in measures_of_units():
    if measure.name not in {row.params.get("measure") for row in OF_PAIRS.values()}:
        OF_PAIRS[f"matched_{measure.name}"] = Plot(
            "one_to_one:draw_fig3", MATCHES, {"measure": measure.name, **LAYERS}
        )
# Figures over all nets, and those of tables.
OF_RUN = {
    "fig4": "one_to_one:draw_fig4",
    "figS10": "one_to_one:draw_figS10",
    "figS11": "units:draw_figS11",
    "figS12": "units:draw_figS11",
}
OF_TABLES = {
    "table1": "sparse_maps:loss_table",
    "ensemble": "ensembles:draw_ensembles",
    "conditions": "conditions:draw_conditions",
    "dynamics": "dynamics:draw_dynamics",
    "settling": "dynamics:draw_settling",
    "probes": "probes:draw_probes",
}


class Plots:
    """Figures of a run, each a method by its name, such as ``fig3("net1", "net2")``.

    A figure of a pair takes two nets (else the pair of the run's figures), and after them layers
    in place of the configured ones; other arguments of its function can be given by name. Figures
    over all nets, such as ``fig4()``, take none. All return a Matplotlib figure that pyplot does
    not know. They keep the run's order of the two nets, whichever is named first.
    """

    def __init__(self, run: Run):
        self._run = run

    def __dir__(self) -> list[str]:
        return [*OF_PAIRS, *OF_RUN, *OF_TABLES]

    def __getattr__(self, name: str) -> Callable[..., Figure]:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in OF_PAIRS:
            return partial(self._draw_pair, name)
        if name in OF_RUN:
            return partial(self._draw_run, name)
        if name in OF_TABLES:
            return partial(self._draw_table, name)
        near = difflib.get_close_matches(name, dir(self), 1)
        raise AttributeError(
            f"there is no figure {name!r}; there are {', '.join(dir(self))}"
            + (f". Did you mean {near[0]}?" if near else "")
        )

    def _draw_pair(
        self, name: str, a: str | None = None, b: str | None = None, *layers: str, **changed: Any
    ) -> Figure:
        row, run = OF_PAIRS[name], self._run
        if a is None and b is None:
            a, b = run.configuration.pair.split("-")
        if a is None or b is None:
            raise TypeError(f"{name} takes two nets, or none for those of the run's figures")
        a, b, _ = run.ordered(a, b)
        if layers and "layer" in row.params and len(layers) == 1:
            changed["layer"] = layers[0]
        elif layers and "layers" in row.params:
            changed["layers"] = list(layers)
        elif layers:
            takes = "one layer" if "layer" in row.params else "no layers"
            raise TypeError(f"{name} takes {takes}, got {', '.join(layers)}")
        unknown = set(changed) - set(row.params)
        if unknown:
            raise TypeError(
                f"{name} has no argument {min(unknown)!r}; it has {', '.join(row.params) or 'none'}"
            )
        for layer in [*changed.get("layers", ()), *filter(None, [changed.get("layer")])]:
            run.check_layer(layer, a, b)
        inputs = dict(row.inputs)
        if name == "layers" and run.configuration.layer_pairs == "all":
            inputs["table"] = f"{PAIR}similarity.csv"
        files = {
            key: run.path(file.format(a=a, b=b, pair=f"{a}-{b}")) for key, file in inputs.items()
        }
        params = {
            key: value(run, a, b) if callable(value) else value
            for key, value in {**row.params, **changed}.items()
        }
        return draw(row.draw, nets=[a, b], **files, **params)

    def _draw_run(self, name: str) -> Figure:
        run, configuration = self._run, self._run.configuration
        subjects = [net for net, node in configuration.nodes.items() if node.role == "subject"]
        pairs = [pair for pair in run.pairs if set(pair) <= set(subjects)] or run.pairs
        shown = {
            *subjects,
            *configuration.pair.split("-"),
            *(net for of in run.pairs for net in of),
        }
        compared = [net for net in run.nets if net in shown]
        layers = [
            layer
            for layer in run.layers
            if any(layer in configuration.nodes[net].places for net in compared)
        ]
        if name == "fig4":
            named = ["-".join(pair) for pair in pairs]
            return draw(
                OF_RUN[name],
                matchings=[run.path(f"pairs/{pair}/matching.csv") for pair in named],
                significance=run.path("tables/significance.csv"),
                pairs=named,
                layers=layers,
                groups={net: node.group for net, node in configuration.nodes.items() if node.group},
            )
        if name == "figS10":
            files = [run.path(f"statistics/{net}.zarr") for net in compared]
            return draw(OF_RUN[name], statistics=files, nets=compared, layers=layers)
        choose = layer_of if name == "figS11" else second_layer_of
        layer = choose(run, *configuration.pair.split("-"))
        nets = [net for net in compared if layer in configuration.nodes[net].places]
        return draw(
            OF_RUN[name],
            statistics=[run.path(f"statistics/{net}.zarr") for net in nets],
            units=[run.path(f"units/{net}.zarr") for net in nets],
            nets=nets,
            layer=layer,
            side=configuration.figures.side,
        )

    def _draw_table(self, name: str) -> Figure:
        return draw(OF_TABLES[name], self._run.table(name))


def draw(function: str, *arguments: Any, **options: Any) -> Figure:
    """Call a function of :mod:`convergent.figures` under the style of the figures alone."""
    import matplotlib

    backend = dict.__getitem__(matplotlib.rcParams, "backend")
    # The style is set where it is imported; both it and the backend go back to the caller's.
    with matplotlib.rc_context():
        from convergent.figures.style import STYLE

        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = resolve_name(f"convergent.figures.{function}")(*arguments, **options)
        # Ticks are made, and the layout found, when a figure is drawn: now, in this style.
        figure.draw_without_rendering()
    dict.__setitem__(matplotlib.rcParams, "backend", backend)
    return figure
