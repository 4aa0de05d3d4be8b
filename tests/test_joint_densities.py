"""Joint distributions count the activations of the pairs that are shown."""

import numpy as np
import pandas as pd
import pytest

from convergent.measures import joint_densities
from convergent.running.stores import new_store, open_store, save


def matches(values):
    rows = [("conv1", "correlation", "matching", "ab", i, 7 - i, v) for i, v in enumerate(values)]
    rows += [("conv1", "correlation", "semi", "ab", 0, 0, 0.99)]
    rows += [("conv2", "correlation", "matching", "ab", i, i, 0.01 * i) for i in range(4)]
    names = ["layer", "measure", "method", "direction", "unit", "partner", "value"]
    return pd.DataFrame(rows, columns=names)


def test_best_and_worst_visible_pairs_are_shown():
    pairs = joint_densities.shown_pairs(matches([0.5, 0.05, 0.9, 0.2]), ["conv1", "conv2"])
    assert pairs["conv1"]["unit"].tolist() == [2, 3]
    assert pairs["conv2"]["unit"].tolist() == [3, 0]  # hardly any correlates: best and worst


def test_densities_count_the_stored_activations(rng, tmp_path, monkeypatch):
    monkeypatch.setattr(joint_densities, "IMAGES", 40)
    data = [np.maximum(rng.normal(size=(60, 3, 4, 8)), 0).astype(np.float16) for _ in range(2)]
    for name, values in zip("ab", data, strict=True):
        with new_store(tmp_path / name) as group:
            save(group, "conv1", values, ("image", "y", "x", "unit"))
    information = rng.random((8, 8)).astype(np.float32)
    with new_store(tmp_path / "nats") as group:
        save(group, "conv1/mutual_information", information, ("unit_a", "unit_b"))
    pairs = joint_densities.shown_pairs(matches([0.5, 0.05, 0.9, 0.2]), ["conv1"])
    values = [
        joint_densities.stored_values(
            tmp_path / name, {layer: rows[side].to_numpy() for layer, rows in pairs.items()}
        )
        for name, side in (("a", "unit"), ("b", "partner"))
    ]
    joint_densities.write_joint_densities(tmp_path / "j", pairs, *values, tmp_path / "nats")
    found = joint_densities.load_joint_densities(tmp_path / "j")
    assert [entry[:3] for entry in found] == [("conv1", "high", [2, 5]), ("conv1", "low", [3, 4])]
    for _, _, units, value, nats, (counts, *edges) in found:
        columns = [d[:40, ..., u].ravel() for d, u in zip(data, units, strict=True)]
        assert counts.sum() == 40 * 12
        np.testing.assert_array_equal(counts, np.histogram2d(*columns, bins=edges)[0])
        assert nats == information[tuple(units)]
        assert value in (0.9, 0.2)
    assert open_store(tmp_path / "j").attrs["layers"] == ["conv1"]


def test_a_layer_whose_units_are_all_dead_is_left_out():
    assert list(joint_densities.shown_pairs(matches([]), ["conv1", "conv2"])) == ["conv2"]


def test_negative_activations_are_counted(rng):
    x, y = rng.normal(size=(2, 500)).astype(np.float32)
    counts, edges_x, edges_y = joint_densities.joint_density(x, np.maximum(y, 0.5))
    assert counts.sum() == 500
    assert (edges_x[0], edges_x[-1]) == pytest.approx((x.min(), x.max()))
    assert (edges_y[0], edges_y[-1]) == pytest.approx((0, y.max()))
