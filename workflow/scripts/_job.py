"""Functions that every script job runs: they find the library, write logs, and check origins."""

import json
import logging
import os
import sys
import time
import traceback
import warnings
from importlib.util import cache_from_source, find_spec
from pathlib import Path

# Import the library that lies beside this workflow, whatever environment the job runs in.
sys.path.insert(0, str(Path(__file__).parents[1]))
# Keep compiled code, font lists and settings of libraries here instead of in the home folder.
CACHE = Path(".snakemake", "cache").absolute()
for variable in ("NUMBA_CACHE_DIR", "MPLCONFIGDIR", "DASK_CONFIG"):
    os.environ.setdefault(variable, str(CACHE / variable))


def keep_compiled_modules():
    """Let this process and its children keep the modules that they compile.

    With `PYTHONDONTWRITEBYTECODE` set, each job would compile everything that it imports, which
    doubles its time. Most installers compile packages. If the installer did not, and this user may
    not write beside the packages, compiled modules are kept in Snakemake's folder.
    """
    package = find_spec("numpy").origin
    may = not sys.dont_write_bytecode and os.access(Path(package).parent, os.W_OK)
    if not (sys.pycache_prefix or may or Path(cache_from_source(package)).exists()):
        sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(CACHE / "PYTHONPYCACHEPREFIX")
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


keep_compiled_modules()


def run(main, snakemake):
    """Call ``main(snakemake)`` and write all its messages to the log of the job.

    The origin of the stores that it reads is checked first; that of its outputs is recorded last.
    """
    from convergent import ConvergentError
    from convergent.running.console import end_interrupted_job
    from convergent.running.devices import cores, peak_memory
    from convergent.running.files import file_lock

    # Snakemake may have been given more cores than the machine has.
    snakemake.threads = min(snakemake.threads, cores())
    path = Path(snakemake.log[0])
    # A killed Snakemake leaves its jobs running; the same job of the next run waits for them.
    lock = file_lock(path.with_name(f".{path.name}.lock"), newest_wins=True)
    with lock, open(path, "w", buffering=1, encoding="utf-8") as log:
        start = time.perf_counter()
        sys.stderr = log
        form = "%(asctime)s %(message)s"
        logging.basicConfig(stream=log, level=logging.INFO, format=form, force=True)
        logging.captureWarnings(True)
        warnings.simplefilter("default", DeprecationWarning)
        try:
            check_origin(snakemake)
            main(snakemake)
            record_origin(snakemake)
            record_costs(path, snakemake, time.perf_counter() - start, peak_memory())
        except ConvergentError as error:
            net = snakemake.wildcards.get("net")
            log.write(f"error: {f'nets.{net}: ' if net else ''}{error}\n")
            raise SystemExit(1) from None
        except KeyboardInterrupt:
            log.write("interrupted\n")
            end_interrupted_job()
        except Exception:
            traceback.print_exc(file=log)
            raise SystemExit(1) from None


def record_costs(log, snakemake, seconds, memory):
    """Write what the job took to its log, and as a row of a table under benchmarks/.

    The table has the columns of Snakemake's own benchmarks. Those would measure the process that
    waits for the job, if it runs as a fork of another.
    """
    from convergent.running.files import writing

    # With the processes that it has waited for.
    processor = sum(os.times()[:4])
    logging.info(
        "done; %.1f s of processor time, at most %d kB of memory", processor, memory // 1024
    )
    run = Path(snakemake.config["origin"]["job"]["folder"])
    path = run / "benchmarks" / log.relative_to(run / "logs").with_suffix(".tsv")
    row = f"{seconds:.2f}\t{memory / 2**20:.1f}\t{processor:.2f}"
    with writing(path) as whole:
        whole.write_text(f"s\tmax_rss\tcpu_time\n{row}\n", encoding="utf-8")


def compile_once(name, call):
    """Compile kernels by a call, while no other job of this folder compiles the same ones.

    The first jobs of a run start together. The second one then waits, and finds in Numba's cache
    what the first has compiled.
    """
    from convergent.running.files import file_lock

    CACHE.mkdir(parents=True, exist_ok=True)
    with file_lock(CACHE / f"{name}.lock"):
        call()


def device_of(snakemake):
    """Return the device to compute on: a GPU only if the job requested one from Snakemake."""
    from convergent.running.devices import choose_device

    return choose_device(snakemake.params.device if snakemake.resources.gpu else "cpu")


def scheduler_of(snakemake):
    """Return a context manager that yields the scheduler of the job's Dask tasks."""
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


def check_origin(snakemake):
    """Compare the job with its run, append it to the run's history, and check its input stores.

    The workflow passes the origin of the run as an entry of `config` (see ``rules/common.smk``).
    Unlike a param, it does not affect any result by itself, and a change to it reruns no job.
    """
    from convergent.running import origin

    of_run = snakemake.config["origin"]
    device = snakemake.params.get("device")
    if device != "cpu" and not snakemake.resources.get("gpu"):
        device = None  # The job may run on another kind of machine than jobs that request a GPU.
    job = origin.record_job(
        rule=snakemake.rule,
        wildcards=dict(snakemake.wildcards.items()),
        origin=snakemake.params.get("origin"),
        device=device,
        listing=snakemake.input.get("listing"),
        lists_images=snakemake.output.get("listing") is not None,
        **of_run["job"],
    )
    logging.info("code %s, %s", job["code"], job["packages"])
    if stores_among(snakemake.output) and not job["origin"]:
        raise TypeError(f"rule {snakemake.rule} writes a store and so needs the param origin")
    for store in stores_among(snakemake.input):
        from convergent.running.stores import open_store

        open_store(store, origin={**of_run["settings"], **name_of(store, snakemake)})


def record_origin(snakemake):
    """Record in the stores that the job made the settings that affect them."""
    for store in stores_among(snakemake.output):
        from convergent.running.stores import record_origin

        record_origin(store, {**snakemake.params.origin, **name_of(store, snakemake)})


def name_of(store, snakemake):
    """Return the part of a store's origin that tells it from the others of its run: its name."""
    folder = snakemake.config["origin"]["job"]["folder"]
    return {"store": Path(os.path.relpath(store, folder)).as_posix()}


def stores_among(paths):
    """Return those paths that are Zarr stores."""
    return [path for path in paths if path.endswith(".zarr")]
