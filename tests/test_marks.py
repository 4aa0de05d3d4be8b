"""Nets are compared on the same images in the same order, or not at all."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from convergent.activations import recording, statistics
from convergent.alignment import sparse_maps
from convergent.measures.matrices import write_matrices
from convergent.measures.mutual_information import MEASURE
from convergent.nets.marks import (
    Batch,
    Marks,
    batches,
    check_same_images,
    image_marks,
    load_marks,
    save_marks,
)
from convergent.running.stores import StoreError, new_store, open_store


@pytest.fixture
def images():
    return torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.ReLU())


def record(net, images, path, **options):
    recording.record(net, images, ["1"], path, **options)
    return open_store(path)


def correlate(folder, **options):
    statistics.write_correlation(
        folder / "a", folder / "b", folder / "c", ["1"], blocks=2, **options
    )
    return open_store(folder / "c")


def test_marks_follow_values_and_not_how_they_lie_in_memory(rng):
    images = torch.from_numpy(rng.normal(size=(6, 3, 5, 4)).astype(np.float16))
    expected = image_marks(images.numpy())
    assert expected.dtype == np.uint64
    assert len(set(expected.tolist())) == 6
    lying = torch.from_numpy(np.ascontiguousarray(images.numpy().transpose(0, 2, 3, 1)))
    double, lying = images.double(), lying.permute(0, 3, 1, 2)
    for same in (images.float(), double, double.numpy(), lying):
        np.testing.assert_array_equal(image_marks(same), expected)
    short = images.bfloat16()
    np.testing.assert_array_equal(image_marks(short), image_marks(short.float()))
    np.testing.assert_array_equal(image_marks(images[[4, 1]]), expected[[4, 1]])
    assert not (image_marks(images.reshape(6, 3, 4, 5)) == expected).any()
    tokens = rng.integers(0, 1000, size=(6, 7))
    np.testing.assert_array_equal(image_marks(tokens), image_marks(torch.from_numpy(tokens).int()))
    views = rng.integers(0, 256, size=(6, 7), dtype=np.uint8)
    np.testing.assert_array_equal(image_marks(views), image_marks(torch.from_numpy(views)))


def test_a_changed_value_changes_the_mark_of_its_image_alone(images):
    changed = images.clone()
    changed[7, 2, 3, 3] += 1e-6
    assert np.flatnonzero(image_marks(images) != image_marks(changed)).tolist() == [7]


def test_a_loader_that_shuffles_is_refused(tmp_path, net, images):
    for name in "ab":
        record(net, DataLoader(TensorDataset(images), 8, shuffle=True), tmp_path / name)
    with pytest.raises(StoreError, match=r"in another order .*shuffle=False") as error:
        correlate(tmp_path)
    assert "image_index " in str(error.value)
    assert not (tmp_path / "c").exists()


def test_images_that_differ_are_named(tmp_path, net, images):
    record(net, images, tmp_path / "a")
    other = images.clone()
    other[[3, 11]] = 0.5
    record(net, other, tmp_path / "b")
    with pytest.raises(StoreError, match=r"2 of 40 images differ.* image_index 3, 11\)"):
        correlate(tmp_path)
    record(net, images[:30], tmp_path / "b")
    with pytest.raises(StoreError, match="40 and 30 images"):
        correlate(tmp_path)
    record(net, images, tmp_path / "b", image_index=np.arange(40) + 1)
    with pytest.raises(StoreError, match=r"different images \(40 of 40 images differ"):
        correlate(tmp_path)


def test_batches_and_types_of_nets_do_not_matter(tmp_path, net, images):
    record(net, images, tmp_path / "a", batch_size=7)
    record(net.double(), images.double(), tmp_path / "b", batch_size=40)
    assert correlate(tmp_path)["1/correlation"].shape == (5, 5)


def test_identity_that_is_stated_is_what_counts(tmp_path, net, images):
    """As where each net has its own normalisation of the same images."""
    names = np.arange(40) + 5
    record(net, images, tmp_path / "a", identity=names)
    record(net, images / 2, tmp_path / "b", identity=names)
    assert correlate(tmp_path).attrs["same_views"] is None
    record(net, images, tmp_path / "b", identity=names[::-1])
    with pytest.raises(StoreError, match="in another order"):
        correlate(tmp_path)
    with pytest.raises(ValueError, match="identity must hold a whole number for each of 40 images"):
        record(net, images, tmp_path / "b", identity=names[:3])


def viewed(images, view):
    """Batches of a data set, which know what the images are whatever the net is given of them."""
    for part in torch.arange(40).split(16):
        yield Batch(view[part], image_marks(images[part]), image_marks(view[part]))


def test_views_may_differ_only_where_that_is_said(tmp_path, net, images):
    index = np.arange(40)
    record(net, viewed(images, images), tmp_path / "a", image_index=index)
    record(net, viewed(images, images), tmp_path / "b", image_index=index)
    assert correlate(tmp_path).attrs["same_views"] is True
    record(net, viewed(images, images.flip(-1)), tmp_path / "b", image_index=index)
    with pytest.raises(StoreError, match="different views of 40 of 40"):
        correlate(tmp_path)
    assert correlate(tmp_path, other_views=True).attrs["same_views"] is False


def test_every_stage_that_reads_two_nets_compares_them(tmp_path, net, images):
    for name, seen in (("a", images), ("b", images), ("x", images.flip(0))):
        record(net, seen, tmp_path / name)
        statistics.write_statistics(tmp_path / name, tmp_path / f"s{name}", ["1"], blocks=2)
    correlate(tmp_path)
    stages = [
        lambda: write_matrices(
            MEASURE, tmp_path / "mi", ["1"], tmp_path / "sa", tmp_path / "sx"
        ),
        lambda: sparse_maps.write_mapping(
            tmp_path / "m", ["1"], [0], tmp_path / "sa", tmp_path / "sx", tmp_path / "c"
        ),
        lambda: sparse_maps.write_sgd_mapping(
            tmp_path / "m", ["1"], [0], (tmp_path / "a", tmp_path / "x"),
            (tmp_path / "sa", tmp_path / "sx"), tmp_path / "c", iterations=1,
        ),
    ]  # fmt: skip
    for stage in stages:
        with pytest.raises(StoreError, match="in another order"):
            stage()


def test_stores_that_know_no_marks_are_compared_by_index(tmp_path):
    stores = {}
    for name, index in (("a", np.arange(4)), ("b", np.arange(4)), ("c", np.arange(4)[::-1])):
        with new_store(tmp_path / name) as group:
            save_marks(group, Marks(index))
        stores[name] = open_store(tmp_path / name)
        assert load_marks(stores[name]).identity is None
    assert check_same_images({name: stores[name] for name in "ab"}) is None
    with pytest.raises(StoreError, match="another order"):
        check_same_images({name: stores[name] for name in "ac"})


def test_batches_take_what_loaders_give():
    x = torch.arange(12.0).reshape(6, 2)
    for given in (x, x.numpy(), [x[:4], x[4:]], [(x, 0)], [{"label": 1, "image": x}]):
        found = list(batches(given, 4))
        torch.testing.assert_close(torch.cat([batch.images for batch in found]), x)
    with pytest.raises(ValueError, match="a dictionary of label, meta; its images must be under"):
        list(batches([{"label": 1, "meta": 2}]))
