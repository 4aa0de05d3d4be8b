"""A net goes on from a layer of another as well as the map of their units carries it."""

import numpy as np
import pandas as pd
import pytest
import torch
from legible import illegible
from scipy.linalg import orthogonal_procrustes
from torch import nn

from convergent.activations.layouts import Layout
from convergent.activations.moments import Moments
from convergent.consequences.stitching import Seam, maps, stitch
from convergent.figures.stitching import stitched_accuracy
from convergent.nets import models
from convergent.nets.places import places, tapping

IMAGES, HALF = 40, 20


def conv_net(seed=0, units=6, kernel=3):
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, units, kernel, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(units * 16, 3),
    )  # fmt: skip
    with torch.no_grad():
        net[4].weight *= 10
    return net


def permuted(net, order):
    """The same function, whose unit i is unit order[i] of the net."""
    twin = conv_net()
    twin.load_state_dict(net.state_dict())
    with torch.no_grad():
        twin[0].weight.copy_(net[0].weight[order])
        twin[0].bias.copy_(net[0].bias[order])
        twin[4].weight.copy_(net[4].weight.view(3, -1, 16)[:, order].flatten(1))
    return twin


@pytest.fixture
def images(rng):
    return torch.tensor(rng.standard_normal((IMAGES, 1, 8, 8)), dtype=torch.float32)


@pytest.fixture
def labels(rng):
    return rng.integers(0, 3, IMAGES)


def outputs(net, images, place="1"):
    kept = []
    with torch.no_grad(), tapping(net, [place], lambda _, x: kept.append(x.clone())) as run:
        run(images)
    return kept[0].movedim(1, -1).flatten(0, -2).numpy()


def stitched(nets, images, labels, seams, layers=("1",), layouts=None, **options):
    named = layouts or {layer: layer for layer in layers}
    return stitch(
        nets, lambda: zip(images.split(7), images.split(7), strict=True), labels, (named, named),
        layers, seams, half=HALF, number=3, **options,
    )  # fmt: skip


def from_moments(nets, images, decays=(), place="1"):
    x, y = (outputs(net, images, place) for net in nets)
    between, source, target = Moments.of(x, y), Moments.of(x), Moments.of(y)
    found = [
        Seam.of(name, "none", weights, source, target)
        for name, weights in maps(between, source, decays)
    ]
    return lambda layer: (found, found)


def test_a_net_stitched_to_itself_by_the_identity_is_itself_to_the_last_bit(images, labels):
    net = conv_net()
    within = Moments.of(outputs(net, images))
    same = Seam.of(("identity", ""), "none", np.eye(6), within, within)
    table = stitched((net, net), images, labels, lambda layer: ([same], [same]))
    own, identity = (table[table["map"] == name] for name in ("own", "identity"))
    for column in ("loss", "top1"):
        assert identity[column].tolist() == own[column].tolist()


def test_a_permuted_copy_is_carried_by_its_matching_and_by_every_map_of_full_rank(images, labels):
    net = conv_net()
    nets = net, permuted(net, torch.tensor([3, 1, 5, 0, 4, 2]))
    seams = from_moments(nets, images, [1e-9])
    table = stitched(nets, images, labels, seams).set_index(["map", "half"])
    for half in ("first", "last"):
        for name in ("matching", "linear", "rotation", "sparse"):
            assert table.loc[(name, half), "top1"] == table.loc[("own", half), "top1"]
            loss = pytest.approx(table.loc[("own", half), "loss"], rel=1e-3)
            assert table.loc[(name, half), "loss"] == loss
        assert table.loc[("matching", half), "weights_per_unit"] == 1
    # Another net does not fit as it is.
    unlabelled = np.full(IMAGES, -1)
    other = stitched((conv_net(1), nets[1]), images, unlabelled, seams).set_index("map")
    assert (other.loc["own", "top1"] == 1).all()
    assert (other.loc["matching", "top1"] < 0.9).all()


