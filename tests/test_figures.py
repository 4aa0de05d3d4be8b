"""Figures show the numbers that they are given."""

import io
import itertools

import chance_tables
import numpy as np
import pandas as pd
import pytest
from legible import illegible
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from convergent.figures import one_to_one, style
from convergent.measures import registry
from convergent.measures.matching import match_table, matching, mean_values

CORRELATION = registry.measure("correlation")
LAYERS = ["conv1", "conv2", "fc6"]


@pytest.fixture
def similarity(rng):
    return rng.uniform(-0.5, 1, size=(12, 12))


@pytest.fixture
def matches(rng):
    tables = [match_table(rng.uniform(-0.5, 1, (12, 12)), name, "correlation") for name in LAYERS]
    return pd.concat(tables)


def test_fig1_permutes_by_the_matching_on_one_grey_scale(similarity):
    within = np.corrcoef(similarity)
    partner = matching(similarity)
    figure = one_to_one.correlation_matrices(
        within, within, similarity, partner, ["net1", "net2"], "conv1"
    )
    assert not illegible(figure)
    images = [ax.images[0] for ax in figure.axes if ax.images]
    shown = [image.get_array().data for image in images]
    np.testing.assert_array_equal(shown[2], similarity)
    # Best matched first.
    np.testing.assert_array_equal(np.diag(shown[3]), -np.sort(-similarity[np.arange(12), partner]))
    assert len({image.get_clim() for image in images}) == 1
    assert images[0].get_clim()[1] == within.max()
    assert {image.get_cmap().name for image in images} == {"gray"}


@pytest.mark.parametrize("shape", [(3, 5), (40, 24)])
def test_fig1_sets_units_that_are_left_over_apart(rng, shape):
    similarity = rng.uniform(size=shape)
    partner = matching(similarity)
    figure = one_to_one.correlation_matrices(
        np.eye(shape[0]), np.eye(shape[1]), similarity, partner, ["net1", "net2"], "conv1"
    )
    ax = figure.axes[3]
    shown = np.asarray(ax.images[0].get_array().filled(np.nan))
    pairs, along = min(shape), int(np.argmax(shape))
    shown = np.moveaxis(shown, along, 1)
    gap = np.isnan(shown).all(axis=0)
    # One strip, behind the pairs.
    assert list(np.flatnonzero(gap)) == list(range(pairs, pairs + gap.sum()))
    assert gap.sum() == shown.shape[1] - max(shape) >= 1
    rows = np.flatnonzero(partner >= 0)
    expected = -np.sort(-similarity[rows, partner[rows]])
    np.testing.assert_array_equal(np.diag(shown[:, :pairs]), expected)
    np.testing.assert_array_equal(np.sort(shown[~np.isnan(shown)]), np.sort(similarity.ravel()))
    axis = ax.xaxis if along else ax.yaxis
    labels = [label.get_text() for label in axis.get_ticklabels()]
    assert labels[-1] == f"{max(shape) - pairs} left over"
    assert all(int(label) < pairs for label in labels[:-1])


def test_fig1_puts_units_left_over_where_a_partner_is_missing(rng):
    similarity = rng.uniform(0.1, 1, size=(5, 6))
    similarity[1], similarity[:, 3] = 0, 0
    partner = matching(similarity)
    figure = one_to_one.correlation_matrices(
        np.eye(5), np.eye(6), similarity, partner, ["net1", "net2"], "conv1"
    )
    shown = np.delete(figure.axes[3].images[0].get_array().data, 5, axis=1)  # the gap
    paired = np.flatnonzero(partner >= 0)
    expected = -np.sort(-similarity[paired, partner[paired]])
    np.testing.assert_array_equal(np.diag(shown)[: len(paired)], expected)
    np.testing.assert_array_equal(np.sort(shown, axis=None), np.sort(similarity, axis=None))


