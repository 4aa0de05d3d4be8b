"""The terminal shows a line for each job, what went wrong, and little else."""

import fcntl
import io
import logging
import os
import pty
import subprocess
import sys
import termios
import time
from contextlib import suppress

import psutil
import pytest
from running import ENVIRONMENT, ROOT
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


LONG = f"""
from snakemake.logging import logger
from convergent.running import console
from convergent.running.forks import start_server

console.end_quietly_when_interrupted(logger)
console.show_a_line_for_each_job(logger)

rule all:
    input: "1.txt", "2.txt"

rule wait:
    output: "{{n}}.txt"
    message: "Waiting {{wildcards.n}}"
    script: "wait.py"

onstart:
    if launch := start_server("{ROOT / "workflow/scripts"}"):
        shell.prefix("set -euo pipefail; " + launch + " ")

onerror:
    print("The same command goes on.")
"""
WAIT = """
import os, time
open(f"{os.getpid()} {os.getppid()}.pids", "w")
time.sleep(100)
"""


def test_ctrl_c_ends_with_a_line_and_leaves_no_process(tmp_path):
    (tmp_path / "Snakefile").write_text(LONG, encoding="utf-8")
    (tmp_path / "wait.py").write_text(WAIT, encoding="utf-8")
    terminal, inside = pty.openpty()
    run = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "2"], cwd=tmp_path,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT / "workflow")},
        stdin=inside, stdout=inside, stderr=inside,
        # The terminal is theirs, so that it sends the signal to all of them.
        preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)),
    )  # fmt: skip
    os.close(inside)
    while len(jobs := list(tmp_path.glob("*.pids"))) < 2:
        assert run.poll() is None
        time.sleep(0.1)
    os.write(terminal, b"\x03")
    printed = b""
    # The terminal closes with the last process that has it.
    with suppress(OSError):
        while more := os.read(terminal, 1000):
            printed += more
    assert run.wait() == 1
    lines = [line for line in printed.decode().split("^C")[1].splitlines() if line.strip("\33[0m")]
    assert lines == ["Interrupted.", "The same command goes on."]
    assert not any(psutil.pid_exists(int(pid)) for job in jobs for pid in job.stem.split())
