"""Tables over all pairs hold the rows of each pair, and means over pairs with intervals."""

import itertools

import numpy as np
import pandas as pd
import pytest
from test_statistics import write_store

from convergent.activations.statistics import write_correlation, write_statistics
from convergent.figures import over_pairs
from convergent.inference.over_nets import over_nets
from convergent.inference.significance import significance_tables, statistics
from convergent.inference.similarity import Stores, similarity_table
from convergent.measures.registry import measure

COLUMNS = [
    "layer_a", "layer_b", "measure", "direction", "sample", "grid", "parameter", "value",
    "held_out", "standard_error", "low", "high", "null_rotation", "null_rotation_high",
    "p_rotation", "null_untrained", "null_untrained_high", "p_untrained", "ceiling", "n_images",
    "n_nets", "note",
]  # fmt: skip


def pairs_of(nets):
    return {f"{a}-{b}": (a, b) for a, b in itertools.combinations(nets, 2)}


def row(measure, value, direction="", layers=("conv1", "conv1"), **others):
    found = {"layer_a": layers[0], "layer_b": layers[1], "measure": measure}
    found |= {"direction": direction, "sample": "position", "grid": "equal", "parameter": ""}
    found |= {"value": value, "standard_error": 0.01, "low": value - 0.02, "high": value + 0.02}
    found |= {"null_rotation": value / 2, "null_rotation_high": value / 2 + 0.1}
    found |= {"p_rotation": 0.05, "null_untrained": value / 4, "n_images": 100, "n_nets": 2}
    return found | {"note": ""} | others


def as_file(rows):
    """Rows of a table as they are read from a file."""
    return pd.DataFrame(rows, columns=COLUMNS)


@pytest.fixture
def tables(rng):
    """Similarity of four nets: one symmetric measure, one with directions."""
    found = {}
    for pair in pairs_of("abcd"):
        value = rng.uniform(0.4, 0.6)
        rows = [
            row("cka", value, held_out=np.nan),
            row("semi_mean", value, "ab", parameter="correlation", held_out=value - 0.1),
            row("semi_mean", value + 0.2, "ba", parameter="correlation", held_out=value + 0.1),
        ]
        found[pair] = as_file([*rows, row("cka", value, layers=("conv1", "fc6"))])
    return found


def test_rows_of_pairs_stay_as_they_are(tables):
    pairs = pairs_of("abcd")
    table = over_pairs.similarity(tables, pairs, list(pairs))
    expected = [*COLUMNS[:2], "pair", *COLUMNS[2:-1], "n_pairs"]
    expected.insert(expected.index("ceiling") + 1, "ceiling_lower")
    assert list(table) == [*expected, "standard_error_nets", "low_nets", "high_nets", "note"]
    for pair, rows in tables.items():
        own = table[table["pair"] == pair].reset_index(drop=True)
        # Here they are sorted by layers before measures.
        rows = rows.iloc[[0, 1, 2, 3]].reset_index(drop=True)
        pd.testing.assert_frame_equal(own[COLUMNS], rows, check_dtype=False)
        assert set(own["n_pairs"]) == {1}
        assert own["low_nets"].isna().all()
    assert [*table["pair"].unique()] == [*pairs, "all"]


def test_means_over_pairs_average_directions_and_have_both_intervals(tables):
    pairs = pairs_of("abcd")
    table = over_pairs.similarity(tables, pairs, list(pairs)).set_index("measure")
    found = table[(table["pair"] == "all") & (table["layer_b"] == "conv1")]
    values = {pairs[p]: rows.loc[0, "value"] for p, rows in tables.items()}
    expected = over_nets(values)
    cka, semi = found.loc["cka"], found.loc["semi_mean"]
    assert cka["value"] == pytest.approx(expected.mean)
    assert semi["value"] == pytest.approx(expected.mean + 0.1)
    assert semi["held_out"] == pytest.approx(expected.mean)
    assert np.isnan(cka["held_out"])
    assert semi["direction"] == cka["direction"] == ""
    for each, shift in ((cka, 0), (semi, 0.1)):
        # Over images: the mean of the pairs' own.
        assert each["low"] == pytest.approx(each["value"] - 0.02)
        assert each["standard_error"] == pytest.approx(0.01)
        # Over nets.
        assert each["low_nets"] == pytest.approx(expected.interval.low + shift)
        assert each["high_nets"] == pytest.approx(expected.interval.high + shift)
        assert each["standard_error_nets"] == pytest.approx(expected.interval.standard_error)
        assert each["null_rotation"] == pytest.approx(each["value"] / 2)
        assert np.isnan(each["p_rotation"])
        assert (each["n_nets"], each["n_pairs"], each["n_images"]) == (4, 6, 100)


def test_means_are_over_the_pairs_that_are_named(tables):
    pairs = pairs_of("abcd")
    subjects = [*pairs_of("abc")]
    table = over_pairs.similarity(tables, pairs, subjects)
    found = table[table["pair"] == "all"].iloc[0]
    assert (found["n_nets"], found["n_pairs"]) == (3, 3)
    assert found["value"] == pytest.approx(np.mean([tables[p].loc[0, "value"] for p in subjects]))


