"""Any net's units can be put in another order, and the net stays the same function."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.mobilenetv3 import InvertedResidualConfig

from convergent.activations.probing import follow
from convergent.consequences.aligning import align, align_weights
from convergent.consequences.following import FollowingError
from convergent.consequences.permutation import (
    PermutationError,
    check_same_function,
    groups,
    inverse,
    keeping_order,
    permuted,
)
from convergent.nets import models
from convergent.nets.modules import LocalResponseNorm
from convergent.nets.places import tapping

VISION = torchvision.models


def small_vit():
    return VISION.VisionTransformer(32, 8, 2, 4, 24, 40, num_classes=5)


def small_swin():
    return VISION.SwinTransformer([2, 2], 8, [2, 2], [2, 4], [4, 4], num_classes=5)


def small_convnext():
    stages = [CNBlockConfig(6, 8, 1), CNBlockConfig(8, None, 2)]
    return VISION.ConvNeXt(stages, num_classes=5, layer_scale=0.5)


def small_mobilenet():
    blocks = [(8, 3, 12, 8, True, "RE", 1, 1), (8, 3, 14, 10, False, "HS", 2, 1)]
    settings = [InvertedResidualConfig(*block, 1) for block in blocks]
    return VISION.MobileNetV3(settings, 16, 5)


NETS = {
    "alexnet": lambda: models.build(
        "alexnet", size=67, classes=5, channels=(6, 8, 10, 8, 6), fully_connected=(9, 7)
    ),
    "vgg11": lambda: models.build("vgg11", channels=[6, 8, 8, 9, 9, 7, 6, 5]),
    "vgg11 without normalisation": lambda: models.build(
        "vgg11", channels=[6, 8, 8, 9, 9, 7, 6, 5], batch_norm=False, fully_connected=[7, 6]
    ),
    "resnet": lambda: models.build("resnet", blocks=2, channels=[6, 8, 12]),
    "densenet": lambda: VISION.DenseNet(4, (2, 2), 8, num_classes=5),
    "mobilenet": small_mobilenet,
    "convnext": small_convnext,
    "vit": small_vit,
    "swin": small_swin,
}
# Whole nets of torchvision take long.
WHOLE = {
    name: getattr(VISION, name)
    for name in ("resnet18", "mobilenet_v3_small", "densenet121", "convnext_tiny", "vit_b_16")
}


def slow(*names):
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


def built(name):
    """A net in evaluation mode whose normalisations and biases differ from unit to unit."""
    torch.manual_seed(0)
    net = (NETS | WHOLE)[name]().eval()
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.is_floating_point() and (tensor.squeeze().ndim <= 1 or not tensor.any()):
                tensor += 0.2 * torch.randn(tensor.shape)
    return net


def images(name, count=2):
    side = {"alexnet": 67, "vit_b_16": 224}.get(name, 32)
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def drawn(found, seed=0):
    random = np.random.default_rng(seed)
    return {group.name: random.permutation(group.size) for group in found if not group.held}


@pytest.mark.parametrize("name", [*NETS, *slow(*WHOLE)])
def test_a_permuted_net_is_the_same_function(name):
    net, batch = built(name), images(name)
    found = groups(net, batch)
    assert found
    assert not any(group.held for group in found)
    state = permuted(net, found, drawn(found))
    same = check_same_function(net, state, batch)
    # In double precision nearly nothing is left of what single precision would explain.
    assert same.difference < 1e-5 * same.tolerance
    own = net.state_dict()
    changed = [key for key in state if state[key].ndim > 1 and not state[key].equal(own[key])]
    matrices = [key for key in state if state[key].ndim > 1 and max(state[key].shape) > 1]
    exempt = ("position", "running", "relative")  # integer tables
    assert [k for k in matrices if k not in changed and not any(e in k for e in exempt)] == []


@pytest.mark.parametrize("name", ["alexnet", "resnet", "vit"])
def test_new_unit_i_is_old_unit_p_i(name):
    net, batch = built(name), images(name)
    found = groups(net, batch)
    orders = drawn(found)
    other = built(name)
    other.load_state_dict(permuted(net, found, orders))

    names = {place for group in found for place in group.places}
    followed = follow(net, names, batch).items()
    axes = {place: axis for place, (_, axis) in followed if axis is not None}
    assert len(axes) > len(names) / 2

    def outputs(module):
        seen = {}

        def see(place, output):
            seen[place] = output.movedim(axes[place], 0).clone()

        with tapping(module, axes, see) as run, torch.no_grad():
            run(batch)
        return seen

    old, new = outputs(net), outputs(other)
    for group in found:
        for place, block in group.places.items():
            if place not in axes or place.startswith("norm"):  # which sees the order of channels
                continue
            one, two = old[place][block[orders[group.name]].ravel()], new[place][block.ravel()]
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)


def by_name(net, batch):
    return {group.name: group for group in groups(net, batch)}


def tensors(group):
    return {(axis.tensor, axis.axis) for axis in group.axes}


def test_a_residual_stream_is_one_group_and_its_inner_units_another():
    found = by_name(VISION.resnet18(), torch.zeros(1, 3, 64, 64))
    sizes = [64, 64, 64, 128, 128, 128, 256, 256, 256, 512, 512, 512]
    assert sorted(group.size for group in found.values()) == sizes
    stream = tensors(found["conv1"])
    assert {
        ("conv1.weight", 0),
        ("layer1.1.conv2.weight", 0),
        ("layer2.0.conv1.weight", 1),
    } <= stream
    assert {("bn1.running_var", 0), ("layer2.0.downsample.0.weight", 1)} <= stream
    inner = {("layer1.0.conv1.weight", 0), ("layer1.0.conv2.weight", 1)}
    norm = {
        (f"layer1.0.bn1.{name}", 0) for name in ("weight", "bias", "running_mean", "running_var")
    }
    assert tensors(found["layer1.0.conv1"]) == inner | norm
    assert "layer1.1" in found["conv1"].places


def test_a_shortcut_of_zeros_ties_the_middle_of_a_stage_to_the_one_before():
    net = models.build("resnet", blocks=1, channels=[4, 8, 16])
    found = by_name(net, torch.zeros(1, 3, 16, 16))
    assert {name: found[name].size for name in ("conv1", "layer2.0.conv2", "layer3.0.conv2")} == {
        "conv1": 4, "layer2.0.conv2": 4, "layer3.0.conv2": 8,
    }  # fmt: skip
    np.testing.assert_array_equal(found["conv1"].places["layer2.0"].ravel(), [2, 3, 4, 5])
    np.testing.assert_array_equal(found["layer2.0.conv2"].places["layer2.0"].ravel(), [0, 1, 6, 7])


class Joined(nn.Module):
    """Concatenation, flattened."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 5, 1)
        self.last = nn.Linear(9 * 4, 3)

    def forward(self, x):
        x = functional.relu(torch.cat([self.one(x), self.two(x)], 1), inplace=True)
        return self.last(functional.adaptive_max_pool2d(x, 2).flatten(1))


