# Configuration, paths and functions that all rule files share.
import sys
from contextlib import suppress

from snakemake.common.configfile import load_configfile
from snakemake.common.tbdstring import TBDString
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

# The repository, which need not be the folder of the Snakefile that was called: a module has its own.
SOURCE = Path(workflow.current_basedir).parents[1]
sys.path.insert(0, str(SOURCE / "workflow"))

from convergent import ConvergentError
from convergent.running.command_line import asked_for
from convergent.running.installed import TO_READ_RULES, missing_packages

# What Snakemake is asked for stands on its command line, and nowhere else as long as it reads rules.
ASKED = asked_for() if workflow.is_main_process else None


def refuse(message):
    """Stop with a message, among which Snakemake would name lines of the rules."""
    if ASKED:
        sys.exit(str(message))
    raise WorkflowError(str(message)) from None


if missing := missing_packages(
    SOURCE / "pyproject.toml",
    TO_READ_RULES if workflow.deployment_settings.deployment_method else None,
):
    refuse(
        f"not installed for {sys.executable}: {', '.join(missing)}. `uv run snakemake` installs "
        f"all that is needed, and so does `pip install -e {SOURCE}`; for conda's environments add "
        "--sdm conda"
    )

from convergent.config import check_data, check_shapes, image_sources, load
from convergent.config.default_layers import default_layers
from convergent.config.overlays import anchor, remark_on_nets, settle
from convergent.config.targets import check_targets
from convergent.running.changes import remark_on_replaced
from convergent.running.console import (
    call_once_planned,
    end_quietly_when_interrupted,
    show_a_line_for_each_job,
)
from convergent.running.copies import set_back_times
from convergent.running.devices import slow_products
from convergent.running.forks import start_server
from convergent.running.fingerprint import FingerprintError, Remembered
from convergent.running.origin import commit, select
from convergent.nets.recipe import RECIPE
from convergent.nets.shapes import read_shapes
from convergent.config.resources import Estimates

own = Path("config.yaml")
base = load_configfile(own if own.exists() else SOURCE / own)
overlays = {
    file: load_configfile(file) for file in workflow.config_settings.configfiles or ()
}
overlay = workflow.config_settings.overwrite_config
config.update(settle(config, base, overlay))
config.update(anchor(config, overlays))
try:
    RUN = load(config, default_layers)
    check_data(RUN, RUN.trains)
    NODES = RUN.nodes
    # Hashes of the files of weights and of code. These decide results, not the times of the files.
    CONTENTS = {name: node.contents() for name, node in NODES.items()}
    # What builds each net.
    FORMS = {name: node.form() for name, node in NODES.items()}
    # The rule shapes writes and checks the shapes before any net is trained.
    SHAPES_FILE = f"{RUN.folder}/nets/{{net}}/layers.csv"
    SHAPES = {
        name: shapes
        for name, node in NODES.items()
        if (
            shapes := read_shapes(
                SHAPES_FILE.format(net=name), FORMS[name] | {"places": node.places}
            )
        )
    }
    for name in SHAPES:
        check_shapes(RUN, name, {net: shapes.layers for net, shapes in SHAPES.items()})
except ConvergentError as error:
    refuse(error)

if ASKED:
    end_quietly_when_interrupted(logger)
# A dry run shows reasons, too.
if ASKED and not (ASKED.dryrun or ASKED.verbose):
    show_a_line_for_each_job(logger)

remarks = [slow_products(), RUN.nulls.too_few()]
if ASKED:
    remarks.append(remark_on_nets(base, overlay, RUN.compared))
for remark in filter(None, remarks):
    logger.warning(remark)

ORIGIN = RUN.origin
for name, digests in CONTENTS.items():
    if digests:
        description = ORIGIN["nets"][name]
        if not isinstance(description, dict):
            description = {"seed": description}
        ORIGIN["nets"][name] = description | {"contents": digests}
# Origin of the run, which jobs record and check (see scripts/_job.py). It is not a param, since a
# change to it does not affect any result by itself.
config["origin"] = {
    "settings": ORIGIN,
    "job": {
        "folder": RUN.folder,
        "configuration": RUN.model_dump(mode="json", exclude={"accept_changes"}),
        "code": commit(),
        "accept_changes": RUN.accept_changes,
    },
}

