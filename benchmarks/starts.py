"""Jobs as forks of a process that has their libraries loaded, beside jobs that start by themselves.

uv run python benchmarks/starts.py [--rounds N]

in a folder with a finished default run: redraws figures of all kinds in both ways, in turn, and
compares processor time (of Snakemake and all its processes) and time by the clock.
"""

import argparse
import os
import resource
import subprocess
import time

FIGURES = [f"fig{n}" for n in (1, 2, 3, 5, 6, 7)] + [f"figS{n}" for n in (1, 3, 5, 6, 7, 8, 9)]


def redraw(forks: bool) -> tuple[float, float]:
    """Redraw the figures; return processor time and time by the clock, in seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        ["snakemake", "--cores", "2", *FIGURES, "-R", *(f"draw_{name}" for name in FIGURES)],
        check=True,
        capture_output=True,
        env=os.environ | ({} if forks else {"CONVERGENT_FORKS": "0"}),
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return processor, time.perf_counter() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    redraw(False)  # into the caches
    times: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for _ in range(rounds):
        for forks in times:
            times[forks].append(redraw(forks))
    alone, forked = ([min(of) for of in zip(*times[forks], strict=True)] for forks in (False, True))
    print(f"{len(FIGURES)} figures    processor time    by the clock")
    print(f"by themselves   {alone[0]:10.1f} s      {alone[1]:10.1f} s")
    print(f"forks           {forked[0]:10.1f} s      {forked[1]:10.1f} s")
    print(f"ratio           {alone[0] / forked[0]:10.2f}        {alone[1] / forked[1]:10.2f}")
