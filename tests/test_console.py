"""The terminal shows a line for each job, what went wrong, and little else."""

import io
import logging
import sys

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from convergent.running.console import show_a_line_for_each_job


@pytest.fixture
def logger(monkeypatch):
    """Return a logger like Snakemake's, and what it shows on the terminal and writes to a file."""
    terminal, file = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    logger = logging.Logger("snakemake")
    for stream in (terminal, file):
        logger.addHandler(logging.StreamHandler(stream))
    show_a_line_for_each_job(logger)
    return logger, terminal, file


def job(number, message, output=("a.csv",)):
    return {"event": LogEvent.JOB_INFO, "jobid": number, "rule_msg": message, "output": output}


def test_a_run_is_a_line_for_each_job(logger):
    logger, terminal, file = logger
    logger.info("Building DAG of jobs...")
    logger.info("Job stats: ...", extra={"event": LogEvent.RUN_INFO, "stats": {"total": 12}})
    logger.info("Select jobs to execute...")
    logger.info("Execute 1 jobs...", extra={"event": LogEvent.JOB_STARTED})
    logger.info("first", extra=job(7, "Training net1"))
    logger.info("Finished jobid: 7", extra={"event": LogEvent.JOB_FINISHED})
    logger.info("1 of 12 steps", extra={"event": LogEvent.PROGRESS})
    logger.info("target", extra=job(0, "fig3 of net1-net2", output=()))
    logger.info("second", extra=job(3, "Drawing fig3 of net1-net2"))
    logger.info("first again", extra=job(7, "Training net1"))
    logger.warning("the disk is nearly full")
    logger.error("it failed", extra={"event": LogEvent.JOB_ERROR})
    logger.info("Nothing to be done (all requested files are present and up to date).")
    assert terminal.getvalue().splitlines() == [
        "[ 1/12] Training net1",
        "[ 3/12] Drawing fig3 of net1-net2",
        "[ 1/12] Training net1",
        "the disk is nearly full",
        "it failed",
        "Nothing to be done (all requested files are present and up to date).",
    ]
    assert len(file.getvalue().splitlines()) == 13  # all of it


def test_a_rule_without_a_message_is_shown_as_usual(logger):
    logger, terminal, _ = logger
    logger.info("rule x:", extra=job(1, None))
    assert terminal.getvalue() == "rule x:\n"
