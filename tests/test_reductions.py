"""A further reduction gives the same from stores, straight from nets, and of the whole arrays."""

import itertools
import operator

import numpy as np
import pytest
import torch
from test_statistics import write_store

from convergent.activations import from_nets, from_stores, recording, reductions, statistics
from convergent.activations.blocks import Cut
from convergent.activations.controls import halves as halves_of
from convergent.activations.reductions import Reduction
from convergent.running.stores import open_store, save

LAYERS = ["conv2", "fc6"]


def image_mean(net):
    """The mean of every image, unit by unit."""

    def save_mean(group, parts):
        save(group, "image_mean", np.concatenate(parts[0]), ("image", "unit"))

    return Reduction((net,), lambda start, x: [mean(x)], operator.add, {(net,): save_mean})


def mean(x):
    return x.reshape(len(x), -1, x.shape[-1]).mean(axis=1, dtype=np.float64)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("batch", [9, 70])
def test_one_more_entry_is_in_both_routes(tmp_path, monkeypatch, small_net, wide, batch):
    if wide:
        monkeypatch.setattr(reductions, "SIDE_BY_SIDE", 1)
        monkeypatch.setattr(reductions, "WIDE_SAMPLES", 30)
    monkeypatch.setattr(from_stores, "LEAF_BYTES", 1)
    for module in (statistics, from_nets):
        monkeypatch.setattr(module, "net_reductions", lambda net, *args: [image_mean(net)])
    images = torch.rand(70, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    recording.record(small_net, images, LAYERS, tmp_path / "a", batch_size=batch)
    statistics.write_statistics(tmp_path / "a", tmp_path / "s", LAYERS, blocks=5)
    from_nets.observe(
        {"net": small_net}, images.split(batch), LAYERS, {"net": tmp_path / "o"}, {},
        image_index=np.arange(70), blocks=5, threads=2,
    )  # fmt: skip
    recorded, *found = (open_store(tmp_path / name) for name in "aso")
    for layer in LAYERS:
        for store in found:
            np.testing.assert_array_equal(store[f"{layer}/image_mean"], mean(recorded[layer][...]))


@pytest.mark.parametrize("leaf_bytes", [1, 10**9])
def test_pieces_do_not_reach_across_blocks(rng, tmp_path, monkeypatch, leaf_bytes):
    """By block, by half or over all images, parts are merged in the order of the images."""
    monkeypatch.setattr(from_stores, "LEAF_BYTES", leaf_bytes)
    values = rng.normal(size=(53, 3)).astype(np.float32)
    x = open_store(write_store(tmp_path / "x", {"fc6": values}, chunk_rows=7))["fc6"]
    cut = Cut.of(53, 4)
    two = halves_of(cut)

    def rows(start, piece):
        np.testing.assert_array_equal(piece, values[start : start + len(piece)])
        return list(range(start, start + len(piece)))

    each, halves, whole = from_stores.reduce_stores(
        [x], [Reduction((0,), rows, operator.add, {}, cut=of) for of in (cut, two, None)]
    )
    assert whole == [list(range(53))]
    for parts, edges in ((each, cut.edges), (halves, [0, cut.half, 53])):
        assert parts == [list(range(i, j)) for i, j in itertools.pairwise(edges)]
