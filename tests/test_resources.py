"""What jobs ask for: enough for what was measured, and more for more work."""

from pathlib import Path

import pytest
import yaml

from convergent.activations.shapes import layer_shapes
from convergent.config import load, resources
from convergent.nets import models

ROOT = Path(__file__).parents[1]
# Of two full-size nets on 1,000 photographs, two cores, no GPU: docs/scale.md. Seconds, megabytes.
MEASURED = {
    "record": (26.6, 1690),
    "statistics": (17.6, 1510),
    "correlation": (15.1, 1410),
    "observe": (66, 4720),
    "measure": (20, 780),
    "fit_maps": (261, 4550),
    "cluster": (255, 3020),
    "units": (360, 2600),
}
STREAMING = ("record", "statistics", "correlation", "observe")


def paper(**changes):
    values = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    preset = yaml.safe_load((ROOT / "presets/imagenet.yaml").read_text(encoding="utf-8"))
    values |= {k: values[k] | v if isinstance(v, dict) else v for k, v in preset.items()}
    values["data"]["root"] = "nowhere"
    for key, value in changes.items():
        values[key] = values[key] | value if isinstance(value, dict) else value
    return load(values)


@pytest.fixture
def work(monkeypatch):
    """Estimates of the paper's run, with changes."""
    monkeypatch.setattr(resources, "count_images", lambda data, trains: (1_281_167, 50_000))
    net = layer_shapes(models.build, (3, 227, 227))

    def estimates(**changes):
        run = paper(**changes)
        return resources.Estimates(run, dict.fromkeys(run.nodes, net))

    return estimates


@pytest.mark.parametrize("stage", MEASURED)
def test_jobs_ask_for_more_than_was_measured_but_not_for_the_moon(work, stage):
    two = {"nets": {"net3": None, "net4": None}, "nulls": {"untrained": False}}
    small = work(device="cpu", activations={"images": 1000}, **two)
    seconds, megabytes = MEASURED[stage]
    need = getattr(small, stage)(2)
    assert megabytes < need.mem_mb < 3 * megabytes + 3000
    assert seconds < 60 * (need.runtime - 10) < 20 * seconds + 300


def test_a_training_asks_for_the_time_of_its_epochs(work):
    """A GPU is much faster, and either is given the days that it needs."""
    short, full = (work(training={"epochs": n}).train(9).runtime for n in (1, 90))
    assert 85 * (short - 10) < full < 95 * (short - 10)
    assert 12 * 60 < full < 5 * 24 * 60
    assert work(device="cpu").train(9).runtime > 10 * full


def test_more_of_anything_asks_for_more(work):
    base = work(activations={"images": 5000}, statistics={"samples": 10_000})
    more_images = work(statistics={"samples": 10_000})
    for stage in STREAMING:
        assert getattr(more_images, stage)(4).runtime > getattr(base, stage)(4).runtime
    # Streaming: time grows with the images, memory only where means over each image are kept.
    more, few = ({s: getattr(w, s)(4).mem_mb for s in STREAMING} for w in (more_images, base))
    assert (more["record"], more["correlation"]) == (few["record"], few["correlation"])
    means = 45_000 * sum(base.widths) * 4 / 10**6
    assert 0 < more["statistics"] - few["statistics"] < means
    # Of each net, and of what it was before training.
    assert 2 * means < (more["observe"] - few["observe"]) / len(base.run.nodes) < 2.5 * means
    more_samples = work(activations={"images": 5000})
    for field in ("mem_mb", "runtime"):
        few, many = (getattr(w.measure(1), field) for w in (base, more_samples))
        assert many > few
    narrow = work(layers=["conv1", "conv2"], mapping={"sgd": {"layers": ["conv1"]}})
    for stage in ("fit_maps", "cluster", "match", "agreement", "hac"):
        few, many = getattr(narrow, stage)(2), getattr(base, stage)(2)
        assert few.mem_mb < many.mem_mb
        assert few.runtime < many.runtime
    assert base.statistics(8).runtime < base.statistics(1).runtime


