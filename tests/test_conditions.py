"""Groups of nets that differ by a known amount are found to, and equal groups are not."""

import itertools

import numpy as np
import pandas as pd
import pytest
from chance_tables import similarity
from legible import illegible
from matplotlib.figure import Figure

from convergent.figures.conditions import conditions, draw_conditions
from convergent.inference.conditions import (
    ALL,
    MOST,
    _count,
    _weights,
    compare_groups,
    difference,
)

DRAWS = 400


def groups_of(*sizes):
    names = "abcdefgh"
    return {f"{names[g]}{i}": names[g] for g, size in enumerate(sizes) for i in range(size)}


def draw(rng, groups, apart=0.0, of_net=0.0, of_pair=0.0, latent=0.0):
    """Values of all pairs: `apart` within groups, effects of nets and noise of pairs.

    With `latent`, each net also has a vector, whose products with others are no sums of effects.
    """
    effect = dict(zip(groups, rng.normal(0, of_net, len(groups)), strict=True))
    vectors = dict(zip(groups, rng.normal(0, 1, (len(groups), 5)), strict=True))
    return {
        (x, y): 0.5
        + apart * (groups[x] == groups[y])
        + effect[x]
        + effect[y]
        + rng.normal(0, of_pair)
        + latent * vectors[x] @ vectors[y]
        for x, y in itertools.combinations(groups, 2)
    }


def row_of(rows, a, b):
    return next(row for row in rows if (row["group_a"], row["group_b"]) == (a, b))


def test_cells_are_means_over_their_pairs_and_the_difference_is_what_was_planted(rng):
    groups = groups_of(3, 3, 3)
    values = draw(rng, groups, apart=0.1, of_net=0.05)
    rows = compare_groups(values, groups)
    assert len(rows) == 3 + 3 + 1
    within, between = row_of(rows, "a", "a"), row_of(rows, "a", "b")
    of_a = [v for (x, y), v in values.items() if x[0] == y[0] == "a"]
    of_both = [v for (x, y), v in values.items() if x[0] + y[0] == "ab"]
    assert within["value"] == pytest.approx(np.mean(of_a))
    assert (within["n_pairs"], within["n_nets"]) == (3, 3)
    assert between["value"] == pytest.approx(np.mean(of_both))
    assert (between["n_pairs"], between["n_nets"]) == (9, 6)
    # What nets add to all their pairs cancels.
    for a, b in ("ab", "ac", "bc", (ALL, ALL)):
        assert row_of(rows, a, b)["difference"] == pytest.approx(0.1)
    assert row_of(rows, ALL, ALL)["n_pairs"] == 9
    assert "difference" not in within


def test_the_interval_leaves_out_one_net(rng):
    groups = groups_of(3, 4)
    values = draw(rng, groups, apart=0.1, of_pair=0.1)
    row = row_of(compare_groups(values, groups), "a", "b")

    def value(nets):
        cells = {"aa": [], "bb": [], "ab": []}
        for (x, y), v in values.items():
            if x in nets and y in nets:
                cells[x[0] + y[0]].append(v)
        aa, bb, ab = (np.mean(cells[name]) for name in ("aa", "bb", "ab"))
        return (aa + bb) / 2 - ab

    without = [value(set(groups) - {net}) for net in groups]
    error = np.sqrt(6 / 7 * np.sum((without - np.mean(without)) ** 2))
    assert row["difference"] == pytest.approx(value(set(groups)))
    assert row["standard_error_difference"] == pytest.approx(error)
    # Student's t with 6 degrees of freedom.
    assert row["high_difference"] == pytest.approx(row["difference"] + 2.4469118 * error)


