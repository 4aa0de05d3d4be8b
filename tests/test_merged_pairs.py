"""A pair's stores become tables: partners come from one half of the images, or from weights."""

import copy
import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from legible import illegible
from torch import nn

from convergent.activations.from_nets import observe
from convergent.config import ConfigError
from convergent.config.run import load
from convergent.consequences.curves import barriers, mean_of_halves
from convergent.consequences.merged_pairs import Side, merge_pair
from convergent.consequences.merging import MergeError
from convergent.consequences.permutation import groups, permuted
from convergent.consequences.zipped_pairs import zip_pair
from convergent.figures.merging import curves_of_merging, draw_collapse, draw_merge
from convergent.nets import models
from convergent.nets.datasets import Images
from convergent.running.stores import open_store

DATA = {
    "size": 16, "mean": [0.5], "std": [0.25], "validation_transform": {"resize": 16},
}  # fmt: skip
LAYERS = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def images(tmp_path, rng):
    """120 images of three classes."""
    labels = np.arange(120) % 3
    pixels = rng.integers(0, 80, size=(120, 16, 16, 1)) + 80 * labels[:, None, None, None]
    return written(tmp_path, pixels.astype(np.uint8), labels)


def written(folder, pixels, labels):
    from zlib import crc32

    from convergent.nets.marks import image_marks

    np.savez(folder / "images.npz", pixels=pixels)
    rows = {
        "label": labels,
        "path": [str(row) for row in range(len(pixels))],
        "crc32": [crc32(np.ascontiguousarray(p)) for p in pixels],
        "identity": [hex(mark) for mark in image_marks(pixels)],
    }
    return Images(pd.DataFrame(rows), folder / "images.npz", resize=16, size=16, channels=1)


def sides(folder, a, b, images, data=DATA):
    """Sides of a pair with the stores that the workflow makes, and the store of the pair."""
    nets = {"net1": a, "net2": b}
    observe(
        nets,
        images.batches(32, DATA["mean"], DATA["std"]),
        LAYERS,
        {name: folder / f"{name}.zarr" for name in nets},
        {("net1", "net2"): folder / "pair.zarr"},
        image_index=np.arange(len(images)),
        dtype="float32",
        samples=2000,
        blocks=4,
    )
    places = {layer: {"place": layer} for layer in LAYERS}
    return [
        *(
            Side(name, net, data, open_store(folder / f"{name}.zarr"), places)
            for name, net in nets.items()
        ),
        open_store(folder / "pair.zarr"),
    ]


def trained(net, images):
    """A net that tells the classes apart, by a few steps."""
    views = (images.__getitems__(list(range(120)))[0].float() / 255 - 0.5) / 0.25
    labels = torch.tensor(images.labels)
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(views), labels).backward()
        optimizer.step()
    return net.eval()


def twin(net, rng):
    """The net with all its units in another order, by what the graph says."""
    found = groups(net, torch.zeros(1, 1, 16, 16))
    state = permuted(net, found, {group.name: rng.permutation(group.size) for group in found})
    other = copy.deepcopy(net)
    other.load_state_dict(state)
    return other


def without_response_norm(net):
    for name, module in net.named_children():
        if name.startswith("norm"):
            setattr(net, name, nn.Identity())
        assert not isinstance(module, nn.BatchNorm2d)
    return net