RESULTS = RUN.folder
WEIGHTS = f"{RESULTS}/nets/{{net}}/weights.pt"
HISTORY = f"{RESULTS}/nets/{{net}}/history.csv"
EVALUATION = f"{RESULTS}/nets/{{net}}/evaluation.csv"
# Without labels there is no accuracy.
EVALUATIONS = [EVALUATION] if RUN.data.labels else []
# Outputs of activations.smk. Without activation stores, observation.smk writes all but the first
# of both nets and untrained nets.
ACTIVATIONS = f"{RESULTS}/activations/{{net}}.zarr"
STATISTICS = f"{RESULTS}/statistics/{{net}}.zarr"
CORRELATION = f"{RESULTS}/pairs/{{pair}}/correlation.zarr"
# The same of nets before training, of those that are compared with them.
UNTRAINED_ACTIVATIONS = f"{RESULTS}/activations/{{net}}.untrained.zarr"
UNTRAINED = f"{RESULTS}/nets/{{net}}/untrained.zarr"
CONTROLS = f"{RESULTS}/pairs/{{pair}}/controls.zarr"
LOGS = f"{RESULTS}/logs"
# GPUs that a job requests if it can use one; profiles limit the total.
GPU = 0 if RUN.device == "cpu" else 1
# The two nets of each pair that the run compares; any other two can be asked for by their files.
PAIRS = RUN.compared
# Pairs that are compared with their untrained nets, too.
CONTROLLED = RUN.controlled
NETS_CONTROLLED = [
    name for name in NODES if any(name in pair for pair in CONTROLLED.values())
]
# Nets that are recorded beside their untrained selves: these, and any net that is trained here,
# whether or not there is another yet. Their jobs would otherwise have other inputs, and run again,
# once another net comes or goes.
RECORDED_TWICE = [
    name
    for name, node in NODES.items()
    if name in NETS_CONTROLLED or (RUN.nulls.untrained and node.kind == "trained")
]
# Nets and pairs that averages and figures over all of them mean.
SUBJECTS = RUN.subjects
OF_SUBJECTS = RUN.pairs_of_subjects
COMPARED = RUN.nets_compared


MANY_PAIRS = 100
if len(PAIRS) > MANY_PAIRS:
    logger.warning(
        f"pairs: {len(PAIRS)} pairs of nets, with 12 jobs each, are about {12 * len(PAIRS)} jobs, "
        "more than most people mean; name fewer pairs, such as pairs: "
        f"[{next(iter(NODES))}-*]"
    )


# Patterns of all pairs, and of the nets and pairs that have no untrained selves beside them.
ANY_PAIR = "(?:{0})-(?:{0})".format("|".join(NODES))
NETS_ALONE = "|".join(name for name in NODES if name not in RECORDED_TWICE) or "(?!)"
PAIRS_ALONE = f"(?!(?:{'|'.join(CONTROLLED)})/){ANY_PAIR}" if CONTROLLED else ANY_PAIR


wildcard_constraints:
    net="|".join(NODES),
    pair=ANY_PAIR,


def remark_on_trainings():
    """Say which nets that are there are trained again."""
    again = [
        job.wildcards.net
        for job in workflow.dag.needrun_jobs()
        if job.rule.name.endswith(("train", "train_with_snapshots"))
    ]
    there = [net for net in again if Path(WEIGHTS.format(net=net)).exists()]
    configuration = config["origin"]["job"]["configuration"]
    if remark := remark_on_replaced(RESULTS, sorted(there), configuration):
        logger.warning(remark)


if workflow.is_main_process:
    call_once_planned(logger, remark_on_trainings)
    with suppress(OSError):  # Nothing runs in a folder that may not be written to.
        if set_back_times(".snakemake/metadata", RESULTS):
            logger.warning(
                f"{RESULTS} was copied; its files have the times again at which they were made"
            )