@pytest.mark.parametrize(
    ("sizes", "effects"),
    [
        ((3, 3), {"of_pair": 0.1}),
        ((5, 5), {"of_pair": 0.1, "of_net": 0.2}),
        ((4, 6), {"latent": 0.1}),
        ((4, 4, 4), {"latent": 0.1, "of_net": 0.1}),
        # Over groups, since a group of two has no pair without one of its nets.
        ((2, 2, 2, 2, 2), {"of_pair": 0.1, "of_net": 0.3}),
        ((2, 2, 2, 2, 2, 2, 2), {"latent": 0.1}),
    ],
)
def test_intervals_cover_what_was_planted(rng, sizes, effects):
    groups, hits = groups_of(*sizes), 0
    a, b = (ALL, ALL) if len(sizes) > 2 else "ab"
    for _ in range(DRAWS):
        row = row_of(compare_groups(draw(rng, groups, apart=0.1, **effects), groups), a, b)
        hits += row["low_difference"] <= 0.1 <= row["high_difference"]
    assert hits / DRAWS >= 0.93


def test_the_interval_over_groups_leaves_out_one_group(rng):
    groups = groups_of(2, 3, 2, 2)
    rows = compare_groups(draw(rng, groups, apart=0.1, of_net=1, of_pair=0.1), groups)
    found = row_of(rows, ALL, ALL)
    of_two = {pair: row_of(rows, *pair)["difference"] for pair in itertools.combinations("abcd", 2)}
    assert found["difference"] == pytest.approx(np.mean([*of_two.values()]))
    without = [np.mean([v for pair, v in of_two.items() if g not in pair]) for g in "abcd"]
    error = np.sqrt(3 / 4 * np.sum((without - np.mean(without)) ** 2))
    assert found["standard_error_difference"] == pytest.approx(error)
    # What nets add to their pairs, which is much larger, does not matter.
    assert error < 0.3
    assert "leaves out one group at a time, since a, c, d have fewer than 3" in found["note"]


@pytest.mark.parametrize("effects", [{"of_pair": 0.1, "of_net": 0.3}, {"latent": 0.1}])
def test_p_is_uniform_where_groups_make_no_difference(rng, effects):
    """With 4 and 4 nets there are 35 groupings, and p is each multiple of 1/35 equally often."""
    groups = groups_of(4, 4)
    found = np.array(
        [
            row_of(compare_groups(draw(rng, groups, **effects), groups), "a", "b")["p"]
            for _ in range(DRAWS)
        ]
    )
    steps = found * 35
    assert steps == pytest.approx(np.round(steps))
    # The largest distance of 400 uniform values from their distribution: 1.63 / 20 in 1 of 100.
    grid = np.arange(1, 36)
    shares = (np.round(steps)[:, None] <= grid).mean(axis=0)
    assert np.abs(shares - grid / 35).max() < 1.63 / np.sqrt(DRAWS) + 0.01


@pytest.mark.parametrize(
    ("sizes", "groupings"), [((2, 2), 3), ((3, 3), 10), ((2, 3), 10), ((2, 2, 2), 15)]
)
def test_the_smallest_p_is_told_and_reached_by_groups_that_are_far_apart(rng, sizes, groupings):
    groups = groups_of(*sizes)
    a, b = (ALL, ALL) if len(sizes) > 2 else "ab"
    for higher in (True, False):
        values = draw(rng, groups, apart=1.0 if higher else -1.0, of_pair=0.01)
        row = row_of(compare_groups(values, groups, higher), a, b)
        assert row["p"] == row["least_p"] == pytest.approx(1 / groupings)
        assert row["n_groupings"] == groupings
        # In the other direction all groupings are more extreme.
        assert row_of(compare_groups(values, groups, not higher), a, b)["p"] == 1


@pytest.mark.parametrize("sizes", [(2, 3), (3, 3), (2, 2, 2), (2, 3, 2)])
def test_weights_give_the_difference_of_each_grouping(rng, sizes):
    weights, drawn = _weights(sizes, 0)
    assert not drawn
    assert len(weights) == len(np.unique(weights.round(12), axis=0)) == _count(sizes)
    nets = [f"net{i}" for i in range(sum(sizes))]
    pairs = [*itertools.combinations(nets, 2)]
    values = rng.normal(size=len(pairs))
    known = {frozenset(pair): v for pair, v in zip(pairs, values, strict=True)}
    # All orders of the nets, cut into groups, reach the same differences and no others.
    bounds = np.cumsum((0, *sizes))
    every = set()
    for order in itertools.permutations(nets):
        cut = [order[start:end] for start, end in itertools.pairwise(bounds)]
        names = [str(number) for number in range(len(sizes))]
        if len(every) < 4 or rng.uniform() < 0.05:
            every.add(round(difference(known, cut, names).value, 9))
    assert every <= set((weights @ values).round(9))
    actual = difference(known, [nets[a:b] for a, b in itertools.pairwise(bounds)], names).value
    assert weights[0] @ values == pytest.approx(actual)


