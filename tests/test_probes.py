"""Partners on other images than those on which they were chosen."""

import numpy as np
import pandas as pd
import pytest
import torch
from comparing import blocks_of, image_means
from legible import illegible
from running import copy_project, planned, snakemake

from convergent.activations.blocks import Cut
from convergent.activations.side_by_side import Observed
from convergent.config.run import Config
from convergent.figures.probes import draw_probes
from convergent.inference.probes import ALL, probe_table
from convergent.nets import datasets
from convergent.nets.probes import PLAIN, probed

IMAGES, UNITS = 240, 20
CUT = Cut.of(IMAGES, 6)


def views(images=6, channels=3, size=32):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(60, 200, (images, channels, size, size), generator=generator).byte()


def changed(x, change, strength, numbers=None, seed=0):
    numbers = np.arange(len(x)) if numbers is None else np.asarray(numbers)
    return probed(x, {"change": change, "strength": strength, "seed": seed}, numbers)


def test_noise_has_its_deviation_and_belongs_to_its_image():
    x = torch.full((8, 1, 64, 64), 128, dtype=torch.uint8)
    noisy = changed(x, "noise", 0.1)
    added = noisy.double() - 128
    # Rounding adds a variance of 1/12.
    assert added.std() == pytest.approx(np.sqrt(25.5**2 + 1 / 12), rel=0.03)
    assert abs(added.mean()) < 5 * 25.5 / np.sqrt(added.numel())
    parts = [changed(x[i : i + 3], "noise", 0.1, np.arange(i, min(i + 3, 8))) for i in (0, 3, 6)]
    assert torch.equal(torch.cat(parts), noisy)
    assert not torch.equal(noisy[0], noisy[1])
    assert not torch.equal(changed(x, "noise", 0.1, seed=1), noisy)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_right_angles_turn_every_pixel(turns):
    x = views()
    difference = changed(x, "rotate", 90.0 * turns).int() - torch.rot90(x, turns, (2, 3)).int()
    # Coordinates are float32: a pixel may be mixed with its neighbour by a rounding.
    assert difference.abs().max() <= 1


