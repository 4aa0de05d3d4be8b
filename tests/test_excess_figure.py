"""The figure of excess shows the statistic, its chance levels and the difference."""

import chance_tables
import numpy as np
import pytest
from chance_tables import LAYERS, NULLS, TRAINED
from legible import illegible
from matplotlib.colors import to_hex

from convergent.figures.excess import draw_excess, excess_by_layer
from convergent.figures.style import CHANCE

NETS = ["net1", "net2"]


def lines(ax):
    return {line.get_label(): line.get_ydata() for line in ax.lines}


def test_values_and_chance_levels_stand_at_their_layers(tmp_path):
    chance_tables.significance().to_csv(tmp_path / "significance.csv", index=False)
    figure = draw_excess(tmp_path / "significance.csv", NETS, LAYERS, 0.95)
    assert not illegible(figure)
    upper, _ = figure.axes
    (trained,) = upper.containers
    np.testing.assert_allclose(trained.lines[0].get_ydata(), TRAINED)
    for null, expected in NULLS.items():
        np.testing.assert_allclose(lines(upper)[f"chance: {CHANCE[null].label}"], expected)
    # Bands reach from the mean to the upper level, where there are draws.
    bands = [c.get_paths()[0].vertices for c in upper.collections if len(c.get_paths()[0]) > 7]
    assert len(bands) == 2
    assert bands[0][:, 1].max() == pytest.approx(max(NULLS["rotation"]) + 0.03)
    assert [text.get_text() for text in upper.get_xticklabels()] == LAYERS
    assert "450 images" in upper.get_title("left")


def test_excess_is_value_minus_chance_and_filled_where_it_stands_above():
    _, lower = excess_by_layer(chance_tables.significance(), LAYERS, NETS).axes
    points = {}
    for line in lower.lines:
        null = next((n for n in NULLS if to_hex(line.get_color()) == CHANCE[n].color), None)
        if null and len(line.get_xdata()):
            hollow = to_hex(line.get_markerfacecolor()) == "#ffffff"
            for x, y in line.get_xydata():
                points[null, round(x)] = y, hollow
    for null, chances in NULLS.items():
        for place, chance in enumerate(chances):
            excess, hollow = points[null, place]
            assert excess == pytest.approx(TRAINED[place] - chance)
            # The interval is .045 to either side.
            assert hollow == (excess < 0.045)


def test_nulls_that_were_not_computed_are_not_drawn():
    table = chance_tables.significance(kinds=("rotation",))
    upper, _ = excess_by_layer(table, LAYERS, NETS).subfigs
    labels = [text.get_text() for text in upper.legends[0].get_texts()]
    assert [label for label in labels if label.startswith("chance")] == ["chance: units rotated"]
    excess_by_layer(table.iloc[:0], LAYERS, NETS).draw_without_rendering()
