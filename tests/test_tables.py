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
    columns = ["train_loss", "train_top1", "val_loss", "val_top1", "val_top5"]
    history = pd.DataFrame([[1, 0.1, 2, 0.2, 0.3], [0.5, 0.6, 0.7, 0.8, 0.9]], columns=columns)
    table = tables.accuracy({"net1": history, "net2": history}, {"net1": 7, "net2": 8})
    assert list(table["seed"]) == [7, 8]
    assert list(table["epochs"]) == [2, 2]
    assert list(table["val_top1"]) == [0.8, 0.8]
    assert list(table["val_top5"]) == [0.9, 0.9]
    assert list(table["paper_top1"]) == pytest.approx([0.5865, 0.5873])


def test_agreement_counts_the_best_that_stay(rng):
    correlation = rng.uniform(-1, 1, size=(30, 30))
    # A monotone change of size: the same order, so everything agrees but for signs.
    same = np.exp(correlation)
    other = rng.uniform(size=(30, 30))
    for information, agrees in ((same, True), (other, False)):
        matches = pd.concat(
            [
                match_table(correlation, "conv1", "correlation"),
                match_table(information, "conv1", "mutual_information"),
            ]
        )
        row = tables.measure_agreement(
            matches, {"conv1": correlation}, {"conv1": information}, "a-b"
        ).iloc[0]
        assert (row["units"], row["tenth"], row["paper_top8"], row["pair"]) == (30, 3, 7, "a-b")
        assert (row["top8"] == 8) == agrees
        assert (row["same_partner_semi"] == 1) == agrees
        assert (row["spearman"] > 0.999) == agrees
        assert row["spearman_absolute"] < 0.2
