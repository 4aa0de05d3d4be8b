"""Nets between two nets: what their curves, repairs and barriers must be."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional

from convergent.consequences.curves import barriers, mean_of_halves, points_between
from convergent.consequences.merging import (
    TEMPERATURES,
    Candidate,
    MergeError,
    check_same_graph,
    interpolate,
    maps,
    merge_table,
    repair,
    repaired,
    reset_batch_norm,
    units_of_maps,
    with_statistics,
)
from convergent.nets import models
from convergent.nets.evaluation import evaluate

POINTS = points_between(5)


def sequential(norm=False, width=7, classes=3):
    """A small net of two convolutions and two linear maps."""

    def block(*conv):
        return [nn.Conv2d(*conv), *([nn.BatchNorm2d(conv[1])] if norm else []), nn.ReLU()]

    net = nn.Sequential(
        *block(1, width, 3),
        *block(width, width, 3),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * width, width),
        nn.ReLU(),
        nn.Linear(width, classes),
    )
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return net.eval()


def permuted(net, rng):
    """A state of `sequential` that computes the same, and the permutations, by hand."""
    state, found, before = dict(net.state_dict()), {}, None
    for name, module in net.named_children():
        own = [key for key in state if key.startswith(f"{name}.") and state[key].ndim]
        weighted = isinstance(module, nn.Conv2d | nn.Linear)
        if weighted and before is not None:
            weight = state[f"{name}.weight"]
            blocks = weight.unflatten(1, (len(before), -1))
            state[f"{name}.weight"] = blocks[:, before].flatten(1, 2)
        if weighted and name != "last":
            before = torch.as_tensor(rng.permutation(module.weight.shape[0]))
            found[name] = before
        if module is list(net.children())[-1]:
            continue
        for key in own:
            state[key] = state[key][before]
    return {key: value.clone() for key, value in state.items()}, found


def inverted(net, state, found):
    """The state that undoes `permuted`."""
    undone, before = dict(state), None
    for name, module in net.named_children():
        if name not in found:
            if isinstance(module, nn.BatchNorm2d):
                for key in [k for k in state if k.startswith(f"{name}.") and state[k].ndim]:
                    undone[key] = state[key][torch.argsort(before)]
            continue
        if before is not None:
            blocks = state[f"{name}.weight"].unflatten(1, (len(before), -1))
            undone[f"{name}.weight"] = blocks[:, torch.argsort(before)].flatten(1, 2)
        before = found[name]
        if module is list(net.children())[-1]:
            continue
        for key in (f"{name}.weight", f"{name}.bias"):
            undone[key] = undone[key][torch.argsort(before)]
    return undone


def with_state(net, state):
    other = copy.deepcopy(net)
    other.load_state_dict(state)
    return other


@pytest.fixture(autouse=True)
def one_thread():
    """Nets are so small that threads would mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(64, 1, 8, 8, generator=generator)


def loaded(images, labels, size=20):
    return lambda: zip(images.split(size), labels.split(size), strict=True)


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "batch normalisation"])
def test_a_net_merged_with_its_own_permuted_copy_loses_nothing_once_aligned(norm, rng, images):
    torch.manual_seed(0)
    net = sequential(norm)
    with torch.no_grad():
        # Its answers depend on the images, and need all units.
        nn.init.normal_(net[-1].weight)
        net[-1].bias -= net(images).mean(0)
    state, found = permuted(net, rng)
    other = with_state(net, state)
    torch.testing.assert_close(other(images), net(images), rtol=1e-4, atol=1e-5)
    labels = net(images).argmax(1)
    candidates = [
        Candidate("none", None, state),
        Candidate("correlation", 0, inverted(net, state, found)),
        Candidate("correlation", 1, inverted(net, state, found)),
    ]
    table = merge_table(net, other, candidates, loaded(images, labels), 30, [images], POINTS)
    means = mean_of_halves(table)
    aligned = means[(means["alignment"] == "correlation") & (means["batch_norm"] == "kept")]
    assert (aligned["top1"] == 1).all()
    plain = aligned[~aligned["corrected"]]
    loss = functional.cross_entropy(net(images), labels).item()
    for _, rows in plain.groupby("repaired"):
        # Halves of 30 and 34 images are averaged.
        halves = [
            functional.cross_entropy(net(x), y).item()
            for x, y in ((images[:30], labels[:30]), (images[30:], labels[30:]))
        ]
        np.testing.assert_allclose(rows["loss"], np.mean(halves), rtol=1e-4)
        assert np.mean(halves) == pytest.approx(loss, rel=0.1)
    found = barriers(table).set_index(["alignment", "repaired", "batch_norm", "quantity"])
    assert found.loc[("correlation", False, "kept", "loss"), "barrier_max"] < 1e-5
    assert found.loc[("none", False, "kept", "top1"), "barrier_half"] > 0.05


