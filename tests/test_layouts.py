"""Outputs of places become (image, [positions...,] unit)."""

import subprocess
import sys

import pytest
import torch

from convergent.activations.layouts import Layout, LayoutError


def counted(*shape):
    return torch.arange(float(torch.Size(shape).numel())).reshape(shape)


def test_a_name_is_a_layout_and_the_layer_stands_in_for_a_place():
    assert Layout.of("layer1.0") == Layout("layer1.0")
    assert Layout.of({"grid": [2, 3]}, "conv1") == Layout("conv1", grid=(2, 3))
    given = Layout("a", unit_axis=-1)
    assert Layout.of(given) is given
    assert hash(Layout.of({"place": "a", "map": [2, 2]})) == hash(Layout("a", map=(2, 2)))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"place": "a", "skip_token": 1}, "layer l: unknown key 'skip_token'; did you mean skip_"),
        ({"place": "a", "zzz": 1}, "known are place, unit_axis, skip_tokens, map, grid"),
        (3, "layer l: place must be"),
        ({"place": "a", "skip_tokens": -1}, "layer l: a: skip_tokens must be .* got -1"),
        ({"place": "a", "skip_tokens": True}, "skip_tokens must be .* got True"),
        ({"place": "a", "unit_axis": 0}, "unit_axis must be .* got 0"),
        ({"place": "a", "map": [7]}, r"map must be \[height, width\].* got \[7\]"),
        ({"place": "a", "map": "mean"}, "map must be .* got 'mean'"),
        ({"place": "a", "grid": "max"}, r"grid must be mean or \[height, width\].* got 'max'"),
        ({"place": "a", "grid": [0, 2]}, r"grid must be .* got \[0, 2\]"),
    ],
)
def test_malformed_layouts_are_refused_by_key(value, words):
    with pytest.raises(LayoutError, match=words):
        Layout.of(value, "l")


def test_a_mapping_without_layer_needs_a_place():
    with pytest.raises(LayoutError, match="place is missing"):
        Layout.of({"grid": "mean"})


def test_units_are_moved_to_the_end():
    maps = counted(2, 3, 4, 5)
    assert torch.equal(Layout("a").arrange(maps, 1), maps.permute(0, 2, 3, 1))
    assert torch.equal(Layout("a", unit_axis=-3).arrange(maps), maps.permute(0, 2, 3, 1))
    flat = counted(2, 3)
    assert torch.equal(Layout("a").arrange(flat, -1), flat)


def test_tokens_become_a_map_without_the_class_token():
    tokens = counted(2, 7, 3)
    arranged = Layout("a", skip_tokens=1, map=(2, 3)).arrange(tokens, 2)
    assert arranged.shape == (2, 2, 3, 3)
    for y in range(2):
        for x in range(3):
            assert torch.equal(arranged[:, y, x], tokens[:, 1 + 3 * y + x])
    assert torch.equal(Layout("a", skip_tokens=2).arrange(tokens, 2), tokens[:, 2:])


def test_maps_are_pooled_to_a_grid():
    maps = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    pooled = Layout("a", grid=(2, 3)).arrange(maps, 1)
    expected = maps.reshape(2, 3, 2, 2, 3, 2).mean(dim=(3, 5)).permute(0, 2, 3, 1)
    torch.testing.assert_close(pooled, expected, rtol=1e-15, atol=1e-15)
    # Sides of 5 in 2 cells: rows 0 to 2 and 2 to 4, as cells overlap.
    maps = torch.randn(2, 3, 5, 1, dtype=torch.float64)
    pooled = Layout("a", grid=(2, 1)).arrange(maps, 1)[:, :, 0]
    expected = torch.stack([maps[:, :, :3, 0].mean(-1), maps[:, :, 2:, 0].mean(-1)], dim=1)
    torch.testing.assert_close(pooled, expected, rtol=1e-15, atol=1e-15)
    assert torch.equal(Layout("a", grid=(5, 1)).arrange(maps, 1), maps.permute(0, 2, 3, 1))


def test_mean_leaves_images_and_units():
    tokens = torch.randn(2, 7, 3, dtype=torch.float64)
    pooled = Layout("a", skip_tokens=1, grid="mean").arrange(tokens, 2)
    torch.testing.assert_close(pooled, tokens[:, 1:].mean(1), rtol=1e-15, atol=1e-15)
    volumes = torch.randn(2, 4, 3, 2, 5, dtype=torch.float64)
    pooled = Layout("a", grid="mean").arrange(volumes, 1)
    torch.testing.assert_close(pooled, volumes.mean((2, 3, 4)), rtol=1e-15, atol=1e-15)


def test_shapes_are_those_of_arranged_outputs():
    layout = Layout("a", unit_axis=2, skip_tokens=1, map=(4, 4), grid=(2, 2))
    assert layout.shape((3, 17, 8)) == (3, 2, 2, 8)
    assert layout.shape((3, 17, 8)) == layout.arrange(torch.zeros(3, 17, 8)).shape
    assert Layout("a", grid="mean").shape((3, 17, 8), 2) == (3, 8)


@pytest.mark.parametrize(
    ("keys", "shape", "axis", "words"),
    [
        ({"skip_tokens": 1}, (2, 8), 1, r"skip_tokens is for .*\(2, 8\), has no positions"),
        ({"skip_tokens": 1}, (2, 8, 4, 4), 1, r"skip_tokens .*\(2, 4, 4, 8\), has a map"),
        ({"skip_tokens": 5}, (2, 5, 8), 2, "there are 5 tokens; skip at most 4"),
        ({"map": [2, 2]}, (2, 5, 8), 2, "2 x 2 has 4 tokens, but there are 5$"),
        ({"map": [2, 2], "skip_tokens": 2}, (2, 5, 8), 2, "there are 3 after skip_tokens: 2"),
        ({"map": [4, 4]}, (2, 8, 4, 4), 1, "map is for .* has a map"),
        ({"grid": [5, 4]}, (2, 8, 4, 4), 1, "grid of 5 x 4 is larger than the map, .* 4 x 4"),
        ({"grid": [2, 2]}, (2, 4, 8), 2, "grid is for maps, .* has tokens; set map"),
        ({"grid": [2, 2]}, (2, 8, 3, 4, 4), 1, "grid is for maps, .* has a volume$"),
        ({"grid": "mean"}, (2, 8), 1, "grid is for layers with positions, .* no positions"),
        ({}, (2, 8), 2, "unit_axis is 2, but the output has shape"),
        ({}, (2, 8), -2, "unit_axis is -2, but .* axis 0"),
        ({}, (2, 8, 4), None, r"set unit_axis, the axis of the units in \(2, 8, 4\)"),
    ],
)
def test_layouts_that_do_not_fit_name_layer_place_and_what_there_is(keys, shape, axis, words):
    with pytest.raises(LayoutError, match=rf"layer l \(place a\): .*{words}"):
        Layout.of({"place": "a", **keys}).arrange(torch.zeros(shape), axis, "l")
    with pytest.raises(LayoutError, match=words):
        Layout.of({"place": "a", **keys}).shape(shape, axis)


def test_importing_needs_neither_torch_nor_numpy():
    code = "import sys; from convergent.activations.layouts import Layout; Layout.of('a'); "
    code += "assert not {'torch', 'numpy'} & set(sys.modules), 'imported'"
    subprocess.run([sys.executable, "-c", code], check=True)
