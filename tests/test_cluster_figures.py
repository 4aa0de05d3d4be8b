"""Figures of clusters show the matrices, similarities and eigenvalues that they are given."""

import numpy as np
import pandas as pd
import pytest
from legible import illegible
from matplotlib.colors import to_hex

from convergent.alignment.graphs import combined
from convergent.figures import clusters as figures
from convergent.figures import style


def layer(rng, a=6, b=5):
    values = np.corrcoef(rng.normal(size=(a + b, 30)))
    cluster = np.array([1, 0, 0, 1, 2, 0, 0, 1, 1, 0, 2])
    leaf = np.array([2, 0, 1, 2, 3, 0, 1, 2, 2, 0, 3])
    return (values[:a, :a], values[:a, a:], values[a:, a:]), pd.DataFrame(
        {"net": ["net1"] * a + ["net2"] * b, "cluster": cluster, "leaf": leaf}
    )


def squares(lines):
    return [(int(s[0, 0] + 0.5), int(s[1, 0] + 0.5)) for s in map(np.asarray, lines.get_segments())]


def test_figS5_is_the_combined_matrix_by_cluster_with_blocks_outlined(rng):
    matrices, clusters = layer(rng)
    figure = figures.permuted_matrices([("conv1", matrices, clusters)], ["net1", "net2"])
    assert not illegible(figure)
    ax = figure.axes[0]
    order = [1, 5, 9, 2, 6, 0, 3, 7, 8, 4, 10]
    np.testing.assert_array_equal(
        ax.images[0].get_array(), combined(*matrices)[np.ix_(order, order)]
    )
    assert squares(ax.collections[0]) == [(0, 3), (3, 5), (5, 9), (9, 11)]
    assert squares(ax.collections[1]) == [(0, 5), (5, 9), (9, 11)]
    assert ax.get_title() == "conv1: 3 clusters\n4 leaves"
    strip = ax.child_axes[0].images[0].get_array()
    owners = [style.NETS[unit >= 6] for unit in order]
    assert [to_hex(color) for color in strip[0]] == owners


def test_large_matrices_are_averaged_down(rng, monkeypatch):
    monkeypatch.setattr(figures, "MOST_PIXELS", 4)
    matrices, clusters = layer(rng)
    figure = figures.permuted_matrices([("conv1", matrices, clusters)], ["net1", "net2"])
    pixels = figure.axes[0].images[0].get_array()
    assert pixels.shape == (4, 4)
    order = [1, 5, 9, 2, 6, 0, 3, 7, 8, 4, 10]
    matrix = combined(*matrices)[np.ix_(order, order)]
    np.testing.assert_allclose(pixels[1, 3], matrix[3:6, 9:].mean())


def test_figS5_does_not_count_dead_units_as_a_cluster(rng):
    (xx, xy, yy), clusters = layer(rng)
    # The last cluster: unit 4 of each net.
    for matrix in (xx, xy, yy):
        matrix[4] = matrix[:, 4] = 0
    figure = figures.permuted_matrices([("conv1", (xx, xy, yy), clusters)], ["net1", "net2"])
    assert figure.axes[0].get_title() == "conv1: 2 clusters\n3 leaves (+ dead)"


def test_figS9_sorts_clusters_by_similarity_between_the_nets():
    table = pd.DataFrame(
        {
            "layer": ["conv1"] * 4 + ["fc6"],
            "leaf": [0, 1, 2, 3, 0],
            "units_a": [1, 2, 0, 3, 1],
            "units_b": [1, 2, 1, 0, 1],
            "between": [0.3, 0.6, 0, 0, 0],
            "within": [1, 0.7, 1, 0.5, 0],
        }
    )
    figure = figures.similarity_curves(table, ["conv1", "fc6"])
    assert not illegible(figure)
    within, alone, between = figure.axes[0].lines[:3]
    np.testing.assert_array_equal(between.get_ydata(), [0.6, 0.3, np.nan, np.nan])
    # Two of them have at most one unit of each net, which correlates with itself.
    np.testing.assert_array_equal(within.get_ydata(), [0.7, np.nan, np.nan, 0.5])
    np.testing.assert_array_equal(alone.get_xydata(), [[2, 1], [3, 1]])
    assert alone.get_mfc() == "none"
    assert alone.get_linestyle() == "None"
    assert "by arithmetic" in figure.legends[0].get_texts()[1].get_text()
    assert figure.axes[0].get_title() == "conv1: 2 of\n4 leaves shared"
    assert figure.axes[1].get_title() == "fc6: 0 of\n0 leaves shared"  # dead
    assert np.isnan(figure.axes[1].lines[1].get_ydata()).all()


def test_the_eigenvalue_plot_of_a_dead_layer_is_empty():
    table = pd.DataFrame({"layer": [], "number": [], "eigenvalue": []})
    figure = figures.eigenvalues(table, {"fc6": (0, 0)}, {"fc6": True})
    assert len(figure.axes[0].lines[0].get_ydata()) == 0


def test_the_eigenvalue_plot_marks_k():
    table = pd.DataFrame({"layer": "fc6", "number": [1, 2, 3], "eigenvalue": [0, 0.1, 2]})
    figure = figures.eigenvalues(table, {"fc6": (2, 1)}, {"fc6": True})
    assert not illegible(figure)
    points, line = figure.axes[0].lines
    np.testing.assert_array_equal(points.get_ydata(), [0, 0.1, 2])
    assert list(line.get_xdata()) == [2.5, 2.5]
    assert figure.axes[0].get_title() == "fc6, 1 component\nk = 2, where they jump most"


