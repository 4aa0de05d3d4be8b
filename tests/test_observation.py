"""Straight from the nets comes what would be read back from their stores."""

import errno
import itertools
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from precision import rounding_of

from convergent.activations import from_nets, recording, reductions, statistics
from convergent.activations.blocks import half_correlations
from convergent.measures import joint_densities
from convergent.nets import models
from convergent.nets.marks import Batch
from convergent.running.stores import DiskFullError, StoreError, new_store, open_store

LAYERS = ["conv1", "conv2", "fc6"]
INDEX = np.arange(70) * 2 + 1
# Arrays that are the same to the last bit, of those that hold floating-point numbers.
EXACT = {"value", "values", "edges", "image_mean"}


@pytest.fixture(scope="module")
def images():
    return torch.rand(70, 1, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def nets():
    """Three nets; a unit of the second is dead."""
    found = {}
    for seed in (1, 2, 3):
        torch.manual_seed(seed)
        found[f"net{seed}"] = models.build(
            "alexnet", size=16, inputs=1, classes=3, channels=(4, 6, 8, 8, 6),
            fully_connected=(10, 9), kernel=3, stride=1, padding=1, init="kaiming",
        )  # fmt: skip
    with torch.no_grad():
        found["net2"].conv2.conv.bias[1] = -1e3
    return found


def observe(folder, nets, images, batch=16, **options):
    pairs = list(itertools.combinations(nets, 2))
    options = {"samples": 500, "blocks": 4, "seed": 5, "image_index": INDEX} | options
    from_nets.observe(
        nets,
        images.split(batch),
        LAYERS,
        {name: folder / f"{name}.zarr" for name in nets},
        {pair: folder / f"{'-'.join(pair)}.zarr" for pair in pairs},
        **options,
    )


def by_stores(folder, nets, images, positions=None, dtype="float16", batch=16):
    for name, net in nets.items():
        recording.record(
            net, images, LAYERS, folder / name, image_index=INDEX, positions=positions, seed=5,
            dtype=dtype, batch_size=batch,
        )  # fmt: skip
        statistics.write_statistics(
            folder / name, folder / f"{name}.zarr", LAYERS, samples=500, blocks=4, seed=5
        )
    for a, b in itertools.combinations(nets, 2):
        statistics.write_correlation(
            folder / a, folder / b, folder / f"{a}-{b}.zarr", LAYERS, blocks=4
        )


def assert_same(found, expected):
    names = {path for path, _ in expected.members(max_depth=None)}
    assert {path for path, _ in found.members(max_depth=None)} == names
    for path, array in expected.members(max_depth=None):
        if not hasattr(array, "shape"):
            continue
        assert found[path].dtype == array.dtype
        exact = path.split("/")[-1] in EXACT
        if exact or array.dtype.kind != "f":
            np.testing.assert_array_equal(found[path][...], array[...], err_msg=path)
        else:
            blocks = expected[f"{path.split('/')[0]}/blocks"]
            near = 2 * max(
                rounding_of(blocks[f"mean_{side}"][...], blocks[f"var_{side}"][...])
                for side in "xy"
            )
            # A co-moment errs by a share of the deviations of both units.
            a, b = (np.sqrt(blocks[f"var_{side}"][...]) for side in "xy")
            comoment = blocks["count"][...][:, None, None] * a[:, :, None] * b[:, None]
            scale = comoment if path.endswith("comoment") else 1
            error = np.abs(found[path][...] - array[...].astype(float))
            assert (error <= near * np.maximum(scale, np.abs(array[...]))).all(), path


@pytest.mark.parametrize(
    ("wide", "positions", "batch"),
    [(False, None, 9), (True, None, 16), (False, 7, 70), (True, 7, 9)],
)
def test_numbers_are_those_of_the_stores(
    tmp_path, monkeypatch, nets, images, wide, positions, batch
):
    if wide:
        monkeypatch.setattr(reductions, "SIDE_BY_SIDE", 20)
        monkeypatch.setattr(reductions, "WIDE_SAMPLES", 25)
    (tmp_path / "stores").mkdir()
    by_stores(tmp_path / "stores", nets, images, positions, batch=batch)
    observe(tmp_path, nets, images, batch, positions=positions, threads=2)
    for name in [*nets, "net1-net2", "net1-net3", "net2-net3"]:
        found, expected = (
            open_store(folder / f"{name}.zarr") for folder in (tmp_path, tmp_path / "stores")
        )
        assert_same(found, expected)


def test_float32_is_kept(tmp_path, nets, images):
    (tmp_path / "stores").mkdir()
    by_stores(tmp_path / "stores", nets, images, dtype="float32")
    observe(tmp_path, nets, images, dtype="float32")
    assert_same(open_store(tmp_path / "net2.zarr"), open_store(tmp_path / "stores/net2.zarr"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"image_index": np.arange(60)}, ValueError, "more images than image_index names"),
        ({"image_index": np.arange(90)}, ValueError, "70 images, but image_index names 90"),
        ({"blocks": 80}, StoreError, "70 images cannot make 80 blocks"),
        ({"samples": 20}, StoreError, "layer conv1: 20 samples are too few for the 21 bins"),
    ],
)
def test_images_that_do_not_fit_leave_nothing(tmp_path, nets, images, options, error, message):
    with pytest.raises(error, match=message):
        observe(tmp_path, nets, images, **options)
    assert not list(tmp_path.iterdir())


