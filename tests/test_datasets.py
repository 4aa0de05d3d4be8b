"""Images are listed, checked and cut as the configuration says."""

import os
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from convergent import datasets
from convergent.datasets import DataError, Images

# An image folder of CIFAR-10, for those who have one.
CIFAR10 = Path(os.environ.get("CONVERGENT_CIFAR10", "none"))


@pytest.fixture
def folder(tmp_path, rng):
    for split, n in (("train", 4), ("val", 2)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 255, size=(20, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i}.png")
    (tmp_path / "train/cat/notes.txt").write_text("not an image", encoding="utf-8")
    return tmp_path


def test_digits_are_split_by_class_with_a_seed():
    options = {"validation_fraction": 0.25, "seed": 0}
    listing, pixels = datasets.list_arrays("digits", None, **options)
    assert list(listing) == ["split", "image", "label", "class", "path", "crc32"]
    assert pixels.shape == (1797, 8, 8, 1)
    assert pixels.max() == 255
    sizes = listing.groupby(["label", "split"]).size().unstack()  # noqa: PD010
    np.testing.assert_allclose(sizes["validation"] / sizes.sum(axis=1), 0.25, atol=0.01)
    for _, rows in listing.groupby("split"):
        np.testing.assert_array_equal(rows["image"], np.arange(len(rows)))
    assert listing.equals(datasets.list_arrays("digits", None, **options)[0])
    other = datasets.list_arrays("digits", None, validation_fraction=0.25, seed=1)[0]
    assert not listing.equals(other)


def test_a_folder_is_listed_in_order(folder):
    listing = datasets.list_folder(folder, threads=2)
    assert listing.groupby("split").size().to_dict() == {"train": 8, "validation": 4}
    assert list(listing["class"].unique()) == ["cat", "dog"]
    validation = listing[listing["split"] == "validation"]
    assert list(validation["path"]) == [f"val/{c}/{i}.png" for c in ("cat", "dog") for i in (0, 1)]


def test_test_serves_as_validation_folder(folder):
    (folder / "val").rename(folder / "test")
    assert "test/cat/0.png" in set(datasets.list_folder(folder)["path"])


def test_corrupt_images_are_all_named(folder):
    (folder / "train/cat/1.png").write_bytes(b"no picture")
    truncated = folder / "val/dog/0.png"
    truncated.write_bytes(truncated.read_bytes()[:200])
    with pytest.raises(DataError, match=r"train/cat/1\.png(.|\n)*val/dog/0\.png"):
        datasets.list_folder(folder)


def test_a_class_without_training_images_is_refused(folder):
    (folder / "val/emu").mkdir()
    with pytest.raises(DataError, match="classes that train/ has not: emu"):
        datasets.list_folder(folder)


def test_a_class_with_an_empty_folder_is_refused(folder):
    (folder / "train/emu").mkdir()
    with pytest.raises(DataError, match=r"train: classes without images: emu"):
        datasets.list_folder(folder)


def test_an_image_that_changed_since_it_was_listed_is_refused(folder):
    listing = datasets.list_folder(folder).query("split == 'validation'")
    images = Images(listing, folder, resize=20, size=20, channels=3)
    Image.new("RGB", (20, 30)).save(images.files[2])
    images.__getitems__([0, 1, 3])
    with pytest.raises(DataError, match=r"val/dog/0\.png: has changed since it was listed"):
        images.__getitems__([2])


@pytest.mark.parametrize("change", ["an image", "fewer", "truncated"])
def test_pixels_that_changed_since_they_were_listed_are_refused(tmp_path, rng, change):
    pixels = rng.integers(0, 255, size=(5, 8, 8, 1), dtype=np.uint8)
    images_of(pixels, tmp_path, resize=8, size=8)
    rows = pd.DataFrame({"label": 0, "crc32": [zlib.crc32(p) for p in pixels]})
    rows["path"] = list("01234")
    source = tmp_path / "p.npz"
    if change == "truncated":
        os.truncate(source, 200)
    else:
        pixels[3, 4, 4] += 1
        np.savez(source, pixels=pixels[: 5 if change == "an image" else 4])
    message = {"an image": "image 3 has changed", "fewer": "has changed", "truncated": "be read"}
    with pytest.raises(DataError, match=rf"p\.npz: .*{message[change]}"):
        Images(rows, source, resize=8, size=8, channels=1)


def test_checksums_follow_the_content(folder):
    before = datasets.list_folder(folder)
    Image.new("RGB", (20, 30)).save(folder / "val/dog/1.png")
    after = datasets.list_folder(folder)
    assert (before["crc32"] != after["crc32"]).sum() == 1


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((4, 8, 8), np.uint8)}, "has no array labels"),
        ({"images": np.zeros((4, 8, 8)), "labels": np.zeros(4)}, "must be uint8"),
        ({"images": np.zeros((4, 8, 8), np.uint8), "labels": np.zeros(3)}, "labels \\(3,\\)"),
        ({"images": np.zeros((4, 8, 8), np.uint8), "labels": np.arange(4)}, "cannot split"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=message):
        datasets.list_arrays("arrays", str(tmp_path / "x.npz"), validation_fraction=0.2, seed=0)


