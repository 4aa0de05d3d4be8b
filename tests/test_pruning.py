"""Units that are replaced by their means cost what they are worth, and no more."""

import numpy as np
import pandas as pd
import pytest
import torch
from legible import illegible
from torch import nn

from convergent.activations.moments import Moments
from convergent.consequences.pruning import ALL, orders, prune
from convergent.consequences.replacing import ReplacingError
from convergent.figures.pruning import accuracy_by_share

SHARES = [0.0, 0.5, 1.0]
IMAGES, HALF = 60, 30
PARTS = slice(0, HALF), slice(HALF, None)


def net_and_images(rng):
    """Two layers of four units: unit 1 is constant, nothing reads unit 3, and 2 repeats 0."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU())
    net.append(nn.Linear(4, 3))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter *= 5
        net[1].bias[0] = net[3].bias[0] = 1
        net[1].weight[1], net[1].bias[1] = 0, 0.7
        net[1].weight[2], net[1].bias[2] = net[1].weight[0], net[1].bias[0]
        net[3].weight[:, 3] = 0
        # The two copies cancel out.
        net[3].weight[:, 2] = -net[3].weight[:, 0]
    images = torch.tensor(rng.standard_normal((IMAGES, 1, 3, 3)), dtype=torch.float32)
    return net, images, rng.integers(0, 3, IMAGES)


def pruned(net, images, labels, order, shares=SHARES, places=("2",), removal="mean", **options):
    batches = lambda: images.split(7)  # noqa: E731
    of_layer = {("given", ""): np.asarray(order)}
    chosen = dict.fromkeys(places, (of_layer, of_layer))
    table = prune(
        net, batches, labels, {p: p for p in places}, chosen, shares, half=HALF, number=3, **options
    )
    parts = dict(list(table.groupby("removal")))
    index = ["layer", "share", "half"]
    return parts[removal].set_index(index).sort_index()


def test_a_constant_unit_a_repeated_one_and_one_that_is_not_read_cost_nothing(rng):
    net, images, labels = net_and_images(rng)
    table = pruned(net, images, labels, [1, 3, 0, 2])
    for half in ("first", "last"):
        whole = table.loc["2", 0.0, half]
        assert table.loc["2", 0.5, half]["loss"] == pytest.approx(whole["loss"], rel=1e-6)
        assert table.loc["2", 0.5, half]["top1"] == whole["top1"]
    # Both copies cancel out, and with their means as well as without; all four together, too.
    both = pruned(net, images, labels, [0, 2, 1, 3])
    np.testing.assert_allclose(both.loc["2", 0.5]["loss"], both.loc["2", 0.0]["loss"], rtol=1e-5)
    # One copy alone is worth something.
    one = pruned(net, images, labels, [0, 1, 2, 3], [0.0, 0.25])
    assert (one.loc["2", 0.25]["loss"] - one.loc["2", 0.0]["loss"]).abs().min() > 1e-2


def test_means_are_those_of_the_other_half_in_one_layer_and_in_all(rng):
    net, images, labels = net_and_images(rng)
    table = pruned(net, images, labels, [0, 2, 1, 3], [0.25], places=("2", "4"))
    with torch.no_grad():
        first = net[:3](images)
        second = net[3:5](first)
        for half, rows, others in (("first", *PARTS), ("last", *PARTS[::-1])):
            x = first[rows].clone()
            x[:, 0] = first[others, 0].mean()
            hidden = {"2": net[3:5](x), "4": second[rows].clone(), ALL: net[3:5](x)}
            for layer in ("4", ALL):
                hidden[layer][:, 0] = second[others, 0].mean()
            for layer, values in hidden.items():
                loss = nn.functional.cross_entropy(net[5](values), torch.tensor(labels[rows]))
                assert table.loc[layer, 0.25, half]["loss"] == pytest.approx(float(loss), rel=1e-5)


def test_convolutions_lose_whole_channels(small_net, rng):
    images = torch.tensor(rng.standard_normal((IMAGES, 1, 16, 16)), dtype=torch.float32)
    labels = rng.integers(0, 3, IMAGES)
    table = pruned(small_net, images, labels, range(6), [0.5], places=("conv2",))
    outputs = []

    def replace(module, args, output):
        outputs.append(output)
        if len(outputs) > 1:
            output = output.clone()
            output[:, :3] = outputs[0][HALF:].mean((0, 2, 3))[None, :3, None, None]
            return output
        return None

    small_net.eval()
    handle = small_net.conv2.register_forward_hook(replace)
    with torch.no_grad():
        small_net(images)
        answer = small_net(images[:HALF])
    handle.remove()
    loss = nn.functional.cross_entropy(answer, torch.tensor(labels[:HALF]))
    assert table.loc["conv2", 0.5, "first"]["loss"] == pytest.approx(float(loss), rel=1e-5)


def test_a_resampled_unit_has_the_values_of_another_image_of_its_half(small_net, rng):
    """With two images in each half, the other image is known."""
    images = torch.tensor(rng.standard_normal((4, 1, 16, 16)), dtype=torch.float32)
    labels = np.array([0, 1, 2, 0])
    options = {"number": 3, "half": 2}
    of_layer = {("given", ""): np.arange(6)}
    table = prune(
        small_net, lambda: [images], labels, {"conv2": "conv2"}, {"conv2": (of_layer, of_layer)},
        [0.5], **options,
    ).query("removal == 'resampled'").set_index(["layer", "half"])  # fmt: skip
    kept = []

    def replace(module, args, output):
        kept.append(output)
        if len(kept) > 1:
            output = output.clone()
            output[:, :3] = kept[0][[1, 0, 3, 2], :3]
            return output
        return None

    handle = small_net.eval().conv2.register_forward_hook(replace)
    with torch.no_grad():
        small_net(images)
        answers = small_net(images)
    handle.remove()
    for half, rows in (("first", slice(0, 2)), ("last", slice(2, 4))):
        loss = nn.functional.cross_entropy(answers[rows], torch.tensor(labels[rows]))
        for layer in ("conv2", ALL):
            assert table.loc[layer, half]["loss"] == pytest.approx(float(loss), rel=1e-5)


def test_units_are_resampled_each_by_itself_and_alike_for_a_seed(rng):
    net, images, labels = net_and_images(rng)
    options = {"removal": "resampled"}
    # A constant unit and one that is not read cost nothing.
    nothing = pruned(net, images, labels, [1, 3, 0, 2], **options).loc["2"]
    np.testing.assert_allclose(nothing.loc[0.5]["loss"], nothing.loc[0.0]["loss"], rtol=1e-6)
    # Two copies that cancel out do so no more.
    both = pruned(net, images, labels, [0, 2, 1, 3], **options).loc["2"]
    assert (both.loc[0.5]["loss"] - both.loc[0.0]["loss"]).abs().min() > 1e-2
    again = pruned(net, images, labels, [0, 2, 1, 3], **options)
    pd.testing.assert_frame_equal(again.loc["2"], both)
    other = pruned(net, images, labels, [0, 2, 1, 3], seed=1, **options)
    assert (other.loc["2", 0.5]["loss"] != both.loc[0.5]["loss"]).all()


def test_without_labels_accuracy_is_agreement_with_the_net_itself(rng):
    net, images, _ = net_and_images(rng)
    table = pruned(net, images, np.full(IMAGES, -1), range(4))
    assert (table.loc["2", 0.0]["top1"] == 1).all()
    with torch.no_grad():
        own = net(images[HALF:]).argmax(1)
        constant = net[3:](net[:3](images[:HALF]).mean(0, keepdim=True)).argmax(1)
    expected = float((own == constant).double().mean())
    assert table.loc["2", 1.0, "last"]["top1"] == pytest.approx(expected)


def test_units_are_ordered_by_their_matches_and_by_their_activity(rng):
    x = rng.standard_normal((2000, 4)) + np.array([3, 1, 2, 0])
    y = np.stack([x[:, 2], x[:, 0] + rng.standard_normal(2000)], axis=1)
    x[:, 3] = 0  # dead
    found = orders(Moments.of(x, y), Moments.of(x), 2, [0])
    assert found["unmatched_first", ""].tolist() == [3, 1, 0, 2]
    assert found["matched_first", ""].tolist() == [2, 0, 1, 3]
    assert found["least_active", ""].tolist() == [3, 1, 2, 0]
    draws = [found["random", draw].tolist() for draw in (0, 1)]
    assert [sorted(draw) for draw in draws] == [[0, 1, 2, 3]] * 2
    again = orders(Moments.of(x, y), Moments.of(x), 2, [0])
    assert [again["random", draw].tolist() for draw in (0, 1)] == draws


def test_statistics_of_another_net_are_refused(rng):
    net, images, labels = net_and_images(rng)
    with pytest.raises(ReplacingError, match="place 2: has 4 units where 5 are known"):
        pruned(net, images, labels, range(5))


def test_the_figure_shows_both_nets_every_layer_and_the_band_of_the_draws():
    rows = []
    for net, level in (("net1", 0.8), ("net2", 0.6)):
        for layer in ("conv1", "all"):
            for share in (0.0, 1.0):
                for order in ("unmatched_first", "matched_first", "least_active"):
                    of = (order, np.nan, share)
                    rows.append((layer, net, "mean", *of, "first", 1.0, level))
                    rows.append((layer, net, "mean", *of, "last", 1.0, level - 0.2))
                    rows.append((layer, net, "resampled", *of, "last", 1.0, level - 0.4))
                for draw, value in ((0, 0.1), (1, 0.3)):
                    rows.append((layer, net, "mean", "random", draw, share, "first", 1.0, value))
    columns = ["layer", "net", "removal", "order", "draw", "share", "half", "loss", "top1"]
    figure = accuracy_by_share(pd.DataFrame(rows, columns=columns), ["net1", "net2"], ["conv1"])
    assert not illegible(figure)
    titles = [ax.get_title("left") for ax in figure.axes if ax.get_visible()]
    assert titles == ["net1, conv1", "net1, all layers", "net2, conv1", "net2, all layers"]
    curve, thin, *_, mean = figure.axes[2].lines
    np.testing.assert_allclose(curve.get_ydata(), [50, 50])
    np.testing.assert_allclose(thin.get_ydata(), [20, 20])
    assert thin.get_linewidth() < curve.get_linewidth()
    np.testing.assert_allclose(mean.get_ydata(), [20, 20])
    band = figure.axes[2].collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((10, 30))
