"""Estimates carry their held-out value, interval and chance, or the reason why not."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from comparing import blocks_of, comparison, evidence, flat
from scipy.optimize import linear_sum_assignment

from convergent.activations.blocks import Blocks, Cut
from convergent.activations.moments import Moments
from convergent.inference.estimates import Way, estimates, ways
from convergent.inference.infinitesimal import turned, values_without
from convergent.inference.jackknife import jackknife
from convergent.measures.evidence import Split
from convergent.measures.histograms import information_without, mutual_information
from convergent.measures.registry import Measure, Undefined, measure, measures
from convergent.measures.spectra import Gradient

MOMENTS = {
    "label": "m", "unit": "", "needs": "moments", "gives": "layers", "range": (0, 9),
    "invariances": frozenset({"rotation"}), "symmetric": True, "higher_is_more_alike": True,
    "source": "nobody",
}  # fmt: skip
UNKNOWN = ["standard_error", "low", "high"]


@pytest.fixture
def layers(rng):
    """Two layers that share a third of their units, with noise; 120 images at 6 positions."""
    x = rng.normal(size=(120, 6, 9)) + rng.normal(size=(120, 1, 9))
    y = rng.normal(size=(120, 6, 7)) + rng.normal(size=(120, 1, 7))
    y[..., :3] += 2 * x[..., [4, 1, 7]]
    return np.maximum(x, 0), np.maximum(y, 0)


def anew(way, x, y, edges):
    """Values from all images and from all but those of each block, from the activations."""
    kept = [np.delete(np.arange(len(x)), np.arange(*run)) for run in itertools.pairwise(edges)]
    return [evidence(x[rows], y[rows]).value(*way) for rows in (np.arange(len(x)), *kept)]


def test_ways_are_rows_for_each_measure_of_units_and_direction():
    found = ways([measure("cka"), measure("semi_mean"), measure("matching_mean")])
    assert [(way.measure.name, *way[1:]) for way in found] == [
        ("cka", "", ""),
        ("semi_mean", "correlation", "ab"),
        ("semi_mean", "correlation", "ba"),
        ("semi_mean", "mutual_information", "ab"),
        ("semi_mean", "mutual_information", "ba"),
        ("matching_mean", "correlation", ""),
        ("matching_mean", "mutual_information", ""),
    ]
    only = replace(measure("semi_mean"), of=("correlation",))
    assert [way.parameter for way in ways([only])] == ["correlation", "correlation"]


@pytest.mark.parametrize("name", ["cka", "semi_mean", "matching_mean"])
def test_intervals_of_the_papers_values_are_those_of_the_plain_jackknife(layers, name):
    compared = comparison(*layers)
    asked = [way for way in ways([measure(name)]) if not way.of_codes]
    rows, draws = estimates(asked, compared)
    assert draws == []
    for way, row in zip(asked, rows, strict=True):
        value, *without = anew(way, *layers, compared.cut.edges)
        expected = (value, *jackknife(value, without, compared.sizes))
        np.testing.assert_allclose([row[k] for k in ("value", *UNKNOWN)], expected, rtol=1e-5)
        assert (row["n_images"], row["n_nets"], row["note"]) == (120, 2, "")


@pytest.mark.parametrize("name", ["semi_mean", "matching_mean"])
def test_a_fixed_choice_gives_nearly_the_interval_of_choosing_anew(layers, name):
    x = layers[0][..., :7]
    y = x[..., [4, 1, 6, 2, 5, 0, 3]] + layers[1]
    fixed = replace(measure(name), rechosen=False)
    compared = comparison(x, y, 10)
    for way in ways([fixed]):
        (row,), _ = estimates([way], compared)
        if not way.of_codes:
            anew_way = way._replace(measure=measure(name))
            (plain,), _ = estimates([anew_way], compared)
            expected = plain["standard_error"]
            assert row["value"] == plain["value"]
        else:
            # Codes of all samples, whose bins stay as they are.
            codes = compared.split.whole.codes
            edges = np.searchsorted(compared.sample_rows, compared.cut.edges)
            if way.direction == "ba":
                codes = codes[::-1]
            without = []
            for run in itertools.pairwise(edges):
                matrix = mutual_information(*(np.delete(c, np.arange(*run), axis=0) for c in codes))
                live = compared.split.whole.live if fixed.with_dead else ()
                without.append(fixed.choose(matrix, *live).score(matrix))
            expected = jackknife(row["value"], without, compared.sizes).standard_error
        # A unit without a clear partner would have a wider interval.
        assert row["standard_error"] == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("threads", [1, 2])
def test_information_without_a_block_is_that_of_the_other_samples(rng, threads):
    codes = [rng.integers(0, 6, (400, 40), dtype=np.uint8) for _ in "ab"]
    codes[1][:, 3] = codes[0][:, 5]
    codes[0][:, 0] = 2
    codes[1][100:, 7] = 1
    rows, columns = rng.integers(0, 40, (2, 90))
    rows[:3], columns[:3] = [5, 0, 1], [3, 3, 7]
    edges = np.array([0, 100, 130, 400])
    found = information_without(*codes, rows, columns, edges, threads=threads)
    for values, run in zip(found, itertools.pairwise(edges), strict=True):
        rest = [np.delete(c, np.arange(*run), axis=0) for c in codes]
        exact = mutual_information(*rest)[rows, columns]
        np.testing.assert_allclose(values, exact, atol=1e-12)
    # Units that occupy one bin, in all samples or once the first block is left out.
    assert not found[:, 1].any()
    assert found[0, 2] == 0 < found[1, 2]
    with pytest.raises(ValueError, match="a block holds all 400 samples"):
        information_without(*codes, rows, columns, np.array([0, 400]))


def total(cut, x, y):
    return tuple(b.total() for b in (blocks_of(cut, x, y), blocks_of(cut, x), blocks_of(cut, y)))


def ratio(between, within_a, within_b):
    """A smooth value of all three covariances, and its gradient."""
    c, a, b = (m.comoment / m.count for m in (between, within_a, within_b))
    norms = (c**2).sum(), np.trace(a), (b**2).sum()
    value = norms[0] / (norms[1] * norms[2])
    of_a, of_b = -value / norms[1] * np.eye(len(a)), -value * 2 * b / norms[2]
    return Gradient(value, 2 * c / (norms[1] * norms[2]), of_a, of_b)


def ratio_value(*moments):
    return ratio(*moments).value


def test_a_linear_value_without_a_block_is_exact(rng, layers):
    cut = Cut.of(120, 7)
    x, y = layers
    x[:40, :, 0] += 3  # the means of blocks differ
    weights = [rng.normal(size=shape) for shape in ((9, 7), (9, 9), (7, 7))]

    def value(moments):
        return sum(
            float((w * m.comoment).sum() / m.count) for w, m in zip(weights, moments, strict=True)
        )

    three = blocks_of(cut, x, y), blocks_of(cut, x), blocks_of(cut, y)
    whole = total(cut, x, y)
    found = values_without(Gradient(value(whole), *weights), three, whole)
    rests = zip(*(blocks.leave_one_out() for blocks in three), strict=True)
    np.testing.assert_allclose(found, [value(rest) for rest in rests], rtol=1e-9)


@pytest.mark.parametrize("direction", ["ab", "ba"])
def test_an_infinitesimal_interval_is_the_plain_one_to_first_order(layers, direction):
    smooth = Measure(**MOMENTS | {"name": "m", "symmetric": False}, compute=ratio_value)
    quick = replace(smooth, gradient=ratio)
    # Relative differences fall with the images of a block, as terms of second order do.
    for blocks, near in ((4, 0.3), (40, 0.05)):
        compared = comparison(*layers, blocks)
        asked = [Way(each, "", direction) for each in (smooth, quick)]
        plain, row = estimates(asked, compared)[0]
        assert row["value"] == pytest.approx(plain["value"])
        assert row["standard_error"] == pytest.approx(plain["standard_error"], rel=near)


def test_the_gradient_of_turned_layers_is_turned(layers):
    cut = Cut.of(120, 4)
    between, a, b = total(cut, *layers)
    found = turned(ratio(between.turned(), b, a))
    assert found.between.shape == (9, 7)
    assert found.within_a.shape == (9, 9)


def test_a_choice_is_held_out_both_ways(layers):
    x, y = layers
    way = Way(measure("semi_mean"), "correlation", "ba")
    (row,), _ = estimates([way], comparison(x, y))
    first, last = evidence(x[:72], y[:72]), evidence(x[72:], y[72:])
    scores = []
    for chosen, scored in ((first, last), (last, first)):
        partner = chosen.matrix("correlation").T.argmax(axis=1)
        scores.append(scored.matrix("correlation").T[np.arange(7), partner].mean())
    assert row["held_out"] == pytest.approx(np.mean(scores), rel=1e-6)
    assert row["held_out"] < row["value"]


@pytest.mark.parametrize("parameter", ["correlation", "mutual_information"])
def test_a_unit_that_varies_in_some_images_only_counts_in_the_mean_of_all_parts(layers, parameter):
    x, y = layers[0], layers[1].copy()
    y[24:, :, 0] = 0  # it varies in the first of five blocks
    compared = comparison(x, y)
    (row,), _ = estimates([Way(measure("matching_mean"), parameter)], compared)
    scores = []
    halves = compared.split.halves
    for chosen, scored in (halves, halves[::-1]):
        matrix = chosen.matrix(parameter)
        rows, columns = linear_sum_assignment(matrix, maximize=True)
        paired = matrix.any(axis=0)[columns]
        scores.append(scored.matrix(parameter)[rows[paired], columns[paired]].sum() / 7)
    assert row["held_out"] == pytest.approx(np.mean(scores), rel=1e-6)
    if parameter == "correlation":
        (rest,) = (split.whole for split in itertools.islice(compared.without(), 1))
        best = rest.matrix(parameter)[linear_sum_assignment(rest.matrix(parameter), maximize=True)]
        assert rest.value(measure("matching_mean"), parameter) == pytest.approx(best.sum() / 7)


def test_a_measure_that_is_always_held_out_has_an_interval_of_halves(layers):
    x, y = layers

    def choose(between, within_a, within_b):
        return np.linalg.solve(within_a.comoment, between.comoment)

    def score(between, within_a, within_b, weights):
        loss = np.trace(within_b.comoment - 2 * weights.T @ between.comoment)
        loss += np.trace(weights.T @ within_a.comoment @ weights)
        return 1 - loss / np.trace(within_b.comoment)

    fit = Measure(
        **MOMENTS | {"name": "m", "symmetric": False},
        choose=choose, score=score, always_held_out=True,
    )  # fmt: skip
    compared = comparison(x, y, 4)
    (row,), _ = estimates([Way(fit, "", "ab")], compared)

    def value(rows):
        parts = [rows[rows < 60], rows[rows >= 60]]
        three = [evidence(x[part], y[part]).moments for part in parts]
        return np.mean([score(*three[1 - i], choose(*three[i])) for i in (0, 1)])

    every = np.arange(120)
    without = [value(np.delete(every, np.arange(i, i + 30))) for i in range(0, 120, 30)]
    assert row["value"] == row["held_out"] == pytest.approx(value(every))
    expected = jackknife(row["value"], without, [30] * 4).standard_error
    assert row["standard_error"] == pytest.approx(expected)
    # With one block in each half nothing is left of it.
    (row,), _ = estimates([Way(fit, "", "ab")], comparison(x, y, 2))
    assert np.isfinite(row["value"])
    assert np.isnan([row[k] for k in UNKNOWN]).all()
    assert row["note"].startswith("interval: without a block of images, ")


def refuse(*arguments):
    raise Undefined("it has none")


def test_a_value_that_is_undefined_is_empty_with_the_reason(layers):
    refused = Measure(**MOMENTS | {"name": "m"}, compute=refuse)
    rows, _ = estimates([Way(refused), Way(measure("cka"))], comparison(*layers))
    assert np.isnan([rows[0][k] for k in ("value", "held_out", "ceiling", *UNKNOWN)]).all()
    assert [row["note"] for row in rows] == ["it has none", ""]


def test_a_value_that_is_undefined_without_a_block_has_no_interval(layers):
    def choosy(between, within_a, within_b):
        if between.count < 6 * 120:
            refuse()
        return 1.0

    some = Measure(**MOMENTS | {"name": "m"}, compute=choosy)
    (row, other), _ = estimates([Way(some), Way(measure("cka"))], comparison(*layers))
    assert row["value"] == 1
    assert np.isnan([row[k] for k in UNKNOWN]).all()
    assert row["note"] == "interval: without a block of images, it has none"
    assert np.isfinite([other[k] for k in UNKNOWN]).all()


def test_layers_of_dead_units_have_no_means_over_units(layers):
    x, y = layers
    (cka, semi), _ = estimates(
        [Way(measure("cka")), Way(measure("semi_mean"), "correlation", "ab")], comparison(0 * x, y)
    )
    assert cka["value"] == 0
    assert cka["note"] == "no unit of one of the layers varies: least alike by definition"
    assert np.isnan(semi["value"])
    assert semi["note"] == "no unit of one of the layers varies"


def test_a_value_that_is_0_by_definition_says_what_is_the_same_in_a_layer(layers):
    x, y = layers
    # In one unit, all images without a change from place to place have no correlation.
    flat_maps = np.repeat(np.rint(x[:, :1, :1]), 6, axis=1)
    asked = [measure(name) for name in ("rsa", "rsa_cosine")]
    for row in estimates(ways(asked), comparison(flat_maps, y, 10))[0]:
        assert row["value"] == 0
        assert row["note"].startswith("all pairs of images are equally dissimilar in one of")
    small = estimates(ways([measure("matching_mean")]), comparison(1e-9 * x, y, 10))[0]
    notes = {row["parameter"]: (row["value"] == 0, row["note"]) for row in small}
    assert notes["correlation"] == (False, "")
    zero, note = notes["mutual_information"]
    assert zero
    assert note.startswith("every unit stays in one bin in one of the layers: 0 by definition")


def test_two_images_have_values_but_no_intervals(layers):
    x, y = layers
    (row,), _ = estimates([Way(measure("cka"))], comparison(x[:2], y[:2], 2))
    assert np.isfinite(row["value"])
    assert np.isnan([row[k] for k in UNKNOWN]).all()
    assert row["note"] == "interval: without one of the blocks there are fewer than two images"


def test_the_images_of_a_constant_channel_count_and_not_its_positions(rng):
    """Repeating each image at many positions changes no interval."""
    x, y = rng.normal(size=(2, 60, 1, 5))
    y += x
    one, many = (comparison(np.repeat(x, n, 1), np.repeat(y, n, 1), 10) for n in (1, 25))
    for each in ways([measure("cka"), measure("matching_mean")]):
        if each.of_codes:
            continue
        rows = [estimates([each], compared)[0][0] for compared in (one, many)]
        for key in ("value", "held_out", *UNKNOWN):
            assert rows[0][key] == pytest.approx(rows[1][key], rel=1e-4, nan_ok=True)
        assert rows[1]["n_images"] == 60


def test_dissimilarities_of_the_first_images_have_blocks_of_their_own(layers):
    x, y = layers
    compared = comparison(x, y, 4)
    few = tuple(d[:50, :50] for d in compared.dissimilarities)
    compared = replace(compared, dissimilarities=few)

    def size(a, b):
        return float(np.mean(a * b))

    values = MOMENTS | {"name": "m", "needs": "dissimilarities"}
    (row,), _ = estimates([Way(Measure(**values, compute=size))], compared)
    edges = [0, 12, 25, 37, 50]
    without = []
    for run in itertools.pairwise(edges):
        rows = np.delete(np.arange(50), np.arange(*run))
        without.append(size(*(d[np.ix_(rows, rows)] for d in few)))
    expected = jackknife(size(*few), without, np.diff(edges))
    np.testing.assert_allclose([row[k] for k in UNKNOWN], expected, rtol=1e-6)
    assert (row["sample"], row["n_images"]) == ("flattened", 50)


@pytest.mark.parametrize("each", measures(gives="layers"), ids=lambda m: m.name)
def test_every_measure_has_a_value_and_an_interval_around_it(layers, each):
    rows, _ = estimates(ways([each]), comparison(*layers, 6))
    for row in rows:
        assert row["note"] == ""
        assert row["low"] <= row["value"] <= row["high"]
        assert row["standard_error"] < 0.5
        assert np.isfinite(row["held_out"]) == (each.choose is not None)


def test_blocks_of_one_image_are_those_of_the_classical_jackknife(layers):
    x, y = layers[0][:24], layers[1][:24]
    (row,), _ = estimates([Way(measure("cka"))], comparison(x, y, 24))
    value, *without = anew(Way(measure("cka")), x, y, np.arange(25))
    expected = jackknife(value, without, [1] * 24).standard_error
    assert row["standard_error"] == pytest.approx(expected, rel=1e-4)
    assert row["note"] == ""


def test_fewer_images_than_units_are_flagged(rng):
    x, y = rng.normal(size=(2, 40, 30))
    cca, cka = (estimates([Way(measure(name))], comparison(x, y))[0][0] for name in ("cca", "cka"))
    assert np.isnan([cca[key] for key in ("value", *UNKNOWN)]).all()
    assert cca["note"].startswith("fewer images than units")
    assert np.isfinite(cka["standard_error"])


def shuffled(x, y, draws, seed=0):
    """Draws in which the images of y are in another order."""
    rng = np.random.default_rng(seed)
    return (comparison(x, rng.permutation(y)).split for _ in range(draws))


def test_a_null_has_a_mean_an_end_and_p_and_its_draws_are_listed(layers):
    asked = [Way(measure("matching_mean"), "correlation"), Way(measure("cka"))]
    rows, draws = estimates(asked, comparison(*layers), {"images": shuffled(*layers, 19)})
    for way, row in zip(asked, rows, strict=True):
        some = [draw for draw in draws if draw["measure"] == way.measure.name]
        assert [draw["draw"] for draw in some] == list(range(19))
        assert {draw["null"] for draw in some} == {"images"}
        values = [draw["value"] for draw in some]
        assert row["null_images"] == pytest.approx(np.mean(values))
        assert row["null_images_high"] == max(values) < row["value"]
        assert row["p_images"] == 1 / 20
        assert row["note"] == ""


def test_measures_that_a_rotation_cannot_change_are_not_computed(layers):
    asked = [Way(measure("cka")), Way(measure("matching_mean"), "correlation")]
    rows, draws = estimates(asked, comparison(*layers), {"rotation": shuffled(*layers, 2)})
    assert np.isnan(rows[0]["null_rotation"])
    assert {draw["measure"] for draw in draws} == {"matching_mean"}
    assert rows[1]["note"].startswith("null rotation: 2 draws are too few for p")
    # Projections are weighted by the first net, which no rotation of the second changes.
    both = ways([measure("pwcca")])
    rows, draws = estimates(both, comparison(*layers), {"rotation": shuffled(*layers, 2)})
    assert [np.isnan(row["null_rotation"]) for row in rows] == [True, False]
    assert {draw["direction"] for draw in draws} == {"ba"}
    # Nothing is drawn for nothing.
    drawn = shuffled(*layers, 2)
    estimates(asked[:1], comparison(*layers), {"rotation": drawn})
    assert len(list(drawn)) == 2


def test_untrained_nets_have_a_mean_only(layers):
    kinds = {"untrained": shuffled(*layers, 1), "untrained_one": shuffled(*layers, 2)}
    (row,), draws = estimates([Way(measure("cka"))], comparison(*layers), kinds)
    values = [draw["value"] for draw in draws]
    assert [row["null_untrained"], row["null_untrained_one"]] == pytest.approx(
        [values[0], np.mean(values[1:])]
    )
    ends = [f"{of}untrained{one}{end}" for one in ("", "_one") for of, end in
            (("null_", "_high"), ("p_", ""))]  # fmt: skip
    assert np.isnan([row[end] for end in ends]).all()
    assert row["note"] == ""


def test_draws_without_a_value_are_left_out_and_named_if_there_are_no_others(layers):
    def without_codes(splits, kept):
        for number, split in enumerate(splits):
            yield Split(replace(split.whole, codes=None)) if number >= kept else split

    way = Way(measure("matching_mean"), "mutual_information")
    for kept in (0, 3):
        drawn = without_codes(shuffled(*layers, 5), kept)
        (row,), draws = estimates([way], comparison(*layers), {"images": drawn})
        assert len(draws) == kept
        assert np.isfinite(row["null_images"]) == (kept > 0)
    (row,), _ = estimates([way], comparison(*layers), {"images": without_codes([], 0)})
    assert row["note"] == ""


def test_a_ceiling_is_that_of_correlations_of_units(layers):
    asked = ways([measure("cka"), measure("matching_mean")])
    rows, _ = estimates(asked, comparison(*layers))
    np.testing.assert_array_equal([row["ceiling"] for row in rows], [np.nan, 1, np.nan])


def test_blocks_without_codes_leave_out_values_of_codes(layers):
    compared = replace(comparison(*layers), codes=None)
    rows, _ = estimates(ways([measure("matching_mean")]), compared)
    assert [row["note"] for row in rows] == ["", "samples were not kept for this pair of layers"]


def test_parts_without_each_block_are_those_of_the_other_samples(layers):
    x, _ = layers
    blocks = blocks_of(Cut.of(120, 3), x)
    whole = blocks.parts()
    for number, parts in enumerate(blocks.parts_without(whole.halves)):
        rows = np.delete(np.arange(120), np.arange(40 * number, 40 * number + 40))
        exact = Moments.of(flat(x[rows]))
        np.testing.assert_allclose(parts.whole.comoment, exact.comoment, rtol=1e-4, atol=1e-2)
        if number == 2:  # the last half
            assert parts.halves is None
            continue
        first = Moments.of(flat(x[rows[rows < 80]]))
        np.testing.assert_allclose(parts.halves[0].comoment, first.comoment, rtol=1e-4, atol=1e-2)
        assert parts.halves[1].count == 240
    assert isinstance(blocks, Blocks)


def test_layers_that_are_too_wide_for_a_measure_have_a_value_but_no_interval(layers):
    narrow, wide = (Way(replace(measure("pwcca"), widest=n), "", "ab") for n in (1000, 1))
    (with_one, without), _ = estimates([narrow, wide], comparison(*layers))
    assert without["value"] == with_one["value"]
    assert np.isfinite(with_one["low"])
    assert np.isnan(without["low"])
    assert without["note"] == "interval: none for more than 1 units"


def test_equal_widths_of_live_units_are_matched_once(rng):
    x, y = rng.normal(size=(2, 60, 8))
    for dead in (False, True):
        x[:, 0] *= not dead
        of = evidence(x, y)
        chosen = [
            of.choose(measure(name), "correlation") for name in ("matching_mean", "soft_matching")
        ]
        assert (chosen[0] is chosen[1]) == (not dead)