def test_ends_are_the_parents_and_scores_are_those_of_evaluation(images):
    torch.manual_seed(0)
    a, b = sequential(), sequential()
    labels = torch.arange(64) % 3
    table = merge_table(
        a, b, [Candidate("weights", None, b.state_dict())],
        loaded(images, labels), 30, [images[:32]], POINTS,
    )  # fmt: skip
    plain = table[(table["temperature"] == 1) & ~table["repaired"]].set_index(
        ["alignment", "t", "half"]
    )
    for half, rows in (("first", slice(0, 30)), ("last", slice(30, None))):
        for t, net in ((0, a), (1, b)):
            expected = evaluate(net, [(images[rows], labels[rows])])
            for alignment in ("weights", "ensemble"):
                row = plain.loc[(alignment, t, half)]
                assert row["loss"] == pytest.approx(expected.loss, rel=1e-5)
                assert row["top1"] == pytest.approx(expected.top1)
                assert row["n_images"] == len(images[rows])
                assert row["low"] < row["top1"] < row["high"]
        # A point in between, from weights that are averaged here.
        middle = with_state(a, {k: (v + b.state_dict()[k]) / 2 for k, v in a.state_dict().items()})
        expected = evaluate(middle, [(images[rows], labels[rows])])
        assert plain.loc[("weights", 0.5, half), "loss"] == pytest.approx(expected.loss, rel=1e-5)
        mixed = (a(images[rows]).softmax(1) + b(images[rows]).softmax(1)) / 2
        loss = functional.nll_loss(mixed.log(), labels[rows]).item()
        assert plain.loc[("ensemble", 0.5, half), "loss"] == pytest.approx(loss, rel=1e-5)


def test_repaired_units_have_the_mean_and_deviation_between_their_parents(images):
    torch.manual_seed(0)
    a, b = sequential(), sequential()
    middle = copy.deepcopy(a)
    interpolate(middle, a.state_dict(), b.state_dict(), 0.25)
    number = len(maps(a, images))
    ends = [units_of_maps(net, images, number) for net in (a, b)]
    goals = [x.between(y, 0.25) for x, y in zip(*ends, strict=True)]
    affines = repair(middle, images, goals)
    assert len(affines) == number == 3
    # By hand: fold the affine maps into the weights, and look at the outputs with hooks.
    folded = copy.deepcopy(middle)
    modules = [m for m in folded if isinstance(m, nn.Conv2d | nn.Linear)]
    seen = []
    with torch.no_grad():
        for module, affine in zip(modules, affines, strict=False):
            module.weight *= affine.scale.view(-1, *[1] * (module.weight.ndim - 1))
            module.bias.mul_(affine.scale).add_(affine.shift)
            module.register_forward_hook(lambda *args: seen.append(args[2]))
        answer = folded(images)
    torch.testing.assert_close(answer, repaired(middle, images, affines), rtol=1e-4, atol=1e-5)
    for output, of_a, of_b in zip(seen, *ends, strict=True):
        flat = output.movedim(1, -1).flatten(0, -2)
        mean, std = flat.mean(0), flat.std(0, correction=0)
        torch.testing.assert_close(mean, 0.75 * of_a.mean + 0.25 * of_b.mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(std, 0.75 * of_a.std + 0.25 * of_b.std, rtol=1e-4, atol=1e-5)


def test_a_unit_that_never_varies_is_repaired_without_a_nan(images):
    torch.manual_seed(0)
    a = sequential()
    nn.init.zeros_(a[0].weight[0])
    number = len(maps(a, images))
    goals = units_of_maps(sequential(), images, number)
    affines = repair(a, images, goals)
    assert repaired(a, images, affines).isfinite().all()
    mean = units_of_maps(a, images, 1)[0].mean[0]
    assert affines[0].scale[0] * mean + affines[0].shift[0] == pytest.approx(
        goals[0].mean[0].item()
    )


def test_batch_norm_that_is_reset_has_the_statistics_of_its_own_inputs(images):
    torch.manual_seed(0)
    net = sequential(norm=True)
    before = copy.deepcopy(net.state_dict())
    renewed = reset_batch_norm(net, images)
    for name, value in net.state_dict().items():
        if "num_batches" not in name:
            torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    seen = []
    for module in net:
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.no_grad(), with_statistics(net, renewed):
        net(images)
    for output, norm in zip(seen, [m for m in net if isinstance(m, nn.BatchNorm2d)], strict=True):
        torch.testing.assert_close(output.mean((0, 2, 3)), norm.bias, rtol=0, atol=1e-3)
        deviation = output.std((0, 2, 3), correction=0)
        torch.testing.assert_close(deviation, norm.weight.abs(), rtol=1e-3, atol=1e-3)


def test_maps_are_named_in_the_order_in_which_they_run_and_without_the_logits(small_net, images):
    names = maps(small_net, torch.zeros(1, 1, 16, 16))
    assert names == [*(f"conv{n}.conv" for n in range(1, 6)), "fc6.linear", "fc7.linear"]

    class Functions(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 1, 3, 3))
            self.inner = sequential(width=4)
            self.tied = nn.Linear(3, 3)

        def forward(self, x):
            return self.tied(self.tied(self.inner(functional.conv2d(x, self.weight).mean(1, True))))

    names = maps(Functions(), torch.zeros(1, 1, 10, 10))
    assert names == ["", "inner.0", "inner.2", "inner.6", "inner.8", "tied"]


