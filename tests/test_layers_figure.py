"""The figure of layers shows each value in its cell, and the most similar layer of each row."""

import io
import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from legible import illegible
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from convergent.figures.layers import draw_layers, matrices_of_layers
from convergent.figures.style import PAGE
from convergent.measures.registry import measure, measures

NETS = ["net1", "net2"]
WAYS = [("cka", ""), ("semi_mean", "ab"), ("semi_mean", "ba"), ("matching_mean", "")]


def table(values, rows, columns, grid="equal"):
    """Values of each way are those of the matrix plus a tenth of its number, in another order."""
    found = [
        {"layer_a": a, "layer_b": b, "measure": measure, "direction": direction, "grid": grid,
         "value": values[i, j] + way / 10, "n_images": 450}
        for i, a in enumerate(rows)
        for j, b in enumerate(columns)
        for way, (measure, direction) in enumerate(WAYS)
    ]  # fmt: skip
    return pd.DataFrame(found).sort_values("layer_b", kind="stable")


def panels(figure):
    return [ax for ax in figure.axes if ax.get_title()]


@pytest.mark.parametrize("shape", [(7, 7), (6, 18), (18, 6), (1, 1)])
def test_values_and_the_best_of_each_row_stand_in_their_cells(rng, shape, tmp_path):
    values = rng.uniform(-0.2, 0.6, size=shape)
    rows, columns = ([f"layer{side}.{i}" for i in range(n)] for side, n in enumerate(shape))
    file = tmp_path / "layer_similarity.csv"
    table(values, rows, columns).to_csv(file, index=False)
    figure = draw_layers(file, NETS, [rows, columns])
    assert not illegible(figure)
    assert (figure.get_size_inches() <= np.array(PAGE) + 1e-6).all()
    assert len(panels(figure)) == len(WAYS)
    for way, ax in enumerate(panels(figure)):
        [image] = ax.get_images()
        np.testing.assert_allclose(image.get_array(), values + way / 10)
        # The outer panels name the layers.
        place = ax.get_subplotspec()
        for axis, side, outer in (
            (ax.yaxis, rows, place.is_first_col()),
            (ax.xaxis, columns, place.is_last_row()),
        ):
            names = [text.get_text() for text in axis.get_ticklabels()]
            assert names == (side if outer else [""] * len(side))
        written = {text.get_position(): text.get_text() for text in ax.texts}
        assert len(written) == values.size
        for (row, column), value in np.ndenumerate(values + way / 10):
            assert float(written[column, row]) == pytest.approx(value, abs=0.0051)
        frames = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
        best = [int(patch.get_x() + 0.5) for patch in sorted(frames, key=lambda p: p.get_y())]
        assert best == values.argmax(axis=1).tolist()
        # Equal depth in proportion: from the first layers of both nets to the last.
        np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0, 0], np.array(shape[::-1]) - 1])
    assert "net2 to net1" in panels(figure)[2].get_title()


def test_many_layers_have_dots_and_as_many_names_as_can_be_read(rng):
    names = [f"block{i}" for i in range(60)]
    values = rng.uniform(size=(60, 60))
    figure = matrices_of_layers(table(values, names, names), [names, names], NETS)
    for ax in panels(figure):
        assert not ax.texts
        dots = [line.get_xydata()[0] for line in ax.lines[1:]]
        np.testing.assert_array_equal(dots, np.stack([values.argmax(axis=1), np.arange(60)], 1))
        height = ax.get_window_extent().height
        assert height / len(ax.get_yticks()) > 6 / 72 * figure.dpi


def test_it_says_how_many_pairs_are_compared_on_other_maps():
    values = np.eye(3)
    found = table(values, "abc", "xyz")
    found.loc[found["layer_a"] != "a", "grid"] = "pooled 4x4"
    found.loc[found["layer_a"] == "c", "grid"] = "mean"
    title = matrices_of_layers(found, ["abc", "xyz"], NETS).get_suptitle()
    assert title.replace("\n", " ") == (
        "net1 and net2, 450 images; 3 pairs on maps pooled to the smaller; 3 pairs by the mean of "
        "each map"
    )


def test_pairs_without_a_value_stay_empty():
    found = table(np.eye(3), "abc", "xyz")
    found = found[found["layer_a"] != "b"]
    ax = panels(matrices_of_layers(found, ["abc", "xyz"], NETS))[0]
    assert len(ax.texts) == 6
    assert len(ax.patches) == 2


def test_panels_of_few_layers_share_a_row(rng):
    names = ["stage1", "stage2", "stage3"]
    figure = matrices_of_layers(table(rng.uniform(size=(3, 3)), names, names), [names, names], NETS)
    places = [ax.get_subplotspec().get_position(figure) for ax in panels(figure)]
    assert [len({f"{getattr(place, side):.3f}" for place in places}) for side in ("x0", "y0")] == [
        4,
        1,
    ]


@pytest.mark.parametrize("layers", [7, 19])
def test_many_measures_share_a_page_and_those_without_values_are_named(rng, layers):
    names = [f"block{i}" for i in range(layers)]
    one = table(rng.uniform(size=(layers, layers)), names, names).query("measure == 'cka'")
    # As many panels as a run has, of whatever measures there are.
    others = itertools.cycle(m.name for m in measures(gives="layers") if m.name != "cka")
    parts = [
        one.assign(measure=name, parameter="correlation", direction=str(number))
        for number, name in enumerate(itertools.islice(others, 24))
    ]
    found = pd.concat([one.assign(parameter="", value=np.nan), *parts])
    figure = matrices_of_layers(found, [names, names], NETS)
    figure.savefig(io.BytesIO())  # lays it out
    assert (figure.get_size_inches() <= np.array(PAGE) + 1e-6).all()
    assert len(panels(figure)) == len(parts)
    assert "no values of linear CKA" in figure.get_suptitle()
    for ax in panels(figure):
        assert ax.get_window_extent().width > 0.8 * figure.dpi
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text():
            box = text.get_window_extent()
            assert text.get_fontsize() >= 7
            assert -1 <= box.x0 < box.x1 <= figure.bbox.width + 1, text
            assert -1 <= box.y0 < box.y1 <= figure.bbox.height + 1, text


def test_of_a_distance_the_least_is_framed(rng, monkeypatch):
    distance = replace(measure("cka"), higher_is_more_alike=False)
    for module in ("layers", "similarity"):
        monkeypatch.setattr(f"convergent.figures.{module}.measure", lambda name: distance)
    values = rng.uniform(size=(4, 4))
    found = table(values, "abcd", "abcd").query("measure == 'cka'")
    (ax,) = panels(matrices_of_layers(found, ["abcd", "abcd"], NETS))
    frames = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    best = [int(patch.get_x() + 0.5) for patch in sorted(frames, key=lambda p: p.get_y())]
    assert best == values.argmin(axis=1).tolist()
    assert "lower is more alike" in ax.get_title().replace("\n", " ")