def test_arrays_may_bring_their_own_split(tmp_path, rng):
    images = rng.integers(0, 255, size=(10, 8, 8, 3), dtype=np.uint8)
    mask = np.arange(10) >= 7
    labels = np.array(list("aabbaabbab"))
    np.savez(tmp_path / "x.npz", images=images, labels=labels, validation=mask)
    listing, pixels = datasets.list_arrays(
        "arrays", str(tmp_path / "x.npz"), validation_fraction=0.5, seed=0
    )
    assert list(listing.query("split == 'validation'")["path"]) == ["7", "8", "9"]
    assert list(listing["class"]) == list(labels)
    np.testing.assert_array_equal(pixels, images)


def test_cifar10_is_read_through_torchvision(tmp_path, monkeypatch):
    asked = []

    class Fake:
        classes = ("cat", "dog")

        def __init__(self, root, train, download):
            asked.append((root, train, download))
            self.data = np.full((6 if train else 4, 32, 32, 3), 9, np.uint8)
            self.targets = [0, 1] * (3 if train else 2)

        def __len__(self):
            return len(self.data)

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Fake)
    listing, pixels = datasets.list_arrays("cifar10", "here", validation_fraction=0.5, seed=0)
    assert asked == [("here", True, True), ("here", False, True)]
    assert pixels.shape == (10, 32, 32, 3)
    assert list(listing["split"]) == ["train"] * 6 + ["validation"] * 4


def images_of(pixels, tmp_path, **options):
    np.savez(tmp_path / "p.npz", pixels=pixels)
    rows = pd.DataFrame({"label": 0, "crc32": [zlib.crc32(p) for p in pixels]})
    rows["path"] = [str(i) for i in range(len(pixels))]
    return Images(rows, tmp_path / "p.npz", channels=pixels.shape[-1], **options)


def test_validation_views_are_the_centre(tmp_path, rng):
    pixels = rng.integers(0, 255, size=(5, 12, 14, 3), dtype=np.uint8)
    images = images_of(pixels, tmp_path, resize=12, size=8)
    views, labels = images.__getitems__([4, 0])
    expected = pixels[[4, 0], 2:10, 3:11].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(views.numpy(), expected)
    assert labels.tolist() == [0, 0]


def test_training_views_are_windows_of_the_padded_image(tmp_path, rng):
    pixels = rng.integers(1, 255, size=(1, 8, 8, 1), dtype=np.uint8)
    images = images_of(np.repeat(pixels, 2000, 0), tmp_path, resize=8, size=8, shift=2, flip=True)
    padded = np.pad(pixels[0, :, :, 0], 2)
    windows = {padded[i : i + 8, j : j + 8].tobytes() for i in range(5) for j in range(5)}
    windows |= {np.frombuffer(w, np.uint8).reshape(8, 8)[:, ::-1].tobytes() for w in windows}
    images.draw(0)
    views = images.__getitems__(list(range(2000)))[0]
    assert {view.numpy().tobytes() for view in views[:, 0]} == windows
    # Drawn once an epoch: the order in which they are asked for does not matter.
    again = images.__getitems__([7, 1999, 3])[0]
    assert torch.equal(again, views[[7, 1999, 3]])
    images.draw(1)
    assert not torch.equal(images.__getitems__(list(range(2000)))[0], views)


def test_resize_keeps_the_aspect_unless_told(tmp_path, folder):
    listing = datasets.list_folder(folder).query("split == 'validation'")
    short = Images(listing, folder, resize=10, size=10, channels=3)
    both = Images(listing, folder, resize=(12, 10), size=10, channels=3)
    assert short._decoded(0).shape == (1, 3, 10, 15)
    assert both._decoded(0).shape == (1, 3, 12, 10)


def test_resizing_agrees_with_pillow(tmp_path, folder):
    listing = datasets.list_folder(folder).query("split == 'validation'")
    images = Images(listing, folder, resize=(10, 15), size=10, channels=3)
    with Image.open(images.files[0]) as image:
        expected = np.asarray(image.resize((15, 10), Image.Resampling.BILINEAR))
    result = images._decoded(0)[0].permute(1, 2, 0).numpy()
    assert np.abs(result.astype(int) - expected).max() <= 1


