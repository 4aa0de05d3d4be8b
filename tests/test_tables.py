"""Tables add up what is planted, beside the paper's numbers."""

import numpy as np
import pandas as pd
import pytest

from convergent.figures import tables
from convergent.measures.matching import match_table


def test_unmatched_is_the_share_below_one_half():
    similarity = np.array([[0.9, 0.1], [0.49, 0.3], [0.2, 0.5], [0.0, 0.0]])
    layers = [match_table(similarity, layer, "correlation") for layer in ("fc6", "conv4")]
    matches = {"a-b": pd.concat(layers)}
    silent = np.array([False, False, False, True])
    live, all_dead = np.zeros(2, bool), np.ones(3, bool)
    dead = {
        "a": {"conv4": silent, "fc6": silent, "fc7": all_dead},
        "b": {"conv4": live, "fc6": live, "fc7": np.zeros(3, bool)},
    }
    table = tables.unmatched(matches, dead, {"a-b": ("a", "b")}).set_index(["layer", "direction"])
    assert list(table.columns) == ["pair", "units", "dead", "unmatched", "paper"]
    assert [layer for layer, _ in table.index] == ["fc6"] * 2 + ["conv4"] * 2 + ["fc7"] * 2
    # The dead unit is not counted.
    assert table.loc[("conv4", "ab"), "unmatched"] == pytest.approx(1 / 3)
    assert table.loc[("conv4", "ab"), "units"] == 4
    assert table.loc[("conv4", "ab"), "dead"] == 1
    assert table.loc[("conv4", "ba"), "unmatched"] == 0
    assert table.loc[("conv4", "ba"), "dead"] == 0
    assert table.loc[("conv4", "ab"), "paper"] == 0.92
    assert np.isnan(table.loc[("fc6", "ab"), "paper"])
    assert np.isnan(table.loc[("fc7", "ab"), "unmatched"])
    assert table.loc[("fc7", "ba"), "unmatched"] == 1


def test_a_pair_has_the_layers_that_both_nets_have():
    similarity = np.full((2, 3), 0.7)
    one, two = np.zeros(2, bool), np.zeros(3, bool)
    dead = {
        "a": {"conv1": one, "conv2": one, "fc6": one},
        "b": {"conv1": two, "fc6": two},
        "c": {"conv1": two, "conv2": two, "fc6": np.ones(3, bool)},
    }
    matches = {
        "a-b": pd.concat(match_table(similarity, k, "correlation") for k in ("conv1", "fc6")),
        "a-c": pd.concat(
            match_table(similarity * (k != "fc6"), k, "correlation") for k in ("conv1", "conv2")
        ),
    }
    pairs = {"a-b": ("a", "b"), "a-c": ("a", "c")}
    groups = {"a": "x", "b": "y"}
    table = tables.unmatched(matches, dead, pairs, groups=groups)
    assert list(zip(table["layer"], table["pair"], table["units"], strict=True)) == [
        ("conv1", "a-b", 2), ("conv1", "a-b", 3), ("conv1", "a-c", 2), ("conv1", "a-c", 3),
        # Between its neighbours, although the first pair lacks it.
        ("conv2", "a-c", 2), ("conv2", "a-c", 3),
        ("fc6", "a-b", 2), ("fc6", "a-b", 3), ("fc6", "a-c", 2), ("fc6", "a-c", 3),
    ]  # fmt: skip
    assert set(zip(table["pair"], table["kind"], strict=True)) == {
        ("a-b", "between x and y"),
        ("a-c", "no group"),
    }
    assert table["unmatched"].dropna().tolist() == [0] * 8 + [1]


def test_orders_of_layers_are_merged():
    orders = [["conv1", "fc6"], ["conv1", "conv2", "fc6", "fc7"], ["conv0", "conv1", "fc7"]]
    assert tables.merged_order(orders) == ["conv0", "conv1", "conv2", "fc6", "fc7"]
    assert tables.merged_order([]) == []


@pytest.mark.parametrize(
    ("pair", "kind"),
    [
        ("a-b", "within x"),
        ("a-c", "between x and y"),
        ("c-a", "between x and y"),
        ("a-d", "no group"),
    ],
)
def test_pairs_are_within_groups_or_between_them(pair, kind):
    assert tables.kind_of_pair(pair, {"a": "x", "b": "x", "c": "y"}) == kind


