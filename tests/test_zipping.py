"""A zipped net is the mean of both nets, the net halfway between them, or what lies in between."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from legible import illegible
from torch import nn

from convergent.consequences.aligning import likeness
from convergent.consequences.merging import (
    Unit,
    interpolate,
    maps,
    repair,
    repaired,
    units_of_maps,
)
from convergent.consequences.permutation import groups, permuted
from convergent.consequences.zipping import ZipError, Zipped, check_zipped, first_shared
from convergent.figures.zipping import accuracy_by_size

# Rounding: sums in another order, in single precision.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def both(name):
    """Two nets of one graph, a batch, and their groups."""
    from test_permutation import built, images

    a, b = built(name), built(name)
    with torch.no_grad():
        for tensor in b.state_dict().values():
            if tensor.is_floating_point():
                tensor *= 1 + 0.3 * torch.rand(tensor.shape)
    batch = images(name, 3)
    return a, b, batch, groups(a, batch)


def marked(found, share):
    random = np.random.default_rng(0)
    return {g.name: random.permutation(g.size) < round(share * g.size) for g in found}


NAMES = ["alexnet", "vgg11", "vgg11 without normalisation", "resnet", "densenet", "mobilenet"]
NAMES += ["convnext", "swin"]


@pytest.mark.parametrize("name", NAMES)
def test_with_no_unit_shared_it_is_the_mean_of_both_nets(name):
    a, b, batch, found = both(name)
    zipped = Zipped(a, b.state_dict(), found, marked(found, 0), batch)
    with torch.no_grad():
        expected = (a(batch) + b(batch)) / 2
    torch.testing.assert_close(zipped.logits(batch), expected, **CLOSE)


@pytest.mark.parametrize("name", NAMES)
def test_with_all_units_shared_it_is_the_net_halfway(name):
    a, b, batch, found = both(name)
    middle = copy.deepcopy(a)
    interpolate(middle, a.state_dict(), b.state_dict(), 0.5)
    zipped = Zipped(a, b.state_dict(), found, marked(found, 1), batch)
    with torch.no_grad():
        torch.testing.assert_close(zipped.logits(batch), middle(batch), **CLOSE)
    number = sum(parameter.numel() for parameter in a.parameters())
    assert zipped.parameters == number
    assert zipped.units == sum(group.size for group in found)
    # Repaired, too.
    ends = tuple(units_of_maps(net, batch, len(maps(a, batch[:1]))) for net in (a, b))
    goals = [x.between(y, 0.5) for x, y in zip(*ends, strict=True)]
    expected = repaired(middle, batch, repair(middle, batch, goals))
    torch.testing.assert_close(zipped.logits(batch, zipped.repair(batch, ends)), expected, **CLOSE)


@pytest.mark.parametrize("name", NAMES)
def test_every_map_reads_one_value_of_a_shared_unit(name):
    a, b, batch, found = both(name)
    zipped = Zipped(a, b.state_dict(), found, marked(found, 0.5), batch)
    first, last = zipped.run(batch, check=True)
    assert not torch.allclose(first, last)


def block(of_a, of_b, rows, columns):
    """The weights of a zipped layer, as ZipIt multiplies them out: M [A 0; 0 B] U."""

    def merging(shared):
        size, rest = len(shared), np.flatnonzero(~shared)
        pairs = np.flatnonzero(shared)
        merge = np.zeros((size + len(rest), 2 * size))
        for row, unit in enumerate(pairs):
            merge[row, [unit, size + unit]] = 0.5
        for row, unit in enumerate((*rest, *(size + rest))):
            merge[len(pairs) + row, unit] = 1
        return merge

    zeros = np.zeros((len(of_a), of_a.shape[1]))
    both = np.block([[of_a, zeros], [zeros, of_b]])
    # Each net reads the shared unit as it would read its own.
    return merging(rows) @ both @ (merging(columns) > 0).T


def test_between_both_it_is_the_net_of_block_matrices():
    torch.manual_seed(0)
    a, b = (
        nn.Sequential(
            nn.Flatten(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3)
        ).eval()
        for _ in range(2)
    )
    batch = torch.randn(9, 1, 2, 3)
    found = groups(a, batch)
    shared = dict(zip([g.name for g in found], marked(found, 0.4).values(), strict=True))
    zipped = Zipped(a, b.state_dict(), found, shared, batch)
    ends = [np.ones(6, bool), *shared.values(), np.ones(3, bool)]
    values, parameters = batch.flatten(1).double().numpy(), 0
    for number, name in enumerate(("1", "3", "5")):
        weights, biases = (
            [net.state_dict()[f"{name}.{kind}"].double().numpy() for net in (a, b)]
            for kind in ("weight", "bias")
        )
        matrix = block(*weights, ends[number + 1], ends[number])
        bias = block(*(each[:, None] for each in biases), ends[number + 1], np.ones(1, bool))
        values = values @ matrix.T + bias[:, 0]
        values = [np.tanh(values), np.maximum(values, 0), values][number]
        parameters += np.count_nonzero(matrix) + np.count_nonzero(bias)
    np.testing.assert_allclose(zipped.logits(batch).numpy(), values, rtol=1e-4, atol=1e-5)
    assert zipped.parameters == parameters
    assert zipped.units == 2 * 13 - sum(each.sum() for each in shared.values())


def test_units_that_are_not_shared_are_repaired_to_their_own_parents():
    a, b, batch, found = both("vgg11 without normalisation")
    shared = marked(found, 0.5)
    zipped = Zipped(a, b.state_dict(), found, shared, batch)
    goals = tuple(units_of_maps(net, batch, len(maps(a, batch[:1]))) for net in (a, b))
    affines, seen = zipped.repair(batch, goals), []

    def look(output):
        values = output.tensor
        if output.number < len(affines):
            values = affines[output.number][output.side].of(values, output.axis)
            seen.append((output, Unit.of(values, output.axis)))
        return values

    zipped.run(batch, look)
    assert len(seen) == 2 * len(affines)
    for output, now in seen:
        own, other = (goals[side][output.number] for side in (output.side, 1 - output.side))
        mean, std = own.mean.clone(), own.std.clone()
        mean[output.shared] = (own.mean + other.mean)[output.shared] / 2
        std[output.shared] = (own.std + other.std)[output.shared] / 2
        torch.testing.assert_close(now.mean, mean, rtol=1e-3, atol=1e-3)
        # A unit that does not vary any more keeps its deviation of 0.
        alive = now.std > 0
        torch.testing.assert_close(now.std[alive], std[alive], rtol=1e-3, atol=1e-3)


class Balanced(nn.Module):
    """A softmax over units, which sees those that are not shared."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(12, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.first(x.flatten(1)).softmax(1))