@pytest.fixture
def clusters():
    """Cluster 0 is split into a tree of three leaves, cluster 1 is of net1 alone."""
    rows = [
        ("net1", 0, 0, 0, "0/0"), ("net1", 1, 0, 2, "0/1/1"), ("net1", 2, 0, 0, "0/0"),
        ("net1", 3, 1, 3, "1"), ("net1", 4, 2, 4, "2"),
        ("net2", 0, 0, 0, "0/0"), ("net2", 1, 0, 1, "0/1/0"), ("net2", 2, 0, 2, "0/1/1"),
        ("net2", 3, 2, 4, "2"),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["net", "unit", "cluster", "leaf", "path"])


def colour(net, unit):
    return np.full((3, 3, 1), unit + 100 * (net == "net2"), np.uint8)


def placed(figure):
    """Values of the pictures, row by row from left to right."""
    rows = {}
    for image in figure.axes[0].images:
        left, _, _, top = image.get_extent()
        rows.setdefault(round(top, 2), []).append(
            (left, int(np.asarray(image.get_array())[0, 0, 0]))
        )
    return [[value for _, value in sorted(row)] for _, row in sorted(rows.items())]


def test_figS6_has_the_clusters_that_are_most_alike_side_by_side(clusters, similarity, monkeypatch):
    figure = figures.shared_clusters(clusters, similarity, colour, ["net1", "net2"], "conv1", 12)
    assert not illegible(figure)
    # Leaves 2, 4 and 0.
    assert placed(figure) == [[1, 102, 4, 103, 0, 2, 100]]
    dashed = [p for p in figure.axes[0].patches if p.get_linestyle() == "--"]
    assert len(dashed) == 4
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert [t for t in texts if t.startswith(("#", "0."))] == [
        "#1", "0.90", "#2", "0.70", "#3", "0.50",
    ]  # fmt: skip
    first = figures.shared_clusters(clusters, similarity, colour, ["net1", "net2"], "conv1", 1)
    assert placed(first) == [[1, 102]]
    monkeypatch.setattr(figures, "MOST_TILES", 9)
    rows = figures.shared_clusters(clusters, similarity, colour, ["net1", "net2"], "conv1", 12)
    assert placed(rows) == [[1, 102], [4, 103], [0, 2, 100]]


def test_figS6_says_so_where_no_cluster_is_shared(clusters):
    alone = pd.DataFrame({"leaf": [3], "units_a": [1], "units_b": [0], "between": [0.0]})
    figure = figures.shared_clusters(clusters, alone, colour, ["net1", "net2"], "conv1", 12)
    assert not illegible(figure)
    assert figure.axes[0].texts[0].get_text() == "no cluster has units of both nets"


def test_units_beyond_the_first_six_are_counted():
    members = pd.DataFrame({"net": ["net1"] * 9 + ["net2"], "unit": [*range(9), 0], "leaf": 0})
    table = pd.DataFrame({"leaf": [0], "units_a": [9], "units_b": [1], "between": [0.4]})
    figure = figures.shared_clusters(members, table, colour, ["net1", "net2"], "conv1", 8)
    assert not illegible(figure)
    assert placed(figure) == [[0, 1, 2, 3, 4, 5, 100]]
    assert "+3" in [t.get_text() for t in figure.axes[0].texts]


@pytest.fixture
def similarity():
    return pd.DataFrame(
        {"leaf": range(5), "units_a": [2, 0, 1, 1, 1], "units_b": [1, 1, 1, 0, 1],
         "between": [0.5, 0, 0.9, 0, 0.7], "within": 1.0}
    )  # fmt: skip


def test_figS8_is_the_tree_of_a_cluster_of_both_nets(clusters, similarity):
    nets = ["net1", "net2"]
    figure = figures.branches(clusters, similarity, colour, nets, "conv2")
    assert not illegible(figure)
    assert placed(figure) == [[0, 2, 100], [101], [1, 102]]
    texts = [t.get_text() for t in figure.axes[0].texts]
    parts = {"part 0\n2 + 1", "part 1\n1 + 2", "part 0\n0 + 1", "part 1\n1 + 1"}
    assert parts | {"cluster 0\n3 + 3"} <= set(texts)
    # A cluster that was not split is a tree of one leaf.
    alone = clusters[clusters["cluster"] == 2]
    assert placed(figures.branches(alone, similarity, colour, nets, "conv2")) == [[4, 103]]


def test_the_example_is_a_part_where_the_cluster_has_too_many_leaves(clusters, similarity):
    assert figures.example_cluster(clusters, similarity) == "0"
    assert figures.example_cluster(clusters, similarity, most=2) == "0/1"
    figure = figures.branches(
        clusters[clusters["leaf"] != 0], similarity, colour, ["net1", "net2"], "c"
    )
    assert placed(figure) == [[101], [1, 102]]


def test_the_example_is_not_a_heap_of_units_without_partners():
    rows = [(c, net, 4 * c + part, f"{c}/{part}") for c in (0, 1) for part in range(4)
            for net in ("net1", "net2")]  # fmt: skip
    clusters = pd.DataFrame(rows, columns=["cluster", "net", "leaf", "path"])
    similarity = pd.DataFrame(
        {"leaf": range(8), "units_a": [9] * 4 + [2] * 4, "units_b": [9] * 4 + [2] * 4,
         "between": [0.01] * 4 + [0.5] * 4}
    )  # fmt: skip
    assert figures.example_cluster(clusters, similarity) == "1"