def test_fig3_sorts_units_by_their_semi_matching(matches):
    figure = one_to_one.matched_values(matches, ["conv1"], ["net1", "net2"], CORRELATION)
    semi, matched = figure.axes[0].lines
    assert [to_hex(line.get_color()) for line in (semi, matched)] == [
        style.SEMI, style.MATCHING,
    ]  # fmt: skip
    values = matches.query("layer == 'conv1' and direction == 'ab'").pivot_table(
        index="unit", columns="method", values="value"
    )
    order = values["semi"].sort_values(ascending=False, kind="stable").index
    np.testing.assert_array_equal(semi.get_ydata(), values["semi"][order])
    np.testing.assert_array_equal(matched.get_ydata(), values["matching"][order])


@pytest.mark.parametrize("measure", ["correlation", "mutual_information"])
def test_fig3_shows_live_units_and_the_partners_that_they_have(measure):
    # Unit 0 is dead; unit 1 has no partner of its own.
    similarity = np.array([[0, 0, 0], [0.8, -0.9, 0], [0.9, -0.9, 0]])
    if measure == "mutual_information":
        similarity = np.maximum(similarity, 0)
    matches = pd.concat([
        match_table(similarity, "conv1", measure),
        match_table(0 * similarity, "conv2", measure),
    ])  # fmt: skip
    figure = one_to_one.matched_values(
        matches, ["conv1", "conv2"], ["a", "b"], registry.measure(measure)
    )
    semi, matched = figure.axes[0].lines
    np.testing.assert_array_equal(semi.get_ydata(), [0.9, 0.8])
    np.testing.assert_array_equal(matched.get_ydata(), [0.9, np.nan])
    assert all(not len(line.get_ydata()) for line in figure.axes[1].lines)
    figure.savefig(io.BytesIO())


def test_fig3_has_chance_under_its_points(matches, tmp_path):
    chance = chance_tables.null_matches(12, LAYERS)
    matches.to_csv(tmp_path / "matching.csv", index=False)
    other = chance.assign(measure="mutual_information", mean=9)
    pd.concat([chance, other]).to_csv(tmp_path / "null_matches.csv", index=False)
    files = [tmp_path / name for name in ("matching.csv", "null_matches.csv")]
    figure = one_to_one.draw_fig3(*files, ["net1", "net2"], LAYERS, "correlation")
    assert not illegible(figure)
    for ax, layer in zip(figure.axes, LAYERS, strict=True):
        *levels, semi, matched = ax.lines
        assert [line.get_label() for line in (semi, matched)] == ["semi-matching", "matching"]
        assert max(line.get_zorder() for line in levels) < semi.get_zorder()
        assert len(levels) == len(ax.collections) == 4
        for line, band in zip(levels, ax.collections, strict=True):
            method = "matching" if line.get_label().endswith("matching") else "semi"
            null = next(n for n in style.CHANCE if style.CHANCE[n].color == line.get_color())
            rows = chance[(chance["layer"] == layer) & (chance["method"] == method)]
            rows = rows[rows["null"] == null]
            np.testing.assert_allclose(line.get_ydata(), rows["mean"])
            ends = band.get_datalim(ax.transData).extents[[1, 3]]
            np.testing.assert_allclose(ends, [rows["low"].min(), rows["high"].max()])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:2] == ["semi-matching", "matching"]
    assert (len(labels), labels[-1]) == (7, "bands: range of draws")


def test_fig3_without_draws_is_that_of_the_paper(matches, tmp_path):
    chance = chance_tables.null_matches(12, LAYERS).iloc[:0]
    figure = one_to_one.matched_values(matches, ["conv1"], ["a", "b"], CORRELATION, chance)
    assert not illegible(figure)
    assert len(figure.axes[0].lines) == 2
    assert not figure.legends


def test_fig_s3_has_a_panel_for_each_layer(matches):
    figure = one_to_one.matched_values(matches, LAYERS, ["net1", "net2"], CORRELATION)
    assert [ax.get_title().split(",")[0] for ax in figure.axes] == LAYERS


def test_fig4_bars_are_means_over_pairs(rng):
    tables = {
        pair: pd.concat(
            match_table(rng.uniform(-0.5, 1, (9, 9)), layer, "correlation") for layer in LAYERS
        )
        for pair in ("a-b", "a-c", "b-c")
    }
    ax = one_to_one.mean_by_layer(tables, LAYERS).axes[0]
    rows = pd.concat(tables).query("method == 'semi' and direction == 'ab'")
    semi = rows.groupby("layer")["value"].mean()[LAYERS]
    heights = [bar.get_height() for bar in ax.patches]
    np.testing.assert_allclose(heights[:3], semi)
    assert all(a >= b for a, b in zip(heights[:3], heights[3:], strict=True))