def test_too_many_groupings_are_drawn(rng):
    groups = groups_of(*[2] * 7)
    row = row_of(compare_groups(draw(rng, groups, apart=1, of_pair=0.1), groups), ALL, ALL)
    assert row["n_groupings"] == MOST
    assert row["p"] == row["least_p"] == 1 / MOST
    assert "of 135135 groupings, drawn at random" in row["note"]
    again = compare_groups(draw(rng, groups, of_pair=0.1), groups)
    assert row_of(again, ALL, ALL)["p"] > 1 / MOST


def test_what_is_not_there_says_why(rng):
    groups = groups_of(1, 2, 3)
    rows = compare_groups(draw(rng, groups, of_pair=0.1), groups)
    alone, with_one = row_of(rows, "a", "a"), row_of(rows, "a", "b")
    assert np.isnan(alone["value"])
    assert alone["note"] == "a has one net, and so no pair within it; two are needed"
    assert np.isfinite(with_one["value"])
    assert np.isnan(with_one["difference"])
    assert np.isnan(with_one["p"])
    assert "no difference: a has one net" in with_one["note"]
    few = row_of(rows, "b", "c")
    assert np.isfinite(few["difference"])
    assert np.isnan(few["low_difference"])
    assert "no interval of the difference: b need" in few["note"]
    # Two groups of more than one net need no row over all.
    assert rows[-1]["group_a"] != ALL


def test_pairs_without_a_value_take_the_p_and_not_the_difference(rng):
    groups = groups_of(3, 3)
    values = draw(rng, groups, apart=0.1) | {("a0", "b0"): np.nan}
    row = row_of(compare_groups(values, groups), "a", "b")
    assert row["difference"] == pytest.approx(0.1)
    assert row["n_pairs"] == 8
    assert np.isnan(row["p"])
    assert "no p: not every two" in row["note"]
    none = {pair: np.nan if pair[0][0] != pair[1][0] else v for pair, v in values.items()}
    row = row_of(compare_groups(none, groups), "a", "b")
    assert np.isnan(row["difference"])
    assert "two groups have none" in row["note"]


def tables(rng, groups, apart=0.1):
    """Rows of ``similarity.csv`` of each pair, with what was planted added within groups."""
    found, pairs = {}, {}
    for x, y in itertools.combinations(groups, 2):
        table = similarity()
        table["value"] += apart * (groups[x] == groups[y]) + rng.normal(0, 0.01)
        found[f"{x}-{y}"], pairs[f"{x}-{y}"] = table, (x, y)
    return found, pairs


def test_the_table_averages_directions_and_carries_chance_levels(rng):
    groups = groups_of(3, 3, 2)
    found, pairs = tables(rng, groups)
    table = conditions(found, pairs, groups)
    assert list(dict.fromkeys(table["layer"])) == list(dict.fromkeys(found["a0-a1"]["layer_a"]))
    rows = table[(table["measure"] == "semi_mean") & (table["parameter"] == "correlation")]
    conv1 = rows[rows["layer"] == "conv1"].set_index(["group_a", "group_b"])
    assert len(conv1) == 6 + 1
    of_pairs = {
        pair: each.query("layer_a == 'conv1' and measure == 'semi_mean'")
        .query("parameter == 'correlation'")["value"]
        .mean()
        for pair, each in found.items()
    }
    for (a, b), row in conv1[conv1.index.get_level_values(0) != ALL].iterrows():
        values = [v for p, v in of_pairs.items() if {n[0] for n in p.split("-")} == {a, b}]
        assert row["value"] == pytest.approx(np.mean(values))
        assert row["n_pairs"] == len(values)
        assert np.isfinite(row["null_images"])
    assert conv1["n_images"].eq(450).all()
    # A measure whose layer has no value says so.
    empty = table[(table["measure"] == "cka") & (table["layer"] == "fc7")]
    assert empty["value"].isna().all()
    assert empty["note"].str.contains("no pair|value").all()


