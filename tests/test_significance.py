"""Statistics of units, the best over layers among its chance, and bands of matched values."""

import numpy as np
import pytest
from comparing import comparison, evidence
from scipy import stats
from scipy.optimize import linear_sum_assignment

from convergent.inference import similarity
from convergent.inference.estimates import estimates, ways
from convergent.inference.nulls import rotations
from convergent.inference.significance import (
    BEST_MATCH,
    DRAWS,
    MATCHES,
    UNMATCHED,
    NullMatches,
    matched_values,
    significance_tables,
    statistics,
)
from convergent.inference.turned_images import turns
from convergent.measures.evidence import Split
from convergent.measures.registry import Undefined


def layers(rng, shared, units=12, images=150):
    """Two layers of which some units are the same but for noise; the last of each is dead."""
    x, y = (rng.normal(size=(images, units)) for _ in "xy")
    y[:, :shared] = x[:, :shared] + 0.4 * y[:, :shared]
    x[:, -1] = y[:, -1] = 0
    return x, y


def drawn(compared, x, y, draws=19, kinds=("rotation", "images")):
    found = {
        "rotation": rotations(compared.split, draws, 0),
        "images": turns(compared.split, x, y, draws, 0, cut=compared.cut),
    }
    return {kind: found[kind] for kind in kinds}


def estimated(rng, shared, draws=19):
    """Estimates of the statistics of layers that share some units, one layer for each number."""
    rows, values = [], []
    for number, some in enumerate(shared):
        x, y = layers(rng, some)
        compared = comparison(x, y)
        kept, null = estimates(ways(statistics()), compared, drawn(compared, x, y, draws))
        for row in (*kept, *null):
            row["layer_a"] = row["layer_b"] = f"conv{number}"
        rows += kept
        values += null
    return rows, values


def test_statistics_are_those_of_live_units(rng):
    x, y = layers(rng, 5)
    compared = evidence(x, y)
    correlation = np.corrcoef(x[:, :-1], y[:, :-1], rowvar=False)[:11, 11:]
    assert compared.value(BEST_MATCH, "correlation") == pytest.approx(correlation.max())
    for direction, matrix in (("ab", correlation), ("ba", correlation.T)):
        share = np.mean(matrix.max(axis=1) < 0.5)
        assert 0 < share < 1
        assert compared.value(UNMATCHED, "correlation", direction) == share
    found = [(w.measure.name, w.parameter, w.direction) for w in ways(statistics())]
    assert [name for name, *_ in found if name == "unmatched"] == ["unmatched"] * 2
    assert ("best_match", "mutual_information", "") in found
    assert len(found) == 10


def test_tables_have_a_row_for_each_layer_and_for_the_best(rng):
    rows, values = estimated(rng, [9, 3])
    table, draws = significance_tables(rows, values)
    assert list(table)[:4] == ["layer", "statistic", "measure", "direction"]
    assert list(table)[3:] == similarity.COLUMNS[3:]
    assert list(draws) == DRAWS
    assert list(table["layer"].unique()) == ["conv0", "conv1", "all"]
    assert table["parameter"].isna().all()
    key = ["statistic", "measure", "direction"]
    by_layer = table.set_index(["layer", *key])
    for row in table[table["layer"] == "all"].itertuples():
        way = row.statistic, row.measure, row.direction
        of_layers = [by_layer.loc[(layer, *way)] for layer in ("conv0", "conv1")]
        best = min if row.statistic == "unmatched" else max
        assert row.value == best(each["value"] for each in of_layers)
        if np.isnan(row.value):  # mutual information, of which there are no draws here
            continue
        if row.measure == "correlation":
            assert row.note == "best in layer conv0, of 2"
        for kind in ("rotation", "images"):
            some = draws[(draws[key] == list(way)).all(axis=1) & (draws["null"] == kind)]
            if some.empty:
                assert np.isnan(getattr(row, f"p_{kind}"))
                continue
            assert len(some) == 3 * 19
            paired = some.pivot_table(index="draw", columns="layer", values="value")
            paired_best = getattr(paired[["conv0", "conv1"]], best.__name__)(axis=1)
            np.testing.assert_array_equal(paired["all"], paired_best)
            high = paired_best.min() if row.statistic == "unmatched" else paired_best.max()
            assert getattr(row, f"null_{kind}_high") == high
            assert getattr(row, f"null_{kind}") == pytest.approx(paired_best.mean())
    empty = table.loc[table["layer"] == "all", ["held_out", "standard_error", "low", "high"]]
    assert empty.isna().all(axis=None)