def test_fig4_marks_chance_and_the_interval_over_nets(rng, tmp_path):
    pairs = ["a-b", "a-c", "b-c"]
    tables, paths = {}, []
    for pair in pairs:
        tables[pair] = pd.concat(
            match_table(rng.uniform(-0.5, 1, (9, 9)), layer, "correlation") for layer in LAYERS
        )
        paths.append(tmp_path / f"{pair}.csv")
        tables[pair].to_csv(paths[-1], index=False)
    significance = chance_tables.over_pairs(pairs)
    # Other pairs, and the mean over pairs, do not count.
    other = significance.query("pair == 'a-b'").assign(pair="a-z", null_rotation=9.0)
    pd.concat([significance, other]).to_csv(tmp_path / "significance.csv", index=False)
    ax = one_to_one.draw_fig4(paths, tmp_path / "significance.csv", pairs, LAYERS).axes[0]
    heights = np.array([bar.get_height() for bar in ax.patches])
    marks = {line.get_label(): line.get_ydata() for line in ax.lines}
    places = [chance_tables.LAYERS.index(layer) for layer in ("conv1", "conv2")]
    for null, look in style.CHANCE.items():
        drawn = marks[f"chance: {look.label}"]
        np.testing.assert_allclose(drawn[:2], np.array(chance_tables.NULLS[null])[places])
    (interval,) = [c for c in ax.collections if "over nets" in str(c.get_label())]
    ends = np.array(interval.get_segments())[:, :, 1]
    for layer, (low, high), height in zip(LAYERS, ends, heights, strict=False):
        means = [mean_values(tables[pair]).loc[(layer, "correlation"), "semi"] for pair in pairs]
        # Without a net, one pair is left. Three nets: t with 2 degrees of freedom is 4.303.
        error = np.sqrt(2 / 3 * np.sum((means - np.mean(means)) ** 2))
        np.testing.assert_allclose([low, high], height + np.array([-1, 1]) * 4.3027 * error, 1e-4)


def test_fig4_counts_live_units_only():
    similarity = np.zeros((4, 4))
    similarity[:3, 1:3] = [[0.9, -0.9], [0.8, -0.9], [0.7, -0.9]]
    tables = {"a-b": match_table(similarity, "conv1", "correlation")}
    ax = one_to_one.mean_by_layer(tables, ["conv1", "conv2"]).axes[0]
    # Three live units of a; of b two, one of which has no partner.
    np.testing.assert_allclose(
        [bar.get_height() for bar in ax.patches], [0.8, np.nan, 0.45, np.nan]
    )


@pytest.fixture
def of_groups(rng):
    """Matches of four nets in two groups; those of net d have no fc6."""
    pairs = [f"{x}-{y}" for x, y in itertools.combinations("abcd", 2)]
    tables = {
        pair: pd.concat(
            match_table(rng.uniform(-0.5, 1, (9, 6)), layer, "correlation")
            for layer in (LAYERS[:2] if "d" in pair else LAYERS)
        )
        for pair in pairs
    }
    means = {pair: mean_values(table).droplevel("measure") for pair, table in tables.items()}
    return tables, means, {"a": "wide", "b": "wide", "c": "narrow", "d": "narrow"}


def test_fig4_averages_each_layer_over_the_pairs_that_have_it(of_groups):
    tables, means, _ = of_groups
    ax = one_to_one.mean_by_layer(tables, LAYERS).axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == [
        "conv1\nn = 6", "conv2\nn = 6", "fc6\nn = 3",
    ]  # fmt: skip
    assert ax.get_title().startswith("up to 6 pairs of nets")
    heights = [bar.get_height() for bar in ax.patches]
    expected = [means[pair].loc["fc6", "semi"] for pair in ("a-b", "a-c", "b-c")]
    assert heights[2] == pytest.approx(np.mean(expected))


