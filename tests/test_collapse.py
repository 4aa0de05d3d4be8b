"""Variance of averaged units: as their matches predict, if one layer alone is averaged."""

import copy

import numpy as np
import pytest
import torch
from test_merging import permuted, sequential, with_state

from convergent.consequences.collapse import collapse_table, layer_names, partners, predicted_share
from convergent.consequences.merging import interpolate, maps
from convergent.figures.merging import variances_of_units


@pytest.fixture(autouse=True)
def one_thread():
    """Nets are so small that threads would mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def images():
    return torch.randn(60, 1, 8, 8, generator=torch.Generator().manual_seed(2)) + 3


def outputs(net, index, images):
    """What one module of a net gives, as (sample, unit)."""
    with torch.no_grad():
        for number, module in enumerate(net):
            images = module(images)
            if number == index:
                return images.movedim(1, -1).flatten(0, -2).double().numpy()
    raise IndexError


def table(a, b, images, size=13):
    middle = copy.deepcopy(a)
    interpolate(middle, a.state_dict(), b.state_dict(), 0.5)
    names = maps(a, images)
    own = {name: np.arange(7) for name in names}
    return middle, collapse_table(a, b, middle, images.split(size), names, own)


def test_a_layer_averaged_alone_varies_as_predicted_to_rounding(images):
    torch.manual_seed(0)
    _, found = table(sequential(), sequential(), images)
    assert len(found) == 3 * 7
    live = found.dropna(subset=["predicted"])
    np.testing.assert_allclose(live["alone"], live["predicted"], rtol=1e-5, atol=1e-9)
    assert not np.allclose(live["whole"], live["predicted"], rtol=0.05)


def test_values_are_those_of_numpy(images):
    torch.manual_seed(0)
    a, b = sequential(), sequential()
    middle, found = table(a, b, images)
    for name in ("0", "2", "6"):
        x, y, whole = (outputs(net, int(name), images) for net in (a, b, middle))
        rows = found[found["layer"] == name]
        rho = [np.corrcoef(x[:, unit], y[:, unit])[0, 1] for unit in range(7)]
        live = x.std(0) * y.std(0) > 0
        np.testing.assert_allclose(rows["rho"][live], np.array(rho)[live], rtol=1e-4, atol=1e-6)
        of_parents = (x.var(0) + y.var(0)) / 2
        np.testing.assert_allclose(rows["whole"], whole.var(0) / of_parents, rtol=1e-4)
        np.testing.assert_allclose(rows["alone"], ((x + y) / 2).var(0) / of_parents, rtol=1e-4)


def test_in_the_first_layer_alone_is_the_same_as_averaged_weights(images):
    """Both nets have the same input there, so that nothing is lost in layers before."""
    torch.manual_seed(0)
    _, found = table(sequential(), sequential(), images)
    rows = found[found["layer"] == "0"]
    np.testing.assert_allclose(rows["whole"], rows["alone"], rtol=1e-4)


def test_twins_lose_nothing_and_strangers_half():
    ones = np.ones(3)
    np.testing.assert_allclose(predicted_share(np.array([1, 0, -1]), ones, ones), [1, 0.5, 0])
    # Of a unit and a constant a quarter is left of the one, and half of the mean of both.
    assert predicted_share(np.array([0.0]), np.array([2.0]), np.array([0.0])) == 0.5
    assert np.isnan(predicted_share(np.array([0.0]), np.array([0.0]), np.array([0.0])))


def test_a_unit_that_never_varies_has_empty_values(images):
    torch.manual_seed(0)
    a, b = sequential(), sequential()
    for net in (a, b):
        torch.nn.init.zeros_(net[0].weight[2])
    _, found = table(a, b, images)
    row = found[(found["layer"] == "0") & (found["unit"] == 2)].iloc[0]
    assert row["rho"] == 0
    assert row[["predicted", "alone", "whole"]].isna().all()
    assert np.isfinite(found.dropna()[["predicted", "alone", "whole"]]).all().all()
    variances_of_units(found, ["net1", "net2"]).draw_without_rendering()


@pytest.mark.parametrize("norm", [False, True])
def test_partners_are_the_rows_that_a_permutation_moves(rng, images, norm):
    net = sequential(norm)
    state, found = permuted(net, rng)

    def permute(other):
        marked = with_state(net.double(), {k: v.double() for k, v in other.items()})
        return permuted_as(marked, found)

    names = maps(net, images)
    own = partners(net.state_dict(), names, permute)
    for name in names:
        np.testing.assert_array_equal(own[name], found[name].numpy())
    assert state.keys() == net.state_dict().keys()


def permuted_as(net, found):
    state = dict(net.state_dict())
    return {k: v[found[k[0]]] if k[0] in found and v.ndim else v for k, v in state.items()}


def test_maps_have_the_names_of_the_layers_that_they_lead_to(small_net):
    names = maps(small_net.float(), torch.zeros(1, 1, 16, 16))
    places = {"conv1": "conv1", "conv2": "conv2", "last": "fc7"}
    shown = layer_names(names, places)
    assert shown == ["conv1", "conv2", *names[2:6], "last"]
    # Two maps in one block keep their own names.
    assert layer_names(["block.conv1", "block.conv2"], {"block": "block"}) == [
        "block.conv1", "block.conv2",
    ]  # fmt: skip
