"""Nets along their training: similarity by epoch, and the epochs at which units settle."""

import numpy as np
import pandas as pd
import pytest
import torch
from comparing import blocks_of, comparison, flat, image_means
from legible import illegible
from precision import rounding
from running import copy_project, planned

from convergent.activations.blocks import Cut
from convergent.activations.moments import Moments
from convergent.activations.side_by_side import (
    Observed,
    observe_side_by_side,
    observed,
    read_accuracy,
)
from convergent.config.run import Config
from convergent.figures.dynamics import draw_dynamics, draw_settling
from convergent.inference.dynamics import ALL, dynamics_table
from convergent.inference.estimates import estimates, ways
from convergent.inference.nulls import rotations
from convergent.inference.settling import kept, settling
from convergent.measures.registry import measure
from convergent.nets import models, training

EPOCHS = [0.0, 0.5, 1.0, 4.0]
IMAGES, UNITS = 240, 12
CUT = Cut.of(IMAGES, 6)
# Epoch from which each unit of the second net is what it is at the end.
SETTLES = np.repeat(EPOCHS, 3)


def course(rng, noise=0.3):
    """Activations of two nets at each epoch: units of the second settle one after another.

    At the end unit i of the second net is the noisy unit order[i] of the first, which does not
    change.
    """
    order = rng.permutation(UNITS)
    first = rng.standard_normal((IMAGES, UNITS))
    last = first[:, order] + noise * rng.standard_normal((IMAGES, UNITS))
    found = {}
    for epoch in EPOCHS:
        fresh = rng.standard_normal((IMAGES, UNITS))
        # A little of what the unit will be belongs to the next one, so that the partner is another.
        early = 0.8 * np.roll(last, 1, axis=1) + 0.5 * fresh
        found[epoch] = {"net1": first, "net2": np.where(epoch >= SETTLES, last, early)}
    return order, found


def all_observed(found, layer="conv1"):
    nets = sorted(next(iter(found.values())))
    ends = found[max(found)]
    for epoch, now in found.items():
        for n, a in enumerate(nets):
            for b in nets[n + 1 :]:
                yield of_two(epoch, "other", a, b, layer, now[a], now[b])
        if epoch < max(found):
            for net in nets:
                yield of_two(epoch, "final", net, net, layer, now[net], ends[net])


def of_two(epoch, compared, a, b, layer, x, y):
    three = blocks_of(CUT, x, y), blocks_of(CUT, x), blocks_of(CUT, y)
    return Observed(epoch, compared, a, b, layer, three, (image_means(x), image_means(y)))


def test_what_stays_true_is_kept():
    same = np.random.default_rng(0).random((7, 50)) < 0.7
    expected = [[same[e:, u].all() for u in range(50)] for e in range(7)]
    np.testing.assert_array_equal(kept(same), expected)


def test_units_settle_when_they_were_planted_to():
    order, found = course(np.random.default_rng(1))
    result = settling(all_observed(found), draws=19)
    units = result.units.set_index(["net", "unit"])
    of_second = units.loc["net2"]
    np.testing.assert_array_equal(of_second["partner"], order)
    np.testing.assert_array_equal(of_second["settled"], SETTLES)
    np.testing.assert_array_equal(of_second["itself"], SETTLES)
    # A unit of the first keeps its partner once that is what it will be.
    of_first = units.loc["net1"]
    np.testing.assert_array_equal(of_first["partner"], np.argsort(order))
    np.testing.assert_array_equal(of_first["settled"], SETTLES[np.argsort(order)])
    assert (of_first["itself"] == 0).all()
    expected = np.corrcoef(found[4.0]["net2"].T, found[4.0]["net1"].T)[:UNITS, UNITS:].max(axis=1)
    np.testing.assert_allclose(of_second["correlation"], expected, rtol=1e-6)

    shares = result.shares[result.shares["matched"] == "all"].set_index(["keeps", "epoch"])
    planted = [(epoch >= SETTLES).mean() for epoch in EPOCHS]
    np.testing.assert_allclose(shares.loc["partner", "share"], planted)
    # The first net is at its end from the beginning.
    np.testing.assert_allclose(shares.loc["itself", "share"], (1 + np.asarray(planted)) / 2)
    assert (shares["n_units"] == 2 * UNITS).all()
    assert (shares["n_images"] == IMAGES).all()
    # All planted correlations are above .5.
    badly = result.shares[result.shares["matched"] == "badly"]
    assert (badly["n_units"] == 0).all()
    assert badly["share"].isna().all()


