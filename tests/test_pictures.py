"""Pictures of units are shown as they are stored, and empty tiles say why they are empty."""

import re

import numpy as np
import pytest
from PIL import Image

from convergent.figures.sheets import PICTURE, Sheet, block, softened, tile, tiles, wrapped
from convergent.figures.style import save
from convergent.running.stores import new_store, open_store
from convergent.running.stores import save as write
from convergent.units.pictures import eight_bit


@pytest.fixture
def store(rng, tmp_path):
    """Unit 1 is dead, unit 2 has no pictures."""
    with new_store(tmp_path / "net1.zarr") as group:
        layer = group.create_group("conv1")
        values = rng.random((3, 9)).astype(np.float32)
        values[1] = 0
        values[0, 7:] = np.nan  # seven images
        write(layer, "value", values, ("unit", "rank"))
        write(layer, "pictured", np.array([True, True, False]), ("unit",))
        for name in ("patches", "deconv"):
            pixels = rng.integers(0, 255, size=(3, 9, 5, 5, 3), dtype=np.uint8)
            write(layer, name, pixels, ("unit", "rank", "height", "width", "channel"))
        filters = rng.integers(0, 255, size=(3, 4, 4, 3), dtype=np.uint8)
        write(layer, "filters", filters, ("unit", "height", "width", "channel"))
    return tmp_path / "net1.zarr"


def test_nine_pictures_make_a_block_with_white_between(rng):
    pictures = rng.integers(0, 200, size=(9, 18, 20, 1), dtype=np.uint8)
    page = block(pictures)
    assert page.shape == (58, 64, 1)
    np.testing.assert_array_equal(page[20:38, 44:64], pictures[5])
    assert (page[18:20] == 255).all()
    assert (page[:, 42:44] == 255).all()


def test_small_pictures_are_enlarged_by_a_whole_number(rng):
    pictures = rng.integers(0, 200, size=(9, 5, 5, 3), dtype=np.uint8)
    page = block(pictures)
    assert page.shape == (64, 64, 3)
    np.testing.assert_array_equal(page[22:42:4, 22:42:4], pictures[4])
    np.testing.assert_array_equal(page[25:42:4, 25:42:4], pictures[4])


def test_tiles_come_from_the_store_of_their_net(store):
    group = open_store(store)["conv1"]
    pictures = tiles(["net1"], [store])
    shown = {"patches": group["patches"][0], "deconv": softened(group["deconv"][0])}
    for kind, expected in shown.items():
        np.testing.assert_array_equal(pictures("net1", "conv1", 0, kind), block(expected))
    np.testing.assert_array_equal(pictures("net1", "conv1", 2, "filters"), group["filters"][2])
    assert tile(group, 1) == "dead"
    assert tile(group, 2) == "no picture"


def test_a_planted_stroke_is_seen_through_filters_that_are_random_pixel_by_pixel(rng):
    """Filters of a few pixels stay as they are."""
    y, x = np.mgrid[:16, :16]
    stroke = np.exp(-(((y - x) / 2) ** 2) - ((x + y - 15) / 8) ** 2)
    noise = rng.normal(size=(9, 16, 16, 1))
    noise -= np.roll(noise, 1, axis=1)
    stored = eight_bit(1.5 * stroke[..., None] + noise)
    seen = [
        [np.corrcoef(picture.ravel(), stroke.ravel())[0, 1] for picture in pictures]
        for pictures in (stored, softened(stored))
    ]
    assert np.mean(seen[0]) < 0.3
    assert np.mean(seen[1]) > 0.6
    # Every picture uses all of the greys.
    assert (np.abs(softened(stored).astype(int) - 128).max(axis=(1, 2, 3)) == 127).all()
    filters = eight_bit(rng.normal(size=(9, 3, 3, 1)).astype(np.float32))
    assert np.abs(softened(filters).astype(int) - filters).max() <= 1
    assert (softened(np.full((9, 16, 16, 1), 128, np.uint8)) == 128).all()


def test_pictures_are_sharp_in_a_png_and_at_their_own_resolution_in_a_pdf(rng, tmp_path):
    small = rng.integers(0, 2, size=(7, 7, 1), dtype=np.uint8) * 255
    large = rng.integers(0, 255, size=(301, 301, 3), dtype=np.uint8)
    sheet = Sheet(3, 1, "title")
    sheet.place(small, 0, 0)
    sheet.place(large, 1, 0)
    sheet.place("dead", 2, 0)
    images = sheet.figure.axes[0].images
    assert [image.get_gid() for image in images] == [PICTURE] * 2
    assert [image.get_interpolation() for image in images] == ["nearest", "antialiased"]
    assert [t.get_text() for t in sheet.figure.axes[0].texts] == ["dead"]
    save(sheet.figure, tmp_path / "a.png", tmp_path / "a.pdf")
    content = (tmp_path / "a.pdf").read_bytes()
    sizes = {
        tuple(int(re.search(rf"/{key} (\d+)".encode(), part)[1]) for key in ("Width", "Height"))
        for part in re.findall(rb"<<[^>]*/Subtype /Image[^>]*>>", content)
    }
    assert {(7, 7), (301, 301)} <= sizes
    # Enlarged, but no grey between black and white.
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image.convert("L"))
    box = images[0].get_window_extent()
    height = pixels.shape[0]
    inner = pixels[
        int(height - box.y1) + 3 : int(height - box.y0) - 3, int(box.x0) + 3 : int(box.x1) - 3
    ]
    assert set(np.unique(inner)) <= {0, 255}
    assert len(np.unique(inner)) == 2


def test_tiles_of_the_weakest_side_and_without_deconvolutions_say_what_they_are(rng, tmp_path):
    signs = np.array([[1, 0], [0, -1], [1, -1], [0, 0]])  # strongest, weakest
    with new_store(tmp_path / "net1.zarr") as group:
        layer = group.create_group("sum")
        layer.attrs["undeconvolved"] = "GELU at features.1.0.block.4"
        write(layer, "pictured", np.ones(4, bool), ("unit",))
        for column, part in enumerate((layer, layer.create_group("weakest"))):
            write(part, "value", np.repeat(signs[:, column : column + 1], 9, 1), ("unit", "rank"))
            pixels = rng.integers(0, 255, size=(4, 9, 20, 20, 1), dtype=np.uint8)
            write(part, "patches", pixels, ("unit", "rank", "height", "width", "channel"))
    group = open_store(tmp_path / "net1.zarr")["sum"]
    weakest = tiles(["net1"], [tmp_path / "net1.zarr"], "weakest")
    assert weakest("net1", "sum", 0) == "never negative"
    assert tile(group, 1) == "never positive"
    assert tile(group, 3) == weakest("net1", "sum", 3) == "dead"
    np.testing.assert_array_equal(tile(group, 2), block(group["patches"][2]))
    np.testing.assert_array_equal(weakest("net1", "sum", 2), block(group["weakest/patches"][2]))
    assert tile(group, 2, "deconv") == "no deconvolution: GELU at features.1.0.block.4"


def test_long_reasons_are_broken_where_a_word_or_a_part_of_a_path_ends():
    assert wrapped("no picture") == ["no picture"]
    lines = wrapped("no deconvolution: GELU at features.1.0.block.4")
    assert lines == ["no", "deconvolution:", "GELU at", "features.1.0.", "block.4"]
