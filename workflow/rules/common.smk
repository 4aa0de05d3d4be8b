# Configuration, paths and functions that all rule files share.
import itertools
import sys

from snakemake.common.configfile import load_configfile
from snakemake.common.tbdstring import TBDString
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

sys.path.insert(0, str(Path(workflow.basedir) / "workflow"))

from convergent.config import (
    ConfigError,
    check_data,
    check_shapes,
    image_sources,
    load,
)
from convergent.config.overlays import settle
from convergent.running.devices import slow_products
from convergent.running.fingerprint import FingerprintError, fingerprint
from convergent.running.origin import commit, select
from convergent.nets.recipe import RECIPE
from convergent.nets.shapes import read_shapes
from convergent.config.resources import Estimates

base = load_configfile(Path(workflow.basedir) / "config.yaml")
config.update(settle(config, base, workflow.config_settings.overwrite_config))
try:
    RUN = load(config)
    check_data(RUN)
    # The rule layers writes and checks the shapes before any net is trained.
    SHAPES_FILE = f"{RUN.folder}/nets/{{net}}/layers.csv"
    for net in RUN.nets:
        if shapes := read_shapes(SHAPES_FILE.format(net=net), RUN.net_options):
            check_shapes(RUN, shapes.layers)
except ConfigError as error:
    raise WorkflowError(str(error)) from None

if slow_products():
    logger.warning(slow_products())

# Origin of the run, which jobs record and check (see scripts/_job.py). It is not a param, since a
# change to it does not affect any result by itself.
config["origin"] = {
    "settings": RUN.origin,
    "job": {
        "folder": RUN.folder,
        "configuration": RUN.model_dump(mode="json", exclude={"accept_changes"}),
        "code": commit(),
        "accept_changes": RUN.accept_changes,
    },
}

RESULTS = RUN.folder
# Outputs of activations.smk. Without activation stores, observation.smk writes the last two.
ACTIVATIONS = f"{RESULTS}/activations/{{net}}.zarr"
STATISTICS = f"{RESULTS}/statistics/{{net}}.zarr"
CORRELATION = f"{RESULTS}/pairs/{{pair}}/correlation.zarr"
LOGS = f"{RESULTS}/logs"
TIMES = f"{RESULTS}/benchmarks"
# GPUs that a job requests if it can use one; profiles limit the total.
GPU = 0 if RUN.device == "cpu" else 1
# The two nets of each pair.
PAIRS = {f"{a}-{b}": (a, b) for a, b in itertools.combinations(RUN.nets, 2)}
# Sections of the report.
ONE_TO_ONE = "Section 3: one to one"
MORE_MATCHING = "Section S.2: more matching"
MEAN_ACTIVATIONS = "Section S.4: mean activations"
FEW_TO_ONE = "Section 4: few to one"
MANY_TO_MANY = "Section S.3: many to many"


wildcard_constraints:
    net="|".join(RUN.nets),
    pair="|".join(RUN.pairs),


def code(script, *calls, modules=()):
    """Fingerprint a script and all code that it reaches.

    `calls` lists the functions of convergent.figures that it calls by name, and `modules` the
    modules that it imports by name.
    """
    path = Path(workflow.basedir) / "workflow/scripts" / script
    calls = [f"convergent.figures.{call}" for call in calls]
    try:
        return fingerprint(path, calls=calls, modules=modules)
    except FingerprintError as error:
        raise WorkflowError(str(error)) from None


# Estimates, by the number of nets whose shapes are known.
ESTIMATES = {}
# Shapes of a net whose file of shapes was lost.
MEASURED = []


def shapes_of(net):
    """Read the shapes of a net's layers. The rule layers makes them before the net is trained; if
    they were lost later, nothing makes the file again, so they are measured here."""
    file = Path(SHAPES_FILE.format(net=net))
    shapes = read_shapes(file, RUN.net_options)
    if shapes or not file.with_name("weights.pt").exists():
        return shapes
    if not MEASURED:
        # All nets have the same layers. If jobs have environments of their own, only those have
        # torch.
        try:
            from convergent.units.receptive_fields import net_shapes
        except ImportError:
            return None
        MEASURED.append(net_shapes(RUN.net_options))
    return MEASURED[0]


def estimates():
    """Estimate what jobs need, as far as this is possible before the rule layers has run.

    Snakemake calls this again once the inputs of a job exist.
    """
    if len(RUN.nets) not in ESTIMATES:
        found = [shapes for shapes in map(shapes_of, RUN.nets) if shapes]
        ESTIMATES.setdefault(len(found), Estimates(RUN, found))
    return ESTIMATES[max(ESTIMATES)]


def origin(*keys):
    """Make a param: all settings that affect the stores of a job, which keep them as their origin.

    These are the settings behind the activations of the job's nets, and `keys` of the run's
    origin, such as statistics.seed.
    """
    keys = ["layers", "data", "model", "training", "activations", *keys]

    def settings(wildcards):
        net = wildcards.get("net")
        names = PAIRS.get(wildcards.get("pair"), [net] if net else RUN.nets)
        return select(RUN.origin, [*(f"nets.{name}" for name in names), *keys])

    return settings


def resources_for(stage):
    """Return functions for the memory and time of a stage's jobs, which grow with each attempt."""

    def resource(name):
        def value(wildcards, threads, attempt):
            known = estimates()
            # Listing the images does not depend on the nets.
            if not known.widths and stage != "images":
                return TBDString()
            return attempt * getattr(getattr(known, stage)(threads), name)

        return value

    return {name: resource(name) for name in ("mem_mb", "runtime")}


def threads_for(stage):
    """Return a function for the threads of a stage's jobs: several if layers are large enough."""
    return lambda wildcards: estimates().threads(stage)


def nets_of_pair(wildcards):
    """Return the two nets of a job's pair."""
    return list(PAIRS[wildcards.pair])


def of_pair(path, member):
    """Make an input function: `path` of the first (0) or second (1) net of a job's pair."""

    def net_path(wildcards):
        return path.format(net=PAIRS[wildcards.pair][member])

    return net_path


def where_sgd(path):
    """Make an input function: `path` of the pair whose maps SGD fits, too; nothing for others."""

    def pair_path(wildcards):
        fitted = RUN.sgd_layers and wildcards.pair == RUN.pair
        return path.format(pair=wildcards.pair) if fitted else []

    return pair_path