def test_a_net_that_overflows_leaves_nothing(tmp_path, nets, images):
    with pytest.raises(recording.RecordingError, match="do not fit into float16"):
        observe(tmp_path, nets, images * 1e6)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("store", ["net2.zarr", "net1-net3.zarr"])
def test_a_full_disk_is_named_with_its_store(tmp_path, monkeypatch, nets, images, store):
    """As where the disk fills while a store is written, which the error names."""
    monkeypatch.setattr(
        from_nets, "new_store", lambda path: full(path, str(path).endswith(f"/{store}"))
    )
    with pytest.raises(DiskFullError, match=rf"/{store}: its disk is full, \d+ MB are free"):
        observe(tmp_path, nets, images)
    assert not (tmp_path / store).exists()


@contextmanager
def full(path, fails):
    with new_store(path) as group:
        yield group
        if fails:
            raise OSError(errno.ENOSPC, "No space left on device")


def test_memory_does_not_grow_with_the_images(tmp_path, monkeypatch, nets, images):
    import tracemalloc

    peaks = []
    for number in (70, 490):
        tracemalloc.start()
        observe(tmp_path, nets, images.repeat(number // 70, 1, 1, 1), image_index=np.arange(number))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # How far the next batch has come while one is reduced differs from run to run.
    assert peaks[1] < 2 * peaks[0]


@pytest.mark.parametrize("positions", [None, 7])
def test_values_of_units_are_those_of_the_stores(tmp_path, monkeypatch, nets, images, positions):
    monkeypatch.setattr(joint_densities, "IMAGES", 40)
    by_stores(tmp_path, {"net1": nets["net1"]}, images, positions)
    units = {"conv1": np.array([2, 0]), "fc6": np.array([1, 1])}
    found = from_nets.observed_values(
        nets["net1"], images.split(16), units, image_index=INDEX[:40], positions=positions, seed=5
    )
    expected = joint_densities.stored_values(tmp_path / "net1", units)
    for layer in units:
        np.testing.assert_array_equal(found[layer], expected[layer])


@pytest.mark.parametrize("scale", [1e-18, 1e16])
def test_units_of_any_scale_are_observed_as_they_are_recorded(tmp_path, nets, images, scale):
    """Squares that float32 does not hold, in layers that nothing normalises."""
    net = nets["net1"]
    small = {"net1": torch.nn.Sequential(net.conv1)}
    with torch.no_grad():
        small["net1"][0].conv.bias.zero_()
    layers = models.layers(small["net1"], images[:1])
    recording.record(
        small["net1"], images * scale, layers, tmp_path / "a", dtype="float32", image_index=INDEX
    )
    options = {"samples": 500, "blocks": 4, "seed": 5}
    statistics.write_statistics(tmp_path / "a", tmp_path / "s", layers, **options)
    from_nets.observe(
        small, (images * scale).split(16), layers, {"net1": tmp_path / "o"}, {},
        image_index=INDEX, dtype="float32", **options,
    )  # fmt: skip
    found, expected = (open_store(tmp_path / name)[layers[0]] for name in "os")
    live = ~expected["dead"][...]
    assert live.sum() > 1
    np.testing.assert_array_equal(~found["dead"][...], live)
    for group in (found, expected):
        np.testing.assert_array_equal(group["correlation"][...].diagonal(), live)
        half, _ = half_correlations(group)
        near = rounding_of(group["mean"][...], group["std"][...] ** 2)
        np.testing.assert_allclose(half, half_correlations(expected)[0], atol=2 * near)


def test_nets_have_layers_and_input_of_their_own(tmp_path, nets, images):
    """Each pair is compared at what both have; numbers are those of the stores."""
    pooled = {"place": "conv1", "grid": [4, 4]}
    places = {
        "net1": {"first": pooled, "late": "fc6"},
        "net2": {"first": pooled, "only": "conv2", "late": "fc7"},
    }
    scaled = {"net1": images, "net2": (images - 0.5) / 0.25}

    def batches(name):
        for start in range(0, 70, 16):
            marks = np.arange(start, min(start + 16, 70), dtype=np.uint64)
            yield Batch(scaled[name][start : start + 16], marks, marks)

    options = {"samples": 500, "blocks": 4, "seed": 5}
    from_nets.observe(
        {name: nets[name] for name in places},
        {name: batches(name) for name in places},
        ["first", "only", "late"],
        {name: tmp_path / f"{name}.live" for name in places},
        {("net1", "net2"): tmp_path / "pair.live"},
        image_index=INDEX, places=places, **options,
    )  # fmt: skip
    for name, own in places.items():
        recording.record(
            nets[name], batches(name), list(own), tmp_path / name, places=own, image_index=INDEX
        )
        statistics.write_statistics(
            tmp_path / name, tmp_path / f"{name}.zarr", list(own), **options
        )
        found = open_store(tmp_path / f"{name}.live")
        assert set(found.group_keys()) == own.keys()
        assert_same(found, open_store(tmp_path / f"{name}.zarr"))
    statistics.write_correlation(
        tmp_path / "net1", tmp_path / "net2", tmp_path / "pair.zarr", ["first", "late"], blocks=4
    )
    found = open_store(tmp_path / "pair.live")
    assert set(found.group_keys()) == {"first", "late"}
    assert found.attrs["same_views"] is True
    assert found["late/correlation"].shape == (10, 9)
    assert_same(found, open_store(tmp_path / "pair.zarr"))


def test_maps_that_differ_in_a_pair_are_refused_and_may_stand_apart(tmp_path, nets, images):
    places = {"net1": {"map": "conv1"}, "net2": {"map": "conv3"}}
    some = {name: nets[name] for name in places}
    options = {"image_index": INDEX, "places": places, "samples": 500, "blocks": 4}
    stores = {name: tmp_path / name for name in places}
    pair = {("net1", "net2"): tmp_path / "pair"}
    with pytest.raises(
        StoreError, match=r"layer map: .* with maps of \(16, 16\) and \(3, 3\); .*grid"
    ):
        from_nets.observe(some, images.split(16), ["map"], stores, pair, **options)
    from_nets.observe(some, images.split(16), ["map"], stores, {}, **options)
    assert [open_store(store)["map/mean"].shape for store in stores.values()] == [(4,), (8,)]


def test_nets_that_are_given_other_images_are_refused(tmp_path, nets, images):
    some = {name: nets[name] for name in ("net1", "net2")}
    batches = {"net1": images.split(16), "net2": images.flip(0).split(16)}
    with pytest.raises(StoreError, match="net1 and net2: recorded on different images"):
        from_nets.observe(some, batches, LAYERS, {n: tmp_path / n for n in some}, {},
                          image_index=INDEX, blocks=4, samples=500)  # fmt: skip
    assert not list(tmp_path.iterdir())
