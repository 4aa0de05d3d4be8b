"""The figure of similarity shows values, intervals and chance of each measure, layer by layer."""

import io

import chance_tables
import numpy as np
import pandas as pd
import pytest
from chance_tables import LAYERS, NULLS, TRAINED
from legible import illegible
from matplotlib.text import Text

from convergent.figures.similarity import draw_similarity, similarity_by_layer
from convergent.figures.style import CHANCE
from convergent.measures.registry import measures

NAME = measures(gives="layers")[0].name
NETS = ["net1", "net2"]


def table(directions=("",), interval=True):
    rows = [
        {"layer_a": layer, "layer_b": layer, "measure": NAME, "direction": direction,
         "value": value, "n_images": 450,
         "low": value - 0.1 if interval else "", "high": value + 0.2 if interval else ""}
        for direction in directions
        for layer, value in [("fc6", 0.7), ("conv1", 0.5)]
    ]  # fmt: skip
    # Another layer of the other net is not shown.
    return pd.DataFrame([*rows, rows[0] | {"layer_b": "conv1", "value": 0.1}])


def test_values_and_intervals_stand_at_their_layers():
    figure = similarity_by_layer(table(), ["conv1", "fc6"], NETS)
    ax = figure.axes[0]
    line = ax.lines[0]
    np.testing.assert_allclose(line.get_ydata(), [0.5, 0.7])
    assert [text.get_text() for text in ax.get_xticklabels()] == ["conv1", "fc6"]
    (bars,) = [c for c in ax.collections if hasattr(c, "get_segments")]
    ends = np.array(bars.get_segments())[:, :, 1]
    np.testing.assert_allclose(ends, [[0.4, 0.7], [0.6, 0.9]])
    assert "450 images" in figure.get_suptitle()


def test_every_measure_of_every_kind_of_unit_has_a_panel_with_its_chance(tmp_path):
    shown = chance_tables.similarity()
    shown.to_csv(tmp_path / "similarity.csv", index=False)
    figure = draw_similarity(tmp_path / "similarity.csv", NETS, LAYERS)
    assert not illegible(figure)
    panels = [ax for ax in figure.axes if ax.get_title()]
    keys = list(dict.fromkeys((m.name, parameter) for m, parameter, _ in chance_tables.ways()))
    assert len(panels) == len(keys)
    for ax, (name, parameter) in zip(panels, keys, strict=True):
        rows = shown[(shown["measure"] == name) & (shown["parameter"] == parameter)]
        rows = rows[rows["direction"] != "ba"]
        drawn = {line.get_label(): line.get_ydata() for line in ax.lines}
        for null in NULLS:
            expected = rows[f"null_{null}"].to_numpy(float)
            assert np.isfinite(expected).any() == (f"chance: {CHANCE[null].label}" in drawn)
            if np.isfinite(expected).any():
                np.testing.assert_allclose(drawn[f"chance: {CHANCE[null].label}"], expected)
        value = drawn.get("value", drawn.get("net1 to net2"))
        np.testing.assert_allclose(value, rows["value"].to_numpy(float))
        assert ("held out" in drawn) == rows["held_out"].notna().any()


def test_a_layer_without_a_value_has_a_cross_and_its_reason():
    figure = similarity_by_layer(chance_tables.similarity(undefined=("cka", "fc6")), LAYERS, NETS)
    (ax,) = [ax for ax in figure.axes if ax.get_title().startswith("linear CKA")]
    assert "x: there are fewer images than" in ax.get_title().replace("\n", " ")
    (cross,) = [line for line in ax.lines if line.get_label() == "no value"]
    assert list(cross.get_xdata()) == [LAYERS.index("fc6")]
    expected = np.where(np.array(LAYERS) == "fc6", np.nan, TRAINED)
    (value,) = [line for line in ax.lines if line.get_label() == "value"]
    np.testing.assert_allclose(value.get_ydata(), expected)


@pytest.mark.parametrize("directions", [("",), ("ab", "ba")])
def test_long_names_stay_within_the_figure_and_can_be_read(directions):
    nets = ["a_resnet_with_a_long_name", "another_net_with_a_long_name"]
    layers = [f"encoder.layers.encoder_layer_{number}" for number in range(12)]
    rows = table(directions).query("layer_a == 'fc6' and layer_b == 'fc6'")
    parts = [rows.assign(layer_a=layer, layer_b=layer) for layer in layers]
    rows = pd.concat(parts, ignore_index=True)
    more = [rows.assign(measure=m.name) for m in measures(gives="layers")]
    figure = similarity_by_layer(pd.concat(more, ignore_index=True), layers, nets)
    figure.savefig(io.BytesIO())  # lays it out
    assert figure.get_size_inches()[0] == 6.5
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    assert sum(text.get_text() in layers for text in texts) >= len(layers)
    for text in texts:
        box = text.get_window_extent()
        assert -1 <= box.x0 < box.x1 <= figure.bbox.width + 1, text
        assert -1 <= box.y0 < box.y1 <= figure.bbox.height + 1, text
        assert text.get_fontsize() >= 7, text


def test_directions_are_told_apart_and_a_missing_interval_is_no_interval(tmp_path):
    file = tmp_path / "similarity.csv"
    table(("ab", "ba"), interval=False).to_csv(file, index=False)
    figure = draw_similarity(file, NETS, ["conv1", "fc6"])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["net1 to net2", "net2 to net1"]
    (bars, _) = [c for c in figure.axes[0].collections if hasattr(c, "get_segments")]
    assert not any(np.isfinite(segment).all() and len(segment) for segment in bars.get_segments())


def test_pairs_of_other_layers_are_drawn_where_no_layer_is_compared_with_its_like():
    pairs = table(interval=False).assign(layer_b=["conv4", "fc7", "conv5"])
    figure = similarity_by_layer(pairs, ["conv1", "fc6"], NETS)
    ax = figure.axes[0]
    shown = ["fc6, conv4", "conv1, fc7", "fc6, conv5"]
    assert [text.get_text() for text in ax.get_xticklabels()] == shown
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.7, 0.5, 0.1])
    assert "pairs of layers" in figure.get_suptitle()
