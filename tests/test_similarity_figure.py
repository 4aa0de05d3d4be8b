"""The figure of similarity shows values and intervals of each measure, layer by layer."""

import numpy as np
import pandas as pd

from convergent.figures.similarity import draw_similarity, similarity_by_layer
from convergent.measures.registry import measures

NAME = measures(gives="layers")[0].name


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
    ax = similarity_by_layer(table(), ["conv1", "fc6"], ["net1", "net2"]).axes[0]
    line = ax.lines[0]
    np.testing.assert_allclose(line.get_ydata(), [0.5, 0.7])
    assert [text.get_text() for text in ax.get_xticklabels()] == ["conv1", "fc6"]
    (bars,) = [c for c in ax.collections if hasattr(c, "get_segments")]
    ends = np.array(bars.get_segments())[:, :, 1]
    np.testing.assert_allclose(ends, [[0.4, 0.7], [0.6, 0.9]])
    assert "450 images" in ax.get_title()


def test_directions_are_told_apart_and_a_missing_interval_is_no_interval(tmp_path):
    file = tmp_path / "similarity.csv"
    table(("ab", "ba"), interval=False).to_csv(file, index=False)
    ax = draw_similarity(file, ["net1", "net2"], ["conv1", "fc6"]).axes[0]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert [label.rpartition(", ")[2] for label in labels] == ["net1 to net2", "net2 to net1"]
    (bars, _) = [c for c in ax.collections if hasattr(c, "get_segments")]
    assert not any(np.isfinite(segment).all() and len(segment) for segment in bars.get_segments())