def test_nulls_ask_for_the_time_of_their_draws(work):
    base, few = work(activations={"images": 5000}), {"rotation": 1, "images": 0, "maps": 1}
    draws = work(activations={"images": 5000}, nulls={"images": 20})
    none = work(activations={"images": 5000}, nulls=few)
    assert none.compare_layers(2).runtime < base.compare_layers(2).runtime
    # Each draw of this null is a pass over the stores, as the correlation of a pair is.
    more = draws.compare_layers(2).runtime - base.compare_layers(2).runtime
    assert more > 20 * (base.correlation(2).runtime - 10)
    assert none.compare_maps(2).runtime < base.compare_maps(2).runtime
    for nulls in (none, base, draws):
        # More than the matrices of fc6 need once; but not for the moon.
        assert 3000 < nulls.compare_layers(2).mem_mb < 20_000


@pytest.mark.parametrize("stage", ["compare_layers", "layer_pairs"])
def test_neighbours_among_many_images_ask_for_the_time_of_all_their_pairs(work, stage):
    """All layers of two nets took 846 s for 10,000 images."""
    few, many = (getattr(work(activations={"images": n}), stage)(1) for n in (10_000, 50_000))
    assert few.runtime - 10 > 846 / 60
    assert 60 * (many.runtime - few.runtime) > 10 * 846


def test_untrained_nets_ask_for_more_but_start_no_job_of_their_own(work):
    base = work(activations={"images": 5000})
    without = work(activations={"images": 5000}, nulls={"untrained": False})
    alone, beside = without.observe(2), base.observe(2)
    for field in ("mem_mb", "runtime"):
        assert getattr(alone, field) < getattr(beside, field) < 3 * getattr(alone, field)
        for stage in ("record", "statistics", "correlation"):
            once, both = (getattr(base, stage)(2, untrained=of) for of in (False, True))
            assert getattr(once, field) <= getattr(both, field) < 4 * getattr(once, field)
            assert once == getattr(without, stage)(2)


def test_merging_asks_for_the_time_of_its_points_and_the_memory_of_its_images(work):
    base, more = work(merging={"points": 5}), work(merging={"points": 21})
    assert more.merge_nets(1).runtime > base.merge_nets(1).runtime
    assert more.merge_nets(1).mem_mb == base.merge_nets(1).mem_mb
    few = work(merging={"images": 100})
    assert few.merge_nets(1).mem_mb < base.merge_nets(1).mem_mb
    assert more.zip_nets(1).runtime > base.zip_nets(1).runtime
    assert more.zip_nets(1).mem_mb == base.zip_nets(1).mem_mb
    assert few.zip_nets(1).mem_mb < base.zip_nets(1).mem_mb
    assert 3000 < few.zip_nets(1).mem_mb < 20_000
    # Thirteen times the weights are 3.2 GB for the paper's net.
    assert 3000 < few.merge_nets(1).mem_mb < 20_000


def test_what_is_known_of_some_nets_is_estimated_before_others(monkeypatch):
    """Nets with layers of their own, whose shapes another job has still to find."""
    monkeypatch.setattr(resources, "count_images", lambda data, trains: (1_281_167, 50_000))
    few = {"seed": 5, "layers": ["conv1", "conv2"]}
    run = paper(nets={"few": few}, units={"pictures": "all"}, training={"snapshots": [1]})
    some = resources.Estimates(run, {"few": layer_shapes(models.build, (3, 227, 227))})
    assert some.pictured == {"conv1": 96, "conv2": 256}
    stages = [
        stage for stage in vars(resources.Estimates) if stage[0] != "_" and stage != "threads"
    ]
    assert len(stages) > 15
    for stage in stages:
        assert getattr(some, stage)(1).mem_mb > 0


def test_folders_are_counted_by_their_classes(tmp_path):
    for split, names in {"train": "abcdefg", "val": "ab"}.items():
        for name in names:
            (tmp_path / split / name).mkdir(parents=True)
            for image in range(3):
                (tmp_path / split / name / f"{image}.jpg").touch()
    run = paper(data={"root": str(tmp_path)})
    assert resources.count_images(run.data) == (21, 6)