def test_a_permuted_copy_is_found_again_and_nothing_is_lost(tmp_path, rng, small_net, images):
    net = trained(without_response_norm(small_net), images)
    a, b, pair = sides(tmp_path, net, twin(net, rng), images)
    options = {"classes": 3, "points": 3, "batch_size": 50, "seed": 0}
    found = merge_pair(a, b, pair, images, images, **options)
    means = mean_of_halves(found.table)
    kept = means[(means["alignment"] == "correlation") & ~means["corrected"]]
    assert set(found.table["alignment"]) == {
        "none", "correlation", "mutual_information", "weights", "ensemble",
    }  # fmt: skip
    parent = means[(means["alignment"] == "none") & (means["t"] == 0)].iloc[0]
    np.testing.assert_allclose(kept["loss"], parent["loss"], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(kept["top1"], parent["top1"])
    excess = barriers(found.table).set_index(["alignment", "repaired", "quantity"])["barrier_max"]
    assert excess["none", False, "loss"] > 0.1
    live = found.collapse.dropna()
    assert list(dict.fromkeys(live["layer"])) == LAYERS
    np.testing.assert_allclose(live["alone"], live["predicted"], rtol=1e-4, atol=1e-6)
    # All but those that the ReLU silences for all images, whose partners correlations do not tell.
    same = live[live["rho"] > 0.999]
    assert len(same) > 0.8 * len(live)
    np.testing.assert_allclose(same["whole"], 1, atol=0.05)
    # As drawn.
    found.table.to_csv(tmp_path / "merge.csv", index=False)
    found.collapse.to_csv(tmp_path / "collapse.csv", index=False)
    figure = draw_merge(tmp_path / "merge.csv", ["net1", "net2"])
    assert not illegible(figure)
    assert "120 images" in figure.axes[0].get_title("left")
    drawn = {tuple(np.round(line.get_ydata(), 6)) for line in figure.axes[0].lines}
    assert tuple(np.round(kept[~kept["repaired"]]["top1"], 6)) in drawn
    figure = draw_collapse(tmp_path / "collapse.csv", ["net1", "net2"])
    assert not illegible(figure)
    assert [ax.get_title().split("\n")[0] for ax in figure.axes if ax.get_visible()] == LAYERS


@pytest.mark.parametrize("labelled", [True, False])
def test_a_zipped_pair_lies_between_the_mean_of_both_nets_and_the_net_halfway(
    tmp_path, small_net, images, labelled
):
    torch.manual_seed(1)
    other = models.build(
        "alexnet", size=16, inputs=1, classes=3, channels=(4, 6, 8, 8, 6),
        fully_connected=(10, 9), kernel=3, stride=1, padding=1, init="kaiming",
    )  # fmt: skip
    nets = [trained(net, images) for net in (small_net, other)]
    if not labelled:
        images = written(
            tmp_path,
            images.__getitems__(list(range(120)))[0].permute(0, 2, 3, 1).numpy(),
            np.full(120, -1),
        )
    of_pair = sides(tmp_path, *nets, images)
    options = {"classes": 3, "batch_size": 50}
    table = zip_pair(*of_pair, images, images, shares=[0, 0.5, 1], **options)
    rows = table.set_index(["net", "share", "repaired", "half"]).sort_index()
    merged = merge_pair(*of_pair, images, images, points=3, **options).table
    middle = merged[(merged["t"] == 0.5) & (merged["temperature"] == 1)]
    middle = middle.set_index(["alignment", "repaired", "half"])
    if labelled:
        for half, repaired in itertools.product(("first", "last"), (False, True)):
            one = rows.loc[("zip", 1.0, repaired, half)]
            expected = middle.loc["correlation", repaired, half]
            assert one["loss"].item() == pytest.approx(expected["loss"], rel=1e-3)
            assert one["top1"].item() == pytest.approx(expected["top1"])
    views = (images.__getitems__(list(range(120)))[0].float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        outputs = [net.eval()(views) for net in nets]
    mean, mixed = sum(outputs) / 2, sum(each.softmax(1) for each in outputs) / 2
    goal = torch.tensor(images.labels) if labelled else mixed.argmax(1)
    for half, part in (("first", slice(0, 60)), ("last", slice(60, None))):
        for repaired in (False, True):
            loss = nn.functional.cross_entropy(mean[part], goal[part]).item()
            # The order of channels is seen a little.
            assert rows.loc[("zip", 0.0, repaired, half), "loss"].item() == pytest.approx(
                loss, rel=0.02, abs=1e-3
            )
        top1 = (mixed[part].argmax(1) == goal[part]).double().mean().item()
        assert rows.loc["ensemble"].xs(half, level="half")["top1"].item() == pytest.approx(top1)
    number = sum(each.numel() for each in small_net.parameters())
    assert set(rows.loc["net1"]["parameters"]) == set(rows.loc["zip"].loc[1.0]["parameters"])
    assert rows.loc["net1"]["parameters"].iloc[0] == number
    assert number < rows.loc["zip"].loc[0.5]["parameters"].iloc[0] < 2 * number


def test_without_training_images_the_half_that_chose_is_measured(tmp_path, small_net, images):
    a, b, pair = sides(tmp_path, small_net, copy.deepcopy(small_net), images)
    options = {"classes": 3, "points": 3, "batch_size": 50}
    found = merge_pair(a, b, pair, images, None, **options)
    rows = found.table[found.table["temperature"] == 1]
    counts = rows.groupby(["t", "alignment", "repaired", "half"]).size()
    assert (counts == 1).all()
    assert set(rows["half"]) == {"first", "last"}


def test_images_without_labels_have_agreement(tmp_path, small_net, images):
    images.labels = np.full(120, -1)
    a, b, pair = sides(tmp_path, small_net, copy.deepcopy(small_net), images)
    found = merge_pair(a, b, pair, images, images, classes=1, points=3, batch_size=50)
    assert found.table["top1"].isna().all()
    plain = found.table[(found.table["alignment"] == "none") & ~found.table["repaired"]]
    assert (plain["agreement"] == 1).all()
    figure = curves_of_merging(found.table, ["net1", "net2"])
    assert figure.axes[0].get_ylabel() == "agreement with the nets"


def test_nets_that_do_not_see_images_alike_are_refused_by_name(tmp_path, small_net, images):
    a, b, pair = sides(tmp_path, small_net, copy.deepcopy(small_net), images)
    options = {"classes": 3, "points": 3, "batch_size": 50}
    other = b._replace(data={**DATA, "mean": [0.4]})
    with pytest.raises(MergeError, match=r"net1 and net2 .* data\.mean is \[0\.5\] and \[0\.4\]"):
        merge_pair(a, other, pair, images, images, **options)
    with pytest.raises(MergeError, match=r"net1 and net2 .*classes"):
        merge_pair(a, b._replace(classes=[0, 1, -1]), pair, images, images, **options)
    wide = models.build(
        "alexnet", size=16, inputs=1, classes=3, channels=(5, 6, 8, 8, 6),
        fully_connected=(10, 9), kernel=3, stride=1, padding=1,
    )  # fmt: skip
    with pytest.raises(MergeError, match=r"net1 and net2 cannot be merged, as they are different"):
        merge_pair(a, b._replace(net=wide), pair, images, images, **options)


def config(**changes):
    base = {
        "run": "tried",
        "nets": {"net1": {"seed": 1}, "net2": {"seed": 2}},
        "data": {"name": "digits", "mean": [0.3], "std": [0.3], "size": 16,
                 "train_transform": {"resize": 16}, "validation_transform": {"resize": 16}},
        "model": {"name": "alexnet", "kernel": 3, "stride": 1, "padding": 1},
        "merging": {"automatic": True},
    }  # fmt: skip
    return load(base | changes)


def test_a_run_merges_by_itself_only_nets_that_are_alike():
    assert config().merges
    assert not config(merging={}).merges
    nets = {"net1": {"seed": 1}, "net2": {"seed": 2, "model": {"fully_connected": [9, 9]}}}
    assert not config(nets=nets).merges
    nets = {"net1": {"seed": 1}, "net2": {"seed": 2, "data": {"mean": [0.2]}}}
    assert not config(nets=nets).merges
    # Untrained nets may have other outputs than there are classes.
    untrained = {"epochs": 0, "role": "subject"}
    assert not config(nets={"net1": {"seed": 1}, "net2": {"seed": 2} | untrained}).merges


def test_points_must_have_a_middle():
    with pytest.raises(ConfigError, match=r"merging\.points: should be odd.*got 4"):
        config(merging={"points": 4})
