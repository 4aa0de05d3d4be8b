"""Figures of a run, drawn for a caller who has a style and a backend of their own."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from convergent.figures.catalogue import FIGURES, TABLES
from convergent.figures.entries import Shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convergent.runs.reading import Run

# Functions that draw tables.
OF_TABLES = {name: row.draw for name, row in TABLES.items() if row.draw}


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
        return [*FIGURES, *OF_TABLES]

    def __getattr__(self, name: str) -> Callable[..., Figure]:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in FIGURES:
            return partial(self._draw_pair if FIGURES[name].of_pair else self._draw, name)
        if name in OF_TABLES:
            return lambda: draw(OF_TABLES[name], self._run.table(name))
        near = difflib.get_close_matches(name, dir(self), 1)
        raise AttributeError(
            f"there is no figure {name!r}; there are {', '.join(dir(self))}"
            + (f". Did you mean {near[0]}?" if near else "")
        )

    def _draw_pair(
        self, name: str, a: str | None = None, b: str | None = None, *layers: str, **changed: Any
    ) -> Figure:
        row, run = FIGURES[name], self._run
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
        return self._draw(name, a, b, **changed)

    def _draw(self, name: str, *nets: str, **changed: Any) -> Figure:
        row, shown = FIGURES[name], Shown(self._run.configuration, nets)
        files = {key: row.file(key, shown) for key in row.inputs}
        paths: dict[str, Path | list[Path]] = {
            key: self._run.path(file) if isinstance(file, str) else [*map(self._run.path, file)]
            for key, file in files.items()
        }
        asked = {key: row.argument(key, shown) for key in row.params} | changed
        if row.of_pair:
            asked["nets"] = [*nets]
        return draw(row.draw, **paths, **asked)


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