def test_the_null_of_settling_is_that_of_exchanged_partners():
    """One unit of 12 that exchange partners gets its final one by chance."""
    _, found = course(np.random.default_rng(2))
    result = settling(all_observed(found), draws=400, seed=3).shares
    rows = result[(result["keeps"] == "itself") & (result["matched"] == "all")].set_index("epoch")
    # Each net's units are permuted among distinct final states: one of 12 is itself on average.
    null = rows.loc[1.0, "null_shuffled"]
    error = np.sqrt(1 / (2 * UNITS) ** 2 * 2 / 400)
    assert abs(null - 1 / UNITS) < 5 * error
    assert rows.loc[0.0, "null_shuffled"] < null
    assert rows.loc[1.0, "p_shuffled"] == 1 / 401
    # By definition all have settled at the end.
    last = rows.loc[4.0]
    assert last["share"] == 1
    assert last[["low", "high", "null_shuffled", "p_shuffled"]].isna().all()


def test_intervals_of_shares_come_from_leaving_out_blocks():
    """Partners are chosen anew from the images that are left."""
    _, found = course(np.random.default_rng(4), noise=2.5)
    whole = settling(all_observed(found), draws=0).shares
    values = []
    for start, stop in zip(CUT.edges[:-1], CUT.edges[1:], strict=True):
        rows = np.r_[0:start, stop:IMAGES]
        partners, ends = [], None
        for epoch in EPOCHS:
            x, y = (found[epoch][net][rows] for net in ("net1", "net2"))
            between = np.corrcoef(x.T, y.T)[:UNITS, UNITS:]
            partners.append(np.r_[between.argmax(axis=1), between.argmax(axis=0)])
            ends = partners[-1]
        values.append((kept(np.stack(partners) == ends)).mean(axis=1))
    values = np.stack(values)
    rows = whole[(whole["keeps"] == "partner") & (whole["matched"] == "all")]
    error = np.sqrt(5 / 6 * ((values - values.mean(axis=0)) ** 2).sum(axis=0))
    assert error[:-1].max() > 0
    np.testing.assert_allclose(
        rows["standard_error"].to_numpy()[:-1], error[:-1], rtol=1e-9, atol=1e-12
    )


def test_one_epoch_shows_no_settling():
    _, found = course(np.random.default_rng(5))
    with pytest.raises(ValueError, match="one epoch shows no settling"):
        settling(all_observed({4.0: found[4.0]}))


def test_dead_units_have_no_partner_and_do_not_count():
    _, found = course(np.random.default_rng(6))
    for now in found.values():
        now["net1"] = now["net1"].copy()
        now["net1"][:, 5] = 0
    result = settling(all_observed(found), draws=0)
    assert 5 not in result.units.set_index("net").loc["net1", "unit"].to_numpy()
    assert (result.units.set_index("net").loc["net2", "partner"] != 5).all()
    assert result.shares["n_units"].max() == 2 * UNITS - 1


