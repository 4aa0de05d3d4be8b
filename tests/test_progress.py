"""Progress passes everything on and tells the time that is left."""

import logging
import re

import pytest

from convergent import progress


def test_batches_pass_unchanged_and_tenths_are_told(caplog, monkeypatch):
    now = iter(range(1000))  # a second for each look at the clock
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(now))
    batches = [[0] * 3] * 10
    with caplog.at_level(logging.INFO):
        assert list(progress.progress(iter(batches), 30, "net1")) == batches
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 10
    assert said[0] == "net1: 3 of 30 images, about 00:09 left"
    assert said[4] == "net1: 15 of 30 images, about 00:05 left"
    assert said[-1] == "net1: 30 of 30 images, about 00:00 left"


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_log_gets_at_most_a_line_a_tenth(caplog, size):
    sizes = [min(size, 1000 - start) for start in range(0, 1000, size)]
    with caplog.at_level(logging.INFO):
        list(progress.progress([range(s) for s in sizes], 1000, "net1"))
    assert len(caplog.records) == min(10, len(sizes))
    assert re.fullmatch(r"net1: 1000 of 1000 .*", caplog.records[-1].getMessage())


def test_a_stage_may_end_early():
    stage = progress.progress([[1]] * 10, 10, "net1")
    next(stage)
    stage.close()


def test_hours_are_told_as_hours():
    assert progress.time_left(60, 1, 121) == "2:00:00"