def test_what_cannot_be_zipped_is_refused_by_its_name():
    a, b, batch, found = both("vit")
    with pytest.raises(ZipError, match="self_attention: multi_head_attention_forward computes"):
        check_zipped(a, b.state_dict(), found, batch)
    a, b = Balanced().eval(), Balanced().eval()
    batch = torch.randn(4, 3, 2, 2)
    with pytest.raises(ZipError, match="last: the inputs of linear that both nets share differ"):
        check_zipped(a, b.state_dict(), groups(a, batch), batch)


class Reading(nn.Module):
    """A number that is read from a parameter is that of the first net in both."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(12, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.first(x.flatten(1)) * float(self.last.bias.detach().norm()))


def test_a_net_that_reads_its_parameters_is_refused():
    a, b, batch = Reading().eval(), Reading().eval(), torch.randn(4, 3, 2, 2)
    shared = {group.name: np.zeros(group.size, bool) for group in groups(a, batch)}
    zipped = Zipped(a, b.state_dict(), groups(a, batch), shared, batch)
    with pytest.raises(ZipError, match="Reading: float makes what runs depend on values"):
        zipped.run(batch)


@pytest.mark.parametrize("name", ["alexnet", "resnet"])
def test_the_check_passes_for_nets_that_can_be_zipped(name):
    a, b, batch, found = both(name)
    check_zipped(a, b.state_dict(), found, batch)


def test_those_that_are_most_alike_are_shared_first():
    likeness = {"conv1": np.array([0.1, 0.9, 0.5, 0.9])}
    assert first_shared(likeness, 0.5)["conv1"].tolist() == [False, True, False, True]
    assert first_shared(likeness, 0.25)["conv1"].tolist() == [False, True, False, False]
    assert not first_shared(likeness, 0)["conv1"].any()
    assert first_shared(likeness, 1)["conv1"].all()


def test_partners_are_as_alike_as_their_places_or_their_weights():
    a, b, _, found = both("vgg11 without normalisation")
    random = np.random.default_rng(0)
    orders = {group.name: random.permutation(group.size) for group in found}
    first, second = found[:2]
    place = next(iter(first.places))
    matrix = random.uniform(-1, 1, (first.size, first.size))
    states = a.state_dict(), b.state_dict()
    values = likeness(found, {place: matrix}, orders, states)
    np.testing.assert_allclose(
        values[first.name], matrix[np.arange(first.size), orders[first.name]]
    )
    # A permuted copy has the same weights.
    copied = permuted(a, found, {name: np.argsort(order) for name, order in orders.items()})
    same = likeness(found, {}, orders, (a.state_dict(), copied))
    np.testing.assert_allclose(same[second.name], 1, rtol=1e-5)
    assert (values[second.name] < 1).all()


def test_the_figure_shows_accuracy_by_size_between_parents_and_ensemble():
    rows = [
        (net, np.nan, "none", False, 10, size, half, 0.1, top1)
        for net, size, top1 in (("net1", 100, 0.9), ("net2", 100, 0.8), ("ensemble", 200, 0.95))
        for half in ("first", "last")
    ]
    for share, size in ((0.0, 200), (1.0, 100)):
        for mended in (False, True):
            top1 = 0.6 + 0.2 * mended
            rows.append(("zip", share, "correlation", mended, 10, size, "first", 0.2, top1))
            rows.append(("zip", share, "correlation", mended, 10, size, "last", 0.4, top1 + 0.1))
    columns = ["net", "share", "alignment", "repaired", "units", "parameters", "half"]
    table = pd.DataFrame(rows, columns=[*columns, "loss", "top1"])
    figure = accuracy_by_size(table, ["net1", "net2"])
    assert not illegible(figure)
    top1, loss = figure.axes
    np.testing.assert_allclose(top1.lines[0].get_xdata(), [1, 2])
    np.testing.assert_allclose(top1.lines[0].get_ydata(), [65, 65])
    np.testing.assert_allclose(top1.lines[1].get_ydata(), [85, 85])
    np.testing.assert_allclose(top1.lines[-1].get_ydata(), [95])
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [0.3, 0.3])
