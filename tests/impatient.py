"""Snakemake that asks a cluster every second how its jobs fare, and not ever more rarely."""

import sys

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

RemoteExecutor.next_seconds_between_status_checks = property(lambda _: 1, lambda *_: None)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
