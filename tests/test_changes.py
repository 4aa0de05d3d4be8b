"""A changed run says which trained nets it replaces."""

from copy import deepcopy

import pytest

from convergent.running.changes import remark_on_replaced
from convergent.running.origin import record_job

CONFIGURATION = {
    "run": "digits",
    "nets": {"net1": {"seed": 1, "training": None}, "net2": {"seed": 2, "training": None}},
    "data": {"name": "digits", "size": 16, "probes": {}},
    "model": {"name": "alexnet"},
    "training": {"epochs": 20, "optimizer": "adamw", "snapshots": [], "workers": 0},
    "statistics": {"blocks": 20},
}


def changed(section, key, value):
    values = deepcopy(CONFIGURATION)
    values[section][key] = value
    return values


@pytest.fixture
def folder(tmp_path):
    """Both nets were trained with 20 epochs; net2 was so after 5."""
    for configuration, nets in (
        (changed("training", "epochs", 5), ["net2"]),
        (CONFIGURATION, None),
    ):
        for net in nets or ["net1", "net2"]:
            record_job(tmp_path, "train", {"net": net}, configuration, accept_changes=True)
            record_job(tmp_path, "evaluate", {"net": net}, configuration, accept_changes=True)
    return tmp_path


@pytest.mark.parametrize(
    ("configuration", "told"),
    [
        (changed("training", "epochs", 2), "training.epochs was 20 and is 2: net1, net2 are "),
        (changed("training", "optimizer", "sgd"), "training.optimizer was adamw and is sgd: net1"),
        (changed("nets", "net2", {"seed": 3}), "nets.net2.seed was 2 and is 3: net2 is"),
        (
            changed("nets", "net1", {"seed": 1, "training": {"epochs": 3}}),
            "nets.net1.training.epochs was null and is 3: net1 is ",
        ),
    ],
)  # fmt: skip
def test_the_remark_names_nets_and_keys(folder, configuration, told):
    remark = remark_on_replaced(folder, ["net1", "net2"], configuration)
    assert remark.startswith(told)
    assert "--config run=NAME keeps" in remark


@pytest.mark.parametrize(
    "configuration",
    [
        CONFIGURATION,
        changed("training", "workers", 4),
        changed("training", "snapshots", [0, 1]),
        changed("data", "probes", {"noise": {}}),
        changed("statistics", "blocks", 5),
    ],
)
def test_what_decides_no_weights_is_no_reason(folder, configuration):
    assert remark_on_replaced(folder, ["net1", "net2"], configuration) is None


def test_a_fresh_run_replaces_nothing(folder, tmp_path):
    new = changed("training", "epochs", 2)
    assert remark_on_replaced(folder, [], new) is None
    assert remark_on_replaced(folder, ["net3"], new) is None
    assert remark_on_replaced(tmp_path / "other", ["net1"], new) is None