def test_maps_from_one_half_are_scored_on_the_other(images, labels):
    net = conv_net()
    within = Moments.of(outputs(net, images))
    good = Seam.of(("matching", ""), "none", np.eye(6), within, within)
    none = Seam.of(("matching", ""), "none", np.zeros((6, 6)), within, within)
    table = stitched((net, net), images, labels, lambda layer: ([good], [none]))
    losses = table.set_index(["map", "half"])["loss"]
    assert losses["matching", "last"] == losses["own", "last"]
    assert losses["matching", "first"] != pytest.approx(losses["own", "first"], rel=1e-3)


def test_least_squares_and_rotation_are_those_of_others(rng):
    x = rng.standard_normal((500, 5)) @ rng.standard_normal((5, 5)) + 3
    y = x @ rng.standard_normal((5, 4)) + rng.standard_normal((500, 4))
    y = np.concatenate([y, rng.standard_normal((500, 1))], axis=1)
    found = dict(maps(Moments.of(x, y), Moments.of(x), []))
    a, b = ((z - z.mean(0)) / z.std(0) for z in (x, y))
    expected = np.linalg.lstsq(a, b)[0].T
    np.testing.assert_allclose(found["linear", ""], expected, atol=1e-4)
    np.testing.assert_allclose(found["rotation", ""], orthogonal_procrustes(a, b)[0].T, atol=1e-4)
    seam = Seam.of(("linear", ""), "none", found["linear", ""], Moments.of(x), Moments.of(y))
    centred = np.linalg.lstsq(np.column_stack([x, np.ones(500)]), y)[0]
    np.testing.assert_allclose(seam.slope, centred[:-1].T, atol=1e-3)
    np.testing.assert_allclose(seam.offset, centred[-1], atol=1e-2)


def test_dead_units_carry_nothing_and_get_their_means(rng):
    x, y = rng.standard_normal((200, 3)), rng.standard_normal((200, 4))
    x[:, 1], y[:, 2] = 5, 7
    source, target = Moments.of(x), Moments.of(y)
    for name, weights in maps(Moments.of(x, y), source, [0.01]):
        seam = Seam.of(name, "none", weights, source, target)
        assert np.isfinite(seam.slope).all()
        assert not seam.slope[:, 1].any(), name
        assert not seam.slope[2].any(), name
        assert seam.offset[2] == pytest.approx(7)


@pytest.mark.parametrize(("place", "clipped"), [("1", True), ("0", False)])
def test_values_below_zero_are_clipped_after_a_relu_and_nowhere_else(
    images, labels, place, clipped
):
    last = nn.Linear(6 * 64, 3)
    parts = [nn.Conv2d(1, 6, 3, padding=1), *([nn.ReLU()] if clipped else []), nn.Flatten(), last]
    net = nn.Sequential(*parts)
    low = Seam("matching", "", "none", 0.0, np.zeros((6, 6), np.float32), np.full(6, -1.0, "f"))
    table = stitched((net, net), images, labels, lambda layer: ([low], [low]), [place])
    given = torch.zeros(HALF, 384) if clipped else -torch.ones(HALF, 384)
    loss = nn.functional.cross_entropy(last(given).detach(), torch.tensor(labels[:HALF]))
    row = table[(table["map"] == "matching") & (table["half"] == "first")]
    assert row["loss"].item() == pytest.approx(float(loss), rel=1e-5)


def test_places_beside_a_shortcut_are_refused_with_the_nearest_that_can(images, labels):
    net = models.build("resnet", size=8, inputs=1, classes=3, blocks=1, channels=(4, 4, 4)).eval()
    names = [place.name for place in places(net, images)]
    inside = next(name for name in names if name.endswith("conv1") and "." in name)
    seams = from_moments((net, net), images, place=names[0])
    table = stitched((net, net), images, labels, seams, [inside])
    assert len(table) == 1
    assert f"do not run through its place {inside}" in table["note"].item()
    nearest = table["note"].item().rsplit(" ", 1)[1]
    assert nearest in names
    # It can indeed: the layer as it is, is the net.
    kept = outputs(net, images, nearest)
    seams = from_moments((net, net), images, place=nearest)
    found = stitched((net, net), images, labels, seams, [nearest])
    assert kept.size
    assert found["note"].eq("").all()


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"1": Layout("1", grid=(4, 4))}, "layer 1: its statistics are of a part"),
        ({"1": Layout("1", grid="mean")}, "layer 1: its statistics are of a part"),
    ],
)
def test_layers_on_a_grid_are_refused(images, labels, layout, message):
    net = conv_net()
    table = stitched((net, net), images, labels, from_moments((net, net), images), layouts=layout)
    assert message in table["note"].item()