def test_ceilings_of_the_nets_are_those_of_the_mean(tables):
    pairs = pairs_of("abcd")
    bounds = pd.DataFrame(
        [["conv1", "cka", 0.7, 0.9, 4]], columns=["layer", "measure", "lower", "upper", "n_nets"]
    )
    table = over_pairs.similarity(tables, pairs, list(pairs), ceilings=bounds)
    bounded = table.dropna(subset="ceiling_lower")
    assert bounded[["layer_b", "pair", "measure"]].to_numpy().tolist() == [["conv1", "all", "cka"]]
    assert bounded[["ceiling_lower", "ceiling"]].to_numpy().tolist() == [[0.7, 0.9]]


def test_one_pair_has_no_interval_over_nets_and_says_why(tables):
    table = over_pairs.similarity({"a-b": tables["a-b"]}, {"a-b": ("a", "b")}, ["a-b"])
    found = table[table["pair"] == "all"]
    assert found["low_nets"].isna().all()
    reason = "no interval over nets: 2 nets are too few; 3 are needed"
    assert found["note"].str.contains(reason).all()
    assert (found["value"] - found["low"]).to_list() == pytest.approx([0.02] * 3)


def test_groups_have_means_of_each_kind_of_pair(tables):
    pairs = pairs_of("abcd")
    groups = {"a": "x", "b": "x", "c": "x", "d": "y"}
    table = over_pairs.similarity(tables, pairs, list(pairs), groups)
    assert list(table)[2:4] == ["pair", "kind"]
    found = table[(table["pair"] == "all") & (table["measure"] == "cka")]
    found = found[found["layer_b"] == "conv1"].set_index("kind")
    assert [*found.index] == ["within x", "between x and y"]
    assert [*found["n_pairs"]] == [3, 3]
    assert "over nets" not in found.loc["within x", "note"]
    assert "d is in every pair" in found.loc["between x and y", "note"]
    single = table[table["pair"] == "a-d"]
    assert set(single["kind"]) == {"between x and y"}


def test_a_value_that_a_pair_lacks_is_left_out_with_its_reason(tables):
    pairs = pairs_of("abcd")
    tables["a-b"].loc[0, ["value", "note"]] = [np.nan, "constant"]
    tables["b-c"].loc[2, "value"] = np.nan  # one direction
    tables["c-d"].loc[0, "null_rotation"] = np.nan
    found = over_pairs.similarity(tables, pairs, list(pairs))
    found = found[(found["pair"] == "all") & (found["layer_b"] == "conv1")].set_index("measure")
    assert [*found["n_pairs"]] == [5, 5]
    assert found.loc["cka", "note"].startswith("constant")
    # A mean null over other pairs than the value's would mislead.
    assert np.isnan(found.loc["cka", "null_rotation"])
    assert found.loc["semi_mean", "null_rotation"] > 0


@pytest.mark.parametrize(("nets", "enough"), [(6, False), (7, True)])
def test_untrained_pairs_are_draws_once_there_are_nineteen(rng, nets, enough):
    pairs = pairs_of("abcdefg"[:nets])
    null = rng.uniform(0.1, 0.2, len(pairs))
    rows = [[row("cka", 0.5, null_untrained=each)] for each in null]
    tables = dict(zip(pairs, map(as_file, rows), strict=True))
    table = over_pairs.similarity(tables, pairs, list(pairs))
    found = table[table["pair"] == "all"].iloc[0]
    assert found["null_untrained"] == pytest.approx(null.mean())
    assert found["p_untrained"] == (
        pytest.approx(1 / 22) if enough else pytest.approx(np.nan, nan_ok=True)
    )


def significance_files(rng, nets, higher=True, draws=19, layers=("conv1", "all")):
    pairs, tables, drawn = pairs_of(nets), {}, {}
    name = "semi_mean" if higher else "unmatched"
    for pair in pairs:
        rows, values = [], []
        for layer, direction in itertools.product(layers, ("ab", "ba")):
            own = {"layer": layer, "statistic": name, "measure": "correlation"}
            own |= {"direction": direction}
            others = {"null_rotation": 0, "p_rotation": 0, "n_images": 9, "note": ""}
            rows.append(own | {"value": rng.uniform()} | others)
            values += [
                own | {"null": "rotation", "draw": d, "value": rng.uniform()} for d in range(draws)
            ]
        tables[pair], drawn[pair] = pd.DataFrame(rows), pd.DataFrame(values)
    return tables, drawn, pairs


