"""Processor time of targets from nothing, as the README lists it: that of all their jobs.

uv run python benchmarks/targets.py TARGET ...

in a folder with a finished run that has these targets. Each job's log ends with its processor time;
Snakemake's own (about 3 s, and 0.1 s a job) is not included.
"""

import csv
import io
import re
import subprocess
import sys
from pathlib import Path

DONE = re.compile(r"done; ([\d.]+) s of processor time")


def logs(target: str) -> set[str]:
    """List the logs of all jobs that a target needs."""
    command = ["snakemake", target, "--forceall", "--detailed-summary", "--quiet", "all"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    table = said[said.index("output_file") :]
    rows = csv.DictReader(io.StringIO(table), delimiter="\t")
    return {row["log-file(s)"] for row in rows if row["log-file(s)"] not in ("", "-")}


def seconds(log: str) -> float:
    """Read the processor time of the last job that wrote a log."""
    found = DONE.findall(Path(log).read_text(encoding="utf-8"))
    if not found:
        raise SystemExit(f"{log}: no processor time; the job must have ended")
    return float(found[-1])


if __name__ == "__main__":
    for target in sys.argv[1:]:
        print(f"{target:25} {sum(map(seconds, logs(target))):6.0f} s", flush=True)
