"""The paper's claims are tabulated with their exact solutions and chance levels."""

import numpy as np
import pandas as pd
import pytest

from convergent.figures.claims import (
    COLUMNS,
    gap_by_chance,
    largest_gap,
    loss_at,
    markdown,
    tabulate_claims,
)
from convergent.running.stores import new_store, save

PAIRS = {"a-b": ("a", "b"), "a-c": ("a", "c"), "b-c": ("b", "c")}
LAYERS = ["conv1", "conv2"]


def write_statistics(path, mean):
    """Statistics of a net whose third unit is dead, and whose second layer has no other units."""
    with new_store(path) as store:
        for layer, dead in zip(LAYERS, ([False, False, True], [True] * 3), strict=True):
            group = store.create_group(layer)
            save(group, "mean", np.array([mean, mean + 1, 9.0]), ("unit",))
            save(group, "dead", np.array(dead), ("unit",))


@pytest.fixture
def table(tmp_path):
    """Claims of three nets: value of each pair 0.1, 0.2 and 0.3, and others by chance."""
    significance, agreement, stability, mappings = [], [], [], []
    for layer in LAYERS:
        row = {"layer": layer, "pair": "all", "measure": "correlation", "value": 0.2}
        row |= {"low": 0.19, "high": 0.21, "low_nets": 0.1, "high_nets": 0.3, "n_nets": 3}
        row |= {"null_rotation": 0.15, "null_images": 0.05, "null_untrained": 0.4}
        row |= {"n_pairs": 3, "n_images": 450, "kind": "within x"}
        for statistic in ("semi_mean", "matching_mean", "unmatched", "best_match"):
            significance += [
                row | {"statistic": statistic},
                row | {"statistic": statistic, "kind": "between", "value": 9.0},
                row | {"statistic": statistic, "pair": "a-b", "value": 9.0},
            ]
        for number, pair in enumerate(PAIRS, 1):
            names = {"layer": layer, "pair": pair}
            agreement.append(names | {"units": 16, "top8": number})
            stability.append(names | {"leaves": 10, "of_both": number, "leaf_halves": 0.5})
        agreement.append({"layer": layer, "pair": "x-y", "units": 16, "top8": 99})
    for number, pair in enumerate(PAIRS, 1):
        rows = [
            {"layer": layer, "direction": direction, "solver": "exact", "decay": decay}
            | {"loss": loss * number, "nonzero_per_unit": weights}
            for layer in LAYERS
            for direction in ("ab", "ba")
            for decay, loss, weights in ((0, 0.1, 8), (0.01, 0.2, 4), (0.1, 0.3, 0))
        ]
        if pair == "a-b":
            rows.append(rows[0] | {"solver": "sgd", "loss": 0.4})
        pd.DataFrame(rows).to_csv(tmp_path / f"{pair}.csv", index=False)
        mappings.append(tmp_path / f"{pair}.csv")
    for name, rows in {
        "significance": significance, "agreement": agreement, "stability": stability,
    }.items():  # fmt: skip
        pd.DataFrame(rows).to_csv(tmp_path / f"{name}.csv", index=False)
    for net, mean in {"a": 0.0, "b": 0.1, "c": 5.0}.items():
        write_statistics(tmp_path / f"statistics/{net}.zarr", mean)
    for net in ("a", "b"):
        write_statistics(tmp_path / f"nets/{net}/untrained.zarr", 0.0)
    return tabulate_claims(
        *(tmp_path / f"{name}.csv" for name in ("significance", "agreement", "stability")),
        mappings,
        [tmp_path / f"statistics/{net}.zarr" for net in "abc"],
        [tmp_path / f"nets/{net}/untrained.zarr" for net in "ab"],
        PAIRS,
        "within x",
        seed=0,
    )


def of(table, quantity, layer="conv1"):
    rows = table[table["quantity"].str.startswith(quantity) & (table["layer"] == layer)]
    return rows.iloc[0]


def test_means_over_pairs_stand_beside_the_papers_numbers_and_chance(table):
    assert [*table] == COLUMNS
    row = of(table, "share of units without a match")
    expected = {"paper": 0.17, "method": 0.2, "low": 0.1, "high": 0.3, "rotated": 0.15}
    expected |= {"shuffled": 0.05, "untrained": 0.4, "n_images": 450, "n_nets": 3, "n_pairs": 3}
    assert row[[*expected]].to_dict() == expected
    assert of(table, "of the 8 best")[["paper", "method", "chance"]].tolist() == [7, 2, 4]
    assert of(table, "leaves of clusters")[["paper", "method"]].tolist() == [43, 10]
    assert of(table, "share of leaves")["method"] == pytest.approx(0.2)
    assert not (table["method"] > 10).any()  # nothing of other pairs


def test_losses_are_exact_beside_what_sgd_reaches(table):
    dense = of(table, "loss of dense maps")
    assert dense[["paper", "method", "exact"]].tolist() == pytest.approx([0.17, 0.4, 0.2])
    assert dense["low"] < 0.2 < dense["high"]
    assert np.isnan(of(table, "loss of dense maps", "conv2")["method"])
    # Between .2 with 4 weights and .1 with 8, of the mean pair doubled.
    sparse = of(table, "loss of maps with 4.7 weights")
    assert sparse[["paper", "exact"]].tolist() == pytest.approx([0.235, 2 * (0.2 - 0.1 * 0.7 / 4)])


def test_mean_activations_of_live_units_are_compared(table):
    row = of(table, "largest gap")
    # a and b: 0, 1 and .1, 1.1 (a half); c lies apart from both.
    assert row["method"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert row["untrained"] == 0
    assert 0.4 < row["chance"] < 1
    # All units of conv2 are dead.
    assert not len(table[table["quantity"].str.startswith("largest") & (table["layer"] == "conv2")])


def test_the_gap_of_distributions_has_its_known_values(rng):
    assert largest_gap([1, 2, 3], [1, 2, 3]) == 0
    assert largest_gap([1, 2], [3, 4]) == 1
    assert largest_gap([1, 2, 3, 4], [3, 4, 5, 6]) == 0.5
    x, y = rng.normal(size=(2, 200))
    # The mean of Kolmogorov's distribution is sqrt(pi / 2) log 2.
    assert gap_by_chance(x, y, rng) == pytest.approx(0.8687 / 10, rel=0.1)


def test_no_loss_is_told_beyond_the_path():
    path = pd.DataFrame({"nonzero_per_unit": [4.0, 1.0], "loss": [0.1, 0.4]})
    assert loss_at(path, 2.5) == pytest.approx(0.25)
    assert np.isnan(loss_at(path, 5))


def test_a_document_has_a_line_for_each_kind_of_number(table):
    lines = markdown(table).splitlines()
    assert lines[0] == "| quantity (section of the paper) |  | conv1 | conv2 |"
    start = next(i for i, line in enumerate(lines) if "without a match" in line)
    assert lines[start : start + 5] == [
        "| share of units without a match above .5 (4) | paper | .17 | .37 |",
        "| … | its method here | .20 [.10, .30] | .20 [.10, .30] |",
        "| … | rotated units | .15 | .15 |",
        "| … | shuffled images | .05 | .05 |",
        "| … | untrained nets | .40 | .40 |",
    ]
    # The interval is that of the exact solution where there is one.
    dense = next(i for i, line in enumerate(lines) if "dense" in line)
    assert lines[dense + 1] == "| … | its method here | .40 |  |"
    assert lines[dense + 2].startswith("| … | exact | .20 [")