def test_maps_of_other_sizes_are_refused(images, labels):
    smaller = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 3))
    table = stitched((smaller, conv_net()), images, labels, lambda layer: ([], []))
    assert "maps of 6 x 6 cannot stand for maps of 8 x 8" in table["note"].item()


def test_without_labels_accuracy_is_agreement_with_the_target(images):
    nets = conv_net(), conv_net(1)
    table = stitched(nets, images, np.full(IMAGES, -1), from_moments(nets, images))
    assert (table[table["map"] == "own"]["top1"] == 1).all()
    assert (table[table["map"] == "matching"]["top1"] < 1).any()


def test_the_untrained_source_is_run_for_its_own_seams(images, labels):
    net, before = conv_net(), conv_net(7)
    within = Moments.of(outputs(net, images))
    seams = [
        Seam.of(("matching", ""), control, np.eye(6), within, within)
        for control in ("none", "untrained")
    ]
    table = stitched((net, net), images, labels, lambda layer: (seams, seams), untrained=before)
    reverse = stitched((before, net), images, labels, lambda layer: (seams[:1], seams[:1]))
    rows = table.set_index(["control", "map"])["loss"]
    expected = reverse[reverse["map"] == "matching"]["loss"]
    assert rows["untrained", "matching"].tolist() == expected.tolist()
    assert rows["none", "matching"].tolist() == rows["none", "own"].tolist()


def test_the_figure_shows_maps_by_layer_and_by_their_weights():
    rows = []
    for direction in ("ab", "ba"):
        for layer in ("conv1", "fc6"):
            rows.append((layer, direction, "own", None, None, "none", "first", 0.9, ""))
            rows.append((layer, direction, "matching", None, 1.0, "none", "first", 0.6, ""))
            rows.append((layer, direction, "matching", None, 1.0, "untrained", "first", 0.2, ""))
            for decay, weights, top1 in ((0.1, 0.5, 0.3), (0.01, 5.0, 0.7)):
                rows.append((layer, direction, "sparse", decay, weights, "none", "first", top1, ""))
            rows.append((layer, direction, "linear", None, 9.0, "none", "first", 0.8, ""))
            rows.append((layer, direction, "rotation", None, 9.0, "none", "first", 0.75, ""))
    columns = ["layer", "direction", "map", "decay", "weights_per_unit", "control", "half", "top1"]
    table = pd.DataFrame(rows, columns=[*columns, "note"])
    # A layer that cannot be stitched is a gap.
    refused = pd.DataFrame([{"layer": "conv2", "direction": "ab", "note": "cannot"}])
    figure = stitched_accuracy(
        pd.concat([table, refused]), ["net1", "net2"], ["conv1", "conv2", "fc6"]
    )
    assert not illegible(figure)
    upper, _, lower, _ = figure.axes
    lines = {line.get_label(): line.get_ydata() for line in upper.lines}
    np.testing.assert_allclose(lines["matching"], [60, np.nan, 60])
    np.testing.assert_allclose(lines["sparse, about 4.7 weights a unit"], [70, np.nan, 70])
    np.testing.assert_allclose(lines["matching, from untrained"], [20, np.nan, 20])
    assert not any("shuffled" in label for label in lines)
    np.testing.assert_allclose(lower.lines[0].get_xdata(), [0.5, 5, 9])
    assert upper.get_title("left") == "net2 goes on from a layer of net1"