def test_a_temperature_is_chosen_on_the_half_that_does_not_score_it(images):
    """The first half is all right and wants a cold softmax; the last is all wrong."""
    torch.manual_seed(0)
    net = sequential()
    answers = net(images).argmax(1)
    labels = torch.where(torch.arange(64) < 32, answers, (answers + 1) % 3)
    candidates = [Candidate("none", None, net.state_dict())]
    table = merge_table(net, net, candidates, loaded(images, labels), 32, [images], [0.0, 0.5, 1.0])
    chosen = table[(table["temperature"] != 1) & (table["t"] == 0.5) & ~table["repaired"]]
    chosen = chosen[chosen["alignment"] == "none"].set_index("half")
    assert chosen.loc["first", "temperature"] == TEMPERATURES.max()
    assert chosen.loc["last", "temperature"] < 1
    output = net(images)[32:] / chosen.loc["last", "temperature"]
    loss = functional.cross_entropy(output, labels[32:]).item()
    assert chosen.loc["last", "loss"] == pytest.approx(loss, rel=1e-4)


def test_what_was_chosen_on_a_half_is_scored_on_the_other_only(images):
    torch.manual_seed(0)
    a, b = sequential(), sequential()
    candidates = [Candidate("correlation", half, b.state_dict()) for half in range(2)]
    labels = torch.arange(64) % 3
    table = merge_table(a, b, candidates, loaded(images, labels), 30, [images], POINTS)
    aligned = table[table["alignment"] == "correlation"]
    counts = aligned[aligned["temperature"] == 1].groupby(["t", "repaired", "half"]).size()
    assert (counts == 1).all()
    assert set(aligned.loc[aligned["half"] == "first", "n_images"]) == {30}


