"""What a row of :mod:`convergent.figures.catalogue` says, and for which nets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from convergent import ConvergentError


class GroupsError(ConvergentError, ValueError):
    """A comparison of groups in a run that has fewer than two; the message says what to write."""


class CaptionError(ConvergentError, KeyError):
    """Error: a caption has a placeholder without a value. The message names both."""

    def __str__(self) -> str:
        return self.args[0]


@dataclass(frozen=True)
class Shown:
    """What a figure or table shows: a run, or a pair of its nets.

    Attributes
    ----------
    config : convergent.config.Config
    nets : tuple of str
        Both nets of the pair; empty if all nets are shown.
    """

    config: Any
    nets: tuple[str, ...] = ()

    @property
    def sides(self) -> list[list[str]]:
        """Layers of each net of the pair."""
        return [self.config.nodes[net].layers for net in self.nets]

    @property
    def layers(self) -> list[str]:
        """Layers that both nets of the pair have, or that any net which is compared has."""
        if self.nets:
            return self.config.layers_of(*self.nets)
        return [layer for layer in self.config.layer_names if self.having(layer)]

    @property
    def layer(self) -> str:
        """Layer that figures of one layer show."""
        return self.config.layer_of(*(self.nets or self.config.pair.split("-")))

    @property
    def second_layer(self) -> str:
        """Layer of figS7, figS8 and figS12."""
        return self.config.second_layer_of(*(self.nets or self.config.pair.split("-")))

    @property
    def other_layers(self) -> list[str]:
        """All layers except that of figure 3, unless it is the only one."""
        return [layer for layer in self.layers if layer != self.layer] or self.layers

    @property
    def pictured(self) -> list[str]:
        """Layers in which all units have pictures; all layers if there are none."""
        units = self.config.pictures
        return [layer for layer in self.layers if units.get(layer, ()) is None] or self.layers

    @property
    def clusters(self) -> dict[str, Any]:
        """Number of clusters of each layer."""
        return {layer: self.config.clusters[layer] for layer in self.layers}

    def having(self, layer: str) -> list[str]:
        """List the nets that are compared and have a layer."""
        nodes = self.config.nodes
        return [net for net in self.config.nets_compared if layer in nodes[net].places]

    @property
    def nets_of_layer(self) -> list[str]:
        """Nets that have the layer which figures of one layer show."""
        return self.having(self.layer)

    @property
    def nets_of_second_layer(self) -> list[str]:
        """Nets that have the second layer."""
        return self.having(self.second_layer)

    @property
    def seeds(self) -> dict[str, int]:
        """Seeds of the nets that are trained here."""
        nodes = self.config.nodes.items()
        return {name: node.seed for name, node in nodes if node.kind == "trained"}

    @property
    def mapped_pairs(self) -> list[str]:
        """Pairs that averages mean, and the one of the run's figures."""
        return list(dict.fromkeys([*self.config.pairs_of_subjects, self.config.pair]))

    @property
    def kind(self) -> str:
        """Kind of the run's pair (:func:`kind_of_pair`), if the run has groups of nets."""
        groups = self.config.groups
        return kind_of_pair(self.config.pair, groups) if groups else ""

    @property
    def pairs_of_kind(self) -> dict[str, tuple[str, str]]:
        """Pairs of subjects of this kind; the paper's claims are of nets of one kind."""
        groups, pairs = self.config.groups, self.config.compared
        return {
            pair: pairs[pair]
            for pair in self.config.pairs_of_subjects
            if not groups or kind_of_pair(pair, groups) == self.kind
        }

    @property
    def nets_of_kind(self) -> list[str]:
        """Nets of these pairs."""
        nets = {net for of in self.pairs_of_kind.values() for net in of}
        return [net for net in self.config.nodes if net in nets]

    @property
    def controlled_of_kind(self) -> list[str]:
        """Those of these nets that are compared with their untrained selves."""
        controlled = {net for of in self.config.controlled.values() for net in of}
        return [net for net in self.nets_of_kind if net in controlled]

    @property
    def pairs_of_groups(self) -> dict[str, tuple[str, str]]:
        """Pairs of subjects that have groups.

        Raises
        ------
        GroupsError
            If they are all of one group, so that there is nothing to compare.
        """
        groups, pairs = self.config.groups, self.config.compared
        found = {
            pair: pairs[pair]
            for pair in self.config.pairs_of_subjects
            if all(net in groups for net in pairs[pair])
        }
        named = {groups[net]: None for of in found.values() for net in of}
        if len(named) < 2:
            raise GroupsError(
                "conditions: compares groups of nets, and the pairs of this run are of "
                f"{', '.join(named) or 'none'}; write a sweep, or give the nets groups, such as "
                "nets.net1.group, and compare them with pairs: all"
            )
        return found

    @property
    def groups_of_pairs(self) -> dict[str, str]:
        """Groups of the nets of these pairs."""
        nets = {net for of in self.pairs_of_groups.values() for net in of}
        return {net: group for net, group in self.config.groups.items() if net in nets}

    @property
    def pairs_of_same_start(self) -> list[str]:
        """Pairs of groups whose nets are trained from the same weights."""
        starts = {
            pair: [self.config.nodes[net].start for net in of]
            for pair, of in self.pairs_of_groups.items()
        }
        return [pair for pair, (one, other) in starts.items() if one and one == other]