def test_fig4_has_a_line_for_each_kind_of_pair(of_groups):
    tables, means, groups = of_groups
    figure = one_to_one.mean_by_layer(tables, LAYERS, groups)
    assert not illegible(figure)
    kinds = {
        "within wide (n = 1)": ["a-b"],
        "between wide and narrow (n = 4)": ["a-c", "a-d", "b-c", "b-d"],
        "within narrow (n = 1)": ["c-d"],
    }
    for ax, method in zip(figure.axes, ("semi", "matching"), strict=True):
        drawn = {box.get_label(): box.lines[0].get_ydata() for box in ax.containers}
        assert list(drawn) == list(kinds)
        for kind, pairs in kinds.items():
            for place, layer in enumerate(LAYERS):
                values = [means[p].loc[layer, method] for p in pairs if layer in means[p].index]
                expected = np.mean(values) if values else np.nan
                np.testing.assert_allclose(drawn[kind][place], expected)


def test_fig4_gives_nets_of_another_architecture_panels_of_their_own(of_groups):
    tables, means, groups = of_groups
    names = {layer: f"block.{layer}" for layer in LAYERS}
    other = {pair: tables[pair].replace({"layer": names}) for pair in ("c-d",)}
    figure = one_to_one.mean_by_layer(
        {"a-b": tables["a-b"], **other}, [*LAYERS, *names.values()], groups
    )
    assert not illegible(figure)
    upper, _, lower, _ = figure.axes
    assert [label.get_text() for label in upper.get_xticklabels()] == LAYERS
    # The narrow nets have no fc6.
    assert [label.get_text() for label in lower.get_xticklabels()] == list(names.values())[:2]
    assert [box.get_label() for box in upper.containers] == ["within wide (n = 1)"]
    assert [box.get_label() for box in lower.containers] == ["within narrow (n = 1)"]
    drawn = lower.containers[0].lines[0].get_ydata().astype(float)
    np.testing.assert_allclose(drawn, [means["c-d"].loc[layer, "semi"] for layer in LAYERS[:2]])
    # A kind has one colour in all panels, and one entry in the legend.
    colors = [ax.containers[0].lines[0].get_color() for ax in figure.axes]
    assert colors == [style.NETS[0]] * 2 + [style.NETS[1]] * 2
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries == ["within wide (n = 1)", "within narrow (n = 1)"]


@pytest.mark.parametrize(
    ("values", "named"), [([0.3, 2.0], ["0.5", "1", "2"]), ([0.001, 1.0], ["0.001", "0.01", "0.1"])]
)
def test_logarithmic_axes_have_plain_numbers(values, named):
    ax = Figure().subplots()
    ax.plot(values)
    style.log_scale(ax)
    ax.figure.draw_without_rendering()
    assert set(named) <= {label.get_text() for label in ax.get_yticklabels()}
    assert not any(label.get_text() for label in ax.get_yticklabels(minor=True))


def test_what_has_no_logarithm_keeps_a_linear_axis():
    ax = Figure().subplots()
    ax.plot([-2.0, -1.0])
    style.log_scale(ax)
    assert ax.get_yscale() == "linear"


def test_long_names_of_layers_are_slanted(of_groups):
    tables, _, _ = of_groups
    names = {layer: f"features.denseblock4.{layer}.conv2" for layer in LAYERS}
    tables = {pair: table.replace({"layer": names}) for pair, table in tables.items()}
    figure = one_to_one.mean_by_layer(tables, list(names.values()))
    figure.draw_without_rendering()
    labels = figure.axes[0].get_xticklabels()
    boxes = [label.get_window_extent() for label in labels]
    assert {label.get_rotation() for label in labels} == {40}
    assert all(box.x0 >= 0 for box in boxes)


def test_fig_s10_sorts_and_counts_dead_units():
    means = {
        "net1": {"conv1": np.array([0.1, 3.0, 0.0]), "conv2": np.ones(2)},
        "net2": {"conv1": np.array([1.0, 2.0, 0.5]), "conv2": np.ones(2)},
    }
    figure = one_to_one.mean_activations(means, ["conv1", "conv2"], markers=["conv1"])
    assert not illegible(figure)
    first, second = figure.axes[0].lines
    np.testing.assert_array_equal(first.get_ydata(), [3, 0.1])
    np.testing.assert_array_equal(second.get_ydata(), [2, 1, 0.5])
    assert figure.axes[0].get_title() == "conv1\ndead: 1, 0"
    assert figure.axes[1].lines[0].get_markevery() == [0, -1]


