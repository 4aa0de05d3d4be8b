"""Figures of units show the right units' pictures in the right places."""

import numpy as np
import pandas as pd
import pytest
from legible import illegible

from convergent.figures import units as figures

NETS = ["net1", "net2"]


class Tiles:
    """Pictures that remember who asked for them: the colour is the unit."""

    def __init__(self):
        self.asked = []

    def __call__(self, net, layer, unit, kind):
        self.asked.append((net, layer, int(unit), kind))
        return np.full((5, 5, 1), unit, np.uint8)


def placed(figure):
    """Value of each picture by the whole tile that it is placed in."""
    found = {}
    for image in figure.axes[0].images:
        left, _, _, top = image.get_extent()
        found[round(left, 2), round(top, 2)] = int(np.asarray(image.get_array())[0, 0, 0])
    return found


@pytest.fixture
def ranking():
    values = np.linspace(0.99, 0.1, 20)
    return pd.DataFrame({"unit": range(20), "partner": range(100, 120), "value": values})


def test_best_units_stand_left_and_worst_right_above_their_partners(ranking):
    tiles = Tiles()
    units = {"conv1": 20, "fc6": 20}
    figure = figures.matched_features(
        {"conv1": ranking, "fc6": ranking}, units, tiles, NETS, "correlation"
    )
    assert not illegible(figure)
    assert len(figure.axes[0].images) == 2 * 12 * 4
    units = [*range(6), *range(14, 20)]
    expected = {
        (net, layer, unit + 100 * (net == "net2"), kind)
        for net in NETS
        for layer in ("conv1", "fc6")
        for unit in units
        for kind in ("patches", "deconv")
    }
    assert set(tiles.asked) == expected
    at = placed(figure)
    columns = sorted({x for x, _ in at})
    rows = sorted({y for _, y in at})
    assert [at[x, rows[0]] for x in columns] == units
    assert [at[x, rows[1]] for x in columns] == units
    assert [at[x, rows[2]] for x in columns] == [u + 100 for u in units]
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert "0.99" in texts
    assert "0.10" in texts
    assert "conv1" in texts
    assert "by correlation" in figure.get_suptitle().replace("\n", " ")


def test_dead_units_are_counted(ranking):
    tiles = Tiles()
    rankings = {"conv1": ranking.head(17), "fc6": ranking.head(1)}
    figure = figures.matched_features(rankings, {"conv1": 20, "fc6": 1}, tiles, NETS, "r")
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert "conv1\n(3 dead in net1)" in texts
    assert "fc6" in texts
    # The one unit of fc6 is its best and its worst.
    assert len(figure.axes[0].images) == 12 * 4 + 2 * 4


def test_few_units_are_shown_once(ranking):
    figure = figures.matched_features({"conv1": ranking.head(5)}, {"conv1": 5}, Tiles(), NETS, "r")
    assert len(figure.axes[0].images) == 4 * 4
    figure = figures.matched_features({"conv1": ranking.head(0)}, {"conv1": 5}, Tiles(), NETS, "r")
    assert not figure.axes[0].images


def test_active_units_are_sorted_by_their_means_and_dead_ones_left_out():
    means = {
        "net1": np.array([0.5, 0, 3, 1, 0.1, 2]),
        "net2": np.array([9, 8, 7, 6, 5, 0.001]),
    }
    tiles = Tiles()
    figure = figures.active_units(means, "conv2", tiles)
    assert not illegible(figure)
    at = placed(figure)
    rows = sorted({y for _, y in at})
    columns = sorted({x for x, _ in at})
    assert [at[x, rows[0]] for x in columns] == [2, 5, 0, 4]
    assert [at[x, rows[2]] for x in columns] == [0, 1, 4, 5]
    assert ("net1", "conv2", 1, "patches") not in tiles.asked
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert {"3", "0.001", "2"} <= set(texts)
