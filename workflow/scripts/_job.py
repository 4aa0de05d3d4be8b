"""What every script job does: find the library, know its run, log, and say what went wrong."""

import json
import logging
import os
import sys
import traceback
import warnings
from importlib.util import cache_from_source, find_spec
from pathlib import Path

# The library beside this workflow, whatever environment the job runs in.
sys.path.insert(0, str(Path(__file__).parents[1]))
# What libraries keep in the home folder lies with Snakemake's own files: code, fonts, defaults.
CACHE = Path(".snakemake", "cache").absolute()
for variable in ("NUMBA_CACHE_DIR", "MPLCONFIGDIR", "DASK_CONFIG"):
    os.environ.setdefault(variable, str(CACHE / variable))


def keep_compiled_modules():
    """Let this process and those that it starts keep what they compile, wherever they may.

    Or each job compiles all that it imports where `PYTHONDONTWRITEBYTECODE` is set, which doubles
    its time. Installers compile packages; where none did, and nobody can beside the packages,
    what is compiled lies with Snakemake's own files, too.
    """
    package = find_spec("numpy").origin
    may = not sys.dont_write_bytecode and os.access(Path(package).parent, os.W_OK)
    if not (sys.pycache_prefix or may or Path(cache_from_source(package)).exists()):
        sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(CACHE / "PYTHONPYCACHEPREFIX")
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


keep_compiled_modules()


def run(main, snakemake):
    """Call ``main(snakemake)`` with everything it says in the rule's log."""
    from convergent import ConvergentError
    from convergent.running.devices import cores, peak_memory
    from convergent.running.stores import alone

    # Where Snakemake was promised more cores than there are.
    snakemake.threads = min(snakemake.threads, cores())
    path = Path(snakemake.log[0])
    # A Snakemake that was killed leaves its jobs running: the next waits for those, and wins.
    lock = alone(path.with_name(f".{path.name}.lock"), last=True)
    with lock, open(path, "w", buffering=1, encoding="utf-8") as log:
        sys.stderr = log
        form = "%(asctime)s %(message)s"
        logging.basicConfig(stream=log, level=logging.INFO, format=form, force=True)
        logging.captureWarnings(True)
        warnings.simplefilter("default", DeprecationWarning)
        try:
            know(snakemake)
            main(snakemake)
            logging.info("done; at most %s of memory", f"{peak_memory() // 1024} kB")
        except ConvergentError as error:
            log.write(f"error: {error}\n")
            raise SystemExit(1) from None
        except Exception:
            traceback.print_exc(file=log)
            raise SystemExit(1) from None


def device_of(snakemake):
    """Where the job computes: on no GPU unless it asked Snakemake for one."""
    from convergent.running.devices import choose_device

    return choose_device(snakemake.params.device if snakemake.resources.gpu else "cpu")


def scheduler_of(snakemake):
    """Where the job's Dask tasks run, as long as the context lasts."""
    from convergent.running.scheduling import scheduler_for

    resources, options = snakemake.resources, json.loads(snakemake.resources.dask)
    return scheduler_for(
        options.pop("scheduler"),
        threads=snakemake.threads,
        mem_mb=resources.mem_mb,
        runtime=resources.runtime,
        logs=Path(snakemake.log[0]).with_suffix(".workers"),
        **options,
    )


def know(snakemake):
    """Keep what makes the run, and let stores tell whether they are of it."""
    from convergent import config
    from convergent.running import provenance, stores

    configured = config.load(snakemake.config)
    stores.origin = configured.made_by
    device = snakemake.params.get("device")
    if device != "cpu" and not snakemake.resources.get("gpu"):
        device = None  # may be another kind of machine than that of the jobs that ask for a GPU
    kept = provenance.keep(
        configured,
        device=device,
        listing=snakemake.input.get("listing"),
        lists=snakemake.rule == "images",
    )
    logging.info("code %s, %s", kept["code"], provenance.versions())