def start_forks():
    """Let jobs that Snakemake runs itself, in its own environment, start as forks."""
    if not workflow.deployment_settings.deployment_method:
        launch = start_server(SOURCE / "workflow/scripts")
        if launch:
            shell.prefix("set -euo pipefail; {launch} ")
    # Up to 100 jobs a second may start by default. For this limit Snakemake looks at all jobs that
    # are ready several times a second, which takes a fifth of a core. Only clusters need it.
    if workflow.local_exec:
        workflow.scheduler.job_rate_limiter = None


FINGERPRINTS = Remembered(".snakemake/cache/fingerprints.json")


def code(script, *calls, modules=()):
    """Fingerprint a script and all code that it reaches.

    `calls` lists the functions of convergent.figures that it calls by name, and `modules` the
    modules that it imports by name.
    """
    path = SOURCE / "workflow/scripts" / script
    calls = [f"convergent.figures.{call}" for call in calls]
    try:
        return FINGERPRINTS.fingerprint(path, calls=calls, modules=modules)
    except FingerprintError as error:
        raise WorkflowError(str(error)) from None


# Estimates, by the number of nets whose shapes are known.
ESTIMATES = {}


def shapes_of(net):
    """Read the shapes of a net's layers. The rule shapes makes them before the net is trained; if
    they were lost later, nothing makes the file again, so they are measured here."""
    if net not in SHAPES:
        file = Path(SHAPES_FILE.format(net=net))
        places = NODES[net].places
        found = read_shapes(file, FORMS[net] | {"places": places})
        if not found and file.with_name("weights.pt").exists():
            # If jobs have environments of their own, only those have torch.
            try:
                from convergent.units.receptive_fields import net_shapes
            except ImportError:
                return None
            found = net_shapes(FORMS[net], places)
        if found:
            SHAPES[net] = found
    return SHAPES.get(net)


def estimates():
    """Estimate what jobs need, as far as this is possible before the rule shapes has run.

    Snakemake calls this again once the inputs of a job exist.
    """
    if len(NODES) not in ESTIMATES:
        found = {net: shapes for net in NODES if (shapes := shapes_of(net))}
        ESTIMATES.setdefault(len(found), Estimates(RUN, found))
    return ESTIMATES[max(ESTIMATES)]


def net_of(wildcards):
    """Return what builds a job's net."""
    return FORMS[wildcards.net]


def data_of(wildcards):
    """Return the section `data` of a job's net."""
    return NODES[wildcards.net].data.model_dump()


def places_of(wildcards):
    """Return the places of the layers of a job's net."""
    return NODES[wildcards.net].places


def layers_of(wildcards):
    """Return the layers of a job's net, or those that both nets of its pair have."""
    if getattr(wildcards, "pair", None):
        return RUN.layers_of_pair(wildcards.pair)
    return NODES[wildcards.net].layers


def other_views(wildcards):
    """Return whether the two nets of a job's pair see the images in other sizes or crops."""
    a, b = (NODES[name].data for name in nets_of_pair(wildcards))
    return a.views != b.views


def origin(*keys, nets=()):
    """Make a param: all settings that affect the stores of a job, which keep them as their origin.

    These are the settings behind the activations of the job's nets (if it is no job of a net or a
    pair, of `nets`, or else of all nets), and `keys` of the run's origin, such as statistics.seed.
    """
    keys = ["layers", "data", "activations", *keys]

    def settings(wildcards):
        net = wildcards.get("net")
        names = (
            nets_of_pair(wildcards)
            if wildcards.get("pair")
            else [net] if net else nets or NODES
        )
        trained = any(NODES[name].kind != "brought" for name in names)
        recipe = ["model", "training"] if trained else []
        return select(ORIGIN, [*(f"nets.{name}" for name in names), *recipe, *keys])

    return settings


def kept_if_asked(path):
    """Make an output: a store of activations, deleted after use unless the run keeps them."""
    return directory(path) if RUN.activations.keep else temp(directory(path))


def resources_for(stage, **options):
    """Return functions for the memory and time of a stage's jobs, which grow with each attempt."""

    def resource(name):
        def value(wildcards, threads, attempt):
            known = estimates()
            # Listing the images does not depend on the nets.
            if not known.unit_counts and stage != "images":
                return TBDString()
            return attempt * getattr(getattr(known, stage)(threads, **options), name)

        return value

    return {name: resource(name) for name in ("mem_mb", "runtime")}


