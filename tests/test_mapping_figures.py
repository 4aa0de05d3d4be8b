"""Figures of sparse maps show the weights, trees and losses that they are given."""

import numpy as np
import pandas as pd
import pytest
from legible import illegible
from matplotlib.patches import FancyArrowPatch
from scipy.optimize import linear_sum_assignment

from convergent.alignment.clustering import hac, leaf_order, shared_subspaces, spans
from convergent.figures import sparse_maps as figures
from convergent.figures.sheets import PICTURE

NETS = ("net1", "net2")


@pytest.fixture
def weights(rng):
    """Two nets of 12 units: groups of three units of each share one subspace."""
    groups = np.repeat(np.arange(4), 3)
    weights = np.where(groups[:, None] == groups, rng.uniform(0.2, 0.6, (12, 12)), 0)
    weights[5] = 0
    return weights[rng.permutation(12)]


def colour(net, unit, kind):
    """A picture that tells who is on it."""
    return np.full((3, 3, 3), (NETS.index(net), unit, kind == "deconv"), np.uint8)


def pictured(ax):
    """Who is on the pictures of axes, with the places of their upper left corners."""
    found = []
    for image in ax.images:
        net, unit, deconv = (int(v) for v in np.asarray(image.get_array())[0, 0])
        if image.get_gid() == PICTURE:
            found.append(((NETS[net], unit, bool(deconv)), image.get_extent()))
    return found


def texts(figure):
    return [t.get_text() for ax in figure.axes for t in ax.texts]


@pytest.mark.parametrize(
    ("decay", "label"), [(0, "0"), (1e-3, "$10^{-3}$"), (10**-2.6, "$10^{-2.6}$")]
)
def test_decays_are_written_as_in_the_paper(decay, label):
    assert figures.decay_label(decay) == label


def test_fig5_has_the_map_of_every_layer_between_the_nets(weights):
    maps = {"conv1": (0.01, weights, 0.25), "fc6": (0.0, weights[:7, :5], 0.125)}
    figure = figures.mapping_layers(maps, NETS)
    assert not illegible(figure)
    shown = [ax.images[0].get_array().data for ax in figure.axes if ax.images]
    np.testing.assert_array_equal(shown[0], np.abs(weights))
    np.testing.assert_array_equal(shown[1], np.abs(weights[:7, :5]))
    titles = [ax.get_xlabel() for ax in figure.axes if "loss" in ax.get_xlabel()]
    assert "$10^{-2}$" in titles[0]
    assert "loss 0.250" in titles[0]
    assert f"{np.count_nonzero(weights) / 12:.1f} weights per unit" in titles[0]
    assert texts(figure) == ["net1, conv1", "net2, conv1", "net1, fc6", "net2, fc6"]
    arrows = [p for ax in figure.axes for p in ax.patches if isinstance(p, FancyArrowPatch)]
    assert len(arrows) == 4
    figure.draw_without_rendering()
    for arrow in arrows:
        # The shaft is longer than the head.
        assert arrow.get_window_extent().height > 2 * 9 * figure.dpi / 72 * 0.4
    for ax in figure.axes:
        if ax.images:
            assert ax.get_xlabel() == "unit of net1"


@pytest.mark.parametrize("shape", [(12, 12), (9, 12), (12, 9)])
def test_fig6_permutes_the_most_predictive_units_to_the_diagonal(weights, shape):
    weights = weights[: shape[0], : shape[1]]
    figure = figures.learned_map(weights, NETS, "conv1", 0.01, colour)
    assert not illegible(figure)
    learned, permuted = (np.asarray(ax.images[0].get_array()) for ax in figure.axes[:2])
    np.testing.assert_array_equal(learned, weights)
    if shape[0] != shape[1]:
        permuted = np.delete(permuted, 9, axis=int(shape[1] > shape[0]))  # the gap
    assert permuted.shape == weights.shape
    np.testing.assert_array_equal(np.sort(permuted.ravel()), np.sort(weights.ravel()))
    best = weights[linear_sum_assignment(weights, maximize=True)].sum()
    assert np.trace(permuted[:9, :9] if shape != (12, 12) else permuted) == pytest.approx(best)
    # The coloured rows are those of the example units in both panels.
    for ax in figure.axes[:2]:
        for box, unit in zip(ax.patches, figures.example_units(weights), strict=True):
            row = np.asarray(ax.images[0].get_array())[round(box.get_y() + 0.5)]
            np.testing.assert_array_equal(np.sort(row[~np.isnan(row)]), np.sort(weights[unit]))


def test_fig6_keeps_the_diagonal_where_units_have_no_weights(weights):
    weights[[1, 4]], weights[:, [0, 2, 7]] = 0, 0
    figure = figures.learned_map(weights, NETS, "conv1", 0.01, colour)
    permuted = figure.axes[1].images[0].get_array().data
    best = weights[linear_sum_assignment(weights, maximize=True)].sum()
    assert np.trace(permuted) == pytest.approx(best)
    np.testing.assert_array_equal(np.sort(permuted, axis=1), np.sort(weights, axis=1))


def test_fig6_shows_two_units_with_three_that_predict_them(weights):
    figure = figures.learned_map(weights, NETS, "conv1", 0.01, colour)
    shown = texts(figure)
    for unit in figures.example_units(weights):
        strongest = np.argsort(-np.abs(weights[unit]))[:3]
        assert f"net2, unit {unit}" in shown
        for source in strongest:
            assert f"net1\nunit {source}" in shown
            assert f"{weights[unit, source]:.2f}" in shown
    expected = set()
    for unit in figures.example_units(weights):
        sources = np.flatnonzero(weights[unit]).tolist()
        for kind in (False, True):
            expected |= {("net2", int(unit), kind), *(("net1", s, kind) for s in sources)}
    assert {who for who, _ in pictured(figure.axes[2])} == expected


