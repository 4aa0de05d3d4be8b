"""What every script job does: find the library, log, and say plainly what went wrong."""

import logging
import sys
import traceback
import warnings
from pathlib import Path

# The library beside this workflow, whatever environment the job runs in.
sys.path.insert(0, str(Path(__file__).parents[1]))


def run(main, snakemake):
    """Call ``main(snakemake)`` with everything it says in the rule's log."""
    from convergent import ConvergentError
    from convergent.devices import cores

    # Where Snakemake was promised more cores than there are.
    snakemake.threads = min(snakemake.threads, cores())
    with open(snakemake.log[0], "w", buffering=1) as log:
        sys.stderr = log
        form = "%(asctime)s %(message)s"
        logging.basicConfig(stream=log, level=logging.INFO, format=form, force=True)
        logging.captureWarnings(True)
        warnings.simplefilter("default", DeprecationWarning)
        try:
            main(snakemake)
            logging.info("done; at most %s of memory", peak_memory())
        except ConvergentError as error:
            log.write(f"error: {error}\n")
            raise SystemExit(1) from None
        except Exception:
            traceback.print_exc(file=log)
            raise SystemExit(1) from None


def peak_memory():
    """Of this process, which Snakemake's benchmarks sample too seldom to see."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((line.split(maxsplit=1)[1] for line in lines if "VmHWM" in line), "unknown")