def test_concatenated_groups_lie_side_by_side_in_blocks_of_positions():
    found = by_name(Joined(), torch.zeros(1, 3, 8, 8))
    assert list(found) == ["one", "two"]
    (axis,) = [axis for axis in found["two"].axes if axis.tensor == "last.weight"]
    assert axis.axis == 1
    np.testing.assert_array_equal(axis.block, np.arange(16, 36).reshape(5, 4))


def test_convolutions_in_groups_keep_units_in_their_group_and_depthwise_ones_tie_them():
    net = nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.Conv2d(6, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 16, 3, groups=8),
        nn.Conv2d(16, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2),
    )  # fmt: skip
    found = groups(net, torch.zeros(1, 3, 8, 8))
    assert [group.size for group in found] == [3, 3, 4, 4, 5]
    depthwise = [axis.block.shape for axis in found[2].axes if axis.tensor == "3.weight"]
    assert depthwise == [(4, 2)]
    state = permuted(net, found, drawn(found))
    check_same_function(net, state, torch.randn(4, 3, 8, 8))


@pytest.mark.parametrize("groups_of", [1, 2, 4])
def test_transposed_convolutions_and_other_normalisations(groups_of):
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.PReLU(8),
        nn.ConvTranspose2d(8, 8, 3, groups=groups_of), nn.InstanceNorm2d(8, affine=True),
        nn.Upsample(scale_factor=2), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4), nn.SiLU(),
        nn.AvgPool2d(2), nn.Flatten(2), nn.Conv1d(4, 6, 3), nn.Dropout(), nn.Flatten(),
        nn.LazyLinear(2),
    )  # fmt: skip
    batch = torch.randn(4, 3, 9, 9)
    net.eval()(batch)
    found = groups(net, batch)
    assert sum(group.size for group in found) == 8 + 8 + 4 + 6
    check_same_function(net, permuted(net, found, drawn(found)), batch)


