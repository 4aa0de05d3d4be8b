"""What a run found, by the names of its nets, layers and units."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from numpy.typing import NDArray

from convergent import ConvergentError
from convergent.config.default_layers import default_layers
from convergent.config.run import Config, load
from convergent.figures.atlas.reader import Atlas
from convergent.running.origin import HISTORY, parse_history
from convergent.running.stores import Store, UnknownNameError, open_store
from convergent.runs.plots import Plots

OTHER_WAY = {"ab": "ba", "ba": "ab"}


class NotARunError(ConvergentError, FileNotFoundError):
    """A folder that no run has written; the message says what would be one."""


class NotMadeError(ConvergentError, FileNotFoundError):
    """A result that the run has not made; the message names the target that makes it."""


@dataclass(frozen=True)
class Unit:
    """One unit and the images that excite it most.

    Attributes
    ----------
    net, layer : str
    number : int
    mean, std : float
        Of its activation over all samples.
    dead : bool
        True if its activation never varies.
    strongest : DataFrame of image, value, y, x
        The nine images that excite it most, and where.
    patches : ndarray of shape (9, height, width, channel), uint8, or None
        What the unit sees of them. None if it has no pictures in this run.
    deconvolutions : ndarray of the same shape, uint8, or None
        What in the patches excites it. None where a deconvolution has no meaning.
    """

    net: str
    layer: str
    number: int
    mean: float
    std: float
    dead: bool
    strongest: pd.DataFrame
    patches: NDArray | None
    deconvolutions: NDArray | None


class Run:
    """A run in its folder; files are read when they are asked for.

    Both orders of a pair mean the same: rows belong to the net that is named first.

    Parameters
    ----------
    folder : path
        Folder of the run, such as ``results/digits``.

    Raises
    ------
    NotARunError
        If no run has written there.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).expanduser().absolute()
        self.configuration = _configuration(self.folder)

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.configuration.run

    @property
    def nets(self) -> list[str]:
        """Nets, in the order of the configuration."""
        return list(self.configuration.nodes)

    @property
    def layers(self) -> list[str]:
        """Layers of all nets, in order."""
        return self.configuration.layer_names

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Pairs of nets that the run compares."""
        return list(self.configuration.compared.values())

    @property
    def accuracy(self) -> pd.DataFrame:
        """Losses and accuracies on the validation images, one row for each net."""
        return self.table("accuracy").set_index("net")

    @cached_property
    def plot(self) -> Plots:
        """Figures by name: ``run.plot.fig3("net1", "net2")``."""
        return Plots(self)

    @property
    def atlas(self) -> Atlas:
        """Data of the run's atlas."""
        self.path("atlas/data/run.json")  # which must be there
        return Atlas(self.folder / "atlas")

    @property
    def tables(self) -> list[str]:
        """Names of the tables over all nets or pairs that are made."""
        return sorted(path.stem for path in (self.folder / "tables").glob("*.csv"))

    def table(self, name: str) -> pd.DataFrame:
        """Read a table over all nets or pairs, such as ``similarity``."""
        return pd.read_csv(self.path(f"tables/{name}.csv"))

    def correlation(self, a: str, b: str, layer: str) -> pd.DataFrame:
        """Read the correlations of the units of two nets, or within one net if both are the same.

        Returns
        -------
        DataFrame of shape (unit of a, unit of b)
        """
        return self.matrix(a, b, layer, "correlation")

    def mutual_information(self, a: str, b: str, layer: str) -> pd.DataFrame:
        """Read the mutual information of the units of two nets in nats, as :meth:`correlation`."""
        return self.matrix(a, b, layer, "mutual_information")

    def matrix(self, a: str, b: str, layer: str, measure: str) -> pd.DataFrame:
        """Read the values of any measure of units, as :meth:`correlation`."""
        if a == b:
            self.check_layer(layer, a)
            within = f"nets/{a}/{measure}.zarr"
            store = self.store(f"statistics/{a}.zarr" if measure == "correlation" else within)
            return _labelled(store[f"{layer}/{measure}"][...], a, b)
        first, second, swapped = self.ordered(a, b)
        self.check_layer(layer, a, b)
        store = self.store(f"pairs/{first}-{second}/{measure}.zarr")
        values = _labelled(store[f"{layer}/{measure}"][...], first, second)
        return values.T if swapped else values

    def matches(
        self, a: str, b: str, layer: str, method: str = "semi", measure: str = "correlation"
    ) -> pd.DataFrame:
        """Read the partners that the units of one net have in another (section 3 of the paper).

        Parameters
        ----------
        a, b : str
            The net whose units are matched, and the net of their partners.
        layer : str
        method : {"semi", "matching"}
            Semi-matching, where units may share a partner, or one-to-one matching.
        measure : str
            Measure of units that was matched on.

        Returns
        -------
        DataFrame of partner and value
            By unit of `a`. Units without a partner, dead ones among them, have no row.
        """
        first, second, swapped = self.ordered(a, b)
        self.check_layer(layer, a, b)
        rows = pd.read_csv(self.path(f"pairs/{first}-{second}/matching.csv"))
        self.choose("method", method, rows["method"].unique())
        self.choose("measure", measure, rows["measure"].unique())
        rows = rows[(rows["method"] == method) & (rows["measure"] == measure)]
        rows = rows[rows["layer"] == layer]
        if method == "matching" and swapped:
            # One to one, it is stored in one direction.
            rows = rows.rename(columns={"unit": "partner", "partner": "unit"}).sort_values("unit")
        else:
            rows = rows[rows["direction"] == ("ba" if swapped else "ab")]
        return rows.set_index("unit")[["partner", "value"]]

    def significance(self, a: str | None = None, b: str | None = None) -> pd.DataFrame:
        """Read statistics of matched units with their intervals and chance levels.

        Of all pairs if no nets are named. Direction ``ab`` is from `a` to `b`.
        """
        return self._of_pair("significance", a, b)

    def similarity(self, a: str | None = None, b: str | None = None) -> pd.DataFrame:
        """Read similarities of whole layers by each measure, as :meth:`significance`."""
        return self._of_pair("similarity", a, b)

    def sparse_map(
        self, a: str, b: str, layer: str, penalty: float | None = None
    ) -> tuple[pd.DataFrame, float]:
        """Read the sparse map that predicts the units of `b` from those of `a` (section 4).

        Parameters
        ----------
        a, b, layer : str
        penalty : float, optional
            Decay times the number of predicted units, to which the map's is the nearest that was
            fitted; by default the run's own, at which its figures are.

        Returns
        -------
        weights : DataFrame of shape (unit of b, unit of a)
        decay : float
        """
        from convergent.alignment.sparse_maps import map_at_penalty

        first, second, swapped = self.ordered(a, b)
        self.check_layer(layer, a, b)
        group = self.store(f"pairs/{first}-{second}/mapping.zarr")[layer]
        chosen = self.configuration.mapping.penalty if penalty is None else penalty
        fitted = map_at_penalty(group["ba" if swapped else "ab"], chosen)
        return _labelled(fitted.weights, b, a), fitted.decay

    def clusters(self, a: str, b: str, layer: str) -> pd.DataFrame:
        """Read the spectral cluster, leaf and path in the tree of each unit (section S.3)."""
        first, second, _ = self.ordered(a, b)
        self.check_layer(layer, a, b)
        path = self.path(f"pairs/{first}-{second}/clusters.csv")
        rows = pd.read_csv(path, dtype={"path": str})
        return rows[rows["layer"] == layer].set_index(["net", "unit"]).drop(columns="layer")

    def unit(self, net: str, layer: str, number: int) -> Unit:
        """Read one unit with its pictures."""
        self.check_layer(layer, net)
        values = self.store(f"statistics/{net}.zarr")[layer]
        count = values["mean"].shape[0]
        if not 0 <= number < count:
            raise UnknownNameError(
                f"{layer} of {net} has no unit {number}; it has units 0 to {count - 1}"
            )
        pictures = self.store(f"units/{net}.zarr")[layer]
        shown = "pictured" in pictures and bool(pictures["pictured"][number])
        columns = {name: pictures[name][number] for name in ("image", "value", "y", "x")}
        return Unit(
            net=net,
            layer=layer,
            number=number,
            mean=float(values["mean"][number]),
            std=float(values["std"][number]),
            dead=bool(values["dead"][number]),
            strongest=pd.DataFrame(columns),
            patches=pictures["patches"][number] if shown else None,
            deconvolutions=pictures["deconv"][number] if shown and "deconv" in pictures else None,
        )

    def path(self, file: str) -> Path:
        """Return the path of a file of the run, which must be there.

        Raises
        ------
        NotMadeError
            If it is not; the message has the command that makes it.
        """
        path = self.folder / file
        if not path.exists():
            raise NotMadeError(
                f"{path}: not made yet. Where the workflow ran, and with its options, make it by\n"
                f"  snakemake --cores all {self.configuration.folder}/{file}"
            )
        return path

    def store(self, file: str) -> Store:
        """Open a store of the run."""
        return open_store(self.path(file))

    def ordered(self, a: str, b: str) -> tuple[str, str, bool]:
        """Return two nets in the order of the configuration, and whether that swaps them."""
        for net in (a, b):
            self.choose("net", net, self.nets)
        if a == b:
            raise UnknownNameError(f"{a}-{b}: a pair is of two nets of {', '.join(self.nets)}")
        swapped = self.nets.index(a) > self.nets.index(b)
        first, second = (b, a) if swapped else (a, b)
        if (first, second) not in self.pairs and not (
            self.folder / f"pairs/{first}-{second}"
        ).is_dir():
            pairs = ", ".join("-".join(pair) for pair in self.pairs)
            raise UnknownNameError(f"{self.name} does not compare {a} with {b}, only {pairs}")
        return first, second, swapped

    def check_layer(self, layer: str, *nets: str) -> None:
        """Raise an error unless all of these nets have a layer."""
        for net in nets:
            self.choose("net", net, self.nets)
        self.choose("layer", layer, self.configuration.layers_of(*nets))

    def choose(self, kind: str, name: str, names: Iterable[str]) -> None:
        """Raise an error unless a name is one of `names`; it has the nearest of them."""
        there = list(names)
        if name in there:
            return
        near = difflib.get_close_matches(str(name), there, 1)
        raise UnknownNameError(
            f"{self.name} has no {kind} {name!r} here; there are {', '.join(there) or 'none'}"
            + (f". Did you mean {near[0]}?" if near else "")
        )

    def _of_pair(self, name: str, a: str | None, b: str | None) -> pd.DataFrame:
        """Read a table of a pair, its directions as the pair is named, or of all pairs."""
        if a is None and b is None:
            return self.table(name)
        if a is None or b is None:
            raise TypeError(f"{name} takes two nets, or none for all pairs")
        first, second, swapped = self.ordered(a, b)
        rows = pd.read_csv(self.path(f"pairs/{first}-{second}/{name}.csv"))
        if swapped:
            rows["direction"] = rows["direction"].replace(OTHER_WAY)
            if "layer_a" in rows:
                rows[["layer_a", "layer_b"]] = rows[["layer_b", "layer_a"]].to_numpy()
        return rows

    def __repr__(self) -> str:
        nets, layers = ", ".join(self.nets), ", ".join(self.layers)
        return f"<run {self.name} of {nets}; layers {layers}; {len(self.pairs)} pairs>"


def _configuration(folder: Path) -> Config:
    """Read the configuration with which a run last went on, from its record of jobs."""
    history = folder / HISTORY
    if not history.is_file():
        runs = sorted(path.parent.name for path in folder.glob(f"*/{HISTORY}"))
        raise NotARunError(
            f"{folder}: no run is here, as there is no {HISTORY}; name the folder of a run, "
            f"such as {folder / runs[0] if runs else 'results/digits'}"
        )
    found, written = None, {}
    for record in parse_history(history.read_text(encoding="utf-8")):
        if "hash" in record:
            written[record["hash"]] = record["configuration"]
        else:
            # A job names the one that it ran with.
            found = written.get(record.get("configuration"), found)
    if found is None:
        raise NotARunError(f"{history}: no configuration in it; run the workflow again")
    return load(found, default_layers)


def _labelled(values: NDArray, rows: str, columns: str) -> pd.DataFrame:
    """Label a matrix with the units of two nets."""
    index, header = (pd.RangeIndex(length) for length in values.shape)
    return pd.DataFrame(values, index.rename(rows), header.rename(columns))