def test_grey_nets_see_colour_files_in_grey(folder):
    listing = datasets.list_folder(folder).query("split == 'validation'")
    images = Images(listing, folder, resize=20, size=20, channels=1)
    assert images.__getitems__([0, 1])[0].shape == (2, 1, 20, 20)


def test_loader_with_workers_gives_the_same_in_order(folder):
    listing = datasets.list_folder(folder).query("split == 'validation'")
    images = Images(listing, folder, resize=20, size=20, channels=3)
    alone, shared = (torch.cat([v for v, _ in images.loader(3, workers=n)]) for n in (0, 2))
    assert torch.equal(alone, shared)


def test_channels_must_fit_the_arrays(tmp_path, rng):
    images_of(np.zeros((2, 8, 8, 1), np.uint8), tmp_path, resize=8, size=8)
    rows = pd.DataFrame({"label": [0, 0], "path": ["0", "1"], "crc32": zlib.crc32(bytes(64))})
    with pytest.raises(DataError, match=r"1 channels where data\.mean gives 3"):
        Images(rows, tmp_path / "p.npz", resize=8, size=8, channels=3)


def test_normalize_follows_the_definition(rng):
    views = torch.from_numpy(rng.integers(0, 256, size=(2, 3, 4, 4), dtype=np.uint8))
    result = datasets.normalize(views, [0.1, 0.2, 0.3], [1.0, 0.5, 0.25]).numpy()
    for channel, (mean, std) in enumerate(((0.1, 1.0), (0.2, 0.5), (0.3, 0.25))):
        expected = (views[:, channel].numpy() / 255 - mean) / std
        np.testing.assert_allclose(result[:, channel], expected, atol=1e-6)


def test_recorded_images_are_drawn_once_for_all_nets(tmp_path, rng):
    pixels = rng.integers(0, 255, size=(30, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "p.npz", pixels=pixels)
    rows = pd.DataFrame({"label": 0, "path": [str(i) for i in range(30)], "image": range(30)})
    rows["crc32"] = [zlib.crc32(p) for p in pixels]
    rows["split"] = "validation"
    options = {"size": 8, "mean": [0.5], "validation_transform": {"resize": 8}}
    source = tmp_path / "p.npz"
    images, index = datasets.load_recorded(rows, source, options, number=7, seed=3)
    again = datasets.load_recorded(rows, source, options, number=7, seed=3)[1]
    np.testing.assert_array_equal(index, again)
    assert (np.diff(index) > 0).all()
    np.testing.assert_array_equal(
        images.__getitems__([0, 6])[0][:, 0].numpy(), pixels[index[[0, 6]], :, :, 0]
    )
    with pytest.raises(DataError, match=r"activations\.images: 31 asked for, there are 30"):
        datasets.load_recorded(rows, source, options, number=31)


@pytest.mark.parametrize(("first", "seen"), [(None, 10), (5, 8), (50, 10)])
def test_batches_of_the_first_images_end_at_their_total(tmp_path, caplog, first, seen):
    pixels = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((8, 8, 1), np.uint8)
    np.savez(tmp_path / "p.npz", pixels=pixels)
    rows = pd.DataFrame({"image": range(10), "label": 0, "class": "x", "path": range(10)})
    rows["crc32"] = [zlib.crc32(p) for p in pixels]
    rows.assign(split="validation").to_csv(tmp_path / "l.csv", index=False)
    options = {"size": 8, "mean": [0], "std": [1], "validation_transform": {"resize": 8}}
    files = {"listing": tmp_path / "l.csv", "pixels": tmp_path / "p.npz"}
    with caplog.at_level("INFO"):
        batches, index, classes = datasets.recorded_batches(files, options, "net", 4, first=first)
        values = torch.cat(list(batches))[:, 0, 0, 0] * 255
    assert values.round().tolist() == list(range(seen))
    assert (len(index), classes) == (10, 1)
    assert f"net: 100% of {seen} images" in caplog.records[-1].getMessage()


@pytest.mark.skipif(not CIFAR10.is_dir(), reason="CONVERGENT_CIFAR10 names no image folder")
def test_real_photographs_are_read():
    listing = datasets.list_folder(CIFAR10, threads=2)
    assert listing.groupby("split").size().to_dict() == {"train": 50_000, "validation": 10_000}
    rows = listing[listing["split"] == "validation"]
    images = Images(rows, CIFAR10, resize=32, size=32, channels=3)
    assert images.__getitems__([0, 9999])[0].shape == (2, 3, 32, 32)
