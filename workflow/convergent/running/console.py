"""What a run of Snakemake shows on the terminal: a line for each job, and what went wrong.

Everything else (reasons, lists of files, numbers of jobs) stays in Snakemake's own log.
"""

from __future__ import annotations

import logging
import re
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

# Of messages that tell nothing to who has started the run.
NOISE = re.compile(
    r"Assuming unrestricted|host: |Building DAG|Using shell|Provided |Rules claiming|Conda env|"
    r"Select jobs|Execute \d|Terminating processes|Elapsed time"
)
# Exit status of a process that Ctrl-C has ended, and seconds after which a job ends on it.
INTERRUPTED, DELAY = 130, 1
# Events of Snakemake that are not shown.
SILENT = (
    "workflow_started",
    "run_info",
    "job_started",
    "job_finished",
    "progress",
    "resources_info",
)


def show_a_line_for_each_job(logger: logging.Logger) -> None:
    """Let the handlers of a logger that write to the terminal show little more than a line a job.

    Parameters
    ----------
    logger : logging.Logger
        Snakemake's logger. Handlers that write to files stay as they are.
    """
    for handler in logger.handlers:
        if getattr(handler, "stream", None) in (sys.stdout, sys.stderr):
            lines = JobLines(handler.formatter)
            handler.setFormatter(lines)
            handler.addFilter(lines.is_shown)


def end_quietly_when_interrupted(logger: logging.Logger) -> None:
    """Let Ctrl-C end this process without an error for each job that runs.

    Parameters
    ----------
    logger : logging.Logger
        Snakemake's logger. Handlers that write to files stay as they are.
    """

    def stop(*_: object) -> None:
        for handler in logger.handlers:
            if getattr(handler, "stream", None) in (sys.stdout, sys.stderr):
                handler.addFilter(lambda record: False)
        print("\nInterrupted.", file=sys.stderr)
        # Snakemake ends its jobs on this, too, and it has no traceback.
        sys.exit(INTERRUPTED)

    signal.signal(signal.SIGINT, stop)


def end_interrupted_job() -> NoReturn:
    """End a job that Ctrl-C has reached, after Snakemake.

    The terminal interrupts both. Snakemake would call it a fault if the job ended first.
    """
    time.sleep(DELAY)
    raise SystemExit(INTERRUPTED) from None


def call_once_planned(logger: logging.Logger, call: Callable[[], object]) -> None:
    """Call a function once it is known what runs, in a dry run as well, and before anything does.

    Parameters
    ----------
    logger : logging.Logger
        Snakemake's logger, which then gets the numbers of jobs.
    call : callable
    """

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if event_of(record) == "run_info" and self in logger.handlers:
                logger.removeHandler(self)
                call()

    logger.addHandler(Listener())


class JobLines(logging.Formatter):
    """Format of the messages about jobs: their number and the message of their rule.

    Parameters
    ----------
    usual : logging.Formatter, optional
        Format of all other messages.
    """

    def __init__(self, usual: logging.Formatter | None) -> None:
        super().__init__()
        self.usual = usual or logging.Formatter()
        self.jobs: dict[int, int] = {}
        self.total = 0

    def is_shown(self, record: logging.LogRecord) -> bool:
        """Tell whether a message is shown; count the jobs."""
        event = event_of(record)
        if event == "run_info":
            self.total = getattr(record, "stats", {}).get("total", 0)
        if record.levelno > logging.INFO:
            return True
        if event == "job_info":
            self.jobs.setdefault(record.jobid, len(self.jobs) + 1)  # type: ignore[attr-defined]
            # Names of targets, which have no files of their own, are done when their files are.
            return bool(getattr(record, "output", None))
        return event not in SILENT and not NOISE.match(str(record.msg or ""))

    def format(self, record: logging.LogRecord) -> str:
        """Format a message."""
        event = event_of(record)
        if event == "job_info" and getattr(record, "rule_msg", None):
            number = self.jobs[record.jobid]  # type: ignore[attr-defined]
            width = len(str(self.total))
            return f"[{number:{width}}/{self.total}] {record.rule_msg}"  # type: ignore[attr-defined]
        return self.usual.format(record)


def event_of(record: logging.LogRecord) -> str:
    """Return the name of the event that Snakemake attached to a message; empty for none."""
    event = getattr(record, "event", None)
    return str(getattr(event, "value", event or ""))
