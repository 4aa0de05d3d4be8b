"""Identification finds the layers whose namesake is the most alike, in either net."""

import chance_tables
import numpy as np
import pandas as pd
import pytest
from legible import illegible
from scipy.stats import beta

from convergent.figures.identification import draw_identification, shares_by_measure
from convergent.inference.identification import identification, identification_table

NETS = ["net1", "net2"]


def table(values, rows, columns, measure="cka", **more):
    found = [
        {"layer_a": a, "layer_b": b, "measure": measure, "direction": "", "value": values[i, j]}
        for i, a in enumerate(rows)
        for j, b in enumerate(columns)
    ]
    return pd.DataFrame(found).assign(n_images=450, **more)


def test_rows_and_columns_are_looked_up_by_themselves():
    # Layer z of net1 is most like y of net2; each layer of net2 is most like its own.
    values = np.array([[0.9, 0.1, 0.1], [0.2, 0.8, 0.1], [0.3, 0.7, 0.5]])
    found = identification(table(values, "xyz", "xyz"), ["xyz", "xyz"], NETS).set_index("net")
    assert found["right"].tolist() == [2, 3]
    assert found["n_layers"].tolist() == [3, 3]
    np.testing.assert_allclose(found["chance"], 1 / 3)
    # Clopper and Pearson by quantiles of the beta distribution.
    np.testing.assert_allclose(
        found.loc["net1", ["low", "high"]].astype(float),
        [beta.ppf(0.025, 2, 2), beta.ppf(0.975, 3, 1)],
    )
    assert found.loc["net2", "p"] == pytest.approx(1 / 27)


def test_a_tie_identifies_nothing():
    found = identification(table(np.ones((4, 4)), "wxyz", "wxyz"), ["wxyz"] * 2, NETS)
    assert (found["right"] == 0).all()
    assert (found["p"] == 1).all()


def test_of_a_distance_the_least_is_the_most_alike(monkeypatch):
    values = np.array([[0.1, 0.5], [0.6, 0.2]])
    from dataclasses import replace

    from convergent.inference import identification as module
    from convergent.measures.registry import measure

    distance = replace(measure("cka"), higher_is_more_alike=False)
    monkeypatch.setattr(module, "registered", lambda name: distance)
    found = identification(table(values, "ab", "ab"), ["ab", "ab"], NETS)
    assert found["right"].tolist() == [2, 2]


def test_only_layers_of_one_name_are_looked_up_among_all_of_the_other_net():
    values = np.array([[0.9, 0.1, 0.95, 0], [0.1, 0.9, 0.2, 0]])
    found = identification(table(values, "xy", "xyzw"), ["xy", "xyzw"], NETS).set_index("net")
    assert found["n_layers"].tolist() == [2, 2]
    assert found["right"].tolist() == [1, 2]
    np.testing.assert_allclose(found["chance"], [1 / 4, 1 / 2])


def test_layers_without_a_value_are_not_counted_and_a_measure_without_any_says_why():
    values = np.eye(3)
    values[1] = np.nan
    found = identification(table(values, "xyz", "xyz"), ["xyz", "xyz"], NETS)
    assert found["right"].tolist() == found["n_layers"].tolist() == [2, 2]
    # Among two candidates in net1, where one has no value.
    np.testing.assert_allclose(found["chance"], [1 / 3, 1 / 2])
    none = table(np.full((3, 3), np.nan), "xyz", "xyz", note="no samples")
    found = identification(none, ["xyz", "xyz"], NETS)
    assert found["share"].isna().all()
    assert (found["note"] == "no samples").all()
    found = identification(table(np.eye(2), "ab", "cd"), ["ab", "cd"], NETS)
    assert (found["note"] == "the nets have no layers of the same name").all()


def test_noise_identifies_as_many_as_chance_says(rng):
    right = []
    for _ in range(200):
        values = rng.normal(size=(10, 10))
        found = identification(table(values, "abcdefghij", "abcdefghij"), ["abcdefghij"] * 2, NETS)
        right.append(found["share"].iloc[0])
    # 2,000 layers: a standard error of .0067.
    assert np.mean(right) == pytest.approx(0.1, abs=4 * 0.0067)


def test_the_figure_shows_shares_of_the_table_and_its_counts(rng, tmp_path):
    layers = chance_tables.LAYERS
    drawn = chance_tables.all_layers(rng)
    drawn.loc[drawn["measure"] == "cka", ["value", "note"]] = [np.nan, "no unit varies"]
    drawn.to_csv(tmp_path / "layer_similarity.csv", index=False)
    found = identification_table(tmp_path / "layer_similarity.csv", [layers, layers], NETS)
    found.to_csv(tmp_path / "identification.csv", index=False)
    figure = draw_identification(tmp_path / "identification.csv", NETS)
    assert not illegible(figure)
    ways = chance_tables.ways()
    ax = figure.axes[0]
    assert len(ax.get_yticks()) == len(ways)
    shares = np.array([box.lines[0].get_xdata()[0] for box in ax.containers])
    np.testing.assert_allclose(shares, found["share"])
    texts = [text.get_text() for text in ax.texts]
    assert "no unit varies" in texts
    of_first = found[found["measure"] != "cka"].iloc[:2]
    counts = ", ".join(f"{right:.0f}/7" for right in of_first["right"])
    assert counts in texts
    assert "7 layers, 450 images" in figure.get_suptitle()


def test_a_figure_of_nothing_is_drawn():
    empty = identification(table(np.eye(2), "ab", "cd"), ["ab", "cd"], NETS)
    shares_by_measure(empty, NETS).draw_without_rendering()