def test_planted_truths_are_told_apart(rng):
    """Shared units pass both nulls, a shared space only turned images, and nothing neither."""
    shared = layers(rng, 8)
    x, noise = layers(rng, 0)
    rotated = x.copy()
    rotated[:, :-1] = (x + 0.3 * noise)[:, :-1] @ stats.ortho_group(11, seed=rng).rvs()
    found = {}
    for name, (a, b) in {"units": shared, "space": (x, rotated), "none": (x, noise)}.items():
        compared = comparison(a, b)
        rows, values = estimates(ways(statistics()), compared, drawn(compared, a, b))
        table, _ = significance_tables(rows, values)
        found[name] = table[table["layer"] != "all"].set_index(
            ["statistic", "measure", "direction"]
        )
    for way in (("semi_mean", "correlation", "ab"), ("matching_mean", "correlation", "")):
        p = {name: table.loc[way, ["p_rotation", "p_images"]] for name, table in found.items()}
        assert list(p["units"]) == [0.05, 0.05]
        assert p["space"]["p_images"] == 0.05 < p["space"]["p_rotation"]
        assert (p["none"] > 0.05).all()
    # Fewer unmatched units are more alike.
    assert found["units"].loc[("unmatched", "correlation", "ba"), "p_images"] == 0.05


def made(trial, layers=6, draws=19):
    """Estimates of a statistic that is chance in every layer, of which some are higher."""
    rng = np.random.default_rng(trial)
    rows, values = [], []
    for layer in range(layers):
        names = {"layer_a": f"l{layer}", "layer_b": f"l{layer}", "measure": "semi_mean"}
        names |= {"direction": "ab", "parameter": "correlation"}
        size = 1 + 0.3 * layer
        rows.append(names | {"value": size * rng.normal(), "note": ""})
        values += [
            names | {"null": "images", "draw": i, "value": size * rng.normal()}
            for i in range(draws)
        ]
    return rows, values


def test_the_best_over_layers_is_significant_no_more_often_than_asked():
    p = []
    for trial in range(300):
        table, _ = significance_tables(*made(trial))
        p.append(table["p_images"].iloc[-1])
    counts = np.bincount(np.round(np.array(p) * 20).astype(int) - 1, minlength=20)
    # A right table fails in one of 10,000 sets of trials.
    assert stats.chisquare(counts.reshape(5, 4).sum(axis=1)).pvalue > 1e-4
    assert stats.binomtest(int(counts[0]), 300, 1 / 20).pvalue > 1e-4
    # The best layer among its own draws only is significant far more often.
    alone = 0
    for trial in range(300):
        rows, values = made(trial)
        best = max(rows, key=lambda row: row["value"])
        own = [v["value"] for v in values if v["layer_a"] == best["layer_a"]]
        alone += best["value"] > max(own)
    assert stats.binomtest(alone, 300, 1 / 20).pvalue < 1e-4


def test_draws_that_lack_a_layer_are_not_compared():
    rows, values = made(0)
    values = [v for v in values if v["layer_a"] != "l2" or v["draw"] < 4]
    table, draws = significance_tables(rows, values)
    best = table.iloc[-1]
    assert np.isnan(best["p_images"])
    assert "null images: 4 draws are too few for p, which needs 19" in best["note"]
    assert len(draws[draws["layer"] == "all"]) == 4
    for row in rows:
        row["value"] = np.nan
    table, draws = significance_tables(rows, [])
    assert table["value"].isna().all()
    assert draws.empty