def test_seven_panels_leave_one_place_of_eight_for_the_legend():
    layers = [f"conv{number}" for number in range(1, 8)]
    means = {f"net{number}": {layer: np.array([2.0, 1, 0]) for layer in layers} for number in "12"}
    figure = one_to_one.mean_activations(means, layers, markers=[])
    assert not illegible(figure)
    drawn = [ax for ax in figure.axes if ax.axison]
    assert [ax.get_title().split("\n")[0] for ax in drawn] == layers
    assert {ax.get_subplotspec().get_gridspec().get_geometry() for ax in drawn} == {(2, 4)}
    legend, last = (box.get_window_extent() for box in (figure.legends[0], drawn[-1]))
    assert legend.x0 > last.x1
    assert last.y0 < (legend.y0 + legend.y1) / 2 < last.y1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*means]


def test_fig_s10_says_which_nets_lack_a_layer():
    means = {
        "net1": {"conv1": np.array([3.0, 1])},
        "net2": {"conv1": np.ones(3), "conv2": np.array([2.0, 0])},
        "net3": {"conv2": np.array([1.0, 2, 3])},
    }
    figure = one_to_one.mean_activations(means, ["conv1", "conv2"], markers=["conv1"])
    lines = [[line.get_label() for line in ax.lines] for ax in figure.axes]
    assert lines == [["net1", "net2"], ["net2", "net3"]]
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["conv1\nin 2 of 3 nets", "conv2\ndead: 1, 0; in 2 of 3\nnets"]
    colors = [line.get_color() for ax in figure.axes for line in ax.lines]
    assert colors == [style.NETS[i] for i in (0, 1, 1, 2)]
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == list(means)


def test_fig_s10_shows_negative_means():
    means = {"net1": {"conv1": np.array([-0.2, 0.5, 0.0])}}
    ax = one_to_one.mean_activations(means, ["conv1"], markers=[]).axes[0]
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [0.5, -0.2])
    assert ax.get_yscale() == "linear"
    assert ax.get_title() == "conv1\ndead: 1"


def test_files_are_the_same_every_time(matches, tmp_path):
    for name in ("a", "b"):
        figure = one_to_one.matched_values(matches, LAYERS, ["net1", "net2"], CORRELATION)
        style.save(figure, tmp_path / f"{name}.png", tmp_path / f"{name}.pdf")
    for suffix in (".png", ".pdf"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > 1000


def test_fig_s1_shows_counts_on_a_log_scale(rng):
    x = np.abs(rng.normal(size=2000))
    density = np.histogram2d(x, x + 0.1 * rng.uniform(size=2000), bins=20)
    figure = one_to_one.joint_activations([density] * 4, list("abcd"), [("p", "q")] * 4)
    assert not illegible(figure)
    mesh = figure.axes[0].collections[0]
    np.testing.assert_array_equal(mesh.get_array().filled(0).reshape(20, 20), density[0].T)
    assert type(mesh.norm).__name__ == "LogNorm"
    assert [ax.get_title() for ax in figure.axes[:4]] == list("abcd")


def test_mutual_information_stands_on_an_axis_of_its_own(rng):
    matches = match_table(rng.uniform(0, 0.1, (12, 12)), "conv1", "mutual_information")
    figure = one_to_one.matched_values(
        matches, ["conv1"], ["a", "b"], registry.measure("mutual_information")
    )
    assert figure.axes[0].get_ylim()[1] < 0.2
    assert figure.get_supylabel() == "mutual information, nats"
    # Chance that is higher than the values is seen whole.
    chance = chance_tables.null_matches(12, ["conv1"]).assign(high=0.7)
    figure = one_to_one.matched_values(
        matches, ["conv1"], ["a", "b"], registry.measure("mutual_information"), chance
    )
    assert figure.axes[0].get_ylim()[1] > 0.7