def test_random_labels_show_no_gain_however_wide_the_layer():
    """Partners that fit the images of one half by chance are worth nothing on the other."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    images = torch.randn(200, 1, 8, 8)
    labels = torch.as_tensor(rng.integers(0, 2, 200))
    a, b = (sequential(width=64, classes=2) for _ in range(2))
    candidates = []
    for half, rows in enumerate((slice(0, 100), slice(100, None))):
        # Of many permutations of the widest layer, the one that does best on this half.
        scored = []
        for _ in range(60):
            order = torch.as_tensor(rng.permutation(64))
            state = dict(b.state_dict())
            state["6.weight"], state["6.bias"] = state["6.weight"][order], state["6.bias"][order]
            state["8.weight"] = state["8.weight"][:, order]
            middle = copy.deepcopy(a)
            interpolate(middle, a.state_dict(), state, 0.5)
            found = evaluate(middle, [(images[rows], labels[rows])])
            scored.append((found.top1, len(scored), state))
        best = max(scored)
        assert best[0] > 0.55  # a gain on the images that chose it
        candidates.append(Candidate("correlation", half, best[2]))
    table = merge_table(
        a, b, candidates, loaded(images, labels), 100, [images[:50]], [0.0, 0.5, 1.0]
    )
    means = mean_of_halves(table)
    rows = means[(means["t"] == 0.5) & (means["alignment"] == "correlation")]
    assert ((rows["low"] < 0.5) & (rows["high"] > 0.5)).all()


def test_without_labels_there_are_loss_and_agreement(images):
    torch.manual_seed(0)
    a, b = sequential(), sequential()
    labels = torch.full((64,), -1)
    candidates = [Candidate("none", None, b.state_dict())]
    table = merge_table(a, b, candidates, loaded(images, labels), 30, [images], POINTS)
    assert table["top1"].isna().all()
    first = table[(table["t"] == 0) & (table["temperature"] == 1) & ~table["repaired"]]
    first = first[first["alignment"] == "none"].set_index("half")
    same = (a(images).argmax(1) == b(images).argmax(1)).float()[:30].mean().item()
    assert first.loc["first", "agreement"] == pytest.approx((1 + same) / 2)
    goal = (a(images).softmax(1) + b(images).softmax(1))[:30] / 2
    loss = -(goal * a(images)[:30].log_softmax(1)).sum(1).mean().item()
    assert first.loc["first", "loss"] == pytest.approx(loss, rel=1e-5)
    found = barriers(table)
    assert set(found["quantity"]) == {"loss", "corrected_loss", "agreement"}
    assert found["barrier_max"].notna().all()


def test_images_without_a_label_that_the_nets_can_give_do_not_count(images):
    torch.manual_seed(0)
    a, b = sequential(), sequential()
    labels = torch.arange(64) % 4
    candidates = [Candidate("none", None, b.state_dict())]
    table = merge_table(
        a, b, candidates, loaded(images, labels), 32, [images], POINTS, classes=[0, 2, 3], number=4
    )
    assert (table["n_images"] == 24).all()
    expected = evaluate(a, [(images[:32], labels[:32])], [0, 2, 3], number=4)
    row = table[(table["t"] == 0) & (table["half"] == "first")].iloc[0]
    assert row["top1"] == pytest.approx(expected.top1)
    assert row["loss"] == pytest.approx(expected.loss, rel=1e-5)


def curve(values, **more):
    """A table of one curve at equal points, of two halves with the same values."""
    rows = [
        {
            "t": t, "alignment": "none", "repaired": False, "batch_norm": "kept",
            "temperature": 1.0, "half": half, "loss": loss, "top1": top1,
            "loss_standard_error": 0.1, "agreement": 1.0, "n_images": 100, **more,
        }
        for t, (loss, top1) in zip(points_between(len(values)), values, strict=True)
        for half in ("first", "last")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_barriers_are_the_excess_over_the_line_between_the_parents():
    table = curve([(1.0, 0.9), (4.0, 0.2), (3.0, 0.5), (2.5, 0.6), (2.0, 0.7)])
    found = barriers(table).set_index("quantity")
    assert found.loc["loss", "barrier_max"] == pytest.approx(4 - 1.25)
    assert found.loc["loss", "t_max"] == 0.25
    assert found.loc["loss", "barrier_half"] == pytest.approx(1.5)
    assert found.loc["top1", "barrier_max"] == pytest.approx(0.85 - 0.2)
    assert found.loc["top1", "barrier_half"] == pytest.approx(0.3)
    # Nets in between that are better than the line have no barrier.
    found = barriers(curve([(1.0, 0.5), (0.5, 0.9), (1.0, 0.5)])).set_index("quantity")
    assert found.loc["loss", "barrier_max"] == 0
    assert found.loc["loss", "barrier_half"] == -0.5


def test_nets_of_different_graphs_are_refused_by_name(images):
    names = ["net1", "net2"]
    check_same_graph(sequential(), sequential(), images[:1], names)
    with pytest.raises(
        MergeError, match=r"net1 and net2 cannot be merged.*0\.weight is 7 1 3 3 in"
    ):
        check_same_graph(sequential(), sequential(width=8), images[:1], names)
    other = sequential()
    other[1] = nn.GELU()
    with pytest.raises(MergeError, match=r"1 is relu 64 7 6 6 in net1 and gelu"):
        check_same_graph(sequential(), other, images, names)


def test_outputs_that_are_not_finite_are_told_with_their_point(images):
    a, b = sequential(), sequential()
    nn.init.constant_(b[0].weight, 1e38)
    candidates = [Candidate("none", None, b.state_dict())]
    with pytest.raises(MergeError, match="merged by none are NaN or infinite"):
        merge_table(a, a, candidates, loaded(images, torch.zeros(64).long()), 30, [images], POINTS)


def test_the_parents_stay_as_they_were(images, small_net):
    b = models.build(
        "alexnet", size=16, inputs=1, classes=3, channels=(4, 6, 8, 8, 6),
        fully_connected=(10, 9), kernel=3, stride=1, padding=1, init="kaiming",
    )  # fmt: skip
    before = copy.deepcopy(small_net.state_dict())
    views = torch.randn(24, 1, 16, 16)
    candidates = [Candidate("none", None, b.state_dict())]
    merge_table(
        small_net.eval(), b.eval(), candidates, loaded(views, torch.arange(24) % 3), 12, [views],
        [0.0, 0.5, 1.0],
    )  # fmt: skip
    for name, value in small_net.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