class Tied(nn.Module):
    """Codes with the weights of the decoder; one weight has two names."""

    def __init__(self):
        super().__init__()
        self.encode, self.decode = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
        self.decode.weight = self.encode.weight
        self.first, self.last = nn.Linear(12, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.last(torch.tanh(self.decode(torch.tanh(self.encode(self.first(x))))))


def test_tied_weights_move_under_both_names():
    net, batch = Tied(), torch.randn(5, 12)
    (group,) = groups(net, batch)
    both = {(f"{name}.weight", axis) for name in ("encode", "decode") for axis in (0, 1)}
    assert both <= tensors(group)
    state = permuted(net, [group], drawn([group]))
    assert state["encode.weight"].equal(state["decode.weight"])
    check_same_function(net, state, batch)
    order = align_weights(net.state_dict(), state, [group])["first"]
    np.testing.assert_array_equal(order, inverse(drawn([group])["first"]))


class Attention(nn.Module):
    """Attention as users write it, with a positional parameter and a class token."""

    def __init__(self, heads=3, fused=False):
        super().__init__()
        self.heads, self.fused = heads, fused
        self.embed, self.qkv = nn.Conv2d(3, 12, 4, 4), nn.Linear(12, 36)
        self.out, self.norm = nn.Linear(12, 12), nn.LayerNorm(12)
        self.token = nn.Parameter(torch.randn(1, 1, 12))
        self.position = nn.Parameter(torch.randn(1, 5, 12))
        self.head = nn.Linear(12, 2)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        batch, count, width = x.shape
        y = self.qkv(self.norm(x)).reshape(batch, count, 3, self.heads, width // self.heads)
        q, k, v = y.permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            y = functional.scaled_dot_product_attention(q, k, v)
        else:
            y = (q @ k.transpose(-2, -1) * 2).softmax(-1) @ v
        x = x + self.out(y.transpose(1, 2).reshape(batch, count, width))
        return self.head(x[:, 0])


@pytest.mark.parametrize("fused", [False, True])
def test_heads_move_as_a_whole_and_the_stream_is_one_group(fused):
    net, batch = Attention(fused=fused), torch.randn(4, 3, 8, 8)
    found = by_name(net, batch)
    sizes = {name: group.size for name, group in found.items()}
    assert sizes == {"embed": 12, "qkv": 3}
    stream = {("token", 2), ("position", 2), ("norm.weight", 0), ("head.weight", 1)}
    assert stream <= tensors(found["embed"])
    (axis,) = [axis for axis in found["qkv"].axes if axis.tensor == "qkv.weight"]
    np.testing.assert_array_equal(axis.block[1], [*range(4, 8), *range(16, 20), *range(28, 32)])
    state = permuted(net, list(found.values()), drawn(found.values()))
    check_same_function(net, state, batch)


class Mixer(nn.Module):
    """Mixes positions, then units; and adds the image to what it makes of it."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, 4)
        self.tokens = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 4))
        self.units = nn.Sequential(nn.Linear(8, 10), nn.GELU(), nn.Linear(10, 8))
        self.colours, self.head = nn.Conv2d(3, 3, 1), nn.Linear(8 + 3, 2)

    def forward(self, x):
        colours = (self.colours(x) + x).mean((2, 3))
        x = self.embed(x).flatten(2)
        x = (x + self.tokens(x)).transpose(1, 2)
        x = x + self.units(x)
        return self.head(torch.cat([x.mean(1), colours], 1))


def test_units_that_must_keep_their_order_are_held_with_the_reason():
    net, batch = Mixer(), torch.randn(4, 3, 8, 8)
    found = by_name(net, batch)
    assert {name: group.size for name, group in found.items() if not group.held} == {
        "embed": 8, "units.0": 10,
    }  # fmt: skip
    assert "mixes positions of other units at tokens.0" in found["tokens.0"].held
    assert "do not move" in found["colours"].held
    everything = list(found.values())
    check_same_function(net, permuted(net, everything, drawn(everything)), batch)
    with pytest.raises(PermutationError, match=r"group colours must keep their order"):
        permuted(net, everything, {"colours": [1, 0, 2]})
    np.testing.assert_array_equal(align(everything, {})["colours"], [0, 1, 2])


def with_order(alpha):
    torch.manual_seed(0)
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(3, 12, 3), relu=nn.ReLU(), norm=LocalResponseNorm(5, alpha),
            flatten=nn.Flatten(), linear=nn.Linear(12 * 36, 4),
        )
    )  # fmt: skip


def test_the_order_that_local_response_normalisation_sees_is_measured():
    batch = torch.randn(8, 3, 8, 8)
    net = with_order(1e-4)
    (group,) = groups(net, batch)
    assert group.order == ("norm",)
    state = permuted(net, [group], {"conv": np.arange(12)[::-1]})
    assert check_same_function(net, state, batch).order < 0.01
    net = with_order(1.0)
    state = permuted(net, [group], drawn([group]))
    with pytest.raises(PermutationError, match="local response normalisation sees the order"):
        check_same_function(net, state, batch)
    (kept,) = keeping_order([group])
    assert "at norm sees the order" in kept.held
    check_same_function(net, permuted(net, [kept], {}), batch)
    functional_net = nn.Sequential(net.conv, nn.LocalResponseNorm(5, 1.0), net.flatten, net.linear)
    assert groups(functional_net, batch)[0].order == ("1",)


def test_groups_are_found_without_values():
    with torch.device("meta"):
        net = VISION.resnet18()
        found = groups(net, torch.empty(1, 3, 64, 64))
    assert len(found) == 12


class Unknown(nn.Module):
    def forward(self, x):
        return torch.fft.fft(x).real


class OutOfSight(nn.Module):
    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return torch.from_numpy(np.sort(x.numpy(), 1))

    def forward(self, x):
        return self.Function.apply(x)


@pytest.mark.parametrize(("module", "what"), [(Unknown, "fft_fft"), (OutOfSight, "out of sight")])
def test_what_cannot_be_followed_is_named_with_its_place(module, what):
    net = nn.Sequential(OrderedDict(one=nn.Linear(4, 5), mix=module(), two=nn.Linear(5, 2)))
    with pytest.raises(FollowingError, match=rf"mix: .*{what}"):
        groups(net, torch.randn(2, 4))


def test_members_that_disagree_in_size_and_what_is_no_permutation_are_errors():
    net, wider = (nn.Sequential(nn.Linear(4, n), nn.ReLU(), nn.Linear(n, 2)) for n in (5, 6))
    found = groups(net, torch.randn(2, 4))
    with pytest.raises(PermutationError, match=r"group 0 disagree in size: 0.weight has 6 entries"):
        permuted(wider, found, {"0": np.arange(5)})
    with pytest.raises(PermutationError, match="disagree in size"):
        align_weights(net.state_dict(), wider.state_dict(), found)
    with pytest.raises(PermutationError, match="no permutation of 0 to 4"):
        permuted(net, found, {"0": [0, 1, 2, 3, 3]})
    with pytest.raises(PermutationError, match="no group 'first'; there are 0"):
        permuted(net, found, {"first": [0]})
    with pytest.raises(PermutationError, match=r"at 1 have the shape \(5, 6\)"):
        align(found, {"1": np.ones((5, 6))})


def test_a_tensor_that_was_left_behind_changes_the_function():
    net, batch = built("resnet"), images("resnet")
    found = groups(net, batch)
    state = permuted(net, found, drawn(found))
    state["layer2.0.bn1.running_var"] = net.state_dict()["layer2.0.bn1.running_var"]
    with pytest.raises(PermutationError, match="is another function"):
        check_same_function(net, state, batch)


@pytest.mark.parametrize("name", [*NETS, *slow("resnet18", "mobilenet_v3_small", "densenet121")])
def test_planted_permutations_come_back_by_weights(name):
    net, batch = built(name), images(name)
    found = groups(net, batch)
    for seed in range(2 if name in WHOLE else 10):
        planted = drawn(found, seed)
        state = permuted(net, found, planted)
        back = align_weights(net.state_dict(), state, found, seed)
        for group in found:
            np.testing.assert_array_equal(back[group.name], inverse(planted[group.name]))
        again = permuted(state, found, back)
        assert all(again[key].equal(value) for key, value in net.state_dict().items())


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "resnet"])
def test_planted_permutations_come_back_by_similarities(name):
    net, batch = built(name), images(name, 20)
    found = groups(net, batch)
    names = list(dict.fromkeys(list(group.places)[-1] for group in found))
    other = built(name)

    def units(module):
        seen = {}

        def see(place, output):
            seen[place] = output.movedim(1, -1).reshape(-1, output.shape[1]).numpy().copy()

        with tapping(module, names, see) as run, torch.no_grad():
            run(batch)
        return seen

    for seed in range(3):
        planted = drawn(found, seed)
        other.load_state_dict(permuted(net, found, planted))
        similarities = {}
        for place, values in units(net).items():
            count, moved = values.shape[1], units(other)[place]
            with np.errstate(invalid="ignore", divide="ignore"):
                both = np.corrcoef(values, moved, rowvar=False)
            similarities[place] = np.nan_to_num(both[:count, count:])
        back = align(found, similarities)
        state = permuted(other, found, back)
        check_same_function(net, state, batch[:4])
        for group in found:
            # Dead units are paired in order.
            moved = planted[group.name][back[group.name]]
            live = np.ones(group.size, bool)
            for place in set(group.places) & set(names):
                live &= similarities[place][group.places[place][:, 0]].any(1)
            np.testing.assert_array_equal(moved[live], np.flatnonzero(live))


def test_layers_of_a_group_share_the_matching_of_their_summed_similarities():
    net = models.build("resnet", blocks=1, channels=[3, 3, 3])
    found = by_name(net, torch.zeros(1, 3, 8, 8))
    stream = found["conv1"]
    assert {"relu1", "layer1.0", "layer2.0", "layer3.0"} <= set(stream.places)
    swapped, turned = np.eye(3)[[1, 0, 2]], np.eye(3)[[1, 2, 0]]
    one = align([stream], {"relu1": swapped, "layer1.0": 1.5 * turned})["conv1"]
    two = align([stream], {"relu1": swapped, "layer1.0": 1.5 * turned, "layer2.0": swapped})[
        "conv1"
    ]
    np.testing.assert_array_equal(one, [1, 2, 0])
    np.testing.assert_array_equal(two, [1, 0, 2])
    # The second unit of a is dead, and so is the third of b.
    dead = np.array([[0.1, 0.9, 0], [0, 0, 0], [0.8, 0.2, 0]])
    np.testing.assert_array_equal(align([stream], {"relu1": dead})["conv1"], [1, 2, 0])


def test_groups_without_a_place_are_matched_by_weights_given_the_others():
    net, batch = built("resnet"), images("resnet")
    found = groups(net, batch)
    planted = drawn(found)
    state = permuted(net, found, planted)
    stream = np.eye(6)[:, planted["conv1"]]
    alone = align(found, {"relu1": stream})
    np.testing.assert_array_equal(alone["conv1"], inverse(planted["conv1"]))
    np.testing.assert_array_equal(alone["layer1.0.conv1"], np.arange(6))
    both = align(found, {"relu1": stream}, (net.state_dict(), state))
    for group in found:
        np.testing.assert_array_equal(both[group.name], inverse(planted[group.name]))