def threads_for(stage):
    """Return a function for the threads of a stage's jobs: several if layers are large enough."""
    return lambda wildcards: estimates().threads(stage)


def nets_of_pair(wildcards):
    """Return the two nets of a job's pair."""
    a, b = wildcards.pair.split("-")
    if list(NODES).index(a) >= list(NODES).index(b):
        raise WorkflowError(
            f"{a}-{b}: pairs are named in the order of the configuration, such as {b}-{a}"
        )
    return [a, b]


def of_pair(path, member):
    """Make an input function: `path` of the first (0) or second (1) net of a job's pair."""

    def net_path(wildcards):
        return path.format(net=nets_of_pair(wildcards)[member])

    return net_path


def forms_of_pair(wildcards):
    """Describe both nets of a job's pair to scripts that run them."""
    return {name: form_of_job(name) for name in nets_of_pair(wildcards)}


def form_of_job(net, **seen):
    """Describe a net to a script that runs it and measures its accuracy.

    `seen` are keys of the images that it sees, in addition to those of its section `data`.
    """
    node = NODES[net]
    return {
        "net": FORMS[net],
        "data": node.data.model_dump() | seen,
        "places": node.places,
        "classes": node.own.classes,
        "seed": node.seed,
    }


def where_stored(path, member):
    """Make an input function: as :func:`of_pair`; nothing in a run without activation stores."""
    return of_pair(path, member) if RUN.activations.store else []


def where_controlled(path, member=0, *, stored=False):
    """Make an input function: as :func:`of_pair`, for pairs with controls; nothing for others, nor
    for `stored` activations in a run without activation stores."""

    def controls_path(wildcards):
        if wildcards.pair not in CONTROLLED or (stored and not RUN.activations.store):
            return []
        return path.format(pair=wildcards.pair, net=CONTROLLED[wildcards.pair][member])

    return controls_path


def where_sgd(path):
    """Make an input function: `path` of the pair whose maps SGD fits, too; nothing for others."""

    def pair_path(wildcards):
        fitted = RUN.sgd_layers and wildcards.pair == RUN.pair
        return path.format(pair=wildcards.pair) if fitted else []

    return pair_path


def nets_that_are(kind):
    """Make a constraint for the wildcard of a rule: nets of one kind."""
    return "|".join(name for name, node in NODES.items() if node.kind == kind) or "(?!)"


def clusters_of(wildcards):
    """Return the number of clusters of each layer of a pair."""
    return {layer: RUN.clusters[layer] for layer in layers_of(wildcards)}


def layers_of_both(wildcards):
    """Return the layers of each net of a job's pair."""
    return [NODES[net].layers for net in nets_of_pair(wildcards)]


def pairs_of_layers(asked):
    """Make a param: all pairs of layers, or those of a list that the two nets of a job have."""

    def pairs(wildcards):
        a, b = layers_of_both(wildcards)
        return (
            asked if asked == "all" else [(x, y) for x, y in asked if x in a and y in b]
        )

    return pairs


def seen_of_pair(wildcards):
    """Return the sections `data` of the two nets of a job's pair."""
    return [NODES[net].data.model_dump() for net in nets_of_pair(wildcards)]


def is_shown(file, row):
    """Tell whether the report shows a figure or table: if the run makes it, or it is there."""
    return not row.is_by_name(RUN) or Path(file).exists()


def merged_pairs():
    """List the pairs whose nets the run merges, and those whose merge.csv is there."""
    own = [RUN.pair] if RUN.merges else []
    return [
        pair for pair in PAIRS if pair in own or Path(MERGE.format(pair=pair)).exists()
    ]


def refused(message):
    """Make an input function that stops with a message once a file is asked for."""

    def path(wildcards):
        raise WorkflowError(message)

    return path


def followed():
    """Return the nets and epochs that are followed along training, and why there are none."""
    try:
        return *RUN.followed(), ""
    except ValueError as error:
        return [], [], str(error)
