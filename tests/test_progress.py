"""Progress passes everything on and tells the time that is left."""

import io
import logging
import re
import sys
from pathlib import Path

import pytest

from convergent.running import progress


def test_batches_pass_unchanged_and_tenths_are_told(caplog, monkeypatch):
    now = iter(range(1000))  # a second for each look at the clock
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(now))
    batches = [[0] * 3] * 10
    with caplog.at_level(logging.INFO):
        assert list(progress.progress(iter(batches), "net1", "image", total=30)) == batches
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 10
    assert said[0] == "net1: 10% of 30 images, about 00:09 left"
    assert said[4] == "net1: 50% of 30 images, about 00:05 left"
    assert said[-1] == "net1: 100% of 30 images, about 00:00 left"


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_log_gets_at_most_a_line_a_tenth(caplog, size):
    sizes = [min(size, 1000 - start) for start in range(0, 1000, size)]
    with caplog.at_level(logging.INFO):
        list(progress.progress([range(s) for s in sizes], "net1", "image"))
    assert len(caplog.records) == min(10, len(sizes))
    assert re.fullmatch(r"net1: 100% of 1000 images, .*", caplog.records[-1].getMessage())


def test_a_stage_may_end_early():
    stage = progress.progress([[1]] * 10, "net1", "image")
    next(stage)
    stage.close()


def test_hours_are_told_as_hours():
    assert progress.time_left(60, 1, 121) == "2:00:00"


def test_a_stage_of_a_file_is_named_after_it_and_counts_in_large_units(caplog):
    with (
        caplog.at_level(logging.INFO),
        progress.stage(Path("results/r/pairs/a-b/correlation.zarr"), "byte", 3e9) as step,
    ):
        for _ in range(3):
            step(1e9)
    assert caplog.records[-1].getMessage().startswith("a-b/correlation: 100% of 3.00G bytes, ")


def test_every_long_stage_tells_how_far_it_is(project):
    long = (
        "record statistics correlation mutual_information match fit_maps fit_maps_sgd hac cluster"
    )
    for rule in [*long.split(), "cluster", "units", "atlas"]:
        logs = [*project.glob(f"results/tiny/logs/{rule}/*.log")]
        for log in logs or [project / f"results/tiny/logs/{rule}.log"]:
            assert re.search(
                r": 100% of \S+ \w+s, about 00:00 left\n", log.read_text(encoding="utf-8")
            ), log


def test_the_terminal_gets_a_line_now_and_then(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal, now = Terminal(), iter(range(0, 10_000, 10))
    monkeypatch.setattr(sys, "__stderr__", terminal)
    monkeypatch.setattr("tqdm.std.time", lambda: next(now))  # ten seconds for each look at it
    with progress.bar("net1", "batch", 50) as shown:
        for _ in range(50):
            shown.update()
    lines = terminal.getvalue().splitlines()
    assert 2 < len(lines) < 50
    for line in lines:
        assert re.fullmatch(r" *net1: \d+%, about [\d:]+ left", line)


def test_without_a_terminal_nothing_is_shown(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", file)
    with progress.bar("net1", "batch", 50) as shown:
        shown.update(50)
    assert file.getvalue() == ""
