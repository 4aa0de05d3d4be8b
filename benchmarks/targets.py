"""Processor time of targets from nothing: that of all their jobs, and of each stage.

uv run python benchmarks/targets.py TARGET ...

in a folder with a finished run that has these targets. Each job's log ends with its processor time.
That of Snakemake, and of the process that jobs are forks of, is not included; `time` counts both.
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
        times: dict[str, list[float]] = {}
        for log in logs(target):
            stage = log.split("/logs/")[1].split("/")[0].removesuffix(".log")
            times.setdefault(stage, []).append(seconds(log))
        print(f"{target:25} {sum(map(sum, times.values())):6.1f} s", flush=True)
        for stage, of in sorted(times.items(), key=lambda item: -sum(item[1])):
            print(f"  {stage:23} {sum(of):6.1f} s  {len(of):3} jobs", flush=True)
