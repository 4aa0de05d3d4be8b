"""What the benchmarks share: interleaved runs, ratios, peak memory, and the machine."""

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from convergent.running.devices import cores

# Set to an older processor it halves the speed of NumPy's products: benchmarks do without it, and
# begin anew, as NumPy may have read it already.
CORETYPE = os.environ.pop("OPENBLAS_CORETYPE", None)
if CORETYPE is not None:
    print(f"OPENBLAS_CORETYPE was {CORETYPE}, and is left out", flush=True)
    os.execv(sys.executable, [sys.executable, *sys.argv])
THREADS = cores()


def header() -> None:
    """Print the BLAS libraries and the number of threads."""
    import numpy  # noqa: F401 (whose BLAS is to be named)
    import threadpoolctl

    for info in threadpoolctl.threadpool_info():
        print(f"{info['internal_api']} {info.get('version')}, {info.get('architecture')},", end=" ")
    print(f"{THREADS} threads")


def interleaved(
    ways: Mapping[str, Callable], runs: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each way in each run; a first run warms up and does not count.

    With `time.process_time` as the clock, what other processes do on the machine counts less. It
    is fair if each way has one thread only.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for run in range(runs + 1):
        for name, way in ways.items():
            start = clock()
            way()
            if run:
                seconds[name].append(clock() - start)
    return seconds


def median_ratio(a: Sequence[float], b: Sequence[float]) -> float:
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def peak_of(code: str) -> int:
    """Peak memory in MB of a process of its own that runs `code` beside the benchmarks."""
    peak = "from convergent.running.devices import peak_memory; print('peak', peak_memory())"
    output = subprocess.run(
        [sys.executable, "-c", f"{code}\n{peak}"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return int(re.search(r"peak (\d+)", output)[1]) // 2**20