def test_a_blur_is_a_gaussian():
    x = torch.zeros(1, 1, 33, 33, dtype=torch.uint8)
    x[..., 16, 16] = 255
    row, column = torch.meshgrid(*2 * [torch.arange(33.0) - 16], indexing="ij")
    expected = torch.exp(-(row**2 + column**2) / (2 * 1.5**2))
    expected = 255 * expected / expected.sum()
    assert (changed(x, "blur", 1.5)[0, 0] - expected).abs().max() <= 0.55
    flat = torch.full((1, 3, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(changed(flat, "blur", 5.0), flat)


def test_contrast_moves_pixels_towards_the_mean_of_their_image():
    x = views()
    mean = x.double().mean((1, 2, 3), keepdim=True)
    expected = mean + 0.25 * (x - mean)
    assert (changed(x, "contrast", 0.75) - expected).abs().max() <= 0.51
    assert (changed(x, "contrast", 1.0) - mean).abs().max() <= 0.51


def listed(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    np.savez(
        tmp_path / "x.npz", images=rng.integers(0, 255, (60, 8, 8)).astype(np.uint8), labels=labels,
        validation=np.arange(60) >= 20,
    )  # fmt: skip
    options = {
        "validation_fraction": 0.5, "seed": 0, "labels": True, "trains": True,
    }  # fmt: skip
    listing, pixels = datasets.list_arrays("arrays", str(tmp_path / "x.npz"), **options)
    np.savez(tmp_path / "images.npz", pixels=pixels)
    listing.to_csv(tmp_path / "images.csv", index=False)
    files = {"listing": tmp_path / "images.csv", "pixels": tmp_path / "images.npz"}
    data = {"size": 8, "mean": [0.5], "std": [0.5], "validation_transform": {"resize": 8}}
    return files, data


def test_images_are_those_of_the_run_changed_in_place(tmp_path):
    files, data = listed(tmp_path)
    plain, index, _ = datasets.recorded(files, data, seed=3)
    probe = {"change": "noise", "strength": 0.2, "seed": 4}
    noisy, same, _ = datasets.recorded(files, data | {"probe": probe}, seed=3)
    np.testing.assert_array_equal(index, same)
    np.testing.assert_array_equal(plain.labels, noisy.labels)
    for rows in ([0, 5], [39]):
        x, _ = plain.__getitems__(rows)
        y, _ = noisy.__getitems__(rows)
        assert torch.equal(y, probed(x, probe, index[rows]))
    untouched, _, _ = datasets.recorded(files, data | {"probe": {}}, seed=3)
    assert torch.equal(untouched.__getitems__([2])[0], plain.__getitems__([2])[0])


def test_a_probe_of_some_classes_has_only_their_images(tmp_path):
    files, data = listed(tmp_path)
    probe = {"classes": [0, 2]}
    # At most the asked number of images, which may be more than the classes have.
    images, _, classes = datasets.recorded(files, data | {"probe": probe}, seed=3, number=39)
    assert set(images.labels) == {0, 2}
    assert (
        len(images)
        == pd.read_csv(files["listing"]).query("split == 'validation' and label != 1").shape[0]
    )
    assert classes == 3
    with pytest.raises(datasets.DataError, match=r"data\.probes: no validation image is of class"):
        datasets.recorded(files, data | {"probe": {"classes": ["seven"]}})


def observed(x, y, layer="conv1", nets=("net1", "net2")):
    three = blocks_of(CUT, x, y), blocks_of(CUT, x), blocks_of(CUT, y)
    return Observed(0, "other", *nets, layer, three, (image_means(x), image_means(y)))


def pair(rng, order, noise):
    x = rng.standard_normal((IMAGES, UNITS))
    return x, x[:, order] + noise * rng.standard_normal((IMAGES, UNITS))


def test_partners_that_hold_on_other_images_are_told_from_those_that_do_not():
    rng = np.random.default_rng(2)
    order = rng.permutation(UNITS)
    # Half of the units exchange partners on the second probe.
    broken = order.copy()
    broken[:10] = np.roll(order[:10], 1)
    sets = {
        PLAIN: pair(rng, order, 0.5),
        "kept": pair(rng, order, 1.0),
        "lost": pair(rng, broken, 0.5),
    }
    table = probe_table(
        {name: [observed(*xy)] for name, xy in sets.items()}, {("kept", "net1"): 0.5}
    )
    rows = table[table["net_a"] != ALL].set_index(["probe", "chosen_on", "scored_on"])
    strong, weak = 1 / np.sqrt(1.25), 1 / np.sqrt(2)
    near = 5 / np.sqrt(IMAGES * UNITS)
    assert rows.loc[("none", "none", "none"), "value"] == pytest.approx(strong, abs=near)
    kept = rows.loc[("kept", "none", "kept")]
    assert kept["value"] == pytest.approx(weak, abs=near)
    assert kept["low"] < weak < kept["high"]
    assert kept["same_partner"] == 1
    assert kept["p_exchanged"] == 0.01
    assert abs(kept["null_exchanged"] - weak / UNITS) < near
    assert rows.loc[("kept", "half of kept", "kept"), "value"] == pytest.approx(weak, abs=2 * near)
    lost = rows.loc[("lost", "none", "lost")]
    assert lost["value"] == pytest.approx(strong / 2, abs=near)
    assert lost["same_partner"] == 0.5
    assert rows.loc[("lost", "lost", "none"), "value"] == pytest.approx(strong / 2, abs=near)
    assert rows.loc[("lost", "half of lost", "lost"), "value"] == pytest.approx(strong, abs=near)
    assert np.isnan(kept["top1"])


def test_scores_and_intervals_are_those_of_the_definition():
    rng = np.random.default_rng(3)
    sets = {
        PLAIN: pair(rng, rng.permutation(UNITS), 1.5),
        "other": pair(rng, rng.permutation(UNITS), 1.5),
    }
    table = probe_table({name: [observed(*xy)] for name, xy in sets.items()}, {}, draws=0)
    row = table[
        (table["net_a"] != ALL) & (table["probe"] == "other") & (table["chosen_on"] == PLAIN)
    ]

    def correlations(name, rows=slice(None)):
        x, y = (z[rows] for z in sets[name])
        return np.corrcoef(x.T, y.T)[:UNITS, UNITS:]

    chosen = correlations(PLAIN)
    a, b = chosen.argmax(axis=1), chosen.argmax(axis=0)

    def score(matrix):
        each = np.arange(UNITS)
        return (matrix[each, a].mean() + matrix[b, each].mean()) / 2

    assert row["value"].item() == pytest.approx(score(correlations("other")), rel=1e-6)
    left = [
        score(correlations("other", np.r_[0:start, stop:IMAGES]))
        for start, stop in zip(CUT.edges[:-1], CUT.edges[1:], strict=True)
    ]
    error = np.sqrt(5 / 6 * ((left - np.mean(left)) ** 2).sum())
    assert row["standard_error"].item() == pytest.approx(error, rel=1e-4)


def test_units_that_are_dead_on_one_set_do_not_count():
    rng = np.random.default_rng(4)
    order = np.arange(UNITS)
    sets = {PLAIN: pair(rng, order, 0.5), "dark": pair(rng, order, 0.5)}
    sets["dark"][0][:, :5] = 0
    table = probe_table({name: [observed(*xy)] for name, xy in sets.items()}, {}, draws=0)
    rows = table[(table["net_a"] != ALL) & (table["probe"] == "dark")]
    assert (rows["n_units"] == 2 * UNITS - 5).all()
    sets["dark"] = np.zeros((IMAGES, UNITS)), sets["dark"][1]
    table = probe_table({name: [observed(*xy)] for name, xy in sets.items()}, {}, draws=0)
    rows = table[(table["net_a"] != ALL) & (table["probe"] == "dark")]
    assert rows["note"].tolist() == ["no unit is live on both sets of images"]


DATA = {
    "name": "digits", "size": 16, "mean": [0.3], "std": [0.3],
    **{key: {"resize": 16} for key in ["train_transform", "validation_transform"]},
}  # fmt: skip


def config(probes):
    nets = {"net1": {"seed": 1}, "net2": {"seed": 2}}
    return Config.model_validate({"run": "x", "nets": nets, "data": DATA | {"probes": probes}})


def test_each_strength_is_a_probe_and_changes_nothing_else():
    given = {
        "noise": {"noise": [0.1, 0.25], "seed": 2},
        "few": {"classes": [3]},
        "turned": {"rotate": 90},
    }
    run = config(given)
    assert run.probes == {
        "noise_0.1": {"change": "noise", "strength": 0.1, "classes": None, "seed": 2},
        "noise_0.25": {"change": "noise", "strength": 0.25, "classes": None, "seed": 2},
        "few": {"classes": [3], "seed": 0},
        "turned": {"change": "rotate", "strength": 90, "classes": None, "seed": 0},
    }
    # Nothing is trained or recorded again for another probe.
    assert run.origin == config({}).origin
    assert run.data.model_dump() == config({}).data.model_dump()


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ({}, "should have one of noise, rotate, blur and contrast, or classes, got none"),
        ({"noise": 0.1, "blur": 1}, "got noise and blur"),
        ({"contrast": 1.5}, "contrast: should be at most 1"),
        ({"noise": 0}, "greater than 0"),
    ],
)
def test_probes_that_cannot_be_are_named(probe, message):
    with pytest.raises(ValueError, match=message):
        config({"x": probe})


def test_a_probe_costs_one_job(tmp_path):
    copy_project(tmp_path)
    asked = "data={probes: {%s}}"
    found = [
        planned(tmp_path, "probes", "--config", asked % probes)
        for probes in ("turned: {rotate: 90}", "noise: {noise: [0.1, 0.2]}, turned: {rotate: 90}")
    ]
    assert [jobs["observe_probe"] for jobs in found] == [2, 4]
    assert {**found[0], "observe_probe": 4} == found[1]
    assert found[0].keys().isdisjoint({"record", "statistics", "correlation", "evaluate"})
    printed = snakemake(tmp_path, "-n", "probes", fails=True)
    assert "data.probes names no other images" in printed


def test_the_figure_shows_every_layer_and_probe():
    rng = np.random.default_rng(5)
    sets = {name: [] for name in (PLAIN, "noise_0.1", "turned")}
    for layer in ("conv1", "fc6"):
        for found in sets.values():
            found.append(observed(*pair(rng, np.arange(UNITS), 0.5), layer))
    table = probe_table(sets, {(name, net): 0.5 for name in sets for net in ("net1", "net2")})
    figure = draw_probes(table)
    assert not illegible(figure)
    drawn = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title(loc="left") for ax in drawn] == ["conv1", "fc6", "top-1 accuracy"]
    assert [label.get_text() for label in drawn[0].get_xticklabels()] == list(sets)
