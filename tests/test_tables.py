"""Tables add up what is planted, beside the paper's numbers."""

import numpy as np
import pandas as pd
import pytest

from convergent import tables
from convergent.matching import match_table


def test_unmatched_is_the_share_below_one_half():
    similarity = np.array([[0.9, 0.1], [0.49, 0.3], [0.2, 0.5], [0.0, 0.0]])
    layers = [match_table(similarity, layer, "correlation") for layer in ("fc6", "conv4")]
    matches = {"a-b": pd.concat(layers)}
    dead = {"a": {"conv4": 1, "fc6": 0}, "b": {"conv4": 0, "fc6": 0}}
    table = tables.unmatched(matches, dead).set_index(["layer", "direction"])
    assert list(table.columns) == ["pair", "units", "dead", "unmatched", "paper"]
    assert table.loc[("conv4", "ab"), "unmatched"] == 0.5
    assert table.loc[("conv4", "ab"), "units"] == 4
    assert table.loc[("conv4", "ab"), "dead"] == 1
    assert table.loc[("conv4", "ba"), "unmatched"] == 0
    assert table.loc[("conv4", "ba"), "dead"] == 0
    assert table.loc[("conv4", "ab"), "paper"] == 0.92
    assert np.isnan(table.loc[("fc6", "ab"), "paper"])


def test_accuracy_is_that_of_the_last_epoch():
    columns = ["train_loss", "train_top1", "val_loss", "val_top1"]
    history = pd.DataFrame([[1, 0.1, 2, 0.2], [0.5, 0.6, 0.7, 0.8]], columns=columns)
    table = tables.accuracy({"net1": history, "net2": history}, {"net1": 7, "net2": 8})
    assert list(table["seed"]) == [7, 8]
    assert list(table["epochs"]) == [2, 2]
    assert list(table["val_top1"]) == [0.8, 0.8]
    assert list(table["paper_top1"]) == pytest.approx([0.5865, 0.5873])
