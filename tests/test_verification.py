"""A run is verified by a published one: exactly if its nets are the same, else within intervals."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from convergent.inference.over_nets import over_nets
from convergent.inference.verification import (
    VerificationError,
    describe,
    most_outside,
    passes,
    read_tables,
    small_form,
    verify,
)

NETS = ["net1", "net2", "net3", "net4"]
LAYERS = [f"conv{number}" for number in range(1, 11)]


def tables(seed, shift=0.0):
    """Tables of a run whose pairs' values are sums of effects of their nets."""
    rng = np.random.default_rng(seed)
    losses = rng.normal(1, 0.1, len(NETS))
    accuracy = {
        "net": NETS,
        "seed": range(100 * seed, 100 * seed + 4),
        "train_loss": losses,
        "val_loss": losses,
        "images": 9,
    }
    unmatched, similarity = [], []
    for layer in LAYERS:
        of_net = dict(zip(NETS, rng.normal(0.4, 0.05, len(NETS)), strict=True))
        values = {(a, b): (of_net[a] + of_net[b]) / 2 + shift for a, b in combinations(NETS, 2)}
        names = {"layer_a": layer, "layer_b": layer, "measure": "cka"}
        for (a, b), value in values.items():
            row = {
                "layer": layer,
                "pair": f"{a}-{b}",
                "units": 24,
                "unmatched": value,
                # A tenth of the live units, whose number belongs to the nets.
                "tenth": 2 + (value > 0.4),
                "paper": 0.2,
            }
            unmatched += [row | {"direction": "ab"}, row | {"direction": "ba"}]
            similarity.append(names | {"pair": f"{a}-{b}", "value": value, "low": value - 0.001})
        mean = over_nets(values)
        ends = {"low_nets": mean.interval.low, "high_nets": mean.interval.high, "n_nets": 4}
        similarity.append(names | {"pair": "all", "value": mean.mean, **ends})
    frames = {"unmatched": unmatched, "similarity": similarity}
    return {"accuracy": pd.DataFrame(accuracy)} | {k: pd.DataFrame(v) for k, v in frames.items()}


def differing(table):
    return table.loc[table["outcome"] == "differs", ["table", "row", "column"]].to_numpy().tolist()


def test_a_run_says_what_it_says_itself():
    published = {name: small_form(table) for name, table in tables(1).items()}
    found = verify(tables(1), published)
    assert set(found["outcome"]) == {"agrees"}
    assert set(found["check"]) == {"design", "same nets"}
    # All rows of pairs of a table without means, and the mean of each layer of the other.
    assert len(found.query("table == 'unmatched' and column == 'unmatched'")) == 120
    assert len(found.query("table == 'similarity' and column == 'value'")) == 10
    assert describe(found).endswith("0 differ, 0 are missing")


@pytest.mark.parametrize(
    ("table", "row", "column", "name"),
    [
        ("unmatched", 7, "unmatched", "conv1 net2-net3 ba"),
        ("unmatched", 7, "units", "conv1 net2-net3 ba"),
        ("accuracy", 2, "images", "net3"),
        ("similarity", 6, "value", "conv1 conv1 cka all"),
    ],
)
def test_a_shifted_number_is_named(table, row, column, name):
    shifted = tables(1)
    shifted[table] = shifted[table].astype({column: float})
    shifted[table].loc[row, column] *= 1.001
    found = verify(shifted, tables(1))
    assert differing(found) == [[table, name, column]]
    assert f"tables/{table}.csv, {name}, {column}: " in describe(found)


def test_runs_of_other_seeds_pass_though_some_cells_lie_outside():
    shares = []
    for seed in range(0, 20, 2):
        found = verify(tables(seed), tables(seed + 1))
        assert set(found["check"]) == {"design", "other nets"}
        assert passes(found)
        shares.append((found.loc[found["check"] == "other nets", "outcome"] == "outside").mean())
    assert 0 < np.mean(shares) < 0.05


def test_other_nets_that_differ_much_in_one_layer_fail_there():
    found, published = tables(1), tables(2)
    of_layer = found["unmatched"]["layer"] == "conv3"
    found["unmatched"].loc[of_layer, "unmatched"] += 2
    compared = verify(found, published)
    assert differing(compared) == [["unmatched", "conv3", "unmatched"]]
    assert not passes(compared)


def test_other_nets_that_differ_a_little_everywhere_fail():
    # By five standard errors of a mean over four nets, less than lets any cell differ by itself.
    found = verify(tables(1, shift=0.15), tables(2))
    assert (found["outcome"] == "outside").sum() > most_outside(24)
    assert not passes(found)
    assert "on average and 4 at most" in describe(found)


def test_what_the_configuration_decides_is_the_same_for_other_nets():
    found, published = tables(1), tables(2)
    published["unmatched"]["units"] = 25
    assert {column for *_, column in differing(verify(found, published))} == {"units"}


def test_missing_rows_columns_and_tables_are_named_and_further_ones_are_not():
    found, published = tables(1), tables(1)
    found["more"] = found["accuracy"]
    del found["accuracy"]
    found["unmatched"] = found["unmatched"].drop(index=[0, 1], columns="paper")
    missing = verify(found, published).query("outcome == 'missing'")
    assert missing[["table", "row", "column"]].to_numpy().tolist() == [
        ["accuracy", "", ""],
        ["unmatched", "", "paper"],
        ["unmatched", "conv1 net1-net2 ab", ""],
        ["unmatched", "conv1 net1-net2 ba", ""],
    ]
    assert "tables/accuracy.csv: missing" in describe(verify(found, published))


def test_a_small_form_keeps_means_over_pairs_and_six_digits():
    small = {name: small_form(table) for name, table in tables(1).items()}
    assert set(small["similarity"]["pair"]) == {"all"}
    assert len(small["unmatched"]) == 120
    assert small["accuracy"]["val_loss"].map(lambda x: len(f"{x:.15g}")).max() <= 8


def test_tables_are_read_from_a_folder_or_a_release(tmp_path):
    with pytest.raises(VerificationError, match=r"has no tables .*verify\.against"):
        read_tables(tmp_path)
    (tmp_path / "tables").mkdir()
    tables(1)["accuracy"].to_csv(tmp_path / "tables/accuracy.csv", index=False)
    assert list(read_tables(tmp_path)) == list(read_tables(tmp_path / "tables")) == ["accuracy"]
