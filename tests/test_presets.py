"""What follows from alignments can be asked for in every run that a preset describes."""

import shutil

import pytest
import yaml
from running import ROOT, copy_repository, planned

# Points of the line between two nets: more for the digits, whose images are few.
POINTS = {"brought": 5, "cifar10": 5, "imagenet": 5, "mlp": 21, "mnist": 5, "resnet20": 5}
POINTS |= {"resnet20_short": 5, "vgg11": 5, "conditions": 21, "dynamics": 21, "probes": 21}
POINTS |= {"study": 5}
BY_NAME = ["merge", "collapse", "prune", "stitch", "ensemble"]
MADE = {"merge_nets": 1, "prune_units": 1, "stitch_layers": 1, "score_ensembles": 1}
VARIANTS = {
    "cifar10": (),
    "resnet20": (),
    "vgg11": (),
    "vgg11 without normalisation": ("model={batch_norm: false}",),
}


def test_curves_have_the_points_that_a_pass_over_the_images_allows():
    presets = sorted((ROOT / "presets").glob("*.yaml"))
    base, *overlays = (
        yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in [ROOT / "config.yaml", *presets]
    )
    found = {
        overlay["run"]: overlay.get("merging", {}).get("points", base["merging"]["points"])
        for overlay in overlays
    }
    assert found == POINTS


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A copy of the repository without results."""
    folder = tmp_path_factory.mktemp("repository")
    copy_repository(folder)
    shutil.copy(ROOT / "config.yaml", folder)
    return folder


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_follows_is_planned_for_nets_that_a_preset_trains(repository, variant):
    preset = ["--configfile", f"presets/{variant.split()[0]}.yaml"]
    counts = planned(repository, *BY_NAME, *preset, "--config", "device=cpu", *VARIANTS[variant])
    assert {rule: counts.get(rule) for rule in MADE} == MADE
    assert {rule: counts.get(rule) for rule in ("train", "correlation_with_untrained")} == {
        "train": 4,
        "correlation_with_untrained": 6,
    }
