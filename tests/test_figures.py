"""Figures show the numbers that they are given."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from convergent.figures import one_to_one, style
from convergent.measures import registry
from convergent.measures.matching import match_table, matching

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
    images = [ax.images[0] for ax in figure.axes if ax.images]
    shown = [image.get_array().data for image in images]
    np.testing.assert_array_equal(shown[2], similarity)
    np.testing.assert_array_equal(np.diag(shown[3]), similarity[np.arange(12), partner])
    assert len({image.get_clim() for image in images}) == 1
    assert images[0].get_clim()[1] == within.max()
    assert {image.get_cmap().name for image in images} == {"gray"}


def test_fig1_shows_units_without_partner_last(rng):
    similarity = rng.uniform(size=(3, 5))
    partner = matching(similarity)
    figure = one_to_one.correlation_matrices(
        np.eye(3), np.eye(5), similarity, partner, ["net1", "net2"], "conv1"
    )
    shown = figure.axes[3].images[0].get_array().data
    assert shown.shape == (3, 5)
    np.testing.assert_array_equal(shown[:, :3], similarity[:, partner])


def test_fig1_puts_units_left_over_where_a_partner_is_missing(rng):
    similarity = rng.uniform(0.1, 1, size=(5, 6))
    similarity[1], similarity[:, 3] = 0, 0
    partner = matching(similarity)
    figure = one_to_one.correlation_matrices(
        np.eye(5), np.eye(6), similarity, partner, ["net1", "net2"], "conv1"
    )
    shown = figure.axes[3].images[0].get_array().data
    paired = np.flatnonzero(partner >= 0)
    np.testing.assert_array_equal(np.diag(shown)[paired], similarity[paired, partner[paired]])
    np.testing.assert_array_equal(np.sort(shown, axis=1), np.sort(similarity, axis=1))


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


def test_fig4_counts_live_units_only():
    similarity = np.zeros((4, 4))
    similarity[:3, 1:3] = [[0.9, -0.9], [0.8, -0.9], [0.7, -0.9]]
    tables = {"a-b": match_table(similarity, "conv1", "correlation")}
    ax = one_to_one.mean_by_layer(tables, ["conv1", "conv2"]).axes[0]
    # Three live units of a; of b two, one of which has no partner.
    np.testing.assert_allclose(
        [bar.get_height() for bar in ax.patches], [0.8, np.nan, 0.45, np.nan]
    )


def test_fig_s10_sorts_and_counts_silent_units():
    means = {
        "net1": {"conv1": np.array([0.1, 3.0, 0.0]), "conv2": np.ones(2)},
        "net2": {"conv1": np.array([1.0, 2.0, 0.5]), "conv2": np.ones(2)},
    }
    figure = one_to_one.mean_activations(means, ["conv1", "conv2"], markers=["conv1"])
    first, second = figure.axes[0].lines
    np.testing.assert_array_equal(first.get_ydata(), [3, 0.1])
    np.testing.assert_array_equal(second.get_ydata(), [2, 1, 0.5])
    assert figure.axes[0].get_title() == "conv1 (1/0 silent)"
    assert figure.axes[1].lines[0].get_markevery() == [0, -1]


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
    assert figure.axes[0].get_ylabel() == "mutual information, nats"