def test_no_layers_make_empty_tables():
    table, draws = significance_tables([], [])
    assert table.empty
    assert list(draws) == DRAWS
    assert list(NullMatches().table()) == MATCHES


@pytest.mark.parametrize("method", ["semi", "matching"])
def test_bands_are_those_of_sorted_draws(rng, method):
    x, y = layers(rng, 4)
    y = np.delete(y, [5, 6], axis=1)
    compared = comparison(x, y)
    matches = NullMatches()
    kinds = drawn(compared, x, y, 40)
    seen = {kind: list(matches.watch("conv1", kind, splits)) for kind, splits in kinds.items()}
    list(matches.watch("conv1", "untrained", [compared.split]))
    table = matches.table(0.9)
    assert list(table) == MATCHES
    assert set(table["null"]) == {"rotation", "images"}
    assert set(table["measure"]) == {"correlation"}
    for kind, splits in seen.items():
        rows = table[(table["null"] == kind) & (table["method"] == method)]
        several = []
        for split in splits:
            matrix = split.whole.matrix("correlation")
            values = np.sort(matrix.max(axis=1))[::-1]
            if method == "matching":
                # A dead unit, with 0, takes the place of a partner with less.
                every = split.whole.between.correlation()
                values = every[linear_sum_assignment(every, maximize=True)]
                values = np.append(values[values != 0], np.zeros(9))[:9]
                values = np.sort(values)[::-1]
            several.append(values)
        # Of 11 live units of a and 9 of b.
        assert list(rows["rank"]) == list(range(11 if method == "semi" else 9))
        np.testing.assert_allclose(rows["mean"], np.mean(several, axis=0))
        np.testing.assert_allclose(rows["low"], np.quantile(several, 0.05, axis=0))
        np.testing.assert_allclose(rows["high"], np.quantile(several, 0.95, axis=0))


def test_bands_of_few_draws_are_the_least_and_the_largest(rng):
    x, y = layers(rng, 4)
    compared = comparison(x, y)
    matches = NullMatches()
    values = np.random.default_rng(0).normal(size=y.shape)
    list(
        matches.watch(
            "fc6",
            "rotation",
            rotations(compared.split, 20, 0, values_b=values, information_draws=3),
        )
    )
    table = matches.table()
    assert set(table["measure"]) == {"correlation", "mutual_information"}
    several = np.array(matches.found["fc6", "mutual_information", "semi", "rotation"])
    rows = table[(table["measure"] == "mutual_information") & (table["method"] == "semi")]
    assert several.shape == (3, 11)
    np.testing.assert_array_equal(rows["low"], several.min(axis=0))
    np.testing.assert_array_equal(rows["high"], several.max(axis=0))
    assert (np.diff(rows["mean"]) <= 0).all()


def test_pairs_that_are_not_matched_count_as_zero(rng):
    # A matching leaves out units that have no codes in common, as mutual information 0 is no match.
    codes = np.repeat(np.arange(4, dtype=np.uint8), 10)
    a = np.stack([codes, 0 * codes, codes], axis=1)
    x = rng.normal(size=(40, 3))
    found = evidence(x, x)
    found = found.seeing(found.between, codes=(a, a))
    values = matched_values(found, "mutual_information", "matching")
    np.testing.assert_allclose(values, [np.log(4), np.log(4), 0])
    with pytest.raises(Undefined, match="samples"):
        matched_values(found.seeing(found.between, codes=None), "mutual_information", "semi")


def test_draws_pass_through_unchanged(rng):
    x, y = layers(rng, 4)
    splits = [Split(evidence(x, y)), Split(evidence(y, x))]
    assert list(NullMatches().watch("conv1", "images", iter(splits))) == splits