def test_pairs_that_start_from_the_same_weights_do_not_count(rng):
    groups = groups_of(2, 2)
    found, pairs = tables(rng, groups)
    found["a0-b0"]["value"] = 0.99
    table = conditions(found, pairs, groups, same_start=["a0-b0"])
    between = table[(table["group_a"] == "a") & (table["group_b"] == "b")]
    known = between["value"].notna()
    assert (between.loc[known, "n_pairs"] == 3).all()
    assert between["note"].str.contains("left out, as they start alike: a0-b0").all()
    assert not (between["value"] > 0.9).all()
    within = table[table["group_b"] == "a"]
    assert not within["note"].str.contains("left out").any()


@pytest.mark.parametrize("sizes", [(2, 2), (3, 3, 1), (2,) * 7])
def test_the_figure_has_a_matrix_for_each_layer(rng, sizes):
    groups = groups_of(*sizes)
    found, pairs = tables(rng, groups)
    table = conditions(found, pairs, groups)
    figure = draw_conditions(table)
    assert not illegible(figure)
    assert isinstance(figure, Figure)
    images = [ax for ax in figure.axes if ax.images]
    layers = list(dict.fromkeys(table["layer"]))
    matrices = [ax for ax in images if ax.get_title()]
    assert len(matrices) == 2 * len(layers)
    assert [ax.get_title().split(":")[0] for ax in matrices] == layers * 2
    shown = matrices[0].images[0].get_array()
    rows = table.query("measure == 'semi_mean' and parameter == 'correlation'")
    cells = rows[(rows["layer"] == layers[0]) & (rows["group_a"] != ALL)]
    cell = cells.query("group_a == 'a' and group_b == 'b'")["value"].item()
    matrix = np.asarray(shown.filled(np.nan))
    assert matrix.shape == (len(sizes), len(sizes))
    full = matrix + cell - matrix[0, 1]
    np.testing.assert_allclose(full, full.T)
    diagonal = cells[cells["group_a"] == cells["group_b"]]["value"].to_numpy()
    np.testing.assert_allclose(np.diag(full), diagonal)
    figure.draw_without_rendering()


def test_groups_that_share_no_layer_with_others_are_not_drawn(rng):
    groups = groups_of(2, 2, 2)
    found, pairs = tables(rng, groups)
    # Nets of c are of another architecture, and compared with each other alone.
    found = {pair: table for pair, table in found.items() if pair.count("c") != 1}
    others = [pair for pair in found if pair.count("c") == 2]
    for pair in others:
        found[pair] = found[pair].assign(layer_a="block.conv1", layer_b="block.conv1")
    table = conditions(found, {pair: pairs[pair] for pair in found}, groups)
    assert "block.conv1" in set(table["layer"])
    figure = draw_conditions(table)
    assert not illegible(figure)
    titles = {ax.get_title().split(":")[0] for ax in figure.axes if ax.images and ax.get_title()}
    assert titles == set(table["layer"]) - {"block.conv1"}
    entries = [
        text.get_text()
        for part in figure.subfigs
        for legend in part.legends
        for text in legend.texts
    ]
    assert entries == ["a and b"]


def test_a_table_with_a_single_layer_and_measure_is_drawn(rng):
    groups = groups_of(2, 2)
    found, pairs = tables(rng, groups)
    only = {p: t[(t["layer_a"] == "conv1") & (t["measure"] == "cka")] for p, t in found.items()}
    figure = draw_conditions(conditions(only, pairs, groups))
    assert len([ax for ax in figure.axes if ax.images and ax.get_title()]) == 1
    figure.draw_without_rendering()


def test_the_table_survives_its_file(rng, tmp_path):
    groups = groups_of(2, 2, 2)
    found, pairs = tables(rng, groups)
    table = conditions(found, pairs, groups)
    table.to_csv(tmp_path / "conditions.csv", index=False)
    again = pd.read_csv(tmp_path / "conditions.csv", keep_default_na=False)
    assert list(again) == list(table)