def test_example_units_have_three_sources_that_count():
    weights = np.array([[0.9, 0, 0, 0], [0.3, 0.3, 0.2, 0], [0.2, 0.2, 0.1, 0.1], [0, 0, 0, 0]])
    np.testing.assert_array_equal(figures.example_units(weights), [1, 2])


def test_example_units_do_not_share_their_predictors_if_others_are_there():
    weights = np.zeros((4, 8))
    weights[0, :3], weights[1, [0, 1, 3]], weights[2, 4:7] = 0.9, 0.8, 0.2
    np.testing.assert_array_equal(figures.example_units(weights), [0, 2])


def test_fig7_draws_each_cluster_on_the_matrix_in_leaf_order(weights):
    tree = hac(weights)
    figure = figures.cluster_tree(weights, tree, NETS, "conv1", 0.01, colour)
    assert not illegible(figure)
    whole = figure.axes[0]
    pixels = whole.images[0].get_array()
    order = leaf_order(tree)
    b = np.block([[np.eye(12), weights], [weights.T, np.eye(12)]])[np.ix_(order, order)]
    off = ~np.eye(24, dtype=bool)
    np.testing.assert_allclose(pixels[off][:, 0] / 255, (b / weights.max())[off], atol=1 / 255)
    for place, unit in enumerate(order):
        red, _, blue = pixels[place, place]
        assert (blue > red) == (unit < 12)
    corners = whole.collections[0].get_segments()
    joined = [
        tuple(span) for span, height in zip(spans(tree), tree[:, 2], strict=True) if height < 0.9999
    ]
    assert [(c[0][0] + 0.5, c[2][1] - 0.5) for c in corners] == joined
    # The matrix, two enlarged parts, and the scale.
    assert len(figure.axes) == 4
    figure.draw_without_rendering()
    frames = [p for p in whole.patches if not p.get_fill()]
    assert len(frames) == 2
    for frame in frames:
        corners = frame.get_corners()
        assert corners.min() >= -0.5
        assert corners.max() <= 23.5
    for letter in whole.texts:
        box = letter.get_window_extent().transformed(whole.transData.inverted())
        assert -0.5 <= box.x0 < box.x1 <= 23.5
    names = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    start, stop = shared_subspaces(tree, 12)[0]
    assert names == [f"net1, {u}" if u < 12 else f"net2, {u - 12}" for u in order[start : stop + 1]]
    for (net, unit, _), (*_, top) in pictured(figure.axes[1]):
        assert names[round(top - start + 0.47)] == f"{net}, {unit}"
    assert len(pictured(figure.axes[1])) == 2 * len(names)


def test_fig7_of_a_map_without_weights_has_no_clusters():
    figure = figures.cluster_tree(
        np.zeros((3, 3)), hac(np.zeros((3, 3))), NETS, "conv1", 0.1, colour
    )
    assert figure.axes[0].collections[0].get_segments() == []


@pytest.fixture
def table():
    decays = [0, 1e-5, 3e-4, 1e-3, 1e-1]
    rows = [
        {"layer": layer, "direction": d, "solver": "exact", "decay": decay, "loss": 0.1 * i,
         "held_out_loss": 0.1 * i + 0.01, "nonzero_per_unit": 8.0 - i, "relative_gap": 1e-7}
        for layer in ("conv1", "fc6") for d in ("ab", "ba") for i, decay in enumerate(decays)
    ]  # fmt: skip
    extra = dict(rows[0], solver="sgd", loss=0.25, held_out_loss=np.nan)
    return pd.DataFrame([*rows, extra])


def test_loss_curves_mark_the_papers_decays(table):
    figure = figures.sparse_loss(table, ["conv1", "fc6"], NETS)
    assert not illegible(figure)
    lines = figure.axes[0].lines
    np.testing.assert_allclose(lines[0].get_ydata(), [0, 0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(lines[1].get_ydata(), [0.01, 0.11, 0.21, 0.31, 0.41])
    # All decays but 3e-4 are the paper's.
    assert lines[0].get_markevery() == [0, 1, 3, 4]
    assert lines[0].get_marker() != lines[3].get_marker()  # of another layer
    np.testing.assert_allclose(lines[2].get_ydata(), [0.25])
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert labels == ["conv1", "fc6", "held-out images", "SGD"]


def test_table1_as_a_picture_has_every_number():
    table = pd.DataFrame(
        {"layer": ["conv1"] * 2 + ["fc6"] * 2, "decay": [0, 0.1] * 2, "pair": "a-b",
         "exact": [0.1, 0.5, 0.2, 0.5], "sgd": [0.15, 0.51, np.nan, np.nan],
         "paper": [0.17, 0.517, np.nan, np.nan]}
    )  # fmt: skip
    figure = figures.loss_table(table)
    assert not illegible(figure)
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert rows == ["conv1, exact", "conv1, SGD", "conv1, paper, ImageNet", "fc6, exact"]
    expected = ["0.100", "0.500", "0.150", "0.510", "0.170", "0.517", "0.200", "0.500"]
    assert texts(figure) == expected
    figure = figures.loss_table(table.assign(sgd=np.nan))
    assert len(figure.axes[0].get_yticklabels()) == 3
