"""Verdicts say in words what stands above chance and what does not."""

import chance_tables
import pandas as pd
import pytest

from convergent.inference.verdicts import (
    learned,
    sentence,
    short,
    statistic_rows,
    verdict,
    verdict_table,
)

ROW = {
    "layer": "conv1", "value": 0.79, "low": 0.74, "high": 0.84, "note": "",
    "null_rotation": 0.65, "p_rotation": 1 / 21, "null_images": 0.2, "p_images": 0.3,
}  # fmt: skip


def test_with_draws_p_decides_and_without_them_the_interval():
    assert verdict(ROW, "rotation").above is True
    # However far above its mean.
    assert verdict(ROW, "images").above is False
    assert verdict(ROW, "images", level=0.6).above is True
    for chance, above, below in ((0.7, True, False), (0.8, False, False), (0.86, False, True)):
        found = verdict(ROW | {"null_untrained": chance}, "untrained")
        assert (found.above, found.below) == (above, below)
    assert verdict(ROW, "untrained") is None


def test_p_of_19_draws_is_enough_for_95_percent():
    assert verdict(ROW | {"p_rotation": 1 / 20}, "rotation").above is True
    assert verdict(ROW | {"p_rotation": 2 / 21}, "rotation").above is False


def test_learning_is_shown_above_untrained_nets_of_both_kinds():
    assert learned(ROW) is None
    assert learned(ROW | {"null_untrained": 0.3}) is True
    assert learned(ROW | {"null_untrained": 0.3, "null_untrained_one": 0.78}) is False
    # Without an interval nothing is known.
    assert learned(ROW | {"null_untrained": 0.3, "low": "", "high": ""}) is None


def test_a_sentence_begins_with_what_is_found_and_ends_with_what_it_means():
    assert sentence(ROW) == (
        "conv1: .79 [.74, .84], above its rotated units (.65, p = .048); not above its shuffled "
        "images (.20, p = .300)"
    )
    assert sentence(ROW | {"p_images": 1 / 21, "null_untrained": 0.86}) == (
        "conv1: .79 [.74, .84], above its rotated units (.65, p = .048) and its shuffled images "
        "(.20, p = .048); below its untrained nets (.86): learning is not shown"
    )


@pytest.mark.parametrize("empty", ["", None, float("nan")])
def test_what_is_not_known_is_not_said(empty):
    row = {"layer": "fc6", "value": 0.5, "low": empty, "high": empty, "note": ""}
    assert sentence(row) == "fc6: .50"
    assert sentence(row | {"null_rotation": 0.4, "p_rotation": empty}) == (
        "fc6: .50, beside its rotated units (.40)"
    )
    row |= {"value": empty}
    assert sentence(row) == "fc6: no value"
    assert sentence(row | {"note": "no unit varies"}) == "fc6: no value (no unit varies)"


def test_the_default_run_learns_in_its_late_layers_only(tmp_path):
    # Through a file, as empty cells come from there.
    chance_tables.significance().to_csv(tmp_path / "significance.csv", index=False)
    table = pd.read_csv(tmp_path / "significance.csv", keep_default_na=False)
    said = [sentence(row) for _, row in statistic_rows(table).iterrows()]
    assert [line.split(":")[0] for line in said] == [*chance_tables.LAYERS, "best of all layers"]
    shown = [line.split(":")[0] for line in said if line.endswith("learning is shown")]
    assert shown == ["fc6", "fc7"]
    assert sum(line.endswith("learning is not shown") for line in said) == 5
    # A statistic without directions has its rows in both.
    assert len(statistic_rows(table, "matching_mean", direction="ba")) == len(said)
    head, *lines = verdict_table(statistic_rows(table))
    assert head.split("  ")[-1] == "learning"
    assert [line.split()[0] for line in lines] == [*chance_tables.LAYERS, "best"]
    assert [line.split()[0] for line in lines if line.endswith("  shown")] == ["fc6", "fc7"]
    assert lines[0].split()[1:] == [".79", "[.74,", ".84]", ".65*", *lines[0].split()[5:]]
    assert len({line.index("[") for line in lines[:-1]}) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.794, ".79"), (-0.05, "-.05"), (1, "1.00"), (-0.001, ".00"), (10, "10.00")],
)
def test_numbers_are_written_as_the_paper_writes_them(value, text):
    assert short(value) == text
