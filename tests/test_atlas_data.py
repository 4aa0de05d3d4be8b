"""What the atlas says of units beyond their best partners, against oracles and planted truths."""

import chance_tables
import numpy as np
import pandas as pd
import planted
import pytest
from PIL import Image

from convergent.activations.blocks import Blocks, Cut, save_blocks
from convergent.activations.moments import Moments
from convergent.figures import atlas
from convergent.figures.atlas import core, overview, pairs, pictures, plane, units, writing
from convergent.figures.atlas.reader import Atlas, AtlasError
from convergent.inference.jackknife import jackknife
from convergent.running.stores import new_store, open_store, save

CONV1 = {"conv1": 24}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An atlas of three nets, with whole images, tables of chance and accuracies; net2 is net1."""
    folder = tmp_path_factory.mktemp("run")
    permutation = planted.write_run(folder, CONV1, pictures={"conv1": 40})["conv1"]
    nets, of_pairs = planted.stores(folder)
    chance_tables.significance(["conv1"]).to_csv(folder / "significance.csv", index=False)
    chance_tables.similarity(["conv1"]).to_csv(folder / "similarity.csv", index=False)
    chance_tables.null_matches(24, ["conv1"]).to_csv(folder / "null_matches.csv", index=False)
    pd.DataFrame({"images": [200], "top1": [0.75], "chance": [0.1]}).to_csv(
        folder / "evaluation.csv", index=False
    )
    for name in ("significance", "similarity", "null_matches"):
        of_pairs["net1-net2"][name] = folder / f"{name}.csv"
    nets["net1"]["evaluation"] = folder / "evaluation.csv"
    layers = planted.layers_of(folder)
    extras = writing.Extras({"data": "made up"}, dict.fromkeys(nets, brightness_of_place))
    writing.write_atlas(
        folder / "atlas", [], "tiny", layers, nets, of_pairs, 0.25, ["only"] * 200, extras=extras
    )
    return Atlas(folder / "atlas"), permutation, folder


def brightness_of_place(places):
    """Images of 150 pixels whose brightness is their place in the data set."""
    return np.broadcast_to(places[:, None, None, None], (len(places), 150, 150, 1)).astype(np.uint8)


def test_partners_lie_close_in_the_plane_and_dead_units_nowhere(rng):
    values = rng.normal(size=(400, 60))
    values[:, 0] = 0
    permutation = rng.permutation(60)
    other = np.empty_like(values)
    other[:, permutation] = values + 0.1 * rng.normal(size=values.shape) * (values.std(axis=0) > 0)
    with np.errstate(invalid="ignore"):
        both = np.nan_to_num(np.corrcoef(values.T, other.T))
    a, b = plane.plane(both[:60, :60], both[:60, 60:], both[60:, 60:])
    assert np.isnan(a[0]).all()
    assert np.isnan(b[permutation[0]]).all()
    apart = np.linalg.norm(a[1:, None] - b[None, permutation[1:]], axis=2)
    nearest = np.argsort(apart, axis=1)
    assert (nearest[:, 0] == np.arange(59)).mean() > 0.75
    assert (nearest[:, :3] == np.arange(59)[:, None]).any(axis=1).mean() > 0.95
    for places in (a[1:], b[permutation[1:]]):
        assert places.min() >= 0
        assert places.max() <= 1
    again, _ = plane.plane(both[:60, :60], both[:60, 60:], both[60:, 60:])
    np.testing.assert_array_equal(a, again)


def test_clusters_lie_apart_in_the_plane(rng):
    kinds = np.arange(80) % 4
    signals = rng.normal(size=(500, 4))
    values = signals[:, kinds] + 0.4 * rng.normal(size=(500, 80))
    both = np.corrcoef(values.T)
    a, b = plane.plane(both[:40, :40], both[:40, 40:], both[40:, 40:])
    places = np.concatenate([a, b])
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (kinds[apart.argmin(axis=1)] == kinds).mean() > 0.95


@pytest.mark.parametrize("size", [1, 2, 3])
def test_few_units_have_places(size):
    one = np.ones((size, size))
    a, b = plane.plane(one, one, one)
    assert np.isfinite(a).all()
    assert np.isfinite(b).all()


def test_intervals_are_those_of_leaving_out_each_block(rng, tmp_path):
    x, y = rng.normal(size=(2, 90, 4))
    y[:, :3] += x[:, [2, 0, 1]]
    cut = Cut.of(90, 6)
    spans = list(zip(cut.edges[:-1], cut.edges[1:], strict=True))
    moments = [Moments.of(x[i:j], y[i:j]) for i, j in spans]
    with new_store(tmp_path / "correlation.zarr") as store:
        save_blocks(store.create_group("conv1"), Blocks(cut, moments))
    group = open_store(tmp_path / "correlation.zarr")["conv1/blocks"]
    blocks = {name: group[name][...] for name in ("count", *pairs.MOMENTS)}
    partner = np.array([1, 2, 0, -1])
    for first, second, given in ((x, y, blocks), (y, x, pairs.turned(blocks))):
        value = [np.corrcoef(first[:, i], second[:, j])[0, 1] for i, j in enumerate(partner)]
        low, high = pairs.intervals(partner, np.array(value), given)
        for unit in range(3):
            without = []
            for i, j in spans:
                kept = np.r_[:i, j:90]
                pair = first[kept, unit], second[kept, partner[unit]]
                without.append(np.corrcoef(*pair)[0, 1])
            found = jackknife(value[unit], without, np.diff(cut.edges))
            assert low[unit] == pytest.approx(found.low, abs=1e-5)
            assert high[unit] == pytest.approx(found.high, abs=1e-5)
        assert np.isnan(low[3])


def test_the_shared_core_is_the_units_that_all_nets_planted(rng):
    """Units 0 to 4 of three nets agree; unit 5 has partners that do not have each other."""
    best = {}
    for a, b in (("p", "q"), ("p", "r"), ("q", "r")):
        partner = np.arange(6, dtype=np.int32)
        value = np.linspace(0.9, 0.4, 6).astype(np.float32)
        best[a, b], best[b, a] = (partner, value), (partner.copy(), value)
    best["q", "r"][0][5] = 0
    found = core.shared_core(["p", "q", "r"], best)
    np.testing.assert_array_equal(found["unit"][:5], np.repeat(np.arange(5)[:, None], 3, axis=1))
    np.testing.assert_allclose(found["weakest"][:5], np.linspace(0.9, 0.5, 5), rtol=1e-5)
    assert found["closed"].tolist() == [1, 1, 1, 1, 1, 0]
    assert found["unit"][5].tolist() == [5, 5, 5]
    side = core.partners_in_nets("q", ["p", "q", "r", "s"], best)
    assert side["best"][5].tolist() == [5, -1, 0, -1]
    assert side["mutual"][5].tolist() == [1, 0, 0, 0]
    assert np.isnan(side["best_value"][:, [1, 3]]).all()


def test_no_group_is_an_empty_list():
    best = {
        ("p", "q"): (np.array([1, 0], np.int32), np.ones(2, np.float32)),
        ("q", "p"): (np.array([0, 1], np.int32), np.ones(2, np.float32)),
    }
    assert core.shared_core(["p", "q"], best)["unit"].shape == (0, 2)


def test_paths_of_leaves_are_those_of_the_tree():
    table = pd.DataFrame({"leaf": [0, 1, 1, 2], "path": ["0/0", "0/1/3", "0/1/3", "1"]})
    assert pairs.tree_paths(table).tolist() == [[0, 0, -1], [0, 1, 3], [1, -1, -1]]


def test_chance_of_units_is_that_of_the_null(run):
    opened, _, folder = run
    found = opened.run["layers"][0]["pairs"]["net1-net2"]["chance_of_units"]
    table = pd.read_csv(folder / "null_matches.csv").query("method == 'semi' and null == 'images'")
    assert found["correlation"]["images"] == pytest.approx(
        [table["mean"].mean(), table["mean"].quantile(0.95)]
    )
    assert "chance_of_units" in opened.run["layers"][0]["pairs"]["net1-net3"]


def test_samples_are_the_activations_to_a_255th_of_their_range(run):
    opened, permutation, folder = run
    values = open_store(folder / "statistics/net1.zarr")["conv1/values"][...].astype(np.float32)
    for unit in (0, 7):
        kept = opened.samples("conv1", "net1", unit)
        step = np.ptp(values[:, unit]) / 255
        np.testing.assert_allclose(kept, values[:, unit], atol=step / 2 + 1e-6)
    partner = opened.samples("conv1", "net2", permutation[1])
    assert np.corrcoef(opened.samples("conv1", "net1", 1), partner)[0, 1] > 0.95


def test_arrays_are_in_the_order_that_the_page_reads(run):
    opened, _, _ = run
    for path in opened.folder.glob("data/**/*.js"):
        if path.stem != "run":
            for name, array in atlas.read(path).items():
                assert array.flags.c_contiguous, (path, name)
                assert array.dtype.str in ("<f4", "<i4", "|i1", "|u1"), (path, name)


def test_nets_sampled_at_other_places_are_told_apart(tmp_path):
    groups = {}
    with new_store(tmp_path / "s.zarr") as store:
        for net, shift in (("a", 0), ("b", 1), ("c", 0)):
            group = groups[net] = store.create_group(net)
            save(group, "values", np.zeros((9, 2), np.float16), ("sample", "unit"))
            save(group, "sample_image", np.arange(9) + shift, ("sample",))
            save(group, "sample_position", np.arange(9), ("sample",))
        groups["d"] = store.create_group("d")
        assert units.sampled_alike(groups) == [["a", "c"], ["b"]]


def test_whole_images_are_those_that_excite_units(run):
    opened, _, _ = run
    places = opened.arrays("whole-0")["image"]
    shown = set()
    for net in planted.NETS:
        facts = opened.units("conv1", net)
        shown |= set(facts["image"][facts["value"] > 0].tolist())
    assert places.tolist() == sorted(shown)
    about = opened.run["wholes"]["sheets"][0]
    assert (about["side"], about["view"]) == (pictures.LARGEST, 150)
    with Image.open(opened.folder / "pictures/whole-0-0.webp") as sheet:
        pixels = np.asarray(sheet.convert("L")).astype(int)
    for number in (0, 5, about["images"] - 1):
        row, column = divmod(number, about["columns"])
        middle = pixels[row * 128 + 64, column * 128 + 64]
        assert abs(middle - places[number] % 256) <= 6


def test_fields_begin_where_stride_and_offset_put_them(tmp_path):
    with new_store(tmp_path / "u.zarr") as store:
        group = store.create_group("conv1")
        save(group, "receptive_field", np.array([7, 4, -3]), ("size_stride_offset",))
        for axis, at in (("y", 0), ("x", 5)):
            save(group, axis, np.full((2, 9), at), ("unit", "rank"))
        top, left = units.field_corners(group)
    assert (top == -3).all()
    assert (left == 17).all()


def test_rows_of_the_overview_are_those_of_the_tables(run):
    opened, _, folder = run
    rows, ways = opened.similarity(), opened.run["ways"]
    table = pd.read_csv(folder / "similarity.csv", keep_default_na=False)
    cka = ways.index(next(way for way in ways if way["name"] == "cka"))
    expected = table.query("measure == 'cka'").iloc[0]
    row = np.flatnonzero(rows["way"] == cka)
    assert len(row) == 1
    for name in ("value", "low", "high", "null_images", "p_images"):
        assert rows[name][row[0]] == pytest.approx(float(expected[name]), rel=1e-6)
    semi = next(
        n for n, w in enumerate(ways) if (w["name"], w["of"]) == ("semi_mean", "correlation")
    )
    assert sorted(rows["direction"][rows["way"] == semi]) == [1, 2]
    assert {way["name"]: way["higher"] for way in ways}["procrustes"] is False


def test_findings_are_sentences_with_links_to_their_views(run):
    opened, _, _ = run
    found = opened.run["findings"]
    assert 3 <= len(found) <= 5
    for finding in found:
        assert finding["text"].endswith(".")
        assert finding["link"]["view"] in ("curve", "overview", "units", "core")
    assert found[0]["link"]["layer"] == "conv1"
    assert "above that of rotated units in 1" in found[1]["text"]
    assert opened.run["facts"]["nets"]["net1"] == {"images": 200, "top1": 0.75, "chance": 0.1}
    assert opened.run["facts"]["nets"]["net2"] == {}


def test_shares_of_the_findings_are_counted():
    tallies = pd.DataFrame(
        {
            "layer": ["conv1", "conv1", "fc6", "fc6"], "pair": "net1-net2",
            "net": ["net1", "net2"] * 2, "live": 10, "mean": [0.8, 0.6, 0.4, 0.3],
            "unmatched": [1, 1, 9, 9], "predicted": [0, 0, 3, 2],
        }
    )  # fmt: skip
    texts = [each["text"] for each in overview.findings({}, tallies, {"fc6": ("net1", 4, 8)})]
    assert "correlate .70 on average in conv1" in texts[0]
    assert "least in fc6 (.35), in net1-net2" in texts[0]
    assert texts[1].startswith("50% of all live units")
    assert "in fc6 (90%)" in texts[1]
    assert "25% are predicted" in texts[2]
    assert texts[3].startswith("The shared core is largest in fc6, where 4 of 8 units of net1")


def test_partners_over_training_are_those_of_each_epoch(rng, tmp_path):
    epochs = {}
    x = rng.normal(size=(60, 3))
    for epoch, shift in ((0, 1), (2.5, 2)):
        y = np.roll(x, shift, axis=1)
        folder = tmp_path / str(epoch)
        (folder / "pairs").mkdir(parents=True)
        with new_store(folder / "pairs/net1-net2.zarr") as store:
            halves = [Moments.of(x[i : i + 30], y[i : i + 30]) for i in (0, 30)]
            save_blocks(store.create_group("conv1"), Blocks(Cut.of(60, 2), halves))
        epochs[epoch] = folder
    found = pairs.partners_over_training("conv1", "net1-net2", epochs)
    assert found["epoch"].tolist() == [0, 2.5]
    assert found["a/partner"].tolist() == [[1, 2, 0], [2, 0, 1]]
    assert found["b/partner"].tolist() == [[2, 0, 1], [1, 2, 0]]
    np.testing.assert_allclose(found["a/value"], 1, rtol=1e-5)
    assert pairs.partners_over_training("conv1", "net1-net3", epochs) == {}


def test_the_reader_turns_pairs_as_they_are_named(run):
    opened, permutation, folder = run
    matrix = open_store(folder / "pairs/net1-net2/correlation.zarr")["conv1/correlation"][...]
    np.testing.assert_allclose(opened.correlation("conv1", "net1", "net2"), matrix, atol=0.00501)
    np.testing.assert_allclose(opened.correlation("conv1", "net2", "net1"), matrix.T, atol=0.00501)
    forth, back = (opened.pair("conv1", *nets) for nets in (("net1", "net2"), ("net2", "net1")))
    np.testing.assert_array_equal(forth["correlation/a/semi"], back["correlation/b/semi"])
    assert forth["correlation/a/semi"][1] == permutation[1]
    a, b = opened.plane("conv1", "net1", "net2")
    np.testing.assert_array_equal(opened.plane("conv1", "net2", "net1")[0], b)
    assert len(a) == 24


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda a: a.units("conv9", "net1"), "no layer conv9; this atlas has conv1"),
        (lambda a: a.units("conv1", "net7"), "no net net7; this atlas has net1, net2, net3"),
        (lambda a: a.pair("conv1", "net1", "net7"), "no pair net7-net1"),
        (lambda a: Atlas(a.folder / "data"), "no atlas is here"),
    ],
)
def test_what_an_atlas_lacks_is_named(run, ask, words):
    with pytest.raises(AtlasError, match=words):
        ask(run[0])
