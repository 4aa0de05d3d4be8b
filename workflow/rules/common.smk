# Shared by the other files: the checked configuration, paths, code fingerprints.
import sys

from jinja2 import Environment, StrictUndefined, UndefinedError
from snakemake.common.configfile import load_configfile
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

sys.path.insert(0, str(Path(workflow.basedir) / "workflow"))

from convergent.config import (
    ConfigError,
    check_data,
    image_sources,
    load,
)
from convergent.running.devices import slow_products
from convergent.running.fingerprint import FingerprintError, fingerprint
from convergent.running.origin import commit, select
from convergent.nets.recipe import RECIPE
from convergent.config.resources import Work

# Snakemake puts what overlays name first; nets keep the order of config.yaml, and so do pairs.
base = load_configfile(Path(workflow.basedir) / "config.yaml").get("nets")
if isinstance(base, dict) and isinstance(config.get("nets"), dict):
    config["nets"] = {**base, **config["nets"]}
try:
    RUN = load(config)
    check_data(RUN)
except ConfigError as error:
    raise WorkflowError(str(error)) from None

if slow_products():
    logger.warning(slow_products())

# What jobs record and check of the run's origin (see scripts/_job.py). No param, as a change of it
# decides no result by itself.
config["origin"] = {
    "settings": RUN.origin,
    "job": {
        "folder": RUN.folder,
        "configuration": RUN.model_dump(mode="json", exclude={"accept_changes"}),
        "code": commit(),
        "accept_changes": RUN.accept_changes,
    },
}

WORK = Work(RUN)
RESULTS = RUN.folder
# Of activations.smk, or the last two of observation.smk.
ACTIVATIONS = f"{RESULTS}/activations/{{net}}.zarr"
STATISTICS = f"{RESULTS}/statistics/{{net}}.zarr"
CORRELATION = f"{RESULTS}/pairs/{{pair}}/correlation.zarr"
LOGS = f"{RESULTS}/logs"
TIMES = f"{RESULTS}/benchmarks"
# A GPU is asked for only where one may be used; profiles cap how many there are.
GPU = 0 if RUN.device == "cpu" else 1
# Large layers are worth several threads; small ones are done before a thread would help.
HEAVY = RUN.values_per_image > 100_000
WIDEST = max(RUN.widths.values())
# Figures that show whole matrices are jobs of their own on a cluster only where these are large.
QUICK = WIDEST <= 1024
# Categories of the report.
ONE_TO_ONE = "Section 3: one to one"
MORE_MATCHING = "Section S.2: more matching"
MEAN_ACTIVATIONS = "Section S.4: mean activations"
FEW_TO_ONE = "Section 4: few to one"
MANY_TO_MANY = "Section S.3: many to many"


wildcard_constraints:
    net="|".join(RUN.nets),
    pair="|".join(RUN.pairs),


def code(script):
    """Fingerprint of a script and the library code that it reaches."""
    try:
        return fingerprint(Path(workflow.basedir) / "workflow/scripts" / script)
    except FingerprintError as error:
        raise WorkflowError(str(error)) from None


def origin(*keys):
    """Param: all that decides the stores of a job, which they keep as their origin.

    Beside what decides the activations of the job's nets, `keys` of the run's origin, such as
    statistics.seed.
    """
    keys = ["layers", "data", "model", "training", "activations", *keys]

    def settings(wildcards):
        pair = wildcards.get("pair")
        nets = pair.split("-") if pair else [wildcards.get("net")]
        names = nets if nets != [None] else RUN.nets
        return select(RUN.origin, [*(f"nets.{name}" for name in names), *keys])

    return settings


def asks(stage):
    """Memory and time of a stage's jobs; each attempt that a cluster's profile makes gets more."""
    need = getattr(WORK, stage)

    def mem_mb(wildcards, threads, attempt):
        return attempt * need(threads).mem_mb

    def runtime(wildcards, threads, attempt):
        return attempt * need(threads).runtime

    return {"mem_mb": mem_mb, "runtime": runtime}


def figure(name, category, pair):
    """Output of a figure of a pair or of all nets: PNG, captioned in the report, and PDF."""
    path = (
        f"{RESULTS}/figures/{pair}/{name}"
        if pair != "all"
        else f"{RESULTS}/figures/{name}"
    )
    png = report(
        f"{path}.png",
        caption=f"../report/{name}.rst",
        category=category,
        labels={"figure": name, "pair": pair},
    )
    return [png, f"{path}.pdf"]


def params_without_job(rule):
    """Params of a rule without wildcards, but for those that only one of its jobs can tell."""
    params = {}
    for name, value in rule.params.items():
        try:
            params[name] = value({}) if callable(value) else value
        except (AttributeError, KeyError, TypeError):
            continue  # asks for a wildcard, or for input or output
    return params


def reported():
    """What the rules so far mark for the report, of the configured pair and of all: by file,
    its section, labels and caption."""
    captions = Environment(undefined=StrictUndefined)
    found = {}
    outputs = ((rule, output) for rule in workflow.rules for output in rule.output)
    for rule, output in outputs:
        marked = output.flags.get("report")
        if not marked or rule.has_wildcards():
            continue
        params = params_without_job(rule)
        layers = params.get("layers", [])
        layer = params.get("layer") or ", ".join(layers)
        name = marked.labels.get("figure") or marked.labels["table"]
        file = Path(workflow.basedir) / f"workflow/report/{name}.rst"
        text = file.read_text(encoding="utf-8")
        try:
            caption = captions.from_string(text).render(snakemake={"params": params})
        except UndefinedError as error:
            raise WorkflowError(
                f"workflow/report/{name}.rst: {error}; a caption can use those params of rule "
                f"{rule.name} that need no wildcards, input or output: {', '.join(params)}"
            ) from None
        found[str(output)] = {
            "section": marked.category,
            "labels": marked.labels | ({"layer": layer} if layer else {}),
            "caption": caption,
        }
    return found


def pair_of(wildcards):
    """The pair of a job; of a target by name, the one that the configuration chooses."""
    return wildcards.get("pair", RUN.pair)


def of_pair(path, member=None):
    """Input function: `path` for the pair of a job, or for its first (0) or second (1) net."""

    def paths(wildcards):
        pair = pair_of(wildcards)
        return path.format(pair=pair, net=pair.split("-")[member or 0])

    return paths


def where_sgd(path):
    """Input function: `path` for the pair whose maps are fitted by SGD too, else nothing."""

    def paths(wildcards):
        asked = RUN.sgd_layers and wildcards.pair == RUN.pair
        return path.format(pair=wildcards.pair) if asked else []

    return paths
