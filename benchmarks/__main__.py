"""Every benchmark, one after the other: `uv run python benchmarks > figures.txt`.

Takes about half an hour on two cores. What one of them needs beyond this, and its options, are in
its first lines.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SHARED = {"__main__", "common", "photographs"}
# These compare what a run has left, when it is there.
RUN = HERE.parent / "results/digits"
ARGUMENTS = {
    "mapping": ["--pair", str(RUN), "net1-net2"],
    "positions": [str(RUN / f"activations/net{n}.zarr") for n in (1, 2)],
    "starts": ["--rounds", "3"],
    "targets": ["all"],
}
NEED_RUN = ("positions", "starts", "targets")

for script in sorted(HERE.glob("*.py")):
    if script.stem in SHARED:
        continue
    print(f"\n== {script.name}", flush=True)
    arguments = ARGUMENTS.get(script.stem, [])
    if arguments and not RUN.exists():
        print("without results/digits: run the workflow first")
        if script.stem in NEED_RUN:
            continue
        arguments = []
    subprocess.run([sys.executable, script, *arguments], check=True)
