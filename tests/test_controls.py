"""Nets before training, recorded and observed beside the trained ones."""

import numpy as np
import pytest
import torch
from precision import rounding
from running import RUN, copy_project, planned, snakemake

from convergent.activations import from_nets, recording, reductions, statistics
from convergent.activations.blocks import load_blocks
from convergent.activations.controls import KINDS
from convergent.activations.moments import Moments
from convergent.nets import models, training
from convergent.running.stores import StoreError, open_store

LAYERS = ["conv1", "conv2", "fc6"]
PAIRS = [("net1", "net2"), ("net1", "net3"), ("net2", "net3")]
# An odd number of blocks of unequal size: the first half has one more.
IMAGES, BLOCKS, HALF = 70, 5, 42
OPTIONS = {"blocks": BLOCKS, "samples": 500}


def build(width=8):
    return models.build(
        "alexnet", size=16, inputs=1, classes=3, channels=(4, 6, width, 8, 6),
        fully_connected=(10, 9), kernel=3, stride=1, padding=1, init="kaiming",
    )  # fmt: skip


def started(seed, width=8):
    net = build(width)
    net.load_state_dict(training.untrained(lambda: build(width), seed))
    return net


@pytest.fixture(scope="module")
def images():
    return torch.rand(IMAGES, 1, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def nets():
    """Three nets, and what they began from; a unit of the first began dead."""
    trained = {f"net{seed}": started(10 + seed) for seed in (1, 2, 3)}
    before = {f"net{seed}": started(seed) for seed in (1, 2, 3)}
    with torch.no_grad():
        before["net1"].conv2.conv.bias[1] = -1e3
    return trained, before


def observed(folder, nets, images, **options):
    """Controls straight from the nets."""
    trained, before = nets
    pairs = options.pop("pairs", PAIRS)
    (folder / "trained").mkdir()
    from_nets.observe(
        trained,
        images.split(16),
        options.pop("layers", LAYERS),
        {name: folder / f"trained/{name}.zarr" for name in trained},
        {pair: folder / f"trained/{'-'.join(pair)}.zarr" for pair in pairs},
        image_index=np.arange(IMAGES),
        untrained={name: (net, folder / f"{name}.zarr") for name, net in before.items()},
        controls={pair: folder / f"{'-'.join(pair)}.zarr" for pair in pairs},
        **OPTIONS | options,
    )


def recorded(folder, nets, images, dtype, threads):
    """Controls from the stores of activations, a net and a pair at a time."""
    trained, before = nets
    (folder / "trained").mkdir()
    (folder / "activations").mkdir()
    stores = {}
    for name, net in trained.items():
        path, start = (folder / f"activations/{name}{kind}" for kind in ("", ".untrained"))
        beside = {start: before[name]}
        recording.record(net, images, LAYERS, path, beside=beside, dtype=dtype, batch_size=16)
        options = OPTIONS | {"workers": threads}
        statistics.write_statistics(path, folder / f"trained/{name}.zarr", LAYERS, **options)
        statistics.write_statistics(
            start, folder / f"{name}.zarr", LAYERS, untrained=True, **options
        )
        stores[name] = path, start
    for pair in PAIRS:
        (a, start_a), (b, start_b) = (stores[name] for name in pair)
        name = f"{'-'.join(pair)}.zarr"
        statistics.write_correlation(
            a, b, folder / "trained" / name, LAYERS, controls=folder / name,
            untrained=(start_a, start_b), blocks=BLOCKS, workers=threads,
        )  # fmt: skip


def activations(net, images):
    """Activations of all layers (image, ..., unit), by a forward pass of our own."""
    found = {layer: [] for layer in LAYERS}
    for layer in LAYERS:
        models.activation(net, layer).register_forward_hook(
            lambda module, given, output, layer=layer: found[layer].append(output.detach().clone())
        )
    with models.evaluating(net), torch.no_grad():
        for batch in images.split(16):
            net(batch)
    whole = {layer: torch.cat(parts) for layer, parts in found.items()}
    return {k: v.permute(0, *range(2, v.ndim), 1).numpy() for k, v in whole.items()}


def rows(values):
    return values.reshape(-1, values.shape[-1])


@pytest.mark.parametrize("way", [observed, recorded])
@pytest.mark.parametrize("wide", [False, True])
def test_stores_hold_what_the_untrained_nets_show(tmp_path, monkeypatch, nets, images, wide, way):
    """Each net, and the three pairs that it has with another, in each half of the images."""
    if wide:
        monkeypatch.setattr(reductions, "SIDE_BY_SIDE", 20)
        monkeypatch.setattr(reductions, "WIDE_SAMPLES", 25)
    way(tmp_path, nets, images, dtype="float32", threads=2)
    trained, before = ({k: activations(v, images) for k, v in of.items()} for of in nets)
    parts = (slice(0, HALF), slice(HALF, IMAGES))
    for name, own in before.items():
        store = open_store(tmp_path / f"{name}.zarr")
        for layer, x in own.items():
            group, blocks = store[layer], load_blocks(store[layer])
            near = rounding(rows(x))
            np.testing.assert_array_equal(blocks.cut.edges, [0, HALF, IMAGES])
            assert blocks.cut.half == HALF
            for moments, part in zip(blocks.moments, parts, strict=True):
                expected = Moments.of(rows(x[part]))
                assert moments.count == expected.count
                np.testing.assert_allclose(moments.mean_x, expected.mean_x, rtol=near, atol=near)
                np.testing.assert_allclose(
                    moments.correlation(), expected.correlation(), atol=2 * near
                )
            np.testing.assert_array_equal(group["dead"][...], rows(x).var(axis=0) == 0)
            means = x.mean(axis=tuple(range(1, x.ndim - 1)), dtype=np.float64)
            np.testing.assert_allclose(group["image_mean"][...], means, rtol=near, atol=near)
            samples = min(500, len(rows(x)))
            assert group["codes"].shape == (samples, x.shape[-1])
            assert {"strongest", "weakest", "values"}.isdisjoint(group)
    assert open_store(tmp_path / "net1.zarr")["conv2/dead"][...][1]
    for a, b in PAIRS:
        store = open_store(tmp_path / f"{a}-{b}.zarr")
        assert store.attrs["same_views"] in (None, True)
        for layer in LAYERS:
            assert sorted(store[layer]) == sorted(KINDS)
            for kind, untrained in KINDS.items():
                x, y = (
                    (before if first else trained)[net][layer]
                    for net, first in zip((a, b), untrained, strict=True)
                )
                near = 2 * rounding(rows(x), rows(y))
                for found, part in zip(store[layer][kind][...], parts, strict=True):
                    expected = Moments.of(rows(x[part]), rows(y[part])).correlation()
                    np.testing.assert_allclose(found, expected, atol=near)


def test_only_pairs_that_are_asked_for_are_compared_at_layers_that_both_have(
    tmp_path, nets, images
):
    places = {
        "net1": {"first": "conv1", "late": "fc6"},
        "net2": {"first": "conv1", "only": "conv2", "late": "fc6"},
        "net3": {"late": "fc7"},
    }
    layers = ["first", "only", "late"]
    observed(tmp_path, nets, images, layers=layers, places=places, pairs=PAIRS[:1])
    assert {path.name for path in tmp_path.glob("*.zarr")} == {
        "net1.zarr", "net2.zarr", "net3.zarr", "net1-net2.zarr",
    }  # fmt: skip
    for name, own in places.items():
        assert set(open_store(tmp_path / f"{name}.zarr").group_keys()) == own.keys()
    pair = open_store(tmp_path / "net1-net2.zarr")
    assert set(pair.group_keys()) == {"first", "late"}
    assert pair["late/untrained"].shape == (2, 10, 10)


def test_maps_that_differ_are_refused_by_their_layer(tmp_path, nets, images):
    places = {"net1": {"map": "conv1"}, "net2": {"map": "conv3"}, "net3": {"map": "conv1"}}
    with pytest.raises(StoreError, match=r"layer map: positions of .*net2 cannot be aligned"):
        observed(tmp_path, nets, images, layers=["map"], places=places)
    assert not list(tmp_path.rglob("*.zarr"))


def test_numbers_of_units_may_differ(tmp_path, images):
    trained = {"net1": started(11), "net2": started(12, width=5)}
    before = {"net1": started(1), "net2": started(2, width=5)}
    observed(tmp_path, (trained, before), images, layers=["conv3"], pairs=PAIRS[:1])
    assert open_store(tmp_path / "net1-net2.zarr")["conv3/untrained_ba"].shape == (2, 8, 5)


def test_what_is_said_of_an_untrained_net_names_its_store(tmp_path, nets, images):
    trained, _ = nets
    store = tmp_path / "net1.untrained.zarr"
    broken = started(1)
    with torch.no_grad():
        broken.conv2.conv.bias[1] = float("nan")
    with pytest.raises(recording.RecordingError, match=rf"layer conv2 of {store}: .* NaN"):
        recording.record(
            trained["net1"], images, LAYERS, tmp_path / "net1.zarr", beside={store: broken}
        )
    assert not list(tmp_path.iterdir())


OVERLAY = """
nets:
  start1: {seed: 1, epochs: 0}
  start2: {seed: 2, epochs: 0}
training: {epochs: 1}
pairs: [net1-net2, start1-start2, net1-start2, net2-start1]
activations: {dtype: float32}
"""


@pytest.mark.slow
def test_controls_are_what_explicit_untrained_nets_are(tmp_path):
    """The jobs of the nets and of the pair make them; numbers are those of nets with epochs: 0."""
    copy_project(tmp_path)
    (tmp_path / "starts.yaml").write_text(OVERLAY, encoding="utf-8")
    options = ["--configfile", "starts.yaml"]
    controls = f"{RUN}/pairs/net1-net2/controls.zarr"
    pairs = ["start1-start2", "net1-start2", "net2-start1"]
    targets = [f"{RUN}/pairs/{pair}/correlation.zarr" for pair in pairs]
    targets += [f"{RUN}/statistics/{net}.zarr" for net in ("start1", "start2")]
    targets += [f"{RUN}/nets/{net}/untrained.zarr" for net in ("net1", "net2")]
    counts = planned(tmp_path, controls, *options)
    assert counts.pop("correlation_with_untrained") == 1
    assert counts == {"images": 1, "shapes": 2, "train": 2, "record_with_untrained": 2}
    snakemake(tmp_path, controls, *targets, *options)
    run = tmp_path / RUN
    assert not (run / "pairs/start1-start2/controls.zarr").exists()
    kept = open_store(run / "pairs/net1-net2/controls.zarr")
    assert kept.attrs["origin"]["nets"] == {"net1": 1, "net2": 2}
    for net in ("1", "2"):
        found = open_store(run / f"nets/net{net}/untrained.zarr")
        expected = open_store(run / f"statistics/start{net}.zarr")
        for layer in expected.group_keys():
            np.testing.assert_array_equal(found["image_index"], expected["image_index"])
            blocks, recorded = load_blocks(found[layer]), load_blocks(expected[layer])
            near = 2 * rounding_of_blocks(recorded)
            for x, y in zip(blocks.moments, recorded.halves(), strict=True):
                np.testing.assert_allclose(x.correlation(), y.correlation(), atol=near)
            for name in ("dead", "sample_image", "sample_position"):
                np.testing.assert_array_equal(found[layer][name], expected[layer][name])
            same = found[f"{layer}/codes"][...] == expected[f"{layer}/codes"][...]
            assert same.mean() > 0.99
    for pair, kind, turned in zip(pairs, KINDS, (False, False, True), strict=True):
        store = open_store(run / f"pairs/{pair}/correlation.zarr")
        for layer in kept.group_keys():
            recorded = load_blocks(store[layer])
            for found, expected in zip(
                kept[f"{layer}/{kind}"][...], recorded.halves(), strict=True
            ):
                expected = expected.turned() if turned else expected
                near = 2 * rounding_of_blocks(recorded)
                np.testing.assert_allclose(found, expected.correlation(), atol=near)


def rounding_of_blocks(blocks):
    """Largest error of the correlations of any block."""
    from precision import rounding_of

    return max(
        rounding_of(mean, var)
        for m in blocks.moments
        for mean, var in ((m.mean_x, m.var_x), (m.mean_y, m.var_y))
    )
