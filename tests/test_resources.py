"""What jobs ask for: enough for what was measured, and more for more work."""

from pathlib import Path

import pytest
import yaml

from convergent.config import load, resources
from convergent.nets import models, shapes

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
    monkeypatch.setattr(resources, "count_images", lambda data: (1_281_167, 50_000))
    net = shapes.layer_shapes(models.build, (3, 227, 227))
    return lambda **changes: resources.Estimates(paper(**changes), [net])


@pytest.mark.parametrize("stage", MEASURED)
def test_jobs_ask_for_more_than_was_measured_but_not_for_the_moon(work, stage):
    two = {"nets": {"net3": None, "net4": None}}
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
    for stage in ("record", "statistics", "correlation", "observe"):
        assert getattr(more_images, stage)(4).runtime > getattr(base, stage)(4).runtime
        # Streaming: time grows with the images, memory does not.
        assert getattr(more_images, stage)(4).mem_mb == getattr(base, stage)(4).mem_mb
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


def test_folders_are_counted_by_their_classes(tmp_path):
    for split, names in {"train": "abcdefg", "val": "ab"}.items():
        for name in names:
            (tmp_path / split / name).mkdir(parents=True)
            for image in range(3):
                (tmp_path / split / name / f"{image}.jpg").touch()
    run = paper(data={"root": str(tmp_path)})
    assert resources.count_images(run.data) == (21, 6)