def test_accuracy_is_that_of_the_last_epoch_or_as_measured():
    columns = ["train_loss", "train_top1", "val_loss", "val_top1", "val_top5"]
    history = pd.DataFrame([[1, 0.1, 2, 0.2, 0.3], [0.5, 0.6, 0.7, 0.8, 0.9]], columns=columns)
    measured = {"images": [450], "loss": [0.4], "top1": [0.85], "top5": [0.99], "chance": [0.11]}
    measured = pd.DataFrame(measured | {"at_chance": [False]})
    histories, seeds = {"net1": history, "net2": history}, {"net1": 7, "net2": 8}
    table = tables.accuracy(dict.fromkeys(["net1", "net2"], measured), histories, seeds)
    assert list(table) == [
        "net", "seed", "epochs", *columns, "images", "chance", "at_chance", "paper_top1",
    ]  # fmt: skip
    assert list(table["seed"]) == [7, 8]
    assert list(table["epochs"]) == [2, 2]
    assert list(table["val_top1"]) == [0.8, 0.8]
    assert list(table["val_top5"]) == [0.9, 0.9]
    assert list(table["images"]) == [450, 450]
    assert list(table["paper_top1"]) == pytest.approx([0.5865, 0.5873])
    # With a brought net and an untrained one.
    evaluations = {"mine": measured, "net1": measured, "start": measured.assign(at_chance=True)}
    table = tables.accuracy(
        evaluations, {"net1": history}, {"net1": 7}, {"start": "control"}, {"net1": "small"}
    )
    assert list(table)[:5] == ["net", "role", "group", "seed", "epochs"]
    table = table.set_index("net")
    assert list(table["role"]) == ["subject", "subject", "control"]
    assert table.loc["mine", ["val_loss", "val_top1", "val_top5"]].tolist() == [0.4, 0.85, 0.99]
    assert table.loc["mine", ["seed", "epochs", "train_loss", "paper_top1"]].isna().all()
    assert table.loc["net1", ["epochs", "val_loss", "group"]].tolist() == [2, 0.7, "small"]
    assert table.loc["net1", "paper_top1"] == pytest.approx(0.5865)
    assert list(table["at_chance"]) == [False, False, True]
    assert table.to_csv().splitlines()[2].startswith("net1,subject,small,7,2,0.5,")


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
        matrices = {
            "correlation": {"conv1": correlation},
            "mutual_information": {"conv1": information},
        }
        row = tables.measure_agreement(matches, matrices, "a-b").iloc[0]
        assert (row["units"], row["tenth"], row["paper_top8"], row["pair"]) == (30, 3, 7, "a-b")
        assert (row["top8"] == 8) == agrees
        assert (row["same_partner_semi"] == 1) == agrees
        assert (row["spearman"] > 0.999) == agrees
        assert row["spearman_absolute"] < 0.2


def test_agreement_is_over_live_units(rng):
    """Dead units, 0 by both measures, would agree, and correlate."""
    live = rng.uniform(0.1, 1, size=(8, 6))
    similarity, information = np.zeros((20, 9)), np.zeros((20, 9))
    similarity[4:12, 2:8], information[4:12, 2:8] = live, rng.permuted(live)
    rows = []
    for matrices in ((live, information[4:12, 2:8]), (similarity, information)):
        named = dict(zip(("correlation", "mutual_information"), matrices, strict=True))
        matches = [match_table(matrix, "conv1", name) for name, matrix in named.items()]
        layers = {name: {"conv1": matrix} for name, matrix in named.items()}
        rows.append(tables.measure_agreement(pd.concat(matches), layers, "a-b").iloc[0])
    assert [row["units"] for row in rows] == [8, 20]
    pd.testing.assert_series_equal(rows[0].drop("units"), rows[1].drop("units"), check_names=False)


def test_agreement_of_a_dead_layer_is_empty():
    dead = np.zeros((3, 3))
    matches = [match_table(dead, "fc6", m) for m in ("correlation", "mutual_information")]
    matrices = {name: {"fc6": dead} for name in ("correlation", "mutual_information")}
    row = tables.measure_agreement(pd.concat(matches), matrices, "a-b").iloc[0]
    assert (row["units"], row["top8"], row["top_tenth"]) == (3, 0, 0)
    assert row[["same_partner_semi", "same_partner_matching", "spearman"]].isna().all()