def kind_of_pair(pair: str, groups: Mapping[str, str]) -> str:
    """Name the kind of a pair of nets: within a group, or between two.

    Parameters
    ----------
    pair : str
        Names of the nets, joined by a hyphen.
    groups : mapping of net to str
        Groups in the order in which pairs between them are named. Nets may have none.

    Returns
    -------
    str
        ``within <group>``, ``between <group> and <group>``, or ``no group`` if a net has none.
    """
    first, second = (groups.get(net) for net in pair.split("-"))
    if first is None or second is None:
        return "no group"
    if first == second:
        return f"within {first}"
    order = list(dict.fromkeys(groups.values()))
    return "between {} and {}".format(*sorted((first, second), key=order.index))


def each(file: str, names: str) -> Callable[[Shown], list[str]]:
    """Make an input: one file for each net or pair that an attribute of :class:`Shown` lists."""
    return lambda shown: [file.format(name) for name in attrgetter(names)(shown)]


def matrix_of_layers(shown: Shown) -> str:
    """Return the table of all pairs of layers."""
    same_file = shown.config.layer_pairs == "all"
    return f"pairs/{{pair}}/{'' if same_file else 'layer_'}similarity.csv"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Files and arguments of a figure or table.

    Attributes
    ----------
    section : str
        Section of the paper, under which the report shows it.
    inputs : mapping of str to str or function
        Paths of the inputs below the folder of the run, in which ``{pair}``, ``{a}`` and ``{b}``
        stand for the pair and its nets; or a function of :class:`Shown` that returns one or a list.
    params : mapping
        Further arguments; a function of :class:`Shown` for what depends on the run or the pair.
    caption : str
        Caption; placeholders in braces stand for the pair and for `params`.
    by_name : bool or function
        True, also of the configuration, if it is made only where it is asked for by name.
    """

    section: str
    inputs: Mapping[str, str | Callable[[Shown], str | list[str]]]
    params: Mapping[str, Any] = field(default_factory=dict)
    caption: str
    by_name: bool | Callable[[Any], bool] = False

    def file(self, key: str, shown: Shown, folder: str = "") -> str | list[str]:
        """Return the path or paths of an input, each after `folder`."""
        value = self.inputs[key]
        found = value(shown) if callable(value) else value
        names = {"pair": "-".join(shown.nets), **dict(zip("ab", shown.nets, strict=False))}
        if isinstance(found, str):
            return folder + found.format(**names)
        return [folder + path for path in found]

    def argument(self, key: str, shown: Shown) -> Any:
        """Return the value of one of `params`."""
        value = self.params[key]
        return value(shown) if callable(value) else value

    def is_by_name(self, config: Any) -> bool:
        """Tell whether the run makes it only where it is asked for by name."""
        return self.by_name(config) if callable(self.by_name) else self.by_name


@dataclass(frozen=True, kw_only=True)
class Figure(Entry):
    """Figure: the function that draws it, its input files, and its place in the report.

    Attributes
    ----------
    draw : str
        Function of :mod:`convergent.figures` that draws the figure, as ``module:function``. It
        takes `inputs` and `params` by name and, if the figure shows a pair, `nets`.
    of_pair : bool
        True if there is one figure per pair, false if there is one for the whole run.
    local : bool
        True if the figure is drawn where Snakemake runs. Figures of whole matrices need more
        memory than one should use on the login node of a cluster.
    """

    draw: str
    of_pair: bool = True
    local: bool = True

    @property
    def modules(self) -> list[str]:
        """List the modules that the function imports by name: that of the measure in `params`."""
        return [f"measures.{self.params['measure']}"] if "measure" in self.params else []


@dataclass(frozen=True, kw_only=True)
class Table(Entry):
    """Table over all nets or pairs, with a figure of it if there is one.

    Attributes
    ----------
    make : str
        Function of :mod:`convergent.figures` that makes the table, as ``module:function``. It
        takes `inputs` and `params` by name.
    draw : str or None
        Function that draws a figure of the table.
    needs_labels : bool
        True if there is no such table of a run whose images have no classes.
    """

    make: str
    draw: str | None = None
    needs_labels: bool = False


def describe(name: str, row: Figure | Table, shown: Shown, kind: str = "figure") -> dict[str, Any]:
    """Describe a figure or table for :func:`convergent.figures.report.write_report`.

    Parameters
    ----------
    name : str
    row : Figure or Table
    shown : Shown
        The pair that the figure shows, or the whole run.
    kind : {"figure", "table"}

    Returns
    -------
    dict
        The `section`, `caption` and `labels`.

    Raises
    ------
    CaptionError
        If the caption has a placeholder without a value.
    """
    values: dict[str, Any] = {"pair": "-".join(shown.nets)} if shown.nets else {}
    for key in row.params:
        value = row.argument(key, shown)
        values[key] = ", ".join(map(str, value)) if isinstance(value, list) else value
    try:
        caption = row.caption.format(**values)
    except (KeyError, IndexError) as error:
        raise CaptionError(
            f"caption of {name}: there is no value for {error}; it can use "
            f"{', '.join(values) or 'none'}"
        ) from None
    layer = values.get("layer", values.get("layers"))
    labels = {kind: name, "pair": values.get("pair"), "layer": layer}
    labels = {key: value for key, value in labels.items() if value}
    return {"section": row.section, "caption": caption, "labels": labels}