def test_similarity_along_training_is_that_of_each_comparison():
    _, found = course(np.random.default_rng(7))
    accuracy = {
        (epoch, net): 0.1 * epoch + (net == "net2") for epoch in EPOCHS for net in ("net1", "net2")
    }
    table = dynamics_table(all_observed(found), accuracy, draws=19, seed=2)
    rows = table[table["net_a"] != ALL].set_index(
        ["compared", "epoch", "net_a", "measure", "direction"]
    )
    now = found[0.5]
    alone = comparison(now["net1"], now["net2"], cut=CUT)
    drawn = {"rotation": rotations(alone.split, 19, 2)}
    expected, _ = estimates(
        [w for w in ways([measure("semi_mean")]) if not w.of_codes], alone, drawn
    )
    for way in expected:
        found_row = rows.loc["other", 0.5, "net1", "semi_mean", way["direction"]]
        for name in ("value", "held_out", "low", "high", "null_rotation", "p_rotation", "n_images"):
            assert found_row[name] == pytest.approx(way[name], rel=1e-9), name
        assert found_row["top1"] == pytest.approx(0.05 + 0.5)
    # The first net never changes.
    final = rows.loc["final"].loc[:, "net1", ["semi_mean", "matching_mean", "cka", "cka_unbiased"]]
    np.testing.assert_allclose(final["value"].astype(float), 1, rtol=1e-6)
    assert set(rows.loc["final"].index.unique("epoch")) == set(EPOCHS[:-1])
    assert rows.loc["final", 0.5, "net2", "cka", ""]["top1"] == pytest.approx(1.05)


def test_means_over_nets_have_an_interval_from_three_nets_on():
    rng = np.random.default_rng(8)
    _, found = course(rng)
    table = dynamics_table(all_observed(found), {}, draws=0)
    over = table[table["net_a"] == ALL]
    assert over["low_nets"].isna().all()
    assert over["note"].str.contains("too few; 3 are needed").all()
    for now in found.values():
        now["net3"] = now["net2"] + rng.standard_normal((IMAGES, UNITS))
    table = dynamics_table(all_observed(found), {}, draws=0)
    keys = ["epoch", "compared", "measure", "parameter", "sample"]
    table = table.fillna({"parameter": ""})
    over = table[table["net_a"] == ALL].set_index(keys).sort_index()
    single = table[table["net_a"] != ALL].groupby(keys)["value"].mean().sort_index()
    np.testing.assert_allclose(over["value"].astype(float), single, rtol=1e-12)
    assert (over["n_nets"] == 3).all()
    assert over["low_nets"].notna().all()


def small(seed):
    return models.build(
        "alexnet", size=16, inputs=1, classes=3, channels=(4, 6, 8, 8, 6),
        fully_connected=(10, 9), kernel=3, stride=1, padding=1, init="kaiming",
    )  # fmt: skip


def started(seed):
    net = small(seed)
    net.load_state_dict(training.untrained(lambda: small(seed), seed))
    return net