@pytest.mark.parametrize("higher", [True, False])
def test_the_most_alike_pair_is_compared_with_the_most_alike_of_each_draw(rng, higher):
    tables, drawn, pairs = significance_files(rng, "abcd", higher)
    table = over_pairs.significance(tables, drawn, pairs, list(pairs))
    assert [*table["layer"].unique()] == ["conv1", "all"]
    best = max if higher else min
    for layer in ("conv1", "all"):
        values = {p: np.mean(t.loc[t["layer"] == layer, "value"]) for p, t in tables.items()}
        null = np.array([
            t[t["layer"] == layer].groupby("draw")["value"].mean() for t in drawn.values()
        ])  # fmt: skip
        rows = table[table["layer"] == layer].set_index("pair")
        reduced = {"all": (np.mean([*values.values()]), null.mean(axis=0))}
        extreme = null.max(axis=0) if higher else null.min(axis=0)
        reduced["best"] = best(values.values()), extreme
        for name, (value, of_draws) in reduced.items():
            found = rows.loc[name]
            beyond = of_draws >= value if higher else of_draws <= value
            assert found["value"] == pytest.approx(value)
            assert found["null_rotation"] == pytest.approx(of_draws.mean())
            assert found["p_rotation"] == pytest.approx((beyond.sum() + 1) / 20)
            assert found["direction"] == ""
        assert values[rows.loc["best", "note"]] == rows.loc["best", "value"]


def test_the_p_of_the_best_pair_is_uniform_where_there_is_only_chance(rng):
    """The smallest of the pairs' own p would not be: it ignores that the best was picked."""
    layers = [f"layer{number}" for number in range(100)]
    tables, drawn, pairs = significance_files(rng, "abc", layers=layers)
    table = over_pairs.significance(tables, drawn, pairs, list(pairs))
    ps = table[table["pair"] == "best"]["p_rotation"]
    own = []
    for pair in pairs:
        value = tables[pair].groupby("layer", sort=False)["value"].mean()
        null = drawn[pair].pivot_table("value", "layer", "draw", sort=False)
        own.append((null.ge(value, axis=0).sum(axis=1) + 1) / 20)
    smallest = np.min(own, axis=0)
    # Of three pairs, the smallest p is at most .25 in 58 of 100 layers, where 25 would be right.
    assert np.mean(ps <= 0.25) < 0.4 < np.mean(smallest <= 0.25)


def test_files_are_read_with_empty_cells(rng, tmp_path):
    tables, drawn, pairs = significance_files(rng, "abc", draws=4)
    paths = {"tables": [], "draws": []}
    for pair in pairs:
        for kind, frame in (("tables", tables[pair]), ("draws", drawn[pair])):
            paths[kind].append(tmp_path / f"{pair}-{kind}.csv")
            frame.to_csv(paths[kind][-1], index=False)
    table = over_pairs.tabulate_significance(*paths.values(), pairs, list(pairs))
    expected = over_pairs.significance(tables, drawn, pairs, list(pairs))
    pd.testing.assert_frame_equal(table, expected, check_dtype=False)
    # Too few draws for a p.
    assert table.loc[table["pair"] == "all", "p_rotation"].isna().all()


def test_files_of_the_engine_make_both_tables(rng, tmp_path):
    layers = ["conv1", "fc6"]
    shared = rng.normal(size=(60, 4))
    for net in "abc":
        units = {
            layer: (shared @ rng.normal(size=(4, width)) + rng.normal(size=(60, width)))
            for layer, width in zip(layers, (6, 8), strict=True)
        }
        units = {layer: x.astype(np.float32) for layer, x in units.items()}
        store = write_store(tmp_path / f"{net}.zarr", units)
        write_statistics(store, tmp_path / f"s{net}.zarr", layers, blocks=4)
    pairs, paths = pairs_of("abc"), {"similarity": [], "significance": [], "draws": []}
    measures = [measure("cka"), measure("semi_mean")]
    for pair, (a, b) in pairs.items():
        stores = Stores(*(tmp_path / f"s{net}.zarr" for net in (a, b)), tmp_path / f"{pair}.zarr")
        nets = (tmp_path / f"{net}.zarr" for net in (a, b))
        write_correlation(*nets, stores.correlation, layers, blocks=4)
        nulls = {"rotation": 19, "seed": 0, "level": 0.95}
        made = similarity_table(measures, layers, stores, statistics=statistics(), nulls=nulls)
        found = {"similarity": made.similarity}
        found["significance"], found["draws"] = significance_tables(made.statistics, made.draws)
        for kind, frame in found.items():
            paths[kind].append(tmp_path / f"{pair}-{kind}.csv")
            frame.to_csv(paths[kind][-1], index=False)
    table = over_pairs.tabulate_similarity(paths["similarity"], pairs, list(pairs))
    rows = table[table["pair"] == "all"]
    assert [*rows["measure"].unique()] == ["cka", "semi_mean"]
    # One row for each layer and, for the means, each measure of units.
    assert len(rows) == 6
    assert rows[rows["parameter"] != "mutual_information"]["high_nets"].notna().all()
    table = over_pairs.tabulate_significance(paths["significance"], paths["draws"], pairs, [*pairs])
    assert [*table["layer"].unique()] == [*layers, "all"]
    chosen = table[(table["statistic"] == "semi_mean") & (table["measure"] == "correlation")]
    assert len(chosen) == 3 * (6 + 2)
    p = chosen[chosen["pair"].isin(["all", "best"])]["p_rotation"]
    assert p.between(0.05, 1).all()
    assert (chosen[chosen["pair"] == "all"]["value"] > 0).all()