def test_nets_are_observed_beside_each_other_and_their_final_states(tmp_path):
    views = torch.rand(70, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    final = {"net1": started(1), "net2": started(2)}
    early = {"net1": started(3), "net2": started(4)}
    options = {"image_index": np.arange(70), "blocks": 5, "dtype": "float32"}
    batches = dict.fromkeys(final, views.split(16))
    layers = ["conv1", "fc6"]
    observe_side_by_side(early, final, batches, layers, tmp_path / "1", **options)
    observe_side_by_side(final, {}, batches, layers, tmp_path / "2", **options)

    def activations(net, layer):
        found = []
        hook = models.activation(net, layer).register_forward_hook(lambda m, i, o: found.append(o))
        with models.evaluating(net), torch.no_grad():
            for batch in views.split(16):
                net(batch)
        hook.remove()
        whole = torch.cat(found)
        return whole.permute(0, *range(2, whole.ndim), 1).numpy()

    each = list(observed({1: tmp_path / "1", 2: tmp_path / "2"}, layers))
    assert [(o.layer, o.epoch, o.compared, o.net_a, o.net_b) for o in each] == [
        (layer, epoch, *rest)
        for layer in layers
        for epoch, *rest in [
            (1, "other", "net1", "net2"), (1, "final", "net1", "net1"),
            (1, "final", "net2", "net2"), (2, "other", "net1", "net2"),
        ]
    ]  # fmt: skip
    for o in each:
        now = early if o.epoch == 1 else final
        x = activations(now[o.net_a], o.layer)
        y = activations((final if o.compared == "final" else now)[o.net_b], o.layer)
        near = 2 * rounding(flat(x), flat(y))
        for blocks, pair in zip(o.blocks, ((x, y), (x, x), (y, y)), strict=True):
            expected = Moments.of(*map(flat, pair)).correlation()
            np.testing.assert_allclose(blocks.total().correlation(), expected, atol=near)
        for means, z in zip(o.image_means, (x, y), strict=True):
            np.testing.assert_allclose(means, image_means(z), rtol=near, atol=near)


def test_accuracy_is_read_by_epoch(tmp_path):
    for epoch, top1 in ((1, [0.5, None]), (2, [0.9, 0.8])):
        (tmp_path / str(epoch)).mkdir()
        pd.DataFrame({"net": ["net1", "net2"], "top1": top1}).to_csv(
            tmp_path / str(epoch) / "accuracy.csv", index=False
        )
    found = read_accuracy({1: tmp_path / "1", 2: tmp_path / "2"})
    assert found[1, "net1"] == 0.5
    assert found[2, "net2"] == 0.8
    assert np.isnan(found[1, "net2"])


SNAPSHOTS = {"snapshots": [0, 0.5, 2], "epochs": 4}
NETS = {"net1": {"seed": 1}, "net2": {"seed": 2}, "start": {"seed": 3, "epochs": 0}}


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        (
            {"training": {"epochs": 4}},
            "dynamics: training.snapshots keeps no moment before the end",
        ),
        ({"dynamics": {"nets": ["net1"]}}, "dynamics.nets: got net1; name two or more of net1, "),
        ({"dynamics": {"nets": ["net1", "nett"]}}, "dynamics.nets: 'nett' is none of the nets"),
        ({"dynamics": {"nets": ["net1", "start"]}}, "dynamics.nets: start is untrained; only nets"),
        (
            {"nets": {**NETS, "net2": {"seed": 2, "epochs": 6}}},
            "dynamics: nets are trained for equally many epochs, not net1 for 4, net2 for 6",
        ),
    ],
)
def test_nets_that_cannot_be_followed_are_named(overlay, message):
    digits = {"name": "digits", "size": 16, "mean": [0.3], "std": [0.3]}
    digits |= {key: {"resize": 16} for key in ["train_transform", "validation_transform"]}
    digits = {"name": "digits", "size": 16, "mean": [0.3], "std": [0.3]}
    digits |= {key: {"resize": 16} for key in ["train_transform", "validation_transform"]}
    values = {"run": "x", "nets": NETS, "data": digits, "training": SNAPSHOTS} | overlay
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        Config.model_validate(values).followed()


def test_an_epoch_costs_one_job(tmp_path):
    copy_project(tmp_path)
    asked = "training={epochs: 3, snapshots: [%s], batch_size: 8}"
    jobs = [
        planned(tmp_path, "dynamics", "settling", "--config", asked % epochs)
        for epochs in ("0, 1", "0, 0.5, 1, 2")
    ]
    assert jobs[0]["observe_epoch"] == 3
    assert jobs[1]["observe_epoch"] == 5
    assert {**jobs[0], "observe_epoch": 5} == jobs[1]
    assert jobs[0].keys().isdisjoint({"record", "correlation", "statistics", "evaluate"})


def test_figures_show_every_layer():
    rng = np.random.default_rng(9)
    layers = ["conv1", "conv2", "fc6"]
    each = [o for layer in layers for o in all_observed(course(rng)[1], layer)]
    accuracy = {(epoch, net): 0.2 * epoch for epoch in EPOCHS for net in ("net1", "net2")}
    figure = draw_dynamics(dynamics_table(each, accuracy, draws=19))
    assert not illegible(figure)
    titles = [ax.get_title(loc="left") for ax in figure.axes if ax.get_visible()]
    assert titles == [*layers, "top-1 accuracy"] * 2
    shares = settling(each, draws=19).shares
    figure = draw_settling(shares)
    assert not illegible(figure)
    drawn = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title(loc="left").split("\n")[0] for ax in drawn] == layers
    well = shares[(shares["matched"] == "well") & (shares["keeps"] == "partner")]
    line = next(line for line in drawn[0].lines if "partner" in line.get_label())
    np.testing.assert_allclose(line.get_ydata(), well[well["layer"] == "conv1"]["share"])
